#!/bin/sh
# Fails, naming the files, if a Go file is not formatted.
set -eu
cd "$(dirname "$0")/.."

files=$(git ls-files -co --exclude-standard '*.go' | while read -r f; do [ ! -f "$f" ] || echo "$f"; done)
bad=$(echo "$files" | xargs bin/tools/gofumpt -extra -l)
[ -z "$bad" ] || { echo "not formatted, run make fmt:"; echo "$bad"; exit 1; } >&2
