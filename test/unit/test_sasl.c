/* test_sasl.c - tests the building blocks of the login with the test vectors in the
 * standards. The functions are static in xmpp.c, so this file includes all of it. */
#include "../../xmpp.c"

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

static void sha1_hex(const char *what, const char *data, size_t n, size_t times, const char *hex)
{
	uint8_t digest[20];
	struct buffer b = {0};

	buffer_append(&b, "", 0);
	while (times-- > 0)
		buffer_append(&b, data, n);
	if (b.failed)
		abort();
	sha1(b.bytes, b.end, digest);
	buffer_free(&b);
	check(what, same_hex(digest, hex));
}

/* FIPS 180 and RFC 3174 section 7.3, and the lengths at which padding needs another block. */
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
	sha1_hex("SHA-1 of 56 a", x, 56, 1, "c2db330f6083854c99d4b5bfb6e8f29f201be699");
	sha1_hex("SHA-1 of 63 a", x, 63, 1, "03f09f5b158a7a8cdad920bddc29b81c18a551f5");
	sha1_hex("SHA-1 of 64 a", x, 64, 1, "0098ba824b5c16427bd7a1122a5a442a25ec644d");
}

static void hmac_hex(const char *what, const char *key, size_t key_n, const char *data, size_t n, const char *hex)
{
	uint8_t digest[20];

	hmac(key, key_n, data, n, digest);
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

	memcpy(room, salt, strlen(salt));
	memcpy(room + strlen(salt), "\0\0\0\1", 4);
	pbkdf2(password, room, strlen(salt) + 4, rounds, result);
	check(what, same_hex(result, hex));
}

/* The cases of RFC 6070 that fit in one block. */
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

/* RFC 4648 section 10, and section 3.3, which refuses other characters. The PLAIN message is from
 * RFC 4616 section 4. */
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

/* Returns an element with this text, as a server would send it. */
static struct xml_elem *element(const char *name, const char *text)
{
	struct xmlstream *xs = xmlstream_new(0);
	struct xml_elem *e, *header;
	struct buffer b = {0};

	buffer_format(&b, "<a><%r>%s</%r>", name, text, name);
	if (b.failed || !xs || xmlstream_feed(xs, b.bytes, b.end) || xmlstream_next(xs, &header) != XML_OPEN
	    || xmlstream_next(xs, &e) != XML_STANZA)
		abort();
	xml_free(header);
	xmlstream_free(xs);
	buffer_free(&b);
	return e;
}

static char *base64_of(const char *text)
{
	struct buffer b = {0};

	append_base64(&b, text, strlen(text));
	return b.bytes;
}

/* True if this text has been queued, in base64, in an element of that name. */
static int has_said(const struct conn *c, const char *name, const char *text)
{
	char *base64 = base64_of(text);
	struct buffer b = {0};
	int same;

	buffer_format(&b, "<%r xmlns='" NS_SASL "'>%r</%r>", name, base64, name);
	same = b.end == c->out.end && !memcmp(b.bytes, c->out.bytes, b.end);
	buffer_free(&b);
	free(base64);
	return same;
}

/* Calls `take` with an element that has this text in base64. Returns its result. */
static int hears(struct conn *c, int (*take)(struct conn *, const struct xml_elem *), const char *text)
{
	char *base64 = base64_of(text);
	struct xml_elem *e = element("x", base64);
	int result = take(c, e);

	free(base64);
	xml_free(e);
	return result;
}

/* RFC 5802 section 5: the user is "user", and the password "pencil". */
static void test_scram(void)
{
	struct xmpp_options options = {.user = "user", .password = "pencil", .host = "localhost"};
	struct xmpp *x = xmpp_new(&options);
	struct conn *c = conn_of(x);

	c->state = WAIT_CHALLENGE;
	buffer_format(&c->sasl, "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
	check("SCRAM server-first-message", !hears(c, take_challenge,
	      "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"));
	check("SCRAM client-final-message", c->state == WAIT_SUCCESS && has_said(c, "response",
	      "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="));
	check("SCRAM server-final-message", !hears(c, take_success, "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="));
	check("a new stream", c->state == WAIT_HEADER_AGAIN);
	xmpp_free(x);
}

/* A server may ask for a million rounds, and no more. */
static void test_rounds(void)
{
	static const char *const challenges[] = {
		"r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=1000000",
		"r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=1000001"
	};
	struct xmpp_options options = {.user = "user", .password = "pencil", .host = "localhost"};
	struct xmpp *x;
	int i;

	for (i = 0; i < 2; i++) {
		x = xmpp_new(&options);
		conn_of(x)->state = WAIT_CHALLENGE;
		buffer_format(&conn_of(x)->sasl, "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
		check(challenges[i], (hears(conn_of(x), take_challenge, challenges[i]) == 0) == (i == 0));
		xmpp_free(x);
	}
}

/* In a user name, = and , are escaped. */
static void test_user_name(void)
{
	struct xmpp_options options = {.user = "a=b,c", .password = "pencil", .host = "localhost"};
	struct xmpp *x = xmpp_new(&options);
	const char *wanted = "n,,n=a=3Db=2Cc,r=";

	check("a user name with = and ,", !begin_scram(conn_of(x))
	      && !strncmp(conn_of(x)->sasl.bytes, wanted, strlen(wanted)));
	xmpp_free(x);
}

static void test_jids(void)
{
	check("same JID", xmpp_same_jid("Romeo@Example.net/Orchard", "romeo@example.net/Orchard"));
	check("resources differ by case", !xmpp_same_jid("romeo@example.net/Orchard", "romeo@example.net/orchard"));
	check("bare and full JID differ", !xmpp_same_jid("romeo@example.net", "romeo@example.net/orchard"));
	check("but not their account", xmpp_same_account("romeo@example.net", "romeo@example.net/orchard"));
	check("one a prefix of the other", !xmpp_same_account("romeo@example.net", "romeo@example.network"));
	check("NULL matches no JID", !xmpp_same_jid(NULL, NULL) && !xmpp_same_account("romeo@example.net", NULL));
}

static void control(const char *what, const char *s, size_t n)
{
	check(what, control_length(s) == n);
}

static void test_control(void)
{
	control("control characters of ASCII", "\x1B[31m", 1);
	control("delete", "\x7F", 1);
	control("a letter", "a", 0);
	control("the end of the string", "", 0);
	control("a control character of ISO 8859-1", "\xC2\x9B", 2);
	control("a no-break space", "\xC2\xA0", 0);
	control("half of a character", "\xC2", 0);
	control("an Arabic letter mark", "\xD8\x9C", 2);
	control("an Arabic letter", "\xD8\x9D", 0);
	control("a left-to-right mark", "\xE2\x80\x8E", 3);
	control("a line separator", "\xE2\x80\xA8", 3);
	control("a right-to-left override", "\xE2\x80\xAE", 3);
	control("a narrow no-break space", "\xE2\x80\xAF", 0);
	control("a right-to-left isolate", "\xE2\x81\xA7", 3);
	control("an invisible operator", "\xE2\x81\xA3", 0);
	control("two thirds of a character", "\xE2\x80", 0);
	control("a dash", "\xE2\x80\x94", 0);
}

static void prints(const char *s, const char *wanted)
{
	FILE *out = tmpfile();
	char seen[100];
	size_t n = 0;

	if (out) {
		xmpp_print(s, out);
		rewind(out);
		n = fread(seen, 1, sizeof seen, out);
		fclose(out);
	}
	check(wanted, out && n == strlen(wanted) && !memcmp(seen, wanted, n));
}

/* Any text is printed safely: in particular, nobody can fake a line from bob. */
static void test_print(void)
{
	prints("", "");
	prints("Grüße, 你好", "Grüße, 你好");
	prints("one\r\ntwo\tthree", "one  two three");
	prints("a@localhost/x\nbob@localhost", "a@localhost/x bob@localhost");
	prints("\x1B[2J\x7F", " [2J ");
	prints("\xC2\x9B" "2J\xC2\x85\xC2\xA0.\xC2\x80", " 2J \xC2\xA0. "); /* U+009B, U+0085, U+00A0, U+0080 */
}

/* Status codes of rooms are numbers, and only those in the right namespace count. */
static void test_status(void)
{
	struct xmlstream *xs = xmlstream_new(0);
	struct xml_elem *header, *e;
	static const char text[] = "<a><presence><x xmlns='" NS_MUC "#user'><item/><status/><status code='100'/><status code='110'/></x>"
		"<status xmlns='" NS_MUC "#user' code='201'/></presence>";

	if (!xs || xmlstream_feed(xs, text, strlen(text)) || xmlstream_next(xs, &header) != XML_OPEN
	    || xmlstream_next(xs, &e) != XML_STANZA)
		abort();
	check("status codes", xmpp_has_status(e, 100) && xmpp_has_status(e, 110) && !xmpp_has_status(e, 201)
	      && !xmpp_has_status(e, 0) && !xmpp_has_status(e, 11) && !xmpp_has_status(NULL, 110));
	xml_free(header);
	xml_free(e);
	xmlstream_free(xs);
}

int main(void)
{
	test_sha1();
	test_hmac();
	test_pbkdf2();
	test_base64();
	test_scram();
	test_rounds();
	test_user_name();
	test_jids();
	test_control();
	test_print();
	test_status();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
