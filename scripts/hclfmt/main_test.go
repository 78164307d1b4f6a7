// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestRun(t *testing.T) {
	const good = "a {\n  b   = 1\n  ccc = 2\n}\n"
	for _, tc := range []struct {
		name, file, src, want string // want is what -w leaves
		ok, mended            bool
	}{
		{"good", "x.tf", good, good, true, true},
		{"not aligned", "x.tf", "a {\n  b = 1\n  ccc = 2\n}\n", good, false, true},
		{"tabs", "x.hcl", "a {\n\tb   = 1\n\tccc = 2\n}\n", good, false, true},
		{"no HCL", "x.tf", "a {\n", "a {\n", false, false},
		{"a variable in a label", "x.hcl", "a \"${b}\" {\n}\n", "a \"${b}\" {\n}\n", false, false},
		{"a variable in a label of a template", "x.hcl.tftpl", "a \"${b}\" {\nc = 1\n}\n", "a \"${b}\" {\n  c = 1\n}\n", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), tc.file)
			if err := os.WriteFile(file, []byte(tc.src), 0o600); err != nil {
				t.Fatal(err)
			}
			is := func(want string) {
				t.Helper()
				if got, err := os.ReadFile(file); err != nil || string(got) != want {
					t.Errorf("the file is %q, %v; want %q", got, err, want)
				}
			}
			var out bytes.Buffer
			ok, err := run(&out, false, []string{file})
			if err != nil || ok != tc.ok || ok != (out.Len() == 0) {
				t.Errorf("checked: %v, %v, saying %q", ok, err, &out)
			}
			is(tc.src)
			if ok, err := run(&out, true, []string{file}); err != nil || ok != tc.mended {
				t.Errorf("written: %v, %v, saying %q", ok, err, &out)
			}
			is(tc.want)
		})
	}
	if _, err := run(&bytes.Buffer{}, false, []string{filepath.Join(t.TempDir(), "absent.tf")}); err == nil {
		t.Error("a file that is not there is fine")
	}
}
