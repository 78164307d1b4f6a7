// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// coverProfile says which test reaches what.
type coverProfile struct {
	Tests  []testTime          `json:"tests"`  // the fast ones first
	Blocks map[string][]*block `json:"blocks"` // by the name of the file
}

type testTime struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// block is a run of statements that are reached together.
type block struct {
	Line    int   `json:"line"`
	Col     int   `json:"col"`
	EndLine int   `json:"end_line"`
	EndCol  int   `json:"end_col"`
	Tests   []int `json:"tests"` // that reach it, by their number
}

// coverage runs each test alone and notes what it reaches. The answer is kept for as long as the test
// binary, which depends on all code, stays the same.
func coverage(ctx context.Context, r *runner, c *cache) (*coverProfile, error) {
	binary := filepath.Join(r.tmp, "cover.test")
	if _, err := r.compile(ctx, nil, binary, "-cover", "-covermode=atomic"); err != nil {
		return nil, fmt.Errorf("the package or its tests do not compile: %w", err)
	}
	defer os.Remove(binary)
	if err := r.seeded(ctx, binary); err != nil {
		return nil, err
	}
	key, err := c.key(binary, r.flags)
	if err != nil {
		return nil, err
	}
	if kept := c.profile(key); kept != nil {
		return kept, nil
	}
	list, err := r.test(ctx, binary, 0, time.Minute, "-test.list=.")
	if err != nil {
		return nil, err
	}
	var tests []testTime
	for name := range strings.FieldsSeq(string(list)) {
		if regexp.MustCompile(`^(Test|Fuzz|Example)`).MatchString(name) {
			tests = append(tests, testTime{Name: name})
		}
	}
	if len(tests) == 0 {
		return nil, errors.New("there are no tests")
	}
	fmt.Fprintf(r.progress, "running each of %d tests alone, to see what it reaches\n", len(tests))
	profiles, failures, err := runAlone(ctx, r, binary, tests)
	if err != nil {
		return nil, err
	}
	p, err := merge(tests, profiles)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(failures...); err != nil {
		// Nothing is kept: they may fail because of a busy machine.
		fmt.Fprintf(r.progress, "WARNING: left out, because they fail without a mutant:\n%v\n", err)
		if len(p.Tests) == 0 {
			return nil, errors.New("all tests fail")
		}
		return p, nil
	}
	return p, c.keepProfile(key, p)
}

// runAlone runs each test in a process of its own and answers the profile that each wrote; none for
// those that fail.
func runAlone(ctx context.Context, r *runner, binary string, tests []testTime) ([][]byte, []error, error) {
	profiles := make([][]byte, len(tests))
	failures := make([]error, len(tests))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(r.parallel, len(tests)) {
		wg.Go(func() {
			for i := range next {
				name := filepath.Join(r.tmp, fmt.Sprintf("cover%d.out", i))
				started := time.Now()
				_, err := r.test(ctx, binary, 0, 10*time.Minute, "-test.coverprofile="+name, runFlag(tests[i:i+1]))
				tests[i].Took = time.Since(started)
				if err == nil {
					profiles[i], err = os.ReadFile(name)
				}
				if err != nil {
					profiles[i], failures[i] = nil, fmt.Errorf("%s: %w", tests[i].Name, err)
				}
			}
		})
	}
	for i := range tests {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	return profiles, failures, nil
}

// merge puts the profiles of the tests that have one together.
func merge(tests []testTime, profiles [][]byte) (*coverProfile, error) {
	var order []int
	for i := range tests {
		if profiles[i] != nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(tests[a].Took, tests[b].Took) })
	p := &coverProfile{Blocks: map[string][]*block{}}
	known := map[string]*block{}
	for n, i := range order {
		p.Tests = append(p.Tests, tests[i])
		lines := bufio.NewScanner(bytes.NewReader(profiles[i]))
		for lines.Scan() {
			where, counts, ok := strings.Cut(lines.Text(), " ")
			if !ok || where == "mode:" {
				continue
			}
			b := known[where]
			if b == nil {
				file, at, err := parseBlock(where)
				if err != nil {
					return nil, err
				}
				b = at
				known[where] = b
				p.Blocks[file] = append(p.Blocks[file], b)
			}
			if !strings.HasSuffix(counts, " 0") {
				b.Tests = append(b.Tests, n)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

var blockForm = regexp.MustCompile(`^(.+):(\d+)\.(\d+),(\d+)\.(\d+)$`)

func parseBlock(text string) (string, *block, error) {
	parts := blockForm.FindStringSubmatch(text)
	if parts == nil {
		return "", nil, fmt.Errorf("%q is no block of a coverage profile", text)
	}
	var n [4]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(parts[i+2]); err != nil {
			return "", nil, err
		}
	}
	return path.Base(parts[1]), &block{Line: n[0], Col: n[1], EndLine: n[2], EndCol: n[3]}, nil
}

// at is the block of a position, the innermost if there are several.
func (c *coverProfile) at(pos token.Position) *block {
	var found *block
	for _, b := range c.Blocks[filepath.Base(pos.Filename)] {
		before := b.Line < pos.Line || (b.Line == pos.Line && b.Col <= pos.Column)
		after := b.EndLine > pos.Line || (b.EndLine == pos.Line && b.EndCol > pos.Column)
		if before && after && (found == nil || b.Line > found.Line || (b.Line == found.Line && b.Col > found.Col)) {
			found = b
		}
	}
	return found
}

// reach are the tests that can notice a mutant, the fast ones first.
func (c *coverProfile) reach(m *mutant) []testTime {
	fset := m.file.pkg.fset
	for _, pos := range m.anchors {
		if b := c.at(fset.Position(pos)); b != nil {
			return c.pick(b.Tests)
		}
	}
	if m.fn != nil {
		return c.Tests
	}
	reached := map[int]bool{}
	for _, pos := range m.file.pkg.uses(m.spec) {
		b := c.at(fset.Position(pos))
		if b == nil {
			return c.Tests // used where nothing is counted
		}
		for _, n := range b.Tests {
			reached[n] = true
		}
	}
	return c.pick(slices.Sorted(maps.Keys(reached)))
}

func (c *coverProfile) pick(numbers []int) []testTime {
	tests := make([]testTime, 0, len(numbers))
	for _, n := range numbers {
		tests = append(tests, c.Tests[n])
	}
	return tests
}

// uses are the places in functions that name what a declaration declares, or name another declaration
// that does.
func (p *goPackage) uses(spec ast.Spec) []token.Pos {
	names := map[string]bool{}
	declare := func(spec ast.Spec) bool {
		grown := false
		if v, ok := spec.(*ast.ValueSpec); ok {
			for _, id := range v.Names {
				grown = grown || !names[id.Name]
				names[id.Name] = true
			}
		}
		return grown
	}
	declare(spec)
	for grown := true; grown; {
		grown = false
		for _, f := range p.files {
			for _, decl := range f.ast.Decls {
				other, ok := decl.(*ast.GenDecl)
				if !ok {
					continue
				}
				for _, spec := range other.Specs {
					if len(mentions(spec, names)) > 0 && declare(spec) {
						grown = true
					}
				}
			}
		}
	}
	var all []token.Pos
	for _, f := range p.files {
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok {
				all = append(all, mentions(fn, names)...)
			}
		}
	}
	return all
}

func mentions(root ast.Node, names map[string]bool) []token.Pos {
	var all []token.Pos
	ast.Inspect(root, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && names[id.Name] {
			all = append(all, id.Pos())
		}
		return true
	})
	return all
}
