# tests.sh - the group transcripts; sourced by run_tests.sh.

takes_transcripts() { echo 15; }

# Some of them are for jumperbot, which the player finds in the PATH.
transcripts_play() { # transcripts_play FLAGS...
	compiles "$how" jumperbot.c "$@" && PATH=$tmp/$how:$PATH "$tmp/$how/play" test/transcripts/*.txt
}

group_transcripts() {
	how=sanitized
	check "test/transcripts/play.c compiles" compiles $how test/transcripts/play.c $sanitize &&
		check_program "test/transcripts/play.c" transcripts_play $sanitize
}
