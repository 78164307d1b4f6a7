#!/bin/sh
# Runs a real Vault or OpenBao in development mode, registers the plugin there
# and mounts it at apikeys/: the same steps as on a production server, less TLS,
# policies and persistence.
set -eu

server=${1:?"usage: $0 <vault, bao or a path to one of them>"}
cd "$(dirname "$0")/.."
name=vault-plugin-secrets-apikeys
addr=${LISTEN:-127.0.0.1:8200}

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
# takes the server down with it.
echo "plugin_directory = \"$plugins\"" >"$dir/server.hcl"

if command -v sha256sum >/dev/null; then
	sum=$(sha256sum "$plugins/$name")
else
	sum=$(shasum -a 256 "$plugins/$name")
fi
sum=${sum%% *}

export VAULT_ADDR="http://$addr" VAULT_TOKEN=root
unset BAO_ADDR BAO_TOKEN VAULT_NAMESPACE BAO_NAMESPACE
"$server" server -dev -dev-root-token-id=root -dev-listen-address="$addr" \
	-dev-no-store-token -config="$dir/server.hcl" >"$dir/log" 2>&1 &
pid=$!

tries=0
until "$server" status >/dev/null 2>&1; do
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
