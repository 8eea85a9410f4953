/* xmlstream.c - turns bytes into stanzas, and strings into XML.
 *
 * The problem. An XMPP stream is one XML document that stays open as long as the
 * connection does. A client wants the stanzas, which are the children of the
 * document's root element. But read() may split the input anywhere: inside a
 * stanza, a tag, or even a character.
 *
 * The solution is a hand-written incremental XML tokenizer that works in two phases:
 *
 *   The scanner looks at each byte once, as it arrives. It knows just enough XML to
 *   find the end of a stanza: where tags, quoted values and CDATA sections end, and
 *   how many elements are open. The leftover buffer holds the bytes of a stanza that
 *   is not complete.
 *
 *   The parser runs when the whole stanza has arrived, and reads it from beginning to
 *   end. It copies the bytes into a new block of memory and builds the tree there.
 *   Names and values are decoded in place. The structs for elements and attributes
 *   precede the copied bytes in the block.
 *
 * For example, suppose that a message arrives in three reads:
 *
 *   the bytes read                 the leftover buffer      xmlstream_next() returns
 *   <message><bo                   <message><bo             XML_MORE
 *   dy>Hi &am                      <message><body>Hi &am    XML_MORE
 *   p; bye</body></message><pre    <pre                     XML_STANZA, then XML_MORE
 *
 * After the first read the scanner remembers that it has seen 12 bytes, that it is in
 * a tag, and that two elements are open: the stream and the message. It resumes there
 * after the next read. Therefore the cost is linear in the size of the input, however
 * the input is split. No function is recursive, so no input can overflow the stack.
 *
 * Only the XML that RFC 6120 section 11 allows is accepted: no comments, no processing
 * instructions, no document types, and no entities except the five predefined ones.
 * Input that is not well-formed is an error and ends the stream. A stanza that exceeds
 * a limit or misuses namespaces is only skipped, because a server may forward it from
 * another user, who must not be able to end our connection. */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	MAX_STANZA = 256 * 1024, /* bytes, unless the caller sets another limit */
	LARGEST = 64 << 20,      /* bytes; the highest limit that a caller can set */
	MAX_DEPTH = 128,         /* levels of elements in a stanza, which is itself level 1 */
	MAX_ATTRS = 100,         /* in one tag, including namespace declarations */
	MAX_BINDINGS = 128,      /* namespace declarations in scope at one time */
	IDLE_SIZE = 1024,        /* an empty buffer larger than this is freed */
	PADDING = 16             /* NULs after the copy; more than the parser looks ahead */
};

#define XML_NS    "http://www.w3.org/XML/1998/namespace"
#define XMLNS_NS  "http://www.w3.org/2000/xmlns/"

/* A stream error condition (RFC 6120 section 4.9.3), and two messages for the user. */
#define MALFORMED  "not-well-formed"
#define RESTRICTED "comment, DTD or processing instruction"
#define STRAY_TEXT "text outside of a stanza"

#define ESCAPED "<>&\t\n\r" /* the characters escaped in text; in values, quotes as well */

/* Where the scanner is. */
enum place {
	TEXT,                   /* in text, or in the white space between stanzas */
	MARKUP,                 /* after a < */
	TAG,                    /* in a tag, outside quotes */
	QUOT,                   /* in a value in double quotes */
	APOS,                   /* in a value in single quotes */
	DECLARATION,            /* after a <? at the start of the stream: only xml may follow */
	CDATA_START,            /* after a <! in a stanza: only a [ may follow */
	CDATA                   /* in a CDATA section */
};

/* An element, with members that callers do not see. */
struct node {
	struct xml_elem elem;   /* first, so that a pointer to it is a pointer to the node */
	const char *qname;      /* the name with its prefix */
	const char *tail;       /* the text between the end of this element and the next tag */
	struct xml_attr *bindings; /* the namespace declarations in scope; see add_binding() */
};

/* The state that is kept between two reads. A unit is the input that one event reports: the
 * stream header with the XML declaration, a stanza, or the end tag of the stream. */
struct xmlstream {
	struct buffer in;       /* the leftover bytes, which begin with the current unit */
	uint64_t offset;        /* where in the stream the unit begins */
	size_t valid;           /* number of bytes in `in` that are complete, legal characters */
	size_t scanned;         /* how many of those were scanned; at an event, the unit's length */
	size_t max_stanza;      /* the longest unit that is accepted, in bytes */
	enum place place;       /* where the scanner is */
	signed char depth_change; /* how the current tag changes the depth: 1, 0 or -1 */
	char skipping;          /* the stanza exceeds a limit, so its bytes are not kept */
	size_t depth;           /* number of open elements, including the stream */
	size_t elems, attrs;    /* how many structs the parser will need for the unit */
	uint32_t tag;           /* where in the unit the current tag begins */
	uint32_t open[MAX_DEPTH]; /* where in the unit each open element begins, except the */
	                        /* stream; an end tag must have the name of the last one */
	struct node *header;    /* our own copy of the stream header, or NULL before it arrives; */
	                        /* its namespace declarations are in scope in all stanzas */
	enum xml_event event;   /* the last event */
	const char *condition;  /* the stream error condition after XML_ERROR, or NULL */
	char error[120];        /* what was wrong, and where */
};

/* Returns the first byte of the current unit. */
static char *unit(const struct xmlstream *xs)
{
	return xs->in.bytes + xs->in.start;
}

/* Records an error found at p, which is in the unit. Only the first error is kept. */
static void fail(struct xmlstream *xs, const char *p, const char *condition, const char *what)
{
	unsigned long long at = xs->offset + (size_t)(p - unit(xs));

	if (xs->event == XML_ERROR)
		return;
	xs->event = XML_ERROR;
	xs->condition = condition;
	snprintf(xs->error, sizeof xs->error, "%s at byte %llu", what, at);
}

/* ----------------------------------------------------------------- Buffers */

/* When the buffer is full, moves the contents to the start and reallocates the buffer. The new
 * size is more than twice that of the contents. So this happens rarely, and on average each byte
 * is moved only a few times. */
int buffer_append(struct buffer *b, const void *bytes, size_t n)
{
	size_t used = b->end - b->start, size = 2 * used + n + 64;
	char *grown;

	if (!b->failed && (!b->bytes || n >= b->size - b->end)) {
		if (b->bytes)
			memmove(b->bytes, b->bytes + b->start, used);
		b->start = 0;
		b->end = used;
		grown = n < SIZE_MAX / 4 - used ? realloc(b->bytes, size) : NULL;
		b->failed = !grown;
		b->bytes = grown ? grown : b->bytes;
		b->size = grown ? size : b->size;
	}
	if (b->failed)
		return -1;
	if (n > 0)
		memcpy(b->bytes + b->end, bytes, n);
	b->end += n;
	b->bytes[b->end] = '\0';
	return 0;
}

void buffer_consume(struct buffer *b, size_t n)
{
	b->start += n;
	if (b->start < b->end)
		return;
	b->start = b->end = 0;
	if (b->size > IDLE_SIZE && !b->failed)
		buffer_free(b);
}

void buffer_free(struct buffer *b)
{
	free(b->bytes);
	memset(b, 0, sizeof *b);
}

/* -------------------------------------------------------------- Characters */

int xml_char(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t i, len = 2u + (u[0] >= 0xE0) + (u[0] >= 0xF0);
	int two = n > 1 ? u[0] << 8 | u[1] : 0;

	if (u[0] < 0x80)
		return u[0] >= ' ' || u[0] == '\t' || u[0] == '\n' || u[0] == '\r' ? 1 : -1;
	if (u[0] < 0xC2 || u[0] > 0xF4)
		return -1;
	/* two bytes are enough to find the ranges that RFC 3629 section 4 forbids */
	if ((two >= 0xE080 && two < 0xE0A0) || (two >= 0xF080 && two < 0xF090) /* overlong */
	    || (two >= 0xEDA0 && two < 0xEDC0) || two >= 0xF490) /* a surrogate; too large */
		return -1;
	for (i = 1; i < len && i < n; i++)
		if ((u[i] & 0xC0) != 0x80)
			return -1;
	if (i < len)
		return 0;
	return u[0] == 0xEF && u[1] == 0xBF && u[2] >= 0xBE ? -1 : (int)len; /* U+FFFE, U+FFFF */
}

/* Plain ASCII, the common case, is checked eight bytes at a time. The high bit of a byte is set in
 * `w` if the byte is not ASCII, and in `w - space` if it is less than a space. In this second case
 * the subtraction borrows from the next byte, but the check has failed anyway. After a failed
 * check, one character is checked on its own. */
size_t longest_valid(const char *s, size_t n)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), space = ones * ' ', high = ones * 0x80;
	size_t i = 0;
	uint64_t w;
	int len;

	for (;;) {
		for (; n - i >= sizeof w; i += sizeof w) {
			memcpy(&w, s + i, sizeof w);
			if ((w | (w - space)) & high)
				break;
		}
		if (i == n)
			return i;
		len = (signed char)s[i] >= ' ' ? 1 : xml_char(s + i, n - i);
		if (len <= 0)
			return i;
		i += (size_t)len;
	}
}

/* The kinds of ASCII characters. NAME characters may occur in a name, and START characters may
 * begin one. Letters are L, which means both. The IN_... characters have a special meaning in tags
 * (for the scanner), and in values, text and CDATA sections (for the parser). NUL is of every
 * IN_... kind, so each search stops at the NUL that ends every buffer. For characters beyond ASCII
 * see foreign_name(). */
enum {
	SPACE = 1, NAME = 2, START = 4, IN_TAG = 8, IN_VALUE = 16, IN_TEXT = 32, IN_CDATA = 64,
	QUOTE = IN_TAG | IN_VALUE, L = NAME | START
};
static const unsigned char kind[256] = {
	IN_TAG | IN_VALUE | IN_TEXT | IN_CDATA,
	['\t'] = SPACE | IN_VALUE, ['\n'] = SPACE | IN_VALUE, [' '] = SPACE,
	['\r'] = SPACE | IN_VALUE | IN_TEXT | IN_CDATA, ['"'] = QUOTE, ['\''] = QUOTE,
	['<'] = IN_TAG | IN_VALUE | IN_TEXT, ['>'] = IN_TAG, ['&'] = IN_VALUE | IN_TEXT,
	[']'] = IN_TEXT | IN_CDATA, ['-'] = NAME, ['.'] = NAME, ['_'] = L,
	['0'] = NAME, NAME, NAME, NAME, NAME, NAME, NAME, NAME, NAME, NAME,
	['A'] = L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
	['a'] = L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L
};

static int is(char c, int what)
{
	return kind[(unsigned char)c] & what;
}

/* Each string is a character and the reference for it. The first five are the entities that RFC
 * 6120 section 11.1 allows. The last string has U+FFFD instead of a reference, to replace bytes
 * that XML does not allow. */
enum { ENTITIES = 5, REFERENCES = 8 };
static const char *const references[] = {
	"<&lt;", ">&gt;", "&&amp;", "\"&quot;", "'&apos;", "\t&#9;", "\n&#10;", "\r&#13;",
	"?\xEF\xBF\xBD"
};

/* Returns the position of the first character of the kind `what`, at p or after it. */
static char *find(char *p, int what)
{
	while (!is(*p, what))
		p++;
	return p;
}

/* Returns the position of the first character that is not white space, at p or after it. */
static char *past_space(char *p)
{
	while (is(*p, SPACE))
		p++;
	return p;
}

/* Returns the length of the non-ASCII character at p if it may occur in a name (`what` is NAME) or
 * begin one (START). Otherwise returns 0. The ranges are those of XML 1.0, fifth edition, section
 * 2.3. edges[] lists alternately the first character of a range and the first one after it, so a
 * character in a range has an odd number of edges up to it. */
static int foreign_name(const char *p, int what)
{
	static const uint32_t edges[] = {
		0xC0, 0xD7, 0xD8, 0xF7, 0xF8, 0x300, 0x370, 0x37E, 0x37F, 0x2000, 0x200C, 0x200E,
		0x2070, 0x2190, 0x2C00, 0x2FF0, 0x3001, 0xD800, 0xF900, 0xFDD0, 0xFDF0, 0xFFFE,
		0x10000, 0xF0000, 0x110000
	};
	int i, len = xml_char(p, 4);
	uint32_t c = (unsigned char)*p & (0x7Fu >> len); /* without the bits for the length */

	for (i = 1; i < len; i++)
		c = c << 6 | (p[i] & 0x3Fu);
	if (c == 0xB7 || (c >= 0x300 && c < 0x370) || c == 0x203F || c == 0x2040)
		return what == NAME ? len : 0;
	for (i = 0; c >= edges[i]; i++)
		;
	return i % 2 ? len : 0;
}

/* ----------------------------------------------------------------- Scanner */

/* Discards the first n bytes of the unit. */
static void consume(struct xmlstream *xs, size_t n)
{
	xs->offset += n;
	xs->valid -= n;
	buffer_consume(&xs->in, n);
}

/* Reads the attribute `name` of the XML declaration and moves *at past it. Stores the first 15
 * bytes of the value. Returns 1, or 0 if the attribute is not at *at. */
static int declared(char **at, const char *name, char value[16])
{
	char *start = past_space(*at), *equals, *quote, *end;

	if (start == *at || strncmp(start, name, strlen(name)))
		return 0;
	equals = past_space(start + strlen(name));
	quote = *equals == '=' ? past_space(equals + 1) : equals;
	end = *quote == '\'' || *quote == '"' ? strchr(quote + 1, *quote) : NULL;
	if (!end)
		return 0;
	snprintf(value, 16, "%.*s", (int)(end - quote - 1), quote + 1);
	*at = end + 1;
	return 1;
}

/* Checks the XML declaration:
 * S: <?xml version='1.0' encoding='UTF-8' standalone='yes'?>
 * Only these attributes are allowed, and only in this order. The last two are optional (XML 1.0
 * section 2.8). The encoding must be UTF-8 (RFC 6120 section 11.6). */
static void check_declaration(struct xmlstream *xs)
{
	char *start = unit(xs), *p = start + strlen("<?xml"), value[16];
	int bad = !declared(&p, "version", value) || strncmp(value, "1.", 2) || !value[2]
	          || value[2 + strspn(value + 2, "0123456789")];

	if (declared(&p, "encoding", value) && strcasecmp(value, "UTF-8"))
		fail(xs, start, "unsupported-encoding", "an encoding other than UTF-8");
	if (declared(&p, "standalone", value))
		bad |= strcmp(value, "yes") && strcmp(value, "no");
	if (bad || strncmp(past_space(p), "?>", 2))
		fail(xs, start, MALFORMED, "bad XML declaration");
}

/* True if the end tag, whose > is at `end`, has the name of the innermost open element. In the
 * unit, the name in the start tag ends with white space, / or >; in the header's tree, with a
 * NUL. */
static int ends_open_element(const struct xmlstream *xs, const char *end)
{
	const char *name = xs->header->qname;
	char *p = unit(xs) + xs->tag + strlen("</");

	if (xs->depth > 1)
		name = unit(xs) + xs->open[xs->depth - 2] + strlen("<");
	for (; *p == *name && p < end && !is(*p, SPACE); p++)
		name++;
	return past_space(p) == end && (is(*name, SPACE | IN_TAG) || *name == '/');
}

/* Handles the > at p, which ends a tag and may also end the unit. An element like <a/> leaves the
 * depth as it is. */
static void finish_tag(struct xmlstream *xs, const char *p)
{
	xs->place = TEXT;
	if (!xs->header && unit(xs)[xs->tag + 1] == '?') {
		check_declaration(xs);
		return;
	}
	if (xs->depth_change < 0 && !xs->skipping && !ends_open_element(xs, p)) {
		fail(xs, unit(xs) + xs->tag, MALFORMED, "end tag of another element");
		return;
	}
	if (xs->depth_change > 0 && p[-1] == '/')
		xs->depth_change = 0;
	xs->skipping |= xs->depth_change >= 0 && xs->depth > MAX_DEPTH;
	if (xs->depth_change > 0 && xs->depth > 0 && !xs->skipping)
		xs->open[xs->depth - 1] = xs->tag;
	xs->elems += xs->depth_change >= 0;
	xs->depth += (size_t)xs->depth_change;
	if (xs->depth > 1)
		return; /* the stanza goes on */
	xs->event = xs->depth == 0 ? XML_CLOSE : XML_STANZA;
	if (!xs->header)
		xs->event = XML_OPEN;
	if (xs->skipping)
		xs->event = XML_SKIPPED;
}

/* Looks at the character at p, after a <, to see what kind of markup begins. The parser will check
 * the name of a tag. */
static void begin_markup(struct xmlstream *xs, const char *p)
{
	xs->place = TAG;
	xs->depth_change = *p == '/' ? -1 : 1;
	if (*p == '!' && xs->depth > 1)
		xs->place = CDATA_START;
	else if (*p == '?' && xs->offset + xs->tag == 0)
		xs->place = DECLARATION;
	else if (*p == '!' || *p == '?')
		fail(xs, p - 1, "restricted-xml", RESTRICTED);
	else if (*p == '/' && xs->depth == 0)
		fail(xs, p, MALFORMED, "no element is open");
}

/* Updates the scanner for the character at p, which seek() has returned. */
static void step(struct xmlstream *xs, const char *p)
{
	switch (xs->place) {
	case TEXT:
		if (*p != '<' || (xs->depth == 0 && xs->header)) /* nothing may follow the stream */
			fail(xs, p, xs->depth > 0 ? "bad-format" : MALFORMED, STRAY_TEXT);
		xs->tag = (uint32_t)(p - unit(xs));
		xs->place = MARKUP;
		break;
	case MARKUP:
		begin_markup(xs, p);
		break;
	case TAG:
		if (*p == '<')
			fail(xs, p, MALFORMED, "< in a tag");
		if (*p == '>')
			finish_tag(xs, p);
		else
			xs->place = *p == '"' ? QUOT : APOS;
		break;
	case QUOT:
	case APOS:
		xs->attrs++;
		xs->place = TAG;
		break;
	case DECLARATION: /* the bytes must be <?xml and white space */
		if (*p != "<?xml "[p - unit(xs)] && (p != unit(xs) + 5 || !is(*p, SPACE)))
			fail(xs, p, "restricted-xml", RESTRICTED);
		if (p == unit(xs) + 5)
			xs->place = TAG;
		break;
	case CDATA_START: /* the parser checks the rest of <![CDATA[ */
		if (*p != '[')
			fail(xs, p, "restricted-xml", RESTRICTED);
		xs->place = CDATA;
		break;
	case CDATA:
		if (p[-1] == ']' && p[-2] == ']')
			xs->place = TEXT;
		break;
	}
}

/* Returns the position of the next character that has a meaning in this place, or `end`. In MARKUP,
 * DECLARATION and CDATA_START, every character has one. */
static char *seek(const struct xmlstream *xs, char *p, char *end)
{
	static const char ending[] = {[TEXT] = '<', [QUOT] = '"', [APOS] = '\'', [CDATA] = '>'};
	char *q = p;

	if (xs->place == TAG)
		q = find(p, IN_TAG);
	else if (xs->place == TEXT && xs->depth < 2)
		q = past_space(p);
	else if (ending[xs->place])
		q = memchr(p, ending[xs->place], (size_t)(end - p));
	return q && q < end ? q : end;
}

/* Continues the scan where the last one stopped, up to byte `limit` of the unit. Stops early at the
 * end of the unit, or at an error. */
static void scan(struct xmlstream *xs, size_t limit)
{
	char *p = unit(xs) + xs->scanned, *end = unit(xs) + limit;

	while (p < end && xs->event == XML_MORE) {
		p = seek(xs, p, end);
		if (p < end) {
			step(xs, p);
			p++;
		}
	}
	xs->scanned = (size_t)(p - unit(xs));
}

/* Handles a unit that is longer than the limit, which is at p. A stanza is skipped. The stream
 * header and the end tag of the stream cannot be skipped, so for them this is an error. */
static void exceed(struct xmlstream *xs, const char *p)
{
	if (xs->header && (xs->depth > 1 || xs->depth_change > 0))
		xs->skipping = 1;
	else
		fail(xs, p, "policy-violation", "header or end tag too long");
}

/* Scans the bytes that have arrived, up to the end of the unit. First discards white space, which a
 * server may send between stanzas to keep the connection alive (RFC 6120 section 4.6.1).
 *
 * Scanning stops at max_stanza even if more bytes have arrived. Otherwise, how the input is split
 * would decide whether a stanza is skipped. Of a skipped stanza, only the last two bytes are kept,
 * since step() and finish_tag() look back that far. */
static void find_unit(struct xmlstream *xs)
{
	size_t limit;

	if (xs->scanned == 0 && xs->valid > 0)
		consume(xs, (size_t)(past_space(unit(xs)) - unit(xs)));
	while (xs->scanned < xs->valid && xs->event == XML_MORE) {
		limit = xs->skipping || xs->valid < xs->max_stanza ? xs->valid : xs->max_stanza;
		scan(xs, limit);
		if (xs->event == XML_MORE && xs->valid > limit)
			exceed(xs, unit(xs) + limit);
		if (xs->event == XML_MORE && xs->skipping && xs->scanned > 2) {
			consume(xs, xs->scanned - 2);
			xs->scanned = 2;
		}
	}
}

/* ------------------------------------------------------------------ Parser */

/* The state of the parser, which exists only while a unit is parsed. The scanner has made sure that
 * quotes and CDATA sections are closed, that end tags match, and that the unit ends with the > of a
 * tag. The parser stores text in the last tag's element: after a start tag as the element's text,
 * and after an end tag as its tail. */
struct parser {
	struct xmlstream *xs;
	char *copy, *end;       /* the copy of the unit is [copy, end); NULs follow */
	struct node *node;      /* the next free node */
	struct xml_attr *attr;  /* the next free attribute */
	char *joined;           /* free space for joined text */
	struct node *open;      /* the innermost open element, or NULL */
	struct xml_elem **elem_slot; /* where to link the next element, */
	struct xml_attr **attr_slot; /* the next attribute, */
	const char **text_slot; /* and the next text */
};

/* Records an error found at p. Returns the end of the unit, where only NULs follow. They stop every
 * loop of the parser, so callers need not check for errors. */
static char *parse_error(struct parser *ps, const char *p, const char *condition, const char *what)
{
	fail(ps->xs, unit(ps->xs) + (p - ps->copy), condition, what);
	return ps->end;
}

/* Records that the unit misuses namespaces or exceeds a limit at p. A stanza will be skipped, but
 * the parser goes on, since the rest may not be well-formed. In a stream header this is an
 * error. */
static void skip_unit(struct parser *ps, const char *p, const char *condition, const char *what)
{
	if (ps->xs->event == XML_OPEN)
		parse_error(ps, p, condition, what);
	else if (ps->xs->event != XML_ERROR)
		ps->xs->event = XML_SKIPPED;
}

/* Returns the end of the name without colons at p, or p if the first character is not of the
 * kind `what`. */
static char *past_name(char *p, int what)
{
	int len = 1;

	for (; len > 0; p += len, what = NAME) {
		for (; is(*p, what); p++)
			what = NAME;
		len = (signed char)*p < 0 ? foreign_name(p, what) : 0;
	}
	return p;
}

/* Returns the end of the name at p, or p if there is none. Sets *local to the part after the
 * prefix. Namespaces in XML 1.0 (section 4) allows one colon, between two names. */
static char *past_qname(struct parser *ps, char *p, char **local)
{
	char *end = past_name(p, START), *local_end;

	*local = p;
	if (*end != ':')
		return end;
	*local = end + 1;
	local_end = past_name(*local, START);
	if (end > p && local_end > *local && *local_end != ':')
		return local_end;
	skip_unit(ps, p, MALFORMED, "misplaced colon");
	*local = p;
	while (*end == ':')
		end = past_name(end + 1, NAME);
	return end;
}

/* Returns the namespace of a name: the URI to which its prefix is bound in the open element.
 * The prefix xml needs no declaration, and a name without a prefix need not be in a namespace
 * (Namespaces in XML 1.0, sections 3 and 6.2). */
static const char *lookup(struct parser *ps, const char *qname, const char *local)
{
	size_t n = local > qname ? (size_t)(local - qname) - 1 : 0;
	const struct xml_attr *b = ps->open->bindings;

	while (b && (strncmp(b->name, qname, n) || b->name[n]))
		b = b->next;
	if (b)
		return b->value;
	if (n == 3 && !strncmp(qname, "xml", 3))
		return XML_NS;
	if (n > 0)
		skip_unit(ps, qname, "bad-namespace-prefix", "undeclared prefix");
	return "";
}

/* Adds a namespace declaration, stored as an attribute whose name is the prefix, to those in
 * scope in the open element. Namespaces in XML 1.0, section 3, forbids xmlns:p='', declaring the
 * prefix xmlns, binding xml to another URI, and binding another prefix to the URI of xml or
 * xmlns. The length of the list is limited, because every name is looked up in it. */
static void add_binding(struct parser *ps, struct xml_attr *b, const char *p)
{
	const struct xml_attr *other;
	int n = 1;

	if ((*b->name && !*b->value) || !strcmp(b->name, "xmlns") || !strcmp(b->value, XMLNS_NS)
	    || !strcmp(b->name, "xml") != !strcmp(b->value, XML_NS))
		skip_unit(ps, p, "bad-namespace-prefix", "illegal namespace declaration");
	for (other = ps->open->bindings; other; other = other->next)
		n++;
	if (n > MAX_BINDINGS) {
		skip_unit(ps, p, "policy-violation", "too many namespace declarations");
		return;
	}
	b->next = ps->open->bindings;
	ps->open->bindings = b;
}

/* Finds the namespaces of an element and its attributes. A declaration may come after the names
 * that use it, so this is done at the end of the tag. Until then, the `ns` member of an attribute
 * points to the name with its prefix. If there is no prefix, `ns` and `name` are the same pointer.
 * Two attributes may not have the same name in the same namespace, even with different prefixes. */
static void resolve_names(struct parser *ps, struct xml_elem *e)
{
	struct xml_attr *a, *b;

	e->ns = lookup(ps, ps->open->qname, e->name);
	for (a = e->attrs; a; a = a->next) {
		a->ns = a->ns == a->name ? "" : lookup(ps, a->ns, a->name);
		for (b = e->attrs; *a->ns && b != a; b = b->next)
			if (!strcmp(a->name, b->name) && (a->ns == b->ns || !strcmp(a->ns, b->ns)))
				skip_unit(ps, a->name, MALFORMED, "repeated attribute");
	}
}

/* Writes the character c to s in UTF-8. Returns its length, or 0 if XML does not allow it. */
static int encode(unsigned long c, char *s)
{
	int i, len = 1 + (c >= 0x80) + (c >= 0x800) + (c >= 0x10000);

	if (c > 0x10FFFF)
		return 0;
	for (i = len - 1; i > 0; i--, c >>= 6)
		s[i] = (char)(0x80 | (c & 0x3F));
	s[0] = (char)(c | (len > 1 ? 0xF0u << (4 - len) : 0)); /* with the bits for the length */
	return xml_char(s, (size_t)len) > 0 ? len : 0;
}

/* Decodes the reference at p, writes the character to *to, and moves *to past it. Returns the
 * end of the reference. */
static char *dereference(struct parser *ps, char *p, char **to)
{
	int hex = p[1] == '#' && p[2] == 'x', len;
	char *digits = p + 2 + hex, *end;
	unsigned long code;
	size_t i, n;

	if (p[1] == '#') {
		end = digits + strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
		code = strtoul(digits, NULL, hex ? 16 : 10);
		len = *end == ';' ? encode(code, *to) : 0;
		*to += len;
		return len ? end + 1 : parse_error(ps, p, MALFORMED, "reference to no character");
	}
	for (i = 0; i < ENTITIES; i++) {
		n = strlen(references[i] + 1);
		if (!strncmp(p, references[i] + 1, n)) {
			*(*to)++ = references[i][0];
			return p + n;
		}
	}
	end = past_name(p + 1, START);
	if (end > p + 1 && *end == ';')
		return parse_error(ps, p, "restricted-xml", "reference to an unknown entity");
	return parse_error(ps, p, MALFORMED, "bad reference");
}

/* Decodes text or a value in place. The result is never longer than the original.
 *
 * If `ending` is <, decodes text and CDATA sections up to the next tag. A line break becomes \n
 * (XML 1.0 section 2.11). If `ending` is a quote, decodes a value up to this quote. A line break or
 * a tab becomes a space (section 3.3.3). A NUL ends the result, and takes the place of `ending` if
 * nothing became shorter. Returns the position of `ending`. */
static char *decode(struct parser *ps, char *p, char ending)
{
	int special = ending == '<' ? IN_TEXT : IN_VALUE;
	char *to = p, *start, c, blank = ending == '<' ? '\n' : ' ';

	for (;;) {
		start = p;
		p = find(p, special);
		if (to < start)
			memmove(to, start, (size_t)(p - start));
		to += p - start;
		if (!*p || (*p == ending && (special == IN_VALUE || p[1] != '!'))) {
			*to = '\0';
			return p;
		}
		if (special == IN_TEXT && !strncmp(p, "<![CDATA[", 9)) {
			special = IN_CDATA;
			p += 9;
		} else if (special == IN_CDATA && !strncmp(p, "]]>", 3)) {
			special = IN_TEXT;
			p += 3;
		} else if (*p == '&') {
			p = dereference(ps, p, &to);
		} else if (*p == '<' || (special == IN_TEXT && !strncmp(p, "]]>", 3))) {
			p = parse_error(ps, p, MALFORMED, "< or ]]> where it is not allowed");
		} else { /* white space, or a character that is not special here */
			c = *p;
			p += c == '\r' && p[1] == '\n' ? 2 : 1;
			*to++ = is(c, SPACE) ? blank : c;
		}
	}
}

/* Parses name='value', or a namespace declaration: xmlns='uri' or xmlns:prefix='uri'. `first` is
 * the first attribute of the tag. Returns the end of the attribute. */
static char *take_attr(struct parser *ps, char *p, struct xml_attr *first)
{
	struct xml_attr *a = ps->attr, *other;
	char *qname = p, *local, *name_end = past_qname(ps, p, &local);
	char *equals = past_space(name_end), *quote = past_space(equals + 1);

	if (name_end == p || *equals != '=' || (*quote != '\'' && *quote != '"'))
		return parse_error(ps, p, MALFORMED, "not an attribute");
	p = decode(ps, quote + 1, *quote) + 1;
	*name_end = '\0';
	*a = (struct xml_attr){.name = local, .ns = qname, .value = quote + 1};
	ps->attr++;
	if (ps->attr - first > MAX_ATTRS) {
		skip_unit(ps, qname, "policy-violation", "too many attributes");
		return p;
	}
	for (other = first; other < a; other++)
		if (*other->ns == *qname && !strcmp(other->ns, qname))
			return parse_error(ps, qname, MALFORMED, "repeated attribute");
	if (*qname == 'x' && !strncmp(qname, "xmlns", 5) && (!qname[5] || qname[5] == ':')) {
		a->name = qname[5] ? local : "";
		add_binding(ps, a, qname);
	} else {
		*ps->attr_slot = a;
		ps->attr_slot = &a->next;
	}
	return p;
}

/* Ends the innermost open element. If it has children, joins the pieces of its text: the one before
 * the first child and the one after each child, which is the child's tail. */
static void end_element(struct parser *ps)
{
	struct node *e = ps->open;
	const struct xml_elem *c;
	char *to;

	if (e->elem.children) { /* NOLINT(clang-analyzer-core.NullDereference): tags match */
		to = stpcpy(ps->joined, e->elem.text);
		for (c = e->elem.children; c; c = c->next)
			to = stpcpy(to, ((const struct node *)(const void *)c)->tail);
		e->elem.text = ps->joined;
		ps->joined = to + 1;
	}
	ps->open = (struct node *)(void *)e->elem.parent;
	ps->elem_slot = &e->elem.next;
	ps->text_slot = &e->tail;
}

/* Parses <name attribute='value'> or <name/>. p is after the <. Each attribute must follow white
 * space. Returns the end of the tag. */
static char *take_start_tag(struct parser *ps, char *p)
{
	struct node *e = ps->node++, *parent = ps->open;
	struct xml_attr *first = ps->attr;
	char *local, *name_end = past_qname(ps, p, &local), *q;

	if (name_end == p)
		return parse_error(ps, p, MALFORMED, "no name after <");
	*e = (struct node){.elem = {.name = local, .text = ""}, .qname = p, .tail = ""};
	e->elem.parent = parent ? &parent->elem : NULL;
	if (parent)
		e->bindings = parent->bindings;
	else if (ps->xs->event == XML_STANZA)
		e->bindings = ps->xs->header->bindings;
	*ps->elem_slot = &e->elem;
	ps->elem_slot = &e->elem.children;
	ps->attr_slot = &e->elem.attrs;
	ps->text_slot = &e->elem.text;
	ps->open = e;
	for (q = name_end, p = past_space(q); p > q && *p != '>' && *p != '/'; p = past_space(q))
		q = take_attr(ps, p, first);
	if (*p != '>' && strncmp(p, "/>", 2))
		return parse_error(ps, p, MALFORMED, "not allowed in a tag");
	resolve_names(ps, &e->elem);
	q = strchr(p, '>');
	if (q > p)
		end_element(ps);
	*name_end = '\0'; /* only now, since it may be the / or > */
	return q + 1;
}

/* Parses the unit and returns its root element. If there is an error or the unit must be skipped,
 * changes xs->event and returns NULL. One block of memory holds the whole tree. It begins with the
 * root, so that free(root) frees all:
 *
 *     elements | attributes | copy of the unit | NULs | joined texts
 *
 * The scanner has counted the elements and attributes. The joined texts need no more space than the
 * unit, since each piece is joined only once. */
static struct xml_elem *parse_unit(struct xmlstream *xs)
{
	size_t n = xs->scanned;
	size_t structs = xs->elems * sizeof(struct node) + xs->attrs * sizeof(struct xml_attr);
	char *block = malloc(structs + n + PADDING + n), *p;
	struct xml_elem *root = NULL;
	struct parser ps = {.xs = xs, .elem_slot = &root};

	if (!block) {
		fail(xs, unit(xs), "resource-constraint", "out of memory");
		return NULL;
	}
	ps.node = (struct node *)(void *)block;
	ps.attr = (struct xml_attr *)(void *)(ps.node + xs->elems);
	ps.copy = p = memcpy(block + structs, unit(xs), n);
	ps.end = memset(p + n, 0, PADDING);
	ps.joined = ps.end + PADDING;
	if (p[1] == '?')
		p = past_space(strstr(p, "?>") + 2);
	while (p < ps.end) { /* *p is a <, or the NUL that decode() has put in its place */
		if (p[1] == '/') {
			end_element(&ps);
			p = strchr(p + 1, '>') + 1;
		} else {
			p = take_start_tag(&ps, p + 1);
		}
		if (p < ps.end && (*p != '<' || p[1] == '!')) {
			*ps.text_slot = p;
			p = decode(&ps, p, '<');
		}
	}
	if (xs->event == XML_OPEN || xs->event == XML_STANZA)
		return root;
	free(block);
	return NULL;
}

/* ------------------------------------------------------------------ Events */

int xmlstream_feed(struct xmlstream *xs, const void *bytes, size_t n)
{
	if (xs->event == XML_ERROR || n == 0)
		return 0;
	if (buffer_append(&xs->in, bytes, n))
		return -1;
	xs->valid += longest_valid(unit(xs) + xs->valid, xs->in.end - xs->in.start - xs->valid);
	return 0;
}

enum xml_event xmlstream_next(struct xmlstream *xs, struct xml_elem **out)
{
	int closed = xs->event == XML_OPEN && xs->depth == 0; /* <stream/> both opens and closes */
	size_t left;

	*out = NULL;
	if (xs->event == XML_ERROR)
		return XML_ERROR;
	if (xs->event != XML_MORE) { /* the last unit is no longer needed */
		consume(xs, xs->scanned);
		xs->scanned = xs->elems = xs->attrs = 0;
		xs->skipping = 0;
	}
	xs->event = closed ? XML_CLOSE : XML_MORE;
	find_unit(xs);
	left = xs->in.end - xs->in.start - xs->valid;
	if (xs->event == XML_MORE && left > 0 && xml_char(unit(xs) + xs->valid, left) < 0)
		fail(xs, unit(xs) + xs->valid, MALFORMED, "illegal character, or not UTF-8,");
	if (xs->event == XML_OPEN) /* parsed twice: once for us and once for the caller */
		xs->header = (struct node *)(void *)parse_unit(xs);
	if (xs->event == XML_OPEN || xs->event == XML_STANZA)
		*out = parse_unit(xs);
	return xs->event;
}

const char *xmlstream_raw(const struct xmlstream *xs, size_t *n)
{
	*n = xs->event == XML_MORE || xs->skipping ? 0 : xs->scanned;
	return *n > 0 ? unit(xs) : "";
}

const char *xmlstream_error(const struct xmlstream *xs)
{
	return xs->condition ? xs->error : NULL;
}

const char *xmlstream_condition(const struct xmlstream *xs)
{
	return xs->condition;
}

struct xmlstream *xmlstream_new(size_t max_stanza)
{
	struct xmlstream *xs = max_stanza <= LARGEST ? calloc(1, sizeof *xs) : NULL;

	if (xs)
		xs->max_stanza = max_stanza ? max_stanza : MAX_STANZA;
	return xs;
}

void xmlstream_reset(struct xmlstream *xs)
{
	free(xs->header);
	buffer_free(&xs->in);
	*xs = (struct xmlstream){.max_stanza = xs->max_stanza};
}

void xmlstream_free(struct xmlstream *xs)
{
	if (xs)
		xmlstream_reset(xs);
	free(xs);
}

/* ------------------------------------------------------- Looking at a tree */

void xml_free(struct xml_elem *root)
{
	free(root);
}

const char *xml_get(const struct xml_elem *e, const char *name)
{
	const struct xml_attr *a;

	for (a = e ? e->attrs : NULL; a; a = a->next)
		if (!strcmp(a->name, name) && !*a->ns)
			return a->value;
	return NULL;
}

int xml_has(const struct xml_elem *e, const char *name, const char *value)
{
	return xml_get(e, name) && !strcmp(xml_get(e, name), value);
}

struct xml_elem *xml_child(const struct xml_elem *e, const char *name, const char *ns)
{
	struct xml_elem *c;

	for (c = e ? e->children : NULL; c; c = c->next)
		if (!strcmp(c->name, name) && (!ns || !strcmp(c->ns, ns)))
			break;
	return c;
}

/* ----------------------------------------------------------------- XML out */

/* Appends a string. Replaces each character in `special` with its reference, and each byte that is
 * not part of a legal character with U+FFFD. After such a byte, the place of the next special
 * character is still known, so there is no need to search again. */
static void append_escaped(struct buffer *b, const char *s, const char *special)
{
	size_t n, plain = strcspn(s, special); /* bytes up to the next special character */
	int i;

	for (;;) {
		n = longest_valid(s, plain);
		buffer_append(b, s, n);
		s += n;
		if (!*s)
			return;
		for (i = 0; i < REFERENCES && references[i][0] != *s; i++)
			;
		buffer_append(b, references[i] + 1, strlen(references[i] + 1));
		s++;
		plain = n < plain ? plain - n - 1 : strcspn(s, special);
	}
}

int buffer_vformat(struct buffer *b, const char *format, va_list ap)
{
	const char *s, *next, *special;
	char number[24];

	for (;; format++) {
		buffer_append(b, format, strcspn(format, "%"));
		format += strcspn(format, "%");
		if (!*format)
			return b->failed ? -1 : 0;
		switch (*++format) {
		case 's': /* in a value, if the format has a quote before the next < */
			s = va_arg(ap, const char *);
			next = strpbrk(format, "<'\"");
			special = next && *next != '<' ? "'\"" ESCAPED : ESCAPED;
			append_escaped(b, s ? s : "", special);
			break;
		case 'r':
			s = va_arg(ap, const char *);
			buffer_append(b, s ? s : "", s ? strlen(s) : 0);
			break;
		case 'd':
			snprintf(number, sizeof number, "%d", va_arg(ap, int));
			buffer_append(b, number, strlen(number));
			break;
		default: /* %%, or a lone % */
			buffer_append(b, "%", 1);
			if (*format != '%')
				format--;
		}
	}
}

int buffer_format(struct buffer *b, const char *format, ...)
{
	va_list ap;
	int failed;

	va_start(ap, format);
	failed = buffer_vformat(b, format, ap);
	va_end(ap);
	return failed;
}

/* Returns "xml:" for the namespace of xml, to which no other prefix can be bound, or "" for any
 * other namespace. */
static const char *prefix_of(const char *ns)
{
	return strcmp(ns, XML_NS) ? "" : "xml:";
}

/* Prints the start tag and the text. Declares the element's namespace if it differs from the
 * parent's. Declares a prefix (n0, n1...) for each attribute in a namespace other than that of
 * xml. */
static void print_start(const struct xml_elem *e, const char *outer_ns, struct buffer *b)
{
	const struct xml_attr *a;
	int n = 0;

	buffer_format(b, "<%r%r", prefix_of(e->ns), e->name);
	if (!*prefix_of(e->ns) && strcmp(e->ns, outer_ns))
		buffer_format(b, " xmlns='%s'", e->ns);
	for (a = e->attrs; a; a = a->next) {
		if (*a->ns && !*prefix_of(a->ns))
			buffer_format(b, " xmlns:n%d='%s' n%d:", n, a->ns, n);
		else
			buffer_format(b, " %r", prefix_of(a->ns));
		buffer_format(b, "%r='%s'", a->name, a->value);
		n++;
	}
	buffer_append(b, ">", 1);
	append_escaped(b, e->text, ESCAPED);
}

/* Walks the tree without recursion. Prints a start tag and goes to the first child. If there is
 * none, prints the end tag and goes to the next element. If there is no next element, prints the
 * parent's end tag and continues there. */
void xml_print(const struct xml_elem *root, FILE *out)
{
	const struct xml_elem *e, *next;
	struct buffer b = {0};

	for (e = root; e; e = next) {
		print_start(e, e == root ? "" : e->parent->ns, &b);
		next = e->children;
		while (!next) {
			buffer_format(&b, "</%r%r>", prefix_of(e->ns), e->name);
			if (e == root)
				break;
			next = e->next;
			e = e->parent;
		}
	}
	if (!buffer_append(&b, "\n", 1))
		fwrite(b.bytes, 1, b.end, out);
	buffer_free(&b);
}
