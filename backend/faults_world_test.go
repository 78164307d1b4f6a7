// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// world is what a test knows of a mount from outside: keys it has held, by name,
// and what it has seen of them.
type world struct {
	keys  map[string]string // by name
	live  map[string]bool   // have to verify, whatever happens
	kills map[string]bool   // have to be refused once the operation is acknowledged
	ended map[string]bool   // were seen refused for good, and stay so
	ids   map[string]string // key id of role id and version
	last  map[string]int    // highest version number by role id
	// Handed out by creds since, by key id.
	seen map[string]string
	// late: the calendar may lack a role until tidy has come by.
	late bool
	// What an operation needs to be repeated.
	lease  *logical.Response
	roleID string
	note   map[string]string
}

func newWorld() *world {
	return &world{
		keys: map[string]string{}, live: map[string]bool{}, kills: map[string]bool{}, ended: map[string]bool{},
		ids: map[string]string{}, last: map[string]int{}, seen: map[string]string{}, note: map[string]string{},
	}
}

func (w *world) clone() *world {
	c := *w
	c.keys, c.live, c.kills, c.ended = maps.Clone(w.keys), maps.Clone(w.live), maps.Clone(w.kills), maps.Clone(w.ended)
	c.ids, c.last, c.seen, c.note = maps.Clone(w.ids), maps.Clone(w.last), maps.Clone(w.seen), maps.Clone(w.note)
	return &c
}

// hold reads the current key of a static role and keeps it under a name.
func (w *world) hold(m *testMount, role, name string) {
	m.t.Helper()
	w.keys[name] = m.read("creds/" + role)["api_key"].(string)
}

// holdLive is hold for a key that nothing in the test may end.
func (w *world) holdLive(m *testMount, role, name string) {
	m.t.Helper()
	w.hold(m, role, name)
	w.live[name] = true
}

// issue is issued a key of a dynamic role and keeps it under a name.
func (w *world) issue(m *testMount, role, name string) *logical.Response {
	m.t.Helper()
	resp := m.lease(role, nil)
	w.keys[name] = resp.Data["api_key"].(string)
	return resp
}

// answers is what verify says of every key held: code, state and reason.
func (w *world) answers(m *testMount) map[string]string {
	m.t.Helper()
	all := map[string]string{}
	for name, key := range w.keys {
		got := m.write("verify", map[string]any{"key": key})
		all[name] = fmt.Sprintf("%v %v %v", got["code"], got["state"], got["reason"])
	}
	return all
}

// check asserts the invariants of every role and key that the test knows of, and
// that caches are in step.
// acknowledged: the operation has succeeded at least once. It returns what verify
// says of every key held.
func (w *world) check(m *testMount, acknowledged bool) map[string]string {
	m.t.Helper()
	m.checkCaches()
	w.checkRecords(m)
	if !w.late {
		w.checkCalendar(m)
	}
	answers := w.answers(m)
	for name, got := range answers {
		code, _, _ := strings.Cut(got, " ")
		final := code == "REVOKED" || code == "EXPIRED" || code == "RETIRED"
		switch {
		case w.live[name] && code != "VALID":
			m.t.Errorf("key %s is %s, must be VALID", name, got)
		case w.ended[name] && code == "VALID":
			m.t.Errorf("key %s was refused and verifies again: %s", name, got)
		case acknowledged && w.kills[name] && code == "VALID":
			m.t.Errorf("key %s verifies although its end was acknowledged: %s", name, got)
		}
		if final {
			w.ended[name] = true
		}
	}
	return answers
}

// checkRecords looks at each role's record, and reads the current key of each
// static one as an application does.
func (w *world) checkRecords(m *testMount) {
	m.t.Helper()
	ctx := context.Background()
	names, err := list(ctx, m.storage, rolePrefix)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range names {
		rec, err := getRecord[roleRecord](ctx, m.storage, rolePath(name))
		if err != nil {
			m.t.Fatalf("role %s: %v", name, err)
		}
		if rec == nil {
			continue // deleted, and to be moved
		}
		now := m.now(rec.Committed)
		w.checkRing(m, rec, now)
		if rec.Type == policy.Static {
			w.checkCreds(m, rec, now)
		}
	}
}

func (w *world) checkRing(m *testMount, rec *roleRecord, now time.Time) {
	m.t.Helper()
	ring := &rec.Ring
	if ring.Last < w.last[rec.ID] {
		m.t.Errorf("role %s: the last version went back from %d to %d", rec.Name, w.last[rec.ID], ring.Last)
	}
	w.last[rec.ID] = ring.Last
	current := 0
	for i := range ring.Versions {
		v := &ring.Versions[i]
		if v.N > ring.Last || i > 0 && v.N <= ring.Versions[i-1].N {
			m.t.Errorf("role %s: version %d out of order", rec.Name, v.N)
		}
		id := fmt.Sprintf("%s/%d", rec.ID, v.N)
		if known, ok := w.ids[id]; ok && known != v.KeyID {
			m.t.Errorf("role %s: version %d was key %s and is key %s", rec.Name, v.N, known, v.KeyID)
		}
		w.ids[id] = v.KeyID
		st, _ := ring.Status(v.N, now)
		if st.State == keyring.Current {
			current++
		}
		if rec.Type == policy.Static {
			w.checkVersion(m, rec, v, st)
		}
	}
	top := ring.Top(now)
	if current > 1 || current == 0 && top != nil {
		st := keyring.Status{}
		if top != nil {
			st, _ = ring.Status(top.N, now)
		}
		if current > 1 || st.State != keyring.Revoked && st.State != keyring.Expired {
			m.t.Errorf("role %s has %d current versions, the highest is %s", rec.Name, current, st.State)
		}
	}
}

// checkVersion: what a live version needs is stored.
func (w *world) checkVersion(m *testMount, rec *roleRecord, v *keyring.Version, st keyring.Status) {
	m.t.Helper()
	ctx := context.Background()
	key, err := getRecord[keyRecord](ctx, m.storage, keyPath(v.KeyID))
	if err != nil || key == nil || key.RoleID != rec.ID || key.Version != v.N {
		m.t.Errorf("role %s: the record of the key of version %d is %+v %v", rec.Name, v.N, key, err)
	}
	secret, err := getRecord[secretRecord](ctx, m.storage, secretPath(rec.ID, v.N))
	if err != nil {
		m.t.Error(err)
	}
	if st.State.Ended() || !v.Plain || !v.Revealed.IsZero() {
		return
	}
	if secret == nil {
		m.t.Errorf("role %s: the plaintext of live version %d is missing", rec.Name, v.N)
		return
	}
	if parsed, err := keyformat.Parse(secret.Key); !v.Foreign && (err != nil || parsed.ID() != v.KeyID) {
		m.t.Errorf("role %s: the plaintext of version %d is another key's", rec.Name, v.N)
	}
}

// checkCreds: creds hands out a key that verifies, or says why there is none.
func (w *world) checkCreds(m *testMount, rec *roleRecord, now time.Time) {
	m.t.Helper()
	cur := rec.Ring.Current(now)
	if cur == nil {
		m.refused(logical.ReadOperation, "creds/"+rec.Name, nil, "has no current key")
		return
	}
	if !cur.Plain || !cur.Revealed.IsZero() || rec.Policy.Reveal == policy.RevealOnce {
		return // reading it is an operation of its own
	}
	got := m.read("creds/" + rec.Name)
	if got["key_id"] != cur.KeyID || got["version"] != cur.N {
		m.t.Errorf("creds/%s hands out version %v, the current one is %d", rec.Name, got["version"], cur.N)
	}
	w.seen[cur.KeyID] = got["api_key"].(string)
	verdict := m.write("verify", map[string]any{"key": got["api_key"]})
	want := "VALID"
	if rec.Policy.Disabled {
		want = "DISABLED"
	}
	if verdict["code"] != want || verdict["state"] != "current" {
		m.t.Errorf("creds/%s hands out version %v, which is %v %v", rec.Name, got["version"], verdict["code"], verdict["state"])
	}
}

// checkCalendar: whatever is due at a role some time, a tick comes by for it.
func (w *world) checkCalendar(m *testMount) {
	m.t.Helper()
	ctx := context.Background()
	filed := map[string][]time.Time{}
	for _, path := range m.under(duePrefix) {
		var day, minute, name string
		if parts := strings.Split(path, "/"); len(parts) == 5 {
			day, minute, name = parts[1], parts[2], parts[4]
		}
		at, err := time.Parse(dayFormat+"1504", day+minute)
		if err != nil {
			m.t.Fatalf("calendar entry %s: %v", path, err)
		}
		filed[name] = append(filed[name], at)
	}
	mark, err := getRecord[markRecord](ctx, m.storage, markPath)
	if err != nil || mark == nil {
		m.t.Fatalf("the mark: %v", err)
	}
	if mark.Cursor.Sub(m.clock.Now()) > maxClockLead {
		mark.Cursor = time.Time{} // a wrong clock's, which nobody heeds
	}
	lim, err := m.limits(ctx, m.storage)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, path := range m.under(rolePrefix) {
		rec, err := getRecord[roleRecord](ctx, m.storage, path)
		if err != nil {
			m.t.Fatal(err)
		}
		if rec == nil {
			continue // deleted, and to be moved
		}
		role, err := m.lookOf(rec, lim)
		if err != nil {
			m.t.Fatal(err)
		}
		look := role.nextLook()
		if look.IsZero() {
			continue
		}
		// A minute late at most, or as late as a failure waits.
		latest := maxTime(look, mark.Cursor).Add(2 * time.Minute)
		if p, err := m.problemOf(ctx, m.storage, rec.Name); err != nil {
			m.t.Fatal(err)
		} else if p != nil {
			latest = maxTime(latest, p.Next.Add(2*time.Minute))
		}
		if !slices.ContainsFunc(filed[rec.Name], func(at time.Time) bool {
			return at.After(mark.Cursor.Add(-tickOverlap*time.Minute)) && !at.After(latest)
		}) {
			m.t.Errorf("role %s is to be looked at by %s, and filed under %v", rec.Name, look, filed[rec.Name])
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// outcome is what a mount is like from outside, so that two runs of the same
// operations can be compared. Ids and values of keys differ between runs.
func (w *world) outcome(m *testMount) map[string]string {
	m.t.Helper()
	all := map[string]string{}
	for name, got := range w.answers(m) {
		all["key "+name] = got
	}
	for _, path := range m.under(rolePrefix) {
		name := strings.TrimPrefix(path, rolePrefix)
		st := m.read("status/" + name)
		all["role "+name] = fmt.Sprintf("%s; current %v, pending %v, next %v", m.states(name), st["current_version"], st["pending_version"], st["next_rotation"])
		policy := m.read("roles/" + name)
		delete(policy, "role_id")
		delete(policy, "created")
		all["policy "+name] = fmt.Sprint(policy)
	}
	all["config"] = fmt.Sprint(m.read("config"))
	return all
}

// leftovers: after tidy has been by, no plaintext is stored but those of
// versions that keep theirs, and no static key's record but those that lead
// somewhere.
func (w *world) leftovers(m *testMount) {
	m.t.Helper()
	ctx := context.Background()
	wanted := map[string]bool{}
	for _, path := range append(m.under(rolePrefix), m.under(deletedPrefix)...) {
		rec, err := getRecord[roleRecord](ctx, m.storage, path)
		if err != nil {
			m.t.Fatal(err)
		}
		for i := range rec.Ring.Versions {
			if v := &rec.Ring.Versions[i]; v.Plain {
				wanted[secretPath(rec.ID, v.N)] = true
			}
		}
	}
	for _, path := range m.under(secretPrefix) {
		if !wanted[path] {
			m.t.Errorf("%s is left behind", path)
		}
	}
}

// erased: what was killed is not stored any more, from the acknowledgement on.
func (w *world) erased(m *testMount) {
	m.t.Helper()
	for _, path := range m.under(secretPrefix) {
		secret, err := getRecord[secretRecord](context.Background(), m.storage, path)
		if err != nil || secret == nil {
			m.t.Fatal(err)
		}
		for name := range w.kills {
			if w.keys[name] == secret.Key {
				m.t.Errorf("the plaintext of key %s, which was killed, is still stored", name)
			}
		}
	}
}

// filedOnce: where nothing failed the calendar holds no role twice.
func (w *world) filedOnce(m *testMount) {
	m.t.Helper()
	filed := map[string]bool{}
	for _, path := range m.under(duePrefix) {
		name := path[strings.LastIndex(path, "/")+1:]
		if filed[name] {
			m.t.Errorf("the calendar holds role %s twice", name)
		}
		filed[name] = true
	}
}

// idle: when everything due has happened, a tick changes no role.
func (w *world) idle(m *testMount) {
	m.t.Helper()
	roles := func() map[string]string {
		all := map[string]string{}
		for path, value := range dump(m.t, m.storage) {
			if strings.HasPrefix(path, rolePrefix) {
				all[path] = value
			}
		}
		return all
	}
	m.clock.advance(time.Minute)
	m.tick()
	before := roles()
	m.clock.advance(time.Minute)
	m.tick()
	if after := roles(); !maps.Equal(before, after) {
		m.t.Errorf("roles change although nothing is due: %v, then %v", before, after)
	}
}

// copyStorage is a storage of its own with the same content.
func copyStorage(t testing.TB, content map[string]string) logical.Storage {
	t.Helper()
	s := &logical.InmemStorage{}
	for path, value := range content {
		if err := s.Put(context.Background(), &logical.StorageEntry{Key: path, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}
