// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program in a process group of its own, whose output is kept.
type process struct {
	cmd    *exec.Cmd
	out    *output
	exited chan struct{}
	err    error
}

// output may be written by several processes, one after the other or at once.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func launch(t testing.TB, out *output, env []string, name string, args ...string) *process {
	t.Helper()
	return launchIn(t, "", out, env, name, args...)
}

func launchIn(t testing.TB, dir string, out *output, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), out: out, exited: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.end)
	return p
}

// end stops the process, and whatever is left of its group.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// interrupt is what Ctrl-C does in a terminal: the whole group is told.
func (p *process) interrupt(t testing.TB) {
	t.Helper()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT)
	eventually(t, "the end of "+p.cmd.Path, func() error {
		if p.running() == nil {
			return errNotYet
		}
		return nil
	})
}

// kill gives neither the process nor its children a chance.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
}

func (p *process) running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("process ended: %w", p.err)
	default:
		return nil
	}
}

// children are the processes that pid started and that still run.
func children(t *testing.T, pid int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, name := range stats {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		// The name in parentheses may hold anything, so what counts starts after it.
		rest := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		if len(rest) < 2 || rest[0] == "Z" || rest[1] != strconv.Itoa(pid) {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, child)
	}
	if len(stats) == 0 {
		out = childrenByCommand(t, pid)
	}
	return out
}

// childrenByCommand is for systems without /proc.
func childrenByCommand(t *testing.T, pid int) []int {
	t.Helper()
	raw, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range strings.Fields(string(raw)) {
		child, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, child)
	}
	return out
}

// freeAddress is a loopback address that nobody uses now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
