/* alarmbot.c - "in 5 tea" makes it say "tea" five seconds later, to one person at
 * a time. Exercise 2: a timer. */
#include "xmpp.h"

#include <stdlib.h>
#include <string.h>

struct alarm {
	char *to, *text;        /* NULL when there is none */
};

static char *copy(const char *s)
{
	char *c = malloc(strlen(s) + 1);

	return c ? memcpy(c, s, strlen(s) + 1) : NULL;
}

static void clear(struct alarm *a)
{
	free(a->to);
	free(a->text);
	a->to = a->text = NULL;
}

/* The message is gone when this returns: what the alarm needs is copied. */
static void set_alarm(struct xmpp *x, const struct xml_elem *message)
{
	struct alarm *a = x->data;
	const struct xml_elem *body = xml_child(message, "body", NULL);
	const char *from = xml_get(message, "from"), *type = xml_get(message, "type");
	int seconds, n = 0;

	if (!from || !body || (type && strcmp(type, "chat")))
		return;
	if (sscanf(body->text, "in %4d %n", &seconds, &n) != 1 || n == 0 || seconds < 0)
		return;
	clear(a);
	a->to = copy(from);
	a->text = copy(body->text + n);
	xmpp_wake_after(x, 1000L * seconds);
}

static void ring(struct xmpp *x)
{
	struct alarm *a = x->data;

	if (a->to && a->text)
		xmpp_message(x, a->to, "chat", a->text);
	clear(a);
}

int main(void)
{
	struct xmpp_options options = {.user = "alarmbot", .password = "alarmbot", .host = "localhost"};
	struct alarm alarm = {NULL, NULL};
	struct xmpp *bot = xmpp_new(&options);

	if (!bot)
		return 1;
	bot->on_message = set_alarm;
	bot->on_wake = ring;
	bot->data = &alarm;
	return xmpp_run(&bot, 1) ? 1 : 0;
}
