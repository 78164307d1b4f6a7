// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

const (
	// A worker takes that many objects at a time, or fewer big ones.
	maxObjects, maxObjectBytes = 2000, 64 << 20
	// maxBroken is how many objects of a repository may be broken before it is given up.
	maxBroken = 100
	// maxWanted is how many objects git looks for at a time: each is an argument.
	maxWanted = 500
)

// scanHistory looks at all that the repository of a directory holds: every version of
// every file, also what is staged, stashed or left over, and the messages of commits and
// tags.
func scanHistory(ctx context.Context, path string, all *findings) {
	r, err := repoOf(path)
	if err != nil {
		all.problem(path, err)
		return
	}
	if err := r.incomplete(); err != nil {
		all.problem(path, err)
	}
	o, err := openObjects(r)
	if err != nil {
		all.problem(path, err)
		return
	}
	defer o.close()
	h := &history{path: path, objects: o, all: all, mine: newFindings(all.prefixes, all.except)}
	if err := h.look(ctx); err != nil {
		all.problem(path, err)
	}
	if len(h.mine.found) > 0 {
		if err := h.name(ctx); err != nil {
			all.problem(path, fmt.Errorf("the files' names: %w", err))
		}
	}
	h.tell()
}

// repoOf is the repository that a path is in, or is.
func repoOf(path string) (*repo, error) {
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, errors.New("is not a directory: give one in a repository of git")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if r := gitDir(abs); r != nil {
		return r, nil
	}
	if r := repoAround(abs); r != nil {
		return r, nil
	}
	return nil, errors.New("is not in a repository of git")
}

// history is one look at the objects of a repository.
type history struct {
	*objects
	path string
	all  *findings
	mine *findings // by object

	mu     sync.Mutex
	broken int
	names  map[string]map[string]naming // of the objects with finds, by path
}

// naming is the oldest of the commits in which a file became an object.
type naming struct {
	commit string
	age
}

// age is when a commit was made, and when its change was, in seconds: commits that were
// rebased are made in the same one.
type age struct{ committed, authored int64 }

func (n naming) compare(o naming) int {
	return cmp.Or(cmp.Compare(n.committed, o.committed), cmp.Compare(n.authored, o.authored), cmp.Compare(n.commit, o.commit))
}

// look reads all objects, by as many processes as there are processors.
func (h *history) look(ctx context.Context) error {
	parts := make(chan []string)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			var w where
			s := newSearch(func(k keyformat.Key, line, column int) { h.mine.add(w, k, line, column) })
			for part := range parts {
				h.readAll(ctx, part, func(one object, content io.Reader) error {
					w = where{object: one.id, message: one.kind != "blob"}
					n, err := s.readFrom(content)
					h.all.looked(0, 1, n)
					return err
				})
			}
		})
	}
	var part []string
	bytes := int64(0)
	hand := func() {
		select {
		case parts <- part:
		case <-ctx.Done():
		}
		part, bytes = nil, 0
	}
	err := h.list(ctx, func(one object) error {
		if one.kind == "tree" {
			return nil
		}
		part = append(part, one.id)
		if bytes += one.size; len(part) >= maxObjects || bytes >= maxObjectBytes {
			hand()
		}
		return ctx.Err()
	})
	if len(part) > 0 {
		hand()
	}
	close(parts)
	workers.Wait()
	if h.mine.full {
		h.all.problem(h.path, errTooMany)
	}
	return err
}

// readAll is read that goes on after an object that cannot be read.
func (h *history) readAll(ctx context.Context, ids []string, yield func(object, io.Reader) error) {
	for len(ids) > 0 && ctx.Err() == nil {
		done, err := h.read(ctx, ids, yield)
		if err == nil {
			return
		}
		if done >= len(ids) { // it was read, and git complains all the same
			h.all.problem(h.path, err)
			return
		}
		h.mu.Lock()
		h.broken++
		broken := h.broken
		h.mu.Unlock()
		if broken > maxBroken {
			if broken == maxBroken+1 {
				h.all.problem(h.path, errors.New("too many objects cannot be read: the rest was not looked at"))
			}
			return
		}
		h.all.problem(h.path, fmt.Errorf("object %s cannot be read: %w", ids[done], err))
		ids = ids[done+1:]
	}
}

// name finds out which files the objects with finds are, and in which commits they came.
func (h *history) name(ctx context.Context) error {
	h.names = map[string]map[string]naming{}
	var wanted []string
	for s := range h.mine.found {
		if !s.message {
			wanted = append(wanted, s.object)
		}
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if len(wanted) == 0 {
		return nil
	}
	var commits []string
	err := h.list(ctx, func(one object) error {
		if one.kind == "commit" {
			commits = append(commits, one.id)
		}
		return nil
	})
	if err != nil || len(commits) == 0 {
		return err
	}
	var brought []bringing
	for part := range slices.Chunk(wanted, maxWanted) {
		some, err := h.bringers(ctx, commits, part)
		brought = append(brought, some...)
		if err != nil {
			return err
		}
	}
	ages, err := h.ages(ctx, brought)
	if err != nil {
		return err
	}
	for _, b := range brought {
		n := naming{b.commit, ages[b.commit]}
		paths := h.names[b.object]
		if paths == nil {
			paths = map[string]naming{}
			h.names[b.object] = paths
		}
		if old, ok := paths[b.path]; !ok || n.compare(old) < 0 {
			paths[b.path] = n
		}
	}
	return nil
}

// bringing is a commit in which a file became an object.
type bringing struct{ commit, path, object string }

func (h *history) bringers(ctx context.Context, commits, wanted []string) (all []bringing, err error) {
	args := []string{"diff-tree", "--stdin", "-r", "-z", "--root", "-m", "--no-renames", "--raw", "--no-abbrev", "--no-ext-diff", "--no-textconv"}
	for _, id := range wanted {
		args = append(args, "--find-object="+id)
	}
	stdin := strings.NewReader(strings.Join(commits, "\n") + "\n")
	err = h.run(ctx, stdin, func(out *bufio.Reader) error {
		commit := ""
		for {
			token, err := out.ReadString(0)
			if errors.Is(err, io.EOF) && token == "" {
				return nil
			}
			if err != nil {
				return err
			}
			token = token[:len(token)-1]
			if !strings.HasPrefix(token, ":") {
				commit = token
				continue
			}
			path, err := out.ReadString(0)
			if err != nil {
				return err
			}
			if f := strings.Fields(token); len(f) == 5 {
				if _, ok := slices.BinarySearch(wanted, f[3]); ok {
					all = append(all, bringing{commit, path[:len(path)-1], f[3]})
				}
			}
		}
	}, args...)
	return all, err
}

// ages are those of the commits, as far as these say.
func (h *history) ages(ctx context.Context, brought []bringing) (map[string]age, error) {
	ages := map[string]age{}
	var ids []string
	for _, b := range brought {
		if _, ok := ages[b.commit]; !ok {
			ages[b.commit] = age{}
			ids = append(ids, b.commit)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	_, err := h.read(ctx, ids, func(one object, content io.Reader) error {
		head, err := io.ReadAll(io.LimitReader(content, 64<<10))
		ages[one.id] = age{seconds(head, "committer "), seconds(head, "author ")}
		return err
	})
	return ages, err
}

// seconds is the time after a name in the head of a commit.
func seconds(commit []byte, who string) int64 {
	for line := range bytes.Lines(commit) {
		if len(line) == 1 {
			break
		}
		if rest, ok := bytes.CutPrefix(line, []byte(who)); ok {
			if f := bytes.Fields(rest[bytes.LastIndexByte(rest, '>')+1:]); len(f) > 0 {
				t, _ := strconv.ParseInt(string(f[0]), 10, 64)
				return t
			}
		}
	}
	return 0
}

// tell adds the finds to all, each key once for each file: as the oldest version has it.
func (h *history) tell() {
	oldest := map[spot]naming{}
	told := map[spot]*finding{}
	for _, one := range h.mine.sorted() {
		if len(h.names[one.object]) == 0 { // a message, or in no commit
			h.all.addAll(one)
		}
		for path, n := range h.names[one.object] {
			s := spot{where{path: path}, one.key.Reveal()}
			if old, ok := oldest[s]; !ok || n.compare(old) < 0 {
				named := *one
				named.path, named.commit = path, n.commit
				oldest[s], told[s] = n, &named
			}
		}
	}
	for _, one := range told {
		h.all.addAll(one)
	}
}
