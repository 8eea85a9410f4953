#!/bin/sh
# run_tests.sh [group...] - all tests, or those of some groups:
#
#     unit      warnings, make, and the test programs in C
#     cli       echobot where there is no server
#     practice  the practice server, and the demo; more with slixmpp for Python
#     prosody   echobot on a real server; needs Prosody, and slixmpp for Python
#     ejabberd  the same with another server
#
# Needs a shell, a C compiler ($CC, or else cc) and make. What else is missing
# is skipped, by name and counted; with REQUIRE_SERVERS=1 a missing server is a
# failure. Nothing is left in the tree, no process stays behind. The last line
# is "N passed, N failed, N skipped"; exit status 1 if any failed.
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

: "${CC:=cc}"
passed=0 failed=0 skipped=0
processes=     # that we started and have not yet waited for
server= dir=   # the XMPP server that runs, and its directory; none if empty

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
		kill -KILL $job
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

# -------------------------------------------------------------------- Unit

# The other sources that a program is made of. A test that looks inside one
# includes it, and must not be linked with it.
sources() { # sources PROGRAM.c
	for source in xmpp.c xmlstream.c; do
		grep -q "^#include \"\.\./$source\"" "$1" || echo $source
	done
}

# Makes $tmp/HOW/PROGRAM. A warning is a failure. $CC is without quotes: it may
# be several words.
compiles() { # compiles HOW PROGRAM.c FLAGS...
	program=$tmp/$1/$(basename "$2" .c) source_file=$2
	mkdir -p "$tmp/$1"
	shift 2
	$CC "$@" -I. -o "$program" "$source_file" $(sources "$source_file") >"$tmp/warnings" 2>&1
	status=$?
	cat "$tmp/warnings"
	[ $status -eq 0 ] && ! [ -s "$tmp/warnings" ]
}

# In a copy, because make writes to where it is.
make_works() {
	mkdir "$tmp/make" && cp Makefile ./*.[ch] "$tmp/make" &&
		(cd "$tmp/make" && make CC="$CC" && [ -x echobot ])
}

sanitize='-g -fsanitize=address,undefined -fno-sanitize-recover=undefined'

# Some compilers have no sanitizers, or ignore the flags; some systems do not
# let them work. So: does a sound program run, and is a faulty one caught?
sanitizer_works() {
	cat > "$tmp/probe.c" <<-'END'
	#include <stdlib.h>
	int main(int argc, char **argv)
	{
		char *byte = malloc(1);

		byte[argc - 1] = **argv; /* beyond its end if there is an argument */
		free(byte);
		return 0;
	}
	END
	$CC $sanitize -o "$tmp/probe" "$tmp/probe.c" && "$tmp/probe" && ! "$tmp/probe" overflow
}

test_programs() { # test_programs HOW FLAGS...
	how=$1
	shift
	for file in test/test_*.c test/play.c; do
		check "$file compiles, $how" compiles "$how" "$file" "$@" || continue
		case $file in
		*/play.c) check_program "$file, $how" "$tmp/$how/play" test/transcripts/*.txt ;;
		*) check_program "$file, $how" "$tmp/$how/$(basename "$file" .c)" ;;
		esac
	done
}

# Each line of a conversation in the README is a line of some transcript.
readme_is_true() {
	sed -n '/^    [CS]: /,/^$/p' README | sed '/^$/d; s/^    //' >"$tmp/quoted"
	[ -s "$tmp/quoted" ] && ! cat test/transcripts/* | grep -vxF -f - "$tmp/quoted"
}

group_unit() {
	check "README quotes the transcripts" readme_is_true
	for file in *bot.c; do
		check "$file compiles without a warning" compiles pedantic "$file" -std=c99 -Wall -Wextra -pedantic
	done
	if command -v make >/dev/null; then
		check "make builds the bots" make_works
	else
		skip "make builds the bots" "make is not installed"
	fi
	test_programs plain
	if sanitizer_works >/dev/null 2>&1; then
		test_programs sanitized $sanitize
	else
		skip "the test programs, sanitized" "$CC cannot do -fsanitize=address,undefined here"
	fi
}

# --------------------------------------------------------------------- CLI

# Such a bot gives up, with that status and a reason on stderr.
fails() { # fails STATUS PATTERN COMMAND...
	wanted=$1 pattern=$2
	shift 2
	within 30 "$@" >"$tmp/stdout" 2>"$tmp/stderr"
	status=$?
	[ $status -eq "$wanted" ] || { echo "exit status $status, not $wanted"; cat "$tmp/stdout" "$tmp/stderr"; return 1; }
	says "$pattern" "$tmp/stderr"
}

# Such a bot says what is wrong, tries again, and ends when it is told to.
tries_again() { # tries_again PATTERN COMMAND...
	pattern=$1
	shift
	: >"$tmp/stderr"
	"$@" 2>"$tmp/stderr" &
	pid=$!
	remember $pid
	wait_for 20 twice_in_stderr
	kill $pid
	wait_for 5 gone $pid || { echo "still running 5 s after SIGTERM"; return 1; }
	forget $pid
	status=$?
	[ $status -eq 0 ] || echo "exit status $status"
	says "$pattern" "$tmp/stderr" && twice_in_stderr && [ $status -eq 0 ]
}

twice_in_stderr() { [ "$(grep -c 'trying again in' "$tmp/stderr")" -ge 2 ]; }

group_cli() {
	check "an unknown option" fails 2 '^usage: echobot' "$echobot" -Z
	check "an argument too many" fails 2 '^usage: echobot' "$echobot" hello
	check "a port that is no number" fails 2 '^usage: echobot' "$echobot" -p xmpp
	check "an empty port" fails 2 '^usage: echobot' "$echobot" -p ''
	check "a port beyond 65535" fails 2 '^usage: echobot' "$echobot" -p 65536
	# Port 1 is tcpmux, a service that nobody has run for decades.
	check "connection refused" tries_again '^echobot: .*port 1: .*refused' "$echobot" -p 1
	check "an unknown host" tries_again '^echobot: .*does-not-exist\.invalid' "$echobot" -t does-not-exist.invalid
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
	shift
	: >"$bot.out" # now, or we could read what the bot before it said
	"$@" -v -p "$PORT" >"$bot.out" 2>"$bot.err" &
	pid=$!
	remember $pid
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
	tail -n 2 "$tmp/$1.err" > "$tmp/last"
	says '^C: </stream:stream>$' "$tmp/last" && says '^S: </stream:stream>$' "$tmp/last"
}

# PLAIN sends the password in base64, behind \0echobot\0: that is AGVjaG9ib3QA.
hides_password() { # hides_password TRACE [PASSWORD]
	says '<auth ' "$1" && ! grep -e AGVjaG9ib3QA ${2:+-e "$2"} "$1"
}

at_most() { # at_most N PATTERN FILE
	lines=$(grep -c -e "$2" "$3")
	[ "$lines" -le "$1" ] || { echo "$lines times $2"; return 1; }
}

# echobot does what it is for. What was said before it came is not for it to
# answer; the client would notice.
test_conversation() {
	check "$what: somebody speaks to a bot that is not there" within 60 $client --leave "$PORT" echobot@localhost
	check "$what: the bot logs in" log_in bot "$echobot" || return
	check_program "$what: conversation" $client "$PORT" "$jid" &&
		check_program "$what: 1,000 messages" $client --count 1000 "$PORT" "$jid"
	check "$what: what was said before came, too" says '^S: .*said by one who left' "$tmp/bot.err"
	check "$what: the trace does not tell the password" hides_password "$tmp/bot.err"
	check "$what: SIGTERM ends it politely" ends_well bot $pid TERM
	check "$what: a wrong password" fails 1 '^echobot: .*not-authorized' \
		env XMPP_PASSWORD=open-sesame "$echobot" -v -p "$PORT"
	check "$what: the trace does not tell that one" hides_password "$tmp/stderr" open-sesame
}

# Two bots that hear each other. The way there: alice's client speaks to the
# first bot and leaves before the answer, which then goes to whoever else is
# logged in as alice, and that is the second bot. Stopping the first makes sure
# of the order. If they began to talk to each other, they would go on doing so
# all through the conversation that follows.
test_loop() {
	check "$what: a bot logs in" log_in first "$echobot" || return
	first=$pid first_jid=$jid
	check "$what: another bot logs in" log_in second "$echobot" -u alice || return
	second=$pid
	kill -STOP $first
	check "$what: somebody speaks to the first" within 60 $client --leave "$PORT" "$first_jid"
	kill -CONT $first
	check "$what: the second hears the echo" wait_for 10 grep -q '^S: .*said by one who left' "$tmp/second.err"
	check_program "$what: conversation with the first" $client --user bob "$PORT" "$first_jid"
	check "$what: the bots have fallen silent" at_most 3 '^C: .*said by one who left' "$tmp/first.err"
	check "$what: SIGINT ends the first politely" ends_well first $first INT
	check "$what: SIGTERM ends the second politely" ends_well second $second TERM
}

test_tls_required() {
	check "$what: the bot gives up" fails 1 '^echobot: .*TLS.*-x' "$echobot" -p "$PORT"
}

# Valgrind makes the exit status 9 if it found an error or memory not freed.
test_memory() {
	check "$what: the bot logs in, under valgrind" log_in bot \
		valgrind -q --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all --error-exitcode=9 \
		"$echobot" || return
	check_program "$what: 1,000 messages, under valgrind" $client --count 1000 "$PORT" "$jid"
	check "$what: no memory error and no leak" ends_well bot $pid TERM
}

# A test function on a fresh server.
on_server() { # on_server FUNCTION SERVER VARIABLE=VALUE...
	function=$1
	shift
	what=$*
	check "$what: the server starts" start_server "$@" && $function
	stop_server
}

# -------------------------------------------------------- Practice server

# It says what it is to say, and leaves nothing behind.
demo_works() {
	mkdir -p "$tmp/demo"
	TMPDIR=$tmp/demo within 60 sh test/demo.sh >"$tmp/demo.out" || return 1
	says 'answers: O Romeo, Romeo! <Wherefore>' "$tmp/demo.out" && rmdir "$tmp/demo"
}

# Sets $PORT and $practice, a process.
start_practice() { # start_practice PROGRAM OPTION...
	: >"$tmp/practice.out"
	"$@" -p 0 >"$tmp/practice.out" 2>&1 &
	practice=$!
	remember $practice
	wait_for 10 says 'listening on port' "$tmp/practice.out" || return 1
	PORT=$(sed -n 's/.*listening on port //p' "$tmp/practice.out")
}

stop_practice() {
	kill "$practice" && wait_for 5 gone "$practice" && wait "$practice"
}

test_practice() { # test_practice HOW
	what="practice server, $1"
	check "$what: it starts" start_practice "$tmp/$1/server" || return
	check "$what: the bot logs in" log_in bot "$echobot"
	if find_python; then
		check_program "$what: conversation with the bot" $client "$PORT" "$jid"
		check_program "$what: slixmpp" within 100 "$python" test/server_client.py "$PORT"
	else
		skip "$what: slixmpp" "no Python with slixmpp"
	fi
	check "$what: SIGTERM ends the bot" ends_well bot $pid TERM
	check "$what: and the server" stop_practice
}

# Of its switches those that a bot must get along with: it writes one byte at a
# time; it demands TLS, refuses to talk, or hangs up.
test_switches() {
	what="practice server"
	check "$what -c 1: it starts" start_practice "$tmp/plain/server" -c 1
	check "$what -c 1: the bot logs in" log_in bot "$echobot"
	check "$what -c 1: and answers" within 20 "$tmp/pedantic/say" "$PORT" juliet "$jid" 'O Romeo'
	check "$what -c 1: SIGTERM ends the bot" ends_well bot $pid TERM
	check "$what -c 1: and the server" stop_practice
	check "$what -T: it starts" start_practice "$tmp/plain/server" -T
	check "$what -T: the bot gives up" fails 1 'TLS' "$echobot" -p "$PORT"
	check "$what -T: SIGTERM" stop_practice
	check "$what -r: it starts" start_practice "$tmp/plain/server" -r
	check "$what -r: the bot tries again" tries_again 'hung up\|connection lost' "$echobot" -p "$PORT"
	check "$what -r: SIGTERM" stop_practice
	check "$what -n 2: it starts" start_practice "$tmp/plain/server" -n 2
	check "$what -n 2: the bot tries again" tries_again 'hung up\|connection lost' "$echobot" -p "$PORT"
	check "$what -n 2: SIGTERM" stop_practice
}

group_practice() {
	for file in test/server.c test/say.c; do
		check "$file compiles without a warning" compiles pedantic $file -std=c99 -Wall -Wextra -pedantic
	done
	check "the demo" demo_works
	check "test/server.c compiles, plain" compiles plain test/server.c || return
	test_practice plain
	test_switches
	sanitizer_works >/dev/null 2>&1 || return
	check "test/server.c compiles, sanitized" compiles sanitized test/server.c $sanitize && test_practice sanitized
}

# -------------------------------------------------------- Real servers, or not

find_python() {
	for python in python3 /usr/bin/python3; do
		client="$python test/echo_client.py"
		"$python" -c 'import slixmpp' >/dev/null 2>&1 && return
	done
	return 1
}

no_server() { # no_server NAME REASON
	if [ "${REQUIRE_SERVERS:-}" = 1 ]; then
		echo "$2" > "$tmp/log"
		fail "$1"
	else
		skip "$1" "$2"
	fi
}

group_server() { # group_server SERVER
	why=$(sh "test/servers/$1.sh" probe | head -n 1)
	[ -n "$why" ] || find_python || why="no Python with slixmpp"
	if [ -n "$why" ]; then
		no_server "$1" "$why"
		return
	fi
	on_server test_conversation "$1" AUTH=plain STORE=plain
	on_server test_conversation "$1" AUTH=scram STORE=plain
	if sanitizer_works >/dev/null 2>&1; then
		check "echobot.c compiles, sanitized" compiles sanitized echobot.c $sanitize
		echobot=$tmp/sanitized/echobot
	fi
	on_server test_conversation "$1" AUTH=scram STORE=hashed
	on_server test_loop "$1" AUTH=both
	echobot=$tmp/plain/echobot
	on_server test_tls_required "$1" TLS=required
	if [ "$1" = prosody ]; then
		if command -v valgrind >/dev/null; then
			on_server test_memory "$1" AUTH=both
		else
			skip "echobot under valgrind" "valgrind is not installed"
		fi
	fi
}

# -------------------------------------------------------------------- Main

for group in ${*:-unit cli practice prosody ejabberd}; do
	case $group in
	unit|cli|practice|prosody|ejabberd) ;;
	*) echo "usage: run_tests.sh [unit] [cli] [practice] [prosody] [ejabberd]" >&2; exit 2 ;;
	esac
done
tmp=$(mktemp -d) || exit 1
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

for file in *bot.c; do
	check "$file compiles with plain $CC" compiles plain "$file"
done
echobot=$tmp/plain/echobot
for group in ${*:-unit cli practice prosody ejabberd}; do
	case $group in
	unit|cli|practice) group_$group ;;
	*) group_server "$group" ;;
	esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
