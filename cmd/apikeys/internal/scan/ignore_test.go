// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// walked are the files that a scan of a directory looks at, relative to it.
func walked(t testing.TB, dir string) []string {
	t.Helper()
	files := make(chan string)
	all := newFindings(nil, nil)
	go func() {
		w := &walk{context.Background(), all, false, files}
		w.argument(dir)
		close(files)
	}()
	var names []string
	for path := range files {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			t.Error(err)
		}
		names = append(names, filepath.ToSlash(rel))
	}
	for _, p := range all.problems {
		t.Error(p)
	}
	slices.Sort(names)
	return names
}

// listed are the files that git would add or has: the same, by git.
func listed(t testing.TB, dir string) []string {
	t.Helper()
	out := git(t, dir, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	names := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
	if out == "" {
		names = nil
	}
	slices.Sort(names)
	return slices.Compact(names)
}

var odd = []string{
	"*.log", "!*.log", "build/", "/a", "a/", "a/b", "**/b", "a/**", "a/**/c", "**", "*", "!*", "!/a", "!a/", "!a/b", "?", "[ab]", "[!ab]", "[^a]", "[a-c]", "[]a]", "[a", "[[:alpha:]]",
	"[[:digit:]x]", "[[:bad:]]", "[a-]", "[--0]", "[z-a]", `\a`, `a\`, `\!x`, `\#x`, "#x", "!", "/", "//", "a//", "/a/", "a b", "a ", `a\ `, "a  \r", "\r", "a*b", "*a*", "a?c", "a**c", "a/*/c", "*/b", "**/", "/**/c",
	"/*", "!/*/", "c/", "\xef\xbb\xbfa", "é", "?é", "[é]", "[\\]]", "a[/]b", "x.log", "!x.log", "a/b/c", "!a/b/c", "**a", "a/b/**", "*.[lo]og", "[[:space:]]", "a\\*", "*\\*", "[a-c]*", "[\\a-c]",
}

// TestIgnoresAsGitDoes plants trees, rules and tracked files at random, and asks git.
func TestIgnoresAsGitDoes(t *testing.T) {
	outside(t)
	names := []string{"a", "b", "c", "x.log", "y.log", "a b", "a ", "é", "!x", "#x", "[a", `a\`, "a*", "0", "]", "-", "ab", "abc", "acc", "build", "a-b"}
	dirs := []string{"", "a/", "b/", "a/b/", "a/b/c/", "c/", "build/", "build/a/", "é/"}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		git(t, dir, "init", "-q")
		lines := rapid.SliceOfN(rapid.SampledFrom(odd), 0, 5)
		ending := rapid.SampledFrom([]string{"\n", "\n", "\n", "\r\n"})
		plantSome := func(name, text string) {
			// A directory may have the name of a file, or the other way round.
			path := filepath.Join(dir, filepath.FromSlash(name))
			if os.MkdirAll(filepath.Dir(path), 0o700) == nil {
				_ = os.WriteFile(path, []byte(text), 0o600)
			}
		}
		for range rapid.IntRange(1, 25).Draw(rt, "files") {
			plantSome(rapid.SampledFrom(dirs).Draw(rt, "dir")+rapid.SampledFrom(names).Draw(rt, "name"), "")
		}
		for _, file := range []string{".gitignore", "a/.gitignore", "a/b/.gitignore", ".git/info/exclude"} {
			if rules := lines.Draw(rt, file); len(rules) > 0 {
				plantSome(file, strings.Join(rules, ending.Draw(rt, "ending"))+rapid.SampledFrom([]string{"", "\n"}).Draw(rt, "end"))
			}
		}
		for range rapid.IntRange(0, 3).Draw(rt, "tracked") {
			name := rapid.SampledFrom(dirs).Draw(rt, "dir") + rapid.SampledFrom(names).Draw(rt, "name")
			if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
				git(t, dir, "--literal-pathspecs", "add", "-f", "--", name)
			}
		}
		if got, want := walked(t, dir), listed(t, dir); !slices.Equal(got, want) {
			rules := map[string]string{}
			for _, file := range []string{".gitignore", "a/.gitignore", "a/b/.gitignore", ".git/info/exclude"} {
				raw, _ := os.ReadFile(filepath.Join(dir, file))
				rules[file] = string(raw)
			}
			rt.Fatalf("rules %q\n got %q\nwant %q", rules, got, want)
		}
	})
}

// TestRulesThatTakeLong: no pattern makes matching slow.
func TestRulesThatTakeLong(t *testing.T) {
	r, ok := readRule("*" + strings.Repeat("a*", 100) + "b")
	if !ok || r.matches(strings.Repeat("a", 4000), false) || !r.matches(strings.Repeat("a", 4000)+"b", false) {
		t.Error("wrong")
	}
}

func FuzzRules(f *testing.F) {
	for _, rule := range odd {
		f.Add([]byte(rule), "a/b/x.log")
	}
	f.Fuzz(func(_ *testing.T, raw []byte, name string) {
		stack{readRules("", raw)}.ignored(name, len(name)%2 == 0)
	})
}

// FuzzIndex: an index that somebody made up is refused or read, and names no file twice.
func FuzzIndex(f *testing.F) {
	dir := newRepo(f)
	plant(f, dir, map[string]string{"0": "1", "a/b/c": "2", "a/b/d": "3", "é": ""})
	git(f, dir, "add", "-A")
	for _, version := range []string{"2", "4"} {
		git(f, dir, "update-index", "--index-version", version)
		raw, err := os.ReadFile(filepath.Join(dir, ".git", "index"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, 20)
	}
	f.Fuzz(func(t *testing.T, raw []byte, hashLen int) {
		if names, err := indexNames(raw, 20+12*(hashLen&1)); err == nil && !slices.IsSorted(names) {
			t.Fatal("not in order")
		}
	})
}
