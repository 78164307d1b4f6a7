// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFilesAndDirectories(t *testing.T) {
	outside(t)
	a, b := mint(t, "ak"), mint(t, "acme_live")
	dir := t.TempDir()
	plant(t, dir, map[string]string{
		"alone": a.Reveal(), "sub/two": "one\n  " + a.Reveal() + " " + b.Reveal() + "\n" + a.Reveal(),
		"sub/binary": "\x7fELF\x00\x00\x00" + b.Reveal() + "\x00", "sub/utf16": strings.Join(strings.Split(b.Reveal(), ""), "\x00"),
		"sub/escaped.json": `{"key":"` + strings.ReplaceAll(a.Reveal(), "_", `\u005f`) + `"}`,
		"look-alike":       lookAlike(a), "handle": a.String(), "empty": "", ".gitignore": "*\n",
	})
	t.Chdir(dir)
	all := []string{
		key("alone", 1, 1, a.ID()), key("sub/two", 2, 3, a.ID()), key("sub/two", 2, 68, b.ID()), key("sub/two", 3, 1, a.ID()),
		key("sub/binary", 1, 8, b.ID()), key("sub/utf16", 1, 1, b.ID()), key("sub/escaped.json", 1, 9, a.ID()),
	}
	same(t, "the directory, which no repository is around", found(t, exitFound, "", "."), all)
	same(t, "a file", found(t, exitFound, "", "alone"), all[:1])
	same(t, "a look-alike", found(t, exitNothing, "", "look-alike", "handle", "empty"), nil)
	same(t, "a prefix", found(t, exitFound, "", "-prefix", "acme_live,zz", "."), []string{all[2], all[4], all[5]})
	same(t, "an exception", found(t, exitFound, "", "-except", a.ID(), "."), []string{all[2], all[4], all[5]})
	same(t, "a prefix that ends like another", found(t, exitNothing, "", "-prefix", "live", "."), nil)
	same(t, "standard input", found(t, exitFound, "x\n"+a.Reveal(), "-"), []string{key("-", 2, 1, a.ID())})
	same(t, "beside what is not there", found(t, exitFailed, "", "none", "alone"), all[:1])
}

// TestIgnored: what .gitignore leaves out is not looked at, but for what is tracked.
func TestIgnored(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	git(t, dir, "init", "-q", "nested")
	plant(t, dir, map[string]string{
		".gitignore": "*.log\nbuild/\n/nested/build\n", ".git/info/exclude": "excluded\n",
		"tracked.log": k.Reveal(), "build/deep/tracked": k.Reveal(), // added with -f
		"plain": k.Reveal(), "x.log": k.Reveal(), "build/x": k.Reveal(), "build/deep/x": k.Reveal(), "excluded": k.Reveal(),
		"sub/.gitignore": "!y.log\n/here\n", "sub/y.log": k.Reveal(), "sub/here": k.Reveal(), "sub/deep/here": k.Reveal(),
		"nested/.gitignore": "inner\n", "nested/inner": k.Reveal(), "nested/z.log": k.Reveal(), "nested/build/x": k.Reveal(),
	})
	git(t, dir, "add", "-f", "tracked.log", "build/deep/tracked")
	git(t, filepath.Join(dir, "nested"), "add", "-f", "inner")
	at := func(names ...string) (all []string) {
		for _, name := range names {
			all = append(all, key(name, 1, 1, k.ID()))
		}
		return all
	}
	everything := at("tracked.log", "build/deep/tracked", "plain", "x.log", "build/x", "build/deep/x", "excluded",
		"sub/y.log", "sub/here", "sub/deep/here", "nested/inner", "nested/z.log", "nested/build/x")
	t.Chdir(dir)
	// A nested repository has rules of its own, and a rule of its parent may leave all of it out.
	same(t, "the work tree", found(t, exitFound, "", "."),
		at("tracked.log", "build/deep/tracked", "plain", "sub/y.log", "sub/deep/here", "nested/inner", "nested/z.log", "nested/build/x"))
	same(t, "with -ignored", found(t, exitFound, "", "-ignored", "."), everything)
	same(t, "an ignored file that is named", found(t, exitFound, "", "x.log"), at("x.log"))
	same(t, "a directory below", found(t, exitFound, "", "sub"), at("sub/y.log", "sub/deep/here"))
	same(t, "two below", found(t, exitFound, "", "sub/deep"), at("sub/deep/here"))
	same(t, "an ignored directory that is named", found(t, exitFound, "", "build/deep"), at("build/deep/tracked", "build/deep/x"))

	for _, version := range []string{"3", "4"} {
		git(t, dir, "update-index", "--index-version", version)
		same(t, "an index of version "+version, found(t, exitFound, "", "build"), at("build/deep/tracked", "build/x", "build/deep/x"))
		same(t, "and all", found(t, exitFound, "", "."),
			at("tracked.log", "build/deep/tracked", "plain", "sub/y.log", "sub/deep/here", "nested/inner", "nested/z.log", "nested/build/x"))
	}
	// One that cannot be read hides nothing.
	plant(t, dir, map[string]string{".git/index": "DIRC nonsense that is long enough to be one"})
	same(t, "a broken index", found(t, exitFound, "", "build"), at("build/deep/tracked", "build/x", "build/deep/x"))
	same(t, "a broken index", found(t, exitFound, "", "."), everything)
}

// TestSomebodyElsesRules: a work tree of another owner, around what is looked at, hides
// nothing.
func TestSomebodyElsesRules(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	plant(t, dir, map[string]string{".gitignore": "*\n", "sub/a": k.Reveal()})
	same(t, "of the same owner", found(t, exitNothing, "", filepath.Join(dir, "sub")), nil)
	// Who may give files away does; to everybody else the root directory is another's.
	other, mine := filepath.Join(dir, ".git"), dir
	if err := os.Lchown(other, 12345, 12345); err != nil {
		other = "/"
	}
	a, err := os.Lstat(other)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Lstat(mine)
	if err != nil {
		t.Fatal(err)
	}
	if owner(a) == owner(b) {
		t.Errorf("%s and %s have the same owner", other, mine)
	}
	if other != "/" {
		sub := filepath.Join(dir, "sub")
		same(t, "of another owner", found(t, exitFound, "", sub), []string{key(filepath.Join(sub, "a"), 1, 1, k.ID())})
	}
}

func TestSplitIndexHidesNothing(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	plant(t, dir, map[string]string{".gitignore": "*\n", "a": k.Reveal(), "b": "x"})
	git(t, dir, "add", "-f", "a", "b")
	git(t, dir, "update-index", "--split-index")
	t.Chdir(dir)
	same(t, "a split index", found(t, exitFound, "", "."), []string{key("a", 1, 1, k.ID())})
}

func TestLinkedWorkTreeAndSHA256(t *testing.T) {
	k := mint(t, "ak")
	dir := newRepo(t)
	plant(t, dir, map[string]string{".gitignore": "out\n", "a": "x"})
	commit(t, dir, "one")
	linked := filepath.Join(t.TempDir(), "linked")
	git(t, dir, "worktree", "add", "-q", linked)
	plant(t, linked, map[string]string{"out": k.Reveal(), "in": k.Reveal()})
	t.Chdir(linked)
	same(t, "a linked work tree", found(t, exitFound, "", "."), []string{key("in", 1, 1, k.ID())})
	git(t, linked, "add", "-f", "out")
	same(t, "and what is tracked there", found(t, exitFound, "", "."), []string{key("in", 1, 1, k.ID()), key("out", 1, 1, k.ID())})

	sha256 := t.TempDir()
	git(t, sha256, "init", "-q", "--object-format=sha256")
	plant(t, sha256, map[string]string{".gitignore": "*\n", "out": k.Reveal(), "in": k.Reveal()})
	git(t, sha256, "add", "-f", "in")
	t.Chdir(sha256)
	same(t, "ids of SHA-256", found(t, exitFound, "", "."), []string{key("in", 1, 1, k.ID())})
}

// TestOnlyPlainFiles: links, pipes and devices are not followed, waited for or read.
func TestOnlyPlainFiles(t *testing.T) {
	k := mint(t, "ak")
	dir, elsewhere := newRepo(t), t.TempDir()
	plant(t, elsewhere, map[string]string{"secret": k.Reveal(), "rules": "*\n"})
	plant(t, dir, map[string]string{"plain": k.Reveal(), "sub/plain": k.Reveal()})
	t.Chdir(dir)
	for link, to := range map[string]string{
		"file": filepath.Join(elsewhere, "secret"), "dir": elsewhere, "loop": ".", "dangling": "nowhere", "zero": "/dev/zero",
		".gitignore": filepath.Join(elsewhere, "rules"),
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	makePipe(t, "pipe")
	makePipe(t, "sub/.gitignore")
	want := []string{key("plain", 1, 1, k.ID()), key("sub/plain", 1, 1, k.ID())}
	same(t, "a tree with links and pipes", found(t, exitFound, "", "."), want)
	for path, why := range map[string]string{"file": "symbolic link", "dir": "symbolic link", "pipe": "is not a file or a directory", "/dev/zero": "is not a file or a directory"} {
		if r := runScan(t, "", path); r.status != exitFailed || !strings.Contains(r.errs, why) {
			t.Errorf("%s: %d %s", path, r.status, r.errs)
		}
	}
	for _, path := range []string{"pipe", "file", "zero", "/dev/zero", "sub"} {
		if f, err := openPlain(path); !errors.Is(err, errNotPlain) {
			t.Errorf("%s is opened: %v", path, err)
			f.Close()
		}
	}
	// The index and what else is read of .git may be pipes too.
	for _, name := range []string{".git/index", ".git/config", ".git/info/exclude"} {
		_ = os.Remove(name)
		makePipe(t, name)
	}
	same(t, "a repository of pipes", found(t, exitFound, "", "."), want)
	if err := os.RemoveAll(".git"); err != nil {
		t.Fatal(err)
	}
	makePipe(t, ".git")
	same(t, "a pipe as .git", found(t, exitFound, "", "."), want)
}

// TestFileThatBecomesALink: what is opened is what was seen.
func TestFileThatBecomesALink(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"secret": "x"})
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if f, err := openFile(filepath.Join(dir, "link")); err == nil {
		f.Close()
		t.Error("a link is opened")
	}
	all := newFindings(nil, nil)
	scanFile(t.Context(), filepath.Join(dir, "gone"), newSearch(nil), all)
	if len(all.problems) != 1 {
		t.Error("a file that has gone is not told")
	}
}

// TestKeysInNames: a name that holds a key is a find, and is not shown.
func TestKeysInNames(t *testing.T) {
	outside(t)
	k, other := mint(t, "ak"), mint(t, "ak")
	dir := t.TempDir()
	t.Chdir(dir)
	plant(t, dir, map[string]string{k.Reveal() + ".txt": other.Reveal()})
	name := "[key " + k.ID() + "].txt"
	same(t, "a name", found(t, exitFound, "", "."), []string{key(name, 0, 0, k.ID()), key(name, 1, 1, other.ID())})
	if r := runScan(t, "", k.Reveal()); strings.Contains(r.out+r.errs, k.Reveal()) {
		t.Error("the name of what is not there shows a key")
	}
}

func TestManyPlacesOfAKey(t *testing.T) {
	outside(t)
	k := mint(t, "ak")
	dir := t.TempDir()
	t.Chdir(dir)
	plant(t, dir, map[string]string{"log": strings.Repeat(k.Reveal()+"\n", 1000)})
	o := decode(t, runScan(t, "", "-format", "json", "log").out)
	if len(o.Findings) != 1 || o.Findings[0].Count != 1000 || len(o.Findings[0].Places) != maxPlaces || o.Findings[0].Places[maxPlaces-1].Line != maxPlaces {
		t.Errorf("%d findings", len(o.Findings))
	}
	if r := runScan(t, "", "log"); !strings.Contains(r.out, "log: key "+k.ID()+", 900 times more\n") {
		t.Error("the rest is not told")
	}
}

func TestInterrupted(t *testing.T) {
	outside(t)
	k := mint(t, "ak")
	ctx, cancel := context.WithCancel(t.Context())
	dir := t.TempDir()
	plant(t, dir, map[string]string{"a": k.Reveal()})
	cancel()
	for _, args := range [][]string{{dir}, {"-"}, {"-history", "."}} {
		var out, errs strings.Builder
		if status := Run(ctx, args, strings.NewReader(k.Reveal()), &out, &errs); status != exitFailed || !strings.Contains(errs.String(), "was interrupted") {
			t.Errorf("%q: %d %s", args, status, &errs)
		}
	}
}

func TestBrokenStreams(t *testing.T) {
	outside(t)
	k := mint(t, "ak")
	var out, errs strings.Builder
	if status := Run(t.Context(), []string{"-"}, io.MultiReader(strings.NewReader(k.Reveal()), iotest.ErrReader(io.ErrClosedPipe)), &out, &errs); status != exitFailed ||
		!strings.Contains(out.String(), k.ID()) || !strings.Contains(errs.String(), "closed pipe") {
		t.Errorf("input that breaks off: %d %s%s", status, &out, &errs)
	}
	for _, format := range []string{"text", "json", "sarif"} {
		if status := Run(t.Context(), []string{"-format", format, "-"}, strings.NewReader(k.Reveal()), broken{}, &errs); status != exitFailed {
			t.Errorf("%s: output that cannot be written: %d", format, status)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestManyFiles: everybody's finds come together.
func TestManyFiles(t *testing.T) {
	outside(t)
	dir := t.TempDir()
	t.Chdir(dir)
	var want []string
	files := map[string]string{}
	for i := range 500 {
		k := mint(t, "ak")
		name := filepath.Join("d"+string(rune('a'+i%7)), "f"+string(rune('a'+i%26))+k.ID())
		files[name] = "line\n" + k.Reveal()
		want = append(want, key(name, 2, 1, k.ID()))
	}
	plant(t, dir, files)
	same(t, "many files", found(t, exitFound, "", "."), want)
	first := runScan(t, "", ".")
	if again := runScan(t, "", "."); again != first || !slices.IsSorted(strings.Split(strings.TrimSpace(first.out), "\n")) {
		t.Error("the output depends on who was faster")
	}
}
