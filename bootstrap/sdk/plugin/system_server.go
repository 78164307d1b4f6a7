// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

var errMissingSystemView = errors.New("missing system view implementation: this method should not be called during plugin Setup, but only during and after Initialize")

// systemServer is the host's system view for one mount. Without one, every
// call fails: a catalog sets plugins up like that. Identity tokens and
// rotation jobs stay unimplemented, as on a server without them.
type systemServer struct {
	pb.UnimplementedSystemViewServer

	impl logical.SystemView
}

func (s *systemServer) DefaultLeaseTTL(context.Context, *pb.Empty) (*pb.TTLReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.TTLReply{Ttl: int64(s.impl.DefaultLeaseTTL())}, nil
}

func (s *systemServer) MaxLeaseTTL(context.Context, *pb.Empty) (*pb.TTLReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.TTLReply{Ttl: int64(s.impl.MaxLeaseTTL())}, nil
}

func (s *systemServer) Tainted(context.Context, *pb.Empty) (*pb.TaintedReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.TaintedReply{Tainted: s.impl.Tainted()}, nil
}

func (s *systemServer) CachingDisabled(context.Context, *pb.Empty) (*pb.CachingDisabledReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.CachingDisabledReply{Disabled: s.impl.CachingDisabled()}, nil
}

func (s *systemServer) ReplicationState(context.Context, *pb.Empty) (*pb.ReplicationStateReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.ReplicationStateReply{State: int32(s.impl.ReplicationState())}, nil
}

func (s *systemServer) MlockEnabled(context.Context, *pb.Empty) (*pb.MlockEnabledReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.MlockEnabledReply{Enabled: s.impl.MlockEnabled()}, nil
}

func (s *systemServer) LocalMount(context.Context, *pb.Empty) (*pb.LocalMountReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	return &pb.LocalMountReply{Local: s.impl.LocalMount()}, nil
}

func (s *systemServer) ResponseWrapData(ctx context.Context, args *pb.ResponseWrapDataArgs) (*pb.ResponseWrapDataReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	var data map[string]interface{}
	if err := json.Unmarshal([]byte(args.GetData()), &data); err != nil {
		return nil, status.Error(codes.InvalidArgument, "data to wrap is not a JSON object")
	}
	// A plugin gets no JWT, whatever it asks for.
	info, err := s.impl.ResponseWrapData(ctx, data, time.Duration(args.GetTtl()), false)
	if err != nil {
		return &pb.ResponseWrapDataReply{Err: pb.ErrToString(err)}, nil
	}
	return &pb.ResponseWrapDataReply{WrapInfo: pb.WrapInfoToProto(info)}, nil
}

func (s *systemServer) EntityInfo(_ context.Context, args *pb.EntityInfoArgs) (*pb.EntityInfoReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	entity, err := s.impl.EntityInfo(args.GetEntityId())
	if err != nil {
		return &pb.EntityInfoReply{Err: pb.ErrToString(err)}, nil
	}
	return &pb.EntityInfoReply{Entity: entity}, nil
}

func (s *systemServer) GroupsForEntity(_ context.Context, args *pb.EntityInfoArgs) (*pb.GroupsForEntityReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	groups, err := s.impl.GroupsForEntity(args.GetEntityId())
	if err != nil {
		return &pb.GroupsForEntityReply{Err: pb.ErrToString(err)}, nil
	}
	return &pb.GroupsForEntityReply{Groups: groups}, nil
}

// PluginEnv always sends an environment: plugins built with the servers' SDKs
// look into it without asking whether there was an error.
func (s *systemServer) PluginEnv(ctx context.Context, _ *pb.Empty) (*pb.PluginEnvReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	env, err := s.impl.PluginEnv(ctx)
	if env == nil {
		env = &logical.PluginEnvironment{}
	}
	return &pb.PluginEnvReply{PluginEnvironment: env, Err: pb.ErrToString(err)}, nil
}

func (s *systemServer) GeneratePasswordFromPolicy(ctx context.Context, req *pb.GeneratePasswordFromPolicyRequest) (*pb.GeneratePasswordFromPolicyReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	if req.GetPolicyName() == "" {
		return nil, status.Error(codes.InvalidArgument, "no password policy specified")
	}
	password, err := s.impl.GeneratePasswordFromPolicy(ctx, req.GetPolicyName())
	if err != nil {
		return nil, status.Error(codes.Internal, "failed to generate password")
	}
	return &pb.GeneratePasswordFromPolicyReply{Password: password}, nil
}

func (s *systemServer) ClusterInfo(ctx context.Context, _ *pb.Empty) (*pb.ClusterInfoReply, error) {
	if s.impl == nil {
		return nil, errMissingSystemView
	}
	id, err := s.impl.ClusterID(ctx)
	if err != nil {
		return nil, status.Error(codes.Internal, "failed to fetch cluster id")
	}
	return &pb.ClusterInfoReply{ClusterId: id}, nil
}
