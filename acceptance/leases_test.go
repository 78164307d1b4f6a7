// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func leaseLife(t *testing.T, e *env) {
	e.write("roles/d", data{"type": "dynamic", "ttl": "1m", "max_ttl": "10m", "scopes": []string{"a:read", "a:write"}})
	one, two := e.creds("d"), e.creds("d")
	if one.secret == two.secret || one.lease.LeaseID == two.lease.LeaseID {
		t.Error("two reads got one key")
	}
	if one.lease.LeaseDuration != 60 || !one.lease.Renewable || !strings.HasPrefix(one.lease.LeaseID, e.mount+"/creds/d/") {
		t.Errorf("lease %q of %d s", one.lease.LeaseID, one.lease.LeaseDuration)
	}
	for _, f := range []string{"ttl", "rotation_period", "last_vault_rotation"} {
		if _, ok := one.lease.Data[f]; ok {
			t.Errorf("a dynamic key's answer has %s", f)
		}
	}
	e.judged(one, "VALID")
	before, err := time.Parse(time.RFC3339, text(e.verify(one.secret), "expires_at"))
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := e.client.Sys().Renew(one.lease.LeaseID, 300)
	if err != nil {
		t.Fatal(err)
	}
	if renewed.LeaseDuration < 60 || renewed.LeaseDuration > 300 {
		t.Errorf("renewed to %d s", renewed.LeaseDuration)
	}
	after, err := time.Parse(time.RFC3339, text(e.verify(one.secret), "expires_at"))
	if err != nil {
		t.Fatal(err)
	}
	// The lease the host answered and the key's own end must be the same length, give or take the call.
	if moved := after.Sub(before); moved < time.Duration(renewed.LeaseDuration-60-5)*time.Second {
		t.Errorf("the lease was renewed to %d s, the key's end moved by %s", renewed.LeaseDuration, moved)
	}
	if renewed, err = e.client.Sys().Renew(one.lease.LeaseID, 7200); err != nil {
		t.Fatal(err)
	}
	if renewed.LeaseDuration > 600 {
		t.Errorf("renewed past max_ttl to %d s", renewed.LeaseDuration)
	}
	if err := e.client.Sys().RevokeWithOptions(&api.RevokeOptions{LeaseID: one.lease.LeaseID, Sync: true}); err != nil {
		t.Fatal(err)
	}
	e.judged(one, "REVOKED")
	e.judged(two, "VALID")
	if err := e.client.Sys().RevokeWithOptions(&api.RevokeOptions{LeaseID: one.lease.LeaseID, Sync: true}); err != nil {
		t.Errorf("revoked again: %v", err)
	}
	if _, err := e.client.Sys().Renew(one.lease.LeaseID, 60); err == nil {
		t.Error("a revoked lease was renewed")
	}
	// By the engine: the key dies at once, and its lease cannot be renewed.
	e.write("revoke/d", data{"key_id": two.id})
	e.judged(two, "REVOKED")
	if _, err := e.client.Sys().Renew(two.lease.LeaseID, 60); err == nil {
		t.Error("the lease of a killed key was renewed")
	}

	narrow, err := e.client.Logical().Write(e.path("creds/d"), data{"scopes": []string{"a:read"}, "ttl": "30s", "label": "job 7"})
	if err != nil {
		t.Fatal(err)
	}
	if narrow.LeaseDuration != 30 || inJSON(t, narrow.Data["scopes"]) != `["a:read"]` {
		t.Errorf("narrowed to %v for %d s", narrow.Data["scopes"], narrow.LeaseDuration)
	}
	e.judged(e.keyOf(narrow), "VALID")
	e.refuses("creds/d", data{"scopes": []string{"b:read"}}, "scopes")
}

func leaseExpiry(t *testing.T, e *env) {
	e.write("roles/d", data{"type": "dynamic", "ttl": "3s", "max_ttl": "5s"})
	k := e.creds("d")
	eventually(t, "the key ends", func() error {
		if e.verify(k.secret)["valid"] == true {
			return errNotYet
		}
		return nil
	})
	if got := text(e.verify(k.secret), "code"); got != "EXPIRED" && got != "REVOKED" {
		t.Errorf("the expired key is %s", got)
	}
	eventually(t, "the lease is gone", func() error {
		if _, err := e.client.Sys().Lookup(k.lease.LeaseID); err == nil {
			return errNotYet
		}
		return nil
	})
}

func leaseEndsWithToken(t *testing.T, e *env) {
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	c := e.tokenFor(t, `path "`+e.mount+`/creds/d" { capabilities = ["read"] }`)
	s, err := c.Logical().Read(e.path("creds/d"))
	if err != nil {
		t.Fatal(err)
	}
	k := e.keyOf(s)
	e.judged(k, "VALID")
	if err := c.Auth().Token().RevokeSelf(""); err != nil {
		t.Fatal(err)
	}
	e.becomes(k, "REVOKED")
}

func dynamicGeneration(t *testing.T, e *env) {
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	one, two := e.creds("d"), e.creds("d")
	e.write("rotate/d", data{"grace_period": 0, "force": true, "reason": "leaked laptop"})
	fresh := e.creds("d")
	for _, k := range []key{one, two} {
		if e.verify(k.secret)["valid"] == true {
			t.Errorf("key %s survived its generation", k.id)
		}
	}
	e.judged(fresh, "VALID")
	if fresh.version != one.version+1 {
		t.Errorf("generation %d follows %d", fresh.version, one.version)
	}
}

// tokenFor is a client that may do what rules say and no more.
func (e *env) tokenFor(t *testing.T, rules string) *api.Client {
	t.Helper()
	name := strings.ReplaceAll(e.mount, "/", "-")
	if err := e.client.Sys().PutPolicy(name, rules); err != nil {
		t.Fatal(err)
	}
	s, err := e.client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{name}, TTL: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	return e.clientFor(e.client.Address(), s.Auth.ClientToken)
}

func disabledMount(t *testing.T, e *env) {
	e.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	e.write("roles/r", nil)
	k := e.creds("d")
	if err := e.client.Sys().Unmount(e.mount); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client.Sys().Lookup(k.lease.LeaseID); err == nil {
		t.Error("the lease outlived its mount")
	}
	if err := e.client.Sys().Mount(e.mount, &api.MountInput{Type: pluginName}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new mount", func() error {
		_, err := e.client.Logical().Read(e.path("config"))
		return err
	})
	e.judged(k, "NOT_FOUND")
	if s, err := e.client.Logical().Read(e.path("roles/r")); err != nil || s != nil {
		t.Errorf("the new mount has the old role: %v, %v", s, err)
	}
}
