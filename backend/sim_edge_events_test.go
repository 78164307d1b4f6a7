// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// simRoles are there at the beginning.
var simRoles = []struct {
	name    string
	dynamic bool
}{{"hand", false}, {"auto", false}, {"minute", false}, {"leased", true}, {"turning", true}}

// simPolicies are what roles of these names say; the others are made by a name's first
// letter.
func simPolicy(name string, dynamic bool) map[string]any {
	switch {
	case name == "auto":
		return map[string]any{"rotation_period": "2m", "grace_period": "40s"}
	case name == "minute":
		return map[string]any{"rotation_period": "60s", "grace_period": "20s", "refresh_interval": "5s"}
	case name == "turning":
		return map[string]any{"type": "dynamic", "ttl": "90s", "max_ttl": "1h", "rotation_period": "90s", "grace_period": "30s"}
	case dynamic:
		return map[string]any{"type": "dynamic", "ttl": "90s", "max_ttl": "10m"}
	}
	return map[string]any{"rotation_period": 0, "grace_period": "1m", "max_grace_period": "5m"}
}

// simScope is what everybody asks for.
const simScope = "orders:read"

func (w *edgeWorld) declare(name string, dynamic bool) {
	policy := simPolicy(name, dynamic)
	policy["scopes"] = "orders:*"
	if answer := w.operate(logical.UpdateOperation, "roles/"+name, policy); answer != nil {
		w.roles[name] = dynamic
	} else if len(w.keys) == 0 {
		w.fail("role %s cannot be made", name)
	}
}

// simLease is the server's lease on a dynamic key.
type simLease struct {
	secret *logical.Secret
	data   map[string]any
	ends   time.Time
}

// operate is a request of an operator or a consumer; nil if it was refused.
func (w *edgeWorld) operate(op logical.Operation, path string, data map[string]any) map[string]any {
	w.sample()
	resp, err := w.ask(context.Background(), w.node, op, path, data)
	w.sample()
	if err != nil || resp != nil && resp.IsError() {
		if err == nil {
			err = resp.Error()
		}
		w.logf("%s %s %v: %v", op, path, data, err)
		return nil
	}
	w.logf("%s %s %v", op, path, data)
	if resp == nil {
		return map[string]any{}
	}
	if secret, ok := resp.Data["api_key"].(string); ok {
		w.have(secret, resp.Data["key_id"].(string))
		if resp.Secret != nil {
			w.leases = append(w.leases, &simLease{resp.Secret, resp.Data, w.now().Add(resp.Secret.TTL)})
		}
	}
	return resp.Data
}

// onLease is a request of the server about a lease.
func (w *edgeWorld) onLease(op logical.Operation, l *simLease) bool {
	secret := *l.secret
	req := w.request
	req.Operation, req.Path, req.Secret, req.Data, req.Storage = op, "creds/any", &secret, l.data, w.node.storage
	w.sample()
	resp, err := w.node.HandleRequest(context.Background(), &req)
	w.sample()
	ok := err == nil && (resp == nil || !resp.IsError())
	w.logf("%s %v: %t", op, l.data["key_id"], ok)
	if ok && op == logical.RenewOperation {
		l.ends = w.now().Add(resp.Secret.TTL)
	}
	return ok
}

// endLeases ends leases that are over, as the server does, a little late.
func (w *edgeWorld) endLeases() {
	w.leases = slices.DeleteFunc(w.leases, func(l *simLease) bool {
		if w.now().Before(l.ends) || w.rand.IntN(10) > 0 {
			return false
		}
		w.saw("lease that ran out")
		return w.onLease(logical.RevokeOperation, l)
	})
}

// The parts of a decision that are chosen at random.
func choose[T any](w *edgeWorld, from ...T) T { return from[w.rand.IntN(len(from))] }

func (w *edgeWorld) role() string {
	names := slices.Sorted(maps.Keys(w.roles))
	if len(names) == 0 {
		return "hand"
	}
	return choose(w, names...)
}

func (w *edgeWorld) grace() string { return choose(w, "0", "5s", "30s", "2m") }

// event is something that may happen, more or less often.
type event struct {
	kind   string
	weight int
	do     func(w *edgeWorld) bool // false: it could not
}

func (w *edgeWorld) happen(events []event) {
	total := 0
	for i := range events {
		total += events[i].weight
	}
	n := w.rand.IntN(total)
	for i := range events {
		if n -= events[i].weight; n < 0 {
			if events[i].do(w) {
				w.saw(events[i].kind)
			}
			return
		}
	}
}

func (w *edgeWorld) decide() { w.happen(decisions) }
func (w *edgeWorld) upset()  { w.happen(upsets) }

// update is an operation on a path with data.
func update(path func(w *edgeWorld) string, data func(w *edgeWorld) map[string]any) func(w *edgeWorld) bool {
	return func(w *edgeWorld) bool { return w.operate(logical.UpdateOperation, path(w), data(w)) != nil }
}

func at(prefix string) func(w *edgeWorld) string {
	return func(w *edgeWorld) string { return prefix + w.role() }
}

func nothing(*edgeWorld) map[string]any { return map[string]any{} }

// decisions are what operators and consumers do.
var decisions = []event{
	{"rotation", 8, update(at("rotate/"), func(w *edgeWorld) map[string]any {
		return map[string]any{"grace_period": w.grace(), "force": true}
	})},
	{"staging", 4, update(at("rotate/"), func(w *edgeWorld) map[string]any {
		return map[string]any{"activate_at": choose(w, "5s", "30s", "90s"), "grace_period": w.grace(), "force": true}
	})},
	{"promotion", 2, update(at("promote/"), nothing)},
	{"rollback", 4, update(at("rollback/"), func(w *edgeWorld) map[string]any { return map[string]any{"grace_period": w.grace()} })},
	{"another grace", 3, update(at("grace/"), func(w *edgeWorld) map[string]any {
		return map[string]any{"valid_until": choose(w, "1s", "20s", "90s"), "force": true}
	})},
	{"revocation of a role's keys", 2, update(at("revoke/"), func(*edgeWorld) map[string]any { return map[string]any{"all": true} })},
	{"revocation of a key", 4, func(w *edgeWorld) bool {
		k := w.some()
		return w.operate(logical.UpdateOperation, "revoke/"+w.names[k.roleID], map[string]any{"key_id": k.id}) != nil
	}},
	{"report of a leak", 3, func(w *edgeWorld) bool {
		return w.operate(logical.UpdateOperation, "report", map[string]any{"key": w.some().secret}) != nil
	}},
	{"disabling", 3, update(at("roles/"), func(*edgeWorld) map[string]any { return map[string]any{"disabled": true} })},
	{"enabling", 6, func(w *edgeWorld) bool {
		done := false
		for _, name := range slices.Sorted(maps.Keys(w.roles)) {
			done = w.operate(logical.UpdateOperation, "roles/"+name, map[string]any{"disabled": false, "on_leak": choose(w, "revoke", "rotate", "alert")}) != nil || done
		}
		return done
	}},
	{"narrowing", 2, update(at("roles/"), func(*edgeWorld) map[string]any { return map[string]any{"scopes": "orders:write"} })},
	{"widening", 3, update(at("roles/"), func(*edgeWorld) map[string]any { return map[string]any{"scopes": "orders:*"} })},
	{"valid_until", 2, update(at("roles/"), func(w *edgeWorld) map[string]any {
		return map[string]any{"valid_until": stamp(w.node.now().Add(choose(w, 20*time.Second, 2*time.Minute)))}
	})},
	{"no valid_until", 2, func(w *edgeWorld) bool {
		return w.operate(logical.PatchOperation, "roles/"+w.role(), map[string]any{"valid_until": nil}) != nil
	}},
	{"deletion", 4, func(w *edgeWorld) bool { return w.remove(w.role()) != "" }},
	{"restoration", 4, func(w *edgeWorld) bool { return w.restoreRole("") }},
	{"rename", 3, func(w *edgeWorld) bool {
		name := w.role()
		id := w.remove(name)
		if id == "" {
			return false
		}
		if w.rand.IntN(2) == 0 {
			w.pass(time.Second)
		}
		return w.restoreRole(fmt.Sprintf("%s-%d", name[:min(len(name), 8)], w.rand.IntN(1000)))
	}},
	{"creation under the name of a deleted role", 3, func(w *edgeWorld) bool {
		for _, id := range w.deleted {
			name := w.names[id]
			if _, taken := w.roles[name]; taken || name == "" {
				continue
			}
			w.declare(name, name[0] == 'l' || name[0] == 't')
			return w.operate(logical.ReadOperation, "creds/"+name, nil) != nil
		}
		return false
	}},
	{"bulk rotation", 2, bulk("rotate")},
	{"bulk revocation", 1, bulk("revoke")},
	{"rotation of a dynamic role, which supersedes its keys", 3, func(w *edgeWorld) bool {
		for _, name := range slices.Sorted(maps.Keys(w.roles)) {
			if w.roles[name] && w.rand.IntN(2) == 0 {
				return w.operate(logical.UpdateOperation, "rotate/"+name, map[string]any{"grace_period": w.grace(), "force": true}) != nil
			}
		}
		return false
	}},
	{"renewal", 8, func(w *edgeWorld) bool {
		done := false
		for _, l := range w.leases {
			if w.now().Before(l.ends) && w.rand.IntN(2) == 0 {
				done = w.onLease(logical.RenewOperation, l) || done
			}
		}
		return done
	}},
	{"end of a lease", 2, func(w *edgeWorld) bool {
		if len(w.leases) == 0 {
			return false
		}
		i := w.rand.IntN(len(w.leases))
		l := w.leases[i]
		w.leases = slices.Delete(w.leases, i, i+1)
		return w.onLease(logical.RevokeOperation, l)
	}},
	{"import", 3, func(w *edgeWorld) bool {
		value := fmt.Sprintf("simulated-%016x", w.rand.Uint64())
		how := fmt.Sprintf(`"key":%q`, value)
		if w.rand.IntN(2) == 0 {
			how = fmt.Sprintf(`"sha256":"%x"`, sha256.Sum256([]byte(value)))
		}
		answer := w.operate(logical.UpdateOperation, "import", map[string]any{"batch": fmt.Sprintf(`[{"role":%q,%s}]`, w.role(), how)})
		if answer == nil {
			return false
		}
		one := answer["results"].([]any)[0].(map[string]any)
		if one["result"] != importDone {
			w.logf("import: %v", one["error"])
			return false
		}
		w.have(value, one["key_id"].(string))
		return true
	}},
	{"read", 14, func(w *edgeWorld) bool {
		done := false
		for _, name := range slices.Sorted(maps.Keys(w.roles)) {
			done = w.operate(logical.ReadOperation, "creds/"+name, nil) != nil || done
		}
		return done
	}},
}

func bulk(action string) func(w *edgeWorld) bool {
	return func(w *edgeWorld) bool {
		return w.operate(logical.UpdateOperation, "bulk/", map[string]any{
			"action": action, "roles": []string{w.role(), w.role()}, "dry_run": false, "reason": "simulated", "pace": choose(w, 0, 1),
		}) != nil
	}
}

// remove deletes a role, and returns its id.
func (w *edgeWorld) remove(name string) string {
	answer := w.operate(logical.DeleteOperation, "roles/"+name, nil)
	if answer == nil || answer["role_id"] == nil {
		return ""
	}
	id := answer["role_id"].(string)
	delete(w.roles, name)
	w.names[id] = name
	w.deleted = append(w.deleted, id)
	return id
}

// restoreRole brings back the role that was deleted last, under another name if one is
// given.
func (w *edgeWorld) restoreRole(name string) bool {
	if len(w.deleted) == 0 {
		return false
	}
	id := w.deleted[len(w.deleted)-1]
	data := map[string]any{}
	if name != "" {
		data["name"] = name
	}
	answer := w.operate(logical.UpdateOperation, "restore/"+id, data)
	if answer == nil {
		return false
	}
	w.deleted = w.deleted[:len(w.deleted)-1]
	name = answer["role"].(string)
	w.names[id], w.roles[name] = name, name[0] == 'l' || name[0] == 't'
	return true
}

// upsets are what happens to the network, to machines and to the server.
var upsets = []event{
	{"requests are cut off", 2, network(func(_ *edgeWorld, e *simEdge) { e.cut = 1 })},
	{"answers are cut off", 2, network(func(_ *edgeWorld, e *simEdge) { e.cut = 2 })},
	{"all is cut off", 3, network(func(_ *edgeWorld, e *simEdge) { e.cut = 3 })},
	{"slow network", 2, network(func(w *edgeWorld, e *simEdge) { e.slow = time.Duration(w.rand.Int64N(int64(3 * time.Second))) })},
	{"flaky network", 2, network(func(w *edgeWorld, e *simEdge) { e.flaky = w.rand.Float64() / 2 })},
	{"clock of an edge set", 2, func(w *edgeWorld) bool {
		e := choose(w, w.edges...)
		w.mu.Lock()
		defer w.mu.Unlock()
		if !e.asleep.IsZero() || e.down || w.now().Sub(e.stepped) < w.settled() {
			return false // with both of its clocks wrong it cannot know
		}
		was := e.wall
		e.wall = time.Duration(w.rand.Int64N(int64(240*time.Second))) - 120*time.Second
		e.parted(e.wall - was)
		e.stepped = w.now()
		e.unwell()
		e.well(w.now())
		w.logf("%s: its clock is off by %v", e.name, e.wall)
		return true
	}},
	{"failover in order", 1, func(w *edgeWorld) bool { return w.failover(true, false) }},
	{"crash of the active node", 1, func(w *edgeWorld) bool { return w.failover(false, false) }},
	{"deposed node", 2, func(w *edgeWorld) bool { return w.failover(false, true) }},
	{"restart with a state file", 2, restart(true)},
	{"restart without a state file", 1, restart(false)},
	{"suspended machine", 2, func(w *edgeWorld) bool {
		e := choose(w, w.edges...)
		w.mu.Lock()
		can := e.asleep.IsZero() && !e.down && w.now().Sub(e.stepped) > w.settled()
		w.mu.Unlock()
		if !can {
			return false
		}
		d := choose(w, time.Second, 5*time.Second, 30*time.Second, 2*time.Minute)
		d = d/2 + time.Duration(w.rand.Int64N(int64(d)))
		w.logf("%s: sleeps for %v", e.name, d)
		e.sleep(d)
		return true
	}},
	{"storage in trouble", 1, func(w *edgeWorld) bool {
		trouble := w.rand.Float64() / 2
		w.logf("storage fails now and then: %.2f", trouble)
		w.node.storage.set(trouble)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.edges {
			e.unwell()
		}
		return true
	}},
	{"backup", 2, func(w *edgeWorld) bool {
		w.backup = copied(w.disk)
		w.logf("a backup is made")
		return true
	}},
	{"restored storage", 2, func(w *edgeWorld) bool { return w.restoreStorage() }},
	{"all is well again", 7, func(w *edgeWorld) bool {
		w.logf("the network is well")
		w.heal()
		return true
	}},
}

func network(change func(w *edgeWorld, e *simEdge)) func(w *edgeWorld) bool {
	return func(w *edgeWorld) bool {
		e := choose(w, w.edges...)
		w.mu.Lock()
		defer w.mu.Unlock()
		change(w, e)
		e.unwell()
		w.logf("%s: cut %d slow %v flaky %.2f", e.name, e.cut, e.slow, e.flaky)
		return true
	}
}

// heal ends what is wrong with the network and with storage.
func (w *edgeWorld) heal() {
	w.node.storage.set(0)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.edges {
		e.cut, e.slow, e.flaky = 0, 0, 0
		if e.healthy.After(w.now()) {
			e.well(w.now())
		}
	}
}

// failover has another node decide, by its own clock. The one that did is deposed: for
// as long as its lease on leadership lasts it goes on answering those that talk to it.
func (w *edgeWorld) failover(orderly, deposed bool) bool {
	off := time.Duration(w.rand.Int64N(int64(240*time.Second))) - 120*time.Second
	old := w.node
	old.hangs = !orderly && w.rand.IntN(2) == 0
	lease := time.Duration(w.rand.Int64N(int64(10 * time.Second)))
	w.logf("failover to a clock that is off by %v; in order %t, deposed %t for %v, hangs %t", off, orderly, deposed, lease, old.hangs)
	troubled := old.storage.troubled()
	if !deposed {
		old.stop(orderly)
	} else {
		old.storage.fence()
	}
	w.mu.Lock()
	old.deposed = w.now()
	if deposed && w.rand.IntN(2) == 0 {
		// What it reads is what it had; elsewhere storage is shared.
		old.storage.Storage = copied(w.disk)
	}
	for _, e := range w.edges {
		if deposed && w.rand.IntN(3) > 0 {
			e.pinned = old
			e.unwell()
		}
		if troubled || e.healthy.Before(w.now()) {
			e.well(w.now())
		}
	}
	w.mu.Unlock()
	w.start(off)
	w.sample()
	if deposed {
		w.tasks.Go(func() {
			select {
			case <-time.After(lease):
			case <-old.life.Done():
			}
			w.mu.Lock()
			for _, e := range w.edges {
				if e.pinned == old {
					e.pinned = nil
					e.well(w.now())
				}
			}
			w.mu.Unlock()
			w.logf("the deposed node is gone")
			old.stop(false)
		})
	}
	return true
}

// restoreStorage puts the backup back: the one thing that brings ended keys back.
func (w *edgeWorld) restoreStorage() bool {
	if w.backup == nil {
		return false
	}
	w.sample()
	w.disk, w.backup = w.backup, nil
	before := map[*simWord]bool{}
	for _, k := range w.keys {
		for _, word := range k.words {
			before[word] = word.last().valid
		}
	}
	for _, n := range slices.Clone(w.nodes) {
		n.stop(false)
	}
	w.mu.Lock()
	for _, e := range w.edges {
		e.pinned = nil
		e.well(w.now())
	}
	w.mu.Unlock()
	w.start(w.node.clock.(simClock).off)
	w.sample()
	brought := 0
	for _, k := range w.keys {
		for _, word := range k.words {
			if before[word] {
				continue
			}
			word.revived = true
			if word.last().valid {
				brought++
			}
		}
	}
	w.logf("the backup is restored: %d keys are back", brought)
	for range brought {
		w.saw("key that a backup brought back")
	}
	// Who may, sees what there is now.
	w.roles = map[string]bool{}
	answer := w.operate(logical.ListOperation, "roles/", nil)
	names, _ := answer["keys"].([]string)
	for _, name := range names {
		w.roles[name] = name[0] == 'l' || name[0] == 't'
	}
	return true
}

// restart ends an edge's process, perhaps for a while, and starts it anew.
func restart(state bool) func(w *edgeWorld) bool {
	return func(w *edgeWorld) bool {
		var some []*simEdge
		for _, e := range w.edges {
			if (e.opt.StateFile != "") == state && !e.down {
				some = append(some, e)
			}
		}
		if len(some) == 0 {
			return false
		}
		e := choose(w, some...)
		e.wake()
		e.look()
		// One that crashes leaves the file that it wrote a while ago.
		crash := state && w.rand.IntN(2) == 0
		raw, _ := os.ReadFile(e.opt.StateFile) // perhaps it was never written
		w.mu.Lock()
		e.run++
		e.down = true
		e.unwell()
		filed := e.filed.clone()
		w.mu.Unlock()
		_ = e.v.Close()
		w.mu.Lock()
		if e.write(e.knows); !crash {
			filed = e.filed.clone()
		}
		w.mu.Unlock()
		down, back := choose(w, 0, time.Second, 20*time.Second), choose(w, 0, 0, 0, time.Minute)
		w.logf("%s: ends for %v, by a crash %t", e.name, down, crash)
		w.tasks.Go(func() {
			_ = until(context.Background(), down)
			if crash {
				_ = os.WriteFile(e.opt.StateFile, raw, 0o600)
			}
			if crash && raw == nil || !state {
				_ = os.Remove(e.opt.StateFile)
				filed = edgeModel{}
			}
			w.mu.Lock()
			e.wall -= back // its clock is set meanwhile
			switch wall := w.now().Add(e.wall); {
			case wall.Before(filed.high.Add(-time.Second)):
				w.saw("state file from the future")
				filed = edgeModel{}
			case e.wall < filed.wall || wall.Before(filed.high.Add(time.Second)):
				// The clock was set back meanwhile: it cannot know.
				_ = os.Remove(e.opt.StateFile)
				filed = edgeModel{}
			case e.wall > filed.wall:
				e.stepped = w.now() // time that did not pass counts
			}
			w.logf("%s: starts with %d keys", e.name, len(filed.keys))
			w.mu.Unlock()
			e.open(filed)
			w.mu.Lock()
			e.well(w.now())
			w.mu.Unlock()
		})
		return true
	}
}

// kindsOfEvents are what the fixed budget of worlds has to see.
func kindsOfEvents() []string {
	kinds := []string{
		"lost request", "lost answer", "duplicate request", "answer overtaken by a later one", "answer of a deposed node", "reset",
		"lease that ran out", "key that a backup brought back", "state file from the future", "acceptance", "refusal", "no verdict", "acceptance while cut off",
		"refusal by an end while cut off", "acceptance of a key whose end is held back", "acceptance by an answer of another epoch",
		"acceptance of an imported key", "acceptance by an edge that knows one role", "refusal of a key that only another edge knows",
	}
	for _, list := range [][]event{decisions, upsets} {
		for i := range list {
			kinds = append(kinds, list[i].kind)
		}
	}
	return kinds
}
