// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cache keeps what one run tells the next, for one package.
type cache struct {
	dir string
	pkg *goPackage
}

// keptProfiles bounds the cache: each edit makes another profile.
const keptProfiles = 4

func openCache(dir string, p *goPackage) (*cache, error) {
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(user, "mutate")
	}
	dir, err := filepath.Abs(filepath.Join(dir, strings.ReplaceAll(p.ImportPath, "/", "-")))
	if err != nil {
		return nil, err
	}
	return &cache{dir: dir, pkg: p}, os.MkdirAll(dir, 0o755) //nolint:gosec // nothing secret is in it
}

// key depends on the test binary, on how it is called and on the data that tests read.
func (c *cache) key(binary string, flags []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, flags)
	add := func(name string) error {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(h, file)
		return err
	}
	if err := add(binary); err != nil {
		return "", err
	}
	err := filepath.WalkDir(filepath.Join(c.pkg.Dir, "testdata"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fmt.Fprintln(h, name)
		return add(name)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}

func (c *cache) profileFile(key string) string { return filepath.Join(c.dir, "cover-"+key+".json") }

// profile is nil if none is kept, or none that can be read.
func (c *cache) profile(key string) *coverProfile {
	data, err := os.ReadFile(c.profileFile(key))
	if err != nil {
		return nil
	}
	p := &coverProfile{}
	if json.Unmarshal(data, p) != nil {
		return nil
	}
	return p
}

func (c *cache) keepProfile(key string, p *coverProfile) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.profileFile(key), data, 0o644); err != nil { //nolint:gosec // nothing secret is in it
		return err
	}
	all, err := filepath.Glob(c.profileFile("*"))
	if err != nil {
		return err
	}
	age := map[string]int64{}
	for _, name := range all {
		if info, err := os.Stat(name); err == nil {
			age[name] = info.ModTime().UnixNano()
		}
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(age[b], age[a]) })
	for _, name := range all[min(len(all), keptProfiles):] {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func (c *cache) survivorsFile() string { return filepath.Join(c.dir, "survivors.txt") }

// keepSurvivors writes the identities down in the form of the list of equivalent mutants, the reason
// left to be given.
func (c *cache) keepSurvivors(all []outcome, o *options) error {
	if o.only != nil {
		return nil
	}
	var text strings.Builder
	for _, s := range all {
		text.WriteString(s.m.id + "\n")
	}
	return os.WriteFile(c.survivorsFile(), []byte(text.String()), 0o644) //nolint:gosec // nothing secret is in it
}

func (c *cache) survivors() (map[string]bool, error) {
	data, err := os.ReadFile(c.survivorsFile())
	if err != nil {
		return nil, fmt.Errorf("the survivors of the run before: %w", err)
	}
	ids := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		ids[strings.TrimSpace(line)] = true
	}
	return ids, nil
}
