#!/bin/bash
# shell.sh - shellcheck over every script.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

check() {
    files . '\.(sh|bash)$|^\.ci/run$' | tr '\n' '\0' |
        xargs -0 -r -P "$(nproc)" -n 4 shellcheck --external-sources --shell=bash --format=gcc
}

# shellcheck disable=SC2016 # the samples are not expanded here
{
    refuses tests/a.sh SC2086 <<<'#!/bin/bash
rm $1'
    accepts tests/a.sh <<<'#!/bin/bash
rm "$1"'
}

cd "$src" && check
