// SPDX-License-Identifier: MPL-2.0

// Command release completes a directory of binaries to a release: for each binary a bill of
// materials, the licences of what is linked in, images, packages, and the sums of all of it. The
// same binaries and flags give the same bytes. scripts/release.sh calls it, in the root of the
// repository.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sort"
	"time"
)

const (
	module = "github.com/vault-apikeys/vault-plugin-secrets-apikeys"
	plugin = "vault-plugin-secrets-apikeys"
	tool   = "apikeys"
)

// A release is what is said of all files in it.
type release struct {
	version string // v1.2.3
	commit  string
	// date is the commit's: nothing in a release tells when it was built.
	date time.Time
	// toolchain is what the binaries must have been built with: go1.26.8.
	toolchain string
	dir       string
	binaries  []binary
}

// A binary is one program for one platform.
type binary struct {
	path, program, system, arch string
}

func (b binary) name() string { return filepath.Base(b.path) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	r := release{}
	fs := flag.NewFlagSet("release", flag.ContinueOnError)
	fs.StringVar(&r.version, "version", "", "the release's `version`")
	fs.StringVar(&r.commit, "commit", "", "the `commit` that it is built from")
	fs.StringVar(&r.toolchain, "toolchain", "", "what the binaries must be built with, such as `go1.2.3`")
	fs.StringVar(&r.dir, "dir", "", "the `directory` of the binaries, which the rest joins")
	epoch := fs.Int64("date", 0, "the commit's date, in `seconds` since 1970")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || r.version == "" || r.commit == "" || r.toolchain == "" || r.dir == "" || *epoch <= 0 {
		return fmt.Errorf("give -version, -commit, -date, -toolchain and -dir, and nothing else")
	}
	r.date = time.Unix(*epoch, 0).UTC()

	var err error
	if r.binaries, err = binariesIn(r.dir, r.version); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.writeBills, r.writeLicences, r.writeImages, r.writePackages} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return writeSums(r.dir)
}

var binaryName = regexp.MustCompile(`^(` + plugin + `|` + tool + `)_(v[^_]+)_([a-z]+)_([a-z0-9]+)(\.exe)?$`)

// binariesIn lists what was built, and takes nothing else for it.
func binariesIn(dir, version string) ([]binary, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []binary
	for _, e := range entries {
		m := binaryName.FindStringSubmatch(e.Name())
		if m == nil || m[2] != version || !e.Type().IsRegular() {
			return nil, fmt.Errorf("%s: %s is no binary of %s", dir, e.Name(), version)
		}
		all = append(all, binary{path: filepath.Join(dir, e.Name()), program: m[1], system: m[3], arch: m[4]})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no binaries", dir)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].path < all[j].path })
	return all, nil
}

// of are the binaries of a program for Linux, which images and packages are made for.
func (r *release) of(program string) []binary {
	var some []binary
	for _, b := range r.binaries {
		if b.program == program && b.system == "linux" {
			some = append(some, b)
		}
	}
	return some
}

// path is that of a file of the release, named after a program and its version.
func (r *release) path(program, rest string) string {
	return filepath.Join(r.dir, program+"_"+r.version+rest)
}
