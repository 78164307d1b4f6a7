// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// edit replaces the bytes from one offset to another.
type edit struct {
	from, to int
	text     string
}

// mutant is one small change.
type mutant struct {
	file *sourceFile
	fn   *ast.FuncDecl // nil outside of functions
	spec ast.Spec      // the declaration, outside of functions
	op   string
	at   token.Pos
	// anchors are where the change can be noticed, the nearest first: the tests of the first one that
	// belongs to a block of statements are the tests of the mutant.
	anchors  []token.Pos
	edits    []edit
	was, now string // a line of the difference, each
	id       string
}

func (m *mutant) line() int { return m.file.pkg.fset.Position(m.at).Line }

// place names the mutant to a reader; its identity survives edits elsewhere in the file.
func (m *mutant) place() string {
	return fmt.Sprintf("%s/%s:%d:%s", m.file.pkg.rel(), m.file.name, m.line(), m.op)
}

// prefix is the group of files that the mutant's belongs to: role for role_commit.go.
func (m *mutant) prefix() string {
	name := strings.TrimSuffix(m.file.name, ".go")
	name, _, _ = strings.Cut(name, "_")
	return name
}

// function is the name of the function, with its receiver's type.
func (m *mutant) function() string {
	if m.fn == nil {
		return "-"
	}
	if m.fn.Recv == nil || len(m.fn.Recv.List) == 0 {
		return m.fn.Name.Name
	}
	t := m.fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch index := t.(type) {
	case *ast.IndexExpr:
		t = index.X
	case *ast.IndexListExpr:
		t = index.X
	}
	return m.file.text(t) + "." + m.fn.Name.Name
}

// apply makes the edits in text, which begins at an offset of the file.
func apply(text []byte, begin int, edits []edit) []byte {
	edits = slices.Clone(edits)
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.from, b.from) })
	var out []byte
	at := begin
	for _, e := range edits {
		out = append(out, text[at-begin:e.from-begin]...)
		out = append(out, e.text...)
		at = e.to
	}
	return append(out, text[at-begin:]...)
}

// describe fills in the difference and the identity.
func (m *mutant) describe() {
	if m.was == "" {
		src := m.file.src
		from, to := len(src), 0
		for _, e := range m.edits {
			from, to = min(from, e.from), max(to, e.to)
		}
		for from > 0 && src[from-1] != '\n' {
			from--
		}
		for to < len(src) && src[to] != '\n' {
			to++
		}
		var within []edit
		for _, e := range m.edits {
			within = append(within, edit{e.from - from, e.to - from, e.text})
		}
		m.was, m.now = string(src[from:to]), string(apply(src[from:to], 0, within))
	}
	m.was, m.now = clip(squeeze(m.was), squeeze(m.now))
	if m.now == "" {
		m.now = "nothing"
	}
	m.id = fmt.Sprintf("%s/%s:%s:%s:%s => %s", m.file.pkg.rel(), m.file.name, m.function(), m.op, m.was, m.now)
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// clip shortens two lines around the place where they differ.
func clip(a, b string) (string, string) {
	const width, context = 140, 50
	same := 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	cut := func(s string) string {
		if same > width-context && len(s) > width {
			s = "…" + strings.ToValidUTF8(s[same-context:], "")
		}
		if len(s) > width {
			s = strings.ToValidUTF8(s[:width], "") + "…"
		}
		return s
	}
	return cut(a), cut(b)
}

// mutants are all changes to the package that the operators know, in the order of the source.
func (p *goPackage) mutants() []*mutant {
	var all []*mutant
	for _, f := range p.files {
		all = append(all, fileMutants(f)...)
	}
	seen := map[string]int{}
	for _, m := range all {
		m.describe()
		seen[m.id]++
		if n := seen[m.id]; n > 1 {
			m.id = fmt.Sprintf("%s #%d", m.id, n)
		}
	}
	return all
}

func fileMutants(f *sourceFile) []*mutant {
	var all []*mutant
	for _, decl := range f.ast.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Body == nil || decl.Name.Name == "_" {
				continue
			}
			s := &scan{file: f, fn: decl}
			s.early()
			s.locks()
			s.walk(decl.Body)
			all = append(all, s.found...)
		case *ast.GenDecl:
			if decl.Tok != token.CONST && decl.Tok != token.VAR {
				continue
			}
			for _, spec := range decl.Specs {
				s := &scan{file: f, spec: spec}
				s.walk(spec)
				all = append(all, s.found...)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *mutant) int { return cmp.Compare(a.at, b.at) })
	return all
}
