#!/bin/bash
# transfer.sh - push and pull between two projects, killed again and again, and what a remote is good for afterwards.
set -euo pipefail

weir=${WEIR:?path of the weir program}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-transfer.XXXXXX")
full=
clean_up() {
    if [ -n "$full" ]; then
        umount "$full" || true
    fi
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap clean_up EXIT
unset WEIR_DIR WEIR_FAULT NO_COLOR
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
        fail "'$*' ended with $rc, not $status: $said"
    fi
    case $said in
    *"$text"*) ;;
    *) fail "'$*' did not say '$text' but: $said" ;;
    esac
}

same() { # same WHAT GOT WANTED
    if [ "$2" != "$3" ]; then
        fail "$1 is '$2', not '$3'"
    fi
}

stored() { du -sb "$work/remote/packs" | cut -f 1; }

cd "$work"
mkdir -p a b data/notes
"$weir" init a -q
"$weir" init b -q
for project in a b; do
    printf '\nremotes:\n  backup: {dir: %s}\n  lab: {s3: "https://example.org", bucket: x}\n' "$work/remote" >>"$project/.weir/config.yaml"
done
for i in $(seq 200); do
    printf '{"id": %d, "caption": "a picture of number %d"}\n' "$i" "$i" >"data/notes/$i.json"
done
for i in 1 2 3 4 5 6; do
    head -c 25000000 /dev/urandom >"data/$i.bin"
done
"$weir" -C a store add data --ref data/all -q >/dev/null
total=$(du -sb data | cut -f 1)

step "wrong names"
want 65 "did you mean backup" "$weir" -C a push backpu
want 69 "not built yet" "$weir" -C a push lab
want 65 "not mounted" "$weir" -C b pull backup
want 65 "nosuch" "$weir" -C a push backup nosuch
want 64 "REMOTE" "$weir" -C a push

step "a push that is killed at every turn"
kills=0
n=0
while :; do
    rc=0
    { WEIR_FAULT=$n:kill "$weir" -C a push backup -q || rc=$?; } 2>/dev/null # the shell tells of each kill, too
    case $rc in
    0) break ;;
    137) kills=$((kills + 1)) ;;
    *) fail "push ended with $rc when it was to be killed at call $n" ;;
    esac
    n=$((n + 1 + n / 6))
done
[ "$kills" -ge 10 ] || fail "only $kills kills: the counter of calls does not work"
echo "   ($kills kills)"
[ "$(stored)" -lt $((total + total / 50)) ] || fail "the remote has $(stored) bytes of $total: something went there twice"
same "what is left to push" "$("$weir" -C a push backup --json | jq -c '[.objects_moved, .refs, .packs]')" '[0,0,0]'
same "the stage after it" "$(find a/.weir/remotes -path '*stage*' | wc -l)" 0

step "a push that is killed whenever"
"$weir" -C a store add data/1.bin --ref one -q >/dev/null
for i in 7 8 9; do
    head -c 25000000 /dev/urandom >"data/$i.bin"
done
"$weir" -C a store add data --ref data/all -q >/dev/null
tries=0
until [ "$tries" = 40 ]; do
    tries=$((tries + 1))
    "$weir" -C a push backup -q &
    pid=$!
    sleep "0.$(printf %02d $((RANDOM % 20 + tries)))"
    kill -9 "$pid" 2>/dev/null || true
    if wait "$pid" 2>/dev/null; then
        break
    fi
done
echo "   ($tries tries)"
"$weir" -C a push backup -q
want 0 "ok" "$weir" -C a store check

step "a pull that is killed at every turn"
kills=0
n=0
while :; do
    rc=0
    { WEIR_FAULT=$n:kill "$weir" -C b pull backup -q || rc=$?; } 2>/dev/null
    case $rc in
    0) break ;;
    137) kills=$((kills + 1)) ;;
    *) fail "pull ended with $rc when it was to be killed at call $n" ;;
    esac
    want 0 "ok" "$weir" -C b store check
    n=$((n + 1 + n / 3))
done
[ "$kills" -ge 10 ] || fail "only $kills kills"
echo "   ($kills kills)"
"$weir" -C b store get data/all out -q
diff -r data out
want 0 "all good" "$weir" -C b fsck
same "what is left to pull" "$("$weir" -C b pull backup --json | jq -c '[.objects_moved, .refs]')" '[0,0]'

step "the newer ref wins"
sleep 0.01
"$weir" -C b ref set one data/all:2.bin -q
want 0 "newer here" "$weir" -C b pull backup
want 65 "weir ref rm one" "$weir" -C b pull backup one
same "the ref" "$("$weir" -C b store stat one --json | jq -r .digest)" "sha256:$(sha256sum <data/2.bin | cut -c 1-64)"
"$weir" -C b push backup one -q
want 0 "1 ref" "$weir" -C a pull backup
same "the ref on the other side" "$("$weir" -C a store stat one --json | jq -r .digest)" "sha256:$(sha256sum <data/2.bin | cut -c 1-64)"

step "fsck repairs from a remote"
"$weir" -C b store pack --cold 0s -q
pack=$(find b/.weir/objects/packs -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
chmod u+w "$pack"
printf '\377\377\377\377' | dd of="$pack" bs=1 seek=100000 conv=notrunc status=none
want 74 "" "$weir" -C b fsck
want 0 "repaired" "$weir" -C b fsck --repair
want 0 "all good" "$weir" -C b fsck
chmod -R u+w out
rm -rf out
"$weir" -C b store get data/all out -q
diff -r data out

step "a damaged remote"
mkdir c
"$weir" init c -q
pack=$(find remote/packs -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
cp "$pack" kept
chmod u+w "$pack"
printf '\377\377\377\377' | dd of="$pack" bs=1 seek=100000 conv=notrunc status=none
want 74 "$(basename "$pack")" "$weir" -C c pull "$work/remote"
want 0 "ok" "$weir" -C c store check
same "refs after a refused pull" "$("$weir" -C c ref ls)" ""
cp kept "$pack"
truncate -s -1 "$pack"
want 74 "$(basename "$pack")" "$weir" -C c pull "$work/remote"
cp kept "$pack"

step "a full remote"
if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=80m tmpfs full 2>/dev/null; then
    full=$work/full
    want 74 '"word":"no space"' "$weir" -C a push "$full/remote" --json
    same "what a failed push leaves in tmp/" "$(find full/remote/tmp -type f | wc -l)" 0
    want 0 "ok" "$weir" -C a store check
    mount -o remount,size=400m full
    "$weir" -C a push "$full/remote" -q
    want 0 "pulled 0" "$weir" -C b pull "$full/remote"
else
    echo "   (not tried: mounting a tmpfs is not allowed here)"
fi

step "a remote is an objects folder"
mkdir d
"$weir" init d --objects "$work/remote" -q
"$weir" -C d store rebuild -q
"$weir" -C d store get data/all from-remote -q
diff -r data from-remote
want 0 "all good" "$weir" -C d fsck
echo "transfer.sh: all good"
