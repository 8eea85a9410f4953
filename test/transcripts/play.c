/* play.c - plays transcripts: acts as the server that the client talks to.
 *
 *     play test/transcripts/echo.txt test/transcripts/silence.disaster ...
 *
 * A transcript is a conversation in the notation of the RFCs, one line a step:
 *
 *     S: text          the server sends this
 *     C: text          the client must send exactly this
 *     close            the server closes the connection
 *     reset            the same, so that the client sees an error
 *     stop             the client is told to end (SIGTERM)
 *     presence: text   the client hears this in the room: from whom, of which type, and with
 *                      which status codes
 *     answer: text     the answer to the ping of "ask": result, error or nothing
 *     include FILE     the steps of another transcript come first
 *     lost: text       the client reports this reason, and will reconnect
 *     reason: text     the client reports this reason, and is closed for good; no text if it
 *                      closed the connection itself
 *     exit N           the program exits with this status
 *     prints: text     after that: this is one of the lines that the program has printed
 *     silent 300       the client sends nothing for this many ms
 *     again            the client has reconnected; the values of the {names} are forgotten
 *     # text           a remark
 *
 * These lines are settings. They stand before any S: or C: line:
 *
 *     timeout 200      ms that the client has to log in
 *     patience 200 300 ms of silence until the client pings the server, and then until it gives up
 *     ask JID          once logged in, the client pings this JID, or else its own account
 *     create           the client creates its account, if there is none
 *     resource NAME    the client asks for this resource
 *     run COMMAND      the client is this program, with -p and the port, instead of echobot
 *     join ROOM NICK   once logged in, the client enters a room
 *
 * A .part is the beginning of a transcript, to be included. If it is a stage of the
 * login, it says what the client waits for when it ends:
 *
 *     awaits TEXT      ... while we waited for TEXT
 *
 * A .disaster is an event that can happen at every stage. It is played after each
 * part that it names, and must say what happens there:
 *
 *     at PART...       the lines up to the next "at" are for these parts only
 *     {awaited}        in lost: and reason:, stands for the TEXT of the part
 *
 * An indented line continues the one before it. A line break at the beginning or end
 * of a tag is not part of the text; elsewhere it is a space. In the text, the first
 * {name} matches whatever the client sends there, and the same name later stands for
 * the same text. base64(text) is the text in base64, and repeat(N text) is the text N
 * times. {proof} and {signature} are those of SCRAM (RFC 5802 section 3). \n, \r, \t,
 * \\ and \xHH are characters.
 *
 * Each transcript is played on a real socket. The server's part is sent in chunks of 1,
 * 2, 3, 7 and 64 bytes, and whole (very long steps in chunks of 61 times that). The
 * client is a fork that runs echobot's code. */
#define main echobot_main
#include "../../echobot.c"
#undef main
#include "../../xmpp.c"
#include "../unit/tools.h"

#include <ctype.h>
#include <sys/wait.h>

enum { MAX_STEPS = 200, MAX_VARS = 20, LONG_STEP = 20000 /* bytes */, PATIENCE = 20000 /* ms for anything to happen */, AT_ONCE = 12 /* transcripts */ };

struct step {
	char what[10];          /* "S", "C", "close", ... */
	char *text;
	char *file;             /* where the step stands */
	int line;
};

struct play {
	const char *file;       /* a transcript or a disaster */
	const char *part;       /* the part after which the disaster happens, or NULL */
	int elsewhere;          /* are the lines that we read for other parts? */
	char *awaited;          /* what the client waits for at the end of the part, or NULL */
	struct step steps[MAX_STEPS];
	int count;
	struct { char name[20]; char *value; } vars[MAX_VARS];
	int var_count;
	long timeout;           /* of the client's login, ms */
	long ping_after, ping_timeout; /* ms, see "patience" */
	int create;             /* the account, if there is none */
	char *ask;              /* whom the client pings, or NULL */
	char *run;              /* the program that is the client, or NULL */
	char *join;             /* the room that the client enters, a space, and the nick, or NULL */
	char *resource;         /* the resource that the client asks for, or NULL */
	size_t chunk;           /* bytes sent at once */
	int listener, peer, report_fd;
	struct buffer printed;  /* what the program has printed */
	pid_t child;
	struct buffer in;       /* bytes from the client that have not been compared yet */
	char *first, *challenge; /* of the SCRAM login: n=...,r=... and r=...,s=...,i=... */
};

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static char *must(char *s)
{
	if (!s)
		die("malloc");
	return s;
}

/* Sets *name to the file's name without its folder. Returns the length of the name up to the last
 * dot. */
static int base_name(const char *file, const char **name)
{
	const char *slash = strrchr(file, '/'), *dot = strrchr(file, '.');

	*name = slash ? slash + 1 : file;
	return (int)(dot > *name ? dot - *name : (long)strlen(*name));
}

/* Names the transcript, or both halves of a combination, and the line. */
static int complain(const struct play *p, const struct step *s, const char *what, const char *detail)
{
	const char *name;
	int n = base_name(p->file, &name);

	printf("FAIL - %s%s%.*s, in chunks of %zu, %s:%d: %s %s\n",
	       p->part ? p->part : "", p->part ? " + " : "", n, name, p->chunk,
	       s ? s->file : p->file, s ? s->line : 0, what, detail);
	return -1;
}

/* ------------------------------------------------------ Reading a transcript */

/* Appends a line to the text of a step: see "line break" above. */
static void join(struct step *s, const char *more)
{
	size_t n = strlen(s->text);
	char *text;

	while (isspace((unsigned char)*more))
		more++;
	text = must(print("%s%s%s", s->text, (n && s->text[n - 1] == '>') || *more == '<' ? "" : " ", more));
	free(s->text);
	s->text = text;
}

static char *unbackslash(char *text)
{
	char *from = text, *to = text, hex[3] = "";

	for (; *from; from++, to++) {
		*to = *from;
		if (*from != '\\')
			continue;
		if (!*++from)
			die("transcript: a \\ at the end");
		*to = *from == 'n' ? '\n' : *from == 'r' ? '\r' : *from == 't' ? '\t' : *from;
		if (*from == 'x') {
			memcpy(hex, from + 1, 2);
			*to = (char)strtol(hex, NULL, 16);
			from += 2;
		}
	}
	*to = '\0';
	return text;
}

/* Returns a path in the folder of the transcript. */
static char *beside(const struct play *p, const char *name, const char *ending)
{
	const char *own;

	base_name(p->file, &own);
	return must(print("%.*s%s%s", (int)(own - p->file), p->file, name, ending));
}

/* Takes a line that is a setting. Returns 1, or 0 if it is a step. */
static int take_setting(struct play *p, const char *name, char *text)
{
	struct { const char *name; char **to; } texts[] = {
		{"ask", &p->ask}, {"run", &p->run}, {"join", &p->join}, {"resource", &p->resource},
		{"awaits", &p->awaited}
	};
	size_t i;

	for (i = 0; i < sizeof texts / sizeof *texts; i++)
		if (!strcmp(name, texts[i].name)) {
			free(*texts[i].to);
			*texts[i].to = must(print("%s", text));
			return 1;
		}
	if (!strcmp(name, "timeout"))
		p->timeout = strtol(text, NULL, 10);
	else if (!strcmp(name, "patience")) {
		p->ping_after = strtol(text, &text, 10);
		p->ping_timeout = strtol(text, NULL, 10);
	} else if (!strcmp(name, "create"))
		p->create = 1;
	else
		return 0;
	return 1;
}

/* True if the word is in the list, in which spaces separate words. */
static int is_listed(const char *word, const char *list)
{
	size_t n = strlen(word);

	for (; *list; list += strspn(list, " ")) {
		if (!strncmp(list, word, n) && strchr(" ", list[n]))
			return 1;
		list += strcspn(list, " ");
	}
	return 0;
}

static void load(struct play *p, const char *file);

static void add_step(struct play *p, const char *file, char *line, int number)
{
	struct step *s = &p->steps[p->count];
	size_t n = strcspn(line, ": ");
	char *text = line + n + strspn(line + n, ": "), *path;

	if (p->count == MAX_STEPS || n >= sizeof s->what)
		die("transcript");
	snprintf(s->what, sizeof s->what, "%.*s", (int)n, line);
	if (!strcmp(s->what, "at"))
		p->elsewhere = !p->part || !is_listed(p->part, text);
	if (p->elsewhere || !strcmp(s->what, "at") || take_setting(p, s->what, text))
		return;
	if (!strcmp(s->what, "include")) {
		path = beside(p, text, "");
		load(p, path);
		free(path);
		return;
	}
	s->text = must(print("%s", text));
	s->file = must(print("%s", file));
	s->line = number;
	p->count++;
}

static void load(struct play *p, const char *file)
{
	FILE *f = fopen(file, "r");
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int number = 0;

	if (!f)
		die(file);
	while ((n = getline(&line, &size, f)) > 0) {
		number++;
		while (n > 0 && isspace((unsigned char)line[n - 1]))
			line[--n] = '\0';
		if (n == 0 || *line == '#')
			continue;
		if (!isspace((unsigned char)*line) || p->count == 0)
			add_step(p, file, line, number);
		else if (!p->elsewhere)
			join(&p->steps[p->count - 1], line);
	}
	free(line);
	fclose(f);
}

/* Replaces {awaited} in the text of a disaster. */
static void name_awaited(struct play *p, struct step *s)
{
	static const char name[] = "{awaited}";
	const char *at = strstr(s->text, name);
	char *text;

	if (!at)
		return;
	if (!p->awaited)
		die("transcript: {awaited}, but the part does not say what");
	text = must(print("%.*s%s%s", (int)(at - s->text), s->text, p->awaited, at + strlen(name)));
	free(s->text);
	s->text = text;
}

static void load_all(struct play *p)
{
	char *path;
	int i;

	if (p->part) {
		path = beside(p, p->part, ".part");
		load(p, path);
		free(path);
	}
	load(p, p->file);
	for (i = 0; i < p->count; i++)
		name_awaited(p, &p->steps[i]);
}

static void unload(struct play *p)
{
	while (p->count > 0) {
		free(p->steps[--p->count].text);
		free(p->steps[p->count].file);
	}
	free(p->ask);
	free(p->run);
	free(p->join);
	free(p->resource);
	free(p->awaited);
}

/* ------------------------------------------------- What the placeholders mean */

static void set_var(struct play *p, const char *name, size_t n, const char *value, size_t len)
{
	if (p->var_count == MAX_VARS)
		die("too many names in the transcript");
	snprintf(p->vars[p->var_count].name, sizeof p->vars[0].name, "%.*s", (int)n, name);
	p->vars[p->var_count++].value = must(print("%.*s", (int)len, value));
}

static const char *get_var(const struct play *p, const char *name, size_t n)
{
	int i;

	for (i = 0; i < p->var_count; i++)
		if (strlen(p->vars[i].name) == n && !strncmp(p->vars[i].name, name, n))
			return p->vars[i].value;
	return NULL;
}

/* Returns the position of the } for the { at s. */
static const char *brace(const char *s)
{
	const char *end = strchr(s, '}');

	if (!end)
		die("transcript: { without }");
	return end;
}

/* Returns the position of the ) that ends base64( or repeat(. */
static const char *closing(const char *s)
{
	while (*s && *s != ')')
		s++;
	return s;
}

/* Appends the text of an S: step in the form in which it is sent. */
static void expand(struct play *p, const char *s, const char *end, struct buffer *out)
{
	struct buffer inner = {0};
	const char *close, *value;
	char *base64, *text;
	long times;

	while (s < end) {
		if (!strncmp(s, "base64(", 7)) {
			close = closing(s);
			expand(p, s + 7, close, &inner);
			base64 = must(base64_encode(inner.bytes, inner.end));
			if (inner.end > 2 && !strncmp(inner.bytes, "r=", 2) && !p->challenge)
				p->challenge = must(print("%.*s", (int)inner.end, inner.bytes));
			buffer_append(out, base64, strlen(base64));
			free(base64);
			buffer_free(&inner);
			s = close + 1;
		} else if (!strncmp(s, "repeat(", 7)) {
			close = closing(s);
			times = strtol(s + 7, &text, 10);
			while (times-- > 0)
				buffer_append(out, text + 1, (size_t)(close - text) - 1);
			s = close + 1;
		} else if (*s == '{') {
			close = brace(s);
			value = get_var(p, s + 1, (size_t)(close - s - 1));
			value = value ? value : "?";
			buffer_append(out, value, strlen(value));
			s = close + 1;
		} else
			buffer_append(out, s++, 1);
	}
}

/* Sets {proof} and {signature} for the client's last SCRAM message, c=...,r=...,p=... */
static void set_proof(struct play *p, const char *final)
{
	uint8_t salted[20], proof[20], signature[20];
	const char *salt64;
	char *salt, *messages, *base64;
	size_t n, len;

	salt64 = p->challenge ? scram_attr(p->challenge, 's', &n) : NULL;
	if (!salt64 || !p->first || !(salt = base64_decode(salt64, n, &len)))
		return;
	pbkdf2("echobot", salt, len + 4, strtol(scram_attr(p->challenge, 'i', &n), NULL, 10), salted);
	free(salt);
	n = (size_t)(strstr(final, ",p=") ? strstr(final, ",p=") - final : 0);
	messages = must(print("%s,%s,%.*s", p->first, p->challenge, (int)n, final));
	scram_prove(salted, messages, strlen(messages), proof, signature);
	free(messages);
	base64 = must(base64_encode(proof, 20));
	set_var(p, "proof", 5, base64, strlen(base64));
	free(base64);
	base64 = must(base64_encode(signature, 20));
	set_var(p, "signature", 9, base64, strlen(base64));
	free(base64);
}

static long match_text(struct play *p, const char *s, const char *end, const char *got, size_t n);

/* Compares base64(s...) with the received bytes up to the next <. */
static long match_base64(struct play *p, const char *s, const char *end, const char *got, size_t n)
{
	const char *stop = memchr(got, '<', n);
	size_t len;
	char *plain;
	long fits;

	if (!stop)
		return 0;
	plain = base64_decode(got, (size_t)(stop - got), &len);
	if (!plain)
		return -1;
	if (!strncmp(plain, "n,,", 3) && !p->first)
		p->first = must(print("%s", plain + 3));
	if (!strncmp(plain, "c=", 2))
		set_proof(p, plain);
	fits = match_text(p, s, end, plain, len);
	free(plain);
	return fits == (long)len ? stop - got : -1;
}

/* Compares n received bytes with the text of a C: step. Returns the length of the match if the
 * whole text has come, 0 if more bytes are needed, or -1 if they differ. */
static long match_text(struct play *p, const char *s, const char *end, const char *got, size_t n)
{
	size_t at = 0, len;
	const char *close, *value;
	long m;

	while (s < end) {
		if (!strncmp(s, "base64(", 7)) {
			close = closing(s);
			m = match_base64(p, s + 7, close, got + at, n - at);
			if (m <= 0)
				return m;
			at += (size_t)m;
			s = close + 1;
		} else if (*s == '{') {
			close = brace(s);
			value = get_var(p, s + 1, (size_t)(close - s - 1));
			for (len = 0; at + len < n && (value ? value[len] == got[at + len] && value[len] : got[at + len] != close[1]); len++)
				;
			if (value && value[len])
				return at + len < n ? -1 : 0;
			if (at + len == n && close + 1 < end) /* there may be more of it */
				return 0;
			if (!value)
				set_var(p, s + 1, (size_t)(close - s - 1), got + at, len);
			at += len;
			s = close + 1;
		} else {
			if (at == n)
				return 0;
			if (got[at++] != *s++)
				return -1;
		}
	}
	return (long)at;
}

/* ------------------------------------------------------------- The two sides */

/* The bot's data: the transcript, and the pipe through which the bot reports. */
struct stage {
	const struct play *play;
	int fd;
};

static void report(struct xmpp *x, const char *what, const char *text)
{
	const struct stage *stage = x->data;
	char *line = must(print("%s: %s\n", what, text ? text : ""));

	if (write(stage->fd, line, strlen(line)) < 0)
		_exit(3);
	free(line);
}

static void report_close(struct xmpp *x, const char *reason)
{
	report(x, xmpp_retry_in(x) >= 0 ? "lost" : "reason", reason);
}

static void report_answer(struct xmpp *x, const struct xml_elem *answer, void *data)
{
	(void)data;
	report(x, "answer", answer ? xml_get(answer, "type") : "nothing");
}

static void report_presence(struct xmpp *x, const struct xml_elem *presence)
{
	const struct xml_elem *in_room = xml_child(presence, "x", "http://jabber.org/protocol/muc#user");
	const struct xml_elem *e = in_room ? in_room->children : NULL;
	const char *type = xml_get(presence, "type");
	char *line = must(print("%s %s", xml_get(presence, "from"), type ? type : "available")), *longer;

	for (; e; e = e->next)
		if (!strcmp(e->name, "status")) {
			longer = must(print("%s %s", line, xml_get(e, "code")));
			free(line);
			line = longer;
		}
	report(x, "presence", line);
	free(line);
}

static void begin(struct xmpp *x)
{
	const struct play *p = ((const struct stage *)x->data)->play;
	char *nick = p->join ? strchr(p->join, ' ') : NULL;

	if (p->ask)
		xmpp_request(x, "get", *p->ask ? p->ask : NULL, "<ping xmlns='urn:xmpp:ping'/>", report_answer, NULL);
	if (nick) {
		*nick = '\0';
		x->on_presence = report_presence;
		xmpp_join(x, p->join, nick + 1);
		*nick = ' ';
	}
}

/* Ends the process without exit(). In exit() a sanitizer looks for leaks, which takes longer than
 * everything else in the process. test_memory.c counts blocks instead. */
static void end_process(int status)
{
	fflush(stdout);
	_exit(status);
}

/* Runs the client in this process. It is echobot, except that it reports to the player. */
static void be_client(const struct play *p, int port, int fd)
{
	struct stage stage = {p, fd};
	struct xmpp_options options = {.user = "echobot", .password = "echobot", .host = "localhost", .server = "127.0.0.1"};
	struct sigaction on_signal = {.sa_handler = stop};
	struct xmpp *bot;

	options.port = port;
	options.login_timeout = p->timeout;
	options.ping_after = p->ping_after;
	options.ping_timeout = p->ping_timeout;
	options.reconnect = 1;
	options.create = p->create;
	options.resource = p->resource;
	sigaction(SIGTERM, &on_signal, NULL);
	if (!freopen("/dev/null", "w", stdout))
		_exit(3);
	bot = xmpp_new(&options);
	if (!bot)
		_exit(3);
	bot->on_message = echo;
	bot->on_presence = grant_subscription;
	bot->on_ready = begin;
	bot->on_close = report_close;
	bot->data = &stage;
	xmpp_run(&bot, 1);
	xmpp_free(bot);
	end_process(0);
}

/* Runs the program that is the client. The exec keeps the process ID. */
static void be_program(const struct play *p, int port, int fd)
{
	char *line = must(print("exec %s -p %d 2>&1", p->run, port));

	if (dup2(fd, STDOUT_FILENO) < 0 || setpgid(0, 0))
		die("dup2 or setpgid");
	if (p->chunk != 7) /* looking for leaks once is enough */
		setenv("ASAN_OPTIONS", "detect_leaks=0", 0);
	execl("/bin/sh", "sh", "-c", line, (char *)NULL);
	die("/bin/sh");
}

/* Forks. Returns 0 in the new process, and its ID in this one. */
static pid_t new_process(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork");
	return pid;
}

/* Listens on a free port of the loopback, and starts the client. */
static void open_stage(struct play *p)
{
	struct sockaddr_in a = {0};
	socklen_t n = sizeof a;
	int fds[2];

	a.sin_family = AF_INET;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	p->listener = socket(AF_INET, SOCK_STREAM, 0);
	if (p->listener < 0 || bind(p->listener, (struct sockaddr *)&a, n) || listen(p->listener, 1)
	    || getsockname(p->listener, (struct sockaddr *)&a, &n) || pipe(fds))
		die("socket");
	p->child = new_process();
	if (p->child == 0) {
		alarm(300); /* if we are killed, it ends nevertheless; this survives exec() */
		close(p->listener);
		close(fds[0]);
		if (p->run)
			be_program(p, ntohs(a.sin_port), fds[1]);
		be_client(p, ntohs(a.sin_port), fds[1]);
	}
	close(fds[1]);
	p->report_fd = fds[0];
	p->peer = -1;
}

static void forget(struct play *p)
{
	while (p->var_count > 0)
		free(p->vars[--p->var_count].value);
	free(p->first);
	free(p->challenge);
	p->first = p->challenge = NULL;
	buffer_free(&p->in);
}

static void close_stage(struct play *p)
{
	if (p->child > 0) {
		kill(-p->child, SIGKILL); /* workers of jumperbot would connect to who has the port next */
		kill(p->child, SIGKILL);
		waitpid(p->child, NULL, 0);
	}
	close(p->listener);
	close(p->report_fd);
	buffer_free(&p->printed);
	if (p->peer >= 0)
		close(p->peer);
	forget(p);
}

/* Waits at most `ms` ms for input on fd. Returns 0, or -1 if there is none. */
static int wait_ms(int fd, long ms)
{
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	return select(fd + 1, &set, NULL, NULL, &tv) > 0 ? 0 : -1;
}

static int wait_for(int fd)
{
	return wait_ms(fd, PATIENCE);
}

/* ---------------------------------------------------------------- The steps */

static int client_connects(struct play *p, const struct step *s)
{
	int on = 1;

	if (p->peer >= 0)
		close(p->peer);
	forget(p);
	p->peer = wait_for(p->listener) ? -1 : accept(p->listener, NULL, NULL);
	if (p->peer < 0)
		return complain(p, s, "the client does not connect", "");
	return setsockopt(p->peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int server_says(struct play *p, const struct step *s)
{
	struct buffer out = {0};
	char *text = unbackslash(must(print("%s", s->text)));
	ssize_t n = 0;
	size_t chunk;

	expand(p, text, text + strlen(text), &out);
	chunk = out.end < LONG_STEP ? p->chunk : p->chunk * 61;
	while (out.start < out.end && n >= 0) {
		n = send(p->peer, out.bytes + out.start,
		         out.end - out.start < chunk ? out.end - out.start : chunk, MSG_NOSIGNAL);
		if (n > 0)
			buffer_consume(&out, (size_t)n);
	}
	buffer_free(&out);
	free(text);
	return 0; /* if the client has hung up, its reason will show why */
}

static int client_says(struct play *p, const struct step *s)
{
	char buf[4096], *text = unbackslash(must(print("%s", s->text)));
	ssize_t n;
	long fits = 0;

	for (;;) {
		if (p->in.end > p->in.start)
			fits = match_text(p, text, text + strlen(text), p->in.bytes + p->in.start, p->in.end - p->in.start);
		if (fits != 0)
			break;
		n = wait_for(p->peer) ? -1 : recv(p->peer, buf, sizeof buf, 0);
		if (n <= 0 || buffer_append(&p->in, buf, (size_t)n))
			break;
	}
	if (fits > 0)
		buffer_consume(&p->in, (size_t)fits);
	else {
		buffer_append(&p->in, "", 1);
		complain(p, s, "the client did not say this, but:", p->in.bytes + p->in.start);
	}
	free(text);
	return fits > 0 ? 0 : -1;
}

static int server_closes(struct play *p, const struct step *s)
{
	struct linger now = {1, 0};

	if (!strcmp(s->what, "reset"))
		setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(p->peer);
	p->peer = -1;
	return 0;
}

/* Compares the client's next report with this line. The report must begin with it, or be equal
 * to it if the line has no text. */
static int check_report(struct play *p, const struct step *s)
{
	char got[400] = "", *want = must(print("%s: %s", s->what, s->text));
	size_t n = 0;
	int differs;

	while (n < sizeof got - 1 && !wait_for(p->report_fd) && read(p->report_fd, got + n, 1) == 1 && got[n] != '\n')
		n++;
	differs = got[n] != '\n' || strncmp(got, want, strlen(want));
	got[n] = '\0';
	if (differs || (!*s->text && n > strlen(want)))
		differs = complain(p, s, "the client reports otherwise:", got);
	free(want);
	return differs;
}

static int client_is_silent(struct play *p, const struct step *s)
{
	if (p->in.start == p->in.end && wait_ms(p->peer, strtol(s->text, NULL, 10)))
		return 0;
	return complain(p, s, "the client says something", "");
}

static int program_ends(struct play *p, const struct step *s)
{
	struct timespec poll = {0, 10000000};
	int status = 0, i;

	for (i = 0; i < PATIENCE / 10 && waitpid(p->child, &status, WNOHANG) == 0; i++)
		nanosleep(&poll, NULL);
	if (i == PATIENCE / 10)
		return complain(p, s, "the program does not end", "");
	p->child = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != strtol(s->text, NULL, 10))
		return complain(p, s, "the program ends in another way", "");
	return 0;
}

/* Looks for a line in the output of the program. A line break is put before the output, so that the
 * first line can be found like the others. */
static int program_has_printed(struct play *p, const struct step *s)
{
	char *line = must(print("\n%s\n", s->text)), buf[4096];
	ssize_t n;
	int found;

	if (!p->printed.bytes)
		buffer_append(&p->printed, "\n", 1);
	while ((n = read(p->report_fd, buf, sizeof buf)) > 0)
		buffer_append(&p->printed, buf, (size_t)n);
	found = strstr(p->printed.bytes, line) != NULL;
	free(line);
	return found ? 0 : complain(p, s, "the program has not printed this, but", p->printed.bytes);
}

static int play_step(struct play *p, const struct step *s)
{
	if (!strcmp(s->what, "prints"))
		return program_has_printed(p, s);
	if (!strcmp(s->what, "S"))
		return server_says(p, s);
	if (!strcmp(s->what, "C"))
		return client_says(p, s);
	if (!strcmp(s->what, "close") || !strcmp(s->what, "reset"))
		return server_closes(p, s);
	if (!strcmp(s->what, "stop"))
		return kill(p->child, SIGTERM);
	if (!strcmp(s->what, "silent"))
		return client_is_silent(p, s);
	if (!strcmp(s->what, "exit"))
		return program_ends(p, s);
	if (!strcmp(s->what, "again"))
		return client_connects(p, s);
	if (!strcmp(s->what, "reason") || !strcmp(s->what, "lost") || !strcmp(s->what, "answer") || !strcmp(s->what, "presence"))
		return check_report(p, s);
	return complain(p, s, "unknown step", s->what);
}

static int play(struct play *p)
{
	const char *last = p->count > 0 ? p->steps[p->count - 1].what : "";
	int i, failed;

	open_stage(p);
	failed = client_connects(p, p->steps);
	for (i = 0; i < p->count && !failed; i++)
		failed = play_step(p, &p->steps[i]);
	if (!failed && strcmp(last, "reason") && strcmp(last, "lost") && strcmp(last, "exit") && strcmp(last, "prints"))
		failed = complain(p, NULL, "the last line must be", "reason:, lost:, exit or prints:");
	close_stage(p);
	return failed;
}

static int reap(void)
{
	int status;

	return wait(&status) < 0 || status != 0;
}

/* A job is to play a transcript, or a part and then a disaster. */
struct job {
	char *file, *part;
};

static struct job *jobs;
static int job_count;

static void add_job(const char *file, const char *part)
{
	jobs = realloc(jobs, (size_t)(job_count + 1) * sizeof *jobs);
	if (!jobs)
		die("realloc");
	jobs[job_count].file = must(print("%s", file));
	jobs[job_count++].part = part ? must(print("%s", part)) : NULL;
}

/* Adds a job for each part that the disaster names. */
static void add_disaster(const char *file)
{
	FILE *f = fopen(file, "r");
	char *line = NULL, *word;
	size_t size = 0;

	if (!f)
		die(file);
	while (getline(&line, &size, f) > 0) {
		if (strncmp(line, "at ", 3))
			continue;
		for (word = strtok(line + 3, " \n"); word; word = strtok(NULL, " \n"))
			add_job(file, word);
	}
	free(line);
	fclose(f);
}

/* Plays a transcript in chunks of all sizes. Most of the time is spent waiting, so all sizes run
 * at once, each in its own process. Returns the number of failures. */
static int play_job(const struct job *job)
{
	static const size_t chunks[] = {1, 2, 3, 7, 64, 1 << 20};
	struct play p = {.file = job->file, .part = job->part};
	size_t i;
	int failures = 0;

	load_all(&p);
	for (i = 0; i < sizeof chunks / sizeof *chunks; i++) {
		p.chunk = chunks[i];
		if (new_process() == 0)
			end_process(play(&p) != 0);
	}
	while (i-- > 0)
		failures += reap();
	unload(&p);
	return failures;
}

int main(int argc, char **argv)
{
	const char *ending;
	int i, failures = 0;

	for (i = 1; i < argc; i++) {
		ending = strrchr(argv[i], '.');
		if (ending && !strcmp(ending, ".disaster"))
			add_disaster(argv[i]);
		else
			add_job(argv[i], NULL);
	}
	for (i = 0; i < job_count; i++) {
		if (i >= AT_ONCE)
			failures += reap();
		if (new_process() == 0)
			end_process(play_job(&jobs[i]) > 0);
	}
	for (i = job_count < AT_ONCE ? job_count : AT_ONCE; i > 0; i--)
		failures += reap();
	printf("%d passed, %d failed\n", job_count - failures, failures);
	for (i = 0; i < job_count; i++) {
		free(jobs[i].file);
		free(jobs[i].part);
	}
	free(jobs);
	return failures > 0;
}
