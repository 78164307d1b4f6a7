// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// dump is everything that is stored.
func dump(t testing.TB, s logical.Storage) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(prefix string)
	walk = func(prefix string) {
		names, err := s.List(context.Background(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, "/") {
				walk(prefix + n)
				continue
			}
			e, err := s.Get(context.Background(), prefix+n)
			if err != nil || e == nil {
				t.Fatal(prefix+n, err)
			}
			all[prefix+n] = string(e.Value)
		}
	}
	walk("")
	return all
}

// unchanged runs fn, which must not change what is stored.
func (m *testMount) unchanged(fn func()) {
	m.t.Helper()
	before := dump(m.t, m.storage)
	fn()
	if after := dump(m.t, m.storage); !reflect.DeepEqual(before, after) {
		for k := range after {
			if before[k] != after[k] {
				m.t.Errorf("%s changed from %.300s to %.300s", k, before[k], after[k])
			}
		}
		for k := range before {
			if _, ok := after[k]; !ok {
				m.t.Errorf("%s is gone", k)
			}
		}
	}
}

func someKey(t testing.TB, prefix string) keyformat.Key {
	t.Helper()
	k, err := keyformat.Mint(prefix, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func listOf(n int, entry func(i int) string) []any {
	list := []any{}
	for i := range n {
		list = append(list, entry(i))
	}
	return list
}

func mapOf(n int, name, value func(i int) string) map[string]any {
	m := map[string]any{}
	for i := range n {
		m[name(i)] = value(i)
	}
	return m
}

const long = 100 * 365 * 24 * 3600

// fieldCase is one value of a field: accepted and shown as want, or refused
// with a text that has the parts.
type fieldCase struct {
	field  string
	value  any
	want   any
	refuse []string
	with   map[string]any // named in the same request
	typ    string         // static unless given
}

func fieldCases(t testing.TB) []fieldCase {
	key := someKey(t, "aa")
	x := strings.Repeat
	num := func(i int) string { return fmt.Sprint("n", i) }
	manual := map[string]any{"rotation_period": 0}
	hourly := map[string]any{"rotation_period": 3600}
	daily := map[string]any{"rotation_schedule": "0 3 * * *"}
	bad := func(parts ...string) []string { return parts }
	return []fieldCase{
		{field: "description", value: "what for", want: "what for"},
		{field: "description", value: x("ä", 512), want: x("ä", 512)},
		{field: "description", value: x("ä", 513), refuse: bad("description: 513: has more than 512 characters: shorten it")},
		{field: "description", value: "see " + key.Reveal() + "!", want: "see [key " + key.ID() + "]!"},
		{field: "description", value: "\xff\xfe", refuse: bad(`description: "\xff\xfe": is not valid UTF-8: `)},
		{field: "description", value: []any{"x"}, refuse: bad("description: ", "is not a text")},
		{field: "owner", value: "team-payments", want: "team-payments"},
		{field: "owner", value: x("o", 513), refuse: bad("owner: 513: has more than 512 characters")},
		{field: "owner", value: key.Reveal(), want: "[key " + key.ID() + "]"},

		{field: "metadata", value: map[string]any{"team": "a", "n": 3}, refuse: bad("metadata: ", "has a value that is not a text: write values in quotes")},
		{field: "metadata", value: "team=a=b", want: map[string]any{"team": "a=b"}},
		{field: "metadata", value: []any{"a=1", "b=2"}, want: map[string]any{"a": "1", "b": "2"}},
		{field: "metadata", value: map[string]any{}, want: map[string]any{}},
		{field: "metadata", value: map[string]any{"k": key.Reveal()}, want: map[string]any{"k": "[key " + key.ID() + "]"}},
		{field: "metadata", value: mapOf(64, num, num), want: mapOf(64, num, num)},
		{field: "metadata", value: mapOf(65, num, num), refuse: bad("metadata: 65: has more than 64 names: remove some")},
		{field: "metadata", value: map[string]any{x("k", 64): x("v", 512)}, want: map[string]any{x("k", 64): x("v", 512)}},
		{field: "metadata", value: map[string]any{x("k", 65): ""}, refuse: bad("metadata name: 65: has more than 64 characters")},
		{field: "metadata", value: map[string]any{"k": x("v", 513)}, refuse: bad(`metadata "k": 513: has more than 512 characters`)},
		{field: "metadata", value: map[string]any{"": "v"}, refuse: bad(`metadata: "": a name is empty`)},
		{field: "metadata", value: map[string]any{key.Reveal(): "v"}, refuse: bad("a name holds an API key")},
		{field: "metadata", value: "no pair", refuse: bad("metadata: ", "is not name=value: give name=value, such as team=shop")},

		{field: "scopes", value: []any{"orders:read", "a:*", "*", "x"}, want: []any{"orders:read", "a:*", "*", "x"}},
		{field: "scopes", value: "b:2, a:1", want: []any{"b:2", "a:1"}},
		{field: "scopes", value: "", want: []any{}},
		{field: "scopes", value: []any{}, want: []any{}},
		{field: "scopes", value: []any{"A-Z.a_z:0"}, want: []any{"A-Z.a_z:0"}},
		{field: "scopes", value: []any{"a", "a"}, want: []any{"a", "a"}},
		{field: "scopes", value: listOf(128, num), want: listOf(128, num)},
		{field: "scopes", value: listOf(129, num), refuse: bad("scopes: 129: has more than 128 entries")},
		{field: "scopes", value: []any{x("s", 128)}, want: []any{x("s", 128)}},
		{field: "scopes", value: []any{x("s", 129)}, refuse: bad("has more than 128 characters: shorten it")},
		{field: "scopes", value: []any{""}, refuse: bad(`scopes: [""]: has an empty element`)},
		{field: "scopes", value: []any{"ok", "*:read"}, refuse: bad(`scopes: "*:read": must be segments of A-Z a-z 0-9 . _ - joined by colons, with * as last segment only: write orders:read`)},
		{field: "scopes", value: []any{"a::b"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"a:"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{":a"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"a b"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"a*"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"a:**"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"a\nb"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"ok\n:x"}, refuse: bad("must be segments")},
		{field: "scopes", value: []any{"x:" + key.Reveal()}, refuse: bad("holds an API key")},

		{field: "prefix", value: "acme_live", want: "acme_live"},
		{field: "prefix", value: "a1", want: "a1"},
		{field: "prefix", value: "abcdefghijklmnop_bcdefghijklmnop", refuse: bad("prefix: ", "at most 32 characters"), with: map[string]any{"prefix": "abcdefghijklmnop_bcdefghijklmnopq"}},
		{field: "prefix", value: "abcdefghijklmnop_bcdefghijklmno", want: "abcdefghijklmnop_bcdefghijklmno"},
		{field: "prefix", value: "", refuse: bad(`prefix: is empty: leave it out, or give a text`)},
		{field: "prefix", value: "a", refuse: bad("a prefix is")},
		{field: "prefix", value: "Ak", refuse: bad("a prefix is")},
		{field: "prefix", value: "1a", refuse: bad("a prefix is")},
		{field: "prefix", value: "ak_", refuse: bad("a prefix is")},
		{field: "prefix", value: "ak__live", refuse: bad("a prefix is")},
		{field: "prefix", value: "ak-live", refuse: bad("a prefix is")},

		{field: "ttl", value: 0, want: 0.0},
		{field: "ttl", value: "1h", want: 3600.0, with: manual},
		{field: "ttl", value: 1, want: 1.0, with: manual},
		{field: "ttl", value: "90", want: 90.0, with: manual},
		{field: "ttl", value: -1, refuse: bad("ttl: -1: must not be negative")},
		{field: "ttl", value: "30dd", refuse: bad(`ttl: "30dd": is not a duration: give whole seconds`)},
		{field: "ttl", value: "-1h", refuse: bad(`ttl: "-1h": must not be negative`)},
		{field: "ttl", value: "soon", refuse: bad(`ttl: "soon": is not a duration`)},
		{field: "ttl", value: "1500ms", refuse: bad(`ttl: "1500ms": is not a whole number of seconds: round it`), with: manual},
		{field: "ttl", value: 1.5, refuse: bad("ttl: 1.5: is not a whole number of seconds")},
		{field: "ttl", value: long, refuse: bad("ttl: ", "must be at most 87840h (316224000 seconds)"), with: manual},
		{field: "ttl", value: 3600, refuse: bad("ttl: 3600: must be 0 (forever) or at least 2184h10m (7863000 seconds): ", "raise ttl, or rotate by hand only (rotation_period=0)")},
		{field: "ttl", value: 7863000, want: 7863000.0},
		{field: "ttl", value: 7862999, refuse: bad("at least 2184h10m (7863000 seconds)")},
		// An hour of distance, 600 s of staging, 1800 s of grace.
		{field: "ttl", value: 6000, want: 6000.0, with: hourly},
		{field: "ttl", value: 5999, refuse: bad("at least 1h40m (6000 seconds)"), with: hourly},
		{field: "ttl", value: 6000, refuse: bad("at least 1h41m40s (6100 seconds)"), with: map[string]any{"rotation_period": 3600, "rotation_jitter": 100}},
		{field: "ttl", value: 6000, refuse: bad("at least 2h10m (7800 seconds)"), with: map[string]any{"rotation_period": 3600, "max_grace_period": 3600}},
		{field: "ttl", value: 86400 + 600 + 43200, want: 130200.0, with: daily},
		{field: "ttl", value: 86400 + 600 + 43200 - 1, refuse: bad("at least 36h10m (130200 seconds)"), with: daily},
		{field: "ttl", value: 3 * 86400, refuse: bad("at least 84h10m (303000 seconds)"), with: map[string]any{"rotation_schedule": "0 9 * * 1-5"}},
		{field: "ttl", value: "2h", want: 7200.0, typ: policy.Dynamic},
		{field: "ttl", value: 0, refuse: bad("ttl: 0: a lease has a lifetime: give at least 1 second"), typ: policy.Dynamic},
		{field: "ttl", value: "9000h", refuse: bad("ttl: 32400000: must be at most 48h (172800 seconds), the mount's maximum"), typ: policy.Dynamic},
		{field: "ttl", value: "2h", refuse: bad("max_ttl: 3600: must be at least ttl, which is 2h (7200 seconds): raise it or lower ttl"), typ: policy.Dynamic, with: map[string]any{"max_ttl": "1h"}},

		{field: "max_ttl", value: 0, want: 0.0},
		{field: "max_ttl", value: 60, refuse: bad("max_ttl: 60: a static role's key has no lease to renew: leave it out, or use ttl")},
		{field: "max_ttl", value: "4h", want: 14400.0, typ: policy.Dynamic},
		{field: "max_ttl", value: 172800, want: 172800.0, typ: policy.Dynamic},
		{field: "max_ttl", value: 172801, refuse: bad("max_ttl: 172801: must be at most 48h (172800 seconds), the mount's maximum"), typ: policy.Dynamic},
		{field: "max_ttl", value: 0, refuse: bad("max_ttl: 0: a lease has an end"), typ: policy.Dynamic},

		{field: "rotation_period", value: "24h", want: 86400.0},
		{field: "rotation_period", value: "7d", want: 604800.0},
		{field: "rotation_period", value: 60, want: 60.0},
		{field: "rotation_period", value: 0, want: 0.0},
		{field: "rotation_period", value: 59, refuse: bad("rotation_period: 59: must be 0 (only by hand) or at least 1m (60 seconds): give a longer one")},
		{field: "rotation_period", value: "500ms", refuse: bad("is not a whole number of seconds")},
		{field: "rotation_period", value: long, refuse: bad("must be at most")},
		{field: "rotation_period", value: "99999999999999999999", refuse: bad("rotation_period: ", "is longer than any duration here")},
		{field: "rotation_period", value: 3600, refuse: bad(`rotation_period: 3600: is exclusive with rotation_schedule, which is "0 3 * * *"`), with: daily},
		{field: "rotation_period", value: 0, want: 0.0, with: daily},
		{field: "rotation_period", value: 3600, want: 3600.0, typ: policy.Dynamic},

		{field: "rotation_schedule", value: "0 3 * * 1", want: "0 3 * * 1"},
		{field: "rotation_schedule", value: "", want: ""},
		{field: "rotation_schedule", value: "CRON_TZ=Europe/Berlin 30 2 * * *", want: "CRON_TZ=Europe/Berlin 30 2 * * *"},
		{field: "rotation_schedule", value: "@daily", refuse: bad(`rotation_schedule: "@daily": a schedule has five fields`)},
		{field: "rotation_schedule", value: "0 0 30 2 *", refuse: bad(`rotation_schedule: "0 0 30 2 *": the schedule never comes up: write something like`)},
		{field: "rotation_schedule", value: "CRON_TZ=Mars/Olympus 0 0 * * *", refuse: bad("a schedule has five fields", "Mars/Olympus")},
		{field: "rotation_schedule", value: x("0,", 200) + "0 0 * * *", refuse: bad("has more than 256 characters")},

		{field: "rotation_jitter", value: "15m", refuse: bad("rotation_jitter: 900: must be less than a quarter of the distance between activations, which is 1h (3600 seconds): give a shorter one"), with: hourly},
		{field: "rotation_jitter", value: 899, want: 899.0, with: hourly},
		{field: "rotation_jitter", value: "6h", refuse: bad("less than a quarter", "24h (86400 seconds)"), with: daily},
		{field: "rotation_jitter", value: "5h", want: 18000.0, with: daily},
		{field: "rotation_jitter", value: -5, refuse: bad("rotation_jitter: -5: must not be negative")},

		{field: "rotation_paused", value: "true", want: true},
		{field: "rotation_paused", value: "maybe", refuse: bad(`rotation_paused: "maybe": is neither true nor false`)},

		{field: "grace_period", value: "48h", want: 172800.0},
		{field: "grace_period", value: 0, want: 0.0},
		{field: "grace_period", value: 9 * 3600, want: 32400.0, with: hourly},
		{field: "grace_period", value: 9*3600 + 1, refuse: bad("grace_period: 32401: must be at most nine distances between activations, 9h (32400 seconds): give a shorter one, or rotate less often"), with: hourly},
		{field: "grace_period", value: "9000h", want: 32400000.0, with: manual},
		{field: "grace_period", value: 10 * 86400, refuse: bad("nine distances", "777600"), with: daily},

		{field: "max_grace_period", value: "100h", want: 360000.0},
		{field: "max_grace_period", value: 86399, refuse: bad("max_grace_period: 86399: must be at least grace_period, which is 24h (86400 seconds): raise it or lower grace_period")},
		{field: "max_grace_period", value: 9*3600 + 1, refuse: bad("max_grace_period: 32401: must be at most nine distances"), with: hourly},

		{field: "refresh_interval", value: 1, want: 1.0},
		{field: "refresh_interval", value: "720h", want: 2592000.0},
		{field: "refresh_interval", value: 0, refuse: bad("refresh_interval: 0: must be at least 1 second: give a longer one")},
		{field: "refresh_interval", value: "721h", refuse: bad("refresh_interval: 2595600: must be at most 720h (2592000 seconds)")},
		{field: "refresh_interval", value: 300, want: 300.0, typ: policy.Dynamic},
		{field: "refresh_interval", value: 60, refuse: bad("refresh_interval: 60: a dynamic role's readers renew a lease instead: leave it out"), typ: policy.Dynamic},

		{field: "reveal", value: "once", want: "once"},
		{field: "reveal", value: "", refuse: bad(`reveal: is empty: leave it out`)},
		{field: "reveal", value: "never", refuse: bad(`reveal: "never": must be one of`)},
		{field: "reveal", value: "always", want: "always", typ: policy.Dynamic},
		{field: "reveal", value: "once", refuse: bad(`reveal: "once": a dynamic role's key is handed out once anyway`), typ: policy.Dynamic},

		{field: "allowed_cidrs", value: "10.0.0.0/8,192.0.2.7", want: []any{"10.0.0.0/8", "192.0.2.7"}},
		{field: "allowed_cidrs", value: []any{"2001:db8::/32", "::1"}, want: []any{"2001:db8::/32", "::1"}},
		{field: "allowed_cidrs", value: []any{}, want: []any{}},
		{field: "allowed_cidrs", value: []any{"10.0.0.0/33"}, refuse: bad(`allowed_cidrs: "10.0.0.0/33": must be a network or an address: write something like`)},
		{field: "allowed_cidrs", value: []any{"localhost"}, refuse: bad("must be a network")},
		{field: "allowed_cidrs", value: []any{""}, refuse: bad("has an empty element")},
		{field: "allowed_cidrs", value: []any{"fe80::1%eth0"}, refuse: bad("must be a network")},
		{field: "allowed_cidrs", value: []any{"::ffff:0:0/90"}, refuse: bad("IPv4 and IPv6 addresses at once")},
		{field: "allowed_cidrs", value: listOf(257, func(i int) string { return fmt.Sprintf("10.0.%d.%d", i/256, i%256) }), refuse: bad("has more than 256 entries")},

		{field: "rate_limit", value: 2.5, want: 2.5},
		{field: "rate_limit", value: "100", want: 100.0},
		{field: "rate_limit", value: 0, want: 0.0},
		{field: "rate_limit", value: -1, refuse: bad("rate_limit: -1: must be from 0 to 1000000: give requests per second")},
		{field: "rate_limit", value: "NaN", refuse: bad("is not a number")},
		{field: "rate_limit", value: "Inf", refuse: bad("is not a number")},
		{field: "rate_limit", value: "fast", refuse: bad(`rate_limit: "fast": is not a number`)},

		{field: "on_leak", value: "rotate", want: "rotate"},
		{field: "on_leak", value: "alert", want: "alert"},
		{field: "on_leak", value: "ignore", refuse: bad(`on_leak: "ignore": must be one of revoke, rotate, alert: choose one`)},
		{field: "leak_grace_period", value: "168h", want: 604800.0},
		{field: "leak_grace_period", value: 0, want: 0.0},
		{field: "leak_grace_period", value: "169h", refuse: bad("leak_grace_period: 608400: must be at most 168h (604800 seconds)")},

		{field: "disabled", value: true, want: true},
		{field: "disabled", value: "x", refuse: bad("is neither true nor false")},
		{field: "deletion_protection", value: true, want: true},
		{field: "deletion_protection", value: map[string]any{}, refuse: bad("is neither true nor false")},

		{field: "type", value: "static", want: "static"},
		{field: "type", value: "Static", refuse: bad(`type: "Static": `)},
		{field: "type", value: "", refuse: bad(`type: is empty`)},
		{field: "nonsense", value: 1, refuse: bad(`nonsense: unknown field: see the path's help`)},
		{field: "name", value: "other", refuse: bad(`name: is not what the path names`)},
		{field: "role_id", value: "x", refuse: bad(`role_id: "x": is given by the engine`)},
		{field: "created", value: "2026-01-01T00:00:00Z", refuse: bad("created: ", "is given by the engine")},
	}
}

func (c fieldCase) data() map[string]any {
	data := map[string]any{c.field: c.value}
	maps.Copy(data, c.with)
	return data
}

func TestRoleFieldsAtCreation(t *testing.T) {
	m := newMount(t)
	for i, c := range fieldCases(t) {
		name := fmt.Sprint("r", i)
		data := c.data()
		if c.typ != "" {
			data["type"] = c.typ
		}
		if c.refuse != nil {
			m.unchanged(func() { m.refused(logical.UpdateOperation, "roles/"+name, data, c.refuse...) })
			continue
		}
		m.write("roles/"+name, data)
		if got := plain(t, m.read("roles/"+name))[c.field]; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %#v: shown as %#v, want %#v", c.field, c.value, got, c.want)
		}
	}
}

func TestRoleFieldsAtUpdateAndPatch(t *testing.T) {
	m := newMount(t)
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		for i, c := range fieldCases(t) {
			path := fmt.Sprint("roles/", op, i)
			m.write(path, map[string]any{"type": cmp.Or(c.typ, policy.Static)})
			before := plain(t, m.read(path))
			if c.refuse != nil {
				t.Logf("%s %s %v", op, c.field, c.value)
				m.unchanged(func() { m.refused(op, path, c.data(), c.refuse[0][:strings.Index(c.refuse[0]+":", ":")]) })
				if got := plain(t, m.read(path)); !reflect.DeepEqual(got, before) {
					t.Errorf("%s %#v: refused, and yet %v", c.field, c.value, got)
				}
				continue
			}
			m.must(op, path, c.data())
			if got := plain(t, m.read(path))[c.field]; !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s %s %#v: shown as %#v, want %#v", op, c.field, c.value, got, c.want)
			}
			if !slices.ContainsFunc(policy.Fields, func(f policy.Field) bool { return f.Name == c.field }) {
				continue
			}
			// Null gives the default back, whatever else was named before.
			null := map[string]any{c.field: nil}
			for f := range c.with {
				null[f] = nil
			}
			if c.value == policy.RevealOnce {
				null["rotation_period"] = nil // which that chose, too
			}
			m.must(logical.PatchOperation, path, null)
			if got := plain(t, m.read(path)); !reflect.DeepEqual(got, before) {
				t.Errorf("%s %#v, reset: %v, want %v", c.field, c.value, got, before)
			}
		}
	}
}

func TestRoleNames(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"a", "0", "a.b_c-d", strings.Repeat("a", 128)} {
		m.write("roles/"+name, nil)
		if got := m.read("roles/" + name)["name"]; got != name {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, name := range []string{"A", "-a", ".a", "_a", "..", "~a", "a b", "ä", "a\n", strings.Repeat("a", 129), "a%2fb"} {
		m.unchanged(func() {
			m.refused(logical.UpdateOperation, "roles/"+name, nil, "name: ", "must be 1 to 128 of a-z 0-9 . _ - with a letter or digit first and no two dots in a row: choose another name")
			if resp, err := m.do(logical.ReadOperation, "roles/"+name, nil); resp != nil || err != nil {
				t.Errorf("%q: %v %v", name, resp, err)
			}
			if resp, err := m.do(logical.DeleteOperation, "roles/"+name, nil); resp != nil || err != nil {
				t.Errorf("%q: %v %v", name, resp, err)
			}
		})
	}
	m.unchanged(func() {
		resp, err := m.do(logical.PatchOperation, "roles/absent", map[string]any{"owner": "x"})
		if status, _ := httpStatus(resp, err); status != 404 {
			t.Errorf("a patch of an absent role: %v %v", resp, err)
		}
	})
}

func TestTypeIsFixed(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", nil)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	for _, op := range []logical.Operation{logical.UpdateOperation, logical.PatchOperation} {
		m.unchanged(func() {
			m.refused(op, "roles/s", map[string]any{"type": "dynamic", "owner": "x"}, `type: "dynamic": is fixed at creation; this role is static: `)
			m.refused(op, "roles/d", map[string]any{"type": "static"}, "type: ", "this role is dynamic")
			m.must(op, "roles/s", map[string]any{"type": "static"})
			m.must(op, "roles/d", map[string]any{"type": "dynamic"})
		})
	}
	m.unchanged(func() {
		m.refused(logical.PatchOperation, "roles/d", map[string]any{"type": nil}, "type: ", "fixed at creation")
		m.refused(logical.PatchOperation, "roles/d", map[string]any{"role_id": nil}, "role_id: ", "given by the engine")
		m.must(logical.UpdateOperation, "roles/d", map[string]any{"type": nil, "role_id": nil, "owner": nil})
	})
}

func TestWritingBackWhatWasReadChangesNothing(t *testing.T) {
	m := newMount(t)
	for i, data := range []map[string]any{
		nil,
		{"type": "dynamic"},
		{"type": "dynamic", "ttl": "30m", "max_ttl": "2h", "rotation_period": "24h", "scopes": "a,b"},
		{"rotation_period": 0, "ttl": "1h"},
		{"rotation_schedule": "CRON_TZ=Europe/Berlin 30 2 * * *", "rotation_jitter": "1h", "metadata": "a=b", "allowed_cidrs": "10.0.0.0/8,::1", "rate_limit": 2.5},
		{"rotation_period": 600, "grace_period": 0, "reveal": "once", "on_leak": "rotate", "disabled": true, "deletion_protection": true, "rotation_paused": true},
	} {
		path := fmt.Sprint("roles/r", i)
		m.write(path, data)
		m.clock.advance(1000)
		read := m.read(path)
		m.unchanged(func() {
			m.write(path, read)
			m.write(path, plain(t, read))
			m.must(logical.PatchOperation, path, plain(t, read))
			asText := plain(t, read)
			for name, v := range asText {
				if n, isNumber := v.(float64); isNumber && name != "rate_limit" {
					asText[name] = fmt.Sprintf("%ds", int(n))
				}
			}
			m.write(path, asText)
			m.write(path, data)
		})
		if again := m.read(path); !reflect.DeepEqual(read, again) {
			t.Errorf("%v, then %v", read, again)
		}
	}
}

func TestUpdateChangesOnlyWhatItNames(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"owner": "o", "scopes": "x,y", "grace_period": "2h", "metadata": map[string]any{"a": "1", "b": "2"}})
	before := plain(t, m.read("roles/a"))
	m.write("roles/a", map[string]any{"description": "d"})
	before["description"] = "d"
	if got := plain(t, m.read("roles/a")); !reflect.DeepEqual(got, before) {
		t.Errorf("%v, want %v", got, before)
	}
	// A patch merges the map, an update replaces it.
	m.must(logical.PatchOperation, "roles/a", map[string]any{"metadata": map[string]any{"b": nil, "c": "3"}})
	if got, want := plain(t, m.read("roles/a"))["metadata"], (map[string]any{"a": "1", "c": "3"}); !reflect.DeepEqual(got, want) {
		t.Errorf("patched: %v, want %v", got, want)
	}
	m.write("roles/a", map[string]any{"metadata": map[string]any{"z": "9"}})
	if got, want := plain(t, m.read("roles/a"))["metadata"], (map[string]any{"z": "9"}); !reflect.DeepEqual(got, want) {
		t.Errorf("updated: %v, want %v", got, want)
	}
	m.must(logical.PatchOperation, "roles/a", map[string]any{"metadata": nil})
	if got := plain(t, m.read("roles/a"))["metadata"]; !reflect.DeepEqual(got, map[string]any{}) {
		t.Errorf("reset: %v", got)
	}
}

func TestPeriodAndScheduleGiveWayToEachOther(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "24h"})
	m.refused(logical.UpdateOperation, "roles/a", map[string]any{"rotation_schedule": "0 3 * * *"},
		`rotation_schedule: "0 3 * * *": is exclusive with rotation_period, which is 24h (86400 seconds): write rotation_period=0 with it`)
	m.write("roles/a", map[string]any{"rotation_schedule": "0 3 * * *", "rotation_period": 0})
	got := plain(t, m.read("roles/a"))
	if got["rotation_period"] != 0.0 || got["rotation_schedule"] != "0 3 * * *" {
		t.Errorf("scheduled: %v", got)
	}
	m.refused(logical.UpdateOperation, "roles/a", map[string]any{"rotation_period": "24h"}, "rotation_period: 86400: is exclusive with rotation_schedule")
	m.write("roles/a", map[string]any{"rotation_schedule": "", "rotation_period": "24h"})
	got = plain(t, m.read("roles/a"))
	if got["rotation_period"] != 86400.0 || got["rotation_schedule"] != "" {
		t.Errorf("periodic: %v", got)
	}
	// A default gives way by itself.
	m.write("roles/b", map[string]any{"rotation_schedule": "0 3 * * *"})
	m.write("roles/b", map[string]any{"rotation_schedule": ""})
	if got := plain(t, m.read("roles/b"))["rotation_period"]; got != 7776000.0 {
		t.Errorf("without schedule: %v", got)
	}
}

func TestDefaultsFollowOtherFields(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": "1h"})
	if got := number(t, m.read("roles/a")["grace_period"]); got != 1800 {
		t.Errorf("grace of an hourly role: %d", got)
	}
	m.write("roles/a", map[string]any{"rotation_period": 0})
	if got := number(t, m.read("roles/a")["grace_period"]); got != 86400 {
		t.Errorf("grace without rotation: %d", got)
	}
	// What was written at creation stays, even where it was the default.
	m.write("roles/b", map[string]any{"grace_period": "24h"})
	m.write("roles/b", map[string]any{"rotation_period": "3h"})
	if got := number(t, m.read("roles/b")["grace_period"]); got != 86400 {
		t.Errorf("grace that was written: %d", got)
	}
}

// What the mount changed since must not keep somebody from using the brake.
func TestRulesAreJudgedOnlyForWhatChanges(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"rotation_period": 3600, "ttl": 6000})
	m.write("config", map[string]any{"stage_ahead": "30m"})
	m.write("roles/a", map[string]any{"disabled": true})
	m.refused(logical.UpdateOperation, "roles/a", map[string]any{"grace_period": 3000}, "ttl: 6000: ", "at least 2h20m (8400 seconds)", "raise ttl with it, or give a shorter grace_period")
	m.write("roles/a", m.read("roles/a"))
}

func TestPolicyNeverOutgrowsTheRecord(t *testing.T) {
	m := newMount(t)
	num := func(i int) string { return fmt.Sprint(i, strings.Repeat("ä", 30)) }
	m.unchanged(func() {
		m.refused(logical.UpdateOperation, "roles/a", map[string]any{
			"metadata": mapOf(64, num, func(int) string { return strings.Repeat("<", 512) }),
		}, "metadata: ", "the role's policy would need more than 122880 bytes")
	})
	m.write("roles/a", map[string]any{"metadata": mapOf(64, num, func(int) string { return strings.Repeat("ä", 512) })})
}

func TestRoleWarnings(t *testing.T) {
	m := newMount(t)
	resp, err := m.do(logical.UpdateOperation, "roles/a", map[string]any{"rotation_period": 0, "ttl": "1h", "rotation_jitter": 60})
	if err != nil || len(resp.Warnings) != 2 {
		t.Errorf("%v %v", resp, err)
	}
	if resp, err := m.do(logical.UpdateOperation, "roles/b", nil); err != nil || resp != nil {
		t.Errorf("%v %v", resp, err)
	}
}

func TestRoleList(t *testing.T) {
	m := newMount(t)
	if resp, err := m.do(logical.ListOperation, "roles/", nil); err != nil || len(resp.Data) != 0 {
		t.Errorf("empty: %v %v", resp, err)
	}
	for _, n := range []string{"b", "a", "c", "aa", "a.b"} {
		m.write("roles/"+n, nil)
	}
	for _, c := range []struct {
		data map[string]any
		want []string
	}{
		{nil, []string{"a", "a.b", "aa", "b", "c"}},
		{map[string]any{"limit": 2}, []string{"a", "a.b"}},
		{map[string]any{"limit": "2", "after": "a.b"}, []string{"aa", "b"}},
		{map[string]any{"after": "ab"}, []string{"b", "c"}},
		{map[string]any{"after": "c"}, nil},
		{map[string]any{"after": "", "limit": 1000}, []string{"a", "a.b", "aa", "b", "c"}},
	} {
		got, _ := m.must(logical.ListOperation, "roles/", c.data)["keys"].([]string)
		if !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.data, got, c.want)
		}
	}
	for _, all := range []any{0, -1, 1001} {
		got, _ := m.must(logical.ListOperation, "roles/", map[string]any{"limit": all})["keys"].([]string)
		if len(got) != 5 {
			t.Errorf("limit %v: %v, want all", all, got)
		}
	}
	for _, limit := range []any{"x", "", 1.5} {
		m.refused(logical.ListOperation, "roles/", map[string]any{"limit": limit}, "limit: ")
	}
}

func TestPolicyChangesAreHistory(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", map[string]any{"description": strings.Repeat("x", 400)})
	m.write("roles/a", map[string]any{"description": "y", "rotation_period": "1h"})
	rec, err := getRecord[roleRecord](context.Background(), m.storage, rolePath("a"))
	if err != nil {
		t.Fatal(err)
	}
	last := rec.History[len(rec.History)-1]
	want := map[string]fieldChange{
		"description":      {Old: strings.Repeat("x", 256) + "…", New: "y"},
		"rotation_period":  {Old: 7776000.0, New: 3600.0},
		"grace_period":     {Old: 86400.0, New: 1800.0},
		"max_grace_period": {Old: 86400.0, New: 1800.0},
	}
	if last.Kind != eventRoleUpdated || !reflect.DeepEqual(last.Fields, want) || last.Display != "token-operator" {
		t.Errorf("%+v", last)
	}
	if rec.History[0].Kind != eventRoleCreated || rec.Seq != 2 {
		t.Errorf("%+v", rec.History[0])
	}
}

// A role is created whole or not at all, whichever call to storage fails, and
// the repeated request succeeds.
func TestCreationIsOneCommit(t *testing.T) {
	for _, f := range []fault{faultFail, faultApplied, faultCrash, faultApplyCrash, faultReadOnly} {
		for n := 1; ; n++ {
			p := newProbe(&logical.InmemStorage{})
			m := mountOn(t, p, newFakeClock())
			p.arm(n, f)
			_, err := m.do(logical.UpdateOperation, "roles/a", map[string]any{"owner": "x"})
			calls, _ := p.count()
			p.reset()
			if calls < n {
				break
			}
			for _, m := range []*testMount{m, mountOn(t, p, m.clock)} {
				if data, readErr := m.do(logical.ReadOperation, "roles/a", nil); readErr != nil {
					t.Fatal(readErr)
				} else if data == nil && err == nil {
					t.Fatalf("fault %d at call %d: acknowledged, and not there", f, n)
				}
				m.write("roles/a", map[string]any{"owner": "x"})
				key := m.read("creds/a")["api_key"]
				if got := m.verdict(key); got != "VALID" {
					t.Fatalf("fault %d at call %d: %s", f, n, got)
				}
			}
		}
	}
}

// A write with replace=true states all of what is written: what it does not name
// goes back to its default, in one commit, and replace itself is never read back.
func TestReplaceResetsWhatIsNotNamed(t *testing.T) {
	m := newMount(t)
	m.write("roles/fresh", nil)
	defaults := plain(t, m.read("roles/fresh"))
	full := map[string]any{
		"description": "orders", "owner": "team", "metadata": map[string]any{"env": "prod"}, "scopes": "orders:read", "prefix": "acme",
		"rotation_period": "720h", "grace_period": "2h", "refresh_interval": "1m", "allowed_cidrs": []any{"10.0.0.0/8"}, "rate_limit": 5,
		"on_leak": "alert", "disabled": true, "deletion_protection": true, "rotation_paused": true,
	}
	m.write("roles/r", full)
	key := m.read("creds/r")["key_id"]
	m.write("roles/r", map[string]any{"owner": "team", "replace": true})
	got := plain(t, m.read("roles/r"))
	for _, name := range policyFieldNames() {
		want := defaults[name]
		if name == "owner" {
			want = "team"
		}
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if _, shown := got["replace"]; shown {
		t.Error("replace is read back")
	}
	if m.read("creds/r")["key_id"] != key {
		t.Error("replacing the policy replaced the key")
	}
	// Once more changes nothing, and false is no replacement.
	m.unchanged(func() { m.write("roles/r", map[string]any{"owner": "team", "replace": true}) })
	m.write("roles/r", map[string]any{"description": "orders", "replace": "false"})
	if got := m.read("roles/r"); got["owner"] != "team" || got["description"] != "orders" {
		t.Errorf("without replacement: %v", got)
	}
	// What breaks a rule changes nothing, whatever else would have been reset.
	m.unchanged(func() {
		m.refused(logical.UpdateOperation, "roles/r", map[string]any{"ttl": "1m", "replace": true}, "ttl: ")
	})

	m.write("config", map[string]any{"stage_ahead": "20m", "cache_size": 500, "rotation_paused": true})
	m.write("config", map[string]any{"cache_size": 700, "replace": true})
	want := plain(t, configDefaults)
	want["cache_size"] = 700.0
	if got := plain(t, m.read("config")); !reflect.DeepEqual(got, want) {
		t.Errorf("config %v, want %v", got, want)
	}
}

func policyFieldNames() []string {
	var names []string
	for i := range policy.Fields {
		names = append(names, policy.Fields[i].Name)
	}
	return names
}
