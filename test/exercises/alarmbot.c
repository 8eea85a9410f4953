/* alarmbot.c - answers "in 5 tea" with "tea" five seconds later. It keeps one alarm at a time; a
 * new one replaces the old one. Exercise 2: a timer. */
#include "xmpp.h"

struct alarm {
	char to[4000], text[200]; /* a JID has at most 3,071 bytes */
};

/* Copies the sender and the text, because the message is freed when this function returns. */
static void set_alarm(struct xmpp *x, const struct xml_elem *message)
{
	struct alarm *alarm = x->data;
	const struct xml_elem *body = xml_child(message, "body", NULL);
	const char *from = xml_get(message, "from");
	int seconds, start = 0;

	if (!from || !body || xml_has(message, "type", "error")
	    || xml_has(message, "type", "groupchat"))
		return;
	if (sscanf(body->text, "in %4d %n", &seconds, &start) != 1 || start == 0 || seconds < 0)
		return;
	snprintf(alarm->to, sizeof alarm->to, "%s", from);
	snprintf(alarm->text, sizeof alarm->text, "%s", body->text + start);
	xmpp_wake_after(x, 1000L * seconds);
}

static void ring(struct xmpp *x)
{
	const struct alarm *alarm = x->data;

	xmpp_message(x, alarm->to, "chat", alarm->text);
}

int main(void)
{
	struct xmpp_options options = {
		.user = "alarmbot", .password = "alarmbot", .host = "localhost"
	};
	struct xmpp *bot = xmpp_new(&options);
	struct alarm alarm;

	if (!bot)
		return 1;
	bot->on_message = set_alarm;
	bot->on_wake = ring;
	bot->data = &alarm;
	xmpp_run(&bot, 1);
	xmpp_free(bot);
	return 0;
}
