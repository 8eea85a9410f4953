/* echobot.c - a bot that repeats what people say to it.
 *
 * This bot only reacts to events. It consists of a few handlers, which main() sets and the loop in
 * xmpp_run() calls. Read this file first. xmpp.h describes the library's functions. */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The ids of our messages begin with this. The bot ignores messages with such an id. Otherwise two
 * echobots would answer each other forever. */
#define ECHO_ID "echo-"

/* The errors that make the exit status 1. They are bits of the int that bot->data points to. */
enum { NOT_PRINTED = 1, NOT_CONNECTED = 2 };

/* True if this message should be echoed. An error must not be answered, since the answer could
 * cause another error. A groupchat message is meant for a whole room, and a headline expects no
 * reply. An unknown type counts as normal (RFC 6121 section 5.2.2). A delayed message was sent
 * while we were offline (XEP-0203). The echo of a message from our own account could come back. */
static int wants_echo(struct xmpp *x, const struct xml_elem *message, const struct xml_elem *body)
{
	const char *from = xml_get(message, "from"), *id = xml_get(message, "id");

	return from && body && *body->text && !xmpp_same_account(from, xmpp_jid(x))
	       && !xml_has(message, "type", "error") && !xml_has(message, "type", "groupchat")
	       && !xml_has(message, "type", "headline")
	       && !xml_child(message, "delay", "urn:xmpp:delay")
	       && (!id || strncmp(id, ECHO_ID, strlen(ECHO_ID)));
}

/* Prints three strings as one line. Some of them were written by other people. */
static void print_line(struct xmpp *x, const char *a, const char *b, const char *c)
{
	xmpp_print(a, stdout);
	xmpp_print(b, stdout);
	xmpp_print(c, stdout);
	putchar('\n');
	if (!ferror(stdout))
		return;
	perror("echobot: standard output");
	clearerr(stdout); /* the next line may succeed */
	*(int *)x->data |= NOT_PRINTED;
}

/* S: <message from='alice@localhost/phone' type='chat' id='m1'><body>hi</body></message>
 * C: <message to='alice@localhost/phone' type='chat' id='echo-m1'><body>hi</body></message>
 * If the echo cannot be sent, for example because the queue is full, it is dropped. */
static void echo(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", message->ns);
	const struct xml_elem *thread = xml_child(message, "thread", message->ns);
	const char *from = xml_get(message, "from"), *id = xml_get(message, "id");
	const char *type = xml_has(message, "type", "chat") ? "chat" : "normal";

	if (!wants_echo(x, message, body))
		return;
	print_line(x, from, ": ", body->text);
	xmpp_send(x, thread ? "<message to='%s' type='%s' id='%r%s'><body>%s</body>"
	                      "<thread>%s</thread></message>"
	                    : "<message to='%s' type='%s' id='%r%s'><body>%s</body></message>",
	          from, type, ECHO_ID, id, body->text, thread ? thread->text : NULL);
}

/* S: <presence from='alice@localhost' type='subscribe'/>
 * C: <presence to='alice@localhost' type='subscribed'/>
 * This lets people see when we are online (RFC 6121 section 3.1). */
static void grant_subscription(struct xmpp *x, const struct xml_elem *presence)
{
	const char *from = xml_get(presence, "from");

	if (from && xml_has(presence, "type", "subscribe"))
		xmpp_send(x, "<presence to='%s' type='subscribed'/>", from);
}

static void announce(struct xmpp *x)
{
	print_line(x, "echobot: ", "ready as ", xmpp_jid(x));
}

/* Reports why the connection ended. `reason` is NULL if we closed it. */
static void report_end(struct xmpp *x, const char *reason)
{
	long ms = xmpp_retry_in(x);

	if (reason)
		fprintf(stderr, "echobot: %s\n", reason);
	if (ms >= 0)
		fprintf(stderr, "echobot: trying again in %ld.%ld s\n", ms / 1000, ms / 100 % 10);
	*(int *)x->data &= ~NOT_CONNECTED; /* an earlier failure no longer counts */
	*(int *)x->data |= reason ? NOT_CONNECTED : 0;
}

/* Logs out. A second signal ends the process at once, even if it is blocked writing output. */
static void stop(int number)
{
	(void)number;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	xmpp_stop();
}

static int usage(FILE *out)
{
	fputs("usage: echobot [-v] [-t host] [-e server] [-p port] [-u user] [-x command]\n"
	      "  -v  print what is sent and received\n"
	      "  -t  XMPP host, after the @ of the bot's address (localhost)\n"
	      "  -e  machine to connect to (the host)\n"
	      "  -p  port (5222)\n"
	      "  -u  user, before the @ (echobot)\n"
	      "  -x  connect through this command, for example one that adds TLS; it finds the\n"
	      "      host, the server and the port in $XMPP_HOST, $XMPP_SERVER and $XMPP_PORT\n"
	      "The password is $XMPP_PASSWORD, or the user's name if that is not set.\n", out);
	return out == stdout ? 0 : 2;
}

/* Reads the options. Returns the exit status if the program must end, or -1 if it can go on. */
static int read_options(int argc, char **argv, struct xmpp_options *o)
{
	char *end;
	long port;
	int c;

	while ((c = getopt(argc, argv, "hvt:e:p:u:x:")) != -1) {
		switch (c) {
		case 'h': return usage(stdout);
		case 'v': o->trace = stderr; break;
		case 't': o->host = optarg; break;
		case 'e': o->server = optarg; break;
		case 'u': o->user = optarg; break;
		case 'x': o->tunnel = optarg; break;
		case 'p':
			port = strtol(optarg, &end, 10);
			if (*end || port < 1 || port > 65535)
				return usage(stderr);
			o->port = (int)port;
			break;
		default: return usage(stderr);
		}
	}
	if (strchr(o->user, '@')) {
		fputs("echobot: give -u the part before the @, and -t the part after it\n", stderr);
		return 2;
	}
	o->password = getenv("XMPP_PASSWORD") ? getenv("XMPP_PASSWORD") : o->user;
	return optind < argc ? usage(stderr) : -1;
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.user = "echobot", .host = "localhost", .reconnect = 1};
	struct sigaction action = {.sa_handler = stop, .sa_flags = SA_RESTART};
	struct xmpp *bot;
	int errors = 0, status = read_options(argc, argv, &options);

	if (status >= 0)
		return status;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0); /* write each line at once, even to a pipe */
	setvbuf(stderr, NULL, _IOLBF, 0); /* a line of the trace is written in one piece */
	bot = xmpp_new(&options);
	if (!bot) {
		perror("echobot");
		return 1;
	}
	bot->on_ready = announce;
	bot->on_message = echo;
	bot->on_presence = grant_subscription;
	bot->on_close = report_end;
	bot->data = &errors;
	status = xmpp_run(&bot, 1);
	if (status)
		perror("echobot");
	xmpp_free(bot);
	return status || errors;
}
