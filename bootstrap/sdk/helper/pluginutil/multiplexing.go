// SPDX-License-Identifier: MPL-2.0

package pluginutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// MultiplexingCtxKey is the gRPC metadata key that names the mount a call is
// for.
const MultiplexingCtxKey string = "multiplex_id"

// ErrNoMultiplexingIDFound is returned for a call that names no mount.
var ErrNoMultiplexingIDFound = errors.New("no multiplexing ID found")

// PluginMultiplexingServerImpl answers a host's question whether this process
// can serve many mounts.
type PluginMultiplexingServerImpl struct {
	UnimplementedPluginMultiplexingServer

	Supported bool
}

// MultiplexingSupport implements PluginMultiplexingServer.
func (s PluginMultiplexingServerImpl) MultiplexingSupport(context.Context, *MultiplexingSupportRequest) (*MultiplexingSupportResponse, error) {
	return &MultiplexingSupportResponse{Supported: s.Supported}, nil
}

// MultiplexingSupported asks the plugin behind cc whether it can serve many
// mounts. A plugin that does not know the question cannot, and neither may one
// whose name the operator has opted out.
func MultiplexingSupported(ctx context.Context, cc grpc.ClientConnInterface, name string) (bool, error) {
	if cc == nil {
		return false, errors.New("client connection is nil")
	}
	if slices.Contains(strings.Split(readEnv(PluginMultiplexingOptOut), ","), name) {
		return false, nil
	}
	reply, err := NewPluginMultiplexingClient(cc).MultiplexingSupport(ctx, &MultiplexingSupportRequest{})
	if status.Code(err) == codes.Unimplemented {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return reply.GetSupported(), nil
}

// GetMultiplexIDFromContext returns which mount an incoming call is for.
func GetMultiplexIDFromContext(ctx context.Context) (string, error) {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return "", errors.New("missing plugin multiplexing metadata")
	}
	ids := md.Get(MultiplexingCtxKey)
	switch {
	case len(ids) == 0:
		return "", ErrNoMultiplexingIDFound
	case len(ids) > 1:
		return "", fmt.Errorf("unexpected number of IDs in metadata: (%d)", len(ids))
	case ids[0] == "":
		return "", errors.New("empty multiplex ID in metadata")
	}
	return ids[0], nil
}
