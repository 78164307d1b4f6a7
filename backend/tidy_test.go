// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// tidyAll runs a whole pass and returns its report.
func (m *testMount) tidyAll() map[string]any {
	m.t.Helper()
	for range 100 {
		if got := m.write("tidy", nil); got["done"] == true {
			if got["failed"] != int64(0) {
				m.t.Errorf("tidy failed for some: %v", got)
			}
			return got
		}
	}
	m.t.Fatal("tidy does not come to an end")
	return nil
}

// store is what is stored, decoded.
type store struct {
	t   testing.TB
	raw map[string]string
}

func (m *testMount) stored() store { return store{m.t, dump(m.t, m.storage)} }

func (s store) decode(path string, into any) bool {
	s.t.Helper()
	raw, ok := s.raw[path]
	if ok {
		if err := json.Unmarshal([]byte(raw), into); err != nil {
			s.t.Fatal(path, err)
		}
	}
	return ok
}

// role is the record of the role with that id, live or deleted.
func (s store) role(id string) *roleRecord {
	var rec roleRecord
	if s.decode(deletedPath(id), &rec) {
		return &rec
	}
	for path := range s.raw {
		if strings.HasPrefix(path, rolePrefix) {
			rec = roleRecord{}
			if s.decode(path, &rec); rec.ID == id {
				return &rec
			}
		}
	}
	return nil
}

// leftovers lists what is stored and should not be, and what should be and is not.
func (m *testMount) leftovers() (found []string) {
	m.t.Helper()
	s := m.stored()
	now := m.clock.Now()
	lim, err := m.limits(context.Background(), m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	bad := func(path, why string) { found = append(found, path+": "+why) }
	for _, path := range sortedKeys(s.raw) {
		parts := strings.Split(path, "/")
		switch parts[0] + "/" {
		case secretPrefix:
			n, _ := strconv.Atoi(parts[2])
			if role := s.role(parts[1]); role == nil || role.Ring.Get(n) == nil || !role.Ring.Get(n).Plain {
				bad(path, "nothing points at it")
			}
		case keyPrefix:
			var rec keyRecord
			s.decode(path, &rec)
			role := s.role(rec.RoleID)
			switch {
			case role == nil && tombstone(&rec):
				if now.Sub(tombstoneOf(&rec)) > archiveKept {
					bad(path, "a tombstone since "+stamp(tombstoneOf(&rec)))
				}
			case role == nil:
				bad(path, "its role is gone")
			case rec.Dynamic:
				kept := deadKept
				if tombstone(&rec) {
					kept = archiveKept
				}
				if end := keyEndedAt(&rec, role, now); !end.IsZero() && now.Sub(end) > kept {
					bad(path, "dead since "+stamp(end))
				}
			case role.Ring.ByKeyID(rec.ID) == nil && (rec.End == nil || now.Sub(rec.End.At) > archiveKept):
				bad(path, "no version has it")
			}
		case issuedPrefix:
			if _, ok := s.raw[keyPath(parts[2])]; !ok {
				bad(path, "no such key")
			}
		case problemPrefix, attentionPrefix:
			if _, ok := s.raw[rolePath(parts[1])]; !ok {
				bad(path, "no such role")
			}
		case usagePrefix:
			if s.role(parts[1]) == nil {
				bad(path, "no such role")
			}
		case deletedPrefix:
			var rec roleRecord
			if s.decode(path, &rec); now.Sub(rec.PurgeAt) > tidyAge {
				bad(path, "cannot be restored any more")
			}
			var live roleRecord
			if s.decode(rolePath(rec.Name), &live) && live.ID == rec.ID {
				bad(path, "the role lives")
			}
		case rolePrefix:
			var rec roleRecord
			s.decode(path, &rec)
			role, err := m.lookOf(&rec, lim)
			if err != nil {
				m.t.Fatal(err)
			}
			if role.nextLook().IsZero() {
				continue
			}
			filed := false
			for due := range s.raw {
				filed = filed || strings.HasPrefix(due, duePrefix) && strings.HasSuffix(due, "/"+rec.Name)
			}
			if !filed {
				bad(path, "the calendar lacks it")
			}
		}
	}
	return found
}

func TestTidyOnNothing(t *testing.T) {
	m := newMount(t)
	got := m.tidyAll()
	for _, name := range sortedKeys(got) {
		if n, ok := got[name].(int64); ok && n != 0 {
			t.Errorf("on an empty mount %s is %d", name, n)
		}
	}
	if resp, err := m.do(logical.ReadOperation, "tidy", nil); err == nil {
		t.Errorf("reading tidy answers %v", resp)
	} else if status, _ := httpStatus(resp, err); status != 405 {
		t.Errorf("reading tidy: status %d", status)
	}
}

// TestTidyAfterCrashes lets each operation crash at each of its writes, and
// finds everything in order after the next pass.
func TestTidyAfterCrashes(t *testing.T) {
	prepare := func(m *testMount) (lease *logical.Response, id string) {
		m.write("roles/s", map[string]any{"rotation_period": "48h", "grace_period": "1h"})
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m"})
		m.write("roles/bye", nil)
		id = m.read("roles/bye")["role_id"].(string)
		m.must(logical.DeleteOperation, "roles/bye", nil)
		return m.lease("d", nil), id
	}
	ops := map[string]func(m *testMount, lease *logical.Response, id string){
		"create": func(m *testMount, _ *logical.Response, _ string) {
			_, _ = m.do(logical.UpdateOperation, "roles/new", nil)
		},
		"rotate": func(m *testMount, _ *logical.Response, _ string) {
			_, _ = m.do(logical.UpdateOperation, "rotate/s", nil)
		},
		"stage": func(m *testMount, _ *logical.Response, _ string) {
			_, _ = m.do(logical.UpdateOperation, "rotate/s", map[string]any{"activate_at": "3h"})
		},
		"revoke": func(m *testMount, _ *logical.Response, _ string) {
			_, _ = m.do(logical.UpdateOperation, "revoke/s", map[string]any{"all": true})
		},
		"kill": func(m *testMount, _ *logical.Response, _ string) {
			_, _ = m.do(logical.UpdateOperation, "revoke/s", map[string]any{"version": 1, "rotate": false})
		},
		"issue": func(m *testMount, _ *logical.Response, _ string) { _, _ = m.do(logical.ReadOperation, "creds/d", nil) },
		"lease": func(m *testMount, lease *logical.Response, _ string) {
			_, _ = m.onLease(logical.RevokeOperation, lease, 0)
		},
		"delete": func(m *testMount, _ *logical.Response, _ string) {
			_, _ = m.do(logical.DeleteOperation, "roles/s", nil)
		},
		"restore": func(m *testMount, _ *logical.Response, id string) {
			_, _ = m.do(logical.UpdateOperation, "restore/"+id, nil)
		},
		"periodic": func(m *testMount, _ *logical.Response, _ string) {
			m.clock.advance(48 * time.Hour)
			_, _ = m.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
		},
		"tidy": func(m *testMount, _ *logical.Response, _ string) {
			m.clock.advance(48 * time.Hour) // the deleted role is to be purged
			_, _ = m.do(logical.UpdateOperation, "tidy", nil)
		},
	}
	for _, name := range sortedKeys(ops) {
		t.Run(name, func(t *testing.T) {
			for _, f := range []fault{faultCrash, faultApplyCrash, faultApplied} {
				for n := 1; ; n++ {
					p := newProbe(&logical.InmemStorage{})
					p.onlyWrites = true
					m := mountOn(t, p, newFakeClock())
					lease, id := prepare(m)
					p.arm(n, f)
					ops[name](m, lease, id)
					_, writes := p.count()
					p.reset()
					if writes < n {
						break
					}
					m = m.restart()
					m.clock.advance(tidyAge + 2*time.Minute)
					valid := m.validKeys()
					m.tidyAll()
					for key := range valid {
						m.expectVerdict(key, "VALID")
					}
					m.tick()
					m.tick()
					if found := m.leftovers(); len(found) > 0 {
						t.Fatalf("fault %d at write %d leaves\n%s", f, n, strings.Join(found, "\n"))
					}
				}
			}
		})
	}
}

// validKeys is every key of a static role that verifies and can be read.
func (m *testMount) validKeys() map[string]bool {
	m.t.Helper()
	valid := map[string]bool{}
	for path, raw := range m.stored().raw {
		if !strings.HasPrefix(path, secretPrefix) {
			continue
		}
		var rec secretRecord
		if err := json.Unmarshal([]byte(raw), &rec); err != nil {
			m.t.Fatal(err)
		}
		if m.verdict(rec.Key) == "VALID" {
			valid[rec.Key] = true
		}
	}
	return valid
}

func TestTidyLeavesAloneWhatIsYoung(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", nil)
	// As a node leaves it that loses its place between a key and the commit.
	p := &failingPut{Storage: m.storage, prefix: rolePrefix}
	s := m.storage
	m.storage = p
	if resp, err := m.do(logical.UpdateOperation, "rotate/s", nil); err == nil {
		t.Fatal("the commit was to fail:", resp)
	}
	m.storage = s
	m.clock.advance(time.Hour - time.Second)
	if got := m.tidyAll(); got["removed_keys"] != int64(0) || got["removed_secrets"] != int64(0) {
		t.Errorf("what may be under way is removed: %v", got)
	}
	m.clock.advance(2 * time.Second)
	if got := m.tidyAll(); got["removed_keys"] != int64(1) || got["removed_secrets"] != int64(1) {
		t.Errorf("what was left behind is not removed: %v", got)
	}
}

// TestTidyKeepsThePlaintextOfAReusedNumber: the mint that failed and the one
// after it had the same version number, so the same path for the plaintext.
func TestTidyKeepsThePlaintextOfAReusedNumber(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", nil)
	s := m.storage
	m.storage = &failingPut{Storage: s, prefix: rolePrefix}
	if resp, err := m.do(logical.UpdateOperation, "rotate/s", nil); err == nil {
		t.Fatal("the commit was to fail:", resp)
	}
	m.storage = s
	m.clock.advance(lateFor) // or it is made again with the same key
	m.write("rotate/s", nil)
	key := m.read("creds/s")["api_key"]
	m.clock.advance(2 * tidyAge)
	if got := m.tidyAll(); got["removed_keys"] != int64(1) || got["removed_secrets"] != int64(0) {
		t.Errorf("tidy did %v", got)
	}
	if m = m.restart(); m.read("creds/s")["api_key"] != key {
		t.Error("the current key is another one")
	}
	m.expectVerdict(key, "VALID")
}

func TestTidyRefilesWhatTheCalendarLacks(t *testing.T) {
	for name, lose := range map[string]func(m *testMount, rec *roleRecord){
		"missing": func(*testMount, *roleRecord) {},
		"behind the ticks": func(m *testMount, rec *roleRecord) {
			// As after a cursor that a wrong clock moved too far.
			old := m.cursor().Add(-26 * time.Hour)
			if err := putBytes(context.Background(), m.storage, duePath(old, rec.Name), dueValue); err != nil {
				m.t.Fatal(err)
			}
			rec.Due = old
			plant(m.t, m.storage, rolePath(rec.Name), rec)
		},
		"too late": func(m *testMount, rec *roleRecord) {
			rec.Due = rec.Due.Add(240 * time.Hour)
			if err := putBytes(context.Background(), m.storage, duePath(rec.Due, rec.Name), dueValue); err != nil {
				m.t.Fatal(err)
			}
			plant(m.t, m.storage, rolePath(rec.Name), rec)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.tick()
			m.write("roles/s", map[string]any{"rotation_period": "4h"})
			m.write("roles/fine", map[string]any{"rotation_period": "4h"})
			rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("s"))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.storage.Delete(context.Background(), duePath(rec.Due, "s")); err != nil {
				t.Fatal(err)
			}
			lose(m, rec)
			m = m.restart()
			got := m.tidyAll()
			if got["refiled"] != int64(1) {
				t.Errorf("tidy refiled %v", got["refiled"])
			}
			if again := m.tidyAll(); again["refiled"] != int64(0) || again["removed_entries"] != int64(0) {
				t.Errorf("a second pass did %v", again)
			}
			m.run(4*time.Hour + 2*time.Minute)
			m.expectStates("s", "previous current")
			m.expectStates("fine", "previous current")
			if found := m.leftovers(); len(found) > 0 {
				t.Error(strings.Join(found, "\n"))
			}
		})
	}
}

func TestTidyRemovesStrayEntries(t *testing.T) {
	m := newMount(t)
	m.run(10 * time.Minute)
	m.clock.advance(50 * time.Hour)
	m.tick()
	m.write("roles/s", nil)
	ctx := context.Background()
	strays := []string{
		duePath(m.clock.Now().Add(-40*time.Hour), "gone"),
		duePath(m.clock.Now().Add(-40*time.Hour), "s"),
		duePath(m.clock.Now().Add(-2*time.Hour), deletedMark+"00000000-0000-0000-0000-000000000000"),
	}
	young := duePath(m.clock.Now().Add(-5*time.Minute), "gone")
	for _, path := range append(strays, young) {
		if err := putBytes(ctx, m.storage, path, dueValue); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.tidyAll(); got["removed_entries"] != int64(3) {
		t.Errorf("tidy did %v", got)
	}
	s := m.stored()
	for _, path := range strays {
		if _, ok := s.raw[path]; ok {
			t.Errorf("%s is still there", path)
		}
	}
	if _, ok := s.raw[young]; !ok {
		t.Error("an entry that ticks still look at is gone")
	}
}

// A slice that ends in the middle of a day goes on with that day.
func TestTidyGoesOnInTheMiddleOfADay(t *testing.T) {
	m := newMount(t)
	day := m.clock.Now().Truncate(24 * time.Hour).Add(-48 * time.Hour)
	for i := range 2 * slowCalls {
		if err := putBytes(t.Context(), m.storage, duePath(day.Add(time.Duration(i%600)*time.Minute), fmt.Sprintf("gone-%d", i)), dueValue); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		m.clock.advance(tidyEvery)
		m.tick()
	}
	left := 0
	for _, path := range m.under(duePrefix) {
		if strings.Contains(path, "gone-") {
			left++
		}
	}
	if left > 0 {
		t.Errorf("%d entries are left", left)
	}
}

func TestTidyRemovesOldPagesOnly(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", map[string]any{"rotation_period": 0})
	id := m.read("roles/s")["role_id"].(string)
	fill := func() {
		for range 40 {
			m.write("rotate/s", map[string]any{"grace_period": 0})
		}
	}
	fill()
	ctx := context.Background()
	first, err := archivePages(ctx, m.storage, id)
	if err != nil || len(first) == 0 {
		t.Fatal(first, err)
	}
	m.clock.advance(archiveKept)
	fill()
	all, err := archivePages(ctx, m.storage, id)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.tidyAll(); got["removed_archive_pages"] != int64(0) {
		t.Errorf("at 400 days %v pages are gone", got["removed_archive_pages"])
	}
	m.clock.advance(time.Hour)
	if got := m.tidyAll(); got["removed_archive_pages"] != int64(len(first)) {
		t.Errorf("%v pages are gone, want %d", got["removed_archive_pages"], len(first))
	}
	if left, err := archivePages(ctx, m.storage, id); err != nil || len(left) != len(all)-len(first) {
		t.Errorf("%d of %d pages are left (%v)", len(left), len(all), err)
	}
	m.refused(logical.ReadOperation, "history/s", map[string]any{"page": 0}, "not kept any more")
}

func TestTidyRemovesDeadKeysAfterThirtyDays(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m"})
	dead := m.lease("d", nil).Data
	m.clock.advance(30*time.Minute + 30*24*time.Hour)
	live := m.lease("d", nil).Data
	m.tidyAll()
	m.expectVerdict(dead["api_key"], "EXPIRED")
	m.clock.advance(time.Second)
	if got := m.tidyAll(); got["removed_keys"] != int64(1) {
		t.Errorf("tidy did %v", got)
	}
	m.expectVerdict(dead["api_key"], "NOT_FOUND")
	m.expectVerdict(live["api_key"], "VALID")
	if found := m.leftovers(); len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
}

func TestTidyRemovesWhatReportersWereTold(t *testing.T) {
	for record, stays := range map[string]bool{
		`{"schema":1,"reporters":{"00112233445566778899aabbccddeeff":{"s":7,"l":1772442000}}}`: false,
		`{"schema":99}`: true, // a newer build knows what for
	} {
		m := newMount(t)
		if err := putBytes(t.Context(), m.storage, reportersPath, []byte(record)); err != nil {
			t.Fatal(err)
		}
		got := m.write("tidy", nil)
		if _, left := m.stored().raw[reportersPath]; left != stays || got["done"] != true {
			t.Errorf("%s: left %v, %v", record, left, got)
		}
	}
}

func TestTidyClearsTheIndexOfProblems(t *testing.T) {
	m := newMount(t)
	m.write("roles/well", nil)
	m.write("roles/dead", nil)
	m.write("revoke/dead", map[string]any{"version": 1, "rotate": false})
	ctx := context.Background()
	now := m.clock.Now()
	for path, rec := range map[string]any{
		problemPath("well"):                  &problem{Schema: 1, Role: "well", Error: "x", Next: now.Add(-3 * time.Hour)},
		problemPath("dead"):                  &problem{Schema: 1, Role: "dead", Error: "x", Next: now.Add(-time.Hour)},
		problemPath("gone"):                  &problem{Schema: 1, Role: "gone", Error: "x", Next: now},
		problemPath(deletedMark + "no-such"): &problem{Schema: 1, Error: "x", Next: now},
		attentionPath("well"):                json.RawMessage(dueValue),
		attentionPath("gone"):                json.RawMessage(dueValue),
	} {
		plant(t, m.storage, path, rec)
	}
	if got := m.tidyAll(); got["removed_problems"] != int64(5) {
		t.Errorf("tidy did %v", got)
	}
	if err := m.storage.Delete(ctx, attentionPath("dead")); err != nil {
		t.Fatal(err)
	}
	if got := m.tidyAll(); got["refiled"] != int64(1) {
		t.Errorf("tidy did %v", got)
	}
	if got := m.problemList(); got != "dead" {
		t.Errorf("problems: %s", got)
	}
}

func TestTidyGoesOnInTheBackground(t *testing.T) {
	m := newMount(t)
	for i := range 40 {
		m.write(fmt.Sprint("roles/r", i), nil)
	}
	s := m.storage
	m.storage = &failingPut{Storage: s, prefix: rolePrefix}
	for i := range 40 {
		_, _ = m.do(logical.UpdateOperation, fmt.Sprint("rotate/r", i), nil)
	}
	m.storage = s
	m.clock.advance(2 * time.Hour)
	if n := len(m.leftovers()); n != 80 {
		t.Fatalf("%d left-overs, want a key and a plaintext of each role", n)
	}
	p := newProbe(s)
	m.storage = p
	slices := 0
	for range 600 {
		m.clock.advance(time.Minute)
		p.reset()
		m.tick()
		switch calls, _ := p.count(); {
		case calls > slowCalls+40:
			t.Fatalf("a tick took %d calls", calls)
		case calls > 30:
			if slices++; slices == 3 {
				m = m.restart() // it goes on where it stopped
			}
		}
	}
	if found := m.leftovers(); len(found) > 0 {
		t.Errorf("after %d slices there is still\n%s", slices, strings.Join(found, "\n"))
	}
	if slices < 4 || slices > 60 {
		t.Errorf("the pass took %d slices, and is to be followed by a pause", slices)
	}
	// The rest of the day has no more of it.
	for range 60 {
		m.clock.advance(time.Minute)
		p.reset()
		m.tick()
		if calls, _ := p.count(); calls > 30 {
			t.Errorf("a tick after the pass took %d calls", calls)
		}
	}
}

func TestTidyByHandIsFinishedByTheTicks(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", nil)
	rec := &tidyRecord{}
	m.beginTidy(rec, m.clock.Now(), true)
	rec.Stage, rec.After = "keys", "40~"
	if err := putRecord(context.Background(), m.storage, tidyPath, rec); err != nil {
		t.Fatal(err)
	}
	got := m.write("tidy", nil)
	if got["started"] != stamp(m.clock.Now()) || got["done"] != true {
		t.Errorf("tidy answers %v", got)
	}
	// One of the periodic function is begun anew: it may be past what matters.
	rec.ByHand, rec.Started = false, m.clock.Now().Add(-time.Hour)
	if err := putRecord(context.Background(), m.storage, tidyPath, rec); err != nil {
		t.Fatal(err)
	}
	if got := m.write("tidy", nil); got["started"] != stamp(m.clock.Now()) || got["examined"] == int64(0) {
		t.Errorf("tidy answers %v", got)
	}
}

// TestTidyReadsLongListsInParts: few names are kept from one slice to the next.
func TestTidyReadsLongListsInParts(t *testing.T) {
	m := newMount(t)
	ctx := context.Background()
	const n = 2*tidyChunk + 10
	for i := range n {
		if err := putBytes(ctx, m.storage, attentionPath(fmt.Sprintf("gone-%06d", i)), dueValue); err != nil {
			t.Fatal(err)
		}
	}
	p := newProbe(m.storage)
	m.storage = p
	if got := m.tidyAll(); got["removed_problems"] != int64(n) {
		t.Errorf("tidy did %v", got)
	}
	lists := 0
	for _, call := range p.log {
		if call == "list "+attentionPrefix {
			lists++
		}
	}
	if lists != 3 {
		t.Errorf("the list was read %d times, want once for each %d names", lists, tidyChunk)
	}
	if len(m.tidy.names) > 0 {
		t.Errorf("%d names are kept after the pass", len(m.tidy.names))
	}
}

// TestTidyBesidesOthers runs passes while roles are written by others.
func TestTidyBesidesOthers(t *testing.T) {
	m := newMount(t)
	m.clock.leaps = true
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m"})
	for i := range 4 {
		m.write(fmt.Sprint("roles/s", i), nil)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 20 {
				switch name := fmt.Sprint("s", i); n % 4 {
				case 0, 1:
					m.write("rotate/"+name, map[string]any{"force": true})
				case 2:
					id := m.read("status/" + name)["role_id"].(string)
					m.must(logical.DeleteOperation, "roles/"+name, nil)
					m.write("restore/"+id, nil)
				case 3:
					m.lease("d", nil)
				}
			}
		})
	}
	for range 5 {
		m.clock.advance(20 * time.Minute)
		m.tidyAll()
	}
	wg.Wait()
	for i := range 4 {
		m.expectVerdict(m.read(fmt.Sprint("creds/s", i))["api_key"], "VALID")
	}
	m.clock.advance(2 * tidyAge)
	m.tidyAll()
	m.tick()
	if found := m.leftovers(); len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
}

func TestTidyWritesNothingWhereItMayNot(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/s", nil)
	p.arm(1, faultReadOnly)
	resp, err := m.do(logical.UpdateOperation, "tidy", nil)
	if err == nil || err.Error() != logical.ErrReadOnly.Error() {
		t.Errorf("tidy answers %v, %v; want what makes a server forward", resp, err)
	}
}

// TestTidyRemovesNothingLive runs random operations, some of which fail half
// way, and passes of tidy at any time; at the end everything is deleted and
// nothing is left.
func TestTidyRemovesNothingLive(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			randomLife(t, rand.New(rand.NewPCG(seed, 7))) //nolint:gosec // a test's choice
		})
	}
}

func randomLife(t *testing.T, r *rand.Rand) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	statics, dynamics := []string{"s0", "s1", "s2"}, []string{"d0", "d1"}
	static := func() string { return statics[r.IntN(len(statics))] }
	dynamic := func() string { return dynamics[r.IntN(len(dynamics))] }
	leased := map[string]*logical.Response{}
	var ids []string
	ask := func(op logical.Operation, path string, data map[string]any) *logical.Response {
		resp, err := m.do(op, path, data)
		if err != nil || resp.IsError() {
			return nil
		}
		return resp
	}
	note := func(role string) {
		if resp := ask(logical.ReadOperation, "roles/"+role, nil); resp != nil {
			ids = append(ids, resp.Data["role_id"].(string))
		}
	}
	steps := []func(){
		func() {
			role := static()
			ask(logical.UpdateOperation, "roles/"+role, map[string]any{"rotation_period": "6h"})
			note(role)
		},
		func() {
			role := dynamic()
			ask(logical.UpdateOperation, "roles/"+role, map[string]any{"type": "dynamic", "ttl": "1h"})
			note(role)
		},
		func() { ask(logical.UpdateOperation, "rotate/"+static(), map[string]any{"force": true}) },
		func() { ask(logical.UpdateOperation, "rotate/"+static(), map[string]any{"stage": true}) },
		func() { ask(logical.UpdateOperation, "rotate/"+dynamic(), map[string]any{"force": true}) },
		func() { ask(logical.UpdateOperation, "revoke/"+static(), map[string]any{"all": true}) },
		func() { ask(logical.UpdateOperation, "rollback/"+static(), nil) },
		func() {
			if resp := ask(logical.ReadOperation, "creds/"+dynamic(), nil); resp != nil {
				resp.Secret.IssueTime = m.clock.Now()
				leased[resp.Data["api_key"].(string)] = resp
			}
		},
		func() {
			for _, key := range sortedKeys(leased) {
				_, _ = m.onLease(logical.RevokeOperation, leased[key], 0)
				break
			}
		},
		func() { ask(logical.DeleteOperation, "roles/"+static(), nil) },
		func() {
			if len(ids) > 0 {
				ask(logical.UpdateOperation, "restore/"+ids[r.IntN(len(ids))], nil)
			}
		},
		func() { m.clock.advance(time.Duration(r.IntN(180)) * time.Minute); m.tick() },
		func() { m.clock.advance(time.Duration(r.IntN(30)) * time.Hour) },
	}
	for range 120 {
		if r.IntN(5) == 0 {
			p.arm(1+r.IntN(8), []fault{faultFail, faultApplied, faultCrash, faultApplyCrash}[r.IntN(4)])
		}
		if r.IntN(3) > 0 {
			steps[r.IntN(len(steps)-2)]()
		} else {
			step := steps[len(steps)-2+r.IntN(2)]
			p.reset()
			step()
		}
		p.reset()
		if r.IntN(8) == 0 {
			m = m.restart()
		}
		if r.IntN(10) > 0 {
			continue
		}
		valid := m.validKeys()
		for key := range leased {
			if m.verdict(key) == "VALID" {
				valid[key] = true
			}
		}
		restorable := m.stored()
		m.tidyAll()
		for key := range valid {
			m.expectVerdict(key, "VALID")
		}
		after := m.stored()
		for path := range restorable.raw {
			var rec roleRecord
			if strings.HasPrefix(path, deletedPrefix) && restorable.decode(path, &rec) && m.clock.Now().Before(rec.PurgeAt) {
				for i := range rec.Ring.Versions {
					if v := &rec.Ring.Versions[i]; v.Plain && after.role(rec.ID) != nil {
						if _, ok := after.raw[secretPath(rec.ID, v.N)]; !ok && restorable.raw[secretPath(rec.ID, v.N)] != "" && m.stillNeeded(after, rec.ID, v.N) {
							t.Fatalf("version %d of a role that can be restored lost its plaintext", v.N)
						}
					}
				}
			}
		}
		for _, role := range append(statics, dynamics...) {
			if rec := after.raw[rolePath(role)]; rec != "" && m.read("status/" + role)["current_version"] != 0 {
				m.read("creds/" + role)
			}
		}
	}

	for _, role := range append(statics, dynamics...) {
		m.must(logical.DeleteOperation, "roles/"+role, nil)
	}
	m.clock.advance(26 * time.Hour)
	m.tick()
	m.tick()
	m.tidyAll()
	if found := m.leftovers(); len(found) > 0 {
		t.Fatalf("left over:\n%s", strings.Join(found, "\n"))
	}
	onlyKept := func(kept ...string) {
		t.Helper()
		for _, path := range sortedKeys(m.stored().raw) {
			ok := false
			for _, k := range kept {
				ok = ok || path == k || strings.HasSuffix(k, "/") && strings.HasPrefix(path, k)
			}
			if !ok {
				t.Errorf("%s is still there", path)
			}
		}
	}
	settings := []string{configPath, digestPath, markPath, tidyPath, prefixesPath}
	// Entries of the calendar whose role is gone go when their time comes.
	onlyKept(append(settings, archivePrefix, duePrefix, keyPrefix, issuedPrefix)...)
	m.clock.advance(archiveKept + time.Hour)
	m.tick()
	m.tidyAll()
	onlyKept(settings...)
}

// stillNeeded: the role, live again or deleted, counts on the plaintext.
func (m *testMount) stillNeeded(s store, id string, n int) bool {
	role := s.role(id)
	if role == nil || role.Ring.Get(n) == nil {
		return false
	}
	return role.Ring.Get(n).Plain
}

// TestLeasedKeysAreKeptAsTheyEnded: what ended as leases do is remembered for 30 days,
// what somebody killed for as long as history is.
func TestLeasedKeysAreKeptAsTheyEnded(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "20h", "on_leak": "alert"})
	over, back, killed, reported := m.lease("d", nil), m.lease("d", nil), m.lease("d", nil), m.lease("d", nil)
	m.clock.advance(time.Minute)
	if _, err := m.onLease(logical.RevokeOperation, back, 0); err != nil {
		t.Fatal(err)
	}
	m.write("revoke/d", map[string]any{"key_id": killed.Data["key_id"]})
	m.write("report", map[string]any{"key": reported.Data["api_key"]})
	if _, err := m.onLease(logical.RevokeOperation, reported, 0); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		m.tidyAll()
		got := ""
		for _, lease := range []*logical.Response{over, back, killed, reported} {
			got += " " + m.verdict(lease.Data["api_key"])
		}
		if got != want {
			t.Errorf("at %s:%s, want%s", m.clock.Now(), got, want)
		}
	}
	expect(" VALID REVOKED REVOKED REVOKED")
	m.clock.advance(deadKept)
	expect(" EXPIRED REVOKED REVOKED REVOKED")
	m.clock.advance(21 * time.Hour)
	expect(" NOT_FOUND NOT_FOUND REVOKED REVOKED")
	m.clock.advance(archiveKept - deadKept - 22*time.Hour)
	expect(" NOT_FOUND NOT_FOUND REVOKED REVOKED")
	m.clock.advance(2 * time.Hour)
	expect(" NOT_FOUND NOT_FOUND NOT_FOUND NOT_FOUND")
}
