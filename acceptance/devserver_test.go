// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"cmp"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// devserver is the development server on a storage file, with a port of its own across restarts.
type devserver struct {
	// t is that of the whole suite: a process started in a scenario outlives it.
	t          *testing.T
	addr, file string
	out        *output
	process    *process
	tick       string // between periodic calls
	plugin     string // the plugin's program; empty: the one that is tested
}

func startDevserver(t *testing.T) server { return startDevserverTicking(t, "1s") }

func startDevserverTicking(t *testing.T, tick string) server {
	s := &devserver{t: t, addr: freeAddress(t), file: filepath.Join(t.TempDir(), "storage.db"), out: &output{}, tick: tick}
	s.start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("server log:\n%s", tail(s.out.String()))
		}
	})
	return s
}

func (s *devserver) start(t *testing.T) {
	t.Helper()
	before := strings.Count(s.out.String(), "ready: ")
	s.process = launch(s.t, s.out, nil, programs.devserver,
		"-listen", s.addr, "-plugin", cmp.Or(s.plugin, programs.plugin), "-storage", s.file, "-tick", s.tick, "-log-level", "debug")
	within(t, 30*time.Second, "development server", func() error {
		if strings.Count(s.out.String(), "ready: ") > before {
			return nil
		}
		if err := s.process.running(); err != nil {
			t.Fatalf("%v\n%s", err, s.out)
		}
		return errNotYet
	})
}

func (s *devserver) root() string                  { return "root" }
func (s *devserver) addresses(*testing.T) []string { return []string{"http://" + s.addr} }
func (s *devserver) pluginPIDs(t *testing.T) []int { return children(t, s.process.cmd.Process.Pid) }
func (s *devserver) logs() string                  { return s.out.String() }
func (s *devserver) stepDown(t *testing.T)         { t.Fatal("a development server is alone") }

func (s *devserver) can(f feature) bool {
	return f == crashes || f == runsAgent && programs.real != "" || atHand(f)
}

func (s *devserver) seal(t *testing.T) {
	t.Helper()
	if err := (&suite{}).clientFor("http://"+s.addr, s.root()).Sys().Seal(); err != nil {
		t.Fatal(err)
	}
}

func (s *devserver) unseal(t *testing.T) {
	t.Helper()
	if _, err := (&suite{}).clientFor("http://"+s.addr, "").Sys().Unseal("any"); err != nil {
		t.Fatal(err)
	}
}

func (s *devserver) crash(t *testing.T) {
	t.Helper()
	s.process.kill()
	s.start(t)
}

// tail is the end of a log, enough to see what happened.
func tail(log string) string {
	const enough = 8000
	return log[max(0, len(log)-enough):]
}
