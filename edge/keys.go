// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// digest is what a key is kept under: with a random key of this edge, so that what it
// holds is of no use elsewhere.
type digest [16]byte

// digester makes digests without allocating.
type digester struct{ pool sync.Pool }

type mac struct {
	hash hash.Hash
	text []byte
	sum  []byte
}

func newDigester(key []byte) *digester {
	return &digester{pool: sync.Pool{New: func() any { return &mac{hash: hmac.New(sha256.New, key)} }}}
}

func (d *digester) of(key string) (out digest) {
	m := d.pool.Get().(*mac) //nolint:forcetypeassert // the pool makes nothing else
	m.text = append(m.text[:0], key...)
	m.hash.Reset()
	_, _ = m.hash.Write(m.text) // a hash.Hash never fails
	m.sum = m.hash.Sum(m.sum[:0])
	copy(out[:], m.sum)
	clear(m.text)
	d.pool.Put(m)
	return out
}

// held is a key as the engine has told it. All but the atomics is never changed: what
// is told anew is another held.
type held struct {
	line    timeline.Timeline
	role    *role
	facts   *facts
	keyID   string
	version int32
	dynamic bool
	// position is how far the feed had come before the engine looked.
	position uint64
	// own is when the call was sent that told all this (elapsed).
	own int64

	// notice and closing are the positions of the last decision about this key alone,
	// and of the last that closed something.
	notice, closing atomic.Uint64
	before          atomic.Int64 // confirmed before the first such notice since position

	// ended is when this edge applied the key's end by its own clock (elapsed), 0 if it
	// has not. Nothing undoes that but an answer to a later call.
	ended    atomic.Int64
	used     atomic.Int64 // last use, elapsed
	accepted atomic.Uint32
	first    atomic.Int64 // first and last accepted use that is not reported yet, server time
	last     atomic.Int64
}

// role is what keys of one role share for as long as the edge runs.
type role struct {
	id   string
	name atomic.Pointer[string] // a rename changes it
	keys atomic.Int64           // that are held
	// notice and closing are the positions of the last decision about the role.
	notice, closing atomic.Uint64
	dirt            atomic.Pointer[[]dirt]
	limit           atomic.Pointer[limiter]
}

// over reports whether an answer said that the key has ended.
func (h *held) over() bool { return h.line.Code(0).Ended() }

type limiter struct {
	*rate.Limiter
	perSecond float64
}

// dirt is a decision, and when the feed had been confirmed before it.
type dirt struct {
	position  uint64
	confirmed int64
}

// maxDirt is how many decisions about a role are told apart.
const maxDirt = 8

// facts are what verification takes from the role at each request. Roles that say the
// same share them.
type facts struct {
	scopes    []string
	networks  []netip.Prefix
	anyone    bool // no networks are named
	metadata  map[string]string
	rateLimit float64
	disabled  bool
}

const shardCount = 256

// keyStore is the keys that are held, by their digests.
type keyStore struct {
	shards [shardCount]shard
	size   atomic.Int64
	max    int64
}

type shard struct {
	sync.RWMutex
	keys map[digest]*held
	_    [24]byte // a cache line of its own
}

func newKeyStore(size int) *keyStore {
	s := &keyStore{max: int64(size)}
	for i := range s.shards {
		s.shards[i].keys = map[digest]*held{}
	}
	return s
}

func (s *keyStore) get(d digest) *held {
	shard := &s.shards[d[0]]
	shard.RLock()
	h := shard.keys[d]
	shard.RUnlock()
	return h
}

// put keeps h unless something newer is kept. A key that is used seldom makes room: it
// is returned as gone.
func (s *keyStore) put(d digest, h *held) (old, gone *held) {
	shard := &s.shards[d[0]]
	shard.Lock()
	defer shard.Unlock()
	old = shard.keys[d]
	if old != nil && (old.position > h.position || old.position == h.position && old.own > h.own) {
		return old, h
	}
	if old == nil && s.size.Add(1) > s.max {
		if gone = shard.evict(); gone != nil {
			s.size.Add(-1)
			gone.role.keys.Add(-1)
		}
	}
	if old != nil {
		old.role.keys.Add(-1)
	}
	h.role.keys.Add(1)
	shard.keys[d] = h
	return old, gone
}

// drop forgets h, unless something else is kept in its place.
func (s *keyStore) drop(d digest, h *held) {
	shard := &s.shards[d[0]]
	shard.Lock()
	defer shard.Unlock()
	if shard.keys[d] == h {
		delete(shard.keys, d)
		s.size.Add(-1)
		h.role.keys.Add(-1)
	}
}

// sample is how many keys are looked at for the one that makes room.
const sample = 8

// evict forgets the one of a few keys that was used longest ago.
func (s *shard) evict() *held {
	var oldest digest
	var found *held
	n := 0
	for d, h := range s.keys {
		if found == nil || h.used.Load() < found.used.Load() {
			oldest, found = d, h
		}
		if n++; n == sample {
			break
		}
	}
	if found != nil {
		delete(s.keys, oldest)
	}
	return found
}

// all calls fn with every key that is held, without a lock.
func (s *keyStore) all(fn func(d digest, h *held)) {
	type pair struct {
		d digest
		h *held
	}
	for i := range s.shards {
		shard := &s.shards[i]
		shard.RLock()
		pairs := make([]pair, 0, len(shard.keys))
		for d, h := range shard.keys {
			pairs = append(pairs, pair{d, h})
		}
		shard.RUnlock()
		for _, p := range pairs {
			fn(p.d, p.h)
		}
	}
}
