// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/license"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"github.com/hashicorp/vault/sdk/rotation"
)

// systemClient is the server's system view as the plugin sees it. A method
// that cannot return an error returns the zero value when the call fails.
type systemClient struct {
	client pb.SystemViewClient
}

var _ logical.SystemView = (*systemClient)(nil)

func (s *systemClient) DefaultLeaseTTL() time.Duration {
	reply, _ := s.client.DefaultLeaseTTL(context.Background(), &pb.Empty{})
	return time.Duration(reply.GetTtl())
}

func (s *systemClient) MaxLeaseTTL() time.Duration {
	reply, _ := s.client.MaxLeaseTTL(context.Background(), &pb.Empty{})
	return time.Duration(reply.GetTtl())
}

func (s *systemClient) Tainted() bool {
	reply, _ := s.client.Tainted(context.Background(), &pb.Empty{})
	return reply.GetTainted()
}

func (s *systemClient) CachingDisabled() bool {
	reply, _ := s.client.CachingDisabled(context.Background(), &pb.Empty{})
	return reply.GetDisabled()
}

func (s *systemClient) LocalMount() bool {
	reply, _ := s.client.LocalMount(context.Background(), &pb.Empty{})
	return reply.GetLocal()
}

func (s *systemClient) MlockEnabled() bool {
	reply, _ := s.client.MlockEnabled(context.Background(), &pb.Empty{})
	return reply.GetEnabled()
}

func (s *systemClient) ReplicationState() consts.ReplicationState {
	reply, _ := s.client.ReplicationState(context.Background(), &pb.Empty{})
	return consts.ReplicationState(uint32(reply.GetState()))
}

// HasFeature reports false: no feature reaches a plugin.
func (s *systemClient) HasFeature(license.Features) bool { return false }

// ResponseWrapData wraps data behind an opaque token; a plugin gets no JWT.
func (s *systemClient) ResponseWrapData(ctx context.Context, data map[string]interface{}, ttl time.Duration, _ bool) (*wrapping.ResponseWrapInfo, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("encode data to wrap: %w", err)
	}
	reply, err := s.client.ResponseWrapData(ctx, &pb.ResponseWrapDataArgs{Data: string(text), Ttl: int64(ttl)})
	if err != nil {
		return nil, err
	}
	if err := pb.ErrFromString(reply.GetErr()); err != nil {
		return nil, err
	}
	return pb.WrapInfoFromProto(reply.GetWrapInfo()), nil
}

func (s *systemClient) EntityInfo(entityID string) (*logical.Entity, error) {
	reply, err := s.client.EntityInfo(context.Background(), &pb.EntityInfoArgs{EntityId: entityID})
	if err != nil {
		return nil, err
	}
	if err := pb.ErrFromString(reply.GetErr()); err != nil {
		return nil, err
	}
	return reply.GetEntity(), nil
}

func (s *systemClient) GroupsForEntity(entityID string) ([]*logical.Group, error) {
	reply, err := s.client.GroupsForEntity(context.Background(), &pb.EntityInfoArgs{EntityId: entityID})
	if err != nil {
		return nil, err
	}
	if err := pb.ErrFromString(reply.GetErr()); err != nil {
		return nil, err
	}
	return reply.GetGroups(), nil
}

func (s *systemClient) PluginEnv(ctx context.Context) (*logical.PluginEnvironment, error) {
	reply, err := s.client.PluginEnv(ctx, &pb.Empty{})
	if err != nil {
		return nil, err
	}
	if err := pb.ErrFromString(reply.GetErr()); err != nil {
		return nil, err
	}
	return reply.GetPluginEnvironment(), nil
}

func (s *systemClient) VaultVersion(ctx context.Context) (string, error) {
	env, err := s.PluginEnv(ctx)
	return env.GetVaultVersion(), err
}

func (s *systemClient) GeneratePasswordFromPolicy(ctx context.Context, policyName string) (string, error) {
	reply, err := s.client.GeneratePasswordFromPolicy(ctx, &pb.GeneratePasswordFromPolicyRequest{PolicyName: policyName})
	return reply.GetPassword(), err
}

func (s *systemClient) ClusterID(ctx context.Context) (string, error) {
	reply, err := s.client.ClusterInfo(ctx, &pb.Empty{})
	if err != nil {
		return "", err
	}
	return reply.GetClusterId(), pb.ErrFromString(reply.GetErr())
}

func (s *systemClient) GenerateIdentityToken(ctx context.Context, req *pluginutil.IdentityTokenRequest) (*pluginutil.IdentityTokenResponse, error) {
	reply, err := s.client.GenerateIdentityToken(ctx, &pb.GenerateIdentityTokenRequest{
		Audience: req.Audience,
		Ttl:      int64(req.TTL.Seconds()),
	})
	if err != nil {
		return nil, err
	}
	return &pluginutil.IdentityTokenResponse{
		Token: pluginutil.IdentityToken(reply.GetToken()),
		TTL:   time.Duration(reply.GetTtl()) * time.Second,
	}, nil
}

func (s *systemClient) RegisterRotationJob(ctx context.Context, req *rotation.RotationJobConfigureRequest) (string, error) {
	reply, err := s.client.RegisterRotationJob(ctx, &pb.RegisterRotationJobRequest{Job: &pb.RotationJobInput{
		Name:             req.Name,
		MountPoint:       req.MountPoint,
		Path:             req.ReqPath,
		RotationSchedule: req.RotationSchedule,
		RotationWindow:   int64(req.RotationWindow.Seconds()),
		RotationPeriod:   int64(req.RotationPeriod.Seconds()),
	}})
	if err != nil {
		return "", err
	}
	return reply.GetRotationId(), pb.ErrFromString(reply.GetErr())
}

func (s *systemClient) DeregisterRotationJob(ctx context.Context, req *rotation.RotationJobDeregisterRequest) error {
	_, err := s.client.DeregisterRotationJob(ctx, &pb.DeregisterRotationJobRequest{Req: &pb.DeregisterRotationRequestInput{
		MountPoint: req.MountPoint,
		ReqPath:    req.ReqPath,
	}})
	return err
}

// A plugin cannot look at other plugins or launch them.
var errHostOnly = errors.New("not available to a plugin")

func (s *systemClient) LookupPlugin(context.Context, string, consts.PluginType) (*pluginutil.PluginRunner, error) {
	return nil, fmt.Errorf("LookupPlugin: %w", errHostOnly)
}

func (s *systemClient) LookupPluginVersion(context.Context, string, consts.PluginType, string) (*pluginutil.PluginRunner, error) {
	return nil, fmt.Errorf("LookupPluginVersion: %w", errHostOnly)
}

func (s *systemClient) ListVersionedPlugins(context.Context, consts.PluginType) ([]pluginutil.VersionedPlugin, error) {
	return nil, fmt.Errorf("ListVersionedPlugins: %w", errHostOnly)
}

func (s *systemClient) NewPluginClient(context.Context, pluginutil.PluginClientConfig) (pluginutil.PluginClient, error) {
	return nil, fmt.Errorf("NewPluginClient: %w", errHostOnly)
}

func (s *systemClient) DownloadExtractVerifyPlugin(context.Context, *pluginutil.PluginRunner) error {
	return fmt.Errorf("DownloadExtractVerifyPlugin: %w", errHostOnly)
}
