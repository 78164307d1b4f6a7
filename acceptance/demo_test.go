// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDemo runs the demo as `make demo` does, and reads along.
func TestDemo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	started := time.Now()
	raw, err := exec.CommandContext(ctx, programs.demo, "-server", programs.devserver, "-plugin", programs.plugin).CombinedOutput()
	took, told := time.Since(started), string(raw)
	if err != nil {
		t.Fatalf("%v\n%s", err, told)
	}
	if took > time.Minute {
		t.Errorf("the demo took %s", took)
	}
	for _, want := range []string{"VALID, previous", "RETIRED", "REVOKED", "none of them failed", "each of them 200", "503, not 401", "✗ 401, ", "★ By itself"} {
		if !strings.Contains(told, want) {
			t.Errorf("the demo did not show %q:\n%s", want, told)
		}
	}
	if whole := regexp.MustCompile(`[a-z]_[0-9A-Za-z]{61}`).FindString(told); whole != "" {
		t.Errorf("the demo printed a whole key, %.15s…", whole)
	}
}
