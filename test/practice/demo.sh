#!/bin/sh
# demo.sh - shows the bots at work. Needs nothing but a C compiler. Builds everything in a temporary
# directory, which it removes at the end, and starts the practice server. Then a user talks to
# echobot, and ten jumperbots chat.
cd "$(dirname "$0")/../.." || exit 1

: "${CC:=cc}"
tmp=$(mktemp -d) || exit 1
bold='' plain='' width=$(stty size 2>/dev/null) width=${width#* }
[ "${width:-0}" -ge 40 ] || width=80
[ -t 1 ] && bold=$(printf '\033[1m') plain=$(printf '\033[0m')

narrate() { printf '\n%s%s%s\n' "$bold" "$*" "$plain" | fold -s -w "$width"; }
give_up() { echo "demo: $*" >&2; exit 1; }
build() { $CC -O -o "$tmp/$1" "$2" xmlstream.c $3 || give_up "cannot build $2"; }

# Reads lines, each with one tag or text, and joins them into lines of at most WIDTH characters.
join_tags() { # join_tags WIDTH
	row=
	while IFS= read -r tag; do
		if [ -n "$row" ] && [ $((${#row} + ${#tag})) -gt "$1" ]; then
			printf '%s\n' "$row"
			row=
		fi
		row=$row$tag
	done
	printf '%s\n' "$row"
}

# Prints a file. Breaks long lines between tags or, if there are none, between words. Shortens long
# base64.
show() { # show FILE
	while IFS= read -r line; do
		printf '%s\n' "$line" |
			sed 's/\([A-Za-z0-9+/]\{20\}\)[A-Za-z0-9+/]\{8,\}=*/\1.../; s/\([^ ]\)</\1\
</g; s/>\([^< ]\)/>\
\1/g' | join_tags $((width - 7)) | fold -s -w $((width - 7))
	done <"$1" | sed -e 's/ *$//' | sed -e 's/^[CS]: /    &/' -e t -e 's/^/       /'
}

clean_up() {
	for process in $bot $server; do
		kill "$process" 2>/dev/null && wait "$process" 2>/dev/null
	done
	rm -rf "$tmp"
}

# Waits, at most 15 s, until a line of the file matches the pattern.
await() { # await PATTERN FILE
	tries=300
	until grep -q "$1" "$2" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || give_up "no '$1': $(cat "$2")"
		sleep 0.05 2>/dev/null || sleep 1
	done
}

# Prints one figure of the summary and what it means.
explain() { # explain NAME MEANING
	printf '    %-8s %7s   %s\n' "$1" "$(sed -n "s/^$1=//p" "$tmp/summary")" "$2"
}

server='' bot=''
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

narrate "1. We build the bots, a practice server, and a program that sends one message."
build echobot echobot.c xmpp.c
build jumperbot jumperbot.c xmpp.c
build server test/practice/server.c test/practice/sasl.c
build say test/practice/say.c xmpp.c

narrate "2. The server starts on a free port of this machine."
"$tmp/server" -p 0 >"$tmp/server.out" 2>&1 &
server=$!
await 'listening on port' "$tmp/server.out"
port=$(sed -n 's/.*listening on port //p' "$tmp/server.out")
show "$tmp/server.out"

narrate "3. Echobot logs in. C: marks what it sends, and S: marks what the server sends."
"$tmp/echobot" -v -p "$port" >"$tmp/bot.out" 2>"$tmp/bot.trace" &
bot=$!
await 'ready as' "$tmp/bot.out"
show "$tmp/bot.trace"
lines=$(wc -l <"$tmp/bot.trace")

narrate "4. Juliet logs in, too, and sends echobot a message, which it repeats."
"$tmp/say" "$port" juliet "$(sed -n 's/.*ready as //p' "$tmp/bot.out")" \
	'O Romeo, Romeo! <Wherefore> art thou Romeo?' >"$tmp/say.out" 2>&1 ||
	give_up "$(cat "$tmp/say.out")"
show "$tmp/say.out"

narrate "5. We stop echobot. Since its login it has received and sent the following."
kill "$bot"
wait "$bot" || give_up "echobot failed"
bot=
tail -n +$((lines + 1)) "$tmp/bot.trace" >"$tmp/rest"
show "$tmp/rest"

narrate "6. Ten jumperbots talk in three rooms for three seconds. Their summary says:"
"$tmp/jumperbot" -p "$port" -n 10 -r 3 -i 10 -d 3 >"$tmp/summary" ||
	give_up "not every jumperbot entered a room"
explain entered "bots that have been in a room"
explain sent "phrases that the bots said"
explain heard "phrases that came back to the bot that said them"
explain received "phrases heard, counted once for each bot that heard them"
explain p50_ms "milliseconds within which half of the phrases came back"

narrate "To talk to the server yourself, continue with README, chapter 1."
