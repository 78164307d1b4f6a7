// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
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

// end is the last part of what was written.
func (o *output) end() string {
	const enough = 4000
	text := o.String()
	return text[max(0, len(text)-enough):]
}

func launch(t testing.TB, out *output, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), out: out, exited: make(chan struct{})}
	p.cmd.Dir = dir
	// Caddy keeps files of its own.
	p.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.stop)
	return p
}

// stop asks the process to end, and ends whatever is left of its group.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
	}
	p.kill()
}

// kill gives neither the process nor its children a chance.
func (p *process) kill() {
	select {
	case <-p.exited:
	default:
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
}

func (p *process) running() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended: %w\n%s", p.cmd.Path, p.err, p.out.end())
	default:
		return nil
	}
}

// eventually waits until try has no complaint any more.
func eventually(t testing.TB, limit time.Duration, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-time.After(25 * time.Millisecond)
	}
}

// listens is for eventually: somebody accepts connections there.
func listens(addr string, p *process) func() error {
	return func() error {
		if err := p.running(); err != nil {
			return err
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
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
