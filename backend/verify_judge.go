// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/netip"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// question is what one verification asks.
type question struct {
	key string
	// keyID and roleID in place of a key ask for the state only.
	keyID, roleID string
	byID          bool
	scopes        []string // all required
	anyScope      []string // one of them required; none if empty
	remoteAddr    string
	client        string // label for usage
	// role, if set, is the only role whose keys are known.
	role string
	// fresh: the answer comes from storage, not from what this node remembers.
	fresh bool
	// timeline, if set, asks for the key's future, in a form that the asker knows.
	timeline int64
}

// verdict is the answer to a question.
type verdict struct {
	code   code
	now    time.Time
	status keyring.Status
	// known is the key and its role, once the secret has matched; nil before.
	known *keyView
	// hint says what is odd about the text that was presented; empty if nothing is,
	// and where it was found.
	hint string
	// cache is for how many seconds the answer may be used without asking.
	cache int64
	// future is the key's timeline, for who asked for it.
	future []timeline.Entry
}

// How long an answer may be cached where nothing known ends it before. This is
// also how late a cache that follows no changes notices a revocation.
const (
	cacheValid    = 30
	cacheRefused  = 10
	cacheLimited  = 1
	cacheUnsafely = 5 // at most, where the node may not write and may be behind
)

// judge is the decision about a key whose secret has matched. It takes no
// tokens of a rate limit: whoever calls it does, if the answer is VALID.
func judge(key *keyRecord, role *roleRecord, scopes []string, cidrs []netip.Prefix, q *question, now time.Time) (code, keyring.Status) {
	c, st := codeAt(key, role, now)
	if c != codeValid {
		return c, st
	}
	switch {
	case !policy.ScopesCover(scopes, q.scopes...), !coversOne(scopes, q.anyScope):
		return codeScope, st
	case !admits(role, cidrs, q.remoteAddr):
		return codeIP, st
	}
	return codeValid, st
}

// codeAt is the part of the decision that depends on nothing but the instant.
func codeAt(key *keyRecord, role *roleRecord, now time.Time) (code, keyring.Status) {
	st, exists := statusOf(key, role, now)
	if !exists {
		return codeNotFound, st
	}
	switch st.State {
	case keyring.Revoked:
		return codeRevoked, st
	case keyring.Expired:
		return codeExpired, st
	case keyring.Retired:
		return codeRetired, st
	case keyring.Pending, keyring.Current, keyring.Previous, keyring.Withdrawn:
	}
	switch {
	case !st.Verifies:
		// Too long before its activation: not there yet.
		return codeNotFound, st
	case role.Policy.Disabled:
		return codeDisabled, st
	}
	return codeValid, st
}

// coversOne reports whether the scopes cover one of those named, if any is.
func coversOne(scopes, anyOf []string) bool {
	if len(anyOf) == 0 {
		return true
	}
	return slices.ContainsFunc(anyOf, func(scope string) bool { return policy.ScopesCover(scopes, scope) })
}

// cacheSeconds is for how long the answer holds unless somebody decides
// otherwise: never past the key's end, nor past an activation, which changes
// states.
func cacheSeconds(c code, st keyring.Status, role *roleRecord, now time.Time, mayWrite bool) int64 {
	left := int64(cacheRefused)
	switch c {
	case codeValid, codeState:
		left = cacheValid
	case codeRate:
		left = cacheLimited
	default:
	}
	if !mayWrite {
		left = min(left, cacheUnsafely)
	}
	if st.State.Ended() {
		return left
	}
	until := func(t time.Time) {
		// Answers show whole seconds; what is cached ends by what they show.
		left = max(0, min(left, int64(t.Truncate(time.Second).Sub(now)/time.Second)))
	}
	if !st.Until.IsZero() {
		until(st.Until)
	}
	for i := len(role.Ring.Versions) - 1; i >= 0; i-- {
		if v := &role.Ring.Versions[i]; v.Activate.After(now) {
			until(v.Activate)
		}
	}
	return left
}
