// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

func TestAllowedCIDRs(t *testing.T) {
	m := newMount(t)
	for _, c := range []struct {
		allowed, remote, want string
	}{
		{"", "", "VALID"},
		{"", "203.0.113.9", "VALID"},
		{"", "not an address", "VALID"},
		{"10.0.0.0/8", "10.255.0.1", "VALID"},
		{"10.0.0.0/8", "11.0.0.1", "FORBIDDEN_IP"},
		{"10.0.0.0/8", "", "FORBIDDEN_IP"},
		{"10.0.0.0/8", "not an address", "FORBIDDEN_IP"},
		{"10.0.0.0/8", "10.0.0.1:443", "VALID"},
		{"10.0.0.0/8", "10.0.0.1, 203.0.113.9", "FORBIDDEN_IP"},
		{"10.0.0.0/8", "::ffff:10.0.0.1", "VALID"},
		{"10.0.0.0/8", "[::ffff:10.0.0.1]:443", "VALID"},
		{"10.0.0.0/8", "::ffff:11.0.0.1", "FORBIDDEN_IP"},
		{"10.0.0.0/8", "2001:db8::1", "FORBIDDEN_IP"},
		{"2001:db8::/32", "2001:db8::1", "VALID"},
		{"2001:db8::/32", "[2001:db8::1]:8443", "VALID"},
		{"2001:db8::/32", "[2001:db8::1]", "VALID"},
		{"2001:db8::/32", "2001:db9::1", "FORBIDDEN_IP"},
		{"2001:db8::/32", "10.0.0.1", "FORBIDDEN_IP"},
		{"fe80::/10", "fe80::1%eth0", "VALID"},
		{"192.0.2.1/32,2001:db8::1/128", "192.0.2.1", "VALID"},
		{"192.0.2.1/32,2001:db8::1/128", "2001:db8::1", "VALID"},
		{"192.0.2.1/32,2001:db8::1/128", "192.0.2.2", "FORBIDDEN_IP"},
		{"0.0.0.0/0", "203.0.113.9", "VALID"},
		{"0.0.0.0/0", "2001:db8::1", "FORBIDDEN_IP"},
		{"::/0", "10.0.0.1", "FORBIDDEN_IP"},
	} {
		allowed := []any{}
		if c.allowed != "" {
			for one := range strings.SplitSeq(c.allowed, ",") {
				allowed = append(allowed, one)
			}
		}
		m.write("roles/r", map[string]any{"allowed_cidrs": allowed})
		got := m.write("verify", map[string]any{"key": m.read("creds/r")["api_key"], "remote_addr": c.remote})
		if got["code"] != c.want || got["valid"] != (c.want == "VALID") {
			t.Errorf("%q lets %q in: %v, want %s", c.allowed, c.remote, got["code"], c.want)
		}
	}
}

// What got into a record and cannot be read lets nobody in.
func TestUnreadableCIDRs(t *testing.T) {
	role := &roleRecord{Policy: policy.Policy{AllowedCIDRs: []string{"10.0.0.0/99"}}}
	if admits(role, policy.ParseNetworks(role.Policy.AllowedCIDRs), "10.0.0.1") {
		t.Error("an unreadable range lets an address in")
	}
	role.Policy.AllowedCIDRs = []string{"10.0.0.1", "::ffff:192.0.2.0/120"}
	for addr, want := range map[string]bool{"10.0.0.1": true, "10.0.0.2": false, "192.0.2.77": true, "192.0.3.1": false} {
		if admits(role, policy.ParseNetworks(role.Policy.AllowedCIDRs), addr) != want {
			t.Errorf("%s: want %v", addr, want)
		}
	}
}
