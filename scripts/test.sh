#!/bin/sh
# Runs the tests of the packages given, with the race detector where there is a
# C compiler to link it.
set -eu
cd "$(dirname "$0")/.."

race=-race
if [ "$(go env CGO_ENABLED)" != 1 ] || ! command -v "$(go env CC)" >/dev/null; then
	race=
	echo "WARNING: no C compiler, so the tests run WITHOUT the race detector; install gcc or clang" >&2
fi

# shellcheck disable=SC2086 # an empty flag must vanish
exec "${GO:-go}" test $race -timeout 30m "$@"
