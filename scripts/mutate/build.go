// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// built are the mutants that are programs. A mutant of a function is compiled beside the function, in a
// copy that it calls instead of itself when the mutant is live: so one binary has many. Where that
// cannot be, in a constant for example, the mutant has a binary of its own, built when it is its turn.
type built struct {
	mutants  []*mutant
	binaries map[*mutant]string // of those that share one
	live     map[*mutant]int    // what makes them live
	skipped  int
	broken   int
}

// liveEnv is the variable that says which mutant of a binary is live.
const liveEnv = "MUTANT_LIVE"

// batchSize bounds what is compiled at once, for memory's sake.
const batchSize = 400

var errNotCompiled = errors.New("it does not compile")

func build(ctx context.Context, r *runner, p *pool, alone bool) (*built, error) {
	out := &built{binaries: map[*mutant]string{}, live: map[*mutant]int{}, skipped: p.skipped}
	var shared, own []*mutant
	sort := func(ms []*mutant) {
		for _, m := range ms {
			if m.shares() && !alone {
				shared = append(shared, m)
			} else {
				own = append(own, m)
			}
		}
	}
	sort(p.sample())
	for n := 0; len(shared) > 0; n++ {
		batch := shared[:min(len(shared), batchSize)]
		shared = shared[len(batch):]
		binary := filepath.Join(r.tmp, fmt.Sprintf("batch%d.test", n))
		fmt.Fprintf(r.progress, "compiling %d mutants\n", len(batch))
		bad, err := compileBatch(ctx, r, batch, binary)
		if err != nil {
			return nil, err
		}
		if len(bad) > 0 {
			// Once more, with others in the places of those.
			good := slices.DeleteFunc(slices.Clone(batch), func(m *mutant) bool { return bad[m] })
			shared = append(good, shared...)
			for _, m := range batch {
				if bad[m] {
					out.broken++
					sort(p.instead(m))
				}
			}
			continue
		}
		for i, m := range batch {
			out.binaries[m], out.live[m] = binary, i+1
		}
		out.mutants = append(out.mutants, batch...)
	}
	out.mutants = append(out.mutants, own...)
	return out, nil
}

// shares: the function of the mutant can hand a call on. Outside of functions there is nothing to hand
// on, and recover and runtime.Caller depend on who called.
func (m *mutant) shares() bool {
	if m.fn == nil {
		return false
	}
	shares := true
	ast.Inspect(m.fn.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			switch m.file.text(call.Fun) {
			case "recover", "runtime.Caller", "runtime.Callers":
				shares = false
			}
		}
		return shares
	})
	return shares
}

// region is where the copies of a file's mutants are, in lines.
type region struct {
	from, to int
	m        *mutant
}

// compileBatch builds one binary of many mutants; or says which of them are no programs.
func compileBatch(ctx context.Context, r *runner, batch []*mutant, binary string) (map[*mutant]bool, error) {
	p := r.pkg
	overlay := map[string][]byte{
		filepath.Join(p.Dir, "mutant_live.go"): []byte("package " + p.Name + "\n\nimport (\n\t\"os\"\n\t\"strconv\"\n)\n\n" +
			"var mutantLive, _ = strconv.Atoi(os.Getenv(\"" + liveEnv + "\"))\n"),
	}
	regions := map[string][]region{}
	for _, f := range p.files {
		by := map[*ast.FuncDecl][]int{}
		for i, m := range batch {
			if m.file == f {
				by[m.fn] = append(by[m.fn], i)
			}
		}
		if len(by) == 0 {
			continue
		}
		overlay[filepath.Join(p.Dir, f.name)], regions[f.name] = withCopies(f, batch, by)
	}
	output, err := r.compile(ctx, overlay, binary)
	if !errors.Is(err, errNotCompiled) {
		return nil, err
	}
	bad := map[*mutant]bool{}
	for _, at := range compileError.FindAllStringSubmatch(string(output), -1) {
		line, err := strconv.Atoi(at[2])
		if err != nil {
			return nil, err
		}
		for _, region := range regions[at[1]] {
			if line >= region.from && line <= region.to {
				bad[region.m] = true
			}
		}
	}
	if len(bad) == 0 {
		return nil, fmt.Errorf("the package does not compile:\n%s", output)
	}
	return bad, nil
}

var compileError = regexp.MustCompile(`(?m)^(?:.*[/\\])?([^/\\:\n]+\.go):(\d+):`)

// withCopies is a file with a copy of its functions for each mutant, and a switch that leads there.
func withCopies(f *sourceFile, batch []*mutant, by map[*ast.FuncDecl][]int) ([]byte, []region) {
	var edits []edit
	var copies bytes.Buffer
	copies.WriteByte('\n')
	var regions []region
	first := bytes.Count(f.src, []byte("\n")) + 1
	for _, decl := range slices.SortedFunc(maps.Keys(by), func(a, b *ast.FuncDecl) int { return int(a.Pos() - b.Pos()) }) {
		named, call := callOf(f, decl)
		edits = append(edits, named...)
		lead := " switch mutantLive {"
		from, to := f.offset(decl.Pos()), f.offset(decl.End())
		for _, i := range by[decl] {
			name := fmt.Sprintf("mutant%d_%s", i+1, decl.Name.Name)
			lead += fmt.Sprintf("case %d: ", i+1)
			if decl.Type.Results.NumFields() > 0 {
				lead += "return " + call(name) + "; "
			} else {
				lead += call(name) + "; return; "
			}
			at := first + bytes.Count(copies.Bytes(), []byte("\n"))
			changes := append(slices.Clone(batch[i].edits), edit{f.offset(decl.Name.Pos()), f.offset(decl.Name.End()), name})
			copies.Write(apply(f.src[from:to], from, changes))
			copies.WriteByte('\n')
			regions = append(regions, region{at, first + bytes.Count(copies.Bytes(), []byte("\n")) - 1, batch[i]})
		}
		brace := f.offset(decl.Body.Lbrace) + 1
		edits = append(edits, edit{brace, brace, lead + "};"})
	}
	return append(apply(f.src, 0, edits), copies.Bytes()...), regions
}

// callOf names all parameters of a function and returns how they are handed to another one.
func callOf(f *sourceFile, decl *ast.FuncDecl) ([]edit, func(name string) string) {
	var edits []edit
	n := 0
	names := func(list *ast.FieldList) []string {
		var names []string
		for _, field := range list.List {
			if len(field.Names) == 0 {
				n++
				name := fmt.Sprintf("mutantArg%d", n)
				at := f.offset(field.Type.Pos())
				edits = append(edits, edit{at, at, name + " "})
				names = append(names, name)
			}
			for _, id := range field.Names {
				name := id.Name
				if name == "_" {
					n++
					name = fmt.Sprintf("mutantArg%d", n)
					edits = append(edits, edit{f.offset(id.Pos()), f.offset(id.End()), name})
				}
				names = append(names, name)
			}
		}
		return names
	}
	receiver := ""
	if decl.Recv != nil {
		receiver = names(decl.Recv)[0] + "."
	}
	args := strings.Join(names(decl.Type.Params), ", ")
	if list := decl.Type.Params.List; len(list) > 0 {
		if _, ok := list[len(list)-1].Type.(*ast.Ellipsis); ok {
			args += "..."
		}
	}
	instance := ""
	if decl.Type.TypeParams != nil {
		instance = "[" + strings.Join(names(decl.Type.TypeParams), ", ") + "]"
	}
	return edits, func(name string) string { return receiver + name + instance + "(" + args + ")" }
}

// buildAlone builds the binary of a mutant that shares none.
func buildAlone(ctx context.Context, r *runner, m *mutant, binary string) error {
	_, err := r.compile(ctx, map[string][]byte{filepath.Join(r.pkg.Dir, m.file.name): apply(m.file.src, 0, m.edits)}, binary)
	return err
}

// compile builds the test binary of the package with other contents of some files.
func (r *runner) compile(ctx context.Context, files map[string][]byte, binary string, flags ...string) ([]byte, error) {
	dir, err := os.MkdirTemp(r.tmp, "overlay")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	replace := map[string]string{}
	for name, text := range files {
		to := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return nil, err
		}
		replace[name] = to
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		return nil, err
	}
	args := append([]string{"test", "-c", "-buildvcs=false", "-gcflags=-e", "-overlay", list, "-o", binary}, flags...)
	if r.race {
		args = append(args, "-race")
	}
	if r.parallel < 2 {
		args = append(args, "-p", "1")
	}
	output, err := command(ctx, r.pkg.Dir, nil, goTool(), append(args, r.pkg.ImportPath)...)
	if err == nil {
		_, err = os.Stat(binary) // none is built where there are no tests
	}
	var exit *commandError
	if errors.As(err, &exit) && ctx.Err() == nil && compileError.MatchString(exit.output) {
		return []byte(exit.output), errNotCompiled
	}
	return output, err
}
