// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"errors"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// storageClient is the mount's storage as the plugin sees it. An error of the
// host's storage keeps only its text.
type storageClient struct {
	client pb.StorageClient
}

// pagedStorage is what OpenBao's storage adds to logical.Storage. The plugin's
// storage has it with every server, so a type assertion finds it.
type pagedStorage interface {
	ListPage(ctx context.Context, prefix, after string, limit int) ([]string, error)
}

var (
	_ logical.Storage = (*storageClient)(nil)
	_ pagedStorage    = (*storageClient)(nil)
)

func newStorageClient(conn grpc.ClientConnInterface) *storageClient {
	return &storageClient{client: pb.NewStorageClient(conn)}
}

func (s *storageClient) List(ctx context.Context, prefix string) ([]string, error) {
	reply, err := s.client.List(ctx, &pb.StorageListArgs{Prefix: prefix}, largeCalls...)
	if err != nil {
		return nil, err
	}
	return reply.GetKeys(), pb.ErrFromString(reply.GetErr())
}

// ListPage lists up to limit keys that come after a key; without a limit if
// that is not positive. Vault has no such call: there the whole list is
// fetched and cut here.
func (s *storageClient) ListPage(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	reply, err := s.client.ListPage(ctx, &pb.StorageListPageArgs{
		Prefix: prefix,
		After:  after,
		Limit:  clampInt32(limit),
	}, largeCalls...)
	if status.Code(err) == codes.Unimplemented {
		keys, err := s.List(ctx, prefix)
		if err != nil {
			return nil, err
		}
		return page(keys, after, limit), nil
	}
	if err != nil {
		return nil, err
	}
	return reply.GetKeys(), pb.ErrFromString(reply.GetErr())
}

func (s *storageClient) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	reply, err := s.client.Get(ctx, &pb.StorageGetArgs{Key: key}, largeCalls...)
	if err != nil {
		return nil, err
	}
	if err := pb.ErrFromString(reply.GetErr()); err != nil {
		return nil, err
	}
	return pb.ProtoStorageEntryToLogicalStorageEntry(reply.GetEntry()), nil
}

func (s *storageClient) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if entry == nil {
		return errors.New("no storage entry to put")
	}
	reply, err := s.client.Put(ctx, &pb.StoragePutArgs{
		Entry: pb.LogicalStorageEntryToProtoStorageEntry(entry),
	}, largeCalls...)
	if err != nil {
		return err
	}
	return pb.ErrFromString(reply.GetErr())
}

func (s *storageClient) Delete(ctx context.Context, key string) error {
	reply, err := s.client.Delete(ctx, &pb.StorageDeleteArgs{Key: key})
	if err != nil {
		return err
	}
	return pb.ErrFromString(reply.GetErr())
}

// page cuts one page out of a whole list.
func page(keys []string, after string, limit int) []string {
	keys = append([]string(nil), keys...)
	sort.Strings(keys)
	if after != "" {
		first := sort.Search(len(keys), func(i int) bool { return keys[i] > after })
		keys = keys[first:]
	}
	if limit > 0 && len(keys) > limit {
		keys = keys[:limit]
	}
	return keys
}
