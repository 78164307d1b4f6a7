// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// rotatedByPlan is a role after its first automatic rotation, with the key of the
// version before.
func rotatedByPlan(t *testing.T, m *testMount, more map[string]any) any {
	t.Helper()
	data := map[string]any{"rotation_period": "24h", "grace_period": "1h", "max_grace_period": "4h"}
	for k, v := range more {
		data[k] = v
	}
	m.write("roles/r", data)
	key := m.read("creds/r")["api_key"]
	m.run(24*time.Hour + time.Minute)
	m.expectStates("r", "previous current")
	return key
}

// use presents the key every ten minutes for so long, with ticks between.
func (m *testMount) use(key any, d time.Duration) (refusedAfter time.Duration) {
	m.t.Helper()
	for spent := time.Duration(0); spent < d; spent += 10 * time.Minute {
		if m.verdict(key) != "VALID" {
			return spent
		}
		m.run(10 * time.Minute)
	}
	return d
}

func TestGraceIsProlongedWhileTheOldVersionIsUsed(t *testing.T) {
	m := newMount(t)
	key := rotatedByPlan(t, m, nil)
	if after := m.use(key, 90*time.Minute); after != 90*time.Minute {
		t.Fatalf("refused after %s although it was in use", after)
	}
	// Once it was quiet for a whole step it ends, well before the maximum.
	m.run(88 * time.Minute)
	m.expectVerdict(key, "VALID")
	m.run(2 * time.Minute)
	m.expectVerdict(key, "RETIRED")
}

// Of several previous versions each has its own end: those in use are prolonged,
// whichever is older, the others are not.
func TestEachGraceIsProlongedByItsOwnUse(t *testing.T) {
	for _, used := range [][]bool{{true, true}, {true, false}, {false, true}} {
		m := newMount(t)
		m.write("roles/r", map[string]any{"rotation_period": "2h", "grace_period": "40m", "max_grace_period": "6h"})
		keys := []any{m.read("creds/r")["api_key"], nil, nil}
		start := m.clock.Now()
		for m.clock.Now().Before(start.Add(4*time.Hour + 90*time.Minute)) {
			switch at := m.clock.Now().Sub(start); at {
			case 2*time.Hour + 10*time.Minute, 4*time.Hour + 10*time.Minute:
				keys[at/(2*time.Hour)] = m.read("creds/r")["api_key"]
			}
			for i, key := range keys[:2] {
				if key == nil {
					continue
				}
				// Before its end nobody can tell; from its grace on only who uses it has it longer.
				if used[i] || m.clock.Now().Before(start.Add(time.Duration(i+1)*2*time.Hour)) {
					m.expectVerdict(key, "VALID")
				}
			}
			m.run(10 * time.Minute)
		}
		for i, key := range keys[:2] {
			want := map[bool]string{true: "VALID", false: "RETIRED"}[used[i]]
			if got := m.verdict(key); got != want {
				t.Errorf("used %v: version %d is %s, want %s", used, i+1, got, want)
			}
		}
	}
}

func TestGraceIsNeverProlongedBeyondItsMaximum(t *testing.T) {
	m := newMount(t)
	key := rotatedByPlan(t, m, nil)
	after := m.use(key, 12*time.Hour)
	if after < 230*time.Minute || after > 240*time.Minute {
		t.Fatalf("refused after %s of use, want the 4 h of max_grace_period", after)
	}
}

func TestGraceIsNotProlonged(t *testing.T) {
	t.Run("without a maximum above it", func(t *testing.T) {
		m := newMount(t)
		key := rotatedByPlan(t, m, map[string]any{"max_grace_period": "1h"})
		if after := m.use(key, 3*time.Hour); after > time.Hour {
			t.Fatalf("refused after %s", after)
		}
	})
	t.Run("when nobody uses it", func(t *testing.T) {
		m := newMount(t)
		key := rotatedByPlan(t, m, nil)
		m.run(time.Hour)
		m.expectVerdict(key, "RETIRED")
	})
	t.Run("when it was refused only", func(t *testing.T) {
		m := newMount(t)
		key := rotatedByPlan(t, m, map[string]any{"scopes": "a:b"})
		for range 6 {
			if got := m.write("verify", map[string]any{"key": key, "scopes": "c:d"})["code"]; got != "INSUFFICIENT_SCOPE" {
				t.Fatal(got)
			}
			m.run(10 * time.Minute)
		}
		m.expectVerdict(key, "RETIRED")
	})
	t.Run("after a rotation that somebody asked for", func(t *testing.T) {
		m := newMount(t)
		m.write("roles/r", map[string]any{"rotation_period": "24h", "grace_period": "1h", "max_grace_period": "4h"})
		key := m.read("creds/r")["api_key"]
		m.write("rotate/r", map[string]any{"reason": "leaked perhaps"})
		if after := m.use(key, 3*time.Hour); after > time.Hour {
			t.Fatalf("refused after %s", after)
		}
	})
	t.Run("once it was reported", func(t *testing.T) {
		m := newMount(t)
		key := rotatedByPlan(t, m, map[string]any{"on_leak": "alert"})
		m.expectReport(key, "recorded")
		if after := m.use(key, 3*time.Hour); after > time.Hour {
			t.Fatalf("refused after %s", after)
		}
	})
}

func TestPausedRotation(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h"})
	m.write("config", map[string]any{"rotation_paused": true})
	m.run(5 * time.Hour)
	m.expectStates("r", "current")
	if got := m.read("status/r")["rotation"]; got != "paused: rotation_paused is set in the mount's config" {
		t.Fatal(got)
	}
	// By hand it still works.
	m.write("rotate/r", nil)
	m.run(5 * time.Hour)
	m.write("config", map[string]any{"rotation_paused": false})
	m.run(15 * time.Minute)
	if cur := number(t, m.read("status/r")["current_version"]); cur != 3 {
		t.Fatalf("version %d after the pause", cur)
	}
	m.must(logical.PatchOperation, "roles/r", map[string]any{"rotation_paused": true})
	m.run(5 * time.Hour)
	if cur := number(t, m.read("status/r")["current_version"]); cur > 4 {
		t.Fatalf("version %d while the role is paused", cur)
	}
}
