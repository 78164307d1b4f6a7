// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"encoding/json"
	"testing"
)

func TestRefusalsAsJSON(t *testing.T) {
	var r Refusals
	for _, code := range []string{"REVOKED", "EXPIRED", "REVOKED"} {
		r.add(code, 1)
	}
	const want = `{"EXPIRED":1,"REVOKED":2}`
	got := asJSON(t, r)
	if got != want {
		t.Errorf("encoded as %s, want %s", got, want)
	}
	for range 2 { // the second time into what was there
		if err := json.Unmarshal([]byte(got), &r); err != nil || asJSON(t, r) != want {
			t.Errorf("decoded as %s, %v", asJSON(t, r), err)
		}
	}
	if err := json.Unmarshal([]byte(`{"EXPIRED":"many"}`), &r); err == nil {
		t.Error("decoded a text as a number")
	}
}
