#!/bin/bash
# sources.sh - weir lock, as somebody types it who shares a pipeline: packages and downloads, pinned.
set -euo pipefail

weir=${WEIR:?path of the weir program}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-sources.XXXXXX")
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$work"' EXIT
unset WEIR_DIR NO_COLOR COLUMNS
export LC_ALL=C no_proxy='*'

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

# package VERSION TEXT: a small .deb in the pool, which is the newest from now on
package() {
    local tree=$work/tree
    rm -rf "$tree"
    mkdir -p "$tree/DEBIAN" "$tree/usr/share/pictures" "$work/pool"
    printf 'Package: weir-pictures\nVersion: %s\nArchitecture: all\nMaintainer: n <n@example.org>\nDescription: test\n' \
        "$1" >"$tree/DEBIAN/control"
    printf '%s' "$2" >"$tree/usr/share/pictures/a.txt"
    dpkg-deb --root-owner-group --build "$tree" "$work/pool" >/dev/null
    printf '%s' "$1" >"$work/newest"
}

cat >"$work/apt-get" <<'END'
#!/bin/sh
# download PACKAGE[=VERSION]
here=$(dirname "$0")
echo "$2" >>"$here/apt.log"
version=${2#*=}
if [ "$version" = "$2" ]; then version=$(cat "$here/newest"); fi
cp "$here/pool/${2%%=*}_${version}_all.deb" .
END
chmod +x "$work/apt-get"
export WEIR_APT_GET=$work/apt-get
package 1.0-1 first

step "a server on this machine"
mkdir "$work/www"
seq 1 20000 >"$work/www/numbers.txt"
python3 - "$work" <<'END' &
import http.server, os, socketserver, sys
os.chdir(sys.argv[1] + "/www")
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        with open("../www.log", "a") as f:
            f.write(words[0] % words[1:] + "\n")
with socketserver.TCPServer(("127.0.0.1", 0), Quiet) as s:
    with open("../port.new", "w") as f:
        f.write(str(s.server_address[1]))
    os.rename("../port.new", "../port")
    s.serve_forever()
END
server=$!
for _ in $(seq 600); do
    if [ -s "$work/port" ]; then break; fi
    sleep 0.1
done
port=$(cat "$work/port")
sum=$(sha256sum "$work/www/numbers.txt" | cut -d' ' -f1)

mkdir "$work/project"
cd "$work/project"
"$weir" init >/dev/null
cat >train.yaml <<END
weir: 1
name: train
sources:
  pictures: {deb: weir-pictures, license: CC0-1.0}
  numbers: {url: "http://127.0.0.1:$port/numbers.txt", sha256: $sum, license: MIT}
  mine: {path: absent, license: MIT}
stages:
  count:
    run: "cat {inputs.a}/usr/share/pictures/a.txt {inputs.b} >{outputs.out}"
    inputs: {a: sources.pictures, b: sources.numbers}
    outputs: [out]
END

step "lock"
want 0 "train.lock: written" "$weir" lock
digest=$(jq -r .sources.pictures.digest train.lock)
deb=$(sha256sum "$work/pool/weir-pictures_1.0-1_all.deb" | cut -d' ' -f1)
size=$(jq -r .sources.pictures.size train.lock)
cat >"$work/wanted" <<END
{"sources":{
"numbers":{"digest":"sha256:$sum","kind":"url","sha256":"$sum","size":108894,"url":"http://127.0.0.1:$port/numbers.txt"},
"pictures":{"architecture":"all","deb":"weir-pictures","digest":"$digest","kind":"deb","sha256":"$deb","size":$size,"version":"1.0-1"}
},"weir":"lock/1"}
END
cmp train.lock "$work/wanted"
[ "$("$weir" store cat "$digest:usr/share/pictures/a.txt")" = first ] || fail "the package is not in the store"
"$weir" store cat "sha256:$sum" | cmp - "$work/www/numbers.txt"

step "again: nothing is fetched"
want 0 "train.lock: is as it was" "$weir" lock
[ "$(wc -l <"$work/apt.log")" = 1 ] || fail "the package was fetched again"
[ "$(grep -c GET "$work/www.log")" = 1 ] || fail "the file was fetched again"

step "a newer package waits for --update"
package 2.0-1 second
want 0 "deb weir-pictures 1.0-1" "$weir" lock train.yaml
want 0 "deb weir-pictures 2.0-1" "$weir" lock --update
[ "$(jq -r .sources.pictures.version train.lock)" = 2.0-1 ] || fail "the lock file was not updated"
[ "$("$weir" lock --json | jq -r 'select(.kind == "deb").version')" = 2.0-1 ] || fail "--json"

step "a replaced package and another file are refused"
package 2.0-1 replaced
rm -rf .weir
"$weir" init >/dev/null
want 65 "the lock file says" "$weir" lock
echo more >>"$work/www/numbers.txt"
want 65 "not sha256:$sum" "$weir" lock --update
want 65 "$(sha256sum "$work/www/numbers.txt" | cut -d' ' -f1)" "$weir" lock --update
rm "$work/www/numbers.txt"
want 69 "404" "$weir" lock --update

step "a broken lock file"
echo '{"weir":"lock/1"' >train.lock
want 65 "weir lock --update" "$weir" lock
seq 1 20000 >"$work/www/numbers.txt"
want 0 "train.lock: written" "$weir" lock --update

step "a run pins what it fetched, and the next one fetches nothing"
rm train.lock
want 0 "1 run" "$weir" run train.yaml
[ "$(jq -r .sources.pictures.version train.lock)" = 2.0-1 ] || fail "the run wrote no lock file"
asked=$(wc -l <"$work/apt.log")
want 0 "1 reused" "$weir" run train.yaml
[ "$(wc -l <"$work/apt.log")" = "$asked" ] || fail "the second run fetched again"

step "nothing to lock"
printf 'weir: 1\nname: small\nstages:\n  a: {run: ["true"], outputs: [x]}\n' >small.yaml
want 0 "nothing to lock" "$weir" lock small.yaml
[ ! -e small.lock ] || fail "an empty lock file was written"
