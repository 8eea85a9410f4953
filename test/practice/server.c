/* server.c - a practice server: the other side of the conversation.
 *
 *     cc -I. -o server test/server.c xmlstream.c
 *     ./server -v
 *     ./echobot           (in another terminal)
 *
 * The problem. A client alone says nothing. A real server is a large program
 * with a configuration, and it never misbehaves when one wants it to. This one
 * is the client's mirror image, needs nothing but libc, and misbehaves on
 * demand: it can be slow (-d), send in crumbs (-c), fall silent
 * (-q), hang up (-n, -r) or ask for what the client cannot do (-m, -T). It is
 * for the loopback only and keeps no secrets: without -a, anybody may log in
 * with the own name as the password (`jumperbot_1` with `jumperbot`).
 *
 * It serves what one needs to watch bots at work: login (PLAIN, SCRAM-SHA-1)
 * and registration, messages, presence with subscriptions, rooms. All of it is
 * in memory and gone at the end. What real servers do, and this one does not:
 * TLS, speaking with other servers, messages stored for those who are away,
 * priorities, roster groups, directed presence that is taken back by itself,
 * moderation of rooms and rooms that last, letter case beyond ASCII.
 *
 * The parts, from those that need no other to the loop that needs them all; the
 * map of it all is the table handlers[] in "routing":
 *
 *     the address book  who is behind a JID: one hash table for all
 *     rendering         a tree becomes text again, to be passed on
 *     output            what a session is told, and how a stream ends
 *     login             stream header, SASL, registration, binding
 *     contacts          rosters and subscriptions
 *     presence          who is told that a session came or went
 *     rooms             XEP-0045
 *     questions         the iqs that the server answers itself
 *     routing           from the sender to whoever is behind `to`
 *     the loop          select(), reading, writing
 *     main              opening the doors, options
 *
 * Two rules keep it short. A session that ends while lists are being walked
 * must not vanish from them: it is only marked, and the loop sweeps it away when
 * nobody walks. And when memory runs out the server ends: it has nothing to lose.
 *
 * The client's file is included for its tools: escaping, SHA-1, base64, the
 * clock, pselect(). */
#include "../xmpp.c"
#include "tools.h"

#include <ctype.h>

enum {
	BUCKETS = 4096,         /* of the address book */
	HISTORY = 20,           /* messages that a room remembers */
	ROUNDS = 4096,          /* of PBKDF2; RFC 5802 section 5.1 wants no fewer */
	SALT = 12,              /* bytes */
	TRIES = 5,              /* to log in, on one connection */
	MAX_NAME = 1023,        /* bytes of each part of a JID; RFC 7622 section 3.1 */
	LINGER = 1000           /* ms that a client has to take our last bytes */
};

#define NS_XML      "http://www.w3.org/XML/1998/namespace"
#define NS_REGISTER "jabber:iq:register"
#define NS_ROSTER   "jabber:iq:roster"
#define NS_INFO     "http://jabber.org/protocol/disco#info"
#define NS_ITEMS    "http://jabber.org/protocol/disco#items"
#define NS_PING     "urn:xmpp:ping"
#define NS_DELAY    "urn:xmpp:delay"
#define NS_MUC      "http://jabber.org/protocol/muc"
#define GOODBYE     " type='unavailable'>" /* presence, in the form of render() */

/* Whoever has an address begins with this. */
enum kind { SESSION, ACCOUNT, ROOM, OCCUPANT };
struct entry {
	enum kind kind;
	char *jid;              /* NULL: not in the book */
	struct entry *next;     /* in the same bucket */
};

/* What an account knows about another one: that it sees it, is seen by it, has
 * asked to see it, was asked by it, and has it in its roster for any reason. */
enum { TO = 1, FROM = 2, ASKED = 4, PENDING = 8, LISTED = 16 };
struct contact {
	struct contact *next;
	char *jid, *name;       /* the name may be NULL */
	unsigned flags;
};

struct account {
	struct entry entry;     /* user@host */
	char *password;
	char registered;        /* the name is taken: by registration, or in the file */
	char hashed;            /* the next two are known */
	uint8_t salt[SALT + 4]; /* and the number of the block, for pbkdf2() */
	uint8_t salted[20];     /* all that a SCRAM server has to keep */
	struct session *sessions; /* the bound ones */
	struct contact *contacts;
};

/* What a client may send next. */
enum phase {
	UNOPENED,               /* the stream header */
	LOGGING_IN,             /* <auth/>, or a registration */
	PROVING,                /* the second SCRAM message */
	REOPENING,              /* the stream header, again */
	BINDING,                /* the resource it wants */
	ONLINE,                 /* stanzas */
	LEAVING,                /* nothing: the stream has ended, the last bytes are on their way */
	GONE                    /* nothing: the loop is about to free it */
};

/* One connection. */
struct session {
	struct entry entry;     /* user@host/resource, once bound */
	struct server *server;
	int fd;
	enum phase phase;
	struct xmlstream *xs;
	struct buffer out;      /* bytes not yet written */
	int64_t due;            /* with -d: when they may go */
	int64_t deadline;       /* when LEAVING is over */
	int stanzas, tries;     /* received; failed logins */
	char opened;            /* our stream header is out */
	char shut;              /* our last byte is out */
	char silent;            /* -q: not a word any more */
	char wants_roster;      /* it asked for its roster: keep it up to date */
	char *first, *challenge; /* the SCRAM messages so far */
	const char *binding;    /* the c= that the client must send; RFC 5802 section 7 */
	struct account *account;
	struct session *sibling; /* the account's next one */
	char *presence;         /* as render() gives it; NULL: unavailable */
	struct occupant *occupants; /* what it is in its rooms */
};

/* A session in a room. */
struct occupant {
	struct entry entry;     /* room@service/nick */
	struct room *room;
	struct session *session;
	struct occupant *next;  /* in the room */
	struct occupant *other; /* of the same session, in another room */
	char *presence;         /* as render() gives it */
	char owner;             /* it opened the room */
};

struct room {
	struct entry entry;     /* room@service */
	struct occupant *occupants; /* never empty: the last one closes the door */
	char *history[HISTORY]; /* a ring: message i is at i % HISTORY */
	size_t said;            /* messages so far */
	char *subject, *subject_from; /* or both NULL */
};

struct options {
	const char *host, *accounts;
	int port, chunk, delay, hang_up_after, silent_after; /* the last two: -1 for never */
	int no_plain, no_scram, tls, refuse, verbose;
};

struct server {
	struct options options;
	char *service;          /* the host of the rooms */
	struct entry *book[BUCKETS];
	struct session *sessions[FD_SETSIZE]; /* by descriptor */
	int listeners[2];       /* IPv4, IPv6; -1 for none */
	int random;             /* a source of randomness */
	int ending;             /* it was told to stop */
	int is_full;            /* how many were sent away because select() can watch no more */
	int64_t full;           /* no descriptors left: accept nobody until then; 0: we have some */
	int pushes;             /* roster pushes so far: their ids */
	int64_t now;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *must(void *p)
{
	if (!p)
		die("server");
	return p;
}

/* -------------------------------------------------------- The address book */

/* Sessions, accounts, rooms and occupants are found by JID, in one hash table:
 * to route a stanza is to look up its `to`. Letter case counts in the resource
 * only. `n` may end before the resource does: then the bare JID is meant. */
static struct entry **bucket(struct server *server, const char *jid, size_t n)
{
	size_t i, bare = strcspn(jid, "/");
	uint32_t h = 2166136261u; /* the hash is FNV-1a */

	for (i = 0; i < n; i++)
		h = (h ^ (unsigned char)(i < bare ? tolower((unsigned char)jid[i]) : jid[i])) * 16777619u;
	return &server->book[h % BUCKETS];
}

static struct entry *find_n(struct server *server, const char *jid, size_t n)
{
	size_t bare = strcspn(jid, "/") < n ? strcspn(jid, "/") : n;
	struct entry *e = *bucket(server, jid, n);

	while (e && (strlen(e->jid) != n || strncasecmp(e->jid, jid, bare) || memcmp(e->jid + bare, jid + bare, n - bare)))
		e = e->next;
	return e;
}

static struct entry *find_entry(struct server *server, const char *jid)
{
	return find_n(server, jid, strlen(jid));
}

static struct entry *find_bare(struct server *server, const char *jid)
{
	return find_n(server, jid, strcspn(jid, "/"));
}

/* The session, account, ... that the entry belongs to; NULL if it is another
 * kind, or none. */
static void *as(enum kind kind, struct entry *e)
{
	return e && e->kind == kind ? e : NULL;
}

/* Takes over `jid`, malloced; the bare part in lower case, as real servers do. */
static void enlist(struct server *server, struct entry *e, enum kind kind, char *jid)
{
	struct entry **head = bucket(server, jid, strlen(jid));
	char *p;

	for (p = jid; *p && *p != '/'; p++)
		*p = (char)tolower((unsigned char)*p);
	e->kind = kind;
	e->jid = jid;
	e->next = *head;
	*head = e;
}

static void strike(struct server *server, struct entry *e)
{
	struct entry **link = bucket(server, e->jid, strlen(e->jid));

	while (*link != e)
		link = &(*link)->next;
	*link = e->next;
	free(e->jid);
	e->jid = NULL;
}

/* The part of a JID behind the @, if there is one; the resource may follow. */
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

/* RFC 7622 section 3.3: characters that may not stand before the @. */
static int is_user_name(const char *s, size_t n)
{
	size_t i;
	int len;

	for (i = 0; i < n; i += (size_t)len) {
		len = xml_char(s + i, n - i);
		if (len <= 0 || strchr("\"&'/:<>@ \t\r\n", s[i]))
			return 0;
	}
	return n > 0 && n <= MAX_NAME;
}

/* The account with the name of n bytes at `user`, or NULL. Without -a there is
 * one for every name: so one can add a contact before it was ever online. */
static struct account *account_named(struct server *server, const char *user, size_t n, int registering)
{
	struct account *a;
	char *jid;

	if (!is_user_name(user, n))
		return NULL;
	jid = must(print("%.*s@%s", (int)n, user, server->options.host));
	a = as(ACCOUNT, find_entry(server, jid));
	if (a || (server->options.accounts && !registering)) {
		free(jid);
		return a;
	}
	a = must(calloc(1, sizeof *a));
	a->password = must(print("%.*s", (int)n, strncmp(user, "jumperbot_", 10) ? user : "jumperbot"));
	enlist(server, &a->entry, ACCOUNT, jid);
	return a;
}

/* The account behind user@host, with or without a resource. */
static struct account *account_at(struct server *server, const char *jid)
{
	if (domain_of(jid) == jid || !xmpp_same_account(domain_of(jid), server->options.host))
		return NULL;
	return account_named(server, jid, strcspn(jid, "@"), 0);
}

/* --------------------------------------------------------------- Rendering */

/* Appends what `format` says, see xmpp_send(). */
static void put(struct buffer *b, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	if (buffer_vformat(b, format, ap))
		die("server");
	va_end(ap);
}

/* name='value', unless it is NULL. */
static void put_attr(struct buffer *b, const char *name, const char *value)
{
	if (value)
		put(b, " %r='%s'", name, value);
}

/* The text in the buffer, which was put there with put(). */
static char *text_in(struct buffer *b)
{
	if (buffer_append(b, "", 1))
		die("server");
	return b->bytes;
}

/* The attributes; of a stanza, all but `from` and `to`. */
static void put_attrs(struct buffer *b, const struct xml_elem *e)
{
	const struct xml_attr *a;
	int n = 0;

	for (a = e->attrs; a; a = a->next, n++)
		if (!strcmp(a->ns, NS_XML))
			put(b, " xml:%r='%s'", a->name, a->value);
		else if (*a->ns)
			put(b, " xmlns:n%d='%s' n%d:%r='%s'", n, a->ns, n, a->name, a->value);
		else if (e->parent || (strcmp(a->name, "from") && strcmp(a->name, "to")))
			put_attr(b, a->name, a->value);
}

/* The namespace of the prefix xml must not be declared (Namespaces in XML,
 * section 3), so an element in it needs the prefix. */
static const char *prefix_of(const struct xml_elem *e)
{
	return strcmp(e->ns, NS_XML) ? "" : "xml:";
}

static void put_start(struct buffer *b, const struct xml_elem *e)
{
	put(b, "<%r%r", prefix_of(e), e->name);
	put_attr(b, "xmlns", *prefix_of(e) || !strcmp(e->ns, e->parent->ns) ? NULL : e->ns);
	put_attrs(b, e);
	put(b, *e->text || e->children ? ">%s" : "/>", e->text);
}

static void put_end(struct buffer *b, const struct xml_elem *e)
{
	if (*e->text || e->children)
		put(b, "</%r%r>", prefix_of(e), e->name);
}

/* What a stanza says, malloced: all from behind its name to before its end tag,
 * but for `from` and `to`. With those put in front it can go to many, and is
 * written once. (Text between children comes before them: the tree has not kept
 * where it was.) Walks like xml_print(). */
static char *render(const struct xml_elem *stanza)
{
	const struct xml_elem *e = stanza;
	struct buffer b = {0};

	put_attrs(&b, stanza);
	put(&b, ">%s", stanza->text);
	for (;;) {
		if (e->children)
			e = e->children;
		else {
			for (; e != stanza && !e->next; e = e->parent)
				put_end(&b, e);
			if (e == stanza)
				return text_in(&b);
			put_end(&b, e);
			e = e->next;
		}
		put_start(&b, e);
	}
}

/* ------------------------------------------------------------------ Output */

/* Prints n bytes that come from a client, without what would control the terminal. A NUL follows
 * them, or whole characters. */
static void print_clean(const char *text, size_t n)
{
	const char *end = text + n;
	size_t bad;

	while (text < end) {
		bad = xmpp_control(text);
		putc(bad ? '?' : *text, stderr);
		text += bad ? bad : 1;
	}
}

/* Who it is, for messages. */
static void print_name(const struct session *s)
{
	if (s->entry.jid)
		print_clean(s->entry.jid, strlen(s->entry.jid));
	else
		fprintf(stderr, "#%d", s->fd);
}

/* -v: a line for each thing said, by the client (C) or by us (S). */
static void show_wire(const struct session *s, char who, const char *text, size_t n)
{
	if (!s->server->options.verbose)
		return;
	fprintf(stderr, "%c(", who);
	print_name(s);
	fputs("): ", stderr);
	print_clean(text, n);
	putc('\n', stderr);
}

/* The end of a session that cannot be ended politely; `why`, if anybody should
 * know. */
static void doom(struct session *s, const char *why)
{
	if (s->phase < GONE && why) {
		fputs("server: dropping ", stderr);
		print_name(s);
		fprintf(stderr, ": %s\n", why);
	}
	s->phase = GONE;
}

/* Queues what `format` says, see xmpp_send(). The session may be doomed then. */
static void say_to(struct session *s, const char *format, ...)
{
	size_t before = s->out.end - s->out.start, n;
	va_list ap;

	if (s->phase >= LEAVING || s->silent)
		return;
	if (before == 0)
		s->due = s->server->now + s->server->options.delay;
	va_start(ap, format);
	if (buffer_vformat(&s->out, format, ap))
		die("server");
	va_end(ap);
	n = s->out.end - s->out.start - before;
	show_wire(s, 'S', s->out.bytes + s->out.end - n, n);
	if (before + n > MAX_OUTPUT)
		doom(s, "too much waits to be read by it");
}

/* S: <iq type='result' id='its id' from='whom it asked' to='who asked'>...</iq>
 * RFC 6120 section 8.2.3. Attributes that have no value are left out. */
static void reply_to(struct session *s, const struct xml_elem *e, const char *type, const char *payload, ...)
{
	struct buffer b = {0};
	va_list ap;

	put(&b, "<%r type='%r'", e->name, type);
	put_attr(&b, "id", xml_get(e, "id"));
	put_attr(&b, "from", xml_get(e, "to"));
	put_attr(&b, "to", s->entry.jid);
	put(&b, *payload ? ">" : "/>");
	va_start(ap, payload);
	if (buffer_vformat(&b, payload, ap))
		die("server");
	va_end(ap);
	if (*payload)
		put(&b, "</%r>", e->name);
	say_to(s, "%r", text_in(&b));
	buffer_free(&b);
}

static int is_type(const struct xml_elem *e, const char *type)
{
	const char *its = xml_get(e, "type");

	return its && !strcmp(its, type);
}

/* S: <message type='error' ...><error type='cancel'>
 *      <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>
 * RFC 6120 section 8.3. Never an answer to an answer: that would go on for ever. */
static void bounce(struct session *s, const struct xml_elem *e, const char *condition)
{
	int modify = !strcmp(condition, "bad-request") || !strcmp(condition, "jid-malformed");

	if (!is_type(e, "error") && !is_type(e, "result") && !is_type(e, "headline"))
		reply_to(s, e, "error", "<error type='%r'><%r xmlns='" NS_STANZAS "'/></error>",
		         modify ? "modify" : "cancel", condition);
}

/* Bytes that nobody can guess. The source is kept open: when there are no
 * descriptors left, it is too late to open it. */
static void roll(struct server *server, void *to, size_t n)
{
	if (read(server->random, to, n) != (ssize_t)n)
		die("server: /dev/urandom");
}

/* The same in hexadecimal digits. */
static void random_hex(struct server *server, char to[17])
{
	uint8_t random[8];
	int i;

	roll(server, random, 8);
	for (i = 0; i < 8; i++)
		snprintf(to + 2 * i, 3, "%02x", random[i]);
}

/* S: <?xml version='1.0'?><stream:stream from='HOST' id='...' version='1.0' ...>
 * RFC 6120 section 4.2. */
static void say_header(struct session *s)
{
	char id[17];

	random_hex(s->server, id);
	s->opened = 1;
	say_to(s, "<?xml version='1.0'?><stream:stream from='%s' id='%s' version='1.0' xml:lang='en' xmlns='" NS_CLIENT
	          "' xmlns:stream='" NS_STREAM "'>", s->server->options.host, id);
}

/* Nothing more is said and nothing more is heard; the loop does the rest. */
static void hang_up(struct session *s)
{
	if (s->phase >= LEAVING)
		return;
	s->phase = LEAVING;
	s->deadline = s->server->now + s->server->options.delay + LINGER;
}

/* S: <stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>
 * S: </stream:stream>
 * RFC 6120 section 4.9; without a condition, section 4.4. An error belongs into
 * a stream, even when it is the client's header that was wrong. */
static void end_stream(struct session *s, const char *condition)
{
	if (!s->opened)
		say_header(s);
	if (condition)
		say_to(s, "<stream:error><%r xmlns='" NS_STREAMS "'/></stream:error>", condition);
	say_to(s, "</stream:stream>");
	hang_up(s);
}

/* ------------------------------------------------------------------- Login */

/* S: <stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>
 *      <mechanism>SCRAM-SHA-1</mechanism>...</mechanisms>...</stream:features>
 * RFC 6120 section 4.3.2; what is in it: sections 7.4, 5.4.1 and 6.4.1. */
static void say_features(struct session *s)
{
	const struct options *o = &s->server->options;

	if (s->phase == BINDING)
		say_to(s, "<stream:features><bind xmlns='" NS_BIND "'/><session xmlns='" NS_SESSION
		          "'><optional/></session></stream:features>");
	else if (o->tls)
		say_to(s, "<stream:features><starttls xmlns='" NS_TLS "'><required/></starttls></stream:features>");
	else
		say_to(s, "<stream:features><mechanisms xmlns='" NS_SASL "'>%r%r</mechanisms>"
		          "<register xmlns='http://jabber.org/features/iq-register'/></stream:features>",
		       o->no_scram ? "" : "<mechanism>SCRAM-SHA-1</mechanism>",
		       o->no_plain ? "" : "<mechanism>PLAIN</mechanism>");
}

/* C: <?xml version='1.0'?><stream:stream to='HOST' version='1.0' xmlns='jabber:client' ...> */
static void take_stream_header(struct session *s, const struct xml_elem *e)
{
	const char *to = xml_get(e, "to");

	if (strcmp(e->name, "stream") || strcmp(e->ns, NS_STREAM))
		end_stream(s, strcmp(e->name, "stream") ? "bad-format" : "invalid-namespace");
	else if (to && strcasecmp(to, s->server->options.host))
		end_stream(s, "host-unknown");
	else {
		s->phase = s->phase == UNOPENED ? LOGGING_IN : BINDING;
		say_header(s);
		say_features(s);
	}
}

/* C: <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>
 * S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>
 * RFC 6120 section 5.4.2.2: we only pretend to be able to (-T). */
static void refuse_tls(struct session *s, struct xml_elem *e)
{
	(void)e;
	say_to(s, "<failure xmlns='" NS_TLS "'/>");
	end_stream(s, NULL);
}

/* S: <failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>
 * RFC 6120 section 6.4.5: the client may try again, but not for ever. */
static void refuse_login(struct session *s, const char *condition)
{
	s->phase = LOGGING_IN;
	say_to(s, "<failure xmlns='" NS_SASL "'><%r/></failure>", condition);
	if (++s->tries == TRIES)
		end_stream(s, "policy-violation");
}

/* S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>
 * Now both sides begin a new stream; RFC 6120 section 6.4.6. */
static void accept_login(struct session *s, struct account *a, const char *text)
{
	say_to(s, *text ? "<success xmlns='" NS_SASL "'>%r</success>" : "<success xmlns='" NS_SASL "'/>", text);
	s->account = a;
	s->opened = 0;
	s->phase = REOPENING;
	xmlstream_reset(s->xs);
}

/* C: <auth mechanism='PLAIN' ...>base64 of [as whom]\0user\0password</auth>
 * RFC 4616. Behind the n bytes at `as` there is a NUL. */
static void check_plain(struct session *s, const char *as_whom, size_t n)
{
	const char *end = as_whom + n, *user = as_whom + strlen(as_whom) + 1;
	const char *password = user < end ? user + strlen(user) + 1 : end;
	struct account *a;

	if (password >= end || password + strlen(password) < end) {
		refuse_login(s, "malformed-request");
		return;
	}
	a = account_named(s->server, user, strlen(user), 0);
	if (!a || strcmp(a->password, password))
		refuse_login(s, "not-authorized");
	else if (*as_whom && !xmpp_same_jid(as_whom, a->entry.jid))
		refuse_login(s, "invalid-authzid");
	else
		accept_login(s, a, "");
}

/* The salted password is computed once, with a salt of the account's own. A
 * real server keeps only this, so that nobody can steal passwords from it. */
static void hash_password(struct server *server, struct account *a)
{

	if (a->hashed)
		return;
	roll(server, a->salt, SALT);
	memcpy(a->salt + SALT, "\0\0\0\1", 4);
	pbkdf2(a->password, a->salt, SALT + 4, ROUNDS, a->salted);
	a->hashed = 1;
}

/* The account named in n=..., where , and = are written =2C and =3D. */
static struct account *scram_account(struct server *server, const char *first)
{
	size_t n, i, len = 0;
	const char *name = scram_attr(first, 'n', &n);
	char user[MAX_NAME + 1];

	for (i = 0; name && i < n && len < MAX_NAME; i++, len++) {
		user[len] = name[i];
		if (name[i] == '=') {
			if (strncmp(name + i, "=2C", 3) && strncmp(name + i, "=3D", 3))
				return NULL;
			user[len] = name[i + 1] == '2' ? ',' : '=';
			i += 2;
		}
	}
	user[len] = '\0';
	return i < n ? NULL : account_named(server, user, len, 0);
}

/* C: <auth mechanism='SCRAM-SHA-1' ...>base64 of n,,n=user,r=nonce</auth>
 * S: <challenge ...>base64 of r=both nonces,s=salt,i=rounds</challenge>
 * RFC 5802 section 5. y instead of n: the client could bind channels. */
static void challenge_client(struct session *s, const char *first)
{
	size_t n;
	const char *nonce = scram_attr(first, 'r', &n);
	char ours[17], *salt, *base64;

	if ((*first != 'n' && *first != 'y') || strncmp(first + 1, ",,n=", 4) || !nonce || n == 0) {
		refuse_login(s, "malformed-request");
		return;
	}
	s->account = scram_account(s->server, first);
	if (!s->account) {
		refuse_login(s, "not-authorized");
		return;
	}
	free(s->first);
	free(s->challenge);
	hash_password(s->server, s->account);
	random_hex(s->server, ours);
	s->binding = *first == 'n' ? "biws" : "eSws"; /* base64 of n,, and y,, */
	s->first = must(print("%s", first + 3));
	salt = must(base64_encode(s->account->salt, SALT));
	s->challenge = must(print("r=%.*s%s,s=%s,i=%d", (int)n, nonce, ours, salt, ROUNDS));
	base64 = must(base64_encode(s->challenge, strlen(s->challenge)));
	s->phase = PROVING;
	say_to(s, "<challenge xmlns='" NS_SASL "'>%r</challenge>", base64);
	free(salt);
	free(base64);
}

/* C: <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='...'>...</auth>
 * RFC 6120 section 6.4.2; the failures: section 6.5. */
static void begin_login(struct session *s, struct xml_elem *e)
{
	const struct options *o = &s->server->options;
	const char *mechanism = xml_get(e, "mechanism") ? xml_get(e, "mechanism") : "";
	int plain = !o->no_plain && !strcmp(mechanism, "PLAIN");
	int scram = !o->no_scram && !strcmp(mechanism, "SCRAM-SHA-1");
	size_t n;
	char *data = base64_decode(e->text, strlen(e->text), &n);

	if (o->tls)
		refuse_login(s, "encryption-required");
	else if (!plain && !scram)
		refuse_login(s, "invalid-mechanism");
	else if (!data)
		refuse_login(s, "incorrect-encoding");
	else if (scram && strlen(data) < n)
		refuse_login(s, "malformed-request");
	else if (plain)
		check_plain(s, data, n);
	else
		challenge_client(s, data);
	free(data);
}

/* C: c=biws,r=both nonces,p=proof
 * Only who knows the password can compute the proof. We can, too, and with it
 * the signature that proves that: RFC 5802 section 3. Returns whether it is true;
 * `start` is what the message must be up to the proof. */
static int is_proven(struct session *s, const char *message, const char *start, uint8_t signature[20])
{
	uint8_t expected[20], differ = 0;
	size_t n = strlen(start), i;
	char *proof, *all;

	if (strncmp(message, start, n) || strncmp(message + n, ",p=", 3))
		return 0;
	proof = base64_decode(message + n + 3, strlen(message + n + 3), &n);
	all = must(print("%s,%s,%s", s->first, s->challenge, start));
	scram_prove(s->account->salted, all, strlen(all), expected, signature);
	for (i = 0; proof && i < 20 && n == 20; i++) /* all, so that the time tells nothing */
		differ |= expected[i] ^ (uint8_t)proof[i];
	if (!proof || n != 20)
		differ = 1;
	free(all);
	free(proof);
	return !differ;
}

/* C: <response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>base64 of c=biws,r=...,p=...</response>
 * S: <success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>base64 of v=signature</success> */
static void check_response(struct session *s, struct xml_elem *e)
{
	uint8_t signed_by_us[20];
	size_t n;
	const char *nonce = scram_attr(s->challenge, 'r', &n);
	char *start = must(print("c=%s,r=%.*s", s->binding, (int)n, nonce));
	char *message = base64_decode(e->text, strlen(e->text), &n);
	char *signature, *final, *base64;

	if (!message)
		refuse_login(s, "incorrect-encoding");
	else if (!is_proven(s, message, start, signed_by_us))
		refuse_login(s, "not-authorized");
	else {
		signature = must(base64_encode(signed_by_us, 20));
		final = must(print("v=%s", signature));
		base64 = must(base64_encode(final, strlen(final)));
		accept_login(s, s->account, base64);
		free(signature);
		free(final);
		free(base64);
	}
	free(message);
	free(start);
}

static void abort_login(struct session *s, struct xml_elem *e)
{
	(void)e;
	refuse_login(s, "aborted");
}

static void set_password(struct account *a, const char *password)
{
	free(a->password);
	a->password = must(print("%s", password));
	a->registered = 1;
	a->hashed = 0;
}

/* C: <iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>
 * S: <iq type='result' id='1'><query xmlns='jabber:iq:register'><username/><password/>...
 * C: <iq type='set' id='2'><query xmlns='jabber:iq:register'>
 *      <username>alice</username><password>secret</password></query></iq>
 * S: <iq type='result' id='2'/>
 * XEP-0077 section 3.1. Any other iq has to wait until the login is done. */
static void register_account(struct session *s, struct xml_elem *e)
{
	const struct xml_elem *query = xml_child(e, "query", NS_REGISTER);
	const struct xml_elem *user = xml_child(query, "username", NS_REGISTER);
	const struct xml_elem *password = xml_child(query, "password", NS_REGISTER);
	struct account *a = NULL;

	if (is_type(e, "set") && user && password && *password->text)
		a = account_named(s->server, user->text, strlen(user->text), 1);
	if (!query || s->server->options.tls)
		end_stream(s, "not-authorized");
	else if (is_type(e, "get"))
		reply_to(s, e, "result", "<query xmlns='" NS_REGISTER "'><instructions>Choose a name and a password."
		                         "</instructions><username/><password/></query>");
	else if (!a)
		bounce(s, e, "bad-request");
	else if (a->registered)
		bounce(s, e, "conflict");
	else {
		set_password(a, password->text);
		reply_to(s, e, "result", "");
	}
}

static void depart(struct session *s);

/* C: <iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>home</resource></bind></iq>
 * S: <iq type='result' id='1'><bind xmlns='...'><jid>alice@localhost/home</jid></bind></iq>
 * RFC 6120 section 7. If the resource is in use, the newcomer wins, as with
 * most servers (section 7.7.2.2): the old session may be one whose cable was cut. */
static void bind_session(struct session *s, struct xml_elem *e)
{
	const struct xml_elem *bind = xml_child(e, "bind", NS_BIND), *wanted = xml_child(bind, "resource", NS_BIND);
	struct session *old;
	char random[17], *jid;

	if (!bind || !is_type(e, "set") || (wanted && strlen(wanted->text) > MAX_NAME)) {
		end_stream(s, bind ? "policy-violation" : "not-authorized");
		return;
	}
	random_hex(s->server, random);
	jid = must(print("%s/%s", s->account->entry.jid, wanted && *wanted->text ? wanted->text : random));
	old = as(SESSION, find_entry(s->server, jid));
	if (old) {
		end_stream(old, "conflict");
		depart(old);
	}
	enlist(s->server, &s->entry, SESSION, jid);
	s->sibling = s->account->sessions;
	s->account->sessions = s;
	s->phase = ONLINE;
	say_to(s, "<iq type='result' id='%s'><bind xmlns='" NS_BIND "'><jid>%s</jid></bind></iq>", xml_get(e, "id"), jid);
}

/* ---------------------------------------------------------------- Contacts */

/* What account `a` knows about a JID; with `create`, it begins to. */
static struct contact *contact_of(struct account *a, const char *jid, int create)
{
	struct contact *c = a->contacts;

	while (c && !xmpp_same_account(c->jid, jid))
		c = c->next;
	if (c || !create)
		return c;
	c = must(calloc(1, sizeof *c));
	c->jid = must(print("%.*s", (int)strcspn(jid, "/"), jid));
	c->next = a->contacts;
	return a->contacts = c;
}

/* <item jid='bob@localhost' subscription='to' name='Bob'/>
 * RFC 6121 section 2.1.2. Who has only asked to see us is not in the roster. */
static void put_item(struct buffer *b, const struct contact *c)
{
	static const char *const names[] = {"none", "to", "from", "both"};

	if (!(c->flags & ~(unsigned)PENDING))
		return;
	put(b, "<item jid='%s' subscription='%r'", c->jid, names[c->flags & (TO | FROM)]);
	put_attr(b, "name", c->name);
	put(b, c->flags & ASKED ? " ask='subscribe'/>" : "/>");
}

/* C: <iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>
 * S: <iq type='result' id='1'><query xmlns='jabber:iq:roster'><item .../>...</query></iq>
 * RFC 6121 section 2.1.3. */
static void say_roster(struct session *s, const struct xml_elem *e)
{
	const struct contact *c;
	struct buffer b = {0};

	s->wants_roster = 1;
	for (c = s->account->contacts; c; c = c->next)
		put_item(&b, c);
	reply_to(s, e, "result", "<query xmlns='" NS_ROSTER "'>%r</query>", text_in(&b));
	buffer_free(&b);
}

/* S: <iq type='set' id='push1' to='alice@localhost/home'><query xmlns='jabber:iq:roster'><item .../>...
 * RFC 6121 section 2.1.6: who asked for the roster hears of the change. */
static void push_contact(struct server *server, const struct account *a, const struct contact *c, int removed)
{
	struct session *s;
	struct buffer b = {0};
	const char *item;

	if (removed)
		put(&b, "<item jid='%s' subscription='remove'/>", c->jid);
	else
		put_item(&b, c);
	item = text_in(&b);
	for (s = a->sessions; s && *item; s = s->sibling)
		if (s->wants_roster)
			say_to(s, "<iq type='set' id='push%d' to='%s'><query xmlns='" NS_ROSTER "'>%r</query></iq>",
			       ++server->pushes, s->entry.jid, item);
	buffer_free(&b);
}

/* What a subscription stanza changes in the rosters of its sender and of its
 * receiver: RFC 6121 appendix A, where both are on one server. It counts if the
 * sender has one of the flags `needs`, if any, and not the flag `unless`. */
static const struct change {
	const char *type;
	unsigned needs, unless, off, on, their_off, their_on;
} changes[] = {
	{"subscribe",    0,              TO, 0,              ASKED | LISTED, 0,              PENDING},
	{"subscribed",   PENDING,        0,  PENDING,        FROM | LISTED,  ASKED,          TO},
	{"unsubscribe",  TO | ASKED,     0,  TO | ASKED,     0,              FROM | PENDING, 0},
	{"unsubscribed", FROM | PENDING, 0,  FROM | PENDING, 0,              TO | ASKED,     0}
};

static const struct change *change_of(const char *type)
{
	size_t i;

	for (i = 0; type && i < sizeof changes / sizeof *changes; i++)
		if (!strcmp(changes[i].type, type))
			return &changes[i];
	return NULL;
}

/* S: <presence from='alice@localhost/home' to='bob@localhost/bot'/>
 * One session hears of another one's presence, if it has shown its own. */
static void show_presence(const struct session *of, struct session *to, const char *presence)
{
	if (to->presence || to == of)
		say_to(to, "<presence from='%s' to='%s'%r</presence>", of->entry.jid, to->entry.jid, presence);
}

/* `to` begins to see the sessions of `of`, or (`gone`) ceases to. */
static void show_sessions(const struct account *of, const struct account *to, int gone)
{
	const struct session *o;
	struct session *t;

	for (o = of->sessions; o; o = o->sibling)
		for (t = to->sessions; t && o->presence; t = t->sibling)
			show_presence(o, t, gone ? GOODBYE : o->presence);
}

/* C: <presence type='subscribe' to='bob@localhost'/>
 * S: <presence type='subscribe' from='alice@localhost' to='bob@localhost'/>, to bob
 * RFC 6121 section 3. Once bob has answered with `subscribed`, alice sees him. */
static void subscribe(struct session *s, const struct change *change, const char *to)
{
	struct account *me = s->account, *other = account_at(s->server, to);
	struct contact *mine, *theirs;
	struct session *t;
	unsigned flags, saw_them, saw_us;

	mine = other ? contact_of(me, other->entry.jid, 0) : NULL;
	flags = mine ? mine->flags : 0;
	if (!other || other == me || (change->needs && !(flags & change->needs)) || (flags & change->unless))
		return;
	mine = contact_of(me, other->entry.jid, 1);
	theirs = contact_of(other, me->entry.jid, 1);
	saw_them = mine->flags & TO;
	saw_us = theirs->flags & TO;
	mine->flags = (mine->flags & ~change->off) | change->on;
	theirs->flags = (theirs->flags & ~change->their_off) | change->their_on;
	push_contact(s->server, me, mine, 0);
	push_contact(s->server, other, theirs, 0);
	for (t = other->sessions; t; t = t->sibling)
		if (t->presence)
			say_to(t, "<presence type='%r' from='%s' to='%s'/>", change->type, me->entry.jid, other->entry.jid);
	if (saw_us != (theirs->flags & TO))
		show_sessions(me, other, saw_us != 0);
	if (saw_them != (mine->flags & TO))
		show_sessions(other, me, 1);
}

/* RFC 6121 section 2.5: a contact removed is a subscription ended both ways. */
static void forget_contact(struct session *s, const char *jid)
{
	struct contact **link = &s->account->contacts, *c = contact_of(s->account, jid, 1);

	subscribe(s, change_of("unsubscribe"), jid);
	subscribe(s, change_of("unsubscribed"), jid);
	push_contact(s->server, s->account, c, 1);
	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	free(c->jid);
	free(c->name);
	free(c);
}

/* C: <iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='Bob'/></query></iq>
 * S: <iq type='result' id='1'/>
 * RFC 6121 sections 2.3 to 2.5. */
static void change_roster(struct session *s, const struct xml_elem *e)
{
	const struct xml_elem *item = xml_child(xml_child(e, "query", NS_ROSTER), "item", NS_ROSTER);
	const char *jid = xml_get(item, "jid"), *wish = xml_get(item, "subscription"), *name = xml_get(item, "name");
	struct contact *c;

	if (!jid || !*jid) {
		bounce(s, e, "bad-request");
		return;
	}
	if (wish && !strcmp(wish, "remove"))
		forget_contact(s, jid);
	else {
		c = contact_of(s->account, jid, 1);
		free(c->name);
		c->name = name ? must(print("%s", name)) : NULL;
		c->flags |= LISTED;
		push_contact(s->server, s->account, c, 0);
	}
	reply_to(s, e, "result", "");
}

/* ---------------------------------------------------------------- Presence */

/* The first of the sessions that the JID's account has, or NULL. */
static struct session *sessions_of(struct server *server, const char *jid)
{
	struct account *a = as(ACCOUNT, find_bare(server, jid));

	return a ? a->sessions : NULL;
}

/* A session's presence goes to the account's own sessions, this one included,
 * and to those of the contacts that see it: RFC 6121 sections 4.2.2 and 4.5.2. */
static void broadcast(struct session *s, const char *presence)
{
	const struct contact *c;
	struct session *t;

	for (t = s->account->sessions; t; t = t->sibling)
		show_presence(s, t, presence);
	for (c = s->account->contacts; c; c = c->next)
		for (t = c->flags & FROM ? sessions_of(s->server, c->jid) : NULL; t; t = t->sibling)
			show_presence(s, t, presence);
}

/* Who comes online learns who else is: the account's other sessions and the
 * contacts that it sees; and who asked to see it meanwhile. RFC 6121 sections
 * 4.3.2 and 3.1.3. */
static void catch_up(struct session *s)
{
	const struct contact *c;
	const struct session *t;

	for (t = s->account->sessions; t; t = t->sibling)
		if (t != s && t->presence)
			show_presence(t, s, t->presence);
	for (c = s->account->contacts; c; c = c->next) {
		for (t = c->flags & TO ? sessions_of(s->server, c->jid) : NULL; t; t = t->sibling)
			if (t->presence)
				show_presence(t, s, t->presence);
		if (c->flags & PENDING)
			say_to(s, "<presence type='subscribe' from='%s' to='%s'/>", c->jid, s->account->entry.jid);
	}
}

static void leave_rooms(struct session *s);

/* C: <presence/>, or with type='unavailable', which also leaves the rooms. */
static void change_presence(struct session *s, struct xml_elem *e)
{
	int gone = is_type(e, "unavailable"), was_there = s->presence != NULL;
	char *presence;

	if (xml_get(e, "type") && !gone)
		return; /* a subscription to nobody, or an error */
	presence = render(e);
	free(s->presence);
	s->presence = gone ? NULL : presence;
	if (!gone || was_there)
		broadcast(s, presence);
	if (gone) {
		free(presence);
		leave_rooms(s);
	} else if (!was_there)
		catch_up(s);
}

/* The session is over. All it was to others ends; its address is free again. */
static void depart(struct session *s)
{
	struct session **link = &s->account->sessions;

	leave_rooms(s);
	if (s->presence)
		broadcast(s, GOODBYE);
	while (*link != s)
		link = &(*link)->sibling;
	*link = s->sibling;
	strike(s->server, &s->entry);
}

/* ------------------------------------------------------------------- Rooms */

/* What session `s` is in the room, or NULL. */
static struct occupant *occupant_in(const struct session *s, const struct room *room)
{
	struct occupant *o = s->occupants;

	while (o && o->room != room)
		o = o->other;
	return room ? o : NULL;
}

/* S: <presence from='room@service/nick' to='bob@localhost/bot'><x xmlns='http://jabber.org/protocol/muc#user'>
 *      <item affiliation='none' role='participant'/><status code='110'/></x></presence>
 * XEP-0045 section 7.2.3. The owner sees the real JIDs; code 110 tells an
 * occupant that this is about itself. `presence` is GOODBYE when it leaves, or
 * takes the new `nick`. */
static void tell(const struct occupant *about, const struct occupant *to, const char *presence,
                 const char *nick, const char *codes)
{
	int gone = !strcmp(presence, GOODBYE) && !nick;
	struct buffer b = {0};

	if (to == about || to->owner)
		put_attr(&b, "jid", about->session->entry.jid);
	put_attr(&b, "nick", nick);
	say_to(to->session, "<presence from='%s' to='%s'%r<x xmlns='" NS_MUC "#user'>"
	                    "<item affiliation='%r' role='%r'%r/>%r%r</x></presence>",
	       about->entry.jid, to->session->entry.jid, presence, about->owner ? "owner" : "none",
	       gone ? "none" : about->owner ? "moderator" : "participant",
	       text_in(&b), codes, to == about ? "<status code='110'/>" : "");
	buffer_free(&b);
}

/* The one that it is about hears it last: then it knows that it has heard all. */
static void tell_all(const struct occupant *about, const char *presence, const char *nick, const char *codes)
{
	const struct occupant *o;

	for (o = about->room->occupants; o; o = o->next)
		if (o != about)
			tell(about, o, presence, nick, "");
	tell(about, about, presence, nick, codes);
}

static void close_room(struct server *server, struct room *room)
{
	size_t i;

	for (i = 0; i < HISTORY; i++)
		free(room->history[i]);
	free(room->subject);
	free(room->subject_from);
	strike(server, &room->entry);
	free(room);
}

/* C: <presence to='room@service/nick' type='unavailable'/>
 * S: <presence from='room@service/nick' to='...' type='unavailable'><x ...><item role='none' .../>...
 * XEP-0045 section 7.14. */
static void leave(struct occupant *o)
{
	struct server *server = o->session->server;
	struct occupant **link;

	tell_all(o, GOODBYE, NULL, "");
	for (link = &o->room->occupants; *link != o; link = &(*link)->next)
		;
	*link = o->next;
	for (link = &o->session->occupants; *link != o; link = &(*link)->other)
		;
	*link = o->other;
	if (!o->room->occupants)
		close_room(server, o->room);
	strike(server, &o->entry);
	free(o->presence);
	free(o);
}

static void leave_rooms(struct session *s)
{
	while (s->occupants)
		leave(s->occupants);
}

/* S: <message to='...' from='room@service/nick' type='groupchat'><body>...</body>
 *      <delay xmlns='urn:xmpp:delay' from='room@service' stamp='2026-01-31T23:59:59Z'/></message>
 * XEP-0045 section 7.2.14; XEP-0203. What is kept is all from behind `to`. */
static void remember(struct room *room, const char *from, const char *rest)
{
	char stamp[32] = "", **slot = &room->history[room->said % HISTORY];
	time_t t = time(NULL);
	const struct tm *utc = gmtime(&t);
	struct buffer b = {0};

	if (utc)
		strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", utc);
	if (strlen(rest) > MAX_OUTPUT / HISTORY / 2)
		return; /* all of the history must fit into the queue of who comes */
	put(&b, " from='%s'%r<delay xmlns='" NS_DELAY "' from='%s' stamp='%s'/>", from, rest, room->entry.jid, stamp);
	free(*slot);
	*slot = text_in(&b);
	room->said++;
}

/* C: <history maxstanzas='0'/>
 * How much of what was said the joiner wants: XEP-0045 section 7.2.15. */
static size_t history_wanted(const struct room *room, const struct xml_elem *x)
{
	const struct xml_elem *history = xml_child(x, "history", NS_MUC);
	const char *stanzas = xml_get(history, "maxstanzas"), *chars = xml_get(history, "maxchars");
	unsigned long n = stanzas ? strtoul(stanzas, NULL, 10) : HISTORY;

	if (chars && !strcmp(chars, "0"))
		n = 0;
	n = n < HISTORY ? n : HISTORY;
	return n < room->said ? n : room->said;
}

/* What a joiner is told, in the order of XEP-0045 section 7.1: who is there,
 * itself, what was said, and the subject, which ends it. */
static void welcome(struct occupant *o, const struct xml_elem *x, const char *codes)
{
	const struct room *room = o->room;
	const struct occupant *p;
	size_t i;

	for (p = room->occupants; p; p = p->next)
		if (p != o)
			tell(p, o, p->presence, NULL, "");
	tell_all(o, o->presence, NULL, codes);
	for (i = room->said - history_wanted(room, x); i < room->said; i++)
		say_to(o->session, "<message to='%s'%r</message>", o->session->entry.jid, room->history[i % HISTORY]);
	say_to(o->session, "<message from='%s' to='%s' type='groupchat'><subject>%s</subject></message>",
	       room->subject_from ? room->subject_from : room->entry.jid, o->session->entry.jid, room->subject);
}

/* C: <presence to='room@service/nick'><x xmlns='http://jabber.org/protocol/muc'/></presence>
 * XEP-0045 section 7.2. Who comes first opens the room, code 201, and owns it;
 * others may come in at once (section 10.1.2). Takes over `presence`. */
static void join(struct session *s, struct room *room, const char *to, const struct xml_elem *x, char *presence)
{
	struct occupant *o = must(calloc(1, sizeof *o));

	o->owner = !room;
	if (!room) {
		room = must(calloc(1, sizeof *room));
		enlist(s->server, &room->entry, ROOM, must(print("%.*s", (int)strcspn(to, "/"), to)));
	}
	enlist(s->server, &o->entry, OCCUPANT, must(print("%s", to)));
	o->room = room;
	o->session = s;
	o->presence = presence;
	o->next = room->occupants;
	room->occupants = o;
	o->other = s->occupants;
	s->occupants = o;
	welcome(o, x, o->owner ? "<status code='201'/>" : "");
}

/* C: <presence to='room@service/new'/>
 * S: <presence from='room@service/old' type='unavailable'><x ...><item nick='new'/><status code='303'/>...
 * S: <presence from='room@service/new'>...
 * XEP-0045 section 7.6. */
static void rename_occupant(struct occupant *o, const char *to)
{
	const struct occupant *p;

	for (p = o->room->occupants; p; p = p->next)
		tell(o, p, GOODBYE, resource_of(to), "<status code='303'/>");
	strike(o->session->server, &o->entry);
	enlist(o->session->server, &o->entry, OCCUPANT, must(print("%s", to)));
	tell_all(o, o->presence, NULL, "");
}

/* Takes the child out of the tree, so that it is not passed on. */
static struct xml_elem *take_child(struct xml_elem *e, const char *name, const char *ns)
{
	struct xml_elem *c = xml_child(e, name, ns), **link = &e->children;

	while (c && *link != c)
		link = &(*link)->next;
	if (c)
		*link = c->next;
	return c;
}

/* What only the room may say: who has which role, and what is of old. */
static void take_forgeries(struct xml_elem *e)
{
	while (take_child(e, "x", NS_MUC "#user") || take_child(e, "delay", NS_DELAY))
		;
}

/* To the room itself an occupant comes, stays with another status, or comes
 * again, because it has forgotten that it is inside. What others see of it are
 * the children of its stanza, but none that speaks in the room's name. */
static void enter(struct session *s, struct xml_elem *e, struct room *room, const char *to)
{
	struct occupant *me = occupant_in(s, room);
	struct xml_elem *x = take_child(e, "x", NS_MUC);
	char *presence;

	if (!me && !x) {
		bounce(s, e, "not-acceptable");
		return;
	}
	take_forgeries(e);
	e->attrs = NULL;
	presence = render(e);
	if (!me) {
		join(s, room, to, x, presence);
		return;
	}
	free(me->presence);
	me->presence = presence;
	if (x)
		welcome(me, x, "");
	else
		tell_all(me, presence, NULL, "");
}

/* Presence to a room. */
static void visit_room(struct session *s, struct xml_elem *e, const char *to)
{
	struct room *room = as(ROOM, find_bare(s->server, to));
	struct occupant *me = occupant_in(s, room), *there = as(OCCUPANT, find_entry(s->server, to));

	if (xml_get(e, "type")) {
		if (me && is_type(e, "unavailable"))
			leave(me);
	} else if (!*resource_of(to) || !is_user_name(to, strcspn(to, "@/")) || domain_of(to) == to || strlen(to) > 2 * MAX_NAME)
		bounce(s, e, "jid-malformed");
	else if (there && there != me)
		bounce(s, e, "conflict");
	else if (me && !there)
		rename_occupant(me, to);
	else
		enter(s, e, room, to);
}

/* C: <message to='room@service' type='groupchat'><subject>tea</subject></message>
 * XEP-0045 section 8.1; with a body it is a message like others. */
static void change_subject(struct occupant *me, const char *subject)
{
	free(me->room->subject);
	free(me->room->subject_from);
	me->room->subject = must(print("%s", subject));
	me->room->subject_from = must(print("%s", me->entry.jid));
}

/* C: <message to='room@service' type='groupchat' id='1'><body>hello</body></message>
 * S: <message from='room@service/nick' to='...' type='groupchat' id='1'><body>hello</body></message>
 * To all, also to the sender, who sees by the id that it went through: XEP-0045
 * section 7.4. */
static void speak(struct session *s, struct xml_elem *e, struct room *room)
{
	struct occupant *me = occupant_in(s, room), *o;
	const struct xml_elem *subject = xml_child(e, "subject", NS_CLIENT), *body = xml_child(e, "body", NS_CLIENT);
	char *rest;

	if (!me || !is_type(e, "groupchat")) {
		bounce(s, e, me ? "bad-request" : room ? "not-acceptable" : "item-not-found");
		return;
	}
	take_forgeries(e);
	rest = render(e);
	if (subject && !body)
		change_subject(me, subject->text);
	if (body)
		remember(room, me->entry.jid, rest);
	for (o = room->occupants; o; o = o->next)
		say_to(o->session, "<message from='%s' to='%s'%r</message>", me->entry.jid, o->session->entry.jid, rest);
	free(rest);
}

/* --------------------------------------------------------------- Questions */

/* S: <iq type='result' ...><query xmlns='http://jabber.org/protocol/disco#items'>
 *      <item jid='tea@conference.localhost'/>...</query></iq>
 * XEP-0045 section 6.3. */
static void list_rooms(struct session *s, const struct xml_elem *e)
{
	const struct entry *r;
	struct buffer b = {0};
	int i;

	for (i = 0; i < BUCKETS; i++)
		for (r = s->server->book[i]; r; r = r->next)
			if (r->kind == ROOM)
				put(&b, "<item jid='%s'/>", r->jid);
	reply_to(s, e, "result", "<query xmlns='" NS_ITEMS "'>%r</query>", text_in(&b));
	buffer_free(&b);
}

/* Whom a question is for: the server, the own account, another one, the service
 * with the rooms, one of them. */
enum { NOBODY = 0, HOST = 1, OWN = 2, OTHER = 4, SERVICE = 8, A_ROOM = 16 };

static unsigned place_of(struct session *s, const char *to)
{
	struct entry *there = find_entry(s->server, to);

	if (as(ACCOUNT, there))
		return there == &s->account->entry ? OWN : OTHER;
	if (there)
		return there->kind == ROOM ? A_ROOM : NOBODY;
	return xmpp_same_jid(to, s->server->options.host) ? HOST : xmpp_same_jid(to, s->server->service) ? SERVICE : NOBODY;
}

/* The questions that have an answer: it, with %s for the service, or the
 * function that knows it. */
static const struct question {
	const char *type, *name, *ns;
	unsigned places;
	const char *payload;
	void (*answer)(struct session *, const struct xml_elem *);
} questions[] = {
	/* XEP-0199 */
	{"get", "ping", NS_PING, HOST | OWN | OTHER | SERVICE | A_ROOM, "", NULL},
	/* XEP-0030 section 3 */
	{"get", "query", NS_INFO, HOST, "<query xmlns='" NS_INFO "'><identity category='server' type='im'/>"
		"<feature var='" NS_INFO "'/><feature var='" NS_ITEMS "'/><feature var='" NS_PING "'/></query>", NULL},
	{"get", "query", NS_INFO, OWN, "<query xmlns='" NS_INFO "'><identity category='account' type='registered'/>"
		"<feature var='" NS_INFO "'/></query>", NULL},
	{"get", "query", NS_INFO, SERVICE | A_ROOM, "<query xmlns='" NS_INFO "'><identity category='conference' type='text'/>"
		"<feature var='" NS_INFO "'/><feature var='" NS_ITEMS "'/><feature var='" NS_MUC "'/></query>", NULL},
	/* XEP-0030 section 4 */
	{"get", "query", NS_ITEMS, HOST, "<query xmlns='" NS_ITEMS "'><item jid='%s'/></query>", NULL},
	{"get", "query", NS_ITEMS, SERVICE, NULL, list_rooms},
	{"get", "query", NS_ITEMS, OWN | A_ROOM, "<query xmlns='" NS_ITEMS "'/>", NULL},
	/* RFC 6121 section 2 */
	{"get", "query", NS_ROSTER, OWN, NULL, say_roster},
	{"set", "query", NS_ROSTER, OWN, NULL, change_roster},
	/* RFC 3921 section 3: does nothing, but old clients insist */
	{"set", "session", NS_SESSION, HOST | OWN, "", NULL},
	/* XEP-0045 section 10.1.2: does nothing either, a room is open from the start */
	{"set", "query", NS_MUC "#owner", A_ROOM, "", NULL}
};

static void answer_question(struct session *s, const struct xml_elem *e, const char *to)
{
	unsigned place = place_of(s, to);
	const struct question *q = questions, *end = q + sizeof questions / sizeof *questions;

	while (q < end && (!(q->places & place) || !is_type(e, q->type) || !xml_child(e, q->name, q->ns)))
		q++;
	if (q == end)
		bounce(s, e, "service-unavailable");
	else if (q->answer)
		q->answer(s, e);
	else
		reply_to(s, e, "result", q->payload, s->server->service);
}

/* ----------------------------------------------------------------- Routing */

static int is_at_service(const struct session *s, const char *jid)
{
	return xmpp_same_account(domain_of(jid), s->server->service);
}

/* Passes the stanza on, with the sender's true address (RFC 6120 section
 * 8.1.2.1): to one session, or to all of an account that are available. Returns
 * how many got it. */
static int forward(const struct xml_elem *e, const char *from, struct entry *to)
{
	struct account *a = as(ACCOUNT, to);
	struct session *t = a ? a->sessions : as(SESSION, to);
	char *rest = render(e);
	int n = 0;

	for (; t; t = a ? t->sibling : NULL)
		if (!a || t->presence) {
			say_to(t, "<%r from='%s' to='%s'%r</%r>", e->name, from, to->jid, rest, e->name);
			n++;
		}
	free(rest);
	return n;
}

/* A message or an iq to room@service/nick goes between occupants, who know each
 * other by these names: XEP-0045 section 7.5. To ask oneself is to ask the room
 * whether one is still inside: XEP-0410. */
static void whisper(struct session *s, struct xml_elem *e, const char *to)
{
	struct occupant *me = occupant_in(s, as(ROOM, find_bare(s->server, to)));
	struct occupant *other = as(OCCUPANT, find_entry(s->server, to));

	if (!me)
		bounce(s, e, "not-acceptable");
	else if (!other)
		bounce(s, e, "item-not-found");
	else if (is_type(e, "groupchat"))
		bounce(s, e, "bad-request");
	else if (other == me && is_type(e, "get") && xml_child(e, "ping", NS_PING))
		reply_to(s, e, "result", "");
	else
		forward(e, me->entry.jid, &other->session->entry);
}

/* RFC 6121 section 5; to nobody in particular is to oneself. */
static void route_message(struct session *s, struct xml_elem *e)
{
	const char *to = xml_get(e, "to") ? xml_get(e, "to") : s->account->entry.jid;
	struct entry *there = find_entry(s->server, to);

	if (is_at_service(s, to) && *resource_of(to))
		whisper(s, e, to);
	else if (is_at_service(s, to))
		speak(s, e, as(ROOM, there));
	else if ((as(ACCOUNT, there) && is_type(e, "groupchat")) || !forward(e, s->entry.jid, there))
		bounce(s, e, "service-unavailable");
}

/* RFC 6120 section 8.2.3. To a full JID it goes on; all else is for the server. */
static void route_iq(struct session *s, struct xml_elem *e)
{
	const char *to = xml_get(e, "to") ? xml_get(e, "to") : s->account->entry.jid;
	struct session *there = as(SESSION, find_entry(s->server, to));

	if (!xml_get(e, "id") || !xml_get(e, "type"))
		bounce(s, e, "bad-request");
	else if (is_at_service(s, to) && *resource_of(to))
		whisper(s, e, to);
	else if (there)
		forward(e, s->entry.jid, &there->entry);
	else
		answer_question(s, e, to);
}

/* RFC 6121 sections 3 and 4. */
static void route_presence(struct session *s, struct xml_elem *e)
{
	const char *to = xml_get(e, "to");
	const struct change *change = change_of(xml_get(e, "type"));

	if (!to)
		change_presence(s, e);
	else if (is_at_service(s, to))
		visit_room(s, e, to);
	else if (change)
		subscribe(s, change, to);
	else
		forward(e, s->entry.jid, find_entry(s->server, to));
}

/* Who handles what, in which phase. */
static const struct handler {
	enum phase phase;
	const char *name, *ns;
	void (*handle)(struct session *, struct xml_elem *);
} handlers[] = {
	{LOGGING_IN, "auth",     NS_SASL,   begin_login},
	{LOGGING_IN, "abort",    NS_SASL,   abort_login},
	{LOGGING_IN, "iq",       NS_CLIENT, register_account},
	{LOGGING_IN, "starttls", NS_TLS,    refuse_tls},
	{PROVING,    "response", NS_SASL,   check_response},
	{PROVING,    "abort",    NS_SASL,   abort_login},
	{BINDING,    "iq",       NS_CLIENT, bind_session},
	{ONLINE,     "message",  NS_CLIENT, route_message},
	{ONLINE,     "presence", NS_CLIENT, route_presence},
	{ONLINE,     "iq",       NS_CLIENT, route_iq}
};

/* Is it one that another phase would take? */
static int is_stanza(const struct xml_elem *e)
{
	return !strcmp(e->ns, NS_CLIENT)
	       && (!strcmp(e->name, "message") || !strcmp(e->name, "presence") || !strcmp(e->name, "iq"));
}

/* What nobody handles: RFC 6120 sections 4.9.3.12 and 4.9.3.24. */
static void handle_stanza(struct session *s, struct xml_elem *e)
{
	const struct options *o = &s->server->options;
	const struct handler *h = handlers, *end = h + sizeof handlers / sizeof *handlers;

	while (h < end && (h->phase != s->phase || strcmp(h->name, e->name) || strcmp(h->ns, e->ns)))
		h++;
	if (h < end)
		h->handle(s, e);
	else
		end_stream(s, is_stanza(e) ? "not-authorized" : "unsupported-stanza-type");
	s->stanzas++;
	if (s->stanzas == o->hang_up_after)
		hang_up(s);
	if (s->stanzas == o->silent_after)
		s->silent = 1;
}

/* ---------------------------------------------------------------- The loop */

/* -v: what a client said, as it was understood, and without its password. */
static void show_element(struct session *s, struct xml_elem *e)
{
	struct xml_elem *secret = xml_child(xml_child(e, "query", NS_REGISTER), "password", NULL);
	const char *mechanism = xml_get(e, "mechanism"), *text;
	struct buffer b = {0};
	char *rest;

	if (!s->server->options.verbose)
		return;
	if (mechanism && strcmp(mechanism, "SCRAM-SHA-1"))
		secret = e;
	text = secret ? secret->text : NULL;
	if (secret)
		secret->text = "****";
	rest = render(e);
	if (secret)
		secret->text = text;
	put(&b, "<%r", e->name);
	put_attr(&b, "xmlns", strcmp(e->ns, NS_CLIENT) ? e->ns : NULL);
	put_attr(&b, "to", xml_get(e, "to"));
	put(&b, strcmp(e->ns, NS_STREAM) ? "%r</%r>" : "%r", rest, e->name); /* a stream has only begun */
	show_wire(s, 'C', b.bytes, b.end);
	free(rest);
	buffer_free(&b);
}

/* The bytes that may be written now: all; with -d, none before their time;
 * with -c, only a few. */
static size_t sendable(const struct session *s)
{
	size_t n = s->out.end - s->out.start, chunk = (size_t)s->server->options.chunk;

	if (s->server->now < s->due)
		return 0;
	return chunk && n > chunk ? chunk : n;
}

static int is_passing(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* Writes once. When the last byte is out, so is the end of the connection. */
static void write_session(struct session *s)
{
	size_t n = sendable(s);
	ssize_t sent = n > 0 ? send(s->fd, s->out.bytes + s->out.start, n, MSG_NOSIGNAL) : 0;

	if (sent < 0 && !is_passing(errno))
		doom(s, NULL);
	if (sent > 0)
		buffer_consume(&s->out, (size_t)sent);
	if (s->phase == LEAVING && s->out.start == s->out.end && !s->shut) {
		shutdown(s->fd, SHUT_WR);
		s->shut = 1;
	}
}

static void handle_event(struct session *s, enum xml_event event, struct xml_elem *e)
{
	if (e)
		show_element(s, e);
	if (event == XML_OPEN)
		take_stream_header(s, e);
	else if (event == XML_STANZA)
		handle_stanza(s, e);
	else if (event == XML_CLOSE)
		end_stream(s, NULL);
	else if (event == XML_ERROR) {
		fputs("server: bad XML from ", stderr);
		print_name(s);
		fprintf(stderr, ": %s\n", xmlstream_error(s->xs));
		end_stream(s, xmlstream_condition(s->xs));
	}
}

/* Something has come. After the end of a stream it is only read: to close a
 * socket with unread input would be a reset, which can overtake our last words. */
static void read_session(struct session *s, char *buf)
{
	ssize_t n = recv(s->fd, buf, READ_SIZE, 0);
	enum xml_event event = XML_OPEN;
	struct xml_elem *e;

	if (n == 0 && s->phase < LEAVING)
		hang_up(s);
	else if (n == 0 || (n < 0 && !is_passing(errno)))
		doom(s, NULL);
	if (n <= 0 || s->phase >= LEAVING || s->silent)
		return;
	if (xmlstream_feed(s->xs, buf, (size_t)n))
		die("server");
	while (event != XML_MORE && s->phase < LEAVING && !s->silent) {
		event = xmlstream_next(s->xs, &e);
		handle_event(s, event, e);
		xml_free(e);
	}
}

static int prepare_socket(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC) ? -1 : 0;
}

/* TCP_NODELAY, because crumbs (-c) are to be sent as such. */
static void open_session(struct server *server, int fd)
{
	struct session *s;
	int on = 1;

	if (fd >= FD_SETSIZE && !server->is_full++) /* once is enough */
		fprintf(stderr, "server: too many clients: select() can watch descriptors below %d only\n", FD_SETSIZE);
	if (fd >= FD_SETSIZE || server->options.refuse || prepare_socket(fd)
	    || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)) {
		close(fd);
		return;
	}
	s = must(calloc(1, sizeof *s));
	s->xs = must(xmlstream_new(0));
	s->server = server;
	s->fd = fd;
	s->silent = server->options.silent_after == 0;
	server->sessions[fd] = s;
	if (server->options.hang_up_after == 0)
		hang_up(s);
}

static void accept_clients(struct server *server, int listener)
{
	int fd;

	while ((fd = accept(listener, NULL, NULL)) >= 0)
		open_session(server, fd);
	if (errno == EMFILE || errno == ENFILE) {
		perror("server: accept");
		server->full = server->now + 1000;
	}
}

static void free_session(struct session *s)
{
	s->server->sessions[s->fd] = NULL;
	close(s->fd);
	xmlstream_free(s->xs);
	buffer_free(&s->out);
	free(s->first);
	free(s->challenge);
	free(s->presence);
	free(s);
}

/* Sessions that have ended depart, which others hear of: it may be more than
 * one of them can take, which then has to depart, too. Only then they are freed. */
static void sweep(struct server *server)
{
	struct session *s;
	int fd, again = 1;

	while (again)
		for (fd = again = 0; fd < FD_SETSIZE; fd++) {
			s = server->sessions[fd];
			if (s && s->phase >= LEAVING && s->entry.jid) {
				depart(s);
				again = 1;
			}
		}
	for (fd = 0; fd < FD_SETSIZE; fd++)
		if (server->sessions[fd] && server->sessions[fd]->phase == GONE)
			free_session(server->sessions[fd]);
}

/* One session's part before select(): writes, and says what to wait for.
 * Returns when it needs attention at the latest; 0 for never. */
static int64_t watch_session(struct session *s, fd_set *readable, fd_set *writable)
{
	write_session(s);
	if (s->phase == LEAVING && s->server->now >= s->deadline)
		doom(s, NULL);
	if (s->phase == GONE)
		return s->server->now;
	if (s->phase < LEAVING || s->shut)
		FD_SET(s->fd, readable);
	if (sendable(s) > 0)
		FD_SET(s->fd, writable);
	return earlier(s->out.start < s->out.end && s->server->now < s->due ? s->due : 0,
	               s->phase == LEAVING ? s->deadline : 0);
}

/* Waits until something can be done. Returns the number of sessions, or -1. */
static int wait_for_all(struct server *server, fd_set *readable)
{
	int64_t until;
	fd_set writable;
	int i, max = -1, n = 0;

	if (server->full && server->now >= server->full)
		server->full = 0;
	until = server->full;
	FD_ZERO(readable);
	FD_ZERO(&writable);
	for (i = 0; i < 2; i++)
		if (server->listeners[i] >= 0 && !server->full) {
			FD_SET(server->listeners[i], readable);
			max = server->listeners[i] > max ? server->listeners[i] : max;
		}
	for (i = 0; i < FD_SETSIZE; i++)
		if (server->sessions[i]) {
			until = earlier(until, watch_session(server->sessions[i], readable, &writable));
			max = i > max ? i : max;
			n++;
		}
	if (max < 0 && server->ending)
		return 0;
	return wait_ready(readable, &writable, until, 0) < 0 ? -1 : n;
}

static void close_doors(struct server *server)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (server->listeners[i] >= 0)
			close(server->listeners[i]);
		server->listeners[i] = -1;
	}
}

/* S: <stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>
 * The second signal ends those whom the first one left too much time (-d). */
static void shut_down(struct server *server)
{
	int fd;

	stopping = 0;
	close_doors(server);
	for (fd = 0; fd < FD_SETSIZE; fd++) {
		if (server->sessions[fd] && server->sessions[fd]->phase < LEAVING)
			end_stream(server->sessions[fd], "system-shutdown");
		if (server->sessions[fd] && server->ending)
			doom(server->sessions[fd], NULL);
	}
	server->ending = 1;
}

/* Turns until the server was stopped and all sessions have ended; 0, or -1. */
static int serve(struct server *server, char *buf)
{
	fd_set readable;
	int i, n;

	for (;;) {
		server->now = now_ms();
		if (stopping)
			shut_down(server);
		sweep(server);
		n = wait_for_all(server, &readable);
		if (n < 0 || (n == 0 && server->ending))
			return n;
		server->now = now_ms();
		for (i = 0; i < FD_SETSIZE; i++)
			if (server->sessions[i] && FD_ISSET(i, &readable))
				read_session(server->sessions[i], buf);
		for (i = 0; i < 2; i++)
			if (server->listeners[i] >= 0 && FD_ISSET(server->listeners[i], &readable))
				accept_clients(server, server->listeners[i]);
	}
}

/* -------------------------------------------------------------------- Main */

/* A listening socket; -1 and errno if there can be none. */
static int listen_on(const char *address, int port)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *a;
	char number[16];
	int fd, on = 1, failed, saved;

	snprintf(number, sizeof number, "%d", port);
	if (getaddrinfo(address, number, &hints, &a))
		return -1;
	fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
	failed = fd < 0 || prepare_socket(fd) || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on)
	         || (a->ai_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on))
	         || bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, SOMAXCONN);
	saved = errno;
	freeaddrinfo(a);
	if (failed && fd >= 0)
		close(fd);
	errno = saved;
	return failed ? -1 : fd;
}

/* On both loopback addresses, because `localhost` may mean either; a machine
 * without IPv6 is fine. 0, or -1 and errno. */
static int open_doors(struct server *server)
{
	struct sockaddr_in a = {0};
	socklen_t n = sizeof a;
	int *listeners = server->listeners, *port = &server->options.port, chosen = *port != 0;

	listeners[0] = listen_on("127.0.0.1", *port);
	if (listeners[0] < 0 || getsockname(listeners[0], (struct sockaddr *)(void *)&a, &n))
		return -1;
	*port = ntohs(a.sin_port);
	listeners[1] = listen_on("::1", *port);
	return listeners[1] < 0 && chosen && errno == EADDRINUSE ? -1 : 0;
}

/* -a: lines of the form "user password". 0, or -1 after a message. */
static int load_accounts(struct server *server)
{
	FILE *f = fopen(server->options.accounts, "r");
	char *line = NULL, *password;
	struct account *a;
	size_t size = 0, n;
	int number = 0, failed = !f;

	if (!f)
		perror(server->options.accounts);
	while (!failed && getline(&line, &size, f) > 0) {
		number++;
		line[strcspn(line, "\r\n")] = '\0';
		n = strcspn(line, " \t");
		password = line + n + strspn(line + n, " \t");
		if (!*line || *line == '#')
			continue;
		a = *password ? account_named(server, line, n, 1) : NULL;
		failed = !a;
		if (a)
			set_password(a, password);
		else
			fprintf(stderr, "%s:%d: not a user name and a password\n", server->options.accounts, number);
	}
	if (f && ferror(f)) {
		perror(server->options.accounts);
		failed = 1;
	}
	free(line);
	if (f)
		fclose(f);
	return failed ? -1 : 0;
}

/* The sessions are gone, and so are the rooms: accounts are left. */
static void free_accounts(struct server *server)
{
	struct account *a;
	struct contact *c;
	int i;

	for (i = 0; i < BUCKETS; i++)
		while ((a = as(ACCOUNT, server->book[i]))) {
			while ((c = a->contacts)) {
				a->contacts = c->next;
				free(c->jid);
				free(c->name);
				free(c);
			}
			free(a->password);
			strike(server, &a->entry);
			free(a);
		}
}

static int usage(void)
{
	fputs("usage: server [-rTv] [-a file] [-c bytes] [-d ms] [-m mechanism] [-n stanzas] [-p port] [-q stanzas]\n"
	      "              [-t host]\n"
	      "  -a  accounts, a line each: user password (any user, with the name as password)\n"
	      "  -c  write at most so many bytes at once\n"
	      "  -d  delay each answer by so many ms\n"
	      "  -m  offer only this mechanism: plain or scram\n"
	      "  -n  hang up after so many stanzas, those of the login included\n"
	      "  -p  port, 0 for a free one (5222)\n"
	      "  -q  say nothing more after so many stanzas\n"
	      "  -r  refuse: accept connections and close them at once\n"
	      "  -t  XMPP host (localhost)\n"
	      "  -T  demand TLS, which this server cannot do\n"
	      "  -v  show what goes over the wire\n", stderr);
	return 2;
}

/* Is `text` a number from min to max? Then that is *n. */
static int take_number(const char *text, long min, long max, int *n)
{
	char *end;
	long value = strtol(text, &end, 10);

	*n = (int)value;
	return !*end && end != text && value >= min && value <= max;
}

/* One option; returns whether it is a right one. */
static int take_option(int c, struct options *o)
{
	switch (c) {
	case 'a': o->accounts = optarg; return 1;
	case 'c': return take_number(optarg, 1, MAX_OUTPUT, &o->chunk);
	case 'd': return take_number(optarg, 0, 3600000, &o->delay);
	case 'm':
		o->no_scram = !strcmp(optarg, "plain");
		o->no_plain = !strcmp(optarg, "scram");
		return o->no_scram != o->no_plain;
	case 'n': return take_number(optarg, 0, 1000000000, &o->hang_up_after);
	case 'p': return take_number(optarg, 0, 65535, &o->port);
	case 'q': return take_number(optarg, 0, 1000000000, &o->silent_after);
	case 'r': return o->refuse = 1;
	case 't': o->host = optarg; return 1;
	case 'T': return o->tls = 1;
	case 'v': return o->verbose = 1;
	}
	return 0;
}

static void stop_server(int signal)
{
	(void)signal;
	xmpp_stop();
}

/* From the open doors to the end; the exit status. */
static int run_server(struct server *server)
{
	struct sigaction on_signal = {.sa_handler = stop_server}, ignore = {.sa_handler = SIG_IGN};
	char *buf = must(malloc(READ_SIZE));
	int failed = open_doors(server);

	if (failed)
		fprintf(stderr, "server: port %d: %s\n", server->options.port, strerror(errno));
	else {
		sigaction(SIGINT, &on_signal, NULL);
		sigaction(SIGTERM, &on_signal, NULL);
		sigaction(SIGPIPE, &ignore, NULL);
		printf("server: listening on port %d\n", server->options.port);
		fflush(stdout);
		failed = serve(server, buf);
		if (failed)
			perror("server");
	}
	close_doors(server);
	free(buf);
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct options options = {.host = "localhost", .port = 5222, .hang_up_after = -1, .silent_after = -1};
	struct server *server;
	int c, status;

	while ((c = getopt(argc, argv, "a:c:d:m:n:p:q:rt:Tv")) != -1)
		if (!take_option(c, &options))
			return usage();
	if (optind < argc)
		return usage();
	server = must(calloc(1, sizeof *server));
	server->options = options;
	server->listeners[0] = server->listeners[1] = -1;
	server->random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
	if (server->random < 0)
		die("server: /dev/urandom");
	server->service = must(print("conference.%s", options.host));
	status = options.accounts && load_accounts(server) ? 1 : run_server(server);
	free_accounts(server);
	close(server->random);
	free(server->service);
	free(server);
	return status;
}
