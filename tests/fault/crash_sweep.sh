#!/bin/bash
# crash_sweep.sh - kill a command at every system call that publishes, writes or removes something, one run for each.
#
# strace ends the command by SIGKILL as it enters the N-th call of a kind, for N = 1, 2, ... until the command gets through.  After each
# kill: fsck finds nothing wrong, every ref of before is complete and equal to its source, and the command can be repeated.
# Says so and passes where strace may not attach, because a container often forbids it.
set -euo pipefail

: "${WEIR:?set WEIR to the weir program}"
calls='link linkat fsync fdatasync write pwrite64 writev pwritev rename renameat renameat2 unlink unlinkat
utimensat fchmod ftruncate msync copy_file_range'
unset WEIR_DIR WEIR_FAULT WEIR_LOSE

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! strace -f -o "$work/trace" -e trace=link true 2>/dev/null; then
    echo "SKIPPED crash_sweep: strace cannot attach here"
    exit 0
fi

fail() {
    echo "crash_sweep: $*" >&2
    cat "$work/said" >&2 2>/dev/null || true
    exit 1
}

quietly() { # quietly WHAT COMMAND...: its words are shown only when it fails
    local what=$1
    shift
    "$@" >"$work/said" 2>&1 || fail "$what"
}

# ---- a store with a bit of everything, and the sources to compare with -----------------------------------------------

noise() { # noise SEED BYTES: the same bytes each time
    openssl enc -aes-128-ctr -nosalt -pass "pass:$1" -md sha256 </dev/zero 2>/dev/null | head -c "$2" || true
}

mkdir -p "$work/src/old/deep" "$work/src/new/deep" "$work/src/gone"
for i in 1 2 3 4 5 6 7 8; do
    printf '{"id": %d, "caption": "picture number %d"}\n' "$i" "$i" >"$work/src/old/deep/$i.json"
    printf '{"id": %d, "caption": "another picture"}\n' "$i" >"$work/src/new/deep/$i.json"
    printf '{"id": %d, "caption": "forgotten"}\n' "$i" >"$work/src/gone/$i.json"
done
noise old 1200000 >"$work/src/old/model.bin"
noise new 1100000 >"$work/src/new/model.bin"
noise gone 1150000 >"$work/src/gone/model.bin"
cp "$work/src/old/deep/1.json" "$work/src/new/same.json"

quietly "make the store" "$WEIR" init "$work/store"
for name in gone old; do
    quietly "fill the store" "$WEIR" -C "$work/store" store add --quiet --ref "$name" "$work/src/$name"
done
noise mixed 300000 >"$work/src/half"
quietly "fill the store" "$WEIR" -C "$work/store" store add --quiet --ref half "$work/src/half"
seq 1 400000 >"$work/src/version1"
seq 1 400000 | sed '1000,1500s/$/ changed/' >"$work/src/version2" # a recipe, with a raw chunk or two of its own
for name in version1 version2; do
    quietly "fill the store" "$WEIR" -C "$work/store" store add --quiet --ref "$name" "$work/src/$name"
done
quietly "forget" "$WEIR" -C "$work/store" ref rm gone
mv "$work/store" "$work/template"

reset() {
    rm -rf "$work/store"
    cp -a "$work/template" "$work/store"
}

# ---- what must hold after a kill -------------------------------------------------------------------------------------

same_as_source() { # same_as_source REF WHEN
    rm -rf "$work/out"
    quietly "$2: ref $1 is lost" "$WEIR" -C "$work/store" store get --quiet "$1" "$work/out"
    diff -r "$work/src/$1" "$work/out" >"$work/said" 2>&1 || fail "$2: ref $1 differs from its source"
}

holds() { # holds WHEN REF...
    local when=$1 ref
    shift
    quietly "$when: fsck" "$WEIR" -C "$work/store" fsck
    for ref; do
        same_as_source "$ref" "$when"
    done
}

sweep() { # sweep NAME REFS COMMAND...: REFS must be there after each kill
    local name=$1 refs=$2 call n status total=0 kills
    shift 2
    for call in $calls; do
        kills=0
        for ((n = 1; n < 400; n++)); do
            reset
            status=0
            # The braces are for what the shell says about a child that was killed.
            {
                timeout 120 strace -f -qq -o "$work/trace" -e "trace=$call" \
                    -e "inject=$call:signal=KILL:when=$n" \
                    "$WEIR" -C "$work/store" "$@" >"$work/said" 2>&1 || status=$?
            } 2>/dev/null
            if [ "$status" = 0 ]; then
                break
            fi
            [ "$status" = 137 ] || fail "$name, $call number $n: the command ended with $status"
            kills=$((kills + 1))
            # shellcheck disable=SC2086 # refs are words
            holds "$name killed at $call number $n" $refs
            quietly "$name, repeated after a kill at $call number $n" "$WEIR" -C "$work/store" "$@"
            # shellcheck disable=SC2086
            holds "$name, repeated after a kill at $call number $n" $refs
        done
        [ "$n" -lt 400 ] || fail "$name: $call is never passed"
        total=$((total + kills))
        [ "$kills" = 0 ] || echo "$name $call $kills kills"
    done
    [ "$total" -gt 3 ] || fail "$name: only $total kills, the sweep has missed it"
}

sweep add "old half" store add --quiet --ref new "$work/src/new"
sweep pack "old half version1 version2" store pack --quiet --cold 0s
sweep gc "old half" gc --quiet --grace 0s
sweep rebuild "old half" store rebuild --quiet
echo "crash_sweep: all killed runs left a whole store"
