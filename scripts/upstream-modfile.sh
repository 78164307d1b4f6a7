#!/bin/sh
# Writes go.mod and go.sum into the directory given, with the official Vault SDK downloaded: the
# checksums of what that brings go there, so the tree stays as it is.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}"

dir=${1:?"usage: $0 <directory>"}
sdk=github.com/hashicorp/vault/sdk
version=$(awk -v m="$sdk" '$1 == m { print $2 }' go.mod)
cp go.mod "$dir/go.mod"
[ ! -f go.sum ] || cp go.sum "$dir/go.sum"

if ! GOWORK=off GOFLAGS= "$GO" mod download -modfile="$dir/go.mod" "$sdk" >/dev/null 2>"$dir/why"; then
	echo "The official Vault SDK ($sdk $version) cannot be downloaded here, so it cannot be built against; plain 'make build' uses bootstrap/sdk instead ($(tail -1 "$dir/why" | sed 's/.*: //'))." >&2
	exit 1
fi
rm -f "$dir/why"
echo "against $sdk $version"
