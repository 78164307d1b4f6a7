// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

const requestID = "fault-scene-1"

func roleScenes() []scene {
	all := []scene{
		{name: "create static", prepare: pair(nil), op: writing("roles/n", map[string]any{"owner": "me", "rotation_period": "30d"})},
		{name: "create dynamic", prepare: pair(nil), op: writing("roles/n", map[string]any{"type": "dynamic"})},
		{name: "update", prepare: then(pair(nil), keeps("a2")), op: writing("roles/a", map[string]any{"grace_period": "2h", "rotation_period": "30d"})},
		{name: "patch", prepare: then(pair(nil), keeps("a2")), op: func(m *testMount, _ *world) error {
			_, err := m.send(logical.PatchOperation, "roles/a", map[string]any{"rotation_period": nil})
			return err
		}},
		{name: "disable", prepare: then(pair(nil), kill("a2")), op: writing("roles/a", map[string]any{"disabled": true}), kills: true, only: true, stored: true},
		{name: "config", prepare: pair(nil), op: writing("config", map[string]any{"stage_ahead": "20m", "delete_recovery": "1h"})},
	}
	for _, recovery := range []string{"24h", "0"} {
		all = append(all, scene{
			name:    "delete, recovery " + recovery,
			prepare: then(pair(nil), does("config", map[string]any{"delete_recovery": recovery}), kill("a1", "a2")),
			op: func(m *testMount, _ *world) error {
				_, err := m.send(logical.DeleteOperation, "roles/a", nil)
				return err
			},
			kills: true, only: true, stored: recovery != "0",
		})
	}
	removed := func(m *testMount, _ *world) { m.remove("a") }
	restore := func(m *testMount, w *world) error {
		_, err := m.send(logical.UpdateOperation, "restore/"+w.roleID, nil)
		return err
	}
	renamed := func(m *testMount, _ *world) { m.rename("a", "m") }
	again := func(m *testMount, _ *world) { m.remove("m") }
	holder := does("roles/n", map[string]any{"type": "dynamic"}) // a check uses the keys of a static one
	rename := func(data map[string]any) func(*testMount, *world) error {
		return func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "restore/"+w.roleID, data)
			return err
		}
	}
	toN := rename(map[string]any{"name": "n"})
	return append(all,
		scene{name: "restore", prepare: then(pair(nil), removed), op: restore},
		scene{name: "rename", prepare: then(pair(map[string]any{"rotation_period": "30d"}), removed), op: toN},
		scene{name: "rename again", prepare: then(pair(nil), renamed, again), op: toN},
		scene{name: "rename back", prepare: then(pair(nil), renamed, again), op: rename(map[string]any{"name": "a"})},
		scene{name: "restore what was renamed", prepare: then(pair(nil), renamed, again), op: restore},
		scene{name: "rename over a holder", prepare: then(pair(nil), removed, holder), op: rename(map[string]any{"name": "n", "force": true})},
		scene{name: "delete what was renamed", prepare: then(pair(nil), renamed, kill("a1", "a2")), op: func(m *testMount, _ *world) error {
			_, err := m.send(logical.DeleteOperation, "roles/m", nil)
			return err
		}},
		scene{name: "rotate what was renamed", prepare: then(pair(nil), renamed, keeps("a2")), op: writing("rotate/m", map[string]any{"request_id": requestID})},
		scene{name: "purge what was renamed", prepare: then(pair(nil), renamed, again, waits(23*time.Hour+50*time.Minute), kill("a1", "a2")), tick: true, op: func(m *testMount, w *world) error {
			m.clock.advance(15 * time.Minute)
			return ticking(m, w)
		}, repeat: ticking},
	)
}

func rotationScenes() []scene {
	action := func(path string, data map[string]any) func(*testMount, *world) error {
		data["request_id"] = requestID
		return writing(path, data)
	}
	staged := does("rotate/a", map[string]any{"stage": true})
	holdPending := func(m *testMount, w *world) {
		w.keys["a3"] = m.read("creds/a/pending")["api_key"].(string)
	}
	// A role whose history and list of versions are full.
	long := func(m *testMount, w *world) {
		for range 24 {
			m.write("rotate/a", map[string]any{"grace_period": 0})
		}
		m.tick()
		w.hold(m, "a", "a2")
	}
	ends := func(until string) func(*testMount, *world) error {
		return action("grace/a", map[string]any{"valid_until": until})
	}
	rotated := does("rotate/a", map[string]any{"grace_period": "300h"})
	return []scene{
		{name: "end earlier", prepare: then(pair(nil), rotated, kill("a2")), op: ends("0"), kills: true, only: true},
		{name: "end later", prepare: then(pair(nil), rotated, keeps("a2")), op: ends("350h")},
		{name: "rotate", prepare: then(pair(nil), keeps("a2")), op: action("rotate/a", map[string]any{})},
		{name: "rotate without grace", prepare: then(pair(nil), kill("a2")), op: action("rotate/a", map[string]any{"grace_period": 0}), kills: true, only: true, spares: having("put key/", "put secret/")},
		{name: "rotate what has a plan", prepare: then(pair(map[string]any{"rotation_period": "30d"}), keeps("a2")), op: action("rotate/a", map[string]any{})},
		{name: "rotate what has a long history", prepare: then(pair(nil), long), op: action("rotate/a", map[string]any{"grace_period": 0}), kills: true, only: true, spares: having("put key/", "put secret/")},
		{name: "rotate over a pending one", prepare: then(pair(nil), staged, holdPending, kill("a3"), keeps("a2")), op: action("rotate/a", map[string]any{})},
		{name: "stage", prepare: then(pair(nil), keeps("a2")), op: action("rotate/a", map[string]any{"stage": true})},
		{name: "activate at", prepare: then(pair(nil), keeps("a2")), op: action("rotate/a", map[string]any{"activate_at": "40m", "grace_period": "20h"})},
		{name: "promote", prepare: then(pair(nil), staged, holdPending, keeps("a3")), op: action("promote/a", map[string]any{})},
		{name: "promote at", prepare: then(pair(nil), staged, holdPending, keeps("a3")), op: action("promote/a", map[string]any{"activate_at": "30m"})},
		{name: "promote without grace", prepare: then(pair(nil), staged, holdPending, keeps("a3"), kill("a2")), op: action("promote/a", map[string]any{"grace_period": 0}), kills: true, only: true},
		{
			name: "rollback without grace", kills: true, only: true,
			prepare: then(pair(nil), keeps("a2"), does("rotate/a", map[string]any{"grace_period": "200h"}), func(m *testMount, w *world) { w.hold(m, "a", "a3") }, kill("a3")),
			op:      action("rollback/a", map[string]any{"grace_period": 0}),
		},
		{
			name:    "rollback",
			prepare: then(pair(nil), keeps("a2"), does("rotate/a", map[string]any{"grace_period": "200h"})),
			op:      action("rollback/a", map[string]any{"pause": true}),
		},
	}
}

func killScenes() []scene {
	action := func(data map[string]any) func(*testMount, *world) error {
		data["request_id"] = requestID
		return revoking(func(*world) map[string]any { return data })
	}
	rotated := func(m *testMount, w *world) {
		m.write("rotate/a", map[string]any{"grace_period": "300h"})
		w.hold(m, "a", "a3")
	}
	staged := func(m *testMount, w *world) {
		m.write("rotate/a", map[string]any{"stage": true})
		w.keys["pending"] = m.read("creds/a/pending")["api_key"].(string)
	}
	all := []scene{
		{name: "revoke current", prepare: then(pair(nil), rotated, kill("a3"), keeps("a2")), op: action(map[string]any{"version": 3})},
		{name: "revoke current without replacement", prepare: then(pair(nil), rotated, kill("a3"), keeps("a2")), op: action(map[string]any{"version": 3, "rotate": false})},
		{name: "revoke previous", prepare: then(pair(nil), rotated, kill("a2"), keeps("a3")), op: action(map[string]any{"version": 2})},
		{name: "revoke pending", prepare: then(pair(nil), rotated, staged, kill("pending"), keeps("a2", "a3")), op: action(map[string]any{"version": 4})},
		{name: "revoke all", prepare: then(pair(nil), rotated, staged, kill("a2", "a3", "pending")), op: action(map[string]any{"all": true})},
		{name: "revoke all, no request id", prepare: then(pair(nil), rotated, staged, kill("a2", "a3", "pending")), op: revoking(func(*world) map[string]any { return map[string]any{"all": true} })},
		{name: "revoke by key id", prepare: then(pair(nil), rotated, kill("a3"), keeps("a2"), func(m *testMount, w *world) {
			w.note["id"] = m.read("creds/a")["key_id"].(string)
		}), op: revoking(func(w *world) map[string]any { return map[string]any{"key_id": w.note["id"]} })},
	}
	for i := range all {
		all[i].kills, all[i].only = true, true
	}
	return all
}

// having spares the calls with one of the prefixes.
func having(prefixes ...string) func(string) bool {
	return func(call string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(call, p) })
	}
}

// revoking kills. Where there could be no replacement the answer says so, and the
// periodic function makes it.
func revoking(data func(*world) map[string]any) func(*testMount, *world) error {
	return func(m *testMount, w *world) error {
		asked := data(w)
		resp, err := m.send(logical.UpdateOperation, "revoke/a", asked)
		if err != nil {
			return err
		}
		said, first := strings.Join(resp.Warnings, " "), w.note["told"] == ""
		w.note["told"] = "yes"
		if first && asked["rotate"] != false && resp.Data["version"] == 0 && !strings.Contains(said, "replacement could not be made") {
			m.t.Errorf("nobody is told that there is no current key: %q", said)
		}
		return nil
	}
}

func dynamicScenes() []scene {
	role := func(m *testMount, w *world) {
		m.write("roles/b", nil)
		w.holdLive(m, "b", "b1")
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "20h", "max_ttl": "40h"})
		w.issue(m, "d", "other")
		w.lease = w.issue(m, "d", "d1")
		dead := w.issue(m, "d", "dead")
		if _, err := m.onLease(logical.RevokeOperation, dead, 0); err != nil {
			m.t.Fatal(err)
		}
		w.note["id"] = w.lease.Data["key_id"].(string)
	}
	lease := func(op logical.Operation) func(*testMount, *world) error {
		return func(m *testMount, w *world) error {
			resp, err := m.onLease(op, w.lease, 0)
			if err == nil && resp != nil && resp.IsError() {
				err = resp.Error()
			}
			return err
		}
	}
	gone := func(m *testMount, w *world) { w.roleID, _ = m.remove("d") }
	renamed := func(m *testMount, _ *world) { m.rename("d", "n") }
	return []scene{
		{name: "issue", prepare: then(role, keeps("other", "d1")), op: func(m *testMount, w *world) error {
			resp, err := m.send(logical.ReadOperation, "creds/d", nil)
			if err != nil {
				return err
			}
			if got := m.verdict(resp.Data["api_key"]); got != "VALID" {
				return fmt.Errorf("the key that was issued is %s", got)
			}
			w.note["issued"] = resp.Data["api_key"].(string)
			return nil
		}},
		{name: "renew", prepare: then(role, keeps("other", "d1"), waits(time.Hour)), op: lease(logical.RenewOperation)},
		{name: "lease revoked", prepare: then(role, keeps("other"), kill("d1")), op: lease(logical.RevokeOperation), kills: true, only: true, spares: having("get key/", "put key/")},
		{name: "revoke one dynamic key", prepare: then(role, keeps("other"), kill("d1")), op: func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "revoke/d", map[string]any{"key_id": w.note["id"]})
			return err
		}, kills: true, only: true, spares: having("get role/d", "get key/", "put key/")},
		{name: "rotate a generation", prepare: then(role, keeps("other", "d1")), op: writing("rotate/d", map[string]any{"request_id": requestID})},
		{name: "end a generation", prepare: then(role, kill("other", "d1")), op: writing("rotate/d", map[string]any{"request_id": requestID, "grace_period": 0, "force": true}), kills: true, only: true, spares: having("get role/d", "put role/d")},
		{name: "rename dynamic", prepare: then(role, gone), op: func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "restore/"+w.roleID, map[string]any{"name": "n"})
			return err
		}},
		{name: "renew after a rename", prepare: then(role, renamed, keeps("other", "d1"), waits(time.Hour)), op: lease(logical.RenewOperation)},
		{name: "lease revoked after a rename", prepare: then(role, renamed, keeps("other"), kill("d1")), op: lease(logical.RevokeOperation)},
		{name: "revoke a generation", prepare: then(role, kill("other", "d1")), op: writing("revoke/d", map[string]any{"request_id": requestID, "version": 1}), kills: true, only: true, spares: having("get role/d", "put role/d")},
	}
}

func leakScenes() []scene {
	var all []scene
	report := func(name string) func(*testMount, *world) error {
		return func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "report", map[string]any{"key": w.keys[name], "source": "test"})
			return err
		}
	}
	for _, onLeak := range []string{"revoke", "rotate", "alert"} {
		policy := map[string]any{"on_leak": onLeak, "leak_grace_period": "10h"}
		after := keeps("a2")
		if onLeak == "revoke" {
			after = kill("a2")
		}
		all = append(all, scene{name: "report, " + onLeak, prepare: then(pair(policy), after), op: report("a2"), kills: true, only: true, stored: onLeak != "revoke", spares: having("get key/")})
		dynamic := func(m *testMount, w *world) {
			m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "20h", "on_leak": onLeak, "leak_grace_period": "10h"})
			w.issue(m, "d", "other")
			w.issue(m, "d", "d1")
			w.live["other"] = true
			w.kills["d1"] = onLeak == "revoke"
			w.live["d1"] = onLeak != "revoke"
		}
		all = append(all, scene{name: "report of a dynamic key, " + onLeak, prepare: dynamic, op: report("d1"), kills: true, only: true, stored: true, spares: having("get role/d", "get key/", "put key/")})
	}
	all = append(all, hiddenScenes()...)
	deferred := then(pair(nil), does("config", map[string]any{"max_leak_actions": 0}))
	all = append(all, scene{name: "report, deferred", prepare: then(deferred, keeps("a2")), op: report("a2")})
	return append(all, scene{
		name: "release", kills: true, only: true, spares: having("get deferred/", "get key/", "delete deferred/"), prepare: then(deferred, func(m *testMount, w *world) {
			w.note["id"] = m.read("creds/a")["key_id"].(string)
			m.write("report", map[string]any{"key": w.keys["a2"]})
		}, kill("a2")),
		op: func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "report/release", map[string]any{"key_ids": w.note["id"]})
			return err
		},
	})
}

// hiddenScenes end keys of roles that are deleted, and then restore those.
func hiddenScenes() []scene {
	back := func(closing func(*testMount, *world) error) func(*testMount, *world) error {
		return func(m *testMount, w *world) error {
			err := closing(m, w)
			if err != nil && !mustForward(err) {
				// What failed is known to the caller, who asks again before restoring.
				err = closing(m, w)
			}
			if err != nil {
				return err
			}
			_, err = m.send(logical.UpdateOperation, "restore/"+w.roleID, nil)
			return err
		}
	}
	report := func(key string) func(*testMount, *world) error {
		return func(m *testMount, w *world) error {
			resp, err := m.send(logical.UpdateOperation, "report", map[string]any{"key": w.keys[key], "source": "test"})
			if err == nil && resp.Data["result"] == leakUnknown {
				err = errors.New("the key is not known")
			}
			return err
		}
	}
	removed := func(m *testMount, w *world) {
		m.clock.advance(time.Minute)
		w.roleID, _ = m.remove(w.note["role"])
	}
	static := func(policy map[string]any) func(*testMount, *world) {
		return then(pair(policy), func(_ *testMount, w *world) { w.note["role"] = "a" })
	}
	var all []scene
	for _, onLeak := range []string{"revoke", "rotate", "alert"} {
		kills := func(name string) func(*testMount, *world) {
			if onLeak == "revoke" {
				return kill(name)
			}
			return func(*testMount, *world) {}
		}
		policy := map[string]any{"on_leak": onLeak, "leak_grace_period": "10h"}
		dynamic := func(m *testMount, w *world) {
			m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "20h", "on_leak": onLeak, "leak_grace_period": "10h"})
			w.issue(m, "d", "other")
			w.issue(m, "d", "d1")
			w.note["role"] = "d"
		}
		all = append(all,
			scene{name: "report in a deleted role, " + onLeak, kills: true, prepare: then(static(policy), kills("a2"), removed), op: back(report("a2"))},
			scene{name: "report of a dynamic key in a deleted role, " + onLeak, prepare: then(dynamic, kills("d1"), removed), op: back(report("d1"))})
	}
	release := then(func(m *testMount, w *world) {
		w.note["id"] = m.idOf(w.keys["a2"])
		m.write("config", map[string]any{"max_leak_actions": 0})
		m.write("report", map[string]any{"key": w.keys["a2"]})
	}, removed)
	all = append(all,
		scene{name: "revoke in a deleted role", kills: true, prepare: then(static(nil), kill("a2"), removed, func(m *testMount, w *world) {
			w.note["id"] = m.idOf(w.keys["a2"])
		}), op: back(func(m *testMount, w *world) error {
			return writing("revoke/a", map[string]any{"key_id": w.note["id"], "request_id": requestID})(m, w)
		})},
		scene{name: "report in a deleted role, deferred", prepare: then(static(nil), does("config", map[string]any{"max_leak_actions": 0}), removed), op: back(report("a2"))},
		scene{name: "release in a deleted role", kills: true, prepare: then(static(nil), kill("a2"), release), op: back(func(m *testMount, w *world) error {
			return writing("report/release", map[string]any{"key_ids": w.note["id"]})(m, w)
		})})
	for i := range all {
		all[i].again = true
	}
	return all
}

func otherScenes() []scene {
	value := strings.Repeat("x1", 16)
	importing := func(item string) func(*testMount, *world) error {
		return func(m *testMount, w *world) error {
			resp, err := m.send(logical.UpdateOperation, "import", map[string]any{"batch": item})
			if err != nil {
				return err
			}
			got := resp.Data["results"].([]any)[0].(map[string]any)
			if got["result"] == importRefused {
				return fmt.Errorf("%v", got["error"])
			}
			w.keys["imported"], w.live["imported"] = value, true
			return nil
		}
	}
	reveal := func(m *testMount, w *world) error {
		resp, err := m.send(logical.ReadOperation, "creds/a", nil)
		if err == nil {
			w.keys["revealed"], w.live["revealed"] = resp.Data["api_key"].(string), true
		}
		return err
	}
	return []scene{
		{name: "import into a new role", prepare: pair(nil), op: importing(`{"role":"i","key":"` + value + `"}`)},
		{name: "import into a role", prepare: then(pair(nil), keeps("a2")), op: importing(`{"role":"a","key":"` + value + `","grace_period":"10h"}`)},
		{
			name: "import into a role, without grace", prepare: then(pair(nil), kill("a2")), op: importing(`{"role":"a","key":"` + value + `","grace_period":0}`),
			kills: true, only: true, spares: having("get key/", "put key/", "put secret/", "get imported", "put imported"),
		},
		{name: "import by digest", prepare: pair(nil), op: importing(`{"role":"i","sha256":"` + sha(value) + `"}`)},
		{name: "import of a key whose role is gone", prepare: then(pair(nil), does("config", map[string]any{"delete_recovery": 0}), does("roles/g", nil), func(m *testMount, w *world) {
			w.note["gone"] = m.read("creds/g")["api_key"].(string)
			m.remove("g")
		}), op: func(m *testMount, w *world) error {
			if err := importing(`{"role":"i","key":"`+w.note["gone"]+`"}`)(m, w); err != nil {
				return err
			}
			w.keys["imported"] = w.note["gone"]
			return nil
		}},
		{name: "tidy after imports", prepare: then(pair(nil), does("config", map[string]any{"delete_recovery": 0}), func(m *testMount, w *world) {
			m.importForeign("gone")
			m.write("config/rotate-digest", nil)
			w.keys["kept"], w.live["kept"] = m.importForeign("kept"), true
			m.write("config/rotate-digest", nil)
			m.importForeign("late")
			m.remove("gone")
			m.remove("late")
		}, waits(2*time.Hour)), op: writing("tidy", nil)},
		{name: "digest secret", prepare: then(pair(nil), keeps("a2")), op: writing("config/rotate-digest", nil)},
		{name: "reveal once", prepare: func(m *testMount, w *world) {
			m.write("roles/b", nil)
			w.holdLive(m, "b", "b1")
			m.write("roles/a", map[string]any{"reveal": "once", "rotation_period": 0})
		}, op: reveal, repeat: func(m *testMount, w *world) error {
			// Handed out it is once at most, and its value is kept no longer.
			_, before := w.keys["revealed"]
			err := reveal(m, w)
			if before && err == nil {
				return errors.New("handed out twice")
			}
			delete(w.keys, "revealed")
			return nil
		}},
		{name: "tidy", prepare: then(pair(nil), keeps("a2"), waits(2*time.Hour)), op: writing("tidy", nil)},
		{name: "bulk", prepare: then(pair(nil), keeps("a2")), op: writing("bulk", map[string]any{"action": "rotate", "roles": "a", "dry_run": false, "request_id": requestID})},
	}
}

// tickScenes is what the periodic function does.
func tickScenes() []scene {
	passes := func(d time.Duration) func(*testMount, *world) {
		return func(m *testMount, _ *world) { m.clock.advance(d) }
	}
	planned := pair(map[string]any{"rotation_period": "24h", "grace_period": "10h"})
	all := []scene{
		{name: "staging", prepare: then(planned, keeps("a2"), passes(24*time.Hour-9*time.Minute))},
		{name: "activation", prepare: then(planned, keeps("a2"), waits(24*time.Hour-9*time.Minute), passes(10*time.Minute))},
		{name: "retirement", prepare: then(planned, kill("a2"), waits(24*time.Hour-9*time.Minute), waits(10*time.Minute), passes(10*time.Hour))},
		{name: "overdue rotation", prepare: then(planned, keeps("a2"), passes(50*time.Hour))},
		{name: "erasure", prepare: then(planned, kill("a2"), does("rotate/a", nil), waits(10*time.Hour), passes(61*time.Minute))},
		{name: "expiry", prepare: then(pair(map[string]any{"ttl": "10h"}), kill("a2"), passes(11*time.Hour))},
		{name: "lapse", prepare: then(pair(nil), keeps("a2"), does("rotate/a", map[string]any{"stage": true}), passes(169*time.Hour))},
		{name: "extension", prepare: then(pair(map[string]any{"rotation_period": "24h", "grace_period": "1h", "max_grace_period": "20h"}),
			waits(24*time.Hour-9*time.Minute), waits(10*time.Minute), passes(50*time.Minute), func(m *testMount, w *world) {
				m.expectVerdict(w.keys["a2"], "VALID")
				m.flushRest(context.Background())
				m.clock.advance(6 * time.Minute)
			})},
		{name: "usage", prepare: then(planned, keeps("a2"), does("rotate/a", nil), passes(20*time.Minute))},
		{name: "purge", prepare: then(planned, func(m *testMount, _ *world) { m.remove("a") }, kill("a2"), passes(25*time.Hour))},
		{name: "bulk revocation", prepare: then(pair(nil), kill("a2"), does("bulk", map[string]any{"action": "revoke", "roles": "a", "dry_run": false}))},
		{name: "bulk revocation without replacement", prepare: then(pair(nil), kill("a2"), does("bulk", map[string]any{"action": "revoke", "roles": "a", "dry_run": false, "rotate": false}))},
		{name: "bulk disabling", stored: true, prepare: then(pair(nil), kill("a2"), does("bulk", map[string]any{"action": "disable", "roles": "a", "dry_run": false}))},
		{name: "bulk rotation", prepare: then(pair(nil), keeps("a2"), does("bulk", map[string]any{"action": "rotate", "roles": "a", "dry_run": false}))},
	}
	for i := range all {
		all[i].op, all[i].tick = ticking, true
		if strings.HasPrefix(all[i].name, "bulk") {
			all[i].kills, all[i].only, all[i].again = true, all[i].name != "bulk rotation", true
			all[i].spares = having("get job/", "list job/", "put job/", "get mark", "put mark")
		}
	}
	return all
}
