// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// objects are the objects of a repository, as git reads them. Git is given a directory of
// ours with a configuration of ours, and of the repository the objects only. So nothing
// that the repository configures counts: no filter, no diff driver, no hook, no program
// that watches files, no remote that could be asked for objects.
type objects struct {
	git string // the program
	dir string // what git takes for the repository
	env []string
}

// maxAlternates is how many repositories may take objects from the next one.
const maxAlternates = 5

// openObjects makes the objects of a repository ready for being read. Whoever calls it
// closes them.
func openObjects(r *repo) (*objects, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("history is read with git: %w", err)
	}
	dir, err := filepath.EvalSymlinks(r.objects())
	if err != nil {
		return nil, err
	}
	if err := onlyPlain(dir, maxAlternates); err != nil {
		return nil, err
	}
	o := &objects{git: git}
	if o.dir, err = os.MkdirTemp("", "apikeys-scan-"); err != nil {
		return nil, err
	}
	config := "[core]\n\trepositoryFormatVersion = 1\n\tbare = true\n\tcommitGraph = false\n\tbigFileThreshold = 16m\n" // larger ones are not held in memory
	if r.hashLen() == 32 {
		config += "[extensions]\n\tobjectFormat = sha256\n"
	}
	files := map[string]string{"HEAD": "ref: refs/heads/none\n", "config": config}
	// Where history was cut off, commits name parents that are not there.
	if shallow, err := readPlain(filepath.Join(r.common, "shallow"), 64<<20); err == nil {
		files["shallow"] = string(shallow)
	}
	err = os.Mkdir(filepath.Join(o.dir, "refs"), 0o700)
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o600))
	}
	if err != nil {
		o.close()
		return nil, err
	}
	o.env = append(o.env,
		"GIT_DIR="+o.dir, "GIT_OBJECT_DIRECTORY="+dir, "HOME="+o.dir, "XDG_CONFIG_HOME="+o.dir,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_ATTR_NOSYSTEM=1",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C",
	)
	for _, name := range []string{"PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP"} {
		if value, ok := os.LookupEnv(name); ok {
			o.env = append(o.env, name+"="+value)
		}
	}
	return o, nil
}

func (o *objects) close() { _ = os.RemoveAll(o.dir) }

// onlyPlain refuses directories of objects that hold what git would wait for, such as a
// pipe, or what leads elsewhere.
func onlyPlain(dir string, depth int) error {
	tops, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, top := range tops {
		name := top.Name()
		if len(name) != 2 && name != "pack" && name != "info" {
			continue // not read by git
		}
		if err := plainEntries(filepath.Join(dir, name), name == "info"); err != nil {
			return err
		}
	}
	raw, err := readPlain(filepath.Join(dir, "info", "alternates"), 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("alternates: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		path := strings.TrimRight(line, "\r\n")
		if path == "" || path[0] == '#' {
			continue
		}
		if depth == 0 || path[0] == '"' {
			return errors.New("alternates: they cannot be followed")
		}
		if err := onlyPlain(beside(dir, path), depth-1); err != nil {
			return fmt.Errorf("alternates: %w", err)
		}
	}
	return nil
}

var errObjects = fmt.Errorf("among the objects there is what %w", errNotPlain)

func plainEntries(dir string, deeper bool) error {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return errors.Join(err, errObjects)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case e.Type().IsRegular():
		case e.IsDir() && deeper:
			if err := plainEntries(filepath.Join(dir, e.Name()), false); err != nil {
				return err
			}
		case e.IsDir():
		default:
			return errObjects
		}
	}
	return nil
}

// incomplete says why the repository does not have all of its history, if that is so.
func (r *repo) incomplete() error {
	if info, err := os.Lstat(filepath.Join(r.common, "shallow")); err == nil && info.Size() > 0 {
		return errors.New("the clone is shallow: older history is not there (git fetch --unshallow gets it)")
	}
	packs, _ := os.ReadDir(filepath.Join(r.objects(), "pack"))
	for _, e := range packs {
		if strings.HasSuffix(e.Name(), ".promisor") {
			return errors.New("the clone is partial: objects that were never fetched are not there (git clone without --filter gets them)")
		}
	}
	return nil
}

// object is what git tells of one.
type object struct {
	id, kind string
	size     int64
}

func parseObject(line string) (object, error) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return object{}, fmt.Errorf("git answered something unknown about an object: %q", line)
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 0 {
		return object{}, errors.New("git answered no size of an object")
	}
	return object{f[0], f[1], size}, nil
}

// run runs git, and read reads what it answers.
func (o *objects) run(ctx context.Context, stdin io.Reader, read func(*bufio.Reader) error, args ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.git, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = o.dir, o.env, stdin
	cmd.WaitDelay = 5 * time.Second
	said := &beginning{}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = read(bufio.NewReaderSize(out, 64<<10))
	if err != nil {
		cancel()
	}
	if ended := cmd.Wait(); err == nil && ended != nil || errors.Is(err, io.ErrUnexpectedEOF) {
		line, _, _ := strings.Cut(said.String(), "\n")
		err = fmt.Errorf("git %s: %w", args[0], cmp.Or(ended, err))
		if line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		}
	}
	return err
}

// beginning keeps the beginning of what is written.
type beginning struct{ text []byte }

func (b *beginning) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), 1024-len(b.text))]...)
	return len(p), nil
}

func (b *beginning) String() string { return string(b.text) }

// list calls yield for every object there is, in an order that is fast to read in.
func (o *objects) list(ctx context.Context, yield func(object) error) error {
	return o.run(ctx, nil, func(out *bufio.Reader) error {
		for {
			line, err := out.ReadString('\n')
			if errors.Is(err, io.EOF) && line == "" {
				return nil
			}
			if err != nil {
				return err
			}
			one, err := parseObject(line)
			if err != nil {
				return err
			}
			if err := yield(one); err != nil {
				return err
			}
		}
	}, "cat-file", "--batch-all-objects", "--batch-check", "--unordered")
}

// read calls yield for each of the objects, with its content, and returns how many it has
// been called for without an error.
func (o *objects) read(ctx context.Context, ids []string, yield func(object, io.Reader) error) (done int, err error) {
	stdin := strings.NewReader(strings.Join(ids, "\n") + "\n")
	err = o.run(ctx, stdin, func(out *bufio.Reader) error {
		for done < len(ids) {
			line, err := out.ReadString('\n')
			if err != nil {
				return io.ErrUnexpectedEOF
			}
			one, err := parseObject(line)
			if err != nil {
				return err
			}
			content := &io.LimitedReader{R: out, N: one.size}
			if err := yield(one, content); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, content); err != nil {
				return err
			}
			if c, err := out.ReadByte(); err != nil || c != '\n' || content.N > 0 {
				return io.ErrUnexpectedEOF
			}
			done++
		}
		return nil
	}, "cat-file", "--batch", "--buffer")
	return done, err
}
