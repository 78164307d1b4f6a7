// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const roleID = "0d2a2f3e-8f0a-4a43-9a0f-7a6f8f1f0c11"

// mount is what most tests run on: 10 minutes of staging, leases of 24 to 48 hours.
var mount = Limits{StageAhead: 10 * time.Minute, Leases: func() (time.Duration, time.Duration) { return 24 * time.Hour, 48 * time.Hour }}

// changed is stored after what is given, judged.
func changed(stored *Policy, given map[string]any, typ string, lim Limits) (*Policy, error) {
	old := stored
	if stored == nil {
		stored = &Policy{}
	}
	p, _, err := stored.With(given)
	if err != nil {
		return nil, err
	}
	return p, Check(old, p, roleID, typ, lim)
}

func must(t testing.TB, stored *Policy, given map[string]any, typ string) *Policy {
	t.Helper()
	p, err := changed(stored, given, typ, mount)
	if err != nil {
		t.Fatalf("%v: %v", given, err)
	}
	return p
}

func shown(t testing.TB, p *Policy, typ string, lim Limits) map[string]any {
	t.Helper()
	terms, err := p.Effective(roleID, typ, lim)
	if err != nil {
		t.Fatal(err)
	}
	return p.Show(terms)
}

// asGiven is a view in the Go types of a request.
func asGiven(view map[string]any) map[string]any {
	given := map[string]any{}
	for name, v := range view {
		if n, isDuration := v.(int64); isDuration {
			v = int(n)
		}
		given[name] = v
	}
	return given
}

// reporter is a test, or a check of a property.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// wantRefusal holds err to the form of a refusal: what it is about, what was
// given, which rule, what to do, and nothing that is not printable.
func wantRefusal(t reporter, err error, field string, parts ...string) {
	t.Helper()
	r := refusal.In(err)
	if r == nil {
		t.Errorf("%s: no refusal with %q: %v", field, parts, err)
		return
	}
	text := err.Error()
	for _, part := range append([]string{field}, parts...) {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
	if !strings.HasPrefix(r.Field, field) || r.Value == "" || r.Rule == "" || r.Todo == "" {
		t.Errorf("%q: not of the form field: value: rule: what to do", text)
	}
	if err := CheckText("refusal", text, 2000, false); err != nil {
		t.Errorf("%q: %v", text, err)
	}
}

func someKey(t testing.TB) keyformat.Key {
	t.Helper()
	k, err := keyformat.Mint("aa", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
