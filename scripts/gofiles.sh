#!/bin/sh
# Lists the Go files that people wrote, new ones included.
set -eu
cd "$(dirname "$0")/.."

git ls-files -co --exclude-standard '*.go' | while read -r f; do
	if [ -f "$f" ] && ! grep -q '^// Code generated .* DO NOT EDIT\.$' "$f"; then
		echo "$f"
	fi
done
