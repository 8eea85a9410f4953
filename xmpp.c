/* xmpp.c - one connection, from connecting to closing, and the loop that runs many of them.
 *
 * The problem. A login takes a dozen steps. Each answer may arrive late, in pieces, or not be
 * the one we hoped for. With a thousand connections in one process, no connection may make the
 * others wait.
 *
 * The solution is a small state machine for each connection. The state says which element may
 * come next, and `table` maps each state and element to the function that handles it. That
 * function queues its reply, sets the next state, and returns. Only the loop waits, in pselect().
 * (There is one exception: start() may have to wait for a name server.)
 *
 *     WAITING <------------------------ any state can end here, or in CLOSED: see "Ends"
 *        | start()
 *     CONNECTING                tries one address after another; with a tunnel, nothing to do
 *        | connected()
 *     WAIT_HEADER               S: <stream:stream ...>
 *        | take_header()
 *     WAIT_FEATURES             S: <stream:features>...
 *        | choose_mechanism()
 *        |------------------------------------> WAIT_ACCOUNT       with options.create
 *        | begin_login()                            | take_account(), begin_login()
 *        |<-----------------------------------------'
 *        |------------------------------------> WAIT_CHALLENGE     only with SCRAM
 *        |                                          | take_challenge()
 *     WAIT_SUCCESS <--------------------------------'
 *        | take_success(), which starts a new stream
 *     WAIT_HEADER_AGAIN
 *        | take_header()
 *     WAIT_BIND_FEATURES
 *        | bind_resource()
 *     WAIT_BIND
 *        | take_resource() -------------------> WAIT_SESSION       old servers only
 *        |                                          | take_session()
 *     READY <---------------------------------------'
 *        | xmpp_close(), which may be called in any state
 *     CLOSING                   S: </stream:stream>
 *        | lose()
 *     CLOSED
 *
 * The parts of this file:
 *
 *     output      the queue of bytes that the socket has not taken yet, and the trace
 *     ends        how a connection ends, and when it is opened again
 *     connecting  by TCP, or through a command that adds TLS
 *     the stream  headers, stream errors, and creating an account
 *     SASL        the login: choosing a mechanism, PLAIN, SCRAM-SHA-1
 *     iqs         our requests and their answers, and the requests of others
 *     binding     getting a resource, which completes the login
 *     stanzas     messages, presences and rooms
 *     the table   which function handles which element in which state
 *     the loop    select(), reading, timers
 *     xmpp_new() and xmpp_free()
 *     the toolbox base64, SHA-1, HMAC, PBKDF2 */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL /* on macOS; see xmpp_new() */
#define MSG_NOSIGNAL 0
#endif

#define NS_CLIENT  "jabber:client"
#define NS_STREAM  "http://etherx.jabber.org/streams"
#define NS_STREAMS "urn:ietf:params:xml:ns:xmpp-streams"
#define NS_TLS     "urn:ietf:params:xml:ns:xmpp-tls"
#define NS_SASL    "urn:ietf:params:xml:ns:xmpp-sasl"
#define NS_BIND    "urn:ietf:params:xml:ns:xmpp-bind"
#define NS_SESSION "urn:ietf:params:xml:ns:xmpp-session"
#define NS_STANZAS "urn:ietf:params:xml:ns:xmpp-stanzas"
#define NS_MUC     "http://jabber.org/protocol/muc"

/* Part of an error message. README, chapter 9, explains the options. */
#define TLS_COMMAND "openssl s_client -quiet -verify_quiet -no_ign_eof -nocommands " \
	"-starttls xmpp -xmpphost $XMPP_HOST -host $XMPP_SERVER -port $XMPP_PORT " \
	"-servername $XMPP_HOST -verify_return_error -verify_hostname $XMPP_HOST"

enum {
	LOGIN_TIMEOUT = 30000,   /* ms, unless the options say otherwise */
	PING_AFTER = 60000,      /* ms without input, unless the options say otherwise */
	PING_TIMEOUT = 30000,    /* ms, unless the options say otherwise */
	ATTEMPT_TIMEOUT = 5000,  /* ms to connect to an address, if there is another one to try */
	REQUEST_TIMEOUT = 30000, /* ms to wait for the answer to a request */
	CLOSE_TIMEOUT = 1000,    /* ms for the server to close its stream as well */
	FIRST_RETRY = 1000,      /* ms; the longest pause after the first loss */
	LAST_RETRY = 60000,      /* ms; the longest pause after many losses */
	REFUSED_RETRY = 300000,  /* ms; the longest pause after many errors that would recur */
	HEALTHY = 60000,         /* ms; after READY for this long, a loss counts as the first */
	REASON_SIZE = 512,       /* bytes of the reason that on_close is given */
	MAX_SHOWN = 300,         /* bytes that the trace shows of invalid input */
	MAX_OUTPUT = 4 << 20,    /* bytes queued for a server that does not read */
	MAX_SENT = 250000,       /* bytes queued in one call; many servers refuse 256 KiB or more */
	READ_SIZE = 64 * 1024,   /* bytes read at once */
	NONCE = 24,              /* base64 digits of our nonce */
	MIN_ROUNDS = 4096,       /* of PBKDF2; fewer would make it easy to guess the password */
	MAX_ROUNDS = 1000000     /* of PBKDF2; a million take 0.4 s, and all connections wait */
};

/* The states are in the order of a login, since the code compares them, as in state > CONNECTING.
 * Each connection has a timer for its state. The member `due` says
 *
 *     WAITING           when to connect
 *     CONNECTING        when to give up this address
 *     WAIT_...          when to give up the login
 *     READY             when to ping the server, or when to stop waiting for its answer
 *     CLOSING           when to stop waiting for the end of the server's stream
 *     CLOSED            nothing (0), except in on_close: when to connect again */
enum state {
	WAITING, CONNECTING, WAIT_HEADER, WAIT_FEATURES, WAIT_ACCOUNT, WAIT_CHALLENGE, WAIT_SUCCESS,
	WAIT_HEADER_AGAIN, WAIT_BIND_FEATURES, WAIT_BIND, WAIT_SESSION, READY, CLOSING, CLOSED
};

/* What each state waits for, in the words of the error messages. In WAITING and CLOSED nothing can
 * arrive. */
static const char *const awaited[] = {
	[CONNECTING] = "the connection", [WAIT_HEADER] = "the stream header",
	[WAIT_FEATURES] = "the stream features", [WAIT_ACCOUNT] = "the new account",
	[WAIT_CHALLENGE] = "a SASL challenge", [WAIT_SUCCESS] = "the SASL result",
	[WAIT_HEADER_AGAIN] = "the second stream header",
	[WAIT_BIND_FEATURES] = "the second stream features", [WAIT_BIND] = "the bound resource",
	[WAIT_SESSION] = "the session", [READY] = "stanzas", [CLOSING] = "the end of the stream"
};

/* An iq that we have sent and that has not been answered yet. */
struct request {
	struct request *next;
	char id[24];
	char *to;               /* the entity that was asked; NULL for our own account */
	int64_t due;            /* when to stop waiting for the answer */
	xmpp_answer *callback;  /* may be NULL */
	void *data;
};

struct conn {
	struct xmpp x;          /* the public part; first, for conn_of() */
	struct xmpp_options o;  /* with defaults filled in; create and reconnect may be cleared */
	enum state state;
	int64_t due;            /* the timer of this state; see enum state */
	int64_t wake_due;       /* when to call on_wake; 0 for never */
	int64_t ready_at;       /* when a login last succeeded; 0 for never */
	uint32_t limit;         /* ms; the longest pause after the last loss; see next_attempt() */
	char port[16];          /* o.port or the default, as a string */
	int fd;                 /* the socket, or -1 */
	pid_t tunnel;           /* the command that carries the stream, or 0 */
	struct addrinfo *addrs; /* the addresses of the server, while connecting */
	struct addrinfo *addr;  /* the next one to try */
	int safe;               /* 1 if nobody else can read what we send: in a tunnel or on the */
	                        /* loopback. Otherwise the password must not be sent */
	int pinged;             /* we have sent a ping and received nothing since */
	int wants_session;      /* the server insists on a session */
	struct buffer out;      /* bytes that have not been sent yet */
	struct xmlstream *xs;
	int (*begin_login)(struct conn *); /* logs in with the chosen mechanism */
	struct buffer sasl;     /* the SASL messages so far, joined by commas, for the proof */
	struct buffer final;    /* the final SCRAM message to expect from the server, in base64; */
	                        /* empty with PLAIN, and once it has arrived */
	const char *resource;   /* the resource to ask for, or NULL */
	char *jid;              /* our full JID, or NULL until it is bound */
	struct request *requests; /* oldest first */
	unsigned requests_made; /* the number in the id of the last request */
};

/* Set by xmpp_stop(). It is global because a signal handler cannot be given a connection. */
static volatile sig_atomic_t stopping;

/* The toolbox at the end of this file. */
static int append_base64(struct buffer *b, const void *bytes, size_t n);
static int decode_base64(struct buffer *b, const char *s, size_t n);
static void sha1(const void *data, size_t n, uint8_t digest[20]);
static void hmac(const void *key, size_t key_n, const void *data, size_t n, uint8_t digest[20]);
static void pbkdf2(const char *password, const void *salt, size_t n, long rounds, uint8_t key[20]);

/* Returns the connection whose public part is x. */
static struct conn *conn_of(const struct xmpp *x)
{
	return (struct conn *)(void *)x;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t ms_from_now(long ms)
{
	return now_ms() + (ms < INT32_MAX ? ms : INT32_MAX);
}

/* Fills n bytes with unpredictable data. Returns 0 or -1. */
static int random_bytes(void *to, size_t n)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, to, n);

	if (fd >= 0)
		close(fd);
	return got == (ssize_t)n ? 0 : -1;
}

/* ------------------------------------------------------------------ Output */

/* Returns the length of the control character that the string `s` begins with, or 0 if it begins
 * with another character. xmpp.h says what xmpp_print() counts as a control character. */
static size_t control_length(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	int two = u[0] > 0 ? u[0] << 8 | u[1] : 0; /* the first two bytes, as a number */

	if (u[0] < ' ' || u[0] == 0x7F)
		return u[0] > 0;
	if ((two >= 0xC280 && two < 0xC2A0) || two == 0xD89C) /* U+0080 to U+009F, U+061C */
		return 2;
	if (two == 0xE280) /* U+200E, U+200F, U+2028 to U+202E */
		return u[2] == 0x8E || u[2] == 0x8F || (u[2] >= 0xA8 && u[2] <= 0xAE) ? 3 : 0;
	return two == 0xE281 && u[2] >= 0xA6 && u[2] <= 0xA9 ? 3 : 0; /* U+2066 to U+2069 */
}

void xmpp_print(const char *s, FILE *out)
{
	size_t n;

	for (; *s; s += n + control_length(s + n)) {
		for (n = 0; s[n] && !control_length(s + n); n++)
			;
		fwrite(s, 1, n, out);
		if (s[n])
			putc(' ', out);
	}
}

/* Prints n bytes of XML on one line, after C: or S: (`who`), as in the RFCs. If our password may
 * follow the first tag, prints only this tag. With PLAIN (c->final is then empty), the password is
 * in <auth/>. With options.create, it is in our request for an account, and the server may repeat
 * it until the account exists (XEP-0077 section 3.1.1). */
static void trace(const struct conn *c, char who, const char *p, size_t n)
{
	int plain = who == 'C' && c->state == WAIT_SUCCESS && !c->final.bytes;
	int secret = plain || (c->o.create && c->state >= WAIT_ACCOUNT);
	const char *name = c->o.trace_name, *tag_end = memchr(p, '>', n);
	size_t i = 0, shown = n, control;

	if (!c->o.trace)
		return;
	if (secret)
		shown = tag_end ? (size_t)(tag_end - p) + 1 : 0;
	fprintf(c->o.trace, name ? "%c(%s): " : "%c: ", who, name);
	while (i < shown) {
		control = control_length(p + i);
		if (control == 0)
			putc(p[i++], c->o.trace);
		for (; control > 0; control--)
			fprintf(c->o.trace, "\\x%02X", (unsigned char)p[i++]);
	}
	fputs(shown < n ? "****\n" : "\n", c->o.trace);
}

/* Formats XML, and queues all of it or none. Returns 0, or -1 and sets errno. */
static int queue_v(struct conn *c, const char *format, va_list ap)
{
	struct buffer xml = {0};
	int error = 0;

	buffer_vformat(&xml, format, ap);
	if (c->out.end - c->out.start > MAX_OUTPUT)
		error = ENOBUFS;
	else if (xml.end > MAX_SENT)
		error = EMSGSIZE;
	else if (xml.failed || buffer_append(&c->out, xml.bytes, xml.end))
		error = ENOMEM;
	else
		trace(c, 'C', xml.bytes, xml.end);
	c->out.failed = 0; /* what was queued before is intact */
	buffer_free(&xml);
	if (!error)
		return 0;
	errno = error;
	return -1;
}

/* Both end a connection and return -1. Use lose() if another attempt may succeed, and give_up() if
 * it would fail in the same way. See end(). */
#define lose(c, ...)    end(c, 0, __VA_ARGS__)
#define give_up(c, ...) end(c, 1, __VA_ARGS__)
static int end(struct conn *c, int recurs, const char *format, ...);

/* Queues output of the library itself. Drops output that is too long, since another user may have
 * caused it with a very long iq id. Any other failure ends the connection. Returns 0, or -1 if the
 * connection has ended. */
static int say(struct conn *c, const char *format, ...)
{
	va_list ap;
	int failed;

	va_start(ap, format);
	failed = queue_v(c, format, ap) && errno != EMSGSIZE;
	va_end(ap);
	return failed ? lose(c, "out of memory, or the server does not read") : 0;
}

/* True if send() or recv() failed only because it would have blocked or was interrupted. */
static int would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Sends as much as the socket takes now. Returns 0, or -1 and sets errno if the connection is
 * broken. */
static int flush(struct conn *c)
{
	struct buffer *b = &c->out;
	ssize_t n;

	while (b->start < b->end) {
		n = send(c->fd, b->bytes + b->start, b->end - b->start, MSG_NOSIGNAL);
		if (n < 0)
			return would_block() ? 0 : -1;
		buffer_consume(b, (size_t)n);
	}
	return 0;
}

/* -------------------------------------------------------------------- Ends */

/* The ways in which a connection ends:
 *
 *     the server, the network or a timer ---> lose() ----.
 *     errors that would recur --------------> give_up() -+--> end() --> tear_down()
 *     the bot, or xmpp_stop() --------------> xmpp_close()     |            ^
 *                                               |              '--> on_close()
 *                                               '--> CLOSING: lose() later  |
 *     the bot, outside of handlers ---------> xmpp_free() ------------------'
 *
 * After end(), the state is WAITING if the bot will reconnect. Otherwise it is CLOSED. */

/* Removes the request at *link from the list, and gives the answer, or NULL, to its callback. */
static void answer_request(struct conn *c, struct request **link, const struct xml_elem *answer)
{
	struct request *r = *link;

	*link = r->next;
	if (r->callback)
		r->callback(&c->x, answer, r->data);
	free(r->to);
	free(r);
}

/* Kills the tunnel's process group, and the command itself in case it has left the group. Bytes
 * that the command has not sent yet are lost. If both streams have been closed, there are none.
 * After an error, our end tag may be among them. */
static void end_tunnel(struct conn *c)
{
	if (c->tunnel == 0)
		return;
	kill(-c->tunnel, SIGKILL);
	kill(c->tunnel, SIGKILL);
	while (waitpid(c->tunnel, NULL, 0) < 0 && errno == EINTR)
		;
	c->tunnel = 0;
}

/* Frees the connection's resources, except the parser, and the JID, which on_close may still ask
 * for. Calls the callbacks of pending requests with NULL. */
static void tear_down(struct conn *c)
{
	c->state = CLOSED;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	end_tunnel(c);
	if (c->addrs)
		freeaddrinfo(c->addrs);
	c->addrs = c->addr = NULL;
	buffer_free(&c->out);
	buffer_free(&c->sasl);
	buffer_free(&c->final);
	while (c->requests)
		answer_request(c, &c->requests, NULL);
	c->due = c->wake_due = 0; /* last, since a callback may have set the timer */
}

/* Returns the time of the next attempt to connect. If every bot reconnected at once, a server
 * that has just restarted would be flooded, so each waits a random time. The upper limit doubles
 * with each loss, up to `longest` ms ("exponential back-off with full jitter"). */
static int64_t next_attempt(struct conn *c, uint32_t longest)
{
	uint32_t random;

	c->limit = c->limit ? 2 * c->limit : FIRST_RETRY;
	if (c->limit > longest)
		c->limit = longest;
	if (random_bytes(&random, sizeof random))
		random = c->limit;
	return ms_from_now((long)(random % (c->limit + 1)));
}

/* Makes a reason safe to print. The server may have sent parts of it, and vsnprintf() may have cut
 * it in the middle of a character. Replaces control characters and incomplete characters with
 * spaces, and removes spaces at the end. */
static void tidy(char *reason)
{
	char *p;
	int length, n;

	for (p = reason; *p; p += n) {
		length = xml_char(p, 4);
		n = length > 0 ? length : 1;
		if (length <= 0 || control_length(p) > 0)
			memset(p, ' ', (size_t)n);
	}
	while (p > reason && p[-1] == ' ')
		*--p = '\0';
}

/* Ends a connection. `format` gives the reason; it is NULL if the bot closed the connection. In
 * CLOSING, the bot has closed it already, so errors are not reported. If the error would recur
 * (`recurs`), the bot does not reconnect, unless a login has succeeded before. In that case the
 * error may be temporary, so the bot reconnects, though the pauses may become longer. Always
 * returns -1, so that a caller can return the result. */
static int end(struct conn *c, int recurs, const char *format, ...)
{
	char reason[REASON_SIZE];
	enum state state = c->state;
	va_list ap;

	if (state == CLOSED)
		return -1;
	if (state == CLOSING)
		format = NULL;
	if (format) {
		va_start(ap, format);
		vsnprintf(reason, sizeof reason, format, ap);
		va_end(ap);
		tidy(reason);
	}
	c->state = CLOSED; /* so that say() cannot end the connection again */
	if (format && state > CONNECTING && !say(c, "</stream:stream>"))
		flush(c); /* if this fails, the server does not get the end tag */
	if (state == READY && now_ms() - c->ready_at >= HEALTHY)
		c->limit = 0;
	tear_down(c);
	if (format && c->o.reconnect && (!recurs || c->ready_at))
		c->due = next_attempt(c, recurs ? REFUSED_RETRY : LAST_RETRY);
	if (c->x.on_close)
		c->x.on_close(&c->x, format ? reason : NULL);
	if (c->due)
		c->state = WAITING;
	return -1;
}

void xmpp_close(struct xmpp *x)
{
	struct conn *c = conn_of(x);

	c->o.reconnect = 0;
	if (c->state == CLOSED)
		c->due = 0;
	else if (c->state <= CONNECTING)
		lose(c, NULL);
	else if (c->state < CLOSING) {
		c->state = CLOSING;
		c->due = ms_from_now(CLOSE_TIMEOUT);
		say(c, "</stream:stream>");
	}
}

long xmpp_retry_in(const struct xmpp *x)
{
	const struct conn *c = conn_of(x);
	int64_t ms = c->due - now_ms();

	if (!c->due || (c->state != WAITING && c->state != CLOSED))
		return -1;
	return ms > 0 ? (long)ms : 0;
}

void xmpp_retry_after(struct xmpp *x, long ms)
{
	struct conn *c = conn_of(x);

	if (xmpp_retry_in(x) >= 0 && c->due < ms_from_now(ms))
		c->due = ms_from_now(ms);
}

/* -------------------------------------------------------------- Connecting */

/* C: <?xml version='1.0'?><stream:stream to='HOST' version='1.0' ...>
 * RFC 6120 section 4.2. The server answers with a header of its own. Nothing is kept from the
 * previous stream (section 6.4.6). */
static int open_stream(struct conn *c, enum state next)
{
	xmlstream_reset(c->xs);
	c->state = next;
	return say(c, "<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='" NS_CLIENT
	              "' xmlns:stream='" NS_STREAM "'>", c->o.host);
}

/* Replaces `fd` with c->fd, a non-blocking, close-on-exec duplicate that select() can watch. Its
 * number is 3 or higher. Otherwise, if the program was started with its standard output closed, it
 * could be 1, and what the program prints would go into the stream. Returns 0, or -1 and sets
 * errno. */
static int prepare(struct conn *c, int fd)
{
	if (fd < 0)
		return -1;
	c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	if (c->fd >= 0 && c->fd < FD_SETSIZE)
		return fcntl(c->fd, F_SETFL, O_NONBLOCK);
	errno = EMFILE; /* no descriptor is left, or this one does not fit into an fd_set */
	return -1;
}

/* Starts to connect to an address. TCP_NODELAY makes the system send small stanzas at once. Returns
 * 0, or -1 and sets errno. */
static int dial(struct conn *c, const struct addrinfo *a)
{
	int on = 1;

	if (prepare(c, socket(a->ai_family, a->ai_socktype, a->ai_protocol))
	    || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
		return -1;
	return connect(c->fd, a->ai_addr, a->ai_addrlen) && errno != EINPROGRESS ? -1 : 0;
}

static int is_loopback(const struct addrinfo *a)
{
	char host[64];

	if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST))
		return 0;
	return !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

/* Starts to connect to the next address. Skips addresses that fail at once. If there is none left,
 * ends the connection. `error` says why the previous address has failed; at first it is 0. */
static int connect_next(struct conn *c, int error)
{
	int failed = 1;

	for (; failed && c->addr; c->addr = c->addr->ai_next) {
		if (c->fd >= 0)
			close(c->fd);
		c->fd = -1;
		c->safe = is_loopback(c->addr);
		failed = dial(c, c->addr);
		error = errno;
	}
	if (failed && error == EMFILE)
		return lose(c, "too many connections: no descriptor is left (ulimit -n), or none "
		               "below %d, which is the limit of select()", FD_SETSIZE);
	if (failed)
		return lose(c, "cannot connect to %s port %s: %s",
		            c->o.server, c->port, strerror(error));
	c->due = ms_from_now(c->addr ? ATTEMPT_TIMEOUT : c->o.login_timeout);
	return 0;
}

/* Handles a socket that has become writable. It is connected now, or the attempt has failed. */
static int connected(struct conn *c)
{
	int error = 0;
	socklen_t n = sizeof error;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n))
		error = errno;
	if (error)
		return connect_next(c, error);
	freeaddrinfo(c->addrs);
	c->addrs = c->addr = NULL;
	c->due = ms_from_now(c->o.login_timeout);
	return open_stream(c, WAIT_HEADER);
}

/* Runs the tunnel's command in the new process. `io` becomes its standard input and output. The
 * signals are reset, since the command would otherwise ignore those that this program ignores. */
static void run_tunnel(const struct conn *c, int io)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGPIPE, SIGCHLD};
	size_t i;

	setpgid(0, 0);
	for (i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], SIG_DFL);
	if (setenv("XMPP_HOST", c->o.host, 1) || setenv("XMPP_SERVER", c->o.server, 1)
	    || setenv("XMPP_PORT", c->port, 1) || dup2(io, 0) < 0 || dup2(io, 1) < 0)
		_exit(127);
	if (io > 1)
		close(io);
	execl("/bin/sh", "sh", "-c", c->o.tunnel, (char *)NULL);
	_exit(127);
}

/* Starts a command that carries our stream, as ssh's ProxyCommand does. Its standard input and
 * output are one end of a socket pair. The other end is our connection. The command gets a process
 * group of its own. Otherwise Ctrl-C would end it while we still need it to close the stream. */
static int open_tunnel(struct conn *c)
{
	int fds[2] = {-1, -1}, error;
	pid_t pid = -1;

	if (!socketpair(AF_UNIX, SOCK_STREAM, 0, fds) && !prepare(c, fds[0]))
		pid = fork();
	if (pid == 0)
		run_tunnel(c, fds[1]);
	error = errno;
	if (fds[1] >= 0)
		close(fds[1]);
	if (pid < 0)
		return lose(c, "cannot start the tunnel: %s", strerror(error));
	setpgid(pid, pid); /* here and in the child, since either may run first */
	c->tunnel = pid;
	c->safe = 1;
	c->due = ms_from_now(c->o.login_timeout);
	return open_stream(c, WAIT_HEADER);
}

/* Starts to connect to options.server, which is the host by default. SRV records (RFC 6120 section
 * 3.2.1) could name another machine, but libc cannot look them up. getaddrinfo() is the only call
 * in the loop that may wait for the network, since libc has no non-blocking version of it. */
static int start(struct conn *c)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
	int error;

	c->state = CONNECTING;
	c->resource = c->o.resource;
	free(c->jid);
	c->jid = NULL;
	if (c->o.tunnel)
		return open_tunnel(c);
	error = getaddrinfo(c->o.server, c->port, &hints, &c->addrs);
	if (error)
		return lose(c, "cannot find %s: %s", c->o.server,
		            error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
	c->addr = c->addrs;
	return connect_next(c, 0);
}

/* -------------------------------------------------------------- The stream */

/* S: <stream:stream from='HOST' id='...' version='1.0' ...>
 * We need nothing from it. */
static int take_header(struct conn *c, const struct xml_elem *e)
{
	(void)e;
	c->state = c->state == WAIT_HEADER ? WAIT_FEATURES : WAIT_BIND_FEATURES;
	return 0;
}

/* Returns the condition of an error (RFC 6120 sections 4.9, 6.5, 8.3), which is the name of the
 * first child in the namespace `ns`, except <text/>. */
static const char *condition_of(const struct xml_elem *error, const char *ns)
{
	const struct xml_elem *c = error ? error->children : NULL;

	while (c && (strcmp(c->ns, ns) || !strcmp(c->name, "text")))
		c = c->next;
	return c ? c->name : "no condition given";
}

const char *xmpp_error_condition(const struct xml_elem *stanza)
{
	return condition_of(xml_child(stanza, "error", NULL), NS_STANZAS);
}

/* Ends a connection because of an error that the server has sent. If the error has no text, end()
 * removes the space at the end. Always returns -1. */
static int refused(struct conn *c, int recurs, const char *what, const struct xml_elem *error,
                   const char *ns)
{
	const struct xml_elem *text = xml_child(error, "text", ns);

	return end(c, recurs, "%s: %s %s", what, condition_of(error, ns), text ? text->text : "");
}

/* S: <stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>...
 * RFC 6120 section 4.9. This may arrive in any state. <conflict/> says that another client has
 * logged in with our resource. If both reconnected, they would replace each other forever. */
static int stream_error(struct conn *c, const struct xml_elem *e)
{
	static const char *const recurring[] = {
		"host-gone", "host-unknown", "not-authorized", "policy-violation", "see-other-host",
		"unsupported-version"
	};
	const char *condition = condition_of(e, NS_STREAMS);
	int recurs = 0;
	size_t i;

	if (!strcmp(condition, "conflict"))
		c->o.reconnect = 0;
	for (i = 0; i < sizeof recurring / sizeof *recurring; i++)
		recurs |= !strcmp(condition, recurring[i]);
	return refused(c, recurs, "stream error", e, NS_STREAMS);
}

/* C: <iq type='set' id='register'><query xmlns='jabber:iq:register'>
 *      <username>user</username><password>...</password></query></iq>
 * XEP-0077 section 3.1. This sends the password, so the connection must be safe. */
static int create_account(struct conn *c)
{
	if (!c->safe)
		return give_up(c, "creating an account needs a tunnel or a server on this machine");
	c->state = WAIT_ACCOUNT;
	return say(c, "<iq type='set' id='register'><query xmlns='jabber:iq:register'>"
	              "<username>%s</username><password>%s</password></query></iq>",
	           c->o.user, c->o.password);
}

/* Ends the connection because the server has not granted our request. An error of type wait is
 * temporary (RFC 6120 section 8.3.2). An answer without <error/> counts as temporary, too. */
static int request_refused(struct conn *c, const struct xml_elem *e, const char *what)
{
	const struct xml_elem *error = xml_child(e, "error", NULL);

	return refused(c, error && !xml_has(error, "type", "wait"), what, error, NS_STANZAS);
}

/* S: <iq type='result' id='register'/>
 * S: <iq type='error' id='register'><error type='cancel'><conflict xmlns='...'/></error></iq>
 * The second answer says that the account exists already, so we log in. */
static int take_account(struct conn *c, const struct xml_elem *e)
{
	int exists = xml_has(e, "type", "result") || !strcmp(xmpp_error_condition(e), "conflict");

	if (!exists || !xml_has(e, "id", "register"))
		return request_refused(c, e, "account refused");
	c->o.create = 0;
	return c->begin_login(c);
}

/* -------------------------------------------------------------------- SASL */

/* Queues `format`, with our SASL message in base64 in place of %r. The message begins at the offset
 * `from` of c->sasl. */
static int say_sasl(struct conn *c, const char *format, size_t from)
{
	struct buffer base64 = {0}, *b = &c->sasl;
	int failed = b->failed || append_base64(&base64, b->bytes + from, b->end - from);

	failed = failed ? lose(c, "out of memory") : say(c, format, base64.bytes);
	buffer_free(&base64);
	return failed;
}

/* C: <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>
 *      base64 of \0user\0password</auth>
 * RFC 4616. */
static int begin_plain(struct conn *c)
{
	buffer_append(&c->sasl, "", 1);
	buffer_append(&c->sasl, c->o.user, strlen(c->o.user) + 1);
	buffer_append(&c->sasl, c->o.password, strlen(c->o.password));
	c->state = WAIT_SUCCESS;
	return say_sasl(c, "<auth xmlns='" NS_SASL "' mechanism='PLAIN'>%r</auth>", 0);
}

/* C: <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>
 *      base64 of n,,n=user,r=nonce</auth>
 * RFC 5802 section 5. In the user name, = and , are written =3D and =2C. The RFC also asks for
 * SASLprep, which normalizes names and passwords. We use them as given. */
static int begin_scram(struct conn *c)
{
	uint8_t random[NONCE / 4 * 3];
	const char *p;

	if (random_bytes(random, sizeof random))
		return lose(c, "cannot read /dev/urandom");
	buffer_format(&c->sasl, "n,,n=");
	for (p = c->o.user; *p; p++) {
		if (*p == '=' || *p == ',')
			buffer_append(&c->sasl, *p == '=' ? "=3D" : "=2C", 3);
		else
			buffer_append(&c->sasl, p, 1);
	}
	buffer_format(&c->sasl, ",r=");
	append_base64(&c->sasl, random, sizeof random);
	c->state = WAIT_CHALLENGE;
	return say_sasl(c, "<auth xmlns='" NS_SASL "' mechanism='SCRAM-SHA-1'>%r</auth>", 0);
}

/* True if the server offers the mechanism `name`:
 * S: <mechanism>SCRAM-SHA-1</mechanism>
 * White space around the name does not matter. */
static int offers(const struct xml_elem *mechanisms, const char *name)
{
	static const char space[] = " \t\r\n";
	const struct xml_elem *m = mechanisms ? mechanisms->children : NULL;
	size_t n = strlen(name);
	const char *word;

	for (; m; m = m->next) {
		word = m->text + strspn(m->text, space);
		if (!strcmp(m->name, "mechanism") && !strncmp(word, name, n)
		    && !word[n + strspn(word + n, space)])
			return 1;
	}
	return 0;
}

/* S: <stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      <mechanism>SCRAM-SHA-1</mechanism>...</mechanisms></stream:features>
 * RFC 6120 section 6.4.1. A server that insists on TLS marks it as required, or offers no
 * mechanisms without it. */
static int choose_mechanism(struct conn *c, const struct xml_elem *e)
{
	const struct xml_elem *mechanisms = xml_child(e, "mechanisms", NS_SASL);
	const struct xml_elem *tls = xml_child(e, "starttls", NS_TLS);

	if (tls && (!mechanisms || xml_child(tls, "required", NS_TLS)))
		return give_up(c, "the server requires TLS, so use -x '" TLS_COMMAND "'");
	if (offers(mechanisms, "SCRAM-SHA-1"))
		c->begin_login = begin_scram;
	else if (offers(mechanisms, "PLAIN") && c->safe)
		c->begin_login = begin_plain;
	else
		return give_up(c, "the server offers no mechanism that we can use: SCRAM-SHA-1, "
		                  "or PLAIN through a tunnel or on this machine");
	return c->o.create ? create_account(c) : c->begin_login(c);
}

/* Reads the server's first message, r=nonces,s=salt,i=rounds, and hashes the password with this
 * salt. "nonces" is our nonce, with which our first message ends, followed by the server's. Neither
 * a nonce nor base64 contains a comma, so each comma ends a value. pbkdf2() needs the bytes 0, 0,
 * 0, 1 after the salt. Returns NULL, or an error message. */
static const char *read_challenge(struct conn *c, const char *message, uint8_t salted[20])
{
	const char *ours = c->sasl.bytes + c->sasl.end - NONCE;
	const char *salt64 = strstr(message, ",s="), *digits = strstr(message, ",i=");
	struct buffer salt = {0};
	long rounds;
	char *rest;
	int failed;

	if (strncmp(message, "r=", 2) || !salt64 || !digits)
		return "its message is not complete";
	if (strcspn(message + 2, ",") <= NONCE || memcmp(message + 2, ours, NONCE))
		return "its nonce does not extend ours";
	rounds = strtol(digits + 3, &rest, 10);
	if ((*rest && *rest != ',') || rounds < MIN_ROUNDS || rounds > MAX_ROUNDS)
		return "it asks for too few or too many rounds of hashing";
	failed = decode_base64(&salt, salt64 + 3, strcspn(salt64 + 3, ","))
	         || buffer_append(&salt, "\0\0\0\1", 4);
	if (!failed)
		pbkdf2(c->o.password, salt.bytes, salt.end, rounds, salted);
	c->sasl.failed |= salt.failed;
	buffer_free(&salt);
	return failed ? "its salt is not base64" : NULL;
}

/* Computes the proof that we know the password, and the signature with which the server must prove
 * the same. Both depend on the n bytes at `messages`. The names are those of RFC 5802 section 3. */
static void scram_prove(const uint8_t salted[20], const char *messages, size_t n,
                        uint8_t proof[20], uint8_t signature[20])
{
	uint8_t client_key[20], stored_key[20], server_key[20];
	int i;

	hmac(salted, 20, "Client Key", 10, client_key);
	sha1(client_key, 20, stored_key);
	hmac(stored_key, 20, messages, n, proof);
	for (i = 0; i < 20; i++)
		proof[i] ^= client_key[i];
	hmac(salted, 20, "Server Key", 10, server_key);
	hmac(server_key, 20, messages, n, signature);
}

/* S: <challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      base64 of r=nonces,s=salt,i=rounds</challenge>
 * C: <response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      base64 of c=biws,r=nonces,p=proof</response>
 * The proof covers all messages so far, except ,p=proof and the n,, that begins the first message.
 * c=biws is that n,, in base64. */
static int take_challenge(struct conn *c, const struct xml_elem *e)
{
	struct buffer first = {0}, final = {0}, *said = &c->sasl;
	const char *error = "it is empty, or not base64";
	uint8_t salted[20], proof[20], signature[20];
	size_t response = 0;

	if (!decode_base64(&first, e->text, strlen(e->text)) && first.bytes)
		error = read_challenge(c, first.bytes, salted);
	if (!error) {
		buffer_format(said, ",%r,", first.bytes);
		response = said->end;
		buffer_format(said, "c=biws,r=");
		buffer_append(said, first.bytes + 2, strcspn(first.bytes + 2, ","));
		scram_prove(salted, said->bytes + 3, said->end - 3, proof, signature);
		buffer_format(said, ",p=");
		append_base64(said, proof, sizeof proof);
		buffer_format(&final, "v=");
		append_base64(&final, signature, sizeof signature);
		append_base64(&c->final, final.bytes, final.end);
	}
	said->failed |= first.failed | final.failed | c->final.failed;
	buffer_free(&first);
	buffer_free(&final);
	if (error && !said->failed)
		return give_up(c, "bad challenge from the server: %s", error);
	c->state = WAIT_SUCCESS;
	return say_sasl(c, "<response xmlns='" NS_SASL "'>%r</response>", response);
}

/* Checks the server's final message. Any server can send <success/>, but only one that knows our
 * password, or its hash, can compute the signature. The message may have more bytes than we
 * expect, since a comma and extensions may follow the signature. They do not change the base64
 * digits before them, since v=signature is 30 bytes long, a multiple of three. Returns 0, or -1 if
 * the connection has ended. */
static int verify(struct conn *c, const char *text)
{
	if (!c->final.bytes || strncmp(text, c->final.bytes, c->final.end))
		return give_up(c, "the server cannot prove that it knows our password");
	buffer_free(&c->final);
	return 0;
}

/* S: <challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>base64 of v=...</challenge>
 * C: <response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>
 * Some servers send their final message in a challenge, and then an empty <success/> (RFC 5802
 * section 5, RFC 4422 section 3.6). */
static int take_last_challenge(struct conn *c, const struct xml_elem *e)
{
	return verify(c, e->text) ? -1 : say(c, "<response xmlns='" NS_SASL "'/>");
}

/* S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>base64 of v=...</success>
 * The text is empty with PLAIN, or if the final message came in a challenge. */
static int take_success(struct conn *c, const struct xml_elem *e)
{
	if (c->final.bytes && verify(c, e->text))
		return -1;
	buffer_free(&c->sasl);
	return open_stream(c, WAIT_HEADER_AGAIN);
}

/* S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>
 * We do not try a weaker mechanism after this. Otherwise an attacker could cause the failure, and
 * thus make us send the password. */
static int login_refused(struct conn *c, const struct xml_elem *e)
{
	int recurs = !xml_child(e, "temporary-auth-failure", NS_SASL);

	return refused(c, recurs, "login refused", e, NS_SASL);
}

/* --------------------------------------------------------------------- Iqs */

/* Returns the format of an iq. Its arguments are the type, the id, `to` and the content. A NULL
 * `to` means our own account, for which the server answers. The first %r then stands for this NULL,
 * and adds nothing. */
static const char *iq_format(const char *to)
{
	return to ? "<iq type='%s' id='%s' to='%s'>%r</iq>" : "<iq type='%s' id='%s'>%r%r</iq>";
}

int xmpp_request(struct xmpp *x, const char *type, const char *to, const char *payload,
                 xmpp_answer *callback, void *data)
{
	struct conn *c = conn_of(x);
	struct request *r = malloc(sizeof *r), **link = &c->requests;

	if (!r)
		return -1;
	*r = (struct request){.to = to ? strdup(to) : NULL, .callback = callback, .data = data};
	r->due = ms_from_now(REQUEST_TIMEOUT);
	snprintf(r->id, sizeof r->id, "request%u", ++c->requests_made);
	if ((to && !r->to) || xmpp_send(x, iq_format(to), type, r->id, to, payload)) {
		free(r->to);
		free(r);
		return -1;
	}
	while (*link)
		link = &(*link)->next;
	*link = r;
	return 0;
}

/* True if `e` answers the iq with this id that we sent to `to`. Anybody may send us an iq with any
 * id, so the answer must come from the entity that was asked (RFC 6120 section 8.1.2.1). An iq
 * without `to`, or an answer without `from`, concerns our own account. The server answers for the
 * account, sometimes in its own name. So if only one of the two has an address, it must be the
 * account's or the server's. Before a resource is bound, only the server can send us anything. */
static int is_answer(const struct conn *c, const struct xml_elem *e, const char *id, const char *to)
{
	const char *from = xml_get(e, "from"), *other = to ? to : from;
	int answer = xml_has(e, "type", "result") || xml_has(e, "type", "error");

	if (!answer || !xml_has(e, "id", id))
		return 0;
	if (to && from)
		return xmpp_same_jid(to, from);
	return !c->jid || !other || xmpp_same_jid(other, c->o.host)
	       || xmpp_same_account(other, c->jid);
}

/* S: <iq type='get' from='...' id='...'><ping xmlns='urn:xmpp:ping'/></iq>
 * C: <iq type='result' id='...' to='...'></iq>
 * XEP-0199. Other requests get an error, since each must be answered (RFC 6120 section 8.2.3). But
 * without an id, no answer is possible. */
static int answer_iq(struct conn *c, const struct xml_elem *e)
{
	static const char unavailable[] =
		"<error type='cancel'><service-unavailable xmlns='" NS_STANZAS "'/></error>";
	const char *from = xml_get(e, "from"), *id = xml_get(e, "id"), *format = iq_format(from);

	if (!id)
		return 0;
	if (xml_child(e, "ping", "urn:xmpp:ping"))
		return say(c, format, "result", id, from, "");
	return say(c, format, "error", id, from, unavailable);
}

static int take_iq(struct conn *c, const struct xml_elem *e)
{
	struct request **link = &c->requests;

	if (xml_has(e, "type", "get") || xml_has(e, "type", "set"))
		return answer_iq(c, e);
	while (*link && !is_answer(c, e, (*link)->id, (*link)->to))
		link = &(*link)->next;
	if (*link)
		answer_request(c, link, e);
	return 0;
}

/* ----------------------------------------------------------------- Binding */

/* C: <iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>
 *      <resource>...</resource></bind></iq>
 * RFC 6120 section 7. Without <resource/>, the server chooses one. */
static int ask_for_resource(struct conn *c)
{
	c->state = WAIT_BIND;
	if (!c->resource)
		return say(c, "<iq type='set' id='bind'><bind xmlns='" NS_BIND "'/></iq>");
	return say(c, "<iq type='set' id='bind'><bind xmlns='" NS_BIND "'>"
	              "<resource>%s</resource></bind></iq>", c->resource);
}

/* S: <stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>...
 * A session is a step of the login in RFC 3921, which RFC 6121 has replaced. Only old servers
 * insist on it; others do not offer it, or mark it as optional. */
static int bind_resource(struct conn *c, const struct xml_elem *e)
{
	const struct xml_elem *session = xml_child(e, "session", NS_SESSION);

	if (!xml_child(e, "bind", NS_BIND))
		return lose(c, "the server does not let us bind a resource");
	c->wants_session = session && !xml_child(session, "optional", NULL);
	return ask_for_resource(c);
}

/* C: <presence/>
 * This makes us available to others (RFC 6121 section 4.2). */
static int become_ready(struct conn *c)
{
	c->state = READY;
	c->ready_at = now_ms();
	if (say(c, "<presence/>"))
		return -1;
	if (c->x.on_ready)
		c->x.on_ready(&c->x);
	return 0;
}

/* S: <iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>
 *      <jid>user@host/resource</jid></bind></iq>
 * S: <iq type='error' id='bind'><error type='cancel'><conflict xmlns='...'/></error></iq>
 * The second answer says that the resource is in use, perhaps by our previous connection, whose
 * loss the server has not noticed yet. So we let the server choose a resource. */
static int take_resource(struct conn *c, const struct xml_elem *e)
{
	const struct xml_elem *jid = xml_child(xml_child(e, "bind", NS_BIND), "jid", NS_BIND);

	if (!is_answer(c, e, "bind", NULL))
		return take_iq(c, e);
	if (c->resource && !strcmp(xmpp_error_condition(e), "conflict")) {
		c->resource = NULL;
		return ask_for_resource(c);
	}
	if (!xml_has(e, "type", "result"))
		return request_refused(c, e, "resource refused");
	c->jid = strdup(jid ? jid->text : "");
	if (!c->jid || !*c->jid)
		return lose(c, c->jid ? "the server bound no resource" : "out of memory");
	if (!c->wants_session)
		return become_ready(c);
	c->state = WAIT_SESSION;
	return say(c, "<iq type='set' id='session'><session xmlns='" NS_SESSION "'/></iq>");
}

static int take_session(struct conn *c, const struct xml_elem *e)
{
	if (!is_answer(c, e, "session", NULL))
		return take_iq(c, e);
	if (!xml_has(e, "type", "result"))
		return request_refused(c, e, "session refused");
	return become_ready(c);
}

/* ----------------------------------------------------------------- Stanzas */

int xmpp_send(struct xmpp *x, const char *format, ...)
{
	va_list ap;
	int failed;

	if (conn_of(x)->state != READY) {
		errno = ENOTCONN;
		return -1;
	}
	va_start(ap, format);
	failed = queue_v(conn_of(x), format, ap);
	va_end(ap);
	return failed;
}

int xmpp_message(struct xmpp *x, const char *to, const char *type, const char *body)
{
	return xmpp_send(x, "<message to='%s' type='%s'><body>%s</body></message>",
	                 to, type ? type : "normal", body);
}

int xmpp_join(struct xmpp *x, const char *room, const char *nick)
{
	return xmpp_send(x, "<presence to='%s/%s'><x xmlns='" NS_MUC "'>"
	                    "<history maxstanzas='0'/></x></presence>", room, nick);
}

int xmpp_leave(struct xmpp *x, const char *room, const char *nick)
{
	return xmpp_send(x, "<presence to='%s/%s' type='unavailable'/>", room, nick);
}

int xmpp_has_status(const struct xml_elem *presence, int code)
{
	const struct xml_elem *x = xml_child(presence, "x", NS_MUC "#user");
	const struct xml_elem *e = x ? x->children : NULL;
	char number[16];

	snprintf(number, sizeof number, "%d", code);
	while (e && (strcmp(e->name, "status") || !xml_has(e, "code", number)))
		e = e->next;
	return e != NULL;
}

int xmpp_unlock_room(struct xmpp *x, const char *room, xmpp_answer *callback, void *data)
{
	return xmpp_request(x, "set", room, "<query xmlns='" NS_MUC "#owner'>"
	                    "<x xmlns='jabber:x:data' type='submit'/></query>", callback, data);
}

int xmpp_same_account(const char *a, const char *b)
{
	size_t n = a ? strcspn(a, "/") : 0;

	return a && b && n == strcspn(b, "/") && !strncasecmp(a, b, n);
}

int xmpp_same_jid(const char *a, const char *b)
{
	return xmpp_same_account(a, b) && !strcmp(a + strcspn(a, "/"), b + strcspn(b, "/"));
}

static int take_stanza(struct conn *c, const struct xml_elem *e)
{
	void (*handler)(struct xmpp *, const struct xml_elem *) = c->x.on_presence;

	if (!strcmp(e->name, "message"))
		handler = c->x.on_message;
	if (handler)
		handler(&c->x, e);
	return 0;
}

/* --------------------------------------------------------------- The table */

/* Each row names an element that may arrive in a state, and the function that handles it. */
static const struct row {
	enum state state;
	const char *name, *ns;
	int (*take)(struct conn *, const struct xml_elem *);
} table[] = {
	{WAIT_HEADER,        "stream",    NS_STREAM, take_header},
	{WAIT_FEATURES,      "features",  NS_STREAM, choose_mechanism},
	{WAIT_ACCOUNT,       "iq",        NS_CLIENT, take_account},
	{WAIT_CHALLENGE,     "challenge", NS_SASL,   take_challenge},
	{WAIT_CHALLENGE,     "failure",   NS_SASL,   login_refused},
	{WAIT_SUCCESS,       "challenge", NS_SASL,   take_last_challenge},
	{WAIT_SUCCESS,       "success",   NS_SASL,   take_success},
	{WAIT_SUCCESS,       "failure",   NS_SASL,   login_refused},
	{WAIT_HEADER_AGAIN,  "stream",    NS_STREAM, take_header},
	{WAIT_BIND_FEATURES, "features",  NS_STREAM, bind_resource},
	{WAIT_BIND,          "iq",        NS_CLIENT, take_resource},
	{WAIT_SESSION,       "iq",        NS_CLIENT, take_session},
	{READY,              "message",   NS_CLIENT, take_stanza},
	{READY,              "presence",  NS_CLIENT, take_stanza},
	{READY,              "iq",        NS_CLIENT, take_iq}
};

/* Handles an element. Before WAIT_BIND, an element that is not in the table ends the connection.
 * From then on, such an element is ignored, since others may send us stanzas, and the server may
 * use extensions. */
static int dispatch(struct conn *c, const struct xml_elem *e)
{
	size_t i;

	if (!strcmp(e->name, "error") && !strcmp(e->ns, NS_STREAM))
		return stream_error(c, e);
	for (i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].state == c->state && !strcmp(table[i].name, e->name)
		    && !strcmp(table[i].ns, e->ns))
			return table[i].take(c, e);
	if (c->state >= WAIT_BIND)
		return 0;
	return lose(c, "unexpected <%s xmlns='%s'> while we waited for %s",
	            e->name, e->ns, awaited[c->state]);
}

/* ---------------------------------------------------------------- The loop */

/* Prints the bytes of an event in the trace. Invalid input may be long, so it is cut. */
static void trace_event(const struct conn *c, enum xml_event event)
{
	static const char skipped[] = "(a stanza that exceeds a limit)";
	size_t n;
	const char *raw = xmlstream_raw(c->xs, &n);

	if (event == XML_SKIPPED && n == 0)
		trace(c, 'S', skipped, strlen(skipped));
	else if (event != XML_MORE)
		trace(c, 'S', raw, event == XML_ERROR && n > MAX_SHOWN ? MAX_SHOWN : n);
}

/* C: <stream:error><not-well-formed xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>
 * RFC 6120 sections 11.1 and 11.3. In CLOSING, our stream is closed already, so the error cannot be
 * sent. */
static void xml_error(struct conn *c)
{
	static const char format[] = "<stream:error><%r xmlns='" NS_STREAMS "'/></stream:error>";

	if (c->state == CLOSING || !say(c, format, xmlstream_condition(c->xs)))
		lose(c, "bad XML from the server: %s", xmlstream_error(c->xs));
}

/* Handles n bytes from the server. Any event may end the connection, which sets c->fd to -1. */
static void parse(struct conn *c, const char *p, size_t n)
{
	struct xml_elem *e;
	enum xml_event event;

	if (xmlstream_feed(c->xs, p, n)) {
		lose(c, "out of memory");
		return;
	}
	do {
		event = xmlstream_next(c->xs, &e);
		trace_event(c, event);
		if (event == XML_ERROR)
			xml_error(c);
		else if (event == XML_CLOSE)
			lose(c, "the server closed the stream while we waited for %s",
			     awaited[c->state]);
		else if (e)
			dispatch(c, e);
		xml_free(e);
	} while (event != XML_MORE && c->fd >= 0);
}

static void receive(struct conn *c)
{
	char buf[READ_SIZE];
	ssize_t n = recv(c->fd, buf, sizeof buf, 0);

	if (n > 0) {
		c->pinged = 0;
		parse(c, buf, (size_t)n);
		if (c->state == READY) /* after parse(), which may have completed the login */
			c->due = ms_from_now(c->o.ping_after);
	} else if (n == 0)
		lose(c, "the server closed the connection while we waited for %s",
		     awaited[c->state]);
	else if (!would_block())
		lose(c, "connection lost: %s", strerror(errno));
}

void xmpp_wake_after(struct xmpp *x, long ms)
{
	conn_of(x)->wake_due = ms < 0 ? 0 : ms_from_now(ms);
}

/* C: <iq type='get' id='ping' to='HOST'><ping xmlns='urn:xmpp:ping'/></iq>
 * XEP-0199 section 4.2. If the network breaks, recv() does not report an error, so we must ask for
 * an answer. A server that does not support pings answers with an error, which is enough. */
static void ping(struct conn *c)
{
	c->pinged = 1;
	c->due = ms_from_now(c->o.ping_timeout);
	say(c, "<iq type='get' id='ping' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", c->o.host);
}

/* Does what the state requires when its timer, `due`, has expired. */
static void time_is_up(struct conn *c)
{
	if (c->state == WAITING)
		start(c);
	else if (c->state == CONNECTING)
		connect_next(c, ETIMEDOUT);
	else if (c->state == READY && !c->pinged)
		ping(c);
	else if (c->state == READY)
		lose(c, "the server has not answered for %g s", (double)c->o.ping_timeout / 1000);
	else if (c->state == CLOSING)
		lose(c, NULL);
	else
		lose(c, "login not finished within %g s: still waiting for %s",
		     (double)c->o.login_timeout / 1000, awaited[c->state]);
}

static void check_timers(struct conn *c, int64_t now)
{
	if (c->due && now >= c->due)
		time_is_up(c);
	while (c->requests && now >= c->requests->due)
		answer_request(c, &c->requests, NULL);
	if (c->wake_due && now >= c->wake_due) {
		c->wake_due = 0;
		if (c->x.on_wake && c->state != CLOSING)
			c->x.on_wake(&c->x);
	}
}

/* Returns the earlier of two times. 0 means never. */
static int64_t earlier(int64_t a, int64_t b)
{
	return !a || (b && b < a) ? b : a;
}

/* Sends what has been queued since the last turn, in one piece if possible. If the server has
 * closed the connection, discards the output, but leaves it to recv() to report the end. There may
 * still be bytes to read, such as a stream error that says why the server closed it. */
static void before_select(struct conn *c)
{
	if (!flush(c))
		return;
	if (errno == EPIPE || errno == ECONNRESET)
		buffer_free(&c->out);
	else
		lose(c, "connection lost: %s", strerror(errno));
}

/* Adds the connection's descriptor to the sets, and sets *until to its next timer if that is
 * earlier. Returns 0 if the connection has ended for good, otherwise 1. */
static int add_fds(const struct conn *c, fd_set *readable, fd_set *writable, int64_t *until)
{
	if (c->state == CLOSED)
		return 0;
	if (c->fd >= 0)
		FD_SET(c->fd, readable);
	if (c->fd >= 0 && (c->state == CONNECTING || c->out.start < c->out.end))
		FD_SET(c->fd, writable);
	*until = earlier(*until, earlier(c->due, c->wake_due));
	if (c->requests)
		*until = earlier(*until, c->requests->due);
	return 1;
}

/* Handles input and timers. Input comes first, so that an answer that arrived in time counts even
 * if we read it late. */
static void after_select(struct conn *c, const fd_set *readable, const fd_set *writable,
                         int64_t now)
{
	if (c->state == CONNECTING && FD_ISSET(c->fd, writable))
		connected(c);
	else if (c->state > CONNECTING && c->fd >= 0 && FD_ISSET(c->fd, readable))
		receive(c);
	if (c->state != CLOSED)
		check_timers(c, now);
}

/* Waits until a descriptor is ready, the time `until` has come (0 for no limit), or a signal
 * arrives that is not in `mask`. Returns 0, or -1 and sets errno. */
static int wait_ready(fd_set *readable, fd_set *writable, int64_t until, const sigset_t *mask)
{
	int64_t now = now_ms(), ms = until > now ? until - now : 0;
	struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

	if (pselect(FD_SETSIZE, readable, writable, NULL, until ? &t : NULL, mask) >= 0)
		return 0;
	FD_ZERO(readable); /* otherwise all descriptors would seem to be ready */
	FD_ZERO(writable);
	return errno == EINTR ? 0 : -1;
}

/* Signals are blocked until pselect() waits. Otherwise a signal could arrive between the test of
 * `stopping` and the wait, and would not end the wait. */
long xmpp_turn(struct xmpp **conns, size_t n, long ms)
{
	fd_set readable, writable;
	sigset_t all, mask;
	int64_t now, until = ms < 0 ? 0 : ms_from_now(ms);
	int stopped;
	long alive = 0;
	size_t i;

	FD_ZERO(&readable);
	FD_ZERO(&writable);
	for (i = 0; i < n; i++)
		before_select(conn_of(conns[i])); /* first, since on_close may call xmpp_stop() */
	stopped = stopping;
	for (i = 0; i < n && stopped; i++)
		xmpp_close(conns[i]);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);
	if (stopping != stopped)
		until = 1; /* xmpp_stop() was called a moment ago, so do not wait */
	for (i = 0; i < n; i++)
		alive += add_fds(conn_of(conns[i]), &readable, &writable, &until);
	if (alive == 0)
		stopping = 0;
	else if (wait_ready(&readable, &writable, until, &mask))
		alive = -1;
	sigprocmask(SIG_SETMASK, &mask, NULL);
	now = now_ms();
	for (i = 0; i < n && alive > 0; i++)
		after_select(conn_of(conns[i]), &readable, &writable, now);
	return alive;
}

int xmpp_run(struct xmpp **conns, size_t n)
{
	long alive;

	do
		alive = xmpp_turn(conns, n, -1);
	while (alive > 0);
	return (int)alive;
}

void xmpp_stop(void)
{
	stopping = 1;
}

/* ------------------------------------------------ xmpp_new() and xmpp_free() */

struct xmpp *xmpp_new(const struct xmpp_options *o)
{
	struct conn *c;

	if (!MSG_NOSIGNAL)
		signal(SIGPIPE, SIG_IGN); /* or send() could kill the process */
	errno = EINVAL;
	if (!o->user || !o->password || !o->host || o->port < 0 || o->port > 65535)
		return NULL;
	c = calloc(1, sizeof *c);
	if (c)
		c->xs = xmlstream_new(0);
	if (!c || !c->xs) {
		free(c);
		return NULL;
	}
	c->o = *o;
	c->o.server = o->server ? o->server : o->host;
	c->o.login_timeout = o->login_timeout ? o->login_timeout : LOGIN_TIMEOUT;
	c->o.ping_after = o->ping_after ? o->ping_after : PING_AFTER;
	c->o.ping_timeout = o->ping_timeout ? o->ping_timeout : PING_TIMEOUT;
	snprintf(c->port, sizeof c->port, "%d", o->port ? o->port : 5222);
	c->due = ms_from_now(o->start_after);
	c->fd = -1;
	return &c->x;
}

void xmpp_free(struct xmpp *x)
{
	struct conn *c = conn_of(x);

	if (!x)
		return;
	tear_down(c);
	xmlstream_free(c->xs);
	free(c->jid);
	free(c);
}

const char *xmpp_jid(const struct xmpp *x)
{
	return conn_of(x)->jid ? conn_of(x)->jid : "";
}

/* ------------------------------------------------------------- The toolbox */

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Appends n bytes in base64 (RFC 4648 section 4). Three bytes become four digits. At the end, one
 * byte becomes two digits and two bytes become three, and = fills the group. Returns 0, or -1 if
 * memory has run out. */
static int append_base64(struct buffer *b, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	char group[4];
	size_t i, k;
	uint32_t v;

	for (i = 0; i < n; i += 3) {
		v = (uint32_t)p[i] << 16;
		v |= i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0;
		v |= i + 2 < n ? p[i + 2] : 0;
		for (k = 0; k < 4; k++)
			group[k] = k <= n - i ? base64_digits[v >> (18 - 6 * k) & 63] : '=';
		buffer_append(b, group, 4);
	}
	return b->failed ? -1 : 0;
}

/* Decodes n base64 digits and appends the bytes. In each group of four, every digit except the
 * first completes a byte. Returns 0, or -1 if `s` is not base64 or memory has run out. */
static int decode_base64(struct buffer *b, const char *s, size_t n)
{
	const char *digit;
	size_t i, digits = n;
	uint32_t v = 0;
	uint8_t byte;

	while (digits > 0 && n - digits < 2 && s[digits - 1] == '=')
		digits--;
	for (i = 0; i < digits; i++) {
		digit = strchr(base64_digits, s[i]);
		if (!digit || !*digit)
			return -1;
		v = v << 6 | (uint32_t)(digit - base64_digits);
		byte = (uint8_t)(v >> (6 - 2 * (i % 4)));
		buffer_append(b, &byte, i % 4 > 0);
	}
	return n % 4 || b->failed ? -1 : 0;
}

static const uint32_t sha1_start[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};

static uint32_t rotate(uint32_t x, int n)
{
	return x << n | x >> (32 - n);
}

/* Returns f(t; b, c, d) of RFC 3174 section 5. */
static uint32_t mix(int t, uint32_t b, uint32_t c, uint32_t d)
{
	if (t < 20)
		return (b & c) | (~b & d);
	if (t >= 40 && t < 60)
		return (b & c) | (b & d) | (c & d);
	return b ^ c ^ d;
}

/* Hashes one block of 64 bytes. The names are those of RFC 3174 section 6.1. */
static void sha1_block(uint32_t h[5], const uint8_t p[64])
{
	static const uint32_t k[] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
	uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], temp;
	int t;

	for (t = 0; t < 80; t++) {
		if (t < 16) {
			w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16
			       | (uint32_t)p[2] << 8 | p[3];
			p += 4;
		} else
			w[t] = rotate(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
		temp = rotate(a, 5) + mix(t, b, c, d) + e + w[t] + k[t / 20];
		e = d, d = c, c = rotate(b, 30), b = a, a = temp;
	}
	h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

/* Hashes the last n bytes of a text, and the padding: a 1 bit, zeros, and the length of the text in
 * bits. `start` is the hash, without padding, of the `before` bytes that come first. `before` is a
 * multiple of 64. If it is 0, `start` is sha1_start. */
static void sha1_rest(const uint32_t start[5], size_t before, const void *data, size_t n,
                      uint8_t digest[20])
{
	uint64_t bits = ((uint64_t)before + n) * 8;
	uint32_t h[5];
	uint8_t block[64] = {0};
	const uint8_t *p = data;
	int i;

	memcpy(h, start, sizeof h);
	for (; n >= 64; p += 64, n -= 64)
		sha1_block(h, p);
	memcpy(block, p, n);
	block[n] = 0x80;
	if (n >= 56) {
		sha1_block(h, block);
		memset(block, 0, sizeof block);
	}
	for (i = 0; i < 8; i++)
		block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
	sha1_block(h, block);
	for (i = 0; i < 20; i++)
		digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void sha1(const void *data, size_t n, uint8_t digest[20])
{
	sha1_rest(sha1_start, 0, data, n, digest);
}

/* Hashes one block: the n bytes of a key, then zeros, with each byte xored with `pad`. A key longer
 * than a block is replaced by its hash. HMAC-SHA-1 (RFC 2104) continues two such hashes: an inner
 * one with the data, and an outer one with the result of the inner one. */
static void hash_key(const void *key, size_t n, uint8_t pad, uint32_t h[5])
{
	uint8_t block[64] = {0};
	int i;

	if (n > 64)
		sha1(key, n, block);
	else
		memcpy(block, key, n);
	for (i = 0; i < 64; i++)
		block[i] ^= pad;
	memcpy(h, sha1_start, sizeof sha1_start);
	sha1_block(h, block);
}

static void hmac(const void *key, size_t key_n, const void *data, size_t n, uint8_t digest[20])
{
	uint32_t inner[5], outer[5];

	hash_key(key, key_n, 0x36, inner);
	hash_key(key, key_n, 0x5C, outer);
	sha1_rest(inner, 64, data, n, digest);
	sha1_rest(outer, 64, digest, 20, digest);
}

/* Computes the first block of PBKDF2 (RFC 8018), which RFC 5802 calls Hi(). The salt must end with
 * the number of the block: 0, 0, 0, 1. Each round computes the HMAC of the previous round's
 * result. The key of the HMAC is always the password, so its hashes are computed before the loop.
 * PBKDF2 is slow on purpose: an attacker who has the server's password file needs this time for
 * every guess. */
static void pbkdf2(const char *password, const void *salt, size_t n, long rounds, uint8_t key[20])
{
	uint32_t inner[5], outer[5];
	uint8_t u[20];
	int i;

	hash_key(password, strlen(password), 0x36, inner);
	hash_key(password, strlen(password), 0x5C, outer);
	hmac(password, strlen(password), salt, n, u);
	memcpy(key, u, 20);
	while (--rounds > 0) {
		sha1_rest(inner, 64, u, 20, u);
		sha1_rest(outer, 64, u, 20, u);
		for (i = 0; i < 20; i++)
			key[i] ^= u[i];
	}
}
