/* sasl.h - the functions that the login of the practice server needs besides XML. */
#ifndef SASL_H
#define SASL_H

#include "../../xmpp.h"

/* Appends n bytes in base64. Returns 0, or -1 if memory has run out. */
int base64_append(struct buffer *b, const void *bytes, size_t n);

/* Appends the bytes that the base64 string `text` stands for. Returns 0, or -1 if it is not base64
 * or memory has run out. */
int base64_decode(struct buffer *b, const char *text);

/* Computes the proof of a client that knows the password, and the signature of a server that does.
 * Both are for `messages`, the SCRAM messages so far; RFC 5802 section 3. */
void scram_sign(const char *password, const uint8_t salt[16], int rounds, const char *messages,
                uint8_t proof[20], uint8_t signature[20]);

#endif
