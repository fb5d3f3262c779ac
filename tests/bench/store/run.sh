#!/bin/bash
# run.sh - weir's store beside git, restic, borg, tar with zstd and cp: same data, same run, same machine.
#
#   tests/bench/store/run.sh DIR [QUICK]     about 25 GiB in DIR and half an hour; QUICK: 1/8 of the data, once
#
#   WEIR=program   the weir to measure (build/bin/weir)         REPS=3   rounds; the best counts
#   TOOLS="..."    of: weir cp tar-zstd git restic borg; those that are not installed are named and left out
#
# Corpora (corpus.c):  A  a bf16 checkpoint of 1 GiB, and a second version with half of its tensors changed
#                      B  50,000 files of 1 to 20 KiB; then one in a hundred is rewritten in place
# Every add ends with syncfs, inside the measured time: whoever has synced already pays little for it.  The page cache is warm.
# Second versions of A lie at another path, so that everybody has to read them.  B is where it was: stat caches may help.
# Prints  corpus tool step wall_s cpu_s peak_MiB stored_MiB  (best wall of REPS; stored is the whole store after the step),
# then ratios: weir to the best peer, and weir to what the machine can do (limits.c).  All rounds stay in DIR/rounds.tsv.
# shellcheck disable=SC2016 # the inner shells expand these
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(realpath -m "${1:?usage: run.sh DIR [QUICK]}")
mib=1024 count=50000 reps=${REPS:-3}
if [ -n "${2:-}" ]; then
    mib=128 count=6250 reps=${REPS:-1}
fi
weir=$(realpath -m "${WEIR:-$here/../../../build/bin/weir}")
unset WEIR_DIR
export LC_ALL=C

mkdir -p "$dir/bin" "$dir/A1" "$dir/A2" "$dir/A3"
rounds=$dir/rounds.tsv
: >"$rounds"

say() { printf '%s\n' "$*" >&2; }

if [ ! -x "$weir" ]; then
    say "run.sh: no weir at $weir: build it (make), or say WEIR=program"
    exit 69
fi

# ---- data and limits -----------------------------------------------------------------------------------------------

cc -O2 "$here/corpus.c" -lm -o "$dir/bin/corpus"
cc -O2 "$here/limits.c" -lcrypto -lpthread -o "$dir/bin/limits"
say "making the data"
"$dir/bin/corpus" checkpoint "$dir/A1/model.safetensors" base "$mib" >/dev/null
change=$("$dir/bin/corpus" checkpoint "$dir/A2/model.safetensors" half "$mib")
"$dir/bin/corpus" checkpoint "$dir/A3/model.safetensors" shift "$mib" >/dev/null
chmod -R u+w "$dir/B" 2>/dev/null || true
rm -rf "$dir/B" "$dir/work"
"$dir/bin/corpus" files "$dir/B" base "$count"
mkdir "$dir/work"

warm() { find "$@" -type f -print0 | xargs -0 cat >/dev/null; }
size_of() { du -s --apparent-size -B1 "$1" | cut -f1; }

say "measuring the machine"
warm "$dir/A1"
"$dir/bin/limits" "$dir/work" "$dir/A1/model.safetensors" | tee "$dir/limits.txt" >&2
limit() { awk -v name="$1" '$1 == name { print $2 }' "$dir/limits.txt"; }

# ---- one step ------------------------------------------------------------------------------------------------------

# step LABEL STORE COMMAND...: runs it and notes the round.  Labels that begin with add end with syncfs.
step() {
    local label=$1 store=$2 start end wall
    shift 2
    sync
    start=$(date +%s%N)
    if ! /usr/bin/time -q -o "$w/time" -f '%U %S %M' "$@" >"$w/log" 2>&1; then
        say "run.sh: $tool $corpus $label failed: $(tail -n 3 "$w/log")"
        return 0
    fi
    case $label in
    add*) sync -f "$store" ;;
    esac
    end=$(date +%s%N)
    wall=$(((end - start) / 1000))
    read -r user system peak <"$w/time"
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$corpus" "$tool" "$label" "$wall" "$user" "$system" "$peak" \
        "$(size_of "$store")" >>"$rounds"
}

same() { # same WANTED GOT: a restore that differs is no restore
    diff -rq --no-dereference "$1" "$2" >/dev/null || say "run.sh: $tool $corpus: the restored data differs"
}

# ---- the tools -----------------------------------------------------------------------------------------------------
# Each: do_TOOL FIRST SECOND, folders; FIRST equals SECOND for B, whose second version is made in place by change_b.

change_b() {
    if [ "$corpus" = B ]; then
        "$dir/bin/corpus" files "$dir/B" rewrite "$count"
    fi
}

do_cp() {
    mkdir "$w/store"
    step add1 "$w/store" cp -r "$1" "$w/store/1"
    change_b
    step add2 "$w/store" cp -r "$2" "$w/store/2"
    step verify "$w/store" bash -c 'find "$1" -type f -print0 | xargs -0 openssl dgst -sha256 -r' _ "$w/store/1"
    step restore "$w/store" cp -r "$w/store/1" "$w/out"
}

do_tar-zstd() {
    mkdir "$w/store" "$w/out"
    step add1 "$w/store" bash -c 'tar -C "$1" -cf - . | zstd -q -1 -T2 -o "$2"' _ "$1" "$w/store/1.zst"
    change_b
    step add2 "$w/store" bash -c 'tar -C "$1" -cf - . | zstd -q -1 -T2 -o "$2"' _ "$2" "$w/store/2.zst"
    step verify "$w/store" zstd -qt "$w/store/1.zst" "$w/store/2.zst"
    step restore "$w/store" bash -c 'zstd -dc "$1" | tar -C "$2" -xf -' _ "$w/store/1.zst" "$w/out"
}

# Without compression: with it, 1 GiB of weights takes git a minute and a half.
do_git() {
    local git=(git -c core.compression=0 -c gc.auto=0 -c user.name=n -c user.email=e --git-dir="$w/store")

    "${git[@]}" init -q
    step add1 "$w/store" bash -c '"${@:2}" --work-tree="$1" add -A . && "${@:2}" --work-tree="$1" commit -qm 1' _ \
        "$1" "${git[@]}"
    change_b
    step add2 "$w/store" bash -c '"${@:2}" --work-tree="$1" add -A . && "${@:2}" --work-tree="$1" commit -qm 2' _ \
        "$2" "${git[@]}"
    step verify "$w/store" "${git[@]}" fsck --full
    mkdir "$w/out"
    step restore "$w/store" "${git[@]}" --work-tree="$w/out" checkout -f HEAD~1 -- .
}

do_restic() {
    export RESTIC_PASSWORD=x RESTIC_REPOSITORY=$w/store RESTIC_CACHE_DIR=$w/cache
    restic -q init
    step add1 "$w/store" bash -c 'cd "$1" && restic -q backup .' _ "$1"
    change_b
    step add2 "$w/store" bash -c 'cd "$1" && restic -q backup .' _ "$2"
    step verify "$w/store" restic -q check --read-data
    step restore "$w/store" restic -q restore "$(restic snapshots --json | jq -r 'sort_by(.time)[0].id')" \
        --target "$w/out"
}

do_borg() {
    export BORG_BASE_DIR=$w/base BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
    borg init -e none "$w/store"
    step add1 "$w/store" bash -c 'cd "$2" && borg create "$1::1" .' _ "$w/store" "$1"
    change_b
    step add2 "$w/store" bash -c 'cd "$2" && borg create "$1::2" .' _ "$w/store" "$2"
    step verify "$w/store" borg check --verify-data "$w/store"
    mkdir "$w/out"
    step restore "$w/store" bash -c 'cd "$2" && borg extract "$1::1"' _ "$w/store" "$w/out"
}

weir_() { (cd "$w/store" && "$weir" "$@"); }

do_weir() {
    local store=$w/store
    mkdir "$store"
    weir_ init >/dev/null
    cd "$store"
    step add1 "$store" "$weir" store add --ref one "$1"
    change_b
    step add2 "$store" "$weir" store add --ref two "$2"
    step verify "$store" "$weir" fsck
    step restore "$store" "$weir" store get --link one "$w/out"
    if [ "$corpus" = A ]; then
        step pack "$store" "$weir" store pack --cold 0s
        step verify_packed "$store" "$weir" fsck
        step restore_packed "$store" "$weir" store get one "$w/out_packed"
        same "$1" "$w/out_packed"
        mkdir "$w/shifted" && cd "$w/shifted" && "$weir" init >/dev/null
        step add1_again "$w/shifted" "$weir" store add "$1"
        step add2_shifted "$w/shifted" "$weir" store add "$dir/A3"
        tool_calls "$1"
    else
        step add2_no_memo "$store" "$weir" store add --no-memo "$2"
        tool_calls "$1"
    fi
    cd "$dir"
}

# Calls that wait for the disk, in a first add of that folder.
tool_calls() {
    if [ "$rep" != 1 ] || ! command -v strace >/dev/null; then
        return 0
    fi
    mkdir "$w/calls" && cd "$w/calls" && "$weir" init >/dev/null
    if ! strace -f -qq -c -o "$w/strace" -e trace=fsync,fdatasync,syncfs,sync,msync "$weir" store add "$1" >"$w/log" 2>&1
    then
        say "run.sh: counting calls failed: $(tail -n 3 "$w/log")"
        return 0
    fi
    awk -v corpus="$corpus" '$4 ~ /^[0-9]+$/ && $NF != "total" { n += $4 }
        END { printf "fsync-like calls of weir in the first add of %s: %d\n", corpus, n }' "$w/strace" >>"$dir/calls.txt"
}

# ---- all of it -----------------------------------------------------------------------------------------------------

installed() {
    case $1 in
    weir | cp) ;;
    tar-zstd) command -v tar >/dev/null && command -v zstd >/dev/null ;;
    restic) command -v restic >/dev/null && command -v jq >/dev/null ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

: >"$dir/calls.txt"
ln -sfn B "$dir/B1"
tools=
for tool in ${TOOLS:-weir cp tar-zstd git restic borg}; do
    if installed "$tool"; then
        tools+=" $tool"
    else
        say "not installed, left out: $tool"
    fi
done

for ((rep = 1; rep <= reps; rep++)); do
    for tool in $tools; do
        for corpus in A B; do
            say "round $rep: $tool $corpus"
            w=$dir/work/$tool.$corpus
            rm -rf "$w"
            mkdir "$w"
            if [ "$corpus" = A ]; then
                warm "$dir/A1" "$dir/A2" "$dir/A3"
                "do_$tool" "$dir/A1" "$dir/A2"
            else
                "$dir/bin/corpus" files "$dir/B" restore "$count"
                warm "$dir/B"
                "do_$tool" "$dir/B" "$dir/B"
                "$dir/bin/corpus" files "$dir/B" restore "$count"
            fi
            if [ "$rep" = 1 ]; then
                same "$dir/${corpus}1/" "$w/out/"
            fi
            cd "$dir"
            chmod -R u+w "$w"
            rm -rf "$w"
        done
    done
done

# ---- what came out -------------------------------------------------------------------------------------------------

uname -srm
lscpu | sed -n 's/^Model name: *//p'
echo "$(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg), $reps rounds"
echo
cat "$dir/limits.txt" "$dir/calls.txt"
echo
awk -F'\t' -v OFS='\t' '
    { key = $1 OFS $2 OFS $3; wall = $4 / 1e6 }
    !(key in best) { order[++n] = key }
    !(key in best) || wall < best[key] { best[key] = wall; cpu[key] = $5 + $6 }
    $7 > peak[key] { peak[key] = $7 }
    { stored[key] = $8 }
    END {
        print "corpus", "tool", "step", "wall_s", "cpu_s", "peak_MiB", "stored_MiB"
        for (i = 1; i <= n; i++) {
            k = order[i]
            printf "%s\t%.3f\t%.2f\t%.0f\t%.1f\n", k, best[k], cpu[k], peak[k] / 1024, stored[k] / 1048576
        }
    }' "$rounds" | tee "$dir/results.tsv" | column -t
echo
awk -F'\t' -v hash="$(limit hash_file)" -v write="$(limit durable_write)" -v all="$(limit sha256_all)" -v change="$change" \
    -v a_mib="$(size_of "$dir/A1/model.safetensors")" -v b_mib="$(size_of "$dir/B")" '
    NR > 1 { wall[$1, $2, $3] = $4; cpu[$1, $2, $3] = $5; stored[$1, $2, $3] = $7; tools[$2] = 1 }
    function best_peer(corpus, step,    t, b) {
        b = ""
        for (t in tools)
            if (t != "weir" && t != "cp" && (corpus, t, step) in wall && (b == "" || wall[corpus, t, step] < wall[corpus, b, step]))
                b = t
        return b
    }
    function line(what, value, unit) { printf "%-62s %8.3f %s\n", what, value, unit }
    function against(corpus, step,    p) {
        p = best_peer(corpus, step)
        if (p != "" && (corpus, "weir", step) in wall)
            line(corpus " " step ": weir / best peer (" p ")", wall[corpus, "weir", step] / wall[corpus, p, step], "x")
    }
    function ratio(what, a, b) { if (a > 0 && b > 0) line(what, a / b, "x") }
    END {
        a_mib /= 1048576; b_mib /= 1048576
        floor = hash > write ? hash : write
        for (c = 0; c < 2; c++)
            for (s = 0; s < 4; s++)
                against(substr("AB", c + 1, 1), s == 0 ? "add1" : s == 1 ? "add2" : s == 2 ? "verify" : "restore")
        ratio("A add1: weir / slower of hashing and writing on one core", wall["A", "weir", "add1"], floor)
        ratio("A add2: weir / hashing on one core", wall["A", "weir", "add2"], hash)
        ratio("A add2: weir / hashing file and chunks on all cores", wall["A", "weir", "add2"], 2 * a_mib / all)
        ratio("A add2: stored / true change", (stored["A", "weir", "add2"] - stored["A", "weir", "add1"]) / a_mib, change)
        ratio("A add2_shifted: stored / true change", (stored["A", "weir", "add2_shifted"] - stored["A", "weir", "add1_again"]) / a_mib, change)
        ratio("A pack: stored of both versions / their different bytes", stored["A", "weir", "pack"] / a_mib, 1 + change)
        line("A verify: CPU s per GiB of different bytes", cpu["A", "weir", "verify"] / (a_mib * (1 + change)) * 1024, "s")
        line("A verify_packed: the same, compressed", cpu["A", "weir", "verify_packed"] / (a_mib * (1 + change)) * 1024, "s")
        ratio("B add1: stored / size of the files", stored["B", "weir", "add1"], b_mib)
        ratio("B add1: weir / cp -r", wall["B", "weir", "add1"], wall["B", "cp", "add1"])
        ratio("B restore: weir / cp -r", wall["B", "weir", "restore"], wall["B", "cp", "restore"])
    }' "$dir/results.tsv"
