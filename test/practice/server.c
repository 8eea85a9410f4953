/* server.c - a practice server: the other side of the conversation.
 *
 *     cc -o server test/practice/server.c test/practice/sasl.c xmlstream.c
 *     ./server -v
 *     ./echobot           (in another terminal)
 *
 * The problem. A client needs a server to talk to. A real server is a large program that must be
 * configured, and it does not misbehave when you want to see how a client copes. This one is the
 * mirror image of the client and needs nothing but libc. It can be slow (-d), send a few bytes at
 * a time (-c), fall silent (-q), hang up (-n, -r), offer only one mechanism (-m), or demand TLS,
 * which the client cannot do (-T).
 *
 * It serves what the bots need: login with PLAIN and SCRAM-SHA-1, registration, messages, presence
 * and rooms. It listens on the loopback only and keeps no secrets. Without -a, anybody can log in
 * with the user's name as the password (jumperbot_1 with jumperbot). Everything is kept in memory
 * and forgotten at the end. It has no rosters, so it tells nobody that a contact has come online;
 * subscriptions are passed on like messages. Rooms have no history, no subject and no moderation.
 *
 * The solution is one loop, with one state machine for each connection. A connection is called a
 * session here, and its state a phase. The phase says which elements the client may send.
 *
 *     UNOPENED                  C: <stream:stream ...>
 *        | take_header()        S: <stream:stream ...><stream:features>...
 *     LOGGING_IN <---------------------------------------------.
 *        | begin_login()                                       | refuse_login()
 *        |------------------------------------> PROVING -------'
 *        | log_in()             PLAIN              | check_response()
 *     REOPENING <----------------------------------'  SCRAM
 *        | take_header()
 *     BINDING                   C: <iq><bind>...
 *        | bind_session()
 *     ONLINE                    C: <message/>, <presence/>, <iq/>
 *        | end_stream(), hang_up(), from any phase
 *     LEAVING                   the last bytes are being sent
 *        | before_select()
 *     GONE                      or at once, if the connection is broken
 *
 * A stanza travels from one client to others like this:
 *
 *     read_session()    bytes become an element
 *     handle_element()  finds the handler for the phase and the name of the element
 *     route_...()       finds the receivers: sessions, a room, or the server itself
 *     say()             appends text to the queue of each receiver
 *     write_session()   sends the bytes when the socket takes them
 *
 * The parts, each of which uses only those before it:
 *
 *     output      what a session is told, and how it ends
 *     addresses   the sessions behind a JID
 *     login       stream header, SASL, registration, binding
 *     rooms       XEP-0045
 *     routing     from the sender to the receivers
 *     the table   which function handles which element in which phase
 *     the loop    select(), reading, writing
 *     main        options, accounts, the listening socket
 *
 * Two rules keep the program short. A session that has ended is only marked, because we may be
 * walking through a list that contains it; the loop removes it later. If memory runs out, the
 * server exits, since it has nothing to lose. */
#define _POSIX_C_SOURCE 200809L
#include "../../xmpp.h"
#include "sasl.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_CLIENT   "jabber:client"
#define NS_STREAM   "http://etherx.jabber.org/streams"
#define NS_STREAMS  "urn:ietf:params:xml:ns:xmpp-streams"
#define NS_STANZAS  "urn:ietf:params:xml:ns:xmpp-stanzas"
#define NS_TLS      "urn:ietf:params:xml:ns:xmpp-tls"
#define NS_SASL     "urn:ietf:params:xml:ns:xmpp-sasl"
#define NS_BIND     "urn:ietf:params:xml:ns:xmpp-bind"
#define NS_REGISTER "jabber:iq:register"
#define NS_ROSTER   "jabber:iq:roster"
#define NS_PING     "urn:xmpp:ping"
#define NS_MUC      "http://jabber.org/protocol/muc"

enum {
	ROUNDS = 4096,           /* of PBKDF2; RFC 5802 section 5.1 wants no fewer */
	SALT = 16,               /* bytes */
	NONCE = 8,               /* bytes, and then twice as many hexadecimal digits */
	TRIES = 5,               /* failed logins on one connection */
	MAX_NAME = 1023,         /* bytes of each part of a JID; RFC 7622 section 3.1 */
	MAX_OUTPUT = 4 << 20,    /* bytes queued for a client that does not read */
	READ_SIZE = 64 * 1024,   /* bytes read at once */
	LINGER = 1000            /* ms that a client has to take our last bytes */
};

/* The order matters: from LEAVING on, nothing more is said or handled. */
enum phase { UNOPENED, LOGGING_IN, PROVING, REOPENING, BINDING, ONLINE, LEAVING, GONE };

struct session {
	int fd;
	enum phase phase;
	struct xmlstream *xs;
	struct buffer out;       /* bytes that have not been written yet */
	int64_t due;             /* with -d: when they may be written */
	int64_t deadline;        /* in LEAVING: when to drop the connection */
	int elements, failures;  /* received elements, failed logins */
	int shut;                /* our last byte has been sent */
	int silent;              /* with -q: we no longer answer it */
	struct buffer expected;  /* base64 of the SCRAM message that proves the password */
	struct buffer signature; /* base64 of our answer to that */
	char *account;           /* user@host, once a login has begun */
	char *jid;               /* user@host/resource, once it is bound */
	int available;           /* it has sent presence, so it gets stanzas for the account */
};

/* A user name that is taken, by registration or in the file of -a. */
struct account {
	struct account *next;
	char *user, *password;
};

/* A session in a room. */
struct occupant {
	struct occupant *next;
	struct session *session;
	char *jid;               /* room@service/nick */
	int owner;               /* it opened the room */
};

struct room {
	struct room *next;
	char *jid;               /* room@service */
	int locked;              /* until the owner has accepted the configuration */
	struct occupant *occupants; /* never empty: the room closes when the last one leaves */
};

static struct {
	const char *host, *accounts;
	int port, chunk, delay, hang_up_after, silent_after; /* the last two: -1 for never */
	int no_plain, no_scram, tls, refuse, verbose;
} options = {.host = "localhost", .port = 5222, .hang_up_after = -1, .silent_after = -1};

static struct session *sessions[FD_SETSIZE]; /* by descriptor */
static struct account *accounts;
static struct room *rooms;
static char *service;            /* the domain of the rooms */
static int random_source;        /* kept open, so that there is always a descriptor for it */
static int64_t now;              /* ms; the time of this turn of the loop */
static volatile sig_atomic_t stopping;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Returns `p`. Exits if it is NULL, which means that memory has run out. */
static void *must(void *p)
{
	if (!p)
		die("server");
	return p;
}

/* Appends XML; see xmpp_send() for the format. */
static void put(struct buffer *b, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (buffer_vformat(b, format, ap))
		die("server");
	va_end(ap);
}

static void put_base64(struct buffer *b, const void *bytes, size_t n)
{
	if (base64_append(b, bytes, n))
		die("server");
}

/* Returns a new string, which consists of these three. */
static char *join(const char *a, const char *b, const char *c)
{
	struct buffer text = {0};

	put(&text, "%r%r%r", a, b, c);
	return text.bytes;
}

/* Stores n unpredictable bytes. */
static void random_bytes(void *to, size_t n)
{
	if (read(random_source, to, n) != (ssize_t)n)
		die("server: /dev/urandom");
}

/* Stores an unpredictable string of hexadecimal digits. */
static void random_hex(char to[2 * NONCE + 1])
{
	uint8_t bytes[NONCE];
	int i;

	random_bytes(bytes, NONCE);
	for (i = 0; i < NONCE; i++)
		snprintf(to + 2 * i, 3, "%02x", bytes[i]);
}

/* ------------------------------------------------------------------ Output */

static void print_name(const struct session *s)
{
	if (s->jid)
		xmpp_print(s->jid, stderr);
	else
		fprintf(stderr, "#%d", s->fd);
}

/* With -v: prints what the client (C) or the server (S) has said. */
static void trace(const struct session *s, char who, const char *text, size_t n)
{
	struct buffer copy = {0};

	if (!options.verbose)
		return;
	fprintf(stderr, "%c(", who);
	print_name(s);
	fputs("): ", stderr);
	if (!buffer_append(&copy, text, n))
		xmpp_print(copy.bytes, stderr);
	buffer_free(&copy);
	putc('\n', stderr);
}

/* Prints a message about a session. */
static void complain(const struct session *s, const char *about)
{
	fputs("server: ", stderr);
	print_name(s);
	fprintf(stderr, ": %s\n", about);
}

/* Queues XML for the client; see xmpp_send() for the format. */
static void say(struct session *s, const char *format, ...)
{
	size_t before = s->out.end - s->out.start, added;
	va_list ap;

	if (s->phase >= LEAVING || s->silent)
		return;
	if (before == 0)
		s->due = now + options.delay;
	va_start(ap, format);
	if (buffer_vformat(&s->out, format, ap))
		die("server");
	va_end(ap);
	added = s->out.end - s->out.start - before;
	trace(s, 'S', s->out.bytes + s->out.end - added, added);
	if (before + added > MAX_OUTPUT) {
		complain(s, "dropped, since it does not read");
		s->phase = GONE;
	}
}

static void put_attr(struct buffer *b, const char *name, const char *value)
{
	if (value)
		put(b, " %r='%s'", name, value);
}

/* S: <iq type='result' id='its id' from='its to' to='its sender'>payload</iq>
 * RFC 6120 section 8.2.3. Attributes that have no value are left out. `payload` is raw XML. */
static void reply(struct session *s, const struct xml_elem *e, const char *type,
                  const char *payload)
{
	struct buffer attrs = {0};

	put_attr(&attrs, "type", type);
	put_attr(&attrs, "id", xml_get(e, "id"));
	put_attr(&attrs, "from", xml_get(e, "to"));
	put_attr(&attrs, "to", s->jid);
	say(s, *payload ? "<%r%r>%r</%r>" : "<%r%r/>", e->name, attrs.bytes, payload, e->name);
	buffer_free(&attrs);
}

/* S: <message type='error' ...><error type='cancel'>
 *      <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
 * RFC 6120 section 8.3. An error is never answered with an error: that could go on forever. */
static void reject(struct session *s, const struct xml_elem *e, const char *condition)
{
	struct buffer error = {0};

	if (xml_has(e, "type", "error") || xml_has(e, "type", "result")
	    || xml_has(e, "type", "headline"))
		return;
	put(&error, "<error type='cancel'><%r xmlns='" NS_STANZAS "'/></error>", condition);
	reply(s, e, "error", error.bytes);
	buffer_free(&error);
}

/* S: <?xml version='1.0'?><stream:stream from='localhost' id='...' version='1.0' ...>
 * RFC 6120 section 4.2. */
static void say_header(struct session *s)
{
	char id[2 * NONCE + 1];

	random_hex(id);
	say(s, "<?xml version='1.0'?><stream:stream from='%s' id='%s' version='1.0' xml:lang='en'"
	       " xmlns='" NS_CLIENT "' xmlns:stream='" NS_STREAM "'>", options.host, id);
}

/* Ends a session without queuing anything more. The loop sends what is already queued and closes
 * the connection. */
static void hang_up(struct session *s)
{
	if (s->phase >= LEAVING)
		return;
	s->phase = LEAVING;
	s->deadline = now + options.delay + LINGER;
}

/* S: <stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>
 * S: </stream:stream>
 * RFC 6120 sections 4.9 and 4.4. If `condition` is NULL, there is no error. An error can only be
 * reported inside a stream, so ours is opened first if necessary. */
static void end_stream(struct session *s, const char *condition)
{
	if (s->phase == UNOPENED || s->phase == REOPENING)
		say_header(s);
	if (condition)
		say(s, "<stream:error><%r xmlns='" NS_STREAMS "'/></stream:error>", condition);
	say(s, "</stream:stream>");
	hang_up(s);
}

/* --------------------------------------------------------------- Addresses */

/* Returns what follows the @ of a JID, or the whole JID if it has none. */
static const char *domain_of(const char *jid)
{
	size_t n = strcspn(jid, "@/");

	return jid[n] == '@' ? jid + n + 1 : jid;
}

static const char *resource_of(const char *jid)
{
	const char *slash = strchr(jid, '/');

	return slash ? slash + 1 : "";
}

/* True if these n bytes may stand before the @ of a JID; RFC 7622 section 3.3. */
static int is_name(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (strchr("\"&'/:<>@ \t\r\n", s[i])) /* also finds a NUL */
			return 0;
	return n > 0 && n <= MAX_NAME && longest_valid(s, n) == n;
}

/* Converts a JID to lower case, except for the resource, in which letter case counts. */
static char *lower(char *jid)
{
	char *p;

	for (p = jid; *p && *p != '/'; p++)
		*p = (char)tolower((unsigned char)*p);
	return jid;
}

/* Returns the first session that gets what is sent to `jid`, or the next one after `previous` if
 * that is not NULL. A full JID means one session, and a bare JID all available sessions of the
 * account. Returns NULL if there are no more. */
static struct session *next_receiver(const char *jid, const struct session *previous)
{
	int fd = previous ? previous->fd + 1 : 0;
	struct session *s;

	for (; fd < FD_SETSIZE; fd++) {
		s = sessions[fd];
		if (!s || s->phase != ONLINE)
			continue;
		if (xmpp_same_jid(s->jid, jid) || (s->available && xmpp_same_jid(s->account, jid)))
			return s;
	}
	return NULL;
}

static void remove_attr(struct xml_elem *e, const char *name)
{
	struct xml_attr **link = &e->attrs;

	while (*link && (strcmp((*link)->name, name) || *(*link)->ns))
		link = &(*link)->next;
	if (*link)
		*link = (*link)->next;
}

/* Returns the rest of a stanza as text: what follows its name and its namespace, without the two
 * addresses. It is the same for all receivers. */
static char *rest_of(struct xml_elem *e)
{
	char *text = NULL;
	size_t n;
	FILE *file = must(open_memstream(&text, &n));
	const size_t skip = strlen("< xmlns='" NS_CLIENT "'") + strlen(e->name);

	remove_attr(e, "from");
	remove_attr(e, "to");
	xml_print(e, file);
	if (fclose(file) || n <= skip)
		die("server");
	memmove(text, text + skip, n - skip);
	text[n - skip - 1] = '\0'; /* the line break */
	return text;
}

/* Sends a stanza with the true address of its sender (RFC 6120 section 8.1.2.1). */
static void send_copy(struct session *s, const struct xml_elem *e, const char *from, const char *to,
                      const char *rest)
{
	say(s, "<%r from='%s' to='%s'%r", e->name, from, to, rest);
}

/* Passes a stanza on to all receivers. Returns 0, or -1 if there are none. */
static int pass_on(struct xml_elem *e, const char *from, const char *to)
{
	struct session *s = next_receiver(to, NULL);
	char *rest;

	if (!s)
		return -1;
	rest = rest_of(e);
	for (; s; s = next_receiver(to, s))
		send_copy(s, e, from, to, rest);
	free(rest);
	return 0;
}

/* ------------------------------------------------------------------- Login */

/* S: <stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      <mechanism>SCRAM-SHA-1</mechanism>...</mechanisms>...</stream:features>
 * RFC 6120 section 4.3.2. The features are those of sections 7.4, 5.4.1 and 6.4.1. */
static void say_features(struct session *s)
{
	if (s->phase == BINDING)
		say(s, "<stream:features><bind xmlns='" NS_BIND "'/></stream:features>");
	else if (options.tls)
		say(s, "<stream:features><starttls xmlns='" NS_TLS "'><required/></starttls>"
		       "</stream:features>");
	else
		say(s, "<stream:features><mechanisms xmlns='" NS_SASL "'>%r%r</mechanisms>"
		       "<register xmlns='http://jabber.org/features/iq-register'/>"
		       "</stream:features>",
		    options.no_scram ? "" : "<mechanism>SCRAM-SHA-1</mechanism>",
		    options.no_plain ? "" : "<mechanism>PLAIN</mechanism>");
}

/* C: <stream:stream to='localhost' version='1.0' xmlns='jabber:client' ...> */
static void take_header(struct session *s, const struct xml_elem *e)
{
	const char *to = xml_get(e, "to");

	if (strcmp(e->name, "stream") || strcmp(e->ns, NS_STREAM))
		end_stream(s, "invalid-namespace");
	else if (to && strcasecmp(to, options.host))
		end_stream(s, "host-unknown");
	else {
		s->phase = s->phase == UNOPENED ? LOGGING_IN : BINDING;
		say_header(s);
		say_features(s);
	}
}

static struct account *find_account(const char *user)
{
	struct account *a = accounts;

	while (a && strcasecmp(a->user, user))
		a = a->next;
	return a;
}

static void add_account(const char *user, const char *password)
{
	struct account *a = must(malloc(sizeof *a));

	*a = (struct account){accounts, must(strdup(user)), must(strdup(password))};
	accounts = a;
}

/* Returns the password with which this user may log in, or NULL if there is no such user. */
static const char *password_of(const char *user)
{
	const struct account *a = find_account(user);

	if (a)
		return a->password;
	if (options.accounts || !is_name(user, strlen(user)))
		return NULL;
	return strncmp(user, "jumperbot_", 10) ? user : "jumperbot";
}

/* S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>
 * RFC 6120 section 6.4.5: the client may try again, but not forever. */
static void refuse_login(struct session *s, const char *condition)
{
	s->phase = LOGGING_IN;
	say(s, "<failure xmlns='" NS_SASL "'><%r/></failure>", condition);
	if (++s->failures == TRIES)
		end_stream(s, "policy-violation");
}

/* S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>
 * Now both sides start a new stream; RFC 6120 section 6.4.6. */
static void log_in(struct session *s, const char *signature)
{
	say(s, *signature ? "<success xmlns='" NS_SASL "'>%r</success>"
	                  : "<success xmlns='" NS_SASL "'/>", signature);
	s->phase = REOPENING;
	xmlstream_reset(s->xs);
}

static void set_account(struct session *s, const char *user)
{
	free(s->account);
	s->account = lower(join(user, "@", options.host));
}

/* C: <auth mechanism='PLAIN' ...>base64 of [account]\0user\0password</auth>
 * RFC 4616. The n bytes at `message` are followed by a NUL. */
static void check_plain(struct session *s, const char *message, size_t n)
{
	const char *end = message + n, *user = message + strlen(message) + 1;
	const char *password = user < end ? user + strlen(user) + 1 : end, *right;

	if (password >= end || password + strlen(password) != end) {
		refuse_login(s, "malformed-request");
		return;
	}
	right = password_of(user);
	set_account(s, user);
	if (!right || strcmp(password, right))
		refuse_login(s, "not-authorized");
	else if (*message && !xmpp_same_jid(message, s->account))
		refuse_login(s, "invalid-authzid");
	else
		log_in(s, "");
}

/* Returns the name at the beginning of user,r=nonce as a new string, or NULL if it is malformed.
 * A comma is written =2C, and an equals sign =3D; RFC 5802 section 5.1. */
static char *scram_user(const char *from)
{
	char *user = must(strdup(from)), *to = user;

	for (; *from && *from != ','; from++) {
		*to = *from;
		if (*from == '=') {
			*to = from[1] == '2' ? ',' : '=';
			if (strncmp(from, "=2C", 3) && strncmp(from, "=3D", 3)) {
				free(user);
				return NULL;
			}
			from += 2;
		}
		to++;
	}
	*to = '\0';
	return user;
}

/* S: <challenge ...>base64 of r=both nonces,s=salt,i=rounds</challenge>
 * C: <response ...>base64 of c=header,r=both nonces,p=proof</response>
 * S: <success ...>base64 of v=signature</success>
 * RFC 5802 section 5. We know the password, so we can already compute the response that we expect,
 * and the signature. (A real server stores only hashes of the password.) */
static void challenge_client(struct session *s, const char *first, const char *nonces,
                             const char *password)
{
	struct buffer challenge = {0}, messages = {0}, final = {0}, text = {0};
	uint8_t salt[SALT], proof[20], signature[20];
	size_t response;

	random_bytes(salt, SALT);
	put(&challenge, "r=%r,s=", nonces);
	put_base64(&challenge, salt, SALT);
	put(&challenge, ",i=%d", ROUNDS);
	put(&messages, "%r,%r,", first + 3, challenge.bytes);
	response = messages.end;
	put(&messages, "c=%r,r=%r", *first == 'n' ? "biws" : "eSws", nonces); /* of n,, or y,, */
	scram_sign(password, salt, ROUNDS, messages.bytes, proof, signature);
	put(&messages, ",p=");
	put_base64(&messages, proof, sizeof proof);
	put(&final, "v=");
	put_base64(&final, signature, sizeof signature);
	buffer_free(&s->expected);
	buffer_free(&s->signature);
	put_base64(&s->expected, messages.bytes + response, messages.end - response);
	put_base64(&s->signature, final.bytes, final.end);
	put_base64(&text, challenge.bytes, challenge.end);
	say(s, "<challenge xmlns='" NS_SASL "'>%r</challenge>", text.bytes);
	buffer_free(&challenge);
	buffer_free(&messages);
	buffer_free(&final);
	buffer_free(&text);
}

/* C: <auth mechanism='SCRAM-SHA-1' ...>base64 of n,,n=user,r=nonce</auth>
 * RFC 5802 section 5. A y instead of the first n means that the client could bind channels. */
static void check_scram(struct session *s, const char *first)
{
	const char *nonce = strstr(first, ",r="), *password;
	char ours[2 * NONCE + 1], *user, *nonces;

	if ((*first != 'n' && *first != 'y') || strncmp(first + 1, ",,n=", 4)
	    || !nonce || !nonce[3] || strchr(nonce + 3, ',')) {
		refuse_login(s, "malformed-request");
		return;
	}
	user = scram_user(first + 5);
	password = user ? password_of(user) : NULL;
	if (!password)
		refuse_login(s, "not-authorized");
	else {
		set_account(s, user);
		random_hex(ours);
		nonces = join(nonce + 3, ours, "");
		challenge_client(s, first, nonces, password);
		s->phase = PROVING;
		free(nonces);
	}
	free(user);
}

/* C: <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='...'>...</auth>
 * RFC 6120 section 6.4.2; the failures: section 6.5. */
static void begin_login(struct session *s, struct xml_elem *e)
{
	int plain = xml_has(e, "mechanism", "PLAIN") && !options.no_plain;
	int scram = xml_has(e, "mechanism", "SCRAM-SHA-1") && !options.no_scram;
	struct buffer data = {0};

	if (options.tls)
		refuse_login(s, "encryption-required");
	else if (!plain && !scram)
		refuse_login(s, "invalid-mechanism");
	else if (base64_decode(&data, e->text))
		refuse_login(s, "incorrect-encoding");
	else if (plain)
		check_plain(s, data.bytes, data.end);
	else
		check_scram(s, data.bytes);
	buffer_free(&data);
}

/* C: <response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>...</response> */
static void check_response(struct session *s, struct xml_elem *e)
{
	if (strcmp(e->text, s->expected.bytes))
		refuse_login(s, "not-authorized");
	else
		log_in(s, s->signature.bytes);
}

/* C: <iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>
 * S: <iq type='result' id='1'><query xmlns='jabber:iq:register'><username/><password/>...
 * C: <iq type='set' id='2'><query xmlns='jabber:iq:register'>
 *      <username>alice</username><password>secret</password></query></iq>
 * S: <iq type='result' id='2'/>
 * XEP-0077 section 3.1. Any other iq must wait until the login is finished. */
static void register_account(struct session *s, struct xml_elem *e)
{
	const struct xml_elem *query = xml_child(e, "query", NS_REGISTER);
	const struct xml_elem *user = xml_child(query, "username", NS_REGISTER);
	const struct xml_elem *password = xml_child(query, "password", NS_REGISTER);

	if (!query || options.tls)
		end_stream(s, "not-authorized");
	else if (xml_has(e, "type", "get"))
		reply(s, e, "result",
		      "<query xmlns='" NS_REGISTER "'><username/><password/></query>");
	else if (!user || !is_name(user->text, strlen(user->text)) || !password || !*password->text)
		reject(s, e, "bad-request");
	else if (find_account(user->text))
		reject(s, e, "conflict");
	else {
		add_account(user->text, password->text);
		reply(s, e, "result", "");
	}
}

/* C: <iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>
 *      <resource>home</resource></bind></iq>
 * S: <iq type='result' id='1'><bind xmlns='...'><jid>alice@localhost/home</jid></bind></iq>
 * RFC 6120 section 7. If the resource is in use, the new session wins, as on most servers
 * (section 7.7.2.2), since the old one may only seem to be alive. */
static void bind_session(struct session *s, struct xml_elem *e)
{
	const struct xml_elem *bind = xml_child(e, "bind", NS_BIND);
	const struct xml_elem *resource = xml_child(bind, "resource", NS_BIND);
	struct session *old;
	char random[2 * NONCE + 1], *jid;

	if (!bind || !xml_has(e, "type", "set")) {
		end_stream(s, "not-authorized");
		return;
	}
	random_hex(random);
	jid = join(s->account, "/", resource && *resource->text ? resource->text : random);
	old = next_receiver(jid, NULL);
	if (old)
		end_stream(old, "conflict");
	say(s, "<iq type='result' id='%s'><bind xmlns='" NS_BIND "'><jid>%s</jid></bind></iq>",
	    xml_get(e, "id"), jid);
	s->jid = jid;
	s->phase = ONLINE;
}

/* ------------------------------------------------------------------- Rooms */

/* Returns the room that a JID belongs to, with or without a nick, or NULL. */
static struct room *room_at(const char *jid)
{
	struct room *r = rooms;

	while (r && !xmpp_same_account(r->jid, jid))
		r = r->next;
	return r;
}

/* Returns the occupant that is this session or has this JID, or NULL. All arguments may be NULL. */
static struct occupant *find_occupant(const struct room *room, const struct session *s,
                                      const char *jid)
{
	struct occupant *o = room ? room->occupants : NULL;

	while (o && o->session != s && !xmpp_same_jid(o->jid, jid))
		o = o->next;
	return o;
}

/* S: <presence from='room@service/nick' to='bob@localhost/bot'>
 *      <x xmlns='http://jabber.org/protocol/muc#user'>
 *        <item affiliation='none' role='participant'/><status code='110'/></x></presence>
 * XEP-0045 section 7.2.2. Code 110 tells an occupant that the presence is its own, and code 201
 * that the room is new. */
static void tell(const struct room *room, const struct occupant *about, const struct occupant *to,
                 int gone)
{
	const char *role = about->owner ? "moderator" : "participant";

	say(to->session, "<presence from='%s' to='%s'%r><x xmlns='" NS_MUC "#user'>"
	                 "<item affiliation='%r' role='%r'/>%r%r</x></presence>",
	    about->jid, to->session->jid, gone ? " type='unavailable'" : "",
	    about->owner ? "owner" : "none", gone ? "none" : role,
	    about == to && room->locked && !gone ? "<status code='201'/>" : "",
	    about == to ? "<status code='110'/>" : "");
}

/* Tells all occupants about one of them. That one is told last, so it knows that it has heard
 * about all the others. */
static void tell_all(const struct room *room, const struct occupant *about, int gone)
{
	const struct occupant *o;

	for (o = room->occupants; o; o = o->next)
		if (o != about)
			tell(room, about, o, gone);
	tell(room, about, about, gone);
}

/* Creates a locked room. */
static struct room *open_room(const char *jid)
{
	struct room *room = must(calloc(1, sizeof *room));

	room->jid = lower(must(strndup(jid, strcspn(jid, "/"))));
	room->locked = 1;
	room->next = rooms;
	rooms = room;
	return room;
}

static void close_room(struct room *room)
{
	struct room **link = &rooms;

	while (*link != room)
		link = &(*link)->next;
	*link = room->next;
	free(room->jid);
	free(room);
}

/* Adds an occupant. The first one is the owner. */
static struct occupant *add_occupant(struct room *room, struct session *s, const char *nick)
{
	struct occupant *o = must(calloc(1, sizeof *o));

	o->owner = !room->occupants;
	o->session = s;
	o->jid = join(room->jid, "/", nick);
	o->next = room->occupants;
	room->occupants = o;
	return o;
}

/* C: <presence to='room@service/nick' type='unavailable'/>
 * S: <presence from='room@service/nick' to='...' type='unavailable'>...
 * XEP-0045 section 7.14. */
static void leave(struct room *room, struct occupant *o)
{
	struct occupant **link = &room->occupants;

	tell_all(room, o, 1);
	while (*link != o)
		link = &(*link)->next;
	*link = o->next;
	free(o->jid);
	free(o);
	if (!room->occupants)
		close_room(room);
}

static void leave_rooms(const struct session *s)
{
	struct room *room, *next;
	struct occupant *o;

	for (room = rooms; room; room = next) {
		next = room->next;
		o = find_occupant(room, s, NULL);
		if (o)
			leave(room, o);
	}
}

/* S: <message from='room@service' to='...' type='groupchat'><subject></subject></message>
 * Tells a new occupant who is there, then that it is in, and finally the subject, which is always
 * empty; XEP-0045 section 7.1. */
static void welcome(const struct room *room, const struct occupant *o)
{
	const struct occupant *p;

	for (p = room->occupants; p; p = p->next)
		if (p != o)
			tell(room, p, o, 0);
	tell_all(room, o, 0);
	say(o->session, "<message from='%s' to='%s' type='groupchat'><subject></subject></message>",
	    room->jid, o->session->jid);
}

/* C: <presence to='room@service/nick'><x xmlns='http://jabber.org/protocol/muc'/></presence>
 * XEP-0045 section 7.2. The first session to enter opens the room. Until it has unlocked the room,
 * the room does not exist for others. An occupant may enter again, since it may have forgotten
 * that it is inside, but it cannot change its nick. */
static void enter(struct session *s, struct xml_elem *e, const char *to)
{
	struct room *room = room_at(to);
	struct occupant *me = find_occupant(room, s, NULL);

	if (!*resource_of(to) || domain_of(to) == to || !is_name(to, strcspn(to, "@")))
		reject(s, e, "jid-malformed");
	else if (!xml_child(e, "x", NS_MUC) || (me && !xmpp_same_jid(me->jid, to)))
		reject(s, e, "not-acceptable");
	else if (me)
		welcome(room, me);
	else if (room && room->locked)
		reject(s, e, "item-not-found");
	else if (find_occupant(room, NULL, to))
		reject(s, e, "conflict");
	else {
		room = room ? room : open_room(to);
		welcome(room, add_occupant(room, s, resource_of(to)));
	}
}

/* C: <iq type='set' to='room@service'><query xmlns='http://jabber.org/protocol/muc#owner'>...
 * The owner accepts the configuration, whatever it is; XEP-0045 section 10.1.2. */
static void unlock_room(struct session *s, struct xml_elem *e, const char *to)
{
	struct room *room = room_at(to);
	const struct occupant *me = find_occupant(room, s, NULL);

	if (!room)
		reject(s, e, "item-not-found");
	else if (!me || !me->owner)
		reject(s, e, "forbidden");
	else {
		room->locked = 0;
		reply(s, e, "result", "");
	}
}

/* C: <message to='room@service' type='groupchat' id='1'><body>hello</body></message>
 * S: <message from='room@service/nick' to='...' type='groupchat' id='1'>
 *      <body>hello</body></message>
 * XEP-0045 section 7.4. The sender gets it back as well. By the id it knows that the message has
 * been delivered. */
static void speak(struct session *s, struct xml_elem *e, const char *to)
{
	struct room *room = room_at(to);
	const struct occupant *me = find_occupant(room, s, NULL), *o;
	char *rest;

	if (!room)
		reject(s, e, "item-not-found");
	else if (!me)
		reject(s, e, "not-acceptable");
	else if (!xml_has(e, "type", "groupchat") || *resource_of(to))
		reject(s, e, "bad-request");
	else {
		rest = rest_of(e);
		for (o = room->occupants; o; o = o->next)
			send_copy(o->session, e, me->jid, o->session->jid, rest);
		free(rest);
	}
}

/* ----------------------------------------------------------------- Routing */

/* Returns the receiver of a message or iq. Without `to`, that is the sender's own account. */
static const char *receiver_of(const struct session *s, const struct xml_elem *e)
{
	const char *to = xml_get(e, "to");

	return to ? to : s->account;
}

static int is_at_service(const char *jid)
{
	return xmpp_same_account(domain_of(jid), service);
}

/* RFC 6121 section 8.5: a message of type groupchat to an account, a bare JID, is refused. */
static void route_message(struct session *s, struct xml_elem *e)
{
	const char *to = receiver_of(s, e);
	int refused = xml_has(e, "type", "groupchat") && !*resource_of(to);

	if (is_at_service(to))
		speak(s, e, to);
	else if (refused || pass_on(e, s->jid, to))
		reject(s, e, "service-unavailable");
}

/* C: <presence/>
 * RFC 6121 section 4.2.2: only the sessions of the same account are told, since there are no
 * rosters, and the sender itself is one of them. */
static void change_presence(struct session *s, struct xml_elem *e, int gone)
{
	s->available = 1;
	pass_on(e, s->jid, s->account);
	s->available = !gone;
	if (gone)
		leave_rooms(s);
}

/* C: <presence type='subscribe' to='bob@localhost'/>
 * S: <presence type='subscribe' from='alice@localhost' to='bob@localhost'/>, to bob
 * A subscription is between accounts (RFC 6121 section 3.1.2), so it comes from a bare JID. */
static void route_presence(struct session *s, struct xml_elem *e)
{
	const char *to = xml_get(e, "to"), *type = xml_get(e, "type");
	int gone = xml_has(e, "type", "unavailable");
	struct room *room = to ? room_at(to) : NULL;
	struct occupant *me = find_occupant(room, s, NULL);

	if (!to && (!type || gone))
		change_presence(s, e, gone);
	else if (to && is_at_service(to) && !type)
		enter(s, e, to);
	else if (me && gone)
		leave(room, me);
	else if (to)
		pass_on(e, type && !gone ? s->account : s->jid, to);
}

/* Answers a question to the server, an account or a room. Most clients ask for their roster after
 * the login, so they get an empty one. */
static void answer(struct session *s, struct xml_elem *e, const char *to)
{
	int get = xml_has(e, "type", "get"), set = xml_has(e, "type", "set");

	if (get && xml_child(e, "ping", NS_PING)) /* XEP-0199 */
		reply(s, e, "result", "");
	else if (get && xml_child(e, "query", NS_ROSTER) && xmpp_same_jid(to, s->account))
		reply(s, e, "result", "<query xmlns='" NS_ROSTER "'/>");
	else if (set && xml_child(e, "query", NS_MUC "#owner"))
		unlock_room(s, e, to);
	else
		reject(s, e, "service-unavailable");
}

/* RFC 6120 section 8.2.3. An iq to a full JID is passed on. Other domains cannot be reached. */
static void route_iq(struct session *s, struct xml_elem *e)
{
	const char *to = receiver_of(s, e);
	int ours = is_at_service(to) || xmpp_same_account(domain_of(to), options.host);

	if (!xml_get(e, "id") || !xml_get(e, "type"))
		reject(s, e, "bad-request");
	else if (ours && !*resource_of(to))
		answer(s, e, to);
	else if (pass_on(e, s->jid, to))
		reject(s, e, "service-unavailable");
}

/* --------------------------------------------------------------- The table */

static const struct handler {
	enum phase phase;
	const char *name, *ns;
	void (*handle)(struct session *, struct xml_elem *);
} table[] = {
	{LOGGING_IN, "auth",     NS_SASL,   begin_login},
	{LOGGING_IN, "iq",       NS_CLIENT, register_account},
	{PROVING,    "response", NS_SASL,   check_response},
	{BINDING,    "iq",       NS_CLIENT, bind_session},
	{ONLINE,     "message",  NS_CLIENT, route_message},
	{ONLINE,     "presence", NS_CLIENT, route_presence},
	{ONLINE,     "iq",       NS_CLIENT, route_iq}
};

/* With -n or -q, ends or silences a session after that many elements, which may be 0. */
static void check_count(struct session *s)
{
	if (s->elements == options.hang_up_after)
		hang_up(s);
	if (s->elements == options.silent_after)
		s->silent = 1;
}

/* An element that is not in the table ends the stream. It is either a stanza that comes too early,
 * or no stanza at all; RFC 6120 sections 4.9.3.12 and 4.9.3.24. */
static void handle_element(struct session *s, struct xml_elem *e)
{
	const struct handler *h = table, *end = h + sizeof table / sizeof *table;
	int is_stanza = !strcmp(e->ns, NS_CLIENT) && (!strcmp(e->name, "message")
	                || !strcmp(e->name, "presence") || !strcmp(e->name, "iq"));

	while (h < end && (h->phase != s->phase
	                   || strcmp(h->name, e->name) || strcmp(h->ns, e->ns)))
		h++;
	if (h < end)
		h->handle(s, e);
	else
		end_stream(s, is_stanza ? "not-authorized" : "unsupported-stanza-type");
	s->elements++;
	check_count(s);
}

/* ---------------------------------------------------------------- The loop */

static int would_block(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -1 : 0;
}

/* Starts a session with a client that has connected. The kernel always uses the lowest free
 * descriptor. So if it has used the last one that select() or the system allows, the server is
 * full and closes the connection. TCP_NODELAY makes the kernel send the pieces of -c as they
 * are. */
static void open_session(int fd)
{
	long limit = sysconf(_SC_OPEN_MAX);
	struct session *s;
	int on = 1;

	if (limit < 0 || limit > FD_SETSIZE)
		limit = FD_SETSIZE;
	if (options.refuse || fd >= limit - 1 || set_nonblocking(fd)
	    || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) {
		close(fd);
		return;
	}
	s = must(calloc(1, sizeof *s));
	s->xs = must(xmlstream_new(0));
	s->fd = fd;
	sessions[fd] = s;
	check_count(s);
}

static void accept_clients(int listener)
{
	int fd = accept(listener, NULL, NULL);

	while (fd >= 0) {
		open_session(fd);
		fd = accept(listener, NULL, NULL);
	}
}

/* Removes a session from the view of others: it leaves its rooms, and its address is free again. */
static void depart(struct session *s)
{
	if (s->jid)
		leave_rooms(s);
	free(s->jid);
	s->jid = NULL;
}

static void free_session(struct session *s)
{
	sessions[s->fd] = NULL;
	close(s->fd);
	xmlstream_free(s->xs);
	buffer_free(&s->out);
	buffer_free(&s->expected);
	buffer_free(&s->signature);
	free(s->account);
	free(s);
}

/* With -v: shows what the client has sent. If that may contain a password,
 * shows only the first tag. */
static void trace_input(const struct session *s, const struct xml_elem *e)
{
	int secret = xml_has(e, "mechanism", "PLAIN") || xml_child(e, "query", NS_REGISTER);
	size_t n;
	const char *text = xmlstream_raw(s->xs, &n), *tag_end = memchr(text, '>', n);

	if (secret && tag_end)
		n = (size_t)(tag_end + 1 - text);
	trace(s, 'C', text, n);
}

static void handle_event(struct session *s, enum xml_event event, struct xml_elem *e)
{
	if (event == XML_OPEN)
		take_header(s, e);
	else if (event == XML_STANZA)
		handle_element(s, e);
	else if (event == XML_CLOSE)
		end_stream(s, NULL);
	else if (event == XML_ERROR) {
		complain(s, xmlstream_error(s->xs));
		end_stream(s, xmlstream_condition(s->xs));
	}
}

/* Reads what has arrived. Input after the end of a stream is discarded, but must be read: closing
 * a socket with unread input resets the connection, and the client could lose our last bytes. */
static void read_session(struct session *s)
{
	static char bytes[READ_SIZE];
	ssize_t n = read(s->fd, bytes, sizeof bytes);
	enum xml_event event = XML_OPEN;
	struct xml_elem *e;

	if (n == 0 && s->phase < LEAVING)
		hang_up(s);
	else if (n == 0 || (n < 0 && !would_block()))
		s->phase = GONE;
	if (n <= 0 || s->phase >= LEAVING || s->silent)
		return;
	if (xmlstream_feed(s->xs, bytes, (size_t)n))
		die("server");
	while (event != XML_MORE && s->phase < LEAVING && !s->silent) {
		event = xmlstream_next(s->xs, &e);
		if (e)
			trace_input(s, e);
		handle_event(s, event, e);
		xml_free(e);
	}
}

/* Returns the number of bytes that may be written now: with -d, none before their time; with -c,
 * only a few. */
static size_t sendable(const struct session *s)
{
	size_t n = s->out.end - s->out.start, chunk = (size_t)options.chunk;

	if (now < s->due)
		return 0;
	return chunk > 0 && n > chunk ? chunk : n;
}

/* Writes once. After the last byte of a stream, closes our half of the connection. */
static void write_session(struct session *s)
{
	size_t n = sendable(s);
	ssize_t sent = n > 0 ? write(s->fd, s->out.bytes + s->out.start, n) : 0;

	if (sent < 0 && !would_block())
		s->phase = GONE;
	if (sent > 0)
		buffer_consume(&s->out, (size_t)sent);
	if (s->phase == LEAVING && s->out.start == s->out.end && !s->shut) {
		shutdown(s->fd, SHUT_WR);
		s->shut = 1;
	}
}

static void not_later_than(int64_t *until, int64_t time)
{
	if (time < *until)
		*until = time;
}

/* Writes to a session and adds what to wait for. A session that has broken only now must depart
 * before it is freed, so another turn follows at once. Returns the number of sessions that are
 * left, 0 or 1. */
static int before_select(struct session *s, fd_set *readable, fd_set *writable, int64_t *until)
{
	write_session(s);
	if (s->phase == LEAVING && now >= s->deadline)
		s->phase = GONE;
	if (s->phase == GONE && !s->jid) {
		free_session(s);
		return 0;
	}
	if (s->phase >= LEAVING)
		not_later_than(until, s->phase == GONE ? now : s->deadline);
	if (s->phase < LEAVING || s->shut)
		FD_SET(s->fd, readable);
	if (sendable(s) > 0)
		FD_SET(s->fd, writable);
	else if (s->out.start < s->out.end)
		not_later_than(until, s->due);
	return 1;
}

/* Does the same for all sessions. Departures come first, since others must be told about them. */
static int before_select_all(fd_set *readable, fd_set *writable, int64_t *until)
{
	int fd, n = 0;

	for (fd = 0; fd < FD_SETSIZE; fd++)
		if (sessions[fd] && sessions[fd]->phase >= LEAVING)
			depart(sessions[fd]);
	for (fd = 0; fd < FD_SETSIZE; fd++)
		if (sessions[fd])
			n += before_select(sessions[fd], readable, writable, until);
	return n;
}

/* Waits until a descriptor is ready, the time `until` has come, or a signal arrives. */
static void wait_ready(fd_set *readable, fd_set *writable, int64_t until, const sigset_t *mask)
{
	int64_t ms = until > now ? until - now : 0;
	struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

	if (pselect(FD_SETSIZE, readable, writable, NULL, until < INT64_MAX ? &t : NULL, mask) >= 0)
		return;
	if (errno != EINTR)
		die("server: select");
	FD_ZERO(readable);
}

static void update_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* S: <stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error> */
static void end_all(void)
{
	int fd;

	for (fd = 0; fd < FD_SETSIZE; fd++)
		if (sessions[fd] && sessions[fd]->phase < LEAVING)
			end_stream(sessions[fd], "system-shutdown");
}

/* Runs until a signal has stopped the server and all sessions have ended. Signals are blocked
 * except in pselect(), which uses `mask`. Otherwise a signal that came between the check of
 * `stopping` and the wait would not end the wait. */
static void serve(int listener, const sigset_t *mask)
{
	fd_set readable, writable;
	int64_t until;
	int fd, n;

	for (;;) {
		update_now();
		if (stopping && listener >= 0) {
			close(listener);
			listener = -1;
			end_all();
		}
		FD_ZERO(&readable);
		FD_ZERO(&writable);
		until = INT64_MAX;
		n = before_select_all(&readable, &writable, &until);
		if (n == 0 && listener < 0)
			return;
		if (listener >= 0)
			FD_SET(listener, &readable);
		wait_ready(&readable, &writable, until, mask);
		update_now();
		for (fd = 0; fd < FD_SETSIZE; fd++)
			if (sessions[fd] && FD_ISSET(fd, &readable))
				read_session(sessions[fd]);
		if (listener >= 0 && FD_ISSET(listener, &readable))
			accept_clients(listener);
	}
}

/* -------------------------------------------------------------------- Main */

/* Returns a listening socket, and sets options.port to its port. IPv4 is enough: a client that
 * tries ::1 first is refused there, and then tries 127.0.0.1. */
static int listen_on_loopback(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct sockaddr *address = (struct sockaddr *)(void *)&a;
	socklen_t n = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	a.sin_port = htons((uint16_t)options.port);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || set_nonblocking(fd)
	    || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)
	    || bind(fd, address, n) || listen(fd, SOMAXCONN) || getsockname(fd, address, &n)) {
		fprintf(stderr, "server: port %d: %s\n", options.port, strerror(errno));
		exit(1);
	}
	options.port = ntohs(a.sin_port);
	return fd;
}

/* Reads the file of -a: "user password" on each line. Other lines are ignored. */
static void load_accounts(void)
{
	FILE *f = fopen(options.accounts, "r");
	char line[2 * MAX_NAME], user[MAX_NAME + 1], password[MAX_NAME + 1];

	if (!f)
		die(options.accounts);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%1023s %1023[^\r\n]", user, password) == 2
		    && is_name(user, strlen(user)))
			add_account(user, password);
	if (ferror(f))
		die(options.accounts);
	fclose(f);
}

static int usage(FILE *out)
{
	fputs("usage: server [-rTv] [-a file] [-c bytes] [-d ms] [-m mechanism] [-n stanzas]\n"
	      "              [-p port] [-q stanzas] [-t host]\n"
	      "  -a  accounts, one line each: user password (any user, with the name as password)\n"
	      "  -c  write at most this many bytes at once\n"
	      "  -d  delay each answer by this many ms\n"
	      "  -m  offer only this mechanism: plain or scram\n"
	      "  -n  hang up after this many stanzas, including those of the login\n"
	      "  -p  port, 0 for a free one (5222)\n"
	      "  -q  say nothing more after this many stanzas\n"
	      "  -r  refuse: accept connections and close them at once\n"
	      "  -t  XMPP host (localhost)\n"
	      "  -T  demand TLS, which this server cannot do\n"
	      "  -v  show what goes over the wire\n", out);
	return out == stdout ? 0 : 2;
}

/* Reads a number from min to max. Returns 1, or 0 if the text is not such a number. */
static int take_number(const char *text, long min, long max, int *n)
{
	char *end;
	long value = strtol(text, &end, 10);

	*n = (int)value;
	return !*end && end != text && value >= min && value <= max;
}

/* Reads one option. Returns 1, or 0 if it is not valid. */
static int take_option(int c)
{
	switch (c) {
	case 'a': options.accounts = optarg; return 1;
	case 'c': return take_number(optarg, 1, MAX_OUTPUT, &options.chunk);
	case 'd': return take_number(optarg, 0, 3600000, &options.delay);
	case 'm':
		options.no_scram = !strcmp(optarg, "plain");
		options.no_plain = !strcmp(optarg, "scram");
		return options.no_scram != options.no_plain;
	case 'n': return take_number(optarg, 0, 1000000000, &options.hang_up_after);
	case 'p': return take_number(optarg, 0, 65535, &options.port);
	case 'q': return take_number(optarg, 0, 1000000000, &options.silent_after);
	case 'r': return options.refuse = 1;
	case 't': options.host = optarg; return 1;
	case 'T': return options.tls = 1;
	case 'v': return options.verbose = 1;
	}
	return 0;
}

static void stop(int signal)
{
	(void)signal;
	stopping = 1;
}

/* Because of SA_RESETHAND, a second SIGINT or SIGTERM ends the process at once. */
int main(int argc, char **argv)
{
	struct sigaction on_signal = {.sa_handler = stop, .sa_flags = SA_RESETHAND};
	sigset_t signals, mask;
	int c, listener;

	while ((c = getopt(argc, argv, "a:c:d:hm:n:p:q:rt:Tv")) != -1) {
		if (c == 'h')
			return usage(stdout);
		if (!take_option(c))
			return usage(stderr);
	}
	if (optind < argc)
		return usage(stderr);
	if (options.accounts)
		load_accounts();
	random_source = open("/dev/urandom", O_RDONLY);
	if (random_source < 0)
		die("server: /dev/urandom");
	service = join("conference.", options.host, "");
	listener = listen_on_loopback();
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, &mask);
	sigaction(SIGINT, &on_signal, NULL);
	sigaction(SIGTERM, &on_signal, NULL);
	signal(SIGPIPE, SIG_IGN); /* instead, write() fails */
	printf("server: listening on port %d\n", options.port);
	fflush(stdout);
	serve(listener, &mask);
	return 0;
}
