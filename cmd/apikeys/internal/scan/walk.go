// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// maxRules is how long a .gitignore file may be; of a longer one nothing is ignored.
const maxRules = 16 << 20

// walk looks for files and hands them out.
type walk struct {
	ctx      context.Context //nolint:containedctx // a walk is one call
	all      *findings
	everyone bool // whatever .gitignore says
	files    chan<- string
}

// tree is a work tree that a walk is in.
type tree struct {
	tracked []string // in order
	known   bool     // which files these are; else nothing is ignored
}

// tracks reports whether the file or, with a slash at its end, a file below the
// directory is tracked.
func (t *tree) tracks(name string) bool {
	i := sort.SearchStrings(t.tracked, name)
	return i < len(t.tracked) && (t.tracked[i] == name || strings.HasSuffix(name, "/") && strings.HasPrefix(t.tracked[i], name))
}

// scanFiles looks at files, and at what is in directories, by as many at a time as there
// are processors.
func scanFiles(ctx context.Context, paths []string, everyone bool, all *findings) {
	files := make(chan string, 256)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var w where
			s := newSearch(func(k keyformat.Key, line, column int) { all.add(w, k, line, column) })
			for path := range files {
				w = where{path: path}
				scanFile(ctx, path, s, all)
			}
		})
	}
	walk := &walk{ctx, all, everyone, files}
	for _, path := range paths {
		walk.argument(path)
	}
	close(files)
	workers.Wait()
}

// until reads no more once its context has ended.
type until struct {
	context.Context //nolint:containedctx // it reads for one call
	io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if err := u.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}

func scanFile(ctx context.Context, path string, s *search, all *findings) {
	if ctx.Err() != nil {
		return
	}
	f, err := openPlain(path)
	if err != nil {
		all.problem(path, err)
		return
	}
	defer f.Close()
	n, err := s.readFrom(until{ctx, f})
	if err != nil && ctx.Err() == nil {
		all.problem(path, err)
	}
	all.looked(1, 0, n)
}

// argument takes a path that somebody named.
func (w *walk) argument(path string) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		w.all.problem(path, err)
	case info.IsDir():
		w.top(path)
	case info.Mode().IsRegular():
		w.all.addName(where{path: path})
		w.hand(path)
	case info.Mode()&fs.ModeSymlink != 0:
		w.all.problem(path, errors.New("is a symbolic link: name what it points to"))
	default:
		w.all.problem(path, errors.New("is not a file or a directory: give what it holds to standard input, and - as the path"))
	}
}

// hand gives a file to a worker.
func (w *walk) hand(path string) {
	select {
	case w.files <- path:
	case <-w.ctx.Done():
	}
}

// top takes a directory that somebody named. What is ignored inside follows from the
// work tree around it; that it is itself ignored does not matter.
func (w *walk) top(path string) {
	abs, err := filepath.Abs(path)
	if err != nil {
		w.all.problem(path, err)
		return
	}
	r := repoAround(abs)
	if r == nil || w.everyone || !ownedAlike(r.root, abs) {
		w.dir(path, "", nil, nil, false)
		return
	}
	rel, err := filepath.Rel(r.root, abs)
	if err != nil {
		w.all.problem(path, err)
		return
	}
	rel = filepath.ToSlash(rel)
	if rel == "." {
		w.worktree(path, r)
		return
	}
	t, rules := enter(r)
	for i, c := range rel { // the directories on the way
		if c == '/' {
			rules = withRules(rules, filepath.Join(r.root, rel[:i]), rel[:i])
		}
	}
	w.dir(path, rel, t, rules, false)
}

// ownedAlike reports whether a work tree belongs to whom a directory inside belongs to.
// Somebody else's, such as one in the directory for everybody's temporary files, does not
// say what is looked at.
func ownedAlike(root, dir string) bool {
	a, err := os.Lstat(filepath.Join(root, ".git"))
	if err != nil {
		return false
	}
	b, err := os.Lstat(dir)
	return err == nil && owner(a) == owner(b)
}

// worktree takes the directory in which a work tree begins.
func (w *walk) worktree(path string, r *repo) {
	t, rules := enter(r)
	w.dir(path, "", t, rules, false)
}

// enter reads what of a repository a walk needs, and the rules of its root.
func enter(r *repo) (*tree, stack) {
	t := &tree{}
	t.tracked, t.known = r.tracked()
	var rules stack
	if raw, err := readPlain(filepath.Join(r.common, "info", "exclude"), maxRules); err == nil {
		rules = append(rules, readRules("", raw))
	}
	return t, withRules(rules, r.root, "")
}

// withRules adds those of a directory.
func withRules(rules stack, dir, rel string) stack {
	raw, err := readPlain(filepath.Join(dir, ".gitignore"), maxRules)
	if err != nil || len(raw) == 0 {
		return rules
	}
	return append(slices.Clip(rules), readRules(rel, raw))
}

// dir looks at what is in a directory. rel is its path from the root of the work tree t;
// nil if it is in none. In an ignored directory only tracked files are left.
func (w *walk) dir(path, rel string, t *tree, rules stack, ignored bool) {
	if w.ctx.Err() != nil {
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.all.problem(path, err)
	}
	if t != nil && rel != "" && !ignored {
		rules = withRules(rules, path, rel)
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		below := e.Name()
		if rel != "" {
			below = rel + "/" + e.Name()
		}
		switch {
		case e.IsDir() && e.Name() == ".git":
		case e.IsDir():
			out := ignored || t != nil && rules.ignored(below, true)
			if out && t.known && !t.tracks(below+"/") && !t.tracks(below) {
				continue
			}
			if r := repoAt(name); r != nil && !w.everyone {
				w.worktree(name, r)
			} else {
				w.dir(name, below, t, rules, out)
			}
		case e.Type().IsRegular():
			if (ignored || t != nil && rules.ignored(below, false)) && t.known && !t.tracks(below) {
				continue
			}
			w.all.addName(where{path: name})
			w.hand(name)
		}
	}
}
