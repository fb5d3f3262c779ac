#!/bin/bash
# misbehave.sh - stages and a world that do what they should not: each is handled, with a message that says what, where, why and what to do, and
# the store stays whole.
set -euo pipefail
: "${WEIR:?set WEIR to the weir program}"
work=$(mktemp -d)
stubborn=
clean_up() {
    [ -z "$stubborn" ] || kill -9 "$stubborn" 2>/dev/null || true
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work"

fail() {
    echo "misbehave.sh: $1" >&2
    [ ! -f out.txt ] || cat out.txt err.txt >&2
    exit 1
}
status() { # status N COMMAND...: it must end with that status
    local want=$1 got=0
    shift
    "$@" >out.txt 2>err.txt || got=$?
    [ "$got" = "$want" ] || fail "'$*' ended with $got, not $want"
}
out() { grep -Eq -- "$1" out.txt || fail "no '$1' in the output"; }
err() { grep -Eq -- "$1" err.txt || fail "no '$1' among the errors"; }
count() { [ "$(grep -Ec -- "$1" out.txt)" = "$2" ] || fail "not $2 times '$1'"; }
left_behind() { grep -al "[W]EIR_TASK_DIR=$work/.weir/" /proc/[0-9]*/environ 2>/dev/null || true; }

"$WEIR" init --quiet

# ---- one that ignores SIGTERM: killed when its grace time is over, half a minute, so it starts first and is looked at last ----
mkdir stubborn
cat >stubborn/pipe.yaml <<'X'
weir: 1
name: stubborn
stages:
  deaf: {run: "trap '' TERM; while :; do sleep 0.2; done", outputs: [x], timeout: 1s}
X
(cd stubborn && "$WEIR" init --quiet && exec "$WEIR" run pipe.yaml >out.txt 2>err.txt) &
stubborn=$!

# ---- what a stage may do ----
head -c 200000 /dev/zero >in.bin
cat >stages.yaml <<'X'
weir: 1
name: stages
defaults: {retries: {attempts: 3, backoff: 0s}}
sources: {mine: {path: in.bin, license: MIT}}
stages:
  daemons: {run: "(setsid sleep 1001 &) ; nohup sleep 1002 & echo hi > {outputs.x}", outputs: [x]}
  loud: {run: "echo first; head -c 1000000000 /dev/zero | tr '\\0' x; echo; echo last; echo hi > {outputs.x}", outputs: [x]}
  closes: {run: "exec 0<&- 1>&- 2>&- 3>&-; sleep 0.3; echo hi > {outputs.x}", outputs: [x]}
  writes: {run: "chmod u+w {inputs.i} 2>/dev/null; echo x >> {inputs.i} || true; echo hi > {outputs.x}", inputs: {i: sources.mine}, outputs: [x], retries: {attempts: 1}}
  silent: {run: "true", outputs: [x], retries: {attempts: 1}}
  e64: {run: "exit 64", outputs: [x]}
  e65: {run: "exit 65", outputs: [x]}
  e75: {run: "exit 75", outputs: [x]}
  e1: {run: "echo why >&2; exit 1", outputs: [x]}
  steps:
    run: "k=${{WEIR_RESUME##*-}}; k=$((${{k:-0}}+1)); echo $k > $WEIR_CHECKPOINTS/step-$k; echo '{{\"event\":\"checkpoint\",\"step\":'$k',\"path\":\"'$WEIR_CHECKPOINTS/step-$k'\"}}' >&3; [ $k -ge 4 ] || exit 75; echo $k > {outputs.x}"
    outputs: [x]
    retries: {attempts: 1}
  timeout: {run: "sleep 1003", outputs: [x], timeout: 1s}
  time: {run: "sleep 1004", outputs: [x], resources: {time: 1s}, retries: {attempts: 2}}
  absent: {run: [nosuch-program, a], outputs: [x], retries: {attempts: 1}}
  removes: {run: "cd ..; rm -rf out", outputs: [x], retries: {attempts: 1}}
  junk: {run: "head -c 100000 /dev/urandom >&3; echo not json >&3; echo hi > {outputs.x}", outputs: [x]}
  link: {run: "mkfifo {outputs.x}", outputs: [x], retries: {attempts: 1}}
  nothing: {run: "kill -9 $$", outputs: [x], retries: {attempts: 1}}
  cards: {run: "true", outputs: [x], resources: {gpus: 65}}
X
status 1 "$WEIR" run -k stages.yaml
for t in daemons loud closes steps junk; do out "^ $t +done"; done
"$WEIR" logs loud >log.txt
[ "$(wc -c <log.txt)" -lt 9000000 ] || fail "a log of 1 GB is kept whole"
head -n 1 log.txt | grep -q '^first' || fail "the log's start"
tail -n 1 log.txt | grep -q '^last' || fail "the log's end"
grep -aq 'left out' log.txt || fail "the log does not say that it was cut"
grep -Eq "^ writes +(done|FAILED.*changed its input 'i')" out.txt || fail "a changed input"
out "^ silent +FAILED.*exit status 0, but output 'x' is not there; the program has to create out/x"
out '^ e64 +FAILED.*exit status 64: its card or a parameter is wrong; see the log'
out '^ e65 +FAILED.*exit status 65: its input data is wrong; see the log'
count '^ e6[45] +tries again' 0
count '^ e75 +tries again  stopped by itself with status 75, and it left no newer checkpoint than it had' 2
out '^ e75 +FAILED'
out '^ cards +FAILED.*it wants 65 GPUs and this machine has [0-9]+; change resources.gpus'
count '^ e1 +tries again  exit status 1; see the log' 2
out '^ e1 +FAILED.*exit status 1; see the log'
out '   \| why'
count '^ steps +tries again  stopped by itself with status 75$' 3
out '^ timeout +FAILED.*its timeout of 1 s was up'
count '^ timeout +tries again' 0
count '^ time +tries again  its time was up' 1
out '^ time +FAILED.*its time was up'
out '^ absent +FAILED.*could not start nosuch-program: No such file or directory'
out "^ removes +FAILED.*output 'x' is not there"
out '^ link +FAILED.*its output cannot be kept'
out '^ nothing +FAILED.*killed by signal 9'
err '^weir: error: run-1: [0-9]+ of 18 tasks failed$'
[ -z "$(left_behind)" ] || fail "processes are left behind"
[ -z "$(ls .weir/tasks)" ] || fail "folders of attempts are left behind"
"$WEIR" fsck --quiet || fail "the store is not whole"

# ---- backoff ----
cat >backoff.yaml <<'X'
weir: 1
name: backoff
params: {outside: ""}
stages:
  third: {run: "date +%s%N >> {params.outside}; [ $(wc -l < {params.outside}) = 3 ] && echo hi > {outputs.x}", outputs: [x], params: {outside: "${params.outside}"}, retries: {attempts: 3, backoff: 1s}}
X
status 0 "$WEIR" run backoff.yaml --set "outside=$work/times"
awk '{ if (NR > 1 && $1 - last < (NR - 1) * 0.99e9) exit 1; last = $1 }' times || fail "1 s, then 2 s between tries"

# ---- what is missing: said before anything runs ----
cat >gone.yaml <<'X'
weir: 1
name: gone
sources:
  mine: {path: in.bin, license: MIT}
  gone: {path: gone.bin, license: MIT}
stages:
  a: {run: "wc -c < {inputs.i} > {outputs.x}", inputs: {i: sources.mine}, outputs: [x]}
  b: {run: "wc -c < {inputs.i} > {outputs.x}", inputs: {i: sources.gone}, outputs: [x]}
X
status 65 "$WEIR" run gone.yaml
err 'gone.yaml:5:[0-9]+: source gone: .*gone.bin: No such file or directory'
status 0 "$WEIR" run gone.yaml --only a # what is not needed is not missed
cat >unset.yaml <<'X'
weir: 1
name: unset
stages:
  a: {run: "true", outputs: [x], env: [NOSUCH_VARIABLE]}
X
status 78 "$WEIR" run unset.yaml
err 'unset.yaml:4:3: stage a: the environment has no NOSUCH_VARIABLE, which env: .*; set it, or'
printf 'weir: 1\nname: n\nstages:\n  a: {uses: nosuch, outputs: [x]}\n' >nosuch.yaml
status 65 "$WEIR" run nosuch.yaml
err "nosuch.yaml:4:3: stage a: there is no program 'nosuch' in .*; weir ships"
cat >fetch.yaml <<'X'
weir: 1
name: fetch
sources: {far: {url: "http://127.0.0.1:1/x.tar", sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, license: MIT}}
stages:
  a: {run: "wc -c < {inputs.i} > {outputs.x}", inputs: {i: sources.far}, outputs: [x]}
X
status 69 "$WEIR" run fetch.yaml
err 'fetch.yaml:3:[0-9]+: source far: fetch http://127.0.0.1:1/x.tar: .*onnect'
status 69 "$WEIR" run --offline fetch.yaml
err 'fetch.yaml:3:[0-9]+: source far: .*is not in the store, and nothing is to be fetched'
sed 's/{url:.*sha256: [0-9a-f]*,/{deb: no-such-package-at-all,/' fetch.yaml >deb.yaml
status 69 "$WEIR" run deb.yaml
err 'deb.yaml:3:[0-9]+: source far: '

# ---- policy: when planning, and when a result tells its licences; also of a cached one ----
cat >policy.yaml <<'X'
weir: 1
name: policy
params: {say: MIT, deny: GPL-3.0-only}
sources: {mine: {path: in.bin, license: CC-BY-NC-4.0}, fine: {path: in.bin, license: MIT}}
policy: {licenses: {deny: [CC-BY-NC-4.0]}}
stages:
  a: {run: "wc -c < {inputs.i} > {outputs.x}", inputs: {i: sources.mine}, outputs: [x]}
X
status 77 "$WEIR" run policy.yaml
err 'policy.yaml:4:[0-9]+: source mine: CC-BY-NC-4.0 is denied'
cat >dataset.yaml <<'X'
weir: 1
name: dataset
sources: {fine: {path: in.bin, license: MIT}}
policy: {licenses: {deny: []}}
stages:
  make: {run: "mkdir {outputs.set}; echo '[{{\"expression\":\"MIT\",\"source\":\"fine\"}},{{\"expression\":\"CC-BY-NC-4.0\",\"source\":\"web\"}}]' > {outputs.set}/licenses.json", inputs: {i: sources.fine}, outputs: [set]}
  use: {run: "ls {inputs.set} > {outputs.x}", inputs: {set: make.set}, outputs: [x]}
X
sed 's/deny: \[\]/deny: [CC-BY-NC-4.0]/' dataset.yaml >strict.yaml
status 77 "$WEIR" run strict.yaml
out '^ make +FAILED.*make.set/licenses.json.*CC-BY-NC-4.0 is denied'
out '^ use +blocked'
err '^weir: error: run-[0-9]+: 1 of 2 tasks failed, policy or rights'
status 0 "$WEIR" run dataset.yaml
out '^ make +cached'
status 77 "$WEIR" run strict.yaml # its result is there, and still refused
out '^ make +FAILED.*CC-BY-NC-4.0 is denied'
"$WEIR" store cat "$("$WEIR" runs --json | head -n 1 | sed 's/.*"run":\([0-9]*\).*/runs\/run-\1/'):events" | head -n 1 |
    grep -q '"policy":{"allow_only":\[\],"deny":\["CC-BY-NC-4.0"\]}' || fail "the policy is not in run.begin"

# ---- an object that vanishes from the store while the run goes on ----
head -c 30000000 /dev/urandom >big.bin
cat >vanish.yaml <<'X'
weir: 1
name: vanish
sources: {big: {path: big.bin, license: MIT}}
stages:
  a: {run: "sleep 1; echo hi > {outputs.x}", outputs: [x]}
  b: {run: "wc -c < {inputs.i} > {outputs.x}", inputs: {i: sources.big, a: a.x}, outputs: [x]}
X
"$WEIR" run vanish.yaml >out.txt 2>err.txt &
pid=$!
for _ in {1..100}; do
    loose=$(find .weir/objects/loose -type f -size +20M)
    [ -z "$loose" ] || ! grep -q . <(ls .weir/tasks 2>/dev/null) || break
    sleep 0.02
done
chmod u+w "$(dirname "$loose")"
rm -f "$loose"
got=0
wait $pid || got=$?
[ $got = 1 ] || fail "without the object it ended with $got"
out '^ b +FAILED.*input i: object sha256:[0-9a-f]{64}.*No such file or directory.*; run weir fsck'
status 0 "$WEIR" run vanish.yaml # it comes back from the source
"$WEIR" fsck --quiet || fail "the store is not whole after an object vanished"

# ---- a full disk ----
cat >full.sh <<'X'
set -euo pipefail
mount -t tmpfs -o size=24m none "$1"
cd "$1"
"$WEIR" init --quiet
cat >pipe.yaml <<'Y'
weir: 1
name: full
params: {n: 1}
stages:
  a: {run: "echo {params.n} > {outputs.x}", outputs: [x], params: {n: "${params.n}"}}
  big: {run: "head -c 60000000 /dev/zero > {outputs.x}", inputs: {a: a.x}, outputs: [x]}
Y
got=0
"$WEIR" run pipe.yaml || got=$?
[ $got = 1 ] || { echo "with too little room it ended with $got"; exit 1; }
head -c 60000000 /dev/zero >fill 2>/dev/null || true
got=0
"$WEIR" run pipe.yaml --set n=2 || got=$?
[ $got = 74 ] || { echo "with no room at all it ended with $got"; exit 1; }
rm fill
mount -o remount,size=300m .
"$WEIR" run pipe.yaml
"$WEIR" run pipe.yaml --set n=2
"$WEIR" fsck --quiet
X
mkdir full
if unshare -m true 2>/dev/null; then
    export WEIR
    status 0 unshare -m bash full.sh "$work/full"
    out '^ big +FAILED.*scratch disk full: .*No space left on device'
    err 'No space left on device.*; make room \(weir gc --dry-run'
else
    echo "misbehave.sh: no mounts here, so no full disk"
fi

# ---- and the deaf one ----
got=0
wait $stubborn || got=$?
stubborn=
cp stubborn/out.txt stubborn/err.txt .
[ $got = 1 ] || fail "the one that ignores SIGTERM ended with $got"
out '^ deaf +FAILED.*its timeout of 1 s was up.*ignored SIGTERM and was killed'
[ -z "$(left_behind)" ] || fail "processes are left behind"
"$WEIR" fsck --quiet
echo "misbehave.sh: all of it is handled"
