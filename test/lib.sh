# lib.sh - what run_tests.sh and soak.sh have in common: checks that are counted,
# processes that end with us, servers, and bots. POSIX sh, sourced from the
# directory above.

: "${CC:=cc}"
passed=0 failed=0 skipped=0
processes=     # that we started and have not yet waited for
server= dir=   # the XMPP server that runs, and its directory; none if empty
tmp=$(mktemp -d) || exit 1
echobot=$tmp/plain/echobot jumperbot=$tmp/plain/jumperbot
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ------------------------------------------------------------------ Checks
#
# A check is a command. What it says is shown only if it fails.

check() { # check NAME COMMAND...
	name=$1
	shift
	if "$@" >"$tmp/log" 2>&1; then pass "$name"; else fail "$name"; return 1; fi
}

pass() {
	passed=$((passed + 1))
	echo "ok - $1"
}

fail() {
	failed=$((failed + 1))
	echo "FAIL - $1"
	tail -n 40 "$tmp/log" | cut -c 1-300 | sed 's/^/    /'
	return 1
}

skip() { # skip NAME REASON
	skipped=$((skipped + 1))
	echo "skip - $1: $2"
}

# A program with checks of its own: its last line says how many.
check_program() { # check_program NAME COMMAND...
	name=$1
	shift
	within 300 "$@" >"$tmp/log" 2>&1
	status=$?
	counts=$(tail -n 1 "$tmp/log" | grep '^[0-9]* passed, [0-9]* failed$')
	good=${counts%% *} bad=${counts#*, } bad=${bad%% *}
	passed=$((passed + ${good:-0}))
	if [ $status -eq 0 ] && [ "$bad" = 0 ]; then
		echo "ok - $name: $good checks"
	else
		fail "$name: ${counts:-no count}, exit status $status"
		failed=$((failed + (${bad:-0} > 1 ? bad - 1 : 0))) # one is counted already
		return 1
	fi
}

says() { # says PATTERN FILE: is there such a line? If not, shows the last ones
	grep -q -e "$1" "$2" || { echo "no '$1' in:"; tail -n 20 "$2"; return 1; }
}

# --------------------------------------------------------------- Processes

# Polls until the command is true, for that many seconds or a little longer.
wait_for() { # wait_for SECONDS COMMAND...
	tries=$(($1 * 20))
	shift
	until "$@"; do
		[ $tries -gt 0 ] || return 1
		tries=$((tries - 1))
		sleep 0.05
	done
}

gone() { ! kill -0 "$1" 2>/dev/null; }

remember() { processes="$processes $1"; }

# In the background; its number is $!. What it prints goes to $tmp/NAME.out and
# .err, which are emptied first: the new process will do so in its own time, and
# until then we would read what the one before it said.
start() { # start NAME COMMAND...
	: >"$tmp/$1.out"
	: >"$tmp/$1.err"
	log=$tmp/$1
	shift
	"$@" >"$log.out" 2>"$log.err" &
	remember $!
}

# Waits for it and returns its status. From then on its number may be another's.
forget() {
	processes=$(printf '%s\n' $processes | grep -vx "$1")
	wait "$1" 2>/dev/null
}

# The command's status, or 124 if it had to be killed. It runs in the
# background, because a shell heeds its own signals only between commands.
within() { # within SECONDS COMMAND...
	limit=$1
	shift
	"$@" &
	job=$!
	remember $job
	if wait_for "$limit" gone $job; then
		forget $job
	else
		echo "still running after $limit s"
		kill $job # so that it can stop what it has started
		wait_for 5 gone $job || kill -KILL $job
		forget $job
		return 124
	fi
}

clean_up() {
	for process in $processes; do
		kill -KILL "$process" 2>/dev/null
	done
	stop_server
	rm -rf "$tmp"
}

# ---------------------------------------------------------------- Programs

# The other sources that a program is made of. A test that looks inside one
# includes it, and must not be linked with it. The practice server needs sasl.c,
# which includes xmpp.c.
sources() { # sources PROGRAM.c
	if grep -q '^#include "sasl.h"' "$1"; then
		echo test/sasl.c xmlstream.c
		return
	fi
	for source in xmpp.c xmlstream.c; do
		grep -q "^#include \"\.\./$source\"" "$1" || echo $source
	done
}

# Makes $tmp/HOW/PROGRAM. A warning is a failure. $CC and $LDLIBS are without
# quotes: they may be several words.
compiles() { # compiles HOW PROGRAM.c FLAGS...
	program=$tmp/$1/$(basename "$2" .c) source_file=$2
	mkdir -p "$tmp/$1"
	shift 2
	$CC "$@" -I. -o "$program" "$source_file" $(sources "$source_file") ${LDLIBS:-} >"$tmp/warnings" 2>&1
	status=$?
	cat "$tmp/warnings"
	[ $status -eq 0 ] && ! [ -s "$tmp/warnings" ]
}

# ----------------------------------------------------------------- Servers

# A fresh one. Sets $PORT.
start_server() { # start_server SERVER VARIABLE=VALUE...
	server=$1 dir=$tmp/server
	shift
	assignments=$(env "$@" sh "test/servers/$server.sh" start "$dir") && eval "$assignments"
}

stop_server() {
	if [ -d "$dir" ]; then
		sh "test/servers/$server.sh" kill "$dir"
		rm -rf "$dir"
	fi
	dir=
}

# Starts a bot and waits until it is logged in. Sets $pid and $jid. What it
# prints goes to $tmp/NAME.out, its trace to $tmp/NAME.err.
log_in() { # log_in NAME COMMAND...
	bot=$tmp/$1
	start "$@" -v -p "$PORT"
	pid=$!
	wait_for 20 ready_or_gone
	jid=$(sed -n 's/^echobot: ready as //p' "$bot.out")
	[ -n "$jid" ] || { tail -n 20 "$bot.err"; return 1; }
}

ready_or_gone() { grep -q '^echobot: ready as ' "$bot.out" || gone $pid; }

# On the signal it says goodbye, waits for the server's, and is content.
ends_well() { # ends_well NAME PID SIGNAL
	kill -"$3" "$2"
	wait_for 5 gone "$2" || { echo "still running 5 s after SIG$3"; return 1; }
	forget "$2"
	status=$?
	[ $status -eq 0 ] || { echo "exit status $status"; tail -n 40 "$tmp/$1.err"; return 1; }
	grep '^[CS]: ' "$tmp/$1.err" | tail -n 2 > "$tmp/last" # the rest is the tunnel's
	says '^C: </stream:stream>$' "$tmp/last" && says '^S: </stream:stream>$' "$tmp/last"
}

# Sets $PORT, a free one unless an option says which, and $practice, a process.
start_practice() { # start_practice PROGRAM OPTION...
	program=$1
	shift
	start practice "$program" -p 0 "$@"
	practice=$!
	wait_for 10 listens_or_gone
	says 'listening on port' "$tmp/practice.out" || return 1
	PORT=$(sed -n 's/.*listening on port //p' "$tmp/practice.out")
}

listens_or_gone() { grep -q 'listening on port' "$tmp/practice.out" || gone $practice; }

stop_practice() {
	kill "$practice" && wait_for 5 gone "$practice" && forget "$practice"
}

# ------------------------------------------------------------- Jumperbots

# Runs some; the summary goes to $tmp/crowd.out.
crowd() { within 120 "$jumperbot" -p "$PORT" "$@" >"$tmp/crowd.out" 2>"$tmp/crowd.err"; }

# Does the summary say that? name=value is that, name:n at least that much.
tells() { # tells EXPECTATION...
	for expected; do
		case $expected in
		*=*) grep -qx "$expected" "$tmp/crowd.out" ;;
		*:*) [ "$(sed -n "s/^${expected%:*}=//p" "$tmp/crowd.out")" -ge "${expected#*:}" ] ;;
		esac || { echo "not $expected:"; cat "$tmp/crowd.out" "$tmp/crowd.err"; return 1; }
	done
}

# All got in, and all that was said came back, once.
all_is_well() { # all_is_well BOTS PHRASES
	tells bots="$1" entered="$1" sent:"$2" lost=0 refused=0 no_entry=0 thrown_out=0 throttled=0 bounced=0 \
		unanswered=0 unheard=0 repeated=0 && tells heard="$(sed -n 's/^sent=//p' "$tmp/crowd.out")"
}

# Are all of them in a room again? Looks at what came behind line $before.
back_in_room() { # back_in_room BOTS
	tail -n +$((before + 1)) "$tmp/crowd.out" | grep -q "$1 running, $1 logged in, $1 in a room.* lost [0-9]"
}
