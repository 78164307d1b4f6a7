// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
)

// verdictFor is the code and the rest of the answer to one question.
func (m *testMount) verdictFor(path string, data map[string]any) string {
	m.t.Helper()
	return m.write(path, data)["code"].(string)
}

// A node that has not been told of a decision answers as before, but not to a
// question that asks for a fresh answer; from then on it knows.
func TestFreshAnswersComeFromStorage(t *testing.T) {
	const foreign = "sk-0123456789-from-elsewhere"
	setUp := func() (stale, other *testMount) {
		stale = newMount(t)
		stale.write("roles/s", nil)
		stale.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h"})
		stale.write("import", map[string]any{"batch": `{"role":"i","key":"` + foreign + `"}`})
		return stale, mountOn(t, stale.storage, stale.clock)
	}
	static := func(m *testMount) map[string]any { return map[string]any{"key": m.read("creds/s")["api_key"]} }
	for name, c := range map[string]struct {
		question func(*testMount) map[string]any
		decide   func(m *testMount, question map[string]any)
		path     string
		want     string
	}{
		"revoked":   {static, func(m *testMount, _ map[string]any) { m.write("revoke/s", map[string]any{"all": true}) }, "verify", "REVOKED"},
		"by role":   {static, func(m *testMount, _ map[string]any) { m.write("revoke/s", map[string]any{"all": true}) }, "verify/s", "REVOKED"},
		"disabled":  {static, func(m *testMount, _ map[string]any) { m.write("roles/s", map[string]any{"disabled": true}) }, "verify", "DISABLED"},
		"deleted":   {static, func(m *testMount, _ map[string]any) { m.must(logical.DeleteOperation, "roles/s", nil) }, "verify", "NOT_FOUND"},
		"a lease's": {func(m *testMount) map[string]any { return map[string]any{"key": m.lease("d", nil).Data["api_key"]} }, revokePasted, "verify", "REVOKED"},
		"imported":  {func(*testMount) map[string]any { return map[string]any{"key": foreign} }, func(m *testMount, _ map[string]any) { m.write("revoke/i", map[string]any{"version": 1}) }, "verify", "REVOKED"},
		"asked by id": {func(m *testMount) map[string]any {
			return map[string]any{"key_id": m.read("creds/s")["key_id"], "role_id": m.roleID("s")}
		}, func(m *testMount, _ map[string]any) { m.write("revoke/s", map[string]any{"all": true}) }, "verify", "STATE"},
	} {
		stale, other := setUp()
		q := c.question(stale)
		before := stale.verdictFor(c.path, q)
		if before != "VALID" && before != "STATE" {
			t.Fatalf("%s: %s before", name, before)
		}
		c.decide(other, q)
		if got := stale.verdictFor(c.path, q); got != before {
			t.Errorf("%s: %s without being told: the test tests nothing", name, got)
		}
		q["fresh"] = true
		got := stale.write(c.path, q)
		if got["code"] != c.want || c.want == "STATE" && got["state"] != "revoked" {
			t.Errorf("%s: a fresh answer is %v %v, want %s", name, got["code"], got["state"], c.want)
		}
		delete(q, "fresh")
		if got := stale.write(c.path, q); got["code"] != c.want || c.want == "STATE" && got["state"] != "revoked" {
			t.Errorf("%s: a plain answer after a fresh one is %v, want %s", name, got["code"], c.want)
		}
	}
}

func revokePasted(m *testMount, question map[string]any) {
	m.write("revoke/d", map[string]any{"key_id": m.write("lookup", map[string]any{"key": question["key"]})["key_id"]})
}

// What was looked for in vain a moment ago may exist by now.
func TestFreshAnswersPassWhatWasLookedForInVain(t *testing.T) {
	m := newMount(t)
	other := mountOn(t, m.storage, m.clock)
	m.write("roles/first", nil)
	const foreign = "sk-0123456789-from-elsewhere"
	q := map[string]any{"key": foreign}
	if got := m.verdictFor("verify", q); got != "MALFORMED" {
		t.Fatalf("%s before the import", got)
	}
	other.write("import", map[string]any{"batch": `{"role":"i","key":"` + foreign + `"}`})
	q["fresh"] = true
	if got := m.verdictFor("verify", q); got != "VALID" {
		t.Errorf("%s after the import", got)
	}
	batch := other.write("verify", map[string]any{"batch": `{"key":"` + foreign + `","fresh":true}`})["results"].([]any)
	if got := batch[0].(map[string]any)["code"]; got != "VALID" {
		t.Errorf("%s in a batch", got)
	}
	other.refused(logical.UpdateOperation, "verify", map[string]any{"batch": `{"key":"x"}`, "fresh": true}, "fresh: stands beside batch")
}

// A fresh answer costs storage reads, the plain ones after it cost what they did.
func TestFreshAnswersLeaveTheCachesWarm(t *testing.T) {
	m := mountOn(t, newProbe(&logical.InmemStorage{}), newFakeClock())
	m.write("roles/s", nil)
	good := m.read("creds/s")["api_key"].(string)
	m.ask(good)
	m.fresh(true)
	m.costOf("verify", good) // a record that was written here differs from what is read
	m.fresh(false)
	m.ask(good)
	view := m.views.find(m.read("creds/s")["key_id"].(string))
	m.fresh(true)
	for range 3 {
		if spent, code := m.costOf("verify", good); spent != (cost{calls: 3, hmacs: 1}) || code != "VALID" {
			t.Errorf("a fresh answer %s takes %+v", code, spent)
		}
	}
	m.fresh(false)
	if spent, code := m.costOf("verify", good); spent != (cost{hmacs: 1}) || code != "VALID" || m.views.find(view.key.ID) != view {
		t.Errorf("a plain answer %s takes %+v after fresh ones", code, spent)
	}
}

// A fresh question is for the node that writes, whatever would be answered.
func TestFreshQuestionsAreForwarded(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", nil)
	good := m.read("creds/s")["api_key"].(string)
	for name, state := range map[string]consts.ReplicationState{
		"performance standby": consts.ReplicationPerformanceStandby, "performance secondary": consts.ReplicationPerformanceSecondary,
		"disaster recovery": consts.ReplicationDRSecondary,
	} {
		standby, _ := mountAs(t, m.storage, m.clock, state)
		for _, data := range []map[string]any{
			{"key": good, "fresh": true},
			{"key": "nonsense", "fresh": true},
			{"key_id": good[len("ak_") : len("ak_")+12], "role_id": m.roleID("s"), "fresh": true},
			{"batch": `{"key":"` + good + `","fresh":true}`},
		} {
			for _, path := range []string{"verify", "verify/s"} {
				if _, err := standby.do(logical.UpdateOperation, path, data); err != logical.ErrReadOnly { //nolint:errorlint // servers compare it as it is
					t.Errorf("%s, %s: %v", name, path, err)
				}
			}
		}
		if got := standby.verdictFor("verify", map[string]any{"key": good, "fresh": false}); got != "VALID" {
			t.Errorf("%s: %s to a plain question", name, got)
		}
	}
}

func TestOneOfSeveralScopes(t *testing.T) {
	m := newMount(t)
	m.write("roles/s", map[string]any{"scopes": "orders:*,stock:read"})
	m.write("roles/d", map[string]any{"type": "dynamic", "scopes": "orders:*,stock:read"})
	m.write("roles/none", nil)
	key := m.read("creds/s")["api_key"]
	narrow := m.lease("d", map[string]any{"scopes": "stock:read"}).Data["api_key"]
	bare := m.read("creds/none")["api_key"]
	for _, c := range []struct {
		key       any
		all, some string
		want      string
	}{
		{key, "", "orders:read", "VALID"},
		{key, "", "users:read,orders:read", "VALID"},
		{key, "", "users:read,stock:read", "VALID"},
		{key, "", "users:read", "INSUFFICIENT_SCOPE"},
		{key, "", "users:read,stock:write", "INSUFFICIENT_SCOPE"},
		{key, "stock:read", "users:read,orders:read", "VALID"},
		{key, "stock:read", "users:read", "INSUFFICIENT_SCOPE"},
		{key, "users:read", "orders:read", "INSUFFICIENT_SCOPE"},
		{narrow, "", "orders:read,stock:read", "VALID"},
		{narrow, "", "orders:read", "INSUFFICIENT_SCOPE"},
		{bare, "", "orders:read", "INSUFFICIENT_SCOPE"},
	} {
		data := map[string]any{"key": c.key, "any_scope": c.some}
		item := fmt.Sprintf(`{"key":%q,"any_scope":["%s"]`, c.key, strings.ReplaceAll(c.some, ",", `","`))
		if c.all != "" {
			data["scopes"] = c.all
			item += fmt.Sprintf(`,"scopes":[%q]`, c.all)
		}
		if got := m.verdictFor("verify", data); got != c.want {
			t.Errorf("all of %q and one of %q: %s, want %s", c.all, c.some, got, c.want)
		}
		results := m.write("verify", map[string]any{"batch": item + "}"})["results"].([]any)
		if got := results[0].(map[string]any)["code"]; got != c.want {
			t.Errorf("in a batch, all of %q and one of %q: %s, want %s", c.all, c.some, got, c.want)
		}
	}
	for _, empty := range []any{"", []any{}} {
		m.refused(logical.UpdateOperation, "verify", map[string]any{"key": key, "any_scope": empty}, "any_scope", "is empty")
	}
	m.refused(logical.UpdateOperation, "verify", map[string]any{"key": key, "any_scope": strings.Repeat("a:b,", 129) + "a:b"}, "any_scope: 130: more than 128")
}
