#!/bin/sh
# Builds the packages given into bin/ against the official Vault SDK that go.mod
# names, instead of bootstrap/sdk. The checksums of what that downloads go into
# a copy of the module files, so the tree stays as it is.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}"

sdk=github.com/hashicorp/vault/sdk
version=$(awk -v m="$sdk" '$1 == m { print $2 }' go.mod)

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp go.mod "$dir/go.mod"
[ ! -f go.sum ] || cp go.sum "$dir/go.sum"

export GOWORK=off
if ! "$GO" mod download -modfile="$dir/go.mod" "$sdk" >/dev/null 2>"$dir/why"; then
	echo "The official Vault SDK ($sdk $version) cannot be downloaded here, so it cannot be built against; plain 'make build' uses bootstrap/sdk instead ($(tail -1 "$dir/why" | sed 's/.*: //'))." >&2
	exit 1
fi

# shellcheck disable=SC2086 # several flags
CGO_ENABLED=0 "$GO" build -modfile="$dir/go.mod" -mod=mod ${BUILDFLAGS:-} -o bin/ "$@"
echo "built against $sdk $version"
