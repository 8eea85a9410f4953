/* xmlstream.c - bytes in, stanzas out.
 *
 * The problem. An XMPP connection is one XML document that never ends, and
 * read() cuts it anywhere: in the middle of a stanza, of a tag, of a UTF-8
 * character. A reader that wants whole stanzas must keep what is left over and
 * remember where it was.
 *
 * The caller's side is a pair of functions. Bytes go in as they come, events
 * come out as soon as they are complete:
 *
 *     xmlstream_feed(xs, bytes, n);
 *     while ((event = xmlstream_next(xs, &elem)) != XML_MORE) ...
 *
 * The inside, in the order in which the bytes meet it:
 *
 *     characters  the leftover buffer: only whole, legal characters leave it
 *     pool        the memory of one stanza
 *     names       namespaces resolved, duplicates refused
 *     tree        elements begun and ended, attributes and text added to them
 *     tokens      a tag is taken once its > is there, text as it comes
 *     events      the loop that takes tokens until a stanza is whole
 *
 * A token cut in two waits in the leftover buffer, with a note of how much of
 * it was looked at: no byte is scanned again because more came, so the cost is
 * linear however the input is cut. Nothing recurses on the input.
 *
 * What is accepted is the XML of RFC 6120 section 11: no comments, no
 * processing instructions, no DTD, no entities but the five predefined. */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	MAX_STANZA = 256 * 1024, /* bytes, where the caller has no opinion */
	MAX_DEPTH = 128,         /* levels of one stanza, itself included */
	MAX_ATTRS = 1000,        /* of one element, xmlns declarations included */
	FIRST_BLOCK = 1000,      /* bytes of a pool's first block: a chat message fits */
	MAX_BINDINGS = 128,      /* of prefixes to namespaces, in scope at a time */
	IDLE_SIZE = 1024         /* an idle buffer keeps no more bytes than that */
};

#define XML_NS   "http://www.w3.org/XML/1998/namespace"
#define XMLNS_NS "http://www.w3.org/2000/xmlns/"

/* One stanza lives in one pool, a chain of blocks that double in size. Every block
 * begins with this. The first one stands for the whole pool, and in it the root
 * element stands right behind this: that is how xml_free() finds the pool from the
 * root. Stanzas share the names that the stream header bound, so their chains end
 * in the header's, which lives as long as any of them:
 *
 *     stanza -> its first block -> its others -> header's first block -> its others
 *                                                ^ parser, and who has the header */
struct block {
	struct block *next;
	size_t users;           /* blocks, parsers and callers that point here; freed at 0 */
};

/* xmlns:prefix='uri', in scope until `owner` ends. */
struct binding {
	const char *prefix, *uri;
	const struct xml_elem *owner;
	const struct binding *outer; /* declared before this one, still in scope */
	int count;              /* how many are in scope, with this one */
};

struct xmlstream {
	/* When <message><bo has come, `in` holds <bo, for <message> is taken; whole
	 * and scanned are 3, depth is 2 (stream and message are open). */
	struct buffer in;       /* the leftover: bytes not yet taken as tokens */
	size_t whole;           /* so many of them are whole, legal characters */
	uint64_t offset;        /* in the stream, of the first of them */
	uint64_t limit;         /* the stanza under way must end before this offset */
	size_t max_stanza;
	size_t scanned;         /* of an incomplete token: bytes already looked at */
	char quote;             /* and the quote that is open there, or 0 */
	char plain;             /* in the tag is nothing that unescape() would change */
	char in_cdata;          /* text goes on until ]]> */
	char skipping;          /* the stanza under way: it exceeds a limit, and only its tags are counted */

	struct block *pool, *header; /* of the stanza under way; of the stream header, once that is complete */
	char *top, *roof;       /* [top, roof) is free in the newest block */
	size_t block_size;
	struct xml_elem *elem;  /* the innermost open element */
	struct xml_elem *tree;  /* the root of the tree under way */
	struct xml_elem **elem_slot; /* where the next element is linked in */
	struct xml_attr **attr_slot; /* where the next attribute is */
	struct xml_attr *declared; /* the attributes of the XML declaration */
	size_t depth;           /* how many elements are open, the root included */
	const struct binding *bindings; /* all in scope, the last one declared first */
	struct buffer text;     /* of the open elements, see begin_element() */
	size_t text_start;      /* where in it the innermost one's text begins */

	enum xml_event event;
	const char *condition;
	char error[120];
};

/* Every error ends up here; `p` is where in the leftover it was noticed. */
static int fail(struct xmlstream *xs, const char *p, const char *condition, const char *what)
{
	unsigned long long at = xs->offset + (uint64_t)(p - xs->in.bytes) - xs->in.start;

	xs->event = XML_ERROR;
	xs->condition = condition;
	snprintf(xs->error, sizeof xs->error, "%s at byte %llu", what, at);
	return -1;
}

static int malformed(struct xmlstream *xs, const char *p, const char *what)
{
	return fail(xs, p, "not-well-formed", what);
}

static int no_memory(struct xmlstream *xs)
{
	return fail(xs, xs->in.bytes + xs->in.start, "resource-constraint", "out of memory");
}

/* -------------------------------------------------------------- Characters */

/* Makes room for n bytes behind `end`; 0, or -1 when memory ran out. */
static int reserve(struct buffer *b, size_t n)
{
	size_t used = b->end - b->start, size = b->size ? b->size : 64;
	char *bytes;

	if (n > SIZE_MAX / 4 - used)
		return -1;
	while (size < 2 * used + n) /* so that what was moved now is not moved again soon */
		size *= 2;
	bytes = malloc(size);
	if (!bytes)
		return -1;
	if (used > 0)
		memcpy(bytes, b->bytes + b->start, used);
	free(b->bytes);
	*b = (struct buffer){.bytes = bytes, .end = used, .size = size};
	return 0;
}

int buffer_append(struct buffer *b, const void *bytes, size_t n)
{
	b->failed = b->failed || (n > b->size - b->end && reserve(b, n));
	if (b->failed)
		return -1;
	if (n > 0)
		memcpy(b->bytes + b->end, bytes, n);
	b->end += n;
	return 0;
}

void buffer_consume(struct buffer *b, size_t n)
{
	b->start += n;
	if (b->start < b->end)
		return;
	b->start = b->end = 0;
	if (b->size > IDLE_SIZE)
		buffer_free(b);
}

void buffer_free(struct buffer *b)
{
	free(b->bytes);
	memset(b, 0, sizeof *b);
}

int xml_char(const char *s, size_t n)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t i, len = u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
	/* RFC 3629 section 4: no overlong forms, no surrogates, no more than U+10FFFF */
	unsigned lo = u[0] == 0xE0 ? 0xA0 : u[0] == 0xF0 ? 0x90 : 0x80;
	unsigned hi = u[0] == 0xED ? 0x9F : u[0] == 0xF4 ? 0x8F : 0xBF;

	if (u[0] < 0x80)
		return u[0] >= ' ' || u[0] == '\t' || u[0] == '\n' || u[0] == '\r' ? 1 : -1;
	if (u[0] < 0xC2 || u[0] > 0xF4)
		return -1;
	for (i = 1; i < len; i++, lo = 0x80, hi = 0xBF) {
		if (i == n)
			return 0;
		if (u[i] < lo || u[i] > hi)
			return -1;
	}
	return u[0] == 0xEF && u[1] == 0xBF && u[2] >= 0xBE ? -1 : (int)len; /* U+FFFE, U+FFFF */
}

/* Plain ASCII, the common case, is checked eight bytes at a time: `w - space`
 * sets or borrows a byte's high bit if it was below the space, `w` has it if it
 * was not ASCII. */
size_t xml_characters(const char *s, size_t n)
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
		if (i == n || (len = (signed char)s[i] >= ' ' ? 1 : xml_char(s + i, n - i)) <= 0)
			return i;
		i += (size_t)len;
	}
}

int xmlstream_feed(struct xmlstream *xs, const void *bytes, size_t n)
{
	size_t unchecked;

	if (xs->condition || n == 0)
		return 0;
	if (buffer_append(&xs->in, bytes, n))
		return -1;
	unchecked = xs->in.end - xs->in.start - xs->whole;
	xs->whole += xml_characters(xs->in.bytes + xs->in.end - unchecked, unchecked);
	return 0;
}

/* What an ASCII character can be: NAME in a name, START at the beginning of one,
 * TEXT if it may mean more than itself in text, TAG if so in a tag. Those beyond
 * ASCII mean themselves; whether a name may hold them, foreign_name() knows. */
enum { SPACE = 1, NAME = 2, START = 4, TEXT = 8, TAG = 16, DIGIT = 32, HEX = 64 };
enum { D = NAME | DIGIT | HEX, L = NAME | START, X = L | HEX };
static const unsigned char kind[256] = {
	['\t'] = SPACE | TAG, ['\n'] = SPACE | TAG, ['\r'] = SPACE | TAG | TEXT, [' '] = SPACE,
	['<'] = TAG | TEXT, ['&'] = TAG | TEXT, ['>'] = TAG, ['"'] = TAG, ['\''] = TAG, [']'] = TEXT,
	['0'] = D, D, D, D, D, D, D, D, D, D, ['-'] = NAME, ['.'] = NAME, [':'] = L, ['_'] = L,
	['A'] = X, X, X, X, X, X, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
	['a'] = X, X, X, X, X, X, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L
};

static int is(char c, int what)
{
	return kind[(unsigned char)c] & what;
}

/* To the next character of that kind: by four, which is quicker, while there is
 * none among them. */
static const char *find(const char *p, const char *end, int what)
{
	while (end - p >= 4 && !(is(p[0], what) | is(p[1], what) | is(p[2], what) | is(p[3], what)))
		p += 4;
	while (p < end && !is(*p, what))
		p++;
	return p;
}

static const char *skip_space(const char *p, const char *end)
{
	while (p < end && is(*p, SPACE))
		p++;
	return p;
}

/* The length of the character at p, which is not ASCII, if it can be in a name
 * (NAME) or begin one (START), else 0. XML 1.0, fifth edition, section 2.3; the
 * last three ranges may not begin a name. */
static int foreign_name(const char *p, int what)
{
	static const uint32_t range[][2] = {
		{0xC0, 0xD6}, {0xD8, 0xF6}, {0xF8, 0x2FF}, {0x370, 0x37D}, {0x37F, 0x1FFF},
		{0x200C, 0x200D}, {0x2070, 0x218F}, {0x2C00, 0x2FEF}, {0x3001, 0xD7FF},
		{0xF900, 0xFDCF}, {0xFDF0, 0xFFFD}, {0x10000, 0xEFFFF},
		{0xB7, 0xB7}, {0x300, 0x36F}, {0x203F, 0x2040}
	};
	size_t i, n = sizeof range / sizeof *range - (what == START ? 3 : 0);
	int k, len = xml_char(p, 4);
	uint32_t c = (unsigned char)*p & (0x7Fu >> len); /* NOLINT(clang-analyzer-core.UndefinedBinaryOperatorResult): p is checked */

	for (k = 1; k < len; k++)
		c = c << 6 | (p[k] & 0x3Fu);
	for (i = 0; i < n; i++)
		if (c >= range[i][0] && c <= range[i][1])
			return len;
	return 0;
}

/* Where the name that begins at p ends: at p, if none does. */
static const char *skip_name(const char *p, const char *end)
{
	int what = START, len;

	for (; p < end; p += len, what = NAME) {
		len = is(*p, what) ? 1 : (signed char)*p < 0 ? foreign_name(p, what) : 0;
		if (len == 0)
			break;
	}
	return p;
}

/* The UTF-8 form of c; its length, or 0 when XML has no such character. */
static int encode(unsigned long c, char *s)
{
	int i, len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	if (c > 0x10FFFF)
		return 0;
	for (i = len - 1; i > 0; i--, c >>= 6)
		s[i] = (char)(0x80 | (c & 0x3F));
	s[0] = (char)(c | (len > 1 ? 0xF0u << (4 - len) : 0));
	return xml_char(s, (size_t)len) > 0 ? len : 0;
}

/* -------------------------------------------------------------------- Pool */

static void release_pool(struct block *b)
{
	struct block *next;

	for (; b && --b->users == 0; b = next) {
		next = b->next;
		free(b);
	}
}

/* A block in which n bytes fit: the stanza's first, or one more behind that. */
static int add_block(struct xmlstream *xs, size_t n)
{
	struct block *first = xs->pool, *b;
	size_t size = first ? 2 * xs->block_size : FIRST_BLOCK;

	while (size < n + sizeof *b)
		size *= 2;
	b = malloc(size);
	if (!b)
		return no_memory(xs);
	*b = (struct block){.next = first ? first->next : xs->header, .users = 1};
	if (first)
		first->next = b;
	else
		xs->pool = b;
	if (!first && xs->header)
		xs->header->users++;
	xs->block_size = size;
	xs->top = (char *)(b + 1);
	xs->roof = (char *)b + size;
	return 0;
}

/* n bytes from the pool, aligned for any struct; NULL, and the error is set, when
 * memory ran out. n is at most about max_stanza. */
static void *allot(struct xmlstream *xs, size_t n)
{
	char *p;

	n += -n % sizeof(void *); /* rounds up */
	if ((!xs->pool || n > (size_t)(xs->roof - xs->top)) && add_block(xs, n))
		return NULL;
	p = xs->top;
	xs->top += n;
	return p;
}

/* A string of the characters [p, end), with n bytes of room before it. */
static void *keep(struct xmlstream *xs, size_t n, const char *p, const char *end)
{
	size_t length = (size_t)(end - p);
	char *room = allot(xs, n + length + 1);

	if (!room)
		return NULL;
	memcpy(room + n, p, length);
	room[n + length] = '\0';
	return room;
}

/* ------------------------------------------------------------------- Names */

/* Bound from the start (Namespaces in XML 1.0, sections 3 and 6.2): no prefix means
 * no namespace, until xmlns='...' says otherwise. */
static const struct binding no_prefix = {.prefix = "", .uri = ""};
static const struct binding predefined = {.prefix = "xml", .uri = XML_NS, .outer = &no_prefix};

/* The namespace of a name: what its prefix is bound to here, or NULL. */
static const char *lookup(const struct xmlstream *xs, const char *qname, const char *local)
{
	size_t n = local > qname ? (size_t)(local - qname) - 1 : 0;
	const struct binding *b = xs->bindings;

	while (b && (strncmp(b->prefix, qname, n) || b->prefix[n]))
		b = b->outer;
	return b ? b->uri : NULL;
}

/* In the qualified name [p, end) the part behind the colon; NULL when a colon
 * stands where none may. */
static const char *local_part(const char *p, const char *end)
{
	const char *colon = memchr(p, ':', (size_t)(end - p)), *local = colon ? colon + 1 : p;

	if (!colon)
		return p;
	return colon > p && skip_name(local, end) > local && !memchr(local, ':', (size_t)(end - local)) ? local : NULL;
}

/* Namespaces in XML 1.0, section 3, forbids xmlns:p='', to declare the prefix xmlns,
 * to bind xml to another URI than its own, and to bind another prefix, or none, to
 * the URI of xml or xmlns. `p` is the > of the tag. */
static int check_binding(struct xmlstream *xs, const struct binding *b, const char *p)
{
	const struct binding *other;

	if ((*b->prefix && !*b->uri) || !strcmp(b->prefix, "xmlns") || !strcmp(b->uri, XMLNS_NS)
	    || !strcmp(b->prefix, "xml") != !strcmp(b->uri, XML_NS))
		return fail(xs, p, "bad-namespace-prefix", "illegal xmlns declaration in the tag ending");
	for (other = b->outer; other->owner == b->owner; other = other->outer)
		if (!strcmp(other->prefix, b->prefix))
			return malformed(xs, p, "repeated xmlns declaration in the tag ending");
	return 0;
}

static int compare_attrs(const void *a, const void *b)
{
	const struct xml_attr *x = *(const struct xml_attr *const *)a;
	const struct xml_attr *y = *(const struct xml_attr *const *)b;
	int names = strcmp(x->name, y->name);

	return names ? names : strcmp(x->ns, y->ns);
}

/* Sorting keeps a tag with many attributes from costing their number squared;
 * for a few, comparing each with each is quicker. */
static int has_duplicates(const struct xml_attr *attrs)
{
	const struct xml_attr *seen[MAX_ATTRS];
	size_t n = 0, i, j, few = 8;

	for (; attrs; attrs = attrs->next)
		seen[n++] = attrs;
	if (n > few)
		qsort(seen, n, sizeof *seen, compare_attrs);
	for (i = 1; i < n; i++)
		for (j = n > few ? i - 1 : 0; j < i; j++)
			if (!compare_attrs(&seen[j], &seen[i]))
				return 1;
	return 0;
}

/* Where the qualified name of an element is: see begin_element(). */
static const char *qname_of(const struct xml_elem *e)
{
	return (const char *)(e + 1);
}

/* A tag's xmlns declarations may stand behind the names that use them, so names
 * are resolved when the whole tag has been read. Until here the `ns` of each
 * attribute holds its qualified name. `p` is the > of the tag. */
static int resolve_names(struct xmlstream *xs, const char *p)
{
	struct xml_elem *e = xs->elem;
	const struct binding *b;
	struct xml_attr *a;
	int undeclared;

	for (b = xs->bindings; b->owner == e; b = b->outer)
		if (check_binding(xs, b, p))
			return -1;
	e->ns = lookup(xs, qname_of(e), e->name);
	undeclared = !e->ns;
	for (a = e->attrs; a; a = a->next) {
		a->ns = a->ns == a->name ? "" : lookup(xs, a->ns, a->name);
		undeclared |= !a->ns;
	}
	if (undeclared)
		return fail(xs, p, "bad-namespace-prefix", "undeclared prefix in the tag ending");
	return has_duplicates(e->attrs) ? malformed(xs, p, "repeated attribute in the tag ending") : 0;
}

/* -------------------------------------------------------------------- Tree */

/* The text of an element that has children comes in pieces, but elements end
 * in the opposite order of their beginning: so all text under construction
 * lies in one buffer, a stack. An element that begins pushes its parent's
 * text_start, as raw bytes, and then its own text; end_element() pops both.
 * When <a>one<b>two has come:
 *
 *     ..., "one", text_start of a, "two"
 *                                  ^ text_start */

/* An element begins whose name is [p, end). Its qualified name, which the end
 * tag must repeat, stands right behind it. */
static int begin_element(struct xmlstream *xs, const char *p, const char *end)
{
	const char *local = local_part(p, end);
	struct xml_elem *e;

	if (p == end)
		return malformed(xs, p, "no name after <");
	if (xs->depth > MAX_DEPTH)
		return fail(xs, p, "policy-violation", "too many levels of elements");
	if (!local)
		return malformed(xs, p, "misplaced colon");
	e = keep(xs, sizeof *e, p, end);
	if (!e)
		return -1;
	*e = (struct xml_elem){.name = qname_of(e) + (local - p), .ns = "", .text = "", .parent = xs->elem};
	xs->elem = *xs->elem_slot = e;
	xs->elem_slot = &e->children;
	xs->attr_slot = &e->attrs;
	xs->depth++;
	if (buffer_append(&xs->text, &xs->text_start, sizeof xs->text_start))
		return no_memory(xs);
	xs->text_start = xs->text.end;
	return 0;
}

/* The innermost element is complete, and the next one is no child of it. A stanza
 * was a child of the stream header, and becomes the root of a tree of its own. */
static int end_element(struct xmlstream *xs)
{
	struct xml_elem *e = xs->elem;
	const char *text = xs->text.bytes + xs->text_start, *text_end = xs->text.bytes + xs->text.end;

	if (text < text_end && !(e->text = keep(xs, 0, text, text_end)))
		return -1;
	xs->text.end = xs->text_start - sizeof xs->text_start;
	memcpy(&xs->text_start, xs->text.bytes + xs->text.end, sizeof xs->text_start);
	while (xs->bindings->owner == e)
		xs->bindings = xs->bindings->outer;
	xs->elem = e->parent;
	xs->elem_slot = &e->next;
	if (--xs->depth > 1)
		return 0;
	e->parent = NULL;
	xs->event = XML_STANZA;
	return 0;
}

/* What a reference means, 1 to 4 bytes, goes to `to`: how many. p is behind its &,
 * end at its ;. */
static int dereference(struct xmlstream *xs, const char *p, const char *end, char *to)
{
	static const char *const entities[] = {"<lt;", ">gt;", "&amp;", "\"quot;", "'apos;"};
	size_t i, n = (size_t)(end - p);
	int hex = n > 1 && p[1] == 'x', len;

	if (n > 0 && *p == '#') {
		for (i = 1u + (unsigned)hex; i < n && is(p[i], hex ? HEX : DIGIT); i++)
			;
		len = i < n ? 0 : encode(strtoul(p + 1 + hex, NULL, hex ? 16 : 10), to);
		return len ? len : malformed(xs, p, "reference to no legal character");
	}
	if (skip_name(p, end) < end || n == 0)
		return malformed(xs, p, "bad reference");
	for (i = 0; i < 5; i++)
		if (!strncmp(entities[i] + 1, p, n + 1)) {
			*to = *entities[i];
			return 1;
		}
	return fail(xs, p, "restricted-xml", "unknown entity");
}

/* The attribute value [p, end) as the application sees it: references replaced,
 * line breaks and tabs as spaces (XML 1.0 sections 2.11 and 3.3.3). */
static char *unescape(struct xmlstream *xs, const char *p, const char *end)
{
	char *value = allot(xs, (size_t)(end - p) + 1), *to = value;
	const char *ref;
	int n;

	if (!value)
		return NULL;
	while (p < end) {
		if (*p != '&') {
			*to++ = is(*p, SPACE) ? ' ' : *p;
			p += *p == '\r' && p[1] == '\n' ? 2 : 1;
			continue;
		}
		ref = p + 1;
		p = memchr(ref, ';', (size_t)(end - ref));
		n = p ? dereference(xs, ref, p, to) : malformed(xs, ref, "bad reference");
		if (n < 0)
			return NULL;
		to += n;
		p++;
	}
	*to = '\0';
	return value;
}

/* At p, its prefix is [prefix, end). Every name is looked up among all bindings in
 * scope, so many of them would make a hostile stanza slow. */
static int add_binding(struct xmlstream *xs, const char *p, const char *prefix, const char *end, const char *uri)
{
	struct binding *b = keep(xs, sizeof *b, prefix, end);

	if (!b)
		return -1;
	*b = (struct binding){(const char *)(b + 1), uri, xs->elem, xs->bindings, xs->bindings->count + 1};
	if (b->count > MAX_BINDINGS)
		return fail(xs, p, "policy-violation", "too many xmlns declarations");
	xs->bindings = b;
	return 0;
}

/* An attribute, or xmlns='uri' or xmlns:prefix='uri', which is a binding. Its
 * name is [p, end). Its `ns` holds the qualified name until resolve_names(). */
static int add_attr(struct xmlstream *xs, const char *p, const char *end, const char *value)
{
	size_t n = (size_t)(end - p);
	const char *qname, *local = local_part(p, end);
	struct xml_attr *a;

	if (!local)
		return malformed(xs, p, "misplaced colon");
	if (n >= 5 && !memcmp(p, "xmlns", 5) && (n == 5 || p[5] == ':'))
		return add_binding(xs, p, n == 5 ? end : local, end, value);
	a = keep(xs, sizeof *a, p, end);
	if (!a)
		return -1;
	qname = (const char *)(a + 1);
	*a = (struct xml_attr){.name = qname + (local - p), .ns = qname, .value = value};
	*xs->attr_slot = a;
	xs->attr_slot = &a->next;
	return 0;
}

/* ------------------------------------------------------------------ Tokens */

/* The length of the tag that begins at p; 0 when its end is not there yet. A >
 * inside quotes is not it. What was looked at once is not looked at again. */
static long measure_tag(struct xmlstream *xs, const char *p, const char *end)
{
	const char *q = p + (xs->scanned ? xs->scanned : 1);

	if (!xs->scanned)
		xs->plain = 1;
	for (; (q = find(q, end, TAG)) < end; q++) {
		if (*q == '<')
			return malformed(xs, q, "< inside a tag");
		if (*q == '>' && !xs->quote)
			return q + 1 - p;
		if (*q == '&' || is(*q, SPACE))
			xs->plain = 0;
		else if (*q != '>')
			xs->quote = !xs->quote ? *q : *q == xs->quote ? 0 : xs->quote;
	}
	xs->scanned = (size_t)(end - p);
	return 0;
}

/* The attributes of a start tag, from behind its name to its end. Each needs
 * white space before it. Quotes are closed: measure_tag() has seen to it. */
static int take_attrs(struct xmlstream *xs, const char *p, const char *end)
{
	const char *name, *name_end, *equals, *quote, *value;
	size_t n;

	for (n = 0; (name = skip_space(p, end)) < end; n++) {
		name_end = skip_name(name, end);
		equals = skip_space(name_end, end);
		quote = skip_space(equals + (equals < end), end);
		if (name == p || name == name_end || equals == end || *equals != '=')
			return malformed(xs, name, "not an attribute");
		if (quote == end || (*quote != '\'' && *quote != '"'))
			return malformed(xs, quote, "attribute value without quotes");
		if (n == MAX_ATTRS)
			return fail(xs, name, "policy-violation", "too many attributes");
		p = memchr(quote + 1, *quote, (size_t)(end - quote - 1));
		value = xs->plain ? keep(xs, 0, quote + 1, p) : unescape(xs, quote + 1, p);
		p++;
		if (!value || add_attr(xs, name, name_end, value))
			return -1;
	}
	return 0;
}

/* <name attribute='value'> or <name/>: [p, end) is all between the < and >. */
static int take_start_tag(struct xmlstream *xs, const char *p, const char *end)
{
	int empty = end > p && end[-1] == '/';
	const char *name_end = skip_name(p, end);

	if (begin_element(xs, p, name_end) || take_attrs(xs, name_end, end - empty) || resolve_names(xs, end))
		return -1;
	if (xs->depth > 1)
		return empty ? end_element(xs) : 0;
	xs->header = xs->pool;
	xs->header->users++; /* the caller and the parser */
	xs->text_start = xs->text.end = 0; /* the root has no text */
	xs->depth = !empty;
	xs->event = XML_OPEN;
	return 0;
}

/* </name>: [p, end) is what stands between / and >. */
static int take_end_tag(struct xmlstream *xs, const char *p, const char *end)
{
	const char *qname = xs->depth ? qname_of(xs->elem) : "";
	size_t n = strlen(qname);

	if (n == 0 || (size_t)(end - p) < n || memcmp(p, qname, n) || skip_space(p + n, end) < end)
		return malformed(xs, p, "end tag of another element");
	if (xs->depth > 1)
		return end_element(xs);
	xs->depth = 0;
	xs->event = XML_CLOSE;
	return 0;
}

/* The value of the next attribute, if it has that name, and on to the next. The
 * name is the qualified one, in `ns`: this is before resolve_names(). */
static const char *next_value(struct xml_attr **a, const char *name)
{
	const char *value = *a && !strcmp((*a)->ns, name) ? (*a)->value : NULL;

	*a = value ? (*a)->next : *a;
	return value;
}

/* S: <?xml version='1.0' encoding='UTF-8' standalone='yes'?>
 * Read like a tag, but it may have just these attributes, in this order (XML
 * 1.0 section 2.8; RFC 6120 sections 11.5 and 11.6). p is at the x, end at the
 * second ?. */
static int take_declaration(struct xmlstream *xs, const char *p, const char *end)
{
	const char *version, *encoding, *standalone;
	struct xml_attr *a;

	xs->attr_slot = &xs->declared;
	if (*end != '?' || memchr(p, '&', (size_t)(end - p)) || take_attrs(xs, p + 3, end))
		return xs->event == XML_ERROR ? -1 : malformed(xs, end, "bad XML declaration");
	a = xs->declared;
	version = next_value(&a, "version");
	encoding = next_value(&a, "encoding");
	standalone = next_value(&a, "standalone");
	if (a || xs->bindings->count > 0 || !version || strncmp(version, "1.", 2) || !version[2]
	    || version[2 + strspn(version + 2, "0123456789")]
	    || (standalone && strcmp(standalone, "yes") && strcmp(standalone, "no")))
		return malformed(xs, p, "bad XML declaration");
	if (encoding && strcasecmp(encoding, "UTF-8"))
		return fail(xs, p, "unsupported-encoding", "encoding other than UTF-8 declared");
	release_pool(xs->pool);
	xs->pool = NULL;
	return 0;
}

/* <! or <? at p. Of these only <![CDATA[ is allowed, where text is, and <?xml
 * at the very start; the rest is refused as soon as its first characters tell what
 * it is. */
static long take_markup(struct xmlstream *xs, const char *p, const char *end)
{
	size_t n = (size_t)(end - p);
	long length;

	if (!memcmp(p, "<![CDATA[", n < 9 ? n : 9)) {
		if (n < 9)
			return 0;
		if (xs->depth < 2)
			return fail(xs, p, xs->depth ? "bad-format" : "not-well-formed", "text outside of a stanza");
		xs->in_cdata = 1;
		return 9;
	}
	if (p[1] == '!' && (p[2] == '-' || p[2] == 'D'))
		return fail(xs, p, "restricted-xml", p[2] == '-' ? "comment" : "document type declaration");
	if (p[1] == '!')
		return malformed(xs, p, "unknown markup");
	if (xs->offset > 0 || memcmp(p, "<?xml", n < 5 ? n : 5) || (n > 5 && !is(p[5], SPACE)))
		return fail(xs, p, "restricted-xml", "processing instruction");
	length = measure_tag(xs, p, end);
	return length > 0 && take_declaration(xs, p + 2, p + length - 2) ? -1 : length;
}

/* n bytes of text, which take up `used` bytes of the input. */
static long add_text(struct xmlstream *xs, const char *text, size_t n, long used)
{
	if (!xs->skipping && buffer_append(&xs->text, text, n))
		return no_memory(xs);
	return used;
}

/* A reference in text: its & is at p. */
static long take_reference(struct xmlstream *xs, const char *p, const char *end)
{
	const char *q = p + (xs->scanned ? xs->scanned : 1);
	char c[4];
	int n;

	while (q < end && (is(*q, NAME) || *q == '#' || (unsigned char)*q >= 0x80))
		q++;
	if (q == end) {
		xs->scanned = (size_t)(q - p);
		return 0;
	}
	if (*q != ';')
		return malformed(xs, q, "bad reference");
	n = dereference(xs, p + 1, q, c);
	return n < 0 ? -1 : add_text(xs, c, (size_t)n, q + 1 - p);
}

/* Text: a run of characters that mean nothing else, or one that might; of CR and
 * ] the next characters decide. CR LF and CR are read as LF (XML 1.0 section
 * 2.11). */
static long take_text(struct xmlstream *xs, const char *p, const char *end)
{
	const char *q = find(p, end, TEXT);

	if (q > p)
		return add_text(xs, p, (size_t)(q - p), q - p);
	if (*p == '&' && !xs->in_cdata)
		return take_reference(xs, p, end);
	if ((*p == '\r' && end - p < 2) || (*p == ']' && end - p < 3))
		return 0;
	if (*p == '\r')
		return add_text(xs, "\n", 1, p[1] == '\n' ? 2 : 1);
	if (*p != ']' || memcmp(p, "]]>", 3))
		return add_text(xs, p, 1, 1);
	if (!xs->in_cdata)
		return malformed(xs, p, "]]> in text");
	xs->in_cdata = 0;
	return 3;
}

/* A tag of a stanza that is skipped: by how many levels the next token lies deeper.
 * Names and attributes are not looked at any more. */
static int skip_tag(struct xmlstream *xs, int levels)
{
	xs->depth += (size_t)levels;
	if (xs->depth > 1)
		return 0;
	xs->skipping = 0;
	xs->event = XML_SKIPPED;
	return 0;
}

/* The tag that is n bytes long. */
static int take_tag(struct xmlstream *xs, const char *p, long n)
{
	if (xs->skipping)
		return skip_tag(xs, p[1] == '/' ? -1 : p[n - 2] == '/' ? 0 : 1);
	return p[1] == '/' ? take_end_tag(xs, p + 2, p + n - 1) : take_start_tag(xs, p + 1, p + n - 1);
}

/* One token of the characters [p, end): how many of them it takes; 0 when it is
 * not complete. Outside of stanzas there are only tags, and white space, which
 * keeps connections alive (RFC 6120 section 4.6.1). */
static long take_token(struct xmlstream *xs, const char *p, const char *end)
{
	long n;

	if (xs->depth > 1 && (*p != '<' || xs->in_cdata))
		return take_text(xs, p, end);
	if (is(*p, SPACE))
		return skip_space(p, end) - p;
	if (xs->depth == 0 && xs->header)
		return malformed(xs, p, "more after the end of the stream");
	if (*p != '<')
		return fail(xs, p, xs->depth ? "bad-format" : "not-well-formed", "text outside of a stanza");
	if (end - p > 1 && (p[1] == '!' || p[1] == '?'))
		return take_markup(xs, p, end);
	n = measure_tag(xs, p, end);
	return n > 0 && take_tag(xs, p, n) ? -1 : n;
}

/* ------------------------------------------------------------------ Events */

/* The stanza under way exceeds a limit. Somebody far away may have made it, whom
 * the server let pass, so the stream goes on without it: what there is of it is
 * dropped. The token that was too much, at that depth, is taken once more. */
static void skip_stanza(struct xmlstream *xs, size_t depth)
{
	while (xs->elem->parent)
		xs->elem = xs->elem->parent;
	while (xs->bindings->owner && xs->bindings->owner != xs->elem)
		xs->bindings = xs->bindings->outer;
	release_pool(xs->pool);
	xs->pool = NULL;
	buffer_free(&xs->text);
	xs->elem_slot = &xs->tree;
	xs->depth = depth;
	xs->text_start = xs->scanned = 0;
	xs->quote = 0;
	xs->skipping = 1;
	xs->event = XML_MORE;
	xs->condition = NULL;
}

/* Takes tokens until something has happened or the next one is not complete.
 * A stanza is counted from its <, the stream header from byte 0, and no token
 * sees what is beyond the limit. In a stanza that is skipped the limit is for each
 * token. */
static void take_tokens(struct xmlstream *xs)
{
	const char *p;
	size_t left, depth;
	long n;

	while (xs->event == XML_MORE && xs->whole > 0) {
		p = xs->in.bytes + xs->in.start;
		if (xs->header && (xs->depth < 2 || xs->skipping))
			xs->limit = xs->offset + xs->max_stanza;
		left = xs->limit - xs->offset < xs->whole ? (size_t)(xs->limit - xs->offset) : xs->whole;
		depth = xs->depth;
		n = left ? take_token(xs, p, p + left) : 0;
		if (n == 0 && left < xs->whole)
			n = fail(xs, p + left, "policy-violation", "stanza too long");
		if (n < 0 && xs->header && !xs->skipping && !strcmp(xs->condition, "policy-violation")) {
			skip_stanza(xs, depth);
			continue;
		}
		if (n <= 0)
			return;
		xs->scanned = 0;
		xs->offset += (uint64_t)n;
		xs->whole -= (size_t)n;
		buffer_consume(&xs->in, (size_t)n);
	}
}

/* Lets go of all memory but the parser's own. */
static void abandon(struct xmlstream *xs)
{
	release_pool(xs->pool);
	release_pool(xs->header);
	xs->pool = xs->header = NULL;
	buffer_free(&xs->in);
	buffer_free(&xs->text);
}

enum xml_event xmlstream_next(struct xmlstream *xs, struct xml_elem **out)
{
	const char *bad;

	*out = NULL;
	if (xs->event == XML_ERROR)
		return XML_ERROR;
	if (xs->event == XML_OPEN && xs->depth == 0) /* <stream/> */
		return xs->event = XML_CLOSE;
	xs->event = XML_MORE;
	take_tokens(xs);
	if (xs->event == XML_OPEN || xs->event == XML_STANZA) {
		*out = xs->tree;
		xs->pool = NULL;
		xs->elem_slot = &xs->tree;
		buffer_consume(&xs->text, 0); /* empty by now: frees it if it had grown large */
	}
	if (xs->event == XML_MORE && xs->in.end - xs->in.start > xs->whole) {
		bad = xs->in.bytes + xs->in.start + xs->whole;
		if (xml_char(bad, (size_t)(xs->in.bytes + xs->in.end - bad)) < 0)
			malformed(xs, bad, "illegal character, or not UTF-8,");
	}
	if (xs->event == XML_ERROR)
		abandon(xs);
	return xs->event;
}

const char *xmlstream_error(const struct xmlstream *xs)
{
	return xs->condition ? xs->error : NULL;
}

const char *xmlstream_condition(const struct xmlstream *xs)
{
	return xs->condition;
}

uint64_t xmlstream_offset(const struct xmlstream *xs)
{
	return xs->offset;
}

struct xmlstream *xmlstream_new(size_t max_stanza)
{
	struct xmlstream *xs = calloc(1, sizeof *xs);

	if (!xs)
		return NULL;
	xs->max_stanza = max_stanza ? max_stanza : MAX_STANZA;
	xmlstream_reset(xs);
	return xs;
}

void xmlstream_reset(struct xmlstream *xs)
{
	abandon(xs);
	*xs = (struct xmlstream){.max_stanza = xs->max_stanza, .limit = xs->max_stanza, .bindings = &predefined};
	xs->elem_slot = &xs->tree;
}

void xmlstream_free(struct xmlstream *xs)
{
	if (xs)
		abandon(xs);
	free(xs);
}

/* ------------------------------------------------------- Looking at a tree */

void xml_free(struct xml_elem *root)
{
	if (root)
		release_pool((struct block *)(void *)root - 1);
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
	const char *its = xml_get(e, name);

	return its && !strcmp(its, value);
}

struct xml_elem *xml_child(const struct xml_elem *e, const char *name, const char *ns)
{
	struct xml_elem *c;

	for (c = e ? e->children : NULL; c; c = c->next)
		if (!strcmp(c->name, name) && (!ns || !strcmp(c->ns, ns)))
			break;
	return c;
}

static void print_escaped(const char *s, const char *special, FILE *out)
{
	for (; *s; s++)
		if (strchr(special, *s))
			fprintf(out, "&#%d;", *s);
		else
			putc(*s, out);
}

/* ='value', escaped so that no parser changes it. */
static void print_value(const char *value, FILE *out)
{
	fputs("='", out);
	print_escaped(value, "<>&'\r\n\t", out);
	putc('\'', out);
}

/* Nothing but xml: may stand for its namespace, also in the name of an element. */
static const char *prefix_of(const char *ns)
{
	return strcmp(ns, XML_NS) ? "" : "xml:";
}

/* The start tag without its >, inside an element in that namespace. The default
 * namespace is declared where it changes; an attribute in a namespace gets a prefix
 * made up on the spot. */
static void print_start(const struct xml_elem *e, const char *outer_ns, FILE *out)
{
	const struct xml_attr *a;
	int n = 0;

	fprintf(out, "<%s%s", prefix_of(e->ns), e->name);
	if (!*prefix_of(e->ns) && strcmp(e->ns, outer_ns)) {
		fputs(" xmlns", out);
		print_value(e->ns, out);
	}
	for (a = e->attrs; a; a = a->next) {
		if (*a->ns && !*prefix_of(a->ns)) {
			fprintf(out, " xmlns:n%d", ++n);
			print_value(a->ns, out);
			fprintf(out, " n%d:%s", n, a->name);
		} else {
			fprintf(out, " %s%s", prefix_of(a->ns), a->name);
		}
		print_value(a->value, out);
	}
}

/* Walks the tree by its links: down to the first child, else on to the next, else
 * up. A tag's > is printed when it is known what follows, behind the line break:
 * there that is part of the tag and not of the text. (Between the / and > of an
 * empty element none may stand, so that has an end tag, too.) */
void xml_print(const struct xml_elem *root, FILE *out)
{
	const struct xml_elem *e = root;
	int depth = 0;

	for (;;) {
		print_start(e, e == root ? "" : e->parent->ns, out);
		if (e->children)
			fprintf(out, "\n%*s", 2 * ++depth, "");
		putc('>', out);
		print_escaped(e->text, "<>&\r", out);
		if (e->children) {
			e = e->children;
			continue;
		}
		fprintf(out, "</%s%s", prefix_of(e->ns), e->name);
		for (; e != root && !e->next; e = e->parent)
			fprintf(out, "\n%*s></%s%s", 2 * --depth, "", prefix_of(e->parent->ns), e->parent->name);
		if (e == root)
			break;
		fprintf(out, "\n%*s>", 2 * depth, "");
		e = e->next;
	}
	fputs(">\n", out);
}
