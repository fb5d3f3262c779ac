#!/bin/bash
# readme.sh - README.md is true: its yaml goes into demo.yaml, the commands of its `console` blocks are run in order in one
# folder, all must succeed, and what they print must be what is shown there.
#
# Shown output that is only "..." stands for anything; "0.023s" stands for any time.
set -euo pipefail

weir=${WEIR:?path of the weir program}
src=${WEIR_SRC:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-e2e-readme.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
unset WEIR_DIR NO_COLOR
export LC_ALL=C
PATH=$(dirname "$weir"):$PATH
mkdir "$work/session"
cd "$work/session"

# Line number, tab, line, of the blocks in that language.
blocks() { awk -v fence="\`\`\`$1" '/^```/ { inside = $0 == fence; next } inside { print NR "\t" $0 }' "$src/README.md"; }
# Parallel tasks end in any order, so lines are compared as a set.
no_times() { sed -E 's/\b[0-9]+\.[0-9]+s\b/_s/g' | sort; }

line=0 command='' shown='' count=0
try() { # the command, with what the lines after it show
    local said rc=0
    [ -n "$command" ] || return 0
    said=$(eval "$command" 2>&1) || rc=$?
    if [ $rc != 0 ]; then
        echo "README.md:$line: '$command' ended with $rc: $said" >&2
        exit 1
    fi
    if [ "$shown" != $'...\n' ] && [ "$(no_times <<<"$said")" != "$(no_times <<<"${shown%$'\n'}")" ]; then
        printf 'README.md:%s: "%s" does not print what is shown there, but:\n%s\n' "$line" "$command" "$said" >&2
        exit 1
    fi
    count=$((count + 1))
}

blocks yaml | cut -f 2- >demo.yaml
blocks console >../console
while IFS=$'\t' read -r number text; do
    if [ "${text:0:2}" = "$ " ]; then
        try
        line=$number command=${text:2} shown=''
    else
        shown+=$text$'\n'
    fi
done <../console
try

# One that does not match anything any more would prove nothing.
if [ "$count" -lt 10 ]; then
    echo "README.md: only $count commands were found in console blocks" >&2
    exit 1
fi
echo "readme.sh: $count commands do what README.md says"
