#!/bin/sh
# Builds a release of HEAD twice, in two folders, once with this machine's build cache and once
# without, under other settings of the machine, and compares all bytes. Also sees that releases of
# what is not tagged or not clean are refused. What is not committed does not count.
#   PLATFORMS  which; linux/amd64 unless it is set, and every one with "all"
set -eu
cd "$(dirname "$0")/.."
: "${PLATFORMS:=linux/amd64}"
[ "$PLATFORMS" != all ] || PLATFORMS=
export PLATFORMS
unset SDK

version=v0.0.0-check
pinned=go$(cat scripts/release/toolchain)
if ! GOTOOLCHAIN=$pinned "${GO:-go}" env GOVERSION >/dev/null 2>&1; then
	CHECK_TOOLCHAIN=$(GOTOOLCHAIN=local "${GO:-go}" env GOVERSION)
	export CHECK_TOOLCHAIN
	echo "WARNING: $pinned cannot be had: this is about $CHECK_TOOLCHAIN" >&2
fi
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
one=$dir/one two=$dir/another/and-longer/two
[ -z "$(git status --porcelain)" ] || echo "WARNING: this is about HEAD; the tree has changes beside it" >&2

# refused <why> <a word of the message>
refused() {
	if "$one/scripts/release.sh" "$version" >"$dir/out" 2>&1; then
		echo "a release was built of what is $1" >&2
		exit 1
	fi
	grep -q "^no release: .*$2" "$dir/out" || { echo "what is $1 was refused for another reason:"; cat "$dir/out"; exit 1; } >&2
}

for clone in "$one" "$two"; do
	git clone -q --no-tags . "$clone"
	git -C "$clone" checkout -q --detach "$(git rev-parse HEAD)"
done
refused "not tagged" "not tagged"
git -C "$one" tag "$version"
git -C "$two" tag "$version"
touch "$one/left-over"
refused "not clean" "not clean"
rm "$one/left-over"

"$one/scripts/release.sh" "$version"
(
	umask 077
	export TZ=Pacific/Chatham LC_ALL=C HOSTNAME=elsewhere USER=somebody
	export GOMODCACHE="$("${GO:-go}" env GOMODCACHE)" GOCACHE="$dir/cache" HOME="$dir/home"
	export GOAMD64=v3 GOOS=plan9 SOURCE_DATE_EPOCH=1
	"$two/scripts/release.sh" "$version"
)
diff -r "$one/dist/$version" "$two/dist/$version" || { echo "two builds of one commit differ" >&2; exit 1; }

for program in "$one/dist/$version"/*_linux_"$("${GO:-go}" env GOARCH)"; do
	case $program in
	*/apikeys_*) said=$("$program" version) ;;
	*) said=$("$program" -version; "$program" -built) ;;
	esac
	case $said in
	*"$version"*"$(git rev-parse HEAD)"*) ;;
	*) echo "$program says: $said" >&2; exit 1 ;;
	esac
done
(cd "$one/dist/$version" && sha256sum --quiet -c SHA256SUMS 2>/dev/null || shasum -a 256 -c SHA256SUMS >/dev/null)
echo "the same bytes twice, for ${PLATFORMS:-every platform}:"
(cd "$one/dist/$version" && ls)
