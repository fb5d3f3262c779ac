#!/bin/bash
# mistakes.sh - what goes wrong around weir: closed streams, paths that are none, stores that lost a part, disks that are
# full.  Each must be told in plain words and with the right status, and must cost nothing that was stored.
set -euo pipefail

weir=${WEIR:?path of the weir program}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-mistakes.XXXXXX")
mounts=()
clean_up() {
    local mount
    for mount in "${mounts[@]}"; do
        umount "$mount" || true
    done
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap clean_up EXIT
unset WEIR_DIR NO_COLOR
export LC_ALL=C

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
    if [ "$rc" != "$status" ]; then
        fail "'${*:0:200}' ended with $rc, not $status: $said"
    fi
    case $said in
    *"$text"*) ;;
    *) fail "'${*:0:200}' did not say '$text' but: $said" ;;
    esac
}

# shell STATUS TEXT LINE: a line of shell, in which $weir is the program
shell() { want "$1" "$2" env weir="$weir" bash -c "$3"; }

# The store as it was before something happened to it.
keep() { cp -a .weir ../kept; }
restore() {
    chmod -R u+w .weir
    rm -rf .weir
    cp -a ../kept .weir
}

cd "$work"
mkdir project
cd project

step "the command line"
want 0 "store format" "$weir" --version
want 64 "there is no command" "$weir" --nosuch
want 64 "before '--'" "$weir" -- store ls
want 64 "did you mean 'weir init'" "$weir" store init
want 64 "did you mean 'weir store add'" "$weir" add x
want 64 "..." "$weir" "$(head -c 100000 /dev/zero | tr '\0' a)"
want 64 "..." "$weir" store ls "--$(head -c 100000 /dev/zero | tr '\0' a)"
want 65 "run weir init" "$weir" store ls
want 65 "" "$weir" -C /nonexistent store ls
want 65 "" "$weir" -C "$(head -c 5000 /dev/zero | tr '\0' a)" store ls
want 65 "WEIR_DIR" env WEIR_DIR=/nonexistent "$weir" store ls

step "where no store can be"
want 65 "empty" "$weir" init ''
want 65 "empty" "$weir" init here --objects ''
want 65 "not UTF-8" "$weir" init here --objects "$(printf 'o\377')"
want 65 "4095" "$weir" init "$(head -c 5000 /dev/zero | tr '\0' a)"
[ ! -e here ] || fail "an init that was refused left something"
: >.weir
want 65 "no folder is in the way" "$weir" init
rm .weir
"$weir" init -q

step "a store with something in it"
mkdir data
for i in $(seq 600); do
    echo "number $i" >"data/a file whose name is long enough that a list of them needs more than a buffer $i"
done
head -c 300000 /dev/urandom >data/noise
"$weir" store add data --ref data -q >/dev/null
"$weir" store pack --cold 0s -q
keep

step "names that a terminal must not see"
hostile=$(printf 'n\nl\033[2J\377')
echo x >"$hostile"
want 0 "n%0Al%1B[2J%FF" "$weir" store add "$hostile" --ref hostile
want 0 '"path":"n%0Al%1B[2J%FF"' "$weir" store add "$hostile" --json
want 65 "nosuch" "$weir" store add "nosuch$hostile"
if "$weir" store add "nosuch$hostile" 2>&1 | grep -q "$(printf '\033')"; then
    fail "a hostile file name reached the terminal"
fi

step "remotes"
want 69 "only folders" "$weir" push s3://bucket/place
want 65 "there is no remote backup" "$weir" push backup
want 65 "nothing pushed yet" "$weir" pull ./nowhere

step "streams that are closed or full"
for command in "store ls" "store ls data -l" "store cat data:noise" "store stat" "store du" "fsck" "store check" \
    "gc --dry-run" "ref ls" "store add data" "store add data --json" "help" "schema"; do
    shell 74 "standard output" "\"\$weir\" $command >&-"
    shell 74 "standard output" "\"\$weir\" $command >/dev/full"
done
# shellcheck disable=SC2016 # expanded by the inner shell
{
    shell 0 "" '"$weir" store add data -q <&- 2>&-'
    shell 64 "" '"$weir" nosuch 2>/dev/full'
    shell 141 "" '"$weir" store cat data:noise | head -c 1 >/dev/null; exit "${PIPESTATUS[0]}"'
    shell 141 "" 'trap "" PIPE; "$weir" store cat data:noise | head -c 1 >/dev/null; exit "${PIPESTATUS[0]}"'
}
want 0 "ok" "$weir" store check
want 0 "all good" "$weir" fsck

step "an index that is gone, empty, cut short or garbage"
for damage in 'rm -r .weir/index' ': >.weir/index/data.mdb'; do
    restore
    eval "$damage"
    want 78 "weir store rebuild" "$weir" store ls
    want 0 "index was rebuilt" "$weir" gc # what writes makes it again, and knows nothing that it may delete
    want 0 "data" "$weir" store ls
done
for damage in 'truncate -s 5000 .weir/index/data.mdb' 'head -c 40000 /dev/urandom >.weir/index/data.mdb'; do
    restore
    eval "$damage"
    want 74 "weir store rebuild" "$weir" store ls
    want 74 "weir store rebuild" "$weir" gc
    want 0 "1 refs" "$weir" store rebuild
    want 0 "all good" "$weir" fsck
    "$weir" store cat data:noise | cmp - data/noise
done

step "a pack cut short"
restore
for pack in .weir/objects/packs/*; do
    chmod u+w "$pack"
    truncate -s -30 "$pack"
done
want 74 "run weir fsck" "$weir" store cat data:noise
want 74 "run weir fsck" "$weir" gc
want 74 "are damaged and were left out" "$weir" store rebuild
want 0 "repaired" "$weir" fsck --repair
"$weir" store add data -q >/dev/null # the index has forgotten nothing that a record still says
want 0 "all good" "$weir" fsck
"$weir" store cat data:noise | cmp - data/noise

step "objects that are not there"
restore
mv .weir/objects elsewhere
for command in "store ls" "store add data" "fsck" "gc" "store rebuild" "store pack"; do
    # shellcheck disable=SC2086 # two words
    want 78 "file system mounted" "$weir" $command
done
mv elsewhere .weir/objects
want 0 "all good" "$weir" fsck

step "a newer format, and a format that is none"
echo "weir store 2" >.weir/format
want 78 "newer weir" "$weir" store ls
want 78 "newer weir" "$weir" store add data
want 65 "is a store already" "$weir" init
for text in "" garbage "weir store -1" "weir store 99999999999999999999"; do
    echo "$text" >.weir/format
    want 74 "weir store N" "$weir" gc
done
rm .weir/format
want 78 "weir init" "$weir" gc
want 0 "made" "$weir" init # completes what looks interrupted
want 0 "all good" "$weir" fsck

step "pipelines"
want 65 "open nosuch.yaml" "$weir" run nosuch.yaml
want 65 "directory" "$weir" run data
want 65 "weir: 1" "$weir" run /dev/null
want 65 "is no run" "$weir" checkout a.b out --run zero
want 65 "run" "$weir" checkout a.b out
mkdir bin
cp "$weir" bin/weir
cat >p.yaml <<'Y'
weir: 1
name: p
stages:
  a: {run: "echo > {outputs.o}", outputs: [o]}
Y
want 69 "make install" bin/weir run p.yaml

step "read-only and full disks"
if [ "$(id -u)" = 0 ] && mkdir ro full && mount --bind . ro 2>/dev/null; then
    mounts+=("$PWD/ro")
    mount -o remount,ro,bind ro
    want 0 "data" "$weir" -C ro store ls
    want 0 "ok" "$weir" -C ro store check
    "$weir" -C ro store cat data:noise | cmp - data/noise
    for command in "store add data" "gc" "store pack" "store rebuild" "fsck" "ref set x data"; do
        # shellcheck disable=SC2086 # two words
        want 77 "Read-only file system" "$weir" -C ro $command
    done
    want 77 "Read-only file system" "$weir" init ro/new

    mount -t tmpfs -o size=2m tmpfs full
    mounts+=("$PWD/full")
    "$weir" init full -q
    "$weir" -C full store add data/noise --ref noise -q >/dev/null
    dd if=/dev/zero of=full/fill bs=4k status=none 2>/dev/null || true
    for command in "store add data" "ref set more noise" "store get noise full/copy" "fsck" "store rebuild"; do
        # shellcheck disable=SC2086 # two words
        want 74 "" "$weir" -C full $command
    done
    want 74 "No space left" "$weir" init full/other
    rm full/fill
    want 0 "ok" "$weir" -C full store check
    want 0 "all good" "$weir" -C full fsck
    "$weir" -C full store cat noise | cmp - data/noise
    want 0 "made" "$weir" init full/other
else
    echo "   (not tried: mounting is not allowed here)"
fi
echo "mistakes.sh: all good"
