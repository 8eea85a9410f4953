/* say.c - logs in, sends one message, and waits for the answer.
 *
 *     say PORT USER TO TEXT
 *
 * The exit status is 0 if an answer came within 10 s. The password is the user's name. */
#include "../../xmpp.h"

#include <stdlib.h>
#include <string.h>

struct talk {
	const char *to, *text;
	int answered;
};

static void speak(struct xmpp *x)
{
	const struct talk *talk = x->data;

	printf("%s says to %s: %s\n", xmpp_jid(x), talk->to, talk->text);
	xmpp_message(x, talk->to, "chat", talk->text);
	xmpp_wake_after(x, 10000);
}

static void listen(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);
	struct talk *talk = x->data;

	if (!body || !xmpp_same_account(xml_get(message, "from"), talk->to))
		return;
	printf("%s answers: %s\n", xml_get(message, "from"), body->text);
	talk->answered = 1;
	xmpp_close(x);
}

static void end(struct xmpp *x, const char *reason)
{
	(void)x;
	if (reason)
		fprintf(stderr, "say: %s\n", reason);
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.host = "localhost"};
	struct talk talk = {0};
	struct xmpp *x;

	if (argc != 5) {
		fputs("usage: say PORT USER TO TEXT\n", stderr);
		return 2;
	}
	options.port = (int)strtol(argv[1], NULL, 10);
	options.user = options.password = argv[2];
	talk.to = argv[3];
	talk.text = argv[4];
	x = xmpp_new(&options);
	if (!x) {
		perror("say");
		return 1;
	}
	x->data = &talk;
	x->on_ready = speak;
	x->on_message = listen;
	x->on_close = end;
	x->on_wake = xmpp_close;
	if (xmpp_run(&x, 1))
		perror("say");
	xmpp_free(x);
	return !talk.answered;
}
