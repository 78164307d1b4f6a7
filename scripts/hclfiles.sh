#!/bin/sh
# Lists the HCL files that people start from, new ones included.
set -eu
cd "$(dirname "$0")/.."

git ls-files -co --exclude-standard 'bootstrap/*.tf' 'bootstrap/*.hcl' 'bootstrap/*.tftpl' | while read -r f; do
	[ ! -f "$f" ] || echo "$f"
done
