#include "xmpp.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void roll(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);
	const char *from = xml_get(message, "from");
	const char *type = xml_get(message, "type");
	int dice, sides, sum = 0;

	if (!from || !body || (type && !strcmp(type, "error")))
		return;
	if (sscanf(body->text, "/roll %2dd%3d", &dice, &sides) < 2)
		return;
	while (dice-- > 0)
		sum += sides > 0 ? 1 + rand() % sides : 0;
	xmpp_send(x, "<message to='%s'><body>%d</body></message>", from, sum);
}

int main(void)
{
	struct xmpp_options options = {
		.user = "dicebot", .password = "dicebot", .host = "localhost"
	};
	struct xmpp *bot = xmpp_new(&options);

	if (!bot)
		return 1;
	srand((unsigned)time(NULL));
	bot->on_message = roll;
	return xmpp_run(&bot, 1) ? 1 : 0;
}
