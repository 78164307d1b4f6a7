#!/bin/sh
# Runs a real Vault or OpenBao in development mode, registers the plugin there
# and mounts it at apikeys/: the same steps as on a production server, less TLS,
# policies and persistence.
set -eu

server=${1:?"usage: $0 <vault, bao or a path to one of them>"}
cd "$(dirname "$0")/.."
name=vault-plugin-secrets-apikeys
addr=${LISTEN:-127.0.0.1:8200}

# Its root token is known to all, and it speaks no TLS.
refuse_address() {
	echo "LISTEN=$addr: $1" >&2
	exit 1
}
host=${addr%:*}
loopback="a development server listens on loopback only (127.0.0.1, [::1] or localhost)"
case $addr in
*:*) ;;
*) refuse_address "no port: give address:port" ;;
esac
case ${addr##*:} in
'' | *[!0-9]* | 0) refuse_address "the port must be a number from 1 on" ;;
esac
case $host in
localhost | '[::1]') ;;
*[!0-9.]*) refuse_address "$loopback" ;;
127.*) ;;
*) refuse_address "$loopback" ;;
esac

command -v "$server" >/dev/null || { echo "$server: not found; VAULT_BIN names a vault or bao program" >&2; exit 1; }

dir=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || { kill "$pid" 2>/dev/null || true; wait "$pid" || true; }; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$dir/plugins"
# The server insists on a path without symbolic links.
plugins=$(cd "$dir/plugins" && pwd -P)
cp "bin/$name" "$plugins/"
# Not -dev-plugin-dir: that registers by itself, and a plugin that cannot start
# takes the server down with it. The name of the cluster tells this server from
# one that was at the address before, which must not get the plugin.
cluster=dev-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
cat >"$dir/server.hcl" <<END
plugin_directory = "$plugins"
cluster_name = "$cluster"
END

if command -v sha256sum >/dev/null; then
	sum=$(sha256sum "$plugins/$name")
else
	sum=$(shasum -a 256 "$plugins/$name")
fi
sum=${sum%% *}

# What is set for other servers, an agent's or a proxy's address included, would
# lead the commands below elsewhere.
for variable in $(env | sed -n 's/^\(\(VAULT\|BAO\)_[A-Za-z0-9_]*\)=.*/\1/p'); do
	unset "$variable"
done
export VAULT_ADDR="http://$addr" VAULT_TOKEN=root
"$server" server -dev -dev-root-token-id=root -dev-listen-address="$addr" \
	-dev-no-store-token -config="$dir/server.hcl" >"$dir/log" 2>&1 &
pid=$!

tries=0
until "$server" status 2>/dev/null | grep -q "$cluster"; do
	tries=$((tries + 1))
	if ! kill -0 "$pid" 2>/dev/null || [ "$tries" -gt 60 ]; then
		echo "$server did not start:" >&2
		tail -20 "$dir/log" >&2
		exit 1
	fi
	sleep 0.5
done

"$server" plugin register -sha256="$sum" secret "$name"
"$server" secrets enable -path=apikeys "$name"
"$server" version
echo "$server is ready on http://$addr, root token: root, log: $dir/log"
scripts/try-next.sh "http://$addr" "$server"
wait "$pid"
