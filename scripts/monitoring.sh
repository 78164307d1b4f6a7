#!/bin/sh
# Holds bootstrap/dashboards to Prometheus and Alertmanager: their own checks, and a real
# scrape of engine, edge and proxy; also behind the real server program given.
set -eu
cd "$(dirname "$0")/.."

# program <variable> <name> <how to get it>: the path, for the tests run in a directory of
# their own.
program() {
	eval "name=\${$1:-$2}"
	# shellcheck disable=SC2154 # it is set by eval
	path=$(command -v "$name") || { echo "$1: $name: not found. $3, or name it by $1" >&2; exit 1; }
	case $path in
	/*) echo "$path" ;;
	*) echo "$PWD/$path" ;;
	esac
}

PROMETHEUS_BIN=$(program PROMETHEUS_BIN prometheus "Install Prometheus (Debian: apt-get install prometheus)")
PROMTOOL_BIN=$(program PROMTOOL_BIN promtool "Install Prometheus (Debian: apt-get install prometheus)")
AMTOOL_BIN=$(program AMTOOL_BIN amtool "Install Alertmanager (Debian: apt-get install prometheus-alertmanager)")
export PROMETHEUS_BIN PROMTOOL_BIN AMTOOL_BIN
if [ -n "${1:-}" ]; then
	SERVER_BIN=$(program SERVER_BIN "$1" "Give a vault or bao")
	export SERVER_BIN
else
	unset SERVER_BIN
	echo "SERVER_BIN names no Vault or OpenBao: only the development server is scraped" >&2
fi
unset TERRAFORM_BIN PROVIDER_BIN
if [ -n "${SHOTS:-}" ]; then
	SHOTS=$(cd "$SHOTS" && pwd)
	export SHOTS
fi

exec "${GO:-go}" test -count=1 -timeout 20m -run '^TestMonitoring|^TestAcceptance$/.*/together/^Prometheus' ./acceptance
