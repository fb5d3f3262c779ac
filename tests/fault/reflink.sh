#!/bin/bash
# reflink.sh - on a file system that shares blocks, files are handed out as clones, and whoever writes to one changes nothing but his own.
#
# An XFS with reflinks on a loop device.  Needs root, loop devices and mkfs.xfs; says so and passes where they are missing, because a
# container often has none.
set -euo pipefail

: "${WEIR:?set WEIR to the weir program}"
: "${WEIR_BUILD:?set WEIR_BUILD to the build folder}"
unset WEIR_DIR WEIR_FAULT WEIR_LOSE

skip() {
    echo "SKIPPED reflink: $1"
    exit 0
}
fail() {
    echo "reflink: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || skip "needs root to mount a loop device"
command -v mkfs.xfs >/dev/null || skip "needs mkfs.xfs (package xfsprogs)"
work=$(mktemp -d)
mnt=$work/mnt
mkdir "$mnt"
cleanup() {
    mountpoint -q "$mnt" && umount "$mnt"
    rm -rf "$work"
}
trap cleanup EXIT
truncate -s 400M "$work/disk.img"
mkfs.xfs -q -m reflink=1 "$work/disk.img" || skip "this mkfs.xfs makes no reflinks"
mount -o loop "$work/disk.img" "$mnt" 2>/dev/null || skip "cannot mount a loop device here"
head -c 4096 /dev/urandom >"$mnt/probe"
cp --reflink=always "$mnt/probe" "$mnt/probe.clone" 2>/dev/null || skip "this kernel does not reflink on XFS"

# The tests in C that ask whether clones work find that they do.
said=$(TMPDIR=$mnt "$WEIR_BUILD/tests/unit_materialise_test" 2>&1) || fail "unit_materialise_test on XFS: $said"

mkdir "$mnt/src"
head -c 30000000 /dev/urandom >"$mnt/src/model.bin"
head -c 2000000 /dev/urandom >"$mnt/src/run"
echo '{"id": 1}' >"$mnt/src/note.json"
chmod 755 "$mnt/src/run"
"$WEIR" init --quiet "$mnt/store"
"$WEIR" -C "$mnt/store" store add --quiet --ref data "$mnt/src" >/dev/null

used() { # KiB of the file system, once all of it is allocated
    sync -f "$mnt"
    df --output=used -k "$mnt" | tail -n 1
}

for how in --reflink ''; do
    before=$(used)
    # shellcheck disable=SC2086 # no option is no word
    json=$("$WEIR" -C "$mnt/store" store get --json $how data "$mnt/out")
    after=$(used)
    case $json in
    *'"cloned":2,"copied":1,"files":3,"linked":0'*) ;;
    *) fail "two files were to be cloned and one copied: $json" ;;
    esac
    [ $((after - before)) -lt 8000 ] || fail "32 MB of clones took $((after - before)) KiB"
    diff -r "$mnt/src" "$mnt/out" || fail "a clone differs from its source"
    [ "$(stat -c %a "$mnt/out/run")" = 755 ] || fail "a cloned program cannot be run"
    # Writing to clones is the user's right.
    printf 'mine' | dd of="$mnt/out/model.bin" bs=1 seek=5000000 conv=notrunc status=none
    : >"$mnt/out/run"
    "$WEIR" -C "$mnt/store" fsck --quiet || fail "a write to a clone has reached the store"
    rm -r "$mnt/out"
    "$WEIR" -C "$mnt/store" store get --quiet data "$mnt/out"
    diff -r "$mnt/src" "$mnt/out" || fail "a write to a clone is seen by the next one"
    rm -r "$mnt/out"
done

# To another file system there is no clone: said when it was asked for, a copy when not.
rc=0
said=$("$WEIR" -C "$mnt/store" store get --reflink data "$work/out" 2>&1) || rc=$?
[ "$rc" = 69 ] || fail "--reflink to another file system ended with $rc: $said"
[ ! -e "$work/out" ] || fail "--reflink to another file system left something there"
"$WEIR" -C "$mnt/store" store get --quiet data "$work/out"
diff -r "$mnt/src" "$work/out" || fail "a copy differs from its source"
echo "reflink: clones share their blocks, and nothing else"
