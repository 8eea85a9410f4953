#include "xmpp.h"

#include <stdlib.h>
#include <time.h>

static void answer(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);
	const char *from = xml_get(message, "from");
	int dice, sides, sum = 0;
	char text[40];

	if (!from || !body || xml_has(message, "type", "error"))
		return;
	if (sscanf(body->text, "/roll %2dd%3d", &dice, &sides) < 2 || sides < 1)
		return;
	while (dice-- > 0)
		sum += 1 + rand() % sides;
	snprintf(text, sizeof text, "You have rolled %d.", sum);
	xmpp_message(x, from, "chat", text);
}

static void tell_end(struct xmpp *x, const char *reason)
{
	printf("ended: %s\n", reason ? reason : "as I wished");
	if (xmpp_retry_in(x) >= 0)
		printf("trying again in %ld ms\n", xmpp_retry_in(x));
	fflush(stdout);
}

int main(void)
{
	struct xmpp_options options = {
		.user = "dicebot", .password = "dicebot", .host = "localhost",
		.reconnect = 1
	};
	struct xmpp *bot = xmpp_new(&options);

	if (!bot)
		return 1;
	srand((unsigned)time(NULL));
	bot->on_message = answer;
	bot->on_close = tell_end;
	xmpp_run(&bot, 1);
	xmpp_free(bot);
	return 0;
}
