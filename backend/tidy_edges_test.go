// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// TestTidyOfTheTicks works every so often, and begins a pass a day after the last.
func TestTidyOfTheTicks(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	stored := func() tidyRecord {
		rec, err := getRecord[tidyRecord](t.Context(), m.storage, tidyPath)
		if err != nil {
			t.Fatal(err)
		}
		if rec == nil {
			return tidyRecord{}
		}
		return *rec
	}
	m.tick()
	began := m.clock.Now().Add(5 * time.Minute)
	m.clock.set(began.Add(-time.Second))
	if m.tick(); !stored().Started.IsZero() {
		t.Error("a pass begins with the start")
	}
	m.clock.set(began)
	for range 20 {
		m.tick()
		m.clock.advance(5 * time.Minute)
	}
	first := stored()
	if !first.Started.Equal(began) || first.Finished.IsZero() {
		t.Fatalf("the first pass: %+v", first)
	}
	m.clock.set(first.Finished.Add(24*time.Hour - time.Second))
	if m.tick(); !stored().Started.Equal(first.Started) {
		t.Errorf("the second pass begins early: %+v", stored())
	}
	m.clock.advance(time.Second)
	at := m.clock.Now()
	if m.tick(); !stored().Started.Equal(at) {
		t.Errorf("the second pass: %+v", stored())
	}
}

// TestPurgeThatFailsKeepsItsEntry: the next tick comes by again.
func TestPurgeThatFailsKeepsItsEntry(t *testing.T) {
	for _, sc := range workScenes() {
		if sc.name != "purge of what lives" {
			continue
		}
		m, w := newMount(t), newWorld()
		sc.prepare(m, w)
		s := &broken{Storage: m.storage}
		m = mountOn(t, s, m.clock)
		s.call = "delete " + deletedPath(w.roleID)
		copied, err := getRecord[roleRecord](t.Context(), s, deletedPath(w.roleID))
		if err != nil || copied == nil {
			t.Fatal(copied, err)
		}
		e := dueEntry{minute: copied.Due, name: deletedMark + w.roleID}
		before := len(m.under(duePrefix))
		if err := m.purgeDeleted(t.Context(), m.tickAt(m.clock.Now()), e, w.roleID); !errors.Is(err, errStorage) {
			t.Error(err)
		}
		if after := len(m.under(duePrefix)); after != before {
			t.Errorf("the calendar had %d entries and has %d", before, after)
		}
	}
}

// TestNoDigestSecretIsNoKey: where the mount has none yet every key is unknown, and
// tidy has nothing to note.
func TestNoDigestSecretIsNoKey(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	key := m.read("creds/a")["api_key"]
	if err := deleteRecord(t.Context(), m.storage, digestPath); err != nil {
		t.Fatal(err)
	}
	m.digestSecrets = cell[digestRecord]{}
	m.digestSecrets.path = digestPath
	if got := m.write("verify", map[string]any{"key": key})["code"]; got != "NOT_FOUND" {
		t.Errorf("a key is %v", got)
	}
	r := &tidyRun{b: m.backend, s: &countedStorage{Storage: m.storage}, rec: &tidyRecord{}, now: m.clock.Now()}
	if err := r.beginForeign(t.Context()); err != nil || r.rec.Foreign != nil {
		t.Error(r.rec.Foreign, err)
	}
}

// TestWeakKeysAreLookedFor as long as there is one, or may be.
func TestWeakKeysAreLookedFor(t *testing.T) {
	for n := range 32 {
		now, before := &importedRecord{Weak: n&1 > 0}, &importedRecord{Weak: n&2 > 0}
		seen := &foreignSeen{Weak: n&4 > 0, MaybeWeak: n&8 > 0, WeakAside: n&16 > 0}
		next, aside := now.after(before, seen)
		if want := !next.Weak && (now.Weak || before.Weak && !seen.WeakAside); aside.Weak != want {
			t.Errorf("now %v, before %v, seen %+v: aside %v", now.Weak, before.Weak, seen, aside.Weak)
		}
		if want := seen.Weak || seen.MaybeWeak && (now.Weak || before.Weak); next.Weak != want {
			t.Errorf("now %v, before %v, seen %+v: %v", now.Weak, before.Weak, seen, next.Weak)
		}
	}
	id := strings.Repeat("f", keyformat.ImportedIDLen)
	for _, c := range []struct {
		strength         string
		marked           bool
		seenWeak, maybes bool
	}{
		{strengthWeak, false, true, false},
		{strengthUnknown, false, false, true},
		{strengthOwn, true, true, false},
		{strengthOwn, false, false, false},
	} {
		role := &roleRecord{Ring: keyring.Ring{Versions: []keyring.Version{{N: 1, KeyID: id, Strength: c.strength}}}}
		r := &tidyRun{rec: &tidyRecord{Foreign: &foreignSeen{}}}
		r.sawKey(&keyRecord{ID: id, Version: 1, Weak: c.marked, Digest: keyformat.Digest(make([]byte, keyformat.DigestSecretLen), 1, keyformat.Sum("x"))}, role)
		if got := r.rec.Foreign; got == nil || got.Weak != c.seenWeak || got.MaybeWeak != c.maybes {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

// TestFailedReleasesHaveNoOutcome: what failed is told, and waits on.
func TestFailedReleasesHaveNoOutcome(t *testing.T) {
	s := &broken{Storage: &logical.InmemStorage{}}
	m := mountOn(t, s, newFakeClock())
	m.write("config", map[string]any{"max_leak_actions": 0})
	var ids []string
	for _, role := range []string{"a", "b"} {
		m.write("roles/"+role, nil)
		got := m.read("creds/" + role)
		m.write("report", map[string]any{"key": got["api_key"]})
		ids = append(ids, got["key_id"].(string))
	}
	s.call = "get " + deferredPath(ids[0])
	outcomes, err := m.releaseAll(t.Context(), s, append(ids, ids[1]), actor{cause: causeRequest})
	if _, done := outcomes[ids[0]]; err == nil || done || len(outcomes) != 1 {
		t.Errorf("%v %v", outcomes, err)
	}
}

// TestWorkOfAWalkIsDoneOnce, and as soon as enough is gathered.
func TestWorkOfAWalkIsDoneOnce(t *testing.T) {
	var log []string
	s := &hookedStorage{Storage: &logical.InmemStorage{}, hook: func(call string) error {
		if name, ok := strings.CutPrefix(call, "get "+rolePrefix); ok {
			log = append(log, name)
		}
		return nil
	}}
	m := mountOn(t, s, newFakeClock())
	m.tick()
	m.clock.advance(2 * time.Minute)
	start := m.clock.Now()
	minute := start.Truncate(time.Minute)
	for i, name := range []string{"gone1", "gone2", "gone3"} {
		if err := putBytes(context.Background(), s, duePath(minute.Add(time.Duration(i-3)*time.Minute), name), dueValue); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		backlog int
		look    time.Duration // how long it takes
		want    string
	}{
		{backlog: 1, want: "gone1 gone2 gone3"},
		{backlog: 2, want: "gone1 gone2 gone1 gone2 gone3"},
		{backlog: 9, want: "gone1 gone2 gone3 gone1 gone2 gone3"},
		{backlog: 9, look: 250 * time.Millisecond, want: "gone1 gone2 gone1 gone2 gone3"},
		{backlog: 9, look: 249 * time.Millisecond, want: "gone1 gone2 gone3 gone1 gone2 gone3"},
	} {
		m.clock.set(start)
		again := mountOn(t, &hookedStorage{Storage: copyStorage(t, dump(t, s.Storage)), hook: func(call string) error {
			if strings.HasPrefix(call, "get "+rolePrefix) {
				m.clock.advance(c.look)
			}
			return s.hook(call)
		}}, m.clock)
		tk := again.tickAt(m.clock.Now())
		tk.batch, tk.backlog, tk.workers = 1, c.backlog, 1
		log = nil
		if err := tk.walk(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Reads of a role in a row are one look.
		if got := strings.Join(slices.Compact(log), " "); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// movedOn is a mount with so many records for the stage of tidy that looks where roles
// moved to, which makes one call for each; each of these calls is told of.
func movedOn(t *testing.T, records int, each func(m *testMount, call string)) *testMount {
	t.Helper()
	stored := &logical.InmemStorage{}
	var m *testMount
	s := &hookedStorage{Storage: stored, hook: func(call string) error {
		if strings.Contains(call, " "+movedPrefix) {
			each(m, call)
		}
		return nil
	}}
	m = mountOn(t, s, newFakeClock())
	for n := range records {
		plant(t, stored, movedPath(fmt.Sprintf("id%06d", n)), &movedRecord{Schema: 1, At: m.clock.Now()})
	}
	return m
}

// TestSlicesOfTidyAreBounded: by calls and by time, and of a long list few names are kept.
func TestSlicesOfTidyAreBounded(t *testing.T) {
	const kept = 10000
	for _, c := range []struct {
		byHand, jobs bool
		call         time.Duration // how long each call takes
		want         int
	}{
		{want: 400},
		{byHand: true, want: 20000},
		{call: 10 * time.Millisecond, want: 50},
		{byHand: true, call: 10 * time.Millisecond, want: 200},
		{byHand: true, jobs: true, call: 10 * time.Millisecond, want: 50},
	} {
		calls, lists := 0, []int{}
		m := movedOn(t, 2*kept+1, func(m *testMount, call string) {
			if calls++; strings.HasPrefix(call, "list ") {
				lists = append(lists, calls)
			}
			m.clock.advance(c.call)
		})
		now := m.clock.Now()
		plant(t, m.storage, tidyPath, &tidyRecord{Schema: 1, Started: now, ByHand: c.byHand, Stage: "moved"})
		m.tidy.next = now
		tk := m.tickAt(now)
		tk.shared = c.jobs
		if err := m.tidySlowly(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		wantLists := []int{1}
		if c.want > kept {
			wantLists = []int{1, kept + 2}
		}
		if calls != c.want || !slices.Equal(lists, wantLists) || len(m.tidy.names) > kept {
			t.Errorf("%+v: %d calls, lists are number %v of them, %d names are kept", c, calls, lists, len(m.tidy.names))
		}
		next := now.Add(5 * time.Minute)
		if c.byHand {
			next = now
		}
		if !m.tidy.next.Equal(next) {
			t.Errorf("%+v: the next slice comes at %v", c, m.tidy.next)
		}
	}
}

// TestWorkerGoesOnWithWhatWasAskedFor: with a pass by hand that is not over, and that did
// not fail.
func TestWorkerGoesOnWithWhatWasAskedFor(t *testing.T) {
	for n := range 8 {
		byHand, long, fails := n&1 > 0, n&2 > 0, n&4 > 0
		m := movedOn(t, 5, func(m *testMount, _ string) {
			if long {
				m.clock.advance(time.Minute)
			}
		})
		now := m.clock.Now()
		plant(t, m.storage, tidyPath, &tidyRecord{Schema: 1, Started: now, ByHand: byHand, Stage: "moved"})
		m.tidy.next, m.tidy.byHand = now, true
		tk := m.tickAt(now)
		if fails {
			tk.s = &failingAt{Storage: tk.s, at: []string{tidyPath}}
		}
		if err := m.tidySlowly(t.Context(), tk); (err != nil) != fails {
			t.Fatal(err)
		}
		if got, want := m.tidyWaits(), byHand && long && !fails; got != want {
			t.Errorf("by hand %v, long %v, fails %v: the worker goes on: %v", byHand, long, fails, got)
		}
	}
}

// TestUnreadablePolicyHidesPrefixes: nothing shrinks after a role whose prefix is not known.
func TestUnreadablePolicyHidesPrefixes(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	rec := m.record("a").clone()
	r := &tidyRun{b: m.backend, tick: m.tickAt(m.clock.Now()), rec: &tidyRecord{Prefixes: &prefixesSeen{}}}
	if r.sawRole(rec); r.rec.Prefixes == nil || len(r.rec.Prefixes.Own) == 0 {
		t.Fatalf("%+v", r.rec.Prefixes)
	}
	rec.Policy.RotationSchedule = "no schedule"
	if r.sawRole(rec); r.rec.Prefixes != nil {
		t.Errorf("%+v", r.rec.Prefixes)
	}
}

// TestPrefixesOfAPassAreBounded: beyond what is kept, by so many that it shows.
func TestPrefixesOfAPassAreBounded(t *testing.T) {
	const kept = 1000
	var list []string
	for n := range 3 * kept {
		note(&list, fmt.Sprintf("p%06d", (n*7919)%(3*kept)))
	}
	note(&list, list[0])
	note(&list, "")
	if len(list) != 2*kept+2 || !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
		t.Errorf("%d prefixes are noted", len(list))
	}
}

// TestTidyOfWhatIsInOrder writes nothing but how far it came.
func TestTidyOfWhatIsInOrder(t *testing.T) {
	s := &broken{Storage: &logical.InmemStorage{}}
	m, w := mountOn(t, s, newFakeClock()), newWorld()
	littered(m, w)
	strandedLitter(m, w)
	renamedLitter(m, w)
	for range 3 {
		m.run(2 * time.Minute)
		m.clock.advance(26 * time.Hour)
		m.run(2 * time.Minute)
		m.tidyAll()
	}
	s.log = nil
	m.tidyAll()
	for _, call := range s.log {
		if write := strings.HasPrefix(call, "put ") || strings.HasPrefix(call, "delete "); write && call != "put "+tidyPath {
			t.Errorf("a pass makes %s", call)
		}
	}
}

// TestTidyPassesOverWhatGoesMeanwhile: whichever record is gone when it is read, nothing
// panics over that and no record is blamed.
func TestTidyPassesOverWhatGoesMeanwhile(t *testing.T) {
	t.Parallel()
	first, w := newMount(t), newWorld()
	littered(first, w)
	strandedLitter(first, w)
	renamedLitter(first, w)
	start, at := dump(t, first.storage), first.clock.Now()
	pass := func(later time.Duration, path string, nth int) map[string]int {
		clock := newFakeClock()
		clock.set(at.Add(later))
		reads, stored := map[string]int{}, copyStorage(t, start)
		s := &hookedStorage{Storage: stored, hook: func(string) error { return nil }}
		m, log := logged(t, s, clock)
		s.hook = func(call string) error {
			read, ok := strings.CutPrefix(call, "get ")
			if !ok || m.tidy.mu.TryLock() {
				if ok {
					m.tidy.mu.Unlock()
				}
				return nil
			}
			if reads[read]++; read == path && reads[read] == nth {
				return stored.Delete(t.Context(), path)
			}
			return nil
		}
		got, err := m.send(logical.UpdateOperation, "tidy", nil)
		if err != nil || got.Data["failed"] != int64(0) || strings.Contains(log.String(), "panicked") {
			t.Errorf("%s is gone when it is read the %d. time: %v, %v, %s", path, nth, got, err, log)
		}
		return reads
	}
	for _, later := range []time.Duration{3 * time.Hour, 26 * time.Hour} {
		for path, reads := range pass(later, "", 0) {
			if path == tidyPath || path == digestPath {
				continue
			}
			for n := 1; n <= min(reads, 8); n++ {
				pass(later, path, n)
			}
		}
	}
}

// TestTidyLooksAgainAtAKey under the lock: one that is another role's by then, or is called
// otherwise, stays for the next pass.
func TestTidyLooksAgainAtAKey(t *testing.T) {
	start := newMount(t)
	start.write("config", map[string]any{"delete_recovery": 0})
	start.write("roles/a", nil)
	id := start.idOf(start.read("creds/a")["api_key"].(string))
	start.remove("a")
	start.clock.advance(500 * 24 * time.Hour)
	stored := dump(t, start.storage)
	for what, change := range map[string]func(*keyRecord){
		"":               nil,
		"another role":   func(k *keyRecord) { k.RoleID = "00000000-0000-4000-8000-000000000000" },
		"called another": func(k *keyRecord) { k.Role = "z" },
	} {
		s := &hookedStorage{Storage: copyStorage(t, stored), hook: func(string) error { return nil }}
		m := mountOn(t, s, start.clock)
		reads := 0
		s.hook = func(call string) error {
			if call == "get "+keyPath(id) {
				if reads++; reads == 2 && change != nil {
					rec, err := getRecord[keyRecord](t.Context(), s.Storage, keyPath(id))
					if err != nil || rec == nil {
						t.Fatal(rec, err)
					}
					change(rec)
					plant(t, s.Storage, keyPath(id), rec)
				}
			}
			return nil
		}
		r := &tidyRun{b: m.backend, s: &countedStorage{Storage: s}, rec: &tidyRecord{}, now: m.clock.Now()}
		if err := r.key(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if left := len(m.under(keyPrefix)); left == 1 != (change != nil) || reads < 2 {
			t.Errorf("%s: %d keys are left after %d reads", what, left, reads)
		}
	}
}

// TestPausedRolesAreNotRefiled: what waits for the mount has its entry elsewhere.
func TestPausedRolesAreNotRefiled(t *testing.T) {
	for _, paused := range []bool{false, true} {
		m := newMount(t)
		m.write("roles/a", map[string]any{"rotation_period": "24h"})
		m.write("config", map[string]any{"rotation_paused": paused})
		m.clock.advance(25 * time.Hour)
		for _, path := range m.under(duePrefix) {
			if err := deleteRecord(t.Context(), m.storage, path); err != nil {
				t.Fatal(err)
			}
		}
		if m.tidyAll(); len(m.under(duePrefix)) > 0 == paused {
			t.Errorf("paused %v: the calendar has %v", paused, m.under(duePrefix))
		}
	}
}

// TestFiledIsWhatATickComesByFor: not what stands in a minute that no tick looks at.
func TestFiledIsWhatATickComesByFor(t *testing.T) {
	m := newMount(t)
	m.tick()
	r := &tidyRun{b: m.backend, s: &countedStorage{Storage: m.storage}, now: m.clock.Now()}
	for _, c := range []struct {
		due         time.Time
		there, want bool
	}{
		{there: true},
		{due: m.walked().Add(-time.Minute), there: true},
		{due: m.walked(), there: true, want: true},
		{due: m.walked()},
	} {
		path := duePath(c.due, "a")
		if err := deleteRecord(t.Context(), m.storage, path); err != nil {
			t.Fatal(err)
		}
		if c.there {
			if err := putBytes(t.Context(), m.storage, path, dueValue); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := r.filed(t.Context(), "a", c.due); got != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

// TestTidyForgetsWhereRolesWere once they are gone and that is old, and not before.
func TestTidyForgetsWhereRolesWere(t *testing.T) {
	m := newMount(t)
	m.write("config", map[string]any{"delete_recovery": "24h"})
	for _, name := range []string{"lives", "deleted", "young", "gone"} {
		m.write("roles/"+name, map[string]any{"rotation_period": 0})
	}
	want := []string{movedPath(m.rename("lives", "l")), movedPath(m.rename("deleted", "d"))}
	m.remove("d")
	for id, at := range map[string]time.Time{"gone": m.clock.Now(), "young": m.clock.Now().Add(2 * time.Hour)} {
		plant(t, m.storage, movedPath(id), &movedRecord{Schema: 1, RoleID: id, Name: id + "-x", At: at})
	}
	m.clock.advance(2 * time.Hour)
	m.tidyAll()
	got := m.under(movedPrefix)
	want = append(want, movedPath("young"))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}
