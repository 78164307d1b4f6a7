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
	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// tickAt is a tick of the mount, as a run of the periodic function makes it.
func (m *testMount) tickAt(now time.Time) *tick {
	m.t.Helper()
	cfg, err := m.config(m.t.Context(), m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	lim, err := m.limits(m.t.Context(), m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	return &tick{b: m.backend, s: m.storage, now: now, began: now, config: cfg, lim: lim}
}

// TestWalkLooksBack as many minutes as entries may be written late by, the one of
// the cursor among them, and not at the minute to come.
func TestWalkLooksBack(t *testing.T) {
	m := newMount(t)
	m.write("roles/b", map[string]any{"rotation_period": 0})
	m.tick()
	cursor := m.cursor()
	m.clock.set(cursor.Add(90 * time.Second))
	minute := func(n int) string {
		return duePath(cursor.Add(time.Duration(n)*time.Minute), fmt.Sprintf("gone%d", n+20))
	}
	for n := -tickOverlap - 2; n <= 3; n++ {
		if err := putBytes(t.Context(), m.storage, minute(n), dueValue); err != nil {
			t.Fatal(err)
		}
	}
	m.tick()
	for n := -tickOverlap - 2; n <= 3; n++ {
		entry, err := m.storage.Get(t.Context(), minute(n))
		if err != nil {
			t.Fatal(err)
		}
		if looked, want := entry == nil, n > -tickOverlap && n <= 1; looked != want {
			t.Errorf("an entry of minute %d of the cursor was looked at: %v, want %v", n, looked, want)
		}
	}
}

// TestCursorStopsBeforeWhatIsUnfinished, and otherwise before the minute that is
// not over.
func TestCursorStopsBeforeWhatIsUnfinished(t *testing.T) {
	for _, c := range []struct{ left, want int }{{-5, -6}, {-2, -3}, {-1, -2}, {0, -1}, {99, -1}} {
		m := newMount(t)
		m.tick()
		m.clock.advance(7*time.Minute + 20*time.Second)
		now := m.clock.Now()
		tk := m.tickAt(now)
		end := now.Truncate(time.Minute)
		if c.left < 99 {
			tk.leave(end.Add(time.Duration(c.left) * time.Minute))
			tk.leave(end.Add(time.Duration(c.left+1) * time.Minute))
		}
		if err := tk.walk(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := int(m.cursor().Sub(end) / time.Minute); got != c.want {
			t.Errorf("with minute %d left the cursor is at %d, want %d", c.left, got, c.want)
		}
	}
}

// TestTickTellsOfItsOwnReads: what a tick needs for itself, whoever reads it later.
func TestTickTellsOfItsOwnReads(t *testing.T) {
	for _, path := range []string{markPath, configPath} {
		s := &broken{Storage: newMount(t).storage}
		m := mountOn(t, s, newFakeClock())
		m.invalidate(t.Context(), path)
		s.call, s.only = "get "+path, 1
		if err := ticking(m, nil); !errors.Is(err, errStorage) {
			t.Errorf("%s cannot be read, and the server is told %v", path, err)
		}
	}
	s := &broken{Storage: newMount(t).storage}
	m := mountOn(t, s, newFakeClock())
	m.tick()
	m.clock.advance(tidyEvery)
	s.call = "get " + tidyPath
	if err := ticking(m, nil); !errors.Is(err, errStorage) {
		t.Errorf("where tidy goes on cannot be read, and the server is told %v", err)
	}
}

// TestEndsOfTimeAreNoFaults, and whatever else happens is told.
func TestEndsOfTimeAreNoFaults(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("reading: %w", err) }
	for _, c := range []struct {
		err         error
		late, ended bool // it says so
	}{
		{err: nil},
		{err: errStorage},
		{err: logical.ErrReadOnly},
		{err: context.DeadlineExceeded, late: true, ended: true},
		{err: wrapped(context.DeadlineExceeded), late: true, ended: true},
		{err: context.Canceled, ended: true},
		{err: wrapped(context.Canceled), ended: true},
	} {
		for name, got := range map[string]struct {
			err  error
			none bool
		}{"unlessLate": {unlessLate(c.err), c.late}, "unlessEnded": {unlessEnded(c.err), c.ended}} {
			if want := map[bool]error{false: c.err}[got.none]; !errors.Is(got.err, want) || (got.err == nil) != (want == nil) {
				t.Errorf("%s of %v is %v", name, c.err, got.err)
			}
		}
	}
}

// TestTidyLooksAgainAtAPage of the archive under the lock: one that was written anew
// meanwhile stays, to the last second of its time.
func TestTidyLooksAgainAtAPage(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	id := m.record("a").ID
	for _, c := range []struct {
		age  time.Duration
		goes bool
	}{{0, false}, {archiveKept, false}, {archiveKept + time.Second, true}, {-1, false}} {
		now := m.clock.Now()
		r := &tidyRun{b: m.backend, s: &countedStorage{Storage: m.storage}, rec: &tidyRecord{}, now: now}
		if c.age >= 0 {
			plant(t, m.storage, archivePath(id, 0), &archivePage{Schema: 1, Role: "a", RoleID: id, Written: now.Add(-c.age)})
		}
		if err := r.archivedPage(t.Context(), "a", id, 0); err != nil {
			t.Fatal(err)
		}
		left := len(m.under(archivePrefix))
		if gone := r.rec.Counts.ArchivePages == 1; gone != c.goes || gone && left > 0 || !gone && c.age >= 0 && left != 1 {
			t.Errorf("a page %v old: %d removed, %d left", c.age, r.rec.Counts.ArchivePages, left)
		}
	}
}

// TestTidyOfAnUnknownStageBeginsAnew, at the first record of the first stage.
func TestTidyOfAnUnknownStageBeginsAnew(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.write("roles/gone", nil)
	m.remove("gone")
	m.clock.advance(26 * time.Hour)
	tk := m.tickAt(m.clock.Now())
	rec := &tidyRecord{Schema: 1, Started: m.clock.Now(), Stage: "of a later build", After: shardDone}
	if err := m.tidySlice(t.Context(), tk, rec, 100000, time.Hour); err != nil {
		t.Fatal(err)
	}
	if rec.running() || rec.Counts.DeletedRoles != 1 || rec.Stage != "" || rec.After != "" || rec.Counts.Failed > 0 {
		t.Errorf("the pass is %+v", rec)
	}
}

// TestSlicesOfTidyAreOfAnyLength: a pass in slices of few calls each does what one
// in a single slice does.
func TestSlicesOfTidyAreOfAnyLength(t *testing.T) {
	first := newMount(t)
	w := newWorld()
	littered(first, w)
	first.clock.advance(26 * time.Hour)
	start, at := dump(t, first.storage), first.clock.Now()
	var want string
	for _, calls := range []int{100000, 15, 40, 90} {
		clock := newFakeClock()
		clock.set(at)
		m := mountOn(t, copyStorage(t, start), clock)
		rec := &tidyRecord{}
		m.beginTidy(rec, at, false)
		slices := 0
		for ; rec.running() && slices < 10000; slices++ {
			if err := m.tidySlice(t.Context(), m.tickAt(at), rec, calls, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if calls < 1000 && slices < 2 || rec.running() {
			t.Fatalf("%d calls at a time: %d slices, %+v", calls, slices, rec)
		}
		counts := rec.Counts
		counts.Examined = 0 // a record is looked at again where a slice ended
		left := m.under("")
		got := fmt.Sprintf("%+v\n%s", counts, strings.Join(left, "\n"))
		if want == "" {
			want = got
		} else if got != want {
			t.Errorf("%d calls at a time come to\n%s\nwant\n%s", calls, got, want)
		}
	}
}

// TestEndsAreDueAtTheirInstant: one that is not recorded, and a plaintext from the
// instant on at which it is to go.
func TestEndsAreDueAtTheirInstant(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	m.write("rotate/a", map[string]any{"grace_period": "1h"})
	end := m.clock.Now().Add(time.Hour)
	erase := end.Add(keyring.PlaintextLinger)
	for _, c := range []struct {
		at       time.Time
		recorded bool
		want     bool
	}{
		{at: end.Add(-1)},
		{at: end, want: true},
		{at: end, recorded: true},
		{at: erase.Add(-1), recorded: true},
		{at: erase, recorded: true, want: true},
		{at: erase.Add(1), recorded: true, want: true},
	} {
		r, err := m.lookOf(m.record("a").clone(), m.limitsNow(t))
		if err != nil {
			t.Fatal(err)
		}
		if r.now = c.at; c.recorded {
			r.rec.Ring.Settle(end)
		}
		if first, due := endDue(r); due != c.want || due && !first.Equal(end) {
			t.Errorf("at %v, recorded: %v: %v, %v", c.at, c.recorded, first, due)
		}
	}
}

// TestJobsTellOfCallsThatRanOut of time, unless it is the time of jobs in a tick that is
// over: then the next tick goes on.
func TestJobsTellOfCallsThatRanOut(t *testing.T) {
	for name, c := range map[string]struct {
		spent time.Duration
		ended bool
		told  bool
	}{
		"a call's own time":        {told: true},
		"the time of jobs":         {spent: tickBudget},
		"the caller's, and theirs": {spent: tickBudget, ended: true, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &hookedStorage{Storage: &logical.InmemStorage{}, hook: func(string) error { return nil }}
			m := mountOn(t, s, newFakeClock())
			m.makeRoles("r", 1, nil)
			m.startJob("action", "rotate", "name_prefix", "r")
			s.hook = func(string) error { return context.DeadlineExceeded }
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.ended {
				cancel()
			}
			at := m.tickAt(m.clock.Now())
			at.began = at.began.Add(-c.spent)
			if err := m.runJobs(ctx, at); (err != nil) != c.told {
				t.Errorf("told: %v", err)
			}
		})
	}
}

// TestEndOfTheTimeOfAWalkIsNoFault, and any other end of a call's time is one.
func TestEndOfTheTimeOfAWalkIsNoFault(t *testing.T) {
	for _, spent := range []bool{true, false} {
		s := &hookedStorage{Storage: &logical.InmemStorage{}, hook: func(string) error { return nil }}
		m := mountOn(t, s, newFakeClock())
		m.tick()
		m.clock.advance(time.Minute)
		tk := m.tickAt(m.clock.Now())
		s.hook = func(call string) error {
			if !strings.HasPrefix(call, "list "+duePrefix) {
				return nil
			}
			if spent {
				m.clock.advance(tickWork)
			}
			return context.DeadlineExceeded
		}
		if err := tk.walk(t.Context()); (err == nil) != spent {
			t.Errorf("time is over: %v, and the server is told %v", spent, err)
		}
	}
}

// TestBeginEnds with its time, with the engine, and with its caller.
func TestBeginEnds(t *testing.T) {
	for what, end := range map[string]func(m *testMount, outer, cancel context.CancelFunc){
		"its time":   func(m *testMount, _, _ context.CancelFunc) { m.clock.advance(time.Second) },
		"the engine": func(m *testMount, _, _ context.CancelFunc) { m.worker.cancel() },
		"its caller": func(_ *testMount, outer, _ context.CancelFunc) { outer() },
		"itself":     func(_ *testMount, _, cancel context.CancelFunc) { cancel() },
	} {
		m := newMount(t)
		outer, cancelOuter := context.WithCancel(t.Context())
		begin, cancel := m.tickAt(m.clock.Now()).begin(outer, time.Second)
		m.clock.advance(time.Second - 1)
		if begin.Err() != nil {
			t.Errorf("it ends before %s", what)
		}
		end(m, cancelOuter, cancel)
		if what == "the engine" {
			<-begin.Done()
		}
		if begin.Err() == nil {
			t.Errorf("it outlives %s", what)
		}
		cancel()
		cancelOuter()
	}
}

// TestPaceOfRotations is so many at once, and then so many a second.
func TestPaceOfRotations(t *testing.T) {
	m := mountOn(t, &logical.InmemStorage{}, newWaitingClock())
	tk := m.tickAt(m.clock.Now())
	tk.pace = rate.NewLimiter(10, 10)
	start := m.clock.Now()
	for n := range 40 {
		if !tk.mayMint(t.Context()) {
			t.Fatal(n)
		}
	}
	if took := m.clock.Now().Sub(start).Round(time.Millisecond); took != 3*time.Second {
		t.Errorf("40 took %v", took)
	}
}

// TestMissedRolesAreOfTheMinuteThatIsNotOver, but for those that wait after a failure.
func TestMissedRolesAreOfTheMinuteThatIsNotOver(t *testing.T) {
	m := newMount(t)
	m.missed.add("a")
	m.missed.add("failing")
	m.problems.failed("failing", errStorage, m.clock.Now())
	end := m.clock.Now().Truncate(time.Minute)
	got := m.tickAt(m.clock.Now()).missed(end)
	if want := (dueEntry{minute: end, name: "a", missed: true}); len(got) != 1 || got[0] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestRefusedStepsLeaveTheirWork: nothing is done after the step's own write failed.
func TestRefusedStepsLeaveTheirWork(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "1h"})
	m.clock.advance(2 * time.Hour)
	tk := m.tickAt(m.clock.Now())
	tk.kept = &backlog{}
	m.entrust(m.storage)
	tk.s = &failingAt{Storage: m.storage, at: []string{markPath}}
	minute := m.record("a").Due
	m.unchanged(func() {
		err := tk.work(t.Context(), t.Context(), []dueJob{{dueEntry: dueEntry{minute: minute, name: "a"}}})
		if !errors.Is(err, errStorage) || !tk.unfinished.Equal(minute) {
			t.Errorf("%v, the minute that is left is %v", err, tk.unfinished)
		}
	})
}

// TestCountsWaitForTheNextTick where the time of this one is over.
func TestCountsWaitForTheNextTick(t *testing.T) {
	s := &hookedStorage{Storage: &logical.InmemStorage{}, hook: func(string) error { return nil }}
	m := mountOn(t, s, newFakeClock())
	for _, name := range m.makeRoles("r", 3, nil) {
		m.expectVerdict(m.read("creds/" + name)["api_key"], "VALID")
	}
	m.clock.advance(2 * usageInterval)
	s.hook = func(call string) error {
		if strings.HasPrefix(call, "get "+usagePrefix) {
			m.clock.advance(tickBudget)
		}
		return nil
	}
	for want := 1; want <= 3; want++ {
		tk := m.tickAt(m.clock.Now())
		tk.workers = 1
		if err := m.flushUsage(t.Context(), tk); err != nil {
			t.Fatal(err)
		}
		if got := len(m.under(usagePrefix)); got != want {
			t.Errorf("after %d runs %d counts are stored", want, got)
		}
	}
}

// TestLookWakesForItsMinute: for what is due later in the minute that has come, and for
// nothing later, which the calendar leads to.
func TestLookWakesForItsMinute(t *testing.T) {
	for ahead, wakes := range map[time.Duration]bool{30 * time.Second: true, 90 * time.Second: false} {
		m := newMount(t)
		m.write("roles/a", map[string]any{"rotation_period": 0})
		m.write("rotate/a", map[string]any{"activate_at": "1h"})
		due := m.record("a").Ring.Pending(m.clock.Now()).Activate
		m.clock.set(due.Add(-ahead))
		m.wake = newWakeup()
		e := dueEntry{minute: m.record("a").Due, name: "a"}
		if err := m.lookAt(t.Context(), m.tickAt(m.clock.Now()), e); err != nil {
			t.Fatal(err)
		}
		if got := m.wake.wanted(); got.Equal(due) != wakes || got.IsZero() == wakes {
			t.Errorf("%v ahead the worker is woken at %v, due is %v", ahead, got, due)
		}
	}
}

// TestUrgencyOfWhatHasNoVersion: nothing is due.
func TestUrgencyOfWhatHasNoVersion(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 0})
	r, err := m.lookOf(m.record("a").clone(), m.limitsNow(t))
	if err != nil {
		t.Fatal(err)
	}
	r.rec.Ring.Versions = nil
	if got := dueOf(r, false); got.urgency != urgentNothing || !got.ends.IsZero() || got.mints {
		t.Errorf("%+v", got)
	}
}

// TestWalkWithoutACursor looks back as far as from the minute that ended last.
func TestWalkWithoutACursor(t *testing.T) {
	m := newMount(t)
	mark, err := getRecord[markRecord](t.Context(), m.storage, markPath)
	if err != nil || mark == nil {
		t.Fatal(mark, err)
	}
	mark.Cursor = m.clock.Now().Add(2 * maxClockLead)
	plant(t, m.storage, markPath, mark)
	m = m.restart()
	end := m.clock.Now().Truncate(time.Minute)
	from, err := m.tickAt(m.clock.Now()).from(t.Context(), end)
	if want := end.Add(-tickOverlap * time.Minute); err != nil || !from.Equal(want) {
		t.Errorf("the walk begins at %v, want %v: %v", from, want, err)
	}
}

// TestUndecidedLooksComeAgain in the next minute: a grace that nobody needs yet.
func TestUndecidedLooksComeAgain(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "24h", "grace_period": "1h", "max_grace_period": "20h"})
	m.run(24*time.Hour + 5*time.Minute)
	r, err := m.look(t.Context(), m.storage, "a")
	if err != nil || r == nil {
		t.Fatal(r, err)
	}
	at, ok := r.extensionLook()
	if !ok {
		t.Fatal("no grace may be prolonged")
	}
	m.clock.set(at)
	m.tick()      // it is filed under this minute
	for range 2 { // then the grace is over
		m.clock.advance(time.Minute)
		m.tick()
		next := duePath(m.clock.Now().Truncate(time.Minute).Add(time.Minute), "a")
		if got := m.under(duePrefix); !slices.Contains(got, next) {
			t.Errorf("the calendar has %v, want %s", got, next)
		}
	}
}
