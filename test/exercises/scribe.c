/* scribe.c - sits in a room and writes down what is said there. Exercise 3:
 * presence, and a request.
 *
 *     ./scribe tea@conference.localhost */
#include "xmpp.h"

#include <string.h>

static void enter(struct xmpp *x)
{
	xmpp_join(x, x->data, "scribe");
}

static void ignore(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	(void)x, (void)answer, (void)data;
}

/* S: <presence from='tea@conference.localhost/scribe'>
 *      <x xmlns='http://jabber.org/protocol/muc#user'><status code='201'/>...</x></presence>
 * The room is new, and nobody else may come in until its owner, and that is us,
 * has said how it is to be: XEP-0045 section 10.1.2. */
static void look_around(struct xmpp *x, const struct xml_elem *presence)
{
	const struct xml_elem *in = xml_child(presence, "x", "http://jabber.org/protocol/muc#user"), *s;
	const char *code;

	for (s = in ? in->children : NULL; s; s = s->next) {
		code = xml_get(s, "code");
		if (code && !strcmp(code, "201"))
			xmpp_request(x, "set", x->data, "<query xmlns='http://jabber.org/protocol/muc#owner'>"
			             "<x xmlns='jabber:x:data' type='submit'/></query>", ignore, NULL);
		if (code && !strcmp(code, "110")) {
			printf("scribe: listening\n");
			fflush(stdout);
		}
	}
}

static void write_down(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);
	const char *type = xml_get(message, "type"), *from = xml_get(message, "from"), *nick;

	(void)x;
	nick = from ? strchr(from, '/') : NULL;
	if (!body || !nick || !type || strcmp(type, "groupchat"))
		return;
	printf("%s: %s\n", nick + 1, body->text);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.user = "scribe", .password = "scribe", .host = "localhost"};
	struct xmpp *bot = argc == 2 ? xmpp_new(&options) : NULL;

	if (!bot)
		return 1;
	bot->on_ready = enter;
	bot->on_presence = look_around;
	bot->on_message = write_down;
	bot->data = argv[1];
	return xmpp_run(&bot, 1) ? 1 : 0;
}
