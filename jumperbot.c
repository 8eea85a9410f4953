/* jumperbot.c - bots that hop between chat rooms and talk: how many of them can a server take?
 *
 *     ./jumperbot -n 200 -r 20 -m
 *
 * The problem. Thousands of bots must each do something now and then, although no event prompts
 * them. And select() cannot watch more than about a thousand descriptors.
 *
 * The solution. Each bot has a timer and a place, for example inside a room. When the timer runs
 * out, the place determines what on_wake() does. Up to a thousand bots share a process, called a
 * worker. The parent process runs no bots. It starts the workers, tells them when to end, and adds
 * up their counts, which each worker reports once a second through a pipe:
 *
 *     parent <---pipe--- worker: bots 0 to 999    <---> the server
 *            <---pipe--- worker: bots 1000 to 1999 <--> the server
 *
 * The parts:
 *
 *     the counts   what is measured
 *     the bot      a handler for each kind of event
 *     the worker   up to a thousand bots, one loop
 *     the monitor  the status line (-m) and the summary
 *     the parent   starts and ends the workers, and reads their reports
 *     main         options */
#define _POSIX_C_SOURCE 200809L
#include "xmpp.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	JOIN_TIMEOUT = 30000, /* ms; how long to wait for a room to answer */
	GRACE = 10,           /* s; how long to wait at the end for the last phrases */
	MAX_PAUSE = 60000,    /* ms; the upper limit of `slow`, which makes a bot's pauses longer */
	TICK = 1000000,       /* us; one second, the time from one report to the next */
	MAX_LAG = 50,         /* ms; a greater lag makes round trips seem longer, so it is shown */
	SLOWED_TWICE = 3000,  /* ms; `slow` after two calls of slow_down(); see handle_error() */
	SPARE = 24,           /* descriptors of a process that are not for bots or workers */
	TRIED_FIRST = 5,      /* bots that log in first; the others wait until one succeeds */
	MAX_PHRASES = 9,      /* the most that a bot says in a room before it leaves */
	MAX_HOST = 255        /* bytes; the limit of the DNS (RFC 1035 section 2.3.4) */
};

static const char *const phrases[] = {
	"Good morning, everybody!", "Has anyone seen my towel?", "It works on my machine.",
	"Tea or coffee?", "That <tag> was never closed.", "Bread & butter for all!",
	"To hop or not to hop?", "Somebody said \"hello\", I think.", "Schöne Grüße!",
	"I am not a robot. Well, I am."
};

/* The number of requests to end. The parent counts SIGINT, SIGTERM, the SIGALRM that follows them
 * after GRACE, and the failure of a worker. pass_on() sets the number back to 0. A worker counts
 * SIGALRM, which comes from the parent or from its own alarm(); see turn_until_end(). */
static volatile sig_atomic_t interrupted;

/* -------------------------------------------------------------- The counts */

/* The counts of a worker:
 *
 *     entered     bots that have been in a room
 *     sent        phrases that were sent; in the end, each is heard, bounced or unheard
 *     heard       own phrases that came back
 *     received    phrases of any bot that arrived
 *     lost        connections that broke or could not be opened; these bots try again
 *     refused     bots that gave up, for example because of a wrong password
 *     no_entry    times that a room refused a bot, or that a new room could not be unlocked
 *     thrown_out  times that a bot lost its place in a room, for example because it was kicked
 *     throttled   times that a bot was told to slow down
 *     bounced     phrases that came back as an error
 *     unanswered  joins and leaves that the room did not confirm in time
 *     unheard     phrases that never came back
 *     repeated    phrases that came back twice
 *
 * LOGGED_IN and IN_ROOM say how many bots are logged in and in a room now. The parent adds up the
 * counts before SUMS. Of each count from SUMS on, it keeps the largest value.
 *
 * A report is the whole array, 456 bytes. POSIX guarantees that up to 512 bytes (PIPE_BUF) are
 * written to a pipe in one piece, so the parent always reads a whole report. */
enum { CLASSES = 96 };

enum count {
	ENTERED, SENT, HEARD, RECEIVED,
	LOST, REFUSED, NO_ENTRY, THROWN_OUT, THROTTLED, BOUNCED, UNANSWERED, UNHEARD, REPEATED,
	LOGGED_IN, IN_ROOM,
	TIMES,          /* the first class of round trips; see class_end() */
	SUMS = TIMES + CLASSES,
	ALL_IN = SUMS,  /* ms from the start until the last bot had entered a room */
	LONGEST,        /* us; the longest round trip */
	LAG,            /* ms; the longest delay of the loop since the last report */
	COUNTS
};

static const char *const count_names[] = {
	"entered", "sent", "heard", "received", "lost", "refused", "no_entry", "thrown_out",
	"throttled", "bounced", "unanswered", "unheard", "repeated"
};

/* Returns the time in us (microseconds), by a clock that nobody can set back. */
static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void raise_to(uint32_t *max, int64_t value)
{
	if (value > *max)
		*max = value < INT32_MAX ? (uint32_t)value : INT32_MAX;
}

/* Returns the end of class i, in us. Round trips are not stored, only counted by class. Class i
 * begins where the one before it ends. Each doubling of the time has four classes, so a percentile
 * is at most 25% too high. The last class begins at 14.7 s and has no end. */
static int64_t class_end(int i)
{
	return i < CLASSES - 1 ? (5 + i % 4) * (INT64_C(1) << i / 4) / 4 : INT64_MAX;
}

static void count_time(uint32_t counts[COUNTS], int64_t us)
{
	int i = 0;

	while (us >= class_end(i))
		i++;
	counts[TIMES + i]++;
	raise_to(&counts[LONGEST], us);
}

/* Returns the number of phrases that may still come back. */
static uint32_t awaited(const uint32_t counts[COUNTS])
{
	return counts[SENT] - counts[HEARD] - counts[BOUNCED] - counts[UNHEARD];
}

/* Returns the time in ms that this percentage of the round trips did not exceed, rounded up to the
 * end of a class. If there are none, returns at most 0.001. HEARD is the number of round trips. */
static double percentile(const long long sums[COUNTS], int percent)
{
	long long n = sums[TIMES];
	int i = 0;

	while (100 * n < percent * sums[HEARD])
		n += sums[TIMES + ++i];
	return (double)(class_end(i) < sums[LONGEST] ? class_end(i) : sums[LONGEST]) / 1000;
}

/* ----------------------------------------------------------------- The bot */

/* Where a bot is. The order matters: from INSIDE on, the bot is in a room. */
enum place { OFFLINE, OUTSIDE, ENTERING, INSIDE, LEAVING };

struct phrase {
	const char *text;
	char id[48];
	int64_t sent_at;        /* us; 0 if it is no longer awaited */
};

struct bot {
	struct xmpp *x;
	struct crowd *crowd;
	int number;
	char user[24];
	uint32_t random;        /* for roll(); each bot has one, so -s determines its choices */
	enum place place;
	int room_number;        /* where it is, or was last */
	char room[MAX_HOST + 40];
	char *nick;             /* the nick that this room has assigned, or NULL */
	int to_say, n_said;     /* phrases left to say in this room, and those said so far */
	struct phrase said[MAX_PHRASES];
	long slow;              /* ms to add to each pause, because of errors; see slow_down() */
	int64_t due;            /* us; when the timer runs out, to measure the lag */
	char been_inside;       /* it has been in a room, so ENTERED includes it */
	char *refused;          /* why it has given up; otherwise NULL */
};

/* A worker. The worker and the parent each have a copy, with their own end of the pipe. */
struct worker {
	int from, n;            /* the number of its first bot, and how many it has */
	int pipe;               /* for reports; in the parent, -1 when the worker has ended */
	pid_t pid;
	uint32_t counts[COUNTS]; /* from its last report; only in the parent */
};

/* All the data of a process. fork() gives each worker a copy. */
struct crowd {
	/* the user's options */
	struct xmpp_options options;
	const char *service;    /* the host of the rooms; NULL for conference.HOST */
	int bots, first, rooms, rate, factor, seconds, seed, listen, monitor;
	unsigned long long run; /* unique to this run; see ID */
	int64_t start;          /* us */

	/* the parent; a worker needs only worker_count and its own element of workers[] */
	struct worker workers[FD_SETSIZE];
	int worker_count;
	int started;            /* workers started so far, including those that have ended */
	int failed;             /* a worker has failed, was killed, or could not be started */
	int64_t passed_at;      /* us; when a signal was last passed on; 0 for never */
	int64_t shown_at;       /* us; when the monitor last showed a line */
	long long sums[COUNTS]; /* the counts of all workers together */
	long long recent[COUNTS]; /* the same, since shown_at; but LONGEST since the start */

	/* the worker */
	struct bot bot[FD_SETSIZE];
	struct xmpp *conns[FD_SETSIZE];
	int made;               /* how many bots exist already */
	int got_in;             /* a bot has logged in, here or in the first worker */
	int64_t slot;           /* us; the latest time that next_slot() has reserved */
	uint32_t counts[COUNTS]; /* these may wrap around; see add_up() */
};

/* Returns a random number from 0 to n - 1 (Marsaglia's xorshift). */
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

/* Sets the timer for the next phrase to the sum of `ms`, b->slow, and a random pause. The pause is
 * that of a person, 5 to 14 seconds, divided by the factor of -i. With -i 0, there is no pause. */
static void speak_after(struct bot *b, long ms)
{
	long more = 5000 + roll(b, 9001), factor = b->crowd->factor;

	wake_after(b, ms + b->slow + (factor ? more / factor : 0));
}

/* Counts a phrase as HEARD, BOUNCED or UNHEARD, and no longer awaits it. */
static void settle(struct bot *b, struct phrase *p, enum count count)
{
	p->sent_at = 0;
	b->crowd->counts[count]++;
}

/* Records that the bot is now at `place`, outside any room. Phrases that have not come back from
 * its last room are unheard. */
static void step_out(struct bot *b, enum place place)
{
	int i;

	if (b->place >= INSIDE)
		b->crowd->counts[IN_ROOM]--;
	for (i = 0; i < b->n_said; i++)
		if (b->said[i].sent_at)
			settle(b, b->said + i, UNHEARD);
	b->n_said = 0;
	free(b->nick);
	b->nick = NULL;
	b->place = place;
}

static const char *nick_of(const struct bot *b)
{
	return b->nick ? b->nick : b->user;
}

/* Enters another room, or the same one again if there is no other. */
static void jump(struct bot *b)
{
	const struct crowd *c = b->crowd;
	int others = c->rooms - 1;

	step_out(b, OUTSIDE);
	b->room_number = others > 0 ? (b->room_number + 1 + roll(b, others)) % c->rooms : 0;
	snprintf(b->room, sizeof b->room, "bot_room_%d@%s%s", b->room_number,
	         c->service ? "" : "conference.", c->service ? c->service : c->options.host);
	if (interrupted)
		return; /* at the end, the bot stays outside */
	b->place = ENTERING;
	xmpp_join(b->x, b->room, b->user);
	wake_after(b, JOIN_TIMEOUT);
}

/* Makes the bot's pauses longer. heard() and leave() make them shorter again. */
static void slow_down(struct bot *b)
{
	b->slow = 2 * b->slow + 1000 < MAX_PAUSE ? 2 * b->slow + 1000 : MAX_PAUSE;
}

/* Records that the bot is in no room. It will enter another one after a pause. */
static void jump_later(struct bot *b)
{
	step_out(b, OUTSIDE);
	slow_down(b);
	wake_after(b, b->slow + roll(b, 1000));
}

static void leave(struct bot *b)
{
	b->place = LEAVING;
	b->slow = 0;
	xmpp_leave(b->x, b->room, nick_of(b));
	wake_after(b, JOIN_TIMEOUT);
}

/* The id of a phrase is jump.RUN.BOT.NUMBER. RUN consists of a time and a process id, so it differs
 * from run to run. */
#define ID "jump."

/* C: <message to='bot_room_3@conference.localhost' type='groupchat' id='jump.5d1....7.12'>
 *      <body>Tea or coffee?</body></message>
 * Says a phrase. The room sends it to all occupants, including the bot itself (XEP-0045 section
 * 7.4). With -i 0, the bot speaks again when the phrase has come back, or after JOIN_TIMEOUT. With
 * -l, it sends nothing. */
static void speak(struct bot *b)
{
	const struct crowd *c = b->crowd;
	struct phrase *p = b->said + b->n_said;

	b->to_say--;
	p->text = phrases[roll(b, sizeof phrases / sizeof *phrases)];
	p->sent_at = now_us();
	snprintf(p->id, sizeof p->id, ID "%016llx.%d.%u", c->run, b->number,
	         (unsigned)b->crowd->counts[SENT] + 1);
	if (!c->listen
	    && !xmpp_send(b->x,
	                  "<message to='%s' type='groupchat' id='%s'><body>%s</body></message>",
	                  b->room, p->id, p->text)) {
		b->n_said++;
		b->crowd->counts[SENT]++;
	}
	speak_after(b, c->factor ? 0 : JOIN_TIMEOUT);
}

/* Does the next thing when the timer runs out. If the bot is entering or leaving a room, the room
 * has not answered in time. */
static void on_wake(struct xmpp *x)
{
	struct bot *b = x->data;

	raise_to(&b->crowd->counts[LAG], (now_us() - b->due) / 1000);
	if (interrupted)
		return; /* the bot stays in its room, to hear its last phrases */
	if (b->place == ENTERING || b->place == LEAVING) {
		b->crowd->counts[UNANSWERED]++;
		xmpp_leave(b->x, b->room, nick_of(b)); /* in case the bot is in the room */
	}
	if (b->place != INSIDE)
		jump(b);
	else if (b->to_say > 0)
		speak(b);
	else
		leave(b);
}

/* Counts a refusal by a room. Prints the first one, with the server's explanation. */
static void note_refusal(struct bot *b, const struct xml_elem *stanza)
{
	const struct xml_elem *text = xml_child(xml_child(stanza, "error", NULL), "text", NULL);
	const char *p = text ? text->text : "";

	if (b->crowd->counts[NO_ENTRY]++ > 0)
		return;
	fprintf(stderr, "%s: %s: %s", b->user, b->room, xmpp_error_condition(stanza));
	fputs(*p ? " " : "", stderr);
	xmpp_print(p, stderr);
	fputs(" (more of these are only counted)\n", stderr);
}

/* Handles the answer to xmpp_unlock_room(). A failure counts as a refusal, since no other bot can
 * enter a locked room. */
static void note_unlocked(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	(void)data;
	if (xml_has(answer, "type", "error"))
		note_refusal(x->data, answer);
}

/* True if a stanza comes from ROOM/NICK, which is the bot itself. */
static int is_me(const struct bot *b, const struct xml_elem *e)
{
	const char *from = xml_get(e, "from"), *slash = from ? strchr(from, '/') : NULL;

	return slash && xmpp_same_account(from, b->room) && !strcmp(slash + 1, nick_of(b));
}

/* True if a stanza is an error from ROOM/NICK, from the room, or from the service of all rooms. */
static int is_refusal(const struct bot *b, const struct xml_elem *e)
{
	const char *from = xml_get(e, "from"), *service = strchr(b->room, '@') + 1;

	return xml_has(e, "type", "error")
	       && (is_me(b, e) || xmpp_same_jid(from, b->room) || xmpp_same_jid(from, service));
}

/* S: <presence from='bot_room_3@conference.localhost/jumperbot_7'>
 *      <x xmlns='http://jabber.org/protocol/muc#user'>...<status code='110'/></x></presence>
 * Handles the bot's own presence, which completes the join. Status 201 says that the room is new,
 * so the bot must unlock it. */
static void entered(struct bot *b, const struct xml_elem *presence)
{
	uint32_t *counts = b->crowd->counts;

	if (xmpp_has_status(presence, 201))
		xmpp_unlock_room(b->x, b->room, note_unlocked, NULL);
	b->place = INSIDE;
	b->to_say = 5 + roll(b, MAX_PHRASES - 4);
	counts[IN_ROOM]++;
	if (!b->been_inside) {
		b->been_inside = 1;
		counts[ENTERED]++;
		raise_to(&counts[ALL_IN], (now_us() - b->crowd->start) / 1000);
	}
	speak_after(b, 0);
}

/* S: <presence from='...' type='error'>
 *      <error type='wait'><resource-constraint xmlns='...:xmpp-stanzas'/></error></presence>
 * S: <message from='bot_room_3@conference.localhost' type='error' id='jump.5d1....7.12'>
 *      <error type='modify'><not-acceptable xmlns='...:xmpp-stanzas'/></error></message>
 * Handles an error from a room that has refused a join or rejected a phrase.
 *
 * The type wait, and the condition policy-violation, mean that the bot should slow down (RFC 6120
 * section 8.3). But service-unavailable of type wait means that the room is full (XEP-0045 section
 * 7.2.9), which is a refusal. In answer to a join, item-not-found may mean that the room is locked
 * (section 7.2.10). Its creator will soon unlock it, so this error is not counted until the bot has
 * been slowed down twice. In answer to a phrase, item-not-found and not-acceptable mean that the
 * bot is no longer an occupant, although no presence has said so (section 7.4). */
static void handle_error(struct bot *b, const struct xml_elem *stanza)
{
	const char *condition = xmpp_error_condition(stanza);
	int not_found = !strcmp(condition, "item-not-found");
	int wait = xml_has(xml_child(stanza, "error", NULL), "type", "wait");
	int busy = !strcmp(condition, "policy-violation")
	           || (wait && strcmp(condition, "service-unavailable"));

	if (busy) {
		b->crowd->counts[THROTTLED]++;
		slow_down(b);
	}
	if (b->place == ENTERING) {
		if (!busy && (!not_found || b->slow >= SLOWED_TWICE))
			note_refusal(b, stanza);
		jump_later(b);
	} else if (not_found || !strcmp(condition, "not-acceptable")) {
		b->crowd->counts[THROWN_OUT]++;
		jump_later(b);
	} else if (b->place == INSIDE)
		speak_after(b, 2000); /* only this phrase was rejected */
}

/* Handles the bot's own presence in the room, and ignores that of others. The type unavailable
 * means that the bot has left, with two exceptions. With status 303, only the nick changes, and the
 * next presence has the new one (XEP-0045 section 7.6). While the bot is entering, the presence may
 * belong to its previous stay in the room, unless the status is 307 (kicked). */
static void on_presence(struct xmpp *x, const struct xml_elem *presence)
{
	struct bot *b = x->data;
	int gone = xml_has(presence, "type", "unavailable");
	const char *from = xml_get(presence, "from");

	if (b->place == ENTERING && is_refusal(b, presence)) {
		handle_error(b, presence);
		return;
	}
	if (b->place < ENTERING || xml_has(presence, "type", "error")
	    || !xmpp_same_account(from, b->room) || !strchr(from, '/')
	    || (!xmpp_has_status(presence, 110) && !is_me(b, presence))
	    || (gone && xmpp_has_status(presence, 303)))
		return;
	if (!gone && !is_me(b, presence)) { /* a new nick, after status 303 or with 210 */
		free(b->nick);
		b->nick = strdup(strchr(from, '/') + 1); /* on failure, phrases count as unheard */
	}
	if (b->place == ENTERING && !gone) {
		entered(b, presence);
	} else if (b->place == LEAVING && gone) {
		jump(b);
	} else if (gone && (b->place == INSIDE || xmpp_has_status(presence, 307))) {
		b->crowd->counts[THROWN_OUT]++;
		jump_later(b);
	}
}

/* Handles a phrase that has come back from the room. With -i 0, the bot speaks again at once. */
static void heard(struct bot *b, struct phrase *p)
{
	count_time(b->crowd->counts, now_us() - p->sent_at);
	settle(b, p, HEARD);
	b->slow /= 2;
	if (b->place == INSIDE && !b->crowd->factor)
		speak_after(b, 0);
}

/* Returns the phrase that a message brings back or rejects, or NULL. If an id begins with ID, it
 * must be that of the phrase, since the message may come from another run with the same accounts.
 * But some rooms drop or replace ids. In that case, returns the first awaited phrase with the same
 * text, since rooms keep the order. For an error without a body, any text will do. */
static struct phrase *find_phrase(struct bot *b, const char *id, const struct xml_elem *body)
{
	int ours = id && !strncmp(id, ID, strlen(ID));
	struct phrase *p;

	for (p = b->said; p < b->said + b->n_said; p++)
		if ((ours && !strcmp(id, p->id))
		    || (!ours && p->sent_at && (!body || !strcmp(body->text, p->text))))
			return p;
	return NULL;
}

/* S: <message from='bot_room_3@conference.localhost/jumperbot_7' type='groupchat'
 *      id='jump.5d1....7.12'>...
 * Handles a phrase, or the error that rejects one. Ignores what was said before the bot came, which
 * is marked as delayed (XEP-0203, or XEP-0091 in old servers). Also ignores groupchat messages
 * without a body, for example those that set the subject. */
static void on_message(struct xmpp *x, const struct xml_elem *message)
{
	struct bot *b = x->data;
	const struct xml_elem *body = xml_child(message, "body", NULL);
	int groupchat = xml_has(message, "type", "groupchat");
	struct phrase *p;

	if (xml_child(message, "delay", "urn:xmpp:delay")
	    || xml_child(message, "x", "jabber:x:delay") || (groupchat && !body))
		return;
	if (groupchat && xmpp_same_account(xml_get(message, "from"), b->room))
		b->crowd->counts[RECEIVED]++;
	if (b->place < INSIDE || !(groupchat ? is_me(b, message) : is_refusal(b, message)))
		return;
	p = find_phrase(b, xml_get(message, "id"), body);
	if (p && !p->sent_at)
		b->crowd->counts[REPEATED] += groupchat;
	else if (p && groupchat)
		heard(b, p);
	else if (p) {
		settle(b, p, BOUNCED);
		handle_error(b, message);
	}
}

/* Enters a room. The first bot that logs in also prints the refusals of the bots before it. */
static void on_ready(struct xmpp *x)
{
	struct bot *b = x->data;
	struct crowd *c = b->crowd;
	int i;

	for (i = 0; i < c->made && !c->got_in; i++)
		if (c->bot[i].refused)
			fprintf(stderr, "%s: %s\n", c->bot[i].user, c->bot[i].refused);
	c->got_in = 1;
	c->counts[LOGGED_IN]++;
	jump(b);
}

/* Reserves a time for a login, so that all workers together make at most -a logins per second.
 * Returns the number of ms until then. */
static long next_slot(struct crowd *c)
{
	int64_t now = now_us(), interval = (int64_t)TICK * c->worker_count / c->rate;

	c->slot = c->slot + interval > now ? c->slot + interval : now;
	return (long)((c->slot - now) / 1000);
}

/* Handles the end of a connection. A bot that was refused does not reconnect. Until a bot has
 * logged in, refusals are not printed. If all are refused, one message is enough. */
static void on_close(struct xmpp *x, const char *reason)
{
	struct bot *b = x->data;
	struct crowd *c = b->crowd;

	if (b->place != OFFLINE)
		c->counts[LOGGED_IN]--;
	step_out(b, OFFLINE);
	if (reason && xmpp_retry_in(x) >= 0) {
		if (c->counts[LOST]++ == 0)
			fprintf(stderr, "%s: %s (and reconnects; more of these are only counted)\n",
			        b->user, reason);
		xmpp_retry_after(x, next_slot(c));
	} else if (reason) {
		c->counts[REFUSED]++;
		b->refused = strdup(reason);
		if (c->got_in)
			fprintf(stderr, "%s: %s\n", b->user, reason);
		else if ((int)c->counts[REFUSED] == c->made)
			fprintf(stderr, "jumperbot: %s; %d of %d tried%s\n",
			        reason, c->made, c->made,
			        strncmp(reason, "login refused", 13) ? "" : ": check the password");
	}
}

/* -------------------------------------------------------------- The worker */

/* Counts a request to end. If no second request comes within GRACE, SIGALRM is the second one. */
static void on_signal(int number)
{
	(void)number;
	interrupted++;
	alarm(GRACE);
}

/* Creates the worker's bots. At first there are only TRIED_FIRST of them, since a server may ban an
 * address after many wrong passwords. The others follow when a bot has logged in. Returns 0 or
 * -1. */
static int make_bots(struct crowd *c, const struct worker *w)
{
	struct xmpp_options o = c->options;
	struct bot *b;

	for (; c->made < w->n && (c->got_in || c->made < TRIED_FIRST); c->made++) {
		b = c->bot + c->made;
		b->crowd = c;
		b->number = w->from + c->made;
		/* a hash of seed and number; never 0, since roll() would stay at 0 */
		b->random = ((uint32_t)c->seed + (uint32_t)b->number) * 2654435769u | 1;
		b->room_number = roll(b, c->rooms);
		snprintf(b->user, sizeof b->user, "jumperbot_%d", b->number);
		o.user = o.trace_name = b->user;
		o.start_after = next_slot(c);
		b->x = c->conns[c->made] = xmpp_new(&o);
		if (!b->x)
			return -1;
		*b->x = (struct xmpp){
			.on_ready = on_ready, .on_message = on_message, .on_presence = on_presence,
			.on_close = on_close, .on_wake = on_wake, .data = b
		};
	}
	return 0;
}

/* Sends all counts to the parent. If the pipe is full, for example because the parent is suspended,
 * nothing is lost: the next report contains these counts, too. If the parent is gone, the worker
 * ends as well. */
static void report(struct crowd *c, const struct worker *w)
{
	if (write(w->pipe, c->counts, sizeof c->counts) > 0)
		c->counts[LAG] = 0;
	else if (errno != EAGAIN)
		interrupted = 2;
}

/* Runs the loop until all bots have ended. After the first SIGALRM, the bots say nothing more, and
 * log out when their last phrases have come back. After the second, they log out at once. Returns
 * 0, or -1 and sets errno. */
static long turn_until_end(struct crowd *c, const struct worker *w)
{
	int64_t now, next = now_us() + TICK;
	long alive;

	do {
		now = now_us();
		if (now >= next) {
			raise_to(&c->counts[LAG], (now - next) / 1000);
			report(c, w);
			next = now + TICK;
		}
		if (interrupted > 1 || (interrupted && awaited(c->counts) == 0))
			xmpp_stop();
		if (!interrupted && make_bots(c, w))
			return -1;
		alive = xmpp_turn(c->conns, (size_t)c->made, (long)(next - now) / 1000 + 1);
	} while (alive > 0);
	return alive;
}

/* Runs the bots of a worker. Returns its exit status. */
static int run_worker(struct crowd *c, const struct worker *w)
{
	int left = c->seconds - (int)((now_us() - c->start) / TICK), i, failed;

	signal(SIGINT, SIG_IGN);  /* Ctrl-C sends this to all processes; the parent passes it on */
	signal(SIGTERM, SIG_IGN); /* timeout(1) may send this to all, too */
	signal(SIGPIPE, SIG_IGN); /* see report() */
	fcntl(w->pipe, F_SETFL, O_NONBLOCK);
	fcntl(w->pipe, F_SETFD, FD_CLOEXEC); /* a tunnel must not inherit it and keep it open */
	if (c->seconds)
		alarm(left > 0 ? (unsigned)left : 1); /* the time of -d */
	c->got_in = w > c->workers; /* the other workers start after the first login */
	failed = turn_until_end(c, w) < 0;
	if (failed)
		perror("jumperbot");
	for (i = 0; i < c->made; i++) {
		xmpp_free(c->conns[i]);
		free(c->bot[i].refused);
	}
	fcntl(w->pipe, F_SETFL, 0); /* the last report must not be dropped if the pipe is full */
	report(c, w);
	return failed;
}

/* ------------------------------------------------------------- The monitor */

/* Prints the errors so far, and how many bots are in rooms and logged in. For the time since the
 * last line, prints the phrases per second, and the median and 99th percentile of the round
 * trips. */
static void print_line(FILE *line, const struct crowd *c, int64_t now)
{
	double seconds = (double)(now - c->shown_at) / TICK;
	int i;

	fprintf(line, "%4d s: ", (int)((now - c->start) / TICK));
	if (c->recent[LAG] > MAX_LAG)
		fprintf(line, "lag %lld ms, ", c->recent[LAG]);
	for (i = LOST; i <= REPEATED; i++)
		if (c->sums[i])
			fprintf(line, "%s %lld, ", count_names[i], c->sums[i]);
	fprintf(line, "%lld of %lld in rooms, %.0f/s sent, %.0f/s received, %.1f ms (99%%: %.1f)",
	        c->sums[IN_ROOM], c->sums[LOGGED_IN], (double)c->recent[SENT] / seconds,
	        (double)c->recent[RECEIVED] / seconds, percentile(c->recent, 50),
	        percentile(c->recent, 99));
}

/* With -m, rewrites a line each second on a terminal, or prints one every ten seconds to a file. */
static void show(struct crowd *c)
{
	int terminal = isatty(STDOUT_FILENO);
	int64_t now = now_us();
	char text[80] = "";
	FILE *line;

	/* half a second less, since the reports do not come at exact intervals */
	if (!c->monitor || now - c->shown_at < (terminal ? TICK : 10 * TICK) - TICK / 2)
		return;
	line = fmemopen(text, sizeof text - 1, "w"); /* cuts off a line that is too long */
	if (line) {
		print_line(line, c, now);
		fclose(line);
	}
	printf(terminal ? "\r\033[K%s" : "%s\n", text); /* \033[K clears the line */
	fflush(stdout);
	memset(c->recent, 0, sizeof c->recent);
	c->shown_at = now;
}

static void print_counts(const long long sums[COUNTS], int from, int to)
{
	for (; from <= to; from++)
		printf("%s=%lld\n", count_names[from], sums[from]);
}

/* Prints the summary, in lines that a shell can evaluate. Returns the exit status: 0 if every bot
 * has been in a room, no worker has failed, and the summary was printed. */
static int summarize(const struct crowd *c)
{
	const long long *sums = c->sums;

	if (c->monitor && isatty(STDOUT_FILENO))
		putchar('\n');
	printf("bots=%d\n", c->bots);
	print_counts(sums, ENTERED, ENTERED);
	if (sums[ENTERED] == c->bots)
		printf("all_in_ms=%lld\n", sums[ALL_IN]);
	printf("seconds=%.1f\n", (double)(now_us() - c->start) / 1e6);
	print_counts(sums, SENT, RECEIVED);
	printf("p50_ms=%.2f\np99_ms=%.2f\nmax_ms=%.2f\n", percentile(sums, 50),
	       percentile(sums, 99), (double)sums[LONGEST] / 1000);
	print_counts(sums, LOST, REPEATED);
	printf("lag_ms=%lld\n", sums[LAG]);
	if (fflush(stdout) || ferror(stdout)) {
		perror("jumperbot");
		return 1;
	}
	return c->failed || sums[ENTERED] < c->bots;
}

/* -------------------------------------------------------------- The parent */

/* Decides how many workers to start. In a worker, each bot needs a descriptor; in the parent, each
 * worker needs one. select() can only watch descriptors below FD_SETSIZE, and the system may allow
 * fewer (sysconf() returns -1 if it has no limit). Returns 0 or -1. */
static int divide(struct crowd *c)
{
	long limit = sysconf(_SC_OPEN_MAX);
	int most = (int)(limit < 0 || limit > FD_SETSIZE ? FD_SETSIZE : limit) - SPARE;

	if (most < 1 || (c->bots - 1) / most >= most) {
		fprintf(stderr, "jumperbot: the limit of open files (ulimit -n) is too low for "
		                "%d bots\n", c->bots);
		return -1;
	}
	c->worker_count = (c->bots - 1) / most + 1;
	return 0;
}

/* Handles the end of a worker, which has closed its pipe. If it has failed or was killed, its bots
 * did not log out. The counts of its last report then still contain bots in rooms and awaited
 * phrases, and are corrected here. After a failure, the other workers are told to end, too. If the
 * worker was killed, they go on. */
static void end_worker(struct crowd *c, struct worker *w, uint32_t counts[COUNTS])
{
	int status = 0;

	waitpid(w->pid, &status, 0);
	close(w->pipe);
	w->pipe = -1;
	counts[UNHEARD] += awaited(counts);
	counts[LOGGED_IN] = counts[IN_ROOM] = 0;
	if (status)
		c->failed = 1;
	if (WIFEXITED(status) && status)
		interrupted = 1;
	if (WIFSIGNALED(status))
		fprintf(stderr, "jumperbot: the worker of bots %d to %d was killed by signal %d\n",
		        w->from, w->from + w->n - 1, WTERMSIG(status));
}

/* Adds the difference between two reports of a worker to `sums`. From SUMS on, keeps the largest
 * value instead. A count may wrap around, but the difference is right if it fits into 32 bits. */
static void add_up(long long sums[COUNTS], const uint32_t from[COUNTS], const uint32_t to[COUNTS])
{
	int k;

	for (k = 0; k < SUMS; k++)
		sums[k] += (int32_t)(to[k] - from[k]);
	for (; k < COUNTS; k++)
		sums[k] = sums[k] > to[k] ? sums[k] : to[k];
}

/* Reads a report from a worker. If the pipe has been closed, the worker has ended. */
static void receive(struct crowd *c, struct worker *w)
{
	uint32_t counts[COUNTS];

	memcpy(counts, w->counts, sizeof counts);
	if (read(w->pipe, counts, sizeof counts) <= 0)
		end_worker(c, w, counts);
	add_up(c->sums, w->counts, counts);
	add_up(c->recent, w->counts, counts);
	memcpy(w->counts, counts, sizeof counts);
}

/* Tells the workers to end. A signal within a second of the last one is ignored, since timeout(1),
 * for example, sends each signal twice: to the process and to its group. */
static void pass_on(struct crowd *c)
{
	int i;

	interrupted = 0;
	if (c->passed_at && now_us() - c->passed_at < TICK)
		return;
	c->passed_at = now_us();
	for (i = 0; i < c->started; i++)
		if (c->workers[i].pipe >= 0)
			kill(c->workers[i].pid, SIGALRM);
}

/* Waits for reports, and reads them. Returns how many workers were running before. The reports
 * come every second, so a signal that arrives just before poll() is noticed soon. The timeout is
 * longer than a second. Otherwise poll() could return just before the reports come, and show()
 * would print a second without phrases. */
static int watch(struct crowd *c)
{
	struct pollfd pipes[FD_SETSIZE];
	int i, running = 0;

	for (i = 0; i < c->started; i++) { /* poll() ignores the -1 of workers that have ended */
		pipes[i] = (struct pollfd){.fd = c->workers[i].pipe, .events = POLLIN};
		running += c->workers[i].pipe >= 0;
	}
	if (running == 0 || poll(pipes, (nfds_t)c->started, 2000) <= 0)
		return running;
	for (i = 0; i < c->started; i++)
		if (pipes[i].revents)
			receive(c, c->workers + i);
	return running;
}

/* Starts the next worker. The worker writes into ends[1] of the pipe, and the parent reads from
 * ends[0], so each closes the other end. Returns 1 in the worker, and 0 in the parent, even if
 * there is an error. */
static int start_worker(struct crowd *c)
{
	int ends[2], i = c->started;
	struct worker *w = c->workers + i;

	w->from = c->first + (int)((int64_t)c->bots * i / c->worker_count);
	w->n = c->first + (int)((int64_t)c->bots * (i + 1) / c->worker_count) - w->from;
	w->pid = pipe(ends) ? -1 : fork();
	if (w->pid < 0) {
		perror("jumperbot");
		c->failed = interrupted = 1;
		return 0;
	}
	w->pipe = ends[w->pid == 0];
	close(ends[w->pid > 0]);
	/* workers notice that the parent is gone only if no other process can read their pipes */
	for (i = 0; i < c->started && w->pid == 0; i++)
		close(c->workers[i].pipe);
	c->started++;
	return w->pid == 0;
}

/* Starts the first worker and, when one of its bots has logged in, the others. Returns the exit
 * status: in a worker, when its bots have ended; in the parent, when all workers have ended. */
static int run_crowd(struct crowd *c)
{
	do {
		while (!c->failed && !c->passed_at && c->started < c->worker_count
		       && (c->started == 0 || c->sums[LOGGED_IN] > 0))
			if (start_worker(c))
				return run_worker(c, c->workers + c->started - 1);
		if (interrupted)
			pass_on(c);
		show(c);
	} while (watch(c) > 0);
	return summarize(c);
}

/* -------------------------------------------------------------------- Main */

static int usage(FILE *out)
{
	fputs("usage: jumperbot [-lmvR] [-n bots] [-f first] [-r rooms] [-t host] [-c service]\n"
	      "                 [-e server] [-p port] [-a logins] [-i factor] [-d seconds]\n"
	      "                 [-s seed] [-x command]\n"
	      "  -n  number of bots (10): jumperbot_0, jumperbot_1, ...\n"
	      "  -f  number of the first bot (0)\n"
	      "  -r  number of rooms (10): bot_room_0@SERVICE, bot_room_1@SERVICE, ...\n"
	      "  -t  XMPP host, after the @ of the bots' addresses (localhost)\n"
	      "  -c  service of the rooms (conference.HOST)\n"
	      "  -e  machine to connect to (the host)\n"
	      "  -p  port (5222)\n"
	      "  -a  the most logins per second (50)\n"
	      "  -i  talk this many times as often as people (1); 0: when a phrase comes back\n"
	      "  -d  end after this many seconds (never)\n"
	      "  -s  seed: with the same number, the bots choose the same rooms and phrases\n"
	      "  -x  connect through this command, for example one that adds TLS; it finds the\n"
	      "      host, the server and the port in $XMPP_HOST, $XMPP_SERVER and $XMPP_PORT\n"
	      "  -l  only listen\n"
	      "  -m  monitor: show a status line\n"
	      "  -v  print what is sent and received\n"
	      "  -R  register the accounts that do not exist\n"
	      "The password is $XMPP_PASSWORD, or jumperbot if that is not set.\n", out);
	return out == stdout ? 0 : 2;
}

/* Reads a number from min to max. Returns 0 or -1. */
static int read_number(const char *text, long min, long max, int *to)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (end == text || *end || n < min || n > max)
		return -1;
	*to = (int)n;
	return 0;
}

/* Reads the options. Returns the exit status if the program must end, or -1 if it can go on. */
static int read_options(int argc, char **argv, struct crowd *c)
{
	int option, failed = 0;

	while (!failed && (option = getopt(argc, argv, "hn:f:r:t:c:e:p:a:i:d:s:x:lmvR")) != -1) {
		switch (option) {
		case 'h': return usage(stdout);
		case 'n': failed = read_number(optarg, 1, 1000000, &c->bots); break;
		case 'f': failed = read_number(optarg, 0, 1000000000, &c->first); break;
		case 'r': failed = read_number(optarg, 1, 1000000, &c->rooms); break;
		case 't': c->options.host = optarg; break;
		case 'c': c->service = optarg; break;
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
	if (failed || optind < argc || strlen(c->options.host) > MAX_HOST
	    || (c->service && strlen(c->service) > MAX_HOST))
		return usage(stderr);
	return -1;
}

int main(int argc, char **argv)
{
	static struct crowd c; /* too large for the stack */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	int status, fd;

	do /* if standard output is closed, no pipe may become standard output */
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close(fd);
	c.start = c.shown_at = now_us();
	c.run = (unsigned long long)c.start << 22 | ((unsigned)getpid() & 0x3FFFFF);
	c.seed = (int)(c.run % INT_MAX);
	c.options = (struct xmpp_options){.host = "localhost", .password = "jumperbot"};
	c.options.reconnect = c.factor = 1;
	c.bots = c.rooms = 10;
	c.rate = 50;
	if (getenv("XMPP_PASSWORD"))
		c.options.password = getenv("XMPP_PASSWORD");
	status = read_options(argc, argv, &c);
	if (status >= 0)
		return status;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	signal(SIGCHLD, SIG_DFL); /* if it was ignored at the start, waitpid() would fail */
	setvbuf(stderr, NULL, _IOLBF, 0); /* a line of the trace is written in one piece */
	return divide(&c) || run_crowd(&c);
}
