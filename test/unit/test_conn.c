/* test_conn.c - tests aspects of a connection that transcripts cannot show: addresses,
 * timers, full queues, tunnels, and handlers that close connections. */
#include "../../xmpp.c"

#include <limits.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>

static int passed, failed;

static void check(const char *what, int ok)
{
	ok ? passed++ : failed++;
	if (!ok)
		printf("FAIL - %s\n", what);
}

static void die(const char *what)
{
	perror(what);
	exit(2);
}

/* ------------------------------------------------------------ The other side */

/* A server that accepts everything. When the client has sent the word on the left, the server
 * sends the text on the right. */
static const char *const dialogue[][2] = {
	{"<stream:stream", "<stream:stream id='1' version='1.0' xmlns='" NS_CLIENT "' xmlns:stream='" NS_STREAM "'>"
	                   "<stream:features><mechanisms xmlns='" NS_SASL "'><mechanism>PLAIN</mechanism></mechanisms>"
	                   "</stream:features>"},
	/* Text right after <success/> belongs to the old stream, and is discarded. */
	{"</auth>", "<success xmlns='" NS_SASL "'/><message><body>smuggled</body></message>"},
	{"<stream:stream", "<stream:stream id='2' version='1.0' xmlns='" NS_CLIENT "' xmlns:stream='" NS_STREAM "'>"
	                   "<stream:features><bind xmlns='" NS_BIND "'/></stream:features>"},
	{"</iq>", "<iq type='result' id='bind'><bind xmlns='" NS_BIND "'><jid>a@localhost/1</jid></bind></iq>"
	          "<message from='b@localhost' type='chat'><body>hello</body></message>"}
};

/* Reads until `word` has come. Returns the number of bytes, or -1 at the end of the input. */
static long await(int fd, const char *word)
{
	char seen[32] = "", c;
	size_t n = strlen(word);
	long count = 0;

	while (strcmp(seen, word)) {
		if (read(fd, &c, 1) != 1)
			return -1;
		count++;
		memmove(seen, seen + (strlen(seen) == n), n);
		seen[strlen(seen)] = c;
	}
	return count;
}

static int log_in_client(int fd)
{
	size_t i;

	for (i = 0; i < sizeof dialogue / sizeof *dialogue; i++)
		if (await(fd, dialogue[i][0]) < 0 || write(fd, dialogue[i][1], strlen(dialogue[i][1])) < 0)
			return -1;
	return 0;
}

/* Returns a socket that listens on the IPv4 loopback, on a free port. */
static int listen_free(int *port)
{
	struct sockaddr_in a = {0};
	socklen_t n = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_family = AF_INET;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)(void *)&a, n) || listen(fd, 10)
	    || getsockname(fd, (struct sockaddr *)(void *)&a, &n))
		die("listen");
	*port = ntohs(a.sin_port);
	return fd;
}

/* Logs in the next clients, and then serves each of them with `serve`. */
static void be_server(int listener, int clients, void (*serve)(int fd))
{
	int fds[10], i;

	for (i = 0; i < clients; i++) {
		fds[i] = accept(listener, NULL, NULL);
		if (fds[i] < 0 || log_in_client(fds[i]))
			_exit(1);
	}
	for (i = 0; i < clients; i++)
		serve(fds[i]);
	_exit(0);
}

static pid_t spawn(int listener, int clients, void (*serve)(int fd))
{
	pid_t child = fork();

	if (child == 0)
		be_server(listener, clients, serve);
	return child;
}

/* Closes the stream when the client does, and counts all received bytes. */
static long counted;

static void serve_goodbye(int fd)
{
	static const char goodbye[] = "</stream:stream>";
	static char buf[1 << 16];
	size_t kept = 0, n = sizeof goodbye - 1;
	ssize_t got;

	while (kept < n || memcmp(buf + kept - n, goodbye, n)) {
		if (kept > n) { /* only the end is of interest */
			memmove(buf, buf + kept - n, n);
			kept = n;
		}
		got = read(fd, buf + kept, sizeof buf - kept);
		if (got <= 0)
			_exit(1);
		counted += got;
		kept += (size_t)got;
	}
	if (write(fd, goodbye, n) < 0)
		_exit(1);
	close(fd);
}

/* Reads nothing until a byte comes through the pipe. */
static int told[2];

static void serve_later(int fd)
{
	char c;

	if (read(told[0], &c, 1) == 1)
		serve_goodbye(fd);
	_exit(counted > 3000000 ? 0 : 1);
}

static int finish(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return status;
}

/* ----------------------------------------------------------------- This side */

static char ended[400];     /* why the last connection ended */
static int closes, wakes;
static struct xmpp *other;

static struct xmpp *client(const char *server, int port)
{
	struct xmpp_options o = {.user = "a", .password = "a", .host = "localhost"};
	struct xmpp *x;

	o.server = server;
	o.port = port;
	o.login_timeout = 10000;
	x = xmpp_new(&o);
	if (!x)
		die("xmpp_new");
	return x;
}

static void note_end(struct xmpp *x, const char *reason)
{
	(void)x;
	closes++;
	snprintf(ended, sizeof ended, "%s", reason ? reason : "");
}

static void leave(struct xmpp *x)
{
	xmpp_close(x);
}

/* getaddrinfo() returns ::1 and 127.0.0.1 for localhost. The first refuses, the second answers. */
static void test_addresses(void)
{
	int port, listener = listen_free(&port);
	pid_t child = spawn(listener, 1, serve_goodbye);
	struct xmpp *x = client("localhost", port);

	x->on_ready = leave;
	x->on_close = note_end;
	check("xmpp_run", !xmpp_run(&x, 1));
	check("one address refuses, the next is tried", closes == 1 && !*ended);
	check("the JID is known", !strcmp(xmpp_jid(x), "a@localhost/1"));
	check("the server saw the end of the stream", finish(child) == 0);
	xmpp_free(x);
	close(listener);
}

/* All lower descriptors are taken, so the next one is too high for an fd_set. */
static void test_descriptors(void)
{
	struct rlimit limit, higher;
	int port, listener = listen_free(&port), fd, last = listener;
	struct xmpp *x;

	getrlimit(RLIMIT_NOFILE, &limit);
	higher = limit;
	higher.rlim_cur = FD_SETSIZE + 20 < limit.rlim_max ? FD_SETSIZE + 20 : limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &higher);
	while ((fd = dup(listener)) >= 0 && fd < FD_SETSIZE)
		last = fd;
	x = client("127.0.0.1", port);
	x->on_close = note_end;
	conn_of(x)->o.reconnect = 1;
	for (closes = 0; !closes && xmpp_turn(&x, 1, -1) > 0; )
		;
	check("a descriptor too high for select() is refused", strstr(ended, "below 1024") != NULL || FD_SETSIZE != 1024);
	check("only for now, since others may be closed", xmpp_retry_in(x) >= 0);
	for (; last > listener; last--)
		close(last);
	if (fd >= 0)
		close(fd);
	close(listener);
	setrlimit(RLIMIT_NOFILE, &limit);
	xmpp_free(x);
}

static void wake(struct xmpp *x)
{
	if (++wakes == 1)
		xmpp_wake_after(x, 1);
	else
		xmpp_close(x);
}

static void set_timer(struct xmpp *x)
{
	xmpp_wake_after(x, LONG_MAX);
	xmpp_wake_after(x, 60000);
	xmpp_wake_after(x, -1);
	xmpp_wake_after(x, 1);
}

static void test_timers(void)
{
	int port, listener = listen_free(&port);
	pid_t child = spawn(listener, 1, serve_goodbye);
	struct xmpp *x = client("127.0.0.1", port);

	x->on_ready = set_timer;
	x->on_wake = wake;
	xmpp_run(&x, 1);
	check("on_wake comes once for each call", wakes == 2);
	finish(child);
	xmpp_free(x);
	close(listener);
}

static void close_both(struct xmpp *x, const struct xml_elem *message)
{
	xmpp_close(other);
	xmpp_close(x);
	check("an element lives until the handler returns", xml_child(message, "body", NULL) != NULL);
}

static void count(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	*(int *)data += answer == NULL && x->data == ended;
}

static int unanswered, asked;

static void ask_nobody(struct xmpp *x)
{
	while (asked < 2000 && !xmpp_request(x, "get", "nobody@localhost", "", count, &unanswered))
		asked++;
	check("2,000 requests may wait, one more without a callback",
	      asked == 2000 && !xmpp_request(x, "get", "nobody@localhost", "", NULL, NULL));
}

/* A handler closes its own connection and another one. */
static void test_close(void)
{
	int port, listener = listen_free(&port);
	pid_t child = spawn(listener, 2, serve_goodbye);
	struct xmpp *conns[2];

	closes = 0;
	conns[0] = client("127.0.0.1", port);
	conns[1] = other = client("127.0.0.1", port);
	conns[0]->on_message = close_both;
	conns[0]->on_ready = ask_nobody;
	conns[0]->data = ended;
	conns[0]->on_close = conns[1]->on_close = note_end;
	check("both are closed", !xmpp_run(conns, 2) && closes == 2 && !*ended);
	check("each request is answered", unanswered == asked);
	check("nothing more happens", xmpp_turn(conns, 2, 0) == 0);
	xmpp_free(conns[0]);
	xmpp_free(conns[1]);
	kill(child, SIGKILL);
	finish(child);
	close(listener);
}

static void close_other(struct xmpp *x, const char *reason)
{
	note_end(x, reason);
	if (other)
		xmpp_close(other);
}

/* The on_close of a connection that cannot even begin closes one that is connecting. */
static void test_close_early(void)
{
	int port, listener = listen_free(&port), result;
	struct xmpp *conns[2];

	closes = 0;
	conns[0] = other = client("127.0.0.1", port);
	conns[1] = client("does..not..exist", port);
	conns[0]->on_close = note_end;
	conns[1]->on_close = close_other;
	result = xmpp_run(conns, 2);
	check("a connection is closed before it is connected", !result && closes == 2);
	xmpp_free(conns[0]);
	xmpp_free(conns[1]);
	close(listener);
}

static void close_itself(struct xmpp *x, const char *reason)
{
	note_end(x, reason);
	xmpp_close(x);
}

/* In on_close, xmpp_close() prevents the next attempt, and does not call on_close again. */
static void test_close_in_on_close(void)
{
	struct xmpp *x = client("does..not..exist", 1);

	closes = 0;
	conn_of(x)->o.reconnect = 1;
	x->on_close = close_itself;
	check("closed in on_close", !xmpp_run(&x, 1) && closes == 1 && xmpp_retry_in(x) < 0);
	xmpp_free(x);
}

/* Between two attempts, xmpp_close() calls on_close, since the bot may be waiting for that. */
static void test_close_while_waiting(void)
{
	struct xmpp *x = client("does..not..exist", 1);

	closes = 0;
	conn_of(x)->o.reconnect = 1;
	x->on_close = note_end;
	while (closes == 0 && xmpp_turn(&x, 1, 0) > 0)
		;
	check("waiting for the next attempt", closes == 1 && xmpp_retry_in(x) >= 0 && *ended);
	xmpp_close(x);
	check("closed while it waits", closes == 2 && !*ended && xmpp_turn(&x, 1, 0) == 0);
	xmpp_free(x);
}

/* The pauses are random. Their limit doubles from one second to one minute, or to five if the
 * server refuses us. */
static void test_pauses(void)
{
	struct xmpp *x = client("localhost", 1);
	struct conn *c = conn_of(x);
	long longest = 0, ms;
	int i, good = 1;

	give_up(c, "refused");
	check("a first login that is refused is not tried again", xmpp_retry_in(x) < 0);
	c->o.reconnect = 1;
	c->ready_at = 1;
	for (i = 0; i < 300; i++) {
		c->state = WAIT_HEADER;
		lose(c, "lost");
		ms = xmpp_retry_in(x);
		good &= ms >= 0 && ms <= (i < 6 ? 1000L << i : 60000);
		longest = ms > longest ? ms : longest;
	}
	check("pauses after a loss", good && longest > 30000);
	for (i = 0; i < 3000; i++) {
		c->limit = 0;
		c->state = WAIT_HEADER;
		lose(c, "lost");
		good &= xmpp_retry_in(x) <= 1000;
	}
	check("the first pause is never longer than a second", good);
	for (i = 0; i < 300; i++) {
		c->state = WAIT_HEADER;
		give_up(c, "refused");
		ms = xmpp_retry_in(x);
		good &= ms >= 0 && ms <= 300000;
		longest = ms > longest ? ms : longest;
	}
	check("pauses after a refusal", good && longest > 150000);
	c->state = READY;
	c->ready_at = now_ms() - 100000;
	lose(c, "lost");
	check("a loss after a while is a first loss", xmpp_retry_in(x) <= 1000);
	xmpp_retry_after(x, 5000);
	check("a bot may come back later", xmpp_retry_in(x) > 4000 && xmpp_retry_in(x) <= 5000);
	xmpp_retry_after(x, 10);
	check("but not earlier", xmpp_retry_in(x) > 4000);
	xmpp_free(x);
}

/* Returns a connection that is logged in. fds[1] is the server's end. */
static struct xmpp *logged_in(int fds[2])
{
	static const char header[] = "<stream:stream xmlns='" NS_CLIENT "' xmlns:stream='" NS_STREAM "'>";
	struct xmpp *x = client("localhost", 1);
	struct conn *c = conn_of(x);

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) || fcntl(fds[0], F_SETFL, O_NONBLOCK)
	    || write(fds[1], header, sizeof header - 1) < 0)
		die("socketpair");
	x->on_close = note_end;
	c->fd = fds[0];
	c->state = READY;
	c->o.reconnect = 1;
	c->jid = strdup("a@localhost/1");
	c->due = ms_from_now(60000);
	*ended = '\0';
	closes = 0;
	return x;
}

/* The server says why it closes the connection. We must read that although sending fails first. */
static void test_last_words(void)
{
	static const char conflict[] = "<stream:error><conflict xmlns='" NS_STREAMS "'/></stream:error>";
	struct xmpp *x;
	int fds[2];

	x = logged_in(fds);
	if (write(fds[1], conflict, sizeof conflict - 1) < 0)
		die("write");
	close(fds[1]);
	xmpp_message(x, "b@localhost", "chat", "is anybody there?");
	xmpp_run(&x, 1);
	check("the server's last words are heard", !strcmp(ended, "stream error: conflict") && xmpp_retry_in(x) < 0);
	xmpp_free(x);
}

static void close_it(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	*(int *)data += !answer;
	xmpp_close(x);
}

/* The server hangs up as soon as it has offered PLAIN. */
static void test_gone_at_login(void)
{
	static const char plain[] = "<stream:features><mechanisms xmlns='" NS_SASL "'><mechanism>PLAIN</mechanism></mechanisms>"
	                            "</stream:features>";
	struct xmpp *x;
	int fds[2];

	x = logged_in(fds);
	conn_of(x)->state = WAIT_HEADER;
	conn_of(x)->safe = 1;
	if (write(fds[1], plain, sizeof plain - 1) < 0)
		die("write");
	close(fds[1]);
	while (!closes && xmpp_turn(&x, 1, -1) > 0)
		;
	check("the server is gone while we log in, and we try again", closes == 1 && xmpp_retry_in(x) >= 0);
	xmpp_free(x);
}

/* Turns the loop until the connection has ended. Returns the number of turns. */
static int turns_to_end(struct xmpp **x)
{
	int turns = 0;

	while (turns < 10000 && xmpp_turn(x, 1, -1) > 0)
		turns++;
	return turns;
}

/* The server does not close its stream. The loop must sleep while it waits for that. */
static void test_stop(void)
{
	struct xmpp *x;
	int fds[2], turns;

	x = logged_in(fds);
	xmpp_stop();
	turns = turns_to_end(&x);
	check("after xmpp_stop() the loop sleeps", turns < 10 && closes == 1 && !*ended);
	close(fds[1]);
	xmpp_free(x);
}

static int blocked;         /* on_close was called with signals blocked */

static void stop_all(struct xmpp *x, const char *reason)
{
	sigset_t mask;

	note_end(x, reason);
	xmpp_stop();
	sigprocmask(SIG_SETMASK, NULL, &mask);
	blocked = sigismember(&mask, SIGTERM);
}

/* The second connection breaks when the output of this turn is sent, and its on_close calls
 * xmpp_stop(). The first one must close before the loop sleeps. */
static void test_stop_in_on_close(void)
{
	struct xmpp *conns[2];
	int fds[2][2], ends[2];

	conns[0] = logged_in(fds[0]);
	conns[1] = logged_in(fds[1]);
	if (pipe(ends) || dup2(ends[0], fds[1][0]) < 0)
		die("pipe");
	conns[1]->on_close = stop_all;
	xmpp_message(conns[1], "b@localhost", "chat", "a pipe is not a socket");
	xmpp_turn(conns, 2, 0);
	check("xmpp_stop() in on_close stops the others at once", closes == 2 && conn_of(conns[0])->state == CLOSING);
	close(fds[0][1]);
	while (xmpp_turn(conns, 2, 10) > 0)
		;
	check("and they end", closes == 3);
	check("a signal can end a program whose on_close waits", !blocked);
	close(fds[1][1]);
	close(ends[0]);
	close(ends[1]);
	xmpp_free(conns[0]);
	xmpp_free(conns[1]);
}

/* While the connection is closing, a timer has no effect, whether it was set before or after
 * xmpp_close(). */
static void test_no_timer_when_closing(void)
{
	struct xmpp *x;
	int fds[2], before;

	for (before = 0; before < 2; before++) {
		x = logged_in(fds);
		wakes = 0;
		x->on_wake = wake;
		if (before)
			xmpp_wake_after(x, 1);
		xmpp_close(x);
		if (!before)
			xmpp_wake_after(x, 1);
		turns_to_end(&x);
		check("on_wake does not come while the connection is closing",
		      wakes == 0 && closes == 1 && !*ended);
		close(fds[1]);
		xmpp_free(x);
	}
}

static void wake_later(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	(void)answer;
	(void)data;
	xmpp_wake_after(x, 1);
}

/* The pause may be 0 ms. The next attempt would then begin in the same turn. */
static void end_and_wait(struct xmpp *x, const char *reason)
{
	note_end(x, reason);
	xmpp_retry_after(x, 1000);
}

/* When a connection is lost, its requests are answered with NULL. A timer that is set then ends with
 * the connection. Before that, xmpp_retry_after() has no effect. */
static void test_timers_of_a_lost_connection(void)
{
	struct xmpp *x;
	int fds[2];
	int64_t due;

	x = logged_in(fds);
	conn_of(x)->o.reconnect = 1;
	wakes = 0;
	x->on_wake = wake;
	x->on_close = end_and_wait;
	due = conn_of(x)->due;
	xmpp_retry_after(x, INT_MAX);
	check("xmpp_retry_after() leaves the ping alone", conn_of(x)->due == due);
	if (xmpp_request(x, "get", NULL, "", wake_later, NULL))
		die("xmpp_request");
	close(fds[1]);
	while (!closes && xmpp_turn(&x, 1, -1) > 0)
		;
	check("a timer ends with the connection", xmpp_retry_in(x) >= 0 && !conn_of(x)->wake_due);
	xmpp_retry_after(x, 86400000);
	check("xmpp_retry_after() postpones the next attempt", xmpp_retry_in(x) > 86000000);
	xmpp_free(x);
}

/* The input is not XML, and the queue has no room for our stream error. */
static void test_full_at_error(void)
{
	struct xmpp *x;
	int fds[2];

	x = logged_in(fds);
	while (!xmpp_message(x, "b@localhost", "chat", "for the queue"))
		;
	parse(conn_of(x), "\x01", 1);
	check("an error when the queue is full ends the connection once", closes == 1 && conn_of(x)->limit == 1000);
	close(fds[1]);
	xmpp_free(x);
}

/* Returns a connection through this command, whose login never finishes. */
static struct xmpp *tunneled(const char *command, long login_timeout)
{
	struct xmpp_options o = {.user = "a", .password = "a", .host = "a_b.example", .server = "::1", .port = 5269};
	struct xmpp *x;

	o.tunnel = command;
	o.login_timeout = login_timeout;
	x = xmpp_new(&o);
	if (!x)
		die("xmpp_new");
	x->on_close = note_end;
	*ended = '\0';
	closes = 0;
	return x;
}

/* The tunnel ignores signals and the end of its input, and has started other processes. */
static void test_stuck_tunnel(void)
{
	struct xmpp *x = tunneled("trap '' TERM INT; sleep 100 & sleep 100", 50);
	int turns;
	pid_t group;

	while (conn_of(x)->tunnel == 0 && xmpp_turn(&x, 1, 0) > 0)
		;
	group = conn_of(x)->tunnel;
	turns = turns_to_end(&x);
	check("a tunnel that does not end is killed", turns < 10 && closes == 1 && group > 0);
	check("and the reason is the timeout", !strcmp(ended, "login not finished within 0.05 s: still waiting for the stream header"));
	for (turns = 0; turns < 500 && !kill(-group, 0); turns++)
		poll(NULL, 0, 10); /* until init has waited for the processes that it started */
	check("and nothing is left of its group", turns < 500);
	xmpp_free(x);
}

/* The tunnel sends its environment as the text of a stream error, which the reason then shows. */
static void test_tunnel_environment(void)
{
	struct xmpp *x = tunneled("echo \"<stream:stream xmlns:stream='" NS_STREAM "'><stream:error>"
		"<x xmlns='" NS_STREAMS "'/><text xmlns='" NS_STREAMS "'>$XMPP_HOST $XMPP_SERVER $XMPP_PORT</text>"
		"</stream:error>\"", 5000);

	turns_to_end(&x);
	check("a tunnel's environment", !strcmp(ended, "stream error: x a_b.example ::1 5269"));
	xmpp_free(x);
}

/* Signals that the program ignores have their default effect in the tunnel. */
static void test_tunnel_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGPIPE, SIGCHLD};
	struct xmpp *x;
	size_t i;

	for (i = 0; i < 4; i++)
		signal(signals[i], SIG_IGN);
	x = tunneled("for s in INT TERM PIPE; do sh -c \"kill -$s \\$\\$; exit 7\"; [ $? -gt 128 ] || exit; done; "
	             "echo '<x/>'; sleep 100", 5000);
	turns_to_end(&x);
	for (i = 0; i < 4; i++)
		signal(signals[i], SIG_DFL);
	check("signals in a tunnel", !strncmp(ended, "unexpected <x", 13));
	xmpp_free(x);
}

/* If a bot closes its connection when a request is lost, there is no other attempt. */
static void test_close_when_lost(void)
{
	struct xmpp *x;
	int fds[2], asked_once = 0;

	x = logged_in(fds);
	xmpp_request(x, "get", NULL, "<q/>", close_it, &asked_once);
	close(fds[1]);
	xmpp_run(&x, 1);
	check("closed while the connection is lost", asked_once == 1 && closes == 1 && xmpp_retry_in(x) < 0);
	xmpp_free(x);
}

/* Two connections share a file, so each line names its connection. Control characters are shown as
 * numbers, but letters stay as they are (here a sharp s). */
static void test_trace(void)
{
	static const char wanted[] = "S(b): <x>\nS(a): <y>\\xC2\\x9B\\x0A\\x1B\\x7F\xC3\x9F\n"
	                             "S(a): <iq>****\nC(a): </stream:stream>\n";
	struct xmpp_options o = {.user = "a", .password = "a", .host = "localhost"};
	char seen[100];
	struct xmpp *a, *b;
	size_t n;

	o.trace = tmpfile();
	if (!o.trace)
		die("tmpfile");
	o.trace_name = "a";
	a = xmpp_new(&o);
	o.trace_name = "b";
	b = xmpp_new(&o);
	if (!a || !b)
		die("xmpp_new");
	trace(conn_of(b), 'S', "<x>", 3);
	trace(conn_of(a), 'S', "<y>\xC2\x9B\n\x1B\x7F\xC3\x9F", 10);
	conn_of(a)->o.create = 1;
	conn_of(a)->state = CLOSING; /* xmpp_close() may come before the answer */
	trace(conn_of(a), 'S', "<iq><password>a</password></iq>", 31);
	trace(conn_of(a), 'C', "</stream:stream>", 16);
	rewind(o.trace);
	n = fread(seen, 1, sizeof seen, o.trace);
	check("two traces in one file, and no password", n == sizeof wanted - 1 && !memcmp(seen, wanted, n));
	xmpp_free(a);
	xmpp_free(b);
	fclose(o.trace);
}

/* In a reason, letters stay as they are. Spaces replace control characters, and bytes that are not
 * a whole, valid character. */
static void test_reason(void)
{
	char reason[] = "\xC3\xBC\xC2\x9B\x9B\nb\x80\xE2\x82\xAC\xE2\x82";

	tidy(reason);
	check("a tidy reason", !strcmp(reason, "\xC3\xBC    b \xE2\x82\xAC"));
}

/* Checks the bytes that xmpp_send(), and the functions that use it, queue. */
static void check_formats(struct xmpp *x)
{
	static const char wanted[] = "<a b='&lt;&apos;'>7%<c/>%x</a>"
		"<presence to='room@muc.localhost/n&amp;n'><x xmlns='http://jabber.org/protocol/muc'>"
		"<history maxstanzas='0'/></x></presence>"
		"<presence to='room@muc.localhost/n&amp;n' type='unavailable'/>%";
	struct buffer *out = &conn_of(x)->out;
	size_t before = out->end;

	check("formats", !xmpp_send(x, "<a b='%s'>%d%%%r%x</a>", "<'", 7, "<c/>")
	                 && !xmpp_join(x, "room@muc.localhost", "n&n") && !xmpp_leave(x, "room@muc.localhost", "n&n")
	                 && !xmpp_send(x, "%"));
	check("formats, the bytes", out->end - before == strlen(wanted) && !memcmp(out->bytes + before, wanted, strlen(wanted)));
	xmpp_close(x);
}

/* A line break takes five bytes when it is escaped. */
static void test_too_long(void)
{
	static char body[120001], wanted[] = "<a>b</a>";
	struct xmpp *x;
	int fds[2], refused;

	memset(body, '\n', sizeof body - 1);
	x = logged_in(fds);
	refused = xmpp_message(x, "b@localhost", "chat", body);
	check("a stanza too long for a server", refused && errno == EMSGSIZE && !xmpp_send(x, "<a>%s</a>", "b")
	                                        && !memcmp(conn_of(x)->out.bytes, wanted, sizeof wanted - 1));
	body[45000] = '\0';
	check("and one that is short enough", !xmpp_message(x, "b@localhost", "chat", body));
	xmpp_free(x);
	close(fds[1]);
}

static void test_formats(void)
{
	int port, listener = listen_free(&port);
	pid_t child = spawn(listener, 1, serve_goodbye);
	struct xmpp *x = client("127.0.0.1", port);

	x->on_ready = check_formats;
	xmpp_run(&x, 1);
	xmpp_free(x);
	finish(child);
	close(listener);
}

/* 3 MB are queued while the server does not read. Then all of it arrives. */
static void fill_queue(struct xmpp *x)
{
	char body[3001];
	int i, sent = 0;

	memset(body, 'x', sizeof body - 1);
	body[sizeof body - 1] = '\0';
	for (i = 0; i < 1000; i++)
		sent += !xmpp_message(x, "b@localhost", "chat", body);
	check("1,000 messages are queued", sent == 1000);
	while (!xmpp_message(x, "b@localhost", "chat", body) && sent < 10000)
		sent++;
	check("the queue has a limit", sent < 3000 && errno == ENOBUFS);
	xmpp_wake_after(x, 50);
}

/* Lets the server read, and closes the connection when everything has been sent. */
static void tell(struct xmpp *x)
{
	if (wakes++ == 0 && write(told[1], "", 1) != 1)
		die("write");
	if (conn_of(x)->out.end > conn_of(x)->out.start)
		xmpp_wake_after(x, 10);
	else
		xmpp_close(x);
}

static void test_queue(void)
{
	int port, listener = listen_free(&port);
	pid_t child;
	struct xmpp *x;

	if (pipe(told))
		die("pipe");
	child = spawn(listener, 1, serve_later);
	x = client("127.0.0.1", port);
	check("nothing is sent before the login", xmpp_message(x, "b@localhost", "chat", "early") && errno == ENOTCONN);
	wakes = 0;
	x->on_ready = fill_queue;
	x->on_wake = tell;
	xmpp_run(&x, 1);
	check("all of the queue arrives, in short writes", finish(child) == 0);
	xmpp_free(x);
	close(listener);
	close(told[0]);
	close(told[1]);
}

static void test_options(void)
{
	struct xmpp_options o = {.user = "a", .host = "localhost"};
	struct xmpp *x;

	check("no password", xmpp_new(&o) == NULL && errno == EINVAL);
	o.password = "a";
	o.port = 65536;
	check("a port that is too large", xmpp_new(&o) == NULL && errno == EINVAL);
	o.port = -1;
	check("a negative port", xmpp_new(&o) == NULL && errno == EINVAL);
	o.port = 0;
	o.start_after = 86400000;
	x = xmpp_new(&o);
	check("start_after may be a day", x && xmpp_retry_in(x) > 86000000);
	xmpp_free(x);
	o.port = 65535;
	x = xmpp_new(&o);
	check("the last port", x != NULL && !*xmpp_jid(x) && xmpp_retry_in(x) >= 0);
	xmpp_free(x);
	xmpp_free(NULL);
}

int main(void)
{
	test_addresses();
	test_descriptors();
	test_timers();
	test_close();
	test_close_early();
	test_close_in_on_close();
	test_close_while_waiting();
	test_pauses();
	test_last_words();
	test_close_when_lost();
	test_gone_at_login();
	test_stop();
	test_stop_in_on_close();
	test_no_timer_when_closing();
	test_timers_of_a_lost_connection();
	test_full_at_error();
	test_stuck_tunnel();
	test_tunnel_environment();
	test_tunnel_signals();
	test_trace();
	test_reason();
	test_formats();
	test_too_long();
	test_queue();
	test_options();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
