#!/bin/bash
# banned.sh - calls that have no place in weir, output from libraries, and wishes disguised as TODO.
# shellcheck source=tests/tidy/tidy.bash
. "$(dirname "$0")/tidy.bash"

# No bound, no error, hidden state, a shell, or a race.  What to use instead: struct buf, str_to_i64, gmtime_r,
# posix_spawn, mkstemp.
never='strcpy|strcat|sprintf|vsprintf|strtok|atoi|atol|atof|gets|localtime|ctime|system|popen|tmpnam|alloca|mktemp'
never+='|rand|srand'

# Only a main program prints answers and ends the process; everybody else returns an error.
ends='exit|printf|vprintf|puts|putchar'
may_end='^(orchestrator/main\.c|orchestrator/cli/.*|cluster/weir_exec\.c|stages/[^/]*\.c|tests/.*)$'

# call NAMES TEXT: lines of file:line:code become file:line: NAME TEXT where one of NAMES is called.
# Before the name neither a letter nor . or -> : a member of that name is somebody else's function.
call() {
    sed -nE "s#^([^:]*:[0-9]+):(.*[^A-Za-z0-9_.>])?($1)[[:space:]]*\(.*#\1: \3 $2#p"
}

check() {
    local found
    found=$(
        # A macro of that name (which may be how the name is banned) is not a call.
        files . '\.(c|h|def|cu|cuh)$' | tr '\n' '\0' | xargs -0 -r awk -f "$src/tests/tidy/code.awk" |
            sed -E 's/^([^:]*:[0-9]+:[[:space:]]*#[[:space:]]*define[[:space:]]+)[A-Za-z0-9_]+/\1/' >"$work/code"
        sed '/^tests\//d' "$work/code" | call "$never" 'is banned, see tests/tidy/banned.sh'
        awk -F: -v may="$may_end" '$1 !~ may' "$work/code" >"$work/library"
        call "$ends" 'belongs in a main program, return an error instead' <"$work/library"
        sed -nE 's/^([^:]*:[0-9]+):(.*[^A-Za-z0-9_])?stdout([^A-Za-z0-9_].*)?$/\1: stdout belongs to a main program/p' \
            "$work/library"
        # TODO(when it can be done): comments count here, this folder explains the rule.
        files . '\.(c|h|def|cu|cuh|sh|bash|awk|py)$|(^|/)(CMakeLists\.txt|Makefile)$' | sed '/^tests\/tidy\//d' |
            tr '\n' '\0' | xargs -0 -r grep -HnE '(^|[^A-Za-z0-9_])TODO($|[^A-Za-z0-9_(]|\([[:space:]]*\))' |
            sed -E 's/^([^:]*:[0-9]+):.*/\1: TODO without a condition, write TODO(condition)/'
    )
    if [ -n "$found" ]; then
        printf '%s\n' "$found" | sort -t: -k1,1 -k2,2n
        return 1
    fi
}

for name in ${never//|/ }; do
    refuses base/a.c "$name is banned" <<<"int f(void)
{
    return g(1), $name (2);
}"
done
refuses store/a.c 'exit belongs' <<<'void f(void) { exit(1); }'
refuses store/a.c 'printf belongs' <<<'void f(void) { printf("x"); }'
refuses store/a.c 'stdout belongs' <<<'void f(void) { fputs("x", stdout); }'
refuses store/a.c '4: strcpy' <<<'/* a
   "comment */ char *s = "\"/*";
char c = '"'\"'"';
void f(void) { strcpy(a, b); }'
refuses base/a.c 'TODO without' <<<'/* TODO: some day */'
refuses base/a.c 'TODO without' <<<'/* TODO() */'
accepts base/a.c <<<'/* strcpy(a, b) printf("x") TODO(libgit2 1.7): drop this */
// sprintf(a)
#define strcpy(a, b) strcpy_is_banned
const char *s = "system(1) \" exit(2) stdout";
void f(void) { my_system(1); o->exit(2); snprintf(a, 2, "x"); fprintf(stderr, "x"); _exit(1); }'
accepts orchestrator/cli/a.c <<<'void f(void) { printf("x"); exit(1); }'
accepts tests/unit/a_test.c <<<'void f(void) { system("true"); }'

cd "$src" && check
