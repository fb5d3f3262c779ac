#!/bin/bash
# kills.sh - one run of checkpointing stages whose orchestrator, supervisors and programs are killed again and again at random instants, the
# same command being typed anew each time: it ends, with the same bytes as undisturbed, and nothing is run again once it was done.
# KILLS: how many (200); SEED: of the choices.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
kills=${KILLS:-200}
seed=${SEED:-$RANDOM}
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
RANDOM=$seed

fail() {
    echo "kills.sh: $1 (SEED=$seed KILLS=$kills)" >&2
    [ ! -f "$work/out.txt" ] || tail -n 30 "$work/out.txt" >&2
    exit 1
}

# Counts to {steps}; what it makes of each step depends on all before, so that a lost or doubled step shows.
cat >count.sh <<'X'
set -eu
trap 'exit 75' TERM
k=0
if [ -n "${WEIR_INPUT_FROM:-}" ]; then
    state=$(sha256sum <"$WEIR_INPUT_FROM")
elif [ -n "${WEIR_INPUT_ALL:-}" ]; then
    state=$(cat "$WEIR_INPUT_ALL"/* | sha256sum)
else
    state=none
fi
state=$WEIR_PARAM_NAME.${state%% *}
if [ -n "${WEIR_RESUME:-}" ]; then
    k=${WEIR_RESUME##*step-}
    state=$(cat "$WEIR_RESUME/state")
fi
while [ "$k" -lt "$WEIR_PARAM_STEPS" ]; do
    k=$((k + 1))
    state=$(printf '%s %s' "$state" "$k" | sha256sum)
    state=${state%% *}
    sleep "$(cat "$WEIR_PARAM_OUTSIDE/pause")"
    rm -rf "$WEIR_CHECKPOINTS/new"
    mkdir "$WEIR_CHECKPOINTS/new"
    echo "$state" >"$WEIR_CHECKPOINTS/new/state"
    mv "$WEIR_CHECKPOINTS/new" "$WEIR_CHECKPOINTS/step-$k"
    echo "{\"event\":\"checkpoint\",\"step\":$k,\"path\":\"$WEIR_CHECKPOINTS/step-$k\"}" >&3
    echo "{\"event\":\"progress\",\"done\":$k,\"total\":$WEIR_PARAM_STEPS,\"unit\":\"steps\"}" >&3
done
if [ "$WEIR_PARAM_NAME" = once ] && [ ! -e "$WEIR_PARAM_OUTSIDE/failed" ]; then
    : >"$WEIR_PARAM_OUTSIDE/failed" # the first time this one fails at its end
    exit 3
fi
case $WEIR_PARAM_NAME in # the last ones wait until all the killing is done, however fast the machine
x | y) until [ -e "$WEIR_PARAM_OUTSIDE/go" ]; do sleep 0.02; done ;;
esac
echo "$WEIR_PARAM_NAME $state" >"$WEIR_OUTPUT_STATE"
X
cat >pipe.yaml <<'X'
weir: 1
name: kills
params: {outside: "", steps: 60}
defaults:
  resources: {cpus: 1}
  retries: {attempts: 100, backoff: 0s}
stages:
  first:
    run: [sh, count.sh]
    code: [count.sh]
    matrix: {name: [a, b, c, d]}
    outputs: [state]
    params: {name: "${matrix.name}", steps: "${params.steps}", outside: "${params.outside}"}
  middle:
    run: [sh, count.sh]
    code: [count.sh]
    matrix: {name: [a, b, c, d]}
    inputs: {from: "first[name=${matrix.name}].state"}
    outputs: [state]
    params: {name: "${matrix.name}", steps: "${params.steps}", outside: "${params.outside}"}
  join:
    run: [sh, count.sh]
    code: [count.sh]
    inputs: {all: "middle[*].state"}
    outputs: [state]
    params: {name: once, steps: "${params.steps}", outside: "${params.outside}"}
  last:
    run: [sh, count.sh]
    code: [count.sh]
    matrix: {name: [x, y]}
    inputs: {from: join.state}
    outputs: [state]
    params: {name: "${matrix.name}", steps: "${params.steps}", outside: "${params.outside}"}
X

make_store() { # make_store DIR PAUSE
    mkdir "$1"
    cp pipe.yaml count.sh "$1"
    echo "$2" >"$1/pause"
    (cd "$1" && "$WEIR" init --quiet)
    printf 'slots: {cpus: 3}\n' >>"$1/.weir/config.yaml"
}
outputs() { # outputs DIR: what all tasks made
    local t
    for t in first[name={a,b,c,d}] middle[name={a,b,c,d}] join last[name={x,y}]; do
        rm -rf one
        "$WEIR" checkout -C "$1" "$t.state" one --quiet >/dev/null
        echo "$t $(cat one)"
    done
}
find_all() { # find_all KIND: processes that belong to the disturbed run
    local f list=()
    case $1 in
    supervisor) mapfile -t list < <(grep -al "[w]eir-exec.--serve.$work/run/" /proc/[0-9]*/cmdline 2>/dev/null) ;;
    program) mapfile -t list < <(grep -al "[W]EIR_TASK_DIR=$work/run/" /proc/[0-9]*/environ 2>/dev/null) ;;
    esac
    for f in "${list[@]}"; do
        f=${f#/proc/}
        f=${f%/*}
        [ "$f" = self ] || [ "$f" = "$BASHPID" ] || echo "$f"
    done
}

make_store calm 0
touch calm/go
status=0
(cd calm && "$WEIR" run pipe.yaml --set "outside=$work/calm") >out.txt 2>&1 || status=$?
[ $status = 0 ] || fail "the undisturbed run ended with $status"
outputs calm >calm.txt

make_store run 0.05
cd run
start() {
    "$WEIR" run pipe.yaml --set "outside=$work/run" >>../out.txt 2>&1 &
    pid=$!
}
: >../out.txt
start
dead=0
declare -A count=([orchestrator]=0 [supervisor]=0 [program]=0)
while [ $dead -lt "$kills" ]; do
    sleep "0.$((RANDOM % 2))$((RANDOM % 10))"
    if ! kill -0 "$pid" 2>/dev/null; then
        status=0
        wait "$pid" || status=$?
        fail "it ended with $status after $dead kills"
    fi
    case $((RANDOM % 3)) in
    0) kind=orchestrator ;;
    1) kind=supervisor ;;
    *) kind=program ;;
    esac
    if [ $kind = orchestrator ]; then
        kill -9 "$pid"
        wait "$pid" 2>/dev/null || true
        start
    else
        mapfile -t victims < <(find_all $kind)
        [ ${#victims[@]} -gt 0 ] || continue
        kill -9 "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null || continue
    fi
    count[$kind]=$((count[$kind] + 1))
    dead=$((dead + 1))
done
echo 0 >pause
touch go
status=0
wait "$pid" || status=$?
pid=
cd ..
[ $status = 0 ] || fail "in the end it ended with $status"
outputs run >run.txt
cmp calm.txt run.txt || { diff calm.txt run.txt >&2; fail "other bytes than undisturbed"; }

# It was one run, and its events tell that nothing began again after it was done.
[ "$("$WEIR" runs -C run --json | wc -l)" = 1 ] || fail "it became several runs"
"$WEIR" store cat -C run runs/run-1:events >events
python3 - <<'X' || fail "what the events tell"
import json, collections
done, starts, resumed = set(), collections.Counter(), 0
for line in open("events"):
    e = json.loads(line)
    t = e.get("task")
    if e["event"] == "task.start":
        starts[t] += 1
        resumed += e["resume"] >= 0
        assert t not in done, t + " was started after its end"
    if e["event"] == "task.cached" or e["event"] == "task.end" and e["status"] == "done":
        assert t not in done or e["event"] == "task.cached", t + " ended twice"
        done.add(t)
assert len(starts) == 11, starts
assert resumed > 0, "no attempt went on from a checkpoint"
print("kills.sh: %d attempts at 11 tasks, %d of them from a checkpoint" % (sum(starts.values()), resumed))
X
"$WEIR" fsck -C run --quiet || fail "fsck"
"$WEIR" doctor -C run >doctor.txt 2>&1 || { cat doctor.txt >&2; fail "doctor"; }
# Nothing is left: no process, no folder of an attempt.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -n "$(find_all supervisor)$(find_all program)" ] || break
    sleep 0.1
done
[ -z "$(find_all supervisor)$(find_all program)" ] || fail "processes are left"
[ -z "$(ls run/.weir/tasks)" ] || { ls run/.weir/tasks >&2; fail "folders of attempts are left"; }
echo "kills.sh: ${count[orchestrator]} orchestrators, ${count[supervisor]} supervisors and ${count[program]} programs killed, and the same bytes"
