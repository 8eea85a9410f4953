/* test_memory.c - tests what happens when memory runs out. In the first run the first
 * allocation fails, in the next run the second, and so on, until a run needs fewer.
 * Each time the bot must succeed or, if it does not reconnect, end with a reason. No
 * memory, no descriptor and no answer to a request may be lost.
 *
 * A run is a login with SCRAM, a join, a request and an echo, then a lost connection
 * and the same again with PLAIN. The server is in this process. It sends its next part
 * when it has received the word that it waits for. The random bytes and the clock are
 * replaced, so that all runs are the same, and short. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long allocations;         /* in this run so far */
static long first, last;         /* these allocations fail */
static long blocks;              /* that have not been freed */

static int fails(void)
{
	allocations++;
	errno = ENOMEM;
	return allocations >= first && allocations <= last;
}

static void *counted(void *block)
{
	blocks += block != NULL;
	return block;
}

static void *try_malloc(size_t n)
{
	return fails() ? NULL : counted(malloc(n));
}

static void *try_calloc(size_t n, size_t size)
{
	return fails() ? NULL : counted(calloc(n, size));
}

static void *try_realloc(void *old, size_t n)
{
	void *block = fails() ? NULL : realloc(old, n);

	blocks += block && !old;
	return block;
}

static char *try_strdup(const char *s)
{
	return fails() ? NULL : counted(strdup(s));
}

static void counting_free(void *block)
{
	blocks -= block != NULL;
	free(block);
}

/* Replaces clock_gettime(). Each call takes 2 ms. */
static int quick_clock(clockid_t id, struct timespec *t)
{
	static long ms;

	(void)id;
	ms += 2;
	t->tv_sec = ms / 1000;
	t->tv_nsec = ms % 1000 * 1000000;
	return 0;
}

/* Replaces open(). Opens /dev/zero instead of /dev/urandom. */
static int open_zeros(const char *path, int flags)
{
	return open(strcmp(path, "/dev/urandom") ? path : "/dev/zero", flags);
}

#define malloc try_malloc
#define calloc try_calloc
#define realloc try_realloc
#undef strdup
#define strdup try_strdup
#define free counting_free
#define main echobot_main
#include "../../echobot.c"
#undef main
#define clock_gettime quick_clock
#define open open_zeros
#include "../../xmlstream.c"
#include "../../xmpp.c"
#undef open
#undef malloc
#undef calloc
#undef realloc
#undef strdup
#undef free

#define HEADER "<stream:stream id='1' version='1.0' xmlns='" NS_CLIENT "' xmlns:stream='" NS_STREAM "'>"
#define FEATURES(text) HEADER "<stream:features>" text "</stream:features>"
#define MECHANISM(name) FEATURES("<mechanisms xmlns='" NS_SASL "'><mechanism>" name "</mechanism></mechanisms>")
#define FOUR(text) text text text text
#define LONG(text) FOUR(FOUR(FOUR(text)))  /* so that buffers grow */
#define THE_REST \
	{"<stream:stream", FEATURES("<bind xmlns='" NS_BIND "'/>")}, \
	{"</iq>", "<iq type='result' id='bind'><bind xmlns='" NS_BIND "'><jid>echobot@localhost/1</jid></bind></iq>"}, \
	{"</iq>", "<iq type='result' id='0000000000000000'/>"}, \
	{"</presence>", "<presence from='room@localhost/nick'><x xmlns='http://jabber.org/protocol/muc#user'>" \
	                "<status code='110'/></x></presence>" \
	                "<message from='a@localhost/1' type='chat' id='1'><body>" LONG("&lt;hello&gt;") "</body></message>"}, \
	{"</message>", NULL}

enum { STEPS = 8 };

/* The word that the server waits for, and its answer. With NULL, it hangs up. The client's nonce is
 * all zeros, so the challenge is r=AAAAAAAAAAAAAAAAAAAAAAAAsrv,s=c2FsdA==,i=4096, and then v=... */
static const char *const dialogues[2][STEPS][2] = {{
	{"<stream:stream", MECHANISM("SCRAM-SHA-1")},
	{"</auth>", "<challenge xmlns='" NS_SASL "'>cj1BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFzcnYscz1jMkZzZEE9PSxpPTQwOTY=</challenge>"},
	{"</response>", "<success xmlns='" NS_SASL "'>dj0yWVpYWGZPN3hPTFRrU2JWeVo2NmcxeVZqY2M9</success>"},
	THE_REST
}, {
	{"<stream:stream", MECHANISM("PLAIN")},
	{"</auth>", "<success xmlns='" NS_SASL "'/>"},
	THE_REST
}};

struct server {
	int listener, port, fd;
	int echoes;             /* received; after the first, the second dialogue is used */
	int step;               /* of the dialogue */
	char heard[1 << 14];    /* a string: what the server has received and not yet answered */
};

static void hang_up(struct server *s)
{
	close(s->fd);
	s->fd = -1;
	s->step = 0;
	s->heard[0] = '\0';
}

static void answer(struct server *s, const char *said, const char *rest)
{
	memmove(s->heard, rest, strlen(rest) + 1);
	s->step++;
	if (said && send(s->fd, said, strlen(said), MSG_NOSIGNAL) > 0)
		return;
	s->echoes += !said;
	hang_up(s);
}

/* Does all that the server can do without waiting. */
static void serve(struct server *s)
{
	size_t used = strlen(s->heard);
	const char *const *step;
	const char *word;
	ssize_t n;

	if (s->fd < 0 && (s->fd = accept(s->listener, NULL, NULL)) < 0)
		return;
	n = recv(s->fd, s->heard + used, sizeof s->heard - 1 - used, MSG_DONTWAIT);
	s->heard[used + (n > 0 ? (size_t)n : 0)] = '\0';
	for (step = dialogues[s->echoes > 0][s->step]; s->fd >= 0; step = dialogues[s->echoes > 0][s->step]) {
		word = strstr(s->heard, step[0]);
		if (!word)
			break;
		answer(s, step[1], word + strlen(step[0]));
	}
	if (n == 0 && s->fd >= 0)
		hang_up(s);
}

static void listen_free(struct server *s)
{
	struct sockaddr_in a = {0};
	socklen_t n = sizeof a;

	memset(s, 0, sizeof *s);
	s->fd = -1;
	s->listener = socket(AF_INET, SOCK_STREAM, 0);
	a.sin_family = AF_INET;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (s->listener < 0 || bind(s->listener, (struct sockaddr *)(void *)&a, n) || listen(s->listener, 10)
	    || getsockname(s->listener, (struct sockaddr *)(void *)&a, &n) || fcntl(s->listener, F_SETFL, O_NONBLOCK)) {
		perror("listen");
		exit(2);
	}
	s->port = ntohs(a.sin_port);
}

/* ------------------------------------------------------------------- Runs */

/* The results that the client reports. */
struct client {
	int pending;            /* requests without an answer */
	int ended;              /* the connection was closed for good, with a reason */
};

static void count_answer(struct xmpp *x, const struct xml_elem *stanza, void *pending)
{
	(void)x;
	(void)stanza;
	--*(int *)pending;
}

static void begin(struct xmpp *x)
{
	struct client *c = x->data;

	c->pending += !xmpp_request(x, "get", "localhost", "<ping xmlns='urn:xmpp:ping'/>", count_answer, &c->pending);
	xmpp_join(x, "room@localhost", "nick");
}

static void note_end(struct xmpp *x, const char *reason)
{
	struct client *c = x->data;

	/* with `reconnect`, the bot must go on */
	c->ended = reason && *reason && xmpp_retry_in(x) < 0 && !conn_of(x)->o.reconnect;
}

/* Returns true if the client succeeded, or ended with a reason. */
static int run(struct server *s, const struct xmpp_options *options)
{
	struct client client = {0, 0};
	struct xmpp *x = xmpp_new(options);
	long alive = 1, turns;

	if (!x)
		return errno == ENOMEM;
	x->data = &client;
	x->on_ready = begin;
	x->on_message = echo;
	x->on_close = note_end;
	for (turns = 0; turns < 100000 && alive > 0 && s->echoes < 2; turns++) {
		alive = xmpp_turn(&x, 1, 0);
		serve(s);
	}
	xmpp_free(x);
	return !client.pending && (s->echoes == 2 || client.ended);
}

/* Tests the tokenizer alone. An element comes only with its event, and an error leaks nothing. */
static int tokenizer_holds(void)
{
	static const char text[] = "<?xml version='1.0'?><a xmlns='u' b='c'><d>e<f/>g</d>&<h>";
	struct xmlstream *xs;
	struct xml_elem *e;
	enum xml_event event = XML_MORE;
	int good = 1;

	for (first = 1, allocations = 0; good && allocations >= first - 1; first++) {
		last = first;
		allocations = blocks = 0;
		xs = xmlstream_new(0);
		if (xs && !xmlstream_feed(xs, text, sizeof text - 1)) {
			do {
				event = xmlstream_next(xs, &e);
				good &= (event == XML_OPEN || event == XML_STANZA) == !!e;
				xml_free(e);
			} while (event != XML_ERROR && event != XML_MORE);
			good &= event == XML_ERROR;
		}
		xmlstream_free(xs);
		good &= blocks == 0;
	}
	return good && first > 5;
}

/* True if no append succeeds after one has failed, since its bytes would be missing. */
static int stays_failed(void)
{
	static const char bytes[5000];
	struct buffer b = {0};
	int good;

	first = last = 0;
	good = !buffer_append(&b, bytes, 2000);
	first = allocations = 1;
	last = 10;
	good &= buffer_append(&b, bytes, sizeof bytes) < 0;
	first = last = 0;
	buffer_consume(&b, 2000);
	good &= buffer_append(&b, bytes, 1) < 0;
	buffer_free(&b);
	return good;
}

/* Returns the lowest free descriptor. */
static int next_descriptor(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

/* Repeats the run until no allocation fails. In each run, `at_once` allocations in a row fail.
 * Returns the number of runs, or -1 if one went wrong. */
static long fail_each(struct xmpp_options options, int at_once)
{
	struct server s;
	int good = 1, fd;

	for (first = 1, allocations = 0; good && allocations >= first - 1; first++) {
		last = first + at_once - 1;
		allocations = blocks = 0;
		fd = next_descriptor();
		listen_free(&s);
		options.port = s.port;
		good = run(&s, &options);
		if (s.fd >= 0)
			hang_up(&s);
		close(s.listener);
		if (!good)
			fprintf(stderr, "FAIL - neither success nor a reason, or a request without an answer");
		if (blocks || next_descriptor() != fd) {
			fprintf(stderr, "FAIL - %ld blocks, %d descriptors leaked", blocks, next_descriptor() - fd);
			good = 0;
		}
	}
	if (!good)
		fprintf(stderr, ": with allocations %ld to %ld failing\n", first - 1, last);
	return good ? first - 1 : -1;
}

int main(void)
{
	struct xmpp_options all = {.user = "echobot", .password = "echobot", .host = "localhost", .server = "127.0.0.1",
	                           .reconnect = 1, .ping_after = 500, .ping_timeout = 500};
	struct xmpp_options tunnel = {.user = "echobot", .password = "echobot", .host = "localhost", .tunnel = "exit 3"};
	long runs[3];
	int i, failed = 0;

	if (!freopen("/dev/null", "w", stdout)) /* what echobot prints */
		return 2;
	runs[0] = fail_each(all, 1);
	runs[1] = fail_each(all, 10);
	runs[2] = fail_each(tunnel, 1);
	fprintf(stderr, "%ld runs, %ld with ten failures in a row, %ld with a tunnel\n", runs[0], runs[1], runs[2]);
	for (i = 0; i < 3; i++)
		failed += runs[i] < 5;
	failed += !stays_failed();
	failed += !tokenizer_holds();
	fprintf(stderr, "%d passed, %d failed\n", 5 - failed, failed);
	return failed > 0;
}
