#!/bin/sh
# Tidies go.mod and go.sum of the root module and of those inside it. A plain
# `go mod tidy` would fetch the official Vault SDK, which not every registry
# serves; so a copy of go.mod is tidied in which bootstrap/sdk stands for it, and
# the result is taken over without the replacement. With --check it changes
# nothing and fails if there is something to tidy.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}"

sdk=github.com/hashicorp/vault/sdk
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp go.mod "$dir/go.mod"
touch "$dir/go.sum"
[ ! -f go.sum ] || cp go.sum "$dir/go.sum"

export GOWORK=off
"$GO" mod edit -replace="$sdk=$PWD/bootstrap/sdk" "$dir/go.mod"
"$GO" mod tidy -modfile="$dir/go.mod" 2>"$dir/log" || { cat "$dir/log" >&2; exit 1; }
"$GO" mod edit -dropreplace="$sdk" "$dir/go.mod"

# A source that uses no package of the SDK yet still needs the requirement.
grep -q "$sdk v" "$dir/go.mod" || { echo "the requirement of $sdk is gone: does nothing use it?" >&2; exit 1; }

if [ "${1:-}" = --check ]; then
	for f in go.mod go.sum; do
		diff -u "$f" "$dir/$f" || { echo "$f is not tidy, run make tidy" >&2; exit 1; }
	done
	for m in bootstrap/sdk acceptance/gitleaks acceptance/gateways acceptance/browser acceptance/kubernetes acceptance/webhooks scripts/release; do
		"$GO" -C "$m" mod tidy -diff || { echo "$m/go.mod is not tidy, run make tidy" >&2; exit 1; }
	done
	exit 0
fi
cp "$dir/go.mod" go.mod
cp "$dir/go.sum" go.sum
"$GO" -C bootstrap/sdk mod tidy
"$GO" -C acceptance/gitleaks mod tidy
"$GO" -C acceptance/webhooks mod tidy
"$GO" -C acceptance/gateways mod tidy
"$GO" -C acceptance/browser mod tidy
"$GO" -C acceptance/kubernetes mod tidy
"$GO" -C scripts/release mod tidy
