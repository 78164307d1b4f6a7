// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// defaults is a static role of which nothing but the name was written.
var defaults = map[string]string{
	"type": `"static"`, "description": `""`, "owner": `""`, "metadata": `{}`, "scopes": `[]`, "prefix": `"ak"`, "ttl": `0`,
	"rotation_period": `7776000`, "rotation_schedule": `""`, "rotation_jitter": `0`, "rotation_paused": `false`, "grace_period": `86400`,
	"max_grace_period": `86400`, "refresh_interval": `300`, "reveal": `"always"`, "allowed_cidrs": `[]`, "rate_limit": `0`,
	"on_leak": `"revoke"`, "disabled": `false`, "deletion_protection": `false`,
}

func inJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (e *env) fieldsAre(d data, want map[string]string) {
	e.t.Helper()
	for name, w := range want {
		v, ok := d[name]
		if !ok {
			e.t.Errorf("no field %s", name)
			continue
		}
		if got := inJSON(e.t, v); got != w {
			e.t.Errorf("%s is %s, want %s", name, got, w)
		}
	}
}

func roleFields(t *testing.T, e *env) {
	e.write("roles/plain", nil)
	plain := e.read("roles/plain")
	e.fieldsAre(plain, defaults)
	if text(plain, "name") != "plain" || len(text(plain, "role_id")) != 36 {
		t.Errorf("name %q, role_id %q", plain["name"], plain["role_id"])
	}
	full := data{
		"description": "orders of the shop", "owner": "team-orders", "metadata": data{"env": "prod", "cost": "a=b"},
		"scopes": []string{"orders:write", "orders:read", "invoices:*"}, "prefix": "acme_live", "ttl": "720h", "rotation_period": "10h",
		"rotation_jitter": "1h", "rotation_paused": true, "grace_period": "2h", "max_grace_period": "4h", "refresh_interval": "1m",
		"reveal": "once", "allowed_cidrs": []string{"10.0.0.0/8", "192.0.2.7/32"}, "rate_limit": 50, "on_leak": "rotate",
		"disabled": true, "deletion_protection": true,
	}
	e.write("roles/full", full)
	e.fieldsAre(e.read("roles/full"), map[string]string{
		"description": `"orders of the shop"`, "owner": `"team-orders"`, "metadata": `{"cost":"a=b","env":"prod"}`,
		"scopes": `["orders:write","orders:read","invoices:*"]`, "prefix": `"acme_live"`, "ttl": `2592000`, "rotation_period": `36000`,
		"rotation_jitter": `3600`, "rotation_paused": `true`, "grace_period": `7200`, "max_grace_period": `14400`, "refresh_interval": `60`,
		"reveal": `"once"`, "allowed_cidrs": `["10.0.0.0/8","192.0.2.7/32"]`, "rate_limit": `50`, "on_leak": `"rotate"`,
		"disabled": `true`, "deletion_protection": `true`, "type": `"static"`,
	})
	e.write("roles/dynamic", data{"type": "dynamic", "ttl": "10m", "max_ttl": "1h"})
	e.fieldsAre(e.read("roles/dynamic"), map[string]string{"type": `"dynamic"`, "ttl": `600`, "max_ttl": `3600`, "rotation_period": `0`})
	e.write("roles/scheduled", data{"rotation_schedule": "CRON_TZ=Europe/Berlin 0 3 * * 1"})
	e.fieldsAre(e.read("roles/scheduled"), map[string]string{"rotation_schedule": `"CRON_TZ=Europe/Berlin 0 3 * * 1"`, "rotation_period": `0`})
	for _, role := range []string{"plain", "full"} {
		for name := range e.read("roles/" + role) {
			if strings.Contains(name, "key") || strings.Contains(name, "version") || strings.Contains(name, "next") {
				t.Errorf("role %s shows %s", role, name)
			}
		}
	}
}

func roleUpdates(t *testing.T, e *env) {
	config := data{"owner": "team-a", "scopes": []string{"a:read"}, "grace_period": "2h", "metadata": data{"k": "v"}}
	e.write("roles/r", config)
	first := e.read("roles/r")
	e.write("roles/r", config)
	if again := e.read("roles/r"); !reflect.DeepEqual(first, again) {
		t.Errorf("the same write changed\n%v\nto\n%v", first, again)
	}
	// Nothing that happens to the keys may show up as a difference.
	e.creds("r")
	e.write("rotate/r", data{"reason": "no drift"})
	e.creds("r")
	if again := e.read("roles/r"); !reflect.DeepEqual(first, again) {
		t.Errorf("a rotation changed\n%v\nto\n%v", first, again)
	}
	e.write("roles/r", data{"owner": "team-b"})
	want := maps.Clone(first)
	want["owner"] = "team-b"
	if got := e.read("roles/r"); !reflect.DeepEqual(got, want) {
		t.Errorf("an update of the owner made it\n%v\nwant\n%v", got, want)
	}
	patch := func(d data) error {
		_, err := e.client.Logical().JSONMergePatch(t.Context(), e.path("roles/r"), d)
		return err
	}
	if err := patch(data{"grace_period": nil, "scopes": []string{"a:read", "b:read"}}); err != nil {
		t.Fatal(err)
	}
	e.fieldsAre(e.read("roles/r"), map[string]string{"grace_period": `86400`, "scopes": `["a:read","b:read"]`, "owner": `"team-b"`})
	e.refused(patch(data{"typo": 1}), 400, "typo")
	e.refuses("roles/r", data{"type": "dynamic"}, "type")
	if got := number(t, e.read("creds/r"), "version"); got != 2 {
		t.Errorf("updates made version %d", got)
	}
}

func rolePages(t *testing.T, e *env) {
	if resp, _ := e.raw(t, "LIST", "roles", ""); resp != 404 {
		t.Errorf("an empty list has status %d", resp)
	}
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("page-%d", i)
		want = append(want, name)
		e.write("roles/"+name, nil)
	}
	var got []string
	for after, pages := "", 0; ; pages++ {
		if pages > len(want) {
			t.Fatal("the pages do not end")
		}
		s, err := e.client.Logical().ReadWithData(e.path("roles"), map[string][]string{"list": {"true"}, "after": {after}, "limit": {"3"}})
		if err != nil {
			t.Fatal(err)
		}
		if s == nil {
			break
		}
		page, _ := s.Data["keys"].([]any)
		if len(page) == 0 {
			break
		}
		if len(page) > 3 {
			t.Fatalf("a page of %d", len(page))
		}
		for _, k := range page {
			got = append(got, k.(string))
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages %v, want %v", got, want)
	}
	s, err := e.client.Logical().List(e.path("roles"))
	if err != nil || len(s.Data["keys"].([]any)) != len(want) {
		t.Errorf("whole list %v, %v", s, err)
	}
}

func roleRefusals(t *testing.T, e *env) {
	for _, c := range []struct {
		field string
		value any
	}{
		{"type", "other"},
		{"scopes", "with space"},
		{"scopes", "a:*:b"},
		{"prefix", "UPPER"},
		{"prefix", "x"},
		{"rotation_period", "59s"},
		{"rotation_schedule", "* * *"},
		{"rotation_schedule", "@daily"},
		{"reveal", "never"},
		{"allowed_cidrs", "not-a-cidr"},
		{"rate_limit", -1},
		{"on_leak", "ignore"},
		{"ttl", "-5s"},
		{"owner", strings.Repeat("x", 513)},
		{"ttl", "1m"},
		{"typo", "x"},
		{"disabled", "perhaps"},
	} {
		e.refuses("roles/wrong", data{c.field: c.value}, c.field)
	}
	e.refuses("roles/wrong", data{"rotation_schedule": "0 3 * * *", "rotation_period": "1h"}, "rotation")
	// Two dots: Vault's storage refuses them in a key, so such a name must not get that far.
	for _, name := range []string{"a..b", "UPPER", "-dash", "with space", strings.Repeat("x", 129)} {
		_, err := e.client.Logical().Write(e.path("roles/"+name), nil)
		if err == nil {
			t.Errorf("a role named %q was accepted", name)
		} else {
			e.refused(err, 400)
		}
	}
	if s, err := e.client.Logical().Read(e.path("roles/wrong")); err != nil || s != nil {
		t.Errorf("refused writes left %v, %v", s, err)
	}
}

func roleDeletion(t *testing.T, e *env) {
	e.write("roles/r", data{"deletion_protection": true})
	_, err := e.client.Logical().Delete(e.path("roles/r"))
	e.refused(err, 400, "deletion_protection")
	e.write("roles/r", data{"deletion_protection": false})
	id := text(e.read("roles/r"), "role_id")
	k := e.creds("r")
	e.judged(k, "VALID current")
	e.remove("roles/r")
	e.judged(k, "NOT_FOUND")
	if status, _ := e.raw(t, "GET", "creds/r", ""); status != 404 {
		t.Errorf("the deleted role's key has status %d", status)
	}
	if s, err := e.client.Logical().Read(e.path("roles/r")); err != nil || s != nil {
		t.Errorf("the deleted role is %v, %v", s, err)
	}
	e.write("restore/"+id, nil)
	e.judged(k, "VALID current")
	if again := e.creds("r"); again.secret != k.secret {
		t.Error("another key after the restore")
	}
	e.remove("roles/r")
	e.write("roles/r", nil)
	if fresh := text(e.read("roles/r"), "role_id"); fresh == id {
		t.Error("a re-created role has the old id")
	}
	e.judged(k, "NOT_FOUND")

	_, err = e.client.Logical().Write(e.path("restore/"+id), data{"name": "renamed", "force": true})
	if err != nil {
		t.Error(err)
	}
	e.judged(k, "VALID current")
	if got := e.creds("renamed"); got.secret != k.secret {
		t.Error("another key after the rename")
	}
	if got := text(e.read("status/renamed"), "renamed_from"); got != "r" {
		t.Errorf("renamed from %q", got)
	}
	e.remove("roles/renamed")
	e.remove("roles/absent")
}
