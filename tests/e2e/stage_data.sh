#!/bin/bash
# stage_data.sh - the data programs by hand and through weir run: hostile inputs, licences, planted faults, same bytes, caching.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
bin=$(dirname "$WEIR")/../libexec/weir
[ -x "$bin/ingest" ] || { echo "stage_data.sh: built without picture libraries, nothing to test" >&2; exit 0; }
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "stage_data.sh: $1" >&2
    exit 1
}
status() { # status N COMMAND...: it must end with that status
    local want=$1 got=0
    shift
    "$@" >out.txt 2>err.txt || got=$?
    [ "$got" = "$want" ] || { cat out.txt err.txt; fail "'$*' ended with $got, not $want"; }
}
said() { grep -qF -- "$1" err.txt out.txt || { cat out.txt err.txt; fail "nobody said: $1"; }; }

# Pictures made here: 40 scenes of rectangles as PNG, and whatever is wrong with files in the world.
cat >make.py <<'P'
import os, random, struct, tarfile, io, zlib, zipfile, json

def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

def png(w, h, rows, depth=8, color=2, extra=b''):
    raw = b''.join(b'\0' + r for r in rows)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, depth, color, 0, 0, 0)) + extra +
            chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b''))

def scene(n, w=64, h=64, scale=1):
    r = random.Random(n)
    boxes = [(r.randrange(64), r.randrange(64), r.randrange(8, 40), r.randrange(8, 40), bytes(r.randrange(256) for _ in range(3))) for _ in range(9)]
    base = bytes(r.randrange(256) for _ in range(3))
    rows = []
    for y in range(h):
        row = bytearray()
        for x in range(w):
            c = base
            for bx, by, bw, bh, col in boxes:
                if bx <= x * 64 // w < bx + bw and by <= y * 64 // h < by + bh:
                    c = col
            row += c
        rows.append(bytes(row))
    return rows

def blurred(rows, passes=6):
    px = [[list(r[3*i:3*i+3]) for i in range(len(r)//3)] for r in rows]
    h, w = len(px), len(px[0])
    for _ in range(passes):
        px = [[[sum(px[min(max(y+j,0),h-1)][min(max(x+i,0),w-1)][c] for j in (-1,0,1) for i in (-1,0,1)) // 9 for c in range(3)]
               for x in range(w)] for y in range(h)]
    return [bytes(v for p in r for v in p) for r in px]

words = 'apple bear cloud drum eagle flute goose house igloo jug'.split()
os.makedirs('pictures/fruit')
for i in range(40):
    open('pictures/fruit/%s_%d.png' % (words[i % 10], i), 'wb').write(png(64, 64, scene(i)))
open('pictures/again.png', 'wb').write(open('pictures/fruit/apple_0.png', 'rb').read())
open('pictures/larger.png', 'wb').write(png(128, 128, scene(11, 128, 128)))
open('pictures/blurred.png', 'wb').write(png(64, 64, blurred(scene(3))))
open('pictures/tiny.png', 'wb').write(png(9, 9, scene(4, 9, 9)))
open('pictures/grey16.png', 'wb').write(png(4, 3, [struct.pack('>4H', 0, 257, 32896, 65535)] * 3, 16, 0))
open('pictures/palette.png', 'wb').write(png(4, 2, [b'\0\1\2\1'] * 2, 8, 3, chunk(b'PLTE', bytes(range(9)))))
os.makedirs('bad')
good = png(64, 64, scene(1))
open('bad/truncated.png', 'wb').write(good[:len(good) * 2 // 3])
open('bad/empty.png', 'wb').write(b'')
open('bad/huge.png', 'wb').write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 30000, 30000, 8, 2, 0, 0, 0)) + chunk(b'IDAT', b''))
open('bad/text.png', 'wb').write(b'this is no picture at all')
open('bad/half.jpg', 'wb').write(b'\xff\xd8\xff\xe0\0\x10JFIF\0')
open('bad/fine.png', 'wb').write(good)

def tar(name, members):
    with tarfile.open(name, 'w') as t:
        for n, data in members:
            info = tarfile.TarInfo(n)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
tar('escape.tar', [('../../outside.png', good), ('/abs.png', good), ('ok/inside.png', png(64, 64, scene(2)))])
tar('web.tar', [('0001.png', png(64, 64, scene(5))), ('0001.txt', b'a red house\n'), ('0002.png', png(64, 64, scene(6))),
                ('0002.json', json.dumps({'caption': 'two drums', 'caption_zh': '两面鼓'}).encode())])
with zipfile.ZipFile('some.zip', 'w') as z:
    z.writestr(zipfile.ZipInfo('a/b.png'), png(64, 64, scene(7)))
open('cut.tar', 'wb').write(open('web.tar', 'rb').read()[:900])
open('t-images-idx3-ubyte', 'wb').write(struct.pack('>4I', 0x803, 3, 8, 8) + bytes(i % 256 for i in range(192)))
os.makedirs('idx')
os.rename('t-images-idx3-ubyte', 'idx/t-images-idx3-ubyte')
open('idx/t-labels-idx1-ubyte', 'wb').write(struct.pack('>2I', 0x801, 3) + bytes([1, 0, 1]))
P
python3 make.py

# ---- by hand: same bytes for any thread count and place ----
status 0 "$bin/ingest" --in images=pictures --out dataset=one --set license=CC-BY-4.0 --set source=mine --threads 1
mkdir -p elsewhere/deep
cp -r pictures elsewhere/deep/other
status 0 "$bin/ingest" --in images=elsewhere/deep/other --out dataset=elsewhere/two --set license=CC-BY-4.0 --set source=mine --threads 2
diff -r one elsewhere/two || fail "another place and thread count, other bytes"
status 0 "$bin/data-profile" --in images=one --out dataset=p1 --out report=r1 --threads 1
status 0 "$bin/data-profile" --in images=elsewhere/two --out dataset=p2 --out report=r2 --threads 2
diff -r p1 p2 || fail "profiles differ"
diff -r r1 r2 || fail "reports differ"
! grep -rqE "$work|elsewhere" p1 r1 || fail "a path of this machine is in an output"

python3 - <<'P' || fail "the profile"
import json
rows = {r['member']: r for r in map(json.loads, open('p1/records.jsonl'))}
fields = """image_path source license_type width height aspect_ratio pHash quality_score aesthetic_score compression_score safety_labels language
has_text ocr_text text_density semantic_categories style_tags long_caption medium_caption short_caption simulated_user_prompt rarity_score
curriculum_complexity_score""".split()
assert len(rows) == 46, len(rows)
for r in rows.values():
    assert all(f in r for f in fields), r
assert rows['again.png']['dup_of'] == 'mine/fruit/apple_0.png' or rows['fruit/apple_0.png']['dup_of'] == 'mine/again.png'
pair = rows['larger.png'], rows['fruit/bear_11.png']
assert pair[0]['dup_of'] == pair[1]['id'] or pair[1]['dup_of'] == pair[0]['id'], pair
order = sorted(rows.values(), key=lambda r: r['quality_score'])
worst = [r['member'] for r in order[:len(order) // 10 + 1]]
assert 'blurred.png' in worst and 'tiny.png' in worst, worst
assert rows['fruit/apple_0.png']['short_caption'] == 'apple' and rows['fruit/apple_0.png']['semantic_categories'] == ['fruit']
assert rows['grey16.png']['original']['depth'] == 16
lic = json.load(open('p1/licenses.json'))['licenses']
assert lic == [{'expression': 'CC-BY-4.0', 'source': 'mine', 'pictures': 46, 'share': 1}], lic
P
grep -q 'data:image/png;base64' r1/report.html || fail "a report without pictures"

# ---- filters say what went ----
status 0 "$bin/data-profile" --in images=one --out dataset=p3 --out report=r3 --set min_side=16 --set duplicates=drop --set deny_licenses=MIT
python3 - <<'P' || fail "filters"
import json
removed = json.load(open('r3/report.json'))['removed']
assert removed == {'duplicate': 3, 'resolution': 3}, removed # again, larger, and the blurred one of two
gone = [json.loads(l) for l in open('p3/removed.jsonl')]
assert len(gone) == 6 and all(r['removed_by'] in removed for r in gone)
kept = [json.loads(l) for l in open('p3/records.jsonl')]
apple = [r for r in kept if r['member'] in ('again.png', 'fruit/apple_0.png')]
assert len(apple) == 1 and len(apple[0]['image_claims']) == 2, apple # the claim of the one that went is still there
P

# ---- hostile inputs: each told, counted, nothing lost ----
status 0 "$bin/ingest" --in images=bad --out dataset=bad1
python3 - <<'P' || fail "hostile pictures"
import json
s = json.load(open('bad1/ingest.json'))['sources'][0]
why = {k['reason']: k for k in s['skipped']}
assert s['kept'] == 1 and why['damaged']['count'] == 2 and why['too large']['count'] == 1, s
assert why['empty']['count'] == 1 and why['no picture']['count'] == 1, s
text = ' '.join(e for k in why.values() for e in k['examples'])
assert '30000 x 30000 has more than 30000000 pixels' in text and 'truncated.png: PNG is damaged: the file ends too early' in text, text
r = json.loads(open('bad1/records.jsonl').readline())
assert r['license_type'] == 'NOASSERTION' and r['quarantine'] is True, r # nobody said anything: never a guess
P
status 0 "$bin/ingest" --in images=escape.tar --out dataset=esc
grep -q '"count":2,"examples":\["../../outside.png: its path leads out of the archive"' esc/ingest.json || { cat esc/ingest.json; fail "escapes"; }
[ "$(wc -l <esc/records.jsonl)" = 1 ] || fail "only the member inside"
status 65 "$bin/ingest" --in images=cut.tar --out dataset=cut1
said "cut.tar"
status 65 "$bin/ingest" --in images=make.py --out dataset=none
said "no picture was found"
status 0 "$bin/ingest" --in images=some.zip --in images=web.tar --out dataset=arch
python3 - <<'P' || fail "archives and texts beside pictures"
import json
rows = {r['id']: r for r in map(json.loads, open('arch/records.jsonl'))}
assert rows['web.tar/0001.png']['short_caption'] == 'a red house'
assert rows['web.tar/0002.png']['short_caption'] == 'two drums' and rows['web.tar/0002.png']['short_caption_zh'] == '两面鼓'
assert 'some.zip/a/b.png' in rows
P
status 0 "$bin/ingest" --in images=idx --out dataset=idx1 --set labels=shirt,shoe
[ "$(jq -r .short_caption idx1/records.jsonl | paste -sd,)" = shoe,shirt,shoe ] || fail "labels of IDX"

# ---- records: wrong lines by number, right ones settle licences ----
printf '%s\n' '{"path":"fine.png","license":"CC0-1.0","caption":"a scene"}' '{"path":}' >rec.jsonl
status 65 "$bin/ingest" --in images=bad --in records=rec.jsonl --out dataset=rec1
said "rec.jsonl:2: "
printf '%s\n' '{"path":"fine.png","license":"CC 0"}' >rec.jsonl
status 65 "$bin/ingest" --in images=bad --in records=rec.jsonl --out dataset=rec2
said "rec.jsonl:1: licence 'CC 0'"
printf '%s\n' '{"file":"fine.png","license":"CC0-1.0","text":"a scene","attribution":"Ann"}' >rec.jsonl
status 0 "$bin/ingest" --in images=bad --in records=rec.jsonl --out dataset=rec3 --set fields=path=file,caption=text --set license=GPL-2.0-only
jq -e '.license_type == "CC0-1.0" and .license_rule == "record" and (.image_claims | length) == 2 and .attribution == "Ann"
    and .short_caption == "a scene"' rec3/records.jsonl >/dev/null || fail "a sidecar settles the licence and keeps the other claim"
status 64 "$bin/ingest" --in images=bad --out dataset=x --set license="not a licence"
status 64 "$bin/ingest" --in images=bad --out dataset=x --set sid=3
said "did you mean side?"
mkdir full && touch full/file
status 64 "$bin/ingest" --in images=bad --out dataset=full
said "holds 'file' already"

# ---- split: a concept on one side only; shards: tar reads them, a new row changes one shard ----
status 0 "$bin/split" --in dataset=p1 --out train=tr --out validation=va --out heldout=he --set validation=0.2 --set heldout=0.2 --set seed=2
[ "$(cat tr/records.jsonl va/records.jsonl he/records.jsonl | wc -l)" = 46 ] || fail "split lost rows"
for side in tr va he; do jq -r '.concept | ascii_downcase' $side/records.jsonl | sort -u; done | sort | uniq -d >both
[ ! -s both ] || { cat both; fail "concepts on two sides"; }
for side in tr va he; do [ -s $side/records.jsonl ] || fail "side $side is empty"; done
status 0 "$bin/shard" --in dataset=p1 --out shards=sh1 --set rows=10
status 0 "$bin/shard" --in dataset=p2 --out shards=sh2 --set rows=10 --threads 2
diff -r sh1 sh2 || fail "shards differ"
for t in sh1/*.tar; do tar -tf "$t"; done >members
[ "$(wc -l <members)" = 138 ] || fail "three members a row"
mkdir un && for t in sh1/*.tar; do tar -xf "$t" -C un; done
for f in un/*.json; do
    jq -r .image_path "$f" | cut -d/ -f3 | cut -d. -f1 | grep -qx "$(sha256sum <"${f%.json}.png" | cut -d' ' -f1)" || fail "picture of $f"
done
head -n 45 p1/records.jsonl >less && cp -r p1 p4 && cp less p4/records.jsonl
status 0 "$bin/shard" --in dataset=p4 --out shards=sh4 --set rows=10
changed=0
for t in sh1/*.tar; do cmp -s "$t" "sh4/${t#*/}" || changed=$((changed + 1)); done
[ "$changed" = 1 ] || fail "one row less changes $changed shards"

# ---- tokenizer ----
status 0 "$bin/tokenizer" --out tokenizer=t0
jq -e '(.model.vocab | length) == 259 and (.model.merges | length) == 0' t0/tokenizer.json >/dev/null || fail "no merges"
status 0 "$bin/tokenizer" --in dataset=p1 --out tokenizer=t1 --set vocab_size=280
jq -e '(.model.vocab | length) == 259 + (.model.merges | length) and (.model.merges | length) > 5' t1/tokenizer.json >/dev/null || fail "merges"
[ "$(wc -l <t1/merges.txt)" = $(($(jq '.model.merges | length' t1/tokenizer.json) + 1)) ] || fail "merges.txt"
status 64 "$bin/tokenizer" --out tokenizer=t2 --set vocab_size=280

# ---- whichever call fails: the right bytes, or a status and a text; by hand, killed and begun again elsewhere ----
status 0 "$bin/shard" --in dataset=rec3 --out shards=good-sh
for n in $(seq 0 200); do
    rm -rf f1 f2
    got=0
    WEIR_FAULT=$n "$bin/ingest" --in images=bad --in records=rec.jsonl --out dataset=f1 --set fields=path=file,caption=text \
        --set license=GPL-2.0-only --threads 1 2>err.txt || got=$?
    if [ "$got" = 0 ]; then
        diff -r rec3 f1 || fail "call $n failed, and other bytes came out"
    else
        [ -s err.txt ] || fail "call $n failed without a word"
        case $got in 64 | 75) cat err.txt; fail "call $n failed: status $got is not for that" ;; esac
        failed=$n
    fi
    got=0
    WEIR_FAULT=$n "$bin/shard" --in dataset=rec3 --out shards=f2 2>err.txt || got=$?
    if [ "$got" = 0 ]; then
        diff -r good-sh f2 || fail "call $n failed, and other shards came out"
        [ $((n - failed)) -lt 20 ] || break # all calls have had their turn
    fi
done
[ "$failed" -gt 20 ] || fail "faults were not reached"
for n in 3 9 15 21; do # at any instant
    rm -rf f1
    WEIR_FAULT=$n:kill "$bin/ingest" --in images=bad --in records=rec.jsonl --out dataset=f1 --set fields=path=file,caption=text \
        --set license=GPL-2.0-only --threads 1 >out.txt 2>&1 && fail "killed, yet done"
    [ ! -e f1/records.jsonl ] || cmp rec3/records.jsonl f1/records.jsonl || fail "half of the records"
done

# ---- stopped on request: 75, and nothing that looks like a result ----
(trap '' INT; "$bin/data-profile" --in images=one --out dataset=stop --threads 1 & echo $! >pid; wait $! || echo $? >rc) &
while [ ! -s pid ]; do :; done
kill -TERM "$(cat pid)" 2>/dev/null || true
wait
case $(cat rc 2>/dev/null || echo 0) in
75) [ ! -e stop/records.jsonl ] || fail "stopped, yet records" ;;
0 | 143) ;; # it was done, or not yet in main
*) fail "stopped with $(cat rc)" ;;
esac

# ---- through weir: wrong params before anything runs, events, caching, licences of the dataset ----
cat >data.yaml <<'Y'
weir: 1
name: data
sources:
  mine: {path: pictures, license: CC-BY-4.0, attribution: Ann}
stages:
  ingest:
    uses: ingest
    inputs: {images: sources.mine}
    outputs: [dataset]
    params: {license: "${sources.mine.license}", attribution: "${sources.mine.attribution}"}
  profile:
    uses: data-profile
    inputs: {images: [ingest.dataset]}
    outputs: [dataset, report]
  shards:
    uses: shard
    inputs: {dataset: profile.dataset}
    outputs: [shards]
    params: {rows: 16}
Y
"$WEIR" init --quiet
sed 's/params: {rows: 16}/params: {rows: many}/' data.yaml >wrong.yaml
status 65 "$WEIR" run wrong.yaml
said "wrong.yaml:19:20"
! grep -q ' run, ' out.txt || fail "something ran"
sed 's/params: {rows: 16}/params: {row: 16}/' data.yaml >wrong.yaml
status 65 "$WEIR" plan wrong.yaml
said "did you mean 'rows'?"
status 0 "$WEIR" run data.yaml
grep -q '^3 run, 0 reused' out.txt || { cat out.txt; fail "first run"; }
"$WEIR" checkout profile.dataset got
jq -e '.licenses[0].expression == "CC-BY-4.0" and .licenses[0].pictures == 46' got/licenses.json >/dev/null || fail "licences"
status 0 "$WEIR" run data.yaml
grep -q '^0 run, 3 reused' out.txt || { cat out.txt; fail "second run"; }
status 0 "$WEIR" run data.yaml --set stages.shards.params.rows=20
grep -q '^1 run, 2 reused' out.txt || { cat out.txt; fail "a param of the last stage"; }
