# tests.sh - the groups unit, tools, cli and ports, and bots, which all other groups
# need. Sourced by run_tests.sh.

# -------------------------------------------------------------------- Bots

# True if the sanitizers let a correct program run and stop a faulty one. Some compilers
# have no sanitizers or ignore the flags, and on some systems sanitizers do not work.
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

# Compiles what the other groups need.
group_bots() {
	for file in echobot.c jumperbot.c; do
		check "$file compiles with plain $CC" compiles plain "$file"
	done
	! sanitizer_works >/dev/null 2>&1 || : >"$top/sanitizers"
}

# -------------------------------------------------------------------- Unit

takes_unit() { echo 25; }

# Runs make in a copy, because make writes into the current directory.
make_works() {
	mkdir "$tmp/make" && cp Makefile ./*.[ch] "$tmp/make" &&
		(cd "$tmp/make" && ${MAKE:-make} CC="$CC" && ${MAKE:-make} CC="$CC" PREFIX="$tmp/made" install clean &&
			! [ -e echobot ] && ! [ -e jumperbot ] && [ -x ../made/bin/echobot ] && [ -x ../made/bin/jumperbot ])
}

group_unit() {
	for file in echobot.c jumperbot.c; do
		check "$file compiles without a warning" compiles pedantic "$file" -std=c99 -Wall -Wextra -pedantic
	done
	if command -v make >/dev/null; then
		check "make builds the bots" make_works
	else
		skip "make builds the bots" "make is not installed" make
	fi
	for file in test/unit/test_*.c; do
		check "$file compiles" compiles sanitized "$file" $sanitize &&
			check_program "$file" "$tmp/sanitized/$(basename "$file" .c)"
	done
	[ -n "$sanitize" ] || skip "the sanitizers" "$CC cannot do -fsanitize=address,undefined here"
}

# ------------------------------------------------------------------- Tools

# True if the tool reports nothing. If a report is wrong, a comment in the source suppresses it.
# .clang-tidy lists the checks that are turned off.
finds_nothing() { # finds_nothing TOOL FLAGS...
	found=$("$@" 2>&1) && [ -z "$found" ] || { echo "$found"; return 1; }
}

tidy() { clang-tidy --quiet "$1" -- -std=c99 2>"$tmp/progress" || { cat "$tmp/progress"; return 1; }; }

has_tool() { # has_tool TOOL
	case $1 in
	gcc) gcc -fanalyzer -E -x c /dev/null ;;
	*) command -v "$1" ;;
	esac >/dev/null 2>&1
}

takes_tools() {
	seconds=0
	for tool in gcc clang-tidy cppcheck; do
		! has_tool $tool || seconds=$((seconds + 10))
	done
	echo $seconds
}

group_tools() {
	for tool in gcc clang-tidy cppcheck; do
		if ! has_tool $tool; then
			skip "checks by $tool" "$tool is not installed, or too old" $tool
			continue
		fi
		for file in echobot.c jumperbot.c xmlstream.c xmpp.c; do
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

# Runs a bot that must give up, with exit status STATUS and a line on stderr that matches PATTERN.
fails() { # fails STATUS PATTERN COMMAND...
	wanted=$1 pattern=$2
	shift 2
	within 30 "$@" >"$tmp/stdout" 2>"$tmp/stderr"
	status=$?
	[ $status -eq "$wanted" ] || { echo "exit status $status, not $wanted"; cat "$tmp/stdout" "$tmp/stderr"; return 1; }
	says "$pattern" "$tmp/stderr"
}

# Runs a bot that must report an error and try again, twice, and must end on SIGTERM.
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

# True if -h prints the usage on standard output, since the user has asked for it.
prints_usage() {
	"$1" -h >"$tmp/stdout" 2>"$tmp/stderr" && says '^usage: ' "$tmp/stdout" && ! [ -s "$tmp/stderr" ]
}

says_it_twice() { [ "$(grep -c 'trying again in' "$tmp/bot.err")" -ge 2 ]; }

# A command for -x that prints its environment and exits.
tell_tunnel='echo "-h $XMPP_HOST -s $XMPP_SERVER -p $XMPP_PORT" >&2'

takes_cli() { echo 12; }

group_cli() {
	check "jumperbot: an unknown option" fails 2 '^usage: jumperbot' "$jumperbot" -Z
	for option in '-n 0' '-n ten' '-r 0' '-a 0' '-p 65536' '-i -1' '-d 0' 'hello'; do
		check "jumperbot $option" fails 2 '^usage: jumperbot' "$jumperbot" $option
	done
	check "an unknown option" fails 2 '^usage: echobot' "$echobot" -Z
	check "echobot -h" prints_usage "$echobot"
	check "jumperbot -h" prints_usage "$jumperbot"
	check "a user with a host" fails 2 "before the @, and -t the part after it" "$echobot" -u romeo@example.net
	check "an argument too many" fails 2 '^usage: echobot' "$echobot" hello
	check "a port that is not a number" fails 2 '^usage: echobot' "$echobot" -p xmpp
	check "an empty port" fails 2 '^usage: echobot' "$echobot" -p ''
	check "a port beyond 65535" fails 2 '^usage: echobot' "$echobot" -p 65536
	# Port 1 is tcpmux, a service that nobody has run for decades.
	check "connection refused" tries_again '^echobot: .*port 1: .*refused' "$echobot" -p 1
	check "a tunnel that fails" tries_again '^no light at the end$' \
		"$echobot" -x 'echo no light at the end >&2; exit 3'
	check "a tunnel knows host, server and port" tries_again '^-h example.org -s 10.1.2.3 -p 5223$' \
		"$echobot" -t example.org -e 10.1.2.3 -p 5223 -x "$tell_tunnel"
	for host in '$(id)' 'a_b' "it's" 'bücher.example'; do
		check "a tunnel to '$host'" tries_again "^-h $host -s $host -p 5222\$" "$echobot" -t "$host" -x "$tell_tunnel"
	done
	check "a tunnel that does not end is killed" stuck_tunnel
	check "processes that a tunnel leaves behind are killed" nothing_is_left
	if command -v perl >/dev/null; then
		check "a tunnel that has left its group is killed" stray_tunnel
		check "the parent of the bot ignores SIGCHLD" tries_again '^oh$' \
			perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' "$echobot" -x 'echo oh >&2; exit 3'
		check "the parent of jumperbot ignores SIGCHLD" fails 1 '^oh$' \
			perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' "$jumperbot" -n 1 -d 2 -x 'echo oh >&2; exit 3'
	else
		skip "a tunnel that has left its group, an ignored SIGCHLD" "perl is not installed" perl
	fi
	check "jumperbot: no file may grow" full_disk
	# No name server is asked for this name. One that does not answer would take too long.
	check "an unknown host" tries_again '^echobot: cannot find does\.\.not\.\.exist' "$echobot" -t does..not..exist
}

# The tunnel ignores SIGTERM and the end of its input. It must be killed all the same.
stuck_tunnel() {
	start bot "$echobot" -x "trap '' TERM; echo \$\$ >'$tmp/stuck'; sleep 1000; sleep 1001"
	pid=$!
	wait_for 10 [ -s "$tmp/stuck" ] && kill $pid
	wait_for 4 gone $pid || { echo "still running 4 s after SIGTERM"; return 1; }
	forget $pid && gone "$(cat "$tmp/stuck")"
}

# The tunnel leaves behind a process that writes ten times a second. This must be killed, too.
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

# The tunnel moves to the bot's process group, so killing its own group would not end it.
stray_tunnel() {
	start bot "$echobot" -v -x "exec perl -e 'setpgrp(0, getpgrp(getppid())); print STDERR qq(away\\n); sleep 1000'"
	pid=$!
	wait_for 10 [ -s "$tmp/bot.err" ] && kill $pid
	wait_for 4 gone $pid || { echo "still running 4 s after SIGTERM"; return 1; }
	forget $pid
}

# No file may grow, as on a full disk. The workers report through pipes, so this must not matter.
full_disk() {
	(trap '' XFSZ; ulimit -f 0; "$jumperbot" -p 1 -d 1; echo "status $?") 2>&1 | cat >"$tmp/stdout"
	says '^lost=[1-9]' "$tmp/stdout" && says '^status 1$' "$tmp/stdout" && ! grep '^jumperbot: ' "$tmp/stdout"
}

# ------------------------------------------------------------------- Ports

# Tests the bots and the test programs with this compiler. RUNNER is a command that runs a program,
# such as an emulator, or empty.
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
	for file in test/unit/test_*.c; do
		check "$file compiles, $how" compiles "$how" "$file" "$@" &&
			check_program "$file, $how" $runner "$tmp/$how/$(basename "$file" .c)"
	done
	[ -z "$runner" ] || return # the player would start the bots without the runner
	check "test/transcripts/play.c compiles, $how" compiles "$how" test/transcripts/play.c "$@" &&
		check_program "test/transcripts/play.c, $how" transcripts_play "$@"
}

is_small() { # is_small BYTES FILE
	size=$(wc -c <"$2")
	[ "$size" -lt "$1" ] || { echo "$size bytes"; return 1; }
}

takes_ports() { echo 180; }

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
		skip "bmake builds the bots" "bmake is not installed" bmake
	fi
}

