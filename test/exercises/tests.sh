# tests.sh - the group readme; sourced by run_tests.sh.

takes_readme() { echo 15; }

# Each line of a conversation in the README, outside of what is typed there, is a
# line of some transcript.
quotes_transcripts() {
	sed -n '/^(test.transcripts.echo\.txt/,/^All/s/^    //p' README >"$tmp/quoted"
	[ -s "$tmp/quoted" ] && ! cat test/transcripts/*.txt test/transcripts/*.part | grep -vxF -f - "$tmp/quoted"
}

# Is the command true of each line that this reads, and are there so many?
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

# Each up to its first %, or as much of it as fits on a line.
messages_are_explained() {
	sed -n 's/.*\(lose\|give_up\|refused\)(c,[^"(]*"\([^"%]*\).*/\2/p' xmpp.c | cut -c 1-60 | sed 's/ *$//' | sort -u | every_line 20 is_explained
}

group_readme() {
	check "README quotes the transcripts" quotes_transcripts
	check "the functions in it exist" functions_exist
	check "and the files" files_exist
	check "it lists the states" states_are_listed
	check "it explains the messages" messages_are_explained
	check "it has no line beyond 78 columns" [ "$(grep -c '^.\{79\}' README)" = 0 ]
	for file in test/exercises/*.c; do
		check "$file compiles without a warning" compiles pedantic "$file" -std=c99 -Wall -Wextra -pedantic
	done
	check "dicebot in the README is the one in test/exercises" dicebot_is_quoted
	. test/exercises/readme.sh
}

# With four spaces for a tab.
dicebot_is_quoted() {
	sed 's/\t/    /g; s/^\(.\)/    \1/' test/exercises/dicebot.c >"$tmp/quoted"
	lines=$(grep -c '' "$tmp/quoted")
	sed -n '/^    #include "xmpp.h"$/,$p' README | head -n "$lines" | cmp - "$tmp/quoted"
}
