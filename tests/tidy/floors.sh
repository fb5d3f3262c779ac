#!/bin/bash
# floors.sh - who may include whom.  Floors of the house, third-party headers, and system headers are all listed here.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

# floor: the floors whose headers it may include.  tests/ may include anything.
floors='
base:         base
store:        store base
cluster:      cluster store base
orchestrator: orchestrator cluster store base
kernels:      kernels base
stages:       stages kernels base
'

# header: the files that may include it (extended regular expressions, matched against the whole name).  Everybody
# else goes through those files, so that a library can be replaced, faked or counted in one place.
third_party='
lmdb\.h:            store/index_internal\.h orchestrator/ledger_env\.h
yaml\.h:            base/yaml\.c
jansson\.h:         base/json\.h base/.*\.c
zstd\.h:            store/codec\.c
openssl/.*:         base/hash\.c
git2\.h:            orchestrator/provenance\.c
curl/curl\.h:       orchestrator/fetch\.c store/remote_s3\.c
uv\.h:              orchestrator/run\.c
ut(hash|list)\.h:   .*
png\.h:            stages/data/pic_png\.c
(jpeglib|jerror)\.h: stages/data/pic_jpeg\.c
webp/.*:           stages/data/pic_webp\.c
archive(_entry)?\.h: stages/data/unpack\.c
cu(da|blas|dnn|rand|b/).*|nccl\.h|mma\.h|cooperative_groups.*: .*\.cuh? kernels/dev\.c kernels/comm\.c
omp\.h:             kernels/.*
dnnl\.h:            kernels/gemm_onednn\.c
'

# C17, POSIX and Linux.  A header that is in none of the lists is refused: put it where it belongs.
system='
assert\.h complex\.h ctype\.h errno\.h fenv\.h float\.h inttypes\.h iso646\.h limits\.h locale\.h math\.h setjmp\.h
signal\.h stdalign\.h stdarg\.h stdatomic\.h stdbool\.h stddef\.h stdint\.h stdio\.h stdlib\.h stdnoreturn\.h string\.h
tgmath\.h threads\.h time\.h uchar\.h wchar\.h wctype\.h
arpa/.* dirent\.h dlfcn\.h endian\.h fcntl\.h fnmatch\.h getopt\.h glob\.h grp\.h langinfo\.h libgen\.h mntent\.h
net/.* netdb\.h netinet/.* poll\.h pthread\.h pwd\.h regex\.h sched\.h search\.h semaphore\.h spawn\.h strings\.h
sys/.* sysexits\.h syslog\.h termios\.h unistd\.h
asm/.* byteswap\.h execinfo\.h linux/.* malloc\.h
(x86|imm|n|w|e|s|p|t|a)mmintrin\.h (x86|imm)intrin\.h cpuid\.h arm_neon\.h arm_acle\.h
'

check() {
    # Quoted includes name a floor; those in angle brackets name the world outside.
    # shellcheck disable=SC2016 # awk's $0, not the shell's
    files . '\.(c|h|def|cu|cuh)$' | sed '/^tests\//d' | tr '\n' '\0' | xargs -0 -r awk \
        -v floors="$floors" -v third_party="$third_party" -v system_headers="$system" '
        function wrong(text) {
            print FILENAME ":" FNR ": " text
            found = 1
        }
        function matches(name, patterns,    i, n, list) {
            n = split(patterns, list, " ")
            for (i = 1; i <= n; i++)
                if (name ~ "^(" list[i] ")$")
                    return 1
            return 0
        }
        function plain(pattern) {
            gsub(/\\/, "", pattern)
            return pattern
        }
        function table(text, keys, values,    i, n, lines, colon) {
            n = split(text, lines, "\n")
            rows = 0
            for (i = 1; i <= n; i++) {
                colon = index(lines[i], ":")
                if (!colon)
                    continue
                keys[++rows] = substr(lines[i], 1, colon - 1)
                values[rows] = substr(lines[i], colon + 1)
                sub(/^ +/, "", values[rows])
            }
            return rows
        }
        BEGIN {
            floor_count = table(floors, floor_name, floor_may)
            third_count = table(third_party, third_header, third_may)
            for (i = 1; i <= floor_count; i++)
                may[floor_name[i]] = floor_may[i]
            gsub(/\n/, " ", system_headers)
        }
        FNR == 1 {
            floor = FILENAME
            sub(/\/.*/, "", floor)
            if (!(floor in may))
                wrong("C code outside the floors (base store cluster orchestrator kernels stages tests)")
        }
        /^[ \t]*#[ \t]*include/ && floor in may {
            header = $0
            sub(/^[ \t]*#[ \t]*include[ \t]*/, "", header)
            mark = substr(header, 1, 1)
            header = substr(header, 2)
            sub(/[">].*/, "", header)
            if (mark == "\"") {
                target = header
                if (!sub(/\/.*/, "", target))
                    wrong("\"" header "\": write the path from the root, as in \"" floor "/" header "\"")
                else if (!matches(target, may[floor]))
                    wrong("\"" header "\": " floor "/ may include only " may[floor])
                next
            }
            if (mark != "<") {
                wrong("an include that is neither \"...\" nor <...>")
                next
            }
            for (i = 1; i <= third_count; i++) {
                if (matches(header, third_header[i])) {
                    if (!matches(FILENAME, third_may[i]))
                        wrong("<" header "> may be included only by " plain(third_may[i]))
                    next
                }
            }
            if (!matches(header, system_headers))
                wrong("<" header "> is in no list of tests/tidy/floors.sh")
        }
        END { exit found }'
}

refuses base/a.c 'base/ may include only' <<<'#include "store/blob.h"'
refuses store/a.h 'store/ may include only' <<<'  #  include "orchestrator/plan.h"'
refuses kernels/a.cu 'kernels/ may include only' <<<'#include "stages/runtime/card.h"'
refuses stages/a.c 'stages/ may include only' <<<'#include "store/blob.h"'
refuses orchestrator/cli/a.c 'orchestrator/ may include only' <<<'#include "stages/runtime/card.h"'
refuses base/a.c 'from the root' <<<'#include "err.h"'
refuses base/a.c 'neither' <<<'#include HEADER'
refuses store/gc.c 'may be included only by' <<<'#include <lmdb.h>'
refuses kernels/norm.c 'may be included only by' <<<'#include <cuda_runtime.h>'
refuses store/a.c 'in no list' <<<'#include <nonsense.h>'
refuses util/a.c 'outside the floors' <<<'int x;'
accepts store/index_internal.h <<<'#include <lmdb.h>
#include <sys/stat.h>
#include "base/err.h"
#include "store/index.h"'
accepts kernels/norm.cu <<<'#include <cuda_runtime.h>'
accepts stages/a.c <<<'#include "kernels/norm.h"'
accepts tests/unit/a_test.c <<<'#include <anything.h>'

cd "$src" && check
