// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// atRoot is where release.sh calls the program.
func atRoot(t *testing.T) {
	t.Helper()
	t.Chdir("../..")
}

// releaseIn is a release with files that stand for binaries.
func releaseIn(t *testing.T, platforms ...[2]string) *release {
	t.Helper()
	r := &release{version: "v1.2.3", commit: "0123456789abcdef0123456789abcdef01234567", date: time.Unix(1700000000, 0).UTC(), toolchain: "go1.0", dir: t.TempDir()}
	for _, p := range platforms {
		for _, program := range []string{plugin, tool} {
			b := binary{path: r.path(program, "_"+p[0]+"_"+p[1]), program: program, system: p[0], arch: p[1]}
			if err := os.WriteFile(b.path, []byte("stands for "+b.name()), 0o755); err != nil {
				t.Fatal(err)
			}
			r.binaries = append(r.binaries, b)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, licencesFile), []byte("licences of others"), 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

// An entry of a tar.
type entry struct {
	header *tar.Header
	data   []byte
}

func entries(t *testing.T, r io.Reader) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = entry{h, data}
	}
}

// unpacked is the index in a layout that is packed as a tar.
func unpacked(t *testing.T, path, tag string) v1.ImageIndex {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	for name, e := range entries(t, f) {
		to := filepath.Join(dir, name)
		if e.header.Typeflag == tar.TypeDir {
			err = os.MkdirAll(to, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
			err = os.WriteFile(to, e.data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	whole, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(whole); err != nil {
		t.Fatal(err)
	}
	manifest, err := whole.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 || manifest.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != tag {
		t.Fatalf("%s: %+v, %v", path, manifest, err)
	}
	index, err := whole.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// imageFor is the image that a client on that platform takes.
func imageFor(t *testing.T, index v1.ImageIndex, p v1.Platform) v1.Image {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range manifest.Manifests {
		if d.Platform == nil || !d.Platform.Satisfies(p) {
			continue
		}
		image, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	t.Fatalf("nothing for %s", p.String())
	return nil
}

func TestImages(t *testing.T) {
	r := releaseIn(t, [2]string{"linux", "amd64"}, [2]string{"linux", "arm64"}, [2]string{"darwin", "arm64"})
	atRoot(t)
	if err := r.writeImages(t.Context()); err != nil {
		t.Fatal(err)
	}
	licences := []string{"licenses", licencesDir + "LICENSE", licencesDir + licencesFile}
	for program, want := range map[string]struct {
		user  string
		names []string
	}{
		plugin: {"", append([]string{plugin}, licences...)},
		tool:   {nobody, append([]string{tool, "etc", "etc/ssl", "etc/ssl/certs", rootsPath}, licences...)},
	} {
		index := unpacked(t, r.path(program, "_oci.tar"), r.version)
		manifest, err := index.IndexManifest()
		if err != nil || len(manifest.Manifests) != 2 {
			t.Fatalf("%s: %+v, %v", program, manifest, err)
		}
		for _, d := range manifest.Manifests {
			if d.ArtifactType != "" {
				t.Errorf("%s: %+v", program, d)
			}
		}
		// As OpenBao and other clients ask.
		for _, platform := range []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "arm64", Variant: "v8"}} {
			image := imageFor(t, index, platform)
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if got := config.Config; !slices.Equal(got.Entrypoint, []string{"/" + program}) || got.User != want.user || len(got.Cmd) > 0 {
				t.Errorf("%s: %+v", program, got)
			}
			if !config.Created.Equal(r.date) || config.Architecture != platform.Architecture || config.Config.Labels["org.opencontainers.image.revision"] != r.commit {
				t.Errorf("%s: %+v", program, config)
			}
			if layers, err := image.Layers(); err != nil || len(layers) != 1 {
				t.Errorf("%s: %d layers, %v", program, len(layers), err)
			}
			flat := mutate.Extract(image)
			found := entries(t, flat)
			flat.Close()
			if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, slices.Sorted(slices.Values(want.names))) {
				t.Errorf("%s holds %q, want %q", program, got, want.names)
			}
			for name, e := range found {
				if !e.header.ModTime.Equal(r.date) || e.header.Uid != 0 || e.header.Mode&0o222 != 0 {
					t.Errorf("%s: %s: %+v", program, name, e.header)
				}
			}
			// The sum that a server compares is that of the binary in SHA256SUMS.
			sum, err := fileSum(r.path(program, "_linux_"+platform.Architecture))
			got := sha256.Sum256(found[program].data)
			if err != nil || hex.EncodeToString(got[:]) != sum || found[program].header.Typeflag != tar.TypeReg || found[program].header.Mode&0o111 != 0o111 {
				t.Errorf("%s: its binary is %+v, %v", program, found[program].header, err)
			}
		}
	}
	roots, err := rootCertificates()
	if pool := x509.NewCertPool(); err != nil || !pool.AppendCertsFromPEM(roots) || bytes.Count(roots, []byte("BEGIN CERTIFICATE")) < 50 {
		t.Errorf("roots: %d certificates, %v", bytes.Count(roots, []byte("BEGIN CERTIFICATE")), err)
	}
}

func TestImagesAreTheSameTwice(t *testing.T) {
	one, two := releaseIn(t, [2]string{"linux", "amd64"}), releaseIn(t, [2]string{"linux", "amd64"})
	atRoot(t)
	for _, r := range []*release{one, two} {
		if err := r.writeImages(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.writePackages(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := writeSums(r.dir); err != nil {
			t.Fatal(err)
		}
	}
	a, err := os.ReadFile(filepath.Join(one.dir, sumsFile))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(two.dir, sumsFile))
	if err != nil || !bytes.Equal(a, b) || bytes.Count(a, []byte("\n")) != 7 {
		t.Errorf("%v:\n%s\n%s", err, a, b)
	}
}

// A program for one platform only has no image for the others, and no packages.
func TestNothingForOtherSystems(t *testing.T) {
	r := releaseIn(t, [2]string{"windows", "amd64"})
	atRoot(t)
	if err := errors.Join(r.writeImages(t.Context()), r.writePackages(t.Context())); err != nil {
		t.Fatal(err)
	}
	if all, err := os.ReadDir(r.dir); err != nil || len(all) != 3 {
		t.Errorf("%v, %v", all, err)
	}
}
