// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"encoding/hex"
	"time"
)

// ID names what is counted: a version of a role, or one key of a dynamic role.
type ID struct {
	RoleID  string
	Version int
	KeyID   string // empty for a version
}

// RecordName is the name of the record that the counts go to. All versions of a
// role share one; keys, of which there may be a million, are spread over several
// by the first character of their ids.
func (id ID) RecordName() string {
	if id.KeyID == "" {
		return id.RoleID + "/versions"
	}
	return id.RoleID + "/keys-" + hex.EncodeToString([]byte(id.KeyID[:1]))
}

// Record is the counts of a role's versions, or of some of its keys.
type Record struct {
	// Role is the name of the role, by which its absence can be noticed.
	Role     string          `json:"role,omitempty"`
	Versions map[int]*Use    `json:"versions,omitempty"`
	Keys     map[string]*Use `json:"keys,omitempty"`
	// Ended is the uses of ended keys by hour (Unix seconds).
	Ended map[int64]int64 `json:"ended,omitempty"`
}

// Use is what this server saw, apart from it what it was told, and how often it
// handed the key out, which is no use of it.
type Use struct {
	Seen     Tally `json:"s,omitzero"`
	Reported Tally `json:"p,omitzero"`
	Reads    Reads `json:"d,omitzero"`
	// Trusted is the last accepted use that a trusted reporter told of (Unix seconds).
	Trusted int64 `json:"t,omitempty"`
}

func (u *Use) add(o *Use) {
	u.Seen.add(&o.Seen)
	u.Reported.add(&o.Reported)
	u.Reads.add(o.Reads)
	u.Trusted = max(u.Trusted, o.Trusted)
}

// Add adds another record. Nothing of it is kept by reference.
func (r *Record) Add(o *Record) {
	if o.Role != "" {
		r.Role = o.Role
	}
	for n, u := range o.Versions {
		entry(&r.Versions, n).add(u)
	}
	for id, u := range o.Keys {
		entry(&r.Keys, id).add(u)
	}
	for hour, n := range o.Ended {
		r.addEnded(hour, n)
	}
}

// find returns the use with that id; nil if there is none.
func (r *Record) find(id ID) *Use {
	if id.KeyID != "" {
		return r.Keys[id.KeyID]
	}
	return r.Versions[id.Version]
}

// findOrAdd returns the use with that id, new if there is none.
func (r *Record) findOrAdd(id ID) *Use {
	if id.KeyID != "" {
		return entry(&r.Keys, id.KeyID)
	}
	return entry(&r.Versions, id.Version)
}

// entries is how many versions and keys the record counts.
func (r *Record) entries() int64 { return int64(len(r.Versions) + len(r.Keys)) }

// labels is by how many labels it tells uses apart.
func (r *Record) labels() int64 {
	n := 0
	for _, u := range r.Versions {
		n += len(u.Seen.Clients) + len(u.Reported.Clients)
	}
	for _, u := range r.Keys {
		n += len(u.Seen.Clients) + len(u.Reported.Clients)
	}
	return int64(n)
}

const hour = int64(time.Hour / time.Second)

// addEnded counts uses of an ended key.
func (r *Record) addEnded(at, n int64) {
	if r.Ended == nil {
		r.Ended = map[int64]int64{}
	}
	r.Ended[at-at%hour] += n
}

func entry[K comparable](m *map[K]*Use, k K) *Use {
	if *m == nil {
		*m = map[K]*Use{}
	}
	if (*m)[k] == nil {
		(*m)[k] = &Use{}
	}
	return (*m)[k]
}
