/* fuzz_conn.c - sends echobot any bytes, as its server. Whatever they are, the bot's
 * output must be well-formed, and memory must be in order. A NUL, which no stream
 * contains, separates one read from the next. An R at the beginning makes the bot
 * create its account first. This is a target for libFuzzer and AFL++ (see fuzz.sh);
 * with fuzz_main.c it is a program that plays a corpus.
 *
 * The loop, the socket and the bot are the real ones. Only the random bytes are
 * replaced, so that the same input always has the same effect. */
#define _POSIX_C_SOURCE 200809L
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t read_zeros(int fd, void *to, size_t n)
{
	(void)fd;
	memset(to, 0, n);
	return (ssize_t)n;
}

#define main echobot_main
#include "../../echobot.c"
#undef main
#define read read_zeros
#include "../../xmpp.c"
#undef read

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Reads the client's output, which must be XML so far. `xs` is kept from one call to the
 * next. Each stream header begins a new document. */
static void check_output(struct xmlstream *xs, int fd)
{
	static char said[1 << 20];
	static const char header[] = "<?xml version='1.0'?><stream:stream ";
	struct xml_elem *e;
	enum xml_event event;
	ssize_t n = recv(fd, said, sizeof said - 1, MSG_DONTWAIT);
	char *p, *next;

	if (n <= 0)
		return;
	said[n] = '\0';
	for (p = said; p; p = next) {
		next = strstr(p + 1, header);
		if (!strncmp(p, header, strlen(header)))
			xmlstream_reset(xs);
		if (xmlstream_feed(xs, p, next ? (size_t)(next - p) : strlen(p)))
			abort();
		do {
			event = xmlstream_next(xs, &e);
			xml_free(e);
		} while (event == XML_OPEN || event == XML_STANZA || event == XML_SKIPPED);
		if (event == XML_ERROR)
			abort();
	}
}

static void note_answer(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	(void)x;
	(void)answer;
	--*(int *)data;
}

/* Uses the other functions of the library: a request and a room. */
static void begin(struct xmpp *x)
{
	int *pending = x->data;

	*pending += !xmpp_request(x, "get", NULL, "<ping xmlns='urn:xmpp:ping'/>", note_answer, pending);
	xmpp_join(x, "room@localhost", "nick");
}

/* Returns a client that is connected to fd. */
static struct xmpp *connect_client(int fd, int create)
{
	struct xmpp_options options = {.user = "echobot", .password = "echobot", .host = "localhost", .create = create};
	struct xmpp *x = xmpp_new(&options);

	if (!x || fcntl(fd, F_SETFL, O_NONBLOCK))
		abort();
	x->on_message = echo;
	x->on_presence = grant_subscription;
	x->on_ready = begin;
	conn_of(x)->fd = fd;
	conn_of(x)->safe = 1; /* so that PLAIN and new accounts are tried, too */
	conn_of(x)->due = ms_from_now(LOGIN_TIMEOUT);
	open_stream(conn_of(x), WAIT_HEADER);
	return x;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static FILE *silenced;  /* discards echobot's output */
	struct xmlstream *xs = xmlstream_new(0);
	const uint8_t *end = bytes + n, *stop;
	int fds[2], pending = 0;
	struct xmpp *x;

	if (!xs || socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		abort();
	if (!silenced && !(silenced = freopen("/dev/null", "w", stdout)))
		abort();
	x = connect_client(fds[0], n > 0 && *bytes == 'R');
	x->data = &pending;
	for (bytes += n > 0 && *bytes == 'R'; bytes < end && xmpp_turn(&x, 1, 0) > 0; bytes = stop + (stop < end)) {
		check_output(xs, fds[1]);
		stop = memchr(bytes, 0, (size_t)(end - bytes));
		if (!stop)
			stop = end;
		send(fds[1], bytes, (size_t)(stop - bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
		xmpp_turn(&x, 1, 0);
	}
	xmpp_turn(&x, 1, 0);
	check_output(xs, fds[1]);
	xmpp_free(x);
	check_output(xs, fds[1]);
	if (pending)
		abort(); /* a request must be answered exactly once */
	close(fds[1]);
	xmlstream_free(xs);
	return 0;
}
