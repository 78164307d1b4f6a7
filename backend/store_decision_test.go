// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// toldDecisions collects what a mount tells of decisions.
type toldDecisions struct {
	mu   sync.Mutex
	told []decision
}

func listenTo(m *testMount) *toldDecisions {
	d := &toldDecisions{}
	m.listen = func(one decision) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.told = append(d.told, one)
	}
	return d
}

// take returns what was told since, in words: what of, in the place of ids, and how.
func (d *toldDecisions) take(roleID, keyID string) (told []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, one := range d.told {
		words := "another"
		switch {
		case one.roleID == roleID && one.keyID == "":
			words = "role"
		case one.roleID == roleID && one.keyID == keyID:
			words = "key"
		}
		if one.closing {
			words += " closing"
		}
		if one.unknown {
			words += " unknown"
		}
		told = append(told, words)
	}
	d.told = nil
	return told
}

// decisionCase is one way to a role or a key, and what is told on it.
type decisionCase struct {
	dynamic bool
	role    map[string]any // how the role is made; nil: one that does not rotate by itself
	before  func(m *testMount, c *decided)
	do      func(m *testMount, c *decided)
	want    []string
}

// decided is what a case is about.
type decided struct {
	key, keyID, roleID string
	lease              *logical.Response
}

func decisionCases() map[string]decisionCase {
	write := func(path string, data map[string]any) func(*testMount, *decided) {
		return func(m *testMount, _ *decided) { m.write(path, data) }
	}
	one, closing := []string{"role"}, []string{"role closing"}
	removed := func(m *testMount, _ *decided) { m.remove("a") }
	rotated := write("rotate/a", map[string]any{"grace_period": "10h"})
	staged := write("rotate/a", map[string]any{"stage": true})
	revokeKey := func(m *testMount, c *decided) {
		m.write("revoke/a", map[string]any{"key_id": c.keyID, "rotate": false})
	}
	onLease := func(op logical.Operation) func(*testMount, *decided) {
		return func(m *testMount, c *decided) {
			if resp, err := m.onLease(op, c.lease, 0); err != nil || resp.IsError() {
				m.t.Fatal(resp, err)
			}
		}
	}
	adopt := func(m *testMount, _ *decided) {
		if got := m.importItems(map[string]any{"role": "a", "key": foreignKey(m.t, 40)})[0]; got["result"] != importDone {
			m.t.Fatal(got)
		}
	}
	until := func(m *testMount, d time.Duration) {
		m.write("roles/a", map[string]any{"valid_until": m.untilIn(d)})
	}
	policy := map[string]any{
		"rotation_period": 0, "scopes": []string{"a:read", "b:read"}, "allowed_cidrs": []string{"10.0.0.0/8"}, "rate_limit": 10,
	}
	cases := map[string]decisionCase{
		"description":   {do: write("roles/a", map[string]any{"description": "x"})},
		"disable":       {do: write("roles/a", map[string]any{"disabled": true}), want: closing},
		"enable":        {before: write("roles/a", map[string]any{"disabled": true}), do: write("roles/a", map[string]any{"disabled": false}), want: one},
		"fewer scopes":  {role: policy, do: write("roles/a", map[string]any{"scopes": []string{"a:read"}}), want: closing},
		"more scopes":   {role: policy, do: write("roles/a", map[string]any{"scopes": []string{"a:*", "b:read"}}), want: one},
		"other cidrs":   {role: policy, do: write("roles/a", map[string]any{"allowed_cidrs": []string{"10.0.0.0/9"}}), want: closing},
		"lower rate":    {role: policy, do: write("roles/a", map[string]any{"rate_limit": 9}), want: closing},
		"higher rate":   {role: policy, do: write("roles/a", map[string]any{"rate_limit": 11}), want: one},
		"no rate limit": {role: policy, do: write("roles/a", map[string]any{"rate_limit": 0}), want: one},
		"first rate":    {do: write("roles/a", map[string]any{"rate_limit": 9}), want: closing},
		"valid_until":   {do: func(m *testMount, _ *decided) { until(m, 48*time.Hour) }, want: closing},
		"later valid_until": {
			before: func(m *testMount, _ *decided) { until(m, 48*time.Hour) },
			do:     func(m *testMount, _ *decided) { until(m, 49*time.Hour) }, want: one,
		},

		// The end that a succession sets for the previous version is no closing: there is
		// its grace for that.
		"rotate":           {do: rotated, want: one},
		"rotate, no grace": {do: write("rotate/a", map[string]any{"grace_period": 0}), want: closing},
		"stage":            {do: staged, want: one},
		"promote":          {before: staged, do: write("promote/a", nil), want: one},
		"rollback":         {before: rotated, do: write("rollback/a", nil), want: one},
		"longer grace":     {before: rotated, do: write("grace/a", map[string]any{"valid_until": "20h"}), want: one},
		"shorter grace":    {before: rotated, do: write("grace/a", map[string]any{"valid_until": "5h"}), want: closing},
		"grace ended":      {before: rotated, do: write("grace/a", map[string]any{"valid_until": 0}), want: closing},
		"revoke":           {do: write("revoke/a", map[string]any{"version": 1, "rotate": false}), want: closing},
		"revoke by id":     {do: revokeKey, want: closing},
		"revoke all":       {do: write("revoke/a", map[string]any{"all": true}), want: closing},
		"report": {
			role: map[string]any{"rotation_period": 0, "on_leak": "revoke"},
			do:   func(m *testMount, c *decided) { m.write("report", map[string]any{"key": c.key}) }, want: closing,
		},
		"import": {do: adopt, want: one},

		"delete":  {do: removed, want: closing},
		"restore": {before: removed, do: func(m *testMount, c *decided) { m.write("restore/"+c.roleID, nil) }, want: one},
		"rename": {before: removed, do: func(m *testMount, c *decided) {
			m.write("restore/"+c.roleID, map[string]any{"name": "b"})
		}, want: one},
		"restore again": {before: func(m *testMount, c *decided) {
			m.remove("a")
			m.write("restore/"+c.roleID, nil)
		}, do: func(m *testMount, c *decided) { m.write("restore/"+c.roleID, nil) }},
		"kill a deleted one": {before: removed, do: revokeKey, want: closing},
		"purge":              {before: removed, do: func(m *testMount, _ *decided) { m.run(25 * time.Hour) }},

		"planned rotation": {
			role: map[string]any{"rotation_period": "24h", "grace_period": "2h"}, before: func(m *testMount, _ *decided) { m.run(23*time.Hour + 30*time.Minute) },
			do: func(m *testMount, _ *decided) { m.run(40 * time.Minute) }, want: one, // the clock does the rest
		},

		"generation":         {dynamic: true, do: write("revoke/a", map[string]any{"version": 1, "rotate": false}), want: closing},
		"dynamic key":        {dynamic: true, do: revokeKey, want: []string{"key closing"}},
		"lease given back":   {dynamic: true, do: onLease(logical.RevokeOperation), want: []string{"key closing"}},
		"renewal":            {dynamic: true, do: onLease(logical.RenewOperation)},
		"issue":              {dynamic: true, do: func(m *testMount, _ *decided) { m.lease("a", nil) }},
		"dynamic delete":     {dynamic: true, do: removed, want: closing},
		"dynamic kill again": {dynamic: true, before: revokeKey, do: func(m *testMount, c *decided) { _, _ = m.onLease(logical.RevokeOperation, c.lease, 0) }},
		"end of a lease": {dynamic: true, before: func(m *testMount, c *decided) {
			m.clock.advance(c.lease.Secret.TTL)
		}, do: onLease(logical.RevokeOperation)},
	}
	for name, do := range map[string]func(*testMount, *decided){
		"config":  write("config", map[string]any{"stage_ahead": "20m"}),
		"verify":  func(m *testMount, c *decided) { m.write("verify", map[string]any{"key": c.key}) },
		"creds":   func(m *testMount, _ *decided) { m.read("creds/a") },
		"status":  func(m *testMount, _ *decided) { m.read("status/a") },
		"history": func(m *testMount, _ *decided) { m.read("history/a") },
		"a tick":  func(m *testMount, _ *decided) { m.tick() },
		"another promote": func(m *testMount, _ *decided) {
			_, _ = m.do(logical.UpdateOperation, "promote/a", nil)
		},
	} {
		cases[name] = decisionCase{do: do}
	}
	return cases
}

// What is told of each way to a role and to a key.
func TestDecisionsAreTold(t *testing.T) {
	t.Parallel()
	for name, c := range decisionCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			on := c.begin(m)
			d := listenTo(m)
			c.do(m, on)
			if got := d.take(on.roleID, on.keyID); !slices.Equal(got, c.want) {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

func (c *decisionCase) begin(m *testMount) *decided {
	m.t.Helper()
	role := c.role
	switch {
	case c.dynamic:
		role = map[string]any{"type": "dynamic", "rotation_period": 0}
	case role == nil:
		role = map[string]any{"rotation_period": 0}
	}
	m.write("roles/a", role)
	on := &decided{roleID: m.record("a").ID}
	if c.dynamic {
		on.lease = m.lease("a", nil)
		on.key, on.keyID = on.lease.Data["api_key"].(string), on.lease.Data["key_id"].(string)
	} else {
		got := m.read("creds/a")
		on.key, on.keyID = got["api_key"].(string), got["key_id"].(string)
	}
	if c.before != nil {
		c.before(m, on)
	}
	return on
}

// Where the write that decides errs, that is told as unknown and closing, and again by
// the next one who reads under the lock. A node that may not write tells nothing.
func TestFailedDecisionsAreTold(t *testing.T) {
	t.Parallel()
	for name, c := range decisionCases() {
		if len(c.want) == 0 || name == "planned rotation" {
			continue
		}
		what, prefix := "role", rolePrefix
		switch {
		case c.want[0] == "key closing":
			what, prefix = "key", keyPrefix
		case name == "kill a deleted one":
			prefix = deletedPrefix
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &landingStorage{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			on := c.begin(m)
			d := listenTo(m)
			m.t = tolerant{t}
			s.fails(prefix)
			c.try(m, on)
			if len(s.late) != 1 {
				t.Fatal("no write failed")
			}
			unknown := what + " closing unknown"
			if got := d.take(on.roleID, on.keyID); !slices.Contains(got, unknown) {
				t.Errorf("told %q of a write that erred", got)
			}
			s.land()
			ctx := context.Background()
			for range 2 {
				_, err := m.lockedShown(ctx, s, "a")
				_, errB := m.lockedShown(ctx, s, "b")
				_, errKey := m.lockedKey(ctx, s, on.keyID)
				_, errCopy := m.lockedCopy(ctx, s, on.roleID)
				if err := errors.Join(err, errB, errKey, errCopy); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.take(on.roleID, on.keyID); !slices.Equal(got, []string{unknown}) {
				t.Errorf("told %q once it had landed and was read twice", got)
			}
		})
		t.Run(name+" where nothing may be written", func(t *testing.T) {
			t.Parallel()
			s := &refusing{Storage: &logical.InmemStorage{}}
			m := mountOn(t, s, newFakeClock())
			on := c.begin(m)
			d := listenTo(m)
			m.t = tolerant{t}
			s.refuses = true
			c.try(m, on)
			if got := d.take(on.roleID, on.keyID); len(got) > 0 {
				t.Errorf("told %q", got)
			}
			if m.roles.unsure.has(rolePath("a")) || m.keys.unsure.has(keyPath(on.keyID)) || m.copies.has(deletedPath(on.roleID)) {
				t.Error("unsure, although nothing was written")
			}
		})
	}
}

// try does it, whatever comes of it.
func (c *decisionCase) try(m *testMount, on *decided) {
	defer func() {
		if p := recover(); p != nil && p != errGivenUp { //nolint:errorlint // a panic's value
			panic(p)
		}
	}()
	c.do(m, on)
}

// tolerant is a test in which an operation may fail: it ends there.
type tolerant struct{ testing.TB }

var errGivenUp = errors.New("the operation failed")

func (tolerant) Fatal(...any)          { panic(errGivenUp) }
func (tolerant) Fatalf(string, ...any) { panic(errGivenUp) }

// refusing is the storage of a node that may not write.
type refusing struct {
	logical.Storage

	refuses bool
}

func (s *refusing) Put(ctx context.Context, e *logical.StorageEntry) error {
	if s.refuses {
		return logical.ErrReadOnly
	}
	return s.Storage.Put(ctx, e)
}

func (s *refusing) Delete(ctx context.Context, key string) error {
	if s.refuses {
		return logical.ErrReadOnly
	}
	return s.Storage.Delete(ctx, key)
}

// Whatever operation there is: where a key verifies no more after it, or the record of
// a role makes other answers, that was told.
func TestEveryOperationTellsWhatItDecides(t *testing.T) {
	t.Parallel()
	for _, sc := range allScenes() {
		t.Run(sc.name, func(test *testing.T) {
			test.Parallel()
			t := withoutSchemas{test}
			m := newMount(t)
			w := newWorld()
			sc.prepare(m, w)
			verdicts := func() map[string]bool {
				good := map[string]bool{}
				for name, key := range w.keys {
					good[name] = m.write("verify", map[string]any{"key": key})["code"] == "VALID"
				}
				return good
			}
			good, before, at := verdicts(), dump(t, m.storage), m.clock.Now()
			d := listenTo(m)
			if err := sc.op(m, w); err != nil {
				t.Fatal(err)
			}
			d.mu.Lock()
			told := slices.Clone(d.told)
			d.mu.Unlock()
			of := func(roleID string, closing bool) bool {
				return slices.ContainsFunc(told, func(one decision) bool { return one.roleID == roleID && (one.closing || !closing) })
			}
			after := dump(t, m.storage)
			for path := range before {
				if after[path] == before[path] || !strings.HasPrefix(path, rolePrefix) {
					continue
				}
				var rec roleRecord
				if err := decodeRecord([]byte(before[path]), &rec); err != nil {
					t.Fatal(err)
				}
				c := change{what: roleChange, old: &rec}
				if text, there := after[path]; there {
					c.rec = &roleRecord{}
					if err := decodeRecord([]byte(text), c.rec); err != nil {
						t.Fatal(err)
					}
				}
				if !of(rec.ID, false) && c.changesRole() {
					t.Errorf("%s makes other answers, and that was not told", path)
				}
			}
			if !m.clock.Now().Equal(at) {
				return // time ends keys, too
			}
			for name, is := range verdicts() {
				own, err := keyformat.Parse(w.keys[name])
				if err != nil || !good[name] || is {
					continue
				}
				var key keyRecord
				if err := decodeRecord([]byte(before[keyPath(own.ID())]), &key); err != nil {
					t.Fatal(err)
				}
				if !of(key.RoleID, true) {
					t.Errorf("key %s verifies no more, and of that was told only %+v", name, told)
				}
			}
		})
	}
}

// What a change takes away, and what it does not.
func TestSooner(t *testing.T) {
	t.Parallel()
	at := newFakeClock().Now()
	for _, c := range []struct {
		end, was time.Time
		want     bool
	}{
		{time.Time{}, time.Time{}, false},
		{time.Time{}, at, false},
		{at, time.Time{}, true},
		{at, at, false},
		{at, at.Add(1), true},
		{at.Add(1), at, false},
	} {
		if got := sooner(c.end, c.was); got != c.want {
			t.Errorf("%v after %v: %v", c.end, c.was, got)
		}
	}
	capped := &keyRecord{Dynamic: true, Cap: at}
	if c := (change{oldKey: &keyRecord{Dynamic: true}, key: capped}); !c.decidesKey() {
		t.Error("the end of a key that comes sooner is no decision")
	}
	for _, c := range []change{{key: capped}, {oldKey: capped}, {oldKey: capped, key: capped}} {
		if c.decidesKey() {
			t.Errorf("%+v is a decision", c)
		}
	}
}
