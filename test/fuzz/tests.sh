# tests.sh - the group fuzz; sourced by run_tests.sh.

takes_fuzz() { echo 10; }

# Runs a fuzz target on its seeds, without a fuzzer.
play_corpus() { # play_corpus TARGET
	mkdir -p "$tmp/seeds/$1" && test/fuzz/seeds.sh "$1" "$tmp/seeds/$1"
	check "test/fuzz/fuzz_$1.c compiles" compiles sanitized "test/fuzz/fuzz_$1.c" test/fuzz/fuzz_main.c $sanitize &&
		check_program "test/fuzz/fuzz_$1.c" "$tmp/sanitized/fuzz_$1" "$tmp/seeds/$1"/*
}

group_fuzz() {
	if ! command -v awk >/dev/null; then
		skip "the seeds of the fuzzers" "awk is not installed" mawk
		return
	fi
	play_corpus xml
	play_corpus conn
	if echo '#include <expat.h>' | $CC -E - >/dev/null 2>&1; then
		LDLIBS=-lexpat
		play_corpus expat
	else
		skip "test/fuzz/fuzz_expat.c" "expat is not installed" libexpat1-dev
	fi
}
