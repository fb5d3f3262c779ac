#!/bin/bash
# demo.sh - what `make demo` shows once the packages are there: a store and a pipeline, from nothing, in seconds.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/run.sh build

bin=$PWD/build/bin
work=$PWD/build/demo
chmod -R u+w "$work" 2>/dev/null || true
rm -rf "$work"
mkdir -p "$work/pictures"
cd "$work"
PATH=$bin:$PATH
say() { printf '\n# %s\n' "$1"; }
show() { # show COMMAND...: print it, run it
    printf '$ %s\n' "$*"
    "$@"
}

for i in $(seq 300); do
    printf '{"id": %d, "caption": "picture %d of the demonstration", "width": %d}\n' "$i" "$i" $((i * 7)) >"pictures/$i.json"
done
head -c 4000000 /dev/urandom >pictures/large.bin
cat >demo.yaml <<'X'
weir: 1
name: demo
params: {seed: 7}
sources:
  pictures: {path: pictures, license: CC0-1.0}
stages:
  profile:
    run: "ls {inputs.images} | wc -l > {outputs.report}"
    inputs: {images: sources.pictures}
    outputs: [report]
  train:
    run: "echo model {params.variant} of $(cat {inputs.data}) pictures, seed {params.seed} > {outputs.model}"
    matrix: {variant: [base, realism]}
    inputs: {data: profile.report}
    outputs: [model]
    params: {variant: "${matrix.variant}", seed: "${params.seed}"}
  merge:
    run: "cat {inputs.models}/* > {outputs.model}"
    inputs: {models: "train[*].model"}
    outputs: [model]
X

say "A store beside the pipelines; a folder goes in, and costs nothing the second time."
show weir init
show weir store add pictures --ref data/pictures
show weir store add pictures
show weir store ls data/pictures:7.json -l
say "A pipeline: what has no result yet is run, the rest is reused."
show weir run demo.yaml
show weir run demo.yaml
say "One changed parameter: only what sees it runs again."
show weir run demo.yaml --set seed=8
show weir checkout merge.model merged.txt
show cat merged.txt
say "An input that changes without changing what is made of it stops the rerun there."
printf '{"id": 1, "caption": "another picture"}\n' >pictures/1.json
show weir run demo.yaml
say "Every byte is what its name says, and what nothing keeps can go."
show weir fsck
show weir gc --dry-run
show weir store stat
