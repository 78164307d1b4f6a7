// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/vault/api"
)

const startLimit, stopLimit = 15 * time.Second, 15 * time.Second

// server is the development server's process.
type server struct {
	cmd    *exec.Cmd
	client *api.Client
	exited chan error
	log    *bytes.Buffer
}

// options say how to run a server.
type options struct {
	bin, plugin string
	// listen is its address, storage its file; on a free port and in memory if empty.
	listen, storage string
	token           string
}

// startServer runs the server and returns when it is ready.
func startServer(ctx context.Context, o options) (*server, error) {
	s := &server{exited: make(chan error, 1), log: &bytes.Buffer{}}
	//nolint:noctx // it is stopped in good order, not killed with the context
	s.cmd = exec.Command(o.bin, "-listen", cmp.Or(o.listen, "127.0.0.1:0"), "-storage", cmp.Or(o.storage, "memory"), "-plugin", o.plugin,
		"-tick", "1s", "-root-token", o.token, "-log-level", "warn")
	s.cmd.Stderr = s.log
	// A signal to the terminal's group is for the demo, which stops the server itself.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	ready := make(chan string, 1)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if _, addr, ok := strings.Cut(scan.Text(), "ready: "); ok {
				ready <- strings.Fields(addr)[0]
			}
		}
		s.exited <- s.cmd.Wait()
	}()
	var addr string
	select {
	case addr = <-ready:
	case err := <-s.exited:
		return nil, fmt.Errorf("the server ended before it was ready: %w\n%s", err, s.log)
	case <-ctx.Done():
		s.kill()
		return nil, ctx.Err()
	case <-time.After(startLimit):
		s.kill()
		return nil, errors.New("the server was not ready in time")
	}
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		s.kill()
		return nil, cfg.Error
	}
	cfg.Address, cfg.MaxRetries = addr, 0
	if s.client, err = api.NewClient(cfg); err != nil {
		s.kill()
		return nil, err
	}
	s.client.SetToken(o.token)
	s.client.ClearNamespace()
	return s, nil
}

// crash ends the server and the plugin as a power cut does.
func (s *server) crash() error {
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the server: %w", err)
	}
	_ = <-s.exited //nolint:staticcheck // how it ended is known
	return nil
}

// stop ends the server in good order.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			return fmt.Errorf("the server stopped badly: %w\n%s", err, s.log)
		}
		return nil
	case <-time.After(stopLimit):
		s.kill()
		return errors.New("the server did not stop")
	}
}

// kill ends the server when nothing matters any more but that it ends.
func (s *server) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited: //nolint:errcheck // how it ended matters no more
	case <-time.After(stopLimit):
		_ = s.cmd.Process.Kill()
	}
	if s.log.Len() > 0 {
		fmt.Fprintf(os.Stderr, "\nThe server's log:\n%s", s.log)
	}
}
