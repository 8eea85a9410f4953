#!/bin/sh
# bench.sh [bots...] - how fast the tokenizer is, how many bots there can be, and
# what they cost: figures, no verdict.
#
# First the tokenizer, beside those of expat and iksemel if they are installed: see
# bench_xml.c. Then
# crowds of jumperbots (10, 100, 1,000 and 5,000) on the practice server and, where
# it is installed, on Prosody: two to a room, 50 logins a second, talking as often
# as people do, their passwords sent PLAIN. The server shares the machine with them. A line says
#
#     in       how many of them have been in a room, and after how many seconds the
#              last one was, if all have
#     KB/bot   resident memory, less what ten bots need
#     msg/s    messages that bots said and heard
#     us/msg   CPU time of jumperbot for each of those, user and system, logins and all
#     ms       from saying a phrase to hearing it: half and 99 % were faster
#     lag      ms that jumperbot itself was late, at worst
CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1

: "${CC:=cc}"
tmp=$(mktemp -d) || exit 1
pids=
clean_up() {
	[ -z "$pids" ] || kill $pids 2>/dev/null
	[ ! -d "$tmp/prosody" ] || sh test/servers/prosody.sh kill "$tmp/prosody"
	rm -rf "$tmp"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

give_up() { echo "bench.sh: $*" >&2; exit 1; }

start_practice() {
	"$tmp/server" -p 0 -m plain >"$tmp/server.out" &
	pids=$!
	until PORT=$(sed -n 's/.*listening on port //p' "$tmp/server.out") && [ -n "$PORT" ]; do
		kill -0 $pids 2>/dev/null || give_up "the practice server does not start"
		sleep 0.1
	done
}

stop_practice() { kill $pids; wait $pids; pids=; }

start_prosody() {
	assignments=$(USERS=$1 AUTH=plain sh test/servers/prosody.sh start "$tmp/prosody") && eval "$assignments" ||
		give_up "Prosody does not start"
}

stop_prosody() { sh test/servers/prosody.sh kill "$tmp/prosody"; rm -rf "$tmp/prosody"; }

# Runs n bots; their summary goes to $tmp/out, with the CPU time behind it. The
# memory of all their processes, as it was last, to $rss, in KB.
run_crowd() { # run_crowd BOTS
	(sh -c 'echo $$ >"$0"; exec "$@"' "$tmp/pid" "$tmp/jumperbot" -p "$PORT" -n "$1" -r $((($1 + 1) / 2)) \
		-d $(($1 / 50 + 20)); times) >"$tmp/out" 2>"$tmp/err" &
	shell=$!
	while kill -0 $shell 2>/dev/null; do
		now=$(ps -A -o pid= -o ppid= -o rss= | awk -v p="$(cat "$tmp/pid")" '$1 == p || $2 == p { n += $3; k++ }
			END { print n + 0, k + 0 }')
		[ "$now" = '0 0' ] || rss=${now% *} processes=${now#* }
		sleep 1
	done
	wait $shell
}

value() { sed -n "s/^$1=//p" "$tmp/out"; }

print_line() { # print_line SERVER BOTS
	seconds=$(value seconds) in=$(value entered) all_in=$(value all_in_ms)
	cpu=$(sed -n '$s/[ms]/ /gp' "$tmp/out" | awk '{ print $1 * 60 + $2 + $3 * 60 + $4 }')
	[ "$2" -ne 10 ] || base=$rss
	awk -v server="$1" -v bots="$2" -v in_="$in" -v all_in="$all_in" -v rss="$rss" -v processes="$processes" -v base="${base:-0}" \
		-v messages="$(($(value sent) + $(value received)))" -v seconds="$seconds" -v cpu="$cpu" -v p50="$(value p50_ms)" \
		-v p99="$(value p99_ms)" -v lag="$(value lag_ms)" 'BEGIN {
		printf "%-9s %5d %5d %7s %7s %7.0f %7.1f %8.2f %8.2f %5d\n", server, bots, in_,
			all_in == "" ? "-" : sprintf("%.1f", all_in / 1000),
			bots == 10 || !base ? "-" : sprintf("%.1f", (rss - processes * base) / bots),
			messages / seconds, cpu * 1e6 / messages, p50, p99, lag }'
}

for n; do
	[ "$n" -gt 0 ] 2>/dev/null || give_up "not a number of bots: $n"
done
$CC -O2 -o "$tmp/jumperbot" jumperbot.c xmpp.c xmlstream.c && $CC -O2 -I. -o "$tmp/server" test/server.c xmlstream.c || exit 1
peers=
for peer in expat iksemel; do
	name=$(echo $peer | tr a-z A-Z)
	echo "#include <$peer.h>" | $CC -E - >/dev/null 2>&1 && peers="$peers -D$name -l$peer"
done
$CC -O2 -I. -o "$tmp/bench_xml" test/bench_xml.c xmlstream.c $peers && "$tmp/bench_xml" || exit 1
echo
servers=practice
why=$(sh test/servers/prosody.sh probe | head -n 1)
[ -n "$why" ] && echo "skip - prosody: $why" || servers='practice prosody'
echo "server     bots    in after s  KB/bot   msg/s  us/msg   ms 50%   ms 99%   lag"
for server in $servers; do
	for n in ${*:-10 100 1000 5000}; do
		[ $server != practice ] || [ "$n" -le 1000 ] || continue # there, select() watches them, too
		start_$server "$n"
		run_crowd "$n"
		print_line $server "$n"
		stop_$server
	done
done
