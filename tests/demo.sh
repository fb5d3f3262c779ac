#!/bin/bash
# demo.sh - what `make demo` shows once the packages are there.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/run.sh build
exec build/bin/weir --help
