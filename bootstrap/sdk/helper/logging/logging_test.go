// SPDX-License-Identifier: MPL-2.0

package logging

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		vault, bao string
		baoSet     bool
		json       bool
	}{
		{"", "", false, false},
		{"json", "", false, true},
		{"VAULT_JSON", "", false, true},
		{"standard", "", false, false},
		{"", "vault-json", true, true},
		{"json", "", true, false},
		{"standard", "json", true, true},
	} {
		t.Setenv("VAULT_LOG_FORMAT", c.vault)
		t.Setenv("BAO_LOG_FORMAT", c.bao)
		if !c.baoSet {
			if err := os.Unsetenv("BAO_LOG_FORMAT"); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		logger := NewVaultLoggerWithWriter(&out, hclog.Info)
		logger.Debug("never")
		logger.Info("shown")
		if got := strings.HasPrefix(out.String(), "{"); got != c.json || !strings.Contains(out.String(), "shown") || strings.Contains(out.String(), "never") {
			t.Errorf("%+v: %q", c, out.String())
		}
	}
	if !NewVaultLogger(hclog.Trace).IsTrace() {
		t.Error("not the level asked for")
	}
}
