// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// readsIn is what status says of the reads of a version: how many, first, last.
func readsIn(t *testing.T, m *testMount, role string, n int) string {
	t.Helper()
	use := usageIn(t, m, role, n)
	return fmt.Sprint(use["reads"], " ", use["first_read"], " ", use["last_read"])
}

func TestReadsAreCounted(t *testing.T) {
	m := mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
	m.write("roles/r", nil)
	m.write("rotate/r", nil)
	m.write("rotate/r", map[string]any{"stage": true})
	if got := readsIn(t, m, "r", 2); got != "0  " {
		t.Errorf("never read: %s", got)
	}
	first := stamp(m.clock.Now())
	p := m.storage.(*probe)
	p.reset()
	m.read("creds/r")
	m.clock.advance(time.Hour)
	m.read("creds/r/2")
	m.must(logical.UpdateOperation, "creds/r", nil)
	m.read("creds/r/previous")
	m.read("creds/r/pending")
	m.read("creds/r/pending")
	if _, writes := p.count(); writes != 0 {
		t.Errorf("reads wrote %d times", writes)
	}
	last := stamp(m.clock.Now())
	m.entrust(p)
	for _, m := range []*testMount{m, m.afterCleanup()} {
		for n, want := range map[int]string{1: "1 " + last + " " + last, 2: "3 " + first + " " + last, 3: "2 " + last + " " + last} {
			if got := readsIn(t, m, "r", n); got != want {
				t.Errorf("version %d: %s, want %s", n, got, want)
			}
		}
		if use := usageIn(t, m, "r", 2); usageLine(use) != "0" || use["first_use"] != "" {
			t.Errorf("reads count as uses: %v", use)
		}
	}

	// What is not handed out is not read.
	m = m.restart()
	m.write("roles/o", map[string]any{"reveal": "once"})
	m.refused(logical.ReadOperation, "creds/o", map[string]any{"repeatable": true}, "repeatable")
	if got := readsIn(t, m, "o", 1); got != "0  " {
		t.Errorf("a refused read counts: %s", got)
	}
	m.read("creds/o")
	m.refused(logical.ReadOperation, "creds/o", nil, "was handed out")
	// Counts may be lost, what the record says is not.
	for _, m := range []*testMount{m, m.restart()} {
		if got := readsIn(t, m, "o", 1); got != "1 "+last+" "+last {
			t.Errorf("handed out once: %s", got)
		}
	}
}

// A node that may not write has nowhere to bring its counts.
func TestReadsOnOtherNodesAreNotCounted(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", nil)
	standby, _ := mountAs(t, m.storage, m.clock, consts.ReplicationPerformanceStandby)
	standby.read("creds/r")
	if got := readsIn(t, standby, "r", 1); got != "0  " {
		t.Errorf("a standby counted %s", got)
	}
}

func (m *testMount) isUnclaimed(role string) (inStatus, inInventory, inIndex bool) {
	m.t.Helper()
	const text = "nobody has read or used version"
	_, info, _ := m.listed("inventory", nil)
	inStatus = strings.Contains(fmt.Sprint(m.read("status/" + role)["problems"]), text)
	inInventory = strings.Contains(fmt.Sprint(info[role]["problems"]), text)
	return inStatus, inInventory, m.problemList() == role
}

// expectUnclaimed: wherever problems are told, the role has that one or has not.
func (m *testMount) expectUnclaimed(when, role string, want bool) {
	m.t.Helper()
	if status, inventory, index := m.isUnclaimed(role); status != want || inventory != want || index != want {
		m.t.Errorf("%s: unclaimed is %v in status, %v in inventory, %v in the index, want %v", when, status, inventory, index, want)
	}
}

// Nobody has come for the new key, and the old one ends: somebody should know.
func TestUnclaimedVersions(t *testing.T) {
	once, counted := map[string]any{"reveal": "once"}, map[string]any{"rotation_period": 0}
	setUp := func(t *testing.T, fields map[string]any) *testMount {
		t.Helper()
		m := newMount(t)
		m.write("config", map[string]any{"count_reads": fields["reveal"] == nil})
		m.write("roles/r", fields)
		m.read("creds/r")
		m.write("rotate/r", nil) // a grace of 24h
		return m
	}
	for name, fields := range map[string]map[string]any{"once": once, "counted": counted} {
		t.Run(name, func(t *testing.T) {
			m := setUp(t, fields)
			m.run(12*time.Hour - time.Minute)
			m.expectUnclaimed("before half of the grace", "r", false)
			m.run(3 * time.Minute)
			m.expectUnclaimed("after half of the grace", "r", true)
			m.restart().expectUnclaimed("after a restart", "r", true)
			m.run(11 * time.Hour)
			m.expectUnclaimed("to the end", "r", true)
			m.run(time.Hour + time.Minute)
			m.expectUnclaimed("after the end", "r", false)
			if names := m.under(attentionPrefix); len(names) > 0 {
				t.Errorf("the index holds %v", names)
			}
		})
		for how, claim := range map[string]func(m *testMount){
			"read":     func(m *testMount) { m.read("creds/r") },
			"read 2":   func(m *testMount) { m.read("creds/r/2") },
			"revoked":  func(m *testMount) { m.write("revoke/r", map[string]any{"version": 1}) },
			"withdrew": func(m *testMount) { m.write("rollback/r", nil) },
			"reported": func(m *testMount) { m.reportUse(1, m.record("r").Ring.Get(2).KeyID, 1) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				m := setUp(t, fields)
				m.run(13 * time.Hour)
				m.expectUnclaimed("before", "r", true)
				claim(m)
				m.expectUnclaimed("at once", "r", false)
				m.run(time.Hour)
				m.expectUnclaimed("later", "r", false)

				m = setUp(t, fields)
				claim(m)
				m.run(13 * time.Hour)
				m.expectUnclaimed("early", "r", false)
			})
		}
	}

	t.Run("not counted", func(t *testing.T) {
		m := setUp(t, counted)
		m.write("config", map[string]any{"count_reads": false})
		m.run(20 * time.Hour)
		m.expectUnclaimed("reads go elsewhere", "r", false)
	})
	t.Run("counted from now on", func(t *testing.T) {
		m := newMount(t)
		m.write("roles/r", counted)
		m.write("rotate/r", nil)
		m.run(13 * time.Hour)
		m.write("config", map[string]any{"count_reads": true})
		m.write("roles/r", map[string]any{"owner": "team"})
		m.run(2 * time.Minute)
		m.expectUnclaimed("the next commit files it", "r", true)
	})
	t.Run("a dynamic role", func(t *testing.T) {
		m := newMount(t)
		m.write("config", map[string]any{"count_reads": true})
		m.write("roles/d", map[string]any{"type": "dynamic"})
		m.write("rotate/d", nil)
		m.run(13 * time.Hour)
		m.expectUnclaimed("nobody has to", "d", false)
	})
	t.Run("a long grace", func(t *testing.T) {
		m := setUp(t, map[string]any{"reveal": "once", "grace_period": "720h"})
		m.clock.advance((720 - 168) * time.Hour)
		m.clock.advance(-2 * time.Minute)
		m.run(time.Minute)
		m.expectUnclaimed("more than a week ahead", "r", false)
		m.run(4 * time.Minute)
		m.expectUnclaimed("a week ahead", "r", true)
	})
}

// The look costs one commit for each rotation, whatever it finds.
func TestTheLookForAClaimIsOne(t *testing.T) {
	for _, read := range []bool{false, true} {
		p := newProbe(&logical.InmemStorage{})
		m := mountOn(t, p, newFakeClock())
		m.write("config", map[string]any{"count_reads": true})
		m.write("roles/r", map[string]any{"rotation_period": 0})
		m.write("rotate/r", nil)
		if read {
			m.read("creds/r")
		}
		before := m.record("r").Seq
		m.run(23 * time.Hour)
		if got := m.record("r").Seq - before; got != 2 {
			t.Errorf("read %v: %d commits, want this look and the one whether the previous version is in use", read, got)
		}
		if v := m.record("r").Ring.Get(2); !v.LookedFor || v.Unclaimed.IsZero() != read {
			t.Errorf("read %v: %+v", read, v)
		}
	}
}
