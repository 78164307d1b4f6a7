// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// singleInstance is the one mount of a process that is not multiplexed.
const singleInstance = "single"

// instance is one mount: its backend, and the connection that carries its
// storage and system view.
type instance struct {
	backend logical.Backend
	conn    *grpc.ClientConn
}

func (i *instance) close(ctx context.Context) {
	i.backend.Cleanup(ctx)
	_ = i.conn.Close()
}

// backendServer is the plugin's end of pb.Backend.
type backendServer struct {
	pb.UnimplementedBackendServer
	logical.UnimplementedPluginVersionServer

	broker    *goplugin.GRPCBroker
	factory   logical.Factory
	logger    hclog.Logger
	multiplex bool

	mu        sync.RWMutex
	instances map[string]*instance
}

func newBackendServer(broker *goplugin.GRPCBroker, factory logical.Factory, logger hclog.Logger, multiplex bool) *backendServer {
	return &backendServer{
		broker:    broker,
		factory:   factory,
		logger:    logger,
		multiplex: multiplex,
		instances: make(map[string]*instance),
	}
}

func (s *backendServer) instanceID(ctx context.Context) (string, error) {
	if !s.multiplex {
		return singleInstance, nil
	}
	return pluginutil.GetMultiplexIDFromContext(ctx)
}

func (s *backendServer) instance(ctx context.Context) (*instance, error) {
	id, err := s.instanceID(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	inst, ok := s.instances[id]
	if !ok {
		return nil, errors.New("no backend instance found")
	}
	return inst, nil
}

// working is instance for what metadata mode refuses.
func (s *backendServer) working(ctx context.Context) (*instance, error) {
	inst, err := s.instance(ctx)
	if err != nil {
		return nil, err
	}
	if pluginutil.InMetadataMode() {
		return nil, ErrServerInMetadataMode
	}
	return inst, nil
}

func (i *instance) request(in *pb.Request) (*logical.Request, error) {
	req, err := pb.ProtoRequestToLogicalRequest(in)
	if err != nil {
		return nil, err
	}
	req.Storage = newStorageClient(i.conn)
	return req, nil
}

// Setup makes the backend of one mount. A catalog does this without storage
// and system view: then those fail when used, which is for the factory not to
// do.
func (s *backendServer) Setup(ctx context.Context, args *pb.SetupArgs) (*pb.SetupReply, error) {
	id, err := s.instanceID(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := s.broker.Dial(args.GetBrokerId())
	if err != nil {
		return nil, err
	}
	backend, err := s.factory(ctx, &logical.BackendConfig{
		StorageView:         newStorageClient(conn),
		Logger:              s.logger,
		System:              &systemClient{client: pb.NewSystemViewClient(conn)},
		BackendUUID:         args.GetBackendUuid(),
		Config:              args.GetConfig(),
		EventsSender:        &eventsClient{client: pb.NewEventsClient(conn)},
		ObservationRecorder: &observationsClient{client: pb.NewObservationsClient(conn)},
	})
	if err == nil && backend == nil {
		err = errors.New("the factory returned no backend")
	}
	if err != nil {
		_ = conn.Close()
		return &pb.SetupReply{Err: setupText(err)}, nil
	}

	s.mu.Lock()
	replaced := s.instances[id]
	s.instances[id] = &instance{backend: backend, conn: conn}
	s.mu.Unlock()
	if replaced != nil {
		// Nothing can reach it any more.
		replaced.close(ctx)
	}
	return &pb.SetupReply{}, nil
}

// setupText keeps an error without text from being taken for success.
func setupText(err error) string {
	if text := pb.ErrToString(err); text != "" {
		return text
	}
	return "backend setup failed"
}

func (s *backendServer) Initialize(ctx context.Context, _ *pb.InitializeArgs) (*pb.InitializeReply, error) {
	inst, err := s.working(ctx)
	if err != nil {
		return nil, err
	}
	err = inst.backend.Initialize(ctx, &logical.InitializationRequest{Storage: newStorageClient(inst.conn)})
	return &pb.InitializeReply{Err: pb.ErrToProtoErr(err)}, nil
}

func (s *backendServer) HandleRequest(ctx context.Context, args *pb.HandleRequestArgs) (*pb.HandleRequestReply, error) {
	inst, err := s.working(ctx)
	if err != nil {
		return nil, err
	}
	req, err := inst.request(args.GetRequest())
	if err != nil {
		return nil, err
	}
	resp, handleErr := inst.backend.HandleRequest(ctx, req)
	out, err := pb.LogicalResponseToProtoResponse(resp)
	if err != nil {
		return nil, err
	}
	return &pb.HandleRequestReply{Response: out, Err: pb.ErrToProtoErr(handleErr)}, nil
}

func (s *backendServer) HandleExistenceCheck(ctx context.Context, args *pb.HandleExistenceCheckArgs) (*pb.HandleExistenceCheckReply, error) {
	inst, err := s.working(ctx)
	if err != nil {
		return nil, err
	}
	req, err := inst.request(args.GetRequest())
	if err != nil {
		return nil, err
	}
	found, exists, err := inst.backend.HandleExistenceCheck(ctx, req)
	return &pb.HandleExistenceCheckReply{CheckFound: found, Exists: exists, Err: pb.ErrToProtoErr(err)}, nil
}

func (s *backendServer) InvalidateKey(ctx context.Context, args *pb.InvalidateKeyArgs) (*pb.Empty, error) {
	inst, err := s.working(ctx)
	if err != nil {
		return nil, err
	}
	inst.backend.InvalidateKey(ctx, args.GetKey())
	return &pb.Empty{}, nil
}

func (s *backendServer) SpecialPaths(ctx context.Context, _ *pb.Empty) (*pb.SpecialPathsReply, error) {
	inst, err := s.instance(ctx)
	if err != nil {
		return nil, err
	}
	paths := inst.backend.SpecialPaths()
	if paths == nil {
		return &pb.SpecialPathsReply{}, nil
	}
	return &pb.SpecialPathsReply{Paths: &pb.Paths{
		Root:                  paths.Root,
		Unauthenticated:       paths.Unauthenticated,
		LocalStorage:          paths.LocalStorage,
		SealWrapStorage:       paths.SealWrapStorage,
		WriteForwardedStorage: paths.WriteForwardedStorage,
		Binary:                paths.Binary,
		Limited:               paths.Limited,
		AllowSnapshotRead:     paths.AllowSnapshotRead,
	}}, nil
}

func (s *backendServer) Type(ctx context.Context, _ *pb.Empty) (*pb.TypeReply, error) {
	inst, err := s.instance(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.TypeReply{Type: uint32(inst.backend.Type())}, nil
}

// Version implements logical.PluginVersion.
func (s *backendServer) Version(ctx context.Context, _ *logical.Empty) (*logical.VersionReply, error) {
	inst, err := s.instance(ctx)
	if err != nil {
		return nil, err
	}
	reply := &logical.VersionReply{}
	if v, ok := inst.backend.(logical.PluginVersioner); ok {
		reply.PluginVersion = v.PluginVersion().Version
	}
	return reply, nil
}

// Cleanup ends one mount; the process stays for the others. These wait meanwhile,
// as with the official SDK: what a backend does in its cleanup has to be short.
func (s *backendServer) Cleanup(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	id, err := s.instanceID(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	inst, ok := s.instances[id]
	if !ok {
		return nil, errors.New("no backend instance found")
	}
	inst.close(ctx)
	delete(s.instances, id)
	return &pb.Empty{}, nil
}
