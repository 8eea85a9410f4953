# tests.sh - the groups practice and crowds, and functions with which other groups run
# echobot, the practice server and jumperbots. Sourced by run_tests.sh.

# -------------------------------------------------------------------- Bots

# Starts a bot and waits until it is logged in. Sets $pid and $jid. The output
# goes to $tmp/NAME.out, the trace to $tmp/NAME.err.
log_in() { # log_in NAME COMMAND...
	bot=$tmp/$1
	start "$@" -v -p "$PORT"
	pid=$!
	wait_for 20 ready_or_gone
	jid=$(sed -n 's/^echobot: ready as //p' "$bot.out")
	[ -n "$jid" ] || { tail -n 20 "$bot.err"; return 1; }
}

ready_or_gone() { grep -q '^echobot: ready as ' "$bot.out" || gone $pid; }

# Sends the signal. The bot must close its stream, wait for the server to do the same, and exit
# with status 0.
ends_well() { # ends_well NAME PID SIGNAL
	kill -"$3" "$2"
	wait_for 5 gone "$2" || { echo "still running 5 s after SIG$3"; return 1; }
	forget "$2"
	status=$?
	[ $status -eq 0 ] || { echo "exit status $status"; tail -n 40 "$tmp/$1.err"; return 1; }
	grep '^[CS]: ' "$tmp/$1.err" | tail -n 2 > "$tmp/last" # other lines are from the tunnel
	says '^C: </stream:stream>$' "$tmp/last" && says '^S: </stream:stream>$' "$tmp/last"
}

# Starts the practice server, on a free port unless an option names one. Sets $PORT and $practice,
# the process ID.
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

# Runs jumperbots until the command succeeds, or for 100 s, and stops them. The trace goes to
# $tmp/crowd.err, the summary to $tmp/crowd.out. Sets $pid. Returns the exit status.
crowd_until() { # crowd_until COMMAND OPTION...
	enough=$1
	shift
	start crowd "$jumperbot" -p "$PORT" "$@"
	pid=$! deadline=$(($(now) + 100))
	until $enough || gone $pid || [ "$(now)" -ge $deadline ]; do
		sleep 0.05
	done
	kill $pid 2>/dev/null
	wait_for 30 gone $pid || kill -KILL $pid
	forget $pid
}

# These functions print how many phrases or bots are in the trace so far.
phrases_said() { grep -c '^C([^)]*): <message' "$tmp/crowd.err"; }
bots_in_room() { count_in_room <"$tmp/crowd.err"; }
count_in_room() { grep "^S([^)]*): <presence .*code='110'" | cut -d : -f 1 | sort -u | wc -l; }

# Checks the summary. An expectation is name=value, or name:n if the value must be at least n.
tells() { # tells EXPECTATION...
	for expected; do
		case $expected in
		*=*) grep -qx "$expected" "$tmp/crowd.out" ;;
		*:*) [ "$(sed -n "s/^${expected%:*}=//p" "$tmp/crowd.out")" -ge "${expected#*:}" ] ;;
		esac || { echo "not $expected:"; cat "$tmp/crowd.out"; crowd_complains; return 1; }
	done
}

# True if all bots have been in a room, and every phrase came back exactly once.
all_is_well() { # all_is_well BOTS PHRASES
	tells bots="$1" entered="$1" sent:"$2" lost=0 refused=0 no_entry=0 thrown_out=0 throttled=0 bounced=0 \
		unanswered=0 unheard=0 repeated=0 && tells heard="$(sed -n 's/^sent=//p' "$tmp/crowd.out")"
}

# Runs bots until each has been in a room, and together they have said PHRASES phrases. True if
# nothing went wrong.
happy_crowd() { # happy_crowd BOTS PHRASES OPTION...
	bots=$1 phrases=$2
	shift 2
	crowd_until all_have_spoken -v -n "$bots" "$@"
	status=$?
	[ $status -eq 0 ] || { echo "exit status $status"; cat "$tmp/crowd.out"; crowd_complains; return 1; }
	all_is_well "$bots" "$phrases"
}

all_have_spoken() { [ "$(phrases_said)" -ge "$phrases" ] && [ "$(bots_in_room)" -ge "$bots" ]; }

# Prints the messages of jumperbot, without the trace.
crowd_complains() { grep -v '^[CS](' "$tmp/crowd.err"; }

# -------------------------------------------------------- Practice server

# Runs the demo. Checks its output, and that it leaves no file behind.
demo_works() {
	mkdir -p "$tmp/demo"
	demo='sh test/practice/demo.sh'
	! command -v make >/dev/null || demo="make CC=$CC demo"
	TMPDIR=$tmp/demo within 60 $demo >"$tmp/demo.out" || return 1
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
		check_program "$what: slixmpp" within 100 "$python" test/practice/server_client.py "$PORT"
	else
		skip "$what: slixmpp" "no Python with slixmpp" python3-slixmpp
	fi
	check "$what: SIGTERM ends the bot" ends_well bot $pid TERM
	check "$what: and the server" stop_practice
}

# Tests a bot whose output cannot be written, or is not read.
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

# True if the bot answers. Tries 21 times, since the bot may still be logging in.
is_answered() {
	for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		! answers || return 0
	done
	answers
}

answers() {
	within 1 "$tmp/pedantic/say" "$PORT" juliet echobot@localhost hello >"$tmp/said" &&
		says 'answers: hello' "$tmp/said"
}

# The bot's output must not go into the stream. The exit status shows that output was lost.
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

# The bot prints more than the pipe can hold, so it blocks. If one signal does not end it, a second
# signal must.
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
		{ wait_for 1 gone $pid || kill -INT $pid; } && wait_for 5 gone $pid
	stuck=$?
	kill -KILL $pid 2>/dev/null
	kill $flood $sleeper
	forget $flood
	forget $sleeper
	forget $pid
	return $stuck
}

group_crowds() {
	what="practice server"
	check "test/practice/server.c compiles, plain" compiles plain test/practice/server.c || return
	check "$what: it starts" start_practice "$tmp/plain/server"
	check "$what: 10 jumperbots" happy_crowd 10 80 -i 100
	check "$what: 100 jumperbots, in several processes" several_processes
	check "$what: 200 jumperbots, as fast as they can" happy_crowd 200 2000 -i 0 -r 20 -a 200
	check "$what: jumperbots that only listen" listeners
	check "$what: jumperbots end after the time given by -d" ends_in_time
	check "$what: the same seed, the same choices" same_choices
	check "$what: the server is stopped while all end, and nothing is lost" slow_end
	check "$what: a second signal ends them at once" quick_end
	check "$what: a worker dies" process_dies
	check "$what: the parent dies" parent_dies
	check "$what: the parent stands still, and -d ends the bots" parent_stands_still
	if find_python; then
		check_program "$what: jumperbots meet somebody" "$python" test/servers/room_client.py "$PORT" "$jumperbot"
	fi
	if command -v socat >/dev/null; then
		check "$what: a login that takes 3 s is no lag" slow_login
	else
		skip "$what: a login that takes 3 s is no lag" "socat is not installed" socat
	fi
	check "$what: SIGTERM" stop_practice
	echo 'jumperbot_1 jumperbot' >"$tmp/accounts"
	check "$what -a: it starts" start_practice "$tmp/plain/server" -a "$tmp/accounts"
	check "$what -a: bots without an account are left out" one_of_three
	check "$what -a: without any account, only five try" all_are_refused
	check "$what -a: three jumperbots register" happy_crowd 3 20 -i 100 -R
	check "$what -a: the trace hides the password" hides_new_password
	check "$what -a: SIGTERM" stop_practice
}

# Lowers the limit of descriptors, so that jumperbot needs several processes.
several_processes() {
	(ulimit -n 64 && happy_crowd 100 200 -i 20 -r 20 -a 200 -m)
}

# The second process starts when a bot of the first one has logged in, which is late.
slow_login() {
	(ulimit -n 64 && crowd_until fifty_are_in -v -n 50 -a 1000 -x 'sleep 3; exec socat - TCP:$XMPP_SERVER:$XMPP_PORT')
	tells entered=50 && [ "$(sed -n 's/^lag_ms=//p' "$tmp/crowd.out")" -lt 2500 ] || { cat "$tmp/crowd.out"; return 1; }
}

fifty_are_in() { [ "$(bots_in_room)" -eq 50 ]; }

few_descriptors() { ulimit -n 64 && exec "$@"; }

# With -l, bots say nothing, although -i would make them talk a lot.
listeners() {
	bots=3 phrases=0
	crowd_until all_have_spoken -v -n 3 -i 1000 -l && tells entered=3 sent=0
}

# The exit status may be 1, since in one second a bot may not get into a room.
ends_in_time() {
	within 60 "$jumperbot" -p "$PORT" -n 3 -d 1 >"$tmp/crowd.out" 2>"$tmp/crowd.err"
	[ $? -le 1 ] && tells bots=3
}

# Starts ten jumperbots, and suspends the server while they wait for answers.
waiting_crowd() {
	start crowd "$jumperbot" -p "$PORT" -n 10 -r 2 -i 20 -v
	pid=$!
	wait_for 20 all_ten_speak && kill -STOP $practice &&
		said=$(grep -c '^C([^)]*): <message' "$tmp/crowd.err") && wait_for 5 more_is_said && return
	kill -CONT $practice
	kill $pid
	forget $pid
	tail -n 20 "$tmp/crowd.err"
	return 1
}

all_ten_speak() { [ "$(grep -o '^C(jumperbot_[0-9]): <message' "$tmp/crowd.err" | sort -u | wc -l)" -eq 10 ]; }

more_is_said() { [ "$(grep -c '^C([^)]*): <message' "$tmp/crowd.err")" -gt "$said" ]; }

# Sends a signal first to a worker and then to the parent, as timeout(1) sends it to all processes.
# It must count only once.
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
	kill -CONT $practice # other tests need it
	forget $pid
	[ $late -eq 0 ] || { echo "still running after 8 s"; return 1; }
	tells entered=10 unheard:1
}

gone_by_signal() { ! kill -TERM "$1" 2>/dev/null; }

one_of_three() {
	! crowd_until one_is_in -v -n 3 -i 20 && tells entered=1 refused=2 lost=0 &&
		says '^jumperbot_0: .*not-authorized' "$tmp/crowd.err" && says '^jumperbot_2: .*not-authorized' "$tmp/crowd.err"
}

one_is_in() {
	[ "$(bots_in_room)" -eq 1 ] && [ "$(grep -c ': .*not-authorized' "$tmp/crowd.err")" -ge 2 ]
}

choices() { # choices SEED: prints the first ten actions of jumperbot_0
	crowd_until ten_choices -v -n 2 -r 50 -i 1000 -s "$1" && things_done | head -n 10
}

ten_choices() { [ "$(things_done | wc -l)" -ge 10 ]; }

things_done() { sed -n 's/^C(jumperbot_0): <\([mp]\).* to=.\([^@]*\)[^>]*>\(.*\)/\1 \2 \3/p' "$tmp/crowd.err"; }

same_choices() {
	choices 7 >"$tmp/choices" && [ "$(wc -l <"$tmp/choices")" -eq 10 ] && choices 7 | cmp - "$tmp/choices" &&
		! { choices 8 | cmp -s - "$tmp/choices"; }
}

# A worker is killed. The parent must report this, and the other workers must continue.
process_dies() {
	start crowd few_descriptors "$jumperbot" -p "$PORT" -n 60 -r 5 -a 1000 -i 20 -v
	pid=$!
	wait_for 10 second_child && kill -KILL "$child" && wait_for 10 says 'bots 0 to 29 was killed by signal 9' "$tmp/crowd.err" &&
		wait_for 30 others_speak
	heard=$?
	kill $pid
	forget $pid
	[ $heard -eq 0 ] && tells entered:30 sent:30 && nothing_is_missing
}

# True if each phrase was heard, came back as an error, or was counted as lost.
nothing_is_missing() {
	eval "$(grep '^\(sent\|heard\|bounced\|unheard\)=[0-9]*$' "$tmp/crowd.out")"
	[ "$sent" -eq $((heard + bounced + unheard)) ] || { cat "$tmp/crowd.out"; return 1; }
}

# The parent is killed. Its workers must exit as well.
parent_dies() {
	start crowd few_descriptors "$jumperbot" -p "$PORT" -n 60 -r 5 -a 1000 -i 20
	pid=$!
	wait_for 10 second_child && kill -KILL $pid && wait_for 15 gone "$child" && wait_for 15 gone "$second"
	ended=$?
	forget $pid
	return $ended
}

# The parent is suspended, as if nobody read its output. The bots must log out all the same.
parent_stands_still() {
	start crowd "$jumperbot" -p "$PORT" -n 3 -i 20 -d 4 -v
	pid=$!
	wait_for 10 three_are_in && kill -STOP $pid && wait_for 30 three_have_left
	left=$?
	kill -CONT $pid
	forget $pid && [ $left -eq 0 ] && all_is_well 3 1
}

three_are_in() { [ "$(bots_in_room)" -eq 3 ]; }
three_have_left() { [ "$(grep -c '^C([^)]*): </stream:stream>' "$tmp/crowd.err")" -eq 3 ]; }

second_child() {
	first_child && second=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null | cut -d ' ' -f 2) && [ -n "$second" ]
}

# No bot has an account. Only five bots try to log in.
all_are_refused() {
	crowd_until false -v -n 50 -f 100 -a 1000
	status=$?
	[ $status -eq 1 ] && tells entered=0 refused=5 &&
		says '^jumperbot: login refused: not-authorized.*; 5 of 5 tried: check the password$' "$tmp/crowd.err" &&
		[ "$(grep -c '^C.*<auth ' "$tmp/crowd.err")" -eq 5 ] && [ "$(grep -c 'not-authorized' "$tmp/crowd.err")" -eq 6 ] ||
		{ echo "exit status $status"; cat "$tmp/crowd.err"; return 1; }
}

others_speak() {
	[ "$(grep -o "^C(jumperbot_[345][0-9]): <message" "$tmp/crowd.err" | sort -u | wc -l)" -eq 30 ]
}

# Sets $child to the first child of $pid. Without /proc, ps lists all processes with their parents.
first_child() {
	child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || ps -o pid=,ppid= | awk -v p="$pid" '$2 == p { print $1 }')
	child=${child%% *}
	[ -n "$child" ]
}

# Tests the options that make the server difficult: it writes one byte at a time (-c), demands TLS
# (-T), closes connections at once (-r), or hangs up after some stanzas (-n).
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

takes_practice() { echo 15; }
takes_crowds() { echo 20; }

group_practice() {
	for file in test/practice/server.c test/practice/say.c test/practice/flood.c; do
		check "$file compiles without a warning" compiles pedantic $file -std=c99 -Wall -Wextra -pedantic
	done
	check "the demo" demo_works
	check "test/practice/server.c compiles, plain" compiles plain test/practice/server.c || return
	test_practice plain
	test_output
	test_switches
	[ -n "$sanitize" ] || return 0
	check "test/practice/server.c compiles, sanitized" compiles sanitized test/practice/server.c $sanitize && test_practice sanitized
}

