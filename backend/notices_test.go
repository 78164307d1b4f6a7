// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// told is what was told since cursor, a word for each role and key, in order: its name,
// with ! where it is closing.
func (m *testMount) told(since string, names map[string]string) (words, cursor string) {
	m.t.Helper()
	got := m.write("changes", map[string]any{"since": since, "wait": 0})
	if got["reset"] != false {
		m.t.Fatalf("a reset: %v", got)
	}
	var all []string
	for _, n := range got["notices"].([]any) {
		n := n.(map[string]any)
		id, _ := n["role_id"].(string)
		if key, ok := n["key_id"].(string); ok {
			id += key
		}
		word, known := names[id]
		if !known {
			word = "?" + id
		}
		if n["closing"] == true {
			word += "!"
		}
		all = append(all, word)
	}
	slices.Sort(all)
	return strings.Join(all, " "), got["cursor"].(string)
}

// TestEveryDecisionIsTold goes through the paths that decide about keys, and through
// those that do not.
func TestEveryDecisionIsTold(t *testing.T) {
	type world struct {
		*testMount
		lease    *logical.Response
		key, gid string
	}
	update := func(path string, data map[string]any) func(*world) {
		return func(w *world) { w.write(path, data) }
	}
	until := func(d time.Duration) func(*world) {
		return func(w *world) { w.write("roles/s", map[string]any{"valid_until": stamp(w.clock.Now().Add(d))}) }
	}
	stage := update("rotate/s", map[string]any{"stage": true})
	report := func(w *world) { w.write("report", map[string]any{"key": w.key}) }
	for name, c := range map[string]struct {
		before, do func(*world)
		want       string
	}{
		"create":               {do: func(w *world) { w.write("roles/s", map[string]any{"owner": "x"}) }, want: ""},
		"rotate":               {do: update("rotate/s", nil), want: "s"},
		"rotate without grace": {do: update("rotate/s", map[string]any{"grace_period": 0}), want: "s!"},
		"stage":                {do: stage, want: "s"},
		"stage at a date":      {do: update("rotate/s", map[string]any{"activate_at": "1h"}), want: "s"},
		"promote":              {before: stage, do: update("promote/s", nil), want: "s"},
		"rollback":             {do: update("rollback/s", nil), want: "s"},
		"grace, shorter":       {do: update("grace/s", map[string]any{"valid_until": "1h"}), want: "s!"},
		"revoke":               {do: update("revoke/s", map[string]any{"version": 1}), want: "s!"},
		"revoke all":           {do: update("revoke/s", map[string]any{"all": true}), want: "s!"},
		"report":               {do: report, want: "s!"},
		"disable":              {do: update("roles/s", map[string]any{"disabled": true}), want: "s!"},
		"enable":               {before: update("roles/s", map[string]any{"disabled": true}), do: update("roles/s", map[string]any{"disabled": false}), want: "s"},
		"narrow scopes":        {do: update("roles/s", map[string]any{"scopes": "a:read"}), want: "s!"},
		"allowed addresses":    {do: update("roles/s", map[string]any{"allowed_cidrs": "10.0.0.0/8"}), want: "s!"},
		"rate limit":           {do: update("roles/s", map[string]any{"rate_limit": 5}), want: "s!"},
		"metadata":             {do: update("roles/s", map[string]any{"metadata": map[string]any{"env": "test"}}), want: "s"},
		"wider scopes":         {do: update("roles/s", map[string]any{"scopes": "a:*,b"}), want: "s"},
		"no allowed addresses": {
			before: update("roles/s", map[string]any{"allowed_cidrs": "10.0.0.0/8"}),
			do:     func(w *world) { w.must(logical.PatchOperation, "roles/s", map[string]any{"allowed_cidrs": nil}) }, want: "s!",
		},
		"higher rate limit": {before: update("roles/s", map[string]any{"rate_limit": 5}), do: update("roles/s", map[string]any{"rate_limit": 9}), want: "s"},
		"lower rate limit":  {before: update("roles/s", map[string]any{"rate_limit": 5}), do: update("roles/s", map[string]any{"rate_limit": 4}), want: "s!"},
		"no rate limit":     {before: update("roles/s", map[string]any{"rate_limit": 5}), do: update("roles/s", map[string]any{"rate_limit": 0}), want: "s"},
		"an end of the role": {do: func(w *world) {
			w.write("roles/s", map[string]any{"valid_until": stamp(w.clock.Now().Add(100 * time.Hour))})
		}, want: "s!"},
		"an earlier end of the role": {before: until(100 * time.Hour), do: until(90 * time.Hour), want: "s!"},
		"a later end of the role":    {before: until(100 * time.Hour), do: until(110 * time.Hour), want: "s"},
		"no end of the role": {
			before: until(100 * time.Hour),
			do:     func(w *world) { w.must(logical.PatchOperation, "roles/s", map[string]any{"valid_until": nil}) }, want: "s",
		},
		"grace, longer":            {do: update("grace/s", map[string]any{"valid_until": "48h"}), want: "s"},
		"grace, to its end":        {do: update("grace/s", map[string]any{"valid_until": 0}), want: "s!"},
		"revoke what is pending":   {before: stage, do: update("revoke/s", map[string]any{"version": 3}), want: "s!"},
		"rollback without grace":   {do: update("rollback/s", map[string]any{"grace_period": 0}), want: "s!"},
		"rollback past a pending":  {before: stage, do: update("rollback/s", nil), want: "s!"},
		"promote without grace":    {before: stage, do: update("promote/s", map[string]any{"grace_period": 0}), want: "s!"},
		"promote at a date":        {before: stage, do: update("promote/s", map[string]any{"activate_at": "1h"}), want: "s"},
		"report, rotate":           {before: update("roles/s", map[string]any{"on_leak": "rotate"}), do: report, want: "s!"},
		"report, rotate at once":   {before: update("roles/s", map[string]any{"on_leak": "rotate", "leak_grace_period": 0}), do: report, want: "s!"},
		"report, alert":            {before: update("roles/s", map[string]any{"on_leak": "alert"}), do: report, want: ""},
		"on_leak":                  {do: update("roles/s", map[string]any{"on_leak": "alert"}), want: ""},
		"disable a dynamic role":   {do: update("roles/d", map[string]any{"disabled": true}), want: "d!"},
		"ttl of a dynamic role":    {do: update("roles/d", map[string]any{"ttl": "30m", "max_ttl": "1h"}), want: ""},
		"rotate dynamic, no grace": {do: update("rotate/d", map[string]any{"grace_period": 0, "force": true}), want: "d!"},
		"other plan":               {do: update("roles/s", map[string]any{"rotation_period": "48h"}), want: ""},
		"import of a new role":     {do: update("import", map[string]any{"batch": `{"role":"new","key":"zz-` + strings.Repeat("q7", 12) + `"}`}), want: "new"},
		"owner":                    {do: update("roles/s", map[string]any{"owner": "others"}), want: ""},
		"patch of a description":   {do: func(w *world) { w.must(logical.PatchOperation, "roles/s", map[string]any{"description": "x"}) }, want: ""},
		"delete":                   {do: func(w *world) { w.must(logical.DeleteOperation, "roles/s", nil) }, want: "s!"},
		"delete of a dynamic role": {do: func(w *world) { w.must(logical.DeleteOperation, "roles/d", nil) }, want: "d!"},
		"restore":                  {do: func(w *world) { w.write("restore/"+w.gid, nil) }, want: "gone"},
		"restore by another name":  {do: func(w *world) { w.write("restore/"+w.gid, map[string]any{"name": "back"}) }, want: "gone"},
		"rotate dynamic":           {do: update("rotate/d", nil), want: "d"},
		"revoke a generation":      {do: update("revoke/d", map[string]any{"version": 1}), want: "d!"},
		"revoke a leased key":      {do: func(w *world) { w.write("revoke/d", map[string]any{"key_id": w.lease.Data["key_id"]}) }, want: "lease!"},
		"report a leased key":      {do: func(w *world) { w.write("report", map[string]any{"key": w.lease.Data["api_key"]}) }, want: "lease!"},
		"issue":                    {do: func(w *world) { w.read("creds/d") }, want: ""},
		"reads":                    {do: func(w *world) { w.read("creds/s"); w.read("status/s"); w.ask(w.key) }, want: ""},
		"renewal":                  {do: func(w *world) { w.clock.advance(time.Minute); w.mustLease(logical.RenewOperation, w.lease) }, want: ""},
		"renewal to an earlier end": {do: func(w *world) {
			if resp, err := w.onLease(logical.RenewOperation, w.lease, time.Minute); err != nil || resp.IsError() {
				w.t.Fatal(resp, err)
			}
		}, want: "lease!"},
		"a lease revoked early":     {do: func(w *world) { w.mustLease(logical.RevokeOperation, w.lease) }, want: "lease!"},
		"end of a lease":            {do: func(w *world) { w.clock.advance(2 * time.Hour); w.mustLease(logical.RevokeOperation, w.lease) }, want: ""},
		"the clock, and the upkeep": {do: func(w *world) { w.run(2 * time.Hour) }, want: ""},
		"an automatic rotation":     {do: func(w *world) { w.run(25 * time.Hour) }, want: "auto"},
		"config":                    {do: update("config", map[string]any{"stage_ahead": "20m"}), want: ""},
		"a new secret for digests":  {do: update("config/rotate-digest", nil), want: ""},
		"usage":                     {do: func(w *world) { w.reportUse(1, w.lease.Data["key_id"], 1) }, want: ""},
		"import of another version": {do: update("import", map[string]any{"batch": `{"role":"s","key":"zz-` + strings.Repeat("q7", 12) + `"}`}), want: "s"},
		"dry run of a bulk job":     {do: update("bulk", map[string]any{"action": "disable", "roles": "s"}), want: ""},
		"bulk job": {do: func(w *world) {
			w.write("bulk", map[string]any{"action": "disable", "roles": "s", "dry_run": false})
			w.tick()
		}, want: "s!"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{testMount: newMount(t)}
			w.write("roles/s", map[string]any{"rotation_period": 0, "scopes": "a:*", "metadata": map[string]any{"env": "prod"}})
			w.write("rotate/s", nil)
			w.key = w.read("creds/s")["api_key"].(string)
			w.write("roles/auto", map[string]any{"rotation_period": "24h"})
			w.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
			w.lease = w.testMount.lease("d", nil)
			w.write("roles/gone", map[string]any{"rotation_period": 0})
			names := map[string]string{}
			for _, role := range []string{"s", "auto", "d", "gone"} {
				names[w.roleID(role)] = role
			}
			names[fmt.Sprint(w.lease.Data["key_id"])] = "lease"
			w.gid = w.must(logical.DeleteOperation, "roles/gone", nil)["role_id"].(string)
			if c.before != nil {
				c.before(w)
			}
			since := w.write("changes", nil)["cursor"].(string)
			c.do(w)
			if w.status(logical.ReadOperation, "roles/new", nil) == 200 {
				names[w.roleID("new")] = "new"
			}
			if got, _ := w.told(since, names); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}

func (m *testMount) mustLease(op logical.Operation, lease *logical.Response) {
	m.t.Helper()
	if resp, err := m.onLease(op, lease, time.Hour); err != nil || resp != nil && resp.IsError() {
		m.t.Fatalf("%s: %v %v", op, resp, err)
	}
}

// A write that fails may have landed: it is told as one that closes, before the answer.
func TestFailedWritesAreTold(t *testing.T) {
	for _, f := range []fault{faultFail, faultApplied} {
		p := newProbe(&logical.InmemStorage{})
		m := mountOn(t, p, newFakeClock())
		m.write("roles/s", map[string]any{"rotation_period": 0})
		names := map[string]string{m.roleID("s"): "s"}
		since := m.write("changes", nil)["cursor"].(string)
		p.onlyWrites = true
		for n := 1; ; n++ {
			p.arm(n, f)
			_, err := m.do(logical.UpdateOperation, "roles/s", map[string]any{"metadata": map[string]any{"n": fmt.Sprint(n)}})
			hit := p.hit()
			p.reset()
			if !hit {
				break
			}
			var got string
			if got, since = m.told(since, names); err != nil && got != "s!" {
				t.Errorf("fault %d at write %d: told %q", f, n, got)
			}
		}
	}
}

// When a decision is told its outcome is what the caches say.
func TestToldAfterTheCachesAndBeforeTheAnswer(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", nil)
	key := m.read("creds/s")["api_key"]
	m.ask(key)
	since := m.write("changes", nil)["cursor"].(string)
	publish, seen := m.listen, ""
	m.listen = func(d decision) {
		if rec, _ := m.roles.peek(rolePath("s")); rec != nil {
			seen += fmt.Sprint(rec.Policy.Disabled)
		} else {
			seen += "none"
		}
		publish(d)
	}
	m.write("roles/s", map[string]any{"disabled": true})
	if seen != "true" {
		t.Errorf("when it was told the cache said %q", seen)
	}
	decided := m.clock.Now()
	m.clock.advance(300 * time.Millisecond)
	m.write("roles/s", map[string]any{"disabled": false})
	m.clock.advance(400 * time.Millisecond)
	got := m.write("changes", map[string]any{"since": since, "wait": 0})
	if oldest, err := time.Parse(time.RFC3339Nano, got["oldest"].(string)); err != nil || !oldest.Equal(decided) {
		t.Errorf("the first of two decisions was made at %v, %v; told %v", decided, err, got)
	}
	if got := m.write("changes", map[string]any{"since": got["cursor"], "wait": 0}); got["oldest"] != nil {
		t.Errorf("without decisions: %v", got)
	}
}

// Waiting costs no storage call, and a new epoch wakes who waits.
func TestAThousandWaitersCostNoStorageCall(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("config", map[string]any{"feed_wait": "5s"})
	since := m.write("changes", nil)["cursor"].(string)
	p.reset()
	const waiters = 1000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, waiters)
	for range waiters {
		go func() {
			_, err := m.HandleRequest(ctx, &logical.Request{
				Operation: logical.ReadOperation, Path: "changes", Storage: p, Data: map[string]any{"since": since, "wait": 5},
			})
			ended <- err
		}()
	}
	for m.feed.Waiters() < waiters {
		select {
		case err := <-ended:
			t.Fatalf("one did not wait: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if calls, _ := p.count(); calls != 0 {
		t.Errorf("%d storage calls: %v", calls, p.log)
	}
	cancel()
	for range waiters {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("a caller who left is answered %v", err)
		}
	}
}

// Another instance at work decides what this one is not told of: everything has to be
// asked anew.
func TestRivalRenewsTheEpoch(t *testing.T) {
	for name, notices := range map[string]func(m *testMount){
		"a worker that compares": func(m *testMount) {
			if err := m.compareMark(t.Context(), m.storage, m.now()); err != nil {
				t.Fatal(err)
			}
		},
		"an assertion": func(m *testMount) { m.clock.advance(asserted) },
	} {
		m := newMount(t)
		m.write("roles/s", nil)
		m.tick()
		since := m.write("changes", nil)["cursor"].(string)
		m.clock.advance(asserted)
		if got := m.write("changes", map[string]any{"since": since, "wait": 0}); got["reset"] != false {
			t.Errorf("%s: its own mark is taken for a rival's: %v", name, got)
		}
		m.restart().tick()
		notices(m)
		if got := m.write("changes", map[string]any{"since": since, "wait": 0}); got["reset"] != true {
			t.Errorf("%s: after a rival's mark: %v", name, got)
		}
	}
}

// Besides decisions the feed tells of the mount; and nobody waits for longer than it lets.
func TestChangesTellOfTheMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount(t)
		m.write("config", map[string]any{"feed_wait": "2s", "edge_max_staleness": "7m"})
		since := m.write("changes", nil)["cursor"]
		for _, ask := range []map[string]any{{}, {"wait": 9}, {"wait": 1}, {"wait": 0}} {
			want := 2 * time.Second
			switch ask["wait"] {
			case 0:
				want = 0
			case 1:
				want = time.Second
			}
			ask["since"] = since
			began := time.Now()
			got := m.write("changes", ask)
			if took := time.Since(began); took != want {
				t.Errorf("%v waited for %v", ask, took)
			}
			expectAnswer(t, got, map[string]any{
				"now": m.clock.Now().Format(time.RFC3339Nano), "mount": m.mountID, "max_staleness": int64(420), "feed_wait": int64(2), "reset": false,
			})
		}
	})
}

// A node asserts once in a while that it may write, however many ask.
func TestWriterIsAssertedOnce(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/s", nil)
	for range 2 {
		m.clock.advance(asserted)
		p.reset()
		for range 10 {
			m.write("changes", nil)
		}
		if _, writes := p.count(); writes != 1 {
			t.Errorf("%d writes: %v", writes, p.log)
		}
	}
	// Nobody who could not write it answers.
	m.clock.advance(asserted)
	p.onlyWrites = true
	p.arm(1, faultFail)
	if resp, err := m.do(logical.ReadOperation, "changes", nil); err == nil {
		t.Errorf("answered %v", resp.Data)
	}
}
