// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto/md5" //nolint:gosec // what Debian's packages hold
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

func TestBinariesIn(t *testing.T) {
	dir := t.TempDir()
	add := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := binariesIn(dir, "v1.2.3"); err == nil {
		t.Errorf("an empty directory: %v", all)
	}
	add("apikeys_v1.2.3_windows_arm64.exe")
	add("vault-plugin-secrets-apikeys_v1.2.3_linux_amd64")
	all, err := binariesIn(dir, "v1.2.3")
	if err != nil || len(all) != 2 || all[0].program != tool || all[0].system != "windows" || all[0].arch != "arm64" || all[1].program != plugin {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := binariesIn(dir, "v1.2.4"); err == nil {
		t.Errorf("of another version: %v", all)
	}
	add("notes.txt")
	if all, err := binariesIn(dir, "v1.2.3"); err == nil {
		t.Errorf("something else: %v", all)
	}
}

// built is a release of the plugin alone, built for this machine.
func built(t *testing.T, version string) *release {
	t.Helper()
	r := &release{
		version: version, commit: "0123456789abcdef0123456789abcdef01234567", date: time.Unix(1700000000, 0).UTC(),
		toolchain: runtime.Version(), dir: t.TempDir(),
	}
	b := binary{path: r.path(plugin, "_linux_"+runtime.GOARCH), program: plugin, system: "linux", arch: runtime.GOARCH}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-X="+module+"/internal/version.Version="+version, "-o", b.path, "./cmd/"+plugin)
	// The workspace holds the SDK, and this module is not of it.
	cmd.Env = append(os.Environ(), "GOWORK=", "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.binaries = []binary{b}
	return r
}

func TestBillAndLicences(t *testing.T) {
	atRoot(t)
	t.Setenv("GOWORK", "")
	r := built(t, "v1.2.3")
	if err := r.writeBills(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(r.binaries[0].path + ".cdx.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(f, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	properties := map[string]string{}
	for _, p := range *bom.Metadata.Properties {
		properties[p.Name] = p.Value
	}
	if bom.Metadata.Component.Version != "v1.2.3" || bom.Metadata.Timestamp != "2023-11-14T22:13:20Z" || properties["apikeys:commit"] != r.commit || properties["apikeys:sdk"] != "bootstrap" {
		t.Errorf("%+v %+v", bom.Metadata, properties)
	}
	texts, err := r.licences(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	refs := map[string]bool{}
	for _, c := range *bom.Components {
		refs[c.BOMRef] = true
		switch {
		case c.Name == sdk:
			t.Error("the bill names the official SDK")
		case c.Name == bootstrapSDK:
			if c.Version != "v1.2.3" {
				t.Errorf("%+v", c)
			}
		case c.Name == "std":
		case !bytes.Contains(texts, []byte("\n"+c.Name+" "+c.Version+"\n")):
			t.Errorf("no licence of %s %s", c.Name, c.Version)
		}
	}
	if !refs["pkg:golang/"+module+"@v1.2.3#bootstrap/sdk"] {
		t.Error("the bill does not name the SDK of this repository")
	}
	for _, d := range *bom.Dependencies {
		if !refs[d.Ref] && d.Ref != bom.Metadata.Component.BOMRef {
			t.Errorf("%s depends on something and is no component", d.Ref)
		}
	}
	if !bytes.Contains(texts, []byte("Copyright 2009 The Go Authors")) {
		t.Error("no licence of Go itself")
	}

	r.toolchain = "go1.0"
	if err := r.writeBills(t.Context()); err == nil || !strings.Contains(err.Error(), "not with go1.0") {
		t.Errorf("another toolchain: %v", err)
	}
}

// Each of the packages' files is there, root's, and of the commit's date; what is told of them is so.
func TestPackages(t *testing.T) {
	r := releaseIn(t, [2]string{"linux", "amd64"}, [2]string{"linux", "arm64"})
	atRoot(t)
	if err := r.writePackages(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"apikeys_1.2.3_amd64.deb", "apikeys_1.2.3_arm64.deb", "apikeys-1.2.3-1.x86_64.rpm", "apikeys-1.2.3-1.aarch64.rpm"} {
		if info, err := os.Stat(filepath.Join(r.dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	members := members(t, filepath.Join(r.dir, "apikeys_1.2.3_amd64.deb"))
	control, data := entries(t, ungzip(t, members["control.tar.gz"])), entries(t, ungzip(t, members["data.tar.gz"]))
	for name, e := range data {
		owner := "root"
		if strings.HasPrefix(name, "./var/lib/apikeys-edge") {
			owner = "apikeys"
		}
		if !e.header.ModTime.Equal(r.date) || e.header.Uname != owner || e.header.Mode&0o6022 != 0 {
			t.Errorf("%s: %+v", name, e.header)
		}
	}
	sums := string(control["./md5sums"].data)
	for name, from := range map[string]string{
		"usr/bin/apikeys": r.binaries[1].path,
		"usr/lib/systemd/system/apikeys-edge.service":   "bootstrap/systemd/apikeys-edge.service",
		"usr/lib/systemd/system/apikeys-proxy@.service": "bootstrap/systemd/apikeys-proxy@.service",
		"usr/share/doc/apikeys/copyright":               "LICENSE",
	} {
		want, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(want)
		if !bytes.Equal(data["./"+name].data, want) || !strings.Contains(sums, hex.EncodeToString(sum[:])+"  ./"+name+"\n") {
			t.Errorf("%s is another file", name)
		}
	}
	for name, from := range map[string]string{"preinst": "preinstall", "postinst": "postinstall", "prerm": "preremove", "postrm": "postremove"} {
		want, err := os.ReadFile("bootstrap/systemd/package/" + from + ".sh")
		if e := control["./"+name]; err != nil || !bytes.Equal(e.data, want) || e.header.Mode&0o111 == 0 {
			t.Errorf("%s: %+v, %v", name, e.header, err)
		}
	}
}
