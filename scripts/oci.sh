#!/bin/sh
# Has the OpenBao given download the plugin from a registry. What is no OpenBao, or one before
# 2.5, downloads nothing, and that is said.
set -eu
cd "$(dirname "$0")/.."

server=${1:?"usage: $0 <bao, or a path to it>"}
path=$(command -v "$server") || { echo "SERVER_BIN=$server: no such program" >&2; exit 1; }
case $path in
/*) ;;
*) path=$PWD/$path ;;
esac
version=$("$path" version)
case $version in
"OpenBao v2."[0-4].*) takes= ;;
"OpenBao v"*) takes=yes ;;
*) takes= ;;
esac
[ -n "$takes" ] || { echo "no plugin is downloaded from a registry: OpenBao does that from 2.5 on, and this is $version"; exit 0; }
GOWORK=off SERVER_BIN=$path exec "${GO:-go}" -C scripts/release test -count=1 -timeout 10m -run '^TestOpenBao' .
