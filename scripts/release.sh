#!/bin/sh
# Builds a release into dist/VERSION: static binaries of the plugin and of apikeys, with a bill of
# materials each, licences, images, packages and sums. The commit alone decides about the bytes:
# not the day, the folder, or who builds. Refuses what is not a clean, tagged commit.
#   PLATFORMS  which: "linux/amd64 darwin/arm64"
#   SDK        bootstrap, as all that was tested; upstream: the official Vault SDK
set -eu
cd "$(dirname "$0")/.."
: "${GO:=go}" "${SDK:=bootstrap}"
: "${PLATFORMS:=linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64}"

version=${1:?"usage: $0 <version, such as v1.2.3>"}
refuse() {
	echo "no release: $1" >&2
	exit 1
}
echo "$version" | grep -Eqx 'v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?' ||
	refuse "$version is no version: give v1.2.3, or v1.2.3-rc.1"
[ -z "$(git status --porcelain)" ] || refuse "the tree is not clean: commit, or remove what git status shows"
git tag --points-at HEAD | grep -Fqx "$version" || refuse "HEAD is not tagged $version: git tag $version"
case $version in
*-*) ;;
*) grep -Fqx "## $version" CHANGELOG.md || refuse "CHANGELOG.md has no section '## $version'" ;;
esac

commit=$(git rev-parse HEAD)
date=$(git show -s --format=%ct HEAD)
pinned=go$(cat scripts/release/toolchain)
# release-check may compare builds of the toolchain that is there, where the pinned one cannot be had.
case $version in
*-check) pinned=${CHECK_TOOLCHAIN:-$pinned} ;;
esac
export GO GOTOOLCHAIN="$pinned"
have=$("$GO" env GOVERSION) || refuse "$pinned cannot be had"
[ "$have" = "$pinned" ] || refuse "releases are built with $pinned, and this is $have"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$dir/out"

# Whatever else this machine sets must not count.
export CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off GOFLAGS=-mod=readonly
unset GOEXPERIMENT GOOS GOARCH GODEBUG
GOWORK=off "$GO" build -C scripts/release -o "$dir/release" .
case $SDK in
bootstrap) ;;
upstream)
	scripts/upstream-modfile.sh "$dir"
	export GOWORK=off GOFLAGS="-mod=mod -modfile=$dir/go.mod"
	;;
*) refuse "SDK=$SDK: bootstrap (the one in this repository) or upstream (the official one)" ;;
esac

name=github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version
for platform in $PLATFORMS; do
	os=${platform%/*} arch=${platform#*/} exe=
	[ "$os" != windows ] || exe=.exe
	for program in vault-plugin-secrets-apikeys apikeys; do
		echo "$program for $platform"
		GOOS=$os GOARCH=$arch "$GO" build -trimpath -buildvcs=false -ldflags "-w -X $name.Version=$version -X $name.Commit=$commit" \
			-o "$dir/out/${program}_${version}_${os}_${arch}$exe" "./cmd/$program"
	done
done

"$dir/release" -version "$version" -commit "$commit" -date "$date" -toolchain "$pinned" -dir "$dir/out"
chmod 755 "$dir/out"
mkdir -p dist
rm -rf "dist/$version"
mv "$dir/out" "dist/$version"
echo "dist/$version: commit $commit, $pinned, SDK $SDK"
