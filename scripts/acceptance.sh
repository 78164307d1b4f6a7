#!/bin/sh
# Runs the acceptance tests on the real server program given.
set -eu
cd "$(dirname "$0")/.."

server=${1:?"usage: $0 <vault, bao or a path to one of them>"}
path=$(command -v "$server") || { echo "$server: not found; SERVER_BIN names a vault or bao program" >&2; exit 1; }
case $path in
/*) ;;
*) path=$PWD/$path ;;
esac

"$path" version
SERVER_BIN=$path exec "${GO:-go}" test -count=1 -timeout 30m ./acceptance/...
