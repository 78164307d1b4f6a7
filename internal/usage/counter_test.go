// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRecordNames(t *testing.T) {
	for id, want := range map[ID]string{
		{RoleID: "a", Version: 1}:              "a/versions",
		{RoleID: "a", Version: 2}:              "a/versions",
		{RoleID: "a", Version: 1, KeyID: "xy"}: "a/keys-78",
		{RoleID: "a", Version: 1, KeyID: "Xy"}: "a/keys-58", // names may be told apart without regard to case
	} {
		if got := id.RecordName(); got != want {
			t.Errorf("%+v: %s, want %s", id, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	c := NewCounter()
	var slot, keySlot Slot
	key := ID{RoleID: "role", Version: 1, KeyID: "k1"}
	for _, hit := range []Hit{
		{At: at(0), Client: "shop"},
		{At: at(time.Minute), Refused: "REVOKED", Ended: true},
		{At: at(time.Minute), Refused: "REVOKED", Ended: true, Client: "shop"},
	} {
		c.Saw(&slot, version(1), "r", &hit)
	}
	c.Saw(&keySlot, key, "r", &Hit{At: at(0)})
	c.Told(version(1), "r", &Report{Accepted: 5, Refused: Refusals{{"EXPIRED", 2}}, First: at(0), Last: at(time.Hour), Client: "edge"}, at(time.Hour))
	c.Told(version(2), "r", &Report{Refused: Refusals{{"EXPIRED", 2}}, First: at(0), Last: at(time.Hour)}, at(time.Hour))

	rec := stores{}.read(c, "role/versions")
	one, two := rec.Of(version(1)), rec.Of(version(2))
	if got := line(&one.Seen) + ", " + line(&one.Reported); got != "1 REVOKED=2 [shop 1 REVOKED=1], 5 EXPIRED=2 [edge 5 EXPIRED=2]" {
		t.Errorf("counted %s", got)
	}
	if !one.Reported.LastAccepted().Equal(at(time.Hour)) || !two.LastAccepted().IsZero() || !two.LastUse().Equal(at(time.Hour)) {
		t.Errorf("reported: accepted %s, and %s where none was", one.Reported.LastAccepted(), two.LastAccepted())
	}
	if hours := rec.EndedHours(); rec.Role != "r" || len(hours) != 1 || hours[0].Count != 2 {
		t.Errorf("role %q, ended %v", rec.Role, hours)
	}
	if use := (stores{}).read(c, key.RecordName()).Of(key); line(&use.Seen) != "1" {
		t.Errorf("the key: %s", line(&use.Seen))
	}
}

// Counting what was counted before costs no allocation.
func TestCountingAllocatesNothing(t *testing.T) {
	c := NewCounter()
	var slot Slot
	for name, hit := range map[string]Hit{
		"accepted":          {At: at(0)},
		"refused":           {At: at(0), Refused: "REVOKED", Ended: true},
		"accepted, labeled": {At: at(0), Client: "shop", Urgent: true},
		"refused, labeled":  {At: at(0), Client: "shop", Refused: "REVOKED"},
	} {
		c.Saw(&slot, version(1), "r", &hit)
		if n := testing.AllocsPerRun(100, func() { c.Saw(&slot, version(1), "r", &hit) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkSaw(b *testing.B) {
	for _, hit := range []Hit{{}, {Client: "gateway-1"}, {Refused: "INSUFFICIENT_SCOPE"}, {Refused: "INSUFFICIENT_SCOPE", Client: "gateway-1"}} {
		b.Run(fmt.Sprintf("refused=%s,client=%s", hit.Refused, hit.Client), func(b *testing.B) {
			c := NewCounter()
			var slot Slot
			hit.At = epoch
			b.ReportAllocs()
			for b.Loop() {
				c.Saw(&slot, version(1), "r", &hit)
			}
		})
	}
}

func TestDue(t *testing.T) {
	c := NewCounter()
	for i, role := range []string{"late", "early", "urgent"} {
		c.Saw(&Slot{}, ID{RoleID: role, Version: 1}, "r", &Hit{At: at(time.Duration(20-10*i) * time.Minute), Urgent: role == "urgent"})
	}
	c.Told(ID{RoleID: "told", Version: 1}, "r", &Report{Accepted: 1, Urgent: true}, at(30*time.Minute))
	for _, step := range []struct {
		now  time.Duration
		wait time.Duration
		want string
	}{
		{30 * time.Minute, time.Hour, "urgent told"},
		{30 * time.Minute, 15 * time.Minute, "urgent early told"},
		{25 * time.Minute, 15 * time.Minute, "urgent early told"},
		{30 * time.Minute, 0, "urgent early late told"},
		{0, time.Hour, "urgent early late told"}, // the clock was wrong then, or is now
	} {
		got := strings.ReplaceAll(strings.Join(c.Due(at(step.now), step.wait), " "), "/versions", "")
		if got != step.want {
			t.Errorf("at %s, waiting %s: %s, want %s", step.now, step.wait, got, step.want)
		}
	}
}

// Reads are counted apart from uses, and are no reason to write soon.
func TestReads(t *testing.T) {
	c, s := NewCounter(), stores{}
	const name = "role/versions"
	for _, d := range []time.Duration{time.Minute, 0, 2 * time.Minute} {
		c.Read(version(1), "r", at(d))
	}
	for wait, want := range map[time.Duration]int{45 * time.Minute: 0, 59 * time.Minute: 0, 61 * time.Minute: 1, -2 * time.Minute: 1} {
		if due := c.Due(at(wait), 15*time.Minute); len(due) != want {
			t.Errorf("after %s %v are due", wait, due)
		}
	}
	if due := c.Due(at(time.Minute), 0); len(due) != 1 {
		t.Error("the last flush leaves reads out")
	}
	s.flush(c, name, false)
	c.Read(version(1), "r", at(time.Hour))
	s.flush(c, name, true)
	use := s.read(c, name).Of(version(1))
	if r := use.Reads; r.Count != 4 || !r.FirstRead().Equal(at(0)) || !r.LastRead().Equal(at(time.Hour)) {
		t.Errorf("reads: %+v", r)
	}
	if !use.LastUse().IsZero() || !use.LastAccepted().IsZero() || use.Seen.First != 0 {
		t.Error("a read counts as a use")
	}
	if none := s.read(c, name).Of(version(2)).Reads; !none.FirstRead().IsZero() || !none.LastRead().IsZero() {
		t.Errorf("never read: %+v", none)
	}
	// A use makes the record as urgent as any.
	c.Saw(&Slot{}, version(1), "r", &Hit{At: at(time.Hour)})
	if due := c.Due(at(76*time.Minute), 15*time.Minute); len(due) != 1 {
		t.Error("a use waits with the reads")
	}
	batch := c.Take(name)
	c.Read(version(1), "r", at(time.Hour))
	batch.Failed()
	if due := c.Due(at(76*time.Minute), 15*time.Minute); len(due) != 1 {
		t.Error("a use whose flush failed waits with the reads")
	}
}

// However much is read, there is room for uses, and they are not hurried.
func TestReadsTakeNoRoomFromUses(t *testing.T) {
	c := newCounter(40)
	for n := range 50 {
		c.Read(version(n), "r", at(0))
		if want := n >= 5; (len(c.Due(at(0), time.Hour)) == 1) != want {
			t.Errorf("%d reads are due: %v", n+1, !want)
		}
	}
	if c.held.Load() != 10 || c.Missed() != 0 {
		t.Errorf("%d entries for reads, %d missed", c.held.Load(), c.missed.Load())
	}
	c.Read(version(0), "r", at(time.Second))
	if r := (stores{}).read(c, "role/versions").Of(version(0)).Reads; r.Count != 2 {
		t.Errorf("a version that is counted was read %d times", r.Count)
	}
	for n := range 30 {
		c.Saw(&Slot{}, ID{RoleID: "other", Version: n}, "r", &Hit{At: at(0)})
	}
	if c.Missed() != 0 {
		t.Error("a use found no room")
	}
}

func TestEntriesAreBounded(t *testing.T) {
	c := newCounter(10)
	saw := func(role string, n int) {
		c.Saw(&Slot{}, ID{RoleID: role, Version: n}, "r", &Hit{At: at(0)})
	}
	for n := range 6 {
		if due := len(c.Due(at(0), time.Hour)); due != 0 {
			t.Errorf("%d records are due with %d entries", due, n)
		}
		saw("a", n)
	}
	if due := len(c.Due(at(0), time.Hour)); due != 1 {
		t.Errorf("crowded, and %d records are due", due)
	}
	for n := range 12 {
		saw("a", n) // of these 6 are known, and 4 find room
	}
	for n := range 6 {
		saw("b", n)
		c.Told(ID{RoleID: "b", Version: n}, "r", &Report{Accepted: 1}, at(0))
	}
	if got := c.Missed(); got != 2+6+6 {
		t.Errorf("missed %d", got)
	}
	if got := c.Missed(); got != 0 {
		t.Errorf("missed %d again", got)
	}
	if names := c.Due(at(0), 0); !slices.Equal(names, []string{"a/versions"}) {
		t.Errorf("records %v", names)
	}
	s := stores{}
	s.flush(c, "a/versions", false)
	saw("b", 1)
	if c.Missed() != 0 || c.held.Load() != 1 {
		t.Errorf("after a flush %d entries are held", c.held.Load())
	}
}

func TestLabelsInMemoryAreBounded(t *testing.T) {
	c := newCounter(10)
	for i := range 50 {
		c.Saw(&Slot{}, version(1), "r", &Hit{At: at(0), Client: fmt.Sprint("client-", i)})
	}
	use := stores{}.read(c, "role/versions").Of(version(1))
	if other := use.Seen.Clients[OtherLabel]; len(use.Seen.Clients) != 41 || other == nil || other.Accepted != 10 {
		t.Errorf("%d labels, %s", len(use.Seen.Clients), line(&use.Seen))
	}
	if due := c.Due(at(0), time.Hour); len(due) != 1 {
		t.Errorf("crowded, and due are %v", due)
	}
	s := stores{}
	s.flush(c, "role/versions", true)
	if c.labels.Load() != 41 {
		t.Errorf("%d labels are held", c.labels.Load())
	}
	s.flush(c, "role/versions", false)
	if c.labels.Load() != 0 {
		t.Errorf("%d labels are held", c.labels.Load())
	}
	c.Saw(&Slot{}, version(1), "r", &Hit{At: at(0), Client: "late"})
	if use := s.read(c, "role/versions").Of(version(1)); use.Seen.Clients["late"] == nil {
		t.Error("after a flush there is no room for labels")
	}
}

// A slot that points to what was taken finds the new place.
func TestSlotsAfterATake(t *testing.T) {
	c := NewCounter()
	s := stores{}
	var slot Slot
	saw := func() { c.Saw(&slot, version(1), "r", &Hit{At: at(0)}) }
	const name = "role/versions"
	saw()
	s.flush(c, name, false)
	saw()
	batch := c.Take(name)
	saw()
	if c.Take(name) != nil {
		t.Error("a second batch is under way")
	}
	batch.Failed()
	saw()
	batch = c.Take(name)
	batch.Failed()
	saw()
	c.Forget(name)
	saw()
	if use := s.read(c, name).Of(version(1)); use.Seen.Accepted != 2 {
		t.Errorf("counted %d, want the first and the last", use.Seen.Accepted)
	}
	s.flush(c, name, false)
	if use := s.read(c, name).Of(version(1)); use.Seen.Accepted != 2 || c.held.Load() != 0 {
		t.Errorf("stored %d, %d held", use.Seen.Accepted, c.held.Load())
	}
}

// What failed is due as it was, and knows the role's last name.
func TestFailedIsDueAsItWas(t *testing.T) {
	c := NewCounter()
	c.Saw(&Slot{}, version(1), "old", &Hit{At: at(0), Urgent: true})
	batch := c.Take("role/versions")
	c.Saw(&Slot{}, version(1), "new", &Hit{At: at(time.Hour)})
	if due := c.Due(at(time.Hour), time.Hour); len(due) != 0 {
		t.Errorf("due meanwhile: %v", due)
	}
	batch.Failed()
	if due := c.Due(at(time.Hour), 10*time.Hour); len(due) != 1 {
		t.Error("the urgent use waits")
	}
	c.Saw(&Slot{}, ID{RoleID: "other", Version: 1}, "r", &Hit{At: at(time.Minute)})
	if due := c.Due(at(time.Hour), time.Minute); len(due) != 2 || due[0] != "role/versions" {
		t.Errorf("due are %v; what waits longest comes first", due)
	}
	if rec := (stores{}).read(c, "role/versions"); rec.Role != "new" || rec.Versions[1].Seen.Accepted != 2 {
		t.Errorf("role %s, %s", rec.Role, line(&rec.Versions[1].Seen))
	}
}

// A group may be taken before the use that it was made for is in it.
func TestTakeOfNothing(t *testing.T) {
	c := NewCounter()
	if c.Take("role/versions") != nil {
		t.Error("took something")
	}
	c.group("role/versions", at(0), c.limit)
	if c.Take("role/versions") != nil || len(c.Due(at(0), 0)) != 0 {
		t.Error("took something")
	}
}

func TestNames(t *testing.T) {
	c := NewCounter()
	for _, id := range []ID{version(1), {RoleID: "role", Version: 1, KeyID: "a"}, {RoleID: "role2", Version: 1}} {
		c.Saw(&Slot{}, id, "r", &Hit{At: at(0)})
	}
	batch := c.Take("role/versions")
	c.Take("role/keys-61").Failed()
	if got := c.Names("role"); !slices.Equal(got, []string{"role/keys-61", "role/versions"}) {
		t.Errorf("names %v", got)
	}
	batch.Failed()
	for _, name := range c.Names("role") {
		c.Forget(name)
	}
	if got := c.Names("role"); len(got) != 0 || c.held.Load() != 1 {
		t.Errorf("left %v, %d", got, c.held.Load())
	}
}

// TestCounterProperties drives a counter through uses, reports, flushes that
// succeed and fail, and uses in the midst of a flush: nothing is lost, nothing
// counts twice, and nothing is held that was stored.
func TestCounterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, s := NewCounter(), stores{}
		slots := map[ID]*Slot{}
		seen, reported, read := map[ID]int64{}, map[ID]int64{}, map[ID]int64{}
		ids := []ID{version(1), version(2), {RoleID: "role", Version: 1, KeyID: "a1"}, {RoleID: "role", Version: 1, KeyID: "a2"}, {RoleID: "other", Version: 1}}
		for _, id := range ids {
			slots[id] = &Slot{}
		}
		batches := map[string]*Batch{}
		settle := func(name string, fail bool) {
			if batch := batches[name]; batch != nil {
				delete(batches, name)
				if fail {
					batch.Failed()
					return
				}
				if s[name] == nil {
					s[name] = &Record{}
				}
				batch.AddTo(s[name])
				batch.Stored()
			}
		}
		check := func(id ID) {
			use := s.read(c, id.RecordName()).Of(id)
			labelled := int64(0)
			for _, client := range use.Seen.Clients {
				labelled += client.Accepted
			}
			if use.Reads.Count != read[id] {
				t.Fatalf("%+v: read %d times, want %d", id, use.Reads.Count, read[id])
			}
			if use.Seen.Accepted != seen[id] || labelled != seen[id] || use.Reported.Accepted != reported[id] {
				t.Fatalf("%+v: seen %s, reported %s, want %d and %d", id, line(&use.Seen), line(&use.Reported), seen[id], reported[id])
			}
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "id")
			name := id.RecordName()
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				c.Saw(slots[id], id, "r", &Hit{At: at(0), Client: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "client")})
				seen[id]++
			case 2:
				c.Told(id, "r", &Report{Accepted: 3, First: at(0), Last: at(0)}, at(0))
				reported[id] += 3
			case 3:
				if batch := c.Take(name); batch != nil {
					batches[name] = batch
				}
			case 4:
				settle(name, rapid.Bool().Draw(t, "fails"))
			case 5:
				if batches[name] == nil {
					check(id)
				}
			case 6:
				c.Read(id, "r", at(0))
				read[id]++
			}
		}
		for _, id := range ids {
			settle(id.RecordName(), rapid.Bool().Draw(t, "fails at last"))
			check(id)
		}
		for _, name := range c.Due(at(0), 0) {
			s.flush(c, name, false)
		}
		for _, id := range ids {
			check(id)
		}
		if c.held.Load() != 0 || c.labels.Load() != 0 || c.Missed() != 0 {
			t.Fatalf("%d entries and %d labels are held", c.held.Load(), c.labels.Load())
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	c := NewCounter()
	const workers, each, name = 4, 500, "role/versions"
	var slot Slot
	var wg sync.WaitGroup
	s := stores{}
	for w := range workers {
		wg.Go(func() {
			for range each {
				c.Saw(&slot, version(1), "r", &Hit{At: at(0), Client: fmt.Sprint(w)})
				c.Told(version(1), "r", &Report{Accepted: 1, First: at(0), Last: at(0)}, at(0))
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			s.flush(c, name, i%3 == 0)
			s.read(c, name)
			c.Due(at(0), 0)
			c.Names("role")
		}
	})
	wg.Wait()
	use := s.read(c, name).Of(version(1))
	if use.Seen.Accepted != workers*each || use.Reported.Accepted != workers*each || len(use.Seen.Clients) != workers {
		t.Errorf("counted %s and %s", line(&use.Seen), line(&use.Reported))
	}
	for label, client := range use.Seen.Clients {
		if client.Accepted != each {
			t.Errorf("%s: %d", label, client.Accepted)
		}
	}
}
