// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// getRecord reads and decodes one record; nil if there is none.
func getRecord[T any](ctx context.Context, s logical.Storage, path string) (*T, error) {
	if strings.Contains(path, "..") {
		// Storage views refuse such a path, so nothing was ever written there.
		return nil, nil
	}
	entry, err := s.Get(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", family(path), err)
	}
	if entry == nil {
		return nil, nil
	}
	rec := new(T)
	if err := decodeRecord(entry.Value, rec); err != nil {
		return nil, fmt.Errorf("%s: %w", family(path), err)
	}
	return rec, nil
}

// decodeRecord refuses what a newer build wrote before it looks at the rest.
func decodeRecord(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		var head struct {
			Schema int `json:"schema"`
		}
		if json.Unmarshal(data, &head) == nil && head.Schema > recordSchema {
			return fmt.Errorf("schema %d, this build knows up to %d: %w", head.Schema, recordSchema, errSchema)
		}
		return fmt.Errorf("decoding: %w", err)
	}
	if v, ok := into.(interface{ schema() int }); ok && v.schema() > recordSchema {
		return fmt.Errorf("schema %d, this build knows up to %d: %w", v.schema(), recordSchema, errSchema)
	}
	return nil
}

func putRecord(ctx context.Context, s logical.Storage, path string, rec any) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", family(path), err)
	}
	return putBytes(ctx, s, path, data)
}

func putBytes(ctx context.Context, s logical.Storage, path string, data []byte) error {
	entry := &logical.StorageEntry{Key: path, Value: data, SealWrap: isSecretPath(path)}
	if err := s.Put(ctx, entry); err != nil {
		return fmt.Errorf("writing %s: %w", family(path), err)
	}
	return nil
}

func deleteRecord(ctx context.Context, s logical.Storage, path string) error {
	if err := s.Delete(ctx, path); err != nil {
		return fmt.Errorf("deleting %s: %w", family(path), err)
	}
	return nil
}

func list(ctx context.Context, s logical.Storage, prefix string) ([]string, error) {
	names, err := s.List(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", family(prefix), err)
	}
	return names, nil
}

// family is the kind of record a path belongs to: what an error says instead of
// the path.
func family(path string) string {
	kind, _, _ := strings.Cut(path, "/")
	return "the " + kind + " record"
}

// errUnchanged ends a transition that found nothing to do.
var errUnchanged = errors.New("unchanged")
