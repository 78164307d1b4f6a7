#!/bin/sh
# Makes acceptance/testdata/older/ anew: what the build of an earlier commit leaves in storage, and the keys that it
# handed out. The argument is that commit.
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse "${1:?"usage: $0 <commit>"}^{commit}")
into=$PWD/acceptance/testdata/older

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || :; rm -rf "$work"' EXIT
mkdir "$work/src"
git archive "$commit" | tar x -C "$work/src"
(cd "$work/src" && CGO_ENABLED=0 go build -trimpath -o "$work/" ./cmd/vault-plugin-secrets-apikeys ./cmd/devserver)

address=127.0.0.1:${PORT:-18299}
"$work/devserver" -listen "$address" -plugin "$work/vault-plugin-secrets-apikeys" -storage "$work/storage.db" >"$work/log" 2>&1 &
server=$!
tries=0
until grep -q 'ready: ' "$work/log"; do
	kill -0 "$server" && [ $((tries += 1)) -lt 300 ] || { cat "$work/log" >&2; exit 1; }
	sleep 0.1
done

# ask <method> <path> [JSON]: the answer of the mount.
ask() {
	curl -sS --fail-with-body -H 'X-Vault-Token: root' -X "$1" "http://$address/v1/apikeys/$2" ${3:+-d "$3"}
}
write() { answer=$(ask POST "$@") || { echo "$1: $answer" >&2; exit 1; }; }
# key <name> <path>: keeps what is handed out there under that name.
key() {
	answer=$(ask GET "$2")
	secret=$(printf %s "$answer" | sed 's/.*"api_key":"\([^"]*\)".*/\1/')
	printf '%s %s\n' "$1" "$secret" >>"$work/keys"
}

write config '{"max_leak_actions": 1}'
for role in plain graced staged leaked gone revoked held; do
	write "roles/$role" '{"rotation_period": 0, "owner": "team-a", "scopes": "read,write"}'
done
write roles/busy '{"rotation_period": 0, "metadata": {"env": "test"}}'
write roles/planned '{"rotation_period": "720h", "grace_period": "24h"}'
write roles/alerted '{"rotation_period": 0, "on_leak": "alert"}'
write roles/leases '{"type": "dynamic", "ttl": "768h"}'
for role in plain graced staged leaked gone revoked held planned alerted leases; do
	key "$role" "creds/$role"
done
key leases-2 creds/leases
write rotate/graced '{"grace_period": "9600h"}'
key graced-2 creds/graced
write rotate/staged '{"stage": true}'
write revoke/revoked '{"version": 1, "reason": "lost"}'
i=0
while [ $((i += 1)) -le 150 ]; do
	write rotate/busy '{"grace_period": 0}'
done
key busy creds/busy
write import '{"batch": "{\"role\":\"brought\",\"key\":\"sk-example-00000000000000000000-example\"}"}'
for name in plain graced-2 leases; do
	write verify "{\"key\": \"$(sed -n "s/^$name //p" "$work/keys")\"}"
done
for name in alerted leaked held; do # of these two act, and the second waits for an operator
	write report "{\"key\": \"$(sed -n "s/^$name //p" "$work/keys")\"}"
done
ask DELETE roles/gone >/dev/null
write bulk '{"action": "disable", "roles": "staged", "reason": "test", "dry_run": false}'
sleep 5 # the worker, and the counts of use
kill "$server"
wait "$server" || :
server=

mkdir -p "$into"
gzip -9nc "$work/storage.db" >"$into/storage.db.gz"
gzip -9nc "$work/keys" >"$into/keys.gz"
sed -i "s/^Commit: .*/Commit: \`$commit\`/" "$into/README.md"
ls -l "$into"
