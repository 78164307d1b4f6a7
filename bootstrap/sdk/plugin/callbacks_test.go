// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// dialTo serves what register registers and connects to it.
func dialTo(t *testing.T, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(
		"passthrough:callbacks",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func filled(t *testing.T) logical.Storage {
	t.Helper()
	storage := &logical.InmemStorage{}
	for _, key := range []string{"c", "a", "e", "b", "d/x"} {
		if err := storage.Put(context.Background(), &logical.StorageEntry{Key: key, Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	return storage
}

// What OpenBao's plugins ask beyond Vault's storage.
func TestStorageServesOpenBao(t *testing.T) {
	ctx := context.Background()
	client := pb.NewStorageClient(dialTo(t, (&callbacks{storage: filled(t)}).newServer(nil)))

	for _, c := range []struct {
		after string
		limit int32
		want  string
	}{
		{"", 0, "[a b c d/ e]"},
		{"", -1, "[a b c d/ e]"},
		{"", 2, "[a b]"},
		{"b", 2, "[c d/]"},
		{"bb", 1, "[c]"},
		{"d/", 9, "[e]"},
		{"e", 9, "[]"},
	} {
		reply, err := client.ListPage(ctx, &pb.StorageListPageArgs{After: c.after, Limit: c.limit, Txn: "none"})
		if err != nil || fmt.Sprint(reply.GetKeys()) != c.want {
			t.Errorf("page after %q of %d: %v, %v", c.after, c.limit, reply.GetKeys(), err)
		}
	}

	if reply, err := client.IsTransactional(ctx, &pb.Empty{}); err != nil || reply.GetTransactional() {
		t.Errorf("transactional: %v, %v", reply, err)
	}
	_, beginErr := client.BeginTx(ctx, &pb.Empty{})
	_, readOnlyErr := client.BeginReadOnlyTx(ctx, &pb.Empty{})
	for _, err := range []error{beginErr, readOnlyErr} {
		if err == nil || !strings.Contains(err.Error(), "does not support transactions") {
			t.Errorf("begin: %v", err)
		}
	}
	_, commitErr := client.Commit(ctx, &pb.StorageCommitTxArgs{Txn: "none"})
	_, rollbackErr := client.Rollback(ctx, &pb.StorageRollbackTxArgs{Txn: "none"})
	for _, err := range []error{commitErr, rollbackErr} {
		if err == nil || !strings.Contains(err.Error(), "missing storage implementation") {
			t.Errorf("end of no transaction: %v", err)
		}
	}
	// A transaction nobody began is none.
	if reply, err := client.Get(ctx, &pb.StorageGetArgs{Key: "a", Txn: "none"}); err != nil || reply.GetEntry() == nil {
		t.Errorf("get: %v, %v", reply, err)
	}
	if _, err := client.Put(ctx, &pb.StoragePutArgs{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("put of nothing: %v", err)
	}
}

func TestMissingStorage(t *testing.T) {
	ctx := context.Background()
	client := pb.NewStorageClient(dialTo(t, (&callbacks{}).newServer(nil)))
	calls := map[string]func() error{
		"list":   func() error { _, err := client.List(ctx, &pb.StorageListArgs{}); return err },
		"page":   func() error { _, err := client.ListPage(ctx, &pb.StorageListPageArgs{}); return err },
		"get":    func() error { _, err := client.Get(ctx, &pb.StorageGetArgs{}); return err },
		"put":    func() error { _, err := client.Put(ctx, &pb.StoragePutArgs{}); return err },
		"delete": func() error { _, err := client.Delete(ctx, &pb.StorageDeleteArgs{}); return err },
		"tx":     func() error { _, err := client.IsTransactional(ctx, &pb.Empty{}); return err },
		"begin":  func() error { _, err := client.BeginTx(ctx, &pb.Empty{}); return err },
	}
	for name, call := range calls {
		if err := call(); err == nil || !strings.Contains(err.Error(), errMissingStorage.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// vaultStorage is a server that has only Vault's calls.
type vaultStorage struct {
	pb.UnimplementedStorageServer

	impl storageServer
}

func (s *vaultStorage) List(ctx context.Context, args *pb.StorageListArgs) (*pb.StorageListReply, error) {
	return s.impl.List(ctx, args)
}

func TestAbsentCallsOfTheServer(t *testing.T) {
	ctx := context.Background()
	server := grpc.NewServer()
	pb.RegisterStorageServer(server, &vaultStorage{impl: storageServer{impl: filled(t)}})
	conn := dialTo(t, server)

	keys, err := newStorageClient(conn).ListPage(ctx, "", "b", 2)
	if err != nil || fmt.Sprint(keys) != "[c d/]" {
		t.Errorf("page: %v, %v", keys, err)
	}
	if err := (&eventsClient{client: pb.NewEventsClient(conn)}).SendEvent(ctx, "probe", &logical.EventData{}); err != nil {
		t.Errorf("event: %v", err)
	}
	observations := &observationsClient{client: pb.NewObservationsClient(conn)}
	if err := observations.RecordObservationFromPlugin(ctx, "probe", map[string]interface{}{"n": 1}); err != nil {
		t.Errorf("observation: %v", err)
	}
	if err := observations.RecordObservationFromPlugin(ctx, "probe", map[string]interface{}{"f": func() {}}); err == nil {
		t.Error("an observation that cannot be encoded was accepted")
	}
}

func TestEventsAreDropped(t *testing.T) {
	ctx := context.Background()
	conn := dialTo(t, (&callbacks{}).newServer(nil))
	if _, err := pb.NewEventsClient(conn).SendEvent(ctx, &pb.SendEventRequest{EventType: "probe"}); err != nil {
		t.Errorf("event: %v", err)
	}
	if _, err := pb.NewObservationsClient(conn).RecordObservation(ctx, &pb.RecordObservationRequest{}); err != nil {
		t.Errorf("observation: %v", err)
	}
}

func TestSystemViewWithoutAServer(t *testing.T) {
	conn := dialTo(t, grpc.NewServer())
	s := &systemClient{client: pb.NewSystemViewClient(conn)}
	if s.DefaultLeaseTTL() != 0 || s.MaxLeaseTTL() != 0 || s.Tainted() || s.CachingDisabled() || s.LocalMount() ||
		s.MlockEnabled() || s.ReplicationState() != consts.ReplicationUnknown || s.HasFeature(1) {
		t.Error("a failed call is not the zero value")
	}
	if _, err := s.PluginEnv(context.Background()); status.Code(err) != codes.Unimplemented {
		t.Errorf("environment: %v", err)
	}
	if _, err := s.LookupPlugin(context.Background(), "p", 0); !errors.Is(err, errHostOnly) {
		t.Errorf("lookup: %v", err)
	}
}

// brokenView fails where a static one does not.
type brokenView struct{ logical.StaticSystemView }

func (brokenView) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	return nil, errors.New("no environment")
}

func (brokenView) ClusterID(context.Context) (string, error) { return "", errors.New("no cluster") }

func (brokenView) EntityInfo(string) (*logical.Entity, error) { return nil, errors.New("no entity") }

func (brokenView) GroupsForEntity(string) ([]*logical.Group, error) {
	return nil, errors.New("no groups")
}

func TestSystemViewErrors(t *testing.T) {
	ctx := context.Background()
	client := pb.NewSystemViewClient(dialTo(t, (&callbacks{system: brokenView{}}).newServer(nil)))
	s := &systemClient{client: client}

	reply, err := client.PluginEnv(ctx, &pb.Empty{})
	if err != nil || reply.GetErr() != "no environment" || reply.GetPluginEnvironment() == nil {
		t.Errorf("environment: %v, %v", reply, err)
	}
	if _, err := s.VaultVersion(ctx); err == nil || err.Error() != "no environment" {
		t.Errorf("version: %v", err)
	}
	if _, err := s.EntityInfo("e"); err == nil || err.Error() != "no entity" {
		t.Errorf("entity: %v", err)
	}
	if _, err := s.GroupsForEntity("e"); err == nil || err.Error() != "no groups" {
		t.Errorf("groups: %v", err)
	}
	if _, err := s.ClusterID(ctx); status.Code(err) != codes.Internal {
		t.Errorf("cluster: %v", err)
	}
	if _, err := s.GeneratePasswordFromPolicy(ctx, ""); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no policy: %v", err)
	}
	if _, err := client.ResponseWrapData(ctx, &pb.ResponseWrapDataArgs{Data: "not JSON", Jwt: true}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("wrap: %v", err)
	}
}

// The broker may make the server only after the mount has ended, or never.
func TestCallbacksStop(t *testing.T) {
	never := &callbacks{}
	never.stop()

	listener := bufconn.Listen(1)
	late := never.newServer(nil)
	if err := late.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
		t.Errorf("a late server serves: %v", err)
	}

	// A plugin that has gone quiet with a call in flight holds up nobody for
	// long.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stuck := &stuckStorage{Storage: &logical.InmemStorage{}, entered: make(chan struct{}), release: ctx.Done()}
	cb := &callbacks{storage: stuck, grace: time.Millisecond}
	client := pb.NewStorageClient(dialTo(t, cb.newServer(nil)))
	failed := make(chan error, 1)
	go func() {
		_, err := client.Get(context.Background(), &pb.StorageGetArgs{Key: "k"})
		failed <- err
	}()
	<-stuck.entered
	cb.stop()
	if err := <-failed; status.Code(err) != codes.Unavailable {
		t.Errorf("the call in flight: %v", err)
	}
}

type stuckStorage struct {
	logical.Storage

	entered chan struct{}
	release <-chan struct{}
}

func (s *stuckStorage) Get(context.Context, string) (*logical.StorageEntry, error) {
	close(s.entered)
	<-s.release
	return nil, nil
}
