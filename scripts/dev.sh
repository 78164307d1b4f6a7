#!/bin/sh
# Runs the development server until it is interrupted, and says what to try
# once it is ready.
set -eu
cd "$(dirname "$0")/.."

addr=${LISTEN:-127.0.0.1:8200}
dir=$(mktemp -d)
mkfifo "$dir/log"
bin/devserver -listen "$addr" -mount apikeys -root-token root >"$dir/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

ready=
while IFS= read -r line; do
	printf '%s\n' "$line"
	case $ready$line in
	*ready*"$addr"*)
		ready=yes:
		scripts/try-next.sh "http://$addr"
		;;
	esac
done <"$dir/log"

# The log ends when the server does.
wait "$server"
