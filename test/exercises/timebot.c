/* timebot.c - tells the time to everybody who says anything. Exercise 1. */
#include "xmpp.h"

#include <string.h>
#include <time.h>

static void tell_time(struct xmpp *x, const struct xml_elem *message)
{
	const char *from = xml_get(message, "from"), *type = xml_get(message, "type");
	time_t now = time(NULL);
	char text[40];

	if (!from || !xml_child(message, "body", NULL) || (type && strcmp(type, "chat")))
		return; /* nothing was said, or it is an error or comes from a room */
	strftime(text, sizeof text, "It is %H:%M.", localtime(&now));
	xmpp_message(x, from, "chat", text);
}

int main(void)
{
	struct xmpp_options options = {.user = "timebot", .password = "timebot", .host = "localhost"};
	struct xmpp *bot = xmpp_new(&options);

	if (!bot)
		return 1;
	bot->on_message = tell_time;
	return xmpp_run(&bot, 1) ? 1 : 0;
}
