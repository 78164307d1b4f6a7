// SPDX-License-Identifier: MPL-2.0

package acceptance

import "testing"

// single is one real server on integrated storage.
type single struct {
	node             *node
	unsealKey, token string
}

func startReal(t *testing.T) server {
	s := &single{node: newNode(t, raftDir(t), "n1", []string{freeAddress(t)}, 0, 1)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("server log:\n%s", tail(s.logs()))
		}
	})
	s.node.start()
	s.unsealKey, s.token = s.node.initialise()
	s.unseal(t)
	s.node.register(s.token)
	return s
}

func (s *single) root() string                  { return s.token }
func (s *single) addresses(*testing.T) []string { return []string{s.node.url()} }

func (s *single) can(f feature) bool {
	return f == crashes || f == runsAgent || f == isReal || atHand(f)
}

func (s *single) pluginPIDs(t *testing.T) []int { return children(t, s.node.process.cmd.Process.Pid) }
func (s *single) stepDown(t *testing.T)         { t.Fatal("a single server has no other node") }
func (s *single) logs() string                  { return s.node.out.String() }

func (s *single) seal(t *testing.T) {
	t.Helper()
	if err := s.node.client(s.token).Sys().Seal(); err != nil {
		t.Fatal(err)
	}
}

func (s *single) unseal(t *testing.T) {
	t.Helper()
	s.node.unseal(t, s.unsealKey)
	s.node.waitHealth(t, 200)
}

func (s *single) crash(t *testing.T) {
	t.Helper()
	s.node.process.kill()
	s.node.start()
	s.unseal(t)
}
