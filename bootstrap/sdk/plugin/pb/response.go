// SPDX-License-Identifier: MPL-2.0

package pb

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/logical"
)

// LogicalResponseToProtoResponse encodes a response; nil stays nil.
func LogicalResponseToProtoResponse(r *logical.Response) (*Response, error) {
	if r == nil {
		return nil, nil
	}
	data, err := encodeMap(r.Data)
	if err != nil {
		return nil, fmt.Errorf("encode response data: %w", err)
	}
	secret, err := secretToProto(r.Secret)
	if err != nil {
		return nil, err
	}
	auth, err := authToProto(r.Auth)
	if err != nil {
		return nil, err
	}
	return &Response{
		Secret:    secret,
		Auth:      auth,
		Data:      data,
		Redirect:  r.Redirect,
		Warnings:  r.Warnings,
		WrapInfo:  WrapInfoToProto(r.WrapInfo),
		Headers:   headersToProto(r.Headers),
		MountType: r.MountType,
	}, nil
}

// ProtoResponseToLogicalResponse decodes a response; nil stays nil.
func ProtoResponseToLogicalResponse(r *Response) (*logical.Response, error) {
	if r == nil {
		return nil, nil
	}
	data, err := decodeMap(r.Data)
	if err != nil {
		return nil, fmt.Errorf("decode response data: %w", err)
	}
	secret, err := secretFromProto(r.Secret)
	if err != nil {
		return nil, err
	}
	auth, err := authFromProto(r.Auth)
	if err != nil {
		return nil, err
	}
	return &logical.Response{
		Secret:    secret,
		Auth:      auth,
		Data:      data,
		Redirect:  r.Redirect,
		Warnings:  r.Warnings,
		WrapInfo:  WrapInfoFromProto(r.WrapInfo),
		Headers:   headersFromProto(r.Headers),
		MountType: r.MountType,
	}, nil
}

// WrapInfoToProto encodes the description of a wrapped response.
func WrapInfoToProto(w *wrapping.ResponseWrapInfo) *ResponseWrapInfo {
	if w == nil {
		return nil
	}
	return &ResponseWrapInfo{
		Ttl:             int64(w.TTL),
		Token:           w.Token,
		Accessor:        w.Accessor,
		CreationTime:    timestamppb.New(w.CreationTime),
		WrappedAccessor: w.WrappedAccessor,
		WrappedEntityId: w.WrappedEntityID,
		Format:          w.Format,
		CreationPath:    w.CreationPath,
		SealWrap:        w.SealWrap,
	}
}

// WrapInfoFromProto decodes the description of a wrapped response. A peer that
// sent no creation time gets the zero time.
func WrapInfoFromProto(w *ResponseWrapInfo) *wrapping.ResponseWrapInfo {
	if w == nil {
		return nil
	}
	out := &wrapping.ResponseWrapInfo{
		TTL:             time.Duration(w.Ttl),
		Token:           w.Token,
		Accessor:        w.Accessor,
		WrappedAccessor: w.WrappedAccessor,
		WrappedEntityID: w.WrappedEntityId,
		Format:          w.Format,
		CreationPath:    w.CreationPath,
		SealWrap:        w.SealWrap,
	}
	if w.CreationTime != nil {
		out.CreationTime = w.CreationTime.AsTime()
	}
	return out
}
