// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

const simDay = 24 * time.Hour

// choosePolicy makes the role, and everybody who has to do with it.
func (w *simWorld) choosePolicy() {
	w.dynamic = w.chance(0.15)
	for {
		w.policy = map[string]any{}
		if w.dynamic {
			w.policy["type"] = policy.Dynamic
			w.policy["ttl"] = policy.InSeconds(pick(w, time.Minute, 10*time.Minute, time.Hour, 12*time.Hour))
		}
		w.chooseCadence()
		w.chooseGrace()
		_, text := w.request(w.server, logical.CreateOperation, "roles/r", w.policy)
		if text == "" || w.stop {
			break
		}
	}
	w.setGrace()
	if !w.dynamic && w.chance(0.3) {
		w.giveTTL()
	}
	// The clocks must leave the consumers some tolerance.
	if leeway := w.grace() / 2; leeway > 3*time.Minute && w.chance(0.8) {
		w.offsets = [2]time.Duration{0, pick[time.Duration](w, -1, 1) * w.upTo(2*time.Minute+1)}
		w.verifies = pick(w, w.offsets[0], w.offsets[1], w.offsets[1]/2)
		w.skew = max(w.offsets[1], -w.offsets[1])
	}
	rec := w.record()
	t := w.terms(rec)
	distance := t.Longest
	if distance == 0 {
		distance = 10 * simDay
	}
	w.consume()
	w.tick()
	w.busy = w.now
	w.busy = w.now.Add(time.Minute)
	mean := pick(w, t.Grace/4, t.Grace, distance/3, distance, 5*distance)
	w.at(w.busy, func() { w.disturb(mean + 10*time.Second) })
}

func (w *simWorld) chooseCadence() {
	switch kind := w.rng.Float64(); {
	case w.dynamic && kind < 0.5:
	case kind < 0.7:
		w.policy["rotation_period"] = policy.InSeconds(pick(w, time.Minute, 90*time.Second, 5*time.Minute, 17*time.Minute, time.Hour, 6*time.Hour,
			simDay, 7*simDay, 30*simDay, 90*simDay))
	default:
		w.policy["rotation_schedule"] = pick(w, "*/5 * * * *", "0 * * * *", "CRON_TZ=Europe/Berlin 30 2 * * *", "0 9 * * 1-5",
			"CRON_TZ=America/New_York 0 0 1 * *", "15 4 1,15 * *", "0 0 * * 0")
	}
	if w.chance(0.3) {
		w.policy["rotation_jitter"] = policy.InSeconds(pick(w, 10*time.Second, time.Minute, time.Hour, simDay))
	}
}

func (w *simWorld) chooseGrace() {
	if w.chance(0.7) {
		w.policy["grace_period"] = policy.InSeconds(pick(w, 10*time.Second, 30*time.Second, time.Minute, 10*time.Minute, time.Hour, simDay, 7*simDay, 30*simDay))
	}
	if !w.dynamic && w.chance(0.5) {
		w.policy["refresh_interval"] = policy.InSeconds(pick(w, time.Second, 30*time.Second, time.Minute, time.Hour, simDay, 30*simDay))
	}
	if w.chance(0.15) {
		w.policy["max_grace_period"] = policy.InSeconds(pick(w, time.Hour, simDay, 30*simDay))
	}
}

// giveTTL makes each key end as soon as the rules allow. That is soon enough to
// need its successor in time, so the server of such a world is never away for
// longer than versions are staged ahead.
func (w *simWorld) giveTTL() {
	rec := w.record()
	t := w.terms(rec)
	if t.Cadence == nil || t.Lead < 3*time.Minute {
		return
	}
	lead := keyring.Lead(defaultStageAhead, t.Shortest)
	ttl := policy.InSeconds(t.Longest + rec.Policy.RotationJitter.Duration() + lead + t.MaxGrace)
	if _, text := w.request(w.server, logical.UpdateOperation, "roles/r", map[string]any{"ttl": ttl}); text != "" {
		w.fail("the least ttl, %d: %s", ttl, text)
		return
	}
	w.policy["ttl"], w.hasTTL = ttl, true
	// Only keys made from now on have it.
	w.act("rotate/r", nil)
}

func (w *simWorld) setGrace() {
	w.graces = append(w.graces, simGrace{w.now, w.terms(w.record()).Grace})
}

// act sends an operator's request; a refusal is an answer like any other.
func (w *simWorld) act(path string, data map[string]any) bool {
	_, text := w.request(w.server, logical.UpdateOperation, path, data)
	w.note("%s %v %s", path, data, text)
	return text == ""
}

// operate does one thing that operators do.
func (w *simWorld) operate() {
	w.checkAll()
	switch kind := w.rng.Float64(); {
	case kind < 0.4:
		w.rotate(nil)
	case kind < 0.5:
		w.rotateLater(w.around(time.Hour))
	case kind < 0.55 && !w.hasTTL: // a held version stops the automatic rotation, so that a key with a ttl ends
		w.rotate(map[string]any{"stage": true})
	case kind < 0.65:
		if w.act("promote/r", nil) {
			w.stats.rotations++
		}
	case kind < 0.8:
		data := map[string]any{}
		if w.chance(0.3) {
			data["to_version"] = max(1, w.record().Ring.Last-w.rng.IntN(4))
		}
		if w.act("rollback/r", data) {
			w.stats.rollbacks++
		}
	default:
		w.update()
	}
	w.checkAll()
}

func (w *simWorld) rotate(data map[string]any) {
	if w.act("rotate/r", data) {
		w.stats.rotations++
	}
}

// rotateLater gives the activation a date, but for one that would leave readers
// without a key or without grace: the answer to that is a warning.
func (w *simWorld) rotateLater(wait time.Duration) {
	at := w.serverNow().Add(wait)
	if cur := w.record().Ring.Current(w.serverNow()); cur != nil && !cur.Expires.IsZero() && cur.Expires.Before(at.Add(w.grace())) {
		return
	}
	if p := w.record().Ring.Pending(w.serverNow()); p != nil && !p.Activate.IsZero() && p.Activate.Before(at) {
		return // the one before ends when the pending one would have ended it
	}
	w.rotate(map[string]any{"activate_at": fmt.Sprint(policy.InSeconds(wait))})
}

// update changes the policy. What the rules refuse stays as it was.
func (w *simWorld) update() {
	old := w.policy
	w.policy = map[string]any{}
	if w.chance(0.5) {
		w.chooseCadence()
	}
	if w.chance(0.7) {
		w.chooseGrace()
	}
	if w.dynamic && w.chance(0.5) {
		w.policy["ttl"] = policy.InSeconds(pick(w, time.Minute, 10*time.Minute, time.Hour, 12*time.Hour))
	}
	change := map[string]any{}
	for name, v := range w.policy {
		change[name] = v
	}
	if _, ok := change["rotation_period"]; ok {
		change["rotation_schedule"] = ""
	} else if _, ok := change["rotation_schedule"]; ok {
		change["rotation_period"] = 0
	}
	w.policy = old
	if len(change) == 0 || !w.act("roles/r", change) {
		return
	}
	w.stats.updates++
	for name, v := range change {
		w.policy[name] = v
	}
	w.setGrace()
}
