/* fuzz_expat.c - any bytes, to the tokenizer and to expat, which has been parsing
 * XML for decades. What expat rejects we must reject. What it accepts we must
 * accept, but for what RFC 6120 section 11 forbids, and understand alike. Needs
 * -lexpat. */
#define LLVMFuzzerTestOneInput cut_into_pieces
#include "fuzz_xml.c"
#undef LLVMFuzzerTestOneInput

#include <expat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* An element that expat has begun and not yet ended. */
struct open_elem {
	struct open_elem *parent;
	struct buffer text;
};

struct oracle {
	struct buffer dump;
	size_t whole;           /* of it, up to the last whole stanza, or the header */
	struct open_elem *innermost;
	int other_version;      /* XML 2.0, say: expat does not mind, production VersionNum does */
};

static void on_declaration(void *data, const char *version, const char *encoding, int standalone)
{
	struct oracle *o = data;

	(void)encoding;
	(void)standalone;
	o->other_version = version && (strncmp(version, "1.", 2) || !version[2] || version[2 + strspn(version + 2, "0123456789")]);
}

static void on_start(void *data, const char *name, const char **attrs)
{
	struct oracle *o = data;
	struct open_elem *e = calloc(1, sizeof *e);

	if (!e)
		abort();
	e->parent = o->innermost;
	o->innermost = e;
	add(&o->dump, "<");
	add(&o->dump, name);
	for (; *attrs; attrs += 2) {
		add(&o->dump, "\n");
		add(&o->dump, attrs[0]);
		add(&o->dump, "=");
		add(&o->dump, attrs[1]);
	}
	add(&o->dump, ">");
	if (!e->parent)
		o->whole = o->dump.end;
}

static void on_text(void *data, const char *text, int n)
{
	struct oracle *o = data;

	if (buffer_append(&o->innermost->text, text, (size_t)n))
		abort();
}

static void close_innermost(struct oracle *o)
{
	struct open_elem *e = o->innermost;

	o->innermost = e->parent;
	buffer_free(&e->text);
	free(e);
}

static void on_end(void *data, const char *name)
{
	struct oracle *o = data;
	struct buffer *text = &o->innermost->text;

	(void)name;
	if (o->innermost->parent) { /* the root's text is between the stanzas */
		if (text->end && buffer_append(&o->dump, text->bytes, text->end))
			abort();
		add(&o->dump, "</>\n");
		if (!o->innermost->parent->parent)
			o->whole = o->dump.end;
	}
	close_innermost(o);
}

/* Returns whether it is a whole document. */
static int ask_expat(struct oracle *o, const uint8_t *bytes, size_t n)
{
	XML_Parser p = XML_ParserCreateNS("UTF-8", '\f');
	int good;

	memset(o, 0, sizeof *o);
	if (!p)
		abort();
	XML_SetUserData(p, o);
	XML_SetXmlDeclHandler(p, on_declaration);
	XML_SetElementHandler(p, on_start, on_end);
	XML_SetCharacterDataHandler(p, on_text);
	good = XML_Parse(p, (const char *)bytes, (int)n, 1) == XML_STATUS_OK;
	XML_ParserFree(p);
	while (o->innermost)
		close_innermost(o);
	return good && !o->other_version;
}

/* A name beyond ASCII, perhaps: the fifth edition of XML 1.0, which RFC 6120 asks
 * for, allows many that the fourth did not, and expat follows the fourth. */
static int has_foreign_name(const uint8_t *bytes, size_t n)
{
	int in_tag = 0;
	uint8_t quote = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (in_tag && (quote || bytes[i] == '\'' || bytes[i] == '"'))
			quote = !quote ? bytes[i] : bytes[i] == quote ? 0 : quote;
		else if (bytes[i] == '<' || bytes[i] == '>')
			in_tag = bytes[i] == '<';
		else if (in_tag && bytes[i] >= 0x80)
			return 1;
	}
	return 0;
}

static void compare(const struct result *ours, const struct oracle *o, int good)
{
	size_t n = ours->skipped ? ours->sure : ours->dump.end - ours->dump.start;

	if (n > o->whole || (n > 0 && memcmp(ours->dump.bytes + ours->dump.start, o->dump.bytes, n)))
		abort(); /* it has understood something else, or nothing at all */
	if (ours->skipped)
		return; /* what was skipped was not checked */
	if (ours->end == XML_CLOSE && !good)
		abort(); /* it rejects what we accept */
	if (good && ours->end != XML_CLOSE && (ours->end == XML_MORE || !strcmp(ours->condition, "not-well-formed")
	    || !strcmp(ours->condition, "bad-namespace-prefix")))
		abort(); /* it accepts what we reject */
	if (ours->end == XML_CLOSE && n != o->whole)
		abort(); /* or more */
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct result ours;
	struct oracle o;
	int good;

	cut_into_pieces(bytes, n);
	parse_pieces(&ours, bytes, n, n);
	good = ask_expat(&o, bytes, ours.end == XML_CLOSE ? (size_t)ours.used : n);
	if (!has_foreign_name(bytes, n))
		compare(&ours, &o, good);
	buffer_free(&ours.dump);
	buffer_free(&o.dump);
	return 0;
}
