#!/bin/sh
# Runs each fuzz target of the repository for FUZZTIME.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}" "${FUZZTIME:=30s}"

found=
for file in $(git grep -l --untracked '^func Fuzz' -- '*_test.go'); do
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		found=1
		echo "== $target in $(dirname "$file")"
		"$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" "./$(dirname "$file")"
	done
done
[ -n "$found" ] || { echo "no fuzz target found" >&2; exit 1; }
