#!/bin/bash
# run.sh - weir beside GNU make and ninja on the same graph, in one run.  Lines: name, tool, tasks, wall s, cpu s (user + system), peak KiB.
#
#   noop     LAYERS x WIDTH tasks, nothing to do; weir by content, the others by mtime.  weir-stages: written out as explicit stages
#   plan     weir plan of the same
#   why      weir why of the last task
#   edit1    one of WIDTH sources changed: a chain of LAYERS tasks runs again
#   flat     FLAT independent tasks, two workers, cold
#   noop-big BIG layers of WIDTH tasks (weir alone)
#
# Each task copies its input and appends its own id, in every tool: equal actions would be one task.  The first build of each graph is not
# timed.  Figures are medians of REPS.  WEIR=build/bin/weir tests/bench/orchestrator/run.sh [LAYERS WIDTH]; FLAT, BIG, REPS, SKIP_COLD=1 in the
# environment.  A busy machine shows in wall; trust cpu first.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
WEIR=$(realpath "$WEIR")
layers=${1:-100} width=${2:-100} reps=${REPS:-5} flat=${FLAT:-2000} big=${BIG:-0}
command -v /usr/bin/time >/dev/null || { echo "run.sh: needs GNU time" >&2; exit 1; }
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

sources() { # sources DIR WIDTH
    mkdir -p "$1/src"
    for ((i = 0; i < $2; i++)); do echo "seed $i" >"$1/src/$i"; done
}
# Each graph from the same two numbers.
weir_matrix() { # weir_matrix DIR LAYERS WIDTH
    sources "$1" "$3"
    awk -v L="$2" -v W="$3" 'BEGIN {
        print "weir: 1\nname: bench\nsources:"
        for (i = 0; i < W; i++) printf "  s%d: {path: src/%d, license: MIT}\n", i, i
        keys = "0"; for (i = 1; i < W; i++) keys = keys ", " i
        print "stages:"
        for (l = 0; l < L; l++) {
            printf "  t%d:\n    matrix: {k: [%s]}\n    params: {id: \"%d-${matrix.k}\"}\n", l, keys, l
            print "    run: \"cat {inputs.x} > {outputs.o}; echo {params.id} >> {outputs.o}\"\n    outputs: [o]"
            if (l) printf "    inputs: {x: \"t%d[k=${matrix.k}].o\"}\n", l - 1
            else print "    inputs: {x: \"sources.s${matrix.k}\"}"
        } }' >"$1/pipe.yaml"
}
weir_stages() {
    sources "$1" "$3"
    awk -v L="$2" -v W="$3" 'BEGIN {
        print "weir: 1\nname: bench\nsources:"
        for (i = 0; i < W; i++) printf "  s%d: {path: src/%d, license: MIT}\n", i, i
        print "stages:"
        for (l = 0; l < L; l++) for (i = 0; i < W; i++) {
            printf "  t%d-%d:\n    params: {id: \"%d-%d\"}\n", l, i, l, i
            print "    run: \"cat {inputs.x} > {outputs.o}; echo {params.id} >> {outputs.o}\"\n    outputs: [o]"
            if (l) printf "    inputs: {x: t%d-%d.o}\n", l - 1, i
            else printf "    inputs: {x: sources.s%d}\n", i
        } }' >"$1/pipe.yaml"
}
make_file() {
    sources "$1" "$3"
    mkdir -p "$1/out"
    awk -v L="$2" -v W="$3" 'BEGIN { print "MAKEFLAGS += -rR\n.SUFFIXES:\nall:"
        for (l = 0; l < L; l++) for (i = 0; i < W; i++) {
            x = l ? "out/" (l - 1) "_" i : "src/" i; o = "out/" l "_" i
            printf "%s: %s\n\t@cat %s > %s; echo %d-%d >> %s\n", o, x, x, o, l, i, o
            if (l == L - 1) print "all: " o } }' >"$1/Makefile"
}
ninja_file() {
    sources "$1" "$3"
    mkdir -p "$1/out"
    awk -v L="$2" -v W="$3" 'BEGIN { print "rule t\n  command = cat $in > $out; echo $id >> $out"
        for (l = 0; l < L; l++) for (i = 0; i < W; i++)
            printf "build out/%d_%d: t %s\n  id = %d-%d\n", l, i, (l ? "out/" (l - 1) "_" i : "src/" i), l, i
        printf "build all: phony"; for (i = 0; i < W; i++) printf " out/%d_%d", L - 1, i; print "\ndefault all" }' \
        >"$1/build.ninja"
}
measure() { # measure NAME TOOL TASKS PREPARE COMMAND...: the median of reps by cpu
    local name=$1 tool=$2 tasks=$3 prepare=$4
    shift 4
    for ((r = 0; r < reps; r++)); do
        $prepare "$r"
        /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >/dev/null
        cat "$work/time"
    done | awk '{ printf "%s %.2f %s\n", $1, $2 + $3, $4 }' | sort -k2n |
        awk -v n="$name" -v t="$tool" -v k="$tasks" '{ l[NR] = $0 } END { print n, t, k, l[int((NR + 1) / 2)] }'
}
nothing() { :; }
edit() { echo "seed 0 edited $1 $RANDOM" >src/0; sleep 0.01; }

declare -A build=([weir]="$WEIR run --quiet pipe.yaml" [weir-stages]="$WEIR run --quiet pipe.yaml"
    [make]="make -j2 -s" [ninja]="ninja -j2 --quiet")
declare -A generate=([weir]=weir_matrix [weir-stages]=weir_stages [make]=make_file [ninja]=ninja_file)
tools=()
for tool in weir weir-stages make ninja; do
    case $tool in make | ninja) command -v $tool >/dev/null || { echo "run.sh: no $tool here" >&2; continue; } ;; esac
    tools+=("$tool")
    ${generate[$tool]} "$work/$tool" "$layers" "$width"
    cd "$work/$tool"
    case $tool in weir*) "$WEIR" init --quiet ;; esac
    ${build[$tool]} >/dev/null
done
for tool in "${tools[@]}"; do
    cd "$work/$tool"
    read -ra command <<<"${build[$tool]}"
    measure noop "$tool" $((layers * width)) nothing "${command[@]}"
done
for tool in weir weir-stages; do
    cd "$work/$tool"
    measure plan $tool $((layers * width)) nothing "$WEIR" plan --quiet pipe.yaml
    last="t$((layers - 1))[k=0]"
    [ $tool = weir ] || last="t$((layers - 1))-0"
    measure why $tool $((layers * width)) nothing "$WEIR" why "$last"
done
for tool in "${tools[@]}"; do
    cd "$work/$tool"
    read -ra command <<<"${build[$tool]}"
    measure edit1 "$tool" "$layers" edit "${command[@]}"
done
if [ "${SKIP_COLD:-0}" = 0 ]; then
    fresh() {
        rm -rf "$work/cold"
        ${generate[$cold_tool]} "$work/cold" 1 "$flat"
        cd "$work/cold"
        case $cold_tool in weir*) "$WEIR" init --quiet ;; esac
    }
    for tool in "${tools[@]}"; do
        [ "$tool" = weir-stages ] && continue
        cold_tool=$tool
        read -ra command <<<"${build[$tool]}"
        reps=1
        fresh
        measure flat "$tool" "$flat" nothing "${command[@]}"
    done
    reps=${REPS:-5}
fi
if [ "$big" -gt 0 ]; then
    weir_matrix "$work/big" "$big" "$width"
    cd "$work/big"
    "$WEIR" init --quiet
    "$WEIR" run --quiet pipe.yaml >/dev/null
    measure noop-big weir $((big * width)) nothing "$WEIR" run --quiet pipe.yaml
fi
