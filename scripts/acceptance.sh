#!/bin/sh
# Runs the acceptance tests, or those that the second argument means, on the real
# server program given.
set -eu
cd "$(dirname "$0")/.."

server=${1:?"usage: $0 <vault, bao or a path to one of them> [regexp]"}

# program <variable> <its value>: the path, for the tests run in a directory of their own.
program() {
	path=$(command -v "$2") || { echo "$1=$2: no such program" >&2; exit 1; }
	case $path in
	/*) echo "$path" ;;
	*) echo "$PWD/$path" ;;
	esac
}

SERVER_BIN=$(program SERVER_BIN "$server")
export SERVER_BIN
if [ -n "${TERRAFORM_BIN:-}${PROVIDER_BIN:-}" ]; then
	TERRAFORM_BIN=$(program TERRAFORM_BIN "${TERRAFORM_BIN:-}")
	PROVIDER_BIN=$(program PROVIDER_BIN "${PROVIDER_BIN:-}")
	export TERRAFORM_BIN PROVIDER_BIN
	"$TERRAFORM_BIN" version
else
	unset TERRAFORM_BIN PROVIDER_BIN
	echo "WARNING: TERRAFORM_BIN and PROVIDER_BIN are not set, so what Terraform's provider sends is played," \
		"and neither the module nor its guide is run" >&2
fi

"$SERVER_BIN" version
exec "${GO:-go}" test -count=1 -timeout 30m ${2:+-run "$2"} ./acceptance/...
