// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"regexp"
	"strings"
	"testing"
)

var namedGroup = regexp.MustCompile(`\(\?P<\w+>[^)]*\)`)

// No path does something else than what it was asked for because a part of the
// request meant nothing to it; and a name may be a key that went astray.
func TestNoPathTakesWhatItDoesNotKnow(t *testing.T) {
	m := newMount(t)
	m.write("roles/x", nil)
	key := m.read("creds/x")["api_key"].(string)
	p := newProbe(m.storage)
	m.storage = p
	tried := 0
	for _, spec := range m.specs {
		at := strings.TrimSuffix(strings.TrimSuffix(namedGroup.ReplaceAllString(spec.pattern, "x"), "$"), "?")
		for op := range spec.ops {
			tried++
			names := []string{"versionn", key, "AKIA7QX2ZK4EXAMPLE", "Name", "", "ſcopes"}
			for name, f := range spec.fields {
				// What belongs into a body is no query parameter, and the other way.
				if f.query == hasBody(op) && !f.asRead && !strings.Contains(spec.pattern, "<"+name+">") {
					names = append(names, name)
				}
			}
			for _, name := range names {
				req := m.request
				req.Operation, req.Path, req.Storage = op, at, m.storage
				req.Data = map[string]any{name: "1"}
				resp, err := m.HandleRequest(context.Background(), &req)
				status, text := httpStatus(resp, err)
				if status != 400 || !strings.Contains(text, "unknown field") {
					t.Errorf("%s %s with %.8q: %d %q", op, at, name, status, text)
				}
				if strings.Contains(text, key) || strings.Contains(text, "AKIA") {
					t.Errorf("%s %s shows what may be a key: %q", op, at, text)
				}
			}
		}
	}
	if calls, writes := p.count(); calls > 0 || writes > 0 {
		t.Errorf("%d calls of the storage, %d writes, for what was refused", calls, writes)
	}
	if tried < 25 {
		t.Errorf("%d operations were tried", tried)
	}
}
