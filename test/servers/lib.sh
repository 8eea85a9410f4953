# lib.sh - the code that prosody.sh and ejabberd.sh share. POSIX sh, sourced.
#
# Each of these two scripts defines
#     probe                 prints why this machine cannot run the server, or nothing
#     config, write_config  name of the configuration file, and a function that prints it
#     write_accounts        puts the accounts where the server finds them
#     launch                starts the server in the background
#     is_up, port_taken     look into the server's log
# and then calls main "$@". They work in the directory $dir.

die() { echo "${0##*/}: $*" >&2; exit 1; }

usage() {
	cat >&2 <<-END
	usage: ${0##*/} start DIR | stop DIR | kill DIR | status DIR | probe
	  start   starts a private server on a free port of the loopback, with all
	          its files in DIR, and prints PORT=... (and CAFILE=... with TLS)
	          for eval. Accounts stay in DIR, so use a fresh DIR for a fresh
	          server
	  stop    SIGTERM: the server closes its streams
	  kill    SIGKILL: the connections just break
	  status  prints what start has printed, if the server is running
	  probe   prints the reason if this machine cannot run the server
	environment of start:
	  AUTH=both|plain|scram    mechanisms to log in with        (both)
	  STORE=plain|hashed       how passwords are kept           (plain)
	  TLS=none|required|direct required: STARTTLS before login;
	                           direct: from the first byte      (none)
	  CERT=good|wronghost|expired|selfsigned                    (good)
	  LIMITS=none|default      rate limits as in the package    (none)
	  IDLE=seconds             ping clients that are idle       (off)
	  USERS=n                  jumperbot_0 to n-1               (10)
	  ECHOBOT=password         of the account echobot           (echobot)
	  REGISTER=no|yes          may clients create accounts?     (no)
	  PORT=n                   this port and no other           (a free one)
	  SETTINGS=own|readme      as above, or Prosody as in the README (own)
	END
	exit 2
}

one_of() { # one_of NAME VALUE ALLOWED...
	name=$1 value=$2
	shift 2
	for allowed; do [ "$value" = "$allowed" ] && return; done
	die "$name=$value: not one of $*"
}

read_options() {
	: "${AUTH:=both}" "${STORE:=plain}" "${TLS:=none}" "${CERT:=good}"
	: "${LIMITS:=none}" "${IDLE:=}" "${USERS:=10}" "${ECHOBOT:=echobot}" "${REGISTER:=no}" "${PORT:=}" "${SETTINGS:=own}"
	one_of AUTH "$AUTH" both plain scram
	one_of STORE "$STORE" plain hashed
	one_of TLS "$TLS" none required direct
	one_of CERT "$CERT" good wronghost expired selfsigned
	one_of LIMITS "$LIMITS" none default
	one_of REGISTER "$REGISTER" no yes
	one_of SETTINGS "$SETTINGS" own readme
}

# True if there is an IPv6 loopback. Then the server listens there, too, because localhost
# resolves to that address first.
has_ipv6() { grep -q '^0\{31\}1 ' /proc/net/if_inet6 2>/dev/null; }

# Prints a line "name password" for each account.
make_users() {
	printf '%s\n' "echobot $ECHOBOT" 'alice alice' 'bob bob'
	i=0
	while [ "$i" -lt "$USERS" ]; do
		echo "jumperbot_$i jumperbot"
		i=$((i + 1))
	done
}

# True if the process is alive. A zombie, which nobody has waited for, is not.
alive() {
	case $(ps -o stat= -p "$1" 2>/dev/null) in ''|Z*) return 1 ;; esac
}

# True if our server is running. Checks the arguments, too, since another process may now have the
# server's process ID.
running() {
	pid=$(cat "$dir/pid" 2>/dev/null) && alive "$pid" &&
		ps -ww -o args= -p "$pid" | grep -qF -- "$dir"
}

stop() { # stop SIGNAL: ends the server, by force after 15 s
	if running; then
		kill -"$1" "$pid"
		tries=150
		while alive "$pid" && [ $tries -gt 0 ]; do
			sleep 0.1
			tries=$((tries - 1))
		done
		if running; then kill -KILL "$pid"; fi
	fi
	rm -f "$dir/pid" "$dir/env"
}

# Waits until the launched server is up, for at most 3 min. Returns 1 if the port was taken.
wait_until_up() {
	tries=1800
	until is_up; do
		if port_taken || ! alive "$(cat "$dir/pid")" || [ $tries -eq 0 ]; then
			if port_taken; then return 1; fi
			tail -n 20 "$dir/console.log" "$dir/server.log" >&2
			stop KILL
			die "did not start"
		fi
		sleep 0.1
		tries=$((tries - 1))
	done
}

# Tries ports until the server can listen on one. Looking for a free port first would not help,
# since another program could take it. The range lies below the ports of outgoing connections.
start() {
	read_options
	if running; then die "already running in $dir"; fi
	if [ "$TLS" != none ]; then sh "$here/mkcert.sh" "$dir/tls" || die "no certificates"; fi
	write_accounts
	for attempt in 0 1 2 3 4 5 6 7 8 9; do
		port=${PORT:-$((15000 + ($$ + attempt * 1009) % 15000))}
		rm -f "$dir/server.log" "$dir/console.log"
		write_config > "$dir/$config"
		launch
		if wait_until_up; then publish; return; fi
		stop KILL
	done
	die "found no free port"
}

# Prints what a test needs to know, as shell assignments.
publish() {
	{
		echo "PORT=$port"
		if [ "$TLS" != none ]; then echo "CAFILE='$dir/tls/ca.pem'"; fi
	} > "$dir/env"
	cat "$dir/env"
}

main() {
	if [ "$*" = probe ]; then
		why=$(probe)
		[ -z "$why" ] || { echo "$why"; exit 1; }
		exit 0
	fi
	[ $# -eq 2 ] || usage
	if [ "$1" = start ]; then mkdir -p "$2"; fi
	dir=$(cd "$2" 2>/dev/null && pwd -P) || die "no directory $2"
	case $1 in
	start) start ;;
	stop) stop TERM ;;
	kill) stop KILL ;;
	status) running && cat "$dir/env" ;;
	*) usage ;;
	esac
}
