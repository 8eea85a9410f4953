/* sasl.c - makes functions of xmpp.c available to test/practice/server.c.
 *
 * In a login, the server computes the same values as the client, but the functions of the client
 * are static. So this file includes xmpp.c, as the unit tests do. The server itself only sees
 * xmpp.h and sasl.h, and remains a program of its own. A program that is linked with sasl.c must
 * not be linked with xmpp.c as well. */
#include "../../xmpp.c"
#include "sasl.h"

int base64_append(struct buffer *b, const void *bytes, size_t n)
{
	return append_base64(b, bytes, n);
}

int base64_decode(struct buffer *b, const char *text)
{
	return buffer_append(b, "", 0) || decode_base64(b, text, strlen(text)) ? -1 : 0;
}

/* pbkdf2() expects the number of the block after the salt. */
void scram_sign(const char *password, const uint8_t salt[16], int rounds, const char *messages,
                uint8_t proof[20], uint8_t signature[20])
{
	uint8_t numbered[20] = {[19] = 1}, salted[20];

	memcpy(numbered, salt, 16);
	pbkdf2(password, numbered, sizeof numbered, rounds, salted);
	scram_prove(salted, messages, strlen(messages), proof, signature);
}
