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
)

// listed sends a list request and returns names, info and where to go on.
func (m *testMount) listed(path string, data map[string]any) (names []string, info map[string]map[string]any, next string) {
	m.t.Helper()
	got := m.must(logical.ListOperation, path, data)
	names, _ = got["keys"].([]string)
	info = map[string]map[string]any{}
	all, _ := got["key_info"].(map[string]any)
	for name, i := range all {
		info[name] = i.(map[string]any)
	}
	next, _ = got["next_after"].(string)
	return names, info, next
}

// paged reads a list page by page.
func (m *testMount) paged(path string, limit int, data map[string]any) (all []string) {
	m.t.Helper()
	query := map[string]any{"limit": limit}
	for k, v := range data {
		query[k] = v
	}
	for {
		names, info, next := m.listed(path, query)
		if len(names) > limit || len(info) != len(names) {
			m.t.Fatalf("a page of %d holds %d names, %d infos", limit, len(names), len(info))
		}
		all = append(all, names...)
		if next == "" {
			return all
		}
		query["after"] = next
	}
}

func TestKeysListsTheLiveOnly(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m", "max_ttl": "2h", "scopes": "orders:*"})
	if names, _, _ := m.listed("keys/d", nil); len(names) > 0 {
		t.Fatalf("no key was issued, %v is listed", names)
	}
	m.request.EntityID = "entity-7"
	var leases []*logical.Response
	for i := range 7 {
		leases = append(leases, m.lease("d", map[string]any{"label": fmt.Sprint("job ", i), "scopes": "orders:read"}))
	}
	all := m.paged("keys/d/", 2, nil)
	if len(all) != 7 || !slices.IsSorted(all) {
		t.Fatalf("the pages hold %v", all)
	}
	_, info, _ := m.listed("keys/d", nil)
	id := leases[3].Data["key_id"].(string)
	for field, want := range map[string]any{
		"entity_id": "entity-7", "display_name": "token-operator", "label": "job 3", "issued": "2026-03-02T09:00:00Z",
		"valid_until": "2026-03-02T09:30:00Z", "version": 1, "scopes": []string{"orders:read"},
	} {
		if got := info[id][field]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
	if _, err := m.onLease(logical.RevokeOperation, leases[3], 0); err != nil {
		t.Fatal(err)
	}
	if names, _, _ := m.listed("keys/d", nil); len(names) != 6 || slices.Contains(names, id) {
		t.Errorf("after a revocation %v is listed", names)
	}
	m.clock.advance(30 * time.Minute)
	if names, _, _ := m.listed("keys/d", nil); len(names) > 0 {
		t.Errorf("expired keys are listed: %v", names)
	}
	m.write("roles/s", nil)
	m.refused(logical.ListOperation, "keys/s", nil, "is static", "status/s")
	m.refused(logical.ListOperation, "keys/d", map[string]any{"limit": 1.5}, "limit: 1.5")
	if resp, err := m.do(logical.ListOperation, "keys/none", nil); resp != nil || err != nil {
		t.Errorf("an absent role answers %v %v", resp, err)
	}
}

func TestKeysPassesABoundedNumberOfDeadKeys(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "30m"})
	id := m.read("status/d")["role_id"].(string)
	ctx := context.Background()
	for i := range pageWaste + 50 {
		if err := putBytes(ctx, m.storage, issuedPath(id, fmt.Sprintf("0%011d", i)), issuedValue); err != nil {
			t.Fatal(err)
		}
	}
	key := m.lease("d", nil).Data["key_id"].(string)
	p := newProbe(m.storage)
	m.storage = p
	_, _, next := m.listed("keys/d", map[string]any{"limit": 5})
	if calls, _ := p.count(); next == "" || calls > pageWaste+10 {
		t.Errorf("a page took %d storage calls and goes on at %q", calls, next)
	}
	if all := m.paged("keys/d", 5, nil); len(all) != 1 || all[0] != key {
		t.Errorf("the pages hold %v, want %s", all, key)
	}
}

// A list whose entries cost reads ends after a page, whatever limit says, and
// does not do so in silence.
func TestListsWithInfoEndAfterAPage(t *testing.T) {
	names := make([]string, pageSize+1)
	for i := range names {
		names[i] = fmt.Sprintf("n%06d", i)
	}
	shown := func(string) (map[string]any, error) { return map[string]any{"n": 1}, nil }
	for _, c := range []struct {
		names, limit, want int
		more, warned       bool
	}{
		{names: pageSize + 1, limit: 0, want: pageSize, more: true, warned: true},
		{names: pageSize + 1, limit: 2 * pageSize, want: pageSize, more: true, warned: true},
		{names: pageSize + 1, limit: pageSize, want: pageSize, more: true},
		{names: pageSize + 1, limit: 7, want: 7, more: true},
		{names: pageSize, limit: 0, want: pageSize},
		{names: 3, limit: 0, want: 3},
		{names: 0, limit: 0, want: 0},
	} {
		resp, err := window{limit: c.limit}.collect(slices.Clone(names[:c.names]), shown)
		if err != nil {
			t.Fatal(err)
		}
		keys, _ := resp.Data["keys"].([]string)
		next, _ := resp.Data["next_after"].(string)
		if len(keys) != c.want || (next != "") != c.more || (len(resp.Warnings) > 0) != c.warned {
			t.Errorf("%+v: %d names, goes on at %q, warns %v", c, len(keys), next, resp.Warnings)
		}
		if c.more && next != keys[len(keys)-1] {
			t.Errorf("%+v: goes on at %q after %q", c, next, keys[len(keys)-1])
		}
	}
}

func TestInventory(t *testing.T) {
	m := newMount(t)
	for i := range 9 {
		m.write(fmt.Sprint("roles/r", i), map[string]any{"owner": fmt.Sprint("team-", i), "rotation_period": "240h"})
	}
	all := m.paged("inventory", 4, nil)
	if len(all) != 9 || all[0] != "r0" || all[8] != "r8" {
		t.Fatalf("the pages hold %v", all)
	}
	m.clock.advance(time.Hour)
	m.write("rotate/r3", nil)
	m.clock.advance(time.Minute)
	_, info, _ := m.listed("inventory/", map[string]any{"after": "r2", "limit": 1})
	for field, want := range map[string]any{
		"owner": "team-3", "type": "static", "current_version": 2, "current_since": "2026-03-02T10:00:00Z", "current_age": 60,
		"key_id": m.read("creds/r3")["key_id"], "previous_version": 1, "previous_until": "2026-03-03T10:00:00Z",
		"next_rotation": "2026-03-12T10:00:00Z", "rotation": "at 2026-03-12T10:00:00Z", "problems": []string{}, "disabled": false, "strength": "",
	} {
		if got := info["r3"][field]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", field, got, want)
		}
	}
}

func TestInventorySaysIfThePreviousIsInUse(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": 0, "grace_period": "2h"})
	old := m.read("creds/r")["api_key"]
	m.expectVerdict(old, "VALID")
	m.clock.advance(time.Minute)
	m.write("rotate/r", nil)
	inUse := func() any {
		m.t.Helper()
		_, info, _ := m.listed("inventory", nil)
		return info["r"]["previous_in_use"]
	}
	m.clock.advance(time.Minute)
	if inUse() != false {
		t.Error("a use before the rotation counts")
	}
	m.expectVerdict(old, "VALID")
	if inUse() != true {
		t.Error("a use after the rotation does not count")
	}
}

// problemList is the roles that the index of problems leads to.
func (m *testMount) problemList() string {
	m.t.Helper()
	names, info, _ := m.listed("inventory", map[string]any{"problems": true})
	for _, name := range names {
		if len(info[name]["problems"].([]string)) == 0 {
			m.t.Errorf("%s is listed without a problem", name)
		}
	}
	return strings.Join(names, " ")
}

func TestProblemsAreListedAndClear(t *testing.T) {
	m := newMount(t)
	m.request.EntityID = "entity-7"
	for _, name := range []string{"dead", "gone", "leaked", "short", "well"} {
		m.write("roles/"+name, map[string]any{"on_leak": "alert"})
	}
	m.write("roles/short", map[string]any{"rotation_period": 0, "ttl": "1h"})
	m.write("rotate/short", map[string]any{"grace_period": 0})
	if got := m.problemList(); got != "" {
		t.Fatalf("problems of a healthy fleet: %s", got)
	}

	m.write("revoke/dead", map[string]any{"version": 1, "rotate": false})
	m.write("revoke/gone", map[string]any{"version": 1, "rotate": false})
	leak := m.clock.Now()
	_, err := m.mutate(context.Background(), m.storage, "leaked", actor{cause: causeLeak}, func(tx *roleTx) (bool, error) {
		tx.record(tx.rec.Ring.Report(tx.now, 1, leak.Add(48*time.Hour)), tx.by)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.problemList(); got != "dead gone leaked" {
		t.Fatalf("problems: %s", got)
	}
	m.run(time.Hour + time.Minute)
	if got := m.problemList(); got != "dead gone leaked short" {
		t.Fatalf("problems after an expiry: %s", got)
	}

	// The cost is that of the problems, whatever the number of roles.
	for i := range 300 {
		m.write(fmt.Sprint("roles/many-", i), nil)
	}
	p := newProbe(m.storage)
	m.storage = p
	m.problemList()
	if calls, _ := p.count(); calls > 20 {
		t.Errorf("four problems among 300 roles took %d storage calls", calls)
	}

	m.write("rotate/dead", nil)
	m.must(logical.DeleteOperation, "roles/gone", nil)
	m.write("rotate/short", nil)
	m.write("revoke/leaked", map[string]any{"version": 1})
	if got := m.problemList(); got != "" {
		t.Errorf("problems after all were solved: %s", got)
	}
	names, err := m.storage.List(context.Background(), attentionPrefix)
	if err != nil || strings.Join(names, " ") != "gone" {
		t.Errorf("the index holds %v (%v), want only what tidy has to remove", names, err)
	}
}

func TestProblemsListWhatFails(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "1h"})
	p := &failingPut{Storage: m.storage, prefix: keyPrefix}
	m.storage = p
	m.run(time.Hour)
	if got := m.problemList(); got != "r" {
		t.Fatalf("problems: %q", got)
	}
	_, info, _ := m.listed("inventory", map[string]any{"problems": true})
	if text := fmt.Sprint(info["r"]["problems"]); !strings.Contains(text, "failing since") {
		t.Errorf("problems of r: %s", text)
	}
	p.prefix = "none/"
	m.run(time.Hour)
	if got := m.problemList(); got != "" {
		t.Errorf("problems once it works again: %q", got)
	}
}

// failingPut refuses to write below a prefix.
type failingPut struct {
	logical.Storage

	prefix string
}

func (s *failingPut) Put(ctx context.Context, e *logical.StorageEntry) error {
	if strings.HasPrefix(e.Key, s.prefix) {
		return errors.New("the disk is full")
	}
	return s.Storage.Put(ctx, e)
}

// calendarOf reads the events of the calendar as "what role time".
func (m *testMount) calendarOf(data map[string]any) (events []string, complete string) {
	m.t.Helper()
	got := m.must(logical.ReadOperation, "calendar", data)
	for _, e := range got["events"].([]any) {
		e := e.(map[string]any)
		events = append(events, fmt.Sprint(e["what"], " ", e["role"], " ", e["version"], " ", e["time"]))
	}
	return events, got["complete_until"].(string)
}

func TestCalendarListsWhatComes(t *testing.T) {
	m := newMount(t)
	m.write("roles/auto", map[string]any{"rotation_period": "48h", "grace_period": "2h"})
	m.write("roles/hand", map[string]any{"rotation_period": 0, "ttl": "100h"})
	m.write("roles/held", map[string]any{"rotation_period": 0})
	m.write("rotate/held", map[string]any{"stage": true})
	m.write("roles/later", map[string]any{"rotation_period": 0, "grace_period": "3h"})
	m.write("rotate/later", map[string]any{"activate_at": "50h"})
	m.write("roles/bye", nil)
	m.must(logical.DeleteOperation, "roles/bye", nil)

	check := func(within any, want ...string) {
		t.Helper()
		got, _ := m.calendarOf(map[string]any{"within": within})
		if !slices.Equal(got, want) {
			t.Errorf("within %v comes\n%s\nwant\n%s", within, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	check("23h")
	check("24h", "purge bye 0 2026-03-03T09:00:00Z")
	all := []string{
		"purge bye 0 2026-03-03T09:00:00Z",
		"staging auto 2 2026-03-04T08:50:00Z",
		"rotation auto 2 2026-03-04T09:00:00Z",
		"activation later 2 2026-03-04T11:00:00Z",
		"retirement later 1 2026-03-04T14:00:00Z",
		"expiry hand 1 2026-03-06T13:00:00Z",
		"lapse held 2 2026-03-09T09:00:00Z",
	}
	check("168h", all...)
	check("90h", all[:5]...)

	// A version that is staged for its activation long before its predecessor's
	// end is announced by its activation.
	m.run(47*time.Hour + 55*time.Minute)
	check("10m", "activation auto 2 2026-03-04T09:00:00Z")
	m.run(time.Hour)
	check("3h", "retirement auto 1 2026-03-04T11:00:00Z", "activation later 2 2026-03-04T11:00:00Z")

	// What the server slept through is overdue.
	m.clock.advance(2 * 24 * time.Hour)
	got := m.must(logical.ReadOperation, "calendar", map[string]any{"within": "1h"})
	overdue := ""
	for _, e := range got["events"].([]any) {
		if e := e.(map[string]any); e["overdue"].(bool) {
			overdue += fmt.Sprint(e["what"], " ", e["role"], " ")
		}
	}
	if overdue != "rotation auto " {
		t.Errorf("overdue is %q", overdue)
	}
	m.refused(logical.ReadOperation, "calendar", map[string]any{"within": "2161h"}, "within", "90 days")
	m.refused(logical.ReadOperation, "calendar", map[string]any{"limit": 0}, "limit: 0")
}

func TestCalendarIsBounded(t *testing.T) {
	m := newMount(t)
	for i := range 60 {
		m.write(fmt.Sprint("roles/r", i), map[string]any{"rotation_period": "48h"})
		m.clock.advance(time.Minute)
	}
	p := newProbe(m.storage)
	m.storage = p
	got, complete := m.calendarOf(map[string]any{"within": "72h", "limit": 10})
	if len(got) != 20 || complete != "2026-03-04T09:00:00Z" {
		t.Errorf("%d events, complete until %s: %v", len(got), complete, got)
	}
	if calls, writes := p.count(); calls > 50 || writes > 0 {
		t.Errorf("%d calls, %d writes", calls, writes)
	}
	if all, complete := m.calendarOf(map[string]any{"within": "72h"}); len(all) != 120 || complete != "2026-03-05T10:00:00Z" {
		t.Errorf("%d events, complete until %s", len(all), complete)
	}
}
