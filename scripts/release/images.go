// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nobody is who an image of a tool runs as: no user of the host's.
const nobody = "65532:65532"

// What an image has beside its binary.
const (
	licencesDir = "licenses/"
	rootsPath   = "etc/ssl/certs/ca-certificates.crt" // where Go looks first
)

// A file of an image.
type file struct {
	name string
	mode int64
	data []byte
}

// writeImages writes an image of each program, for all architectures of Linux together, as an OCI
// layout in one tar: no base, one layer. The one of the plugin is what OpenBao downloads; the one
// of the tool runs as nobody, without a shell.
func (r *release) writeImages(context.Context) error {
	roots, err := rootCertificates()
	if err != nil {
		return err
	}
	images := []struct {
		program, title, user string
		more                 []file
	}{
		{plugin, "API-key secrets engine for Vault and OpenBao", "", nil},
		{tool, "edge, proxy, scanner and reports beside the API-key secrets engine", nobody, []file{{rootsPath, 0o444, roots}}},
	}
	for _, image := range images {
		binaries := r.of(image.program)
		if len(binaries) == 0 {
			continue
		}
		index, err := r.index(image.program, image.title, image.user, image.more, binaries)
		if err != nil {
			return fmt.Errorf("image of %s: %w", image.program, err)
		}
		if err := r.writeLayout(index, r.path(image.program, "_oci.tar")); err != nil {
			return fmt.Errorf("image of %s: %w", image.program, err)
		}
	}
	return nil
}

func (r *release) index(program, title, user string, more []file, binaries []binary) (v1.ImageIndex, error) {
	texts, err := r.legalFiles()
	if err != nil {
		return nil, err
	}
	labels := map[string]string{
		"org.opencontainers.image.title":    title,
		"org.opencontainers.image.version":  r.version,
		"org.opencontainers.image.revision": r.commit,
		"org.opencontainers.image.created":  r.date.Format(time.RFC3339),
		"org.opencontainers.image.licenses": "MPL-2.0",
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, b := range binaries {
		data, err := os.ReadFile(b.path)
		if err != nil {
			return nil, err
		}
		layer, err := r.layer(append(append([]file{{program, 0o555, data}}, more...), texts...))
		if err != nil {
			return nil, err
		}
		platform := v1.Platform{OS: b.system, Architecture: b.arch}
		if b.arch == "arm64" {
			// OpenBao asks for it by name, and finds nothing without.
			platform.Variant = "v8"
		}
		image, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), &v1.ConfigFile{
			Created: v1.Time{Time: r.date}, OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant,
			Config: v1.Config{Entrypoint: []string{"/" + program}, User: user, WorkingDir: "/", Labels: labels},
			RootFS: v1.RootFS{Type: "layers"},
		})
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.date}, CreatedBy: "scripts/release.sh " + r.version}})
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: runnable{image}, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	annotated, ok := mutate.Annotations(index, labels).(v1.ImageIndex)
	if !ok {
		return nil, fmt.Errorf("no index any more")
	}
	return annotated, nil
}

// runnable is an image that is no other kind of artifact: an index that calls its images by the type
// of their configuration is not copied as it is by skopeo 1.9.
type runnable struct{ v1.Image }

func (runnable) ArtifactType() (string, error) { return "", nil }

// legalFiles are the licences, which travel with every copy.
func (r *release) legalFiles() ([]file, error) {
	own, err := os.ReadFile("LICENSE")
	if err != nil {
		return nil, err
	}
	others, err := os.ReadFile(filepath.Join(r.dir, licencesFile))
	return []file{{licencesDir + "LICENSE", 0o444, own}, {licencesDir + licencesFile, 0o444, others}}, err
}

// layer packs files as root's, all of the commit's date.
func (r *release) layer(files []file) (v1.Layer, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	made := map[string]bool{}
	for _, f := range files {
		for _, dir := range parents(f.name) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o555, ModTime: r.date}); err != nil {
				return nil, err
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: r.date}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
}

// parents are the directories above a path, the highest first.
func parents(path string) []string {
	dir := filepath.ToSlash(filepath.Dir(path))
	if dir == "." {
		return nil
	}
	return append(parents(dir), dir)
}

// rootCertificates are Mozilla's, as Go's module of them has them, less those that a file of
// certificates cannot express: roots that are trusted for certificates of before some day only.
func rootCertificates() ([]byte, error) {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// writeLayout writes an OCI layout with one index in it, tagged with the version, as one tar.
func (r *release) writeLayout(index v1.ImageIndex, path string) error {
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := l.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.version})); err != nil {
		return err
	}
	written, err := l.ImageIndex()
	if err != nil {
		return err
	}
	if err := validate.Index(written); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := packTree(out, dir, r.date); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// packTree packs the files of a directory in the order of their names.
func packTree(out io.Writer, dir string, date time.Time) error {
	w := tar.NewWriter(out)
	tree := os.DirFS(dir)
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: date})
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: date}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}
