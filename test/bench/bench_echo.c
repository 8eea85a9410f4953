/* bench_echo.c CONNECTIONS WINDOW BODY SECONDS [COMMAND ARGUMENT...] - measures what an
 * echo costs the client.
 *
 * This is a minimal server. It starts the client itself, with the port to connect to
 * after its other arguments. When all connections are logged in, it sends messages with
 * a body of BODY bytes to the last one, with WINDOW of them under way at a time. Each
 * must come back with the same body. Without a command, the client is a loop of
 * select(), recv() and send(), which is the least that a client can do.
 *
 * Prints the client's CPU time for a message in microseconds, the median time from
 * sending a message to its return in microseconds, and the client's memory in KB. */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEADER "<?xml version='1.0'?><stream:stream id='1' from='localhost' version='1.0' " \
	"xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

enum { MAX_TIMES = 1000000, AT_ONCE = 64, MAX_BODY = 16384 };

static pid_t client;

static void give_up(const char *what)
{
	fprintf(stderr, "bench_echo: %s: %s\n", what, strerror(errno));
	if (client > 0)
		kill(client, SIGKILL);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* ------------------------------------------------- The least that a client can do */

static int connect_to(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		give_up("cannot connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static void echo_bytes(int port, int connections)
{
	static char buf[65536];
	fd_set all, ready;
	ssize_t n, sent, m;
	int i, fd = -1;

	FD_ZERO(&all);
	for (i = 0; i < connections; i++) {
		fd = connect_to(port);
		FD_SET(fd, &all);
	}
	for (;;) {
		ready = all;
		if (select(fd + 1, &ready, NULL, NULL, NULL) < 0)
			_exit(1);
		for (i = 0; i <= fd; i++) {
			if (!FD_ISSET(i, &ready))
				continue;
			n = recv(i, buf, sizeof buf, 0);
			if (n <= 0)
				_exit(0);
			for (sent = 0; sent < n; sent += m)
				if ((m = send(i, buf + sent, (size_t)(n - sent), MSG_NOSIGNAL)) < 0)
					_exit(1);
		}
	}
}

/* --------------------------------------------------------------------- The server */

static void say(int fd, const char *text)
{
	if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
		give_up("the client does not read");
}

/* Reads up to the end of `what`. Stores all that was read in `seen`, a string. */
static void await(int fd, const char *what, char *seen, size_t size)
{
	size_t n = 0;

	for (seen[0] = '\0'; !strstr(seen, what); seen[n] = '\0')
		if (n + 1 == size || recv(fd, seen + n++, 1, 0) != 1) {
			fprintf(stderr, "bench_echo: no %s in '%s'\n", what, seen);
			give_up("login");
		}
}

static void log_in(int fd)
{
	char seen[4096], answer[4400], *id, *end;

	await(fd, "<stream:stream", seen, sizeof seen);
	await(fd, ">", seen, sizeof seen);
	say(fd, HEADER "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"
	               "<mechanism>PLAIN</mechanism></mechanisms></stream:features>");
	await(fd, "</auth>", seen, sizeof seen);
	say(fd, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
	await(fd, "<stream:stream", seen, sizeof seen);
	await(fd, ">", seen, sizeof seen);
	say(fd, HEADER "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>");
	await(fd, "</iq>", seen, sizeof seen);
	id = strstr(seen, "id=");
	end = id ? strchr(id + 4, id[3]) : NULL;
	if (!end)
		give_up("a bind without an id");
	snprintf(answer, sizeof answer, "<iq type='result' id='%.*s'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
	         "<jid>echobot@localhost/1</jid></bind></iq>", (int)(end - id - 4), id + 4);
	say(fd, answer);
	await(fd, "<presence", seen, sizeof seen);
	await(fd, "/>", seen, sizeof seen);
}

/* Returns how many bodies end in these n bytes. A body has a '<' only at its start tag and its
 * end tag, so when a match fails, a new one can only begin at the byte that failed. */
static long count_bodies(const char *body, const char *p, size_t n)
{
	static size_t matched;
	const char *end = p + n;
	long count = 0;

	for (; p < end; p++) {
		if (matched == 0 && !(p = memchr(p, '<', (size_t)(end - p))))
			break;
		matched = *p == body[matched] ? matched + 1 : *p == '<';
		if (!body[matched]) {
			count++;
			matched = 0;
		}
	}
	return count;
}

struct flow {
	int fd;
	long window, sent, came;
	char block[AT_ONCE * (MAX_BODY + 200)]; /* some messages, to send several at once */
	size_t message, offset;                 /* size of a message, bytes of the current one sent */
	char body[MAX_BODY + 20];
	double departure, *times;               /* of the last message; all trips, if WINDOW is 1 */
	long count;
};

static void prepare(struct flow *f, size_t size)
{
	char text[MAX_BODY + 200];
	int i;

	f->body[0] = '\0';
	snprintf(f->body, sizeof f->body, "<body>%*s</body>", (int)size, "");
	memset(f->body + 6, 'x', size);
	f->message = (size_t)snprintf(text, sizeof text, "<message to='echobot@localhost/1' type='chat' id='m1' "
	                              "from='alice@localhost/phone'>%s</message>", f->body);
	for (i = 0; i < AT_ONCE; i++)
		memcpy(f->block + (size_t)i * f->message, text, f->message);
}

/* Sends as many messages as the window and the socket take. */
static int send_some(struct flow *f)
{
	long room = f->window - (f->sent - f->came);
	ssize_t n;

	if (room > AT_ONCE)
		room = AT_ONCE;
	if (room <= 0)
		return 0;
	f->departure = now();
	n = send(f->fd, f->block + f->offset, (size_t)room * f->message - f->offset, MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN ? 0 : (give_up("send"), 0);
	f->offset += (size_t)n;
	f->sent += (long)(f->offset / f->message);
	f->offset %= f->message;
	return 1;
}

static void take_some(struct flow *f)
{
	static char buf[65536];
	ssize_t n = recv(f->fd, buf, sizeof buf, 0);
	long came;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0)
		give_up("the client hung up");
	came = count_bodies(f->body, buf, (size_t)n);
	f->came += came;
	if (f->window == 1 && came == 1 && f->count < MAX_TIMES)
		f->times[f->count++] = now() - f->departure;
}

static void run(struct flow *f, double seconds)
{
	double end = now() + seconds * 1e6;
	struct timeval limit;
	fd_set readable, writable;
	int more;

	while ((more = now() < end) || f->came < f->sent) {
		while (more && send_some(f))
			;
		FD_ZERO(&readable);
		FD_ZERO(&writable);
		FD_SET(f->fd, &readable);
		if ((more && f->sent - f->came < f->window) || f->offset)
			FD_SET(f->fd, &writable);
		limit.tv_sec = 10;
		limit.tv_usec = 0;
		if (select(f->fd + 1, &readable, &writable, NULL, &limit) <= 0)
			give_up("the client is silent");
		if (!more && f->offset && f->sent++ >= 0) { /* the rest of the last message */
			say(f->fd, f->block + (AT_ONCE - 1) * f->message + f->offset);
			f->offset = 0;
		}
		if (FD_ISSET(f->fd, &readable))
			take_some(f);
	}
}

/* --------------------------------------------------------------------- The figures */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static long memory(pid_t pid)
{
	char command[64];
	FILE *f;
	long kb = 0;

	snprintf(command, sizeof command, "ps -o rss= -p %ld", (long)pid);
	f = popen(command, "r");
	if (!f || fscanf(f, "%ld", &kb) != 1)
		kb = 0;
	if (f)
		pclose(f);
	return kb;
}

static double cpu(void)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int listen_somewhere(int *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t size = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128) ||
	    getsockname(fd, (struct sockaddr *)&a, &size) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		give_up("cannot listen");
	*port = ntohs(a.sin_port);
	return fd;
}

static void start_client(int argc, char **argv, int port, int connections)
{
	char *args[32], number[16];
	int i, null;

	client = fork();
	if (client)
		return;
	if (argc == 0)
		echo_bytes(port, connections);
	for (i = 0; i < argc && i < 30; i++)
		args[i] = argv[i];
	snprintf(number, sizeof number, "%d", port);
	args[i] = number;
	args[i + 1] = NULL;
	null = open("/dev/null", O_WRONLY);
	if (null >= 0)
		dup2(null, 1);
	execvp(args[0], args);
	_exit(127);
}

int main(int argc, char **argv)
{
	static struct flow f;
	int port, listener, connections, i, on = 1, size;
	double used;
	long kb;

	if (argc < 5)
		return 2;
	connections = (int)strtol(argv[1], NULL, 10);
	f.window = strtol(argv[2], NULL, 10);
	size = (int)strtol(argv[3], NULL, 10);
	f.times = malloc(MAX_TIMES * sizeof *f.times);
	if (connections < 1 || size < 1 || size > MAX_BODY || f.window < 1 || !f.times)
		return 2;
	listener = listen_somewhere(&port);
	start_client(argc - 5, argv + 5, port, connections);
	if (client < 0)
		give_up("fork");
	for (i = 0; i < connections; i++) {
		f.fd = accept(listener, NULL, NULL);
		if (f.fd < 0)
			give_up("accept");
		if (argc > 5)
			log_in(f.fd);
	}
	setsockopt(f.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	fcntl(f.fd, F_SETFL, O_NONBLOCK);
	prepare(&f, (size_t)size);
	run(&f, strtod(argv[4], NULL));
	kb = memory(client);
	used = -cpu();
	kill(client, SIGKILL);
	waitpid(client, NULL, 0);
	used += cpu();
	qsort(f.times, (size_t)f.count, sizeof *f.times, compare);
	printf("%.3f %.2f %ld\n", used / (double)f.came, f.count ? f.times[f.count / 2] : 0.0, kb);
	return 0;
}
