/* test_sasl.c - the building blocks of the login, against the vectors that the
 * standards print. They are static in xmpp.c, so it is included whole. */
#include "../xmpp.c"

static int passed, failed;

static void check(const char *what, int ok)
{
	ok ? passed++ : failed++;
	if (!ok)
		printf("FAIL - %s\n", what);
}

static int same_hex(const uint8_t *digest, const char *hex)
{
	char got[41];
	int i;

	for (i = 0; i < 20; i++)
		snprintf(got + 2 * i, 3, "%02x", digest[i]);
	return !strcmp(got, hex);
}

static void sha1_hex(const char *what, const char *data, size_t n, int times, const char *hex)
{
	struct sha1 s;
	uint8_t digest[20];

	sha1_init(&s);
	while (times-- > 0)
		sha1_update(&s, data, n);
	sha1_final(&s, digest);
	check(what, same_hex(digest, hex));
}

/* FIPS 180 and RFC 3174 section 7.3, and the lengths at which padding turns. */
static void test_sha1(void)
{
	char x[130];

	memset(x, 'a', sizeof x);
	sha1_hex("SHA-1 of abc", "abc", 3, 1, "a9993e364706816aba3e25717850c26c9cd0d89d");
	sha1_hex("SHA-1 of nothing", "", 0, 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	sha1_hex("SHA-1 of two blocks", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 1,
	         "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
	sha1_hex("SHA-1 of a million a", "aaaaaaaaaa", 10, 100000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
	sha1_hex("SHA-1 of ten times 64 digits", "0123456701234567012345670123456701234567012345670123456701234567", 64, 10,
	         "dea356a2cddd90c7a7ecedc5ebb563934f460452");
	sha1_hex("SHA-1 of 55 a", x, 55, 1, "c1c8bbdc22796e28c0e15163d20899b65621d65a");
	sha1_hex("SHA-1 of 64 a", x, 64, 1, "0098ba824b5c16427bd7a1122a5a442a25ec644d");
}

static void hmac_hex(const char *what, const char *key, size_t key_n, const char *data, size_t n, const char *hex)
{
	uint8_t digest[20];

	hmac_once(key, key_n, data, n, digest);
	check(what, same_hex(digest, hex));
}

/* RFC 2202 section 3. */
static void test_hmac(void)
{
	char b[20], aa[80], dd[50], cd[50], c[20];
	char counting[25];
	int i;

	memset(b, 0x0b, sizeof b);
	memset(aa, 0xaa, sizeof aa);
	memset(dd, 0xdd, sizeof dd);
	memset(cd, 0xcd, sizeof cd);
	memset(c, 0x0c, sizeof c);
	for (i = 0; i < 25; i++)
		counting[i] = (char)(i + 1);
	hmac_hex("HMAC case 1", b, 20, "Hi There", 8, "b617318655057264e28bc0b6fb378c8ef146be00");
	hmac_hex("HMAC case 2", "Jefe", 4, "what do ya want for nothing?", 28, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
	hmac_hex("HMAC case 3", aa, 20, dd, 50, "125d7342b9ac11cd91a39af48aa17b4f63f175d3");
	hmac_hex("HMAC case 4", counting, 25, cd, 50, "4c9007f4026250c6bc8414f9bf50c86c2d7235da");
	hmac_hex("HMAC case 5", c, 20, "Test With Truncation", 20, "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04");
	hmac_hex("HMAC case 6", aa, 80, "Test Using Larger Than Block-Size Key - Hash Key First", 54,
	         "aa4ae5e15272d00e95705637ce8a3b55ed402112");
	hmac_hex("HMAC case 7", aa, 80, "Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data", 73,
	         "e8e99d0f45237d786d6bbaa7965c7808bbff1a91");
}

static void pbkdf2_hex(const char *what, const char *password, const char *salt, long rounds, const char *hex)
{
	uint8_t room[64], result[20];
	struct pbkdf2 p;

	memcpy(room, salt, strlen(salt));
	memcpy(room + strlen(salt), "\0\0\0\1", 4);
	pbkdf2_init(&p, password, room, strlen(salt) + 4, rounds);
	pbkdf2_run(&p, rounds);
	to_bytes(p.result, result);
	check(what, same_hex(result, hex));
}

/* RFC 6070, those of its cases that fit one block. */
static void test_pbkdf2(void)
{
	pbkdf2_hex("PBKDF2, 1 round", "password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6");
	pbkdf2_hex("PBKDF2, 2 rounds", "password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957");
	pbkdf2_hex("PBKDF2, 4096 rounds", "password", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1");
}

static int is(const struct buffer *b, const void *bytes, size_t n)
{
	return b->end == n && (n == 0 || !memcmp(b->bytes, bytes, n));
}

static void base64_both(const char *plain, size_t n, const char *encoded)
{
	struct buffer e = {0}, d = {0};

	check(encoded, !append_base64(&e, plain, n) && is(&e, encoded, strlen(encoded)));
	check(encoded, !decode_base64(&d, encoded, strlen(encoded)) && is(&d, plain, n));
	buffer_free(&e);
	buffer_free(&d);
}

static void not_base64(const char *s)
{
	struct buffer b = {0};

	check(s, decode_base64(&b, s, strlen(s)));
	buffer_free(&b);
}

/* RFC 4648 section 10; and that section 3.3 refuses other characters. RFC 4616
 * section 4 has a PLAIN message. */
static void test_base64(void)
{
	base64_both("", 0, "");
	base64_both("f", 1, "Zg==");
	base64_both("fo", 2, "Zm8=");
	base64_both("foo", 3, "Zm9v");
	base64_both("foob", 4, "Zm9vYg==");
	base64_both("fooba", 5, "Zm9vYmE=");
	base64_both("foobar", 6, "Zm9vYmFy");
	base64_both("\xFB\xFF\xBF\0", 4, "+/+/AA==");
	base64_both("\0tim\0tanstaaftanstaaf", 21, "AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
	not_base64("Zg");
	not_base64("Zg=");
	not_base64("Z===");
	not_base64("====");
	not_base64("Zm=v");
	not_base64("Zm9v\n");
	not_base64("Zm9-");
	not_base64("Zg==Zg==");
}

/* RFC 5802 section 5: user "user", password "pencil". */
static void test_scram(void)
{
	static const char final[] = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j";
	struct buffer proof64 = {0}, signature = {0};
	struct scram s = {.final = 0};
	uint8_t proof[20];

	buffer_format(&s.messages, "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
	check("SCRAM server-first-message", !read_challenge(&s, "pencil",
		"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"));
	check("SCRAM client-final-message", s.messages.end - s.final == strlen(final)
	                                    && !memcmp(s.messages.bytes + s.final, final, strlen(final)));
	check("a portion of the rounds", pbkdf2_run(&s.hash, 1000) == 0 && s.hash.rounds == 3095);
	check("no more rounds than needed", pbkdf2_run(&s.hash, 3100) == 5);
	scram_prove(s.hash.result, s.messages.bytes + 3, s.messages.end - 3, proof, s.signature);
	append_base64(&proof64, proof, sizeof proof);
	append_base64(&signature, s.signature, sizeof s.signature);
	check("SCRAM proof", is(&proof64, "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=", 28));
	check("SCRAM server signature", is(&signature, "rmF9pqV8S7suAoZWja4dJRkFsKQ=", 28));
	buffer_free(&proof64);
	buffer_free(&signature);
	buffer_free(&s.messages);
}

static void test_jids(void)
{
	check("same JID", xmpp_same_jid("Romeo@Example.net/Orchard", "romeo@example.net/Orchard"));
	check("resources differ by case", !xmpp_same_jid("romeo@example.net/Orchard", "romeo@example.net/orchard"));
	check("bare and full JID differ", !xmpp_same_jid("romeo@example.net", "romeo@example.net/orchard"));
	check("but not their account", xmpp_same_account("romeo@example.net", "romeo@example.net/orchard"));
	check("one a prefix of the other", !xmpp_same_account("romeo@example.net", "romeo@example.network"));
	check("nobody is nobody", !xmpp_same_jid(NULL, NULL) && !xmpp_same_account("romeo@example.net", NULL));
}

int main(void)
{
	test_sha1();
	test_hmac();
	test_pbkdf2();
	test_base64();
	test_scram();
	test_jids();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
