#!/bin/sh
# seeds.sh TARGET DIR - what the server says in each transcript, as a file in DIR,
# for a target of fuzz.sh, and what is in test/fuzz/corpus/TARGET.
cd "$(dirname "$0")" || exit 1
target=$1 dir=$2

# The S: lines, also those of included files, with a NUL between them, as
# fuzz_conn.c wants them.
heard() {
	awk -v file="$1" '
		function load(file, line) {
			while ((getline line <file) > 0) {
				if (line ~ /^include /)
					load("../transcripts/" substr(line, 9))
				if (line ~ /^[^ ]/)
					server = line ~ /^S: /
				if (server) {
					end = line ~ /^S: / ? "\001" : text ~ />$/ || line ~ /^ *</ ? "" : " "
					sub(/^(S:)? */, "", line)
					text = text end line
				}
			}
			close(file)
		}
		BEGIN { load(file); printf "%s", substr(text, 2) }' | tr '\001' '\000'
}

# A stream of its own begins with the last header.
last_stream() { tr -d '\000' | sed 's/.*<?xml/<?xml/'; }

for file in ../transcripts/*.txt; do
	seed=$dir/$(basename "$file" .txt)
	case $target:$seed in
	conn:*/account-*) { printf R; heard "$file"; } >"$seed" ;;
	conn:*) heard "$file" >"$seed" ;;
	*) heard "$file" | last_stream >"$seed" ;;
	esac
done
for file in corpus/"$target"/*; do
	[ ! -e "$file" ] || cp "$file" "$dir" || exit 1
done
