#!/bin/bash
# thread.sh - one thin thread through all floors: YAML, tasks, action keys, store, supervised programs, outputs checked out.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "thread.sh: $1" >&2
    exit 1
}
status() { # status N COMMAND...: it must end with that status
    local want=$1 got=0
    shift
    "$@" >out.txt 2>err.txt || got=$?
    [ "$got" = "$want" ] || { cat out.txt err.txt; fail "'$*' ended with $got, not $want"; }
}

mkdir pictures
for i in 1 2 3; do echo "picture $i" >"pictures/$i.txt"; done
cat >count.sh <<'X'
set -e
echo counting "$WEIR_INPUT_PICTURES"
mkdir "$WEIR_OUTPUT_REPORT"
ls "$WEIR_INPUT_PICTURES" | wc -l >"$WEIR_OUTPUT_REPORT/count"
printf '%s\n' "$WEIR_PARAM_SCALE" >"$WEIR_OUTPUT_REPORT/scale"
echo '{"event":"progress","done":1,"total":1,"unit":"files"}' >&3
X
cat >pipe.yaml <<'X'
weir: 1
name: thin
params: {scale: 2, extra: true}
sources:
  mine: {path: pictures, license: CC-BY-4.0}
stages:
  profile:
    run: [sh, count.sh]
    code: [count.sh]
    inputs: {pictures: sources.mine}
    outputs: [report]
    params: {scale: "${params.scale}"}
  train:
    run: "cat {inputs.data}/count > {outputs.model}; echo {params.variant} seed {params.seed} >> {outputs.model}"
    matrix: {variant: [a, b]}
    inputs: {data: profile.report}
    outputs: [model]
    params: {variant: "${matrix.variant}", seed: "o'clock $HOME"}   # quoted for sh, whatever is in it
  merge:
    run: "for i in $(ls {inputs.models}); do cat {inputs.models}/$i; done > {outputs.model}"
    inputs: {models: "train[*].model"}
    outputs: [model]
  extra:
    run: [cp, "{inputs.m}", "{outputs.copy}"]
    inputs: {m: merge.model}
    outputs: [copy]
    when: "${params.extra}"
X

"$WEIR" init --quiet
status 0 "$WEIR" run pipe.yaml
grep -q '^5 run, 0 reused' out.txt || { cat out.txt; fail "first run"; }
"$WEIR" checkout merge.model merged
printf '%s\n' 3 "a seed o'clock \$HOME" 3 "b seed o'clock \$HOME" | diff - merged || fail "what merge made"
"$WEIR" checkout 'train[variant=b].model' b.txt
[ "$(head -n1 b.txt)" = 3 ] || fail "instance of a matrix"

status 0 "$WEIR" run pipe.yaml
grep -q '^0 run, 5 reused' out.txt || { cat out.txt; fail "second run reuses all"; }

# A param of one stage: its report differs, so both trainings run; their models come out as before, and the rerun stops there.
status 0 "$WEIR" run pipe.yaml --set scale=3
grep -q '^3 run, 2 reused' out.txt || { cat out.txt; fail "a changed param"; }
# Touching a file or renaming the folder's time changes nothing.
touch pictures/1.txt
status 0 "$WEIR" run pipe.yaml
grep -q '^0 run, 5 reused' out.txt || { cat out.txt; fail "touched input"; }
# A changed input whose derived output is the same stops the rerun there (early cut-off).
echo "another picture 1" >pictures/1.txt
status 0 "$WEIR" run pipe.yaml
grep -q '^1 run, 4 reused' out.txt || { cat out.txt; fail "early cut-off"; }
status 0 "$WEIR" run pipe.yaml --set extra=false
grep -q '1 skipped' out.txt || { cat out.txt; fail "when"; }

# Everything a run keeps survives a gc without grace; what nothing keeps goes.
"$WEIR" gc --quiet --grace 0s
"$WEIR" checkout merge.model again
cmp merged again || fail "gc took something that a run keeps"
"$WEIR" fsck --quiet

# Failures say what, why and where the log is, and change nothing.
cat >bad.yaml <<'X'
weir: 1
name: bad
stages:
  fails: {run: "echo to the log; exit 3", outputs: [x]}
  needs: {run: "cp {inputs.i} {outputs.o}", inputs: {i: fails.x}, outputs: [o]}
  empty: {run: "true", outputs: [x]}
  good: {run: "echo hi > {outputs.x}", outputs: [x]}
X
status 1 "$WEIR" run bad.yaml -k
grep -q 'fails .*exit status 3' out.txt || fail "reason of a failure"
grep -q 'needs .*blocked' out.txt || fail "blocked by a failure"
grep -q "empty .*output 'x' is not there" out.txt || fail "missing output"
grep -q 'good .*done' out.txt || fail "keep going"
grep -q '| to the log' out.txt || fail "the end of a failed task's log"
"$WEIR" logs fails | grep -qx 'to the log' || fail "log of a failure"
"$WEIR" fsck --quiet

# A stage that changes its input must not hurt the store, and is told.
head -c 2000000 /dev/zero >pictures/big.bin
cat >vandal.yaml <<'X'
weir: 1
name: vandal
sources: {mine: {path: pictures, license: MIT}}
stages:
  vandal: {run: "chmod u+w {inputs.p}/big.bin 2>/dev/null; echo x >> {inputs.p}/big.bin || true; echo done > {outputs.x}", inputs: {p: sources.mine}, outputs: [x]}
X
got=0
"$WEIR" run vandal.yaml >out.txt 2>err.txt || got=$?
case $got in
0) ;; # it worked on a copy, or behind a read-only mount
1) grep -q 'changed its input' out.txt || { cat out.txt; fail "vandal's reason"; } ;;
*) cat out.txt err.txt; fail "vandal ended with $got" ;;
esac
"$WEIR" store add --quiet pictures >/dev/null
"$WEIR" fsck --quiet

# Killed in the middle, the same command goes on.
cat >slow.yaml <<'X'
weir: 1
name: slow
stages:
  one: {run: "echo 1 > {outputs.x}", outputs: [x]}
  two: {run: "sleep 0.5; cat {inputs.i} > {outputs.x}", inputs: {i: one.x}, outputs: [x]}
X
rm out.txt
"$WEIR" run slow.yaml >out.txt 2>&1 &
pid=$!
until [ -s out.txt ] || ! kill -0 $pid; do :; done
kill -9 $pid 2>/dev/null || true
wait $pid || true
sleep 0.8 # its supervisor outlives it and commits
status 0 "$WEIR" run slow.yaml
grep -q 'one .*cached' out.txt || { cat out.txt; fail "work before the kill is lost"; }
"$WEIR" fsck --quiet

# Events of more bytes than one record of the store takes: params are part of them.
cat >wide.yaml <<'X'
weir: 1
name: wide
params: {text: []}
stages:
  t:
    run: [sh, -c, "echo {params.k} > $WEIR_OUTPUT_X"]
    matrix: {i: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14], k: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]}
    outputs: [x]
    params: {k: "${matrix.i} ${matrix.k}", list: "${params.text}"}
X
{ printf 'text: ['; for _ in $(seq 100); do printf '"%01000d", ' 0; done; printf ']\n'; } >wide.params
status 0 "$WEIR" run wide.yaml --param-file wide.params
grep -q '^196 run, 0 reused' out.txt || { cat out.txt; fail "a run with many bytes of events"; }
[ "$("$WEIR" show --json | wc -c)" -gt 1000 ] || fail "it cannot be shown"
"$WEIR" fsck --quiet

status 65 "$WEIR" run missing.yaml
printf 'weir: 1\nname: x\nstages:\n  a: {run: "true", outputs: [o], inptus: {}}\n' >typo.yaml
status 65 "$WEIR" run typo.yaml
grep -q "typo.yaml:4:34: unknown key 'inptus'.*did you mean 'inputs'" err.txt || { cat err.txt; fail "message with place and hint"; }
echo "thread.sh: one thread through all floors holds"
