/* flood.c - sends an echobot a flood of messages. All must come back, in order.
 *
 *     flood PORT USER TO COUNT WINDOW LINES
 *
 * It sends COUNT messages, of which at most WINDOW are unanswered at a time. Each has
 * up to LINES line breaks, each of which takes five bytes when it is escaped. It
 * prints a line after each 100,000 answers, and when the server has received all
 * messages. The exit status is 0 if all came back, each within 60 s of the one
 * before. The password is the user's name. */
#include "../../xmpp.h"

#include <stdlib.h>
#include <string.h>

enum { BODY_SIZE = 10000 };

struct flood {
	const char *to;
	int count, window, lines;
	int said, heard;
	char body[BODY_SIZE];
};

/* Returns the body of a message, which depends only on its number. */
static char *make_body(struct flood *f, int number)
{
	size_t n = (size_t)snprintf(f->body, BODY_SIZE, "%d", number);
	size_t lines = (size_t)(number * 997LL % (f->lines + 1));

	memset(f->body + n, '\n', lines);
	f->body[n + lines] = '\0';
	return f->body;
}

static void note_all_said(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	(void)x;
	(void)data;
	if (answer)
		puts("all said");
}

static void speak(struct xmpp *x)
{
	struct flood *f = x->data;

	xmpp_wake_after(x, 60000);
	while (f->said < f->count && f->said - f->heard < f->window) {
		if (xmpp_send(x, "<message to='%s' type='chat' id='%d'><body>%s</body></message>",
		              f->to, f->said, make_body(f, f->said)))
			return;
		/* The server answers this after it has handled all the messages before it. */
		if (++f->said == f->count)
			xmpp_request(x, "get", "localhost", "<ping xmlns='urn:xmpp:ping'/>", note_all_said, NULL);
	}
}

static void listen(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);
	struct flood *f = x->data;

	if (!xmpp_same_jid(xml_get(message, "from"), f->to))
		return; /* a message from somebody else */
	if (!body || strcmp(body->text, make_body(f, f->heard))) {
		printf("not what was said: number %d\n", f->heard);
		xml_print(message, stdout);
		xmpp_close(x);
		return;
	}
	if (++f->heard % 100000 == 0)
		printf("%d\n", f->heard);
	if (f->heard == f->count)
		xmpp_close(x);
	else
		speak(x);
}

static void end(struct xmpp *x, const char *reason)
{
	(void)x;
	if (reason)
		printf("%s\n", reason);
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.host = "localhost"};
	struct flood f = {0};
	struct xmpp *x;

	if (argc == 7)
		f.lines = (int)strtol(argv[6], NULL, 10);
	if (argc != 7 || f.lines < 0 || f.lines > BODY_SIZE - 20) {
		fputs("usage: flood PORT USER TO COUNT WINDOW LINES\n", stderr);
		return 2;
	}
	options.port = (int)strtol(argv[1], NULL, 10);
	options.user = options.password = argv[2];
	f.to = argv[3];
	f.count = (int)strtol(argv[4], NULL, 10);
	f.window = (int)strtol(argv[5], NULL, 10);
	setvbuf(stdout, NULL, _IOLBF, 0);
	x = xmpp_new(&options);
	if (!x) {
		perror("flood");
		return 1;
	}
	x->data = &f;
	x->on_ready = speak;
	x->on_message = listen;
	x->on_close = end;
	x->on_wake = xmpp_close;
	if (xmpp_run(&x, 1))
		perror("flood");
	xmpp_free(x);
	return f.heard != f.count;
}
