// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

func leaseID(r *request) (string, error) {
	id := fields(r.Data).text("lease_id")
	if id == "" {
		id = r.vars["lease_id"]
	}
	if id == "" {
		return "", badRequest("lease_id must be specified")
	}
	return id, nil
}

func (s *Server) leaseLookup(_ context.Context, r *request) (*logical.Response, error) {
	id, err := leaseID(r)
	if err != nil {
		return nil, err
	}
	l, err := s.findLease(id)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, badRequest("invalid lease")
	}
	now := s.now()
	data := map[string]any{
		"id": l.ID, "issue_time": l.Issued, "expire_time": l.Expires, "last_renewal": nil, "path": l.Path,
		"renewable": l.Renewable && now.Before(l.Expires) && !l.irrevocable(), "ttl": int64(l.Expires.Sub(now.Round(time.Second)).Seconds()),
	}
	if !l.LastRenewal.IsZero() {
		data["last_renewal"] = l.LastRenewal
	}
	if l.RevokeError != "" {
		data["revoke_error"] = l.RevokeError
	}
	return &logical.Response{Data: data}, nil
}

func (s *Server) leaseList(_ context.Context, r *request) (*logical.Response, error) {
	prefix := strings.Trim(r.vars["prefix"], "/")
	if prefix != "" {
		prefix += "/"
	}
	keys, err := s.cfg.Store.List(leasePrefix+prefix, "", -1)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return logical.ListResponse(keys), nil
}

func (s *Server) leaseRenew(ctx context.Context, r *request) (*logical.Response, error) {
	id, err := leaseID(r)
	if err != nil {
		return nil, err
	}
	increment, err := fields(r.Data).duration("increment")
	if err != nil {
		return nil, err
	}
	return s.renewLease(ctx, id, increment)
}

// leaseRevoke answers when the engine has revoked the secret; with sync=false, when the lease is marked.
func (s *Server) leaseRevoke(ctx context.Context, r *request) (*logical.Response, error) {
	id, err := leaseID(r)
	if err != nil {
		return nil, err
	}
	sync, err := fields(r.Data).flag("sync", true)
	if err != nil {
		return nil, err
	}
	if sync {
		if err := s.revokeLease(ctx, id, false); err != nil {
			return nil, badRequest("%v", err)
		}
		return nil, nil
	}
	if err := s.markLease(id); err != nil {
		return nil, err
	}
	return logical.RespondWithStatusCode(nil, nil, http.StatusAccepted)
}

func (s *Server) leaseRevokePrefix(ctx context.Context, r *request) (*logical.Response, error) {
	return s.leaseRevokeBelow(ctx, r, false)
}

func (s *Server) leaseRevokeForce(ctx context.Context, r *request) (*logical.Response, error) {
	return s.leaseRevokeBelow(ctx, r, true)
}

func (s *Server) leaseRevokeBelow(ctx context.Context, r *request, force bool) (*logical.Response, error) {
	prefix := strings.TrimSuffix(r.vars["prefix"], "/")
	sync, err := fields(r.Data).flag("sync", true)
	if err != nil {
		return nil, err
	}
	if sync || force {
		if err := s.revokeLease(ctx, prefix, force); err != nil {
			return nil, badRequest("%v", err)
		}
		if err := s.revokePrefix(ctx, prefix+"/", force); err != nil {
			return nil, badRequest("%v", err)
		}
		return nil, nil
	}
	if err := s.markLease(prefix); err != nil {
		return nil, err
	}
	err = s.walk(leasePrefix+prefix+"/", func(key string) error {
		return s.markLease(strings.TrimPrefix(key, leasePrefix))
	})
	if err != nil {
		return nil, err
	}
	return logical.RespondWithStatusCode(nil, nil, http.StatusAccepted)
}

func (s *Server) leaseCount(context.Context, *request) (*logical.Response, error) {
	total, counts := 0, map[string]int{}
	err := s.walk(leasePrefix, func(key string) error {
		total++
		if m, _ := s.findMount(strings.TrimPrefix(key, leasePrefix)); m != nil {
			counts[m.entry.Load().Path]++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"lease_count": total, "counts": counts}}, nil
}
