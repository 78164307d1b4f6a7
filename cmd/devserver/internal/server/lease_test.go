// SPDX-License-Identifier: MPL-2.0

package server

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

func (f *fixture) lease(t *testing.T, c *api.Client, name, ttl, maxTTL string) *api.Secret {
	t.Helper()
	return must(c.Logical().Write("test/lease/"+name, map[string]any{"ttl": ttl, "max_ttl": maxTTL}))(t)
}

func TestLeaseLengthFollowsTheHostsRule(t *testing.T) {
	f := newFixture(t)
	if err := f.root.Sys().TuneMountAllowNil("test", api.TuneMountConfigInput{DefaultLeaseTTL: strPtr("20m"), MaxLeaseTTL: strPtr("2h")}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ttl, max string
		want     int
		warns    bool
	}{
		{"10m", "", 600, false},
		{"", "", 1200, false},
		{"10m", "5m", 300, true},
		{"3h", "", 7200, true},
		{"3h", "4h", 7200, true},
	} {
		s := f.lease(t, f.root, "a", c.ttl, c.max)
		if s.LeaseDuration != c.want || !s.Renewable || (len(s.Warnings) > 0) != c.warns || !strings.HasPrefix(s.LeaseID, "test/lease/a/") {
			t.Errorf("ttl %q max %q: %+v, want %d s", c.ttl, c.max, s, c.want)
		}
	}
}

func TestLeaseRenewal(t *testing.T) {
	f := newFixture(t)
	s := f.lease(t, f.root, "a", "10m", "1h")
	f.clock.advance(5 * time.Minute)

	// A client's wish may exceed the engine's TTL: only the maximum cuts it.
	r := must(f.root.Sys().Renew(s.LeaseID, 1800))(t)
	if r.LeaseDuration != 1800 || r.LeaseID != s.LeaseID || r.Data["step"].(interface{ String() string }).String() != "1" {
		t.Errorf("renewed to %+v", r)
	}
	f.clock.advance(25 * time.Minute)
	if r = must(f.root.Sys().Renew(s.LeaseID, 0))(t); r.LeaseDuration != 1800 {
		t.Errorf("without a wish the last TTL holds: %+v", r)
	}
	f.clock.advance(20 * time.Minute)
	r = must(f.root.Sys().Renew(s.LeaseID, 3600))(t)
	if r.LeaseDuration != 600 || len(r.Warnings) == 0 {
		t.Errorf("renewed past the maximum: %+v", r)
	}
	look := must(f.root.Sys().Lookup(s.LeaseID))(t)
	if text(look.Data["ttl"]) != "600" || look.Data["renewable"] != true || look.Data["last_renewal"] == nil {
		t.Errorf("lookup %+v", look.Data)
	}
	f.clock.advance(10 * time.Minute)
	_, err := f.root.Sys().Renew(s.LeaseID, 0)
	if got := wantStatus(t, err, 400); got != "lease expired" {
		t.Errorf("text %q", got)
	}
	_, err = f.root.Sys().Renew("test/lease/a/unknown", 0)
	if got := wantStatus(t, err, 400); got != "lease not found" {
		t.Errorf("text %q", got)
	}
	if got := f.counter("renewals"); got != "3" {
		t.Errorf("engine saw %s renewals", got)
	}
}

func TestLeaseExpiry(t *testing.T) {
	f := newFixture(t)
	short, long := f.lease(t, f.root, "short", "1m", ""), f.lease(t, f.root, "long", "1h", "")
	f.clock.advance(time.Minute - time.Second)
	f.runDue()
	if got := f.counter("revocations"); got != "0" {
		t.Fatalf("%s revocations before anything expired", got)
	}
	f.clock.advance(time.Second)
	f.runDue()
	if got := f.counter("revocations"); got != "1" {
		t.Errorf("%s revocations", got)
	}
	_, err := f.root.Sys().Lookup(short.LeaseID)
	wantStatus(t, err, 400)
	must(f.root.Sys().Lookup(long.LeaseID))(t)
}

func TestFailedRevocationIsRepeatedThenGivenUp(t *testing.T) {
	f := newFixture(t)
	s := f.lease(t, f.root, "a", "1m", "")
	must(f.root.Logical().Write("test/refuse-revocations", nil))(t)
	f.clock.advance(time.Minute)
	f.runDue()
	look := must(f.root.Sys().Lookup(s.LeaseID))(t)
	if look.Data["revoke_error"] != "revocation refused" {
		t.Errorf("lookup %+v", look.Data)
	}
	_, err := f.root.Sys().Renew(s.LeaseID, 60)
	wantStatus(t, err, 400)

	must(f.root.Logical().Write("test/refuse-revocations", map[string]any{"refuse": "false"}))(t)
	f.runDue()
	if got := f.counter("revocations"); got != "0" {
		t.Error("repeated before the wait was over")
	}
	f.clock.advance(revokeRetryBase)
	f.runDue()
	if got := f.counter("revocations"); got != "1" {
		t.Errorf("%s revocations after the wait", got)
	}

	s = f.lease(t, f.root, "b", "1m", "")
	must(f.root.Logical().Write("test/refuse-revocations", nil))(t)
	for range maxRevokeAttempts + 2 {
		f.clock.advance(time.Hour)
		f.runDue()
	}
	must(f.root.Logical().Write("test/refuse-revocations", map[string]any{"refuse": "false"}))(t)
	f.clock.advance(24 * time.Hour)
	f.runDue()
	if got := f.counter("revocations"); got != "1" {
		t.Error("a revocation was tried again after it was given up")
	}
	// Somebody who asks for it by hand starts it anew.
	if err := f.root.Sys().Revoke(s.LeaseID); err != nil {
		t.Fatal(err)
	}
	f.runDue()
	if got := f.counter("revocations"); got != "2" {
		t.Errorf("%s revocations after the manual one", got)
	}
}

func TestRevokeByLeaseAndPrefix(t *testing.T) {
	f := newFixture(t)
	a := f.lease(t, f.root, "a", "1h", "")
	resp, _ := f.do(t, "PUT", "sys/leases/revoke", rootToken, `{"lease_id":"`+a.LeaseID+`","sync":false}`)
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("status %d for a revocation in the background", resp.StatusCode)
	}
	_, err := f.root.Sys().Renew(a.LeaseID, 0)
	wantStatus(t, err, 400)
	f.runDue()
	b := f.lease(t, f.root, "b", "1h", "")
	if err := f.root.Sys().RevokeWithOptions(&api.RevokeOptions{LeaseID: b.LeaseID, Sync: true}); err != nil {
		t.Fatal(err)
	}
	if got := f.counter("revocations"); got != "2" {
		t.Errorf("%s revocations", got)
	}
	if err := f.root.Sys().RevokeWithOptions(&api.RevokeOptions{LeaseID: b.LeaseID, Sync: true}); err != nil {
		t.Errorf("revoking again: %v", err)
	}
	for _, n := range []string{"c", "c", "c2"} {
		f.lease(t, f.root, n, "1h", "")
	}
	if keys := must(f.root.Logical().List("sys/leases/lookup/test/lease"))(t).Data["keys"]; len(keys.([]any)) != 2 {
		t.Errorf("leases below test/lease: %v", keys)
	}
	if err := f.root.Sys().RevokePrefix("test/lease/c"); err != nil {
		t.Fatal(err)
	}
	f.runDue()
	if got := f.counter("revocations"); got != "4" {
		t.Errorf("%s revocations after the prefix", got)
	}
	if n := must(f.root.Logical().Read("sys/leases/count"))(t).Data["lease_count"]; text(n) != "1" {
		t.Errorf("%v leases left", n)
	}
}

func TestDisablingAMountRevokesItsLeasesFirst(t *testing.T) {
	f := newFixture(t)
	if err := f.root.Sys().Mount("other", &api.MountInput{Type: f.server.PluginName()}); err != nil {
		t.Fatal(err)
	}
	must(f.root.Logical().Write("other/lease/a", map[string]any{"ttl": "1h"}))(t)
	must(f.root.Logical().Write("other/refuse-revocations", nil))(t)
	wantStatus(t, f.root.Sys().Unmount("other"), 500)
	m := f.server.mountAt("other/")
	if m == nil || !m.entry.Load().Tainted {
		t.Fatal("the mount whose leases could not be revoked is gone")
	}
	if resp, _ := f.do(t, "GET", "other/counters", rootToken, ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d from a mount that is being taken down", resp.StatusCode)
	}
	if err := m.view.Delete(t.Context(), "refuse"); err != nil {
		t.Fatal(err)
	}
	if err := f.root.Sys().Unmount("other"); err != nil {
		t.Fatal(err)
	}
	if keys := must(m.view.List(t.Context(), ""))(t); len(keys) != 0 {
		t.Errorf("storage of the disabled mount still has %v", keys)
	}
	if keys := must(f.server.cfg.Store.List(leasePrefix, "", -1))(t); len(keys) != 0 {
		t.Errorf("leases left: %v", keys)
	}
}
