// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// goPackage is a package with the text and the syntax of its files, tests left out.
type goPackage struct {
	Dir        string   `json:"Dir"`
	ImportPath string   `json:"ImportPath"`
	Name       string   `json:"Name"`
	GoFiles    []string `json:"GoFiles"`
	Module     struct {
		Path string `json:"Path"`
	} `json:"Module"`

	fset  *token.FileSet
	files []*sourceFile
}

type sourceFile struct {
	name string // base name
	src  []byte
	ast  *ast.File
	pkg  *goPackage
}

func loadPackage(ctx context.Context, pattern string) (*goPackage, error) {
	text, err := command(ctx, "", nil, goTool(), "list", "-json=Dir,ImportPath,Name,GoFiles,Module", pattern)
	if err != nil {
		return nil, err
	}
	p := &goPackage{fset: token.NewFileSet()}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("%s: it must be one package: %w", pattern, err)
	}
	if len(p.GoFiles) == 0 {
		return nil, errors.New(pattern + ": no Go files")
	}
	for _, name := range p.GoFiles {
		f := &sourceFile{name: name, pkg: p}
		full := filepath.Join(p.Dir, name)
		if f.src, err = os.ReadFile(full); err != nil {
			return nil, err
		}
		if f.ast, err = parser.ParseFile(p.fset, full, f.src, parser.SkipObjectResolution); err != nil {
			return nil, err
		}
		p.files = append(p.files, f)
	}
	return p, nil
}

// rel is the path of the package within its module, which begins the identity of its mutants.
func (p *goPackage) rel() string {
	rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
	return path.Clean(rel)
}

func (f *sourceFile) offset(pos token.Pos) int { return f.pkg.fset.Position(pos).Offset }

func (f *sourceFile) text(n ast.Node) string {
	return string(f.src[f.offset(n.Pos()):f.offset(n.End())])
}

func goTool() string {
	if tool := os.Getenv("GO"); tool != "" {
		return tool
	}
	return "go"
}
