/* bench_peer.c - minimal clients that do the same as echobot: with iksemel (-DIKSEMEL
 * -liksemel), with libstrophe (-DSTROPHE -lstrophe), or with our library, on as many
 * connections as the first argument says. The last argument is the port. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined IKSEMEL
#include <iksemel.h>

static iksparser *parser;
static int logged_in;

static void echo(iks *message)
{
	char *from = iks_find_attrib(message, "from"), *body = iks_find_cdata(message, "body");
	iks *answer = from && body ? iks_make_msg(IKS_TYPE_CHAT, from, body) : NULL;

	if (!answer)
		return;
	iks_insert_attrib(answer, "id", iks_find_attrib(message, "id"));
	iks_send(parser, answer);
	iks_delete(answer);
}

static int on_stanza(void *data, int type, iks *node)
{
	static char name[] = "echobot", password[] = "echobot";
	iksid *id = data;
	iks *answer;

	if (type == IKS_NODE_NORMAL && !strcmp("stream:features", iks_name(node))) {
		if (!logged_in) {
			iks_start_sasl(parser, IKS_SASL_PLAIN, name, password);
		} else {
			answer = iks_make_resource_bind(id);
			iks_insert_attrib(answer, "id", "bind");
			iks_send(parser, answer);
			iks_delete(answer);
		}
	} else if (type == IKS_NODE_NORMAL && !strcmp("success", iks_name(node))) {
		logged_in = 1;
		iks_send_header(parser, id->server);
	} else if (type == IKS_NODE_NORMAL && !strcmp("iq", iks_name(node))) {
		answer = iks_make_pres(IKS_SHOW_AVAILABLE, NULL);
		iks_send(parser, answer);
		iks_delete(answer);
	} else if (type == IKS_NODE_NORMAL && !strcmp("message", iks_name(node)))
		echo(node);
	if (node)
		iks_delete(node);
	return IKS_OK;
}

int main(int argc, char **argv)
{
	static char namespace[] = "jabber:client";
	ikstack *stack = iks_stack_new(1024, 1024);
	iksid *id = stack ? iks_id_new(stack, "echobot@localhost/1") : NULL;

	parser = iks_stream_new(namespace, id, on_stanza);
	if (argc < 2 || !parser || iks_connect_via(parser, "127.0.0.1", atoi(argv[argc - 1]), "localhost") != IKS_OK)
		return 1;
	while (iks_recv(parser, -1) == IKS_OK)
		;
	return 1;
}

#elif defined STROPHE
#include <strophe.h>

static int echo(xmpp_conn_t *conn, xmpp_stanza_t *message, void *data)
{
	xmpp_ctx_t *ctx = data;
	const char *from = xmpp_stanza_get_from(message);
	xmpp_stanza_t *body = xmpp_stanza_get_child_by_name(message, "body");
	char *text = body ? xmpp_stanza_get_text(body) : NULL;
	xmpp_stanza_t *answer;

	if (from && text) {
		answer = xmpp_message_new(ctx, "chat", from, xmpp_stanza_get_id(message));
		xmpp_message_set_body(answer, text);
		xmpp_send(conn, answer);
		xmpp_stanza_release(answer);
	}
	xmpp_free(ctx, text);
	return 1;
}

static void on_event(xmpp_conn_t *conn, xmpp_conn_event_t event, int error, xmpp_stream_error_t *stream_error, void *data)
{
	xmpp_ctx_t *ctx = data;
	xmpp_stanza_t *presence;

	(void)error;
	(void)stream_error;
	if (event != XMPP_CONN_CONNECT) {
		xmpp_stop(ctx);
		return;
	}
	xmpp_handler_add(conn, echo, NULL, "message", NULL, ctx);
	presence = xmpp_presence_new(ctx);
	xmpp_send(conn, presence);
	xmpp_stanza_release(presence);
}

int main(int argc, char **argv)
{
	xmpp_ctx_t *ctx;
	xmpp_conn_t *conn;

	xmpp_initialize();
	ctx = xmpp_ctx_new(NULL, NULL);
	conn = ctx ? xmpp_conn_new(ctx) : NULL;
	if (argc < 2 || !conn)
		return 1;
	xmpp_conn_set_flags(conn, XMPP_CONN_FLAG_DISABLE_TLS);
	xmpp_conn_set_jid(conn, "echobot@localhost");
	xmpp_conn_set_pass(conn, "echobot");
	if (xmpp_connect_client(conn, "127.0.0.1", (unsigned short)atoi(argv[argc - 1]), on_event, ctx))
		return 1;
	xmpp_run(ctx);
	return 1;
}

#else
#include "../../xmpp.h"

static void echo(struct xmpp *x, const struct xml_elem *message)
{
	const struct xml_elem *body = xml_child(message, "body", NULL);

	xmpp_send(x, "<message to='%s' type='chat' id='%s'><body>%s</body></message>",
	          xml_get(message, "from"), xml_get(message, "id"), body ? body->text : "");
}

int main(int argc, char **argv)
{
	struct xmpp_options options = {.user = "echobot", .password = "echobot", .host = "localhost", .server = "127.0.0.1"};
	struct xmpp *bots[1000];
	size_t n = argc < 3 ? 1 : (size_t)strtoul(argv[1], NULL, 10), i;

	if (argc < 2 || n < 1 || n > 1000)
		return 1;
	options.port = (int)strtol(argv[argc - 1], NULL, 10);
	for (i = 0; i < n; i++) {
		bots[i] = xmpp_new(&options);
		if (!bots[i])
			return 1;
		bots[i]->on_message = echo;
	}
	return xmpp_run(bots, n) != 0;
}
#endif
