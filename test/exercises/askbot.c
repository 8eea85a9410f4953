/* askbot.c - asks the server what it can do (XEP-0030), prints the answer, and ends. */
#include "xmpp.h"

#include <string.h>

#define NS_INFO "http://jabber.org/protocol/disco#info"

/* S: <iq type='result' ...><query xmlns='http://jabber.org/protocol/disco#info'>
 *      <feature var='urn:xmpp:ping'/>...</query></iq> */
static void print_features(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	const struct xml_elem *query = xml_child(answer, "query", NS_INFO);
	const struct xml_elem *e = query ? query->children : NULL;

	(void)data;
	if (!xml_has(answer, "type", "result"))
		printf("no answer, or an error\n");
	for (; e; e = e->next)
		if (!strcmp(e->name, "feature") && xml_get(e, "var"))
			printf("%s\n", xml_get(e, "var"));
	xmpp_close(x);
}

static void ask(struct xmpp *x)
{
	xmpp_request(x, "get", "localhost", "<query xmlns='" NS_INFO "'/>", print_features, NULL);
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
