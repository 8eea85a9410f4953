#!/bin/sh
# bench.sh [bots...] - measures how fast the tokenizer is, how many bots there can be,
# and what they cost. Nothing passes or fails.
#
# If expat, iksemel, libxml2, libstrophe or OpenSSL are installed, they are measured in
# turns with our code. The medians are printed.
#
# First comes the tokenizer (bench_xml.c), then the hashing of a login (bench_sasl.c),
# then echoing (bench_echo.c and bench_peer.c), for which client and server share one
# processor if taskset is installed. The columns are:
#
#     us/16    CPU time of the client for a message with a body of 16 bytes, with 1,000
#              messages under way, and how many times ours that is; us/1024 is the same
#              with 1,024 bytes
#     trip     us from sending a message to receiving its echo, with one under way
#     KB       resident memory, after a second of messages of 1,024 bytes
#
# "bytes" is a loop of select(), recv() and send(). Echobot prints all messages, and the
# others do not, so "ours" is a bot as short as the others. Then follows the same with
# 1,000 connections, of which one echoes. "KB each" is the memory of one more connection.
#
# Then come crowds of jumperbots (10, 100, 1,000 and 5,000) on the practice server and,
# if it is installed, on Prosody: two to a room, 50 logins a second with PLAIN, talking
# as often as people do. They share the machine with the server. The columns are:
#
#     in       how many bots have been in a room, and after how many seconds the last
#              one had, if all have
#     KB/bot   resident memory per bot, without that of ten bots
#     msg/s    messages that the bots have sent and received
#     us/msg   CPU time of jumperbot for each message, user and system, with the logins
#     ms       from saying a phrase to hearing it: half and 99 % were faster
#     lag      how many ms jumperbot itself was late, at most
#
# At the end, the last figures are plotted.
CDPATH='' cd -- "$(dirname -- "$0")/../.." || exit 1

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

# Runs n bots. Their summary goes to $tmp/out, followed by the CPU time. Sets $rss to
# the last memory of the worker processes, without the parent, in KB.
run_crowd() { # run_crowd BOTS
	(sh -c 'echo $$ >"$0"; exec "$@"' "$tmp/pid" "$tmp/jumperbot" -p "$PORT" -n "$1" -r $((($1 + 1) / 2)) \
		-d $(($1 / 50 + 20)); times) >"$tmp/out" 2>"$tmp/err" &
	shell=$!
	while kill -0 $shell 2>/dev/null; do
		now=$(ps -A -o pid= -o ppid= -o rss= | awk -v p="$(cat "$tmp/pid")" '$2 == p { n += $3; k++ }
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
	awk -v server="$1" -v bots="$2" -v in_="$in" -v all_in="$all_in" -v rss="$rss" -v processes="$processes" -v base="${base:-0}" \
		-v messages="$(($(value sent) + $(value received)))" -v seconds="$seconds" -v cpu="$cpu" -v p50="$(value p50_ms)" \
		-v p99="$(value p99_ms)" -v lag="$(value lag_ms)" 'BEGIN {
		printf "%-9s %5d %5d %7s %7s %7.0f %7.1f %8.2f %8.2f %5d\n", server, bots, in_,
			all_in == "" ? "-" : sprintf("%.1f", all_in / 1000),
			bots == 10 || !base ? "-" : sprintf("%.1f", (rss - processes * base) / bots),
			messages / seconds, cpu * 1e6 / messages, p50, p99, lag }'
}

# ------------------------------------------------------------------- Echoing

# True if the C compiler finds that library.
has() { # has HEADER [FLAG...]
	header=$1
	shift
	echo "#include <$header>" | $CC -E "$@" - >/dev/null 2>&1
}

build_peer() { # build_peer NAME FLAG...
	name=$1
	shift
	$CC -O2 -I. -o "$tmp/$name" test/bench/bench_peer.c "$@" || exit 1
	clients="$clients $name"
}

run_client() { # run_client NAME CONNECTIONS WINDOW BODY SECONDS
	client=$1
	shift
	case $client in
	bytes) $pin "$tmp/bench_echo" "$@" ;;
	echobot) $pin "$tmp/bench_echo" "$@" "$tmp/echobot" -p ;;
	ours) $pin "$tmp/bench_echo" "$@" "$tmp/ours" "$1" ;;
	*) $pin "$tmp/bench_echo" "$@" "$tmp/$client" ;;
	esac || give_up "$client does not echo"
}

# Reads lines with a client and three figures. Prints the medians for each client.
medians() { # medians <LINES
	sort -k 1,1 -s | awk 'function median(v, n,    i, j, t) {
			for (i = 2; i <= n; i++)
				for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return v[int((n + 1) / 2)]
		}
		function show() { if (n) print name, median(a, n), median(b, n), median(c, n); n = 0 }
		$1 != name { show(); name = $1 }
		{ n++; a[n] = $2; b[n] = $3; c[n] = $4 }
		END { show() }'
}

measure_echo() {
	for round in 1 2 3 4 5; do
		for client in $clients; do
			small=$(run_client $client 1 1000 16 1) && large=$(run_client $client 1 1000 1024 1) &&
				single=$(run_client $client 1 1 16 1) || exit 1
			echo "$client ${small%% *} ${large%% *} $(echo "$single" | cut -d ' ' -f 2)" >>"$tmp/echo"
			echo "$client ${large##* } 0 0" >>"$tmp/memory"
		done
	done
	medians <"$tmp/memory" >"$tmp/kb"
	medians <"$tmp/echo" | awk -v kb="$tmp/kb" -v clients="$clients" '
		BEGIN { while ((getline line <kb) > 0) { split(line, f); memory[f[1]] = f[2] } }
		{ small[$1] = $2; large[$1] = $3; trip[$1] = $4 }
		END {
			print "client       us/16 of ours  us/1024 of ours     trip of bytes      KB"
			n = split(clients, name)
			for (i = 1; i <= n; i++) {
				c = name[i]
				printf "%-10s %7.2f %6.2fx %8.2f %6.2fx %8.1f %7.2fx %7d\n", c, small[c], small[c] / small["ours"],
					large[c], large[c] / large["ours"], trip[c], trip[c] / trip["bytes"], memory[c]
			}
		}'
}

measure_connections() {
	for round in 1 2 3 4 5; do
		for client in bytes ours; do
			one=$(run_client $client 1 1 16 1) && many=$(run_client $client 1000 1 16 1) || exit 1
			echo "$client $(echo "$one" | cut -d ' ' -f 1) $(echo "$many" | cut -d ' ' -f 1)" \
				"$(((${many##* } - ${one##* }) * 100 / 999))" >>"$tmp/many"
		done
	done
	echo "us CPU, one under way       1 connection  1,000     more  KB each"
	medians <"$tmp/many" | awk '{ printf "%-26s %13.2f %6.2f %8.2f %8.2f\n", $1, $2, $3, $3 - $2, $4 / 100 }'
}

for n; do
	[ "$n" -gt 0 ] 2>/dev/null || give_up "not a number of bots: $n"
done
$CC -O2 -o "$tmp/jumperbot" jumperbot.c xmpp.c xmlstream.c && $CC -O2 -o "$tmp/server" test/practice/server.c test/practice/sasl.c xmlstream.c || exit 1
peers=
! has expat.h || peers="$peers -DEXPAT -lexpat"
! has iksemel.h || peers="$peers -DIKSEMEL -liksemel"
! has libxml/parser.h -I/usr/include/libxml2 || peers="$peers -DLIBXML2 -I/usr/include/libxml2 -lxml2"
$CC -O2 -I. -o "$tmp/bench_xml" test/bench/bench_xml.c xmlstream.c $peers && "$tmp/bench_xml" || exit 1
echo
peers=
! has openssl/evp.h || peers='-DOPENSSL -lcrypto'
$CC -O2 -I. -o "$tmp/bench_sasl" test/bench/bench_sasl.c xmlstream.c $peers && "$tmp/bench_sasl" || exit 1
echo
pin=
! taskset -c 0 true 2>/dev/null || pin='taskset -c 0'
$CC -O2 -o "$tmp/bench_echo" test/bench/bench_echo.c && $CC -O2 -o "$tmp/echobot" echobot.c xmpp.c xmlstream.c || exit 1
clients='bytes echobot'
build_peer ours xmpp.c xmlstream.c
! has iksemel.h || build_peer iksemel -DIKSEMEL -liksemel
! has strophe.h || build_peer libstrophe -DSTROPHE -lstrophe
measure_echo
echo
measure_connections
echo
servers=practice
why=$(sh test/servers/prosody.sh probe | head -n 1)
[ -n "$why" ] && echo "skip - prosody: $why" || servers='practice prosody'
echo "server     bots    in after s  KB/bot   msg/s  us/msg   ms 50%   ms 99%   lag"
for server in $servers; do
	for n in ${*:-10 100 1000 5000}; do
		[ $server != practice ] || [ "$n" -le 1000 ] || continue # it has one select()
		start_$server "$n"
		run_crowd "$n"
		[ "$n" -ne 10 ] || base=$rss
		print_line $server "$n" | tee -a "$tmp/crowds"
		stop_$server
	done
done

# Prints a bar for each figure. A bar is twelve characters longer for ten times as much.
awk 'function bar(x,    s) {
		for (x = x > 0 ? log(x * 100) / log(10) * 12 : 0; x >= 1; x--) s = s "#"
		return s
	}
	BEGIN { print "\nserver     bots  ms 50% (.) and messages a second (#)" }
	{ dots = bar($8); gsub(/#/, ".", dots)
	  printf "%-9s %5d  %-s %s\n%-9s %5s  %-s %s\n", $1, $2, dots, $8, "", "", bar($6 / 100), $6 }' "$tmp/crowds"
