// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
)

// checkCaches: what is cached of a role, a key or a plaintext is what is stored.
func (m *testMount) checkCaches() {
	m.t.Helper()
	cached[roleRecord](m, "roles", m.roles)
	cached[keyRecord](m, "keys", m.keys)
	cached[secretRecord](m, "plaintexts", m.secretCache)
	cached[movedRecord](m, "where roles live", m.moves)
}

func cached[T any](m *testMount, what string, c *recordCache[T]) {
	m.t.Helper()
	for _, path := range c.entries.Keys() {
		rec, _ := c.peek(path)
		stored, err := getRecord[T](context.Background(), m.storage, path)
		if err != nil {
			m.t.Fatal(err)
		}
		if have, want := encoded(m.t, rec), encoded(m.t, stored); !bytes.Equal(have, want) {
			m.t.Errorf("the cache of %s has %s, and stored is %s", what, have, want)
		}
	}
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestNothingIsWrittenPastTheDoor(t *testing.T) {
	m := newMount(t)
	ctx := context.Background()
	for _, path := range []string{rolePath("a"), keyPath("0123456789ab"), secretPath("id", 1), deletedPath("id"), movedPath("id")} {
		if putRecord(ctx, m.storage, path, &keyRecord{}) == nil || putBytes(ctx, m.storage, path, nil) == nil || deleteRecord(ctx, m.storage, path) == nil {
			t.Errorf("%s can be written without committed being told", path)
		}
	}
	if left := dump(t, m.storage); len(m.under(rolePrefix))+len(m.under(keyPrefix))+len(m.under(secretPrefix)) > 0 {
		t.Error(left)
	}
}
