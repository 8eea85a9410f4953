/* echobot.c - says back what it hears.
 *
 * A reactive bot: a few handlers, called from the loop behind xmpp_turn(). Read
 * this first; xmpp.h says what each function promises. */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What we send carries an id that begins like this. Another echobot that hears it
 * must not echo it: two of them would never fall silent. */
#define ECHO_ID "echo-"

/* Only what somebody says to us, now, is answered. An error that is answered
 * comes back as an error, for ever; a delayed message is from a time when we
 * were not there (XEP-0203). */
static int wants_echo(struct xmpp *x, const struct xml_elem *message, const char *from, const char *body)
{
	const char *id = xml_get(message, "id");

	return from && body && *body && !xmpp_same_account(from, xmpp_jid(x))
	       && !xml_has(message, "type", "error") && !xml_has(message, "type", "groupchat")
	       && !xml_has(message, "type", "headline")
	       && !xml_child(message, "delay", "urn:xmpp:delay")
	       && (!id || strncmp(id, ECHO_ID, strlen(ECHO_ID)));
}

/* A line of output is one message: no text can forge another, or tell the
 * terminal what to do. So spaces stand for the control characters, those of ASCII
 * and those of ISO 8859-1, which in UTF-8 are C2 80 to C2 9F. */
static void print_text(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t n;

	for (;;) {
		for (n = 0; u[n] >= ' ' && u[n] != 0x7F && (u[n] != 0xC2 || u[n + 1] >= 0xA0); n++)
			;
		fwrite(u, 1, n, stdout);
		u += n;
		if (!*u)
			return;
		putchar(' ');
		u += *u == 0xC2 ? 2 : 1;
	}
}

/* S: <message from='alice@localhost/phone' type='chat' id='m1'><body>hi</body></message>
 * C: <message to='alice@localhost/phone' type='chat' id='echo-m1'><body>hi</body></message>
 * An unknown type counts as normal (RFC 6121 section 5.2.2). If it cannot be sent,
 * because the queue is full, say, the sender misses it: nobody else can do more. */
static void echo(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", message->ns);
	const struct xml_elem *thread = xml_child(message, "thread", message->ns);
	const char *from = xml_get(message, "from"), *id = xml_get(message, "id");

	if (!wants_echo(x, message, from, body ? body->text : NULL))
		return;
	print_text(from);
	fputs(": ", stdout);
	print_text(body->text);
	putchar('\n');
	xmpp_send(x, thread ? "<message to='%s' type='%s' id='" ECHO_ID "%s'><body>%s</body><thread>%s</thread></message>"
	                    : "<message to='%s' type='%s' id='" ECHO_ID "%s'><body>%s</body></message>",
	          from, xml_has(message, "type", "chat") ? "chat" : "normal", id, body->text, thread ? thread->text : NULL);
}

/* S: <presence from='alice@localhost' type='subscribe'/>
 * C: <presence to='alice@localhost' type='subscribed'/>
 * So that a person can add us as a contact: RFC 6121 section 3.1. */
static void grant_subscription(struct xmpp *x, const struct xml_elem *presence)
{
	if (xml_has(presence, "type", "subscribe") && xml_get(presence, "from"))
		xmpp_send(x, "<presence to='%s' type='subscribed'/>", xml_get(presence, "from"));
}

static void announce(struct xmpp *x)
{
	fputs("echobot: ready as ", stdout);
	print_text(xmpp_jid(x));
	putchar('\n');
}

/* No reason: it ended because we wanted it to. */
static void report_end(struct xmpp *x, const char *reason)
{
	long ms = xmpp_retry_in(x);

	if (reason)
		fprintf(stderr, "echobot: %s\n", reason);
	if (ms >= 0)
		fprintf(stderr, "echobot: trying again in %ld.%ld s\n", ms / 1000, ms / 100 % 10);
	*(int *)x->data = reason ? 1 : 0;
}

/* A second signal, of either kind, ends us at once: we may be stuck in printing. */
static void stop(int number)
{
	(void)number;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	xmpp_stop();
}

static int usage(void)
{
	fputs("usage: echobot [-v] [-t host] [-e server] [-p port] [-u user] [-x command]\n"
	      "  -v  show what goes over the wire\n"
	      "  -t  XMPP host, behind the @ of the bot's address (localhost)\n"
	      "  -e  machine that it runs on (the host)\n"
	      "  -p  port (5222)\n"
	      "  -u  user, before the @ (echobot)\n"
	      "  -x  speak through this command, which adds TLS; %h, %s, %p: host, server, port\n"
	      "The password is $XMPP_PASSWORD, or else the user's name.\n", stderr);
	return 2;
}

/* Reads the options; 0, or the exit status. */
static int read_options(int argc, char **argv, struct xmpp_options *o)
{
	char *end;
	long port;
	int c;

	while ((c = getopt(argc, argv, "vt:e:p:u:x:")) != -1) {
		switch (c) {
		case 'v': o->trace = stderr; break;
		case 't': o->host = optarg; break;
		case 'e': o->server = optarg; break;
		case 'u': o->user = optarg; break;
		case 'p':
			port = strtol(optarg, &end, 10);
			if (*end || port < 1 || port > 65535)
				return usage();
			o->port = (int)port;
			break;
		case 'x': o->tunnel = optarg; break;
		default:
			return usage();
		}
	}
	o->password = getenv("XMPP_PASSWORD") ? getenv("XMPP_PASSWORD") : o->user;
	return optind < argc ? usage() : 0;
}

/* xmpp_run(), but that what was printed is seen after each turn, in a pipe, too:
 * all lines at once, however many messages have come. */
static long run_bot(struct xmpp *bot)
{
	long alive;

	do {
		alive = xmpp_turn(&bot, 1, -1);
		fflush(stdout);
	} while (alive > 0);
	return alive;
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.user = "echobot", .host = "localhost", .reconnect = 1};
	struct sigaction on_signal = {.sa_handler = stop};
	struct xmpp *bot;
	int status = read_options(argc, argv, &options);

	if (status)
		return status;
	sigaction(SIGINT, &on_signal, NULL);
	sigaction(SIGTERM, &on_signal, NULL);
	signal(SIGCHLD, SIG_DFL); /* where it is ignored, as it may be by who started us, no tunnel's status is kept */
	setvbuf(stderr, NULL, _IOLBF, 0); /* a trace has many short pieces */
	bot = xmpp_new(&options);
	if (!bot) {
		perror("echobot");
		return 1;
	}
	bot->on_ready = announce;
	bot->on_message = echo;
	bot->on_presence = grant_subscription;
	bot->on_close = report_end;
	bot->data = &status;
	if (run_bot(bot)) {
		perror("echobot");
		status = 1;
	}
	xmpp_free(bot);
	return status;
}
