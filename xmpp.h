/* xmpp.h - everything that a bot needs to speak XMPP.
 *
 * Floor 3, the bots:    handlers that are called when something happens.
 * Floor 2, xmpp.c:      one connection, its login, and the loop that runs many of them.
 * Floor 1, xmlstream.c: bytes to stanzas, and strings to XML (RFC 6120 section 11).
 *
 * A bot needs only the part of this file before "The XML stream". It never touches a socket, a
 * buffer or the parser.
 *
 * Strings are UTF-8 and end with a NUL. Times are in milliseconds. Nothing here is thread-safe.
 * A signal handler may call xmpp_stop() and no other function. */
#ifndef XMPP_H
#define XMPP_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct xml_elem; /* see "Elements" */

/* ------------------------------------------------------------ A connection */

/* How to log in. The strings are not copied, so they must stay valid until xmpp_free(). A value of
 * 0 or NULL means the default, which is given in parentheses. */
struct xmpp_options {
	const char *user;       /* the name before the @; required */
	const char *password;   /* required */
	const char *host;       /* the XMPP domain, after the @; required */
	const char *server;     /* the name or address of the machine to connect to (host) */
	int port;               /* (5222) */
	const char *tunnel;     /* a shell command to connect through, for example one that adds */
	                        /* TLS; see xmpp_new() (none: connect by TCP) */
	const char *resource;   /* the resource to ask for (the server chooses) */
	int create;             /* create the account if it does not exist; XEP-0077 (no) */
	int reconnect;          /* reconnect when the connection is lost (no) */
	long start_after;       /* time from xmpp_new() to the first attempt to connect (0) */
	FILE *trace;            /* where to print the XML sent and received, without passwords; */
	                        /* must stay open until xmpp_free() (nowhere) */
	const char *trace_name; /* trace lines begin with C(name): and S(name): (C: and S:) */
	long login_timeout;     /* time limit for connecting, and again for logging in (30,000) */
	long ping_after;        /* ping the server if nothing arrives for this long (60,000) */
	long ping_timeout;      /* time limit for the answer to the ping (30,000) */
};

/* A connection of one account. The handlers are functions that the loop calls when something
 * happens. All are NULL at first, and a bot sets those that it needs. The elements passed to a
 * handler are freed when it returns. A handler may call every function except xmpp_run(),
 * xmpp_turn() and xmpp_free(). To end its own connection or another one, it calls xmpp_close().
 *
 * There is no handler for iqs. Answers go to the callback of xmpp_request(). The library answers
 * requests by itself: a ping (XEP-0199) with a result, all others with the error
 * service-unavailable. */
struct xmpp {
	/* The bot has logged in, for the first time or again, and its presence is queued. */
	void (*on_ready)(struct xmpp *);

	/* A message has arrived. Its type is chat, groupchat, headline, error or normal. No type
	 * means normal (RFC 6121 section 5.2.2). */
	void (*on_message)(struct xmpp *, const struct xml_elem *);

	/* A presence has arrived. Its type is unavailable, subscribe, error or another one. No type
	 * means available (RFC 6121 section 4.7.1). */
	void (*on_presence)(struct xmpp *, const struct xml_elem *);

	/* The connection has ended, or an attempt to connect has failed. The reason is NULL if the
	 * bot closed the connection. xmpp_retry_in() says whether the bot will reconnect. */
	void (*on_close)(struct xmpp *, const char *reason);

	void (*on_wake)(struct xmpp *); /* see xmpp_wake_after() */
	void *data;             /* for the bot's own use */
};

/* Creates a connection, which xmpp_run() or xmpp_turn() will open. It must be freed with
 * xmpp_free(). Returns NULL and sets errno on failure: EINVAL if a required string is NULL or the
 * port is not valid.
 *
 * With options.reconnect, a lost connection is opened again after a random time. The upper limit
 * of this time is one second at first, and doubles with each further loss up to one minute. After
 * a connection that was ready for a minute, it is one second again. Before the first successful
 * login, an error that would recur, such as a wrong password, is final. After that, even such an
 * error may be temporary, so the bot reconnects, but the limit grows up to five minutes. Only the
 * stream error <conflict/> is always final, since it means that another client has logged in with
 * the same resource.
 *
 * With options.tunnel, /bin/sh runs the command, and the stream goes through its standard input
 * and output. Its error messages go to the bot's standard error. It finds the host, the server and
 * the port in the environment variables XMPP_HOST, XMPP_SERVER and XMPP_PORT. It runs in a
 * background process group of its own, so it cannot read from the terminal. That group is killed
 * when the connection ends. */
struct xmpp *xmpp_new(const struct xmpp_options *options);

/* Opens n connections and runs them in one loop until all have ended for good, for example after
 * xmpp_stop(). Returns 0 even if a login failed, since on_close has been given the reason. Returns
 * -1 and sets errno if the loop itself fails. select() limits the process to about 1,000
 * descriptors. */
int xmpp_run(struct xmpp **conns, size_t n);

/* Runs one turn of that loop, for a program that has more to do. Waits at most ms (without limit if
 * negative) until something happens, and calls the handlers. Returns the number of connections that
 * had not ended for good when the wait began. If there are none, returns 0 without waiting. Returns
 * -1 and sets errno on failure. */
long xmpp_turn(struct xmpp **conns, size_t n, long ms);

/* Makes the loop call xmpp_close() for all connections before it waits again. This stays in effect
 * until xmpp_turn() returns 0. */
void xmpp_stop(void);

/* Closes the stream (RFC 6120 section 4.4) and does not reconnect. on_close is called when the
 * server has closed its stream as well, or after one second. Until then, stanzas that arrive are
 * dropped, and nothing is called except callbacks of requests, with NULL. If no stream is open or
 * the queue is full, on_close is called before this function returns. A connection that has ended
 * for good does not change. If on_close itself calls this function, the only effect is that the bot
 * does not reconnect. */
void xmpp_close(struct xmpp *x);

/* Ends a connection at once and frees it. Calls the callbacks of pending requests with NULL, but
 * does not call on_close. Handlers must not call this function. `x` may be NULL. */
void xmpp_free(struct xmpp *x);

/* These two are meant for on_close. xmpp_retry_in() returns the time until the next attempt to
 * connect, or -1 if there will be none. xmpp_retry_after() makes sure that the next attempt comes
 * no earlier than ms from now. */
long xmpp_retry_in(const struct xmpp *x);
void xmpp_retry_after(struct xmpp *x, long ms);

/* Sets the connection's only timer. on_wake is called once, ms from now (at most 24 days), unless
 * the connection ends first. Another call replaces the timer. A negative ms cancels it. */
void xmpp_wake_after(struct xmpp *x, long ms);

/* Returns the full JID that the server has bound (RFC 6120 section 7), or "" if the bot has not
 * logged in since the last attempt to connect began. The string is valid until the next attempt. */
const char *xmpp_jid(const struct xmpp *x);

/* True if two JIDs are the same. Case matters only in the resource. xmpp_same_account() ignores
 * the resources, so it can also tell whether an occupant's JID belongs to a room. Both functions
 * return 0 if a JID is NULL. */
int xmpp_same_jid(const char *a, const char *b);
int xmpp_same_account(const char *a, const char *b);

/* ----------------------------------------------------------------- Sending */

/* Queues one or more stanzas: all of them, or none if it fails. The next turn of the loop sends
 * them.
 *
 * In `format`, %s stands for a string, %d for an int, %r for raw XML, and %% for a percent sign.
 * There are no other conversions. A NULL string counts as empty. %s escapes its string, so it may
 * stand in text, or in an attribute value whose quotes are in the format. Bytes that XML does not
 * allow become U+FFFD.
 *
 * Returns 0, or -1 and sets errno. None of these errors ends the connection:
 *
 *     ENOTCONN   the connection is not ready. It becomes ready with on_ready, and stays so
 *                until it ends or xmpp_close() is called
 *     ENOBUFS    more than 4 MiB are queued, since the server does not read fast enough
 *     EMSGSIZE   more than 250,000 bytes; many servers close a connection that sends more
 *     ENOMEM     memory has run out */
int xmpp_send(struct xmpp *x, const char *format, ...);

/* Sends a message (RFC 6121 section 5):
 * C: <message to='...' type='...'><body>...</body></message>
 * A NULL `type` means "normal". Returns what xmpp_send() returns. */
int xmpp_message(struct xmpp *x, const char *to, const char *type, const char *body);

/* Sends an iq of type get or set with a unique id (RFC 6120 section 8.2.3). A NULL `to` means
 * the bot's own account. `payload` is raw XML. Returns what xmpp_send() returns.
 *
 * If the result is 0, `callback`, which may be NULL, will be called exactly once. `answer` is the
 * iq of type result or error from the entity that was asked. It is NULL if no answer comes within
 * 30 seconds, or if the connection ends. When it ends, the callbacks are called before on_close.
 * The rules for handlers also apply to callbacks. If the result is -1, `callback` is not called. */
typedef void xmpp_answer(struct xmpp *, const struct xml_elem *answer, void *data);
int xmpp_request(struct xmpp *x, const char *type, const char *to, const char *payload,
                 xmpp_answer *callback, void *data);

/* Returns the condition of a stanza of type error, for example "item-not-found" (RFC 6120 section
 * 8.3.3), or "no condition given". The string is valid as long as the stanza. */
const char *xmpp_error_condition(const struct xml_elem *stanza);

/* Prints a text that somebody else has written. Replaces control characters with spaces, since they
 * could fake a line of the output or send commands to the terminal. Line separators and characters
 * that change the direction of text count as control characters. */
void xmpp_print(const char *s, FILE *out);

/* ------------------------------------------------------------------- Rooms */

/* Enters the room (room@service) as `nick`, and asks for none of its history (XEP-0045 section
 * 7.2):
 * C: <presence to='room@service/nick'><x xmlns='http://jabber.org/protocol/muc'>...
 * Returns what xmpp_send() returns. The room's answers go to on_presence: first the presence of
 * each other occupant, and then the bot's own, which means that the bot is in the room. If the room
 * refuses, it sends a presence of type error instead. */
int xmpp_join(struct xmpp *x, const char *room, const char *nick);

/* Leaves the room (XEP-0045 section 7.14). Returns what xmpp_send() returns. */
int xmpp_leave(struct xmpp *x, const char *room, const char *nick);

/* True if a presence from a room has this status code (XEP-0045 section 15.6):
 * S: <presence from='room@service/nick'><x xmlns='http://jabber.org/protocol/muc#user'>
 *      ...<status code='110'/></x></presence>
 *
 *     110   this presence is the bot's own. Its type may also be unavailable
 *     201   the room is new. Others cannot enter until the bot calls xmpp_unlock_room()
 *     210   the room has given the bot another nick, which is in `from`
 *     303   with type unavailable: the occupant stays, but under a new nick, which is in
 *           <item nick='...'/> and in `from` of the presence that follows
 *     307   with type unavailable: the occupant has been kicked */
int xmpp_has_status(const struct xml_elem *presence, int code);

/* Unlocks a new room by accepting its default configuration (XEP-0045 section 10.1.2). Calls
 * xmpp_request() with `callback` and `data`, and returns its result. */
int xmpp_unlock_room(struct xmpp *x, const char *room, xmpp_answer *callback, void *data);

/* ---------------------------------------------------------------- Elements */

/* Attributes and children are in document order. Namespace declarations are not listed as
 * attributes, since they have been resolved into the `ns` members. */
struct xml_attr {
	const char *name;       /* local name: "lang" for xml:lang */
	const char *ns;         /* namespace URI; "" for none, never NULL */
	const char *value;
	struct xml_attr *next;
};

struct xml_elem {
	const char *name;       /* local name: "features" for stream:features */
	const char *ns;         /* namespace URI; "" for none, never NULL */
	const char *text;       /* the text outside of the children, joined; "" for none */
	struct xml_attr *attrs;
	struct xml_elem *children;
	struct xml_elem *next;  /* the next child of the same parent */
	struct xml_elem *parent; /* NULL at the root of the tree */
};

/* Returns the value of the attribute `name`, or NULL if there is none or `e` is NULL. Considers
 * only attributes in no namespace: xml_get(e, "from") never returns the value of x:from. */
const char *xml_get(const struct xml_elem *e, const char *name);

/* True if `e` has this attribute, in no namespace, with this value. False if `e` is NULL. */
int xml_has(const struct xml_elem *e, const char *name, const char *value);

/* Returns the first child with this name in this namespace. A NULL `ns` matches any namespace.
 * Returns NULL if there is no such child or `e` is NULL, so calls can be nested. */
struct xml_elem *xml_child(const struct xml_elem *e, const char *name, const char *ns);

/* Prints the tree as XML on one line, or nothing if memory runs out. Parsing the output gives the
 * same tree, unless the output exceeds a limit of the parser. (It may be longer than the original,
 * since it repeats namespace declarations.) */
void xml_print(const struct xml_elem *e, FILE *out);

/* Frees a whole tree. `root` must come from xmlstream_next(), or be NULL. */
void xml_free(struct xml_elem *root);

/* ---------------------------------------------------------- The XML stream */

enum xml_event {
	XML_MORE,       /* no complete event yet; feed more bytes */
	XML_OPEN,       /* the stream header, as an element without children */
	XML_STANZA,     /* a complete stanza: a child of the root element */
	XML_SKIPPED,    /* a stanza that exceeds a limit or misuses namespaces */
	XML_CLOSE,      /* the end tag of the root, which closes the stream */
	XML_ERROR       /* XML that RFC 6120 section 11 does not allow, or memory has run out; */
	                /* all further events are XML_ERROR, too, until xmlstream_reset() */
};

/* Creates a parser. `max_stanza` limits the bytes of a stanza and of the stream header. 0 means
 * 256 KiB; the maximum is 64 MiB. Returns NULL if memory runs out or max_stanza is too large.
 *
 * The other limits are 128 levels of elements in a stanza, 100 attributes of an element
 * (including namespace declarations), and 128 namespace declarations in scope.
 *
 * A stanza is skipped if it exceeds a limit, or if it is well-formed but violates Namespaces in
 * XML. The violations are an undeclared prefix, an illegal declaration, two attributes with the
 * same name in the same namespace, and a misplaced colon. The stream continues after the stanza.
 * In a stream header, a violation or an exceeded limit is an error.
 *
 * Input that is not well-formed is an error, which is reported at the end of the stanza or earlier.
 * In a stanza that is skipped, some errors are not found. From the point where a stanza is too long
 * or too deep, the parser only looks for its end. Among attributes beyond the limit, it does not
 * look for duplicates.
 *
 * Memory: an incomplete stanza takes at most twice its size plus the number of bytes fed last. A
 * tree takes at most 22 bytes for each byte of its stanza; many elements like <a/> are the worst
 * case. */
struct xmlstream *xmlstream_new(size_t max_stanza);

/* Copies n bytes into the parser. The input may be split anywhere, even inside a character. This
 * does not change the events. Returns 0, or -1 if memory runs out. After -1, bytes are missing,
 * so only xmlstream_reset() and xmlstream_free() may be called. */
int xmlstream_feed(struct xmlstream *xs, const void *bytes, size_t n);

/* Returns the next event, as soon as its last byte has been fed. With XML_OPEN and XML_STANZA,
 * *out is an element that the caller must free with xml_free(). The `ns` members of a stanza may
 * point into the stream header, so they are valid only until xmlstream_reset() or
 * xmlstream_free(). With the other events *out is NULL. */
enum xml_event xmlstream_next(struct xmlstream *xs, struct xml_elem **out);

/* Returns the bytes of the last event, without a NUL at the end, and stores their number in *n.
 * After XML_ERROR, the bytes end at the error or at the end of the stanza. *n is 0 after XML_MORE,
 * and after a stanza that was skipped for its length or depth. The bytes are valid until the next
 * call of xmlstream_feed(), xmlstream_next(), xmlstream_reset() or xmlstream_free(). */
const char *xmlstream_raw(const struct xmlstream *xs, size_t *n);

/* After XML_ERROR, xmlstream_error() returns a one-line message that says what is wrong and at
 * which byte of the stream (counted from 0). xmlstream_condition() returns the stream error
 * condition to send (RFC 6120 section 4.9.3). Otherwise both return NULL. The strings are valid
 * until xmlstream_reset() or xmlstream_free(). */
const char *xmlstream_error(const struct xmlstream *xs);
const char *xmlstream_condition(const struct xmlstream *xs);

/* Discards everything from the old stream, so that a new one can begin (RFC 6120 section 6.4.6). */
void xmlstream_reset(struct xmlstream *xs);

/* Frees the parser. `xs` may be NULL. */
void xmlstream_free(struct xmlstream *xs);

/* ------------------------------------------- Shared by floors 1 and 2 only */

/* A growing string of bytes. Those at [start, end) are in use, with a NUL after the last. Those at
 * [end, size) are free. A buffer whose members are all 0 is empty. If memory runs out, `failed` is
 * set and later appends do nothing, so a caller can append several times and check once. */
struct buffer {
	char *bytes;
	size_t start, end, size;
	int failed;
};

/* Appends n bytes. Returns 0, or -1 if memory ran out, in this append or an earlier one. */
int buffer_append(struct buffer *b, const void *bytes, size_t n);

/* Appends XML; see xmpp_send() for the format. Returns 0, or -1 like buffer_append(). */
int buffer_format(struct buffer *b, const char *format, ...);
int buffer_vformat(struct buffer *b, const char *format, va_list ap);

/* Discards the first n bytes. A large buffer that becomes empty is freed. */
void buffer_consume(struct buffer *b, size_t n);

/* Frees the memory, empties the buffer, and clears `failed`. */
void buffer_free(struct buffer *b);

/* Examines the XML character (production Char of XML 1.0) at `s`, of which n > 0 bytes are
 * available. Returns its length, 1 to 4; 0 if more bytes are needed; or -1 if the bytes cannot
 * begin a legal character. */
int xml_char(const char *s, size_t n);

/* Returns the length of the longest prefix of the n bytes at `s` that consists of complete
 * XML characters. */
size_t longest_valid(const char *s, size_t n);

#endif
