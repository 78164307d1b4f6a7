// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// before does something before each of the next reads below a prefix.
type before struct {
	logical.Storage

	prefix string
	times  int
	do     func()
}

func (s *before) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if s.times > 0 && strings.HasPrefix(key, s.prefix) {
		s.times--
		s.do()
	}
	return s.Storage.Get(ctx, key)
}

// Where a key is killed and erased between the look at the role and the read of
// the key, creds looks again, but not forever.
func TestCredsOvertakenByKillsLooksAgain(t *testing.T) {
	for times, want := range map[int]int{1: 200, 4: 200, 50: 500} {
		s := &before{Storage: &logical.InmemStorage{}, prefix: secretPrefix}
		m := mountOn(t, s, newFakeClock())
		m.write("roles/a", nil)
		other := mountOn(t, s.Storage, m.clock)
		s.times, s.do = times, func() {
			other.write("revoke/a", map[string]any{"version": m.record("a").Ring.Last})
		}
		resp, err := m.do(logical.ReadOperation, "creds/a", nil)
		status, text := httpStatus(resp, err)
		if status != want {
			t.Errorf("overtaken %d times: %d %s, want %d", times, status, text, want)
		}
		if want == 200 && resp.Data["version"] != times+1 {
			t.Errorf("overtaken %d times: version %v", times, resp.Data["version"])
		}
	}
}
