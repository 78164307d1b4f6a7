#!/bin/sh
# Fails, naming the files, if a Go file is not formatted.
set -eu
cd "$(dirname "$0")/.."

bad=$(scripts/gofiles.sh | xargs bin/tools/gofumpt -l)
[ -z "$bad" ] || { echo "not formatted, run make fmt:"; echo "$bad"; exit 1; } >&2
