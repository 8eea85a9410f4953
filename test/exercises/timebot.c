/* timebot.c - tells the time to everybody who sends a message. Exercise 1. */
#include "xmpp.h"

#include <time.h>

/* Answers with the time. Ignores errors, which must not be answered, and messages in rooms, which
 * are not meant for the bot. */
static void tell_time(struct xmpp *x, const struct xml_elem *message)
{
	const char *from = xml_get(message, "from");
	time_t now = time(NULL);
	char text[40];

	if (!from || !xml_child(message, "body", NULL) || xml_has(message, "type", "error")
	    || xml_has(message, "type", "groupchat"))
		return;
	strftime(text, sizeof text, "It is %H:%M.", localtime(&now));
	xmpp_message(x, from, "chat", text);
}

int main(void)
{
	struct xmpp_options options = {
		.user = "timebot", .password = "timebot", .host = "localhost"
	};
	struct xmpp *bot = xmpp_new(&options);

	if (!bot)
		return 1;
	bot->on_message = tell_time;
	xmpp_run(&bot, 1);
	xmpp_free(bot);
	return 0;
}
