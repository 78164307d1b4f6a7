// SPDX-License-Identifier: MPL-2.0

package vaultlogin

import (
	"strings"
	"testing"
)

func TestInstance(t *testing.T) {
	got := Instance("höst name")
	if !strings.HasPrefix(got, "h-st-name-") || len(got) != len("h-st-name-")+12 || got == Instance("höst name") {
		t.Errorf("%s", got)
	}
	if got := Instance(strings.Repeat("x", 200)); len(got) != 64+1+12 {
		t.Errorf("%s", got)
	}
	if got := Instance(""); len(got) <= 13 || got[0] == '-' {
		t.Errorf("of this host: %s", got)
	}
}
