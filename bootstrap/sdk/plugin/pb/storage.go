// SPDX-License-Identifier: MPL-2.0

package pb

import "github.com/hashicorp/vault/sdk/logical"

// LogicalStorageEntryToProtoStorageEntry encodes a storage entry; nil stays
// nil.
func LogicalStorageEntryToProtoStorageEntry(e *logical.StorageEntry) *StorageEntry {
	if e == nil {
		return nil
	}
	return &StorageEntry{Key: e.Key, Value: e.Value, SealWrap: e.SealWrap}
}

// ProtoStorageEntryToLogicalStorageEntry decodes a storage entry; nil stays
// nil.
func ProtoStorageEntryToLogicalStorageEntry(e *StorageEntry) *logical.StorageEntry {
	if e == nil {
		return nil
	}
	return &logical.StorageEntry{Key: e.Key, Value: e.Value, SealWrap: e.SealWrap}
}
