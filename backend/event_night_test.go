// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// A server that was sealed over a night: thousands of roles rotate at once, and in a chat
// that is a message per type and digest, not one per role. What is found in the open
// meanwhile comes at once.
func TestANightSealed(t *testing.T) {
	t.Parallel()
	n := stormOf(10_000) / 5
	m := newEventMount(t)
	roles := m.makeRoles("r", n, map[string]any{"rotation_period": "6h", "grace_period": "1h"})
	m.write("roles/leak", map[string]any{"rotation_period": 0, "on_leak": "alert"})
	digest := map[string]any{
		"types": "key.*,rotation.*", "format": "template", "digest": "5m", "pace": 1,
		"template": `{"type":"${type}","data":{"count":"${count}","role":"${data.role}"},"text":"${text}\n${list}"}`,
	}
	m.endpoint("chat", digest)
	m.endpoint("log", map[string]any{"types": "key.*,rotation.*"})
	m.deliver()

	m.clock.advance(10 * time.Hour) // sealed: nothing runs
	m = eventMountOn(t, m.storage, m.clock, m.outside)
	unsealed := m.clock.Now()
	var chat []tidings
	var activated int
	listen := func(d, by time.Duration) {
		for end := m.clock.Now().Add(d); m.clock.Now().Before(end); {
			m.tend(by)
			chat = append(chat, m.heardBy("chat")...)
			for _, got := range m.heardBy("log") {
				if got.kind == tellsActivated {
					activated++
				}
			}
		}
	}
	half := time.Duration(n) * time.Second / (2 * 50) // at the pace of rotations
	listen(half, 200*time.Millisecond)
	if activated == 0 || activated >= n {
		t.Errorf("after %v the log heard of %d of %d", half, activated, n)
	}
	m.write("report", map[string]any{"key": m.read("creds/leak")["api_key"]})
	listen(2*time.Second, 200*time.Millisecond)
	if kinds(chat) != tellsReported || chat[0].role != "leak" {
		t.Errorf("within two seconds of the report the chat heard %q", kinds(chat))
	}
	listen(4*time.Minute, 200*time.Millisecond)
	if len(chat) != 1 || activated != n {
		t.Errorf("before the first digest the chat heard %q, the log %d of %d", kinds(chat), activated, n)
	}
	listen(10*time.Minute, time.Second)
	if got := kinds(chat); len(chat) != 2 || strings.Count(got, tellsActivated) != 1 {
		t.Fatalf("the chat heard %q", got)
	}
	last := chat[1]
	if last.data["count"] != float64(n) || !strings.Contains(last.body, roles[0][:1]) || !strings.Contains(last.body, fmt.Sprintf("and %d more", n-digestShown)) {
		t.Errorf("the digest is %s", last.body)
	}
	listen(2*time.Hour, 10*time.Second) // the graces end
	if got := kinds(chat); len(chat) != 3 || strings.Count(got, tellsRetired) != 1 {
		t.Errorf("in the first hours after %v the chat heard %q", unsealed, got)
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left in the outbox", len(left))
	}
}

// A digest that is tried again with more in it has another id, one with the same in it
// the same.
func TestADigestHasItsOwnID(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("d", map[string]any{
		"types": "key.activated", "format": "template", "digest": "1m", "pace": 1, "template": `{"type":"${type}","data":{"count":"${count}"}}`,
	})
	m.answer("d.example.com", badAnswers["refuses"])
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.write("roles/b", map[string]any{"rotation_period": 0})
	tried := func() (all []string) {
		m.outside.mu.Lock()
		defer m.outside.mu.Unlock()
		for _, n := range m.got {
			all = append(all, fmt.Sprint(n.id, " ", n.data["count"]))
		}
		m.got = nil
		return all
	}
	m.pass(70*time.Second, time.Second)
	first := tried()
	for _, again := range first {
		if again != first[0] || len(first) < 2 {
			t.Errorf("the same is tried as %q", first)
		}
	}
	m.write("roles/c", map[string]any{"rotation_period": 0})
	m.pass(2*time.Minute, time.Second)
	second := tried()
	if len(first) == 0 || len(second) == 0 || strings.Fields(second[0])[0] == strings.Fields(first[0])[0] {
		t.Errorf("%q is told under the name of %q", second, first)
	}
}

// Of a key whose grace is about to end while it is in use it is told before it ends, early
// enough to do something about it, once, and by whichever node writes then.
func TestAGraceThatEndsInUse(t *testing.T) {
	t.Parallel()
	for _, grace := range []time.Duration{time.Hour, 8 * time.Hour, 3 * 24 * time.Hour, 14 * 24 * time.Hour} {
		for _, failover := range []bool{false, true} {
			t.Run(fmt.Sprint(grace, failover), func(t *testing.T) {
				t.Parallel()
				m := newEventMount(t)
				m.endpoint("pager", map[string]any{"types": "key.ending"})
				m.write("roles/r", map[string]any{"rotation_period": 0})
				key := m.read("creds/r")["api_key"]
				m.write("roles/idle", map[string]any{"rotation_period": 0})
				for _, role := range []string{"r", "idle"} {
					m.write("rotate/"+role, map[string]any{"grace_period": grace.String()})
				}
				ends := m.clock.Now().Add(grace)
				lead := min(grace/4, longestEnding)
				for m.clock.Now().Before(ends.Add(-grace / 100)) {
					if failover && m.clock.Now().After(ends.Add(-lead-grace/50)) {
						m = eventMountOn(t, m.storage, m.clock, m.outside)
						failover = false
					}
					m.write("verify", map[string]any{"key": key})
					m.deliver()
					m.clock.advance(grace / 200)
				}
				got := m.heardBy("pager")
				if len(got) != 1 || got[0].role != "r" || got[0].data["reason"] != "in_use" || got[0].data["version"] != 1.0 {
					t.Fatalf("it heard %+v", got)
				}
				var event struct {
					Timestamp time.Time `json:"timestamp"`
					Data      struct {
						ValidUntil time.Time `json:"valid_until"`
					} `json:"data"`
				}
				if err := json.Unmarshal([]byte(got[0].body), &event); err != nil {
					t.Fatal(err)
				}
				if left := ends.Sub(event.Timestamp); left < lead-grace/50-2*time.Minute || !event.Data.ValidUntil.Equal(ends) {
					t.Errorf("%v before the end it is told that it is at %v, want %v before %v", left, event.Data.ValidUntil, lead, ends)
				}
			})
		}
	}
}

// Who uses the key for the first time in a while after the first look at it is told of by
// the second.
func TestAGraceThatEndsInUseAgain(t *testing.T) {
	t.Parallel()
	for used, want := range map[time.Duration]string{17 * time.Hour: tellsEnding, 20 * time.Hour: tellsEnding, 22 * time.Hour: tellsEnding, 8 * time.Minute: ""} {
		m := newEventMount(t)
		m.endpoint("pager", map[string]any{"types": "key.ending"})
		m.write("roles/r", map[string]any{"rotation_period": 0})
		key := m.read("creds/r")["api_key"]
		m.write("rotate/r", map[string]any{"grace_period": "24h"})
		m.pass(used, time.Minute)
		m.write("verify", map[string]any{"key": key})
		m.pass(24*time.Hour-used-time.Minute, time.Minute)
		if got := kinds(m.heardBy("pager")); got != want {
			t.Errorf("used after %v of 24h it tells %q", used, got)
		}
	}
}

// An end that is put off is another end: it is no problem until it comes near, and then
// it is told as the first was.
func TestAnEndThatIsPutOffIsToldAgain(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("pager", map[string]any{"types": "key.ending"})
	m.write("roles/r", map[string]any{"rotation_period": 0, "grace_period": "8h"})
	key := m.read("creds/r")["api_key"]
	m.write("rotate/r", nil)
	inUse := func() bool {
		resp, err := m.do(logical.ListOperation, "problems/", nil)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(fmt.Sprint(resp.Data), troubleInUse)
	}
	use := func(d time.Duration) {
		t.Helper()
		for range int(d / (10 * time.Minute)) {
			m.expectVerdict(key, "VALID")
			m.pass(10*time.Minute, time.Minute)
		}
	}
	use(7 * time.Hour)
	first := m.heardBy("pager")
	if len(first) != 1 || !inUse() {
		t.Fatalf("near the end: told %d times, a problem: %v", len(first), inUse())
	}
	m.write("grace/r", map[string]any{"valid_until": "12h"})
	if inUse() {
		t.Error("the end is far, and a problem")
	}
	use(11 * time.Hour)
	second := m.heardBy("pager")
	if len(second) != 1 || !inUse() {
		t.Fatalf("near the new end: told %d times, a problem: %v", len(second), inUse())
	}
	if first[0].data["valid_until"] == second[0].data["valid_until"] {
		t.Errorf("told twice of %v", first[0].data["valid_until"])
	}
}
