# tidy.bash - what the checks in this folder share; each sources it, defines `check` and calls it.
#
#   files ROOT PATTERN     names below ROOT that match the extended regular expression
#   refuses FILE TEXT      self-check: a tree with this one FILE (from stdin) must fail, and the message must hold
#                          FILE and TEXT.  A check that cannot fail is worse than none.
#   accepts FILE           self-check: that tree must pass
#   check                  runs in the root of a tree, prints file:line and what is wrong, returns 1

set -uo pipefail

# shellcheck disable=SC2034 # used by those who source this
src=${WEIR_SRC:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What git would commit: tracked, or neither tracked nor ignored.  Outside a checkout (a release archive, a sample),
# every file but those of build folders.
files() {
    if [ "$(git -C "$1" rev-parse --show-toplevel 2>/dev/null)" = "$(realpath "$1")" ]; then
        git -C "$1" ls-files -z --cached --others --exclude-standard | tr '\0' '\n'
    else
        (cd "$1" && find . -path './build*' -prune -o -path ./.git -prune -o -type f -print | sed 's,^\./,,')
    fi | sort -u | { grep -E -- "$2" || true; } | while IFS= read -r name; do
        if [ -f "$1/$name" ]; then # a file may be deleted, but not yet in the index
            printf '%s\n' "$name"
        fi
    done
}

sample() {
    rm -rf "$work/sample"
    mkdir -p "$work/sample/$(dirname "$1")"
    cat >"$work/sample/$1"
}

refuses() {
    local said
    sample "$1"
    if said=$(cd "$work/sample" && check); then
        echo "self-check: $0 does not notice '$2' in $1:" >&2
        cat "$work/sample/$1" >&2
        exit 1
    fi
    case $said in
    *"$1:"*"$2"*) ;;
    *)
        echo "self-check: $0 refuses $1, but does not say '$1:' and '$2'; it says:" >&2
        echo "$said" >&2
        exit 1
        ;;
    esac
}

accepts() {
    local said
    sample "$1"
    if ! said=$(cd "$work/sample" && check); then
        echo "self-check: $0 refuses a good $1:" >&2
        echo "$said" >&2
        exit 1
    fi
}
