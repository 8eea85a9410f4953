/* bench_xml.c - measures how fast bytes become trees: with our tokenizer, and with the
 * other parsers for which this was compiled (-DEXPAT -lexpat, -DIKSEMEL -liksemel,
 * -DLIBXML2 -lxml2). They take turns, so that other load on the machine affects all of
 * them. The floor is a memcpy(), and a memchr() for each '<'.
 *
 * The bytes are typical input of a client: messages, presence, a roster, a busy room.
 * Each line shows how many MB a parser takes in a second of CPU time (the median of
 * several rounds), in reads of 4 KB and of single bytes, and how many times as fast
 * ours is. Then comes the speed with single stanzas from 4 KB to 1 MB, each large in
 * one dimension. It must not fall as they grow. The last line shows how much memory
 * the unfinished stanzas of 100 connections take. */
#define _POSIX_C_SOURCE 200809L
#include "../../xmpp.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef EXPAT
#include <expat.h>
#endif
#ifdef IKSEMEL
#include <iksemel.h>
#endif
#ifdef LIBXML2
#include <libxml/parser.h>
#include <libxml/SAX2.h>
#endif

enum { BYTES = 1 << 20, ROUNDS = 9 };

static const char header[] = "<?xml version='1.0'?><stream:stream id='1' from='localhost' version='1.0' xml:lang='en' "
                             "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

static const char *const stanzas[] = {
	"<message to='echobot@localhost/8Fxe6PUd7PYF' xml:lang='en' type='chat' id='m%d' from='alice@localhost/phone'>"
	"<body>O Romeo, Romeo! wherefore art thou Romeo?</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>",

	"<message to='jumperbot_7@localhost/x1' type='groupchat' id='%d' from='bot_room_3@conference.localhost/jumperbot_%d'>"
	"<body>Deny thy father &amp; refuse thy name; or, if thou wilt not, be but sworn my love, and I&apos;ll no longer be "
	"a Capulet. \xE2\x80\x94 Shall I hear more, or shall I speak at this?</body></message>",

	"<presence to='jumperbot_7@localhost/x1' from='bot_room_3@conference.localhost/jumperbot_%d'>"
	"<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://prosody.im' ver='9vfmHhcGKktu+nRS+VYRfKfbNn0='/>"
	"<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/>"
	"<status code='100'/><status code='110'/></x></presence>",

	"<iq type='result' id='roster%d' to='alice@localhost/phone'><query xmlns='jabber:iq:roster' ver='ver%d'>"
	"<item jid='romeo@montague.example' name='Romeo' subscription='both'><group>Friends</group></item>"
	"<item jid='mercutio@montague.example' name='Mercutio' subscription='from'/>"
	"<item jid='benvolio@montague.example' name='Benvolio' subscription='both'/>"
	"<item jid='nurse@capulet.example' name='Nurse' subscription='both'><group>Family</group></item></query></iq>",

	"<iq type='get' id='p%d' from='localhost' to='alice@localhost/phone'><ping xmlns='urn:xmpp:ping'/></iq>"
};

static char traffic[2 * BYTES];
static size_t traffic_size;
static long trees;                  /* number of trees that the last parser made */

static void make_traffic(void)
{
	int i;

	traffic_size = (size_t)snprintf(traffic, sizeof traffic, "%s", header);
	for (i = 0; traffic_size < BYTES; i++) {
		/* as in a busy room, most of it is messages and presence */
		const char *stanza = stanzas[i % 16 == 15 ? 3 : i % 16 == 7 ? 4 : i % 3];

		traffic_size += (size_t)snprintf(traffic + traffic_size, sizeof traffic - traffic_size, stanza, i, i % 50);
	}
}

static void give_up(const char *what)
{
	fprintf(stderr, "bench_xml: %s\n", what);
	exit(1);
}

/* --------------------------------------------------------------- The parsers */

static void run_ours(size_t piece)
{
	struct xmlstream *xs = xmlstream_new(2 * BYTES);
	enum xml_event event;
	struct xml_elem *e;
	size_t i, n;

	for (i = 0; i < traffic_size; i += n) {
		n = traffic_size - i < piece ? traffic_size - i : piece;
		if (!xs || xmlstream_feed(xs, traffic + i, n))
			give_up("out of memory");
		while ((event = xmlstream_next(xs, &e)) != XML_MORE && event != XML_ERROR) {
			trees += event == XML_STANZA;
			xml_free(e);
		}
		if (event == XML_ERROR)
			give_up(xmlstream_error(xs));
	}
	xmlstream_free(xs);
}

#ifdef EXPAT
/* The simplest complete tree: each string and each element is an allocation. */
struct node {
	struct node *parent, *children, *next;
	char **attrs, *name, *text;
	size_t text_size;
};

static void *need(void *p)
{
	if (!p)
		give_up("out of memory");
	return p;
}

static void free_node(struct node *root)
{
	struct node *n = root, *next;
	size_t i;

	while (n) {
		if (n->children) {
			next = n->children;
			n->children = NULL;
		} else {
			next = n->next ? n->next : n == root ? NULL : n->parent;
			for (i = 0; n->attrs[i]; i++)
				free(n->attrs[i]);
			free(n->attrs);
			free(n->name);
			free(n->text);
			free(n);
			if (n == root)
				break;
		}
		n = next;
	}
}

static void expat_start(void *data, const char *name, const char **attrs)
{
	struct node **innermost = data, *n = need(calloc(1, sizeof *n));
	size_t i, count = 0;

	while (attrs[count])
		count++;
	n->name = need(strdup(name));
	n->attrs = need(calloc(count + 1, sizeof *n->attrs));
	for (i = 0; i < count; i++)
		n->attrs[i] = need(strdup(attrs[i]));
	n->parent = *innermost;
	*innermost = n;
}

static void expat_text(void *data, const char *text, int len)
{
	struct node *n = *(struct node **)data;

	if (!n->parent)
		return; /* between stanzas */
	n->text = need(realloc(n->text, n->text_size + (size_t)len + 1));
	memcpy(n->text + n->text_size, text, (size_t)len);
	n->text_size += (size_t)len;
	n->text[n->text_size] = '\0';
}

static void expat_end(void *data, const char *name)
{
	struct node **innermost = data, *n = *innermost, *parent = n->parent;

	(void)name;
	*innermost = parent;
	if (parent && parent->parent) {
		n->next = parent->children; /* in reverse order, but as much work */
		parent->children = n;
		return;
	}
	n->next = NULL;
	trees += parent != NULL;
	free_node(n);
}

static void run_expat(size_t piece)
{
	XML_Parser p = need(XML_ParserCreateNS("UTF-8", '|'));
	struct node *innermost = NULL, *parent;
	size_t i, n;

	XML_SetUserData(p, &innermost);
	XML_SetElementHandler(p, expat_start, expat_end);
	XML_SetCharacterDataHandler(p, expat_text);
	for (i = 0; i < traffic_size; i += n) {
		n = traffic_size - i < piece ? traffic_size - i : piece;
		if (XML_Parse(p, traffic + i, (int)n, 0) != XML_STATUS_OK)
			give_up("expat found an error");
	}
	for (; innermost; innermost = parent) {
		parent = innermost->parent;
		innermost->next = NULL;
		free_node(innermost);
	}
	XML_ParserFree(p);
}
#endif

#ifdef IKSEMEL
static int iksemel_stanza(void *data, int type, iks *node)
{
	(void)data;
	trees += type == IKS_NODE_NORMAL;
	iks_delete(node);
	return IKS_OK;
}

static void run_iksemel(size_t piece)
{
	char namespace[] = "jabber:client";
	iksparser *p = iks_stream_new(namespace, NULL, iksemel_stanza);
	size_t i, n;

	for (i = 0; i < traffic_size; i += n) {
		n = traffic_size - i < piece ? traffic_size - i : piece;
		if (!p || iks_parse(p, traffic + i, n, 0) != IKS_OK)
			give_up("iksemel found an error");
	}
	iks_parser_delete(p);
}
#endif

#ifdef LIBXML2
/* Frees each child of the root when it is complete, since libxml2 makes one tree of the stream. */
static void libxml2_end(void *data, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
	xmlParserCtxtPtr p = data;
	xmlNodePtr node = p->node;

	xmlSAX2EndElementNs(p, name, prefix, uri);
	if (!node || !node->parent || node->parent->type != XML_ELEMENT_NODE || node->parent->parent->type == XML_ELEMENT_NODE)
		return;
	trees++;
	xmlUnlinkNode(node);
	xmlFreeNode(node);
}

static void run_libxml2(size_t piece)
{
	xmlSAXHandler handler;
	xmlParserCtxtPtr p;
	size_t i, n;

	memset(&handler, 0, sizeof handler);
	xmlSAXVersion(&handler, 2);
	handler.endElementNs = libxml2_end;
	p = xmlCreatePushParserCtxt(&handler, NULL, NULL, 0, NULL);
	for (i = 0; i < traffic_size; i += n) {
		n = traffic_size - i < piece ? traffic_size - i : piece;
		if (!p || xmlParseChunk(p, traffic + i, (int)n, 0))
			give_up("libxml2 found an error");
	}
	xmlFreeDoc(p->myDoc);
	xmlFreeParserCtxt(p);
}
#endif

static void run_floor(size_t piece)
{
	static char copy[4096];
	const char *p;
	size_t i, n;

	for (i = 0; i < traffic_size; i += n) {
		n = traffic_size - i < piece ? traffic_size - i : piece;
		memcpy(copy, traffic + i, n);
		for (p = copy; (p = memchr(p, '<', (size_t)(copy + n - p))); p++)
			trees++;
	}
}

static const struct {
	const char *name;
	void (*run)(size_t piece);
} parsers[] = {
	{"ours", run_ours},
#ifdef EXPAT
	{"expat", run_expat},
#endif
#ifdef IKSEMEL
	{"iksemel", run_iksemel},
#endif
#ifdef LIBXML2
	{"libxml2", run_libxml2},
#endif
	{"floor", run_floor}
};

enum { PARSERS = sizeof parsers / sizeof *parsers };

/* ---------------------------------------------------------------- The figures */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Returns MB per second of CPU time. */
static double speed(size_t parser, size_t piece)
{
	clock_t start = clock();
	double seconds;
	int times = 0;

	do {
		parsers[parser].run(piece);
		times++;
		seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
	} while (seconds < 0.1);
	return times * (double)traffic_size / seconds / 1e6;
}

static void measure(size_t piece, double median[PARSERS])
{
	double rounds[PARSERS][ROUNDS];
	size_t i, j;

	for (j = 0; j < ROUNDS; j++)
		for (i = 0; i < PARSERS; i++)
			rounds[i][j] = speed(i, piece);
	for (i = 0; i < PARSERS; i++) {
		qsort(rounds[i], ROUNDS, sizeof rounds[i][0], compare);
		median[i] = rounds[i][ROUNDS / 2];
	}
}

/* A stanza consists of a start, as many parts as fit, and the text after them. In a part, %d is its
 * number. */
static const struct shape {
	const char *name, *start, *part, *between, *end, *last;
	int most;
} shapes[] = {
	{"text",         "<message><body>", "0123456789abcdef", "", "", "</body></message>", 1 << 30},
	{"entities",     "<message><body>", "&amp;&#x20AC;", "", "", "</body></message>", 1 << 30},
	{"children",     "<message>", "<a%d/>", "", "", "</message>", 1 << 30},
	{"attributes",   "<message", " a%d='some value'", "/>", "", "", 100},
	{"namespaces",   "<message>", "<a xmlns:p%d='urn:example:a-namespace'/>", "", "", "</message>", 1 << 30},
	{"depth",        "<message>", "<a>", "", "</a>", "</message>", 127},
	{"skipped",      "<message xmlns:x='urn:x'", " x:a%d=''", "/>", "", "", 1 << 30}
};

/* Returns the MB/s with stanzas of that shape and size. If a limit forbids such a large stanza,
 * uses several smaller ones. */
static double speed_of(const struct shape *s, size_t size)
{
	size_t room = sizeof traffic, n = (size_t)snprintf(traffic, room, "%s", header), end = n + size;
	char part[64];
	int i, parts;

	while (n < end && room - n > 100) {
		n += (size_t)snprintf(traffic + n, room - n, "%s", s->start);
		for (i = 0; i < s->most && n < end; i++) {
			snprintf(part, sizeof part, s->part, i);
			n += (size_t)snprintf(traffic + n, room - n, "%s", part);
		}
		parts = i;
		n += (size_t)snprintf(traffic + n, room - n, "%s", s->between);
		for (i = 0; *s->end && i < parts; i++)
			n += (size_t)snprintf(traffic + n, room - n, "%s", s->end);
		n += (size_t)snprintf(traffic + n, room - n, "%s", s->last);
	}
	traffic_size = n;
	return speed(0, 4096);
}

static void measure_shapes(void)
{
	static const size_t sizes[] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1000 << 10};
	size_t i, j;

	printf("\n%-10s", "MB/s");
	for (j = 0; j < sizeof sizes / sizeof *sizes; j++)
		printf(" %5lu KB", (unsigned long)(sizes[j] >> 10));
	for (i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		printf("\n%-10s", shapes[i].name);
		for (j = 0; j < sizeof sizes / sizeof *sizes; j++)
			printf(" %8.0f", speed_of(&shapes[i], sizes[j]));
	}
	putchar('\n');
}

/* Returns the peak memory of the process so far, in KB, or 0 if the system does not tell. */
static long peak_memory(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	char line[100];
	long kilobytes = 0;

	while (status && fgets(line, sizeof line, status))
		if (!strncmp(line, "VmHWM:", 6))
			kilobytes = strtol(line + 6, NULL, 10);
	if (status)
		fclose(status);
	return kilobytes;
}

/* Lets 100 connections hold 240 KB of a stanza each, which came in reads of 4 KB. Returns by how
 * many times these bytes the memory has grown. */
static double memory_of_unfinished(void)
{
	enum { CONNECTIONS = 100, READS = 60 };
	static struct xmlstream *xs[CONNECTIONS];
	static char piece[4096];
	struct xml_elem *e;
	long before = peak_memory();
	int i, k;
	double grown;

	memset(piece, 'x', sizeof piece);
	for (k = 0; k < READS; k++) {
		for (i = 0; i < CONNECTIONS; i++) {
			if (k == 0)
				xs[i] = xmlstream_new(0);
			if (!xs[i] || (k == 0 && xmlstream_feed(xs[i], "<a><b>", 6)) || xmlstream_feed(xs[i], piece, sizeof piece))
				give_up("out of memory");
			while (xmlstream_next(xs[i], &e) == XML_OPEN)
				xml_free(e);
		}
	}
	grown = (double)(peak_memory() - before) * 1024 / (CONNECTIONS * READS * sizeof piece);
	for (i = 0; i < CONNECTIONS; i++)
		xmlstream_free(xs[i]);
	return grown;
}

int main(void)
{
	double unfinished = memory_of_unfinished(); /* first, since it measures the peak */
	double whole[PARSERS], bytes[PARSERS];
	long ours;
	size_t i;

	make_traffic();
	run_ours(4096);
	ours = trees;
	for (i = 1; i < PARSERS - 1; i++) { /* all but the floor */
		trees = 0;
		parsers[i].run(4096);
		if (trees != ours)
			give_up("the parsers disagree about the number of trees");
	}
	measure(4096, whole);
	measure(1, bytes);
	printf("%-10s %8s %8s %12s %8s\n", "", "4 KB", "ours is", "single bytes", "ours is");
	for (i = 0; i < PARSERS; i++)
		printf("%-10s %8.0f %7.2fx %12.1f %7.2fx\n", parsers[i].name, whole[i], whole[0] / whole[i], bytes[i], bytes[0] / bytes[i]);
	measure_shapes();
	printf("\nunfinished stanzas of 100 connections: %.2f times their bytes\n", unfinished);
	return 0;
}
