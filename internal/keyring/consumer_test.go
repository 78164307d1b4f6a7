// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// consumer re-reads as the answer's ttl tells it to, late by less than half the
// grace.
type consumer struct {
	holds int
	next  time.Time
}

// fleet is a role with an automatic rotation, operators who rotate and roll
// back with the role's grace, and consumers.
type fleet struct {
	ring                   keyring.Ring
	now                    time.Time
	grace, refresh, period time.Duration
	ttl                    time.Duration
	planned                time.Time
	consumers              []consumer
	handedOut              int // reads
}

func (f *fleet) lead() time.Duration { return keyring.Lead(10*time.Minute, f.period) }

func (f *fleet) mint() keyring.Mint {
	return keyring.Mint{KeyID: keyID(f.ring.Last + 1), Grace: f.grace, TTL: f.ttl}
}

// read hands out the current key.
func (f *fleet) read(t *rapid.T, c *consumer) {
	v := f.ring.Current(f.now)
	if v == nil {
		t.Fatalf("no current version: %s", show(&f.ring, f.now.Sub(epoch)))
	}
	st, _ := f.ring.Status(v.N, f.now)
	h := keyring.Handout{NextActivation: f.planned, Refresh: f.refresh, Grace: f.grace}
	if p := f.ring.Pending(f.now); p != nil {
		h.NextActivation = p.Activate // zero for a held one
	}
	if !st.Planned {
		h.Ends = st.Until
	}
	ttl := h.TTL(f.now)
	if ttl < time.Second || ttl%time.Second != 0 {
		t.Fatalf("ttl %s", ttl)
	}
	late := time.Duration(rapid.Int64Range(0, int64(f.grace/2)-1).Draw(t, "late"))
	if rapid.IntRange(0, 2).Draw(t, "as late as may be") == 0 {
		late = f.grace/2 - 1
	}
	c.holds, c.next = v.N, f.now.Add(ttl+late)
	f.handedOut++
}

// verifies checks that what c holds is accepted.
func (f *fleet) verifies(t *rapid.T, c *consumer) {
	if st, ok := f.ring.Status(c.holds, f.now); !ok || !st.Verifies {
		t.Fatalf("at %s a consumer holds version %d, which is %s, until %s", offset(f.now), c.holds, describe(st), offset(c.next))
	}
}

// next is when something happens by itself: a read, or the staging of a version.
func (f *fleet) next() time.Time {
	var all []time.Time
	for _, c := range f.consumers {
		all = append(all, c.next)
	}
	if f.ring.Pending(f.now) == nil {
		all = append(all, f.planned.Add(-f.lead()))
	}
	return first(all...)
}

// run lets time pass until then. What was refused for too many live versions is
// tried again a minute later.
func (f *fleet) run(t *rapid.T, until time.Time) {
	for next := f.next(); !next.After(until); next = f.next() {
		if next.After(f.now) {
			f.now = next
		}
		for i := range f.consumers {
			c := &f.consumers[i]
			f.verifies(t, c)
			if !c.next.After(f.now) {
				f.read(t, c)
			}
		}
		if f.ring.Pending(f.now) == nil && !f.planned.Add(-f.lead()).After(f.now) {
			m := f.mint()
			m.Activate = later(f.planned, f.now)
			switch _, err := f.ring.Stage(f.now, m, false); {
			case errors.Is(err, keyring.ErrTooManyLive):
				f.planned = f.now.Add(time.Minute + f.lead())
			case err != nil:
				t.Fatal(err)
			default:
				f.planned = keyring.NextPeriod(f.planned, m.Activate, f.period)
			}
		}
		trim(&f.ring, f.now, 3)
	}
	f.now = until
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestConsumersHoldAKeyThatVerifies is invariant 2.
func TestConsumersHoldAKeyThatVerifies(t *testing.T) {
	reads := 0
	rapid.Check(t, func(t *rapid.T) {
		f := &fleet{now: epoch}
		f.grace = time.Duration(rapid.SampledFrom([]int{10, 60, 3600, 86400}).Draw(t, "grace")) * time.Second
		f.refresh = time.Duration(rapid.SampledFrom([]int{1, 60, 300, 86400}).Draw(t, "refresh")) * time.Second
		f.period = max(time.Minute, f.grace*time.Duration(rapid.IntRange(1, 20).Draw(t, "period"))/4)
		rollbacks := rapid.Bool().Draw(t, "rollbacks")
		if !rollbacks && rapid.Bool().Draw(t, "with ttl") {
			// What role validation asks for; a rollback's plan is the engine's.
			f.ttl = 2*f.period + f.lead() + f.grace
		}
		f.planned = f.now.Add(f.period)
		if _, err := f.ring.Rotate(f.now, f.mint(), false); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			f.consumers = append(f.consumers, consumer{})
			f.read(t, &f.consumers[len(f.consumers)-1])
		}
		pause := func(t *rapid.T) {
			d := time.Duration(rapid.Int64Range(0, int64(min(f.period, 50*f.refresh))).Draw(t, "wait"))
			f.run(t, f.now.Add(d))
		}
		actions := map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for i := range f.consumers {
					f.verifies(t, &f.consumers[i])
				}
			},
			"wait": pause,
			"rotate": func(*rapid.T) {
				if _, err := f.ring.Rotate(f.now, f.mint(), false); err == nil {
					f.planned = f.now.Add(f.period)
				}
			},
			"promote": func(*rapid.T) {
				if _, _, err := f.ring.Promote(f.now, f.now, f.grace); err == nil {
					f.planned = f.now.Add(f.period)
				}
			},
			"rollback": func(t *rapid.T) {
				if !rollbacks {
					return
				}
				to := 0
				if rapid.Bool().Draw(t, "far") {
					to = rapid.IntRange(1, f.ring.Last).Draw(t, "to")
				}
				if _, _, err := f.ring.Rollback(f.now, to, f.grace); err == nil {
					f.planned = f.now.Add(f.period)
				}
			},
		}
		t.Repeat(actions)
		reads += f.handedOut
	})
	if reads == 0 {
		t.Error("nobody read anything")
	}
}
