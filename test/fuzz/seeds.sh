#!/bin/sh
# seeds.sh TARGET DIR - makes the seeds for a target of fuzz.sh. Writes the server's
# part of each transcript into a file in DIR, and copies test/fuzz/corpus/TARGET there.
cd "$(dirname "$0")" || exit 1
target=$1 dir=$2

# Prints the S: lines of the files and of the files that they include. Separates them with
# NULs, as fuzz_conn.c expects. Of a .disaster file, prints only the lines for PART.
heard() { # heard PART FILE...
	awk -v part="$1" '
		function load(file, line, elsewhere) {
			while ((getline line <file) > 0) {
				if (line ~ /^at /)
					elsewhere = index(line " ", " " part " ") == 0
				if (line ~ /^include /)
					load("../transcripts/" substr(line, 9))
				if (line ~ /^[^ ]/)
					server = line ~ /^S: / && !elsewhere
				if (server) {
					end = line ~ /^S: / ? "\001" : text ~ />$/ || line ~ /^ *</ ? "" : " "
					sub(/^(S:)? */, "", line)
					text = text end line
				}
			}
			close(file)
		}
		BEGIN { for (i = 1; i < ARGC; i++) load(ARGV[i]); printf "%s", substr(text, 2) }' "$2" ${3:+"$3"} |
		tr '\001' '\000'
}

# Prints the last stream, which begins with the last header.
last_stream() { tr -d '\000' | sed 's/.*<?xml/<?xml/'; }

# Writes a seed. For the target conn, an R at the beginning means that the client
# creates its account.
write_seed() { # write_seed NAME PART FILE...
	seed=$dir/$1
	shift
	case $target:$seed in
	conn:*/account[-+]*) { printf R; heard "$@"; } >"$seed" ;;
	conn:*) heard "$@" >"$seed" ;;
	*) heard "$@" | last_stream >"$seed" ;;
	esac
}

for file in ../transcripts/*.txt; do
	write_seed "$(basename "$file" .txt)" '' "$file"
done
for file in ../transcripts/*.disaster; do
	for part in $(sed -n 's/^at //p' "$file"); do
		write_seed "$part+$(basename "$file" .disaster)" "$part" "../transcripts/$part.part" "$file"
	done
done
for file in corpus/"$target"/*; do
	[ ! -e "$file" ] || cp "$file" "$dir" || exit 1
done
