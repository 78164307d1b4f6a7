// SPDX-License-Identifier: MPL-2.0

// Command floors checks that the files of a package use names of their own
// floor and of lower ones only. The floors are what the package's doc.go says:
// an indented list after a line that ends with "from the top:", in which each
// line begins with the patterns of the files of one floor, set off from the
// explanation by two or more spaces.
//
//	go run ./scripts/floors ./backend
//
// The type that a doc.go names with "receiver: <type>" belongs to no floor: its
// methods do, each to that of its file.
//
// It also checks the doors: names that only one file may use. They are an
// indented list after a line that ends with "uses alone:", in which each line
// begins with a file, followed by names such as keyring.Ring.Rotate or, in the
// package itself, recordCache.drop. The file that declares a name may use it, too.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: floors <package directory>")
		os.Exit(2)
	}
	bad, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "floors:", err)
		os.Exit(2)
	}
	if len(bad) > 0 {
		fmt.Fprintln(os.Stderr, "names used where they must not be:")
		for _, line := range bad {
			fmt.Fprintln(os.Stderr, "  "+line)
		}
		os.Exit(1)
	}
}

// plan is what doc.go says.
type plan struct {
	floors   [][]string        // patterns, from the top
	doors    map[string]string // the file that alone uses a name
	receiver string
}

var (
	listHead = regexp.MustCompile(`from the top:$`)
	doorHead = regexp.MustCompile(`uses alone:$`)
	receiver = regexp.MustCompile(`receiver: (\w+)`)
	columns  = regexp.MustCompile(`\s{2,}`)
)

func readPlan(dir string) (*plan, error) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "doc.go"), nil, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	text := file.Doc.Text()
	p := &plan{doors: map[string]string{}}
	if m := receiver.FindStringSubmatch(text); m != nil {
		p.receiver = m[1]
	}
	var entry func(line string) // of the list that the line is in
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "\t ")
		switch {
		case listHead.MatchString(line):
			entry = p.addFloor
		case doorHead.MatchString(line):
			entry = p.addDoors
		case entry != nil && indented:
			entry(strings.TrimPrefix(line, "\t"))
		case line != "":
			entry = nil
		}
	}
	if len(p.floors) == 0 {
		return nil, errors.New("doc.go has no list of floors")
	}
	return p, nil
}

func (p *plan) addFloor(line string) {
	p.floors = append(p.floors, strings.Fields(columns.Split(line, 2)[0]))
}

func (p *plan) addDoors(line string) {
	words := strings.Fields(line)
	for _, name := range words[1:] {
		p.doors[name] = words[0]
	}
}

// floor of a file, counted from the top; -1 if it is on none.
func (p *plan) floor(file string) int {
	return slices.IndexFunc(p.floors, func(patterns []string) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool {
			ok, err := filepath.Match(pattern, file)
			return ok && err == nil
		})
	})
}

func check(dir string) ([]string, error) {
	p, err := readPlan(dir)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("listing the files: %w", err)
	}
	var files []*ast.File
	var bad []string
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "doc.go" {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			return nil, fmt.Errorf("parsing: %w", err)
		}
		files = append(files, f)
		if p.floor(filepath.Base(name)) < 0 {
			bad = append(bad, name+": is on no floor of doc.go")
		}
	}
	imports, err := exportData(dir)
	if err != nil {
		return nil, err
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", imports)}
	pkg, err := conf.Check(dir, fset, files, info)
	if err != nil {
		return nil, fmt.Errorf("checking types: %w", err)
	}
	place := func(pos token.Pos) string { return filepath.Base(fset.Position(pos).Filename) }
	used := map[string]bool{}
	for ident, obj := range info.Uses {
		name := nameIn(pkg, obj)
		if door := p.doors[name]; door != "" {
			if user := place(ident.Pos()); user != door && user != place(obj.Pos()) {
				bad = append(bad, fmt.Sprintf("%s:%d: %s, which %s uses alone", user, fset.Position(ident.Pos()).Line, name, door))
			}
			used[name] = true
		}
		if obj.Pkg() != pkg || !ofPackage(pkg, obj) || obj.Name() == p.receiver {
			continue
		}
		user, owner := place(ident.Pos()), place(obj.Pos())
		if p.floor(owner) < p.floor(user) {
			bad = append(bad, fmt.Sprintf("%s:%d: %s, which belongs to %s", user, fset.Position(ident.Pos()).Line, obj.Name(), owner))
		}
	}
	for name, door := range p.doors {
		if !used[name] {
			bad = append(bad, fmt.Sprintf("doc.go: %s of %s is used nowhere", name, door))
		}
	}
	slices.Sort(bad)
	return bad, nil
}

// nameIn is the object as a list of doors calls it: a function, or a type and its
// method, with the package's name unless that is the one which is checked.
func nameIn(pkg *types.Package, obj types.Object) string {
	fn, ok := obj.(*types.Func)
	if obj.Pkg() == nil || (!ok && obj.Parent() != obj.Pkg().Scope()) {
		return ""
	}
	name := obj.Name()
	if ok {
		if recv := fn.Signature().Recv(); recv != nil {
			t := types.Unalias(recv.Type())
			if pointer, ok := t.(*types.Pointer); ok {
				t = types.Unalias(pointer.Elem())
			}
			if named, ok := t.(*types.Named); ok {
				name = named.Obj().Name() + "." + name
			}
		}
	}
	if obj.Pkg() != pkg {
		name = obj.Pkg().Name() + "." + name
	}
	return name
}

// ofPackage reports whether the object is a name of the package or a method; fields
// and local names belong to what declares them.
func ofPackage(pkg *types.Package, obj types.Object) bool {
	if fn, ok := obj.(*types.Func); ok {
		return fn.Origin() != nil
	}
	return obj.Parent() == pkg.Scope()
}

// exportData finds the compiled packages that the package imports.
func exportData(dir string) (importer.Lookup, error) {
	list := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", ".") //nolint:noctx // ends by itself
	list.Dir, list.Stderr = dir, os.Stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing the imports: %w", err)
	}
	paths := map[string]string{}
	for line := range bytes.Lines(out) {
		pkg, path, _ := strings.Cut(strings.TrimSpace(string(line)), "\t")
		paths[pkg] = path
	}
	return func(path string) (io.ReadCloser, error) {
		file, ok := paths[path]
		if !ok || file == "" {
			return nil, fmt.Errorf("no compiled package %s", path)
		}
		return os.Open(file)
	}, nil
}
