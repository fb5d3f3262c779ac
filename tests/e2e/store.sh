#!/bin/bash
# store.sh - every command of the store, as somebody new to it would type them, and as somebody careless would.
set -euo pipefail

weir=${WEIR:?path of the weir program}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-store.XXXXXX")
full=
clean_up() {
    if [ -n "$full" ]; then
        umount "$full" || true
    fi
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

digest_of() { sed -n '1s/ .*//p'; }

step "init"
cd "$work"
mkdir project
cd project
want 65 "run weir init" "$weir" store ls
want 0 "made " "$weir" init
want 65 "is a store already" "$weir" init
mkdir -p data/sub/deeper data/void
echo hello >data/a.txt
echo '#!/bin/sh' >data/sub/run.sh
chmod 755 data/sub/run.sh
: >data/sub/deeper/empty
ln -s sub/run.sh data/link
head -c 3000000 /dev/urandom >data/big.bin
for i in $(seq 300); do
    printf '{"id": %d, "caption": "a picture of number %d"}\n' "$i" "$i"
done >data/captions.jsonl
printf 'x' >"data/$(printf 'esc\033[2Jape')"

step "add, ls, cat, get"
digest=$("$weir" store add data --ref data/first | digest_of)
case $digest in
sha256:????????????????????????????????????????????????????????????????) ;;
*) fail "add printed '$digest'" ;;
esac
same "the digest of a file" "$("$weir" store add data/a.txt | digest_of)" "sha256:$(sha256sum <data/a.txt | cut -c 1-64)"
same "the digest of the same folder" "$("$weir" store add data --json | jq -r .digest)" "$digest"
same "what was hashed the second time" "$("$weir" store add data --json | jq .new_objects)" 0
want 0 "data/first" "$weir" store ls
want 0 "sub/deeper/empty" "$weir" store ls data/first -r
want 0 "link -> sub/run.sh" "$weir" store ls -l data/first
want 0 "esc%1B[2Jape" "$weir" store ls data/first
if "$weir" store ls data/first -r | grep -q "$(printf '\033')"; then
    fail "a hostile file name reached the terminal"
fi
same "an entry" "$("$weir" store ls data/first --json | jq -r 'select(.path == "a.txt") | .size')" 6
same "cat" "$("$weir" store cat data/first:a.txt)" hello
same "a range" "$("$weir" store cat data/first:a.txt --range 1:3)" ell
same "the rest" "$("$weir" store cat data/first:a.txt --range 2:)" llo
"$weir" store cat data/first:big.bin | cmp - data/big.bin
"$weir" store cat "${digest:0:17}:big.bin" | cmp - data/big.bin
"$weir" store get data/first out -q
diff -r data out
same "the executable bit" "$(stat -c %a out/sub/run.sh)" 755
want 65 "out" "$weir" store get data/first out
"$weir" store get data/first:sub ro --read-only -q
same "a read-only file" "$(stat -c %a ro/run.sh)" 555
"$weir" store get data/first:big.bin linked --link -q
cmp linked data/big.bin
"$weir" store get data/first:big.bin copied --copy -q
cmp copied data/big.bin
if "$weir" store get data/first:big.bin cloned --reflink -q 2>reflink.txt; then
    cmp cloned data/big.bin
else
    grep -q reflink reflink.txt || fail "a failed clone does not say what failed: $(cat reflink.txt)"
fi
rm -f linked # its inode is the store's own
(cd data/sub && same "found from below" "$("$weir" store cat data/first:a.txt)" hello)
(cd / && same "found with --dir" "$("$weir" store -C "$work/project" cat data/first:a.txt)" hello)
(cd / && same "found with WEIR_DIR" "$(WEIR_DIR=$work/project "$weir" store cat data/first:a.txt)" hello)

step "adopt"
mkdir moved
head -c 2000000 /dev/urandom >moved/model.bin
sum=$(sha256sum <moved/model.bin | cut -c 1-64)
"$weir" store add moved --adopt --ref moved -q >/dev/null
[ ! -e moved/model.bin ] || fail "an adopted file stayed"
same "an adopted file" "$("$weir" store cat moved:model.bin | sha256sum | cut -c 1-64)" "$sum"

step "tensors"
python3 - <<'PY'
import json, struct
a, b = bytes(range(64)), bytes(100)
header = json.dumps({"first": {"dtype": "U8", "shape": [4, 16], "data_offsets": [0, 64]},
                     "second": {"dtype": "F32", "shape": [25], "data_offsets": [64, 164]}}).encode()
open("t.safetensors", "wb").write(struct.pack("<Q", len(header)) + header + a + b)
open("first.bin", "wb").write(a)
PY
"$weir" store add t.safetensors --ref t -q >/dev/null
want 0 "(4, 16)  first" "$weir" store ls t --tensors
same "a tensor as JSON" "$("$weir" store ls t --tensors --json | jq -c 'select(.name == "second") | [.dtype, .shape, .bytes]')" \
    '["F32",[25],100]'
"$weir" store cat t --tensor first | cmp - first.bin
want 65 "second" "$weir" store cat t --tensor secnd
want 65 "safetensors" "$weir" store ls data/first:a.txt --tensors

step "refs"
want 0 "$digest" "$weir" ref set data/second data/first
want 0 "data/second" "$weir" ref ls data/
same "refs" "$("$weir" ref ls --json | jq -r .name | tr '\n' ' ')" "data/first data/second moved t "
want 65 "did you mean data/second" "$weir" ref rm data/secnd
want 0 "$digest" "$weir" ref rm data/second
want 65 "data/second" "$weir" store cat data/second:a.txt
want 65 "data/first" "$weir" store cat data/frist:a.txt
want 65 "captions.jsonl" "$weir" store cat data/first:caption.jsonl
want 65 ".." "$weir" ref set ../evil data/first
want 65 "" "$weir" store ls 'data/first:../../etc'

step "stat, du"
want 0 "objects" "$weir" store stat
want 0 "data/first" "$weir" store stat data/first:a.txt
same "who holds it" "$("$weir" store stat --json data/first:big.bin | jq -c '[.kind, .size, .refs]')" '["blob",3000000,["data/first"]]'
same "what is unique" "$("$weir" store du data/first --json | jq '.files, .logical > 3000000, .unique >= 3000000')" $'6\ntrue\ntrue'
"$weir" ref set again data/first -q
same "what is shared" "$("$weir" store du data/first --json | jq '.unique')" 0
"$weir" ref rm again -q

step "actions"
echo '{"cmd": ["train"], "lr": 0.1}' >action.json
key=$("$weir" store action put action.json data/first)
same "the key" "$key" "sha256:$(printf '{"cmd":["train"],"lr":0.1}' | sha256sum | cut -c 1-64)"
same "the result" "$("$weir" store action get "$key")" "$digest"
want 65 "" "$weir" store action get "sha256:$(printf x | sha256sum | cut -c 1-64)"
echo '{"cmd": ' >broken.json
want 65 "broken.json" "$weir" store action put broken.json data/first

step "check, gc, pack, rebuild, fsck"
want 0 "ok" "$weir" store check
want 0 "all good" "$weir" fsck
want 0 "would free" "$weir" gc --dry-run
echo garbage >garbage.txt
garbage=$("$weir" store add garbage.txt | digest_of)
"$weir" gc -q
same "young garbage" "$("$weir" store cat "$garbage")" garbage
sleep 1.1 # older than a grace of one second
"$weir" gc --grace 1s -q
want 65 "${garbage#sha256:}" "$weir" store cat "$garbage"
"$weir" store cat data/first:big.bin | cmp - data/big.bin
want 0 "packed" "$weir" store pack --cold 0s
"$weir" store cat data/first:big.bin | cmp - data/big.bin
rm -rf .weir/index
want 0 "refs" "$weir" store rebuild
want 0 "ok" "$weir" store check
same "refs after a rebuild" "$("$weir" ref ls --json | jq -r .name | tr '\n' ' ')" "data/first moved t "
same "a result after a rebuild" "$("$weir" store action get "$key")" "$digest"
want 0 "all good" "$weir" fsck --logical
want 0 '"problems":0' "$weir" fsck --quick --json
want 0 "all good" "$weir" fsck --part 1/2

step "shapes of --json"
shape() { # shape KEYS COMMAND...: the last line has exactly these members
    local keys=$1
    shift
    same "the shape of '$*'" "$("$weir" "$@" --json | tail -n 1 | jq -r 'keys | join(" ")')" "$keys"
}
echo shapes >shapes.txt
shape "bytes digest files hashed_files kind new_bytes new_objects path reused_objects size" store add shapes.txt
shape "bytes cloned copied files linked path" store get data/first:a.txt shapes-out.txt
shape "digest mode path size" store ls data/first:sub
shape "digest kind name" store ls
shape "actions index_bytes loose loose_bytes memos objects pack_bytes packs path refs" store stat
shape "chunks digest encoding kind offset pack refs size stored stored_bytes" store stat data/first
shape "files logical ref shared stored unique" store du
shape "bytes loose objects packs problems repaired" store fsck --quick
shape "ok" store check
shape "bytes_after bytes_before dry_run loose_packed packs_compressed packs_merged" store pack --dry-run
shape "dead_objects dry_run freed_bytes live_bytes live_objects loose_deleted packs_deleted packs_rewritten roots tmp_deleted" gc --dry-run
shape "actions damaged_packs objects packs refs runs" store rebuild
shape "bytes_moved dry_run objects objects_moved packs refs refs_kept" push "$work/shapes-remote"
shape "bytes_moved dry_run objects objects_moved packs refs refs_kept" pull "$work/shapes-remote"
shape "digest kind name" ref set shapes data/first
shape "digest kind name" ref rm shapes
shape "key result" store action get "$key"
shape "store_format version" version
shape "path" init "$work/shapes-project"
same "an error" "$("$weir" store cat nosuch --json 2>/dev/null | jq -r '.error | keys | join(" ")')" "text word"

step "help"
want 0 "store add" "$weir" help
want 0 "store add" "$weir" --help
want 0 "--ref" "$weir" store add --help
want 0 "--ref" "$weir" help store add
want 0 "store fsck" "$weir" help store
want 0 "64  usage" "$weir" help exit
want 0 "store format" "$weir" version
want 64 "did you mean 'weir store'" "$weir" stroe
want 64 "did you mean --dry-run" "$weir" gc --dryrun
want 64 '"word":"usage"' "$weir" gc --dryrun --json
want 64 "needs a command" "$weir" store
want 64 "--range" "$weir" store cat data/first --range 1-2
want 65 "6 bytes" "$weir" store cat data/first:a.txt --range 4:9

if [ -n "${WEIR_SRC-}" ]; then
    "$weir" help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z ]*[a-z]\)  .*/\1/p' | while read -r name; do
        grep -qF "\`weir $name\`" "$WEIR_SRC/orchestrator/cli/README.md" || fail "orchestrator/cli/README.md lacks weir $name"
    done
fi

step "wrong input"
want 65 "nowhere" "$weir" store add nowhere
want 65 '"word":"not found"' "$weir" store add nowhere --json
mkdir bad
ln -s ../../outside bad/escape
want 65 "escape" "$weir" store add bad
rm bad/escape
mkfifo bad/pipe
want 65 "pipe" "$weir" store add bad
rm bad/pipe
# Root reads everything, so somebody else has to try.
echo secret >bad/secret
chmod 000 bad/secret
if [ "$(id -u)" != 0 ]; then
    want 77 "secret" "$weir" store add bad
else
    nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups env "HOME=/nonexistent")
    chmod 755 "$work" "$work/project"
    mkdir other
    cp "$weir" other/weir
    chown -R 65534:65534 other
    if "${nobody[@]}" "$work/project/other/weir" init other -q 2>/dev/null; then
        want 77 "secret" "${nobody[@]}" "$work/project/other/weir" -C other store add bad
    else
        echo "   (unreadable file: not tried, nobody else may run programs here)"
    fi
fi
# shellcheck disable=SC2016 # expanded by the inner shell
want 74 "standard output" bash -c '"$0" store cat data/first:big.bin >/dev/full' "$weir"
"$weir" store cat data/first:big.bin | head -c 1 >/dev/null || [ "${PIPESTATUS[0]}" = 141 ] || fail "a broken pipe was not quiet"

step "a newer format, a broken config"
cp .weir/format format.kept
echo "weir store 99" >.weir/format
want 78 "99" "$weir" store ls
cp format.kept .weir/format
cp .weir/config.yaml config.kept
printf '\nretentoin: {grace: 1h}\n' >>.weir/config.yaml
want 78 "retention" "$weir" store ls
cp config.kept .weir/config.yaml

step "damage"
pack=$(find .weir/objects/packs -type f -size +1k -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
cp "$pack" pack.kept
chmod u+w "$pack"
printf '\377\377\377\377' | dd of="$pack" bs=1 seek=1000 conv=notrunc status=none
want 74 "$(basename "$pack")" "$weir" fsck
cp pack.kept "$pack"
want 0 "all good" "$weir" fsck

step "a full disk"
if [ "$(id -u)" = 0 ] && mkdir full && mount -t tmpfs -o size=12m tmpfs full 2>/dev/null; then
    full=$work/project/full
    "$weir" init full -q
    head -c 20000000 /dev/urandom >large.bin
    want 74 "" "$weir" -C full store add large.bin
    want 74 '"word":"no space"' "$weir" -C full store add large.bin --json
    want 0 "ok" "$weir" -C full store check
    "$weir" -C full gc --grace 0s -q
    "$weir" -C full store add data/a.txt --ref small -q >/dev/null
    same "what fits" "$("$weir" -C full store cat small)" hello
else
    echo "   (not tried: mounting a tmpfs is not allowed here)"
fi
echo "store.sh: all good"
