# tests.sh - the group transcripts; sourced by run_tests.sh.

takes_transcripts() { echo 15; }

# Plays all transcripts. For some, the player needs jumperbot, which it finds in the PATH.
transcripts_play() { # transcripts_play FLAGS...
	compiles "$how" jumperbot.c "$@" &&
		PATH=$tmp/$how:$PATH "$tmp/$how/play" test/transcripts/*.txt test/transcripts/*.disaster
}

# True if each .disaster file says what is expected at each stage of the login. The stages are the
# .part files with a line that begins with "awaits".
stages_meet_disasters() {
	stages=$(grep -l '^awaits ' test/transcripts/*.part | sed 's/.*\/\(.*\)\.part/\1/')
	[ "$(echo "$stages" | wc -l)" -ge 11 ] || { echo "only $stages"; return 1; }
	for disaster in test/transcripts/*.disaster; do
		listed=$(sed -n 's/^at / /p' "$disaster" | tr '\n' ' ')
		for stage in $stages; do
			case $listed in
			*" $stage "*) ;;
			*) echo "no $stage in $disaster"; return 1 ;;
			esac
		done
	done
}

group_transcripts() {
	check "each stage meets each disaster" stages_meet_disasters
	how=sanitized
	[ -z "$sanitize" ] || sanitize="$sanitize -O1" # which makes the tests twice as fast
	check "test/transcripts/play.c compiles" compiles $how test/transcripts/play.c $sanitize &&
		check_program "test/transcripts/play.c" transcripts_play $sanitize
}
