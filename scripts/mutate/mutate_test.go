// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// tinyOptions changes all of the package in testdata. One mutant hangs for as long as the slack is.
func tinyOptions(t *testing.T) *options {
	return &options{
		pkg: "./testdata/tiny", files: regexp.MustCompile(""), seed: 1, parallel: 2, memory: 4096,
		factor: 5, slack: 3 * time.Second, cache: t.TempDir(), minimum: 90,
	}
}

// verdicts are the outcomes by "line of the function: operator: what stands there then".
func verdicts(s *summary) map[string]verdict {
	all := map[string]verdict{}
	for _, o := range s.outcomes {
		all[o.m.function()+" "+o.m.op+": "+o.m.was+" => "+o.m.now] = o.verdict
	}
	return all
}

func TestTiny(t *testing.T) {
	o := tinyOptions(t)
	var out bytes.Buffer
	sum, err := mutate(t.Context(), o, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]verdict{
		"shelf.put lock: s.mu.Lock() => nothing": survived,
		`shelf.keep swap: s.items = append(s.items, item); s.note("kept " + item) => ` +
			`s.note("kept " + item); s.items = append(s.items, item)`: survived,
		"oldest number: found := 0 => found := 1":                                                   survived,
		"oldest boundary: if age > found { => if age >= found {":                                    survived,
		"nobody boolean: func nobody() bool { return true } => func nobody() bool { return false }": unreached,
		"shelf.put unlock: defer s.mu.Unlock() => nothing":                                          hung,
		`safely drop: panic("as always") => nothing`:                                                broken,
	}
	found := verdicts(sum)
	for id, v := range found {
		if _, listed := want[id]; !listed && v != killed {
			t.Errorf("%s: %s, want killed", id, v)
		}
	}
	for id, v := range want {
		if got, ok := found[id]; !ok || got != v {
			t.Errorf("%s: %s (%v), want %s", id, got, ok, v)
		}
	}
	for _, id := range []string{
		"- number: const limit = 3 => const limit = 4",
		"shelf.put boundary: if len(s.items) >= limit { => if len(s.items) > limit {",
		`shelf.put noerror: return errFull => return nil`,
		`shelf.put swap: s.note("before " + item); s.keep(item) => s.keep(item); s.note("before " + item)`,
		"sorted order: slices.SortFunc(list, func(a, b T) int { return cmp.Compare(a, b) }) => " +
			"slices.SortFunc(list, func(a, b T) int { return cmp.Compare(b, a) })",
		"box.fill drop: b.full = true => nothing",
		"safely compare: defer func() { failed = recover() != nil }() => defer func() { failed = recover() == nil }()",
	} {
		if got, ok := found[id]; !ok || got != killed {
			t.Errorf("%s: %s (%v), want killed", id, got, ok)
		}
	}
	if total := len(found) - 1; sum.share() != 100*float64(total-5)/float64(total) {
		t.Errorf("share %v of %d", sum.share(), total)
	}
	for _, line := range []string{
		"tiny.go:48:boundary  oldest\n  - if age > found {\n  + if age >= found {\n",
		"(no test reaches it)",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the report lacks %q:\n%s", line, out.String())
		}
	}

	// What survived is known by then, and one of it explained.
	const explained = "scripts/mutate/testdata/tiny/tiny.go:oldest:number:found := 0 => found := 1"
	const stale = "scripts/mutate/testdata/tiny/tiny.go:oldest:number:found := 7 => found := 8"
	o.again, o.equivalent = true, filepath.Join(t.TempDir(), "equivalent.txt")
	write(t, o.equivalent, "# why\n"+explained+"\n\tno age is less\n\n"+stale+"\n\tno longer there\n")
	out.Reset()
	sum, err = mutate(t.Context(), o, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ids := slices.Sorted(maps.Keys(verdicts(sum)))
	if len(ids) != 4 || slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(id, "found := 1") }) {
		t.Errorf("run again: %q", ids)
	}
	for _, line := range []string{"no longer exists: " + stale, "1 are listed as equivalent"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("the report lacks %q:\n%s", line, out.String())
		}
	}
}

func TestInterrupted(t *testing.T) {
	o := tinyOptions(t)
	o.only = regexp.MustCompile(":unlock:")
	o.slack = time.Hour // for as long as the mutant would hang
	ctx, cancel := context.WithCancel(t.Context())
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	done := make(chan error, 1)
	says := &signs{text: "running 1 mutants", seen: make(chan struct{})}
	go func() {
		_, err := mutate(ctx, o, io.Discard, says)
		done <- err
	}()
	select {
	case <-says.seen:
	case err := <-done:
		t.Fatal("nothing ran:", err)
	}
	// The mutant hangs soon after its process has a directory.
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		runs, err := filepath.Glob(filepath.Join(tmp, "mutate*", "run*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(runs) > 0 {
			break
		}
		<-poll.C
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Error("left behind:", left, err)
	}
}

// signs closes seen when a text is written.
type signs struct {
	text string
	seen chan struct{}
}

func (s *signs) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.text)) {
		close(s.seen)
	}
	return len(p), nil
}

// parsed is a package of one file that is never compiled.
func parsed(t *testing.T, name, src string) *goPackage {
	t.Helper()
	p := &goPackage{ImportPath: "m/p", fset: token.NewFileSet()}
	p.Module.Path = "m"
	tree, err := parser.ParseFile(p.fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	p.files = []*sourceFile{{name: name, src: []byte(src), ast: tree, pkg: p}}
	return p
}

func TestOperators(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"if a < b { f() }", "boundary: if a <= b; compare: if a >= b; guard: if false && (a < b)"},
		{"if !x.After(y) { f() }", "boundary: if x.Before(y); not: if x.After(y)"},
		{"if x.Before(y) { f() }", "boundary: if !x.After(y); negate: if !(x.Before(y))"},
		{"ok = a && b && !c", "logic: a || b && !c; operand: ok = b && !c; operand: ok = a && b; operand: ok = a && !c; not: a && b && c"},
		{"x.f(); y.g()", "drop: x.f() => nothing; swap: x.f()"},
		{"x.f(); x.Logger().Warn(1)", "drop: x.f() => nothing"},
		{"mu.RLock(); f(); mu.RUnlock()", "lock: mu.RLock() => nothing; drop: f() => nothing"},
		{"unlock := b.lockRole(name); defer unlock()", "lock: unlock := func() {}; unlock: defer unlock() => nothing"},
		{"n += 2 * time.Minute", "arithmetic: n -= 2 * time.Minute; number: 3 * time.Minute; number: 1 * time.Minute"},
		{"n = time.Minute", "number: n = (2*time.Minute)"},
		{"n = make([]int, 0, 8)", "number: make([]int, 1, 8)"},
		{"v := k{A: 1, B: b}", "field: A: 1 => nothing; field: B: b => nothing"},
		{"switch { case x.Equal(y): f() }", "negate: case !(x.Equal(y)); case: case x.Equal(y): f() => case x.Equal(y):"},
		{"for i < n { if x { continue }; i++ }", "drop: continue => nothing; drop: i++ => nothing; boundary: for i <= n"},
		{"n = min(a, b)", "order: n = max(a, b)"},
		{"n = a.x.Compare(b.y)", "order: n = b.y.Compare(a.x)"},
		{"delete(m, k); return", "drop: delete(m, k) => nothing; drop: return => nothing; early: delete(m, k) => return"},
		{"_ = func() (int, error) { return 1, err }", "noerror: return 1, nil"},
	} {
		src := "package p\n\nfunc f() {\n" + c.body + "\n}\n"
		var found []string
		for _, m := range parsed(t, "p.go", src).mutants() {
			found = append(found, m.op+": "+m.was+" => "+m.now)
		}
		for want := range strings.SplitSeq(c.want, "; ") {
			op, text, _ := strings.Cut(want, ": ")
			if !slices.ContainsFunc(found, func(id string) bool { return strings.HasPrefix(id, op+": ") && strings.Contains(id, text) }) {
				t.Errorf("%s: no %s\n\t%s", c.body, want, strings.Join(found, "\n\t"))
			}
		}
	}
	for _, body := range []string{"x.Logger().Warn(1)", "n := make(map[int]int, 3)", `s := "a" + b`, "if err != nil { x.Logger().Warn(1) }", "if bad { x.Logger().Warn(1) }"} {
		for _, m := range parsed(t, "p.go", "package p\n\nfunc f() {\n"+body+"\n}\n").mutants() {
			if m.op != "negate" {
				t.Errorf("%s: %s", body, m.id)
			}
		}
	}
}

// Both edits to text are applied, and to nothing else.
func TestSwapAsText(t *testing.T) {
	const src = "package p\n\nfunc f() {\n\tx.f(1)\n\n\t// why\n\tyy.g()\n}\n"
	p := parsed(t, "p.go", src)
	all := p.mutants()
	i := slices.IndexFunc(all, func(m *mutant) bool { return m.op == "swap" })
	if i < 0 {
		t.Fatal("no swap")
	}
	want := "package p\n\nfunc f() {\n\tyy.g()\n\n\t// why\n\tx.f(1)\n}\n"
	if got := string(apply(p.files[0].src, 0, all[i].edits)); got != want {
		t.Errorf("%s", got)
	}
}

// Identities and the sample stay while other functions of the file change.
func TestSampleIsStable(t *testing.T) {
	const kept = "func g(a, b int) bool {\n\tif a < b && b != 3 {\n\t\treturn true\n\t}\n\tn := 1\n\tn = n + a\n\treturn n > 2 || n < -5\n}\n"
	draw := func(before string, seed uint64) []string {
		var ids []string
		var of []*mutant
		for _, m := range parsed(t, "role_x.go", "package p\n\n"+before+kept).mutants() {
			if m.function() == "g" {
				of = append(of, m)
			}
		}
		for _, s := range stratify(of, 6, seed) {
			for _, m := range s.draw(s.want) {
				ids = append(ids, m.id)
			}
		}
		return ids
	}
	first := draw("", 1)
	if len(first) != 6 {
		t.Fatal(first)
	}
	if after := draw("func h(a int) bool { return a < 3 }\n\n", 1); !slices.Equal(first, after) {
		t.Errorf("%q, then %q", first, after)
	}
	if other := draw("", 2); slices.Equal(first, other) {
		t.Errorf("two seeds, one sample: %q", other)
	}
}

func TestStrata(t *testing.T) {
	var all []*mutant
	for prefix, n := range map[string]int{"role": 300, "tidy": 100, "key": 6, "tick": 3} {
		for i := range n {
			all = append(all, &mutant{file: &sourceFile{name: prefix + "_x.go"}, id: prefix + strings.Repeat("i", i)})
		}
	}
	got := map[string]int{}
	for _, s := range stratify(all, 100, 1) {
		got[s.prefix] = s.want
	}
	if want := map[string]int{"role": 69, "tidy": 23, "key": 5, "tick": 3}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestEquivalentsAreRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "list")
	for text, want := range map[string]string{
		"a.go:f:not:x => y\n\tbecause\n\tof this\n": "",
		"a.go:f:not:x => y\n":                       "no reason",
		"\tbecause\n":                               "before the first",
		"a\n\tb\na\n\tb\n":                          "twice",
	} {
		write(t, name, text)
		e, err := readEquivalents(name)
		switch {
		case want == "" && (err != nil || e.reasons["a.go:f:not:x => y"] != "because of this"):
			t.Errorf("%q: %v, %v", text, e, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// The list of this repository is well formed.
func TestEquivalentsOfThisRepository(t *testing.T) {
	if _, err := readEquivalents("equivalent.txt"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("equivalent.txt"); err != nil {
		t.Error(err)
	}
}

// A declaration outside of functions is reached by the tests of what names it, directly or not.
func TestReachOfAConstant(t *testing.T) {
	p := parsed(t, "p.go", "package p\n\nconst a = 1\n\nconst b = a * 2\n\nfunc f() int {\n\treturn b\n}\n\nfunc g() int {\n\treturn 7\n}\n")
	c := &coverProfile{
		Tests: []testTime{{Name: "TestF"}, {Name: "TestG"}},
		Blocks: map[string][]*block{"p.go": {
			{Line: 7, Col: 14, EndLine: 9, EndCol: 2, Tests: []int{0}},
			{Line: 11, Col: 14, EndLine: 13, EndCol: 2, Tests: []int{1}},
		}},
	}
	for _, m := range p.mutants() {
		want := []testTime{{Name: "TestF"}}
		if m.fn != nil {
			want = []testTime{{Name: "TestG"}}
		}
		if got := c.reach(m); !slices.Equal(got, want) {
			t.Errorf("%s: %v", m.id, got)
		}
	}
}

func TestGroups(t *testing.T) {
	ms := func(n int) testTime { return testTime{Took: time.Duration(n) * time.Millisecond} }
	var sizes []int
	for _, g := range groups([]testTime{ms(50), ms(60), ms(70), ms(100), ms(300), ms(900), ms(900), ms(9000), ms(9000)}) {
		sizes = append(sizes, len(g))
	}
	if !slices.Equal(sizes, []int{3, 2, 2, 1, 1}) {
		t.Error(sizes)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-n", "-1"}, {"-p", "0"}, {"-files", "("}, {"-only", "("}, {"x"}, {"-patience", "0.5"}} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a copy of a function is called with, whatever its parameters are called.
func TestCallOf(t *testing.T) {
	for decl, want := range map[string]string{
		"func f(a, _ int, more ...string) int { return 0 }": "copy(a, mutantArg1, more...)",
		"func f(int, ...string) {}":                         "copy(mutantArg1, mutantArg2...)",
		"func (s *T) f() {}":                                "s.copy()",
		"func (T) f(_ int) {}":                              "mutantArg1.copy(mutantArg2)",
		"func f[K comparable, V any](m map[K]V) {}":         "copy[K, V](m)",
	} {
		p := parsed(t, "p.go", "package p\n\n"+decl+"\n")
		fn, ok := p.files[0].ast.Decls[0].(*ast.FuncDecl)
		if !ok {
			t.Fatal(decl)
		}
		edits, call := callOf(p.files[0], fn)
		if got := call("copy"); got != want {
			t.Errorf("%s: %s, want %s", decl, got, want)
		}
		if _, err := parser.ParseFile(token.NewFileSet(), "p.go", apply(p.files[0].src, 0, edits), 0); err != nil {
			t.Errorf("%s: %v", decl, err)
		}
	}
}
