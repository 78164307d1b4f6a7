// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestClockGoesADayForwardAndBack(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		m := newMount(t)
		w := newWorld()
		pair(map[string]any{"rotation_period": "6h", "grace_period": "2h"})(m, w)
		m.write("roles/idle", map[string]any{"rotation_period": "720h"})
		w.holdLive(m, "idle", "idle1")
		m.tick()
		right := m.clock.Now()
		m.clock.advance(24 * time.Hour)
		m.tick()
		m.write("roles/young", map[string]any{"rotation_period": "1h"})
		w.hold(m, "young", "young1")
		w.check(m, true)
		m.clock.set(right.Add(time.Minute))
		if restart {
			m = m.restart()
		}
		w.check(m, true)
		if got := strings.Join(m.read("status/young")["problems"].([]string), " "); !strings.Contains(got, "ahead of this node's clock") {
			t.Errorf("status says %q", got)
		}
		// Life goes on: manual actions now, and everything due in time.
		for _, role := range []string{"a", "idle", "young"} {
			w.hold(m, role, role+" before")
			got := m.write("rotate/"+role, map[string]any{"grace_period": 0})
			w.kills[role+" before"], w.live["idle1"] = true, false
			if number(t, got["version"]) < 2 {
				t.Errorf("%v", got)
			}
			w.check(m, true)
		}
		version := number(t, m.read("creds/a")["version"])
		m.run(13 * time.Hour)
		w.check(m, true)
		if got := number(t, m.read("creds/a")["version"]); got != version+2 {
			t.Errorf("in 13 hours role a went from version %d to %d", version, got)
		}
		if got := m.read("status/young")["problems"].([]string); len(got) != 0 {
			t.Errorf("status still says %q", got)
		}
	}
}

// What ended before the last mark of the node before stays ended under a clock
// that is two minutes slower, and one two minutes faster changes nothing but
// the time.
func TestFailoverBetweenClocksTwoMinutesApart(t *testing.T) {
	t.Parallel()
	for _, apart := range []time.Duration{-2 * time.Minute, 2 * time.Minute} {
		m := newMount(t)
		w := newWorld()
		pair(map[string]any{"rotation_period": "24h", "grace_period": "1h"})(m, w)
		m.write("rotate/a", nil)
		w.hold(m, "a", "a3")
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "58m"})
		w.issue(m, "d", "d1")
		m.run(61 * time.Minute)
		want := w.check(m, true)
		for _, name := range []string{"a2", "d1"} {
			if !w.ended[name] {
				t.Fatalf("%s has not ended: %s", name, want[name])
			}
		}
		m.clock.advance(50 * time.Second)
		m.write("rotate/d", nil) // after the last mark
		committed, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("d"))
		if err != nil {
			t.Fatal(err)
		}
		m.clock.advance(-50 * time.Second)
		now := m.now()
		clock := newFakeClock()
		clock.set(m.clock.Now().Add(apart))
		m = mountOn(t, m.storage, clock)
		if m.now().Before(now) {
			t.Errorf("the time went back by %s", now.Sub(m.now()))
		}
		w.check(m, true)
		m.write("rotate/d", nil)
		if rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("d")); err != nil || rec.Committed.Before(committed.Committed) {
			t.Errorf("%s apart: a commit at %s after one at %s: %v", apart, rec.Committed, committed.Committed, err)
		}
		m.write("rotate/a", nil)
		w.check(m, true)
		m.run(26 * time.Hour)
		w.check(m, true)
		if got := number(t, m.read("creds/a")["version"]); got != 5 {
			t.Errorf("%s apart: version %d after a day", apart, got)
		}
	}
}

func TestHighWaterMarkInTheFuture(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{9 * time.Minute, 11 * time.Minute, 24 * time.Hour} {
		m := newMount(t)
		w := newWorld()
		pair(map[string]any{"rotation_period": "24h", "grace_period": "1h"})(m, w)
		at := m.clock.Now()
		if err := putRecord(context.Background(), m.storage, markPath, &markRecord{Schema: 1, High: at.Add(ahead), Cursor: at.Add(ahead).Truncate(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		m = m.restart()
		holds := ahead <= maxClockLead
		if got := m.now().Equal(at.Add(ahead)); got != holds {
			t.Errorf("%s ahead: the time is %s, the clock %s", ahead, m.now(), at)
		}
		said := strings.Join(m.read("status/a")["problems"].([]string), " ")
		resp, err := m.do(logical.ListOperation, "inventory/", map[string]any{"problems": true})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{said, fmt.Sprint(resp.Warnings)} {
			if strings.Contains(text, "ahead of this node's clock") == holds {
				t.Errorf("%s ahead: %q", ahead, text)
			}
		}
		w.hold(m, "a", "before")
		m.write("rotate/a", map[string]any{"grace_period": 0})
		w.kills["before"] = true
		w.check(m, true)
		m.run(25 * time.Hour)
		w.check(m, true)
		if got := number(t, m.read("creds/a")["version"]); got != 4 {
			t.Errorf("%s ahead: version %d after a day", ahead, got)
		}
	}
}
