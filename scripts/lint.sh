#!/bin/sh
# All static checks. Goes on after a failure, so that one run shows everything.
set -u
: "${GO:=go}"
cd "$(dirname "$0")/.."

failed=
check() {
	what=$1
	shift
	if "$@"; then
		echo "ok    $what"
	else
		echo "FAIL  $what"
		failed=1
	fi
}

check "formatting" scripts/fmtcheck.sh
check "imports" scripts/check-imports.sh
check "go.mod" scripts/tidy.sh --check
check "floors" "$GO" run ./scripts/floors ./backend
check "tree" scripts/check-tree.sh
check "workflows" env GOWORK=off "$GO" tool -modfile=scripts/release/go.mod actionlint -shellcheck= -pyflakes=
# What is released for systems that no test runs on compiles, at least; releases of those are built nightly.
check "windows" env GOOS=windows CGO_ENABLED=0 "$GO" build ./cmd/apikeys ./cmd/vault-plugin-secrets-apikeys
check "golangci-lint" bin/tools/golangci-lint run ./...
# Another module, so another run; not beside the first, for memory's sake.
check "golangci-lint, bootstrap/sdk" sh -c 'cd bootstrap/sdk && exec ../../bin/tools/golangci-lint run --config ../../.golangci.yml ./...'

[ -z "$failed" ]
