#!/bin/sh
# A private ejabberd for tests; run without arguments for usage.
# Erlang's distribution stays off (no node name, no cookie, no epmd), so this server cannot clash
# with another one. The disadvantage is that ejabberdctl cannot reach it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
config=ejabberd.yml

probe() {
	command -v erl >/dev/null || echo "erl (Erlang) is not installed"
	[ -n "$(libraries)" ] || echo "ejabberd is not installed (or set EJABBERD_LIBS)"
	command -v openssl >/dev/null || echo "openssl is not installed"
	command -v ps >/dev/null || echo "ps is not installed"
}

# Prints the folder in which packages install ejabberd, or nothing.
libraries() {
	if [ -n "${EJABBERD_LIBS:-}" ]; then echo "$EJABBERD_LIBS"; return; fi
	for d in /usr/lib/*-linux-*/ejabberd-* /usr/lib/ejabberd-* /usr/lib64/ejabberd-* \
		/usr/local/lib/ejabberd-* /opt/ejabberd*/lib/ejabberd-*; do
		if [ -d "$d/ebin" ]; then dirname "$d"; return; fi
	done
}

write_listener() { # write_listener ADDRESS
	cat <<-END
	  -
	    port: $port
	    ip: "$1"
	    module: ejabberd_c2s
	    max_stanza_size: 262144
	    access: all
	    $(if [ "$LIMITS" = default ]; then echo 'shaper: c2s_shaper'; else echo 'backlog: 1024'; fi)
	    $(case $TLS in required) echo 'starttls_required: true' ;; direct) echo 'tls: true' ;; esac)
	END
}

write_config() {
	case $AUTH in
	plain) off='digest-md5, x-oauth2, scram-sha-1, scram-sha-1-plus, scram-sha-256, scram-sha-256-plus, scram-sha-512, scram-sha-512-plus' ;;
	scram) off='digest-md5, x-oauth2, plain' ;;
	both)  off='digest-md5, x-oauth2' ;;
	esac
	case $STORE in plain) format=plain ;; hashed) format=scram ;; esac
	case $LIMITS in none) sessions=infinity ;; default) sessions=10 ;; esac
	cat <<-END
	hosts: [localhost]
	loglevel: info
	log_rotate_count: 0
	s2s_access: none
	registration_timeout: infinity
	acme: {auto: false}
	auth_method: internal
	auth_password_format: $format
	disable_sasl_mechanisms: [$off]
	$(if [ "$TLS" != none ]; then echo "certfiles: ['$dir/tls/$CERT.pem']"; fi)
	listen:
	END
	write_listener 127.0.0.1
	if has_ipv6; then write_listener ::1; fi
	# shaper and shaper_rules are those of the package, and are used with LIMITS=default
	cat <<-END
	shaper:
	  normal: {rate: 3000, burst_size: 20000}
	shaper_rules:
	  max_user_sessions: $sessions
	  c2s_shaper: normal
	modules:
	  mod_carboncopy: {}
	  mod_disco: {}
	  $(if [ "$LIMITS" = default ]; then echo 'mod_fail2ban: {}'; fi)
	  mod_muc:
	    host: conference.localhost
	    max_users: 5000
	    max_user_conferences: 10000
	  mod_offline: {}
	  mod_ping: {$(if [ -n "$IDLE" ]; then
	  	echo "send_pings: true, ping_interval: $IDLE, ping_ack_timeout: 10, timeout_action: kill"
	  fi)}
	  $(if [ "$REGISTER" = yes ]; then echo 'mod_register: {ip_access: all, password_strength: 0}'; fi)
	  mod_roster: {}
	  mod_stream_mgmt: {}
	END
}

# Writes the accounts as one Erlang term. The server registers them when it is up.
write_accounts() {
	mkdir -p "$dir/spool"
	make_users | awk 'BEGIN { printf "[" }
		{ printf "%s{<<\"%s\">>, <<\"%s\">>}", separator, $1, $2; separator = ",\n" }
		END { print "]." }' > "$dir/users.term"
}

launch() {
	rm -f "$dir/ready"
	env HOME="$dir" ERL_LIBS="$(libraries)" ERL_CRASH_DUMP_BYTES=0 \
		EJABBERD_CONFIG_PATH="$dir/$config" EJABBERD_LOG_PATH="$dir/server.log" \
		nohup erl -noinput -mnesia dir "\"$dir/spool\"" -s ejabberd -eval "
			{ok, Users} = file:consult(\"$dir/users.term\"),
			[ejabberd_auth:try_register(U, <<\"localhost\">>, P) || {U, P} <- lists:append(Users)],
			ok = file:write_file(\"$dir/ready\", <<\"ok\">>)." \
		</dev/null >"$dir/console.log" 2>&1 &
	echo $! > "$dir/pid"
}

is_up() { [ -s "$dir/ready" ] && grep -q 'Start accepting T[CL][PS] connections' "$dir/server.log"; }
port_taken() { grep -q eaddrinuse "$dir/server.log" 2>/dev/null; }

main "$@"
