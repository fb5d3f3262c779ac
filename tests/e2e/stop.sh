#!/bin/bash
# stop.sh - Ctrl-C once and twice, weir cancel of a run, of a task, and with --stop: what runs checkpoints and ends, or is left alone; the same
# command goes on with the same run and ends with the same bytes.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "stop.sh: $1" >&2
    [ ! -f "$work/out.txt" ] || cat "$work/out.txt" >&2
    exit 1
}

# Counts to {steps}; on SIGTERM it finishes the step, waits as long as the file slow says, and leaves.
cat >count.sh <<'X'
set -eu
stop=
trap 'stop=1' TERM
k=0
state=$WEIR_PARAM_NAME
if [ -n "${WEIR_RESUME:-}" ]; then
    k=${WEIR_RESUME##*step-}
    state=$(cat "$WEIR_RESUME")
fi
while [ "$k" -lt 20 ]; do
    k=$((k + 1))
    state=$(printf '%s %s' "$state" "$k" | sha256sum)
    state=${state%% *}
    sleep "$(cat "$WEIR_PARAM_OUTSIDE/pause")" || true
    echo "$state" >"$WEIR_CHECKPOINTS/new"
    mv "$WEIR_CHECKPOINTS/new" "$WEIR_CHECKPOINTS/step-$k"
    echo "{\"event\":\"checkpoint\",\"step\":$k,\"path\":\"$WEIR_CHECKPOINTS/step-$k\"}" >&3
    if [ -n "$stop" ]; then
        sleep "$(cat "$WEIR_PARAM_OUTSIDE/slow")" || true
        exit 75
    fi
done
echo "$WEIR_PARAM_NAME $state" >"$WEIR_OUTPUT_STATE"
X
cat >pipe.yaml <<'X'
weir: 1
name: stop
params: {outside: "", salt: 1}
stages:
  count:
    run: [sh, count.sh]
    code: [count.sh]
    matrix: {name: [a, b]}
    outputs: [state]
    params: {name: "${matrix.name}", salt: "${params.salt}", outside: "${params.outside}"}
  both:
    run: "cat {inputs.all}/* > {outputs.all}"
    inputs: {all: "count[*].state"}
    outputs: [all]
X
echo 0 >pause
echo 0 >slow
"$WEIR" init --quiet
printf 'slots: {cpus: 2}\n' >>.weir/config.yaml
"$WEIR" run pipe.yaml --quiet --set "outside=$work" >out.txt 2>&1 || fail "undisturbed"
"$WEIR" checkout both.all calm.txt --quiet >/dev/null
[ "$(wc -l <calm.txt)" = 2 ] || fail "undisturbed outputs"
echo 0.05 >pause

salt=1
command=()
start() { # in the background, until both tasks have a checkpoint
    salt=$((salt + 1))
    command=("$WEIR" run pipe.yaml --set "outside=$work" --set "salt=$salt")
    : >out.txt
    env --default-signal=INT "${command[@]}" >out.txt 2>&1 &
    pid=$!
    local i
    for ((i = 0; i < 500; i++)); do
        [ "$(find .weir/tasks -path '*/ckpt/step-*' 2>/dev/null | sed 's|/ckpt.*||' | sort -u | wc -l)" != 2 ] || return 0
        sleep 0.02
    done
    fail "the tasks make no checkpoints"
}
finish() { # finish STATUS: of what runs in the background
    local got=0
    wait "$pid" || got=$?
    pid=
    [ "$got" = "$1" ] || fail "it ended with $got, not $1"
}
go_on() { # the same command: the same run, from checkpoints, the same bytes
    local before
    before=$("$WEIR" runs --json | wc -l)
    "${command[@]}" >out.txt 2>&1 || fail "it does not go on"
    grep -q "run-$((salt + skipped)) went on" out.txt || fail "not the same run"
    [ "$("$WEIR" runs --json | wc -l)" = "$before" ] || fail "a new run"
    rm -f again.txt
    "$WEIR" checkout both.all again.txt --quiet >/dev/null
    cmp calm.txt again.txt || fail "other bytes than undisturbed"
    "$WEIR" store cat "runs/run-$((salt + skipped)):events" >events
}
skipped=0 # runs are numbered as salts are, from the second on

# ---- Ctrl-C once: checkpoint and stop ----
start
kill -INT "$pid"
finish 75
grep -q 'run-2 stopped; the same command goes on with it' out.txt || fail "what Ctrl-C says"
[ -z "$(ls .weir/tasks)" ] || fail "attempts run on after a stop"
"$WEIR" runs --json | head -n 1 | grep -q '"state":"stopped"' || fail "state of a stopped run"
go_on
grep -q '"event":"task.start".*"resume":[1-9]' events || fail "not from a checkpoint"

# ---- SIGTERM does the same ----
start
kill -TERM "$pid"
finish 75
go_on

# ---- twice: leave tasks running, and adopt them ----
echo 1 >slow
start
kill -INT "$pid"
sleep 0.2
kill -INT "$pid"
finish 75
grep -q 'left run-4 with its tasks running; the same command watches it again' out.txt || fail "what the second Ctrl-C says"
[ -n "$(ls .weir/tasks)" ] || fail "the tasks are gone"
go_on
grep -q 'goes on' out.txt || fail "they were not adopted"
echo 0 >slow

# ---- weir cancel --stop, from another process ----
start
"$WEIR" cancel --stop last >/dev/null
"$WEIR" cancel --stop last >/dev/null 2>&1 || true # twice is once
finish 75
go_on

# ---- weir cancel RUN TASK ----
start
"$WEIR" cancel run-6 'count[name=a]' >/dev/null
finish 1
grep -q 'count\[name=a\].*FAILED.*cancelled' out.txt || fail "a cancelled task"
grep -q 'count\[name=b\].*done' out.txt || fail "the other one goes on"
grep -q 'both .*blocked' out.txt || fail "blocked by the cancelled one"

# ---- weir cancel RUN: ended, and a new run goes on from the checkpoints ----
start
"$WEIR" cancel last >/dev/null
finish 1
grep -q 'run-7 was cancelled' out.txt || fail "what a cancelled run says"
"$WEIR" runs --json | head -n 1 | grep -q '"state":"cancelled"' || fail "state of a cancelled run"
"$WEIR" cancel last >err.txt 2>&1 && fail "cancelling what has ended"
"${command[@]}" >out.txt 2>&1 || fail "after a cancel"
grep -q '(run-8,' out.txt || fail "a cancelled run was gone on with"
"$WEIR" store cat runs/run-8:events >events
grep -q '"event":"task.start".*"resume":[1-9]' events || fail "after a cancel not from a checkpoint"

# ---- a stopped run keeps what it has, whatever gc does meanwhile ----
cat >kept.yaml <<'X'
weir: 1
name: kept
params: {outside: ""}
stages:
  one: {run: "echo 1 > {outputs.x}", outputs: [x]}
  two: {run: "sleep $(cat {params.outside}/pause); cat {inputs.i} > {outputs.x}", inputs: {i: one.x}, outputs: [x], params: {outside: "${params.outside}"}}
X
echo 100 >pause
: >out.txt
env --default-signal=INT "$WEIR" run kept.yaml --set "outside=$work" >out.txt 2>&1 &
pid=$!
until grep -q '^ one .*done' out.txt && [ -n "$(ls .weir/tasks)" ]; do sleep 0.02; done
kill -INT "$pid"
finish 75
echo 0 >pause
"$WEIR" store ls >refs.txt
grep -q 'running/run-9' refs.txt || fail "nothing keeps a stopped run"
"$WEIR" gc --quiet --grace 0s
"$WEIR" run kept.yaml --set "outside=$work" >out.txt 2>&1 || fail "after gc"
grep -q '^1 run, 1 reused.*(run-9 went on' out.txt || fail "gc took what a stopped run had made"
"$WEIR" store ls >refs.txt
grep -q 'running/' refs.txt && fail "what kept it is still there"

"$WEIR" fsck --quiet
echo "stop.sh: stopped, left, cancelled; and gone on with"
