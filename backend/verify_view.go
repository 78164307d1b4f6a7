// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"net/netip"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// keyView is what verification needs of a key and its role, made ready once
// instead of at each request. Parts of answers are kept as interface values,
// which spares an allocation for each.
type keyView struct {
	path    string // of the key's record
	key     *keyRecord
	role    *roleView
	scopes  []string
	id      any
	version any
	answer  any       // scopes as answered
	stamps  lastStamp // of its end
	last    atomic.Pointer[answered]

	// Where uses of its version, and of itself if it is dynamic, are counted.
	use, keyUse usage.Slot
}

// roleView is the part that all keys of a role share.
type roleView struct {
	path      string // of the role's record
	rec       *roleRecord
	cidrs     []netip.Prefix
	name, id  any
	metadata  any
	rateLimit any
	scopes    any
}

// keyViews are views by key id and role id, bounded. A view belongs to one pair
// of records: others, newer ones, make it useless, so nothing needs to be
// invalidated.
type keyViews struct {
	keys  *lru.Cache[string, *keyView]
	roles *lru.Cache[string, *roleView]
}

func newKeyViews() *keyViews {
	keys, err := lru.New[string, *keyView](defaultCacheSize)
	if err != nil {
		panic(err) // only for a size below one
	}
	roles, err := lru.New[string, *roleView](defaultCacheSize)
	if err != nil {
		panic(err)
	}
	return &keyViews{keys: keys, roles: roles}
}

func (v *keyViews) resize(size int) {
	v.keys.Resize(max(size, 1))
	v.roles.Resize(max(size, 1))
}

// find returns the last view of the key with that id, current or not; nil if
// there is none.
func (v *keyViews) find(id string) *keyView {
	view, _ := v.keys.Get(id)
	return view
}

// of returns the view of the key under the role: last, if it still is.
func (v *keyViews) of(key *keyRecord, role *roleRecord, last *keyView) *keyView {
	if last != nil && last.key == key && last.role.rec == role {
		return last
	}
	rv, ok := v.roles.Get(role.ID)
	if !ok || rv.rec != role {
		rv = newRoleView(role)
		v.roles.Add(role.ID, rv)
	}
	view := newKeyView(key, rv)
	v.keys.Add(key.ID, view)
	return view
}

func newKeyView(key *keyRecord, rv *roleView) *keyView {
	view := &keyView{path: keyPath(key.ID), key: key, role: rv, id: key.ID, version: key.Version}
	if key.Narrowed {
		view.scopes = keyScopes(rv.rec, key)
		view.answer = view.scopes
	} else {
		view.scopes, view.answer = rv.rec.Policy.Scopes, rv.scopes
	}
	return view
}

func newRoleView(role *roleRecord) *roleView {
	metadata := role.Policy.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	return &roleView{
		path: rolePath(role.Name), rec: role, cidrs: policy.ParseNetworks(role.Policy.AllowedCIDRs), name: role.Name, id: role.ID,
		metadata: metadata, rateLimit: role.Policy.RateLimit, scopes: orEmpty(role.Policy.Scopes),
	}
}
