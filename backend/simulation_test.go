// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// The simulation of invariant 2: who reads again as the answers tell it to, and
// is late by less than half the grace, holds at every instant a key that
// verifies. One world is one role with consumers that follow the timing rules
// of real ones, a server whose periodic function comes late, that is down for a
// while and fails over between nodes with other clocks, operators who rotate,
// stage, roll back and change the policy, and a verifier with a clock of its
// own. Everything goes through the backend's requests.
//
// A difference between the clocks counts as lateness: a key handed out by a slow
// clock and judged by a fast one loses that much of its grace. So a consumer's
// tolerance in a world is half the grace less the clocks' difference.

const (
	simWorlds = 24   // unless SIMULATION_WORLDS says otherwise
	simEvents = 1500 // per world
	simSpan   = 3 * 366 * 24 * time.Hour
)

// TestSimulatedYears fails when a consumer within its tolerance holds a refused
// key. SIMULATION_SEED repeats a run, SIMULATION_WORLDS makes it a longer one.
func TestSimulatedYears(t *testing.T) {
	setting := func(name string, value uint64) uint64 {
		if text := os.Getenv(name); text != "" {
			var err error
			if value, err = strconv.ParseUint(text, 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		return value
	}
	seed, worlds := setting("SIMULATION_SEED", rand.Uint64()), setting("SIMULATION_WORLDS", simWorlds)
	t.Logf("SIMULATION_SEED=%d", seed)
	var total simStats
	var table strings.Builder
	for i := range worlds {
		w := newSimWorld(t, rand.New(rand.NewPCG(seed, i)))
		w.name = fmt.Sprintf("SIMULATION_SEED=%d world %d", seed, i)
		w.run()
		fmt.Fprintf(&table, "%3d %s\n", i, w.summary())
		total.add(&w.stats)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d worlds, %.1f years, %d reads (%d more that would have answered the same), %d checks by two clocks, %d rotations, %d rollbacks, "+
		"%d policy changes, %d outages, %d failovers\nslack is what was left of the grace of a key when its holder replaced it; - is never superseded\n%s",
		worlds, total.span.Hours()/24/365.25, total.reads, total.skipped, total.checks, total.rotations, total.rollbacks,
		total.updates, total.outages, total.failovers, table.String())
	for what, n := range map[string]int{
		"reads": total.reads, "checks": total.checks, "rotations": total.rotations, "rollbacks": total.rollbacks,
		"policy changes": total.updates, "outages": total.outages, "failovers": total.failovers, "superseded keys": total.superseded,
	} {
		if n == 0 && !t.Failed() {
			t.Errorf("the simulation saw no %s", what)
		}
	}
}

type simStats struct {
	span                                              time.Duration
	reads, skipped, checks                            int
	rotations, rollbacks, updates, outages, failovers int
	superseded                                        int // keys that were in their grace when they were replaced
}

func (s *simStats) add(o *simStats) {
	s.span += o.span
	s.reads += o.reads
	s.skipped += o.skipped
	s.checks += o.checks
	s.rotations += o.rotations
	s.rollbacks += o.rollbacks
	s.updates += o.updates
	s.outages += o.outages
	s.failovers += o.failovers
	s.superseded += o.superseded
}

// simEvent happens at an instant. Events of the same instant keep their order.
type simEvent struct {
	at  time.Time
	seq int
	do  func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(simEvent)) }
func (q *simQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// isDown: the server answers nobody.
func (w *simWorld) isDown() bool { return w.now.Before(w.down) }

// tick is the periodic function: once a minute, a little late each time and now
// and then by minutes. Where nothing is filed for a while it is left out, which
// makes no difference that the marks of time do not even out.
func (w *simWorld) tick() {
	if !w.isDown() {
		if err := w.server.periodic(context.Background(), &logical.Request{Storage: w.storage}); err != nil {
			w.fail("tick: %v", err)
		}
	}
	next := time.Minute + w.upTo(time.Second)
	if w.chance(0.05) && !w.hasTTL {
		next += w.upTo(5 * time.Minute)
	}
	if due := w.record().Due; due.IsZero() || due.Sub(w.serverNow()) > 10*time.Minute {
		idle := 30 * 24 * time.Hour
		if !due.IsZero() {
			idle = min(idle, due.Sub(w.serverNow())-5*time.Minute)
		}
		next = max(next, min(idle, w.busy.Sub(w.now)))
	}
	w.at(w.now.Add(next), w.tick)
}

// quietUntil is how long nothing happens that a read could notice.
func (w *simWorld) quietUntil() time.Time {
	until := w.busy
	rec := w.record()
	if !rec.Due.IsZero() && !rec.Due.After(w.serverNow().Add(w.skew)) {
		return w.now // the periodic function is about to act
	}
	consider := func(t time.Time) {
		if t = t.Add(-w.offsets[w.active]); t.After(w.now) && t.Before(until) {
			until = t
		}
	}
	consider(rec.Due)
	consider(rec.Next.Add(-w.terms(rec).Lead))
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		consider(v.Activate)
		if st, _ := rec.Ring.Status(v.N, w.serverNow()); !st.State.Ended() {
			consider(st.Until)
		}
	}
	return until.Add(-2*w.skew - time.Minute)
}

// disturb plans the next outage, failover or operator's action.
func (w *simWorld) disturb(mean time.Duration) {
	if !w.now.Before(w.busy) {
		switch kind := w.rng.Float64(); {
		case kind < 0.1:
			w.outage()
		case kind < 0.2:
			w.failover()
		case !w.isDown():
			w.operate()
		}
	}
	w.busy = w.now.Add(w.around(mean))
	if w.chance(0.15) { // soon after the last one
		w.busy = w.now.Add(w.upTo(10 * time.Second))
	}
	w.at(w.busy, func() { w.disturb(mean) })
}

func (w *simWorld) outage() {
	d := w.upTo(w.grace() / 2)
	if w.chance(0.2) {
		d = w.upTo(3 * w.grace())
	}
	if w.hasTTL {
		d = min(d, time.Minute)
	}
	w.down = later(w.down, w.now.Add(d))
	w.note("the server is down for %s", d)
	w.stats.outages++
	if w.chance(0.5) {
		w.at(w.down, w.failover)
	}
}

// failover makes the other node the active one. What the one before had in
// memory is gone.
func (w *simWorld) failover() {
	if w.isDown() {
		return
	}
	w.checkAll()
	w.active = 1 - w.active
	w.server = w.mount(w.offsets[w.active])
	w.note("failover to a clock that is off by %s", w.offsets[w.active])
	w.stats.failovers++
	w.checkAll()
}

func (w *simWorld) checkAll() {
	for _, c := range w.consumers {
		c.check()
	}
}

// grace is what the role's default grace is now.
func (w *simWorld) grace() time.Duration { return w.graces[len(w.graces)-1].grace }

// graceSince is the shortest one since then.
func (w *simWorld) graceSince(since time.Time) time.Duration {
	least := w.grace()
	for i, g := range w.graces {
		if i == len(w.graces)-1 || w.graces[i+1].since.After(since) {
			least = min(least, g.grace)
		}
	}
	return least
}

func (w *simWorld) summary() string {
	line := fmt.Sprintf("%-96s %8.2f years, clocks %3.0f s apart;", w.policyText(), w.stats.span.Hours()/24/365.25, w.skew.Seconds())
	for _, c := range w.consumers {
		line += " " + c.kind + " "
		switch {
		case c.judged == 0:
			line += "outside"
		case c.slack > 1e6:
			line += "-"
		default:
			line += fmt.Sprintf("%.0f%%", 100*c.slack)
		}
	}
	return line
}

func (w *simWorld) policyText() string {
	parts := make([]string, 0, len(w.policy))
	for _, name := range sortedKeys(w.policy) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, w.policy[name]))
	}
	return strings.Join(parts, " ")
}
