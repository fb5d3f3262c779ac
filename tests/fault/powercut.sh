#!/bin/bash
# powercut.sh - what `weir store add` has promised survives a power cut.
#
# A file system on a loop device is shut down without flushing its log (FS_IOC_SHUTDOWN: what is not on the device is gone),
# unmounted and mounted again.  After each cut: every ref whose command had returned is complete and equal to
# its source, fsck finds nothing damaged, and the command that was cut can be repeated.
# Needs root, loop devices, mkfs and xfs_io; says so and passes where they are missing, because a container often has none.
set -euo pipefail

: "${WEIR:?set WEIR to the weir program}"
rounds=${WEIR_POWERCUT_ROUNDS:-6}

skip() {
    echo "SKIPPED powercut: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "needs root to mount a loop device"
command -v xfs_io >/dev/null || skip "needs xfs_io (package xfsprogs)"
work=$(mktemp -d)
mnt=$work/mnt
mkdir "$mnt" "$work/src"
cleanup() {
    mountpoint -q "$mnt" && umount "$mnt"
    rm -rf "$work"
}
trap cleanup EXIT

make_sources() {
    mkdir -p "$work/src/small/deep/er" "$work/src/empty"
    for i in $(seq 200); do
        printf '{"id": %d, "caption": "a picture of number %d"}\n' "$i" "$i" >"$work/src/small/$i.json"
    done
    head -c 3000000 /dev/urandom >"$work/src/large.bin"
    head -c 700000 /dev/urandom >"$work/src/small/deep/er/middle.bin"
}

cut_power() {
    xfs_io -x -c shutdown "$mnt" >/dev/null
    umount "$mnt"
    mount -o loop "$work/disk.img" "$mnt"
}

check() { # every ref in $work/promised is there, whole and equal to its source
    (cd "$mnt" && "$WEIR" fsck --quiet) || { echo "fsck after the cut failed ($1)"; exit 1; }
    while read -r ref source; do
        rm -rf "$work/out"
        (cd "$mnt" && "$WEIR" store get --quiet "$ref" "$work/out") || { echo "lost $ref ($1)"; exit 1; }
        diff -r "$source" "$work/out" || { echo "$ref differs from its source ($1)"; exit 1; }
    done <"$work/promised"
}

promise() { # promise REF SOURCE: the command has returned, so this must survive
    printf '%s %s\n' "$1" "$2" >>"$work/promised"
}

probe() { # probe FILESYSTEM
    local fs=$1 i pid source
    rm -f "$work/disk.img"
    truncate -s 400M "$work/disk.img"
    case $fs in
    xfs) mkfs.xfs -q -m reflink=1 "$work/disk.img" ;;
    ext4) mkfs.ext4 -q "$work/disk.img" ;;
    esac
    mount -o loop "$work/disk.img" "$mnt" || skip "cannot mount a loop device here"
    : >"$work/promised"
    (cd "$mnt" && "$WEIR" init --quiet)
    sync -f "$mnt" # init is not under test here; its own durability is, in the rounds below

    for i in $(seq "$rounds"); do
        source=$work/src$i
        cp -r "$work/src" "$source"
        echo "round $i" >"$source/round"
        head -c 1200000 /dev/urandom >"$source/new.bin"
        (cd "$mnt" && "$WEIR" store add --quiet --ref "test/$i" "$source" >/dev/null)
        promise "test/$i" "$source"
        case $((i % 3)) in
        0) (cd "$mnt" && "$WEIR" store pack --quiet --cold 0s >/dev/null) ;;
        1) ;; # at once after the add
        2) # in the middle of the next add
            cp -r "$source" "$source.next"
            head -c 20000000 /dev/urandom >"$source.next/big.bin"
            (cd "$mnt" && exec "$WEIR" store add --quiet --ref "test/$i.next" "$source.next" >/dev/null 2>&1) &
            pid=$!
            perl -e 'select undef, undef, undef, rand 0.15'
            if ! kill -0 "$pid" 2>/dev/null && wait "$pid"; then promise "test/$i.next" "$source.next"; fi
            ;;
        esac
        xfs_io -x -c shutdown "$mnt" >/dev/null
        wait || true # the add that was cut has failed by now: its file system is gone
        umount "$mnt"
        mount -o loop "$work/disk.img" "$mnt"
        check "$fs, round $i"
        if [ -d "$source.next" ]; then
            (cd "$mnt" && "$WEIR" store add --quiet --ref "test/$i.next" "$source.next" >/dev/null)
            grep -q "^test/$i.next " "$work/promised" || promise "test/$i.next" "$source.next"
        fi
    done
    cut_power
    check "$fs, last"
    umount "$mnt"
    echo "powercut: $fs, $rounds cuts, $(wc -l <"$work/promised") refs, nothing lost"
}

make_sources
probe xfs
probe ext4
