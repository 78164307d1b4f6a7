// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// scene is an operation that writes, with what it needs and leads to.
type scene struct {
	name    string
	prepare func(m *testMount, w *world)
	op      func(m *testMount, w *world) error
	// repeat is op where a repetition is something else.
	repeat func(m *testMount, w *world) error
	// kills: it ends keys, which goes before keeping the calendar.
	kills bool
	// only: what else it may not fail for is all but the record of role a.
	only bool
	// tick: op is a run of the periodic function, which tries again by itself.
	tick bool
}

// send sends a request as a server does: one whose existence check fails goes no
// further.
func (m *testMount) send(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.t.Helper()
	req := m.request
	req.Operation, req.Path, req.Data, req.Storage = op, path, data, m.storage
	if op == logical.UpdateOperation {
		found, exists, err := m.HandleExistenceCheck(context.Background(), &req)
		if err != nil {
			return respond(err)
		}
		if found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	resp, err := m.HandleRequest(context.Background(), &req)
	if err == nil && resp != nil && resp.IsError() {
		err = resp.Error()
	}
	return resp, err
}

// writing is an operation that is one request.
func writing(path string, data map[string]any) func(*testMount, *world) error {
	return func(m *testMount, _ *world) error {
		_, err := m.send(logical.UpdateOperation, path, data)
		return err
	}
}

func ticking(m *testMount, _ *world) error {
	_, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
	return err
}

// faultsAt says which faults make a difference at a call. A crash before a write
// leaves what a crash after the write before it leaves.
func faultsAt(call string, warm, first bool) []fault {
	write := strings.HasPrefix(call, "put ") || strings.HasPrefix(call, "delete ")
	switch {
	case warm && write && first:
		return allFaults
	case warm && write:
		return []fault{faultFail, faultApplied, faultApplyCrash, faultReadOnly}
	case write:
		return nil
	default:
		return []fault{faultFail}
	}
}

// play runs the scene once for every fault at every call to storage, and
// compares what it comes to with the same without fault.
func (sc *scene) play(test *testing.T) {
	test.Helper()
	t := withoutSchemas{test}
	first := newMount(t)
	w := newWorld()
	sc.prepare(first, w)
	if t.Failed() {
		t.FailNow()
	}
	start, at := dump(t, first.storage), first.clock.Now()
	begin := func(warm bool) (*probe, *testMount, *world) {
		clock := newFakeClock()
		clock.set(at)
		p := newProbe(copyStorage(t, start))
		m := mountOn(t, p, clock)
		m.request = first.request
		w := w.clone()
		if warm {
			w.check(m, false)
		}
		return p, m, w
	}
	for _, warm := range []bool{true, false} {
		p, m, w := begin(warm)
		p.reset()
		if err := sc.op(m, w); err != nil && !sc.tick {
			t.Fatalf("without fault: %v", err)
		}
		calls := append([]string(nil), p.log...)
		w.check(m, true)
		if sc.only {
			w.erased(m)
		}
		w.filedOnce(m)
		want := sc.after(m, w, true)
		if t.Failed() {
			t.Fatalf("without fault")
		}
		lists, wrote := map[string]int{}, false
		for n := 1; n <= len(calls); n++ {
			if family, isList := strings.CutPrefix(calls[n-1], "list "); isList {
				family, _, _ = strings.Cut(family, "/")
				if lists[family]++; lists[family] > 2 {
					continue // tidy and the walk make many, all alike
				}
			}
			faults := faultsAt(calls[n-1], warm, !wrote)
			wrote = wrote || len(faults) > 1
			for _, f := range faults {
				err := sc.faulted(t, begin, warm, n, f, want)
				if once := f == faultFail || f == faultApplied; err != nil && sc.only && warm && once && !strings.HasSuffix(calls[n-1], " role/a") {
					t.Errorf("a kill failed because something else did: %v", err)
				}
				if t.Failed() {
					t.Fatalf("warm %v: fault %d at call %d of %s", warm, f, n, strings.Join(calls[max(0, n-20):], ", "))
				}
			}
		}
	}
}

// withoutSchemas spares the comparison of each answer with its schema.
type withoutSchemas struct{ testing.TB }

func (sc *scene) faulted(t testing.TB, begin func(bool) (*probe, *testMount, *world), warm bool, n int, f fault, want map[string]string) error {
	t.Helper()
	p, m, w := begin(warm)
	p.arm(n, f)
	err := sc.op(m, w)
	hit := p.hit()
	p.reset()
	if hit && f == faultReadOnly && err != nil && !sc.tick && err != logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
		t.Errorf("the error is %v, must be the plain read-only error", err)
	}
	w.late = sc.kills
	again := m.restart()
	acknowledged := err == nil && !sc.tick
	anew := w.check(again, acknowledged)
	if f == faultCrash || f == faultApplyCrash {
		m = again
	} else {
		if same := w.check(m, acknowledged); !reflect.DeepEqual(same, anew) {
			t.Errorf("verify says %v, and after a restart %v", same, anew)
		}
	}
	if got := sc.after(m, w, f != faultFail && f != faultReadOnly); !reflect.DeepEqual(got, want) {
		for k := range want {
			if got[k] != want[k] {
				t.Errorf("%s:\n %s, want\n %s", k, got[k], want[k])
			}
		}
		for k := range got {
			if _, ok := want[k]; !ok {
				t.Errorf("%s: %s, want none", k, got[k])
			}
		}
	}
	return err
}

// after repeats the operation, lets everything due happen, and tells what that
// came to. swept: tidy is to find what is left behind.
func (sc *scene) after(m *testMount, w *world, swept bool) map[string]string {
	m.t.Helper()
	repeat := sc.op
	if sc.repeat != nil {
		repeat = sc.repeat
	}
	if err := repeat(m, w); err != nil {
		m.t.Errorf("repeated: %v", err)
	}
	w.check(m, !sc.tick)
	// Beyond the wait after a first failure.
	m.clock.advance(70 * time.Second)
	m.tick()
	m.clock.advance(time.Minute)
	m.tick()
	w.check(m, true)
	outcome := w.outcome(m)
	if !swept && !sc.kills {
		return outcome
	}
	m.clock.advance(3 * time.Hour)
	m.tick()
	m.write("tidy", nil)
	w.late = false
	w.check(m, true)
	w.leftovers(m)
	w.idle(m)
	return outcome
}

// hit: the fault has happened.
func (p *probe) hit() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at > 0 && p.calls >= p.at
}

func TestFaultsOfEveryOperation(t *testing.T) {
	t.Parallel()
	for _, group := range [][]scene{roleScenes(), rotationScenes(), killScenes(), dynamicScenes(), leakScenes(), otherScenes(), tickScenes()} {
		for _, sc := range group {
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				sc.play(t)
			})
		}
	}
}

// pair makes static role a with an ended and a live key, and role b beside it.
func pair(policy map[string]any) func(*testMount, *world) {
	return func(m *testMount, w *world) {
		data := map[string]any{"rotation_period": 0, "grace_period": "20h"}
		for k, v := range policy {
			data[k] = v
		}
		m.write("roles/b", map[string]any{"rotation_period": 0})
		w.holdLive(m, "b", "b1")
		m.write("roles/a", data)
		w.hold(m, "a", "a1")
		m.clock.advance(time.Minute)
		m.write("rotate/a", map[string]any{"grace_period": 0})
		w.hold(m, "a", "a2")
		w.roleID = m.read("roles/a")["role_id"].(string)
	}
}

func then(steps ...func(*testMount, *world)) func(*testMount, *world) {
	return func(m *testMount, w *world) {
		for _, step := range steps {
			step(m, w)
		}
	}
}

// kill names keys that the operation has to end.
func kill(names ...string) func(*testMount, *world) {
	return func(_ *testMount, w *world) {
		for _, n := range names {
			w.kills[n] = true
		}
	}
}

// keeps names keys that the operation must not end.
func keeps(names ...string) func(*testMount, *world) {
	return func(_ *testMount, w *world) {
		for _, n := range names {
			w.live[n] = true
		}
	}
}

func does(path string, data map[string]any) func(*testMount, *world) {
	return func(m *testMount, _ *world) { m.write(path, data) }
}

func waits(d time.Duration) func(*testMount, *world) {
	return func(m *testMount, _ *world) { m.clock.advance(d); m.tick() }
}

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
		{name: "disable", prepare: then(pair(nil), kill("a2")), op: writing("roles/a", map[string]any{"disabled": true})},
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
		})
	}
	removed := func(m *testMount, _ *world) { m.remove("a") }
	restore := func(m *testMount, w *world) error {
		_, err := m.send(logical.UpdateOperation, "restore/"+w.roleID, nil)
		return err
	}
	return append(all, scene{name: "restore", prepare: then(pair(nil), removed), op: restore})
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
	return []scene{
		{name: "rotate", prepare: then(pair(nil), keeps("a2")), op: action("rotate/a", map[string]any{})},
		{name: "rotate without grace", prepare: then(pair(nil), kill("a2")), op: action("rotate/a", map[string]any{"grace_period": 0})},
		{name: "rotate what has a plan", prepare: then(pair(map[string]any{"rotation_period": "30d"}), keeps("a2")), op: action("rotate/a", map[string]any{})},
		{name: "rotate what has a long history", prepare: then(pair(nil), long), op: action("rotate/a", map[string]any{"grace_period": 0})},
		{name: "rotate over a pending one", prepare: then(pair(nil), staged, holdPending, kill("a3"), keeps("a2")), op: action("rotate/a", map[string]any{})},
		{name: "stage", prepare: then(pair(nil), keeps("a2")), op: action("rotate/a", map[string]any{"stage": true})},
		{name: "activate at", prepare: then(pair(nil), keeps("a2")), op: action("rotate/a", map[string]any{"activate_at": "40m", "grace_period": "20h"})},
		{name: "promote", prepare: then(pair(nil), staged, holdPending, keeps("a3")), op: action("promote/a", map[string]any{})},
		{name: "promote at", prepare: then(pair(nil), staged, holdPending, keeps("a3")), op: action("promote/a", map[string]any{"activate_at": "30m"})},
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
		{name: "lease revoked", prepare: then(role, keeps("other"), kill("d1")), op: lease(logical.RevokeOperation)},
		{name: "revoke one dynamic key", prepare: then(role, keeps("other"), kill("d1")), op: func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "revoke/d", map[string]any{"key_id": w.note["id"]})
			return err
		}},
		{name: "rotate a generation", prepare: then(role, keeps("other", "d1")), op: writing("rotate/d", map[string]any{"request_id": requestID})},
		{name: "end a generation", prepare: then(role, kill("other", "d1")), op: writing("rotate/d", map[string]any{"request_id": requestID, "grace_period": 0, "force": true})},
		{name: "revoke a generation", prepare: then(role, kill("other", "d1")), op: writing("revoke/d", map[string]any{"request_id": requestID, "version": 1})},
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
		all = append(all, scene{name: "report, " + onLeak, prepare: then(pair(policy), after), op: report("a2"), kills: true})
		dynamic := func(m *testMount, w *world) {
			m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "20h", "on_leak": onLeak, "leak_grace_period": "10h"})
			w.issue(m, "d", "other")
			w.issue(m, "d", "d1")
			w.live["other"] = true
			w.kills["d1"] = onLeak == "revoke"
			w.live["d1"] = onLeak != "revoke"
		}
		all = append(all, scene{name: "report of a dynamic key, " + onLeak, prepare: dynamic, op: report("d1")})
	}
	deferred := then(pair(nil), does("config", map[string]any{"max_leak_actions": 0}))
	all = append(all, scene{name: "report, deferred", prepare: then(deferred, keeps("a2")), op: report("a2")})
	return append(all, scene{
		name: "release", kills: true, prepare: then(deferred, func(m *testMount, w *world) {
			w.note["id"] = m.read("creds/a")["key_id"].(string)
			m.write("report", map[string]any{"key": w.keys["a2"]})
		}, kill("a2")),
		op: func(m *testMount, w *world) error {
			_, err := m.send(logical.UpdateOperation, "report/release", map[string]any{"key_ids": w.note["id"]})
			return err
		},
	})
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
		{name: "import by digest", prepare: pair(nil), op: importing(`{"role":"i","sha256":"` + sha(value) + `"}`)},
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
		{name: "bulk rotation", prepare: then(pair(nil), keeps("a2"), does("bulk", map[string]any{"action": "rotate", "roles": "a", "dry_run": false}))},
	}
	for i := range all {
		all[i].op, all[i].tick = ticking, true
		all[i].kills = strings.HasPrefix(all[i].name, "bulk")
	}
	return all
}
