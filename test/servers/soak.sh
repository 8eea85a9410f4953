# soak.sh - the checks of the group soak, which take half an hour. Sourced by tests.sh.
#
# First, $MESSAGES messages (default: 2,000,000) are sent through one echobot on the
# practice server, and through another one on Prosody, if it is installed. The memory of
# the bot must not grow. Then Prosody is killed ten times while 50 jumperbots and an
# echobot are connected. Each time, it may take a minute until all have reconnected.

messages=${MESSAGES:-2000000}
kills=10

memory() { ps -o rss= -p "$1" | tr -d ' '; } # KB

# Shows the last line of FILE and what COMMAND prints, whenever that line has changed, until PROCESS
# is gone.
show_progress() { # show_progress PROCESS FILE COMMAND...
	process=$1 file=$2 shown=
	shift 2
	until gone "$process"; do
		sleep 1
		line=$(tail -n 1 "$file")
		if [ "$line" != "$shown" ]; then
			shown=$line
			show_state "$what: $line$("$@")"
		fi
	done
}

beside() { echo ", echobot: $(memory $pid) KB"; }

# Sends a tenth of the messages first, so that echobot has allocated all memory that it needs when
# its memory is measured the first time.
many_messages() {
	start bot "$echobot" -p "$PORT"
	pid=$!
	wait_for 20 says 'ready as' "$tmp/bot.out" || return 1
	jid=$(sed -n 's/^echobot: ready as //p' "$tmp/bot.out")
	for count in $((messages / 10)) $((messages - messages / 10)); do
		before=$(memory $pid)
		start flood "$tmp/plain/flood" "$PORT" alice "$jid" $count 100 50
		flood=$!
		show_progress $flood "$tmp/flood.out" beside
		forget $flood || { cat "$tmp/flood.out" "$tmp/flood.err"; return 1; }
	done
	after=$(memory $pid)
	echo "memory from $before to $after KB"
	kill $pid
	forget $pid && [ $((after - before)) -lt 100 ]
}

back_again() { [ "$(grep -c 'ready as' "$tmp/bot.out")" -gt "$1" ]; }

# True if all bots are in a room again. Looks at the output after line $before.
back_in_room() { # back_in_room BOTS
	tail -n +$((before + 1)) "$tmp/crowd.out" | grep -q "lost [0-9].* $1 of $1 in rooms"
}

# Kills the server, so that the connections just break, and starts another one on its port.
kill_one() { # kill_one NUMBER
	before=$(wc -l <"$tmp/crowd.out")
	sh test/servers/prosody.sh kill "$dir" && rm -rf "$dir" && PORT=$PORT start_server prosody USERS=50 &&
		wait_for 180 back_in_room 50 && wait_for 180 back_again "$1" &&
		within 60 "$tmp/plain/flood" "$PORT" alice "$(sed -n 's/^echobot: ready as //p' "$tmp/bot.out" | tail -n 1)" 100 10 50
}

many_kills() {
	start bot "$echobot" -p "$PORT"
	bot=$!
	start crowd "$jumperbot" -p "$PORT" -n 50 -i 2 -m
	crowd=$!
	check "$what: 50 jumperbots are in rooms" wait_for 60 says ' 50 of 50 in rooms' "$tmp/crowd.out"
	number=1
	while [ $number -le $kills ]; do
		check "$what: killed, $number of $kills: all 51 reconnect" kill_one $number
		number=$((number + 1))
	done
	kill $bot $crowd
	check "$what: echobot ends" forget $bot
	check "$what: the jumperbots end" forget $crowd
	check "$what: no phrase came back twice, no bot was left out" tells entered=50 repeated=0 refused=0
	sed -n '/^bots=/,$s/^/    /p' "$tmp/crowd.out"
}

for program in echobot.c jumperbot.c test/practice/flood.c test/practice/server.c; do
	check "$program compiles" compiles plain "$program" -O2 || return
done
echobot=$tmp/plain/echobot jumperbot=$tmp/plain/jumperbot
what="practice server"
check "$what: it starts" start_practice "$tmp/plain/server" && check "$what: $messages messages" many_messages
why=$(why_not prosody)
if [ -n "$why" ]; then
	no_server prosody "$why"
else
	what=prosody
	check "$what: it starts" start_server prosody && check "$what: $messages messages" many_messages
	stop_server
	check "$what: it starts" start_server prosody USERS=50 && many_kills
fi
