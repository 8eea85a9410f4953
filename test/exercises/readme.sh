# readme.sh - does what the README says, and then that of the exercises, and compares.
# Sourced by tests.sh.
#
# There a line like
#
#     server$ ./server -v
#
# is typed into the terminal called "server"; the indented lines that follow, up to
# the next text, are what it prints, where ... stands for anything, and white space
# does not count.
# "> text" is typed into the program that runs there, and ^C is that key.
# A program that is still running when something else is typed into its terminal
# must end by itself first.
#
# All this happens in a copy of the tree, where the port is a free one instead of
# 5222. A program that is not installed is skipped, with all that it would print.
# What takes long is run by others: see `elsewhere`.
LC_ALL=C
export LC_ALL
elsewhere='make demo|test/run_tests.sh|test/bench/bench.sh'
terminals=

# A port that a server was given and that is free again. It lies below those that
# the system gives to others, who ask for any, while no server of ours has it.
find_port() {
	compiles plain test/practice/server.c || { cat "$tmp/warnings"; return 1; }
	for attempt in 0 1 2 3 4; do
		start_practice "$tmp/plain/server" -p $((10000 + ($$ + attempt * 1009) % 5000)) && stop_practice && return
	done
	return 1
}

copy_tree() {
	mkdir "$tmp/copy" && cp -r Makefile README ./*.[ch] test "$tmp/copy" && cd "$tmp/copy" &&
		sed "s/5222/$PORT/" xmpp.c >x && mv x xmpp.c && sed "s/5222/$PORT/" test/practice/server.c >x && mv x test/practice/server.c
}

get() { eval "echo \"\${$1_$2:-}\""; }

# The text without white space, on standard output.
squeeze() { tr -d ' \t\n\r'; }

# Has the terminal printed what is expected? Its program must end for all of it
# to be there; one that runs on may print more.
is_printed() { # is_printed TERMINAL
	end=
	gone "$(get pid "$1")" && end='$'
	pattern=$(squeeze <"$tmp/$1.want" | sed 's/[].[*^$\\/]/\\&/g; s/\\\.\\\.\\\./.*/g')
	squeeze <"$tmp/$1.out" | grep -q "^$pattern$end" && return
	# printed nothing, and nothing was to be printed
	[ -z "$pattern" ] && [ ! -s "$tmp/$1.out" ]
}

# Waits for that; who has ended will print no more.
prints() { # prints TERMINAL
	wait_for 60 settled "$1"
	is_printed "$1"
}

settled() { is_printed "$1" || gone "$(get pid "$1")"; }

# Types the last command once more: a person who speaks to a bot is not as quick as
# a script, which may come before the bot has logged in. And where the processor is
# busy, jumperbots need ten times as long.
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

# Text ends what is to be printed, for now: more may be typed into what runs there.
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
	fi
	typed_into=$current
	current=
}

# Goes on with the program that ran before the text, if it still does.
go_on() {
	[ -n "$current" ] || [ -z "$typed_into" ] || gone "$(get pid "$typed_into")" || current=$typed_into
}

# Waits for the end of what runs in that terminal.
finish() { # finish TERMINAL
	pid=$(get pid "$1")
	[ -n "$pid" ] || return 0
	wait_for 60 gone "$pid" || { echo "$(get command "$1") does not end" >"$tmp/log"; fail "$1"; kill -KILL "$pid"; }
	forget "$pid"
	eval "pid_$1="
}

# In what a shell runs in the background, INT is ignored, if it has no handler.
interrupt() { # interrupt TERMINAL
	[ -n "$(get pid "$1")" ] || return
	kill -INT "$(get pid "$1")" && kill -TERM "$(get pid "$1")" 2>/dev/null
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
	eval "exec $(get fd "$1")>&-" # or who reads could be gone before we open it again
	eval "command_$1=\$2"
	: >"$tmp/$1.want"
	: >"$tmp/$1.out" # or we could read there what was printed by the one before
	case $2 in
	*'|'*) script=$2 ;;
	*) script="exec env $2" ;; # so that the keys reach it, not a shell
	esac
	sh -c "$script" <"$tmp/$1.in" >"$tmp/$1.out" 2>&1 5>&- 6>&- 7>&- 8>&- &
	eval "pid_$1=$!"
	remember $!
	eval "exec $(get fd "$1")>\"$tmp/$1.in\""
	current=$1
	case $2 in
	'cc '* | make) finish "$1" ;; # others run it
	esac
}

can_run() { # can_run COMMAND
	if echo "$1" | grep -qE "^($elsewhere)"; then
		return 1
	fi
	case $1 in
	./*) return 0 ;;
	esac
	for word in ${1%% *} $(printf '%s\n' "$1" | sed -n 's/.*| *\([a-z0-9_]*\).*/\1/p'); do
		if ! command -v "$word" >/dev/null; then
			skip "$(echo "$1" | sed "s/$PORT/5222/")" "$word is not installed" "$(package "$word")"
			return 1
		fi
	done
}

package() { if [ "$1" = nc ]; then echo netcat-openbsd; else echo "$1"; fi; }

follow() {
	current= typed_into=
	while IFS= read -r line; do
		case $line in
		'    '*) line=${line#    } ;;
		'') continue ;;
		*)
			compare
			continue
			;;
		esac
		while [ "${line%\\}" != "$line" ] && IFS= read -r more; do
			line="${line%\\}${more#    }"
		done
		case $line in
		[a-z]*'$ '*)
			compare
			typed_into=
			terminal=${line%%\$*} typed=$(printf '%s\n' "${line#*\$ }" | sed "s/5222/$PORT/g")
			case $typed in
			^C) interrupt "$terminal" ;;
			*) ! can_run "$typed" || type_command "$terminal" "$typed" ;;
			esac
			;;
		'> '*) go_on; [ -z "$current" ] || printf '%s\n' "${line#> }" >&"$(get fd "$current")" ;;
		*) [ -z "$current" ] || printf '%s\n' "$line" | sed "s/5222/$PORT/g" >>"$tmp/$current.want" ;;
		esac
	done
	compare
}

cat README test/exercises/README >"$tmp/all"
check "the practice server finds a port" find_port && check "the tree is copied" copy_tree && follow <"$tmp/all"
for terminal in $terminals; do
	pid=$(get pid "$terminal")
	# Its number may soon be that of another process, which we would stop at the end.
	[ -z "$pid" ] || ! gone "$pid" || forget "$pid"
done
