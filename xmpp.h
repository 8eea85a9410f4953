/* xmpp.h - everything a bot needs to speak XMPP, and nothing else.
 *
 * Floor 1, xmlstream.c: bytes in, stanzas out (RFC 6120 section 11).
 * Floor 2, xmpp.c:      one connection, its login, and the loop that runs many.
 * Floor 3, the bots:    they see floor 2 and element trees, never a socket.
 *
 * Conventions: strings are UTF-8 and NUL-terminated, lengths are size_t, times
 * are milliseconds. Functions that fail return -1 or NULL.
 * Nothing here may be called from two threads at once, and only xmpp_stop()
 * from a signal handler. */
#ifndef XMPP_H
#define XMPP_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---------------------------------------------------------------- Elements */

/* Attributes and children are in document order. Namespace declarations are not listed as
 * attributes: they have been resolved into the `ns` members. */
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

/* Prints the tree as XML, on one line; nothing if memory runs out. Parsing the output gives the
 * same tree, unless the output exceeds a limit: namespaces are declared where they are used. */
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
 * is not well-formed is an error, which is reported at the end of the stanza or earlier. In a
 * stanza that is too long or too deep only the nesting of the tags is followed; of its surplus
 * attributes, only the syntax is checked. In a stream header each of these violations is an
 * error.
 *
 * Memory: an incomplete stanza takes at most twice its size, and the size of the last read. A
 * tree takes at most 22 bytes for each byte of its stanza (with elements like <a/>). */
struct xmlstream *xmlstream_new(size_t max_stanza);

/* Copies n bytes into the parser. The input may be split anywhere, even inside a character: the
 * events are the same. Returns 0, or -1 if memory runs out. Then the input is incomplete, and
 * only xmlstream_reset() and xmlstream_free() may be called. */
int xmlstream_feed(struct xmlstream *xs, const void *bytes, size_t n);

/* Returns the next event. It is available as soon as its last byte has been fed. With XML_OPEN
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

/* ------------------------------------------------------------ A connection */

/* Strings are copied. Zero or NULL means what stands in parentheses. */
struct xmpp_options {
	const char *user;       /* the name before the @; needed */
	const char *password;   /* needed */
	const char *host;       /* the XMPP domain, behind the @; needed */
	const char *server;     /* name or address of the machine it runs on (host) */
	int port;               /* (5222) */
	const char *tunnel;     /* a shell command to speak through, that adds TLS, say; %h, %s and %p in */
	                        /* it stand for host, server and port, %% for % (none: a TCP connection). */
	                        /* SIGCHLD must not be ignored, or nobody knows how the command ended */
	const char *resource;   /* wanted (the server chooses) */
	int create;             /* make the account first, once, if there is none (no); XEP-0077 */
	int reconnect;          /* come back when the connection is lost (no) */
	long start_after;       /* ms from now to the first attempt to connect (0) */
	FILE *trace;            /* where to print the wire, passwords masked; to be closed after xmpp_free() (nowhere) */
	const char *trace_name; /* C(name): and S(name): stand there, where several share it (C: and S:) */
	long login_timeout;     /* ms from the attempt to connect to ready (30,000) */
	long ping_after;        /* ms of silence, and the server is asked whether it is there (60,000) */
	long ping_timeout;      /* ms of more silence, and the connection is lost (30,000) */
};

/* One account. A bot sets the handlers that it wants, functions that the loop calls;
 * all are NULL at first. Elements belong to the library and live until the handler
 * returns. A handler may call anything but xmpp_run() and xmpp_turn(), also
 * xmpp_close() and xmpp_free() on its own connection.
 *
 * Stanzas that exceed a limit (see xmlstream_new()) never come. There is no handler
 * for iq: answers come to the callback of xmpp_request(), and what
 * others ask the library answers itself, a ping (XEP-0199) well, and all else with
 * the error service-unavailable. */
struct xmpp {
	void (*on_ready)(struct xmpp *);      /* logged in, presence sent; again after each coming back */
	void (*on_message)(struct xmpp *, const struct xml_elem *);   /* of any type: chat, normal (or no */
	                                     /* type), groupchat, headline, error; RFC 6121 section 5.2.2 */
	void (*on_presence)(struct xmpp *, const struct xml_elem *);  /* no type: is there; unavailable: is gone; */
	                                     /* subscribe: wants to know; error; RFC 6121 section 4.7.1 */
	void (*on_close)(struct xmpp *, const char *reason); /* lost, or over; NULL if we wanted it */
	void (*on_wake)(struct xmpp *);                      /* see xmpp_wake_after() */
	void *data;                                          /* the bot's own */
};

/* A connection that xmpp_run() will open, to be freed with xmpp_free(). NULL and
 * errno on failure, EINVAL if a string that is needed is NULL. With
 * options.reconnect it comes back after each loss, as if it were new, but for
 * the errors that another attempt cannot mend: a wrong password, say. */
struct xmpp *xmpp_new(const struct xmpp_options *options);

/* In on_close: in how many ms the next attempt will be made; -1: no more. */
long xmpp_retry_in(const struct xmpp *x);

/* The select() loop over n connections: opens those that are new and returns
 * when all are closed for good, or after xmpp_stop(). 0, also if a login failed, or
 * -1 and errno; why a connection was closed, on_close was told. A connection freed
 * meanwhile becomes NULL in `conns`, to which no handler may write. */
int xmpp_run(struct xmpp **conns, size_t n);

/* One turn of that loop, for a program that has more to do: waits until
 * something happens, ms at most (negative: as long as it takes), and calls the
 * handlers. Returns how many connections were alive when it began to wait, those
 * that will come back included: 0 when all are closed. -1 and errno on failure. */
long xmpp_turn(struct xmpp **conns, size_t n, long ms);

/* Every connection in the loop says goodbye, and xmpp_run() returns within 3 s,
 * unless a name server keeps it waiting. The wish stands until a turn has found
 * no connection alive. May be called from a signal handler. */
void xmpp_stop(void);

/* Queues a stanza, or more than one, all of it or nothing; it is sent when the
 * handler has returned. In `format`, %s is a string, %d an int, %r raw XML, and %% a percent
 * sign; a NULL string is empty. %s is escaped, so it can be used in text and in attribute values
 * whose quotes are in the format. There are no others. What is not UTF-8, or
 * no character that XML allows, goes out as U+FFFD. 0, or -1 and errno: ENOTCONN
 * when x is not ready (from on_ready to xmpp_close() or its loss it is), ENOMEM,
 * ENOBUFS when the peer has left more than 4 MiB unread, EMSGSIZE for more than
 * 250,000 bytes, at which many servers would end the connection. This one lives on. */
int xmpp_send(struct xmpp *x, const char *format, ...);

/* <message to='...' type='...'><body>...</body></message>; RFC 6121 section 5.
 * `type` NULL is "normal". Returns what xmpp_send() does. */
int xmpp_message(struct xmpp *x, const char *to, const char *type, const char *body);

/* Enters the room (room@service) as `nick`, without its history; XEP-0045
 * section 7.2. The join is complete when on_presence gets the own presence, with
 * <status code='110'/>; with 201, too, the room is new, and locked until somebody
 * configures it (section 10.1). A refusal comes as presence of type error. Returns
 * what xmpp_send() does. */
int xmpp_join(struct xmpp *x, const char *room, const char *nick);

/* Leaves the room; section 7.14. Returns what xmpp_send() does. */
int xmpp_leave(struct xmpp *x, const char *room, const char *nick);

/* Sends an iq of type get or set with a fresh id; RFC 6120 section 8.2.3. `to`
 * NULL is the own account, `payload` raw XML. If it returns 0, `callback`, a handler
 * like the others, is called exactly once: with the result or error stanza from the entity that
 * was asked, or with NULL when the connection went away (before on_close) or 30 s
 * have passed. If it returns -1, as xmpp_send() or because 1,000 answers are
 * awaited already, never. */
int xmpp_request(struct xmpp *x, const char *type, const char *to, const char *payload,
                 void (*callback)(struct xmpp *, const struct xml_elem *answer, void *data), void *data);

/* The one timer of a connection: on_wake is called once, ms from now (24 days at
 * most), unless the connection ends before. A second call moves the time; a
 * negative one calls it off. */
void xmpp_wake_after(struct xmpp *x, long ms);

/* Ends the stream politely (RFC 6120 section 4.4): on_close comes when the
 * server has done the same, or after a second (a tunnel has one more); or at once, before this returns,
 * if there is no stream to end. What arrives until then is not told any more, and
 * the connection does not come back. */
void xmpp_close(struct xmpp *x);

/* Ends it at once, without on_close; pending requests get their NULL. A NULL x is
 * fine. */
void xmpp_free(struct xmpp *x);

/* The full JID that the server bound (RFC 6120 section 7), until the next attempt to
 * connect; "" before. */
const char *xmpp_jid(const struct xmpp *x);

/* Do two JIDs name the same entity? Case matters in the resource only. And do
 * they when the resources are left aside? NULL is nobody. */
int xmpp_same_jid(const char *a, const char *b);
int xmpp_same_account(const char *a, const char *b);

/* ------------------------------------------- Shared by floors 1 and 2 only */

/* Bytes [start, end) are in use and are followed by a NUL. Bytes [end, size) are free. A buffer
 * of zeros is empty. If memory runs out, `failed` is set and later appends do nothing. So a
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
