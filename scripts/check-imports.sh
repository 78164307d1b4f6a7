#!/bin/sh
# Holds the packages to the direction in which they may depend on each other.
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}"

module=$(awk '$1 == "module" { print $2 }' go.mod)
sdk=github.com/hashicorp/vault/sdk

# One line for each import: package, imported package, "test" if it is a test's.
imports=$("$GO" list -f '{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}
{{end}}{{range .TestImports}}{{$p}} {{.}} test
{{end}}{{range .XTestImports}}{{$p}} {{.}} test
{{end}}' ./...)

bad=$(echo "$imports" | awk -v m="$module" -v sdk="$sdk" '
	function report(rule) { print "  " pkg " imports " imp ($3 ? " in a test" : "") ": " rule }
	function within(path, dir) { return path == dir || index(path, dir "/") == 1 }
	function under(path, dir) { return within(path, m "/" dir) }
	NF >= 2 {
		pkg = $1; imp = $2
		forbidden = under(imp, "backend") || within(imp, sdk)

		if (under(pkg, "internal") && forbidden)
			report("internal packages know neither backend nor the SDK")
		if (!$3 && (under(pkg, "internal/keyring") || under(pkg, "internal/keyformat")) && imp ~ /^[^\/]*\./)
			report("the standard library only")
		if (!$3 && (under(pkg, "internal/policy") || under(pkg, "internal/usage")) && imp ~ /^[^\/]*\./ &&
			!under(imp, "internal/refusal") && !under(imp, "internal/keyring") && !under(imp, "internal/keyformat") &&
			!(under(pkg, "internal/policy") && imp == "github.com/robfig/cron/v3"))
			report("refusal, keyring and keyformat only, and policy the parser of schedules")
		if ((under(pkg, "edge") || under(pkg, "client")) && forbidden)
			report("what others import brings neither backend nor the SDK with it")
		if (under(pkg, "acceptance") && under(imp, "backend"))
			report("acceptance tests see the plugin from outside")
		if (under(imp, "cmd") && !under(pkg, "cmd"))
			report("nothing imports a command")
	}' | sort -u)

# What a direct import may not bring in, another package may not either.
for dir in internal edge client; do
	[ -d "$dir" ] || continue
	deps=$("$GO" list -deps "./$dir/...")
	found=$(echo "$deps" | grep -E "^($module/backend|$sdk)(/|\$)" || true)
	[ -z "$found" ] || bad="$bad
$(echo "$found" | sed "s|^|  $dir depends on |")"
done

[ -z "$bad" ] || { echo "imports against the rules:"; echo "$bad" | grep .; exit 1; } >&2
