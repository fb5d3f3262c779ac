#!/bin/bash
# lint.sh - clang-tidy with the checks of .clang-tidy, and cppcheck, over everything but the tests.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/../tidy/tidy.bash"

database=${WEIR_BUILD:-$src/build/gcc}

sources() {
    files . '^(base|store|cluster|orchestrator|kernels|stages)/.*\.c$'
}

# A third of the analyzer's default budget for a function: on the three slowest files it found the same in less than half the time.
export budget="--extra-arg=-Xclang --extra-arg=-analyzer-config --extra-arg=-Xclang --extra-arg=max-nodes=75000"

# shellcheck disable=SC2317 # called through xargs
# tidy_one SOURCE OPTION...: prints findings only; the summary lines that clang-tidy adds matter to nobody.
tidy_one() {
    local source=$1 include=() said
    shift
    # base/err.c defines what analyzer.h redefines.
    if [ "$source" != base/err.c ] && [ -f base/err.h ]; then
        include=(--extra-arg=-include "--extra-arg=$src/tests/tidy/analyzer.h")
    fi
    # Function length is left to size.sh, which knows the excuse "long: reason".
    # shellcheck disable=SC2086 # the budget is several words
    said=$(clang-tidy --quiet --config-file="$src/.clang-tidy" --checks=-readability-function-size \
        "${include[@]}" $budget "$source" "$@" 2>&1) && return
    grep -vE '^[0-9]+ (warning|error)s? |^Suppressed |^Use -header-filter' <<<"$said"
    return 1
}

tidy() { # tidy OPTION...
    export -f tidy_one
    export src
    # shellcheck disable=SC2016 # expanded by the inner shell
    sources | xargs -r -P "$(nproc)" -I{} bash -c 'tidy_one "$@"' _ {} "$@"
}

# Not asked of cppcheck: readdir is thread-safe in every libc that weir meets; CHECK(!"reason") is meant; a descriptor
# that was closed may be named in a message; uninitialised variables are left to clang, which follows them better.
# Jansson's headers are not read, so its loops are put into words that cppcheck knows.
macros=('-Djson_object_foreach(o,k,v)=while(next_of(o,&k,&v))' '-Djson_array_foreach(a,i,v)=while(next_of(a,&i,&v))')
cpp() {
    sources >"$work/sources"
    if [ -s "$work/sources" ]; then
        cppcheck -j "$(nproc)" --quiet --std=c11 --enable=warning,portability,performance --inline-suppr \
            --error-exitcode=1 --library=posix -I . -D_GNU_SOURCE "${macros[@]}" --file-list="$work/sources" \
            --template='{file}:{line}: {message} [{id}]' --suppress=missingInclude --suppress=readdirCalled \
            --suppress=incorrectStringBooleanError --suppress=deallocret --suppress=uninitvar 2>&1
    fi
}

check() {
    # A sample has no compile commands; -- gives its flags instead.
    tidy -- -std=c17 -I.
}
refuses base/a.c misc-redundant-expression <<<'int f(int a);
int f(int a)
{
    return a == a;
}'
refuses base/a.c clang-analyzer-core <<<'int f(int a);
int f(int a)
{
    int *p = 0;
    return a ? a : *p;
}'
accepts base/a.c <<<'int f(const int *p);
int f(const int *p)
{
    return *p;
}'

check() {
    cpp
}
refuses base/a.c arrayIndexOutOfBounds <<<'int f(void)
{
    int a[2] = {0, 0};
    return a[2];
}'

if [ ! -f "$database/compile_commands.json" ]; then
    database=$work/build
    cmake -S "$src" -B "$database" -G Ninja -DBUILD_TESTING=OFF -DWEIR_CUDA=OFF >"$work/log" 2>&1 || {
        cat "$work/log"
        exit 1
    }
fi
cd "$src" || exit 1
rc=0
tidy -p "$database" || rc=1
cpp || rc=1
exit $rc
