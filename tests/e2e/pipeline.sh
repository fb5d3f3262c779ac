#!/bin/bash
# pipeline.sh - weir check, graph and schema, as somebody types them who is writing a pipeline.
set -euo pipefail

weir=${WEIR:?path of the weir program}
src=${WEIR_SRC:?path of the source tree}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-pipeline.XXXXXX")
trap 'rm -rf "$work"' EXIT
unset WEIR_DIR NO_COLOR COLUMNS
export LC_ALL=C

step() { echo "== $*"; }
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# want STATUS TEXT COMMAND...: ends with that status and says that text somewhere
want() {
    local status=$1 text=$2 rc=0 said
    shift 2
    said=$("$@" 2>&1) || rc=$?
    if [ "$rc" != "$status" ]; then
        fail "'$*' ended with $rc, not $status: $said"
    fi
    case $said in
    *"$text"*) ;;
    *) fail "'$*' did not say '$text' but: $said" ;;
    esac
}

cd "$work"
mkdir project
cd project

step "which file"
want 65 "no *.yaml there has a line 'weir: 1'" "$weir" check
echo 'services: {}' >compose.yaml
want 65 "name one" "$weir" check
cp "$src/tests/golden/pipeline/example.yaml" train.yaml
want 0 "z-image-small: 5 stages, 8 tasks, 4 sources, 1 profile: no problems" "$weir" check
want 0 "no problems" "$weir" check train.yaml
want 64 "too many arguments" "$weir" check train.yaml compose.yaml
want 65 "No such file" "$weir" check nothing.yaml
cp train.yaml second.yaml
want 64 "several pipelines are here, second.yaml and train.yaml" "$weir" check
rm second.yaml

step "options"
want 0 "8 tasks (1 skipped)" "$weir" check --set with_score=false
want 64 "--set sede=8: the pipeline has no param 'sede'; did you mean 'seed'?" "$weir" check --set sede=8
want 64 "no profile 'h10'; did you mean 'h100'?" "$weir" check --profile h10
echo 'steps: 5' >small.yaml
said=$("$weir" check --json --profile h100 --param-file small.yaml --set seed=9 --set stages.sft.params.seed=1)
case $said in
*'"params":{"seed":9,"steps":5,"with_score":true}'*) ;;
*) fail "layers are not laid over each other: $said" ;;
esac
if [ "$(echo "$said" | wc -l)" != 1 ]; then
    fail "--json is more than a line"
fi

step "mistakes, all in one pass, exit 65"
sed -e 's/device: cpu /device: gpu /' -e 's/license: MIT/licence: MIT/' -e 's/merge.model$/merge.modle/' train.yaml >wrong.yaml
rc=0
"$weir" check wrong.yaml >out 2>err || rc=$?
if [ $rc != 65 ] || [ -s out ]; then
    fail "mistakes end with $rc, or go to stdout"
fi
cat >expected <<'END'
wrong.yaml:24:5: unknown key 'licence' in source fashion; did you mean 'license'?
wrong.yaml:55:13: device is cpu or cuda, not 'gpu'
wrong.yaml:82:15: 'merge.modle': stage merge has no output 'modle'; did you mean 'model'?
weir: error: wrong.yaml: 3 problems
END
diff expected err || fail "the messages are others"
rc=0
"$weir" check wrong.yaml --json >out 2>err || rc=$?
if [ $rc != 65 ] || [ "$(grep -c '^{"problem":{"column":' out)" != 3 ] || [ "$(grep -c '^{"error":' out)" != 1 ]; then
    fail "--json tells mistakes otherwise: $(cat out)"
fi
sed 's/device: cuda,/device: cudo,/' train.yaml >wrong.yaml
want 65 "wrong.yaml: 1 problem, with --profile h100" "$weir" check wrong.yaml
printf 'weir: 1\nname: "\\e[31m"\nstages: {a: {run: "true", outputs: [o]}}\n' >wrong.yaml
if "$weir" check wrong.yaml 2>&1 | grep -q $'\e'; then
    fail "a name drives the terminal"
fi
rm wrong.yaml

step "pictures"
want 0 "│ sft ×4 │" "$weir" graph
want 0 "   3  sft ×4 ← profile, pretrain" env COLUMNS=30 "$weir" graph train.yaml
want 0 '"profile" -> "pretrain" [label="dataset → data"];' "$weir" graph --format dot
want 0 '{"kind":"source","layer":0,"name":"noto-emoji"' "$weir" graph --json
want 64 "--format is text, dot or svg, not 'png'" "$weir" graph --format png
want 64 "1 problem" "$weir" graph train.yaml --set seed=x --set steps=1 --format dot
mkdir bin none
cat >bin/dot <<'END'
#!/bin/sh
[ "$1" = -Tsvg ] && sed -n 1p
END
chmod +x bin/dot
want 0 'digraph "z-image-small" {' env PATH="$PWD/bin:$PATH" "$weir" graph --format svg
printf '#!/bin/sh\nexit 3\n' >bin/dot
want 1 "status 3" env PATH="$PWD/bin:$PATH" "$weir" graph --format svg
want 69 "apt-get install graphviz" env PATH="$PWD/none" "$weir" graph --format svg
if dot=$(command -v dot); then
    "$weir" graph --format svg >graph.svg
    grep -q '</svg>' graph.svg || fail "$dot does not understand the graph"
fi

step "schema"
"$weir" schema >schema.json
grep -q '"https://json-schema.org/draft/2020-12/schema"' schema.json || fail "it names no draft"
if [ "$("$weir" schema --json | wc -l)" != 1 ]; then
    fail "--json is more than a line"
fi
want 64 "too many arguments" "$weir" schema train.yaml

step "help"
for command in check graph schema; do
    want 0 "Example:" "$weir" "$command" --help
done
echo "all good"
