#!/bin/bash
# plan.sh - what plan, why and diff say, against golden texts (tests/golden/plan/*.txt; WEIR_BLESS=1 rewrites them).
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}" "${WEIR_SRC:?set WEIR_SRC to the source folder}"
golden=$WEIR_SRC/tests/golden/plan
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

cat >pipe.yaml <<'X'
weir: 1
name: demo
params: {lr: 1e-4, extra: true}
sources:
  a: {path: a.txt, license: MIT}
  b: {path: b.txt, license: CC0-1.0}
stages:
  prep: {run: "cat {inputs.x} > {outputs.o}", inputs: {x: sources.a}, outputs: [o]}
  sft:
    run: "cat {inputs.d} > {outputs.m}; echo {params.lr} {params.v} >> {outputs.m}"
    code: [code.sh]
    matrix: {variant: [realism, aesthetic]}
    inputs: {d: prep.o}
    outputs: [m]
    params: {lr: "${params.lr}", v: "${matrix.variant}"}
  merge:
    run: "cat {inputs.all}/* > {outputs.m}"
    inputs: {all: ["sft[*].m", sources.b]}
    outputs: [m]
  extra: {run: "cp {inputs.m} {outputs.o}", inputs: {m: merge.m}, outputs: [o], when: "${params.extra}"}
  wide: {run: "echo {params.k} > {outputs.o}", matrix: {k: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}, params: {k: "${matrix.k}"}, outputs: [o]}
X
echo a >a.txt
echo b >b.txt
echo true >code.sh

bad=0
# say NAME STATUS COMMAND...: its text, with times and counts of milliseconds made equal, is tests/golden/plan/NAME.txt
say() {
    local name=$1 want=$2 got=0
    shift 2
    "$WEIR" "$@" >out.txt 2>&1 || got=$?
    [ "$got" = "$want" ] || { cat out.txt; echo "plan.sh: weir $* ended with $got, not $want" >&2; exit 1; }
    sed -E 's/\b([0-9]+m)?[0-9]+(\.[0-9])?s\b/TIME/g; s/ +TIME/ TIME/g; s/ +\?$/ ?/; s/commit [0-9a-f]{12}( with changes)?/commit SOME/g; s/, commit SOME//' \
        out.txt >"$name.txt"
    if [ "${WEIR_BLESS:-0}" = 1 ]; then
        mkdir -p "$golden"
        cp "$name.txt" "$golden/$name.txt"
    elif ! diff -u "$golden/$name.txt" "$name.txt"; then
        echo "plan.sh: weir $* says something else than $golden/$name.txt" >&2
        bad=1
    fi
}

"$WEIR" init --quiet
say plan-fresh 0 plan
say why-fresh 0 why prep
say why-waits 0 why merge
"$WEIR" run --quiet pipe.yaml
say plan-cached 0 plan
say why-cached 0 why 'sft[variant=realism]'
say plan-set 0 plan --set lr=2e-4
say plan-explain 0 plan --explain --set lr=2e-4 --set extra=false
say plan-only 0 plan --only 'sft[variant=realism]' --set lr=2e-4
say plan-from 0 plan --from merge
say plan-force 0 plan --force prep --until sft
say plan-input 0 plan --input 'merge.all[variant=realism]=a.txt'
say plan-json 0 plan --json --only prep --set lr=2e-4
say plan-unknown 64 plan --only sfd
say plan-unknown-value 64 plan --only 'sft[variant=realsm]'
say why-set 0 why 'sft[variant=realism]' --set lr=2e-4
say why-json 0 why 'sft[variant=realism]' --set lr=2e-4 --json
say why-several 64 why sft
say why-skipped 0 why extra --set extra=false
echo false >code.sh
say why-code 0 why 'sft[variant=realism]'
echo true >code.sh
echo bb >b.txt
say why-source 0 why merge
sed -i 's/\[realism, aesthetic\]/[aesthetic, realism]/' pipe.yaml
say why-order 0 why merge
sed -i 's/^  prep:/  other:/; s/prep\.o/other.o/' pipe.yaml
say plan-renamed 0 plan
sed -i 's/^  other:/  prep:/; s/other\.o/prep.o/; s/\[aesthetic, realism\]/[realism, aesthetic]/' pipe.yaml
"$WEIR" run --quiet pipe.yaml --set lr=2e-4
say diff 0 diff run-1 run-2
say diff-same 0 diff 2 2
say diff-unknown 65 diff 1 99
[ $bad = 0 ] || exit 1
echo "plan.sh: plan, why and diff say what they should"
