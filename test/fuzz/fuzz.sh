#!/bin/sh
# fuzz.sh TARGET DIR SECONDS [afl] - fuzzes a target. The first inputs are the server's
# lines in the transcripts, and the files in test/fuzz/corpus. Needs clang with
# libFuzzer or, with the fourth argument, AFL++. The targets and what they check:
#
#     xml     the tokenizer gives the same result however its input is split
#     expat   the same, and expat agrees; needs libexpat's headers
#     conn    the output of a connection is XML, whatever the connection receives
#
# The corpus grows in DIR, and the next run continues with it. Findings are in DIR, too:
# copy one to test/fuzz/corpus/TARGET, see run_tests.sh fuzz fail, and fix the bug.
# Both fuzzers show their progress while they run. At the end, they print the number of
# executions and the coverage.
cd "$(dirname "$0")/../.." || exit 1
[ $# -ge 3 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
target=$1 dir=$2 seconds=$3 fuzzer=${4:-libfuzzer}
libs=
[ "$target" != expat ] || libs=-lexpat

mkdir -p "$dir/seeds" "$dir/corpus" && test/fuzz/seeds.sh "$target" "$dir/seeds" || exit 1
case $fuzzer in
libfuzzer) compiler=clang ;;
afl) compiler=afl-clang-fast ;;
*) echo "fuzz.sh: no fuzzer '$fuzzer'" >&2; exit 2 ;;
esac
AFL_QUIET=1 $compiler -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -I. \
	-o "$dir/$target-$fuzzer" "test/fuzz/fuzz_$target.c" xmlstream.c $libs || exit 1
case $fuzzer in
libfuzzer)
	exec "$dir/$target-$fuzzer" -max_total_time="$seconds" -max_len=8192 -timeout=20 -print_final_stats=1 \
		-artifact_prefix="$dir/finding-" "$dir/corpus" "$dir/seeds" ;;
afl)
	AFL_SKIP_CPUFREQ=1 AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_NO_UI=1 AFL_AUTORESUME=1 \
		afl-fuzz -V "$seconds" -t 20000 -i "$dir/seeds" -o "$dir/afl" -- "$dir/$target-$fuzzer" || exit 1
	grep -e execs_done -e edges_found -e total_edges -e saved_crashes -e saved_hangs "$dir/afl/default/fuzzer_stats"
	grep -q 'saved_crashes *: 0' "$dir/afl/default/fuzzer_stats" ;;
esac
