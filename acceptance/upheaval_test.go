// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func pluginReload(t *testing.T, e *env) {
	e.write("roles/r", nil)
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	k, d := e.creds("r"), e.creds("d")
	before := e.server.pluginPIDs(t)
	if _, err := e.client.Sys().ReloadPlugin(&api.ReloadPluginInput{Plugin: pluginName}); err != nil {
		t.Fatal(err)
	}
	if after := e.server.pluginPIDs(t); slices.Equal(before, after) {
		t.Errorf("the plugin's processes are %v still", after)
	}
	e.survived(k, d)
}

// survived asserts that a static and a dynamic key and what can be done with them are as before.
func (e *env) survived(static, dynamic key) {
	e.t.Helper()
	if got := e.creds("r"); got.secret != static.secret {
		e.t.Errorf("version %d is read, was %d", got.version, static.version)
	}
	e.judged(static, "VALID current")
	e.judged(dynamic, "VALID")
	if _, err := e.client.Sys().Renew(dynamic.lease.LeaseID, 60); err != nil {
		e.t.Errorf("renew: %v", err)
	}
	e.write("rotate/r", nil)
	e.judged(static, "VALID previous")
	e.judged(e.creds("r"), "VALID current")
}

func sealAndUnseal(t *testing.T, e *env) {
	e.write("roles/r", nil)
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	e.write("roles/retiring", nil)
	retiring := e.creds("retiring")
	k, d := e.creds("r"), e.creds("d")
	e.write("rotate/retiring", data{"grace_period": "1s"})
	e.server.seal(t)
	if _, err := e.client.Logical().Read(e.path("creds/r")); err == nil {
		t.Error("a sealed server handed out a key")
	}
	eventually(t, "the plugin ends with the seal", func() error {
		if pids := e.server.pluginPIDs(t); len(pids) > 0 {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
	e.server.unseal(t)
	eventually(t, "the first answer after the unseal", func() error {
		_, err := e.client.Logical().Read(e.path("config"))
		return err
	})
	// Another node may be active now, and what is written there counts a moment later
	// on the others.
	e.client = e.active()
	e.survived(k, d)
	e.becomes(retiring, "RETIRED retired")
}

// storm is many clients that rotate, read and verify one role, and repeat what got no answer.
type storm struct {
	e        *env
	role     string
	stop     atomic.Bool
	wg       sync.WaitGroup
	mu       sync.Mutex
	versions map[int64]string
	done     int
	// failures counts answers that were errors: a storm through an upheaval may have some.
	failures int
}

const stormWriters = 4

func (e *env) startStorm(t *testing.T, role string) *storm {
	t.Helper()
	e.write("roles/"+role, nil)
	s := &storm{e: e, role: role, versions: map[int64]string{}}
	for w := range stormWriters {
		s.wg.Go(func() { s.write(t, w) })
	}
	s.wg.Go(func() { s.read(t) })
	return s
}

// client takes the nodes in turn, so that a storm reaches standbys too.
func (s *storm) client(t *testing.T, i int) *api.Client {
	addrs := s.e.server.addresses(t)
	return s.e.clientFor(addrs[i%len(addrs)], s.e.server.root())
}

func (s *storm) write(t *testing.T, w int) {
	for i := 0; !s.stop.Load(); i++ {
		id := fmt.Sprintf("storm-%d-%d", w, i)
		limit := time.Now().Add(2 * patience)
		for try := 0; ; try++ {
			answer, err := s.client(t, w+try).Logical().Write(s.e.path("rotate/"+s.role), data{"request_id": id, "grace_period": 0})
			// Without a body it was a 404: a node that has just taken over does not know the mount yet.
			if err == nil && answer != nil {
				s.acknowledge(t, id, number(t, answer.Data, "version"))
				break
			}
			s.fail()
			if time.Now().After(limit) {
				t.Errorf("rotation %s got no answer: %v", id, err)
				return
			}
		}
	}
}

// read is a consumer beside: what it reads is never an older version than it read before.
func (s *storm) read(t *testing.T) {
	last := int64(0)
	for !s.stop.Load() {
		answer, err := s.client(t, 0).Logical().Read(s.e.path("creds/" + s.role))
		if err != nil || answer == nil {
			s.fail()
			continue
		}
		s.e.saw(text(answer.Data, "api_key"))
		if v := number(t, answer.Data, "version"); v < last {
			t.Errorf("version %d is read after %d", v, last)
		} else {
			last = v
		}
	}
}

func (s *storm) acknowledge(t *testing.T, id string, version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.versions[version]; ok {
		t.Errorf("version %d was answered to %s and to %s", version, other, id)
	}
	s.versions[version] = id
	s.done++
}

// fail counts an answer that was an error, and leaves a server that is getting up some air.
func (s *storm) fail() {
	s.mu.Lock()
	s.failures++
	s.mu.Unlock()
	<-time.After(20 * time.Millisecond)
}

func (s *storm) progress() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// goesOn waits until some more rotations came through.
func (s *storm) goesOn(t *testing.T) {
	t.Helper()
	want := s.progress() + 3*stormWriters
	within(t, 2*patience, "the storm goes on", func() error {
		if s.progress() < want && !t.Failed() {
			return errNotYet
		}
		return nil
	})
}

// settle ends the storm and compares what was answered with what is there: every rotation happened once.
func (s *storm) settle(t *testing.T) {
	t.Helper()
	s.stop.Store(true)
	s.wg.Wait()
	e := s.e
	e.client = e.active()
	eventually(t, "an answer after the storm", func() error {
		_, err := e.client.Logical().Read(e.path("creds/" + s.role))
		return err
	})
	last := e.creds(s.role)
	if want := int64(s.done + 1); last.version != want {
		t.Errorf("%d rotations were answered and version %d is current", s.done, last.version)
	}
	e.judged(last, "VALID current")
	current := 0
	for _, st := range e.states(s.role) {
		var n int
		var state string
		if _, err := fmt.Sscanf(st, "%d %s", &n, &state); err != nil {
			t.Fatal(err)
		}
		if state == "current" {
			current++
		}
	}
	if current != 1 {
		t.Errorf("%d versions are current", current)
	}
	t.Logf("%d rotations, %d answers lost", s.done, s.failures)
}

func pluginKilledInStorm(t *testing.T, e *env) {
	s := e.startStorm(t, "r")
	defer s.settle(t)
	for range 5 {
		s.goesOn(t)
		for _, pid := range e.server.pluginPIDs(t) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH { //nolint:errorlint // an errno is what it is
				t.Fatal(err)
			}
		}
	}
	s.goesOn(t)
}

func serverKilledInStorm(t *testing.T, e *env) {
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	d := e.creds("d")
	s := e.startStorm(t, "r")
	defer func() {
		s.settle(t)
		e.judged(d, "VALID")
		if _, err := e.client.Sys().Renew(d.lease.LeaseID, 60); err != nil {
			t.Errorf("renew after the crash: %v", err)
		}
	}()
	for range 3 {
		s.goesOn(t)
		e.server.crash(t)
	}
	s.goesOn(t)
}

func stepDownInStorm(t *testing.T, e *env) {
	s := e.startStorm(t, "r")
	defer s.settle(t)
	for range 2 {
		s.goesOn(t)
		e.server.stepDown(t)
	}
	s.goesOn(t)
}

// everyNodeAnswers checks that a write through any node is seen at once on every other, by verify and by reads.
func everyNodeAnswers(t *testing.T, e *env) {
	e.write("roles/r", nil)
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	addrs := e.server.addresses(t)
	for i, addr := range addrs {
		c := e.clientFor(addr, e.server.root())
		if _, err := c.Logical().Write(e.path("rotate/r"), nil); err != nil {
			t.Fatalf("rotate on node %d: %v", i, err)
		}
		fresh := e.creds("r")
		for j, other := range addrs {
			o := e.clientFor(other, e.server.root())
			s, err := o.Logical().Write(e.path("verify"), data{"key": fresh.secret})
			if err != nil {
				t.Fatalf("verify on node %d: %v", j, err)
			}
			if got := text(s.Data, "code"); got != "VALID" {
				t.Errorf("the new key is %s on node %d", got, j)
			}
			eventually(t, "the new key is read on "+other, func() error {
				s, err := o.Logical().Read(e.path("creds/r"))
				if err != nil {
					return err
				}
				if text(s.Data, "api_key") != fresh.secret {
					return errNotYet
				}
				return nil
			})
		}
		s, err := c.Logical().Read(e.path("creds/d"))
		if err != nil || s == nil || s.LeaseID == "" {
			t.Fatalf("a dynamic key from node %d: %v", i, err)
		}
		e.judged(e.keyOf(s), "VALID")
	}
}
