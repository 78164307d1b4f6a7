// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// stored is what the storage holds of roles and dynamic keys.
type storedState struct {
	roles map[string]*roleRecord // by role_id, deleted ones too
	keys  map[string]*keyRecord
}

func stateOf(t testing.TB, s logical.Storage) storedState {
	t.Helper()
	st := storedState{roles: map[string]*roleRecord{}, keys: map[string]*keyRecord{}}
	for path := range dump(t, s) {
		switch {
		case strings.HasPrefix(path, rolePrefix):
			rec, err := getRecord[shownRole](t.Context(), s, path)
			if err != nil {
				t.Fatal(err)
			}
			if have := st.roles[rec.ID]; have == nil || !rec.marked() || have.Seq <= rec.Seq {
				st.roles[rec.ID] = &rec.roleRecord
			}
		case strings.HasPrefix(path, deletedPrefix):
			rec, err := getRecord[roleRecord](t.Context(), s, path)
			if err != nil {
				t.Fatal(err)
			}
			if have := st.roles[rec.ID]; !rec.stub() && (have == nil || have.marked()) {
				st.roles[rec.ID] = rec
			}
		case strings.HasPrefix(path, keyPrefix):
			rec, err := getRecord[keyRecord](t.Context(), s, path)
			if err != nil {
				t.Fatal(err)
			}
			if rec.Dynamic {
				st.keys[rec.ID] = rec
			}
		}
	}
	return st
}

// newsBetween is what was to be told of what became of a storage: type, role_id, and
// version or key.
func newsBetween(before, after storedState) []string {
	var all []string
	add := func(facts []fact) {
		for _, f := range facts {
			all = append(all, fmt.Sprint(f.Type, " ", f.Data["role_id"], " ", f.Data["version"], " ", f.Data["key_id"]))
		}
	}
	for id, rec := range after.roles {
		old := before.roles[id]
		c := roleChanged{old: old, rec: rec, now: rec.Committed, gone: rec.marked() && (old == nil || !old.marked())}
		add(c.facts())
	}
	for id, old := range before.roles {
		if after.roles[id] == nil && !old.marked() {
			add([]fact{factAbout(old, tellsDeleted, old.Committed, map[string]any{})})
		}
	}
	for id, rec := range after.keys {
		role := after.roles[rec.RoleID]
		if role == nil || strings.HasPrefix(rec.Revoked, causeLease) || rec.Revoked == "its generation was revoked" {
			continue
		}
		add(keyFacts(before.keys[id], rec, role, keyStatus(rec, role, role.Committed), teller{}))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Wherever storage fails, or the node falls, in any operation: what is told happened, and
// what happened is told, in the order of the sequences while nothing fails.
func TestNoEventIsLostOrMadeUp(t *testing.T) {
	t.Parallel()
	for _, sc := range allScenes() {
		if strings.Contains(sc.name, "tidy") || sc.name == "offboarding" { // which tells nothing, or of many in one

			continue
		}
		t.Run(sc.name, func(test *testing.T) {
			test.Parallel()
			sc.news(test)
		})
	}
}

func (sc *scene) news(test *testing.T) {
	t := withoutSchemas{test}
	first := newMount(t)
	w := newWorld()
	sc.prepare(first, w)
	first.write("events/all", map[string]any{"url": "https://all.example.com/hook", "pace": 10000})
	content, at := dump(t, first.storage), first.clock.Now()
	before := stateOf(t, copyStorage(t, content))
	try := func(n int, f fault) (calls []string, hit bool) {
		clock := newFakeClock()
		clock.set(at)
		p := newProbe(copyStorage(t, content))
		out := &outside{answers: map[string]func(tidings) (*egress.Answer, error){}}
		m := eventMountOn(t, p, clock, out)
		m.worker.running = sc.tick
		m.request = first.request
		p.reset()
		if n > 0 {
			p.arm(n, f)
		}
		err := sc.op(m.testMount, w.clone())
		m.flights.Wait()
		calls, hit = slices.Clone(p.log), p.hit()
		if n > 0 && !hit {
			return calls, false
		}
		p.reset()
		if f == faultCrash || f == faultApplyCrash {
			m = eventMountOn(t, p, clock, out)
		}
		for range 13 { // beyond what an unproven entry waits
			m.deliver()
			m.clock.advance(time.Minute)
		}
		m.deliver()
		want := newsBetween(before, stateOf(t, p))
		var got []string
		for _, n := range m.heardBy("all") {
			if strings.HasPrefix(n.kind, "rotation.") || n.data["keys"] != nil {
				continue
			}
			version, key := n.data["version"], n.data["key_id"]
			got = append(got, fmt.Sprint(n.kind, " ", n.data["role_id"], " ", version, " ", key))
		}
		slices.Sort(got)
		got = slices.DeleteFunc(slices.Compact(got), func(n string) bool { // staged and activated since
			rest, staged := strings.CutPrefix(n, tellsStaged)
			return staged && slices.Contains(got, tellsActivated+rest) && !slices.Contains(want, n)
		})
		if !slices.Equal(got, want) {
			call := "none"
			if n > 0 {
				call = calls[min(n, len(calls))-1]
			}
			t.Errorf("fault %d at call %d (%s), the caller was told %v:\n told %q\n want %q", f, n, call, err, got, want)
		}
		for path := range dump(t, p) {
			if strings.HasPrefix(path, outboxPrefix) && !strings.Contains(path, "/used") {
				t.Errorf("fault %d at call %d: left in the outbox: %s", f, n, path)
			}
		}
		return calls, true
	}
	calls, _ := try(0, faultFail)
	for n := 1; n <= len(calls) && !test.Failed(); n += 1 + n/30 {
		write := strings.HasPrefix(calls[n-1], "put ") || strings.HasPrefix(calls[n-1], "delete ")
		for _, f := range []fault{faultFail, faultApplied, faultCrash, faultApplyCrash} {
			if write || f == faultFail {
				try(n, f)
			}
		}
	}
}

// A job that revokes what somebody was issued tells of each role, and of all its keys,
// wherever the node falls meanwhile.
func TestAFallenJobTells(t *testing.T) {
	t.Parallel()
	first := newMount(t)
	for _, role := range []string{"d", "e"} {
		first.issueTo(role, "leaver", 3)
	}
	first.issueTo("f", "other", 1)
	first.write("events/all", map[string]any{"url": "https://all.example.com/hook", "pace": 10000, "types": "key.revoked"})
	content, at := dump(t, first.storage), first.clock.Now()
	for n := 1; ; n++ {
		for _, f := range []fault{faultCrash, faultApplyCrash} {
			clock := newFakeClock()
			clock.set(at)
			p := newProbe(copyStorage(t, content))
			m := eventMountOn(t, p, clock, nil)
			m.write("bulk", map[string]any{"action": "revoke", "issued_to": "leaver", "dry_run": false, "pace": 0, "reason": "gone"})
			p.onlyWrites = true
			p.arm(n, f)
			m.entrust(p)
			_, _ = m.step(clock.Now(), stepBudget)
			m.flights.Wait()
			fell := p.hit()
			p.reset()
			m = eventMountOn(t, p, clock, m.outside)
			m.pass(5*time.Minute, time.Minute)
			keys := map[string]any{}
			for _, got := range m.heardBy("all") {
				keys[got.role] = got.data["keys"]
			}
			if fmt.Sprint(keys) != "map[d:3 e:3]" {
				t.Fatalf("it falls at write %d (%d) and tells of %v", n, f, keys)
			}
			if !fell && n > 10 {
				return
			}
		}
	}
}

// A job whose place cannot be stored does its step again from the stored one: what it had
// killed is counted and told then.
func TestAJobThatIsNotSavedTells(t *testing.T) {
	t.Parallel()
	s := &failingStorage{Storage: &logical.InmemStorage{}}
	m := eventMountOn(t, s, newFakeClock(), nil)
	m.issueTo("d", "leaver", 3)
	m.endpoint("all", map[string]any{"types": "key.revoked"})
	job := m.write("bulk", map[string]any{"action": "revoke", "issued_to": "leaver", "dry_run": false, "pace": 0, "reason": "gone"})["job"].(string)
	s.failing = func(op, key string) bool { return op == "put" && strings.HasPrefix(key, jobPrefix) }
	_, _ = m.step(m.clock.Now(), stepBudget)
	m.flights.Wait()
	s.failing = nil
	m.pass(5*time.Minute, time.Minute)
	told := m.heardBy("all")
	if len(told) == 0 {
		t.Error("it is not told")
	}
	for _, n := range told { // of the step that is done again once more
		if n.data["keys"] != 3.0 {
			t.Errorf("it tells of %v keys", n.data["keys"])
		}
	}
	if got := m.read("bulk/" + job); fmt.Sprint(got["keys"]) != "3" || got["state"] != jobDone {
		t.Errorf("the job counts %v, and is %v", got["keys"], got["state"])
	}
}
