// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// What is read of a repository is read here, file by file. Git itself never sees its
// configuration, which may name programs to run.

// errNotPlain is said of what is no plain file: it is not followed, waited for or read.
var errNotPlain = errors.New("is not a plain file")

// repo is a git repository.
type repo struct {
	root   string // of the work tree; "" without one
	dir    string // with the index
	common string // with the objects: another one for a linked work tree
}

// readPlain is the content of a plain file, if it has no more than limit bytes.
func readPlain(path string, limit int64) ([]byte, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("has more than %d bytes", limit)
	}
	return raw, err
}

// openPlain opens a plain file, and nothing else.
func openPlain(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotPlain
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	// Somebody may have put another thing there meanwhile.
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		f.Close()
		return nil, errors.Join(errNotPlain, err)
	}
	return f, nil
}

// repoAt is the repository whose work tree begins at a directory, nil if there is none.
func repoAt(dir string) *repo {
	git := filepath.Join(dir, ".git")
	info, err := os.Lstat(git)
	if err != nil {
		return nil
	}
	if info.Mode().IsRegular() { // of a linked work tree, or a submodule
		raw, err := readPlain(git, 64<<10)
		to, ok := strings.CutPrefix(string(raw), "gitdir: ")
		if err != nil || !ok {
			return nil
		}
		git = beside(dir, strings.TrimRight(to, "\r\n"))
	}
	r := gitDir(git)
	if r != nil {
		r.root = dir
	}
	return r
}

// gitDir is the repository in a directory such as .git, nil if it holds none.
func gitDir(dir string) *repo {
	if _, err := os.Lstat(filepath.Join(dir, "HEAD")); err != nil {
		return nil
	}
	r := &repo{dir: dir, common: dir}
	if raw, err := readPlain(filepath.Join(dir, "commondir"), 64<<10); err == nil {
		r.common = beside(dir, strings.TrimRight(string(raw), "\r\n"))
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(r.common, name)); err != nil || !info.IsDir() {
			return nil
		}
	}
	return r
}

// beside is a path that is relative to dir.
func beside(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// repoAround is the repository that an absolute directory is in, nil if it is in none.
func repoAround(dir string) *repo {
	for {
		if r := repoAt(dir); r != nil {
			return r
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil
		}
		dir = up
	}
}

// objects is the directory of the repository's objects.
func (r *repo) objects() string { return filepath.Join(r.common, "objects") }

// hashLen is the length of the repository's object ids in bytes.
func (r *repo) hashLen() int {
	raw, err := readPlain(filepath.Join(r.common, "config"), 1<<20)
	if err != nil {
		return 20
	}
	section := ""
	for line := bufio.NewScanner(bytes.NewReader(raw)); line.Scan(); {
		text := strings.ToLower(strings.TrimSpace(line.Text()))
		if strings.HasPrefix(text, "[") {
			section = text
			continue
		}
		name, value, _ := strings.Cut(text, "=")
		if strings.HasPrefix(section, "[extensions]") && strings.TrimSpace(name) == "objectformat" && strings.Trim(value, ` "`) == "sha256" {
			return 32
		}
	}
	return 20
}

// tracked are the names of the files that the repository tracks, in order. It is not
// known if the index cannot be read.
func (r *repo) tracked() (names []string, known bool) {
	raw, err := readPlain(filepath.Join(r.dir, "index"), 512<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true // nothing was ever added
	}
	if err != nil {
		return nil, false
	}
	names, err = indexNames(raw, r.hashLen())
	return names, err == nil
}
