#!/bin/bash
# extend.sh - a program that declares its steps as extending: raised, they go on from the old checkpoint and end as a fresh run would; lowered, or
# with any other param changed, nothing stale is picked up.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "extend.sh: $1" >&2
    [ ! -f out.txt ] || cat out.txt >&2
    exit 1
}

# An installation of its own, with one more program that ships with it.
mkdir -p bin libexec/weir
cp "$WEIR" bin/weir
cp "$(dirname "$WEIR")/../libexec/weir/weir-exec" libexec/weir/
weir=$work/bin/weir
cat >libexec/weir/train <<'X'
#!/bin/sh
set -eu
if [ "${1:-}" = --describe ]; then
    cat <<'Y'
{"contract":1,"inputs":{},"outputs":{"model":{}},"numeric":false,"libraries":{},
 "params":{"steps":{"type":"int","default":10,"min":1,"extends":true,"help":"how many in all"},
           "seed":{"type":"int","default":7,"help":"where it begins"}}}
Y
    exit 0
fi
k=0
state=seed$WEIR_PARAM_SEED
if [ -n "${WEIR_RESUME:-}" ]; then
    k=${WEIR_RESUME##*step-}
    state=$(cat "$WEIR_RESUME")
fi
echo "from $k"
while [ "$k" -lt "$WEIR_PARAM_STEPS" ]; do
    k=$((k + 1))
    state=$(printf '%s %s' "$state" "$k" | sha256sum)
    state=${state%% *}
    if [ $((k % 4)) = 0 ] || [ "$k" = "$WEIR_PARAM_STEPS" ]; then
        echo "$state" >"$WEIR_CHECKPOINTS/new"
        mv "$WEIR_CHECKPOINTS/new" "$WEIR_CHECKPOINTS/step-$k"
        echo "{\"event\":\"checkpoint\",\"step\":$k,\"path\":\"$WEIR_CHECKPOINTS/step-$k\"}" >&3
    fi
done
echo "$state" >"$WEIR_OUTPUT_MODEL"
X
chmod +x libexec/weir/train
for dir in one fresh; do
    mkdir $dir
    cat >$dir/pipe.yaml <<'X'
weir: 1
name: extend
params: {steps: 10, seed: 7}
stages:
  train: {uses: train, outputs: [model], params: {steps: "${params.steps}", seed: "${params.seed}"}}
X
    (cd $dir && "$weir" init --quiet)
done

train() { # train DIR FROM OPTIONS...: it must run, and begin at step FROM
    local dir=$1 from=$2
    shift 2
    (cd "$dir" && "$weir" run pipe.yaml "$@") >out.txt 2>&1 || fail "it ends badly"
    grep -q '^1 run, 0 reused' out.txt || fail "it was not run"
    [ "$(cd "$dir" && "$weir" logs train)" = "from $from" ] || fail "it began at '$(cd "$dir" && "$weir" logs train)', not $from"
    rm -f "$dir.model"
    (cd "$dir" && "$weir" checkout train.model "../$dir.model" --quiet) >/dev/null
}

train one 0
train one 10 --set steps=25 # on from the end
cp one.model long
train fresh 0 --set steps=25
cmp long fresh.model || fail "extended, it is not what a fresh run makes"
train one 0 --set steps=11 # those that are kept are past its end
train one 11 --set steps=13 # and have not displaced its own
train one 0 --set seed=8    # another action
train one 10 --set seed=8 --set steps=12
(cd one && "$weir" run pipe.yaml --set steps=25) >out.txt 2>&1
grep -q '^0 run, 1 reused' out.txt || fail "what was extended has a result"
(cd one && "$weir" fsck --quiet) || fail "fsck"
echo "extend.sh: raised steps go on and end as fresh ones"
