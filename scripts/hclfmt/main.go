// SPDX-License-Identifier: MPL-2.0

// Command hclfmt checks that files are written as HCL's own writer writes them, which
// is what `terraform fmt` and `tofu fmt` do, and names those that are not. With -w it
// writes them so.
//
//	go run ./scripts/hclfmt [-w] <file>...
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

func main() {
	write := flag.Bool("w", false, "write the files as they should be")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: hclfmt [-w] <file>...")
		os.Exit(2)
	}
	ok, err := run(os.Stdout, *write, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "hclfmt:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether all files are as they should be when it is done. It goes on after
// a file that is not, so that one run names them all.
func run(out io.Writer, write bool, files []string) (ok bool, err error) {
	ok = true
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return false, err
		}
		if _, diags := hclwrite.ParseConfig(parsable(name, src), name, hcl.InitialPos); diags.HasErrors() {
			fmt.Fprintln(out, diags)
			ok = false
			continue
		}
		want := hclwrite.Format(src)
		if bytes.Equal(src, want) {
			continue
		}
		if !write {
			fmt.Fprintln(out, name)
			ok = false
			continue
		}
		if err := os.WriteFile(name, want, 0o644); err != nil { //nolint:gosec // it is there already, and keeps its mode
			return false, err
		}
	}
	return ok, nil
}

// parsable is src as what it makes: a template of HCL (.tftpl) may name a variable where
// HCL itself allows none, as in a label.
func parsable(name string, src []byte) []byte {
	if filepath.Ext(name) == ".tftpl" {
		return bytes.ReplaceAll(src, []byte("${"), []byte("$${"))
	}
	return src
}
