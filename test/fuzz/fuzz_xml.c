/* fuzz_xml.c - gives any bytes to the tokenizer. However they are cut into pieces,
 * the same must come out. This is a target for libFuzzer and AFL++ (see fuzz.sh);
 * with fuzz_main.c it is a program that plays a corpus. */
#define _POSIX_C_SOURCE 200809L
#include "../../xmpp.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST_STANZA = 4096 /* so that a fuzzer reaches the limit */ };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* The result of parsing: the trees in a notation of our own, and how it ended. */
struct result {
	struct buffer dump;
	int opened;             /* there was a stream header */
	int skipped;            /* number of stanzas that were skipped */
	int unchecked;          /* number of those whose bytes were not kept, so not checked */
	size_t sure;            /* length of the dump before the first of them */
	enum xml_event end;     /* XML_MORE, XML_CLOSE or XML_ERROR */
	size_t used;            /* number of bytes that were fed until then */
	char condition[40];     /* after XML_ERROR */
};

static void add(struct buffer *dump, const char *text)
{
	if (buffer_append(dump, text, strlen(text)))
		abort();
}

static void add_name(struct buffer *dump, const char *ns, const char *name)
{
	if (*ns) {
		add(dump, ns);
		add(dump, "\f");
	}
	add(dump, name);
}

static void add_tag(struct buffer *dump, const struct xml_elem *e)
{
	const struct xml_attr *a;

	add(dump, "<");
	add_name(dump, e->ns, e->name);
	for (a = e->attrs; a; a = a->next) {
		add(dump, "\n");
		add_name(dump, a->ns, a->name);
		add(dump, "=");
		add(dump, a->value);
	}
	add(dump, ">");
}

/* Adds the tag, the children, the text and the end, in this order: the tree does not know where
 * between the children the text was. */
static void add_tree(struct buffer *dump, const struct xml_elem *root)
{
	const struct xml_elem *e = root;

	for (;;) {
		add_tag(dump, e);
		if (e->children) {
			e = e->children;
			continue;
		}
		while (add(dump, e->text), add(dump, "</>\n"), e != root && !e->next)
			e = e->parent;
		if (e == root)
			return;
		e = e->next;
	}
}

/* Takes all events of the bytes so far. */
static void take_events(struct xmlstream *xs, struct result *r)
{
	struct xml_elem *e;
	size_t n;

	do {
		r->end = xmlstream_next(xs, &e);
		xmlstream_raw(xs, &n);
		r->opened |= r->end == XML_OPEN;
		r->unchecked += r->end == XML_SKIPPED && n == 0;
		if (r->end == XML_OPEN)
			add_tag(&r->dump, e);
		else if (r->end == XML_STANZA)
			add_tree(&r->dump, e);
		else if (r->end == XML_SKIPPED && !r->skipped++)
			r->sure = r->dump.end;
		xml_free(e);
	} while (r->end == XML_OPEN || r->end == XML_STANZA || r->end == XML_SKIPPED);
}

/* Feeds the bytes in pieces. */
static void parse_pieces(struct result *r, const uint8_t *bytes, size_t n, size_t piece)
{
	struct xmlstream *xs = xmlstream_new(LONGEST_STANZA);
	size_t i, now;

	memset(r, 0, sizeof *r);
	r->end = XML_MORE;
	for (i = 0; i < n && r->end == XML_MORE; i += now) {
		now = n - i < piece ? n - i : piece;
		if (!xs || xmlstream_feed(xs, bytes + i, now))
			abort();
		take_events(xs, r);
	}
	r->used = i;
	if (r->end == XML_ERROR)
		snprintf(r->condition, sizeof r->condition, "%s", xmlstream_condition(xs));
	xmlstream_free(xs);
}

static void must_be_same(const struct result *a, const struct result *b)
{
	size_t n = a->dump.end - a->dump.start;

	if (a->end != b->end || a->skipped != b->skipped || a->unchecked != b->unchecked || a->sure != b->sure
	    || strcmp(a->condition, b->condition) || n != b->dump.end - b->dump.start
	    || (n > 0 && memcmp(a->dump.bytes + a->dump.start, b->dump.bytes + b->dump.start, n)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static const size_t pieces[] = {1, 3, 64};
	struct result whole, other;
	size_t i;

	parse_pieces(&whole, bytes, n, n);
	for (i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		parse_pieces(&other, bytes, n, pieces[i]);
		must_be_same(&whole, &other);
		buffer_free(&other.dump);
	}
	buffer_free(&whole.dump);
	return 0;
}
