// SPDX-License-Identifier: MPL-2.0

package server

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/wrapping"
	"github.com/hashicorp/vault/sdk/logical"
)

const wrapPrefix = "wrap/id/"

// wrapped is an answer that waits to be fetched once.
type wrapped struct {
	Digest          string                `json:"digest"`
	Accessor        string                `json:"accessor"`
	WrappedAccessor string                `json:"wrapped_accessor,omitempty"`
	CreationPath    string                `json:"creation_path"`
	Created         time.Time             `json:"created"`
	TTL             time.Duration         `json:"ttl"`
	Response        *logical.HTTPResponse `json:"response"`
}

func (w *wrapped) expires() time.Time { return w.Created.Add(w.TTL) }

// wrap stores resp and returns the token that fetches it once, within ttl.
func (s *Server) wrap(resp *logical.Response, ttl time.Duration, path string) (*wrapping.ResponseWrapInfo, error) {
	return s.wrapHTTP(logical.LogicalResponseToHTTPResponse(resp), ttl, path)
}

func (s *Server) wrapHTTP(resp *logical.HTTPResponse, ttl time.Duration, path string) (*wrapping.ResponseWrapInfo, error) {
	id := newToken()
	w := &wrapped{
		Digest: digest(id), Accessor: rand.Text(), CreationPath: path, Created: s.now(), TTL: ttl, Response: resp,
	}
	if resp.Auth != nil {
		w.WrappedAccessor = resp.Auth.Accessor
	}
	if err := s.cfg.Store.Apply(put(wrapPrefix+w.Digest, w)); err != nil {
		return nil, fmt.Errorf("store wrapped response: %w", err)
	}
	s.schedule(dueWrap, w.Digest, w.expires())
	return &wrapping.ResponseWrapInfo{
		TTL: ttl, Token: id, Accessor: w.Accessor, CreationTime: w.Created, CreationPath: path, WrappedAccessor: w.WrappedAccessor,
	}, nil
}

// findWrap returns what the wrapping token id holds, or an error the client understands.
func (s *Server) findWrap(id string) (*wrapped, error) {
	var w wrapped
	found, err := s.load(wrapPrefix+digest(id), &w)
	if err != nil {
		return nil, err
	}
	if !found || !s.now().Before(w.expires()) {
		return nil, badRequest("%v", consts.ErrInvalidWrappingToken)
	}
	return &w, nil
}

// unwrap hands out what is wrapped, to one caller.
func (s *Server) unwrap(id string) (*wrapped, error) {
	defer s.tokenLocks.lock(digest(id)).Unlock()
	w, err := s.findWrap(id)
	if err != nil {
		return nil, err
	}
	return w, s.cfg.Store.Apply(del(wrapPrefix + w.Digest))
}

func (s *Server) endWrap(d string) error {
	var w wrapped
	found, err := s.load(wrapPrefix+d, &w)
	switch {
	case err != nil:
		s.due.push(dueItem{at: s.now().Add(revokeRetryBase), kind: dueWrap, id: d})
		return err
	case !found:
		return nil
	case s.now().Before(w.expires()):
		s.due.push(dueItem{at: w.expires(), kind: dueWrap, id: d})
		return nil
	}
	return s.cfg.Store.Apply(del(wrapPrefix + d))
}

func (s *Server) loadWraps() error {
	return s.walk(wrapPrefix, func(key string) error {
		var w wrapped
		if _, err := s.load(key, &w); err != nil {
			return err
		}
		s.due.push(dueItem{at: w.expires(), kind: dueWrap, id: w.Digest})
		return nil
	})
}
