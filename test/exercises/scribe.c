/* scribe.c - enters a room and prints what is said there. Exercise 3: a room.
 *
 *     ./scribe tea@conference.localhost */
#include "xmpp.h"

#include <string.h>

static void enter(struct xmpp *x)
{
	xmpp_join(x, x->data, "scribe");
}

/* S: <presence from='tea@conference.localhost/scribe'>
 *      <x xmlns='http://jabber.org/protocol/muc#user'>...<status code='110'/></x></presence> */
static void look_around(struct xmpp *x, const struct xml_elem *presence)
{
	if (xml_has(presence, "type", "error")) {
		printf("scribe: the room does not let me in\n");
		xmpp_close(x);
	}
	if (xmpp_has_status(presence, 201))
		xmpp_unlock_room(x, x->data, NULL, NULL);
	if (xmpp_has_status(presence, 110) && !xml_get(presence, "type"))
		printf("scribe: listening\n");
	fflush(stdout);
}

/* S: <message from='tea@conference.localhost/alice' type='groupchat'>
 *      <body>Hello</body></message> */
static void write_down(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);
	const char *from = xml_get(message, "from");
	const char *nick = from ? strchr(from, '/') : NULL;

	(void)x;
	if (!body || !nick || !xml_has(message, "type", "groupchat"))
		return;
	xmpp_print(nick + 1, stdout);
	printf(": ");
	xmpp_print(body->text, stdout);
	printf("\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.user = "scribe", .password = "scribe", .host = "localhost"};
	struct xmpp *bot;

	if (argc != 2) {
		fputs("usage: scribe room@service\n", stderr);
		return 2;
	}
	bot = xmpp_new(&options);
	if (!bot)
		return 1;
	bot->on_ready = enter;
	bot->on_presence = look_around;
	bot->on_message = write_down;
	bot->data = argv[1];
	xmpp_run(&bot, 1);
	xmpp_free(bot);
	return 0;
}
