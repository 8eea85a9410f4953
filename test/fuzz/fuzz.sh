#!/bin/sh
# fuzz.sh TARGET DIR SECONDS [afl] - fuzzes, beginning with what the servers in the
# transcripts say and what test/fuzz/corpus holds. Needs clang with libFuzzer, or AFL++.
#
#     xml     the tokenizer: the bytes cut into pieces make no difference
#     expat   the same, and expat says the same; needs libexpat's headers
#     conn    a whole connection: what it says is always XML, whatever it hears
#
# The corpus grows in DIR, where a second run goes on; a finding is there, too:
# copy it to test/fuzz/corpus/TARGET, see run_tests.sh unit fail, and mend it. Both
# fuzzers show how far they are while they run, and at the end executions and
# coverage.
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
