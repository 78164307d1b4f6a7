// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// runner starts compilers and tests.
type runner struct {
	pkg      *goPackage
	tmp      string
	parallel int
	memory   int
	factor   float64
	slack    time.Duration
	race     bool
	seed     uint64
	progress io.Writer
	flags    []string // of the test binary, beside its own
}

// verdict is what became of a mutant.
type verdict int

const (
	killed verdict = iota
	hung
	survived
	unreached // no test runs the line
	broken
)

type outcome struct {
	m       *mutant
	verdict verdict
	by      string // the test that noticed
}

// commandError is the failure of a command that ran.
type commandError struct {
	err    error
	output string
}

func (e *commandError) Error() string { return fmt.Sprintf("%v\n%s", e.err, e.output) }
func (e *commandError) Unwrap() error { return e.err }

// command runs a program and answers its standard output. It and all that it started end with ctx.
func command(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the caller says which program, as with make
	cmd.Dir = dir
	if env != nil {
		cmd.Env = append(os.Environ(), env...)
	}
	var out bytes.Buffer
	all := &tail{keep: 64 << 10}
	cmd.Stdout = io.MultiWriter(&capped{&out, 64 << 20}, all)
	cmd.Stderr = all
	// A group of its own: what a mutant leaves running is found by it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = end
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		end() //nolint:errcheck,gosec // usually nothing is left
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(name), context.Cause(ctx))
	}
	if err != nil {
		return nil, &commandError{fmt.Errorf("%s: %w", filepath.Base(name), err), all.String()}
	}
	return out.Bytes(), nil
}

// capped writes up to a bound and forgets the rest.
type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if _, err := c.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// tail keeps the end of what is written. Both streams of a process write to it.
type tail struct {
	mu   sync.Mutex
	keep int
	buf  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.keep {
		t.buf = slices.Clone(t.buf[len(t.buf)-t.keep:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

var errHung = errors.New("the tests hang")

// test runs a test binary in the directory of its package.
func (r *runner) test(ctx context.Context, binary string, live int, limit time.Duration, args ...string) ([]byte, error) {
	dir, err := os.MkdirTemp(r.tmp, "run")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// The binary's own limit comes first: it holds when this program is killed, too.
	args = append(append([]string{binary, "-test.timeout=" + limit.String()}, r.flags...), args...)
	ctx, cancel := context.WithTimeoutCause(ctx, limit+r.slack, errHung)
	defer cancel()
	script := `exec "$@"`
	if r.memory > 0 {
		script = fmt.Sprintf(`ulimit -v %d 2>/dev/null; exec "$@"`, r.memory<<10)
	}
	env := []string{"TMPDIR=" + dir, liveEnv + "=" + strconv.Itoa(live)}
	out, err := command(ctx, r.pkg.Dir, env, "sh", append([]string{"-c", script, "sh"}, args...)...)
	var exit *commandError
	if errors.As(err, &exit) && strings.Contains(exit.output, "panic: test timed out after") {
		return nil, errHung
	}
	return out, err
}

// seeded finds the flags with which property tests of this binary make the same examples each time and
// spend no time on a smaller one.
func (r *runner) seeded(ctx context.Context, binary string) error {
	// The usage that is printed for a wrong flag names the right ones.
	_, err := r.test(ctx, binary, 0, time.Minute, "-no-such-flag")
	var exit *commandError
	if !errors.As(err, &exit) {
		return cmp.Or(err, errors.New("the test binary takes any flag"))
	}
	if strings.Contains(exit.output, "-rapid.seed") {
		r.flags = []string{fmt.Sprintf("-rapid.seed=%d", max(r.seed, 1)), "-rapid.nofailfile", "-rapid.shrinktime=0s"}
	}
	return nil
}

func runFlag(tests []testTime) string {
	var names []string
	for _, t := range tests {
		names = append(names, t.Name)
	}
	return "-test.run=^(" + strings.Join(names, "|") + ")$"
}

// unchanged sees that all tests pass while no mutant is live: otherwise everything would seem killed.
func (r *runner) unchanged(ctx context.Context, b *built, cover *coverProfile) error {
	var binaries []string
	for _, binary := range b.binaries {
		if !slices.Contains(binaries, binary) {
			binaries = append(binaries, binary)
		}
	}
	for _, binary := range binaries {
		if _, err := r.test(ctx, binary, 0, r.limit(cover.Tests), runFlag(cover.Tests)); err != nil {
			return fmt.Errorf("the tests fail without a mutant: %w", err)
		}
	}
	return nil
}

func (r *runner) limit(tests []testTime) time.Duration {
	limit := r.slack
	for _, t := range tests {
		limit += time.Duration(r.factor * float64(t.Took))
	}
	return limit.Round(time.Second)
}

// all runs every mutant and reports each as it is done, one at a time.
func (r *runner) all(ctx context.Context, b *built, cover *coverProfile, report func(outcome)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := make(chan int)
	for range min(r.parallel, len(b.mutants)) {
		wg.Go(func() {
			for i := range next {
				result, err := r.one(ctx, b, cover, b.mutants[i])
				if err != nil {
					cancel(fmt.Errorf("%s: %w", b.mutants[i].place(), err))
					continue
				}
				mu.Lock()
				report(result)
				mu.Unlock()
			}
		})
	}
	for i := range b.mutants {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

var failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// one runs the tests that reach the mutant, the fast ones first.
func (r *runner) one(ctx context.Context, b *built, cover *coverProfile, m *mutant) (outcome, error) {
	tests := cover.reach(m)
	if len(tests) == 0 {
		return outcome{m: m, verdict: unreached}, nil
	}
	binary, live := b.binaries[m], b.live[m]
	if binary == "" {
		dir, err := os.MkdirTemp(r.tmp, "alone")
		if err != nil {
			return outcome{}, err
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "alone.test")
		switch err := buildAlone(ctx, r, m, binary); {
		case errors.Is(err, errNotCompiled):
			return outcome{m: m, verdict: broken}, nil
		case err != nil:
			return outcome{}, err
		}
	}
	for _, group := range groups(tests) {
		_, err := r.test(ctx, binary, live, r.limit(group), runFlag(group), "-test.failfast")
		var exit *commandError
		switch {
		case err == nil:
		case errors.Is(err, errHung):
			return outcome{m: m, verdict: hung}, nil
		case ctx.Err() == nil && errors.As(err, &exit):
			by := "a crash"
			if found := failedTest.FindStringSubmatch(exit.output); found != nil {
				by = found[1]
			}
			return outcome{m: m, verdict: killed, by: by}, nil
		default:
			return outcome{}, err
		}
	}
	return outcome{m: m, verdict: survived}, nil
}

// groups splits tests, the fast ones first, into processes that take longer and longer: most mutants die
// in the first.
func groups(tests []testTime) [][]testTime {
	var all [][]testTime
	var group []testTime
	var sum time.Duration
	limit := 200 * time.Millisecond
	for _, t := range tests {
		if len(group) > 0 && sum+t.Took > limit {
			all = append(all, group)
			group, sum, limit = nil, 0, limit*3
		}
		group = append(group, t)
		sum += t.Took
	}
	if len(group) > 0 {
		all = append(all, group)
	}
	return all
}
