/* xmpp.c - one connection, from the first packet to the last, and the loop
 * that runs many of them.
 *
 * The problem. A login is a conversation in a dozen steps, and any answer may
 * come late, in pieces, or be another than the one hoped for. With a thousand
 * connections in one process, none may make the others wait.
 *
 * So nothing here waits. A connection is a state, and the state says what may
 * come next. When something has come, the loop calls the function for it, which
 * queues what is to be sent and sets the next state. The parts, from connecting
 * on in the order of a login:
 *
 *     output      the queue of bytes that wait until the socket takes them
 *     ending      how a connection ends, whatever the reason
 *     connecting  to one address after the other
 *     the tunnel  or through a command that adds TLS
 *     SASL        proving who we are: PLAIN, SCRAM-SHA-1
 *     handshake   from the stream header to the bound resource
 *     stanzas     what goes on when we are logged in
 *     the table   which function is for which element in which state
 *     the loop    select(), reading, timers
 *     life and death  xmpp_new() and xmpp_free() */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL /* macOS; see xmpp_new() */
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

#define TLS_COMMAND "openssl s_client -quiet -verify_quiet -no_ign_eof -nocommands -starttls xmpp -xmpphost %%h " \
	"-connect %%s:%%p -servername %%h -verify_return_error -verify_hostname %%h"

enum {
	LOGIN_TIMEOUT = 30000,   /* ms, where the options say nothing */
	ATTEMPT_TIMEOUT = 5000,  /* ms for one address while there are others to try */
	REQUEST_TIMEOUT = 30000, /* ms */
	MAX_REQUESTS = 1000,     /* that wait for an answer */
	PING_AFTER = 60000,      /* ms of silence; where the options say nothing, as the next one */
	PING_TIMEOUT = 30000,    /* ms */
	CLOSE_TIMEOUT = 1000,    /* ms for the server to say goodbye, too */
	TUNNEL_POLL = 20,        /* ms; how often to look whether a tunnel has ended */
	TUNNEL_TIMEOUT = 1000,   /* ms for it to end by itself; then it is killed */
	REASON_SIZE = 512,       /* bytes of a reason, for on_close */
	MAX_SHOWN = 300,         /* bytes that the trace shows of what led to an error */
	FIRST_RETRY = 1000,      /* ms; the longest pause after a first loss; it doubles with each more */
	LAST_RETRY = 60000,      /* ms; the longest pause ever */
	HEALTHY = 60000,         /* ms logged in, and all is forgiven: the next loss is a first one */
	MAX_OUTPUT = 4 << 20,    /* bytes queued for a server that does not read */
	MAX_SENT = 250000,       /* bytes of a stanza; many servers end a connection at 256 KiB */
	READ_SIZE = 64 * 1024,   /* bytes read at once */
	MIN_ROUNDS = 4096,       /* of PBKDF2; a server that asks for fewer wants an easy guess */
	MAX_ROUNDS = 100000,     /* and one that asks for more only keeps us busy */
	ROUNDS_AT_ONCE = 2000    /* in one turn of the loop: about a ms */
};

enum state {
	WAITING, CONNECTING, WAIT_HEADER, WAIT_FEATURES, WAIT_ACCOUNT, WAIT_CHALLENGE, HASHING, WAIT_SUCCESS,
	WAIT_HEADER_AGAIN, WAIT_BIND_FEATURES, WAIT_BIND, WAIT_SESSION,
	READY, CLOSING, ENDING, CLOSED
};

/* What a state waits for, for people. In the others nothing can come. */
static const char *const awaited[] = {
	[CONNECTING] = "the connection", [WAIT_HEADER] = "the stream header", [WAIT_FEATURES] = "the stream features",
	[WAIT_ACCOUNT] = "the new account", [WAIT_CHALLENGE] = "a SASL challenge",
	[HASHING] = "the answer that we compute", [WAIT_SUCCESS] = "the SASL result",
	[WAIT_HEADER_AGAIN] = "the second stream header", [WAIT_BIND_FEATURES] = "the second stream features",
	[WAIT_BIND] = "the bound resource", [WAIT_SESSION] = "the session", [READY] = "stanzas",
	[CLOSING] = "the end of the stream"
};

struct request {
	struct request *next;
	char id[17];
	char *to;               /* who was asked; NULL: the own account */
	int64_t deadline;
	void (*callback)(struct xmpp *, const struct xml_elem *, void *);
	void *data;
};

/* A command that carries our stream, as ssh's ProxyCommand does: what it reads
 * and writes is one end of a pair of sockets, and the other is our connection. */
struct tunnel {
	pid_t pid;              /* 0: it has ended */
	int err;                /* what it writes to standard error comes out here; -1: no more */
	char said[300];         /* the last of that, n bytes */
	size_t n;
	int64_t deadline;       /* for it to end, when its input has */
	char reason[REASON_SIZE]; /* for the end of the connection; "" if the bot wanted it */
};

struct conn {
	struct xmpp x;          /* what the bot sees; first, so that &c->x is c */
	struct xmpp_options o;  /* complete, with strings of its own */
	char private;           /* what we send stays on this machine, or is for the tunnel to protect */
	char pinged;            /* since it was heard last */
	enum state state;
	int fd;                 /* -1 when there is none */
	struct tunnel *tunnel;  /* while there is one */
	struct addrinfo *addrs; /* of the server, while connecting */
	struct addrinfo *addr;  /* the one to try next */
	int64_t due;            /* when to take the next step of this state, see take_step(); 0: never */
	char no_retry;          /* after this loss: it would only be lost again */
	int losses;             /* in a row */
	int64_t ready_at;       /* when the login was complete; 0: it was not */
	int64_t deadline;       /* of the login, of the goodbye; 0 for none */
	int64_t wake;           /* when to call on_wake; 0 for never */
	struct xmlstream *xs;
	struct buffer out;      /* bytes not yet written */
	int (*begin_login)(struct conn *); /* with the mechanism that was chosen */
	struct scram *scram;    /* during a login with it */
	char wants_session;     /* the server insists on it */
	char *jid;              /* full, once bound */
	struct request *requests, **request_tail; /* oldest first */
	int request_count;
	char busy;              /* a function of ours is at work with it, and frees it at its end... */
	char doomed;            /* ...if xmpp_free() was called meanwhile */
};

/* Set by xmpp_stop(). The only global: a signal handler has nothing else. */
static volatile sig_atomic_t stopping;

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

static int64_t after(long ms)
{
	return now_ms() + (ms < INT32_MAX ? ms : INT32_MAX);
}

/* n bytes that nobody can guess. */
static int random_bytes(void *to, size_t n)
{
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, to, n);

	if (fd >= 0)
		close(fd);
	return got == (ssize_t)n ? 0 : -1;
}

/* ------------------------------------------------------------------ Output */

/* Control characters of ASCII and of ISO 8859-1 (in UTF-8) would let a server write what it
 * likes to a terminal. Returns how many bytes of one are at p: 0, 1 or 2. */
static size_t control(const char *p, size_t n)
{
	const unsigned char *u = (const unsigned char *)p;

	if (n > 1 && u[0] == 0xC2 && u[1] < 0xA0)
		return 2;
	return n > 0 && (u[0] < ' ' || u[0] == 0x7F);
}

/* Prints a stanza on one line, in the notation of the RFCs: `who` is C or S. */
static void trace(struct conn *c, char who, const char *p, size_t n)
{
	const char *end = p + n, *name = c->o.trace_name;
	size_t length;

	if (!c->o.trace)
		return;
	fprintf(c->o.trace, "%c%s%s%s: ", who, name ? "(" : "", name ? name : "", name ? ")" : "");
	for (; p < end; p += length ? length : 1) {
		length = control(p, (size_t)(end - p));
		if (length > 0)
			fprintf(c->o.trace, "\\x%02X", (unsigned char)p[length - 1]);
		else
			putc(*p, c->o.trace);
	}
	putc('\n', c->o.trace);
}

/* Traces what the last event was about. The answer to a registration may repeat our password
 * (XEP-0077 section 3.1.1), so it is not shown. What led to an error may be long. */
static void trace_event(struct conn *c, enum xml_event event)
{
	static const char skipped[] = "(a stanza that exceeds a limit)", masked[] = "****";
	size_t n;
	const char *raw = xmlstream_raw(c->xs, &n);

	if (event == XML_MORE)
		return;
	if (c->state == WAIT_ACCOUNT)
		trace(c, 'S', masked, strlen(masked));
	else if (event == XML_SKIPPED && n == 0)
		trace(c, 'S', skipped, strlen(skipped));
	else
		trace(c, 'S', raw, event == XML_ERROR && n > MAX_SHOWN ? MAX_SHOWN : n);
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Appends n bytes in base64; RFC 4648 section 4. 0, or -1 when memory ran out. */
static int append_base64(struct buffer *b, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	char group[4];
	uint32_t v;
	size_t i;

	for (i = 0; i < n; i += 3) {
		v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
		group[0] = base64_digits[v >> 18];
		group[1] = base64_digits[v >> 12 & 63];
		group[2] = i + 1 < n ? base64_digits[v >> 6 & 63] : '=';
		group[3] = i + 2 < n ? base64_digits[v & 63] : '=';
		buffer_append(b, group, 4);
	}
	return b->failed ? -1 : 0;
}

/* Queues all of it or nothing; 0, or -1 and errno. */
static int queue_v(struct conn *c, const char *format, va_list ap)
{
	size_t before = c->out.end - c->out.start;
	int failed;

	if (before > MAX_OUTPUT) {
		errno = ENOBUFS;
		return -1;
	}
	failed = buffer_vformat(&c->out, format, ap);
	if (failed || c->out.end - c->out.start - before > MAX_SENT) {
		c->out.end = c->out.start + before;
		c->out.failed = 0;
		errno = failed ? ENOMEM : EMSGSIZE;
		return -1;
	}
	trace(c, 'C', c->out.bytes + c->out.start + before, c->out.end - c->out.start - before);
	return 0;
}

static int queue(struct conn *c, const char *format, ...)
{
	va_list ap;
	int failed;

	va_start(ap, format);
	failed = queue_v(c, format, ap);
	va_end(ap);
	return failed;
}

/* Did a call on a descriptor fail for now only? */
static int later(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Writes what the socket takes now. A send() may be short, always. A peer that
 * has hung up may have said why, and we have not read it yet: so what cannot be
 * sent is forgotten, and recv() will come to the end. 0, or -1 when the connection
 * is broken in another way. */
static int flush(struct conn *c)
{
	ssize_t n;

	while (c->out.start < c->out.end) {
		n = send(c->fd, c->out.bytes + c->out.start, c->out.end - c->out.start, MSG_NOSIGNAL);
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			n = (ssize_t)(c->out.end - c->out.start);
		if (n < 0)
			return later() ? 0 : -1;
		buffer_consume(&c->out, (size_t)n);
	}
	return 0;
}

/* ------------------------------------------------------------------ Ending */

/* Takes the request at *link off the list and calls back. */
static void answer_request(struct conn *c, struct request **link, const struct xml_elem *answer)
{
	struct request *r = *link;

	*link = r->next;
	if (!*link)
		c->request_tail = link;
	c->request_count--;
	r->callback(&c->x, answer, r->data);
	free(r->to);
	free(r);
}

static void forget_scram(struct conn *c);
static void kill_tunnel(struct conn *c);

/* Lets go of all that belongs to the connection rather than to the account, but
 * for what is asked later: its JID and when it was ready, which start() resets. */
static void tear_down(struct conn *c)
{
	c->state = CLOSED;
	c->deadline = c->due = c->wake = 0;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	kill_tunnel(c);
	if (c->addrs)
		freeaddrinfo(c->addrs);
	c->addrs = c->addr = NULL;
	buffer_free(&c->out);
	forget_scram(c);
	while (c->requests) /* one by one: a callback may do anything */
		answer_request(c, &c->requests, NULL);
}

/* Lost, and to be tried again, but not at once, and not by all at the same time:
 * a server that was restarted has a crowd before its door. "Exponential backoff
 * with full jitter": a random time, up to a limit that doubles with each loss. */
static void schedule_retry(struct conn *c)
{
	uint32_t limit = LAST_RETRY, random;

	if (c->ready_at && now_ms() - c->ready_at >= HEALTHY)
		c->losses = 0;
	if (c->losses < 6)
		limit = (uint32_t)FIRST_RETRY << c->losses++;
	if (random_bytes(&random, sizeof random))
		random = limit;
	c->due = after((long)(random % (limit + 1)));
	c->state = WAITING;
}

long xmpp_retry_in(const struct xmpp *x)
{
	const struct conn *c = conn_of(x);
	int64_t ms = c->due - now_ms();

	return c->state != WAITING ? -1 : ms > 0 ? (long)ms : 0;
}

/* What went wrong will go wrong again: lose(for_good(c), ...). */
static struct conn *for_good(struct conn *c)
{
	c->no_retry = 1;
	return c;
}

/* Parts of a reason may come from the server or a tunnel, and be cut anywhere: no
 * control characters, no pieces of characters, and no space at the end. */
static void tidy(char *reason)
{
	char *p;
	int n;

	for (p = reason; *p; p += n) {
		n = xml_char(p, 4);
		if (n < 0 || control(p, (size_t)n))
			memset(p, ' ', (size_t)(n = n < 0 ? 1 : n));
	}
	while (p > reason && p[-1] == ' ')
		*--p = '\0';
}

/* `reason` NULL: the bot wanted it. */
static void come_to_end(struct conn *c, const char *reason)
{
	tear_down(c);
	if (reason && c->o.reconnect && !c->no_retry)
		schedule_retry(c);
	if (c->x.on_close)
		c->x.on_close(&c->x, reason);
}

static void leave_tunnel(struct conn *c, const char *reason);

/* The end of a connection, for a reason that `format` tells in one line; NULL
 * when the bot wanted it, and then it matters no more what went wrong later.
 * Always -1, so that a caller can `return lose(...)`. */
static int lose(struct conn *c, const char *format, ...)
{
	char reason[REASON_SIZE];
	va_list ap;

	if (c->state >= ENDING)
		return -1;
	if (c->state == CLOSING)
		format = NULL;
	if (format) {
		va_start(ap, format);
		vsnprintf(reason, sizeof reason, format, ap);
		va_end(ap);
		tidy(reason);
		if (c->state > CONNECTING && !queue(c, "</stream:stream>"))
			flush(c); /* good manners, no more: if it fails, so be it */
	}
	if (c->tunnel)
		leave_tunnel(c, format ? reason : NULL);
	else
		come_to_end(c, format ? reason : NULL);
	return -1;
}

static void say_goodbye(struct conn *c)
{
	if (c->state >= ENDING) /* a callback of tear_down() may want no more, too */
		c->no_retry = 1;
	if (c->state == ENDING)
		*c->tunnel->reason = '\0';
	if (c->state >= CLOSING)
		return;
	if (c->state <= CONNECTING || queue(c, "</stream:stream>")) {
		lose(c, NULL);
		return;
	}
	c->state = CLOSING;
	c->due = c->wake = 0;
	c->deadline = after(CLOSE_TIMEOUT);
}

static void destroy(struct conn *c)
{
	xmlstream_free(c->xs);
	free((char *)c->o.user);
	free((char *)c->o.password);
	free((char *)c->o.host);
	free((char *)c->o.server);
	free((char *)c->o.resource);
	free((char *)c->o.tunnel);
	free((char *)c->o.trace_name);
	free(c->jid);
	free(c);
}

/* A handler that this calls may free the connection. */
void xmpp_close(struct xmpp *x)
{
	struct conn *c = conn_of(x);
	char was_busy = c->busy;

	c->busy = 1;
	say_goodbye(c);
	c->busy = was_busy;
	if (c->doomed && !was_busy)
		destroy(c);
}

/* -------------------------------------------------------------- Connecting */

/* Queues what must be sent, or else the connection is over. */
static int say(struct conn *c, const char *format, ...)
{
	va_list ap;
	int failed;

	va_start(ap, format);
	failed = queue_v(c, format, ap);
	va_end(ap);
	return failed ? lose(c, "out of memory, or the server does not read") : 0;
}

/* C: <?xml version='1.0'?><stream:stream to='HOST' version='1.0' ...>
 * RFC 6120 section 4.2. The server's own header is another document. */
static int open_stream(struct conn *c, enum state next)
{
	xmlstream_reset(c->xs);
	c->due = 0;
	c->state = next;
	return say(c, "<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='" NS_CLIENT
	              "' xmlns:stream='" NS_STREAM "'>", c->o.host);
}

/* Instead of that descriptor another one, which no command that we start inherits,
 * and none of the first three: where the program's output is closed, what it prints
 * would go into the stream. */
static int guard(int fd)
{
	int guarded = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3), saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	return guarded;
}

/* A socket on the way to `a`, or -1 and errno. */
static int dial(const struct addrinfo *a)
{
	int fd = guard(socket(a->ai_family, a->ai_socktype, a->ai_protocol)), flags, on = 1, saved;

	if (fd < 0)
		return -1;
	if (fd >= FD_SETSIZE) { /* FD_SET would write beyond the fd_set */
		close(fd);
		errno = EMFILE;
		return -1;
	}
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)
	    || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)
	    || (connect(fd, a->ai_addr, a->ai_addrlen) && errno != EINPROGRESS)) {
		saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static int is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
	return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

/* Tries the next address, and the one after it, until one is on its way. `error`
 * is why the last one failed. */
static int connect_next(struct conn *c, int error)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	while (c->addr && c->fd < 0) {
		c->fd = dial(c->addr);
		error = c->fd < 0 ? errno : 0;
		c->private = is_loopback(c->addr->ai_addr);
		c->addr = c->addr->ai_next;
	}
	if (c->fd < 0 && error == EMFILE)
		return lose(c, "too many connections: no descriptor is left (ulimit -n), or none below %d, "
		               "which is all that select() can watch", FD_SETSIZE);
	if (c->fd < 0)
		return lose(c, "cannot connect to %s port %d: %s", c->o.server, c->o.port, strerror(error));
	c->due = c->addr ? after(ATTEMPT_TIMEOUT) : 0;
	return 0;
}

static int open_tunnel(struct conn *c);

/* Starts a connection, to the host itself unless options.server says otherwise: to
 * find out from its SRV records (RFC 6120 section 3.2.1) takes a library for DNS.
 * getaddrinfo() may wait for a name server: the one thing in the loop that waits
 * for the network, because libc offers nothing else. */
static int start(struct conn *c)
{
	struct addrinfo hints = {0};
	char port[16];
	int error;

	c->state = CONNECTING;
	c->ready_at = 0;
	free(c->jid);
	c->jid = NULL;
	c->deadline = after(c->o.login_timeout);
	if (c->o.tunnel)
		return open_tunnel(c);
	hints.ai_socktype = SOCK_STREAM;
	snprintf(port, sizeof port, "%d", c->o.port);
	error = getaddrinfo(c->o.server, port, &hints, &c->addrs);
	if (error)
		return lose(c, "cannot find %s: %s", c->o.server, error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
	c->addr = c->addrs;
	return connect_next(c, 0);
}

/* The socket became writable: connected, or not. */
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
	return open_stream(c, WAIT_HEADER);
}

/* -------------------------------------------------------------- The tunnel */

/* Is it safe as part of a shell command? Only these characters are, and no - at
 * the beginning, which would make it an option. */
static int is_safe(const char *name)
{
	return *name && *name != '-' && !name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                                                   "abcdefghijklmnopqrstuvwxyz0123456789.:-")];
}

/* The command with host, server and port in their places. */
static void expand_command(const struct conn *c, struct buffer *b)
{
	const char *p, *value;
	char port[16];

	snprintf(port, sizeof port, "%d", c->o.port);
	for (p = c->o.tunnel; *p; p += value ? 2 : 1) {
		value = *p != '%' ? NULL : p[1] == 'h' ? c->o.host : p[1] == 's' ? c->o.server : p[1] == 'p' ? port
		      : p[1] == '%' ? "%" : NULL;
		buffer_append(b, value ? value : p, value ? strlen(value) : 1);
	}
	buffer_append(b, "", 1);
}

/* Of two connected descriptors, makes both such that no other command inherits
 * them. The first is ours: it does not block, and select() can watch it. */
static int prepare_pair(int fds[2])
{
	fds[0] = guard(fds[0]);
	if (fds[0] < 0 || fcntl(fds[1], F_SETFD, FD_CLOEXEC) || fcntl(fds[0], F_SETFL, O_NONBLOCK))
		return -1;
	errno = EMFILE;
	return fds[0] < FD_SETSIZE ? 0 : -1;
}

/* In the new process. It gets a process group of its own, so that Ctrl-C ends
 * only us: we still need it to say goodbye. */
static void be_command(const char *command, int io, int err)
{
	setpgid(0, 0);
	io = fcntl(io, F_DUPFD_CLOEXEC, 3); /* not 0 to 2, which are overwritten now */
	err = fcntl(err, F_DUPFD_CLOEXEC, 3);
	if (io >= 0 && dup2(io, 0) == 0 && dup2(io, 1) == 1 && dup2(err, 2) == 2)
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static int open_tunnel(struct conn *c)
{
	struct tunnel *t = calloc(1, sizeof *t);
	struct buffer command = {0};
	int io[2] = {-1, -1}, err[2] = {-1, -1}, safe = is_safe(c->o.host) && is_safe(c->o.server), failed, error;

	expand_command(c, &command);
	failed = !safe || !t || command.failed || socketpair(AF_UNIX, SOCK_STREAM, 0, io) || prepare_pair(io)
	         || pipe(err) || prepare_pair(err) || (t->pid = fork()) < 0;
	if (!failed && t->pid == 0)
		be_command(command.bytes, io[1], err[1]);
	error = errno;
	buffer_free(&command);
	close(io[1]);
	close(err[1]);
	if (failed) {
		close(io[0]);
		close(err[0]);
		free(t);
		if (!safe)
			return lose(for_good(c), "the name of host or server cannot be part of a tunnel's command");
		return lose(c, "cannot start a tunnel: %s", strerror(error));
	}
	setpgid(t->pid, t->pid); /* parent and child both do it, for either may run first */
	t->err = err[0];
	c->fd = io[0];
	c->tunnel = t;
	c->private = 1;
	return open_stream(c, WAIT_HEADER);
}

/* Reads what the command has written to standard error, a pipe full at most, and
 * keeps the last of it. */
static void read_tunnel(struct tunnel *t)
{
	char buf[READ_SIZE];
	ssize_t got = read(t->err, buf, sizeof buf);
	size_t room = sizeof t->said, n, kept;

	if (got == 0 || (got < 0 && !later())) {
		close(t->err);
		t->err = -1;
	}
	if (got <= 0)
		return;
	n = (size_t)got < room ? (size_t)got : room;
	kept = t->n < room - n ? t->n : room - n;
	memmove(t->said, t->said + t->n - kept, kept);
	memcpy(t->said + kept, buf + got - n, n);
	t->n = kept + n;
}

/* The connection is over: the command sees the end of its input, and ought to
 * end, too. Until it has, the connection is ENDING. */
static void leave_tunnel(struct conn *c, const char *reason)
{
	close(c->fd);
	c->fd = -1;
	c->state = ENDING;
	c->wake = 0;
	c->due = now_ms();
	c->deadline = 0;
	c->tunnel->deadline = after(TUNNEL_TIMEOUT);
	snprintf(c->tunnel->reason, REASON_SIZE, "%s", reason ? reason : "");
}

/* The command, which may have left its group, and what it has started there. */
static void kill_group(pid_t pid)
{
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
}

/* Has it ended? Then that is why a login failed, more often than not: a server
 * that cannot be reached, a certificate that is not good. Not when it has nothing
 * to complain of, and not when the server's answer is final: then it has spoken. */
static void await_tunnel(struct conn *c)
{
	struct tunnel *t = c->tunnel;
	char reason[REASON_SIZE];
	int status = 0, late = now_ms() >= t->deadline; /* NOLINT(clang-analyzer-core.NullDereference): ENDING has a tunnel */

	if (waitpid(t->pid, &status, WNOHANG) == 0) {
		if (late)
			kill_group(t->pid);
		c->due = after(TUNNEL_POLL);
		return;
	}
	kill(-t->pid, SIGKILL); /* what it has left behind */
	t->pid = 0;
	if (t->err >= 0)
		read_tunnel(t);
	if (c->ready_at || late || c->no_retry || (status == 0 && t->n == 0))
		snprintf(reason, sizeof reason, "%s", t->reason);
	else
		snprintf(reason, sizeof reason, "%.180s; the tunnel ended with status %d: %.*s", t->reason,
		         WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), (int)t->n, t->said);
	tidy(reason);
	come_to_end(c, *t->reason ? reason : NULL);
}

/* At once, whatever it is doing. */
static void kill_tunnel(struct conn *c)
{
	struct tunnel *t = c->tunnel;

	if (!t)
		return;
	if (t->pid > 0) {
		kill_group(t->pid);
		while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (t->err >= 0)
		close(t->err);
	free(t);
	c->tunnel = NULL;
}

/* -------------------------------------------------------------------- SASL */

static uint32_t rotate(uint32_t x, int n)
{
	return x << n | x >> (32 - n);
}

/* One block of SHA-1; RFC 3174 section 6.2, names as there. Of the words before
 * W(t), the last 16 are in w. */
static void sha1_block(uint32_t h[5], const uint32_t block[16])
{
	static const uint32_t k[] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
	uint32_t w[16], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f, temp;
	int t;

	memcpy(w, block, sizeof w);
	for (t = 0; t < 80; t++) {
		if (t >= 16)
			w[t % 16] = rotate(w[(t - 3) % 16] ^ w[(t - 8) % 16] ^ w[(t - 14) % 16] ^ w[t % 16], 1);
		f = t < 20 ? (b & c) | (~b & d) : t < 40 || t >= 60 ? b ^ c ^ d : (b & c) | (b & d) | (c & d);
		temp = rotate(a, 5) + f + e + w[t % 16] + k[t / 20];
		e = d, d = c, c = rotate(b, 30), b = a, a = temp;
	}
	h[0] += a;
	h[1] += b;
	h[2] += c;
	h[3] += d;
	h[4] += e;
}

struct sha1 {
	uint32_t h[5];
	uint64_t n;             /* bytes so far; the last n % 64 wait in block */
	uint32_t block[16];     /* most significant byte first */
};

static void sha1_init(struct sha1 *s)
{
	static const uint32_t h[] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};

	memset(s, 0, sizeof *s);
	memcpy(s->h, h, sizeof h);
}

static void sha1_update(struct sha1 *s, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (; n > 0; n--) {
		s->block[s->n / 4 % 16] = s->block[s->n / 4 % 16] << 8 | *p++;
		if (++s->n % 64 == 0)
			sha1_block(s->h, s->block);
	}
}

static void to_bytes(const uint32_t h[5], uint8_t digest[20])
{
	int i;

	for (i = 0; i < 20; i++)
		digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void sha1_final(struct sha1 *s, uint8_t digest[20])
{
	uint64_t bits = s->n * 8;
	uint8_t length[8];
	int i;

	sha1_update(s, "\x80", 1);
	while (s->n % 64 != 56)
		sha1_update(s, "", 1);
	for (i = 0; i < 8; i++)
		length[i] = (uint8_t)(bits >> (56 - 8 * i));
	sha1_update(s, length, 8);
	to_bytes(s->h, digest);
}

/* HMAC-SHA-1 (RFC 2104) with a key whose two padded blocks are hashed already:
 * PBKDF2 uses one key thousands of times. */
struct hmac {
	struct sha1 inner, outer;
};

static void hmac_init(struct hmac *m, const void *key, size_t n)
{
	uint8_t k[64] = {0};
	int i;

	sha1_init(&m->inner);
	sha1_init(&m->outer);
	if (n > 64) {
		sha1_update(&m->outer, key, n);
		sha1_final(&m->outer, k);
		sha1_init(&m->outer);
	} else
		memcpy(k, key, n);
	for (i = 0; i < 64; i++)
		k[i] ^= 0x36;
	sha1_update(&m->inner, k, 64);
	for (i = 0; i < 64; i++)
		k[i] ^= 0x36 ^ 0x5C;
	sha1_update(&m->outer, k, 64);
}

static void hmac(const struct hmac *m, const void *data, size_t n, uint8_t digest[20])
{
	struct sha1 s = m->inner;

	sha1_update(&s, data, n);
	sha1_final(&s, digest);
	s = m->outer;
	sha1_update(&s, digest, 20);
	sha1_final(&s, digest);
}

static void hmac_once(const void *key, size_t key_n, const void *data, size_t n, uint8_t digest[20])
{
	struct hmac m;

	hmac_init(&m, key, key_n);
	hmac(&m, data, n, digest);
}

/* PBKDF2 (RFC 8018) for one block of output: what RFC 5802 calls Hi(). It is
 * meant to take long, and so is run in portions, for others not to wait. */
struct pbkdf2 {
	struct hmac key;
	uint32_t u[5], result[5];
	long rounds;            /* still to be run */
};

/* At the end of the salt stands the number of the block: 0, 0, 0, 1. */
static void pbkdf2_init(struct pbkdf2 *p, const char *password, const void *salt, size_t n, long rounds)
{
	uint8_t u[20];
	int i;

	hmac_init(&p->key, password, strlen(password));
	hmac(&p->key, salt, n, u);
	memset(p->u, 0, 20);
	for (i = 0; i < 20; i++)
		p->u[i / 4] = p->u[i / 4] << 8 | u[i];
	memcpy(p->result, p->u, 20);
	p->rounds = rounds - 1;
}

/* Half an HMAC: the hash of `pad`, which is hashed already, and of u. `block`
 * holds the end of such a message behind room for u. */
static void rehash(uint32_t u[5], const uint32_t pad[5], uint32_t block[16])
{
	memcpy(block, u, 20);
	memcpy(u, pad, 20);
	sha1_block(u, block);
}

/* Runs so many rounds at most. Returns how many of them were not needed. */
static long pbkdf2_run(struct pbkdf2 *p, long most)
{
	uint32_t block[16] = {0};
	int i;

	block[5] = 0x80000000;
	block[15] = (64 + 20) * 8; /* bits */
	for (; most > 0 && p->rounds > 0; most--, p->rounds--) {
		rehash(p->u, p->key.inner.h, block);
		rehash(p->u, p->key.outer.h, block);
		for (i = 0; i < 5; i++)
			p->result[i] ^= p->u[i];
	}
	return most;
}

/* Appends what the n digits at s stand for. 0, or -1 when they are not base64, or
 * memory ran out. */
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

enum { NONCE = 24 }; /* base64 digits of our nonce */

/* What a SCRAM login must remember from one step to the next. */
struct scram {
	struct buffer messages; /* that were exchanged so far: n,,first,challenge,final */
	size_t final;           /* where the last one begins */
	struct pbkdf2 hash;     /* that makes the salted password */
	uint8_t signature[20];  /* what the server must send to prove that it knows us */
};

static void forget_scram(struct conn *c)
{
	if (!c->scram)
		return;
	buffer_free(&c->scram->messages);
	free(c->scram);
	c->scram = NULL;
}

/* The value of the attribute `name` of a SCRAM message, "r=...,s=...,i=...":
 * up to the next comma, *n bytes long. It may hold = itself. */
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

/* The proof that we know the password, and what the server must answer with to
 * prove that it does, too, both for these n bytes of messages; RFC 5802 section 3,
 * names as there. */
static void scram_prove(const uint32_t hi[5], const void *messages, size_t n, uint8_t proof[20], uint8_t signature[20])
{
	uint8_t salted[20], client_key[20], stored_key[20], server_key[20];
	struct sha1 sha;
	int i;

	to_bytes(hi, salted);
	hmac_once(salted, 20, "Client Key", 10, client_key);
	sha1_init(&sha);
	sha1_update(&sha, client_key, 20);
	sha1_final(&sha, stored_key);
	hmac_once(stored_key, 20, messages, n, proof);
	for (i = 0; i < 20; i++)
		proof[i] ^= client_key[i];
	hmac_once(salted, 20, "Server Key", 10, server_key);
	hmac_once(server_key, 20, messages, n, signature);
}

/* Reads the server's first message and prepares the hashing that it asks for.
 * NULL, or what is wrong with it; memory may have run out, either way. */
static const char *read_challenge(struct scram *s, const char *password, const char *first)
{
	size_t nonce_n, salt_n, rounds_n;
	const char *nonce = scram_attr(first, 'r', &nonce_n);
	const char *salt64 = scram_attr(first, 's', &salt_n);
	const char *rounds_at = scram_attr(first, 'i', &rounds_n);
	long rounds = rounds_at ? strtol(rounds_at, NULL, 10) : 0; /* a huge one is LONG_MAX */
	size_t end = s->messages.end;
	int failed;

	if (!nonce || !salt64 || !rounds_at || first[0] != 'r')
		return "its message is not complete";
	if (nonce_n <= NONCE || memcmp(nonce, s->messages.bytes + s->messages.end - NONCE, NONCE))
		return "its nonce does not extend ours";
	if (rounds < MIN_ROUNDS || rounds > MAX_ROUNDS || strspn(rounds_at, "0123456789") != rounds_n)
		return "it asks for too few or too many rounds of hashing";
	failed = decode_base64(&s->messages, salt64, salt_n) || buffer_append(&s->messages, "\0\0\0\1", 4);
	if (!failed)
		pbkdf2_init(&s->hash, password, s->messages.bytes + end, s->messages.end - end, rounds);
	s->messages.end = end; /* the salt was there for a moment only */
	buffer_format(&s->messages, ",%r,", first);
	s->final = s->messages.end;
	buffer_format(&s->messages, "c=biws,r="); /* biws: base64 of n,, */
	buffer_append(&s->messages, nonce, nonce_n);
	return failed ? "its salt is not base64" : NULL;
}

/* Queues what the format makes of n bytes in base64, or else the connection is over. */
static int say_base64(struct conn *c, const char *format, const void *bytes, size_t n)
{
	struct buffer base64 = {0};
	int failed = append_base64(&base64, bytes, n) ? lose(c, "out of memory") : say(c, format, base64.bytes);

	buffer_free(&base64);
	return failed;
}

/* C: <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>
 *      base64 of n,,n=user,r=nonce</auth>
 * RFC 5802 section 5; in the user name = and , are written =3D and =2C. The
 * name and password ought to be prepared (SASLprep); we send them as given. */
static int begin_scram(struct conn *c)
{
	struct scram *s = c->scram = calloc(1, sizeof *s);
	uint8_t random[NONCE / 4 * 3];
	const char *p;

	if (!s || random_bytes(random, sizeof random))
		return lose(c, "out of memory or randomness");
	buffer_format(&s->messages, "n,,n=");
	for (p = c->o.user; *p; p++)
		buffer_format(&s->messages, *p == '=' ? "=3D" : *p == ',' ? "=2C" : "%r", (char[]){*p, '\0'});
	buffer_format(&s->messages, ",r=");
	if (append_base64(&s->messages, random, sizeof random))
		return lose(c, "out of memory");
	c->state = WAIT_CHALLENGE;
	return say_base64(c, "<auth xmlns='" NS_SASL "' mechanism='SCRAM-SHA-1'>%s</auth>", s->messages.bytes, s->messages.end);
}

/* S: <challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      base64 of r=nonces,s=salt,i=rounds</challenge> */
static int take_challenge(struct conn *c, struct xml_elem *e)
{
	struct buffer first = {0};
	const char *error = "it is not base64";
	int no_memory;

	if (!decode_base64(&first, e->text, strlen(e->text)) && !buffer_append(&first, "", 1))
		error = read_challenge(c->scram, c->o.password, first.bytes);
	no_memory = first.failed || c->scram->messages.failed;
	buffer_free(&first);
	if (no_memory)
		return lose(c, "out of memory");
	if (error)
		return lose(for_good(c), "bad challenge from the server: %s", error);
	c->state = HASHING;
	c->due = now_ms(); /* the loop is not to sleep */
	return 0;
}

/* Runs so many rounds of hashing at most, and returns how many were not needed.
 * When all are done:
 * C: <response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      base64 of c=biws,r=nonces,p=proof</response> */
static long answer_challenge(struct conn *c, long most)
{
	struct scram *s = c->scram;
	uint8_t proof[20];

	most = pbkdf2_run(&s->hash, most);
	if (s->hash.rounds > 0)
		return most;
	scram_prove(s->hash.result, s->messages.bytes + 3, s->messages.end - 3, proof, s->signature); /* not for n,, */
	c->state = WAIT_SUCCESS;
	c->due = 0;
	buffer_format(&s->messages, ",p=");
	append_base64(&s->messages, proof, sizeof proof);
	if (s->messages.failed)
		lose(c, "out of memory");
	else
		say_base64(c, "<response xmlns='" NS_SASL "'>%s</response>", s->messages.bytes + s->final, s->messages.end - s->final);
	return most;
}

/* Queues what the format makes of two strings, the second of which the trace shows
 * as ****. 0, or -1: the connection is over. */
static int say_secret(struct conn *c, const char *format, const char *text, const char *secret)
{
	struct buffer shown = {0};

	if (buffer_format(&c->out, format, text, secret))
		return lose(c, "out of memory");
	if (!buffer_format(&shown, format, text, "****"))
		trace(c, 'C', shown.bytes, shown.end);
	buffer_free(&shown);
	return 0;
}

/* C: <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>
 *      base64 of \0user\0password</auth>
 * RFC 4616. */
static int begin_plain(struct conn *c)
{
	struct buffer plain = {0}, base64 = {0};
	int failed;

	buffer_append(&plain, "", 1);
	buffer_append(&plain, c->o.user, strlen(c->o.user) + 1);
	failed = buffer_append(&plain, c->o.password, strlen(c->o.password))
	         || append_base64(&base64, plain.bytes, plain.end);
	c->state = WAIT_SUCCESS;
	if (failed)
		lose(c, "out of memory");
	else
		failed = say_secret(c, "<auth xmlns='" NS_SASL "' mechanism='%s'>%s</auth>", "PLAIN", base64.bytes);
	buffer_free(&plain);
	buffer_free(&base64);
	return failed;
}

/* Anybody could say success: only who knows our password can sign it. What the
 * server says must be base64 of v=signature; more may follow behind a comma. 1 if
 * it is, 0 if not, -1 when memory ran out. */
static int is_signed(const struct scram *s, const char *text)
{
	struct buffer got = {0}, want = {0};
	int differ = decode_base64(&got, text, strlen(text)) || buffer_append(&want, "v=", 2)
	             || append_base64(&want, s->signature, sizeof s->signature) || got.end < want.end || (got.end > want.end && got.bytes[want.end] != ',');
	int no_memory = got.failed || want.failed;
	size_t i;

	for (i = 0; i < want.end && i < got.end; i++) /* all, so that the time tells nothing */
		differ |= got.bytes[i] ^ want.bytes[i];
	buffer_free(&got);
	buffer_free(&want);
	return no_memory ? -1 : !differ;
}

/* S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>base64 of v=...</success>
 * With PLAIN there is nothing in it. */
static int take_success(struct conn *c, struct xml_elem *e)
{
	int well_signed = c->scram ? is_signed(c->scram, e->text) : 1;

	if (well_signed < 0)
		return lose(c, "out of memory");
	if (!well_signed)
		return lose(for_good(c), "the server cannot prove that it knows our password");
	forget_scram(c);
	return open_stream(c, WAIT_HEADER_AGAIN);
}

/* The condition of a SASL failure or a stream or stanza error: its first child
 * in namespace `ns` that is not the text (RFC 6120 sections 4.9, 6.5, 8.3). */
static const char *condition_of(const struct xml_elem *e, const char *ns)
{
	const struct xml_elem *c = e ? e->children : NULL;

	while (c && (strcmp(c->ns, ns) || !strcmp(c->name, "text")))
		c = c->next;
	return c ? c->name : "no condition given";
}

static const char *text_of(const struct xml_elem *e, const char *ns)
{
	const struct xml_elem *text = xml_child(e, "text", ns);

	return text ? text->text : "";
}

/* S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>
 * No second try with another mechanism: that would be a downgrade. */
static int login_refused(struct conn *c, struct xml_elem *e)
{
	const char *condition = condition_of(e, NS_SASL);

	if (strcmp(condition, "temporary-auth-failure"))
		for_good(c);
	return lose(c, "login refused: %s %s", condition, text_of(e, NS_SASL));
}

/* --------------------------------------------------------------- Handshake */

/* S: <stream:stream from='HOST' id='...' version='1.0' ...> */
static int take_header(struct conn *c, struct xml_elem *e)
{
	(void)e;
	c->state = c->state == WAIT_HEADER ? WAIT_FEATURES : WAIT_BIND_FEATURES;
	return 0;
}

static int offers(const struct xml_elem *mechanisms, const char *name)
{
	const struct xml_elem *m;

	for (m = mechanisms ? mechanisms->children : NULL; m; m = m->next)
		if (!strcmp(m->name, "mechanism") && !strcmp(m->text, name))
			return 1;
	return 0;
}

static int no_mechanism(struct conn *c, const struct xml_elem *mechanisms)
{
	const struct xml_elem *m;
	struct buffer b = {0};

	for (m = mechanisms ? mechanisms->children : NULL; m; m = m->next)
		buffer_format(&b, " %r", m->text);
	lose(for_good(c), "no mechanism to log in with: we know SCRAM-SHA-1, and PLAIN where nobody can listen; "
	        "the server offers%s", b.failed || b.end == 0 ? " none" : b.bytes);
	buffer_free(&b);
	return -1;
}

/* Is this the result of our iq with that id? An error of type wait may pass,
 * the others do not; RFC 6120 section 8.3.2. */
static int is_result(struct conn *c, const struct xml_elem *e, const char *id)
{
	const struct xml_elem *error = xml_child(e, "error", NULL);

	if (xml_has(e, "id", id) && xml_has(e, "type", "result"))
		return 1;
	if (xml_get(error, "type") && !xml_has(error, "type", "wait"))
		for_good(c);
	lose(c, "the server refused to %s: %s", id, condition_of(error, NS_STANZAS));
	return 0;
}

/* C: <iq type='set' id='register'><query xmlns='jabber:iq:register'>
 *      <username>user</username><password>...</password></query></iq>
 * XEP-0077 section 3.1: in-band registration, before the login. */
static int create_account(struct conn *c)
{
	if (!c->private)
		return lose(for_good(c), "an account can be created only where nobody can listen");
	c->state = WAIT_ACCOUNT;
	return say_secret(c, "<iq type='set' id='register'><query xmlns='jabber:iq:register'><username>%s</username>"
	                     "<password>%s</password></query></iq>", c->o.user, c->o.password);
}

/* S: <stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      <mechanism>SCRAM-SHA-1</mechanism>...</mechanisms></stream:features>
 * RFC 6120 section 6.4.1. */
static int choose_mechanism(struct conn *c, struct xml_elem *e)
{
	const struct xml_elem *mechanisms = xml_child(e, "mechanisms", NS_SASL);
	const struct xml_elem *tls = xml_child(e, "starttls", NS_TLS);

	if (tls && (!mechanisms || xml_child(tls, "required", NS_TLS)))
		return lose(for_good(c), "the server demands TLS; option -x lets a command add it: -x '" TLS_COMMAND "'");
	if (offers(mechanisms, "SCRAM-SHA-1"))
		c->begin_login = begin_scram;
	else if (offers(mechanisms, "PLAIN") && c->private)
		c->begin_login = begin_plain;
	else
		return no_mechanism(c, mechanisms);
	return c->o.create ? create_account(c) : c->begin_login(c);
}

/* S: <iq type='result' id='register'/>
 * S: <iq type='error' id='register'><error type='cancel'><conflict xmlns='...'/></error></iq>
 * The second: there is such an account already, and that will do. */
static int take_account(struct conn *c, struct xml_elem *e)
{
	const char *condition = condition_of(xml_child(e, "error", NULL), NS_STANZAS);

	if (strcmp(condition, "conflict") && !is_result(c, e, "register"))
		return -1;
	c->o.create = 0; /* it need not be made again when we come back */
	return c->begin_login(c);
}

/* S: <stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>...
 * C: <iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>
 * RFC 6120 section 7; <session/> is of RFC 3921 and mostly marked optional. */
static int bind_resource(struct conn *c, struct xml_elem *e)
{
	const struct xml_elem *session = xml_child(e, "session", NS_SESSION);

	if (!xml_child(e, "bind", NS_BIND))
		return lose(c, "the server does not let us bind a resource");
	c->wants_session = session && !xml_child(session, "optional", NULL);
	c->state = WAIT_BIND;
	return say(c, c->o.resource ? "<iq type='set' id='bind'><bind xmlns='" NS_BIND "'><resource>%s</resource></bind></iq>"
	                           : "<iq type='set' id='bind'><bind xmlns='" NS_BIND "'/></iq>", c->o.resource);
}

/* C: <presence/>
 * Now others can see us: RFC 6121 section 4.2. */
static int become_ready(struct conn *c)
{
	c->state = READY;
	c->deadline = 0;
	c->ready_at = now_ms();
	c->due = after(c->o.ping_after);
	if (say(c, "<presence/>"))
		return -1;
	if (c->x.on_ready)
		c->x.on_ready(&c->x);
	return 0;
}

/* S: <iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>
 *      <jid>user@host/resource</jid></bind></iq> */
static int take_jid(struct conn *c, struct xml_elem *e)
{
	const struct xml_elem *jid = xml_child(xml_child(e, "bind", NS_BIND), "jid", NS_BIND);

	if (!is_result(c, e, "bind"))
		return -1;
	c->jid = strdup(jid ? jid->text : "");
	if (!c->jid || !*c->jid)
		return lose(c, "the server bound no resource");
	if (!c->wants_session)
		return become_ready(c);
	c->state = WAIT_SESSION;
	return say(c, "<iq type='set' id='session'><session xmlns='" NS_SESSION "'/></iq>");
}

/* S: <stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>...
 * In any state; RFC 6120 section 4.9. On a conflict another client has taken
 * our place: if both came back they would throw each other out for ever. But
 * policy-violation, once we are logged in, is for something that we said, and
 * somebody may have led us to say it. */
static int stream_error(struct conn *c, struct xml_elem *e)
{
	static const char *const final[] = {
		"conflict", "host-gone", "host-unknown", "not-authorized", "policy-violation", "see-other-host",
		"unsupported-version"
	};
	const char *condition = condition_of(e, NS_STREAMS);
	size_t i;

	for (i = 0; i < sizeof final / sizeof *final; i++)
		if (!strcmp(condition, final[i]) && (!c->ready_at || strcmp(condition, "policy-violation")))
			for_good(c);
	return lose(c, "stream error: %s %s", condition, text_of(e, NS_STREAMS));
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
	return xmpp_send(x, "<message to='%s' type='%s'><body>%s</body></message>", to, type ? type : "normal", body);
}

int xmpp_join(struct xmpp *x, const char *room, const char *nick)
{
	return xmpp_send(x, "<presence to='%s/%s'><x xmlns='http://jabber.org/protocol/muc'>"
	                    "<history maxstanzas='0'/></x></presence>", room, nick);
}

int xmpp_leave(struct xmpp *x, const char *room, const char *nick)
{
	return xmpp_send(x, "<presence to='%s/%s' type='unavailable'/>", room, nick);
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

/* `to` NULL: the own account, or the server for it. */
static int queue_iq(struct conn *c, const char *type, const char *id, const char *to, const char *payload)
{
	return queue(c, to ? "<iq type='%s' id='%s' to='%s'>%r</iq>" : "<iq type='%s' id='%s'>%r%r</iq>",
	             type, id, to ? to : "", payload);
}

int xmpp_request(struct xmpp *x, const char *type, const char *to, const char *payload,
                 void (*callback)(struct xmpp *, const struct xml_elem *, void *), void *data)
{
	struct conn *c = conn_of(x);
	struct request *r;
	unsigned long long random;
	int failed;

	if (c->state != READY || c->request_count == MAX_REQUESTS) {
		errno = c->state != READY ? ENOTCONN : ENOBUFS;
		return -1;
	}
	r = calloc(1, sizeof *r);
	failed = !r || random_bytes(&random, sizeof random) || (to && !(r->to = strdup(to)));
	if (!failed)
		snprintf(r->id, sizeof r->id, "%016llx", random);
	if (failed || queue_iq(c, type, r->id, to, payload)) {
		if (r)
			free(r->to);
		free(r);
		return -1;
	}
	r->callback = callback;
	r->data = data;
	r->deadline = after(REQUEST_TIMEOUT);
	*c->request_tail = r;
	c->request_tail = &r->next;
	c->request_count++;
	return 0;
}

/* Is `from` the one we asked? Anybody may send us an iq with any id: only the
 * entity that was asked is believed (RFC 6120 section 8.1.2.1). Our own account
 * may answer as its bare JID (or with any resource: who else is there?), as the
 * server, or without a name. */
static int was_asked(struct conn *c, const char *to, const char *from)
{
	const char *one = to ? to : from;

	if (to && from)
		return xmpp_same_jid(to, from);
	return !one || xmpp_same_jid(one, c->o.host) || xmpp_same_account(one, c->jid);
}

/* S: <iq type='get' from='...' id='...'><ping xmlns='urn:xmpp:ping'/></iq>
 * C: <iq type='result' to='...' id='...'></iq>
 * XEP-0199; all other questions are answered, too (RFC 6120 section 8.2.3). */
static int answer_iq(struct conn *c, const struct xml_elem *e, const char *id)
{
	static const char no_such_thing[] = "<error type='cancel'><service-unavailable xmlns='" NS_STANZAS "'/></error>";
	int ping = xml_child(e, "ping", "urn:xmpp:ping") != NULL;

	if (queue_iq(c, ping ? "result" : "error", id, xml_get(e, "from"), ping ? "" : no_such_thing) && errno != EMSGSIZE)
		return lose(c, "out of memory, or the server does not read");
	return 0;
}

static int take_iq(struct conn *c, struct xml_elem *e)
{
	const char *type = xml_get(e, "type"), *id = xml_get(e, "id");
	struct request **link = &c->requests;

	if (!type || !id)
		return 0;
	if (!strcmp(type, "get") || !strcmp(type, "set"))
		return answer_iq(c, e, id);
	while (*link && (strcmp((*link)->id, id) || !was_asked(c, (*link)->to, xml_get(e, "from"))))
		link = &(*link)->next;
	if (*link)
		answer_request(c, link, e);
	return 0;
}

/* We are connected already, as far as others see: their stanzas may come first. */
static int take_session(struct conn *c, struct xml_elem *e)
{
	if (!xml_has(e, "id", "session") || !was_asked(c, NULL, xml_get(e, "from")))
		return take_iq(c, e);
	return is_result(c, e, "session") ? become_ready(c) : -1;
}

/* A message or a presence. */
static int take_stanza(struct conn *c, struct xml_elem *e)
{
	void (*handler)(struct xmpp *, const struct xml_elem *) = *e->name == 'm' ? c->x.on_message : c->x.on_presence;

	if (handler)
		handler(&c->x, e);
	return 0;
}

/* --------------------------------------------------------------- The table */

/* What may come in which state, and the function for it. Each sets the next
 * state itself, or says why the connection is over. */
static const struct row {
	enum state state;
	const char *name, *ns;
	int (*action)(struct conn *, struct xml_elem *);
} table[] = {
	{WAIT_HEADER,        "stream",    NS_STREAM, take_header},
	{WAIT_FEATURES,      "features",  NS_STREAM, choose_mechanism},
	{WAIT_ACCOUNT,       "iq",        NS_CLIENT, take_account},
	{WAIT_CHALLENGE,     "challenge", NS_SASL,   take_challenge},
	{WAIT_CHALLENGE,     "failure",   NS_SASL,   login_refused},
	{WAIT_SUCCESS,       "success",   NS_SASL,   take_success},
	{WAIT_SUCCESS,       "failure",   NS_SASL,   login_refused},
	{WAIT_HEADER_AGAIN,  "stream",    NS_STREAM, take_header},
	{WAIT_BIND_FEATURES, "features",  NS_STREAM, bind_resource},
	{WAIT_BIND,          "iq",        NS_CLIENT, take_jid},
	{WAIT_SESSION,       "iq",        NS_CLIENT, take_session},
	{READY,              "message",   NS_CLIENT, take_stanza},
	{READY,              "presence",  NS_CLIENT, take_stanza},
	{READY,              "iq",        NS_CLIENT, take_iq}
};

static int dispatch(struct conn *c, struct xml_elem *e)
{
	size_t i;

	if (c->state == CLOSING)
		return 0;
	if (!strcmp(e->name, "error") && !strcmp(e->ns, NS_STREAM))
		return stream_error(c, e);
	for (i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].state == c->state && !strcmp(table[i].name, e->name) && !strcmp(table[i].ns, e->ns))
			return table[i].action(c, e);
	if (c->state == READY || (c->state == WAIT_SESSION && !strcmp(e->ns, NS_CLIENT)))
		return 0; /* an extension that we did not ask for, or a stanza too early */
	return lose(c, "unexpected <%s xmlns='%s'> instead of %s", e->name, e->ns, awaited[c->state]);
}

/* ---------------------------------------------------------------- The loop */

/* The n bytes at p have come. */
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
		if (event == XML_ERROR) { /* RFC 6120 section 11.1: we tell the server what is wrong with its XML */
			if (c->state != CLOSING)
				queue(c, "<stream:error><%r xmlns='" NS_STREAMS "'/></stream:error>", xmlstream_condition(c->xs));
			lose(c, "bad XML from the server: %s", xmlstream_error(c->xs));
		} else if (event == XML_CLOSE)
			lose(c, "the server ended the stream instead of %s", awaited[c->state]);
		else if (e)
			dispatch(c, e);
		xml_free(e);
	} while (event != XML_MORE && c->fd >= 0);
}

static void receive(struct conn *c, char *buf)
{
	ssize_t n = recv(c->fd, buf, READ_SIZE, 0);

	if (n > 0) {
		c->pinged = 0;
		if (c->state == READY)
			c->due = after(c->o.ping_after);
		parse(c, buf, (size_t)n);
	} else if (n == 0)
		lose(c, "the server hung up instead of %s", awaited[c->state]);
	else if (!later())
		lose(c, "connection lost: %s", strerror(errno));
}

void xmpp_wake_after(struct xmpp *x, long ms)
{
	conn_of(x)->wake = ms < 0 || conn_of(x)->state >= ENDING ? 0 : after(ms);
}

/* C: <iq type='get' id='ping' to='HOST'><ping xmlns='urn:xmpp:ping'/></iq>
 * XEP-0199 section 4.2. A network that is gone does not say so; but a server
 * that is there says something, be it that it knows no such thing. */
static void break_silence(struct conn *c)
{
	if (c->pinged) {
		lose(c, "the server has fallen silent: no answer within %g s", c->o.ping_timeout / 1000.0);
		return;
	}
	c->pinged = 1;
	c->due = after(c->o.ping_timeout);
	say(c, "<iq type='get' id='ping' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", c->o.host);
}

/* Enough time has passed for what this state does next. HASHING goes on in
 * attend(), before the loop sleeps. */
static void take_step(struct conn *c)
{
	if (c->state == WAITING)
		start(c);
	else if (c->state == CONNECTING)
		connect_next(c, ETIMEDOUT);
	else if (c->state == READY)
		break_silence(c);
	else if (c->state == ENDING)
		await_tunnel(c);
}

static void check_timers(struct conn *c, int64_t now)
{
	if (c->deadline && now >= c->deadline)
		lose(c, "login not finished within %g s: still no sign of %s",
		     c->o.login_timeout / 1000.0, awaited[c->state]);
	if (c->due && now >= c->due)
		take_step(c);
	while (c->requests && now >= c->requests->deadline)
		answer_request(c, &c->requests, NULL);
	if (c->wake && now >= c->wake) {
		c->wake = 0;
		if (c->x.on_wake)
			c->x.on_wake(&c->x);
	}
}

/* The earlier of two times, where 0 is never. */
static int64_t earlier(int64_t a, int64_t b)
{
	return !a || (b && b < a) ? b : a;
}

/* When this connection next needs attention. */
static int64_t next_timer(const struct conn *c)
{
	int64_t t = earlier(earlier(c->deadline, c->due), c->wake);

	return c->requests ? earlier(t, c->requests->deadline) : t;
}

/* What is to be done before the loop sleeps: all that was queued in this turn
 * goes out in one write. `rounds` of hashing are left for this turn. Anything here
 * may call a handler, which may end this connection or another. */
static void attend(struct conn *c, long *rounds)
{
	if (stopping)
		say_goodbye(c);
	if (c->state == HASHING)
		*rounds = answer_challenge(c, *rounds);
	if (c->state > CONNECTING && c->fd >= 0 && flush(c))
		lose(c, "connection lost: %s", strerror(errno));
}

/* What select() is to watch. Returns whether the connection is alive. */
static int watch(const struct conn *c, fd_set *readable, fd_set *writable)
{
	if (c->tunnel && c->tunnel->err >= 0)
		FD_SET(c->tunnel->err, readable);
	if (c->fd < 0)
		return c->state == WAITING || c->state == ENDING;
	FD_SET(c->fd, readable);
	if (c->state == CONNECTING || c->out.start < c->out.end)
		FD_SET(c->fd, writable);
	return 1;
}

/* Timers come last: what has arrived, however late it is looked at, counts. `now`
 * is when the wait ended: with many connections reading the clock for each costs. */
static void turn(struct conn *c, const fd_set *readable, const fd_set *writable, char *buf, int64_t now)
{
	if (c->tunnel && c->tunnel->err >= 0 && FD_ISSET(c->tunnel->err, readable))
		read_tunnel(c->tunnel);
	if (c->fd >= 0 && c->state == CONNECTING && FD_ISSET(c->fd, writable))
		connected(c);
	else if (c->fd >= 0 && c->state != CONNECTING && FD_ISSET(c->fd, readable))
		receive(c, buf);
	if (c->state != CLOSED)
		check_timers(c, now);
}

/* Waits until a descriptor is ready or it is time `until` (0: no timer). Signals
 * are held back from the look at `stopping` to the moment when pselect() sleeps:
 * one that came between them would not wake it. One that set `stopping` after the
 * connections had `seen` it leaves no time to sleep. */
static int wait_ready(fd_set *readable, fd_set *writable, int64_t until, int seen)
{
	int64_t ms = until ? until - now_ms() : 0;
	struct timespec t = {0, 0};
	sigset_t all, before;
	int n, saved;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	if (ms > 0 && stopping == seen) {
		t.tv_sec = (time_t)(ms / 1000);
		t.tv_nsec = (long)(ms % 1000) * 1000000;
	}
	n = pselect(FD_SETSIZE, readable, writable, NULL, until || stopping != seen ? &t : NULL, &before);
	saved = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (n < 0 && saved == EINTR) {
		FD_ZERO(readable);
		FD_ZERO(writable);
		return 0;
	}
	errno = saved;
	return n;
}

/* Frees the connections that handlers wanted freed, now that nothing uses them. */
static void bury(struct xmpp **conns, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (conns[i] && conn_of(conns[i])->doomed) {
			destroy(conn_of(conns[i]));
			conns[i] = NULL;
		}
}

static void set_busy(struct xmpp **conns, size_t n, char busy)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (conns[i])
			conn_of(conns[i])->busy = busy;
}

long xmpp_turn(struct xmpp **conns, size_t n, long ms)
{
	char buf[READ_SIZE];
	fd_set readable, writable;
	long alive = 0, rounds = ROUNDS_AT_ONCE;
	int64_t now, until = ms < 0 ? 0 : after(ms);
	int seen = stopping;
	size_t i;

	set_busy(conns, n, 1);
	for (i = 0; i < n; i++)
		if (conns[i])
			attend(conn_of(conns[i]), &rounds);
	bury(conns, n);
	FD_ZERO(&readable);
	FD_ZERO(&writable);
	for (i = 0; i < n; i++)
		if (conns[i] && watch(conn_of(conns[i]), &readable, &writable)) {
			alive++;
			until = earlier(until, next_timer(conn_of(conns[i])));
		}
	if (alive == 0)
		stopping = 0;
	else if (wait_ready(&readable, &writable, until, seen) < 0)
		alive = -1;
	now = now_ms();
	for (i = 0; i < n && alive > 0; i++)
		if (conns[i])
			turn(conn_of(conns[i]), &readable, &writable, buf, now);
	set_busy(conns, n, 0);
	bury(conns, n);
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

/* ---------------------------------------------------------- Life and death */

/* Replaces each string among the options by a copy; 0, or -1 when memory ran out,
 * and then some are NULL. */
static int copy_strings(struct xmpp_options *o)
{
	const char **strings[] = {&o->user, &o->password, &o->host, &o->server, &o->tunnel, &o->resource, &o->trace_name};
	size_t i, failed = 0;
	char *copy;

	for (i = 0; i < sizeof strings / sizeof *strings; i++) {
		copy = *strings[i] ? strdup(*strings[i]) : NULL;
		failed += *strings[i] && !copy;
		*strings[i] = copy;
	}
	return failed ? -1 : 0;
}

struct xmpp *xmpp_new(const struct xmpp_options *o)
{
	struct conn *c;

	if (!MSG_NOSIGNAL)
		signal(SIGPIPE, SIG_IGN); /* it must not end us because the server hung up */
	if (!o->user || !o->password || !o->host) {
		errno = EINVAL;
		return NULL;
	}
	c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->o = *o;
	c->o.server = o->server ? o->server : o->host;
	c->xs = xmlstream_new(0);
	if (copy_strings(&c->o) || !c->xs) {
		destroy(c);
		errno = ENOMEM;
		return NULL;
	}
	c->o.port = o->port ? o->port : 5222;
	c->o.login_timeout = o->login_timeout ? o->login_timeout : LOGIN_TIMEOUT;
	c->o.ping_after = o->ping_after ? o->ping_after : PING_AFTER;
	c->o.ping_timeout = o->ping_timeout ? o->ping_timeout : PING_TIMEOUT;
	c->due = after(o->start_after);
	c->fd = -1;
	c->request_tail = &c->requests;
	return &c->x;
}

void xmpp_free(struct xmpp *x)
{
	struct conn *c = conn_of(x);
	char was_busy;

	if (!x)
		return;
	was_busy = c->busy;
	*x = (struct xmpp){.data = x->data}; /* no handler is called any more */
	c->doomed = c->no_retry = c->busy = 1;
	tear_down(c); /* may call us again */
	if (!was_busy)
		destroy(c);
}

const char *xmpp_jid(const struct xmpp *x)
{
	return conn_of(x)->jid ? conn_of(x)->jid : "";
}
