/* xmpp.h - everything that a bot needs to speak XMPP.
 *
 * Floor 3, the bots:    handlers that are called when something happens.
 * Floor 2, xmpp.c:      one connection, its login, and the loop that runs many of them.
 * Floor 1, xmlstream.c: bytes to stanzas, and strings to XML (RFC 6120 section 11).
 *
 * A bot uses this file up to "The XML stream". It never touches a socket, a buffer or the
 * parser.
 *
 * Strings are UTF-8 and end with a NUL. Lengths are size_t, and times are milliseconds. A
 * function that can fail returns -1 or NULL. Nothing here is thread-safe, and a signal handler
 * may only call xmpp_stop(). */
#ifndef XMPP_H
#define XMPP_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct xml_elem; /* see "Elements" */

/* ------------------------------------------------------------ A connection */

/* How to log in. The strings are not copied, so they must live until xmpp_free(). A value of 0 or
 * NULL means the default, which is given in parentheses. */
struct xmpp_options {
	const char *user;       /* the name before the @; required */
	const char *password;   /* required */
	const char *host;       /* the XMPP domain, after the @; required */
	const char *server;     /* the machine to connect to, a name or an address (host) */
	int port;               /* (5222) */
	const char *tunnel;     /* a shell command to connect through, for example one that adds */
	                        /* TLS; see xmpp_new() (a TCP connection) */
	const char *resource;   /* the resource to ask for (the server chooses) */
	int create;             /* create the account first, if it does not exist (no); XEP-0077 */
	int reconnect;          /* reconnect when the connection is lost (no) */
	long start_after;       /* time from now until the first attempt to connect (0) */
	FILE *trace;            /* where to print all data sent and received, except passwords; */
	                        /* must stay open until xmpp_free() (nowhere) */
	const char *trace_name; /* trace lines begin with C(name): and S(name): (C: and S:) */
	long login_timeout;     /* time to connect, and as much again to log in (30,000) */
	long ping_after;        /* time without data before the server is pinged (60,000) */
	long ping_timeout;      /* time for the server to answer the ping (30,000) */
};

/* A connection of one account. The handlers are functions that the loop calls. All are NULL at
 * first; a bot sets those it wants. Elements that are passed to them belong to the library and
 * live until the handler returns. A handler may call everything except xmpp_run(), xmpp_turn()
 * and xmpp_free(); to end its own connection or another one, it calls xmpp_close().
 *
 * There is no handler for iqs. Answers go to the callback of xmpp_request(). The library answers
 * all requests: a ping (XEP-0199) with a result, others with the error service-unavailable. */
struct xmpp {
	void (*on_ready)(struct xmpp *); /* logged in, and presence sent; again after a reconnect */
	void (*on_message)(struct xmpp *, const struct xml_elem *); /* of any type: chat, normal */
	                        /* (or none), groupchat, headline, error; RFC 6121 section 5.2.2 */
	void (*on_presence)(struct xmpp *, const struct xml_elem *); /* of no type: available; or */
	                        /* unavailable, subscribe, error, ...; RFC 6121 section 4.7.1 */
	void (*on_close)(struct xmpp *, const char *reason); /* the connection has ended; reason */
	                        /* is NULL if the bot closed it. See xmpp_retry_in() */
	void (*on_wake)(struct xmpp *); /* see xmpp_wake_after() */
	void *data;             /* for the bot */
};

/* Creates a connection, which xmpp_run() will open. It must be freed with xmpp_free(). Returns
 * NULL and sets errno on failure: EINVAL if a required string is NULL or the port is not valid.
 *
 * With options.reconnect, a lost connection is opened again after a random time. The upper limit
 * of that time doubles from one second to one minute. Before the first successful login, an error
 * that would recur, such as a wrong password, is final. Later it may be temporary, so the bot
 * reconnects, with a limit of up to five minutes. Only the stream error <conflict/> is always
 * final, since another client has taken the place of this one.
 *
 * With options.tunnel, the command is run by /bin/sh. The stream goes through its standard input
 * and output. Its standard error is ours. It finds host, server and port in the environment
 * variables XMPP_HOST, XMPP_SERVER and XMPP_PORT. It runs in a process group of its own in the
 * background, so it cannot read from the terminal. That group is killed when the connection
 * ends. */
struct xmpp *xmpp_new(const struct xmpp_options *options);

/* Runs n connections in one loop: opens those that are new, and returns when all have ended for
 * good, or after xmpp_stop(). Returns 0 (even if a login failed: on_close has been given the
 * reason), or -1 and sets errno. select() limits the file descriptors to about 1,000. */
int xmpp_run(struct xmpp **conns, size_t n);

/* Runs one turn of that loop, for a program that has more to do: waits at most ms (forever if
 * negative) until something happens, and calls the handlers. Returns the number of connections
 * that were alive before, including those that will reconnect, or 0 when all have ended. Returns
 * -1 and sets errno on failure. */
long xmpp_turn(struct xmpp **conns, size_t n, long ms);

/* Closes all connections in the loop, as xmpp_close() does. The request remains until a turn of
 * the loop finds no connection alive. A signal handler may call this function. */
void xmpp_stop(void);

/* Closes the stream (RFC 6120 section 4.4) and does not reconnect. on_close is called when the
 * server has closed its stream as well, or after one second; meanwhile, only callbacks of requests
 * are called. If no stream is open or its queue is full, on_close is called before this function
 * returns. In on_close itself, this function only prevents the next attempt to connect. */
void xmpp_close(struct xmpp *x);

/* Ends a connection at once, without on_close, and frees it. The callbacks of pending requests
 * are called with NULL. Handlers must not call this function. `x` may be NULL. */
void xmpp_free(struct xmpp *x);

/* In on_close: xmpp_retry_in() returns the time until the next attempt to connect, or -1 if there
 * is none. xmpp_retry_after() postpones an attempt that would come earlier than ms from now. */
long xmpp_retry_in(const struct xmpp *x);
void xmpp_retry_after(struct xmpp *x, long ms);

/* Sets the only timer of a connection: on_wake is called once, ms from now (at most 24 days),
 * unless the connection ends first. Another call replaces the timer; a negative ms cancels it. */
void xmpp_wake_after(struct xmpp *x, long ms);

/* Returns the full JID that the server has bound (RFC 6120 section 7). It is valid until the next
 * attempt to connect. Before the first login it is "". */
const char *xmpp_jid(const struct xmpp *x);

/* True if two JIDs are the same. Case matters only in the resource. xmpp_same_account() ignores
 * the resources, so it also compares an occupant's JID with that of the room. NULL is never the
 * same as anything. */
int xmpp_same_jid(const char *a, const char *b);
int xmpp_same_account(const char *a, const char *b);

/* ----------------------------------------------------------------- Sending */

/* Queues one or more stanzas, all of them or nothing. They are sent when the handler has returned.
 * In `format`, %s is a string, %d an int, %r raw XML, and %% a percent sign; other conversions do
 * not exist. A NULL string is empty. %s is escaped, so it may be used in text, and in attribute
 * values whose quotes are in the format. Bytes that XML does not allow become U+FFFD.
 *
 * Returns 0, or -1 and sets errno: ENOTCONN if the connection is not ready (it is ready from
 * on_ready until it ends or xmpp_close() is called), ENOMEM, ENOBUFS if the server has left more
 * than 4 MiB unread, EMSGSIZE for more than 250,000 bytes, since many servers would close the
 * connection. In all cases the connection stays open. */
int xmpp_send(struct xmpp *x, const char *format, ...);

/* C: <message to='...' type='...'><body>...</body></message>
 * RFC 6121 section 5. A NULL `type` means "normal". Returns what xmpp_send() returns. */
int xmpp_message(struct xmpp *x, const char *to, const char *type, const char *body);

/* Sends an iq of type get or set with a fresh id (RFC 6120 section 8.2.3). A NULL `to` means the
 * bot's own account. `payload` is raw XML. If this returns 0, `callback` is called exactly once,
 * like a handler: with the result or error stanza from the entity that was asked; or with NULL,
 * after 30 seconds without an answer or when the connection ends, before on_close. `callback` may
 * be NULL. Otherwise returns -1 and sets errno like xmpp_send(), and does not call `callback`. */
typedef void xmpp_answer(struct xmpp *, const struct xml_elem *answer, void *data);
int xmpp_request(struct xmpp *x, const char *type, const char *to, const char *payload,
                 xmpp_answer *callback, void *data);

/* Returns the condition of a stanza of type error, for example "item-not-found" (RFC 6120 section
 * 8.3.3). It lives as long as the stanza. Without a condition, it is "no condition given". */
const char *xmpp_error_condition(const struct xml_elem *stanza);

/* Prints a text that somebody else has written, with spaces in place of control characters, so
 * that nobody can fake a line of the output or send commands to the terminal. Line separators and
 * characters that change the direction of text count as control characters, too. */
void xmpp_print(const char *s, FILE *out);

/* ------------------------------------------------------------------- Rooms */

/* Enters the room (room@service) as `nick`, without its history (XEP-0045 section 7.2):
 * C: <presence to='room@service/nick'><x xmlns='http://jabber.org/protocol/muc'>...
 * Returns what xmpp_send() returns. The room answers with presences to on_presence, first those
 * of the other occupants, and then the bot's own, which completes the join. A refusal is a
 * presence of type error. */
int xmpp_join(struct xmpp *x, const char *room, const char *nick);

/* Leaves the room (section 7.14). Returns what xmpp_send() returns. */
int xmpp_leave(struct xmpp *x, const char *room, const char *nick);

/* True if a presence from a room has this status code (section 15.6):
 * S: <presence from='room@service/nick'><x xmlns='http://jabber.org/protocol/muc#user'>
 *      ...<status code='110'/></x></presence>
 *
 *     110   this presence is about the bot itself, also when it leaves (type unavailable)
 *     201   the room is new. It is locked for others until the bot calls xmpp_unlock_room()
 *     210   the room has given the bot another nick, which is in `from`
 *     303   with type unavailable: only the nick changes. The new one is in <item nick='...'/>, and
 *           in `from` of the presence that follows
 *     307   with type unavailable: the occupant has been kicked */
int xmpp_has_status(const struct xml_elem *presence, int code);

/* Unlocks a new room by accepting its default configuration (section 10.1.2). Returns what
 * xmpp_request() returns, and calls `callback` as it does. `callback` may be NULL. */
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
	const char *text;       /* the character data directly inside, joined; "" for none */
	struct xml_attr *attrs;
	struct xml_elem *children;
	struct xml_elem *next;  /* the next child of the same parent */
	struct xml_elem *parent; /* NULL at the root of the tree */
};

/* Returns the value of the attribute `name` that is in no namespace, or NULL if there is none or
 * `e` is NULL. For example, xml_get(e, "from") never returns the value of x:from. */
const char *xml_get(const struct xml_elem *e, const char *name);

/* True if `e` has this attribute, in no namespace, with this value. False if `e` is NULL. */
int xml_has(const struct xml_elem *e, const char *name, const char *value);

/* Returns the first child with this name in this namespace. A NULL `ns` matches any namespace.
 * Returns NULL if there is no such child or `e` is NULL, so calls can be nested. */
struct xml_elem *xml_child(const struct xml_elem *e, const char *name, const char *ns);

/* Prints the tree as XML on one line, or nothing if memory runs out. Parsing the output gives the
 * same tree, unless the repeated namespace declarations make the output exceed a limit. */
void xml_print(const struct xml_elem *e, FILE *out);

/* Frees a whole tree. `root` comes from xmlstream_next(), or is NULL. */
void xml_free(struct xml_elem *root);

/* ---------------------------------------------------------- The XML stream */

enum xml_event {
	XML_MORE,       /* no unit is complete: feed more bytes */
	XML_OPEN,       /* the stream header: an element without children */
	XML_STANZA,     /* a complete child of the root element */
	XML_SKIPPED,    /* a child of the root that exceeds a limit or misuses namespaces */
	XML_CLOSE,      /* the end tag of the root: the stream is closed */
	XML_ERROR       /* not the XML of RFC 6120 section 11, or memory ran out; from now on */
	                /* every event is XML_ERROR */
};

/* Creates a parser. `max_stanza` limits the bytes of a stanza and of the stream header. 0 means
 * 256 KiB; the maximum is 64 MiB. Returns NULL if memory runs out or max_stanza is too large.
 *
 * The other limits are 128 levels of elements in a stanza, 100 attributes of an element
 * (including namespace declarations), and 128 namespace declarations in scope.
 *
 * A stanza is skipped if it exceeds a limit, or if it is well-formed but violates Namespaces in
 * XML: by an undeclared prefix, an illegal declaration, two attributes with the same name in
 * the same namespace, or a misplaced colon. The stream continues after the stanza. Input that
 * is not well-formed is an error, which is reported at the end of the stanza or earlier. If a
 * stanza is too long or too deep, only the nesting of its tags is checked; if it has too many
 * attributes, only the syntax of the surplus ones. In a stream header each of these violations is
 * an error.
 *
 * Memory: an incomplete stanza takes at most twice its size plus the size of the last read. A
 * tree takes at most 22 bytes for each byte of its stanza (with elements like <a/>). */
struct xmlstream *xmlstream_new(size_t max_stanza);

/* Copies n bytes into the parser. The input may be split anywhere, even inside a character,
 * and the events are the same. Returns 0, or -1 if memory runs out. Then the input is incomplete,
 * and only xmlstream_reset() and xmlstream_free() may be called. */
int xmlstream_feed(struct xmlstream *xs, const void *bytes, size_t n);

/* Returns the next event, which is available as soon as its last byte has been fed. With XML_OPEN
 * and XML_STANZA, *out is an element that the caller owns and must give to xml_free(), at any
 * time. The `ns` members of a stanza may point into the stream header, so they are valid only
 * until xmlstream_reset() or xmlstream_free(). With the other events *out is NULL. */
enum xml_event xmlstream_next(struct xmlstream *xs, struct xml_elem **out);

/* Returns the bytes of the last event, and stores their number in *n; they are not
 * NUL-terminated. With XML_ERROR these are the bytes of the stanza up to the error, or up to its
 * end. *n is 0 with XML_MORE, and when a stanza is skipped for its length or depth. The bytes
 * remain valid until the next call of another function of the stream. */
const char *xmlstream_raw(const struct xmlstream *xs, size_t *n);

/* After XML_ERROR, xmlstream_error() returns a one-line message that says what is wrong and at
 * which byte of the stream (counted from 0). xmlstream_condition() returns the stream error
 * condition to send (RFC 6120 section 4.9.3). Otherwise both return NULL. The strings remain
 * valid until the next xmlstream_reset() or xmlstream_free(). */
const char *xmlstream_error(const struct xmlstream *xs);
const char *xmlstream_condition(const struct xmlstream *xs);

/* Starts a new stream (RFC 6120 section 6.4.6). Discards all bytes of the old one. */
void xmlstream_reset(struct xmlstream *xs);

/* Frees the parser. `xs` may be NULL. */
void xmlstream_free(struct xmlstream *xs);

/* ------------------------------------------- Shared by floors 1 and 2 only */

/* Bytes [start, end) are in use and are followed by a NUL. Bytes [end, size) are free. A buffer
 * of zeros is empty. If memory runs out, `failed` is set and later appends do nothing, so a
 * caller can append several times and check once. */
struct buffer {
	char *bytes;
	size_t start, end, size;
	int failed;
};

/* Appends n bytes. Returns 0, or -1 if this or an earlier append ran out of memory. */
int buffer_append(struct buffer *b, const void *bytes, size_t n);

/* Appends XML; see xmpp_send() for the format. Returns 0, or -1 like buffer_append(). */
int buffer_format(struct buffer *b, const char *format, ...);
int buffer_vformat(struct buffer *b, const char *format, va_list ap);

/* Discards the first n bytes. A large buffer that becomes empty is freed. */
void buffer_consume(struct buffer *b, size_t n);

/* Frees the memory and makes the buffer empty. */
void buffer_free(struct buffer *b);

/* Examines the XML character (production Char of XML 1.0) at `s`, of which n > 0 bytes are
 * available. Returns its length, 1 to 4; 0 if more bytes are needed; or -1 if the bytes cannot
 * begin a legal character. */
int xml_char(const char *s, size_t n);

/* Returns the length of the longest prefix of the n bytes at `s` that consists of complete
 * XML characters. */
size_t longest_valid(const char *s, size_t n);

#endif
