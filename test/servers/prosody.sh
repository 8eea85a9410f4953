#!/bin/sh
# A private Prosody for tests; run without arguments for usage.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
config=prosody.cfg.lua

probe() {
	command -v prosody >/dev/null || echo "prosody is not installed"
	command -v openssl >/dev/null || echo "openssl is not installed"
	command -v ps >/dev/null || echo "ps is not installed"
}

# Prints the settings in which this server must differ from a real one.
private_settings() {
	cat <<-END
	run_as_root = true  -- otherwise Prosody refuses to run as root, as in a container
	pidfile = "$dir/prosody.pid"
	data_path = "$dir/data"
	log = { info = "$dir/server.log" }
	interfaces = { "127.0.0.1"$(if has_ipv6; then echo ', "::1"'; fi) }
	s2s_ports = { }
	http_ports = { }
	https_ports = { }
	component_ports = { }
	END
}

# Prints the configuration in the README. With TLS, changes it and makes a certificate as described
# there.
readme_config() {
	readme=$here/../../README
	change=
	if [ "$TLS" != none ]; then
		change='s/"ping"; /&"tls"; /; s/require_encryption = false/require_encryption = true/'
		mkdir -p "$dir/certs"
		sed -n '/^    # openssl req/,/^    # chown/p' "$readme" |
			sed "\$d; s/^    # //; s|/etc/prosody|$dir|" | sh 2>/dev/null
	fi
	sed -n '/^    interfaces = /,/^$/s/^    //p' "$readme" | sed "$change" >"$dir/readme.cfg"
	sed '/^VirtualHost/,$d' "$dir/readme.cfg"
	private_settings
	echo "c2s_ports = { $port }"
	echo "c2s_direct_tls_ports = { }"
	echo "certificates = \"$dir/certs\""
	sed -n '/^VirtualHost/,$p' "$dir/readme.cfg"
}

write_config() {
	if [ "$SETTINGS" = readme ]; then
		readme_config
		return
	fi
	case $AUTH in
	plain) off='"DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"' ;;
	scram) off='"DIGEST-MD5", "PLAIN"' ;;
	both)  off='"DIGEST-MD5"' ;;
	esac
	if [ "$TLS" = none ]; then tls=false; else tls=true; fi
	if [ "$TLS" = direct ]; then plain_port= tls_port=$port; else plain_port=$port tls_port=; fi
	private_settings
	cat <<-END
	certificates = "$dir/none"  -- empty: the ssl setting below decides
	c2s_ports = { $plain_port }
	c2s_direct_tls_ports = { $tls_port }
	modules_enabled = {
	  "posix", "disco", "roster", "saslauth", "ping", "carbons", "smacks",
	  $(if $tls; then echo '"tls",'; fi)
	  $(if [ "$REGISTER" = yes ]; then echo '"register_ibr",'; fi)
	  $(if [ "$LIMITS" = default ]; then echo '"limits",'; fi)
	}
	modules_disabled = { "s2s"$(if ! $tls; then echo ', "tls"'; fi) }
	allow_registration = $(if [ "$REGISTER" = yes ]; then echo true; else echo false; fi)
	limits = { c2s = { rate = "10kb/s" } }  -- the packaged default
	c2s_require_encryption = $tls
	allow_unencrypted_plain_auth = true
	disable_sasl_mechanisms = { $off }
	authentication = "internal_$STORE"
	network_settings = { tcp_backlog = 1024$(if [ -n "$IDLE" ]; then echo "; read_timeout = $IDLE"; fi) }
	$(if $tls; then echo "ssl = { key = '$dir/tls/$CERT.key', certificate = '$dir/tls/$CERT.crt' }"; fi)
	VirtualHost "localhost"
	Component "conference.localhost" "muc"
	muc_room_cache_size = 100000  -- beyond the default, 100, it reads and writes rooms on disk
	END
}

# Writes the files of the accounts directly, since "prosodyctl register" takes 0.2 s for each. With
# internal_hashed, Prosody replaces the plain password at the first login.
write_accounts() {
	mkdir -p "$dir/data/localhost/accounts" "$dir/none"
	make_users | awk -v d="$dir/data/localhost/accounts" '{
		name = $1
		gsub(/_/, "%5f", name)
		file = d "/" name ".dat"
		printf "return {\n\t[\"password\"] = \"%s\";\n};\n", $2 > file
		close(file)
	}'
}

launch() {
	nohup prosody -F --config "$dir/$config" </dev/null >"$dir/console.log" 2>&1 &
	echo $! > "$dir/pid"
}

# Prosody runs even if it cannot open a port. It logs each failure before it logs that the service
# is active.
is_up() { grep -q "Activated service 'c2s[a-z_]*' on .*$port" "$dir/server.log" 2>/dev/null && ! port_taken; }
port_taken() { grep -q 'Failed to open server port' "$dir/server.log" 2>/dev/null; }

main "$@"
