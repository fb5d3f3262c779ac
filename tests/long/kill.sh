#!/bin/bash
# kill.sh - 1000 kills at random moments, twice: of threads of work in one program (tests/fault/kill_test.c), and of the weir commands.
#
# Several commands run at once on one store: adds, a compaction, a gc without grace, a push, a get.  One or all of them are killed after
# a random while.  What a command had reported before is a promise: its ref holds exactly that folder.  A ref whose add was killed may hold
# the one before or the new one, whole.  After each batch: store check, fsck, every promise compared with its source, and a push and
# pull of everything into an empty store compared as well.
# WEIR_SEED repeats a run as far as the scheduler does, WEIR_KILLS changes its length.
set -euo pipefail

: "${WEIR:?set WEIR to the weir program}"
: "${WEIR_BUILD:?set WEIR_BUILD to the build folder}"
seed=${WEIR_SEED:-$(date +%s)}
kills=${WEIR_KILLS:-1000}
batch=40
adders=3
names=4
sources=12
unset WEIR_DIR WEIR_FAULT WEIR_LOSE

work=$(mktemp -d "${TMPDIR:-/tmp}/weir-kill.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
store=$work/store
RANDOM=$((seed % 32768))
exec 3>&2 2>/dev/null # what the shell says about each child that was killed
echo "seed $seed, $kills kills"

fail() {
    echo "kill: $*" >&3
    tail -n 5 "$work"/said.* >&3 || true
    exit 1
}

must() { # must WHAT COMMAND...
    local what=$1
    shift
    "$@" >"$work/said.must" 2>&1 || fail "$what"
}

# ---- sources: few, so that what a gc has deleted comes back ------------------------------------------------------------

noise() { # noise SEED BYTES
    openssl enc -aes-128-ctr -nosalt -pass "pass:$1" -md sha256 </dev/zero 2>/dev/null | head -c "$2" || true
}

for ((i = 0; i < sources; i++)); do
    mkdir -p "$work/src/$i/deep"
    for ((k = 0; k < 20; k++)); do
        printf '{"id": %d, "caption": "picture %d of %d"}\n' "$k" "$((k * (i % 3)))" "$i" >"$work/src/$i/deep/$k.json"
    done
    noise "$((i % 4))" 1200000 >"$work/src/$i/model.bin" # some share it
    noise "small $i" 30000 >"$work/src/$i/small.bin"
done

# ---- commands ----------------------------------------------------------------------------------------------------------

declare -A promised # ref -> source number
declare -A maybe    # ref -> other source numbers that it may hold, since their add was killed
declare -A started  # pid -> what
killed=0
reported=0

start() { # start WHAT COMMAND...
    local what=$1 pid
    shift
    "$@" >"$work/said.${what%% *}" 2>&1 &
    pid=$!
    started[$pid]=$what
}

start_all() {
    local a ref source
    for ((a = 0; a < adders; a++)); do
        ref=a$a/$((RANDOM % names))
        source=$((RANDOM % sources))
        maybe[$ref]+=" $source"
        start "add$a $ref $source" "$WEIR" -C "$store" store add --quiet --ref "$ref" "$work/src/$source"
    done
    start pack "$WEIR" -C "$store" store pack --quiet --cold 0s
    start gc "$WEIR" -C "$store" gc --quiet --grace 0s
    start push "$WEIR" -C "$store" push --quiet "$work/far"
    rm -rf "$work/got"
    start get "$WEIR" -C "$store" store get --quiet always "$work/got"
}

# ended STATUS WHAT: a command that was not killed has done its work, or says that others were faster
ended() {
    local status=$1 what ref source
    read -r what ref source <<<"$2"
    case $what:$status in
    *:137) killed=$((killed + 1)) ;;
    add*:0)
        promised[$ref]=$source
        maybe[$ref]=
        reported=$((reported + 1))
        ;;
    get:0) same "$work/got" always ;;
    *:0) ;;
    gc:75 | pack:75) ;; # the other one holds the lock, or too many commits
    add*:65) grep -q 'gc' "$work/said.$what" || fail "$2 ended with $status" ;;
    push:65 | push:75) ;; # with no grace, what it was to push may be gone
    *) fail "$2 ended with $status" ;;
    esac
}

pause() { # up to 25 ms: about as long as a command takes
    sleep "0.$(printf '%04d' $((RANDOM % 250)))"
}

round() {
    local pid pids status victim
    started=()
    start_all
    pids=("${!started[@]}")
    pause
    if [ $((RANDOM % 4)) = 0 ]; then
        kill -9 "${pids[@]}" 2>/dev/null || true
    else
        for ((victim = 0; victim < 3; victim++)); do
            kill -9 "${pids[RANDOM % ${#pids[@]}]}" 2>/dev/null || true
        done
    fi
    for pid in "${pids[@]}"; do
        status=0
        wait "$pid" 2>/dev/null || status=$?
        ended "$status" "${started[$pid]}"
    done
}

# ---- what must hold ----------------------------------------------------------------------------------------------------

same() { # same FOLDER SOURCE
    diff -r "$work/src/$2" "$1" >"$work/said.diff" 2>&1
}

# whole STORE REF WHEN: the ref holds what was promised, or what was being added when it was killed
whole() {
    local ref=$2 source
    rm -rf "$work/out"
    must "$3: get $ref" "$WEIR" -C "$1" store get --quiet "$ref" "$work/out"
    for source in ${promised[$ref]-} ${maybe[$ref]-}; do
        if same "$work/out" "$source"; then
            promised[$ref]=$source
            maybe[$ref]=
            return
        fi
    done
    fail "$3: $ref holds something else than was promised"
}

known() { "$WEIR" -C "$1" ref ls --quiet | grep -q "^$2[[:space:]]"; }

verify() {
    local ref
    must "store check" "$WEIR" -C "$store" store check --quiet
    must "fsck" "$WEIR" -C "$store" fsck --quiet --logical
    for ref in "${!maybe[@]}"; do
        if [ -n "${promised[$ref]-}" ] || known "$store" "$ref"; then
            whole "$store" "$ref" "after $killed kills"
        fi
    done
    must "push" "$WEIR" -C "$store" push --quiet "$work/far"
    rm -rf "$work/fresh"
    must "init" "$WEIR" init --quiet "$work/fresh"
    must "pull" "$WEIR" -C "$work/fresh" pull --quiet "$work/far"
    for ref in "${!promised[@]}"; do
        whole "$work/fresh" "$ref" "pulled after $killed kills"
    done
    must "fsck of what was pulled" "$WEIR" -C "$work/fresh" fsck --quiet --logical
    chmod -R u+w "$work/far"
    rm -rf "$work/far" # it never forgets, and would grow
}

WEIR_KILLS=$kills WEIR_SEED=$seed "$WEIR_BUILD/tests/fault_kill_test" 2>&3

cp -r "$work/src/0" "$work/src/always"
must "init" "$WEIR" init --quiet "$store"
must "add" "$WEIR" -C "$store" store add --quiet --ref always "$work/src/always"
promised[always]=always
maybe[always]=
for ((next = batch; killed < kills; )); do
    round
    if [ "$killed" -ge "$next" ]; then
        verify
        next=$((killed + batch))
    fi
done
verify
[ "$reported" -gt $((kills / 5)) ] || fail "only $reported adds ended before they were killed: it has shown little"
echo "kill: $killed commands killed, $reported adds reported, nothing lost"
