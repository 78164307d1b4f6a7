// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// pass lets time pass in steps, with a worker.
func (m *eventMount) pass(d, by time.Duration) {
	m.t.Helper()
	for end := m.clock.Now().Add(d); m.clock.Now().Before(end); {
		m.clock.advance(by)
		m.deliver()
	}
}

// badAnswers are the ways in which an endpoint fails.
var badAnswers = map[string]func(tidings) (*egress.Answer, error){
	"refuses":      func(tidings) (*egress.Answer, error) { return nil, &egress.Error{Class: egress.Unreachable} },
	"is forbidden": func(tidings) (*egress.Answer, error) { return nil, &egress.Error{Class: egress.Forbidden} },
	"has a wrong certificate": func(tidings) (*egress.Answer, error) {
		return nil, &egress.Error{Class: egress.TLS}
	},
	"redirects": answering(http.StatusFound, nil),
	"breaks":    answering(http.StatusInternalServerError, nil),
	"is busy":   answering(http.StatusTooManyRequests, http.Header{"Retry-After": {"30"}}),
	"is gone":   answering(http.StatusGone, nil),
	"panics":    func(tidings) (*egress.Answer, error) { panic("a bug") },
}

// However an endpoint fails: others get all they want meanwhile, they are told of it
// once, and when it works again it gets everything, in order.
func TestAnEndpointThatFails(t *testing.T) {
	t.Parallel()
	for how, answer := range badAnswers {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			m := newEventMount(t)
			m.endpoint("bad", nil)
			m.endpoint("good", nil)
			m.answer("bad.example.com", answer)
			for _, role := range []string{"a", "b"} {
				m.write("roles/"+role, nil)
			}
			m.pass(10*time.Minute, time.Minute)
			for range 3 {
				m.write("rotate/a", nil)
				m.deliver()
			}
			if got := kinds(m.heardBy("good")); strings.Count(got, tellsEndpoint) != 1 || strings.Count(got, "key.activated") != 5 {
				t.Errorf("the other one heard %q", got)
			}
			if st := m.read("events/bad/status"); st["state"] != "failing" || number(t, st["backlog"]) != 7 || st["next_attempt"] == "" {
				t.Errorf("the status is %v", st)
			}
			m.pass(20*time.Hour, 10*time.Minute)
			m = eventMountOn(t, m.storage, m.clock, m.outside) // a failover
			m.deliver()
			if st := m.read("events/bad/status"); st["state"] != "failing" || number(t, st["backlog"]) != 7 {
				t.Errorf("after a failover the status is %v", st)
			}
			m.answer("bad.example.com", nil)
			m.pass(2*time.Hour, 10*time.Minute)
			got := m.heardBy("bad")
			last := map[string]int64{}
			for _, n := range got {
				if n.seq <= last[n.role] {
					t.Errorf("out of order: %s of %s", n.kind, n.role)
				}
				last[n.role] = n.seq
			}
			if len(got) != 7 {
				t.Errorf("it got %q", kinds(got))
			}
			if got := kinds(m.heardBy("good")); got != "" {
				t.Errorf("the other one heard %q", got)
			}
			if left := m.under(outboxPrefix); len(left) > 0 {
				t.Errorf("left in the outbox: %q", left)
			}
			if st := m.read("events/bad/status"); st["state"] != "ok" || st["failing_since"] != "" {
				t.Errorf("the status is %v", st)
			}
		})
	}
}

// An endpoint that never works again is given up after 5 days, one that says so after a
// day, and both work again when an operator says so. Nothing waits for more than 7 days.
func TestAnEndpointIsGivenUp(t *testing.T) {
	t.Parallel()
	for how, c := range map[string]struct{ after, by time.Duration }{
		"breaks": {5 * 24 * time.Hour, 6 * 24 * time.Hour}, "is gone": {24 * time.Hour, 28 * time.Hour},
	} {
		m := newEventMount(t)
		m.endpoint("bad", nil)
		m.answer("bad.example.com", badAnswers[how])
		m.write("roles/a", map[string]any{"rotation_period": 0})
		m.deliver()
		m.pass(c.after-2*time.Hour, 20*time.Minute)
		if st := m.read("events/bad/status"); st["state"] != "failing" {
			t.Errorf("%s: too early: %v", how, st)
		}
		m.pass(c.by-c.after+2*time.Hour, 20*time.Minute)
		if st := m.read("events/bad/status"); st["state"] != "stopped" || number(t, st["backlog"]) != 2 {
			t.Errorf("%s: %v", how, st)
		}
		m = eventMountOn(t, m.storage, m.clock, m.outside)
		m.deliver()
		if st := m.read("events/bad/status"); st["state"] != "stopped" {
			t.Errorf("%s, after a failover: %v", how, st)
		}
		m.answer("bad.example.com", nil)
		m.deliver()
		if got := m.heardBy("bad"); len(got) > 0 {
			t.Errorf("%s: it is tried although it was given up", how)
		}
		if how == "is gone" {
			m.write("events/bad", map[string]any{"disabled": false})
			m.deliver()
			if got := kinds(m.heardBy("bad")); got != "role.created key.activated" {
				t.Errorf("%s: it got %q", how, got)
			}
			continue
		}
		m.pass(2*24*time.Hour, time.Hour)
		if st := m.read("events/bad/status"); number(t, st["backlog"]) != 0 || number(t, st["dropped"].(map[string]any)["expired"]) != 2 {
			t.Errorf("%s, after 7 days: %v", how, st)
		}
		if left := m.under(outboxPrefix); len(left) > 0 {
			t.Errorf("%s: left in the outbox: %q", how, left)
		}
		if got := m.write("events/bad/test", nil); got["delivered"] != true {
			t.Errorf("%s: a test comes to %v", how, got)
		}
		if st := m.read("events/bad/status"); st["state"] != "ok" {
			t.Errorf("%s, after a test: %v", how, st)
		}
	}
}

// An event that an endpoint refuses while it takes others is given up after three times;
// what follows of the role is told.
func TestAnEventThatIsRefused(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("e", map[string]any{"types": "key.activated"})
	m.answer("e.example.com", func(n tidings) (*egress.Answer, error) {
		if n.role == "bad" && n.data["version"] == 1.0 {
			return &egress.Answer{Status: http.StatusBadRequest, Header: http.Header{}}, nil
		}
		return &egress.Answer{Status: http.StatusOK, Header: http.Header{}}, nil
	})
	m.write("roles/bad", nil)
	m.write("rotate/bad", nil)
	for i := range 12 {
		m.write("roles/good"+strconv.Itoa(i), nil)
		m.pass(time.Minute, 15*time.Second)
	}
	got := m.heardBy("e")
	bad := slices.DeleteFunc(slices.Clone(got), func(n tidings) bool { return n.role != "bad" })
	if len(bad) != 1 || bad[0].data["version"] != 2.0 || len(got) != 13 {
		t.Errorf("it got %d, of the bad role %v", len(got), bad)
	}
	st := m.read("events/e/status")
	if number(t, st["dropped"].(map[string]any)["failed"]) != 1 || number(t, st["backlog"]) != 0 || st["state"] != "ok" {
		t.Errorf("the status is %v", st)
	}
}

// Retry-After is heeded, up to an hour.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{"600": 10 * time.Minute, "86400": time.Hour} {
		m := newEventMount(t)
		m.endpoint("e", nil)
		m.answer("e.example.com", answering(http.StatusTooManyRequests, http.Header{"Retry-After": {header}}))
		m.write("roles/r", nil)
		m.deliver()
		next, err := time.Parse(time.RFC3339, m.read("events/e/status")["next_attempt"].(string))
		if err != nil || want-next.Sub(m.clock.Now()) > 2*time.Second {
			t.Errorf("after Retry-After: %s it waits %v (%v)", header, next.Sub(m.clock.Now()), err)
		}
	}
}

// An endpoint that hangs holds up nobody else, and gets no more than four at a time.
func TestAnEndpointThatHangs(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("slow", nil)
	m.endpoint("good", nil)
	free := make(chan struct{})
	begun := make(chan struct{}, 1000)
	m.answer("slow.example.com", func(tidings) (*egress.Answer, error) {
		begun <- struct{}{}
		<-free
		return nil, &egress.Error{Class: egress.Unreachable}
	})
	arrived := make(chan struct{}, 1000)
	m.answer("good.example.com", func(tidings) (*egress.Answer, error) {
		arrived <- struct{}{}
		return &egress.Answer{Status: 200, Header: http.Header{}}, nil
	})
	for i := range 20 {
		m.write(fmt.Sprintf("roles/r%d", i), nil)
	}
	if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		<-arrived
	}
	for range flyingAtMost {
		<-begun
	}
	select {
	case <-begun:
		t.Error("more than four are on their way")
	default:
	}
	close(free)
	m.flights.Wait()
}

// While the secret is rotated each delivery is signed with both; without grace at once
// with the new one only.
func TestSecretsRotate(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	first := m.endpoint("e", nil)["signing_secret"].(string)
	signed := func(secrets ...string) {
		t.Helper()
		m.write("rotate/r", nil)
		m.deliver()
		got := m.heardBy("e")
		if len(got) == 0 {
			t.Fatal("nothing arrives")
		}
		for _, n := range got {
			if have := strings.Count(n.head.Get("webhook-signature"), "v1,"); have != len(secrets) {
				t.Errorf("%d signatures, want %d", have, len(secrets))
			}
			for _, s := range secrets {
				if !verifies(t, s, n) {
					t.Errorf("a signature is refused")
				}
			}
		}
	}
	m.write("roles/r", map[string]any{"rotation_period": 0})
	signed(first)
	second := m.write("events/e/rotate-secret", map[string]any{"grace_period": "1h"})["signing_secret"].(string)
	signed(first, second)
	m.clock.advance(2 * time.Hour)
	signed(second)
	third := m.write("events/e/rotate-secret", map[string]any{"grace_period": 0})
	if third["previous_valid_until"] != "" {
		t.Errorf("a leaked secret signs until %v", third["previous_valid_until"])
	}
	signed(third["signing_secret"].(string))
	if v := m.read("events/e"); strings.Contains(fmt.Sprint(v), "whsec_") {
		t.Error("a read shows a signing secret")
	}
}

// Who is paused, disabled or made later gets what is its own.
func TestWhoIsTold(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("all", nil)
	m.endpoint("some", map[string]any{"types": "role.*", "name_prefix": "a"})
	m.endpoint("off", map[string]any{"disabled": true})
	m.write("config", map[string]any{"outbound_paused": true})
	m.write("roles/a1", nil)
	m.write("roles/b1", nil)
	m.pass(10*time.Minute, time.Minute)
	if got := m.heardBy("all"); len(got) > 0 {
		t.Errorf("paused, and it got %q", kinds(got))
	}
	if st := m.read("events/all/status"); st["state"] != "paused" || number(t, st["backlog"]) != 4 || number(t, st["attempts"]) != 0 {
		t.Errorf("the status is %v", st)
	}
	m.refused(logical.UpdateOperation, "events/all/test", nil, "outbound_paused")
	m.endpoint("late", nil)
	m.write("config", map[string]any{"outbound_paused": false})
	m.write("events/off", map[string]any{"disabled": false})
	m.deliver()
	m.write("roles/a2", nil)
	m.deliver()
	for name, want := range map[string]int{"all": 6, "some": 2, "off": 2, "late": 2} {
		if got := m.heardBy(name); len(got) != want {
			t.Errorf("%s got %d, want %d: %q", name, len(got), want, kinds(got))
		}
	}
	// One that is deleted gets nothing more, nor does one that has its name then.
	m.answer("all.example.com", badAnswers["breaks"])
	m.write("rotate/a1", nil)
	m.deliver()
	m.must(logical.DeleteOperation, "events/all", nil)
	m.answer("all.example.com", nil)
	m.endpoint("all", nil)
	m.pass(10*time.Minute, time.Minute)
	if got := m.heardBy("all"); len(got) > 0 {
		t.Errorf("a new endpoint got what was before it: %q", kinds(got))
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("left in the outbox: %q", left)
	}
	if rec := m.endpoints.last(); rec.Sweep {
		t.Error("the sweep never ends")
	}
}

// Without endpoints nothing costs a storage call more than it did.
func TestNoEndpointNoCost(t *testing.T) {
	t.Parallel()
	calls := func(endpoints int) (puts, all int) {
		s := &broken{Storage: &logical.InmemStorage{}}
		m := eventMountOn(t, s, newFakeClock(), nil)
		for i := range endpoints {
			m.endpoint(fmt.Sprintf("e%d", i), nil)
		}
		m.write("roles/r", map[string]any{"rotation_period": 0})
		m.deliver()
		s.log = nil
		m.write("rotate/r", nil)
		before := len(s.log)
		m.deliver()
		return before, len(s.log)
	}
	none, noneAll := calls(0)
	one, oneAll := calls(1)
	three, threeAll := calls(3)
	if one != none+1 || three != none+1 {
		t.Errorf("a commit costs %d calls, with one endpoint %d, with three %d", none, one, three)
	}
	if oneAll-noneAll != 3 || threeAll-noneAll != 3 { // with the Put before the commit, the worker's mark, and a Delete
		t.Errorf("with the background it costs %d, with one endpoint %d, with three %d", noneAll, oneAll, threeAll)
	}
}

// Two failovers during a backlog: each event is delivered, and what is delivered twice has
// the same id. The first node falls before it has written down whom it told, the second
// after it has written down some.
func TestFailoversDuringABacklog(t *testing.T) {
	t.Parallel()
	n := stormOf(10_000)
	m := newEventMount(t)
	m.endpoint("e", map[string]any{"types": "role.created"})
	m.answer("e.example.com", badAnswers["breaks"])
	for i := range n {
		m.write(fmt.Sprintf("roles/r%05d", i), map[string]any{"type": "dynamic"})
	}
	m.deliver()
	ids := map[string]string{}
	var mu sync.Mutex
	attempts := 0
	m.answer("e.example.com", func(got tidings) (*egress.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		if id, known := ids[got.role]; known && id != got.id {
			t.Errorf("two ids for %s", got.role)
		}
		ids[got.role] = got.id
		if attempts++; attempts%500 == 0 {
			return nil, errors.New("the answer is lost") // and the event has arrived
		}
		return &egress.Answer{Status: 200, Header: http.Header{}}, nil
	})
	told := func() int {
		mu.Lock()
		defer mu.Unlock()
		return attempts
	}
	for round := range 2 {
		m.clock.advance(2 * time.Hour)
		enough := told() + n/3
		may := m.outbox.may
		m.outbox.may = func() bool { return may() && told() < enough }
		m.entrust(m.storage)
		for told() < enough {
			if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
				t.Fatal(err)
			}
			m.flights.Wait()
			m.clock.advance(time.Second)
		}
		if round == 1 {
			m.clock.advance(time.Minute)
			m.deliver() // which only writes down
		}
		left := len(m.under(outboxPrefix))
		if round == 0 && left != n || round == 1 && left >= n {
			t.Errorf("at failover %d %d are left", round, left)
		}
		m = eventMountOn(t, m.storage, m.clock, m.outside)
	}
	m.pass(2*time.Hour, 10*time.Minute)
	t.Logf("%d attempts for %d events", attempts, n)
	if attempts < n+n/4 {
		t.Error("too little was delivered twice: the failovers come too late")
	}
	if len(ids) != n {
		t.Errorf("%d of %d arrived", len(ids), n)
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left in the outbox", len(left))
	}
}
