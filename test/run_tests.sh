#!/bin/sh
# run_tests.sh [group...] - all tests, or those of some groups:
#
#     unit      warnings, make, and the test programs in C
#     tools     what gcc's analyzer, clang-tidy and cppcheck find
#     cli       echobot where there is no server
#     readme    what the README says: commands, conversations, names, messages
#     practice  the practice server, and the demo; more with slixmpp for Python
#     ports     other compilers, C libraries, processors, makes; only if asked for
#     prosody   echobot on a real server; needs Prosody, and slixmpp for Python
#     ejabberd  the same with another server
#
# Needs a shell, a C compiler ($CC, or else cc) and make. What else is missing
# is skipped, by name and counted; with REQUIRE_SERVERS=1 a missing server is a
# failure. Nothing is left in the tree, no process stays behind. The last line
# is "N passed, N failed, N skipped"; exit status 1 if any failed.
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

. test/lib.sh

# -------------------------------------------------------------------- Unit

# In a copy, because make writes to where it is.
make_works() {
	mkdir "$tmp/make" && cp Makefile ./*.[ch] "$tmp/make" &&
		(cd "$tmp/make" && ${MAKE:-make} CC="$CC" && ${MAKE:-make} CC="$CC" PREFIX="$tmp/made" install clean &&
			! [ -e echobot ] && ! [ -e jumperbot ] && [ -x ../made/bin/echobot ] && [ -x ../made/bin/jumperbot ])
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

# Some of them are for jumperbot, which the player finds in the PATH.
transcripts_play() { # transcripts_play FLAGS...
	compiles "$how" jumperbot.c "$@" && PATH=$tmp/$how:$PATH "$tmp/$how/play" test/transcripts/*.txt
}

# What the fuzzers begin with: here without a fuzzer.
play_corpus() { # play_corpus TARGET FLAGS...
	target=$1
	shift
	mkdir -p "$tmp/seeds/$target" && test/seeds.sh "$target" "$tmp/seeds/$target"
	check "test/fuzz_$target.c compiles, $how" compiles "$how" "test/fuzz_$target.c" test/fuzz_main.c "$@" &&
		check_program "test/fuzz_$target.c, $how" "$tmp/$how/fuzz_$target" "$tmp/seeds/$target"/*
}

corpora() { # corpora FLAGS...
	if ! command -v awk >/dev/null; then
		skip "what the fuzzers begin with" "awk is not installed"
		return
	fi
	play_corpus xml "$@"
	play_corpus conn "$@"
	if echo '#include <expat.h>' | $CC -E - >/dev/null 2>&1; then
		LDLIBS=-lexpat
		play_corpus expat "$@"
		LDLIBS=
	else
		skip "test/fuzz_expat.c" "expat is not installed"
	fi
}

test_programs() { # test_programs HOW FLAGS...
	how=$1
	shift
	for file in test/test_*.c test/play.c; do
		check "$file compiles, $how" compiles "$how" "$file" "$@" || continue
		case $file in
		*/play.c) check_program "$file, $how" transcripts_play "$@" ;;
		*) check_program "$file, $how" "$tmp/$how/$(basename "$file" .c)" ;;
		esac
	done
	corpora "$@"
}

group_unit() {
	for file in *bot.c; do
		check "$file compiles without a warning" compiles pedantic "$file" -std=c99 -Wall -Wextra -pedantic
	done
	if command -v make >/dev/null; then
		check "make builds the bots" make_works
	else
		skip "make builds the bots" "make is not installed"
	fi
	if sanitizer_works >/dev/null 2>&1; then
		test_programs sanitized $sanitize
	else
		skip "the test programs, sanitized" "$CC cannot do -fsanitize=address,undefined here"
		test_programs plain
	fi
}

# ------------------------------------------------------------------- Tools

# Where they are wrong, a comment beside the line says so; what clang-tidy is not
# asked at all is in .clang-tidy.
finds_nothing() { # finds_nothing TOOL FLAGS...
	found=$("$@" 2>&1) && [ -z "$found" ] || { echo "$found"; return 1; }
}

tidy() { clang-tidy --quiet "$1" -- -std=c99 2>"$tmp/progress" || { cat "$tmp/progress"; return 1; }; }

group_tools() {
	for tool in gcc clang-tidy cppcheck; do
		if ! command -v $tool >/dev/null || { [ $tool = gcc ] && ! gcc -fanalyzer -E -x c /dev/null >/dev/null 2>&1; }; then
			skip "what $tool finds" "it is not installed, or too old"
			continue
		fi
		for file in *.c; do
			case $tool in
			gcc) check "gcc -fanalyzer $file" finds_nothing gcc -std=c99 -fanalyzer -c -o "$tmp/analyzed.o" "$file" ;;
			clang-tidy) check "clang-tidy $file" finds_nothing tidy "$file" ;;
			cppcheck) check "cppcheck $file" finds_nothing cppcheck --quiet --std=c99 --inline-suppr \
				--enable=warning,style,portability,performance --suppress=variableScope "$file" ;;
			esac
		done
	done
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
	start bot "$@"
	pid=$!
	wait_for 20 says_it_twice
	kill $pid
	wait_for 5 gone $pid || { echo "still running 5 s after SIGTERM"; return 1; }
	forget $pid
	status=$?
	[ $status -eq 0 ] || echo "exit status $status"
	says "$pattern" "$tmp/bot.err" && says_it_twice && [ $status -eq 0 ]
}

# On standard output, since that is what was asked for.
prints_usage() {
	"$1" -h >"$tmp/stdout" 2>"$tmp/stderr" && says '^usage: ' "$tmp/stdout" && ! [ -s "$tmp/stderr" ]
}

says_it_twice() { [ "$(grep -c 'trying again in' "$tmp/bot.err")" -ge 2 ]; }

# The command of a tunnel that says what it has been given, and ends.
tell_tunnel='echo "-h $XMPP_HOST -s $XMPP_SERVER -p $XMPP_PORT" >&2'

group_cli() {
	check "jumperbot: an unknown option" fails 2 '^usage: jumperbot' "$jumperbot" -Z
	for option in '-n 0' '-n ten' '-r 0' '-a 0' '-p 65536' '-i -1' '-d 0' 'hello'; do
		check "jumperbot $option" fails 2 '^usage: jumperbot' "$jumperbot" $option
	done
	check "an unknown option" fails 2 '^usage: echobot' "$echobot" -Z
	check "echobot -h" prints_usage "$echobot"
	check "jumperbot -h" prints_usage "$jumperbot"
	check "a user with a host" fails 2 "before the @; -t takes the rest" "$echobot" -u romeo@example.net
	check "an argument too many" fails 2 '^usage: echobot' "$echobot" hello
	check "a port that is no number" fails 2 '^usage: echobot' "$echobot" -p xmpp
	check "an empty port" fails 2 '^usage: echobot' "$echobot" -p ''
	check "a port beyond 65535" fails 2 '^usage: echobot' "$echobot" -p 65536
	# Port 1 is tcpmux, a service that nobody has run for decades.
	check "connection refused" tries_again '^echobot: .*port 1: .*refused' "$echobot" -p 1
	check "a tunnel that fails" tries_again '^no light at the end$' \
		"$echobot" -x 'echo no light at the end >&2; exit 3'
	check "it knows host, server and port" tries_again '^-h example.org -s 10.1.2.3 -p 5223$' \
		"$echobot" -t example.org -e 10.1.2.3 -p 5223 -x "$tell_tunnel"
	for host in '$(id)' 'a_b' "it's" 'bücher.example'; do
		check "a tunnel to '$host'" tries_again "^-h $host -s $host -p 5222\$" "$echobot" -t "$host" -x "$tell_tunnel"
	done
	check "a tunnel that does not end is killed" stuck_tunnel
	check "what a tunnel leaves behind is killed" nothing_is_left
	if command -v perl >/dev/null; then
		check "a tunnel that has left its group is killed" stray_tunnel
		check "who starts the bot ignores SIGCHLD" tries_again '^oh$' \
			perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' "$echobot" -x 'echo oh >&2; exit 3'
		check "who starts jumperbots ignores SIGCHLD" fails 1 '^oh$' \
			perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' "$jumperbot" -n 1 -d 2 -x 'echo oh >&2; exit 3'
	else
		skip "a tunnel that has left its group, a SIGCHLD that is ignored" "perl is not installed"
	fi
	check "jumperbot: no room on the disk" full_disk
	# No name server is asked for that name: one that does not answer would take too long.
	check "an unknown host" tries_again '^echobot: cannot find does\.\.not\.\.exist' "$echobot" -t does..not..exist
}

# It ignores the end of its input, and SIGTERM; what it started is stopped, too.
stuck_tunnel() {
	start bot "$echobot" -x "trap '' TERM; echo \$\$ >'$tmp/stuck'; sleep 1000; sleep 1001"
	pid=$!
	wait_for 10 [ -s "$tmp/stuck" ] && kill $pid
	wait_for 4 gone $pid || { echo "still running 4 s after SIGTERM"; return 1; }
	forget $pid && gone "$(cat "$tmp/stuck")"
}

# What it starts and leaves behind writes ten times a second.
nothing_is_left() {
	start bot "$echobot" -x "while :; do echo >>'$tmp/left'; sleep 0.1; done & exit 1"
	pid=$!
	wait_for 10 [ -s "$tmp/left" ] && kill $pid && wait_for 4 gone $pid && forget $pid && does_not_grow "$tmp/left"
}

does_not_grow() {
	size=$(wc -c <"$1")
	sleep 0.5
	[ "$(wc -c <"$1")" -eq "$size" ]
}

stray_tunnel() {
	start bot "$echobot" -v -x "exec perl -e 'setpgrp(0, getpgrp(getppid())); print STDERR qq(away\\n); sleep 1000'"
	pid=$!
	wait_for 10 [ -s "$tmp/bot.err" ] && kill $pid
	wait_for 4 gone $pid || { echo "still running 4 s after SIGTERM"; return 1; }
	forget $pid
}

# As if the disk were full where the processes share their counts: no file may grow.
full_disk() {
	(trap '' XFSZ; ulimit -f 0; "$jumperbot" -p 1 -d 1; echo "status $?") 2>&1 | cat >"$tmp/stdout"
	says '^jumperbot: .*too large' "$tmp/stdout" && says '^status 1$' "$tmp/stdout"
}

# ------------------------------------------------------------------ README

# Is the command true of each line that this reads, and are there so many?
every_line() { # every_line AT_LEAST COMMAND...
	missing=$1
	shift
	while IFS= read -r line; do
		if "$@" "$line"; then missing=$((missing - 1)); else echo "no $line"; missing=1000; fi
	done
	[ $missing -le 0 ]
}

is_function() { grep -q "\<${1%)}" ./*.[ch] test/*.c test/*/*.c; }
is_file() { ls $1 test/$1 test/*/$1 2>/dev/null | grep -q .; }
is_in_table() { grep -q "^    $1  " README; }
is_explained() { grep -qF "    $1" README; }

functions_exist() { sed 's/XML_[A-Z]*//g' README | grep -o '[a-z_0-9]*()' | sort -u | every_line 10 is_function; }

files_exist() {
	sed 's/<[a-z]*\.h>//g' README | grep -o '[a-z_*/-]*\.\(c\|h\|sh\|txt\)\>' | sort -u | every_line 10 is_file
}

states_are_listed() {
	sed -n '/^enum state {/,/^}/p' xmpp.c | grep -o '[A-Z_]\{5,\}' | every_line 14 is_in_table
}

# Each up to its first %, or as much of it as fits on a line.
messages_are_explained() {
	sed -n 's/.*\(lose\|give_up\|refused\)(c,[^"(]*"\([^"%]*\).*/\2/p' xmpp.c | cut -c 1-60 | sed 's/ *$//' | sort -u | every_line 20 is_explained
}

# A constant of xmpp.c or xmlstream.c, its value, and what the README says about it.
limits_agree() {
	tr '\n' ' ' <README >"$tmp/words"
	wrong=0
	while IFS="|" read -r constant value words; do
		grep -qE "^	$constant = $value(,| )" xmpp.c xmlstream.c &&
			grep -qF "$words" "$tmp/words" && continue
		echo "$constant = $value, '$words'"
		wrong=1
	done <<-'END'
	LOGIN_TIMEOUT|30000|not finished 30 s after the TCP connection
	PING_AFTER|60000|after a minute of silence
	PING_TIMEOUT|30000|after 30 s more
	REQUEST_TIMEOUT|30000|NULL after 30 s without an answer
	CLOSE_TIMEOUT|1000|has a second to close its stream
	FIRST_RETRY|1000|at most one second at first
	LAST_RETRY|60000|and so on up to a minute
	REFUSED_RETRY|300000|grow up to five minutes
	MAX_OUTPUT|4 << 20|when 4 MiB are queued
	MIN_ROUNDS|4096|4,096 to a million rounds
	MAX_ROUNDS|1000000|4,096 to a million rounds
	MAX_STANZA|256 \* 1024|at most 256 KiB long
	MAX_DEPTH|128|nested 128 levels deep
	MAX_ATTRS|100|may have 100 attributes
	MAX_BINDINGS|128|128 namespace declarations
	END
	[ $wrong -eq 0 ]
}

# It takes its time, but not the processor's: it began with everything else.
readme_log() {
	while ! gone "$readme"; do
		sleep 0.05
	done
	cat "$tmp/readme.log"
	tail -n 1 "$tmp/readme.log" | grep -q ', 0 failed$'
}

group_readme() {
	check "the functions in it exist" functions_exist
	check "and the files" files_exist
	check "it lists the states" states_are_listed
	check "it explains the messages" messages_are_explained
	check "its times and limits are those of the code" limits_agree
	check "it has at most 900 lines" [ "$(grep -c '' README)" -le 900 ]
	check "it has no line beyond 78 columns" [ "$(grep -c '^.\{79\}' README)" = 0 ]
	for file in test/exercises/*.c; do
		check "$file compiles without a warning" compiles pedantic "$file" -std=c99 -Wall -Wextra -pedantic
	done
	check_program "what the README says" readme_log
	grep '^skip - ' "$tmp/readme.log"
	skipped=$((skipped + $(grep -c '^skip - ' "$tmp/readme.log")))
	forget "$readme"
}

# ----------------------------------------------------------------- Echobot

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

# What others send, and the server forwards, costs a bot no connection and keeps it out of no room.
test_hostile() {
	check "$what: the bot logs in" log_in bot "$echobot" || return
	check_program "$what: hostile stanzas" within 120 "$python" test/hostile_client.py "$PORT" "$jid"
	check "$what: SIGTERM ends it politely" ends_well bot $pid TERM
	check "$what: a hostile occupant" within 60 "$python" test/hostile_client.py \
		--room bot_room_0@conference.localhost "$PORT" "exec '$jumperbot' -p $PORT -n 5 -r 1 -d 4 -i 20"
}

test_tls_required() {
	check "$what: the bot gives up" fails 1 '^echobot: .*TLS.*-x' "$echobot" -p "$PORT"
}

# The bot speaks through a command that adds TLS; the client adds it itself.
# The command is the README's.
tls_command=$(sed -n "/ -x 'openssl/,/'\$/p" README | sed "s/.* -x '//; s/'\$//; s/\\\\\$//" | tr -s ' \n' ' ')
gnutls_command='gnutls-cli --logfile=/dev/null --starttls-proto=xmpp -p $XMPP_PORT $XMPP_HOST'

test_tunnel() {
	tunnel="$tls_command -CAfile $dir/tls/ca.pem"
	check "$what: the bot logs in through openssl" log_in bot "$echobot" -x "$tunnel" || return
	check_program "$what: conversation through openssl" $client --tls "$dir/tls/ca.pem" "$PORT" "$jid" &&
		check_program "$what: 1,000 messages through openssl" $client --tls "$dir/tls/ca.pem" --count 1000 "$PORT" "$jid"
	check "$what: SIGTERM ends it politely" ends_well bot $pid TERM
	check "$what: and the tunnel with it" nobody_runs "CAfile $dir/tls/ca.pem"
	check "$what: the bot logs in again" log_in bot "$echobot" -x "$tunnel"
	kill -KILL $pid
	forget $pid
	check "$what: when it is killed the tunnel ends, too" wait_for 5 nobody_runs "CAfile $dir/tls/ca.pem"
	check "$what: a wrong password is not the tunnel's fault" fails 1 '^echobot: login refused: not-authorized' \
		env XMPP_PASSWORD=open-sesame "$echobot" -p "$PORT" -x "$tunnel"
	check "$what: the CA is not ours" tries_again 'certificate verify failed' \
		"$echobot" -p "$PORT" -x "$tls_command"
	check "$what: 10 jumperbots through openssl" happy_crowd 10 10 -d 4 -i 20 -x "$tunnel"
	check "$what: 10 jumperbots through openssl, in two processes" tunnels_in_processes
	if command -v gnutls-cli >/dev/null; then
		check "$what: the bot logs in through gnutls-cli" log_in bot "$echobot" \
			-x "$gnutls_command --x509cafile=$dir/tls/ca.pem"
		check_program "$what: 1,000 messages through gnutls-cli" \
			$client --tls "$dir/tls/ca.pem" --count 1000 "$PORT" "$jid"
		check "$what: SIGTERM ends the bot politely" ends_well bot $pid TERM
	else
		skip "$what: the bot through gnutls-cli" "gnutls-cli is not installed"
	fi
}

# XEP-0368: TLS from the first byte. Here the commands know nothing of XMPP.
test_direct_tls() {
	check "$what: 10 jumperbots through openssl" happy_crowd 10 10 -d 4 -i 20 -x "openssl s_client -quiet -verify_quiet \
-no_ign_eof -nocommands -alpn xmpp-client -host \$XMPP_SERVER -port \$XMPP_PORT -servername \$XMPP_HOST -verify_return_error -verify_hostname \$XMPP_HOST \
-CAfile $dir/tls/ca.pem"
	if command -v socat >/dev/null; then
		check "$what: 10 jumperbots through socat" happy_crowd 10 10 -d 4 -i 20 \
			-x "socat - OPENSSL:\$XMPP_SERVER:\$XMPP_PORT,commonname=\$XMPP_HOST,snihost=\$XMPP_HOST,cafile=$dir/tls/ca.pem"
	else
		skip "$what: 10 jumperbots through socat" "socat is not installed"
	fi
}

# A connection through a tunnel is two descriptors: of 40, 24 are kept, and there
# is room for eight.
tunnels_in_processes() {
	(ulimit -n 40 && happy_crowd 10 10 -d 4 -i 20 -x "$tunnel")
}

test_settings() {
	check "$what: the bot logs in" log_in bot "$echobot" || return
	check "$what: SIGTERM ends it politely" ends_well bot $pid TERM
	check "$what: jumperbots come in" happy_crowd 10 10 -d 3 -i 20
}

test_settings_tls() {
	check "$what: not without a tunnel" fails 1 '^echobot: .*TLS.*-x' "$echobot" -p "$PORT"
	check "$what: the bot logs in" log_in bot "$echobot" -x "$tls_command -CAfile $dir/certs/localhost.crt" || return
	check "$what: SIGTERM ends it politely" ends_well bot $pid TERM
}

test_wrong_host() {
	check "$what: the bot does not log in" tries_again 'hostname mismatch' \
		"$echobot" -p "$PORT" -x "$tls_command -CAfile $dir/tls/ca.pem"
}

nobody_runs() { ! ps -A -o args= | grep -v grep | grep -F -e "$1"; }

# Valgrind makes the exit status 9 if it found an error or memory not freed.
test_memory() {
	check "$what: the bot logs in, under valgrind" log_in bot \
		valgrind -q --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all --error-exitcode=9 \
		"$echobot" || return
	check_program "$what: 1,000 messages, under valgrind" $client --count 1000 "$PORT" "$jid"
	check "$what: no memory error and no leak" ends_well bot $pid TERM
}

# ------------------------------------------------------------- Jumperbots

# On a busy machine not all of them get in, or to speak, in the time they have: then
# once more, with a minute of it. What else goes wrong is not a matter of time.
happy_crowd() { # happy_crowd BOTS PHRASES OPTION...
	bots=$1 phrases=$2
	shift 2
	crowd -n "$bots" "$@"
	status=$?
	if too_short "$bots" "$phrases" >"$tmp/short" 2>&1; then
		crowd -n "$bots" "$@" -d 60
		status=$?
	fi
	[ $status -eq 0 ] || { echo "exit status $status"; cat "$tmp/crowd.out" "$tmp/crowd.err"; return 1; }
	all_is_well "$bots" "$phrases"
}

too_short() { # too_short BOTS PHRASES
	! tells entered="$1" sent:"$2" && tells lost=0 refused=0 no_entry=0 thrown_out=0 throttled=0 bounced=0 \
		unanswered=0 unheard=0 repeated=0 && ! grep '^jumperbot: ' "$tmp/crowd.err"
}

# Half of them have no account, and are told so once each.
half_refused() {
	crowd -n 20 -f 190 -d 5 -i 20
	status=$?
	tells bots=20 entered=10 refused=10 lost=0 unheard=0 sent:20 &&
		[ $status -eq 1 ] && [ "$(grep -c '^jumperbot_20[0-9]: .*not-authorized' "$tmp/crowd.err")" -eq 10 ]
}

# The server ends in mid-run, and there is another one on its port: all come back.
all_come_back() { # all_come_back VARIABLE=VALUE...
	start crowd "$jumperbot" -p "$PORT" -n 100 -i 2 -m
	pid=$!
	server_is_replaced "$@"
	replaced=$?
	kill $pid
	forget $pid || { echo "exit status $?"; return 1; }
	[ $replaced -eq 0 ] && tells entered=100 lost:100 repeated=0 refused=0
}

server_is_replaced() {
	wait_for 60 grep -q '100 running, 100 logged in' "$tmp/crowd.out" || { cat "$tmp/crowd.out"; return 1; }
	before=$(wc -l <"$tmp/crowd.out")
	sh "test/servers/$server.sh" stop "$dir" && PORT=$PORT start_server "$server" "$@" || return 1
	wait_for 120 back_in_room 100 || { cat "$tmp/crowd.out" "$tmp/crowd.err"; return 1; }
}

test_crowds() {
	check "$what: 10 jumperbots" happy_crowd 10 20 -d 4 -i 20
	check "$what: 200 jumperbots" happy_crowd 200 200 -d 8 -i 10 -r 20 -a 100
	check "$what: half of the accounts are missing" half_refused
	check_program "$what: jumperbots meet somebody" "$python" test/room_client.py "$PORT" "$jumperbot" --owner
}

test_many() { check "$what: 1,500 jumperbots" happy_crowd 1500 1500 -d 30 -r 150 -a 150; }
test_comeback() { check "$what: it restarts, and 100 jumperbots come back" all_come_back "USERS=100"; }

test_registration() {
	check "$what: jumperbots register" happy_crowd 20 20 -d 4 -i 10 -R -f 1000 -v
	check "$what: the trace does not tell the password" hides_new_password
	check "$what: and are known the next time" happy_crowd 20 20 -d 4 -i 10 -R -f 1000 -v
	check "$what: the trace does not tell it then" hides_new_password
}

# Where an account exists, ejabberd repeats what we wanted, and tells us.
hides_new_password() { says "^C(jumperbot_[0-9]*): <iq type='set' id='register'>\*\*\*\*\$" "$tmp/crowd.err" && ! grep '<password>' "$tmp/crowd.err"; }

# ------------------------------------------------------------------ Faults

# For 3 s: all wait, and nothing is lost.
# The two rooms never stand empty: ejabberd closes one that the last bot has left,
# and who comes in at that moment gets no answer.
server_stands_still() {
	start crowd "$jumperbot" -p "$PORT" -n 20 -r 2 -d 10 -i 20 -v
	pid=$!
	wait_for 20 grep -q "^S([^)]*): <message.*type='groupchat'" "$tmp/crowd.err" || { kill $pid; forget $pid; return 1; }
	kill -STOP "$(cat "$dir/pid")" && sleep 3 && kill -CONT "$(cat "$dir/pid")"
	forget $pid || { echo "exit status $?"; cat "$tmp/crowd.out"; grep -v '^[CS](' "$tmp/crowd.err"; return 1; }
	all_is_well 20 20
}

# The bot has more to say than is taken from it: it stands still while the server
# hears 180 long messages; then somebody on the way does while the bot answers.
nobody_reads() { # nobody_reads PROCESS
	kill -STOP $bot_pid
	start flood "$tmp/plain/flood" "$PORT" alice "$jid" 180 180 8000
	flood=$!
	wait_for 30 says 'all said' "$tmp/flood.out"
	all_said=$?
	kill -STOP "$1"
	kill -CONT $bot_pid
	wait_for 10 grep -q '^C: <message' "$tmp/bot.err"
	answered=$?
	kill -CONT "$1"
	forget $flood || { cat "$tmp/flood.out" "$tmp/flood.err"; return 1; }
	[ $all_said -eq 0 ] && [ $answered -eq 0 ]
}

# A socketpair takes a few hundred KB, and no more.
test_slow_tunnel() {
	check "$what: the bot logs in through socat" log_in bot "$echobot" -x 'socat - TCP:$XMPP_SERVER:$XMPP_PORT' || return
	bot_pid=$pid
	tunnel_pid=$(ps -A -o pid= -o args= | awk -v to="TCP:localhost:$PORT" '$2 == "socat" && $4 == to { print $1 }')
	check "$what: the tunnel does not read what the bot says" nobody_reads "$tunnel_pid"
	check_program "$what: the bot goes on" $client --count 100 "$PORT" "$jid"
	check "$what: SIGTERM ends it politely" ends_well bot $pid TERM
}

ends_for_good() { # ends_for_good SECONDS PATTERN
	wait_for "$1" gone $bot_pid || { echo "still running after $1 s"; tail "$tmp/bot.err"; return 1; }
	forget $bot_pid
	status=$?
	[ $status -eq 1 ] || { echo "exit status $status"; return 1; }
	says "^echobot: .*$2" "$tmp/bot.err"
}

# Somebody logs in as the bot, down to the resource.
somebody_takes_its_place() {
	within 30 $client --user echobot --resource "${jid#*/}" --leave "$PORT" bob@localhost && ends_for_good 10 conflict
}

# A bot that has worked is patient, even with this: somebody may mend it.
password_changes() {
	replace_server ECHOBOT=changed && wait_for 60 grep -q '^echobot: login refused: not-authorized' "$tmp/bot.err" &&
		replace_server "ECHOBOT=echobot" && wait_for 100 is_ready_twice
}

replace_server() { # replace_server VARIABLE=VALUE
	sh "test/servers/$server.sh" stop "$dir" && rm -rf "$dir" && PORT=$PORT start_server "$server" "$@"
}

is_ready_twice() { [ "$(grep -c '^echobot: ready as ' "$tmp/bot.out")" -eq 2 ]; }

test_faults() {
	check "$what: it stands still under 20 jumperbots" server_stands_still
	check "test/flood.c compiles" compiles plain test/flood.c
	if command -v socat >/dev/null; then
		test_slow_tunnel
	else
		skip "$what: a slow tunnel" "socat is not installed"
	fi
	check "$what: the bot logs in" log_in bot "$echobot" || return
	bot_pid=$pid
	check "$what: it does not read what the bot says" nobody_reads "$(cat "$dir/pid")"
	check_program "$what: the bot goes on" $client --count 100 "$PORT" "$jid"
	check "$what: somebody takes the bot's place" somebody_takes_its_place
	check "$what: the bot logs in again" log_in bot "$echobot" || return
	bot_pid=$pid
	check_program "$what: and goes on" $client --count 100 "$PORT" "$jid"
	check "$what: its password is changed, and changed back" password_changes
	check "$what: SIGTERM ends it politely" ends_well bot $bot_pid TERM
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
	says 'answers: O Romeo, Romeo! <Wherefore>' "$tmp/demo.out" &&
		says '^    entered  *10 ' "$tmp/demo.out" && says 'README, chapter 1' "$tmp/demo.out" &&
		! grep '^.\{81\}' "$tmp/demo.out" && rmdir "$tmp/demo"
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

# Where there is nobody to read what it prints.
test_output() {
	what="practice server"
	check "$what: it starts" start_practice "$tmp/plain/server"
	check "$what: the bot's output is closed" closed_output
	if [ -c /dev/full ]; then
		check "$what: the bot's output is on a full disk" full_output
	else
		skip "$what: the bot's output is on a full disk" "there is no /dev/full"
	fi
	check "$what: the bot's output is stuck" stuck_output
	check "$what: SIGTERM" stop_practice
}

# At once, or else when the bot has logged in.
is_answered() {
	for try in 1 2 3 4 5 6 7 8 9; do
		! answers || return 0
	done
	answers
}

answers() {
	within 3 "$tmp/pedantic/say" "$PORT" juliet echobot@localhost hello >"$tmp/said" && says 'answers: hello' "$tmp/said"
}

# What is printed must not go into the stream. The exit status tells that something was not printed.
closed_output() {
	"$echobot" -v -p "$PORT" >&- 2>&- &
	pid=$!
	remember $pid
	is_answered && kill $pid && wait_for 5 gone $pid && ends_with 1 $pid
}

full_output() {
	"$echobot" -p "$PORT" >/dev/full 2>"$tmp/bot.err" &
	pid=$!
	remember $pid
	is_answered && kill $pid && wait_for 5 gone $pid && ends_with 1 $pid &&
		says '^echobot: standard output: .*space' "$tmp/bot.err"
}

ends_with() { # ends_with STATUS PID
	forget "$2"
	status=$?
	[ $status -eq "$1" ] || { echo "exit status $status, not $1"; return 1; }
}

# It prints more than a pipe takes, and a second signal ends it, if not the first.
stuck_output() {
	mkfifo "$tmp/pipe" || return 1
	sleep 1000 <"$tmp/pipe" &
	sleeper=$!
	remember $sleeper
	"$echobot" -p "$PORT" >"$tmp/pipe" 2>&1 &
	pid=$!
	remember $pid
	is_answered || return 1
	start flood "$tmp/pedantic/flood" "$PORT" romeo echobot@localhost 200 200 8000
	flood=$!
	wait_for 10 grep -q 'all said' "$tmp/flood.out" && ! answers && kill $pid &&
		{ wait_for 2 gone $pid || kill -INT $pid; } && wait_for 5 gone $pid
	stuck=$?
	kill -KILL $pid 2>/dev/null
	kill $flood $sleeper
	forget $flood
	forget $sleeper
	forget $pid
	return $stuck
}

# Of its switches those that a bot must get along with: it writes one byte at a
# time; it demands TLS, refuses to talk, or hangs up.
test_practice_crowd() {
	what="practice server"
	check "$what: it starts" start_practice "$tmp/plain/server"
	check "$what: 10 jumperbots" happy_crowd 10 10 -d 2 -i 20
	check "$what: 100 jumperbots, in several processes" several_processes
	check "$what: 200 jumperbots, as fast as they can" happy_crowd 200 500 -d 4 -i 0 -r 20 -a 200
	check "$what: listeners" listeners
	check "$what: the same seed, the same choices" same_choices
	check "$what: it is slow when all end, and nothing is lost" slow_end
	check "$what: a second signal ends them at once" quick_end
	check "$what: a process dies" process_dies
	if find_python; then
		check_program "$what: jumperbots meet somebody" "$python" test/room_client.py "$PORT" "$jumperbot"
	fi
	check "$what: SIGTERM" stop_practice
	echo 'jumperbot_1 jumperbot' >"$tmp/accounts"
	check "$what -a: it starts" start_practice "$tmp/plain/server" -a "$tmp/accounts"
	check "$what -a: who has no account is left out" one_of_three
	check "$what -a: three jumperbots register" happy_crowd 3 3 -d 2 -i 20 -R
	check "$what -a: SIGTERM" stop_practice
}

# As if select() could watch fewer.
several_processes() {
	(ulimit -n 64 && happy_crowd 100 50 -d 3 -i 20 -r 20 -a 200 -m)
}

few_descriptors() { ulimit -n 64 && exec "$@"; }

listeners() { crowd -n 3 -d 1 -l || { too_short 3 0 && crowd -n 3 -d 20 -l; } && tells entered=3 sent=0; }

# The server stands still, and ten jumperbots wait for an answer.
waiting_crowd() {
	start crowd "$jumperbot" -p "$PORT" -n 10 -r 2 -i 20 -v
	pid=$!
	wait_for 20 grep -q '^C(jumperbot_9): <message' "$tmp/crowd.err" && kill -STOP $practice &&
		said=$(grep -c '^C([^)]*): <message' "$tmp/crowd.err") && wait_for 5 more_is_said && return
	kill -CONT $practice
	kill $pid
	forget $pid
	tail -n 20 "$tmp/crowd.err"
	return 1
}

more_is_said() { [ "$(grep -c '^C([^)]*): <message' "$tmp/crowd.err")" -gt "$said" ]; }

# A signal may go to all processes at once (by timeout(1), say), and counts once.
slow_end() {
	waiting_crowd || return 1
	first_child && kill -TERM "$child" && sleep 1
	both=$?
	kill -TERM $pid && sleep 1
	kill -CONT $practice
	forget $pid && [ $both -eq 0 ] && all_is_well 10 1
}

quick_end() {
	waiting_crowd || return 1
	kill -TERM $pid
	wait_for 8 gone_by_signal $pid
	late=$?
	kill -CONT $practice # others need it
	forget $pid
	[ $late -eq 0 ] || { echo "still running after 8 s"; return 1; }
	tells entered=10 unheard:1
}

gone_by_signal() { ! kill -TERM "$1" 2>/dev/null; }

one_of_three() {
	! crowd -n 3 -d 5 -i 20 && tells entered=1 refused=2 lost=0 &&
		says '^jumperbot_0: .*not-authorized' "$tmp/crowd.err" && says '^jumperbot_2: .*not-authorized' "$tmp/crowd.err"
}

choices() { # choices SEED: the first ten things that jumperbot_0 did
	crowd -n 2 -r 50 -d 2 -i 1000 -s "$1" -v && sed -n 's/^C(jumperbot_0): <\([mp]\).* to=.\([^@]*\)[^>]*>\(.*\)/\1 \2 \3/p' \
		"$tmp/crowd.err" | head -n 10
}

same_choices() {
	choices 7 >"$tmp/choices" && [ "$(wc -l <"$tmp/choices")" -eq 10 ] && choices 7 | cmp - "$tmp/choices" &&
		! { choices 8 | cmp -s - "$tmp/choices"; }
}

# The first of two or three processes is killed; the others go on and say so.
process_dies() {
	start crowd few_descriptors "$jumperbot" -p "$PORT" -n 60 -r 5 -a 1000 -i 20 -v
	pid=$!
	wait_for 10 first_child && kill -KILL "$child" && wait_for 10 says 'bots 0 to 29 died of signal 9' "$tmp/crowd.err" &&
		wait_for 30 others_speak
	heard=$?
	kill $pid
	forget $pid
	[ $heard -eq 0 ] && tells entered:30 sent:30
}

others_speak() {
	[ "$(grep -o "^C(jumperbot_[345][0-9]): <message" "$tmp/crowd.err" | sort -u | wc -l)" -eq 30 ]
}

# Only the kernel knows; without /proc the parent is asked for its children.
first_child() {
	child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || ps -o pid=,ppid= | awk -v p="$pid" '$2 == p { print $1 }')
	child=${child%% *}
	[ -n "$child" ]
}

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
	check "$what -r: the bot tries again" tries_again 'server closed\|connection lost' "$echobot" -p "$PORT"
	check "$what -r: SIGTERM" stop_practice
	check "$what -n 2: it starts" start_practice "$tmp/plain/server" -n 2
	check "$what -n 2: the bot tries again" tries_again 'server closed\|connection lost' "$echobot" -p "$PORT"
	check "$what -n 2: SIGTERM" stop_practice
}

group_practice() {
	for file in test/server.c test/say.c test/flood.c; do
		check "$file compiles without a warning" compiles pedantic $file -std=c99 -Wall -Wextra -pedantic
	done
	check "the demo" demo_works
	check "test/server.c compiles, plain" compiles plain test/server.c || return
	test_practice plain
	test_output
	test_practice_crowd
	test_switches
	sanitizer_works >/dev/null 2>&1 || return
	check "test/server.c compiles, sanitized" compiles sanitized test/server.c $sanitize && test_practice sanitized
}

# ------------------------------------------------------------------- Ports

# The bots and the test programs, run by RUNNER, which may be empty.
test_port() { # test_port NAME RUNNER COMPILER FLAGS...
	how=$1 runner=$2 CC=$3
	shift 3
	if ! command -v "$CC" >/dev/null || ! echo 'int main(void) { return 0; }' >"$tmp/probe.c" ||
		! $CC "$@" -o "$tmp/probe" "$tmp/probe.c" 2>/dev/null || ! $runner "$tmp/probe" 2>/dev/null; then
		skip "$how" "$CC $* does not work here"
		return
	fi
	check "echobot.c compiles, $how" compiles "$how" echobot.c "$@"
	check "jumperbot.c compiles, $how" compiles "$how" jumperbot.c "$@"
	for file in test/test_*.c; do
		check "$file compiles, $how" compiles "$how" "$file" "$@" &&
			check_program "$file, $how" $runner "$tmp/$how/$(basename "$file" .c)"
	done
	[ -z "$runner" ] || return # what the player starts it starts without
	check "test/play.c compiles, $how" compiles "$how" test/play.c "$@" &&
		check_program "test/play.c, $how" transcripts_play "$@"
}

is_small() { # is_small BYTES FILE
	size=$(wc -c <"$2")
	[ "$size" -lt "$1" ] || { echo "$size bytes"; return 1; }
}

group_ports() {
	strict='-Wall -Wextra -pedantic'
	test_port "c17, O0, unsigned char" '' "$CC" -std=c17 -O0 -funsigned-char $strict
	test_port "c99, O3" '' "$CC" -std=c99 -O3 $strict
	test_port tcc '' tcc
	test_port "32 bits" '' gcc -m32 -idirafter /usr/include/x86_64-linux-gnu $strict
	test_port s390x 'qemu-s390x -L /usr/s390x-linux-gnu' s390x-linux-gnu-gcc -O1 $strict
	test_port musl '' musl-gcc -Os -static -s $strict
	[ ! -x "$tmp/musl/echobot" ] || check "echobot, static, is smaller than 120 KB" is_small 122880 "$tmp/musl/echobot"
	if command -v bmake >/dev/null; then
		rm -rf "$tmp/make"
		MAKE=bmake
		check "bmake builds the bots" make_works
	else
		skip "bmake builds the bots" "it is not installed"
	fi
}

# -------------------------------------------------------- Real servers, or not

find_python() {
	for python in ${PYTHON:-python3 /usr/bin/python3}; do
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
	on_server test_hostile "$1" AUTH=both
	echobot=$tmp/plain/echobot
	on_server test_tls_required "$1" TLS=required
	if command -v openssl >/dev/null; then
		on_server test_tunnel "$1" TLS=required AUTH=plain
		on_server test_tunnel "$1" TLS=required AUTH=scram
		on_server test_direct_tls "$1" TLS=direct
		on_server test_wrong_host "$1" TLS=required CERT=wronghost
	else
		skip "$1 through a tunnel" "openssl is not installed"
	fi
	on_server test_crowds "$1" AUTH=both USERS=200
	on_server test_many "$1" AUTH=plain USERS=1500
	on_server test_comeback "$1" USERS=100
	on_server test_faults "$1" USERS=20
	on_server test_registration "$1" REGISTER=yes
	if [ "$1" = prosody ]; then
		on_server test_settings prosody SETTINGS=readme
		on_server test_settings_tls prosody SETTINGS=readme TLS=required
		if command -v valgrind >/dev/null; then
			on_server test_memory "$1" AUTH=both
		else
			skip "echobot under valgrind" "valgrind is not installed"
		fi
	fi
}

# -------------------------------------------------------------------- Main

for group in ${*:-unit tools cli practice readme prosody ejabberd}; do
	case $group in
	readme)
		sh test/readme.sh >"$tmp/readme.log" 2>&1 &
		readme=$!
		remember $readme
		;;
	unit|tools|cli|practice|ports|prosody|ejabberd) ;;
	*) echo "usage: run_tests.sh [unit] [tools] [cli] [practice] [readme] [ports] [prosody] [ejabberd]" >&2; exit 2 ;;
	esac
done

for file in *bot.c; do
	check "$file compiles with plain $CC" compiles plain "$file"
done
for group in ${*:-unit tools cli practice readme prosody ejabberd}; do
	case $group in
	unit|tools|cli|practice|readme|ports) group_$group ;;
	*) group_server "$group" ;;
	esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
