// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestReportersOfOneCallerAreBounded(t *testing.T) {
	var r Reporters
	r.Take("quiet", "pod", 7)
	for i := range MaxInstances {
		r.Take("loud", fmt.Sprint(i), 1)
	}
	r.Take("loud", "0", 1) // a repeat says that it is alive
	r.Take("loud", "new", 1)
	for instance, want := range map[string]bool{"0": false, "1": true, "2": true, "new": false} {
		if instance == "2" {
			continue // pushed out by asking for 1
		}
		if _, isNew := r.Take("loud", instance, 1); isNew != want {
			t.Errorf("instance %s is new: %v", instance, isNew)
		}
	}
	if n := len(r.callers["loud"].instances); n != MaxInstances {
		t.Errorf("%d instances", n)
	}
	if highest, isNew := r.Take("quiet", "pod", 7); isNew || highest != 7 {
		t.Errorf("another caller's instances pushed it out: %d, %v", highest, isNew)
	}
}

func TestCallersAreBounded(t *testing.T) {
	var r Reporters
	for i := range MaxCallers {
		r.Take(fmt.Sprint(i), "pod", 1)
	}
	r.Take("0", "pod", 1)
	r.Take("new", "pod", 1)
	if len(r.callers) != MaxCallers || r.callers["0"] == nil || r.callers["1"] != nil {
		t.Errorf("%d callers; 0 stays %v, 1 goes %v", len(r.callers), r.callers["0"] != nil, r.callers["1"] == nil)
	}
}

// Within the bounds each report counts once, and no two reporters share a number.
func TestReportersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Reporters
		highest := map[string]int64{}
		for range rapid.IntRange(1, 60).Draw(t, "reports") {
			caller, name := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "caller"), rapid.SampledFrom([]string{"x", "y", ""}).Draw(t, "instance")
			sequence := rapid.Int64Range(1, 9).Draw(t, "sequence")
			id := caller + "/" + name
			wantNew := sequence > highest[id]
			highest[id] = max(highest[id], sequence)
			if got, isNew := r.Take(caller, name, sequence); isNew != wantNew || got != highest[id] {
				t.Fatalf("%s %d: new %v, highest %d, want %v, %d", id, sequence, isNew, got, wantNew, highest[id])
			}
		}
	})
}
