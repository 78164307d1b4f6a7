// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/helper/jsonutil"
	"github.com/hashicorp/vault/sdk/logical"
)

// WALPrefix is where log entries are stored. They may hold secrets.
const WALPrefix = "wal/"

// WALEntry announces an effect outside the storage. It is deleted once the storage knows of the effect;
// if that never happens the entry is rolled back.
type WALEntry struct {
	ID        string      `json:"-"`
	Kind      string      `json:"type"`
	Data      interface{} `json:"data"`
	CreatedAt int64       `json:"created_at"`
}

// PutWAL writes an entry and returns its id, even together with an error: the entry may have been written.
func PutWAL(ctx context.Context, s logical.Storage, kind string, data interface{}) (string, error) {
	value, err := json.Marshal(&WALEntry{
		Kind:      kind,
		Data:      data,
		CreatedAt: time.Now().Unix(),
	})
	if err != nil {
		return "", err
	}
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	id := fmt.Sprintf("%x-%x-%x-%x-%x", random[0:4], random[4:6], random[6:8], random[8:10], random[10:16])
	return id, s.Put(ctx, &logical.StorageEntry{Key: WALPrefix + id, Value: value})
}

// GetWAL returns nil if there is no such entry. Data is generic JSON with json.Number.
func GetWAL(ctx context.Context, s logical.Storage, id string) (*WALEntry, error) {
	stored, err := s.Get(ctx, WALPrefix+id)
	if err != nil || stored == nil {
		return nil, err
	}
	entry := &WALEntry{}
	if err := jsonutil.DecodeJSON(stored.Value, entry); err != nil {
		return nil, err
	}
	entry.ID = id
	return entry, nil
}

// DeleteWAL says that what the entry announced needs no rollback.
func DeleteWAL(ctx context.Context, s logical.Storage, id string) error {
	return s.Delete(ctx, WALPrefix+id)
}

// ListWAL returns the ids.
func ListWAL(ctx context.Context, s logical.Storage) ([]string, error) {
	return s.List(ctx, WALPrefix)
}
