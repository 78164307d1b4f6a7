// SPDX-License-Identifier: MPL-2.0

package server

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func (f *fixture) token(t *testing.T, c *api.Client, req *api.TokenCreateRequest) *api.Client {
	t.Helper()
	return f.client(must(c.Auth().Token().Create(req))(t).Auth.ClientToken)
}

func (f *fixture) policy(t *testing.T, name, rules string) {
	t.Helper()
	if err := f.root.Sys().PutPolicy(name, rules); err != nil {
		t.Fatal(err)
	}
}

func TestTokenLife(t *testing.T) {
	f := newFixture(t)
	s := must(f.root.Auth().Token().Create(&api.TokenCreateRequest{
		Policies: []string{"app"}, TTL: "10m", DisplayName: "my app", Metadata: map[string]string{"team": "x"}, ExplicitMaxTTL: "1h",
	}))(t)
	if !reflect.DeepEqual(s.Auth.Policies, []string{"app", "default"}) || s.Auth.LeaseDuration != 600 || !s.Auth.Renewable || s.Auth.Accessor == "" {
		t.Errorf("created %+v", s.Auth)
	}
	c := f.client(s.Auth.ClientToken)
	look := must(c.Auth().Token().LookupSelf())(t).Data
	if look["display_name"] != "token-my-app" || text(look["ttl"]) != "600" || look["orphan"] != false || look["type"] != "service" {
		t.Errorf("lookup %v", look)
	}
	f.clock.advance(5 * time.Minute)
	if r := must(c.Auth().Token().RenewSelf(1200))(t); r.Auth.LeaseDuration != 1200 {
		t.Errorf("renewed %+v", r.Auth)
	}
	f.clock.advance(10 * time.Minute)
	if r := must(c.Auth().Token().RenewSelf(7200))(t); r.Auth.LeaseDuration != 2700 || len(r.Warnings) == 0 {
		t.Errorf("renewed past the explicit maximum: %+v", r.Auth)
	}
	if a := must(f.root.Auth().Token().LookupAccessor(s.Auth.Accessor))(t).Data; text(a["ttl"]) != "2700" || a["id"] != "" {
		t.Errorf("lookup by accessor %v", a)
	}
	f.clock.advance(45 * time.Minute)
	_, err := c.Auth().Token().LookupSelf()
	wantStatus(t, err, 403)
	f.runDue()
	_, err = f.root.Auth().Token().LookupAccessor(s.Auth.Accessor)
	wantStatus(t, err, 403)
}

func TestRevokingATokenRevokesItsLeasesAndChildren(t *testing.T) {
	f := newFixture(t)
	f.policy(t, "lease", `path "test/lease/*" { capabilities = ["create", "update"] } path "auth/token/create" { capabilities = ["update"] }`)
	parent := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"lease"}, TTL: "1h"})
	child := f.token(t, parent, &api.TokenCreateRequest{TTL: "1h"})
	orphan := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"lease"}, TTL: "1h", NoParent: true})
	for _, c := range []*api.Client{parent, child, child, orphan} {
		f.lease(t, c, "a", "1h", "")
	}
	if err := parent.Auth().Token().RevokeSelf(""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*api.Client{parent, child} {
		_, err := c.Auth().Token().LookupSelf()
		wantStatus(t, err, 403)
	}
	f.runDue()
	if got := f.counter("revocations"); got != "3" {
		t.Errorf("%s revocations, want those of parent and child", got)
	}
	must(orphan.Auth().Token().LookupSelf())(t)
	f.clock.advance(time.Hour)
	f.runDue()
	if got := f.counter("revocations"); got != "4" {
		t.Errorf("%s revocations after the orphan expired", got)
	}
}

func TestChildrenOfANonRootTokenGetNoMore(t *testing.T) {
	f := newFixture(t)
	f.policy(t, "maker", `path "auth/token/create*" { capabilities = ["update"] }`)
	c := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"maker"}})
	for _, req := range []*api.TokenCreateRequest{
		{Policies: []string{"other"}}, {Policies: []string{"root"}}, {NoParent: true}, {ID: "chosen"}, {Period: "1h"}, {Type: "batch"},
	} {
		if _, err := c.Auth().Token().Create(req); err == nil {
			t.Errorf("created %+v", req)
		} else {
			wantStatus(t, err, 400)
		}
	}
	_, err := c.Auth().Token().CreateOrphan(&api.TokenCreateRequest{})
	wantStatus(t, err, 403)
	f.token(t, c, &api.TokenCreateRequest{})
}

func TestTokenWithLimitedUses(t *testing.T) {
	f := newFixture(t)
	c := f.token(t, f.root, &api.TokenCreateRequest{NumUses: 2})
	must(c.Auth().Token().LookupSelf())(t)
	must(c.Auth().Token().LookupSelf())(t)
	_, err := c.Auth().Token().LookupSelf()
	wantStatus(t, err, 403)

	f.policy(t, "lease", `path "test/lease/*" { capabilities = ["create", "update"] }`)
	c = f.token(t, f.root, &api.TokenCreateRequest{NumUses: 1, Policies: []string{"lease"}})
	_, err = c.Logical().Write("test/lease/a", map[string]any{"ttl": "1h"})
	if got := wantStatus(t, err, 400); !strings.Contains(got, "one use left") {
		t.Errorf("text %q", got)
	}
	if got := f.counter("revocations"); got != "1" {
		t.Errorf("%s revocations of the lease that could not be handed out", got)
	}
}

func TestPoliciesDecide(t *testing.T) {
	f := newFixture(t)
	f.policy(t, "app", `
path "test/kv/app-*"   { capabilities = ["create", "read"] }
path "test/kv/app-off" { capabilities = ["deny"] }
path "test/kv/+"       { capabilities = ["update"] }
path "test/kv"         { capabilities = ["list"] }
path "test/sudo"       { capabilities = ["read"] }`)
	f.policy(t, "admin", `path "test/sudo" { capabilities = ["read", "sudo"] }`)
	c := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"app"}})
	must(c.Logical().Write("test/kv/app-1", map[string]any{"value": "x"}))(t)
	_, err := c.Logical().Write("test/kv/app-1", map[string]any{"value": "y"})
	wantStatus(t, err, 403)
	must(c.Logical().Read("test/kv/app-1"))(t)
	must(c.Logical().List("test/kv"))(t)
	for _, path := range []string{"test/kv/app-off", "test/kv/other", "test/sudo", "test/echo", "absent/x", "sys/mounts"} {
		_, err := c.Logical().Read(path)
		wantStatus(t, err, 403)
	}
	_, err = c.Logical().Delete("test/kv/app-1")
	wantStatus(t, err, 403)
	admin := f.token(t, f.root, &api.TokenCreateRequest{Policies: []string{"app", "admin"}})
	must(admin.Logical().Read("test/sudo"))(t)

	if caps := must(c.Sys().CapabilitiesSelf("test/kv/app-1"))(t); !reflect.DeepEqual(caps, []string{"create", "read"}) {
		t.Errorf("capabilities %v", caps)
	}
	if caps := must(f.root.Sys().CapabilitiesSelf("test/kv/x"))(t); !reflect.DeepEqual(caps, []string{"root"}) {
		t.Errorf("root's capabilities %v", caps)
	}
	// A changed policy holds for tokens that exist.
	f.policy(t, "app", `path "test/kv/other" { capabilities = ["read"] }`)
	_, err = c.Logical().Read("test/kv/app-1")
	wantStatus(t, err, 403)
	if _, err := c.Logical().Read("test/kv/other"); err != nil {
		t.Error(err)
	}
	if err := f.root.Sys().DeletePolicy("app"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Logical().Read("test/kv/other")
	wantStatus(t, err, 403)
}

func TestPolicyStore(t *testing.T) {
	f := newFixture(t)
	f.policy(t, "Mine", `path "a" { capabilities = ["read"] }`)
	if got := must(f.root.Sys().ListPolicies())(t); !reflect.DeepEqual(got, []string{"default", "mine", "root"}) {
		t.Errorf("policies %v", got)
	}
	if got := must(f.root.Sys().GetPolicy("mine"))(t); got != `path "a" { capabilities = ["read"] }` {
		t.Errorf("policy %q", got)
	}
	for name, rules := range map[string]string{
		"root": `path "a" { capabilities = ["read"] }`, "x1": "", "x2": `path "a" { capabilities = ["fly"] }`, "x3": `pat "a" {}`, "x4": `path "a" {`,
		"x5": `path "a" { capability = ["read"] }`, "x6": `path "a+*" {}`,
	} {
		t.Run(name, func(t *testing.T) { wantStatus(t, f.root.Sys().PutPolicy(name, rules), 400) })
	}
	for _, name := range []string{"root", "default"} {
		wantStatus(t, f.root.Sys().DeletePolicy(name), 400)
	}
}

func TestTheInitialTokenStays(t *testing.T) {
	f := newFixture(t)
	wantStatus(t, f.root.Auth().Token().RevokeSelf(""), 400)
	must(f.root.Auth().Token().LookupSelf())(t)
}
