// SPDX-License-Identifier: MPL-2.0

package policy_test

import (
	"fmt"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// A role is written: each field is judged by itself, then all of them together.
func Example() {
	limits := policy.Limits{StageAhead: 10 * time.Minute}
	stored := &policy.Policy{}

	p, _, err := stored.With(map[string]any{"owner": "team-payments", "rotation_period": 3600, "ttl": 3600})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(policy.Check(stored, p, "9b1f", policy.Static, limits))

	p, _, err = p.With(map[string]any{"ttl": 7200})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(policy.Check(stored, p, "9b1f", policy.Static, limits))

	terms, err := p.Effective("9b1f", policy.Static, limits)
	if err != nil {
		fmt.Println(err)
		return
	}
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	fmt.Println(terms.Cadence.First(noon, terms.Jitter).Format(time.TimeOnly), terms.Grace, p.Show(terms)["owner"])

	// Output:
	// ttl: 3600: must be 0 (forever) or at least 1h40m (6000 seconds): the longest distance between activations, the jitter, the staging lead and the grace together: raise ttl, or rotate by hand only (rotation_period=0)
	// <nil>
	// 13:00:00 30m0s team-payments
}

func ExampleCheckText() {
	fmt.Println(policy.CheckText("label", "deploy\nforged line", 128, false))
	// Output:
	// label: "deploy\nforged line": holds a line break (U+000A), as character 7: remove it
}

func ExampleCleanText() {
	fmt.Println(policy.CleanText("leaked in build 7\r\nby a log", 20, false))
	// Output:
	// leaked in build 7 by true
}

func ExampleScopesCover() {
	fmt.Println(policy.ScopesCover([]string{"orders:*", "users:read"}, "orders:items:read", "users:read"))
	fmt.Println(policy.ScopesCover([]string{"orders:*"}, "orders"))
	// Output:
	// true
	// false
}
