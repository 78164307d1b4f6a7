// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// machine drives a ring and the model through the same random operations.
type machine struct {
	ring  keyring.Ring
	model *model
	now   time.Time
	// settled: the last thing that happened was an operation, which leaves
	// nothing that the clock alone keeps ended.
	settled bool
	ended   map[int]bool // seen ended by a commit
	trimmed bool
}

func newMachine() *machine {
	return &machine{model: &model{}, now: epoch, ended: map[int]bool{}}
}

var spans = []time.Duration{
	0, 1, time.Second, 10 * time.Second, 10*time.Second + 1, time.Minute, time.Hour, day, 2 * day, 5 * day,
	7 * day, 7*day + 1, 9 * day,
}

func drawSpan(t *rapid.T, name string) time.Duration { return rapid.SampledFrom(spans).Draw(t, name) }

// drawInstant prefers the instants at which something happens.
func (m *machine) drawInstant(t *rapid.T, name string) time.Time {
	if coming := m.model.instants(m.now); len(coming) > 0 && rapid.Bool().Draw(t, name+" at an event") {
		return rapid.SampledFrom(coming).Draw(t, name).Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, name+" off by")))
	}
	return m.now.Add(drawSpan(t, name+" in"))
}

func (m *machine) drawMint(t *rapid.T) keyring.Mint {
	mint := keyring.Mint{KeyID: keyID(m.ring.Last + 1), Grace: drawSpan(t, "grace")}
	if rapid.IntRange(0, 2).Draw(t, "with ttl") == 0 {
		mint.TTL = drawSpan(t, "ttl")
	}
	return mint
}

// drawNumber is a version in the ring, or sometimes one that does not exist.
func (m *machine) drawNumber(t *rapid.T, known bool) int {
	var numbers []int
	for _, v := range m.ring.Versions {
		numbers = append(numbers, v.N)
	}
	if !known {
		numbers = append(numbers, m.ring.Last+1)
	}
	return rapid.SampledFrom(numbers).Draw(t, "version")
}

// apply runs one operation on both, and checks what holds for every operation.
func (m *machine) apply(t *rapid.T, what string, on func(*keyring.Ring) error, model func(*model) error) {
	m.model.advance(m.now)
	before := m.ring.Clone()
	before.Settle(m.now)
	got := on(&m.ring)
	want := model(m.model)
	m.settled = got == nil
	switch {
	case want == nil && got != nil, want != nil && !isExactly(got, want):
		t.Fatalf("%s at %s: got error %v, want %v", what, offset(m.now), got, want)
	case got != nil:
		// Invariant 5: what fails changes nothing but marks.
		m.ring.Settle(m.now)
		m.settled = true
		if diff := differ(&before, &m.ring); diff != "" {
			t.Fatalf("%s was refused (%v) and changed the ring:%s", what, got, diff)
		}
	}
	// Invariant 3: numbers only grow.
	if m.ring.Last < before.Last {
		t.Fatalf("last went from %d to %d", before.Last, m.ring.Last)
	}
	for i, v := range m.ring.Versions {
		if v.N > m.ring.Last || i > 0 && v.N <= m.ring.Versions[i-1].N {
			t.Fatalf("%s: numbers out of order: %s", what, numbers(m.ring.Versions))
		}
		if before.Get(v.N) == nil && v.N <= before.Last {
			t.Fatalf("%s: number %d came back", what, v.N)
		}
		if st, _ := m.ring.Status(v.N, m.now); st.State.Ended() {
			m.ended[v.N] = true
		}
	}
}

// notProlonged is invariant 4 over an operation: no known end moves back,
// except to the activation without which nobody would be current.
func (m *machine) notProlonged(t *rapid.T, what string, activation time.Time, op func()) {
	before := m.ring.Clone()
	op()
	for _, v := range before.Versions {
		was, _ := before.Status(v.N, m.now)
		is, _ := m.ring.Status(v.N, m.now)
		if was.State.Ended() || was.Until.IsZero() || is.State.Ended() {
			continue
		}
		limit := was.Until
		if activation.After(limit) {
			limit = activation
		}
		if was.State != keyring.Pending && (is.Until.IsZero() || is.Until.After(limit)) {
			t.Fatalf("%s at %s prolonged version %d: %s before, %s after", what, offset(m.now), v.N, describe(was), describe(is))
		}
	}
}

func (m *machine) check(t *rapid.T) {
	m.model.advance(m.now)
	m.compare(t, m.model, m.now)

	// Invariant 1.
	var current []int
	for _, v := range m.ring.Versions {
		if st, _ := m.ring.Status(v.N, m.now); st.State == keyring.Current {
			current = append(current, v.N)
		}
		st, _ := m.ring.Status(v.N, m.now)
		if st.State.Ended() == st.Verifies && st.State != keyring.Pending {
			t.Fatalf("version %d: %s", v.N, describe(st))
		}
		// Invariant 3.
		if m.ended[v.N] && !st.State.Ended() {
			t.Fatalf("version %d had ended and is back: %s", v.N, describe(st))
		}
	}
	top := m.model.top
	switch {
	case top == nil && len(current) == 0:
	case top != nil && len(current) == 1 && current[0] == top.n && number(m.ring.Current(m.now)) == top.n:
	case top != nil && len(current) == 0 && (top.state == keyring.Revoked || top.state == keyring.Expired || top.state == keyring.Retired && !top.cap.IsZero()):
	default:
		t.Fatalf("current: %v; of %s", current, show(&m.ring, m.now.Sub(epoch)))
	}
	if top != nil && number(m.ring.Top(m.now)) != top.n {
		t.Fatalf("top: got %d, want %d", number(m.ring.Top(m.now)), top.n)
	}
}

// compare asks both for every version at an instant.
func (m *machine) compare(t *rapid.T, mo *model, now time.Time) {
	for _, v := range m.ring.Versions {
		got, _ := m.ring.Status(v.N, now)
		if want := mo.status(v.N, now); got != want {
			t.Fatalf("version %d at %s:\n got  %s\n want %s\n of %s", v.N, offset(now), describe(got), describe(want), show(&m.ring, now.Sub(epoch)))
		}
	}
	if !m.trimmed && len(mo.versions) != len(m.ring.Versions) {
		t.Fatalf("%d versions, want %d", len(m.ring.Versions), len(mo.versions))
	}
	if got, want := m.ring.Live(now), mo.liveCount(); got != want {
		t.Fatalf("%d live, want %d", got, want)
	}
}

// kill is the engine's kill of one version or of all that live: with a
// replacement, without one because nobody wants it, or because there can be none.
func (m *machine) kill(t *rapid.T, numbers []int) {
	mint := m.drawMint(t)
	replacement := &mint
	how := rapid.SampledFrom([]string{"replaced", "owed", "left"}).Draw(t, "replacement")
	if how == "owed" {
		replacement = nil
	}
	hit := slices.Contains(numbers, number(m.ring.Current(m.now)))
	op := func() {
		m.apply(t, "kill",
			func(r *keyring.Ring) error {
				if how == "left" {
					_, err := r.Revoke(m.now, numbers...)
					return err
				}
				_, replaced, err := kill(r, m.now, numbers, replacement)
				if want := hit && how == "replaced"; replaced != want {
					t.Fatalf("killed %v: replaced is %t, want %t", numbers, replaced, want)
				}
				return err
			},
			func(o *model) error { return o.killed(m.now, numbers, how != "left", replacement) })
	}
	if hit && how != "left" {
		// Invariant 4, also of those that were to end with the pending version.
		m.notProlonged(t, "kill", time.Time{}, op)
		if cur := m.ring.Current(m.now); how == "replaced" && number(cur) != m.ring.Last || m.ring.Pending(m.now) != nil {
			t.Fatalf("killed %v, and then: %s", numbers, show(&m.ring, m.now.Sub(epoch)))
		}
	} else {
		op()
	}
	for _, n := range numbers {
		if st, ok := m.ring.Status(n, m.now); ok && st.State != keyring.Revoked {
			t.Fatalf("killed version %d is %s", n, describe(st))
		}
	}
}

func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": m.check,
		"forward": func(t *rapid.T) {
			if to := m.drawInstant(t, "step"); to.After(m.now) {
				m.now, m.settled = to, false
			}
		},
		"forward a little": func(t *rapid.T) {
			m.now, m.settled = m.now.Add(time.Duration(rapid.Int64Range(0, int64(2*day)).Draw(t, "step"))), false
		},
		"backwards": func(t *rapid.T) {
			m.model.advance(m.now)
			if !m.settled {
				m.ring.Settle(m.now)
			}
			for _, v := range m.ring.Versions {
				if st, _ := m.ring.Status(v.N, m.now); st.State.Ended() {
					m.ended[v.N] = true
				}
			}
			m.now = m.now.Add(-time.Duration(rapid.Int64Range(0, int64(day)).Draw(t, "step")))
		},
		"look ahead": func(t *rapid.T) {
			// The pure function against the story, with no commit in between.
			to := m.drawInstant(t, "at")
			if to.Before(m.now) {
				return
			}
			later := m.model.clone()
			later.advance(to)
			m.compare(t, later, to)
		},
		"settle": func(*rapid.T) {
			m.model.advance(m.now)
			m.ring.Settle(m.now)
			m.settled = true
		},
		"rotate": func(t *rapid.T) {
			mint, force := m.drawMint(t), rapid.Bool().Draw(t, "force")
			if rapid.IntRange(0, 3).Draw(t, "dated") == 0 {
				mint.Activate = m.drawInstant(t, "activation")
			}
			m.notProlonged(t, "rotate", mint.Activate, func() {
				m.apply(t, "rotate",
					func(r *keyring.Ring) error { _, err := r.Rotate(m.now, mint, force); return err },
					func(o *model) error { return o.rotate(m.now, mint, force) })
			})
		},
		"stage": func(t *rapid.T) {
			mint, force := m.drawMint(t), rapid.Bool().Draw(t, "force")
			if mint.Held = rapid.Bool().Draw(t, "held"); !mint.Held {
				mint.Activate = m.now.Add(drawSpan(t, "activation in"))
			}
			m.apply(t, "stage",
				func(r *keyring.Ring) error { _, err := r.Stage(m.now, mint, force); return err },
				func(o *model) error { return o.stage(m.now, mint, force) })
		},
		"promote": func(t *rapid.T) {
			when, grace := m.drawInstant(t, "activation"), drawSpan(t, "grace")
			m.apply(t, "promote",
				func(r *keyring.Ring) error { _, _, err := r.Promote(m.now, when, grace); return err },
				func(o *model) error { return o.promote(m.now, when, grace) })
		},
		"rollback": func(t *rapid.T) {
			to, grace := rapid.IntRange(0, m.ring.Last+1).Draw(t, "to"), drawSpan(t, "grace")
			if rapid.Bool().Draw(t, "to the previous version") {
				to = 0
			}
			m.apply(t, "rollback",
				func(r *keyring.Ring) error { _, _, err := r.Rollback(m.now, to, grace); return err },
				func(o *model) error { return o.rollback(m.now, to, grace) })
		},
		"revoke": func(t *rapid.T) {
			n := m.drawNumber(t, false)
			m.apply(t, "revoke",
				func(r *keyring.Ring) error { _, err := r.Revoke(m.now, n); return err },
				func(o *model) error { return o.revoke(m.now, n) })
			// Invariant 6.
			before := m.ring.Clone()
			if events, err := m.ring.Revoke(m.now, n); err == nil && len(events) > 0 || differ(&before, &m.ring) != "" {
				t.Fatalf("repeated: told %s, changed %s", told(events), differ(&before, &m.ring))
			}
		},
		"kill": func(t *rapid.T) { m.kill(t, []int{m.drawNumber(t, false)}) },
		"kill all": func(t *rapid.T) {
			if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
				m.kill(t, live(&m.ring, m.now))
			}
		},
		"extend": func(t *rapid.T) {
			if len(m.ring.Versions) == 0 {
				return
			}
			n, step := m.drawNumber(t, true), drawSpan(t, "step")
			m.apply(t, "extend",
				func(r *keyring.Ring) error { r.Extend(m.now, n, step); return nil },
				func(o *model) error { o.extend(n, step); return nil })
		},
		"set an end": func(t *rapid.T) {
			n, until := m.drawNumber(t, false), m.drawInstant(t, "end")
			var ending []int
			for _, v := range m.ring.Versions {
				if st, _ := m.ring.Status(v.N, m.now); st.State == keyring.Previous || st.State == keyring.Withdrawn {
					ending = append(ending, v.N)
				}
			}
			if len(ending) > 0 && rapid.IntRange(0, 9).Draw(t, "any version") > 0 {
				n = rapid.SampledFrom(ending).Draw(t, "version on its way out")
			}
			var before keyring.Version
			if v := m.ring.Get(n); v != nil {
				before = *v
			}
			was, _ := m.ring.Status(n, m.now)
			m.apply(t, "set an end",
				func(r *keyring.Ring) error { _, err := r.SetEnd(m.now, n, until); return err },
				func(o *model) error { return o.setEnd(m.now, n, until) })
			is, _ := m.ring.Status(n, m.now)
			v := m.ring.Get(n)
			switch {
			case v == nil || is.State.Ended():
			case !v.Expires.Equal(before.Expires):
				t.Fatalf("version %d expires at %s, not %s", n, v.Expires, before.Expires)
			case !v.Expires.IsZero() && is.Until.After(v.Expires), m.ring.Over(is.Until.Add(-1)),
				!v.Reported.IsZero() && is.Until.After(was.Until):
				t.Fatalf("version %d: %s before, %s after", n, describe(was), describe(is))
			}
		},
		"report": func(t *rapid.T) {
			if len(m.ring.Versions) == 0 {
				return
			}
			n := m.drawNumber(t, true)
			var until time.Time
			if rapid.Bool().Draw(t, "with an end") {
				until = m.drawInstant(t, "until")
			}
			m.apply(t, "report",
				func(r *keyring.Ring) error { r.Report(m.now, n, until); return nil },
				func(o *model) error { o.report(m.now, n, until); return nil })
		},
		"bound": func(t *rapid.T) {
			var until time.Time
			// Seldom soon: there is little to see of a role that has ended.
			switch rapid.IntRange(0, 9).Draw(t, "end") {
			case 0:
				until = m.drawInstant(t, "end")
			case 1, 2, 3, 4:
				until = m.now.Add(time.Duration(rapid.IntRange(10, 60).Draw(t, "days")) * day)
			}
			m.apply(t, "bound",
				func(r *keyring.Ring) error { r.Bound(m.now, until); return nil },
				func(o *model) error { o.bound(m.now, until); return nil })
			if live := live(&m.ring, m.now); m.ring.Over(m.now) && len(live) > 0 {
				t.Fatalf("the role has ended and %v live", live)
			}
		},
		"trim": func(t *rapid.T) {
			keep := rapid.IntRange(0, 5).Draw(t, "keep")
			before := m.ring.Clone()
			gone := trim(&m.ring, m.now, keep)
			m.trimmed = m.trimmed || len(gone) > 0
			for _, v := range gone {
				if st, _ := before.Status(v.N, m.now); !st.State.Ended() {
					t.Fatalf("trimmed version %d: %s", v.N, describe(st))
				}
			}
			if len(gone)+len(m.ring.Versions) != len(before.Versions) || m.ring.Last != before.Last {
				t.Fatalf("trimmed %s of %s: left %s", numbers(gone), numbers(before.Versions), numbers(m.ring.Versions))
			}
			// What is kept is what it was, now and later.
			for _, now := range append(m.model.instants(m.now), m.now) {
				for _, v := range m.ring.Versions {
					was, _ := before.Status(v.N, now)
					if is, ok := m.ring.Status(v.N, now); !ok || is != was {
						t.Fatalf("a trim changed version %d at %s: %s before, %s after", v.N, offset(now), describe(was), describe(is))
					}
				}
			}
		},
	}
}

// TestAgainstModel compares the ring with the model after every one of random
// operations, under a clock that sometimes goes backwards, and checks the
// invariants that hold for each.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { t.Repeat(newMachine().actions()) })
}

// TestKillsProlongNothing is invariant 4 where the current version is killed while
// others are withdrawn and one is pending, whether or not there is a replacement.
func TestKillsProlongNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		actions := m.actions()
		do := func(name string) { actions[name](t) }
		for range rapid.IntRange(2, 4).Draw(t, "versions") {
			mint := m.drawMint(t)
			m.apply(t, "rotate",
				func(r *keyring.Ring) error { _, err := r.Rotate(m.now, mint, true); return err },
				func(o *model) error { return o.rotate(m.now, mint, true) })
			do("forward a little")
		}
		do("rollback")
		do("stage")
		do("promote")
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			do(rapid.SampledFrom([]string{"forward a little", "report", "extend", "promote"}).Draw(t, "what"))
		}
		if cur := m.ring.Current(m.now); cur != nil {
			m.kill(t, []int{cur.N})
		}
		m.check(t)
		do("look ahead")
	})
}

// TestSettlingChangesNothing: with a clock that only goes forward it makes no
// difference to any later status whether, and when, a ring is settled; and what
// is told comes to the same.
func TestSettlingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		actions := m.actions()
		for _, name := range []string{"backwards", "trim", "look ahead", "settle", "kill all"} {
			delete(actions, name)
		}
		actions["fork"] = func(t *rapid.T) {
			m.model.advance(m.now)
			often, once := m.ring.Clone(), m.ring.Clone()
			var told1 []keyring.Event
			now := m.now
			for range rapid.IntRange(1, 5).Draw(t, "looks") {
				now = now.Add(rapid.SampledFrom(append(spans, 30*day)).Draw(t, "step"))
				if coming := m.model.instants(now); len(coming) > 0 && rapid.Bool().Draw(t, "at an event") {
					now = coming[0]
				}
				if rapid.Bool().Draw(t, "settle") {
					told1 = append(told1, often.Settle(now)...)
				}
				d := now.Sub(epoch)
				if a, b := show(&often, d), show(&once, d); a != b {
					t.Fatalf("at %s:\n settled %s\n not     %s", offset(now), a, b)
				}
			}
			told1 = append(told1, often.Settle(now)...)
			told2 := once.Settle(now)
			if a, b := sorted(told1), sorted(told2); a != b {
				t.Fatalf("settled often: told %s\nsettled once: told %s", a, b)
			}
			if !slices.IsSortedFunc(told2, func(a, b keyring.Event) int { return a.At.Compare(b.At) }) {
				t.Fatalf("out of order: %s", told(told2))
			}
			if again := once.Settle(now); len(again) > 0 {
				t.Fatalf("told again: %s", told(again))
			}
		}
		t.Repeat(actions)
	})
}

func sorted(events []keyring.Event) string {
	all := strings.Split(told(events), ", ")
	slices.Sort(all)
	return fmt.Sprint(all)
}

// TestEndsAgainstModel is TestAgainstModel with versions that are on their way out,
// and what moves ends.
func TestEndsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		actions := m.actions()
		for i := range 3 {
			mint := keyring.Mint{KeyID: keyID(i + 1), Grace: time.Duration(rapid.IntRange(2, 9).Draw(t, "grace")) * day}
			m.apply(t, "rotate",
				func(r *keyring.Ring) error { _, err := r.Rotate(m.now, mint, false); return err },
				func(o *model) error { return o.rotate(m.now, mint, false) })
			m.now = m.now.Add(time.Hour)
		}
		for name := range actions {
			switch name {
			case "", "forward", "backwards", "look ahead", "rotate", "rollback", "report", "extend", "bound", "set an end":
			default:
				delete(actions, name)
			}
		}
		actions["set an end, too"] = actions["set an end"]
		t.Repeat(actions)
	})
}
