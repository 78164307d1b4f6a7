// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func staticKey(t *testing.T, e *env) {
	e.write("roles/r", data{"prefix": "acme_live", "scopes": []string{"b:read", "a:*"}})
	d := e.read("creds/r")
	k := e.creds("r")
	names := slices.Collect(maps.Keys(d))
	if !sameSet(names, "api_key", "key_id", "version", "scopes", "role", "ttl", "rotation_period", "last_vault_rotation") {
		t.Errorf("fields %v", names)
	}
	e.fieldsAre(d, map[string]string{"version": `1`, "role": `"r"`, "scopes": `["b:read","a:*"]`, "ttl": `300`, "rotation_period": `7776000`})
	if _, err := time.Parse(time.RFC3339, text(d, "last_vault_rotation")); err != nil {
		t.Error(err)
	}
	if !regexp.MustCompile(`^acme_live_[0-9A-Za-z]{61}$`).MatchString(k.secret) {
		t.Error("the key has not the published form")
	}
	if k.lease.LeaseID != "" || k.lease.LeaseDuration != 0 {
		t.Errorf("a static key has lease %q", k.lease.LeaseID)
	}
	if again := e.creds("r"); again.secret != k.secret {
		t.Error("two reads, two keys")
	}
	v := e.verify(k.secret)
	if v["valid"] != true || text(v, "role") != "r" || text(v, "key_id") != k.id || text(v, "state") != "current" {
		t.Errorf("verdict %v", v)
	}
	e.write("roles/s", data{"rotation_schedule": "0 3 * * 1"})
	d = e.read("creds/s")
	if text(d, "rotation_schedule") != "0 3 * * 1" || number(t, d, "rotation_period") != 604800 {
		t.Errorf("creds of a scheduled role %v, %v", d["rotation_schedule"], d["rotation_period"])
	}
	// Near misses.
	last := len(k.secret) - 1
	other := "0"
	if k.secret[last] == '0' {
		other = "1"
	}
	e.judged(key{secret: k.secret[:last] + other}, "MALFORMED")
	e.judged(key{secret: "something quite different"}, "MALFORMED")
}

func rotationWithGrace(t *testing.T, e *env) {
	e.write("roles/r", nil)
	one := e.creds("r")
	answer := e.write("rotate/r", data{"grace_period": "3s", "reason": "acceptance"})
	if number(t, answer, "version") != 2 || number(t, answer, "previous_version") != 1 {
		t.Errorf("answer %v", answer)
	}
	for name, v := range answer {
		if strings.Contains(inJSON(t, v), one.secret) || name == "api_key" {
			t.Error("the answer of a rotation shows a key")
		}
	}
	two := e.creds("r")
	if two.version != 2 || two.secret == one.secret || two.id != text(answer, "key_id") {
		t.Errorf("read version %d with id %s", two.version, two.id)
	}
	until, err := time.Parse(time.RFC3339, text(answer, "previous_valid_until"))
	if err != nil {
		t.Fatal(err)
	}
	if got := verdict(e.verify(one.secret)); got != "VALID previous" && time.Now().Before(until) {
		t.Errorf("within its grace the old key is %s", got)
	}
	e.judged(two, "VALID current")
	e.becomes(one, "RETIRED retired")
	if reason := text(e.verify(one.secret), "reason"); reason != "grace_ended" {
		t.Errorf("reason %q", reason)
	}
	e.judged(two, "VALID current")
	if got := e.states("r"); !slices.Equal(got, []string{"2 current", "1 retired"}) {
		t.Errorf("versions %v", got)
	}
	e.write("rotate/r", data{"grace_period": 0})
	if v := e.verify(two.secret); v["valid"] != false {
		t.Errorf("after a rotation without grace the old key is %s", verdict(v))
	}
	e.judged(e.creds("r"), "VALID current")
}

func rotationRepeats(t *testing.T, e *env) {
	e.write("roles/r", nil)
	first := e.write("rotate/r", data{"request_id": "deploy-0001", "reason": "x"})
	again := e.write("rotate/r", data{"request_id": "deploy-0001", "reason": "x"})
	if number(t, again, "version") != number(t, first, "version") || again["replayed"] != true {
		t.Errorf("the repeat answered %v after %v", again, first)
	}
	e.refuses("rotate/r", data{"request_id": "deploy-0001", "reason": "y"}, "request_id")
	e.refuses("rotate/r", data{"cas": 1}, "cas")
	e.write("rotate/r", data{"cas": 2})
	if got := e.creds("r").version; got != 3 {
		t.Errorf("version %d after two rotations, a repeat and two refusals", got)
	}
	_, err := e.client.Logical().Write(e.path("rotate/absent"), nil)
	e.refused(err, 404, "absent")
}

func staging(t *testing.T, e *env) {
	e.write("roles/r", nil)
	one := e.creds("r")
	e.write("rotate/r", data{"stage": true})
	two := e.creds("r/pending")
	if got := e.creds("r"); got.secret != one.secret || two.version != 2 {
		t.Errorf("while version %d is pending version %d is read", two.version, got.version)
	}
	e.judged(two, "VALID pending")
	e.refuses("rotate/r", data{"stage": true})
	e.write("promote/r", nil)
	if got := e.creds("r"); got.secret != two.secret {
		t.Errorf("after the promotion version %d is read", got.version)
	}
	e.judged(one, "VALID previous")
	if got := e.creds("r/previous"); got.secret != one.secret {
		t.Errorf("previous is version %d", got.version)
	}
	e.write("rollback/r", data{"grace_period": "1m", "reason": "bad deploy"})
	if got := e.creds("r"); got.secret != one.secret {
		t.Errorf("after the rollback version %d is read", got.version)
	}
	e.judged(two, "VALID withdrawn")
	e.refuses("promote/r", nil)
}

func activationAtATime(t *testing.T, e *env) {
	e.write("roles/r", nil)
	one := e.creds("r")
	e.write("rotate/r", data{"activate_at": "3s", "grace_period": "1h"})
	eventually(t, "activation by the clock alone", func() error {
		if got := e.creds("r"); got.version != 2 {
			return errNotYet
		}
		return nil
	})
	e.judged(one, "VALID previous")
	e.judged(e.creds("r"), "VALID current")
}

// automaticRotation waits for the next minute, and on a real server perhaps for the periodic call behind it.
func automaticRotation(t *testing.T, e *env) {
	e.write("roles/r", data{"rotation_schedule": "* * * * *"})
	one := e.creds("r")
	var two key
	within(t, 3*time.Minute, "rotation by schedule", func() error {
		if two = e.creds("r"); two.version == one.version {
			return errNotYet
		}
		return nil
	})
	if two.version != 2 {
		t.Errorf("version %d follows 1", two.version)
	}
	e.judged(two, "VALID current")
	e.judged(one, "VALID previous")
}

func revocation(t *testing.T, e *env) {
	e.write("roles/r", nil)
	one := e.creds("r")
	answer := e.write("revoke/r", data{"version": 1, "reason": "leaked"})
	e.judged(one, "REVOKED revoked")
	two := e.creds("r")
	if answer["replaced"] != true || two.version != 2 {
		t.Errorf("answer %v, then version %d", answer, two.version)
	}
	e.write("revoke/r", data{"version": 1, "reason": "again"})
	if got := e.creds("r"); got.secret != two.secret {
		t.Error("a repeated revocation replaced the key again")
	}
	e.write("revoke/r", data{"key_id": two.id, "rotate": false})
	e.judged(two, "REVOKED revoked")
	_, err := e.client.Logical().Read(e.path("creds/r"))
	e.refused(err, 400, "2")
	e.write("rotate/r", nil)
	three := e.creds("r")
	e.judged(three, "VALID current")
	e.write("rotate/r", data{"stage": true})
	pending := e.creds("r/pending")
	e.write("revoke/r", data{"all": true})
	for _, k := range []key{one, two, three, pending} {
		e.judged(k, "REVOKED revoked")
	}
	e.judged(e.creds("r"), "VALID current")
	e.refuses("revoke/r", data{"version": 99}, "version")
	e.refuses("revoke/r", nil, "version")
}

func disabledRole(_ *testing.T, e *env) {
	e.write("roles/r", nil)
	k := e.creds("r")
	e.write("roles/r", data{"disabled": true})
	e.judged(k, "DISABLED")
	e.write("roles/r", data{"disabled": false})
	e.judged(k, "VALID current")
}

func batchVerification(t *testing.T, e *env) {
	e.write("roles/r", nil)
	k := e.creds("r")
	const n = 1000
	var b strings.Builder
	for i := range n {
		switch i % 3 {
		case 0:
			fmt.Fprintf(&b, "{\"key\":%q}\n", k.secret)
		case 1:
			fmt.Fprintf(&b, "{\"key\":\"nonsense-%08d-and-more\"}\n", i)
		default:
			b.WriteString("this is no JSON\n")
		}
	}
	results, _ := e.write("verify", data{"batch": b.String()})["results"].([]any)
	if len(results) != n {
		t.Fatalf("%d results", len(results))
	}
	for i, r := range results {
		d, _ := r.(map[string]any)
		if want := i%3 == 0; (d["valid"] == true) != want {
			t.Fatalf("item %d: %v", i, d)
		}
	}
	// The same as a list is more strings than servers take.
	list := make([]string, 1001)
	_, err := e.client.Logical().Write(e.path("verify"), data{"key": "x", "list": list})
	e.refused(err, 400)
}

func wrappedKey(t *testing.T, e *env) {
	e.write("roles/r", nil)
	plain := e.creds("r")
	c := e.clientFor(e.client.Address(), e.server.root())
	c.SetWrappingLookupFunc(func(string, string) string { return "2m" })
	s, err := c.Logical().Read(e.path("creds/r"))
	if err != nil {
		t.Fatal(err)
	}
	if s.WrapInfo == nil || s.Data != nil {
		t.Fatal("the answer is not wrapped")
	}
	c.SetWrappingLookupFunc(nil)
	inner, err := c.Logical().Unwrap(s.WrapInfo.Token)
	if err != nil {
		t.Fatal(err)
	}
	if e.keyOf(inner).secret != plain.secret {
		t.Error("another key was wrapped")
	}
	if _, err := c.Logical().Unwrap(s.WrapInfo.Token); err == nil {
		t.Error("unwrapped twice")
	}
}
