#!/bin/bash
# setup.sh - install the Debian packages that are missing, all of them in one call, and nothing twice.
#
#   tests/setup.sh [build] [test] [long]      no argument: build and test
#
# Says nothing when nothing is missing.  Exits 69 with the command to type when it may not install.
set -euo pipefail

build="gcc g++ cmake ninja-build make pkg-config libjansson-dev liblmdb-dev libzstd-dev libssl-dev libuv1-dev
    uthash-dev libyaml-dev libgit2-dev libcurl4-openssl-dev libdnnl-dev libpng-dev libjpeg-dev libwebp-dev libarchive-dev"
# libclang-rt-14-dev holds the sanitizer and fuzzer runtimes of Debian 12's clang, libomp-14-dev its OpenMP.
test="clang libclang-rt-14-dev libomp-14-dev clang-format clang-tidy cppcheck shellcheck libcmocka-dev strace jq xfsprogs
    lmdb-utils python3 git time bc"
long="python3-venv"

wanted=
for group in "${@:-build test}"; do
    for name in $group; do # the default is two words
        case $name in
        build) wanted+=" $build" ;;
        test) wanted+=" $test" ;;
        long) wanted+=" $long" ;;
        *)
            echo "setup.sh: unknown group '$name': choose from build, test, long" >&2
            exit 64
            ;;
        esac
    done
done

if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: not a Debian system; the packages that weir needs are named in tests/setup.sh" >&2
    exit 0
fi

# dpkg-query complains about names it never heard of; those are simply missing.
# shellcheck disable=SC2086 # word splitting is the point
present=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^installed //p') || true
missing=
for package in $wanted; do
    case $'\n'$present$'\n' in
    *$'\n'"$package"$'\n'*) ;;
    *) missing+=" $package" ;;
    esac
done
if [ -z "$missing" ]; then
    exit 0
fi

install="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ]; then
    echo "setup.sh: some packages are missing; please run this and try again:" >&2
    echo "    sudo apt-get update && sudo $install" >&2
    exit 69
fi

export DEBIAN_FRONTEND=noninteractive
echo "setup.sh: installing$missing"
# Package lists may be stale, or the network may hiccup: one more try after a pause.
apt-get update -q || { sleep 5 && apt-get update -q; } || {
    echo "setup.sh: apt-get update failed twice; cannot install$missing" >&2
    exit 69
}
$install || {
    echo "setup.sh: this failed: $install" >&2
    exit 69
}
