// SPDX-License-Identifier: MPL-2.0

package framework

import "testing"

// TestBackendRoutes fails for every string that no path matches.
func TestBackendRoutes(t *testing.T, b *Backend, rs []string) {
	t.Helper()
	for _, r := range rs {
		if b.Route(r) == nil {
			t.Fatalf("bad route: %s", r)
		}
	}
}
