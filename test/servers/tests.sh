# tests.sh - the groups prosody, ejabberd and soak; sourced by run_tests.sh.

# -------------------------------------------------------- Real servers, or not

takes_prosody() { if [ -z "$(why_not prosody)" ]; then echo 130; else echo 0; fi; }
takes_ejabberd() { if [ -z "$(why_not ejabberd)" ]; then echo 130; else echo 0; fi; }
takes_soak() { echo 1800; }

group_prosody() { group_server prosody; }
group_ejabberd() { group_server ejabberd; }
group_soak() { . test/servers/soak.sh; }

find_python() {
	for python in ${PYTHON:-python3 /usr/bin/python3}; do
		client="$python test/servers/echo_client.py"
		"$python" -c 'import slixmpp' >/dev/null 2>&1 && return
	done
	return 1
}

# Prints what is missing for tests on that server, or nothing.
why_not() { # why_not SERVER
	sh "test/servers/$1.sh" probe | head -n 1 | grep . || find_python || echo "no Python with slixmpp"
}

no_server() { # no_server SERVER REASON
	if [ "${REQUIRE_SERVERS:-}" = 1 ]; then
		echo "$2" > "$tmp/log"
		fail "$1"
	else
		skip "$1" "$2" "$1" openssl procps python3-slixmpp
	fi
}

group_server() { # group_server SERVER
	why=$(why_not "$1")
	if [ -n "$why" ]; then
		no_server "$1" "$why"
		return
	fi
	find_python
	on_server test_conversation "$1" AUTH=plain STORE=plain
	on_server test_conversation "$1" AUTH=scram STORE=plain
	if [ -n "$sanitize" ]; then
		check "echobot.c compiles, sanitized" compiles sanitized echobot.c $sanitize
		echobot=$tmp/sanitized/echobot
	fi
	on_server test_conversation "$1" AUTH=scram STORE=hashed
	on_server test_loop "$1" AUTH=both
	on_server test_hostile "$1" AUTH=both
	echobot=$top/bots/plain/echobot
	on_server test_tls_required "$1" TLS=required
	if command -v openssl >/dev/null; then
		on_server test_tunnel "$1" TLS=required AUTH=plain
		on_server test_tunnel "$1" TLS=required AUTH=scram
		on_server test_direct_tls "$1" TLS=direct
		on_server test_wrong_host "$1" TLS=required CERT=wronghost
	else
		skip "$1 through a tunnel" "openssl is not installed" openssl
	fi
	on_server test_crowds "$1" AUTH=both USERS=200
	on_server test_many "$1" AUTH=plain USERS=1500
	on_server test_comeback "$1" USERS=100
	on_server test_faults "$1" USERS=20
	on_server test_registration "$1" REGISTER=yes
	if [ "$1" = prosody ]; then
		on_server test_settings prosody SETTINGS=readme
		on_server test_settings_tls prosody SETTINGS=readme TLS=required
		if command -v valgrind >/dev/null; then
			on_server test_memory "$1" AUTH=both
		else
			skip "echobot under valgrind" "valgrind is not installed" valgrind
		fi
	fi
}

# ----------------------------------------------------------------- Echobot

# PLAIN sends the password in base64, behind \0echobot\0: that is AGVjaG9ib3QA.
hides_password() { # hides_password TRACE [PASSWORD]
	says '<auth ' "$1" && ! grep -e AGVjaG9ib3QA ${2:+-e "$2"} "$1"
}

at_most() { # at_most N PATTERN FILE
	lines=$(grep -c -e "$2" "$3")
	[ "$lines" -le "$1" ] || { echo "$lines times $2"; return 1; }
}

# Tests that echobot echoes messages, except one that was sent before its login. If it echoed that
# one, too, the client would report it.
test_conversation() {
	check "$what: somebody speaks to a bot that is not there" within 60 $client --leave "$PORT" echobot@localhost
	check "$what: the bot logs in" log_in bot "$echobot" || return
	check_program "$what: conversation" $client "$PORT" "$jid" &&
		check_program "$what: 1,000 messages" $client --count 1000 "$PORT" "$jid"
	check "$what: the early message came, too" says '^S: .*said by one who left' "$tmp/bot.err"
	check "$what: the trace hides the password" hides_password "$tmp/bot.err"
	check "$what: SIGTERM ends it properly" ends_well bot $pid TERM
	check "$what: a wrong password" fails 1 '^echobot: .*not-authorized' \
		env XMPP_PASSWORD=open-sesame "$echobot" -v -p "$PORT"
	check "$what: the trace hides that one, too" hides_password "$tmp/stderr" open-sesame
}

# Tests that two echobots do not answer each other. The second bot is logged in as alice. The first
# bot is stopped while alice's client sends it a message and leaves. When the first bot continues,
# its answer therefore goes to the second bot. If the bots answered each other, they would still do
# so after the conversation that follows.
test_loop() {
	check "$what: a bot logs in" log_in first "$echobot" || return
	first=$pid first_jid=$jid
	check "$what: another bot logs in" log_in second "$echobot" -u alice || return
	second=$pid
	kill -STOP $first
	check "$what: somebody speaks to the first" within 60 $client --leave "$PORT" "$first_jid"
	kill -CONT $first
	check "$what: the second hears the echo" wait_for 10 grep -q '^S: .*said by one who left' "$tmp/second.err"
	check_program "$what: conversation with the first" $client --user bob "$PORT" "$first_jid"
	check "$what: the bots have fallen silent" at_most 3 '^C: .*said by one who left' "$tmp/first.err"
	check "$what: SIGINT ends the first properly" ends_well first $first INT
	check "$what: SIGTERM ends the second properly" ends_well second $second TERM
}

# Tests that stanzas from others neither end a bot's connection nor keep it out of a room.
test_hostile() {
	check "$what: the bot logs in" log_in bot "$echobot" || return
	check_program "$what: hostile stanzas" within 120 "$python" test/servers/hostile_client.py "$PORT" "$jid"
	check "$what: SIGTERM ends it properly" ends_well bot $pid TERM
	check "$what: a hostile occupant" within 60 "$python" test/servers/hostile_client.py \
		--room bot_room_0@conference.localhost "$PORT" "exec '$jumperbot' -p $PORT -n 5 -r 1 -d 4 -i 20"
}

test_tls_required() {
	check "$what: the bot gives up" fails 1 '^echobot: .*TLS.*-x' "$echobot" -p "$PORT"
}

# The bot connects through the README's command, which adds TLS. The test client speaks TLS itself.
tls_command=$(sed -n "/ -x 'openssl/,/'\$/p" README | sed "s/.* -x '//; s/'\$//; s/\\\\\$//" | tr -s ' \n' ' ')
gnutls_command='gnutls-cli --logfile=/dev/null --starttls-proto=xmpp -p $XMPP_PORT $XMPP_HOST'

test_tunnel() {
	tunnel="$tls_command -CAfile $dir/tls/ca.pem"
	check "$what: the bot logs in through openssl" log_in bot "$echobot" -x "$tunnel" || return
	check_program "$what: conversation through openssl" $client --tls "$dir/tls/ca.pem" "$PORT" "$jid" &&
		check_program "$what: 1,000 messages through openssl" $client --tls "$dir/tls/ca.pem" --count 1000 "$PORT" "$jid"
	check "$what: SIGTERM ends it properly" ends_well bot $pid TERM
	check "$what: and the tunnel with it" nobody_runs "CAfile $dir/tls/ca.pem"
	check "$what: the bot logs in again" log_in bot "$echobot" -x "$tunnel"
	kill -KILL $pid
	forget $pid
	check "$what: when it is killed the tunnel ends, too" wait_for 5 nobody_runs "CAfile $dir/tls/ca.pem"
	check "$what: a wrong password is not the tunnel's fault" fails 1 '^echobot: login refused: not-authorized' \
		env XMPP_PASSWORD=open-sesame "$echobot" -p "$PORT" -x "$tunnel"
	check "$what: the CA is not ours" tries_again 'certificate verify failed' \
		"$echobot" -p "$PORT" -x "$tls_command"
	check "$what: 10 jumperbots through openssl" happy_crowd 10 80 -i 100 -x "$tunnel"
	check "$what: 10 jumperbots through openssl, in two processes" tunnels_in_processes
	if command -v gnutls-cli >/dev/null; then
		check "$what: the bot logs in through gnutls-cli" log_in bot "$echobot" \
			-x "$gnutls_command --x509cafile=$dir/tls/ca.pem"
		check_program "$what: 1,000 messages through gnutls-cli" \
			$client --tls "$dir/tls/ca.pem" --count 1000 "$PORT" "$jid"
		check "$what: SIGTERM ends the bot properly" ends_well bot $pid TERM
	else
		skip "$what: the bot through gnutls-cli" "gnutls-cli is not installed" gnutls-bin
	fi
}

# XEP-0368: TLS from the first byte. These commands know nothing about XMPP.
test_direct_tls() {
	check "$what: 10 jumperbots through openssl" happy_crowd 10 80 -i 100 -x "openssl s_client -quiet -verify_quiet \
-no_ign_eof -nocommands -alpn xmpp-client -host \$XMPP_SERVER -port \$XMPP_PORT -servername \$XMPP_HOST -verify_return_error -verify_hostname \$XMPP_HOST \
-CAfile $dir/tls/ca.pem"
	if command -v socat >/dev/null; then
		check "$what: 10 jumperbots through socat" happy_crowd 10 80 -i 100 \
			-x "socat - OPENSSL:\$XMPP_SERVER:\$XMPP_PORT,commonname=\$XMPP_HOST,snihost=\$XMPP_HOST,cafile=$dir/tls/ca.pem"
	else
		skip "$what: 10 jumperbots through socat" "socat is not installed" socat
	fi
}

# A connection through a tunnel takes two descriptors. Of 40, 24 are reserved, so there is room for
# eight connections.
tunnels_in_processes() {
	(ulimit -n 40 && happy_crowd 10 80 -i 100 -x "$tunnel")
}

test_settings() {
	check "$what: the bot logs in" log_in bot "$echobot" || return
	check "$what: SIGTERM ends it properly" ends_well bot $pid TERM
	check "$what: jumperbots enter rooms" happy_crowd 10 40 -i 100
}

test_settings_tls() {
	check "$what: not without a tunnel" fails 1 '^echobot: .*TLS.*-x' "$echobot" -p "$PORT"
	check "$what: the bot logs in" log_in bot "$echobot" -x "$tls_command -CAfile $dir/certs/localhost.crt" || return
	check "$what: SIGTERM ends it properly" ends_well bot $pid TERM
}

test_wrong_host() {
	check "$what: the bot does not log in" tries_again 'hostname mismatch' \
		"$echobot" -p "$PORT" -x "$tls_command -CAfile $dir/tls/ca.pem"
}

nobody_runs() { ! ps -A -o args= | grep -v grep | grep -F -e "$1"; }

# Valgrind sets the exit status to 9 if it has found an error or memory that was not freed.
test_memory() {
	check "$what: the bot logs in, under valgrind" log_in bot \
		valgrind -q --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all --error-exitcode=9 \
		"$echobot" || return
	check_program "$what: 1,000 messages, under valgrind" $client --count 1000 "$PORT" "$jid"
	check "$what: no memory error and no leak" ends_well bot $pid TERM
}

# ------------------------------------------------------------- Jumperbots

# Half of the bots have no account. Each of those must be reported once.
half_refused() {
	crowd_until half_are_in -v -n 20 -f 190 -i 50
	status=$?
	tells bots=20 entered=10 refused=10 lost=0 unheard=0 sent:40 &&
		[ $status -eq 1 ] && [ "$(grep -c '^jumperbot_20[0-9]: .*not-authorized' "$tmp/crowd.err")" -eq 10 ]
}

half_are_in() {
	[ "$(phrases_said)" -ge 40 ] && [ "$(bots_in_room)" -ge 10 ] &&
		[ "$(grep -c '^jumperbot_20[0-9]: .*not-authorized' "$tmp/crowd.err")" -ge 10 ]
}

# The server is stopped, and a new one is started on the same port. All bots must reconnect.
all_come_back() { # all_come_back VARIABLE=VALUE...
	before=0
	start crowd "$jumperbot" -v -p "$PORT" -n 100 -i 2 -m
	pid=$!
	server_is_replaced "$@"
	replaced=$?
	kill $pid
	forget $pid || { echo "exit status $?"; return 1; }
	[ $replaced -eq 0 ] && tells entered=100 lost:100 repeated=0 refused=0
}

server_is_replaced() {
	wait_for 60 all_in_again || { cat "$tmp/crowd.out"; return 1; }
	sh "test/servers/$server.sh" stop "$dir" && before=$(wc -l <"$tmp/crowd.err") &&
		PORT=$PORT start_server "$server" "$@" || return 1
	wait_for 120 all_in_again || { cat "$tmp/crowd.out"; crowd_complains; return 1; }
}

# Searches the trace after line $before.
all_in_again() { [ "$(tail -n +$((before + 1)) "$tmp/crowd.err" | count_in_room)" -eq 100 ]; }

test_crowds() {
	check "$what: 10 jumperbots" happy_crowd 10 80 -i 100
	check "$what: 200 jumperbots" happy_crowd 200 400 -i 20 -r 20 -a 100
	check "$what: half of the accounts are missing" half_refused
	check_program "$what: jumperbots meet somebody" "$python" test/servers/room_client.py "$PORT" "$jumperbot" --owner
}

# Runs more bots than a process can watch with select(). Their trace would be too long to search
# again and again, so this uses the monitor, which prints a line every ten seconds. A busy machine
# could not stand many more logins a second.
test_many() { check "$what: 1,500 jumperbots" great_crowd; }

great_crowd() {
	crowd_until all_are_in_twice -n 1500 -r 300 -a 50 -m
	status=$?
	[ $status -eq 0 ] || { echo "exit status $status"; tail -n 40 "$tmp"/crowd.*; return 1; }
	all_is_well 1500 1500
}

all_are_in_twice() { [ "$(grep -c ' of 1500 in rooms' "$tmp/crowd.out")" -ge 2 ]; }

test_comeback() { check "$what: it restarts, and 100 jumperbots reconnect" all_come_back "USERS=100"; }

test_registration() {
	check "$what: jumperbots register" happy_crowd 20 80 -i 50 -R -f 1000
	check "$what: the trace hides the password" hides_new_password
	check "$what: they find their accounts the next time" happy_crowd 20 80 -i 50 -R -f 1000
	check "$what: the trace hides the password then" hides_new_password
}

# If an account exists, ejabberd's error repeats our request, with the password.
hides_new_password() { says "^C(jumperbot_[0-9]*): <iq type='set' id='register'>\*\*\*\*\$" "$tmp/crowd.err" && ! grep '<password>' "$tmp/crowd.err"; }

# ------------------------------------------------------------------ Faults

# The server is suspended for 3 s. All bots must wait, and nothing may be lost. With 20 bots, the
# two rooms are never empty. Otherwise ejabberd would close a room when the last bot has left it,
# and a bot that enters at that moment would get no answer.
server_stands_still() {
	start crowd "$jumperbot" -p "$PORT" -n 20 -r 2 -i 20 -v
	pid=$! bots=20
	wait_for 20 grep -q "^S([^)]*): <message.*type='groupchat'" "$tmp/crowd.err" || { kill $pid; forget $pid; return 1; }
	kill -STOP "$(cat "$dir/pid")" && sleep 3 && kill -CONT "$(cat "$dir/pid")"
	phrases=$(($(phrases_said) + 20))
	wait_for 60 all_have_spoken
	kill $pid
	forget $pid || { echo "exit status $?"; cat "$tmp/crowd.out"; crowd_complains; return 1; }
	all_is_well 20 20
}

# Makes the bot write more than is read. The bot is suspended until the server has received 180 long
# messages for it. Then PROCESS, the server or the tunnel, is suspended while the bot answers.
nobody_reads() { # nobody_reads PROCESS
	kill -STOP $bot_pid
	start flood "$tmp/plain/flood" "$PORT" alice "$jid" 180 180 8000
	flood=$!
	wait_for 30 says 'all said' "$tmp/flood.out"
	all_said=$?
	kill -STOP "$1"
	kill -CONT $bot_pid
	wait_for 10 grep -q '^C: <message' "$tmp/bot.err"
	answered=$?
	kill -CONT "$1"
	forget $flood || { cat "$tmp/flood.out" "$tmp/flood.err"; return 1; }
	[ $all_said -eq 0 ] && [ $answered -eq 0 ]
}

# Tests a tunnel that does not read. A socketpair holds only a few hundred KB.
test_slow_tunnel() {
	check "$what: the bot logs in through socat" log_in bot "$echobot" -x 'socat - TCP:$XMPP_SERVER:$XMPP_PORT' || return
	bot_pid=$pid
	tunnel_pid=$(ps -A -o pid= -o args= | awk -v to="TCP:localhost:$PORT" '$2 == "socat" && $4 == to { print $1 }')
	check "$what: the tunnel does not read from the bot" nobody_reads "$tunnel_pid"
	check_program "$what: the bot goes on" $client --count 100 "$PORT" "$jid"
	check "$what: SIGTERM ends it properly" ends_well bot $pid TERM
}

ends_for_good() { # ends_for_good SECONDS PATTERN
	wait_for "$1" gone $bot_pid || { echo "still running after $1 s"; tail "$tmp/bot.err"; return 1; }
	forget $bot_pid
	status=$?
	[ $status -eq 1 ] || { echo "exit status $status"; return 1; }
	says "^echobot: .*$2" "$tmp/bot.err"
}

# Another client logs in with the bot's account and resource.
somebody_takes_its_place() {
	within 30 $client --user echobot --resource "${jid#*/}" --leave "$PORT" bob@localhost && ends_for_good 10 conflict
}

# A bot that has been logged in keeps trying when its password is refused, since the password may be
# corrected.
password_changes() {
	replace_server ECHOBOT=changed && wait_for 60 grep -q '^echobot: login refused: not-authorized' "$tmp/bot.err" &&
		replace_server "ECHOBOT=echobot" && wait_for 100 is_ready_twice
}

replace_server() { # replace_server VARIABLE=VALUE
	sh "test/servers/$server.sh" stop "$dir" && rm -rf "$dir" && PORT=$PORT start_server "$server" "$@"
}

is_ready_twice() { [ "$(grep -c '^echobot: ready as ' "$tmp/bot.out")" -eq 2 ]; }

test_faults() {
	check "$what: the server is stopped under 20 jumperbots" server_stands_still
	check "test/practice/flood.c compiles" compiles plain test/practice/flood.c
	if command -v socat >/dev/null; then
		test_slow_tunnel
	else
		skip "$what: a slow tunnel" "socat is not installed" socat
	fi
	check "$what: the bot logs in" log_in bot "$echobot" || return
	bot_pid=$pid
	check "$what: the server does not read from the bot" nobody_reads "$(cat "$dir/pid")"
	check_program "$what: the bot goes on" $client --count 100 "$PORT" "$jid"
	check "$what: somebody takes the bot's place" somebody_takes_its_place
	check "$what: the bot logs in again" log_in bot "$echobot" || return
	bot_pid=$pid
	check_program "$what: and goes on" $client --count 100 "$PORT" "$jid"
	check "$what: its password is changed, and changed back" password_changes
	check "$what: SIGTERM ends it properly" ends_well bot $bot_pid TERM
}

# Starts a server, runs a function that tests it, and stops the server.
on_server() { # on_server FUNCTION SERVER VARIABLE=VALUE...
	function=$1
	shift
	what=$*
	check "$what: the server starts" start_server "$@" && $function
	stop_server
}

# Starts a fresh server. Sets $PORT.
start_server() { # start_server SERVER VARIABLE=VALUE...
	server=$1 dir=$tmp/server
	shift
	assignments=$(env "$@" sh "test/servers/$server.sh" start "$dir") && eval "$assignments"
}

stop_server() {
	if [ -d "$dir" ]; then
		sh "test/servers/$server.sh" kill "$dir"
		rm -rf "$dir"
	fi
	dir=
}
