// SPDX-License-Identifier: MPL-2.0

package backend

import "testing"

// usageIn is the usage of a version as the role's status shows it.
func usageIn(t *testing.T, m *testMount, role string, version int) map[string]any {
	t.Helper()
	for _, v := range m.read("status/" + role)["versions"].([]any) {
		if v := v.(map[string]any); v["version"] == version {
			return v["usage"].(map[string]any)
		}
	}
	t.Fatalf("role %s has no version %d", role, version)
	return nil
}
