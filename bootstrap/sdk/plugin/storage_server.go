// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"errors"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// OpenBao's plugins look for the first text.
var (
	errMissingStorage   = errors.New("missing storage implementation: this method should not be called during plugin Setup, but only during and after Initialize")
	errNotTransactional = errors.New("underlying storage implementation does not support transactions; refusing to call transaction method")
)

// storageServer is the host's storage for one mount. Without one, every call
// fails: a catalog sets plugins up like that. A transaction's name in a call
// is ignored, since none can have begun.
type storageServer struct {
	pb.UnimplementedStorageServer

	impl logical.Storage
}

func (s *storageServer) List(ctx context.Context, args *pb.StorageListArgs) (*pb.StorageListReply, error) {
	if s.impl == nil {
		return nil, errMissingStorage
	}
	keys, err := s.impl.List(ctx, args.GetPrefix())
	return &pb.StorageListReply{Keys: keys, Err: pb.ErrToString(err)}, nil
}

func (s *storageServer) ListPage(ctx context.Context, args *pb.StorageListPageArgs) (*pb.StorageListReply, error) {
	if s.impl == nil {
		return nil, errMissingStorage
	}
	if paged, ok := s.impl.(pagedStorage); ok {
		keys, err := paged.ListPage(ctx, args.GetPrefix(), args.GetAfter(), int(args.GetLimit()))
		return &pb.StorageListReply{Keys: keys, Err: pb.ErrToString(err)}, nil
	}
	keys, err := s.impl.List(ctx, args.GetPrefix())
	return &pb.StorageListReply{
		Keys: page(keys, args.GetAfter(), int(args.GetLimit())),
		Err:  pb.ErrToString(err),
	}, nil
}

func (s *storageServer) Get(ctx context.Context, args *pb.StorageGetArgs) (*pb.StorageGetReply, error) {
	if s.impl == nil {
		return nil, errMissingStorage
	}
	entry, err := s.impl.Get(ctx, args.GetKey())
	return &pb.StorageGetReply{
		Entry: pb.LogicalStorageEntryToProtoStorageEntry(entry),
		Err:   pb.ErrToString(err),
	}, nil
}

func (s *storageServer) Put(ctx context.Context, args *pb.StoragePutArgs) (*pb.StoragePutReply, error) {
	if s.impl == nil {
		return nil, errMissingStorage
	}
	if args.GetEntry() == nil {
		return nil, status.Error(codes.InvalidArgument, "message without a storage entry")
	}
	err := s.impl.Put(ctx, pb.ProtoStorageEntryToLogicalStorageEntry(args.GetEntry()))
	return &pb.StoragePutReply{Err: pb.ErrToString(err)}, nil
}

func (s *storageServer) Delete(ctx context.Context, args *pb.StorageDeleteArgs) (*pb.StorageDeleteReply, error) {
	if s.impl == nil {
		return nil, errMissingStorage
	}
	err := s.impl.Delete(ctx, args.GetKey())
	return &pb.StorageDeleteReply{Err: pb.ErrToString(err)}, nil
}

// IsTransactional is asked by OpenBao's plugins before each request.
func (s *storageServer) IsTransactional(context.Context, *pb.Empty) (*pb.StorageIsTransactionalReply, error) {
	if s.impl == nil {
		return nil, errMissingStorage
	}
	return &pb.StorageIsTransactionalReply{Transactional: false}, nil
}

func (s *storageServer) BeginReadOnlyTx(context.Context, *pb.Empty) (*pb.StorageBeginTxReply, error) {
	return nil, s.refuseTx()
}

func (s *storageServer) BeginTx(context.Context, *pb.Empty) (*pb.StorageBeginTxReply, error) {
	return nil, s.refuseTx()
}

func (s *storageServer) refuseTx() error {
	if s.impl == nil {
		return errMissingStorage
	}
	return errNotTransactional
}

func (s *storageServer) Commit(context.Context, *pb.StorageCommitTxArgs) (*pb.StorageCommitTxReply, error) {
	return nil, errMissingStorage
}

func (s *storageServer) Rollback(context.Context, *pb.StorageRollbackTxArgs) (*pb.StorageRollbackTxReply, error) {
	return nil, errMissingStorage
}

// noopStorage is what a host in metadata mode offers.
type noopStorage struct{}

func (noopStorage) List(context.Context, string) ([]string, error) { return nil, nil }

func (noopStorage) Get(context.Context, string) (*logical.StorageEntry, error) { return nil, nil }

func (noopStorage) Put(context.Context, *logical.StorageEntry) error { return nil }

func (noopStorage) Delete(context.Context, string) error { return nil }

func clampInt32(n int) int32 {
	return int32(max(math.MinInt32, min(n, math.MaxInt32)))
}
