#!/bin/sh
# demo.sh - the bots at work, on a machine with nothing but a C compiler: builds
# everything in a temporary directory, starts the practice server, lets a scripted
# person talk to echobot, and a crowd of jumperbots chat. Nothing is left behind.
cd "$(dirname "$0")/../.." || exit 1

: "${CC:=cc}"
tmp=$(mktemp -d) || exit 1
bold='' plain=''
[ -t 1 ] && bold=$(printf '\033[1m') plain=$(printf '\033[0m')

narrate() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
give_up() { echo "demo: $*" >&2; exit 1; }
build() { $CC -O -o "$tmp/$1" "$2" xmlstream.c $3 || give_up "cannot build $2"; }

show() { fold -w 92 "$1" | sed '/^[CS]: /s/^/    /; t
s/^/       /'; }

clean_up() {
	for process in $bot $server; do
		kill "$process" 2>/dev/null && wait "$process" 2>/dev/null
	done
	rm -rf "$tmp"
}

# Waits, 15 s at most, for a file to have a line like this.
await() { # await PATTERN FILE
	tries=300
	until grep -q "$1" "$2" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || give_up "no '$1': $(cat "$2")"
		sleep 0.05 2>/dev/null || sleep 1
	done
}

server='' bot=''
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

narrate "1. Building the bots, a practice server, and a person with something to say."
build echobot echobot.c xmpp.c
build jumperbot jumperbot.c xmpp.c
build server test/practice/server.c test/practice/sasl.c
build say test/practice/say.c xmpp.c

narrate "2. The server starts, on a port of this machine that nobody else uses."
"$tmp/server" -p 0 >"$tmp/server.out" 2>&1 &
server=$!
await 'listening on port' "$tmp/server.out"
port=$(sed -n 's/.*listening on port //p' "$tmp/server.out")
show "$tmp/server.out"

narrate "3. Echobot logs in. C: is what it says, S: is what the server says."
"$tmp/echobot" -v -p "$port" >"$tmp/bot.out" 2>"$tmp/bot.trace" &
bot=$!
await 'ready as' "$tmp/bot.out"
show "$tmp/bot.trace"
lines=$(wc -l <"$tmp/bot.trace")

narrate "4. Juliet logs in, too, and speaks to it."
"$tmp/say" "$port" juliet "$(sed -n 's/.*ready as //p' "$tmp/bot.out")" \
	'O Romeo, Romeo! <Wherefore> art thou Romeo?' >"$tmp/say.out" 2>&1 || give_up "$(cat "$tmp/say.out")"
show "$tmp/say.out"

narrate "5. The same, as echobot saw it, and its goodbye."
kill "$bot"
wait "$bot" || give_up "echobot did not end well"
bot=
tail -n +$((lines + 1)) "$tmp/bot.trace" >"$tmp/rest"
show "$tmp/rest"

narrate "6. Ten jumperbots hop between three rooms for three seconds, ten times as talkative as usual."
"$tmp/jumperbot" -p "$port" -n 10 -r 3 -i 10 -d 3 -m || give_up "not every jumperbot got in"
