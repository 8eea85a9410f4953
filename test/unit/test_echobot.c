/* test_echobot.c - tests that echobot prints any text safely. */
#define main echobot_main
#include "../../echobot.c"
#undef main

/* Stores the output of print_text(s) in a buffer of `size` bytes. Returns 0, or -1 on failure. */
static int prints(const char *s, char *to, size_t size)
{
	FILE *file = tmpfile();
	int terminal = dup(STDOUT_FILENO), failed = !file || terminal < 0;
	size_t n;

	fflush(stdout);
	if (failed || dup2(fileno(file), STDOUT_FILENO) < 0)
		return -1;
	print_text(s);
	fflush(stdout);
	failed = dup2(terminal, STDOUT_FILENO) < 0;
	close(terminal);
	rewind(file);
	n = fread(to, 1, size - 1, file);
	to[n] = '\0';
	fclose(file);
	return failed ? -1 : 0;
}

int main(void)
{
	static const char *const cases[][2] = {
		{"", ""},
		{"Grüße, 你好", "Grüße, 你好"},
		{"one\r\ntwo\tthree", "one  two three"},
		{"a@localhost/x\nbob@localhost", "a@localhost/x bob@localhost"}, /* not a line from bob */
		{"\x1B[2J\x7F", " [2J "},
		{"\xC2\x9B" "2J\xC2\x85\xC2\xA0.\xC2\x80", " 2J \xC2\xA0. "} /* U+009B, U+0085, U+00A0, U+0080 */
	};
	size_t i, count = sizeof cases / sizeof *cases, failed = 0;
	char seen[100];

	for (i = 0; i < count; i++)
		if (prints(cases[i][0], seen, sizeof seen) || strcmp(seen, cases[i][1])) {
			failed++;
			printf("FAIL - case %d is printed as %s\n", (int)i, seen);
		}
	printf("%d passed, %d failed\n", (int)(count - failed), (int)failed);
	return failed > 0;
}
