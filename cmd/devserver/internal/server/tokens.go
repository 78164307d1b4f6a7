// SPDX-License-Identifier: MPL-2.0

package server

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Token records are stored under the digest of the token: the token itself is nowhere on disk.
const (
	tokenPrefix    = "token/id/"
	accessorPrefix = "token/accessor/"
	childPrefix    = "token/child/"
)

const rootPolicy = "root"

type token struct {
	// Digest is the record's key.
	Digest         string            `json:"digest"`
	Accessor       string            `json:"accessor"`
	Parent         string            `json:"parent,omitempty"`
	Policies       []string          `json:"policies"`
	Path           string            `json:"path"`
	Meta           map[string]string `json:"meta,omitempty"`
	DisplayName    string            `json:"display_name"`
	NumUses        int               `json:"num_uses"`
	Created        time.Time         `json:"created"`
	LastRenewal    time.Time         `json:"last_renewal"`
	TTL            time.Duration     `json:"ttl"`
	ExplicitMaxTTL time.Duration     `json:"explicit_max_ttl"`
	Period         time.Duration     `json:"period"`
	Renewable      bool              `json:"renewable"`
	// Expires is zero for a token without end.
	Expires time.Time `json:"expires"`
	// Revoking is set before the first lease of a token is touched: from then on it authorises nothing,
	// and a revocation that was interrupted is finished at the next start.
	Revoking bool `json:"revoking,omitempty"`
	// UsedUp marks the last permitted use.
	UsedUp bool `json:"used_up,omitempty"`
	// Initial marks the root token that the server was started with.
	Initial bool `json:"initial,omitempty"`
}

func digest(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

func newToken() string { return "hvs." + rand.Text() }

func (t *token) root() bool { return slices.Contains(t.Policies, rootPolicy) }

func (t *token) remaining(now time.Time) time.Duration {
	if t.Expires.IsZero() {
		return 0
	}
	return max(t.Expires.Sub(now), 0)
}

// renewable reports whether a renewal could gain the token anything.
func (t *token) renewable() bool { return t.Renewable && !t.Expires.IsZero() }

// findToken returns the token that id names if it is in force, else nil.
func (s *Server) findToken(id string) (*token, error) {
	return s.findTokenByDigest(digest(id))
}

func (s *Server) findTokenByDigest(d string) (*token, error) {
	var t token
	found, err := s.load(tokenPrefix+d, &t)
	if err != nil || !found {
		return nil, err
	}
	if t.Revoking || t.UsedUp || !t.Expires.IsZero() && !s.now().Before(t.Expires) {
		return nil, nil
	}
	return &t, nil
}

func (s *Server) findTokenByAccessor(accessor string) (*token, error) {
	var d string
	found, err := s.load(accessorPrefix+accessor, &d)
	if err != nil || !found {
		return nil, err
	}
	return s.findTokenByDigest(d)
}

// use counts a use of a token with limited uses. It returns nil when none is left.
func (s *Server) use(t *token) (*token, error) {
	if t.NumUses == 0 {
		return t, nil
	}
	defer s.tokenLocks.lock(t.Digest).Unlock()
	t, err := s.findTokenByDigest(t.Digest)
	if err != nil || t == nil {
		return nil, err
	}
	if t.NumUses--; t.NumUses == 0 {
		t.UsedUp = true
	}
	return t, s.cfg.Store.Apply(put(tokenPrefix+t.Digest, t))
}

// createToken stores a new token and returns the string that names it.
func (s *Server) createToken(id string, t *token) (string, error) {
	if id == "" {
		id = newToken()
	}
	t.Digest, t.Accessor = digest(id), rand.Text()
	if t.TTL > 0 {
		t.Expires = t.Created.Add(t.TTL)
	}
	writes := []write{put(tokenPrefix+t.Digest, t), put(accessorPrefix+t.Accessor, t.Digest)}
	if t.Parent != "" {
		writes = append(writes, put(childPrefix+t.Parent+"/"+t.Digest, true))
	}
	if err := s.cfg.Store.Apply(writes...); err != nil {
		return "", fmt.Errorf("store token: %w", err)
	}
	if !t.Expires.IsZero() {
		s.schedule(dueToken, t.Digest, t.Expires)
	}
	return id, nil
}

// writeRootToken makes the configured token the only initial one.
func (s *Server) writeRootToken() error {
	want := digest(s.cfg.RootToken)
	var stale []write
	present := false
	err := s.walk(tokenPrefix, func(key string) error {
		var t token
		if found, err := s.load(key, &t); err != nil || !found || !t.Initial {
			return err
		}
		if t.Digest == want {
			present = true
			return nil
		}
		stale = append(stale, del(key), del(accessorPrefix+t.Accessor))
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.cfg.Store.Apply(stale...); err != nil {
		return fmt.Errorf("remove earlier root token: %w", err)
	}
	if present {
		return nil
	}
	_, err = s.createToken(s.cfg.RootToken, &token{
		Policies: []string{rootPolicy}, Path: "auth/token/root", DisplayName: "root", Created: s.now(), Initial: true,
	})
	return err
}

// loadTokens queues the end of every token, and at once that of those whose revocation was interrupted.
func (s *Server) loadTokens() error {
	return s.walk(tokenPrefix, func(key string) error {
		var t token
		if _, err := s.load(key, &t); err != nil {
			return err
		}
		switch {
		case t.Revoking || t.UsedUp:
			s.due.push(dueItem{at: s.now(), kind: dueToken, id: t.Digest})
		case !t.Expires.IsZero():
			s.due.push(dueItem{at: t.Expires, kind: dueToken, id: t.Digest})
		}
		return nil
	})
}

// endToken looks at a token that was announced as due.
func (s *Server) endToken(d string) error {
	var t token
	found, err := s.load(tokenPrefix+d, &t)
	if err != nil {
		s.due.push(dueItem{at: s.now().Add(revokeRetryBase), kind: dueToken, id: d})
		return err
	}
	switch {
	case !found || !t.Revoking && !t.UsedUp && t.Expires.IsZero():
		return nil
	case !t.Revoking && !t.UsedUp && s.now().Before(t.Expires):
		s.due.push(dueItem{at: t.Expires, kind: dueToken, id: d})
		return nil
	}
	if err := s.revokeToken(d, false); err != nil {
		s.due.push(dueItem{at: s.now().Add(revokeRetryBase), kind: dueToken, id: d})
		return err
	}
	return nil
}

// revokeToken ends a token, its leases and, unless they shall become orphans, its children. Order matters:
// the token first refuses, then everything that hangs on it is marked, and only then is it forgotten.
func (s *Server) revokeToken(d string, orphanChildren bool) error {
	t, err := s.markRevoking(d)
	if err != nil || t == nil {
		return err
	}
	var children []string
	err = s.walk(childPrefix+d+"/", func(key string) error {
		children = append(children, key[strings.LastIndexByte(key, '/')+1:])
		return nil
	})
	if err != nil {
		return err
	}
	for _, child := range children {
		if orphanChildren {
			err = s.makeOrphan(child)
		} else {
			err = s.revokeToken(child, false)
		}
		if err != nil {
			return err
		}
	}
	if err := s.markTokenLeases(d); err != nil {
		return err
	}
	writes := []write{del(tokenPrefix + d), del(accessorPrefix + t.Accessor)}
	if t.Parent != "" {
		writes = append(writes, del(childPrefix+t.Parent+"/"+d))
	}
	for _, child := range children {
		writes = append(writes, del(childPrefix+d+"/"+child))
	}
	return s.cfg.Store.Apply(writes...)
}

func (s *Server) markRevoking(d string) (*token, error) {
	defer s.tokenLocks.lock(d).Unlock()
	var t token
	found, err := s.load(tokenPrefix+d, &t)
	if err != nil || !found {
		return nil, err
	}
	if t.Initial && t.Digest == digest(s.cfg.RootToken) {
		return nil, badRequest("the root token that this development server was started with cannot be revoked")
	}
	t.Revoking = true
	return &t, s.cfg.Store.Apply(put(tokenPrefix+d, t))
}

func (s *Server) makeOrphan(d string) error {
	defer s.tokenLocks.lock(d).Unlock()
	var t token
	found, err := s.load(tokenPrefix+d, &t)
	if err != nil || !found {
		return err
	}
	t.Parent = ""
	return s.cfg.Store.Apply(put(tokenPrefix+d, t))
}

// renewToken extends a token by Vault's rules and returns the warnings.
func (s *Server) renewToken(t *token, increment time.Duration) (*token, []string, error) {
	defer s.tokenLocks.lock(t.Digest).Unlock()
	t, err := s.findTokenByDigest(t.Digest)
	if err != nil {
		return nil, nil, err
	}
	if t == nil {
		return nil, nil, errors.New("token not found")
	}
	if !t.renewable() {
		return nil, nil, badRequest("lease is not renewable")
	}
	ttl, warnings, err := leaseTTL(ttlInput{
		now: s.now(), start: t.Created, increment: increment, ttl: t.TTL, period: t.Period,
		explicitMax: t.ExplicitMaxTTL, mountDefault: systemDefaultTTL, mountMax: systemMaxTTL,
	})
	if err != nil {
		return nil, nil, badRequest("%v", err)
	}
	t.LastRenewal = s.now()
	t.Expires = t.LastRenewal.Add(ttl)
	if err := s.cfg.Store.Apply(put(tokenPrefix+t.Digest, t)); err != nil {
		return nil, nil, err
	}
	s.schedule(dueToken, t.Digest, t.Expires)
	return t, warnings, nil
}

// authOf is the answer to a creation or a renewal.
func (s *Server) authOf(t *token, id string) *logical.Auth {
	return &logical.Auth{
		LeaseOptions:  logical.LeaseOptions{TTL: t.remaining(s.now()).Round(time.Second), Renewable: t.renewable()},
		ClientToken:   id,
		Accessor:      t.Accessor,
		DisplayName:   t.DisplayName,
		Policies:      t.Policies,
		TokenPolicies: t.Policies,
		Metadata:      t.Meta,
		NumUses:       t.NumUses,
		TokenType:     logical.TokenTypeService,
		Orphan:        t.Parent == "",
	}
}
