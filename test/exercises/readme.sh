# readme.sh - follows README and test/exercises/README and compares the output. Sourced by tests.sh.
#
# A line like
#
#     server$ ./server -v
#
# is typed into the terminal called "server". The indented lines that follow, up to the next text,
# are the expected output, in which ... stands for anything, and white space does not count. A line
# "> text" is typed into the program that is running there, when it has printed the lines above it.
# ^C means Ctrl-C. The text "Look at bot$:" announces more output from the program in the terminal
# "bot". If a command is typed into a terminal in which a program is still running, this program
# must first end by itself.
#
# A line like
#
#     xmpp.c, flush():
#
# without indentation announces a quotation: the indented lines that follow, up to the next text or
# command. It must agree with the whole function (or, without the parentheses, the table), where ...
# stands for anything. The name of a transcript announces some of its lines. dicebot.c is written by
# the reader, step by step; see write_bot().
#
# All this happens in a copy of the tree, with a free port instead of 5222. A command whose program
# is not installed is skipped, along with its output. So are the commands in `elsewhere`, which take
# long.
LC_ALL=C
export LC_ALL
elsewhere='make demo|test/run_tests.sh|test/bench/bench.sh'
terminals=
patience=60 # seconds for a program to print the expected output; fewer after the first failure

# Finds a port that a server can use, and leaves it free. It is below the range from which the
# system assigns ports, so no other program is given it between two runs of our server.
find_port() {
	compiles plain test/practice/server.c || { cat "$tmp/warnings"; return 1; }
	for attempt in 0 1 2 3 4; do
		free=$((10000 + ($$ + attempt * 1009) % 5000))
		start_practice "$tmp/plain/server" -p $free && stop_practice && return
	done
	return 1
}

copy_tree() {
	mkdir "$tmp/copy" && cp -r Makefile README ./*.[ch] test "$tmp/copy" &&
		cd "$tmp/copy" || return 1
	for file in xmpp.c test/practice/server.c test/exercises/poke.c; do
		sed "s/5222/$PORT/" "$file" >x && mv x "$file" || return 1
	done
}

get() { eval "echo \"\${$1_$2:-}\""; }

# Prints the text that it reads without white space.
squeeze() { tr -d ' \t\n\r'; }

# Prints a regular expression for the text that it reads, where ... stands for anything.
to_pattern() { squeeze | sed 's/[].[*^$\\/]/\\&/g; s/\\\.\\\.\\\./.*/g'; }

# True if the program in that terminal has printed the expected output. If it has ended, it must
# have printed nothing else. If it is still running, it may have printed more.
is_printed() { # is_printed TERMINAL
	end=
	gone "$(get pid "$1")" && end='$'
	pattern=$(to_pattern <"$tmp/$1.want")
	squeeze <"$tmp/$1.out" | grep -q "^$pattern$end" && return
	# nothing was printed, and nothing was expected
	[ -z "$pattern" ] && [ ! -s "$tmp/$1.out" ]
}

# Waits for the expected output, or for the end of the program.
prints() { # prints TERMINAL
	wait_for $patience settled "$1"
	is_printed "$1"
}

settled() { is_printed "$1" || gone "$(get pid "$1")"; }

# Types the last command once more. A script is quicker than a person, so it may send a message
# before the bot has logged in. On a busy machine, jumperbots need ten times as long.
retry() { # retry TERMINAL
	again=$(get command "$1")
	case $again in
	./say*) ;;
	./jumperbot*) again=$(echo "$again" | sed 's/-d [0-9]*/&0/') ;;
	*) return 1 ;;
	esac
	finish "$1"
	cp "$tmp/$1.want" "$tmp/want"
	type_command "$1" "$again"
	mv "$tmp/want" "$tmp/$1.want"
}

# Compares the output at the end of an indented block. Remembers the terminal, since the next block
# may type into the same program.
compare() {
	[ -n "$current" ] || return 0
	if prints "$current" || { retry "$current" && prints "$current"; }; then
		pass "$current\$ $(get command "$current")"
	else
		{
			echo "expected:"
			cat "$tmp/$current.want"
			echo "printed:"
			cat "$tmp/$current.out"
		} >"$tmp/log"
		fail "$current\$ $(get command "$current")"
		patience=2
	fi
	typed_into=$current
	current=
}

# Returns to the program that the previous block has typed into, if it is still running.
go_on() {
	[ -n "$current" ] || [ -z "$typed_into" ] || gone "$(get pid "$typed_into")" ||
		current=$typed_into
}

look_at() { # look_at TEXT
	current=${1#Look at } current=${current%\$:}
	[ -n "$(get pid "$current")" ] || current=
}

# Waits for the program in that terminal to end.
finish() { # finish TERMINAL
	pid=$(get pid "$1")
	[ -n "$pid" ] || return 0
	if ! wait_for $patience gone "$pid"; then
		echo "$(get command "$1") does not end" >"$tmp/log"
		fail "$1"
		kill -KILL "$pid"
	fi
	forget "$pid"
	eval "pid_$1="
}

# Types ^C. A program that a shell runs in the background ignores INT unless it installs a handler,
# so other programs get TERM. Sends one signal only, since a second one would end the server at
# once.
interrupt() { # interrupt TERMINAL
	[ -n "$(get pid "$1")" ] || return
	case $(get command "$1") in
	./echobot* | ./jumperbot* | ./server*) kill -INT "$(get pid "$1")" 2>/dev/null ;;
	*) kill -TERM "$(get pid "$1")" 2>/dev/null ;;
	esac
	finish "$1"
}

# Each terminal has a descriptor to type through: 5, 6, 7...
type_command() { # type_command TERMINAL COMMAND
	finish "$1"
	case $terminals in
	*" $1 "*) ;;
	*)
		eval "fd_$1=$((5 + $(echo $terminals | wc -w)))"
		terminals="$terminals $1 "
		mkfifo "$tmp/$1.in"
		;;
	esac
	eval "exec $(get fd "$1")>&-" # so that the new program waits until we open the pipe again
	eval "command_$1=\$2"
	: >"$tmp/$1.want"
	: >"$tmp/$1.out" # until the new program opens it, the old output would be there
	case $2 in
	*'|'*) script=$2 ;;
	*) script="exec env $2" ;; # so that the signal reaches the program, not a shell
	esac
	sh -c "$script" <"$tmp/$1.in" >"$tmp/$1.out" 2>&1 5>&- 6>&- 7>&- 8>&- &
	eval "pid_$1=$!"
	remember $!
	eval "exec $(get fd "$1")>\"$tmp/$1.in\""
	current=$1
	case $2 in
	'cc '* | make) finish "$1" ;; # other terminals run what it builds
	esac
}

# Waits until the program has printed the lines above, and types a line into it.
type_line() { # type_line TERMINAL TEXT
	wait_for $patience settled "$1"
	printf '%s\n' "$2" >&"$(get fd "$1")"
}

can_run() { # can_run COMMAND
	if echo "$1" | grep -qE "^($elsewhere)"; then
		return 1
	fi
	case $1 in
	./*) return 0 ;;
	'openssl kdf '*)
		openssl kdf -help >/dev/null 2>&1 && return
		skip "$1" "openssl is not installed, or too old"
		return 1
		;;
	esac
	for word in ${1%% *} $(printf '%s\n' "$1" | sed -n 's/.*| *\([a-z0-9_]*\).*/\1/p'); do
		if ! command -v "$word" >/dev/null; then
			skip "$(echo "$1" | sed "s/$PORT/5222/")" "$word is not installed" "$(package "$word")"
			return 1
		fi
	done
}

package() { if [ "$1" = nc ]; then echo netcat-openbsd; else echo "$1"; fi; }

# -------------------------------------------------------------- Quotations

# Prints the definition of the function, table or struct in the file, without the comment above it.
definition() { # definition FILE NAME
	sed -n "/^[a-z}].*\<${2%()}\>[^;]*\$/,/^}/p" "$1"
}

find_source() { # find_source FILE
	for source_file in "$1" test/"$1" test/*/"$1"; do
		[ -f "$source_file" ] && return
	done
	return 1
}

# Compares the text in $tmp/quoted with that definition.
compare_quotation() { # compare_quotation FILE NAME
	pattern=$(to_pattern <"$tmp/quoted")
	[ -n "$pattern" ] && find_source "$1" || return 1
	definition "$source_file" "$2" | squeeze | grep -q "^$pattern\$" || {
		echo "README has:"
		cat "$tmp/quoted"
		echo "$source_file has:"
		definition "$source_file" "$2"
		return 1
	}
}

# Looks up each line of $tmp/quoted in that transcript.
compare_transcript() { # compare_transcript FILE
	[ -s "$tmp/quoted" ] && ! grep -vxF -f "$1" "$tmp/quoted"
}

# Changes dicebot.c as the README tells the reader to. The first quotation is the whole file. Each
# of the others is a function of test/exercises/dicebot.c, which replaces the function in the file
# or is added before main(). After the last one, the two files must be equal.
write_bot() { # write_bot NAME
	if [ "$1" = new ]; then
		cp "$tmp/quoted" dicebot.c
		return
	fi
	compare_quotation test/exercises/dicebot.c "$1" || return 1
	{
		sed "/^[a-z].*\<${1%()}(/,/^}/d; /^int main/,\$d" dicebot.c
		definition test/exercises/dicebot.c "$1"
		[ "$1" = "main()" ] || sed -n '/^int main/,$p' dicebot.c
	} >x && mv x dicebot.c
	if [ "$1" = "main()" ]; then
		cat dicebot.c
		[ "$(squeeze <dicebot.c)" = "$(squeeze <test/exercises/dicebot.c)" ]
	fi
}

# Begins a quotation if the line announces one.
begin_quotation() { # begin_quotation LINE
	case $1 in
	[a-z]*.[ch]', '*':' | test/transcripts/*.txt:) quoted=${1%:} ;;
	esac
	: >"$tmp/quoted"
}

# Compares the quotation in $tmp/quoted, if there is one.
end_quotation() {
	case $quoted in
	'') ;;
	'dicebot.c, '*) check "$quoted" write_bot "${quoted#*, }" ;;
	*', '*) check "$quoted" compare_quotation "${quoted%%, *}" "${quoted#*, }" ;;
	*) check "$quoted" compare_transcript "$quoted" ;;
	esac
	quoted=
}

# ---------------------------------------------------------- From top to bottom

# Handles a command, or a line that it prints.
take_line() { # take_line LINE
	case $1 in
	[a-z]*'$ '*)
		compare
		typed_into=
		terminal=${1%%\$*} typed=$(printf '%s\n' "${1#*\$ }" | sed "s/5222/$PORT/g")
		case $typed in
		^C) interrupt "$terminal" ;;
		*) ! can_run "$typed" || type_command "$terminal" "$typed" ;;
		esac
		;;
	'> '*) go_on; [ -z "$current" ] || type_line "$current" "${1#> }" ;;
	*) [ -z "$current" ] || printf '%s\n' "$1" | sed "s/5222/$PORT/g" >>"$tmp/$current.want" ;;
	esac
}

# Follows the text on standard input. A line that ends in a semicolon must be part of a quotation
# that was announced.
follow() {
	current='' typed_into='' quoted=''
	while IFS= read -r line; do
		case $line in
		'    '[a-z]*'$ '*) end_quotation ;;
		'    '*) ;;
		'') continue ;;
		*)
			compare
			end_quotation
			begin_quotation "$line"
			case $line in
			'Look at '[a-z]*'$:') look_at "$line" ;;
			esac
			continue
			;;
		esac
		line=${line#    }
		if [ -n "$quoted" ]; then
			printf '%s\n' "$line" >>"$tmp/quoted"
			continue
		fi
		while [ "${line%\\}" != "$line" ] && IFS= read -r more; do
			line="${line%\\}${more#    }"
		done
		case $line in
		*';') echo "$line" >"$tmp/log"; fail "code that is not announced" ;;
		esac
		take_line "$line"
	done
	compare
	end_quotation
}

# Prints chapter 1 with that command instead of poke, and with the header, which must then be typed.
by_hand() { # by_hand COMMAND
	header="<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
	header="$header xmlns:stream='http://etherx.jabber.org/streams'>"
	printf '    %s\n' 'server$ ./server' 'server: listening on port 5222'
	printf '    %s\n' 'bot$ ./echobot' 'echobot: ready as ...'
	echo "With $1:"
	sed -n '/^1  POKE/,/^2  /p' README | sed "/cc -o/d; s|^    you\\\$ \./poke\$|    you\$ ^C\\
    you\$ $1\\
    > $header|"
	printf '    %s\n' 'you$ ^C' 'server$ ^C'
}

# True if the program lists the options of the command with -h.
has_options() { # has_options COMMAND
	program=${1%% *} words=$(printf '%s\n' "$1" | sed "s/'.*//")
	"$program" -h >"$tmp/usage" 2>&1
	for word in ${words#* }; do
		case $word in
		-h) ;;
		-*) says "^  $word  " "$tmp/usage" || return 1 ;;
		esac
	done
}

{
	cat README test/exercises/README
	by_hand 'nc localhost 5222'
	by_hand 'socat - TCP:localhost:5222'
} >"$tmp/all"
check "the practice server finds a port" find_port && check "the tree is copied" copy_tree &&
	follow <"$tmp/all"
grep -o '\./\(echobot\|jumperbot\|server\) -.*' README >"$tmp/commands"
while IFS= read -r line; do
	check "options: $line" has_options "$line"
done <"$tmp/commands"
for terminal in $terminals; do
	pid=$(get pid "$terminal")
	# Another process may soon have its number, and we would stop that one at the end.
	[ -z "$pid" ] || ! gone "$pid" || forget "$pid"
done
