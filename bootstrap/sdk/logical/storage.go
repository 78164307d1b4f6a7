// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/jsonutil"
)

// PBPWFClusterSentinel stands for the cluster id in Paths.WriteForwardedStorage.
const PBPWFClusterSentinel = "{{clusterId}}"

// Storage is a mount's own key space. Get of an absent key is (nil, nil), Delete of one succeeds.
// List gives the direct children, sorted; those that have children of their own end in a slash.
type Storage interface {
	List(context.Context, string) ([]string, error)
	Get(context.Context, string) (*StorageEntry, error)
	Put(context.Context, *StorageEntry) error
	Delete(context.Context, string) error
}

// StorageEntry is one stored value.
type StorageEntry struct {
	Key      string
	Value    []byte
	SealWrap bool
}

// DecodeJSON decodes the value. Numbers that land in an interface become json.Number.
func (e *StorageEntry) DecodeJSON(out interface{}) error {
	return jsonutil.DecodeJSON(e.Value, out)
}

// StorageEntryJSON makes an entry from a value that is not nil.
func StorageEntryJSON(k string, v interface{}) (*StorageEntry, error) {
	encoded, err := jsonutil.EncodeJSON(v)
	if err != nil {
		return nil, fmt.Errorf("failed to encode storage entry: %w", err)
	}
	return &StorageEntry{Key: k, Value: encoded}, nil
}

// ClearableView is the part of a Storage that walking and clearing needs.
type ClearableView interface {
	List(context.Context, string) ([]string, error)
	Delete(context.Context, string) error
}

// ScanView calls cb for every key, depth first.
func ScanView(ctx context.Context, view ClearableView, cb func(path string)) error {
	frontier := []string{""}
	for len(frontier) > 0 {
		last := len(frontier) - 1
		dir := frontier[last]
		frontier = frontier[:last]

		children, err := view.List(ctx, dir)
		if err != nil {
			return fmt.Errorf("list failed at path %q: %w", dir, err)
		}
		for _, child := range children {
			if err := ctx.Err(); err != nil {
				return err
			}
			path := dir + child
			if strings.HasSuffix(child, "/") {
				frontier = append(frontier, path)
			} else {
				cb(path)
			}
		}
	}
	return nil
}

// CollectKeys returns every key.
func CollectKeys(ctx context.Context, view ClearableView) ([]string, error) {
	return CollectKeysWithPrefix(ctx, view, "")
}

// CollectKeysWithPrefix returns every key that starts with prefix. It walks all keys all the same.
func CollectKeysWithPrefix(ctx context.Context, view ClearableView, prefix string) ([]string, error) {
	var keys []string
	err := ScanView(ctx, view, func(path string) {
		if strings.HasPrefix(path, prefix) {
			keys = append(keys, path)
		}
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// ClearView deletes every key.
func ClearView(ctx context.Context, view ClearableView) error {
	return ClearViewWithLogging(ctx, view, nil)
}

// ClearViewWithLogging deletes every key and says so.
func ClearViewWithLogging(ctx context.Context, view ClearableView, logger hclog.Logger) error {
	if view == nil {
		return nil
	}
	if logger == nil {
		logger = hclog.NewNullLogger()
	}

	keys, err := CollectKeys(ctx, view)
	if err != nil {
		return err
	}
	logger.Debug("clearing view", "total_keys", len(keys))
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := view.Delete(ctx, key); err != nil {
			return err
		}
	}
	logger.Debug("view cleared")
	return nil
}
