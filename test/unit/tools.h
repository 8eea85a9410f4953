/* tools.h - functions that return new strings, for tests that include xmpp.c. They return NULL if
 * memory has run out. */

/* Formats a string like printf(). */
static char *print(const char *format, ...)
{
	va_list ap;
	char *s;
	int n;

	va_start(ap, format);
	n = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	s = n < 0 ? NULL : malloc((size_t)n + 1);
	if (!s)
		return NULL;
	va_start(ap, format);
	vsnprintf(s, (size_t)n + 1, format, ap);
	va_end(ap);
	return s;
}

/* Returns n bytes in base64. */
static char *base64_encode(const void *data, size_t n)
{
	struct buffer b = {0};

	return append_base64(&b, data, n) || buffer_append(&b, "", 1) ? NULL : b.bytes;
}

/* Decodes the `len` base64 digits at s into *n bytes. The bytes 0, 0, 0, 1 follow: the end of a
 * string, and the block number that PBKDF2 needs after a salt. */
static char *base64_decode(const char *s, size_t len, size_t *n)
{
	struct buffer b = {0};

	if (decode_base64(&b, s, len)) {
		buffer_free(&b);
		return NULL;
	}
	*n = b.end;
	return buffer_append(&b, "\0\0\0\1", 4) ? NULL : b.bytes;
}

/* Returns the value of an attribute in a SCRAM message like r=...,s=...,i=..., or NULL. It is *n
 * bytes long, up to the next comma, and may contain a = itself. */
static const char *scram_attr(const char *message, char name, size_t *n)
{
	while (message && (message[0] != name || message[1] != '=')) {
		message = strchr(message, ',');
		if (message)
			message++;
	}
	*n = message ? strcspn(message + 2, ",") : 0;
	return message ? message + 2 : NULL;
}
