// SPDX-License-Identifier: MPL-2.0

package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

const (
	leasePrefix = "expire/id/"
	// tokenLeasePrefix finds a token's leases: expire/token/<token digest>/<lease digest> holds the lease id.
	tokenLeasePrefix = "expire/token/"
)

// A revocation that fails is tried again after growing waits, and given up after the last attempt.
const (
	revokeRetryBase   = 10 * time.Second
	maxRevokeAttempts = 6
)

// lease is what a renewal or a revocation needs, as it was answered to the client.
type lease struct {
	ID          string         `json:"id"`
	Path        string         `json:"path"`
	Token       string         `json:"token"`
	Data        map[string]any `json:"data"`
	Internal    map[string]any `json:"internal"`
	TTL         time.Duration  `json:"ttl"`
	MaxTTL      time.Duration  `json:"max_ttl"`
	Renewable   bool           `json:"renewable"`
	Issued      time.Time      `json:"issued"`
	Expires     time.Time      `json:"expires"`
	LastRenewal time.Time      `json:"last_renewal"`
	// Attempts and RevokeError tell of revocations that failed; NextAttempt is when to try again.
	Attempts    int       `json:"attempts,omitempty"`
	RevokeError string    `json:"revoke_error,omitempty"`
	NextAttempt time.Time `json:"next_attempt"`
}

func (l *lease) irrevocable() bool { return l.Attempts >= maxRevokeAttempts }

func (l *lease) index() string { return tokenLeasePrefix + l.Token + "/" + digest(l.ID) }

func (l *lease) secret(increment time.Duration) *logical.Secret {
	return &logical.Secret{
		LeaseOptions: logical.LeaseOptions{
			TTL: l.TTL, MaxTTL: l.MaxTTL, Renewable: l.Renewable, Increment: increment, IssueTime: l.Issued,
		},
		InternalData: l.Internal,
	}
}

func (s *Server) findLease(id string) (*lease, error) {
	var l lease
	found, err := s.load(leasePrefix+id, &l)
	if err != nil || !found {
		return nil, err
	}
	return &l, nil
}

func (s *Server) saveLease(l *lease) error {
	return s.cfg.Store.Apply(put(leasePrefix+l.ID, l))
}

// registerLease gives the secret in resp a lease. If that cannot be stored the secret is revoked at
// once: nobody would ever end it.
func (s *Server) registerLease(ctx context.Context, r *request, m *mount, resp *logical.Response) error {
	secret := resp.Secret
	entry := m.entry.Load()
	now := s.now()
	ttl, warnings, err := leaseTTL(ttlInput{
		now: now, start: now, ttl: secret.TTL, maxTTL: secret.MaxTTL,
		mountDefault: entry.defaultTTL(), mountMax: entry.maxTTL(),
	})
	if err != nil {
		return err
	}
	for _, w := range warnings {
		resp.AddWarning(w)
	}
	secret.TTL, secret.IssueTime = ttl, now
	l := &lease{
		ID: strings.TrimSuffix(r.fullPath, "/") + "/" + rand.Text(), Path: r.fullPath, Data: resp.Data, Internal: secret.InternalData,
		TTL: ttl, MaxTTL: secret.MaxTTL, Renewable: secret.Renewable, Issued: now, Expires: now.Add(ttl),
	}
	writes := []write{put(leasePrefix+l.ID, l)}
	if r.token != nil {
		l.Token = r.token.Digest
		writes = []write{put(leasePrefix+l.ID, l), put(l.index(), l.ID)}
		// Between its check and now the token may have been revoked, and with it the leases known then.
		defer s.tokenLocks.lock(r.token.Digest).Unlock()
		if t, err := s.findTokenByDigest(r.token.Digest); err != nil || t == nil {
			if r.token.UsedUp {
				s.discard(ctx, l)
				resp.Secret, resp.Data = nil, logical.ErrorResponse("Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.").Data
				return nil
			}
			s.discard(ctx, l)
			return errors.Join(logical.ErrPermissionDenied, err)
		}
	}
	if err := s.cfg.Store.Apply(writes...); err != nil {
		s.discard(ctx, l)
		return fmt.Errorf("store lease: %w", err)
	}
	s.schedule(dueLease, l.ID, l.Expires)
	secret.LeaseID = l.ID
	// What the engine noted for itself stays here.
	secret.InternalData = nil
	return nil
}

// discard revokes a secret that got no lease.
func (s *Server) discard(ctx context.Context, l *lease) {
	if err := s.sendRevoke(context.WithoutCancel(ctx), l); err != nil {
		s.logger.Error("a secret that could not be leased could not be revoked either", "error", errForLog(err))
	}
}

// renewLease asks the engine, then applies the host's rule.
func (s *Server) renewLease(ctx context.Context, id string, increment time.Duration) (*logical.Response, error) {
	defer s.leaseLocks.lock(id).Unlock()
	l, err := s.findLease(id)
	switch {
	case err != nil:
		return nil, err
	case l == nil:
		return nil, badRequest("lease not found")
	case l.irrevocable():
		return nil, badRequest("lease is expired and has failed previous revocation attempts")
	case !s.now().Before(l.Expires):
		return nil, badRequest("lease expired")
	case !l.Renewable:
		return nil, badRequest("lease is not renewable")
	}
	m, path := s.findMount(l.Path)
	if m == nil {
		return nil, noRoute(l.Path)
	}
	req := logical.RenewRequest(path, l.secret(increment), l.Data)
	resp, err := s.route(ctx, m, req)
	switch {
	case err != nil:
		return nil, badRequest("failed to renew entry: %v", err)
	case resp == nil:
		return nil, nil
	case resp.IsError():
		return &logical.Response{Data: resp.Data}, nil
	case resp.Secret == nil:
		return nil, nil
	}
	entry := m.entry.Load()
	now := s.now()
	ttl, warnings, err := leaseTTL(ttlInput{
		now: now, start: l.Issued, increment: increment, ttl: resp.Secret.TTL, maxTTL: resp.Secret.MaxTTL,
		mountDefault: entry.defaultTTL(), mountMax: entry.maxTTL(),
	})
	if err != nil {
		return nil, badRequest("%v", err)
	}
	for _, w := range warnings {
		resp.AddWarning(w)
	}
	l.Data, l.Internal = resp.Data, resp.Secret.InternalData
	l.TTL, l.MaxTTL, l.Renewable = ttl, resp.Secret.MaxTTL, resp.Secret.Renewable
	l.Expires, l.LastRenewal = now.Add(ttl), now
	if err := s.saveLease(l); err != nil {
		return nil, err
	}
	s.schedule(dueLease, id, l.Expires)
	resp.Secret.TTL, resp.Secret.LeaseID, resp.Secret.InternalData = ttl, id, nil
	return resp, nil
}

// markLease makes a lease due now. From then on it can be neither renewed nor forgotten.
func (s *Server) markLease(id string) error {
	defer s.leaseLocks.lock(id).Unlock()
	l, err := s.findLease(id)
	if err != nil || l == nil {
		return err
	}
	l.Expires, l.NextAttempt, l.Attempts, l.RevokeError = s.now(), time.Time{}, 0, ""
	if err := s.saveLease(l); err != nil {
		return err
	}
	s.schedule(dueLease, id, l.Expires)
	return nil
}

// markTokenLeases makes every lease of a token due now.
func (s *Server) markTokenLeases(tokenDigest string) error {
	return s.walk(tokenLeasePrefix+tokenDigest+"/", func(key string) error {
		var id string
		if found, err := s.load(key, &id); err != nil || !found {
			return err
		}
		return s.markLease(id)
	})
}

// endLease looks at a lease that was announced as due.
func (s *Server) endLease(ctx context.Context, id string) error {
	l, err := s.findLease(id)
	if err != nil {
		s.due.push(dueItem{at: s.now().Add(revokeRetryBase), kind: dueLease, id: id})
		return err
	}
	now := s.now()
	switch {
	case l == nil || l.irrevocable():
		return nil
	case now.Before(l.Expires):
		s.due.push(dueItem{at: l.Expires, kind: dueLease, id: id})
		return nil
	case now.Before(l.NextAttempt):
		s.due.push(dueItem{at: l.NextAttempt, kind: dueLease, id: id})
		return nil
	}
	return s.revokeLease(ctx, id, false)
}

// revokeLease ends the secret and forgets the lease. A failure is noted in the lease and tried again
// later; force forgets the lease all the same.
func (s *Server) revokeLease(ctx context.Context, id string, force bool) error {
	defer s.leaseLocks.lock(id).Unlock()
	l, err := s.findLease(id)
	if err != nil || l == nil {
		return err
	}
	if err := s.sendRevoke(ctx, l); err != nil && !force {
		if ctx.Err() != nil || s.sealed.Load() {
			// The server is stopping or the client left: this says nothing about the lease.
			s.due.push(dueItem{at: s.now(), kind: dueLease, id: id})
			return err
		}
		return errors.Join(fmt.Errorf("failed to revoke entry: %w", err), s.noteFailure(l, err))
	}
	writes := []write{del(leasePrefix + id)}
	if l.Token != "" {
		writes = append(writes, del(l.index()))
	}
	return s.cfg.Store.Apply(writes...)
}

func (s *Server) noteFailure(l *lease, cause error) error {
	now := s.now()
	if l.Expires.After(now) {
		l.Expires = now
	}
	l.RevokeError = cause.Error()
	l.NextAttempt = now.Add(revokeRetryBase << l.Attempts)
	l.Attempts++
	if !l.irrevocable() {
		s.schedule(dueLease, l.ID, l.NextAttempt)
	}
	return s.saveLease(l)
}

func (s *Server) sendRevoke(ctx context.Context, l *lease) error {
	m, path := s.findMount(l.Path)
	if m == nil {
		return noRoute(l.Path)
	}
	req := logical.RevokeRequest(path, l.secret(0), l.Data)
	req.Secret.LeaseID = l.ID
	resp, err := s.route(ctx, m, req)
	if err == nil && resp.IsError() {
		err = resp.Error()
	}
	return err
}

// revokePrefix ends every lease below prefix, and reports the failures together.
func (s *Server) revokePrefix(ctx context.Context, prefix string, force bool) error {
	var failures []error
	err := s.walk(leasePrefix+prefix, func(key string) error {
		id := strings.TrimPrefix(key, leasePrefix)
		if err := s.revokeLease(ctx, id, force); err != nil {
			failures = append(failures, fmt.Errorf("lease %s: %w", id, err))
		}
		return ctx.Err()
	})
	return errors.Join(append(failures, err)...)
}

func (s *Server) loadLeases() error {
	return s.walk(leasePrefix, func(key string) error {
		var l lease
		if _, err := s.load(key, &l); err != nil {
			return err
		}
		if l.irrevocable() {
			return nil
		}
		at := l.Expires
		if l.NextAttempt.After(at) {
			at = l.NextAttempt
		}
		s.due.push(dueItem{at: at, kind: dueLease, id: l.ID})
		return nil
	})
}
