/* fuzz_main.c - runs a target without a fuzzer, on the files given as arguments, one
 * after the other. If the target finds a fault, it aborts the program. The last line
 * counts the files. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int main(int argc, char **argv)
{
	static uint8_t bytes[1 << 20];
	size_t n;
	FILE *in;
	int i;

	for (i = 1; i < argc; i++) {
		in = fopen(argv[i], "rb");
		if (!in) {
			perror(argv[i]);
			return 2;
		}
		n = fread(bytes, 1, sizeof bytes, in);
		fclose(in);
		fprintf(stderr, "%s\n", argv[i]); /* the last name printed is the file at fault */
		LLVMFuzzerTestOneInput(bytes, n);
	}
	fprintf(stderr, "%d passed, 0 failed\n", argc - 1);
	return 0;
}
