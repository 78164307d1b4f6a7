// SPDX-License-Identifier: MPL-2.0

package pb

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/go-sockaddr"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hashicorp/vault/sdk/logical"
)

// encodeMap keeps a nil map (null) apart from an empty one.
func encodeMap(data map[string]interface{}) (string, error) {
	text, err := json.Marshal(data)
	return string(text), err
}

// decodeMap makes every number a float64, as the servers do: handlers must
// accept that.
func decodeMap(text string) (map[string]interface{}, error) {
	var data map[string]interface{}
	err := json.Unmarshal([]byte(text), &data)
	return data, err
}

func leaseToProto(l logical.LeaseOptions) *LeaseOptions {
	return &LeaseOptions{
		Ttl:       int64(l.TTL),
		MaxTtl:    int64(l.MaxTTL),
		Renewable: l.Renewable,
		Increment: int64(l.Increment),
		IssueTime: timestamppb.New(l.IssueTime),
	}
}

func leaseFromProto(l *LeaseOptions) (logical.LeaseOptions, error) {
	if l == nil {
		return logical.LeaseOptions{}, nil
	}
	if err := l.IssueTime.CheckValid(); err != nil {
		return logical.LeaseOptions{}, fmt.Errorf("lease issue time: %w", err)
	}
	return logical.LeaseOptions{
		TTL:       time.Duration(l.Ttl),
		MaxTTL:    time.Duration(l.MaxTtl),
		Renewable: l.Renewable,
		Increment: time.Duration(l.Increment),
		IssueTime: l.IssueTime.AsTime(),
	}, nil
}

func secretToProto(s *logical.Secret) (*Secret, error) {
	if s == nil {
		return nil, nil
	}
	data, err := encodeMap(s.InternalData)
	if err != nil {
		return nil, fmt.Errorf("encode secret's internal data: %w", err)
	}
	return &Secret{
		LeaseOptions: leaseToProto(s.LeaseOptions),
		InternalData: data,
		LeaseId:      s.LeaseID,
	}, nil
}

func secretFromProto(s *Secret) (*logical.Secret, error) {
	if s == nil {
		return nil, nil
	}
	lease, err := leaseFromProto(s.LeaseOptions)
	if err != nil {
		return nil, err
	}
	data, err := decodeMap(s.InternalData)
	if err != nil {
		return nil, fmt.Errorf("decode secret's internal data: %w", err)
	}
	return &logical.Secret{
		LeaseOptions: lease,
		InternalData: data,
		LeaseID:      s.LeaseId,
	}, nil
}

func authToProto(a *logical.Auth) (*Auth, error) {
	if a == nil {
		return nil, nil
	}
	data, err := encodeMap(a.InternalData)
	if err != nil {
		return nil, fmt.Errorf("encode auth's internal data: %w", err)
	}
	var cidrs []string
	for _, cidr := range a.BoundCIDRs {
		cidrs = append(cidrs, cidr.String())
	}
	return &Auth{
		LeaseOptions:     leaseToProto(a.LeaseOptions),
		InternalData:     data,
		DisplayName:      a.DisplayName,
		Policies:         a.Policies,
		Metadata:         a.Metadata,
		ClientToken:      a.ClientToken,
		Accessor:         a.Accessor,
		Period:           int64(a.Period),
		NumUses:          int64(a.NumUses),
		EntityId:         a.EntityID,
		Alias:            a.Alias,
		GroupAliases:     a.GroupAliases,
		BoundCidrs:       cidrs,
		TokenPolicies:    a.TokenPolicies,
		IdentityPolicies: a.IdentityPolicies,
		ExplicitMaxTtl:   int64(a.ExplicitMaxTTL),
		TokenType:        uint32(a.TokenType),
		NoDefaultPolicy:  a.NoDefaultPolicy,
	}, nil
}

func authFromProto(a *Auth) (*logical.Auth, error) {
	if a == nil {
		return nil, nil
	}
	lease, err := leaseFromProto(a.LeaseOptions)
	if err != nil {
		return nil, err
	}
	var data map[string]interface{}
	// OpenBao takes an auth without internal data, Vault does not.
	if a.InternalData != "" {
		if data, err = decodeMap(a.InternalData); err != nil {
			return nil, fmt.Errorf("decode auth's internal data: %w", err)
		}
	}
	var cidrs []*sockaddr.SockAddrMarshaler
	for _, text := range a.BoundCidrs {
		addr, err := sockaddr.NewSockAddr(text)
		if err != nil {
			return nil, fmt.Errorf("decode bound CIDR: %w", err)
		}
		cidrs = append(cidrs, &sockaddr.SockAddrMarshaler{SockAddr: addr})
	}
	return &logical.Auth{
		LeaseOptions:     lease,
		InternalData:     data,
		DisplayName:      a.DisplayName,
		Policies:         a.Policies,
		Metadata:         a.Metadata,
		ClientToken:      a.ClientToken,
		Accessor:         a.Accessor,
		Period:           time.Duration(a.Period),
		NumUses:          int(a.NumUses),
		EntityID:         a.EntityId,
		Alias:            a.Alias,
		GroupAliases:     a.GroupAliases,
		BoundCIDRs:       cidrs,
		TokenPolicies:    a.TokenPolicies,
		IdentityPolicies: a.IdentityPolicies,
		ExplicitMaxTTL:   time.Duration(a.ExplicitMaxTtl),
		TokenType:        logical.TokenType(a.TokenType),
		NoDefaultPolicy:  a.NoDefaultPolicy,
	}, nil
}
