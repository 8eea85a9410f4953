/* jumperbot.c - bots that hop between chat rooms and talk: how many of them can
 * a server take?
 *
 *     ./jumperbot -n 200 -r 20 -m
 *
 * The problem. Proactive bots, thousands of them: nobody calls them, each does
 * something of its own accord now and then. And select() can watch a thousand
 * descriptors, not more.
 *
 * So a bot is a place and a timer: on_wake says what to do next, depending on
 * where it is. A thousand bots share a process; for more of them there are more
 * processes. The first one runs no bots: it starts the others, and adds up what
 * they count, in memory that all of them share. The parts:
 *
 *     the counts   what is measured
 *     the bot      a handler for each thing that may happen to it
 *     the crowd    a thousand bots, one loop
 *     the monitor  what people see of it
 *     the watch    the first process, and its children
 *     main         options */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	JOIN_TIMEOUT = 30000,   /* ms for a room to let us in, or out, or to repeat what we said */
	GRACE = 10000,          /* ms at most at the end, for what was said to come back */
	RETRY = 2000,           /* ms at most until we try again; more where the server wants us to slow down */
	MAX_SLOW = 60000,       /* ms more between phrases, where the server wants us to slow down */
	MAX_NAMESAKES = 10,     /* in a room, before we try another one */
	TICK = 1000000,         /* us from one look at the clock to the next */
	MAX_LAG = 50,           /* ms: later than that, and the figures are ours, not the server's */
	SPARE = 24,             /* descriptors of a process that are not for bots */
	MAX_HOST = 255          /* bytes; the DNS has no longer names (RFC 1035 section 2.3.4) */
};

static const char *const phrases[] = {
	"Good morning, everybody!", "Has anyone seen my towel?", "It works on my machine.", "Tea or coffee?",
	"That <tag> was never closed.", "Bread & butter for all!", "To hop or not to hop?",
	"Somebody said \"hello\", I think.", "Schöne Grüße!", "I am not a robot. Well, I am."
};

/* Set by SIGINT and SIGTERM, which the first process passes on to the others as
 * SIGUSR1, and in these when the first one is gone. The loop may see it a second
 * late, the bots see it at once. */
static volatile sig_atomic_t interrupted;

/* -------------------------------------------------------------- The counts */

/* What a process counts:
 *
 *     entered     bots that have been in a room
 *     sent        phrases said
 *     heard       own phrases that came back
 *     received    phrases heard, whoever said them
 *     lost        connections, or attempts at one, whatever the reason; they come back
 *     refused     connections that ended for good, before we wanted it: a wrong password, say
 *     no_entry    rooms that would not have us, or that we could not unlock
 *     thrown_out  of a room: kicked, room destroyed, silently forgotten
 *     throttled   told to slow down
 *     bounced     phrases that came back as an error
 *     unanswered  joins and leaves that the room never confirmed
 *     unheard     phrases that never came back
 *     repeated    phrases that came back twice
 *
 * and what the summary does not show: the bots that are running, logged in, and in
 * a room; the phrases on their way; and how many round trips took how long. Several
 * processes' counts are added up; but of the last ones the greatest is taken. */
enum { CLASSES = 96 };

enum count {
	ENTERED, SENT, HEARD, RECEIVED,
	LOST, REFUSED, NO_ENTRY, THROWN_OUT, THROTTLED, BOUNCED, UNANSWERED, UNHEARD, REPEATED,
	RUNNING, LOGGED_IN, IN_ROOM, AWAITED,
	TIMES,          /* the first class of round trips: see class_end() */
	SUMS = TIMES + CLASSES,
	ALL_IN = SUMS,  /* ms from the start until the last bot had entered a room */
	LONGEST,        /* us: the longest round trip */
	LAG, WORST_LAG, /* ms: how late the loop was, at worst, in the last second; and ever */
	COUNTS
};

static const char *const count_names[] = {
	"entered", "sent", "heard", "received",
	"lost", "refused", "no_entry", "thrown_out", "throttled", "bounced", "unanswered", "unheard", "repeated"
};

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void raise_to(long long *max, long long value)
{
	if (value > *max)
		*max = value;
}

/* The classes of round trips: i is for those of less than so many us, and not less
 * than class i - 1. There are four for each doubling. */
static long long class_end(int i)
{
	return (5 + i % 4) * (1LL << i / 4) / 4;
}

static void count_time(long long *counts, long long us)
{
	int i = 0;

	while (i < CLASSES - 1 && us >= class_end(i))
		i++;
	counts[TIMES + i]++;
	raise_to(&counts[LONGEST], us);
}

/* The time in ms that `part` of all round trips did not exceed; 0 without any. The
 * last class, from 15 s on, has no end but the longest one. */
static double percentile(const long long *counts, double part)
{
	long long n = counts[TIMES], us = counts[LONGEST];
	int i = 0;

	if (counts[HEARD] == 0)
		return 0;
	while (i < CLASSES - 1 && (double)n < part * (double)counts[HEARD])
		n += counts[TIMES + ++i];
	if (i < CLASSES - 1 && class_end(i) < us)
		us = class_end(i);
	return (double)us / 1000;
}

/* ----------------------------------------------------------------- The bot */

enum place { OFFLINE, OUTSIDE, ENTERING, INSIDE, LEAVING };

struct bot {
	struct xmpp *x;
	struct crowd *crowd;
	long long *counts;      /* of its process */
	int number;
	char user[24];
	uint32_t random;        /* the state of its own dice: its choices do not depend on others' */
	enum place place;
	int room_number;        /* where it is, or was last */
	char room[MAX_HOST + 40];
	int namesakes;          /* how many of its nicks were taken there */
	char nick[40];
	int phrases;            /* that it still wants to say here */
	long slow;              /* ms more between phrases */
	unsigned said, heard;   /* the number of its last phrase, and of the last that came back */
	int64_t due;            /* us: when it ought to be woken */
	char entered;           /* it has been in a room */
};

/* What main() was asked for; and what the first process knows, and the others. */
struct crowd {
	struct xmpp_options options;
	int bots, first, rooms, rate, factor, seconds, seed, listen, monitor;
	int64_t start;          /* us */
	struct share *shares;   /* in memory that all processes see */
	int share_count;
	pid_t watcher;          /* the first process */

	/* known to the first process only */
	int failed;             /* has another one ended badly? */
	long long shown[COUNTS]; /* the sums that were shown last */
	int64_t shown_at;       /* us: when that was */

	/* known to the others only */
	int ending;             /* nobody says or does anything any more */
	long long lag;          /* ms: how late the loop was, at worst, in this second */
};

/* Bots that share a process. */
struct share {
	long long counts[COUNTS]; /* only that process writes them, while it lives */
	int from, n;            /* its first bot, and how many */
	pid_t pid;              /* 0: it does not run, or no more */
};

/* 0 to n - 1 (Marsaglia's xorshift). */
static int roll(struct bot *b, int n)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 17;
	b->random ^= b->random << 5;
	return (int)(b->random % (uint32_t)n);
}

static void wake_after(struct bot *b, long ms)
{
	b->due = now_us() + (int64_t)ms * 1000;
	xmpp_wake_after(b->x, ms);
}

/* In so many ms, and as many more as people let pass between two phrases. */
static void speak_after(struct bot *b, long ms)
{
	long more = 5000 + roll(b, 9001);

	wake_after(b, ms + b->slow + (b->crowd->factor ? more / b->crowd->factor : 0));
}

/* It is in its room no more, or was in none: nothing comes back now. */
static void step_out(struct bot *b, enum place place)
{
	if (b->place == INSIDE || b->place == LEAVING)
		b->counts[IN_ROOM]--;
	b->counts[UNHEARD] += b->said - b->heard;
	b->counts[AWAITED] -= b->said - b->heard;
	b->heard = b->said;
	b->place = place;
}

static void enter(struct bot *b, int namesakes)
{
	if (b->crowd->ending || interrupted)
		return;
	b->place = ENTERING;
	b->namesakes = namesakes;
	snprintf(b->nick, sizeof b->nick, namesakes ? "jumperbot_%d_%d" : "jumperbot_%d", b->number, namesakes);
	xmpp_join(b->x, b->room, b->nick);
	wake_after(b, JOIN_TIMEOUT);
}

/* To another room, any but this. */
static void jump(struct bot *b)
{
	const struct crowd *c = b->crowd;

	step_out(b, OUTSIDE);
	b->room_number = c->rooms > 1 ? (b->room_number + 1 + roll(b, c->rooms - 1)) % c->rooms : 0;
	snprintf(b->room, sizeof b->room, "bot_room_%d@conference.%s", b->room_number, c->options.host);
	enter(b, 0);
}

/* The same in a while: this room does not want us. */
static void jump_later(struct bot *b)
{
	step_out(b, OUTSIDE);
	wake_after(b, b->slow + RETRY / 2 + roll(b, RETRY / 2));
}

static void leave(struct bot *b)
{
	b->place = LEAVING;
	xmpp_leave(b->x, b->room, b->nick);
	wake_after(b, JOIN_TIMEOUT);
}

/* C: <message to='bot_room_3@conference.localhost' type='groupchat' id='7.12.5d1'>
 *      <body>Tea or coffee?</body></message>
 * In the id: which bot, the number of the phrase, and the time. The room tells
 * everybody what was said, also us, and keeps the id: XEP-0045 section 7.4. With
 * -i 0 we speak again when our phrase has come back. */
static void speak(struct bot *b)
{
	const char *phrase = phrases[roll(b, sizeof phrases / sizeof *phrases)];
	char id[60];

	if (b->phrases-- == 0) {
		leave(b);
		return;
	}
	snprintf(id, sizeof id, "%d.%u.%llx", b->number, b->said + 1, (unsigned long long)now_us());
	if (!b->crowd->listen
	    && !xmpp_send(b->x, "<message to='%s' type='groupchat' id='%s'><body>%s</body></message>", b->room, id, phrase)) {
		b->said++;
		b->counts[SENT]++;
		b->counts[AWAITED]++;
	}
	speak_after(b, b->crowd->factor ? 0 : JOIN_TIMEOUT);
}

static void on_ready(struct xmpp *x)
{
	struct bot *b = x->data;

	b->counts[LOGGED_IN]++;
	jump(b);
}

/* The timer: it is time for the next thing, or for what did not happen. */
static void on_wake(struct xmpp *x)
{
	struct bot *b = x->data;

	raise_to(&b->crowd->lag, (now_us() - b->due) / 1000);
	if (b->crowd->ending || interrupted)
		return; /* it stays where it is, to hear its last phrase */
	if (b->place == INSIDE) {
		speak(b);
		return;
	}
	if (b->place != OUTSIDE) {
		b->counts[UNANSWERED]++;
		xmpp_leave(b->x, b->room, b->nick); /* for the case that we are in, after all */
	}
	jump(b);
}

/* <error type='cancel'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>
 * RFC 6120 section 8.3. */
static int has_error(const struct xml_elem *stanza, const char *condition)
{
	return xml_child(xml_child(stanza, "error", NULL), condition, "urn:ietf:params:xml:ns:xmpp-stanzas") != NULL;
}

/* If the room that we opened stays locked, nobody else can come in. */
static void note_unlocked(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	struct bot *b = x->data;

	(void)data;
	if (xml_has(answer, "type", "error"))
		b->counts[NO_ENTRY]++;
}

/* Does it come from our nick in the room? */
static int is_me(const struct bot *b, const struct xml_elem *e)
{
	const char *from = xml_get(e, "from"), *slash = from ? strchr(from, '/') : NULL;

	return slash && !strcmp(slash + 1, b->nick);
}

/* S: <presence from='bot_room_3@conference.localhost/jumperbot_7'><x ...>...<status code='110'/></x></presence>
 * We are in. With status 201 the room is new, and locked until we say that it
 * is as it should be (XEP-0045 section 10.1.2). */
static void entered(struct bot *b, const struct xml_elem *presence)
{
	if (xmpp_has_status(presence, 201))
		xmpp_unlock_room(b->x, b->room, note_unlocked, NULL);
	b->place = INSIDE;
	b->phrases = 5 + roll(b, 5);
	b->counts[IN_ROOM]++;
	if (!b->entered) {
		b->entered = 1;
		b->counts[ENTERED]++;
		b->counts[ALL_IN] = (now_us() - b->crowd->start) / 1000;
	}
	speak_after(b, 0);
}

/* What an error asks for. Of type wait, or policy-violation: be quiet for a
 * while, and then for twice that (RFC 6120 section 8.3). A room that is full says
 * wait, too, but with service-unavailable (XEP-0045 section 7.2.9): there are others. */
static void heed_error(struct bot *b, const struct xml_elem *stanza, enum count otherwise)
{
	int wait = xml_has(xml_child(stanza, "error", NULL), "type", "wait") && !has_error(stanza, "service-unavailable");
	int slow_down = wait || has_error(stanza, "policy-violation");

	b->counts[slow_down ? THROTTLED : otherwise]++;
	if (slow_down)
		b->slow = 2 * b->slow + 1000 < MAX_SLOW ? 2 * b->slow + 1000 : MAX_SLOW;
}

/* S: <presence from='...' type='error'><error type='cancel'><conflict xmlns='...'/></error></presence>
 * The nick is taken. Or item-not-found: whoever opened the room has not yet
 * unlocked it. Or else we are not welcome. XEP-0045 section 7.2. */
static void not_entered(struct bot *b, const struct xml_elem *presence)
{
	if (has_error(presence, "conflict") && b->namesakes < MAX_NAMESAKES) {
		enter(b, b->namesakes + 1);
		return;
	}
	if (!has_error(presence, "item-not-found"))
		heed_error(b, presence, NO_ENTRY);
	jump_later(b);
}

/* Our nick is what the room says that it is. Of type unavailable with status 303:
 * we are gone in name only, and our next presence has a new one (XEP-0045 section
 * 7.6). Gone before we were in may be the end of an earlier stay in the same room,
 * which took long, unless it says that we were kicked (307). */
static void on_presence(struct xmpp *x, const struct xml_elem *presence)
{
	struct bot *b = x->data;
	int failed = xml_has(presence, "type", "error"), gone = xml_has(presence, "type", "unavailable");
	const char *from = xml_get(presence, "from");

	if (b->place < ENTERING || !xmpp_same_account(from, b->room))
		return;
	if (failed && b->place == ENTERING)
		not_entered(b, presence);
	if (failed || (!xmpp_has_status(presence, 110) && !is_me(b, presence)) || (gone && xmpp_has_status(presence, 303)))
		return;
	if (!gone && strchr(from, '/'))
		snprintf(b->nick, sizeof b->nick, "%s", strchr(from, '/') + 1);
	if (b->place == ENTERING && !gone) {
		entered(b, presence);
	} else if (b->place == LEAVING && gone) {
		jump(b);
	} else if (gone && (b->place == INSIDE || xmpp_has_status(presence, 307))) {
		b->counts[THROWN_OUT]++;
		jump_later(b);
	}
}

/* S: <message from='bot_room_3@conference.localhost' type='error' id='7.12.5d1'>
 *      <error type='modify'><not-acceptable xmlns='...'/></error></message>
 * Nobody heard it. With this error, or item-not-found: because we are not in the
 * room any more, and nobody told us. XEP-0045 section 7.4. */
static void bounced(struct bot *b, const struct xml_elem *message)
{
	heed_error(b, message, BOUNCED);
	if (has_error(message, "not-acceptable") || has_error(message, "item-not-found")) {
		b->counts[THROWN_OUT]++;
		jump_later(b);
	} else if (b->place == INSIDE)
		speak_after(b, RETRY);
}

/* One of our phrases came back, well or as an error. Rooms keep the order. */
static void came_back(struct bot *b, const struct xml_elem *message, unsigned number, int64_t sent_at)
{
	if (number <= b->heard) {
		b->counts[REPEATED]++;
		return;
	}
	b->counts[UNHEARD] += number - b->heard - 1;
	b->counts[AWAITED] -= number - b->heard;
	b->heard = number;
	if (xml_has(message, "type", "error")) {
		bounced(b, message);
		return;
	}
	b->counts[HEARD]++;
	count_time(b->counts, now_us() - sent_at);
	b->slow /= 2;
	if (b->place == INSIDE && !b->crowd->factor)
		speak_after(b, 0);
}

/* S: <message from='bot_room_3@conference.localhost/jumperbot_7' type='groupchat' id='7.12.5d1'>...
 * A delayed one is of old. An error is the room's, which has no nick; other occupants
 * can send one, too. In an id that is not ours there may be any number: no more
 * digits are read than a type has room for. */
static void on_message(struct xmpp *x, const struct xml_elem *message)
{
	struct bot *b = x->data;
	const char *id = xml_get(message, "id"), *from = xml_get(message, "from");
	unsigned long long bot, number, sent_at;

	if (xml_child(message, "delay", "urn:xmpp:delay") || !xmpp_same_account(from, b->room))
		return;
	if (xml_has(message, "type", "groupchat") && xml_child(message, "body", NULL))
		b->counts[RECEIVED]++;
	if (!id || b->place < INSIDE || !(strchr(from, '/') ? is_me(b, message) : xml_has(message, "type", "error")))
		return;
	if (sscanf(id, "%10llu.%10llu.%15llx", &bot, &number, &sent_at) == 3 /* NOLINT(cert-err34-c): the widths see to it */
	    && bot == (unsigned)b->number && number <= b->said)
		came_back(b, message, (unsigned)number, (int64_t)sent_at);
}

static void on_close(struct xmpp *x, const char *reason)
{
	struct bot *b = x->data;
	int comes_back = xmpp_retry_in(x) >= 0;

	if (b->place != OFFLINE)
		b->counts[LOGGED_IN]--;
	if (!comes_back)
		b->counts[RUNNING]--;
	step_out(b, OFFLINE);
	if (reason && (b->counts[comes_back ? LOST : REFUSED]++ == 0 || !comes_back))
		fprintf(stderr, "jumperbot_%d: %s%s\n", b->number, reason,
		        comes_back ? " (and comes back; more of these are only counted)" : "");
}

/* --------------------------------------------------------------- The crowd */

/* SIGCHLD only ends a wait. */
static void on_signal(int number)
{
	if (number != SIGCHLD)
		interrupted = 1;
}

/* The logins are spread over time: a storm of them would measure nothing but
 * the storm. */
static struct xmpp *make_bot(struct crowd *c, struct share *s, struct bot *b, int i)
{
	struct xmpp_options o = c->options;

	b->crowd = c;
	b->counts = s->counts;
	b->number = c->first + i;
	b->random = ((uint32_t)c->seed + (uint32_t)b->number) * 2654435769u | 1;
	b->room_number = roll(b, c->rooms);
	snprintf(b->user, sizeof b->user, "jumperbot_%d", b->number);
	o.user = o.trace_name = b->user;
	o.start_after = (long)((int64_t)i * 1000 / c->rate);
	b->x = xmpp_new(&o);
	if (!b->x)
		return NULL;
	b->x->data = b;
	b->x->on_ready = on_ready;
	b->x->on_message = on_message;
	b->x->on_presence = on_presence;
	b->x->on_wake = on_wake;
	b->x->on_close = on_close;
	b->counts[RUNNING]++;
	return b->x;
}

/* Each second. Who has lost the first process ends, too: nobody watches. */
static void tick(struct crowd *c, long long *counts, int64_t late)
{
	raise_to(&c->lag, late / 1000);
	raise_to(&counts[WORST_LAG], c->lag);
	counts[LAG] = c->lag;
	c->lag = 0;
	if (getppid() != c->watcher)
		interrupted = 1;
}

/* Turns the loop until all is over: on a signal, or at the end of -d, the bots
 * fall silent, and log out when their last phrases have come back. That may take
 * a while, for the bots of other processes may log out first and keep the server
 * busy. A second signal: they log out at once. */
static long turn_until_end(struct crowd *c, struct share *s, struct xmpp **conns)
{
	int64_t now, next = c->start + TICK, end = c->seconds ? c->start + (int64_t)c->seconds * TICK : INT64_MAX;
	long alive;

	do {
		now = now_us();
		if (now >= next) {
			tick(c, s->counts, now - next);
			next = now + TICK;
		}
		if (!c->ending && (interrupted || now >= end)) {
			c->ending = 1;
			interrupted = 0;
			end = now + (int64_t)GRACE * 1000;
		}
		if (c->ending && (s->counts[AWAITED] == 0 || interrupted || now >= end))
			xmpp_stop();
		alive = xmpp_turn(conns, (size_t)s->n, (long)(next - now) / 1000 + 1);
	} while (alive > 0);
	raise_to(&s->counts[WORST_LAG], c->lag);
	return alive;
}

/* All that a process does for its share. Returns its exit status. */
static int run_share(struct crowd *c, struct share *s)
{
	struct bot *bots = calloc((size_t)s->n, sizeof *bots);
	struct xmpp **conns = calloc((size_t)s->n, sizeof *conns);
	int i, failed = !bots || !conns;

	signal(SIGINT, SIG_IGN); /* Ctrl-C goes to all processes, and the first one passes it on */
	signal(SIGTERM, SIG_IGN); /* which timeout(1), say, sends to all as well */
	for (i = 0; i < s->n && !failed; i++)
		failed = !(conns[i] = make_bot(c, s, bots + i, s->from + i));
	failed = failed || turn_until_end(c, s, conns) < 0;
	if (failed)
		perror("jumperbot");
	for (i = 0; conns && i < s->n; i++)
		xmpp_free(conns[i]);
	free(conns);
	free(bots);
	return failed;
}

/* ------------------------------------------------------------- The monitor */

/* A process may be counting while we look, so that one figure is newer than the
 * next; not so when it has ended. */
static void add_up(const struct crowd *c, long long *sums)
{
	const long long *counts;
	int i, k;

	memset(sums, 0, COUNTS * sizeof *sums);
	for (i = 0; i < c->share_count; i++) {
		counts = c->shares[i].counts;
		for (k = 0; k < SUMS; k++)
			sums[k] += counts[k];
		for (; k < COUNTS; k++)
			raise_to(&sums[k], counts[k]);
	}
}

/* One line: how many are where, and how fast they talk since the last line. */
static void print_line(const struct crowd *c, const long long *sums, int64_t now)
{
	double seconds = (double)(now - c->shown_at) / 1e6;
	long long recent[COUNTS];
	int i;

	for (i = 0; i < COUNTS; i++)
		recent[i] = i < SUMS ? sums[i] - c->shown[i] : sums[i];
	printf("%4d s: %lld running, %lld logged in, %lld in a room; %.0f/s sent, %.0f/s received; "
	       "round trip %.1f ms (99%%: %.1f, ever: %.1f)", (int)((now - c->start) / 1000000),
	       sums[RUNNING], sums[LOGGED_IN], sums[IN_ROOM],
	       (double)recent[SENT] / seconds, (double)recent[RECEIVED] / seconds,
	       percentile(recent, 0.5), percentile(recent, 0.99), (double)sums[LONGEST] / 1000);
	for (i = LOST; i <= REPEATED; i++)
		if (sums[i])
			printf("; %s %lld", count_names[i], sums[i]);
	if (sums[LAG] > MAX_LAG)
		printf("; these figures are too high by up to %lld ms: jumperbot is late itself", sums[LAG]);
}

/* -m: a line that is renewed each second, or else, to be kept, one each ten. */
static void show(struct crowd *c)
{
	int terminal = isatty(STDOUT_FILENO);
	int64_t now = now_us();
	long long sums[COUNTS];

	if (!c->monitor || now - c->shown_at < (terminal ? TICK : 10 * TICK) - TICK / 2)
		return;
	add_up(c, sums);
	if (terminal)
		printf("\r\033[K\033[?7l"); /* to the first column; clear what was there; what is too long is cut off */
	print_line(c, sums, now);
	printf(terminal ? "\033[?7h" : "\n");
	fflush(stdout);
	memcpy(c->shown, sums, sizeof sums);
	c->shown_at = now;
}

static void print_counts(const long long *sums, int from, int to)
{
	for (; from <= to; from++)
		printf("%s=%lld\n", count_names[from], sums[from]);
}

/* How it went, in lines that a shell can evaluate. Returns the exit status: did
 * every bot get in, and could it be told? */
static int summarize(const struct crowd *c)
{
	long long sums[COUNTS];

	add_up(c, sums);
	if (c->monitor && isatty(STDOUT_FILENO))
		putchar('\n');
	printf("bots=%d\n", c->bots);
	print_counts(sums, ENTERED, ENTERED);
	if (sums[ENTERED] == c->bots)
		printf("all_in_ms=%lld\n", sums[ALL_IN]);
	printf("seconds=%.1f\n", (double)(now_us() - c->start) / 1e6);
	print_counts(sums, SENT, RECEIVED);
	printf("p50_ms=%.2f\np99_ms=%.2f\nmax_ms=%.2f\n", percentile(sums, 0.5), percentile(sums, 0.99),
	       (double)sums[LONGEST] / 1000);
	print_counts(sums, LOST, REPEATED);
	printf("lag_ms=%lld\n", sums[WORST_LAG]);
	if (fflush(stdout) || ferror(stdout)) {
		perror("jumperbot");
		return 1;
	}
	return c->failed || sums[ENTERED] < c->bots;
}

/* --------------------------------------------------------------- The watch */

/* Memory, all zero, that is still the same one after fork(): that of a file without
 * a name. NULL on failure. */
static void *share_memory(size_t size)
{
	FILE *file = tmpfile();
	void *memory = MAP_FAILED;
	size_t i;

	for (i = 0; file && i < size; i++)
		putc(0, file); /* all of it: where the disk is full, a hole would kill us when we write there */
	if (file && !fflush(file) && !ferror(file))
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
	if (file)
		fclose(file); /* the memory remains */
	return memory == MAP_FAILED ? NULL : memory;
}

/* As many bots for each process as descriptors allow: select() watches those below
 * FD_SETSIZE, and the system may allow fewer (or say -1: any number). A connection
 * is one descriptor; through a tunnel, it is two. 0, or -1. */
static int divide(struct crowd *c)
{
	long limit = sysconf(_SC_OPEN_MAX);
	int most = (int)(limit < 0 || limit > FD_SETSIZE ? FD_SETSIZE : limit) - SPARE;

	if (c->options.tunnel)
		most /= 2;
	if (most < 1) {
		fprintf(stderr, "jumperbot: the limit of open files (ulimit -n) is too low for %d bots\n", c->bots);
		return -1;
	}
	c->share_count = (c->bots + most - 1) / most;
	c->shares = share_memory((size_t)c->share_count * sizeof *c->shares);
	if (!c->shares)
		perror("jumperbot");
	return c->shares ? 0 : -1;
}

/* One of the processes has ended. What it counted remains, but for who was where:
 * one that dies cannot take that back. */
static void end_share(struct crowd *c, struct share *s, int status)
{
	s->pid = 0;
	s->counts[RUNNING] = s->counts[LOGGED_IN] = s->counts[IN_ROOM] = s->counts[LAG] = 0;
	if (status)
		c->failed = 1;
	if (WIFSIGNALED(status))
		fprintf(stderr, "jumperbot: the process with bots %d to %d died of signal %d\n",
		        s->from, s->from + s->n - 1, WTERMSIG(status));
}

/* Tells those who run that we were interrupted. Returns how many they are. */
static int look_after(struct crowd *c)
{
	struct share *s;
	int status, running = 0;

	for (s = c->shares; s < c->shares + c->share_count; s++) {
		status = 0;
		if (s->pid && waitpid(s->pid, &status, WNOHANG) != 0)
			end_share(c, s, status);
		if (s->pid && interrupted)
			kill(s->pid, SIGUSR1);
		running += s->pid != 0;
	}
	interrupted = 0;
	return running;
}

/* All that the first process does while the others run. Signals are held back from
 * the look at what they mean to the moment when it sleeps: none comes too early to
 * wake it. But not while it shows something: nobody may be reading. */
static void watch(struct crowd *c)
{
	const struct sigaction wake = {.sa_handler = on_signal, .sa_flags = SA_RESTART}; /* it must not cut what we print */
	const struct timespec second = {1, 0};
	sigset_t all, before;
	int running;

	sigfillset(&all);
	sigaction(SIGCHLD, &wake, NULL);
	do {
		show(c);
		sigprocmask(SIG_SETMASK, &all, &before);
		running = look_after(c);
		if (running > 0)
			pselect(0, NULL, NULL, NULL, &second, &before);
		sigprocmask(SIG_SETMASK, &before, NULL);
	} while (running > 0);
}

/* Starts a process for each share, and waits for them. Returns the exit status,
 * in each of them. */
static int run_crowd(struct crowd *c)
{
	struct share *s;
	pid_t pid;
	int i;

	c->watcher = getpid();
	for (i = 0; i < c->share_count && !c->failed; i++) {
		s = c->shares + i;
		s->from = (int)((int64_t)c->bots * i / c->share_count);
		s->n = (int)((int64_t)c->bots * (i + 1) / c->share_count) - s->from;
		pid = fork();
		if (pid == 0)
			return run_share(c, s);
		s->pid = pid > 0 ? pid : 0;
		c->failed = pid < 0;
	}
	if (c->failed) {
		perror("jumperbot");
		interrupted = 1; /* those that run are told to end */
	}
	watch(c);
	return summarize(c);
}

/* -------------------------------------------------------------------- Main */

static int usage(FILE *out)
{
	fputs("usage: jumperbot [-lmvR] [-n bots] [-f first] [-r rooms] [-t host] [-e server] [-p port]\n"
	      "                 [-a logins] [-i factor] [-d seconds] [-s seed] [-x command]\n"
	      "  -n  how many bots (10): jumperbot_0, jumperbot_1, ...\n"
	      "  -f  the number of the first one (0)\n"
	      "  -r  how many rooms (10): bot_room_0@conference.HOST, ...\n"
	      "  -t  XMPP host, behind the @ of the bots' addresses (localhost)\n"
	      "  -e  machine that it runs on (the host)\n"
	      "  -p  port (5222)\n"
	      "  -a  logins per second, until all are in (50)\n"
	      "  -i  talk so many times as often (1); 0: as fast as answers come back\n"
	      "  -d  end after so many seconds (never)\n"
	      "  -s  a number: with the same one, bots choose the same rooms and phrases\n"
	      "  -x  connect through this command, for example one that adds TLS; it finds the\n"
	      "      host, the server and the port in $XMPP_HOST, $XMPP_SERVER and $XMPP_PORT\n"
	      "  -l  only listen\n"
	      "  -m  monitor: show how it goes\n"
	      "  -v  show what goes over the wire\n"
	      "  -R  register the accounts that do not exist\n"
	      "The password is $XMPP_PASSWORD, or else jumperbot.\n", out);
	return out == stdout ? 0 : 2;
}

/* A number from min to max; 0, or -1. */
static int read_number(const char *text, long min, long max, int *to)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (end == text || *end || n < min || n > max)
		return -1;
	*to = (int)n;
	return 0;
}

/* Reads the options. Returns -1, or the exit status if the program must end. */
static int read_options(int argc, char **argv, struct crowd *c)
{
	int option, failed = 0;

	while (!failed && (option = getopt(argc, argv, "hn:f:r:t:e:p:a:i:d:s:x:lmvR")) != -1) {
		switch (option) {
		case 'h': return usage(stdout);
		case 'n': failed = read_number(optarg, 1, 1000000, &c->bots); break;
		case 'f': failed = read_number(optarg, 0, 1000000000, &c->first); break;
		case 'r': failed = read_number(optarg, 1, 1000000, &c->rooms); break;
		case 't': c->options.host = optarg; break;
		case 'e': c->options.server = optarg; break;
		case 'p': failed = read_number(optarg, 1, 65535, &c->options.port); break;
		case 'a': failed = read_number(optarg, 1, 1000000, &c->rate); break;
		case 'i': failed = read_number(optarg, 0, 5000, &c->factor); break;
		case 'd': failed = read_number(optarg, 1, 100000000, &c->seconds); break;
		case 's': failed = read_number(optarg, 0, INT_MAX, &c->seed); break;
		case 'x': c->options.tunnel = optarg; break;
		case 'l': c->listen = 1; break;
		case 'm': c->monitor = 1; break;
		case 'v': c->options.trace = stderr; break;
		case 'R': c->options.create = 1; break;
		default: failed = -1;
		}
	}
	if (failed || optind < argc || strlen(c->options.host) > MAX_HOST)
		return usage(stderr);
	return -1;
}

int main(int argc, char **argv)
{
	struct crowd c = {
		.options = {.host = "localhost", .password = getenv("XMPP_PASSWORD"), .reconnect = 1},
		.bots = 10, .rooms = 10, .rate = 50, .factor = 1,
		.seed = (int)(now_us() % INT_MAX), .start = now_us(), .shown_at = now_us()
	};
	struct sigaction action = {.sa_handler = on_signal};
	int status;

	if (!c.options.password)
		c.options.password = "jumperbot";
	status = read_options(argc, argv, &c);
	if (status >= 0)
		return status;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGCHLD, SIG_DFL); /* where it is ignored, as it may be by who started us, no child's status is kept */
	setvbuf(stderr, NULL, _IOLBF, 0); /* a trace has many short pieces */
	return divide(&c) || run_crowd(&c);
}
