#!/bin/bash
# format.sh - the tree is as `make format` leaves it.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

check() {
    files . '\.(c|h|cu|cuh)$' | tr '\n' '\0' |
        xargs -0 -r -P "$(nproc)" -n 16 clang-format --style="file:$src/.clang-format" --dry-run -Werror 2>&1
}

refuses base/a.c 'should be clang-formatted' <<<'int  f( void ){return 1;}'
accepts base/a.c <<<'int f(void)
{
    return 1;
}'

if ! (cd "$src" && check); then
    echo "run: make format"
    exit 1
fi
