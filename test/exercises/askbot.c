/* askbot.c - asks the server two questions, prints the answers, and exits. */
#include "xmpp.h"

#include <string.h>

#define NS_PING "urn:xmpp:ping"            /* XEP-0199 */
#define NS_VERSION "jabber:iq:version"     /* XEP-0092 */

/* Prints an answer, which is NULL if none came. `data` is the namespace of the question. After the
 * answer to the last question, closes the connection. */
static void print_answer(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	const char *result = "result";

	if (!answer)
		result = "no answer";
	else if (xml_has(answer, "type", "error"))
		result = xmpp_error_condition(answer);
	printf("%s: %s\n", (const char *)data, result);
	if (!strcmp(data, NS_VERSION))
		xmpp_close(x);
}

static void ask(struct xmpp *x)
{
	xmpp_request(x, "get", "localhost", "<ping xmlns='" NS_PING "'/>", print_answer, NS_PING);
	xmpp_request(x, "get", "localhost", "<query xmlns='" NS_VERSION "'/>", print_answer, NS_VERSION);
}

int main(void)
{
	struct xmpp_options options = {.user = "askbot", .password = "askbot", .host = "localhost"};
	struct xmpp *bot = xmpp_new(&options);

	if (!bot)
		return 1;
	bot->on_ready = ask;
	xmpp_run(&bot, 1);
	xmpp_free(bot);
	return 0;
}
