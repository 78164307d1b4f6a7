// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page about status has each field of the answer, and no other.
func TestStatusPageHasEveryField(t *testing.T) {
	m := newMount(t)
	m.write("roles/a", nil)
	status := m.read("status/a")
	version := status["versions"].([]any)[0].(map[string]any)
	want := map[string]map[string]any{"The role": status, "A version": version, "Its use": version["usage"].(map[string]any)}

	raw, err := os.ReadFile("../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string][]string{}
	section := ""
	name := regexp.MustCompile("`([a-z_]+)`")
	for line := range strings.Lines(string(raw)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
		if cells := strings.Split(line, "|"); len(cells) > 2 && strings.Contains(cells[1], "`") {
			for _, found := range name.FindAllStringSubmatch(cells[1], -1) {
				told[section] = append(told[section], found[1])
			}
		}
	}
	for section, fields := range want {
		got, has := told[section], slices.Sorted(maps.Keys(fields))
		slices.Sort(got)
		if !slices.Equal(got, has) {
			t.Errorf("%s: the page tells of %q, the answer has %q", section, got, has)
		}
	}
}
