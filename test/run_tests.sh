#!/bin/sh
# run_tests.sh [-v] [group...] - runs all tests, or those of some groups ("all" means
# all except the last two):
#
#     unit         warnings, make, and the test programs in C
#     transcripts  conversations with a server, good and bad
#     fuzz         the fuzz targets, on the inputs that a fuzzer begins with
#     tools        gcc's analyzer, clang-tidy and cppcheck
#     cli          options, tunnels, and a server that does not exist
#     readme       the commands, output, names and messages in the README
#     practice     the practice server, and the demo; more with slixmpp for Python
#     crowds       jumperbots on the practice server
#     prosody      the bots on a real server; needs Prosody, and slixmpp for Python
#     ejabberd     the same with another server
#
# and, only if asked for:
#
#     ports        other compilers, C libraries, processors, makes
#     soak         half an hour of messages, and servers that are killed
#
# The checks of each folder are in its tests.sh. With -v, all checks are printed, not
# only those that fail. Needs a shell, a C compiler ($CC, or else cc) and make. A check
# that needs another tool is skipped if the tool is missing. With REQUIRE_SERVERS=1 a
# missing server is a failure. The tests leave no file in the tree and no process
# running. The last line is "N passed, N failed, N skipped". The exit status is 1 if a
# check has failed.
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

: "${CC:=cc}"
tmp=$(mktemp -d) || exit 1
top=$tmp
echobot=$top/bots/plain/echobot jumperbot=$top/bots/plain/jumperbot
sanitize='-g -fsanitize=address,undefined -fno-sanitize-recover=undefined'
all_groups='ejabberd prosody readme crowds unit transcripts practice cli tools fuzz'
at_once=5      # groups that run at the same time; most of them wait more than they work
passed=0 failed=0 skipped=0
processes=     # those that we have started and not yet waited for
server= dir=   # the XMPP server that is running, and its directory, or empty

# ------------------------------------------------------------------ Checks
#
# A check is a command. Its output is shown only if it fails.

check() { # check NAME COMMAND...
	name=$1
	shift
	show_state "$name"
	if "$@" >"$tmp/log" 2>&1; then pass "$name"; else fail "$name"; return 1; fi
}

pass() {
	passed=$((passed + 1))
	echo "ok - $1"
}

fail() {
	failed=$((failed + 1))
	echo "FAIL - $1"
	tail -n 100 "$tmp/log" | cut -c 1-500 | sed 's/^/    /'
	return 1
}

skip() { # skip NAME REASON [DEBIAN-PACKAGE...]
	skipped=$((skipped + 1))
	echo "skip - $1: $2"
	shift 2
	printf '%s\n' "$@" >>"$top/packages"
}

# Runs a program that has checks of its own. Its last line is "N passed, N failed".
check_program() { # check_program NAME COMMAND...
	name=$1
	shift
	show_state "$name"
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

says() { # says PATTERN FILE: true if there is such a line; if not, shows the last lines
	grep -q -e "$1" "$2" || { echo "no '$1' in:"; tail -n 20 "$2"; return 1; }
}

# --------------------------------------------------------------- Processes

# Polls until the command succeeds, for that many seconds or a little longer.
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

# Starts a command in the background. Its process ID is $!, and its output goes to
# $tmp/NAME.out and .err. These files are emptied first. Otherwise, until the new process
# opens them, we would read the output of the previous one.
start() { # start NAME COMMAND...
	: >"$tmp/$1.out"
	: >"$tmp/$1.err"
	log=$tmp/$1
	shift
	"$@" >"$log.out" 2>"$log.err" &
	remember $!
}

# Waits for a process and returns its status. After that, another process may get its ID.
forget() {
	processes=$(printf '%s\n' $processes | grep -vx "$1")
	wait "$1" 2>/dev/null
}

# Runs a command. Returns its status, or 124 if it had to be killed. The command runs in
# the background, because a shell handles no signal while a command runs in the foreground.
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

# ---------------------------------------------------------------- Programs

# Prints the other source files of a program. A test that looks inside one of them includes
# it, and must not be linked with it.
sources() { # sources PROGRAM.c
	if grep -q '^#include "sasl.h"' "$1"; then
		echo test/practice/sasl.c xmlstream.c
		return
	fi
	for source in xmpp.c xmlstream.c; do
		grep -q "^#include \"[./]*/$source\"" "$1" || echo $source
	done
}

# Compiles $tmp/HOW/PROGRAM. A warning is a failure. $CC and $LDLIBS are not quoted, since
# they may be several words.
compiles() { # compiles HOW PROGRAM.c FLAGS...
	program=$tmp/$1/$(basename "$2" .c) source_file=$2
	mkdir -p "$tmp/$1"
	shift 2
	$CC "$@" -I. -Itest -Itest/unit -o "$program" "$source_file" $(sources "$source_file") ${LDLIBS:-} \
		>"$tmp/warnings" 2>&1
	status=$?
	cat "$tmp/warnings"
	[ $status -eq 0 ] && ! [ -s "$tmp/warnings" ]
}

# ------------------------------------------------------------------ Groups
#
# Groups run at the same time, each in its own shell, with its own directory $tmp. For
# group G, these files are in $top:
#     G.log      what its checks printed
#     G.state    how many checks are done, and which one is running
#     G.counts   at the end: passed, failed, skipped
#     G.start    when it began, in seconds
# The main shell waits, shows the states, and reports each group that has ended.

show_state() { echo "$((passed + failed)) $1" >"$tmp.state"; }

now() { date +%s; }

run_group() { # run_group GROUP
	tmp=$top/$1 processes=
	trap clean_up_group EXIT
	trap 'exit 143' HUP INT TERM
	mkdir "$tmp" && group_"$1"
	echo "$passed $failed $skipped" >"$tmp.counts"
}

# Stops the processes. Gives them time to stop those that they have started themselves.
clean_up_group() {
	kill $processes 2>/dev/null
	wait_for 3 all_gone
	kill -KILL $processes 2>/dev/null
	stop_server
}

all_gone() {
	for process in $processes; do
		gone "$process" || return 1
	done
}

start_group() { # start_group GROUP
	echo '0 starting' >"$top/$1.state"
	now >"$top/$1.start"
	(run_group "$1") >"$top/$1.log" 2>&1 &
	running="$running $1:$!"
}

# Prints a line about a group that has ended, and the checks that failed (with -v, all checks).
report_group() { # report_group GROUP
	log=$top/$1.log
	if [ ! -e "$top/$1.counts" ]; then # the group's shell has exited early
		echo '0 1 0' >"$top/$1.counts"
		{ echo "FAIL - $1 ended early:"; sed 's/^/    /' "$log"; } >"$log.2"
		mv "$log.2" "$log"
	fi
	read -r good bad left <"$top/$1.counts"
	show_line ''
	printf '%-12s %5d passed %3d failed %3d skipped %5d s\n' "$1" "$good" "$bad" "$left" \
		$(($(now) - $(cat "$top/$1.start")))
	if [ -n "$verbose" ]; then cat "$log"; else sed -n '/^FAIL - /p; /^    /p' "$log"; fi
	sed -n 's/^skip - /    /p' "$log" >>"$top/skipped"
	all_passed=$((all_passed + good)) all_failed=$((all_failed + bad))
	all_skipped=$((all_skipped + left))
	ended=$((ended + 1))
}

# Waits until fewer than NUMBER groups are running.
wait_for_groups() { # wait_for_groups NUMBER
	while :; do
		still= number=0
		for entry in $running; do
			if gone "${entry#*:}"; then
				wait "${entry#*:}"
				report_group "${entry%:*}"
			else
				still="$still $entry" number=$((number + 1))
			fi
		done
		running=$still
		[ $number -ge "$1" ] || return 0
		show_line "$(states)"
		sleep 0.1
	done
}

# On a terminal, replaces the line that shows which checks are running.
show_line() {
	[ ! -t 1 ] || printf '\r%.*s\033[K' "$columns" "$1"
}

states() {
	printf '%s of %s groups' $ended $number_of_groups
	for entry in $running; do
		group_name=${entry%:*}
		read -r count what <"$top/$group_name.state" &&
			printf ' | %s %s: %.28s' "$group_name" "$count" "$what"
	done
}

# Prints how long the groups will take. For each group, takes_GROUP prints how many seconds it takes
# when it runs alone, or 0 if it cannot run here.
estimate() {
	sum=0 longest=0
	for group in $groups; do
		seconds=$(takes_"$group")
		sum=$((sum + seconds))
		[ "$seconds" -le $longest ] || longest=$seconds
	done
	sum=$((sum / 2))
	[ $sum -ge $longest ] || sum=$longest
	if [ $sum -lt 120 ]; then echo "$sum seconds"; else echo "$(((sum + 30) / 60)) minutes"; fi
}

# Lists what was skipped, and the packages that are missing.
report_skipped() {
	[ -s "$top/skipped" ] || return
	printf '\nSkipped:\n'
	sort -u "$top/skipped"
	packages=$(grep . "$top/packages" | sort -u | tr '\n' ' ')
	[ -z "$packages" ] || printf 'To install what is missing, on Debian or Ubuntu: apt install %s\n' "$packages"
	echo
}

clean_up() {
	for entry in $running; do
		kill -TERM "${entry#*:}"
	done 2>/dev/null
	wait
	rm -rf "$top"
}

# -------------------------------------------------------------------- Main

for file in test/*/tests.sh; do
	. "$file"
done
running=
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

verbose=
while getopts v option; do
	case $option in
	v) verbose=yes ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
groups=
for group in "${@:-all}"; do
	case " all $all_groups ports soak " in
	" $group "*) groups="$groups $all_groups" ;;
	*" $group "*) groups="$groups $group" ;;
	*)
		echo "run_tests.sh: no group $group; there are: all $all_groups ports soak" >&2
		exit 2
		;;
	esac
done

ended=0 number_of_groups=$(echo bots $groups | wc -w)
all_passed=0 all_failed=0 all_skipped=0
columns=$(stty size 2>/dev/null | cut -d ' ' -f 2)
columns=$((${columns:-80} > 1 ? ${columns:-80} - 1 : 79))

echo "This takes about $(estimate)."
start_group bots
wait_for_groups 1
[ -e "$top/sanitizers" ] || sanitize=
for group in $groups; do
	wait_for_groups $at_once
	start_group "$group"
done
wait_for_groups 1
show_line ''
report_skipped
echo "$all_passed passed, $all_failed failed, $all_skipped skipped"
[ $all_failed -eq 0 ]
