// SPDX-License-Identifier: MPL-2.0

package pb

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// LogicalRequestToProtoRequest encodes a request. What only a host knows (the
// storage, the HTTP request, the token) stays behind.
func LogicalRequestToProtoRequest(r *logical.Request) (*Request, error) {
	if r == nil {
		return nil, errors.New("no request to encode")
	}
	data, err := encodeMap(r.Data)
	if err != nil {
		return nil, fmt.Errorf("encode request data: %w", err)
	}
	secret, err := secretToProto(r.Secret)
	if err != nil {
		return nil, err
	}
	auth, err := authToProto(r.Auth)
	if err != nil {
		return nil, err
	}
	out := &Request{
		Id:                       r.ID,
		ReplicationCluster:       r.ReplicationCluster,
		Operation:                string(r.Operation),
		Path:                     r.Path,
		Data:                     data,
		Secret:                   secret,
		Auth:                     auth,
		Headers:                  headersToProto(r.Headers),
		ClientToken:              r.ClientToken,
		ClientTokenAccessor:      r.ClientTokenAccessor,
		DisplayName:              r.DisplayName,
		MountPoint:               r.MountPoint,
		MountType:                r.MountType,
		MountAccessor:            r.MountAccessor,
		ClientTokenRemainingUses: int64(r.ClientTokenRemainingUses),
		EntityId:                 r.EntityID,
		PolicyOverride:           r.PolicyOverride,
		Unauthenticated:          r.Unauthenticated,
		Connection:               connectionToProto(r.Connection),
		RequiresSnapshotId:       r.RequiresSnapshotID,
	}
	if w := r.WrapInfo; w != nil {
		out.WrapInfo = &RequestWrapInfo{Ttl: int64(w.TTL), Format: w.Format, SealWrap: w.SealWrap}
	}
	return out, nil
}

// ProtoRequestToLogicalRequest decodes a request, which has no storage yet.
func ProtoRequestToLogicalRequest(r *Request) (*logical.Request, error) {
	if r == nil {
		return nil, errors.New("message without a request")
	}
	data, err := decodeMap(r.Data)
	if err != nil {
		return nil, fmt.Errorf("decode request data: %w", err)
	}
	secret, err := secretFromProto(r.Secret)
	if err != nil {
		return nil, err
	}
	auth, err := authFromProto(r.Auth)
	if err != nil {
		return nil, err
	}
	connection, err := connectionFromProto(r.Connection)
	if err != nil {
		return nil, err
	}
	out := &logical.Request{
		ID:                       r.Id,
		ReplicationCluster:       r.ReplicationCluster,
		Operation:                logical.Operation(r.Operation),
		Path:                     r.Path,
		Data:                     data,
		Secret:                   secret,
		Auth:                     auth,
		Headers:                  headersFromProto(r.Headers),
		ClientToken:              r.ClientToken,
		ClientTokenAccessor:      r.ClientTokenAccessor,
		DisplayName:              r.DisplayName,
		MountPoint:               r.MountPoint,
		MountType:                r.MountType,
		MountAccessor:            r.MountAccessor,
		ClientTokenRemainingUses: int(r.ClientTokenRemainingUses),
		EntityID:                 r.EntityId,
		PolicyOverride:           r.PolicyOverride,
		Unauthenticated:          r.Unauthenticated,
		Connection:               connection,
		RequiresSnapshotID:       r.RequiresSnapshotId,
	}
	if w := r.WrapInfo; w != nil {
		out.WrapInfo = &logical.RequestWrapInfo{TTL: time.Duration(w.Ttl), Format: w.Format, SealWrap: w.SealWrap}
	}
	return out, nil
}

func headersToProto(headers map[string][]string) map[string]*Header {
	if len(headers) == 0 {
		return nil
	}
	out := make(map[string]*Header, len(headers))
	for name, values := range headers {
		out[name] = &Header{Header: values}
	}
	return out
}

func headersFromProto(headers map[string]*Header) map[string][]string {
	if len(headers) == 0 {
		return nil
	}
	out := make(map[string][]string, len(headers))
	for name, values := range headers {
		out[name] = values.GetHeader()
	}
	return out
}
