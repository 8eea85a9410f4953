/* bench_sasl.c - measures the hashing of a SCRAM login: our PBKDF2 and, if compiled with
 * -DOPENSSL -lcrypto, that of OpenSSL, in turns. Prints the medians, in ms of CPU time. */
#include "../../xmpp.c"

#ifdef OPENSSL
#include <openssl/evp.h>
#endif

enum { ROUNDS = 9, TIMES = 5 };

static void ours(long iterations, uint8_t key[20])
{
	pbkdf2("pencil", "0123456789abcdef\0\0\0\1", 20, iterations, key);
}

#ifdef OPENSSL
static void theirs(long iterations, uint8_t key[20])
{
	const unsigned char *salt = (const unsigned char *)"0123456789abcdef";

	if (PKCS5_PBKDF2_HMAC("pencil", 6, salt, 16, (int)iterations, EVP_sha1(), 20, key) != 1)
		exit(1);
}
#endif

static double time_of(void (*hash)(long, uint8_t[20]), long iterations, uint8_t key[20])
{
	clock_t start = clock();
	int i;

	for (i = 0; i < TIMES; i++)
		hash(iterations, key);
	return (double)(clock() - start) * 1000 / CLOCKS_PER_SEC / TIMES;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(long iterations)
{
	double a[ROUNDS], b[ROUNDS];
	uint8_t key[20], other[20];
	int i;

	for (i = 0; i < ROUNDS; i++) {
		a[i] = b[i] = time_of(ours, iterations, key);
		memcpy(other, key, sizeof other);
#ifdef OPENSSL
		b[i] = time_of(theirs, iterations, other);
#endif
		if (memcmp(key, other, sizeof key))
			exit(1);
	}
	qsort(a, ROUNDS, sizeof *a, compare);
	qsort(b, ROUNDS, sizeof *b, compare);
	printf("%-10ld %8.2f", iterations, a[ROUNDS / 2]);
#ifdef OPENSSL
	printf(" %8.2f %7.2fx", b[ROUNDS / 2], a[ROUNDS / 2] / b[ROUNDS / 2]);
#endif
	putchar('\n');
}

int main(void)
{
#ifdef OPENSSL
	puts("iterations     ours  OpenSSL ours needs");
#else
	puts("iterations     ours");
#endif
	measure(4096);
	measure(10000);
	return 0;
}
