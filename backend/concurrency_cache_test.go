// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// pausing is a storage that has read, and does not answer before something else
// has happened.
type pausing struct {
	logical.Storage

	between func()
}

func (s *pausing) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	e, err := s.Storage.Get(ctx, key)
	if s.between != nil {
		s.between()
	}
	return e, err
}

// A fill that began before a commit or an invalidation does not outlive it.
func TestCacheDiscardsFillsThatWereOvertaken(t *testing.T) {
	t.Parallel()
	ctx, now := context.Background(), newFakeClock().Now()
	old, fresh := &secretRecord{Schema: 1, Key: "old"}, &secretRecord{Schema: 1, Key: "new"}
	for name, overtake := range map[string]func(*recordCache[secretRecord]){
		"commit":       func(c *recordCache[secretRecord]) { c.committed("p", fresh) },
		"invalidation": func(c *recordCache[secretRecord]) { c.drop("p") },
		"purge":        func(c *recordCache[secretRecord]) { c.purge() },
	} {
		for _, existed := range []bool{true, false} {
			s := &pausing{Storage: &logical.InmemStorage{}}
			if existed {
				plant(t, s, "p", old)
			}
			c := newRecordCache[secretRecord](10)
			s.between = func() {
				s.between = nil
				plant(t, s, "p", fresh)
				overtake(c)
			}
			if _, err := c.getOrAbsent(ctx, s, "p", now); err != nil {
				t.Fatal(err)
			}
			if got, err := c.getOrAbsent(ctx, s, "p", now); err != nil || got == nil || got.Key != "new" {
				t.Errorf("%s, existed %v: then it answers %+v %v", name, existed, got, err)
			}
		}
	}
}
