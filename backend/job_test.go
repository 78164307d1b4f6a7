// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// slowStorage is a storage whose calls take time by the clock, and that does
// nothing for a context that is done. A write that its context's end comes across
// is carried out every other time, and is an error in either case.
type slowStorage struct {
	logical.Storage

	clock *fakeClock
	cost  time.Duration

	mu  sync.Mutex
	cut int
	// before is told of every call before it is made.
	before func(op, path string)
}

func (s *slowStorage) do(ctx context.Context, op, path string, call func() error) error {
	if s.before != nil {
		s.before(op, path)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.clock.advance(s.cost)
	err := ctx.Err()
	if err == nil {
		return call()
	}
	s.mu.Lock()
	s.cut++
	lands := s.cut%2 == 0
	s.mu.Unlock()
	if lands && (op == "put" || op == "delete") {
		_ = call()
	}
	return err
}

func (s *slowStorage) List(ctx context.Context, prefix string) (names []string, err error) {
	err = s.do(ctx, "list", prefix, func() (err error) { names, err = s.Storage.List(context.WithoutCancel(ctx), prefix); return err })
	return names, err
}

func (s *slowStorage) Get(ctx context.Context, key string) (e *logical.StorageEntry, err error) {
	err = s.do(ctx, "get", key, func() (err error) { e, err = s.Storage.Get(context.WithoutCancel(ctx), key); return err })
	return e, err
}

func (s *slowStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	return s.do(ctx, "put", e.Key, func() error { return s.Storage.Put(context.WithoutCancel(ctx), e) })
}

func (s *slowStorage) Delete(ctx context.Context, key string) error {
	return s.do(ctx, "delete", key, func() error { return s.Storage.Delete(context.WithoutCancel(ctx), key) })
}

// slowMount is a mount on a storage whose calls take a millisecond each, with a
// clock that waits.
func slowMount(t *testing.T) (*testMount, *slowStorage) {
	t.Helper()
	c := newWaitingClock()
	s := &slowStorage{Storage: &logical.InmemStorage{}, clock: c, cost: time.Millisecond}
	return mountOn(t, s, c), s
}

// minute runs one tick, which has to end in time, and lets the rest of its minute
// pass.
func (m *testMount) minute() {
	m.t.Helper()
	begin := m.clock.Now()
	m.tick()
	if took := m.clock.Now().Sub(begin); took > tickBudget {
		m.t.Errorf("a tick took %v", took)
	}
	if next := begin.Add(time.Minute); next.After(m.clock.Now()) {
		m.clock.set(next)
	}
}

// makeRoles makes that many roles with the same beginning.
func (m *testMount) makeRoles(prefix string, n int, policy map[string]any) (names []string) {
	m.t.Helper()
	for i := range n {
		names = append(names, fmt.Sprintf("%s%04d", prefix, i))
		m.write("roles/"+names[i], policy)
	}
	return names
}

func (m *testMount) startJob(fields ...any) string {
	m.t.Helper()
	data := map[string]any{"dry_run": false}
	for i := 0; i < len(fields); i += 2 {
		data[fields[i].(string)] = fields[i+1]
	}
	return m.write("bulk", data)["job"].(string)
}

// newestVersion is the number of the role's newest version.
func (m *testMount) newestVersion(role string) int64 {
	m.t.Helper()
	return number(m.t, m.read("status/" + role)["versions"].([]any)[0].(map[string]any)["version"])
}

// expectVersion fails where the newest version of a role is another.
func (m *testMount) expectVersion(n int64, roles ...string) {
	m.t.Helper()
	for _, role := range roles {
		if got := m.newestVersion(role); got != n {
			m.t.Errorf("the newest version of %s is %d, want %d", role, got, n)
		}
	}
}

// expectJob fails where the job's state or counts are others.
func (m *testMount) expectJob(id, state string, seen, acted, keys, failed int64) {
	m.t.Helper()
	job := m.read("bulk/" + id)
	got := fmt.Sprintf("%v: seen %v, acted %v, keys %v, failed %v", job["state"], job["seen"], job["acted"], job["keys"], job["failed"])
	if want := fmt.Sprintf("%v: seen %v, acted %v, keys %v, failed %v", state, seen, acted, keys, failed); got != want {
		m.t.Errorf("the job is %s, want %s; failures: %v", got, want, job["failures"])
	}
}

// TestJobsComeToTheirEnd at whatever pace: a tick does what its time and the pace
// allow, and the next goes on from there.
func TestJobsComeToTheirEnd(t *testing.T) {
	for _, pace := range []int{1, 2, 20, 0} {
		for _, roles := range []int{30, 300} {
			t.Run(fmt.Sprintf("pace %d, %d roles", pace, roles), func(t *testing.T) {
				m, _ := slowMount(t)
				names := m.makeRoles("r", roles, nil)
				job := m.startJob("action", "rotate", "name_prefix", "r", "pace", pace)
				ticks := 0
				for ; m.read("bulk/" + job)["state"] == "running"; ticks++ {
					before := number(t, m.read("bulk/" + job)["acted"])
					m.minute()
					acted := number(t, m.read("bulk/" + job)["acted"]) - before
					if left := int64(roles) - before; acted == 0 || pace > 0 && acted < min(left, int64(pace)*2) {
						t.Fatalf("tick %d did %d roles", ticks, acted)
					}
					if most := int64(pace) * 4; pace > 0 && acted > most {
						t.Fatalf("tick %d did %d roles, the pace lets it do %d", ticks, acted, most)
					}
				}
				m.expectJob(job, "done", int64(roles), int64(roles), 0, 0)
				m.expectVersion(2, names...)
			})
		}
	}
}

// TestJobsComeToTheirEndDuringABacklog: rotations that are due take no job's time,
// nor a job theirs.
func TestJobsComeToTheirEndDuringABacklog(t *testing.T) {
	m, _ := slowMount(t)
	m.makeRoles("due", 600, map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	m.makeRoles("r", 30, nil)
	m.clock.advance(3 * time.Hour)
	job := m.startJob("action", "rotate", "name_prefix", "r")
	overdue := func() (n int) {
		for i := range 600 {
			if m.newestVersion(fmt.Sprintf("due%04d", i)) == 1 {
				n++
			}
		}
		return n
	}
	first := overdue()
	m.minute()
	acted := number(t, m.read("bulk/" + job)["acted"])
	if left := overdue(); acted == 0 || left > first-50 || left == 0 {
		t.Fatalf("one tick did %d of 30 roles, and left %d of %d rotations", acted, left, first)
	}
	for i := 0; i < 3 && m.read("bulk/" + job)["state"] == "running"; i++ {
		m.minute()
	}
	m.expectJob(job, "done", 30, 30, 0, 0)
}

// TestJobsGoOnWithSlowStorage: what has been done is stored although the tick's time
// is over, and within it.
func TestJobsGoOnWithSlowStorage(t *testing.T) {
	for _, cost := range []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 90 * time.Millisecond} {
		t.Run(cost.String(), func(t *testing.T) {
			m, s := slowMount(t)
			names := m.makeRoles("r", 12, nil)
			job := m.startJob("action", "rotate", "name_prefix", "r")
			s.cost = cost
			for range 20 {
				m.minute()
			}
			m.expectJob(job, "done", 12, 12, 0, 0)
			m.expectVersion(2, names...)
		})
	}
}

// TestJobsLeaveTimeForTheRest: what is due, counts of use and tidying happen in each
// minute of a job that has to wait for its pace.
func TestJobsLeaveTimeForTheRest(t *testing.T) {
	m, _ := slowMount(t)
	m.makeRoles("r", 30, nil)
	m.write("roles/due", map[string]any{"rotation_period": "1h", "grace_period": "10m"})
	for _, pace := range []int{1, 2, 0} {
		m.startJob("action", "rotate", "name_prefix", "r", "pace", pace)
	}
	key := m.read("creds/due")["api_key"]
	tidied := func() string {
		rec, err := getRecord[tidyRecord](t.Context(), m.storage, tidyPath)
		if err != nil || rec == nil {
			return ""
		}
		return rec.Finished.String() + rec.Stage + rec.After
	}
	m.write("tidy", nil)
	for range 3 {
		m.write("verify", map[string]any{"key": key})
		m.clock.advance(usageInterval)
		before := tidied()
		m.minute()
		if len(m.usage.counter.Due(m.clock.Now(), 0)) != 0 {
			t.Error("a use that was counted is not stored")
		}
		if tidied() == before {
			t.Error("nothing was tidied")
		}
		m.write("tidy", nil)
	}
	m.clock.advance(time.Hour)
	m.minute()
	if m.newestVersion("due") == 1 {
		t.Error("a rotation that was due did not happen")
	}
}

// TestJobsThatEndKeysGoFirst, and the others are not kept from going on, nor is one
// that ends keys by another.
func TestJobsThatEndKeysGoFirst(t *testing.T) {
	m, s := slowMount(t)
	roles := m.makeRoles("r", 60, nil)
	m.makeRoles("k", 600, nil)
	s.cost = 2 * time.Millisecond
	rotate := m.startJob("action", "rotate", "name_prefix", "r", "pace", 0)
	kills := []string{
		m.startJob("action", "revoke", "name_prefix", "k", "rotate", false, "pace", 0),
		m.startJob("action", "disable", "name_prefix", "k", "pace", 0),
	}
	acted := func(id string) int64 { return number(t, m.read("bulk/" + id)["acted"]) }
	m.minute()
	one, other, behind := acted(kills[0]), acted(kills[1]), acted(rotate)
	if one-other > 1 || other-one > 1 || one < 20 {
		t.Errorf("of two that end keys one did %d roles, the other %d", one, other)
	}
	if want := (one + other) / (jobTurns - 1); behind < want-1 || behind > want+1 {
		t.Errorf("the one that ends none did %d roles beside %d, want %d", behind, one+other, want)
	}
	for range 20 {
		m.minute()
	}
	m.expectJob(kills[0], "done", 600, 600, 0, 0)
	m.expectJob(kills[1], "done", 600, 600, 0, 0)
	m.expectJob(rotate, "done", 60, 60, 0, 0)
	m.expectVersion(2, roles...)
}

// TestJobWaitsForItsPaceAlone: no other job waits with it.
func TestJobWaitsForItsPaceAlone(t *testing.T) {
	m, _ := slowMount(t)
	m.makeRoles("r", 40, nil)
	slow := m.startJob("action", "revoke", "name_prefix", "r", "pace", 1)
	quick := m.startJob("action", "rotate", "name_prefix", "r", "pace", 20)
	m.minute()
	m.expectJob(quick, "done", 40, 40, 0, 0)
	if got := number(t, m.read("bulk/" + slow)["acted"]); got < 3 || got > 4 {
		t.Errorf("at a pace of 1 a tick did %d roles", got)
	}
	// What it may do is not given anew by each tick.
	for range 3 {
		m.tick()
	}
	if got := number(t, m.read("bulk/" + slow)["acted"]); got > 4+3*3 {
		t.Errorf("at a pace of 1 ten seconds did %d roles", got)
	}
}

// TestStoppedJobEndsWithTheRoleInHand: not one role more, not one key more.
func TestStoppedJobEndsWithTheRoleInHand(t *testing.T) {
	t.Run("roles", func(t *testing.T) {
		m, s := slowMount(t)
		names := m.makeRoles("r", 50, nil)
		for _, pace := range []int{0, 20} {
			m = mountOn(t, s, m.clock)
			writes := 0
			job := m.startJob("action", "rotate", "name_prefix", "r", "pace", pace)
			s.before = func(op, path string) {
				if op == "put" && strings.HasPrefix(path, rolePrefix) {
					if writes++; writes == 7 {
						m.must(logical.DeleteOperation, "bulk/"+job, nil)
					}
				}
			}
			m.minute()
			m.minute()
			s.before = nil
			m.expectJob(job, "stopped", 7, 7, 0, 0)
			m.must(logical.DeleteOperation, "bulk/"+job, nil)
			if writes != 7 {
				t.Errorf("%d roles were rotated", writes)
			}
		}
		m.expectVersion(3, names[:7]...)
		m.expectVersion(1, names[7:]...)
	})
	t.Run("keys", func(t *testing.T) {
		m, s := slowMount(t)
		m.issueTo("d", "leaver", 50)
		job := m.startJob("action", "revoke", "issued_to", "leaver")
		writes := 0
		s.before = func(op, path string) {
			if op == "put" && strings.HasPrefix(path, keyPrefix) {
				if writes++; writes == 7 {
					m.must(logical.DeleteOperation, "bulk/"+job, nil)
				}
			}
		}
		m.minute()
		m.minute()
		s.before = nil
		m.expectJob(job, "stopped", 0, 0, 7, 0)
		if writes != 7 {
			t.Errorf("%d keys were revoked", writes)
		}
		if got := m.storedJob(job); got.Schema != 1 || got.Inside != nil {
			t.Errorf("a job that was stopped has a place to go on from: %+v", got)
		}
	})
	t.Run("at another node", func(t *testing.T) {
		m, s := slowMount(t)
		names := m.makeRoles("r", 20, nil)
		job := m.startJob("action", "rotate", "name_prefix", "r", "pace", 0)
		writes := 0
		s.before = func(op, path string) {
			if op != "put" || !strings.HasPrefix(path, rolePrefix) {
				return
			}
			if writes++; writes == 7 {
				rec := m.storedJob(job)
				rec.State, rec.Finished = jobStopped, m.clock.Now()
				plant(t, s.Storage, jobPath(job), rec)
			}
		}
		m.minute()
		s.before = nil
		m.expectJob(job, "stopped", 7, 7, 0, 0)
		m.expectVersion(1, names[7:]...)
	})
}

// TestStopThatFailsIsNone: where storage does not take it the job goes on with the
// next tick, and nothing of it is lost.
func TestStopThatFailsIsNone(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	names := m.makeRoles("r", 5, nil)
	job := m.startJob("action", "rotate", "name_prefix", "r", "pace", 2)
	m.minute()
	p.arm(2, faultFail)
	if _, err := m.do(logical.DeleteOperation, "bulk/"+job, nil); err == nil {
		t.Fatal("the job could be stopped")
	}
	p.reset()
	for range 3 {
		m.minute()
	}
	m.expectJob(job, "done", 5, 5, 0, 0)
	m.expectVersion(2, names...)
}

// storedJob is the job's record.
func (m *testMount) storedJob(id string) *jobRecord {
	m.t.Helper()
	job, err := getRecord[jobRecord](context.Background(), m.storage, jobPath(id))
	if err != nil || job == nil {
		m.t.Fatal(job, err)
	}
	return job
}

// issueTo issues keys of a dynamic role, which is made where there is none.
func (m *testMount) issueTo(role, entity string, n int) (keys []string) {
	m.t.Helper()
	if resp, err := m.do(logical.ReadOperation, "roles/"+role, nil); err != nil || resp == nil {
		m.write("roles/"+role, map[string]any{"type": "dynamic", "ttl": "40h", "max_ttl": "40h"})
	}
	before := m.request.EntityID
	defer func() { m.request.EntityID = before }()
	m.request.EntityID = entity
	for range n {
		keys = append(keys, m.lease(role, nil).Data["api_key"].(string))
	}
	return keys
}

// TestJobGoesOnInsideARole over a crash in each tick: all of a role's many keys are
// killed, none of another's, and each is counted once.
func TestJobGoesOnInsideARole(t *testing.T) {
	const n = 5000
	m, s := slowMount(t)
	leaver := m.issueTo("d", "leaver", n)
	stayer := m.issueTo("d", "stayer", 50)
	more := m.issueTo("e", "leaver", 3)
	m.write("roles/c", nil)
	job := m.startJob("action", "revoke", "issued_to", "leaver", "reason", "left")
	ticks := 0
	for ; m.read("bulk/" + job)["state"] == "running"; ticks++ {
		before := m.storedJob(job)
		lists := 0
		s.before = func(op, path string) {
			if op == "list" && (path == rolePrefix || strings.HasPrefix(path, issuedPrefix)) {
				lists++
			}
		}
		m.minute()
		s.before = nil
		after := m.storedJob(job)
		if after.Keys-before.Keys < 200 && after.State == jobRunning {
			t.Fatalf("tick %d killed %d keys", ticks, after.Keys-before.Keys)
		}
		if inside := after.Inside != nil; inside != (after.Schema == jobInsideSchema) || inside != (after.State == jobRunning) {
			t.Errorf("the record after tick %d: %+v", ticks, after)
		}
		if lists > 3 { // the roles, and the keys of d and e
			t.Errorf("tick %d listed %d times", ticks, lists)
		}
		m = mountOn(t, s, m.clock)
	}
	if ticks < 4 {
		t.Errorf("done in %d ticks: nothing was tested", ticks)
	}
	m.expectJob(job, "done", 3, 2, n+3, 0)
	for _, key := range append(leaver, more...) {
		if got := m.write("verify", map[string]any{"key": key})["code"]; got != "REVOKED" {
			t.Fatalf("a key is %v", got)
		}
	}
	for _, key := range stayer {
		m.expectVerdict(key, "VALID")
	}
}

// TestPlaceInsideAnotherRoleOfTheName counts for nothing.
func TestPlaceInsideAnotherRoleOfTheName(t *testing.T) {
	m, s := slowMount(t)
	m.issueTo("d", "leaver", 300)
	s.cost = 10 * time.Millisecond
	job := m.startJob("action", "revoke", "issued_to", "leaver", "pace", 1)
	m.minute()
	if got := m.storedJob(job); got.Inside == nil || got.After != "" {
		t.Fatalf("the job has no place inside the role: %+v", got)
	}
	m.must(logical.DeleteOperation, "roles/d", nil)
	s.cost = time.Millisecond
	keys := m.issueTo("d", "leaver", 20)
	for range 5 {
		m.minute()
	}
	for _, key := range keys {
		m.expectVerdict(key, "REVOKED")
	}
}

// TestOlderBuildsRefuseAPlaceInsideARole, which they would lose; and this one
// refuses what comes after it.
func TestOlderBuildsRefuseAPlaceInsideARole(t *testing.T) {
	type older struct{ pastRecord }
	job := &jobRecord{State: jobRunning, Inside: &jobPlace{RoleID: "x"}}
	job.fit()
	data, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	if err := decodeRecord(data, &older{}); err == nil {
		t.Error("an older build takes it")
	}
	if err := decodeRecord(data, &jobRecord{}); err != nil {
		t.Error(err)
	}
	if err := decodeRecord([]byte(`{"schema":3}`), &jobRecord{}); err == nil {
		t.Error("this build takes one of a later layout")
	}
	if err := decodeRecord([]byte(`{"schema":3,"state":{}}`), &jobRecord{}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Error(err)
	}
	if job.Inside = nil; job.Schema == 1 {
		t.Error("nothing was tested")
	}
	if job.fit(); job.Schema != 1 {
		t.Error("a record without a place is refused by older builds")
	}
}

type pastRecord struct {
	Schema int `json:"schema"`
}

func (r *pastRecord) schema() int { return r.Schema }

// TestJobKeepsWhatWasDoneWhenTheCallerGoes: in the middle of a role too.
func TestJobKeepsWhatWasDoneWhenTheCallerGoes(t *testing.T) {
	m, s := slowMount(t)
	names := m.makeRoles("r", 20, nil)
	keys := m.issueTo("z", "leaver", 20)
	rotate := m.startJob("action", "rotate", "name_prefix", "r", "pace", 0)
	for i := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		calls, most := 0, 5+i*3
		s.before = func(string, string) {
			if calls++; calls == most {
				cancel()
			}
		}
		acted := m.storedJob(rotate).Acted
		writes := m.rolesAt(2, names)
		_, _ = m.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
		cancel()
		s.before = nil
		m.clock.advance(time.Minute)
		done, stored := m.rolesAt(2, names)-writes, m.storedJob(rotate).Acted-acted
		if stored > done || stored < done-1 {
			t.Fatalf("%d roles were done, and %d stored", done, stored)
		}
	}
	m.expectJob(rotate, "done", 20, 20, 0, 0)
	m.expectVersion(2, names...)
	kill := m.startJob("action", "revoke", "issued_to", "leaver")
	for i := range 60 {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		s.before = func(string, string) {
			if calls++; calls == 10+i*2 {
				cancel()
			}
		}
		_, _ = m.HandleRequest(ctx, &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
		cancel()
		s.before = nil
		m.clock.advance(time.Minute)
	}
	m.expectJob(kill, "done", 21, 1, 20, 0)
	for _, key := range keys {
		m.expectVerdict(key, "REVOKED")
	}
}

// rolesAt is how many of the roles have that newest version.
func (m *testMount) rolesAt(version int64, roles []string) (n int) {
	m.t.Helper()
	for _, role := range roles {
		if m.newestVersion(role) == version {
			n++
		}
	}
	return n
}

// TestFaultsOfJobs: whichever call of storage fails, or is the last before a crash,
// each role is done once, and each key.
func TestFaultsOfJobs(t *testing.T) {
	m := newMount(t)
	names := m.makeRoles("r", 3, nil)
	keys := m.issueTo("z", "leaver", 4)
	start := dump(t, m.storage)
	for _, c := range []struct {
		name              string
		job               []any
		seen, acted, keys int64
	}{
		{"rotate", []any{"action", "rotate", "name_prefix", "r"}, 3, 3, 0},
		{"revoke", []any{"action", "revoke", "name_prefix", "r"}, 3, 3, 0},
		{"keys", []any{"action", "revoke", "issued_to", "leaver"}, 4, 1, 4},
	} {
		for _, f := range []fault{faultFail, faultApplied, faultCrash, faultApplyCrash, faultReadOnly} {
			t.Run(fmt.Sprintf("%s, fault %d", c.name, f), func(t *testing.T) {
				calls := 0
				for n := 1; ; n++ {
					p := newProbe(copyStorage(t, start))
					m := mountOn(t, p, newFakeClock())
					job := m.startJob(c.job...)
					m.clock.advance(time.Minute)
					p.arm(n, f)
					_ = ticking(m, nil)
					hit := p.hit()
					p.reset()
					if f >= faultCrash {
						m = m.restart()
					}
					for range 3 {
						m.clock.advance(time.Minute)
						_ = ticking(m, nil)
					}
					got := m.storedJob(job)
					if got.State != jobDone || int64(got.Seen) != c.seen || int64(got.Acted) != c.acted || int64(got.Keys) != c.keys || got.Failed != 0 {
						t.Fatalf("call %d: %+v", n, got)
					}
					if c.keys == 0 {
						m.expectVersion(2, names...)
					} else {
						for _, key := range keys {
							m.expectVerdict(key, "REVOKED")
						}
					}
					if t.Failed() {
						t.Fatalf("call %d", n)
					}
					if !hit {
						break
					}
					calls++
				}
				if calls < 15 {
					t.Errorf("%d calls failed", calls)
				}
			})
		}
	}
}

// TestJobKeepsAPartOfALongList: the roles are listed for many ticks, and of those
// that a prefix leaves out none is read.
func TestJobKeepsAPartOfALongList(t *testing.T) {
	m, s := slowMount(t)
	names := m.makeRoles("r", jobAhead+900, nil)
	m.write("roles/a", nil)
	m.write("roles/s", nil)
	m = mountOn(t, s, m.clock)
	s.cost = 2 * time.Millisecond
	job := m.startJob("action", "disable", "name_prefix", "r", "pace", 0)
	lists, ticks, others := 0, 0, 0
	s.before = func(op, path string) {
		if op == "list" && path == rolePrefix {
			lists++
		}
		if path == rolePath("a") || path == rolePath("s") {
			others++
		}
	}
	for ; m.storedJob(job).State == jobRunning; ticks++ {
		m.tidy.next = m.clock.Now().Add(tidyEvery) // it lists roles, too
		m.minute()
	}
	s.before = nil
	if ticks < 4 || lists != 2 || others != 0 {
		t.Errorf("%d lists in %d ticks, and %d calls for other roles", lists, ticks, others)
	}
	m.expectJob(job, "done", int64(len(names)), int64(len(names)), 0, 0)
	for _, name := range names {
		if m.read("roles/" + name)["disabled"] != true {
			t.Fatalf("%s was passed over", name)
		}
	}
}

// TestJobPassesOverAKeyThatFails, and tells of it.
func TestJobPassesOverAKeyThatFails(t *testing.T) {
	m, s := slowMount(t)
	keys := m.issueTo("d", "leaver", 5)
	m.issueTo("e", "leaver", 5)
	id := m.under(issuedPrefix + m.read("roles/d")["role_id"].(string) + "/")[2]
	id = id[strings.LastIndex(id, "/")+1:]
	bad := &brokenKey{Storage: s.Storage, path: keyPath(id)}
	s.Storage = bad
	job := m.startJob("action", "revoke", "issued_to", "leaver")
	m.minute()
	m.expectJob(job, "done", 2, 1, 9, 1)
	if got := fmt.Sprint(m.read("bulk/" + job)["failures"]); !strings.Contains(got, "1 keys could not be revoked, the last one: ") {
		t.Error(got)
	}
	bad.path = ""
	ended := 0
	for _, key := range keys {
		if m.write("verify", map[string]any{"key": key})["code"] == "REVOKED" {
			ended++
		}
	}
	if ended != 4 {
		t.Errorf("%d of 5 keys were revoked", ended)
	}
}

// brokenKey is a storage that takes no write to one path.
type brokenKey struct {
	logical.Storage

	path string
}

func (s *brokenKey) Put(ctx context.Context, e *logical.StorageEntry) error {
	if e.Key == s.path {
		return errStorage
	}
	return s.Storage.Put(ctx, e)
}

// TestStoppingWhileTheTickIsAtWork from other goroutines.
func TestStoppingWhileTheTickIsAtWork(t *testing.T) {
	m := newMount(t)
	m.makeRoles("r", 200, nil)
	var jobs []string
	for range 8 {
		jobs = append(jobs, m.startJob("action", "rotate", "name_prefix", "r", "pace", 0))
	}
	var wg sync.WaitGroup
	for _, id := range jobs {
		wg.Go(func() {
			req := m.request
			req.Operation, req.Path, req.Storage = logical.DeleteOperation, "bulk/"+id, m.storage
			if _, err := m.HandleRequest(context.Background(), &req); err != nil {
				t.Error(err)
			}
		})
	}
	m.tick()
	wg.Wait()
	m.tick()
	for _, id := range jobs {
		job, err := getRecord[jobRecord](context.Background(), m.storage, jobPath(id))
		// One that had ended before is forgotten.
		if err != nil || job != nil && job.State != jobStopped {
			t.Errorf("a job that was stopped: %+v %v", job, err)
		}
	}
}

// TestCrashRepeatsOneRoleAtMost, and that one is recognised: at whatever call a job is
// cut off, no more than one role that it did is not stored.
func TestCrashRepeatsOneRoleAtMost(t *testing.T) {
	m := newMount(t)
	names := m.makeRoles("r", 6, nil)
	start := dump(t, m.storage)
	for n := 1; ; n++ {
		p := newProbe(copyStorage(t, start))
		m := mountOn(t, p, newFakeClock())
		job := m.startJob("action", "rotate", "name_prefix", "r")
		m.clock.advance(time.Minute)
		p.arm(n, faultApplyCrash)
		_ = ticking(m, nil)
		hit := p.hit()
		p.reset()
		m = m.restart()
		done, stored := m.rolesAt(2, names), m.storedJob(job)
		if done-stored.Acted > 1 || stored.Acted > done || stored.Seen != stored.Acted {
			t.Fatalf("call %d: %d roles are done, and stored is %+v", n, done, stored)
		}
		if !hit {
			break
		}
	}
}

// TestWorkerIsWokenForWhatItCanSee: a worker that is woken before the list of jobs is
// out of date finds nothing to do, and sleeps for a minute. A repeated request wakes it
// too: the job may be new to this node.
func TestWorkerIsWokenForWhatItCanSee(t *testing.T) {
	s := &watched{Storage: &logical.InmemStorage{}, before: func(string, string) {}}
	m := mountOn(t, s, newFakeClock())
	m.makeRoles("r", 1, nil)
	m.wake.due(m.clock.Now().Add(time.Hour)) // nobody wants it now
	if _, err := m.openJobs(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	// The list cannot be forgotten from the write of the job on: so nobody is woken.
	var written atomic.Bool
	s.before = func(op, path string) {
		if op == "put" && strings.HasPrefix(path, jobPrefix) {
			m.jobs.mu.Lock()
			written.Store(true)
		}
	}
	request := map[string]any{"action": "rotate", "roles": "r0000", "dry_run": false, "request_id": "wake-up-1"}
	made := make(chan int)
	go func() { made <- m.status(logical.UpdateOperation, "bulk", request) }()
	for !written.Load() {
		runtime.Gosched()
	}
	for range 10_000 {
		runtime.Gosched()
	}
	early := !m.wake.wanted().IsZero()
	m.jobs.mu.Unlock()
	if status := <-made; status != 200 || early {
		t.Errorf("status %d; woken before the list was forgotten: %t", status, early)
	}
	s.before = func(string, string) {}
	for _, what := range []string{"a new job", "a repeated request"} {
		if !m.wake.due(m.clock.Now()) || m.jobs.known() != nil {
			t.Errorf("%s wakes nobody, or the old list is known still", what)
		}
		if status := m.status(logical.UpdateOperation, "bulk", request); status != 200 {
			t.Errorf("repeated: %d", status)
		}
	}
}

// TestTidyLetsGoBeforeItWakes the worker, which leaves a pass that somebody is at to them.
func TestTidyLetsGoBeforeItWakes(t *testing.T) {
	s := &watched{Storage: &logical.InmemStorage{}, before: func(string, string) {}}
	m := mountOn(t, s, newFakeClock())
	var stored atomic.Bool
	s.before = func(op, path string) {
		if op == "put" && path == tidyPath {
			stored.Store(true)
		}
	}
	m.wake.due(m.clock.Now().Add(time.Hour))
	m.wake.mu.Lock() // so it comes no further than to the call that wakes
	made := make(chan int)
	go func() { made <- m.status(logical.UpdateOperation, "tidy", nil) }()
	for !stored.Load() {
		runtime.Gosched()
	}
	free := false
	for i := 0; i < 1_000_000 && !free; i++ {
		if free = m.tidy.mu.TryLock(); free {
			m.tidy.mu.Unlock()
		}
		runtime.Gosched()
	}
	m.wake.mu.Unlock()
	if status := <-made; status != 200 || !free {
		t.Errorf("status %d, let go: %t", status, free)
	}
	if !m.wake.due(m.clock.Now()) {
		t.Error("nobody is woken")
	}
}
