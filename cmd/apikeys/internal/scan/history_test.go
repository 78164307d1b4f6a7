// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// inHistory scans the history of the repositories, and returns what was found, with the
// commit or object that it is said to be in.
func inHistory(t testing.TB, status int, dirs ...string) []string {
	t.Helper()
	r := runScan(t, "", append([]string{"-format", "json", "-history"}, dirs...)...)
	if r.status != status {
		t.Errorf("status %d, want %d\n%s", r.status, status, r.errs)
	}
	var all []string
	for _, f := range decode(t, r.out).Findings {
		where := f.Commit
		if where == "" {
			where = f.Object
		}
		all = append(all, fmt.Sprintf("%s:%q:%d:%d %s", where, f.Path, f.Line, f.Column, f.KeyID))
	}
	slices.Sort(all)
	return all
}

func TestHistory(t *testing.T) {
	removed, staged, said, tagged, stashed, binary, late := mint(t, "ak"), mint(t, "ak"), mint(t, "acme"), mint(t, "ak"), mint(t, "ak"), mint(t, "ak"), mint(t, "ak")
	dir := newRepo(t)
	plant(t, dir, map[string]string{"a": "x\n " + removed.Reveal(), "d/bin": "\x00" + binary.Reveal()})
	first := commit(t, dir, "first")
	plant(t, dir, map[string]string{"a": "x\n", "b": "moved? " + removed.Reveal()})
	second := commit(t, dir, "second\n\nwith "+said.Reveal())
	plant(t, dir, map[string]string{"a": "y\n" + removed.Reveal() + "\n"})
	commit(t, dir, "again")
	git(t, dir, "rm", "-q", "-r", "-f", ".")
	plant(t, dir, map[string]string{"empty": ""})
	commit(t, dir, "nothing is left")
	git(t, dir, "tag", "-a", "v1", "-m", "x "+tagged.Reveal())
	tag := strings.TrimSpace(git(t, dir, "rev-parse", "v1"))
	git(t, dir, "checkout", "-q", "-b", "side", first)
	plant(t, dir, map[string]string{"late": late.Reveal(), "near": lookAlike(late)})
	side := commit(t, dir, "side")
	plant(t, dir, map[string]string{"late": stashed.Reveal()})
	git(t, dir, "stash", "-q")
	stash := strings.TrimSpace(git(t, dir, "rev-parse", "stash"))
	plant(t, dir, map[string]string{"staged": staged.Reveal()})
	git(t, dir, "add", "staged")
	loose := strings.TrimSpace(git(t, dir, "hash-object", "staged"))
	want := []string{
		fmt.Sprintf("%s:%q:%d:%d %s", first, "a", 2, 2, removed.ID()),
		fmt.Sprintf("%s:%q:%d:%d %s", first, "d/bin", 1, 2, binary.ID()),
		fmt.Sprintf("%s:%q:%d:%d %s", second, "b", 1, 8, removed.ID()),
		fmt.Sprintf("%s:%q:%d:%d %s", second, "", 8, 6, said.ID()),
		fmt.Sprintf("%s:%q:%d:%d %s", tag, "", 6, 3, tagged.ID()),
		fmt.Sprintf("%s:%q:%d:%d %s", side, "late", 1, 1, late.ID()),
		fmt.Sprintf("%s:%q:%d:%d %s", loose, "", 1, 1, staged.ID()),
	}
	slices.Sort(want)
	check := func(what string, dirs ...string) {
		t.Helper()
		// The stash is two commits, of the same second: either may be named.
		got := slices.DeleteFunc(inHistory(t, exitFound, dirs...), func(s string) bool {
			return strings.HasSuffix(s, ` `+stashed.ID()) && strings.Contains(s, `"late":1:1`)
		})
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", what, got, want)
		}
	}
	check("loose objects", dir)
	if got := inHistory(t, exitFound, dir); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, stash) || strings.HasSuffix(s, stashed.ID()) }) {
		t.Error("the stash is not looked at")
	}
	git(t, dir, "repack", "-q", "-a", "-d")
	check("a pack", filepath.Join(dir, "d"), dir)
	git(t, dir, "commit-graph", "write")
	git(t, dir, "multi-pack-index", "write")
	check("the .git", filepath.Join(dir, ".git"))

	linked := filepath.Join(t.TempDir(), "linked")
	git(t, dir, "worktree", "add", "-q", linked, "v1")
	check("a linked work tree", linked)
	shared := filepath.Join(t.TempDir(), "shared")
	git(t, dir, "clone", "-q", "--shared", dir, shared)
	check("objects of another repository", shared)
	bare := filepath.Join(t.TempDir(), "bare")
	git(t, dir, "clone", "-q", "--no-local", "--mirror", dir, bare)
	want = slices.DeleteFunc(want, func(s string) bool { return strings.HasSuffix(s, staged.ID()) })
	check("a bare repository", bare)

	r := runScan(t, "", "-history", bare)
	for _, line := range []string{first[:12] + ":a:2:2: key " + removed.ID(), second[:12] + ":(message):8:6: key " + said.ID()} {
		if !strings.Contains(r.out, line+"\n") {
			t.Errorf("no %q in\n%s", line, r.out)
		}
	}
	if !strings.Contains(r.errs, " keys in ") || !strings.Contains(r.errs, " objects (") {
		t.Error(r.errs)
	}
}

func TestHistoryOfSHA256(t *testing.T) {
	outside(t)
	k := mint(t, "ak")
	dir := t.TempDir()
	git(t, dir, "init", "-q", "--object-format=sha256")
	plant(t, dir, map[string]string{"a": k.Reveal()})
	id := commit(t, dir, "one")
	if got := inHistory(t, exitFound, dir); len(got) != 1 || !strings.HasPrefix(got[0], id+`:"a":1:1 `) || len(id) != 64 {
		t.Errorf("%q", got)
	}
}

// TestEvilMerge: what is new in a merge only is named after it.
func TestEvilMerge(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	commit(t, dir, "root")
	git(t, dir, "checkout", "-q", "-b", "side")
	plant(t, dir, map[string]string{"side": "x"})
	commit(t, dir, "side")
	git(t, dir, "checkout", "-q", "main")
	plant(t, dir, map[string]string{"main": "x"})
	commit(t, dir, "main")
	git(t, dir, "merge", "-q", "--no-commit", "--no-ff", "side")
	plant(t, dir, map[string]string{"evil": k.Reveal()})
	id := commit(t, dir, "merged")
	if got := inHistory(t, exitFound, dir); len(got) != 1 || !strings.HasPrefix(got[0], id+`:"evil"`) {
		t.Errorf("%q", got)
	}
}

// TestManyObjects goes through several parts, and through names in several passes.
func TestManyObjects(t *testing.T) {
	dir := newRepo(t)
	var stream strings.Builder
	stream.WriteString("commit refs/heads/main\ncommitter t <t@example.com> 1800000000 +0000\ndata 3\none\n")
	add := func(name, text string) {
		fmt.Fprintf(&stream, "M 100644 inline %s\ndata %d\n%s\n", name, len(text), text)
	}
	for i := range maxWanted + 10 {
		add(fmt.Sprint("f", i), mint(t, "ak").Reveal())
	}
	for i := range 2 * maxObjects {
		add(fmt.Sprint("other", i), fmt.Sprint(i))
	}
	gitInput(t, dir, stream.String(), "fast-import", "--quiet")
	id := strings.TrimSpace(git(t, dir, "rev-parse", "main"))
	got := inHistory(t, exitFound, dir)
	for _, one := range got {
		if !strings.HasPrefix(one, id+`:"f`) {
			t.Fatal(one)
		}
	}
	if len(got) != maxWanted+10 {
		t.Errorf("%d found", len(got))
	}
}

func TestHistoryThatIsNotAllThere(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	plant(t, dir, map[string]string{"a": k.Reveal()})
	commit(t, dir, "one")
	plant(t, dir, map[string]string{"b": k.Reveal()})
	second := commit(t, dir, "two")
	git(t, dir, "config", "uploadpack.allowFilter", "true")

	shallow := filepath.Join(t.TempDir(), "shallow")
	git(t, dir, "clone", "-q", "--depth=1", "file://"+dir, shallow)
	r := runScan(t, "", "-history", shallow)
	if r.status != exitFailed || !strings.Contains(r.errs, "shallow") || !strings.Contains(r.out, second[:12]+":a:1:1: key "+k.ID()) {
		t.Errorf("shallow: %d %s%s", r.status, r.out, r.errs)
	}
	partial := filepath.Join(t.TempDir(), "partial")
	git(t, dir, "clone", "-q", "--filter=blob:none", "--no-checkout", "file://"+dir, partial)
	if r := runScan(t, "", "-history", partial); r.status != exitFailed || !strings.Contains(r.errs, "partial") {
		t.Errorf("partial: %d %s", r.status, r.errs)
	}
	for path, why := range map[string]string{t.TempDir(): "is not in a repository", filepath.Join(dir, "none"): "no such file", filepath.Join(dir, "a"): "is not a directory"} {
		if r := runScan(t, "", "-history", path); r.status != exitFailed || !strings.Contains(r.errs, why) {
			t.Errorf("%s: %d %s", path, r.status, r.errs)
		}
	}
}

// TestBrokenObjects: what cannot be read is told, and the rest is looked at.
func TestBrokenObjects(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	files := map[string]string{}
	for i := range 20 {
		files[fmt.Sprint("f", i)] = fmt.Sprint(i, " ", k.Reveal())
	}
	plant(t, dir, files)
	commit(t, dir, "one")
	for i := range 5 {
		id := strings.TrimSpace(git(t, dir, "rev-parse", fmt.Sprint("HEAD:f", i)))
		path := filepath.Join(dir, ".git", "objects", id[:2], id[2:])
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(raw[:len(raw)-6:len(raw)-6], "broken"...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := runScan(t, "", "-history", dir)
	if n := strings.Count(r.out, k.ID()); r.status != exitFailed || n != 15 || strings.Count(r.errs, "cannot be read") != 5 {
		t.Errorf("%d, %d found\n%s", r.status, n, r.errs)
	}
}

// TestHostileRepository: nothing that a repository configures is run or obeyed.
func TestHostileRepository(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	trap := filepath.Join(t.TempDir(), "trap")
	script := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$0 $*\" >> '"+trap+"'\ncat\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	odd := "odd\n\x1b[2J\u202e" + `"` + "\xff"
	plant(t, dir, map[string]string{odd: k.Reveal(), ".gitattributes": "* filter=evil diff=evil merge=evil\n", "-x": k.Reveal(), ".gitmodules": "[submodule \"x\"]\n\tpath = x\n\turl = ext::" + script + "\n"})
	commit(t, dir, "one")
	for name, value := range map[string]string{
		"core.fsmonitor": script, "core.hooksPath": filepath.Dir(script), "core.sshCommand": script, "core.pager": script, "core.editor": script, "core.askPass": script,
		"core.alternateRefsCommand": script, "core.gitProxy": script, "diff.external": script, "diff.evil.textconv": script, "diff.evil.command": script,
		"filter.evil.clean": script, "filter.evil.smudge": script, "filter.evil.process": script, "filter.evil.required": "true", "credential.helper": script,
		"alias.cat-file": "!" + script, "alias.diff-tree": "!" + script, "uploadpack.packObjectsHook": script, "gpg.program": script,
		"extensions.partialClone": "origin", "remote.origin.url": "ext::" + script, "remote.origin.promisor": "true", "remote.origin.uploadpack": script, "protocol.allow": "always",
		"log.showSignature": "true", "core.repositoryFormatVersion": "1", "core.worktree": "/", "trace2.eventTarget": trap + "2", "safe.directory": "nowhere",
	} {
		git(t, dir, "config", name, value)
	}
	hooks := filepath.Join(dir, ".git", "hooks")
	if err := os.MkdirAll(hooks, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []string{"post-checkout", "post-index-change", "fsmonitor-watchman", "pre-auto-gc", "reference-transaction"} {
		if err := os.Symlink(script, filepath.Join(hooks, hook)); err != nil {
			t.Fatal(err)
		}
	}
	// The environment is not obeyed either.
	elsewhere := newRepo(t)
	for name, value := range map[string]string{
		"GIT_DIR": filepath.Join(elsewhere, ".git"), "GIT_WORK_TREE": elsewhere, "GIT_OBJECT_DIRECTORY": filepath.Join(elsewhere, ".git", "objects"), "GIT_INDEX_FILE": "/dev/null",
		"GIT_EXTERNAL_DIFF": script, "GIT_SSH_COMMAND": script, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": script,
		"GIT_CONFIG_PARAMETERS": "'core.fsmonitor'='" + script + "'", "GIT_TRACE": trap + "3", "GIT_ALTERNATE_OBJECT_DIRECTORIES": "/", "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1",
	} {
		t.Setenv(name, value)
	}
	t.Chdir(dir)
	for _, args := range [][]string{{"."}, {"-history", "."}} {
		for _, format := range []string{"text", "json", "sarif"} {
			r := runScan(t, "", append([]string{"-format", format}, args...)...)
			if r.status != exitFound || strings.Count(r.out, k.ID()) < 2 {
				t.Errorf("%q: %d %s%s", args, r.status, r.out, r.errs)
			}
			for _, c := range r.out + r.errs {
				if c != '\n' && (c < ' ' || c > '~') {
					t.Errorf("%q, %s: %q is in the output", args, format, c)
					break
				}
			}
		}
	}
	for _, n := range []string{"", "2", "3"} {
		if raw, err := os.ReadFile(trap + n); err == nil {
			t.Errorf("something was run: %s", raw)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "apikeys-scan-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestPipesAmongTheObjects: git would wait for them for ever.
func TestPipesAmongTheObjects(t *testing.T) {
	k := mint(t, "ak")
	for what, spoil := range map[string]func(objects string){
		"a pack": func(o string) { makePipe(t, filepath.Join(o, "pack", "pack-x.idx")) },
		"a loose object": func(o string) {
			_ = os.Mkdir(filepath.Join(o, "00"), 0o700)
			makePipe(t, filepath.Join(o, "00", strings.Repeat("0", 38)))
		},
		"alternates": func(o string) { makePipe(t, filepath.Join(o, "info", "alternates")) },
		"a commit graph": func(o string) {
			plant(t, o, map[string]string{"info/commit-graphs/x": ""})
			makePipe(t, filepath.Join(o, "info", "commit-graphs", "y"))
		},
		"a link":             func(o string) { _ = os.Symlink("/dev/zero", filepath.Join(o, "pack", "pack-x.pack")) },
		"a directory's link": func(o string) { _ = os.Symlink(t.TempDir(), filepath.Join(o, "zz")) },
		"alternates of pipes": func(o string) {
			other := newRepo(t)
			makePipe(t, filepath.Join(other, ".git", "objects", "pack", "pack-x.idx"))
			plant(t, o, map[string]string{"info/alternates": filepath.Join(other, ".git", "objects") + "\n"})
		},
		"alternates in a ring": func(o string) { plant(t, o, map[string]string{"info/alternates": o + "\n"}) },
		"odd alternates":       func(o string) { plant(t, o, map[string]string{"info/alternates": "\"a\\nb\"\n"}) },
		"gone alternates":      func(o string) { plant(t, o, map[string]string{"info/alternates": "# x\n\n/nowhere/objects\n"}) },
	} {
		t.Run(what, func(t *testing.T) {
			dir := newRepo(t)
			plant(t, dir, map[string]string{"a": k.Reveal()})
			commit(t, dir, "one")
			spoil(filepath.Join(dir, ".git", "objects"))
			if r := runScan(t, "", "-history", dir); r.status != exitFailed || strings.Count(r.errs, "\n") != 2 {
				t.Errorf("%d %s%s", r.status, r.out, r.errs)
			}
		})
	}
}

func TestNoGit(t *testing.T) {
	dir := newRepo(t)
	t.Setenv("PATH", "")
	if r := runScan(t, "", "-history", dir); r.status != exitFailed || !strings.Contains(r.errs, "history is read with git") {
		t.Errorf("%d %s", r.status, r.errs)
	}
	if r := runScan(t, "", dir); r.status != exitNothing {
		t.Errorf("files need no git: %d %s", r.status, r.errs)
	}
}
