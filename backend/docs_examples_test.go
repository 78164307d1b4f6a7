// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// The request ids of the guides' examples are such as the engine takes.
func TestRequestIDsOfTheGuidesAreTaken(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMount(t)
	m.write("roles/r", nil)
	given := regexp.MustCompile(`request_id=([^\s` + "`" + `<,]+)`)
	found := 0
	for _, page := range append(pages, "../README.md") {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range given.FindAllStringSubmatch(string(raw), -1) {
			found++
			resp, err := m.do(logical.UpdateOperation, "rotate/r", map[string]any{"request_id": match[1], "force": true})
			if status, text := httpStatus(resp, err); status != 200 {
				t.Errorf("%s: %s: status %d (%s)", page, match[0], status, text)
			}
		}
	}
	if found < 2 {
		t.Errorf("%d request ids were found", found)
	}
}
