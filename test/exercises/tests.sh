# tests.sh - the group readme; sourced by run_tests.sh.

takes_readme() { echo 15; }

# True if the command succeeds for each line of the input, and there are at least AT_LEAST lines.
every_line() { # every_line AT_LEAST COMMAND...
	missing=$1
	shift
	while IFS= read -r line; do
		if "$@" "$line"; then missing=$((missing - 1)); else echo "no $line"; missing=1000; fi
	done
	[ $missing -le 0 ]
}

is_function() { grep -q "\<${1%)}" ./*.[ch] test/*/*.[ch]; }
is_file() { ls $1 test/$1 test/*/$1 2>/dev/null | grep -q .; }
is_in_table() { grep -q "^    $1  " README; }
is_explained() { grep -qF "    $1" README; }

functions_exist() { sed 's/XML_[A-Z]*//g' README | grep -o '[a-z_0-9]*()' | sort -u | every_line 10 is_function; }

files_exist() {
	sed 's/<[a-z]*\.h>//g' README | grep -o '[a-z_*/-]*\.\(c\|h\|sh\|txt\)\>' | sort -u | every_line 10 is_file
}

states_are_listed() {
	sed -n '/^enum state {/,/^}/p' xmpp.c | grep -o '[A-Z_]\{5,\}' | every_line 14 is_in_table
}

# Looks for each message up to its first %, or for the first 60 characters, which fit on a line.
messages_are_explained() {
	sed -n 's/.*\(lose\|give_up\|refused\)(c,[^"(]*"\([^"%]*\).*/\2/p' xmpp.c | cut -c 1-60 | sed 's/ *$//' | sort -u | every_line 20 is_explained
}

# Each row has a constant of xmpp.c or xmlstream.c, its value, and words from the README.
limits_agree() {
	tr '\n' ' ' <README >"$tmp/words"
	wrong=0
	while IFS="|" read -r constant value words; do
		grep -qE "^	$constant = $value(,| )" xmpp.c xmlstream.c &&
			grep -qF "$words" "$tmp/words" && continue
		echo "$constant = $value, '$words'"
		wrong=1
	done <<-'END'
	LOGIN_TIMEOUT|30000|not finished 30 s after the TCP connection
	PING_AFTER|60000|after a minute of silence
	PING_TIMEOUT|30000|after 30 s more
	REQUEST_TIMEOUT|30000|NULL after 30 s without an answer
	CLOSE_TIMEOUT|1000|has a second to close its stream
	FIRST_RETRY|1000|at most one second at first
	LAST_RETRY|60000|and so on up to a minute
	REFUSED_RETRY|300000|grow to as much as five minutes
	MAX_OUTPUT|4 << 20|when 4 MiB are queued
	MIN_ROUNDS|4096|4,096 to a million rounds
	MAX_ROUNDS|1000000|4,096 to a million rounds
	MAX_STANZA|256 \* 1024|at most 256 KiB long
	MAX_DEPTH|128|nested 128 levels deep
	MAX_ATTRS|100|may have 100 attributes
	MAX_BINDINGS|128|128 namespace declarations
	END
	[ $wrong -eq 0 ]
}

group_readme() {
	check "the functions in it exist" functions_exist
	check "and the files" files_exist
	check "it lists the states" states_are_listed
	check "it explains the messages" messages_are_explained
	check "its times and limits are those of the code" limits_agree
	check "it has at most 900 lines" [ "$(grep -c '' README)" -le 900 ]
	check "it has no line beyond 78 columns" [ "$(grep -c '^.\{79\}' README)" = 0 ]
	for file in test/exercises/*.c; do
		check "$file compiles without a warning" compiles pedantic "$file" -std=c99 -Wall -Wextra -pedantic
	done
	. test/exercises/readme.sh
}
