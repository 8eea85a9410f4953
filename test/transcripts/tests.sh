# tests.sh - the group transcripts; sourced by run_tests.sh.

takes_transcripts() { echo 15; }

# Some of them are for jumperbot, which the player finds in the PATH.
transcripts_play() { # transcripts_play FLAGS...
	compiles "$how" jumperbot.c "$@" &&
		PATH=$tmp/$how:$PATH "$tmp/$how/play" test/transcripts/*.txt test/transcripts/*.disaster
}

# A part is a stage of the login if it says what the client awaits. Does each
# disaster say what is expected there?
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
