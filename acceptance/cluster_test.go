// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// cluster is three real servers with one integrated storage.
type cluster struct {
	nodes            []*node
	unsealKey, token string
}

func startCluster(t *testing.T) server {
	dir := raftDir(t)
	addrs := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	s := &cluster{}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range s.nodes {
				t.Logf("log of %s:\n%s", n.id, tail(n.out.String()))
			}
		}
	})
	for i := range addrs {
		// Quick elections flap on a machine that also runs everything else.
		n := newNode(t, dir, fmt.Sprintf("n%d", i+1), addrs, i, 5)
		s.nodes = append(s.nodes, n)
		n.start()
		if i == 0 {
			s.unsealKey, s.token = n.initialise()
			n.unseal(t, s.unsealKey)
			n.waitHealth(t, 200)
			continue
		}
		s.join(t, n)
	}
	s.waitVoters(t)
	s.nodes[0].register(s.token)
	return s
}

func (s *cluster) join(t *testing.T, n *node) {
	t.Helper()
	eventually(t, n.id+" joins", func() error {
		d, err := n.get("sys/seal-status")
		if err == nil && d["initialized"] != true {
			err = errNotYet
		}
		return err
	})
	n.unseal(t, s.unsealKey)
	n.waitHealth(t, 429, 473)
}

// waitVoters waits until every node may lead: before, a step-down would elect the same one again.
func (s *cluster) waitVoters(t *testing.T) {
	t.Helper()
	c := s.nodes[0].client(s.token)
	eventually(t, "autopilot", func() error {
		_, err := c.Logical().Write("sys/storage/raft/autopilot/configuration", data{"server_stabilization_time": "1s"})
		return err
	})
	within(t, 2*time.Minute, "three voters", func() error {
		r, err := c.Logical().Read("sys/storage/raft/configuration")
		if err != nil {
			return err
		}
		raw, err := json.Marshal(r.Data["config"])
		if err != nil {
			return err
		}
		if n := strings.Count(string(raw), `"voter":true`); n != len(s.nodes) {
			return fmt.Errorf("%d voters", n)
		}
		return nil
	})
	s.active(t)
}

// active waits for one node to lead and all others to follow it.
func (s *cluster) active(t *testing.T) *node {
	t.Helper()
	var active *node
	within(t, 2*patience, "one active node", func() error {
		active = nil
		for _, n := range s.nodes {
			switch status := n.health(); {
			case status == 200 && active == nil:
				active = n
			case status != 429 && status != 473:
				return fmt.Errorf("%s has health %d", n.id, status)
			}
		}
		if active == nil {
			return errNotYet
		}
		return nil
	})
	return active
}

func (s *cluster) root() string { return s.token }

// addresses puts the active node first as far as that is known: in an upheaval it may be nobody.
func (s *cluster) addresses(*testing.T) []string {
	var first, rest []string
	for _, n := range s.nodes {
		if n.health() == 200 {
			first = append(first, n.url())
		} else {
			rest = append(rest, n.url())
		}
	}
	return append(first, rest...)
}

func (s *cluster) can(f feature) bool { return f == stepsDown || f == runsPrometheus && atHand(f) }

func (s *cluster) pluginPIDs(t *testing.T) []int {
	var out []int
	for _, n := range s.nodes {
		out = append(out, children(t, n.process.cmd.Process.Pid)...)
	}
	return out
}

func (s *cluster) crash(t *testing.T) { t.Fatal("a cluster is not crashed as a whole") }

// seal ends the standbys, so that no other takes over, and seals the active node.
func (s *cluster) seal(t *testing.T) {
	t.Helper()
	active := s.active(t)
	for _, n := range s.nodes {
		if n != active {
			n.process.kill()
		}
	}
	// Without its followers it may lose the lead, and answer so, before it is sealed.
	if err := active.client(s.token).Sys().Seal(); err != nil && active.health() != 503 {
		t.Fatal(err)
	}
}

func (s *cluster) unseal(t *testing.T) {
	t.Helper()
	for _, n := range s.nodes {
		if n.process.running() != nil {
			n.start()
		}
	}
	for _, n := range s.nodes {
		n.unseal(t, s.unsealKey)
	}
	s.active(t)
}

func (s *cluster) stepDown(t *testing.T) {
	t.Helper()
	before := s.active(t)
	if err := before.client(s.token).Sys().StepDown(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another node leads", func() error {
		for _, n := range s.nodes {
			if n != before && n.health() == 200 {
				return nil
			}
		}
		return errNotYet
	})
}

func (s *cluster) logs() string {
	var b strings.Builder
	for _, n := range s.nodes {
		b.WriteString(n.out.String())
	}
	return b.String()
}
