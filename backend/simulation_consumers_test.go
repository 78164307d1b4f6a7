// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"math"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// simConsumer holds a key and reads again by the rule of its kind.
type simConsumer struct {
	w    *simWorld
	kind string
	// wait is from the answer to the next read, by the consumer's rule.
	wait func(*simConsumer, simAnswer) time.Duration
	// late: it is late by as much as it may be.
	late bool

	key     string
	version int
	read    time.Time // when it got the key
	due     time.Time // when the answer told it to come back
	grace   time.Duration
	lease   *logical.Response // of a dynamic key
	last    int64             // last_vault_rotation, in whole seconds
	retries int
	seq     int // of its reads: what was planned before the last one is void

	slack  float64 // least part of the grace that was left
	judged int
}

// simAnswer is what a consumer looks at.
type simAnswer struct {
	ttl, period int64
	rotated     int64 // last_vault_rotation, in whole seconds
	schedule    string
}

// The kinds. Vault Agent and OpenBao's agent sleep a second longer than they are
// told, the operator half a second and a little jitter. The last two come back
// just when they are told, and as late as they may.
func (w *simWorld) consume() {
	kinds := []*simConsumer{
		{kind: "agent", wait: func(_ *simConsumer, a simAnswer) time.Duration { return sec(a.ttl) + time.Second }},
		{kind: "operator", wait: operatorWait},
		{kind: "client", wait: func(_ *simConsumer, a simAnswer) time.Duration { return sec(a.ttl) }},
		{kind: "late", late: true, wait: func(_ *simConsumer, a simAnswer) time.Duration { return sec(a.ttl) }},
	}
	if w.dynamic {
		kinds = []*simConsumer{{kind: "agent"}, {kind: "operator"}}
	}
	for _, c := range kinds {
		c.w, c.slack = w, math.Inf(1)
		w.consumers = append(w.consumers, c)
		w.at(w.now.Add(w.upTo(time.Minute)), c.fetch)
	}
}

func sec(n int64) time.Duration { return time.Duration(n) * time.Second }

// operatorWait is the Vault Secrets Operator's rule: while the rotation it has
// seen is still the last one though the countdown is at its end, or the
// countdown of a schedule is not what it expects, it asks again within the same
// run, for ten seconds.
func operatorWait(c *simConsumer, a simAnswer) time.Duration {
	same := a.rotated == c.last
	again := same && a.ttl <= 2
	if a.schedule != "" && same {
		expected := c.due.Sub(c.w.now)
		again = again || expected <= 5*time.Second && a.ttl > 5
	}
	c.last = a.rotated
	if again && c.retries < 5 {
		c.retries++
		return time.Duration(500+c.w.rng.IntN(1500)) * time.Millisecond
	}
	c.retries = 0
	return sec(a.ttl) + 500*time.Millisecond + c.w.upTo(150*time.Millisecond)
}

// tolerance is by how much the consumer may be late now: less than half the
// least grace that was in force since it read, and than what the clocks leave.
func (c *simConsumer) tolerance() time.Duration {
	return min(c.grace, c.w.graceSince(c.read))/2 - c.w.skew
}

// within: the consumer is in its tolerance still.
func (c *simConsumer) within() bool {
	if c.key == "" {
		return false
	}
	if c.w.dynamic {
		return c.w.now.Before(c.due.Add(-c.w.skew))
	}
	return c.w.now.Sub(c.due) < c.tolerance()
}

// check asks both nodes about the key that the consumer holds.
func (c *simConsumer) check() {
	w := c.w
	if !c.within() || w.stop {
		return
	}
	w.stats.checks++
	c.judged++
	data := map[string]any{"key": c.key}
	// A node that only verifies is told of each commit.
	if old, ok := w.verifier.roles.peek(rolePath("r")); ok && old.Seq != w.record().Seq {
		w.verifier.roles.drop(rolePath("r"))
	}
	for i, m := range []*testMount{w.server, w.verifier} {
		if i == 1 && c.lease != nil {
			m.keys.drop(keyPath(c.lease.Data["key_id"].(string)))
		}
		resp, text := w.request(m, logical.UpdateOperation, "verify", data)
		if text != "" || resp.Data["valid"] != true {
			w.fail("%s holds version %d, read at %s, due at %s, late by %s of %s, and is refused by node %d: %v %s",
				c.kind, c.version, c.read.Format(time.RFC3339Nano), c.due.Format(time.RFC3339Nano), w.now.Sub(c.due), c.tolerance(), i, resp, text)
			return
		}
	}
}

// replace notes how close the key that is given up now came to its end.
func (c *simConsumer) replace() {
	if !c.within() {
		return
	}
	c.check()
	rec := c.w.record()
	st, known := rec.Ring.Status(c.version, c.w.serverNow())
	if !known || st.Until.IsZero() || st.State != keyring.Previous && st.State != keyring.Withdrawn {
		return
	}
	c.w.stats.superseded++
	if grace := min(c.grace, c.w.graceSince(c.read)); grace > 0 {
		c.slack = min(c.slack, float64(st.Until.Sub(c.w.serverNow()))/float64(grace))
	}
}

// fetch reads the current key and plans the next read.
func (c *simConsumer) fetch() {
	w := c.w
	if w.isDown() {
		w.at(w.down.Add(w.upTo(time.Second)), c.fetch)
		return
	}
	c.check()
	if w.stop {
		return
	}
	resp, text := w.request(w.server, logical.ReadOperation, "creds/r", nil)
	w.stats.reads++
	if text != "" {
		if !w.stop {
			w.fail("%s reads: %s", c.kind, text)
		}
		return
	}
	c.replace()
	if w.dynamic {
		c.hold(resp)
		return
	}
	a, ok := c.answer(resp.Data)
	if !ok {
		return
	}
	c.key, c.version, c.read = resp.Data["api_key"].(string), resp.Data["version"].(int), w.now
	c.grace = w.grace()
	if p := w.record().Ring.Pending(w.serverNow()); p != nil {
		c.grace = min(c.grace, p.Grace)
	}
	wait := c.wait(c, a)
	c.due = w.now.Add(sec(a.ttl))
	if v := w.record().Ring.Get(c.version); !v.Reinstated.IsZero() && !v.Expires.IsZero() {
		// An operator went back to a version that ends when it always did.
		c.grace = min(c.grace, max(0, v.Expires.Sub(w.serverNow())-sec(a.ttl)))
	}
	c.check()
	c.seq++
	next := w.now.Add(wait)
	if idle := w.quietUntil().Sub(next); idle > 3*wait && c.retries == 0 {
		// All answers until then are this one.
		n := int64(idle / wait)
		w.stats.skipped += int(n)
		c.read, c.due, next = c.read.Add(time.Duration(n)*wait), c.due.Add(time.Duration(n)*wait), next.Add(time.Duration(n)*wait)
	}
	if budget := c.tolerance(); c.late && budget > 0 {
		late := budget - 1
		if w.chance(0.5) {
			late = w.upTo(budget)
		}
		next = next.Add(late)
	} else if end := c.due.Add(budget - 1); budget > 0 && end.Before(next) {
		seq := c.seq
		w.at(end, func() {
			if c.seq == seq {
				c.check()
			}
		})
	}
	w.at(next, c.fetch)
}

// answer checks what consumers rely on.
func (c *simConsumer) answer(data map[string]any) (simAnswer, bool) {
	ttl, ok1 := data["ttl"].(int64)
	period, ok2 := data["rotation_period"].(int64)
	stamp, ok3 := data["last_vault_rotation"].(string)
	rotated, err := time.Parse(time.RFC3339Nano, stamp)
	if !ok1 || !ok2 || !ok3 || err != nil || ttl < 1 || period < 1 || rotated.Unix() <= 0 {
		c.w.fail("%s cannot use the answer: ttl %v, rotation_period %v, last_vault_rotation %v", c.kind, data["ttl"], data["rotation_period"], data["last_vault_rotation"])
		return simAnswer{}, false
	}
	if limit := c.w.terms(c.w.record()).Bound(); sec(ttl) > max(limit, time.Second) {
		c.w.fail("%s is told to wait %d s, more than %s", c.kind, ttl, limit)
		return simAnswer{}, false
	}
	schedule, _ := data["rotation_schedule"].(string)
	return simAnswer{ttl: ttl, period: period, rotated: rotated.Unix(), schedule: schedule}, true
}

// hold keeps a dynamic key until 85 to 95 % of its lease, as agents do where
// they cannot renew, or renews it at two thirds, as the operator does.
func (c *simConsumer) hold(resp *logical.Response) {
	w := c.w
	resp.Secret.IssueTime = w.serverNow()
	c.key, c.version, c.read, c.lease, c.grace = resp.Data["api_key"].(string), resp.Data["version"].(int), w.now, resp, w.grace()
	c.leased(resp.Secret.TTL)
}

func (c *simConsumer) leased(ttl time.Duration) {
	w := c.w
	c.due = w.now.Add(ttl)
	w.note("%s has a lease of version %d for %s", c.kind, c.version, ttl)
	if c.kind == "operator" {
		w.at(w.now.Add(time.Duration(float64(ttl)*(0.67+0.05*w.rng.Float64()))), c.renew)
		return
	}
	w.at(w.now.Add(time.Duration(float64(ttl)*(0.85+0.1*w.rng.Float64()))), c.fetch)
}

// renew prolongs the lease, and reads a new key where that fails.
func (c *simConsumer) renew() {
	w := c.w
	if w.isDown() {
		w.at(w.down.Add(w.upTo(time.Second)), c.renew)
		return
	}
	c.check()
	if w.stop {
		return
	}
	resp, err := w.server.onLease(logical.RenewOperation, c.lease, 0)
	w.stats.reads++
	if err != nil || resp.IsError() {
		c.fetch()
		return
	}
	if ttl := resp.Secret.TTL; ttl <= 2*w.skew {
		c.due = w.now.Add(ttl) // too short for clocks like these
		c.fetch()
		return
	}
	c.leased(resp.Secret.TTL)
}
