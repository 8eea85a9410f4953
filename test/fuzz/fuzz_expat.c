/* fuzz_expat.c - gives any bytes to the tokenizer and to expat, which has been parsing
 * XML for decades. If expat rejects the bytes as XML, we must reject them. If it rejects
 * a stanza only because of namespaces, we must skip that. If it accepts the bytes, we
 * must accept and understand them alike, unless RFC 6120 section 11 forbids them. Needs
 * -lexpat. */
#define LLVMFuzzerTestOneInput cut_into_pieces
#include "fuzz_xml.c"
#undef LLVMFuzzerTestOneInput

#include <expat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* An element that expat has started and not yet ended. */
struct open_elem {
	struct open_elem *parent;
	struct buffer text;
};

struct oracle {
	struct buffer dump;
	size_t whole;           /* its length up to the end of the header or the last whole stanza */
	struct open_elem *innermost;
	int other_version;      /* not XML 1.x; expat accepts it, production VersionNum does not */
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

/* True if the bytes are a whole document of well-formed XML. */
static int is_well_formed(const uint8_t *bytes, size_t n)
{
	XML_Parser p = XML_ParserCreate("UTF-8");
	int good;

	if (!p)
		abort();
	good = XML_Parse(p, (const char *)bytes, (int)n, 1) == XML_STATUS_OK;
	XML_ParserFree(p);
	return good;
}

/* True if the bytes are a whole document of XML with namespaces. Dumps the document. */
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

/* True if there may be a name that is not ASCII. The fifth edition of XML 1.0, which RFC 6120
 * requires, allows many that the fourth did not, and expat follows the fourth. */
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

/* True if a stanza may have been skipped because of its number of attributes or declarations, which
 * expat does not limit. */
static int has_many_attributes(const uint8_t *bytes, size_t n)
{
	size_t i, attributes = 0;

	for (i = 0; i < n; i++)
		attributes += bytes[i] == '=';
	return attributes > 100;
}

/* Compares our verdict with expat's, without namespaces and with them. */
static void compare_verdicts(const struct result *ours, int well_formed, int good)
{
	int malformed = ours->end == XML_ERROR && !strcmp(ours->condition, "not-well-formed");

	if (ours->end == XML_CLOSE && !ours->unchecked && !well_formed)
		abort(); /* expat rejects input that we accept or skip */
	if (ours->end == XML_CLOSE && !ours->skipped && !good)
		abort(); /* expat rejects input that we accept */
	if (good && (ours->end == XML_MORE || malformed || !strcmp(ours->condition, "bad-namespace-prefix")))
		abort(); /* expat accepts input that we reject */
	if (well_formed && ours->opened && malformed)
		abort(); /* a stanza that we should have skipped */
}

static void compare_dumps(const struct result *ours, const struct oracle *o)
{
	size_t n = ours->skipped ? ours->sure : ours->dump.end - ours->dump.start;

	if (n > o->whole || (n > 0 && memcmp(ours->dump.bytes + ours->dump.start, o->dump.bytes, n)))
		abort(); /* expat has other elements, or fewer */
	if (ours->end == XML_CLOSE && !ours->skipped && n != o->whole)
		abort(); /* expat has more elements */
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct result ours;
	struct oracle o;
	int good;

	cut_into_pieces(bytes, n);
	parse_pieces(&ours, bytes, n, 1);
	if (ours.end == XML_CLOSE)
		n = ours.used;
	good = ask_expat(&o, bytes, n);
	if (has_many_attributes(bytes, n))
		ours.unchecked = ours.skipped; /* surplus attributes may have been repeated */
	if (!has_foreign_name(bytes, n)) {
		compare_verdicts(&ours, !o.other_version && is_well_formed(bytes, n), good);
		compare_dumps(&ours, &o);
		if (good && ours.skipped > ours.unchecked)
			abort(); /* we skip a stanza whose namespaces are correct */
	}
	buffer_free(&ours.dump);
	buffer_free(&o.dump);
	return 0;
}
