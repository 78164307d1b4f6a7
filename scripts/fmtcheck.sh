#!/bin/sh
# Fails, naming the files, if a Go or HCL file is not formatted.
set -eu
cd "$(dirname "$0")/.."

failed=
bad=$(scripts/gofiles.sh | xargs bin/tools/gofumpt -l)
bad_hcl=$(scripts/hclfiles.sh | xargs "${GO:-go}" run ./scripts/hclfmt) || failed=1
[ -z "$failed$bad" ] || { echo "not formatted, run make fmt:"; echo "$bad" "$bad_hcl"; exit 1; } >&2
