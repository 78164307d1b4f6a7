// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestDiff(t *testing.T) {
	outside(t)
	a, b, c := mint(t, "ak"), mint(t, "ak"), mint(t, "ak")
	keys := strings.NewReplacer("AAA", a.Reveal(), "BBB", b.Reveal(), "CCC", c.Reveal(), "MISS", lookAlike(a))
	at := func(path string, line, column int, k keyformat.Key) string { return key(path, line, column, k.ID()) }
	const head = "diff --git a/f b/f\nindex 1..2 100644\n--- a/f\n+++ b/f\n"
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"added":               {head + "@@ -1,2 +1,3 @@\n a\n+AAA\n b\n", []string{at("f", 2, 1, a)}},
		"removed and context": {head + "@@ -1,2 +1,1 @@\n-AAA\n BBB\n", nil},
		"section heading":     {head + "@@ -1,2 +1,1 @@ AAA\n-AAA\n BBB\n", nil},
		"counts left out":     {head + "@@ -1 +7 @@\n-AAA\n+x BBB\n", []string{at("f", 7, 3, b)}},
		"look-alike":          {head + "@@ -1 +1 @@\n-x\n+MISS\n", nil},
		"two hunks":           {head + "@@ -1 +1 @@\n-x\n+AAA\n@@ -9,0 +10,2 @@\n+x\n+BBB\n", []string{at("f", 1, 1, a), at("f", 11, 1, b)}},
		"two files":           {head + "@@ -1 +1 @@\n-x\n+AAA\ndiff --git a/g b/g\n--- a/g\n+++ b/g\n@@ -0,0 +1 @@\n+BBB\n", []string{at("f", 1, 1, a), at("g", 1, 1, b)}},
		"a new file":          {"diff --git a/f b/f\nnew file mode 100644\n--- /dev/null\n+++ b/f\n@@ -0,0 +1,2 @@\n+x\n+AAA\n\\ No newline at end of file\n", []string{at("f", 2, 1, a)}},
		"a deleted file":      {"diff --git a/f b/f\ndeleted file mode 100644\n--- a/f\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-x\n-AAA\n\\ No newline at end of file\n", nil},
		"no newline, changed": {head + "@@ -1 +1 @@\n-AAA\n\\ No newline at end of file\n+BBB\n\\ No newline at end of file\n", []string{at("f", 1, 1, b)}},
		"lines like headers":  {head + "@@ -1,2 +1,3 @@\n--- AAA\n+++ BBB\n+@@ -1 +1 @@ CCC\n x\n", []string{at("f", 1, 4, b), at("f", 2, 13, c)}},
		"over two lines":      {head + "@@ -1,0 +1,2 @@\n+" + "PARTS\n", []string{at("f", 1, 1, a)}},
		"no prefixes":         {"diff --git src/f src/f\n--- src/f\n+++ src/f\n@@ -1 +1 @@\n-x\n+AAA\n", []string{at("src/f", 1, 1, a)}},
		"mnemonic prefixes":   {"diff --git i/src/f w/src/f\n--- i/src/f\n+++ w/src/f\n@@ -1 +1 @@\n-x\n+AAA\n", []string{at("src/f", 1, 1, a)}},
		"quoted name":         {"diff --git \"a/\\303\\251\\n\\\"\" \"b/\\303\\251\\n\\\"\"\n--- \"a/\\303\\251\\n\\\"\"\n+++ \"b/\\303\\251\\n\\\"\"\n@@ -1 +1 @@\n-x\n+AAA\n", []string{at("é\n\"", 1, 1, a)}},
		"name with a space":   {"diff --git a/a b b/a b\n--- a/a b\t\n+++ b/a b\t\n@@ -1 +1 @@\n-x\n+AAA\n", []string{at("a b", 1, 1, a)}},
		"diff -u":             {"--- old/f\t2026-01-01 00:00:00\n+++ new/f\t2026-01-02 00:00:00\n@@ -1 +1 @@\n-BBB\n+AAA\n", []string{at("new/f", 1, 1, a)}},
		"diff -ru":            {"diff -ru old/f new/f\n--- old/f\t2026\n+++ new/f\t2026\n@@ -1 +1 @@\n-BBB\n+AAA\n", []string{at("new/f", 1, 1, a)}},
		"svn":                 {"Index: f\n=====\n--- f\t(revision 1)\n+++ f\t(working copy)\n@@ -1 +1 @@\n-BBB\n+AAA\n", []string{at("f", 1, 1, a)}},
		"CRLF":                {strings.ReplaceAll(head+"@@ -1,2 +1,2 @@\n-BBB\n+AAA\n x\n", "\n", "\r\n"), []string{at("f", 1, 1, a)}},
		"a commit's message":  {"commit 0123456789012345678901234567890123456789\nAuthor: x\n\n    AAA\n\n" + head + "@@ -1 +1 @@\n-BBB\n+CCC\n", []string{at("-", 4, 5, a), at("f", 1, 1, c)}},
		"a mail":              {"From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nSubject: AAA\n---\n f | 1 +\n\n" + head + "@@ -1 +1 @@\n-BBB\n+CCC\n-- \n2.39\n", []string{at("-", 2, 10, a), at("f", 1, 1, c)}},
		"cut context spaces":  {head + "@@ -1,3 +1,4 @@\n a\n\n+AAA\n b\n", []string{at("f", 3, 1, a)}},
		"a merge": {
			"diff --cc f\nindex 1,2..3\n--- a/f\n+++ b/f\n@@@ -1,2 -1,2 +1,3 @@@\n  x\n- AAA\n -BBB\n++CCC\n +" + "AAA\n", []string{at("f", 2, 1, c), at("f", 3, 1, a)},
		},
		"a merge that removes":   {"diff --cc f\n--- a/f\n+++ b/f\n@@@ -1,2 -1,2 +1,1 @@@\n  x\n- AAA\n -BBB\n", nil},
		"a hunk that lies":       {head + "@@ -1,100 +1,100 @@\n+AAA\nno line of a hunk BBB\n-CCC\n", []string{at("f", 1, 1, a), at("-", 7, 19, b), at("-", 8, 2, c)}},
		"a huge number":          {head + "@@ -1,99999999999999999999 +1,99999999999999999999 @@\n+AAA\n", []string{at("-", 6, 2, a)}},
		"a name with a key":      {"diff --git a/AAA b/AAA\n--- /dev/null\n+++ b/AAA\n@@ -0,0 +1 @@\n+x\n", []string{at("[key "+a.ID()+"]", 0, 0, a)}},
		"a removed name":         {"diff --git a/AAA b/AAA\n--- a/AAA\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n", nil},
		"--- that is no header":  {head + "@@ -1 +1 @@\n-x\n+y\n--- AAA\nx\n--- BBB", []string{at("-", 8, 5, a), at("-", 9, 5, b)}},
		"not a diff":             {"--- AAA\n-BBB\n CCC\n", []string{at("-", 1, 5, a), at("-", 2, 2, b), at("-", 3, 2, c)}},
		"YAML":                   {"--- # comment\nkey: AAA\n@@ -1 +1 @@\n-BBB\n", []string{at("-", 2, 6, a), at("-", 4, 2, b)}},
		"prose about diffs":      {"diff of AAA\n-BBB\n CCC\n", []string{at("-", 1, 9, a), at("-", 2, 2, b), at("-", 3, 2, c)}},
		"a hunk without a file":  {"diff x\n@@ -1 +5 @@\n-AAA\n+BBB\n", []string{at("-", 5, 1, b)}},
		"ends within a hunk":     {head + "@@ -1,5 +1,5 @@\n+AAA", []string{at("f", 1, 1, a)}},
		"different marks":        {head + "@@ -1 +1 @@@\n-AAA\n", []string{at("-", 6, 2, a)}},
		"a long line":            {head + "@@ -1,2 +1,2 @@\n-" + strings.Repeat("x", 100_000) + " AAA\n+" + strings.Repeat("x", 100_000) + " BBB\n CCC\n", []string{at("f", 1, 100_002, b)}},
		"a long line around":     {"diff " + strings.Repeat("x", 100_000) + " AAA\n", []string{at("-", 1, 100_007, a)}},
		"a long line like ---":   {"diff x\n--- " + strings.Repeat("x", 100_000) + " AAA\n+++ y\n", []string{at("-", 2, 100_006, a)}},
		"the end of the message": {"commit 0123456789012345678901234567890123456789\n\n    AAA", []string{at("-", 3, 5, a)}},
	} {
		text := keys.Replace(test.text)
		// A key on two lines, as mail programs break it.
		text = strings.ReplaceAll(text, "PARTS", a.Reveal()[:20]+"=\n+"+a.Reveal()[20:])
		status := exitFound
		if test.want == nil {
			status = exitNothing
		}
		same(t, name, found(t, status, text, "-"), test.want)
	}
}

// TestDiffOfGit changes files at random, and holds what is found in the output of git to
// what is new in the files.
func TestDiffOfGit(t *testing.T) {
	dir := newRepo(t)
	pool := make([]keyformat.Key, 6)
	lines := []string{"", "x", "-- a", "++ b", "@@ -1 +1 @@", "\\ No", "diff --git a/x b/x", "--- a", "+++ b", " ", "\t", "-", "+"}
	for i := range pool {
		pool[i] = mint(t, "ak")
		lines = append(lines, "key: "+pool[i].Reveal())
	}
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom(lines), 0, 12)
		names := []string{"f", "a b", "é", "x\ny", "d/f"}
		write := func(what string) map[string][]string {
			files := map[string][]string{}
			for _, name := range names {
				path := filepath.Join(dir, name)
				_ = os.Remove(path)
				if rapid.IntRange(0, 3).Draw(rt, what+name) > 0 {
					files[name] = text.Draw(rt, what)
					end := rapid.SampledFrom([]string{"", "\n"}).Draw(rt, "end")
					plant(t, dir, map[string]string{name: strings.Join(files[name], "\n") + end})
				}
			}
			git(t, dir, "add", "-A")
			return files
		}
		write("old")
		old := strings.TrimSpace(git(t, dir, "write-tree"))
		files := write("new")
		args := []string{"diff", "--cached", old, fmt.Sprint("-U", rapid.IntRange(0, 4).Draw(rt, "context"))}
		args = append(args, rapid.SampledFrom([][]string{{}, {"--no-prefix"}, {"-M"}, {"--no-color", "--patience"}}).Draw(rt, "how")...)
		diff := git(t, dir, args...)
		got := runScan(t, diff, "-format", "json", "-")
		// Each place is where the new file has that key, and each key of which there are more
		// than before has a place.
		places := map[string]bool{}
		for _, f := range decode(t, got.out).Findings {
			for _, p := range f.Places {
				lines := files[f.Path]
				if p.Line > len(lines) || lines[p.Line-1] != "key: "+reveal(pool, f.KeyID) || p.Column != 6 {
					rt.Fatalf("%q line %d: %q in %q", f.Path, p.Line, lines, diff)
				}
			}
			places[f.Path+f.KeyID] = true
		}
		for _, name := range names {
			before := strings.Split(strings.TrimSpace(show(t, dir, old, name)), "\n")
			for _, k := range pool {
				n, m := times(files[name], k), times(before, k)
				if n > m && !places[name+k.ID()] && !strings.Contains(diff, "rename") {
					rt.Fatalf("%q: %d times, before %d, and not found in %q", name, n, m, diff)
				}
				if n == 0 && places[name+k.ID()] {
					rt.Fatalf("%q: found, and not there", name)
				}
			}
		}
	})
}

func reveal(pool []keyformat.Key, id string) string {
	for _, k := range pool {
		if k.ID() == id {
			return k.Reveal()
		}
	}
	return ""
}

func show(t testing.TB, dir, tree, name string) string {
	t.Helper()
	if git(t, dir, "ls-tree", "--name-only", "-z", tree, name) == "" {
		return ""
	}
	return git(t, dir, "cat-file", "blob", tree+":"+name)
}

func times(lines []string, k keyformat.Key) int {
	n := 0
	for _, line := range lines {
		if strings.Contains(line, k.Reveal()) {
			n++
		}
	}
	return n
}

// FuzzDiff: whatever comes, every line that cannot be context, removed or a header is
// looked at, and nothing is found that is not there.
func FuzzDiff(f *testing.F) {
	k := mint(f, "ak").Reveal()
	for _, seed := range []string{
		"diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,2 +1,3 @@\n KEY\n+KEY\n-KEY\n x\n", "--- KEY\n+++ KEY\n@@ -1 +1 @@\n\\KEY\n", "@@@ -1,2 -1,2 +1,3 @@@\n  KEY\n++KEY\n- KEY\n+ KEY\n",
		"diff \n@@ -9,9 +9,99999999 @@\n+KEY\r\n\n \n+KEY", "commit 0123456789012345678901234567890123456789\nKEY\n--- KEY", "diff a\n+++ \"\\303KEY\n+++ \"b/\\0\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed string) {
		text := strings.ReplaceAll(seed, "KEY", k)
		all := newFindings(nil, nil)
		scanInput(strings.NewReader("diff \n"+text), all)
		if len(all.problems) > 0 {
			t.Fatal(all.problems)
		}
		n := 0 // that must be found
		for _, line := range strings.Split(text, "\n") {
			header := false
			for _, begin := range []string{"-", " ", "\\", "@", "+++ ", "diff --", "rename from ", "copy from "} {
				header = header || strings.HasPrefix(line, begin)
			}
			if !header && strings.Contains(line, k) {
				n += strings.Count(line, k)
			}
		}
		got := 0
		for _, one := range all.found {
			got += one.count
		}
		// Removing the marks at the beginning of lines may join a key that is broken there.
		if got < n {
			t.Fatalf("%q: %d found, want at least %d", text, got, n)
		}
		if got > 0 && !strings.Contains(text, k) {
			for _, one := range all.found {
				if one.key.Reveal() != k {
					t.Fatalf("%q: another key is found", text)
				}
			}
		}
	})
}

func TestUnquote(t *testing.T) {
	for text, want := range map[string]string{
		`"a"`: "a", `"a\tb"`: "a\tb", `"\303\251"`: "é", `"\a\b\v\f\r\\"`: "\a\b\v\f\r\\", `"a" b`: "a", `""`: "",
		`a`: "!", `"`: "!", `"a`: "!", `"\`: "!", `"\9"`: "!", `"\777"`: "!", `"\1`: "!",
	} {
		got, ok := unquote(text)
		if !ok {
			got = "!"
		}
		if got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
}

func TestIsDiff(t *testing.T) {
	for text, want := range map[string]bool{
		"diff --git a/f b/f\n": true, "--- a\n+++ b\n": true, "Index: f\n": true, "commit 0123456789abcdef0123456789abcdef01234567\n": true,
		"": false, "--- a\n": false, "different\n": false, "commit this\n": false, "commit 0123456789abcdef\n": false, "From me\n": false, "x\ndiff --git": false, "---\n+++ b": false,
	} {
		if isDiff([]byte(text)) != want {
			t.Errorf("%q: want %t", text, want)
		}
	}
}
