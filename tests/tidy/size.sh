#!/bin/bash
# size.sh - functions of at most 70 lines, files of at most 1000, headers of at most 150.
#
# A flat table, a switch or a format drawing may be longer when it says so: a comment "long: reason" in a header, or
# in the ten lines above a function's opening brace.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

check() {
    # The house format puts a function's braces, and nothing else that ends in a plain }, in the first column.
    files . '\.(c|h|cu|cuh|sh|bash|awk|py)$' | tr '\n' '\0' | xargs -0 -r awk '
        function wrong(line, text) {
            print file ":" line ": " text
            found = 1
        }
        function end_of_file() {
            if (file == "")
                return
            if (count > 1000)
                wrong(1001, "file of " count " lines, at most 1000: it holds more than one noun")
            if (file ~ /\.(h|cuh)$/ && count > 150 && !excuse)
                wrong(151, "header of " count " lines, at most 150 without a comment \"long: reason\"")
        }
        FNR == 1 {
            end_of_file()
            file = FILENAME
            c = file ~ /\.(c|h|cu|cuh)$/
            open = excuse = 0
            excuse_line = -100
        }
        { count = FNR }
        /(\/\*|\/\/|^ \*).*long: [^ ]/ { excuse = 1; excuse_line = FNR }
        c && /^{/ { open = FNR; excused = FNR - excuse_line <= 10 }
        c && /^}/ {
            if (open && FNR - open > 70 && !excused)
                wrong(open, "function of " FNR - open " lines, at most 70")
            open = 0
        }
        END { end_of_file(); exit found }'
}

lines() { # lines COUNT TEXT
    local i
    for ((i = 0; i < $1; i++)); do
        printf '%s\n' "$2"
    done
}

refuses base/a.c '2: function of 71 lines' < <(printf 'int f(void)\n{\n' && lines 70 '    x();' && echo '}')
accepts base/a.c < <(printf 'int f(void)\n{\n' && lines 69 '    x();' && echo '}')
accepts base/a.c < <(printf '/* long: flat switch */\nint f(void)\n{\n' && lines 100 '    x();' && echo '}')
refuses base/a.c 'file of 1001 lines' < <(lines 1001 'int x;')
refuses base/a.h 'header of 151 lines' < <(lines 151 'int x;')
refuses base/a.h 'header of 151 lines' < <(lines 151 'int long: 1;')
accepts base/a.h < <(echo '/* long: one table */' && lines 150 'int x;')

cd "$src" && check
