// SPDX-License-Identifier: MPL-2.0

package gitleaks_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// buildScanner builds apikeys, whose package another module cannot import.
func buildScanner(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "apikeys")
	build := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-trimpath", "-o", program, "./cmd/apikeys")
	build.Dir = filepath.Join("..", "..")
	for _, kv := range os.Environ() { // the workspace has the stand-in of the SDK
		if !strings.HasPrefix(kv, "GOWORK=") {
			build.Env = append(build.Env, kv)
		}
	}
	build.Env = append(build.Env, "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// scanned runs apikeys scan over a directory, and returns "file key-id" for each find.
func scanned(t testing.TB, program, dir string) []string {
	t.Helper()
	cmd := exec.Command(program, "scan", "-format", "json", dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if exit, ok := errors.AsType[*exec.ExitError](cmd.Run()); !ok || exit.ExitCode() != 1 {
		t.Fatalf("want status 1: %s", &errs)
	}
	var found struct {
		Findings []struct {
			KeyID string `json:"key_id"`
			Path  string
		}
	}
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range found.Findings {
		name, err := filepath.Rel(dir, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name+" "+f.KeyID)
	}
	slices.Sort(all)
	return all
}

// detected is the same of the scanner, after the checksum has said what is a key.
func detected(t testing.TB, dir string, depth int) []string {
	t.Helper()
	var all []string
	for name, findings := range scanTo(t, rules(), dir, depth) {
		for _, f := range findings {
			if key, err := keyformat.Parse(f.Secret); err == nil {
				all = append(all, name+" "+key.ID())
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestFindsAreEqual: of what is planted, apikeys scan finds what the scanner finds and the
// checksum lets pass.
func TestFindsAreEqual(t *testing.T) {
	program, dir := buildScanner(t), t.TempDir()
	n := 0
	for i, p := range prefixes {
		key := mint(t, p)
		for kind, files := range map[string]map[string]string{"planted": inFiles(key), "near": nearMisses(key), "wrong": wrongChecksums(key)} {
			plant(t, filepath.Join(dir, fmt.Sprint("service-", i), kind), files)
			if kind == "planted" {
				n += len(files)
			}
		}
	}
	ours, theirs := scanned(t, program, dir), detected(t, dir, decodeDepth)
	// A key that goes on for longer is none to the expression. It is to the checksum.
	ours = slices.DeleteFunc(ours, func(s string) bool { return strings.Contains(s, filepath.Join("near", "long")+" ") })
	if len(ours) != n || !slices.Equal(ours, theirs) {
		t.Errorf("planted in %d files\napikeys scan: %d %q\ngitleaks: %d %q", n, len(ours), ours, len(theirs), theirs)
	}
}

// BenchmarkScan lets apikeys scan and the scanner, with the rules of our prefixes alone,
// go through the same tree, the source of Go with keys in a hundred of its files, in turn.
// Ours is a process, which has to begin and to print; the scanner is called, with its
// default of decoding what it reads, and without.
func BenchmarkScan(b *testing.B) {
	program, dir := buildScanner(b), b.TempDir()
	out, err := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "env", "GOROOT").Output()
	if err != nil {
		b.Fatal(err)
	}
	bytes, files := int64(0), 0
	source := os.DirFS(filepath.Join(strings.TrimSpace(string(out)), "src"))
	err = fs.WalkDir(source, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		if files%100 == 50 {
			text = append(text, "\n// key: "+mint(b, prefixes[files/100%len(prefixes)])+"\n"...)
		}
		files++
		bytes += int64(len(text))
		plant(b, dir, map[string]string{name: string(text)})
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	var ours, theirs, undecoded []float64
	for b.Loop() {
		var found [3][]string
		for i, one := range []struct {
			times *[]float64
			find  func() []string
		}{
			{&ours, func() []string { return scanned(b, program, dir) }},
			{&theirs, func() []string { return detected(b, dir, decodeDepth) }},
			{&undecoded, func() []string { return detected(b, dir, 0) }},
		} {
			begin := time.Now()
			found[i] = one.find()
			*one.times = append(*one.times, time.Since(begin).Seconds())
		}
		if !slices.Equal(found[0], found[1]) || !slices.Equal(found[0], found[2]) || len(found[0]) < files/100 {
			b.Fatalf("apikeys scan finds %d keys, gitleaks %d, undecoded %d", len(found[0]), len(found[1]), len(found[2]))
		}
	}
	middle := func(times []float64) float64 {
		slices.Sort(times)
		return times[len(times)/2]
	}
	b.ReportMetric(float64(bytes)/middle(ours)/1e6, "MB/s-apikeys")
	b.ReportMetric(float64(bytes)/middle(theirs)/1e6, "MB/s-gitleaks")
	b.ReportMetric(float64(bytes)/middle(undecoded)/1e6, "MB/s-undecoded")
	b.ReportMetric(middle(theirs)/middle(ours), "times-faster")
	b.ReportMetric(middle(undecoded)/middle(ours), "times-faster-undecoded")
	b.ReportMetric(0, "ns/op")
}
