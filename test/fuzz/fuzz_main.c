/* fuzz_main.c - where there is no fuzzer: gives the files that it is called with
 * to a target, one after the other. The target ends the program if it is not
 * content; the last line tells how many it was content with. */
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
		fprintf(stderr, "%s\n", argv[i]); /* the last one is to blame */
		LLVMFuzzerTestOneInput(bytes, n);
	}
	fprintf(stderr, "%d passed, 0 failed\n", argc - 1);
	return 0;
}
