#!/bin/bash
# researcher.sh - everything that somebody does who trains models on one machine, from an empty folder on, with stages of a few lines of shell.
set -euo pipefail

weir=${WEIR:?path of the weir program}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-researcher.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
unset WEIR_DIR NO_COLOR COLUMNS TERM
export LC_ALL=C.UTF-8 GIT_CEILING_DIRECTORIES="$work"
PATH=$(dirname "$weir"):$PATH

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
    [ "$rc" = "$status" ] || fail "'$*' ended with $rc, not $status: $said"
    case $said in
    *"$text"*) ;;
    *) fail "'$*' did not say '$text' but: $said" ;;
    esac
}
lacks() { # lacks TEXT COMMAND...
    local text=$1 said
    shift
    said=$("$@" 2>&1) || fail "'$*' failed: $said"
    case $said in
    *"$text"*) fail "'$*' said '$text': $said" ;;
    esac
}
# until_true COMMAND...: it becomes true, in a minute at the latest
until_true() {
    for _ in $(seq 600); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "'$*' has not become true"
}
# field EXPRESSION: of the JSON lines at standard input, as python sees the list v of them
field() { python3 -c 'import json, sys; v = [json.loads(l) for l in sys.stdin]; print('"$1"')'; }
said_by() { grep -q "$1" "$2"; }

# ---- the project ---------------------------------------------------------------------------------

cd "$work"
mkdir -p project/pictures project/clips
cd project
printf 'a heart' >pictures/heart.png
printf 'a star' >pictures/star.png
printf 'a clip' >clips/clip.png
printf '%s\n' '{"path":"star.png","license":"CC0-1.0","attribution":"A. Star","url":"https://example.org/star"}' >records.jsonl
cat >score.sh <<'X'
set -e
echo "score of $(cat "$WEIR_INPUT_MODEL")" >"$WEIR_OUTPUT_REPORT"
X
cat >train.yaml <<'X'
weir: 1
name: train
params: {seed: 7, with_score: true}
profiles:
  long: {params: {seed: 70}}
sources:
  mine: {path: pictures, license: CC-BY-4.0, attribution: Our studio, records: records.jsonl}
  clips: {path: clips, license: MIT, attribution: C. Lips}
policy:
  licenses: {deny: [CC-BY-NC-4.0]}
stages:
  profile:
    run: "mkdir {outputs.dataset}; cat {inputs.images}/* {inputs.clips}/* > {outputs.dataset}/all"
    inputs: {images: sources.mine, clips: sources.clips}
    outputs: [dataset]
  pretrain:
    run: |
      echo training from {params.lr}
      for i in 1 2 3 4; do
        echo '{{"event":"progress","done":'$i',"total":4,"unit":"steps"}}' >&3
        echo '{{"event":"metric","step":'$i',"values":{{"loss":'{params.lr}',"eval.alignment":0.'$i'}}}}' >&3
      done
      (cat {inputs.data}/all; echo " lr "{params.lr}" seed "{params.seed}) > {outputs.model}
    inputs: {data: profile.dataset}
    outputs: [model]
    params: {lr: 1e-4, seed: "${params.seed}"}
  sft:
    run: "(cat {inputs.model}; echo \" \"{params.variant}) > {outputs.model}"
    matrix: {variant: [aesthetic, realism]}
    inputs: {model: pretrain.model}
    outputs: [model]
    params: {variant: "${matrix.variant}"}
  merge:
    run: "cat {inputs.models}/* > {outputs.model}"
    inputs: {models: "sft[*].model"}
    outputs: [model]
  score:
    run: [sh, score.sh]
    code: [score.sh]
    inputs: {model: merge.model}
    outputs: [report]
    when: "${params.with_score}"
publish:
  production: merge.model
X

step "init, the first run, and one that has nothing to do"
want 65 "no .weir" weir runs
want 65 "weir init" weir run train.yaml </dev/null
weir init --quiet
want 0 "nothing has been run here yet" weir runs
want 65 "nothing has run here yet" weir show
want 0 "0 cached, 1 to run, 5 that depend on them" weir run train.yaml --dry-run
want 0 "nothing has been run here yet" weir runs
want 0 "6 run, 0 reused  (run-1" weir run
want 0 "0 run, 6 reused  (run-2" weir run train.yaml
want 0 "merge                  cached" weir run train.yaml
want 0 "6 cached, 0 to run" weir run -n
weir ref ls | grep -q 'train/merge.model@production' || fail "publish has not moved"

step "what would run, and why"
want 0 "pretrain" weir plan --set stages.pretrain.params.lr=2e-4
want 0 "1 cached, 1 to run, 4 that depend" weir run --dry-run --set stages.pretrain.params.lr=2e-4
want 0 "params.lr" weir why pretrain --set stages.pretrain.params.lr=2e-4
[ "$(weir run --dry-run --json --set seed=8 | field 'v[-1]["run"]')" = 1 ] || fail "--dry-run --json"

step "one stage with another param; publish stays"
before=$(weir ref ls train/ --json | field 'v[0]["digest"]')
want 0 "1 run, 1 reused, 4 left out" weir run --only pretrain --set stages.pretrain.params.lr=2e-4
want 0 "pretrain" weir show
[ "$(weir show --json | field '[t["state"] for t in v[0]["list"] if t["task"] == "pretrain"][0]')" = "done" ] || fail "show --json of pretrain"
want 0 "left out" weir show
# What was made before counts: only what comes after the change runs.
want 0 "4 run, 2 reused" weir run --from pretrain --set stages.pretrain.params.lr=2e-4
want 0 "0 run, 1 reused, 5 left out" weir run --until profile
[ "$before" = "$(weir ref ls train/ --json | field 'v[0]["digest"]')" ] || fail "publish moved on an altered run"
want 0 "0 run, 6 reused" weir run --set stages.pretrain.params.lr=2e-4 --publish
[ "$before" != "$(weir ref ls train/ --json | field 'v[0]["digest"]')" ] || fail "--publish did not move"
want 0 "0 run, 6 reused" weir run
[ "$before" = "$(weir ref ls train/ --json | field 'v[0]["digest"]')" ] || fail "publish did not move back"

step "options of run"
printf 'seed: 9\n' >nine.yaml
want 0 "5 run, 1 reused" weir run --param-file nine.yaml
want 0 "0 run, 6 reused" weir run --set seed=9
want 0 "5 run, 1 reused" weir run --profile long
want 0 "1 skipped" weir run --set with_score=false
want 0 "1 run, 5 reused" weir run --force profile --jobs 1
want 0 "6 run, 0 reused" weir run --no-cache
want 64 "did you mean 'sft'" weir run --only stf
want 64 "did you mean 'profile'" weir run --force profil
want 64 "did you mean 'long'" weir run --profile lnog
want 64 "did you mean 'seed'" weir run --set sede=1
want 64 "did you mean" weir run --inptu x
want 64 "--jobs" weir run --jobs none
want 64 "TASK.INPUT=WHAT" weir run --input merge
want 64 "did you mean 'models'" weir run --input merge.model=pictures/heart.png
want 64 "did you mean 'merge'" weir run --input mrege.models=pictures/heart.png
want 64 "no entry [realsm]" weir run --input 'merge.models[realsm]=pictures/heart.png'
want 65 "No such file" weir run missing.yaml

step "another input: a tag, a ref, a digest, a file, an output of a run"
lr=$(weir runs --json | field '[r["run"] for r in v if r["ran"] == 4][0]')
weir tag "run-$lr" exp-12
want 0 "run-$lr" weir show @exp-12
want 0 "2 run, 3 reused, 1 left out" weir run --from merge --input 'merge.models[variant=realism]=@exp-12'
weir checkout merge.model swapped --quiet
grep -q "lr 0.0001 seed 7" swapped || fail "the entry that stays: $(cat swapped)"
grep -q "lr 0.0002" swapped || fail "the entry that was swapped: $(cat swapped)"
want 0 "0 run, 5 reused, 1 left out" weir run --from merge --input "merge.models[variant=realism]=run-$lr:sft[variant=realism].model"
digest=$(weir ref ls train/ --json | field 'v[0]["digest"]')
want 0 "0 run, 1 reused, 5 left out" weir run --only score --input "score.model=$digest" --set seed=11
want 0 "1 run" weir run --only score --input score.model=pictures/heart.png
want 0 "1 reused" weir run --only score --input score.model=train/merge.model@production
want 65 "neither a path, nor a ref" weir run --only score --input score.model=nothing
want 65 "run-999 has no output merge.model" weir run --only score --input score.model=run-999:merge.model

step "two runs side by side"
want 0 "params.lr" weir diff run-1 "run-$lr"
want 0 "0 tasks differ, 6 equal" weir diff run-1 run-2
weir diff run-1 "run-$lr" --json | field 'v[0]["task"]' >/dev/null
want 65 "run-999" weir diff run-1 run-999

step "logs, metrics"
want 0 "training from" weir logs pretrain
want 0 "training from" weir logs pretrain --run run-1
want 0 "run-2" weir logs pretrain --run run-2
want 65 "did you mean 'pretrain'" weir logs pretrian
want 65 "did you mean 'sft[variant=" weir logs sft
want 0 "eval.alignment" weir metrics pretrain
want 0 "+-------" weir metrics pretrain --plot
[ "$(weir metrics pretrain --metric eval.alignment --run 1 --json | field '[(p["step"], p["value"]) for p in v][-1]')" = "(4, 0.4)" ] || fail "metrics --json"
want 65 "did you mean 'loss'" weir metrics pretrain --metric los
want 65 "said nothing" weir metrics profile

step "sweep"
weir sweep pretrain --set stages.pretrain.params.lr=1e-4,5e-4 --set seed=7,8 --metric loss >out
[ "$(grep -c '^run-.*succeeded.*loss' out)" = 4 ] || fail "table of a sweep: $(cat out)"
weir sweep pretrain --list --set stages.pretrain.params.lr=1e-4,5e-4 --set seed=7,8 --metric loss --json >out
[ "$(grep '"metric"' out | field '[p["metric"] for p in v]')" = "[0.0001, 0.0005]" ] || fail "sweep --list --json: $(cat out)"
[ "$(python3 -c 'import json; [json.loads(l) for l in open("out")]; print("ok")')" = ok ] || fail "sweep --json is no JSON"
want 64 "did you mean 'pretrain'" weir sweep pretrian --set seed=1
want 64 "--set NAME=VALUE" weir sweep pretrain
want 64 "no param 'sede'" weir sweep pretrain --set sede=1,2

step "reproduce: equal"
want 0 "equal" weir reproduce run-1 --stage sft
want 0 "equal" weir reproduce run-1
[ "$(weir reproduce run-2 --json | field '{t["end"] for t in v}')" = "{'equal'}" ] || fail "reproduce --json"
want 65 "run-1 has no result of stf" weir reproduce run-1 --stage stf

step "reproduce: a stage that is not a function of its inputs"
cat >noisy.yaml <<'X'
weir: 1
name: noisy
params: {noise: ""}
stages:
  tree:
    run: "mkdir -p {outputs.o}/sub; echo same > {outputs.o}/a; cat {params.noise} > {outputs.o}/sub/b; echo same > {outputs.o}/z"
    outputs: [o]
    params: {noise: "${params.noise}"}
  tensors:
    run: |
      h='{{"w.a":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},"w.b":{{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}}}'
      (printf "\\$(printf %o ${{#h}})\0\0\0\0\0\0\0%s" "$h"; printf '\0\0\200\077\0\0\0\100'; printf '\200\077'; cat {params.noise}) > {outputs.model}
    outputs: [model]
    params: {noise: "${params.noise}"}
X
printf '\200\077' >"$work/noise" # 1.0 as bf16
want 0 "2 run" weir run noisy.yaml --set noise="$work/noise"
weir reproduce last >/dev/null
printf '\300\077' >"$work/noise" # 1.5
want 1 "o: sub/b: first different byte at 0" weir reproduce last
want 1 "model: tensor w.b, largest difference 0.5" weir reproduce last --stage tensors
want 1 "0 equal, 2 differ, 0 failed" weir reproduce last
rm "$work/noise"
want 1 "failed" weir reproduce last --stage tree

step "checkout with its papers, lineage, trace"
weir checkout profile.dataset leave/ --run 1
if ! [ -f leave/all ] || ! [ -f leave/weir-lineage.json ]; then fail "checkout of a folder"; fi
weir checkout merge.model models/ --run 1 --json | field 'v[0]["license"]' >licence
[ -f models/model ] || fail "checkout of a file into a folder"
[ "$(cat licence)" = "CC-BY-4.0 AND CC0-1.0 AND MIT" ] || fail "folded licence: $(cat licence)"
python3 - models/weir-lineage.json <<'X' || fail "weir-lineage.json"
import json, sys
v = json.load(open(sys.argv[1]))
assert v["weir"] == "lineage/1" and v["of"] == "merge" and v["output"] == "model", v
assert v["digest"].startswith("sha256:") and v["kind"] == "blob", v
nodes = {n["name"]: n for n in v["nodes"]}
assert set(nodes) == {"merge", "sft[variant=aesthetic]", "sft[variant=realism]", "pretrain", "profile", "sources.mine", "sources.clips"}, set(nodes)
assert nodes["pretrain"]["action"]["params"]["lr"] == 1e-4
assert all(n["key"].startswith("sha256:") for n in v["nodes"] if n["kind"] == "task")
mine = nodes["sources.mine"]
assert mine["license"] == "CC-BY-4.0" and mine["attribution"] == "Our studio", mine
assert mine["entry"]["time"].startswith("20") and [l["expression"] for l in mine["licenses"]] == ["CC0-1.0"], mine
assert "known" in v["begin"]["git"] and v["license"] == "CC-BY-4.0 AND CC0-1.0 AND MIT"
X
want 64 "write TASK.OUTPUT" weir checkout merge out2
want 65 "did you mean 'model'" weir checkout merge.modle out2
want 65 "did you mean 'merge'" weir checkout mrege.model out2 --run 1
want 0 "sources.mine" weir lineage score.report
want 0 "license: CC-BY-4.0 AND CC0-1.0 AND MIT" weir lineage score.report --run 1
weir lineage score --json | field 'len(v[0]["edges"])' >/dev/null
weir lineage merge.model --dot >lineage.dot
grep -q '"pretrain"' lineage.dot || fail "lineage --dot"
if command -v dot >/dev/null; then dot -Tsvg lineage.dot | grep -q '</svg>' || fail "Graphviz does not understand lineage --dot"; fi
want 0 "merge" weir trace pictures/heart.png
want 0 "sft[variant=realism]" weir trace --source clips
weir trace --source clips --json | field '{n["name"] for n in v[0]["nodes"]}' >/dev/null
want 65 "did you mean 'sources.clips'" weir trace --source clpis
want 65 "no kept run has used" weir trace train.yaml
want 64 "say what to trace" weir trace

step "policy: nothing leaves under a denied licence"
sed 's/license: MIT/license: CC-BY-NC-4.0/' train.yaml >denied.yaml
want 77 "CC-BY-NC-4.0" weir run denied.yaml
sed -e 's/deny: .*/deny: []}/' -e 's/name: train/name: free/' denied.yaml >free.yaml
want 0 "reused" weir run free.yaml
want 0 "CC-BY-NC-4.0" weir lineage merge.model
cat >parts.yaml <<'X'
weir: 1
name: parts
sources: {mine: {path: pictures, license: MIT}}
policy: {licenses: {deny: [GPL-3.0-only]}}
stages:
  data:
    run: |
      mkdir {outputs.d}
      echo '{{"licenses":[{{"expression":"MIT","source":"mine","pictures":1,"share":1}}]}}' > {outputs.d}/licenses.json
    inputs: {p: sources.mine}
    outputs: [d]
  train: {run: "echo model > {outputs.m}", inputs: {d: data.d}, outputs: [m]}
X
weir run parts.yaml --quiet
want 0 "license: MIT" weir lineage train.m

step "an artifact of another pipeline, by the ref that it publishes"
cat >user.yaml <<'X'
weir: 1
name: user
sources: {model: {artifact: train/merge.model@production, license: CC-BY-4.0}}
stages: {use: {run: "cat {inputs.m} > {outputs.o}", inputs: {m: sources.model}, outputs: [o]}}
X
want 0 "1 run" weir run user.yaml
weir checkout use.o used --quiet
grep -q "lr 0.0001 seed 7" used || fail "what the artifact held"
want 0 "run-" weir lineage use.o
weir lineage use.o | grep -q 'run-[0-9]*:sources.mine' || fail "lineage ends where the other pipeline begins: $(weir lineage use.o)"
want 0 "license: CC-BY-4.0 AND CC0-1.0 AND MIT" weir lineage use.o

step "what an artifact is said to be under does not launder it"
cat >launder.yaml <<'X'
weir: 1
name: launder
sources: {model: {artifact: free/merge.model@production, license: MIT}}
policy: {licenses: {deny: [CC-BY-NC-4.0]}}
stages: {use: {run: "cat {inputs.m} > {outputs.o}; echo >> {outputs.o}", inputs: {m: sources.model}, outputs: [o]}}
X
want 0 "1 run" weir run launder.yaml
want 77 "CC-BY-NC-4.0 is denied, from source run-" weir checkout use.o stolen
[ ! -e stolen ] || fail "a denied artifact left"
want 64 "did you mean" weir checkuot use.o stolen

step "failures, going on, and trying again"
cat >fails.yaml <<'X'
weir: 1
name: fails
params: {gate: ""}
stages:
  bad: {run: "cat {params.gate} > {outputs.o}", outputs: [o], params: {gate: "${params.gate}"}}
  after: {run: "cat {inputs.i} > {outputs.o}", inputs: {i: bad.o}, outputs: [o]}
  good: {run: "sleep 0.1; echo hi > {outputs.o}", outputs: [o]}
X
want 1 "1 failed, 1 not tried" weir run fails.yaml --keep-going --set gate="$work/gate"
failed=$(weir runs --limit 1 --json | field 'v[0]["run"]')
[ "$(weir show --json | field 'v[0]["state"]')" = failed ] || fail "state of a failed run"
want 0 "exit status" weir status
want 0 "No such file" weir logs bad
echo now >"$work/gate"
want 0 "2 run, 1 reused" weir retry "run-$failed"
want 0 "0 run, 3 reused" weir retry
want 65 "no run-999" weir retry run-999
want 65 "is no run" weir retry newest

step "a run seen from other terminals"
cat >slow.yaml <<'X'
weir: 1
name: slow
params: {gate: ""}
stages:
  wait:
    run: |
      echo first words
      echo '{{"event":"progress","done":1,"total":2,"unit":"steps"}}' >&3
      echo '{{"event":"metric","step":1,"values":{{"loss":0.5}}}}' >&3
      while [ ! -e {params.gate} ]; do sleep 0.05; done
      echo last words
      echo ok > {outputs.o}
    outputs: [o]
    params: {gate: "${params.gate}"}
  next: {run: "cat {inputs.i} > {outputs.o}", inputs: {i: wait.o}, outputs: [o]}
X
weir run slow.yaml --set gate="$work/slow" >run.out 2>&1 &
runner=$!
running() { weir status --json | field 'v[0]["running"] == 1 and "progress" in v[0]["list"][0]' | grep -q True; }
until_true running
want 0 "running" weir status
want 0 "50%  1/2 steps" weir status
want 0 "loss 0.5" weir status
want 0 "1 waits for its turn" weir status
want 0 "running" weir runs --limit 1
want 0 "loss" weir metrics wait
weir logs -f wait >follow.out 2>&1 &
follower=$!
until_true said_by 'first words' follow.out
want 75 "has not ended" weir rm last
touch "$work/slow"
wait $runner || fail "the slow run: $(cat run.out)"
wait $follower || fail "logs -f: $(cat follow.out)"
[ "$(cat follow.out)" = "$(printf 'first words\nlast words')" ] || fail "logs -f: $(cat follow.out)"
lacks "running" weir status
want 65 "nobody runs" weir cancel last

step "cancel, one task and a whole run; stop, and go on"
weir run slow.yaml --set gate="$work/never" >run.out 2>&1 &
runner=$!
until_true running
want 65 "did you mean 'wait'" weir cancel last wiat
want 64 "--stop is for whole runs" weir cancel last wait --stop
weir cancel last wait
rc=0
wait $runner || rc=$?
[ $rc = 1 ] || fail "a run with a cancelled task ended with $rc: $(cat run.out)"
weir run slow.yaml --set gate="$work/never" >run.out 2>&1 &
runner=$!
until_true running
weir cancel last --json | field 'v[0]["asked"]' | grep -qx cancel || fail "cancel --json"
rc=0
wait $runner || rc=$?
[ $rc = 1 ] || fail "a cancelled run ended with $rc: $(cat run.out)"
want 0 "cancelled" weir runs --limit 1
weir run slow.yaml --set gate="$work/later" >run.out 2>&1 &
runner=$!
until_true running
kill -INT $runner
rc=0
wait $runner || rc=$?
[ $rc = 75 ] || fail "Ctrl-C ended with $rc: $(cat run.out)"
want 0 "stopped" weir runs --limit 1
touch "$work/later"
want 0 "went on" weir run slow.yaml --set gate="$work/later"

step "the live view of a terminal"
cat >wide.yaml <<'X'
weir: 1
name: wide
params: {round: 0}
stages:
  work:
    run: |
      echo '{{"event":"progress","done":1,"total":2,"unit":"a very long name of a unit"}}' >&3
      echo '{{"event":"metric","step":1,"values":{{"evil\u001b[31m":0.5,"a-metric-with-a-long-name":1}}}}' >&3
      sleep 0.7
      echo {params.i} {params.round} > {outputs.o}
    matrix: {i: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
    outputs: [o]
    params: {i: "${matrix.i}", round: "${params.round}"}
    resources: {cpus: 1, memory: 1MiB}
X
cp .weir/config.yaml "$work/config.yaml"
echo 'slots: {cpus: 16}' >>.weir/config.yaml
if command -v script >/dev/null; then
    term() { # term COLUMNS COMMAND: as a terminal of that width shows it
        script -qec "stty rows 10 cols $1; export TERM=xterm; $2" /dev/null
    }
    term 60 "'$weir' run wide.yaml --jobs 12" >shown
    grep -q $'\e\[[0-9]*A' shown || fail "a terminal is not redrawn: $(cat -v shown)"
    grep -q '▶  50%' shown || fail "progress on a terminal"
    grep -q 'and . more; ' shown || fail "more tasks than lines"
    grep -q $'\e\[32m' shown || fail "no colour on a terminal"
    if grep -q $'evil\e' shown; then fail "a metric drives the terminal"; fi
    python3 - shown 60 <<'X' || fail "lines wider than the terminal"
import re, sys
text = open(sys.argv[1], encoding="utf-8").read().replace("\r", "")
drawn = [l for l in re.sub("\x1b\\[[0-9;]*[A-Za-z]", "", text).split("\n") if "▶" in l]
assert drawn, "nothing drawn"
assert max(map(len, drawn)) < int(sys.argv[2]), max(map(len, drawn))
X
    NO_COLOR=1 term 60 "'$weir' run wide.yaml --set round=1 --jobs 12" >shown
    if grep -q $'\e\[[0-9]*m' shown; then fail "NO_COLOR is not obeyed"; fi
fi
TERM=xterm weir run wide.yaml --set round=2 --jobs 12 >shown
if grep -q $'\e' shown; then fail "control sequences without a terminal"; fi
mv "$work/config.yaml" .weir/config.yaml
[ "$(grep -c ' done ' shown)" = 12 ] || fail "a plain line for each task: $(cat shown)"

step "many tasks that are cached take one line"
cat >many.yaml <<'X'
weir: 1
name: many
stages:
  m:
    run: [sh, -c, "echo {params.a}{params.b} > $WEIR_OUTPUT_O"]
    matrix: {a: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], b: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
    outputs: [o]
    params: {a: "${matrix.a}", b: "${matrix.b}"}
X
weir run many.yaml --quiet
[ "$(weir run many.yaml | wc -l)" = 1 ] || fail "110 cached tasks took more than a line"
want 0 "0 run, 110 reused" weir run many.yaml
want 0 "cached     110 tasks" weir show
[ "$(weir show --json | field '(v[0]["cached"], sum(t["state"] == "cached" and t["result"][:7] == "sha256:" for t in v[0]["list"]))')" = "(110, 110)" ] || fail "show --json of cached tasks"

step "stage programs by hand, doctor"
mkdir libexec
printf '#!/bin/sh\necho "by hand: $*"\n' >libexec/demo
chmod +x libexec/demo
want 0 "by hand: --in data=x --set a=1" env WEIR_LIBEXEC="$PWD/libexec" weir stage demo --in data=x --set a=1
want 65 "did you mean 'demo'" env WEIR_LIBEXEC="$PWD/libexec" weir stage deom
want 0 "chain intact" weir doctor
weir doctor --json | field '{d["state"] for d in v}' >/dev/null

step "tags and removal; gc frees what nothing keeps"
want 65 "letters, digits and" weir tag run-1 'a tag'
want 65 "no tag nope" weir show @nope
want 64 "did you mean 'weir runs'" weir rnus
want 0 "chain intact" weir doctor
mine=$(weir run train.yaml --set seed=123 --json | field 'v[-1]["run"]')
big=$(weir show "run-$mine" --json | field '[t["outputs"]["model"]["digest"] for t in v[0]["list"] if t["task"] == "merge"][0]')
weir store stat "$big" >/dev/null
weir rm "run-$mine"
want 65 "no run-$mine" weir show "run-$mine"
weir gc --quiet --grace 0s
want 65 "$big" weir store stat "$big"
weir rm "run-$lr" # its tag keeps what it made
weir gc --quiet --grace 0s
want 0 "0 run, 2 reused, 4 left out" weir run train.yaml --only pretrain --set stages.pretrain.params.lr=2e-4
weir fsck --quiet

step "the index and the ledger again, from the objects alone"
weir runs --limit 1000 --json | field 'sorted((r["run"], r["state"], r["cached"], r["ran"]) for r in v if r["state"] != "stopped")' >before
rm -r .weir/ledger .weir/index
weir store rebuild --quiet
weir runs --limit 1000 --json | field 'sorted((r["run"], r["state"], r["cached"], r["ran"]) for r in v)' >after
diff before after || fail "runs after a rebuild"
[ "$(weir show run-2 --json | field 'sum(t["state"] == "cached" for t in v[0]["list"])')" = 6 ] || fail "cached tasks after a rebuild"
want 0 "0 run, 6 reused" weir run train.yaml
want 0 "chain intact" weir doctor
weir fsck --quiet

step "another machine: push, pull"
weir push "$work/remote" --quiet
mkdir "$work/other"
cd "$work/other"
weir init --quiet
weir pull "$work/remote" --quiet
want 0 "run-1 " weir runs --limit 1000
want 0 "pretrain" weir show run-1
want 0 "cached" weir show run-2
want 0 "training from" weir logs pretrain --run 1
want 0 "training from" weir logs pretrain --run 2
want 0 "eval.alignment" weir metrics pretrain --run 1
want 0 "sources.mine" weir lineage merge.model --run 1
want 0 "merge" weir trace --source mine
want 0 "0 tasks differ, 6 equal" weir diff run-1 run-2
want 0 "equal" weir reproduce run-1 --stage pretrain
rm -r .weir/ledger # what the refs keep is enough
want 0 "run-1 " weir runs --limit 1000
want 0 "training from" weir logs pretrain --run 1
want 0 "0 tasks differ, 6 equal" weir diff run-1 run-2
mkdir "$work/third"
cd "$work/third"
weir init --quiet
printf 'weir: 1\nname: own\nstages: {a: {run: "echo mine > {outputs.o}", outputs: [o]}}\n' >own.yaml
want 0 "run-1," weir run own.yaml
want 0 "run-1 here is another one" weir pull "$work/remote"
want 0 "own" weir show run-1
want 0 "chain intact" weir doctor
want 0 "runs/run-1 on" weir push "$work/remote"
cd "$work/other"
want 0 "training from" weir logs pretrain --run 1
echo "researcher.sh: all good"
