#!/bin/bash
# shared.sh - runs at once in one store: each action is attempted once, the cores are shared, and when one of them is killed the other takes over.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
work=$(mktemp -d)
pids=()
clean_up() {
    local p
    for p in "${pids[@]}"; do kill -9 "$p" 2>/dev/null || true; done
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work"

fail() {
    echo "shared.sh: $1" >&2
    for f in "$work"/*.out "$work/log"; do [ ! -f "$f" ] || { echo "--- $f" >&2; cat "$f" >&2; }; done
    exit 1
}

# One line at the start, one at the end, each written whole; how long, a file says.
cat >slow.sh <<'X'
set -eu
echo "+ $WEIR_PARAM_NAME" >>"$WEIR_PARAM_OUTSIDE/log"
sleep "$(cat "$WEIR_PARAM_OUTSIDE/pause")"
echo "- $WEIR_PARAM_NAME" >>"$WEIR_PARAM_OUTSIDE/log"
echo "$WEIR_PARAM_NAME" >"$WEIR_OUTPUT_X"
X
pipeline() { # pipeline NAME LAST: common stages, and one of its own
    cat <<X
weir: 1
name: $1
params: {outside: "", salt: 0}
stages:
  common:
    run: [sh, slow.sh]
    code: [slow.sh]
    matrix: {name: [a, b, c, d, e, f]}
    outputs: [x]
    params: {name: "\${matrix.name}", salt: "\${params.salt}", outside: "\${params.outside}"}
    resources: {cpus: 1}
  all:
    run: [sh, slow.sh]
    code: [slow.sh]
    inputs: {all: "common[*].x"}
    outputs: [x]
    params: {name: $2, salt: "\${params.salt}", outside: "\${params.outside}"}
    resources: {cpus: 2}
X
}
pipeline one all >one.yaml
pipeline two other >two.yaml
echo 0.15 >pause
"$WEIR" init --quiet
printf 'slots: {cpus: 2}\n' >>.weir/config.yaml

salt=0
begin() { # begin FILE OUT: a run in the background
    "$WEIR" run "$1" --set "outside=$work" --set "salt=$salt" >"$2.out" 2>&1 &
    pids+=($!)
}
end() { # end PID: it must succeed
    local got=0
    wait "$1" || got=$?
    [ $got = 0 ] || fail "a run ended with $got"
}
expect_once() { # expect_once NAME...: each was begun and ended once
    [ "$(grep '^+' log | sort)" = "$(printf '+ %s\n' "$@" | sort)" ] || fail "not each action once"
    [ "$(grep '^-' log | sort)" = "$(printf -- '- %s\n' "$@" | sort)" ] || fail "not each action to its end"
}
expect_cores() { # never more at once than there are cores; 'all' and 'other' need both
    awk '{ need = $2 ~ /^(all|other)$/ ? 2 : 1; n += $1 == "+" ? need : -need; if (n > 2) exit 1 }' log ||
        fail "more at once than there are cores"
}
round() {
    salt=$((salt + 1))
    pids=()
    : >log
}

# ---- the same pipeline twice ----
round
begin one.yaml first
begin one.yaml second
end "${pids[0]}"
end "${pids[1]}"
expect_once a b c d e f all
expect_cores
grep -qh 'waits  run-' first.out second.out || fail "nobody says that it waits"
[ "$("$WEIR" runs --json | wc -l)" = 2 ] || fail "two commands at once are two runs"
[ "$(cat first.out second.out | grep -c ' done ')" = 7 ] || fail "who did what"

# ---- three at once, of two pipelines with common stages ----
round
begin one.yaml first
begin two.yaml second
begin one.yaml third
for p in "${pids[@]}"; do end "$p"; done
expect_once a b c d e f all other
expect_cores

# ---- one is killed: its attempts in progress go on, the rest is the other's ----
round
begin one.yaml first
until grep -q '^+' log; do sleep 0.01; done
begin one.yaml second
until grep -q 'waits' second.out; do sleep 0.01; done
kill -9 "${pids[0]}"
wait "${pids[0]}" 2>/dev/null || true
end "${pids[1]}"
expect_once a b c d e f all
expect_cores

# ---- and with its supervisors: what they were at is begun anew, nothing else ----
round
echo 0.4 >pause
begin one.yaml first
until [ "$(grep -c '^+' log)" = 2 ]; do sleep 0.01; done
begin one.yaml second
until grep -q 'waits' second.out; do sleep 0.01; done
mapfile -t mine < <(grep -l "^PPid:[[:space:]]${pids[0]}\$" /proc/[0-9]*/status 2>/dev/null | sed 's|/proc/||; s|/status||')
[ ${#mine[@]} -gt 0 ] || fail "no supervisors"
kill -9 "${pids[0]}" "${mine[@]}"
wait "${pids[0]}" 2>/dev/null || true
end "${pids[1]}"
[ "$(grep -c '^+' log)" = 9 ] || fail "7 actions, 2 of them begun twice"
[ "$(grep '^-' log | sort)" = "$(printf -- '- %s\n' a b c d e f all | sort)" ] || fail "each to its end once"

# ---- the killed one's command goes on with its run and finds all done ----
"$WEIR" run one.yaml --set "outside=$work" --set "salt=$salt" >again.out 2>&1 || fail "going on with it"
grep -q '^0 run, 7 reused' again.out || fail "something was done again"
grep -q 'went on' again.out || fail "a new run instead of the old one"
[ -z "$(ls .weir/tasks)" ] || fail "folders of attempts are left"
"$WEIR" fsck --quiet
echo "shared.sh: work, cores and what a dead run left are shared"
