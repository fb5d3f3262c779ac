#!/bin/bash
# run.sh - build and test; the Makefile's targets end up here.
#
#   tests/run.sh build     programs only, into build/
#   tests/run.sh test      every part below, then the whole test suite on the gcc build
#   tests/run.sh long      the tests in tests/long/, and the thread sanitizer
#   tests/run.sh format    clang-format over the tree
#
# `test` is several parts, each in its own folder below build/.  A part that passes says so in one line and leaves its
# output in build/log/; a part that fails prints it, and the rest still runs, so one run shows everything that is wrong.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 70
jobs=$(nproc)

configure() { # configure FOLDER COMPILER OPTION...
    local folder=$1 compiler=$2
    shift 2
    cmake -S . -B "$folder" -G Ninja -DCMAKE_C_COMPILER="$compiler" "$@"
}

# FOLDER COMPILER OPTION...: everything, warnings are errors
build_strict() {
    configure "$@" -DWEIR_WERROR=ON && cmake --build "$1" -j "$jobs"
}

build_programs() {
    if [ ! -f build/build.ninja ] && ! cmake -S . -B build -G Ninja -DBUILD_TESTING=OFF; then
        echo "run.sh: something that the build needs is missing; tests/setup.sh build installs it" >&2
        return 69
    fi
    cmake --build build -j "$jobs"
}

# ---- parts -----------------------------------------------------------------------------------------------------------

names=()
seconds=()
results=()
failed=()

part() { # part NAME COMMAND...
    local name=$1 log started rc=0
    shift
    log=build/log/${name// /-}.log
    started=$EPOCHREALTIME
    "$@" >"$log" 2>&1 || rc=$?
    names+=("$name")
    seconds+=("$(elapsed "$started")")
    if [ $rc = 0 ]; then
        results+=(ok)
    else
        results+=("FAILED")
        failed+=("$name")
        cat "$log"
    fi
    printf '%-20s %8s s  %s\n' "$name" "${seconds[-1]}" "${results[-1]}"
    return $rc
}

elapsed() { # elapsed STARTED: seconds since, one decimal
    local tenths=$(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 100000))
    echo "$((tenths / 10)).$((tenths % 10))"
}

table() {
    local i
    printf '\n%-20s %10s  %s\n' part time result
    for i in "${!names[@]}"; do
        printf '%-20s %8s s  %s\n' "${names[i]}" "${seconds[i]}" "${results[i]}"
    done
    echo
}

# finish STATUS WHAT: the exit status of the whole
finish() {
    if [ ${#failed[@]} -gt 0 ]; then
        echo "$2: FAILED:$(printf ' [%s]' "${failed[@]}"), see build/log/" >&2
        exit 1
    fi
    exit "$1"
}

cuda_state() {
    local kernels
    kernels=$(find kernels -name '*.cu' 2>/dev/null | wc -l)
    if [ "$kernels" = 0 ]; then
        echo "cuda: no .cu files in kernels/, nothing to compile"
    elif command -v nvcc >/dev/null; then
        echo "cuda: $kernels .cu files compiled in the gcc build by $(nvcc --version | sed -n 's/.*release \([^,]*\).*/nvcc \1/p')"
    else
        echo "cuda: no nvcc on PATH, $kernels .cu files NOT compiled"
    fi
}

# The tests make and sync thousands of small stores.  In memory that takes a fifth of the time, and what an fsync is worth
# is tested by fault.powercut, on file systems of its own.  TMPDIR, when set, wins.
fast_tmpdir() {
    local free
    free=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1) || free=0
    if [ -z "${TMPDIR-}" ] && [ "${free:-0}" -ge $((4 * 1024 * 1024)) ]; then
        export TMPDIR=/dev/shm
    fi
    echo "temporary files of the tests: ${TMPDIR-/tmp}"
}

run_test() {
    mkdir -p build/log
    fast_tmpdir
    # The gcc build compiles CUDA where nvcc is found; the other two show that nothing else needs it.
    part "gcc build" build_strict build/gcc gcc
    local gcc_built=$?
    part "clang build" build_strict build/clang clang -DWEIR_CUDA=OFF
    if part "sanitizer build" build_strict build/asan clang -DWEIR_CUDA=OFF -DWEIR_SANITIZE=address \
        -DCMAKE_BUILD_TYPE=Debug; then
        part "sanitizer tests" ctest --test-dir build/asan -j "$jobs" --output-on-failure \
            -L '^(unit|prop|golden|fuzz|fault|sim)$'
        grep -E 'tests passed|No tests were found' build/log/sanitizer-tests.log
    fi
    table
    if [ $gcc_built != 0 ]; then
        finish 1 "make test"
    fi
    cuda_state
    # Last, so that its summary is what a reader sees.  Times by label (unit, fault, e2e, tidy, ...) are part of it.
    ctest --test-dir build/gcc -j "$jobs" --output-on-failure -LE '^long$'
    finish $? "make test"
}

# The peers are gigabytes, so they are installed once per list of versions.
python_peers() {
    if cmp -s tests/requirements.txt build/venv/requirements.txt; then
        return 0
    fi
    python3 -m venv --clear build/venv &&
        build/venv/bin/pip install --disable-pip-version-check -r tests/requirements.txt &&
        cp tests/requirements.txt build/venv/
}

run_long() {
    mkdir -p build/log
    fast_tmpdir
    part "gcc build" build_strict build/gcc gcc || finish 1 "make test-long"
    if part "thread build" build_strict build/tsan clang -DWEIR_CUDA=OFF -DWEIR_SANITIZE=thread \
        -DCMAKE_BUILD_TYPE=Debug; then
        part "thread tests" ctest --test-dir build/tsan -j "$jobs" --output-on-failure -L '^(unit|prop|fault|sim)$'
    fi
    part "python peers" python_peers
    table
    # Tests that compare with the peers find them here.
    WEIR_PYTHON=$PWD/build/venv/bin/python ctest --test-dir build/gcc --output-on-failure -L '^long$'
    finish $? "make test-long"
}

case ${1-} in
build) build_programs ;;
test) run_test ;;
long) run_long ;;
format)
    # shellcheck source=tests/tidy/tidy.bash
    . tests/tidy/tidy.bash
    files . '\.(c|h|cu|cuh)$' | xargs -r clang-format -i
    ;;
*)
    echo "usage: tests/run.sh build|test|long|format" >&2
    exit 64
    ;;
esac
