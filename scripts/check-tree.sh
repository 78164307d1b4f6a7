#!/bin/sh
# Checks what concerns the text of the tree rather than the meaning of the code.
set -u
cd "$(dirname "$0")/.."

failed=
# complain <what> <matches>
complain() {
	[ -n "$2" ] || return 0
	echo "$1:" >&2
	echo "$2" | sed 's/^/  /' >&2
	failed=1
}
search() {
	git grep -nI --untracked -E "$@"
}

# The patterns are spelled so that they do not find themselves.
complain "a path of somebody's machine" \
	"$(search '(^|[^A-Za-z0-9_.*-])/(work|root|Users)/' -- . ':!*.sum')"
complain "a module proxy or checksum host; the machine that builds says which" \
	"$(search '(proxy|sum)[.]golang[.]org|GO(PROXY|SUMDB|PRIVATE)=|artifact[o]ry' -- . ':!*.sum')"
complain "a tool or module without a version; what it is must not depend on the day" \
	"$(search '@(latest|upgrade|patch|master|main|HEAD)\>' -- . ':!*.sum' ':!scripts/check-tree.sh')"
complain "a replacement in go.mod; importers would not get it" \
	"$(search '^[[:space:]]*replace[[:space:](]' -- go.mod tools/go.mod)"
complain "an action that is not pinned by the hash of a commit, with its version beside it" \
	"$(search '^[[:space:]-]*uses:' -- '.github/*.yml' 'bootstrap/*.yml' | grep -Ev 'uses: [A-Za-z0-9_./-]+@[0-9a-f]{40} # v[0-9]')"
# In a bubble of testing/synctest no time passes.
waits=$(git grep -LI --untracked 'testing/synctest' -- '*_test.go')
complain "a test that waits for time to pass; inject a clock, or poll for an event" \
	"$([ -z "$waits" ] || search 'time[.]Sleep\(' -- $waits)"
complain "a test that may not run" \
	"$(search '\<[tbf][.]Skip(Now|f)?\(' -- '*.go')"
complain "work left to do; do it, or say in the documentation that it is not done" \
	"$(search '\<(TO''DO|FIX''ME|X''XX)\>' -- '*.go' '*.sh' '*.tf' '*.hcl' '*.md' Makefile)"
complain "unresolved merge" \
	"$(search '^(<{7}|>{7})( |$)' -- .)"

complain "a page that the index in README.md does not list" "$(
	git ls-files -co --exclude-standard 'docs/*.md' | while read -r f; do
		[ ! -f "$f" ] || grep -qF "]($f)" README.md || echo "$f"
	done
)"

header='// SPDX-License-Identifier: MPL-2.0'
complain "no licence header ($header)" "$(
	git ls-files -co --exclude-standard '*.go' | while read -r f; do
		[ ! -f "$f" ] || [ "$(head -1 "$f")" = "$header" ] || echo "$f"
	done
)"
complain "not a valid shell script" "$(
	for f in .ci/run $(git ls-files -co --exclude-standard '*.sh'); do
		[ ! -f "$f" ] || sh -n "$f" 2>&1
	done
)"
complain "a script that cannot be run" "$(
	for f in .ci/run $(git ls-files -co --exclude-standard '*.sh'); do
		[ ! -f "$f" ] || [ -x "$f" ] || echo "$f"
	done
)"

[ -z "$failed" ]
