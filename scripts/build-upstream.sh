#!/bin/sh
# Builds the packages given into bin/ against the official Vault SDK that go.mod
# names, instead of bootstrap/sdk.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
scripts/upstream-modfile.sh "$dir"

# shellcheck disable=SC2086 # several flags
GOWORK=off CGO_ENABLED=0 "$GO" build -modfile="$dir/go.mod" -mod=mod ${BUILDFLAGS:-} -o bin/ "$@"
