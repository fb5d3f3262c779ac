#!/bin/bash
# reproducible.sh - the same sources give the same bits, wherever they lie and wherever they are built.
#
# A program's digest is part of action keys: if a rebuild changed it, every cached result would be lost.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

# build TREE FOLDER: programs and libraries only.  CUDA kernels are left to tests/long/: nvcc alone takes minutes.
build() {
    cmake -S "$1" -B "$2" -G Ninja -DBUILD_TESTING=OFF -DWEIR_CUDA="${WEIR_CUDA:-OFF}" &&
        cmake --build "$2" -j "$(nproc)"
}

# same BUILD BUILD: compares every program and every library.
same() {
    local name differing=0
    (cd "$1" && find . \( -path './bin/*' -o -path './libexec/*' -o -name '*.a' \) -type f | sort) >"$work/first"
    (cd "$2" && find . \( -path './bin/*' -o -path './libexec/*' -o -name '*.a' \) -type f | sort) >"$work/second"
    if ! diff "$work/first" "$work/second"; then
        echo "the two builds made different files"
        return 1
    fi
    while IFS= read -r name; do
        if ! cmp "$1/$name" "$2/$name"; then
            echo "$name: two builds in two directories differ; look for a path, a time or a random number in it"
            differing=1
        fi
    done <"$work/first"
    return $differing
}

# A one-file weir that is built with __TIME__ would be noticed, and one that knows its path as well.
self_check() {
    mkdir -p "$work/x/bin" "$work/y/bin"
    echo one >"$work/x/bin/weir"
    echo one >"$work/y/bin/weir"
    same "$work/x" "$work/y" >/dev/null || return
    echo two >"$work/y/bin/weir"
    ! same "$work/x" "$work/y" >/dev/null
}
self_check || {
    echo "self-check: $0 cannot tell equal from different builds" >&2
    exit 1
}

first=$work/copy second=$work/a/second/copy/further/down
for copy in "$first" "$second"; do
    mkdir -p "$copy"
    files "$src" . | tar -C "$src" -c --files-from=- | tar -C "$copy" -x || exit 1
done
if ! { build "$first" "$first/build" && build "$second" "$work/elsewhere"; } >"$work/log" 2>&1; then
    cat "$work/log"
    exit 1
fi
same "$first/build" "$work/elsewhere" || exit 1
echo "$(wc -l <"$work/first") programs and libraries are bit-identical"
