#!/bin/sh
# run_tests.sh [-v] [group...] - runs all tests, or those of some groups ("all" is
# all but the last two):
#
#     unit         warnings, make, and the test programs in C
#     transcripts  conversations with a server, good and bad
#     fuzz         the fuzz targets, on the inputs that a fuzzer begins with
#     tools        what gcc's analyzer, clang-tidy and cppcheck find
#     cli          options, tunnels, and a server that does not exist
#     readme       what the README says: commands, output, names, messages
#     practice     the practice server, and the demo; more with slixmpp for Python
#     crowds       jumperbots on the practice server
#     prosody      the bots on a real server; needs Prosody, and slixmpp for Python
#     ejabberd     the same with another server
#
# and, only if asked for:
#
#     ports        other compilers, C libraries, processors, makes
#     soak         half an hour of messages, and of servers that are killed
#
# A group's functions are in the tests.sh of some folder. -v prints each check, not
# only those that fail. Needs a shell, a C compiler ($CC, or else cc) and make.
# Whatever needs more is skipped if that is missing; with REQUIRE_SERVERS=1 a
# missing server is a failure. Nothing is left in the tree, and no process stays
# behind. The last line is "N passed, N failed, N skipped"; the exit status is 1 if
# any check failed.
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

: "${CC:=cc}"
tmp=$(mktemp -d) || exit 1
top=$tmp
echobot=$top/bots/plain/echobot jumperbot=$top/bots/plain/jumperbot
sanitize='-g -fsanitize=address,undefined -fno-sanitize-recover=undefined'
all_groups='ejabberd prosody unit transcripts crowds practice readme cli tools fuzz'
at_once=4      # groups; most of them wait more than they work
passed=0 failed=0 skipped=0
processes=     # that we started and have not yet waited for
server= dir=   # the XMPP server that runs, and its directory; none if empty

# ------------------------------------------------------------------ Checks
#
# A check is a command. What it says is shown only if it fails.

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

# Runs a program with checks of its own. Its last line says how many.
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

# Starts a command in the background; its number is $!. Its output goes to
# $tmp/NAME.out and .err. They are emptied here, because the new process will do
# so only in its own time, and until then we would read what the last one said.
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

# ---------------------------------------------------------------- Programs

# Prints the other sources that a program is made of. A test that looks inside
# one includes it, and must not be linked with it.
sources() { # sources PROGRAM.c
	if grep -q '^#include "sasl.h"' "$1"; then
		echo test/practice/sasl.c xmlstream.c
		return
	fi
	for source in xmpp.c xmlstream.c; do
		grep -q "^#include \"[./]*/$source\"" "$1" || echo $source
	done
}

# Makes $tmp/HOW/PROGRAM. A warning is a failure. $CC and $LDLIBS are without
# quotes: they may be several words.
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
# A group runs in a shell of its own, beside others, with a directory $tmp of its
# own. For group G there are, in $top:
#     G.log      what its checks printed
#     G.state    how many checks are done, and which one runs
#     G.counts   at the end: passed, failed, skipped
#     G.start    when it began, in seconds
# Meanwhile the first shell waits, shows the states, and reports what has ended.

show_state() { echo "$((passed + failed)) $1" >"$tmp.state"; }

now() { date +%s; }

run_group() { # run_group GROUP
	tmp=$top/$1 processes=
	trap clean_up_group EXIT
	trap 'exit 143' HUP INT TERM
	mkdir "$tmp" && group_"$1"
	echo "$passed $failed $skipped" >"$tmp.counts"
}

# Gives them time to stop what they have started themselves.
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

# Prints the heading of a group that has ended, and what is to be read below it.
report_group() { # report_group GROUP
	log=$top/$1.log
	if [ ! -e "$top/$1.counts" ]; then # some command has ended the shell
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

# Waits until fewer than that many groups run.
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

# On a terminal, a line that is renewed: what runs, and how far it is.
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

# Each group says how long it takes alone, in seconds; 0 if it cannot run here.
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
	[ -z "$packages" ] || printf 'What is missing, on Debian or Ubuntu: apt install %s\n' "$packages"
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
