#!/bin/bash
# headers.sh - every header compiles alone, and twice: as C17, those that a .cu file may see as C++17 too.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

cflags=$(pkg-config --cflags jansson libcrypto libzstd lmdb libuv yaml-0.1 libgit2 libcurl)

# $1 is the header.  Included twice, so that a missing guard shows.
compile_one() {
    local include='#include "'$1'"'
    local flags="-fsyntax-only -I. -D_GNU_SOURCE -Wall -Wextra -Werror $cflags"
    # shellcheck disable=SC2086 # flags are words
    printf '%s\n%s\n' "$include" "$include" | gcc -std=c17 $flags -x c - >"$2" 2>&1 || {
        echo "$1:1: does not compile alone as C17"
        cat "$2"
        return 1
    }
    case $1 in
    kernels/*)
        # shellcheck disable=SC2086
        printf '%s\n%s\n' "$include" "$include" | g++ -std=c++17 $flags -x c++ - >"$2" 2>&1 || {
            echo "$1:1: does not compile alone as C++17"
            cat "$2"
            return 1
        }
        ;;
    esac
}

check() {
    export -f compile_one
    export cflags
    # shellcheck disable=SC2016 # expanded by the inner shell
    # Each compiler gets a log of its own, printed whole, so that messages do not mix.
    files . '^(base|store|cluster|orchestrator|kernels|stages)/.*\.h$' | xargs -r -P "$(nproc)" -I{} bash -c '
        log=$(mktemp "$2/log.XXXXXX")
        said=$(compile_one "$1" "$log") || { printf "%s\n" "$said"; exit 1; }' _ {} "$work"
}

refuses base/a.h 'as C17' <<<'size_t f(void);'
refuses base/a.h 'as C17' <<<'struct twice { int x; };'
refuses kernels/a.h 'as C++17' <<<'#ifndef A_H
#define A_H
int f(int class);
#endif'
accepts kernels/a.h <<<'#ifndef A_H
#define A_H
int f(int x);
#endif'

cd "$src" && check
