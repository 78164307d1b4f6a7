// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
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
	// only: it may fail for nothing but the record that it decides by and commits: the
	// role's, or where spares says so others too.
	only   bool
	spares func(call string) bool
	// stored: what it kills is not erased.
	stored bool
	// tick: op is a run of the periodic function, which tries again by itself.
	tick bool
	// again: op makes once more what failed once.
	again bool
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
		if sc.only && !sc.stored {
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
				err := sc.faulted(t, begin, warm, n, f, calls[n-1], want)
				if once := f == faultFail || f == faultApplied; err != nil && sc.only && !sc.tick && once && !sc.decides(calls[n-1]) {
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

// decides reports whether the call reads or commits what the scene goes by.
func (sc *scene) decides(call string) bool {
	return strings.HasSuffix(call, " role/a") || sc.spares != nil && sc.spares(call)
}

func (sc *scene) faulted(t testing.TB, begin func(bool) (*probe, *testMount, *world), warm bool, n int, f fault, call string, want map[string]string) error {
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
	if sc.tick && sc.only && (f == faultFail || f == faultApplied) {
		acknowledged = !sc.decides(call) // it does not wait for the next run
	}
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
