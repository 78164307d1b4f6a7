// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"math"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// digest is what a key is kept under: with a random key of this edge, so that what it
// holds is of no use elsewhere.
type digest [16]byte

// digester makes digests without allocating: SHA-256 over its secret, which is always
// of the same length, and the key, of which half is taken. So there is no state to go on
// from, and HMAC, which takes half as long again, would tell no less of the key.
type digester struct {
	secret [secretBytes]byte
	long   sync.Pool // buffers for keys that are longer than ours
}

const (
	secretBytes = 32
	// usual is how much of the text that is hashed fits on the stack.
	usual = 192
)

func newDigester(secret []byte) *digester {
	d := &digester{long: sync.Pool{New: func() any { return new([]byte) }}}
	copy(d.secret[:], secret)
	return d
}

func (d *digester) of(key string) digest {
	if secretBytes+len(key) > usual {
		return d.ofLong(key)
	}
	var text [usual]byte
	copy(text[:], d.secret[:])
	n := secretBytes + copy(text[secretBytes:], key)
	sum := sha256.Sum256(text[:n])
	clear(text[:n])
	return digest(sum[:len(digest{})])
}

func (d *digester) ofLong(key string) digest {
	text := d.long.Get().(*[]byte) //nolint:forcetypeassert // the pool makes nothing else
	*text = append(append((*text)[:0], d.secret[:]...), key...)
	sum := sha256.Sum256(*text)
	clear(*text)
	d.long.Put(text)
	return digest(sum[:len(digest{})])
}

// held is a key as the engine has told it. All but the atomics is never changed: what
// is told anew is another held.
//
// The order of the fields is that of the hot path: what finds and judges a key is in
// front, together.
type held struct {
	digest digest
	// position is how far the feed had come before the engine looked.
	position uint64
	// own is when the call was sent that told all this (elapsed).
	own int64
	// notice and closing are the positions of the last decision about this key alone,
	// and of the last that closed something.
	notice atomic.Uint64
	facts  *facts
	names
	line timeline.Timeline

	role *role
	// ended is when this edge applied the key's end by its own clock (elapsed), 0 if it
	// has not. Nothing undoes that but an answer to a later call.
	ended    atomic.Int64
	version  int32
	used     atomic.Int32  // last use, seconds elapsed
	accepted atomic.Uint32 // uses that are not reported yet
	first    atomic.Uint32 // and the first and last of them, seconds since 1970 at the server
	last     atomic.Uint32

	closing atomic.Uint64
	before  atomic.Int64 // confirmed before the first notice since position
}

// seconds of nanoseconds.
func seconds(nanos int64) int64 { return nanos / int64(time.Second) }

// newHeld is a held with that timeline. A short one lies beside it, so that who looks at
// the one has the other.
func newHeld(line timeline.Timeline) *held {
	switch len(line) {
	case 1:
		h := &struct {
			held
			steps [1]timeline.Step
		}{}
		h.line = append(h.steps[:0], line...)
		return &h.held
	case 2:
		h := &struct {
			held
			steps [2]timeline.Step
		}{}
		h.line = append(h.steps[:0], line...)
		return &h.held
	case 3:
		h := &struct {
			held
			steps [3]timeline.Step
		}{}
		h.line = append(h.steps[:0], line...)
		return &h.held
	}
	return &held{line: line}
}

// names are what a key and its role are called, in one text. A role that is renamed has
// its keys asked about anew.
type names struct {
	text       string
	key, roles uint16 // how long the ids are
	slot       uint16 // of the role's id, in roleNotices
	dynamic    bool   // the key is one of many of its role
}

func newNames(keyID, roleID, role string) (names, error) {
	if len(keyID) > math.MaxUint16 || len(roleID) > math.MaxUint16 {
		return names{}, errNames
	}
	return names{text: keyID + roleID + role, key: uint16(len(keyID)), roles: uint16(len(roleID)), slot: slotOf(roleID)}, nil //nolint:gosec // checked
}

var errNames = errors.New("an id is too long")

func (n *names) keyID() string    { return n.text[:n.key] }
func (n *names) roleID() string   { return n.text[n.key : n.key+n.roles] }
func (n *names) roleName() string { return n.text[n.key+n.roles:] }

// roleNotices are the positions of the last decisions about roles, by their ids; roles
// share places. So who finds nothing new there need not look at the role.
type roleNotices [noticeSlots]atomic.Uint64

const noticeSlots = 1 << 14

func slotOf(roleID string) uint16 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, roleID)       // a hash.Hash never fails
	return uint16(h.Sum32() % noticeSlots) //nolint:gosec // below
}

// note tells of a decision about a role. The feed is locked.
func (n *roleNotices) note(roleID string, position uint64) {
	p := &n[slotOf(roleID)]
	p.Store(max(p.Load(), position))
}

// role is what keys of one role share for as long as the edge runs.
type role struct {
	id   string
	keys atomic.Int64 // that are held
	// notice is the position of the last decision about the role.
	notice atomic.Uint64
	told   atomic.Pointer[decisions]
	limit  atomic.Pointer[limiter]
}

// decisions are the last ones about a role; closing is the position of the last that
// closed something.
type decisions struct {
	closing uint64
	last    []dirt
}

// closing is the position of the last decision that closed something.
func (r *role) closing() uint64 {
	if told := r.told.Load(); told != nil {
		return told.closing
	}
	return 0
}

// noticed reports whether something was decided about the key since it was told.
func (h *held) noticed() bool {
	return h.role.notice.Load() > h.position || h.notice.Load() > h.position
}

// dirty reports whether it has to be asked about anew; reset is the position of the last
// reset.
func (h *held) dirty(reset uint64) bool { return h.noticed() || reset > h.position }

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

// keyStore is the keys that are held, by their digests. Those are random, so they say
// themselves where a key belongs; and each place holds a part of the digest, so that a
// key is found with a look at the place and one at itself.
type keyStore struct {
	shards [shardCount]shard
	size   atomic.Int64
	max    int64
}

type shard struct {
	sync.RWMutex
	places []place // a key is at the place its digest says, or follows it without a gap
	n      int
	_      [8]byte // a cache line of its own
}

type place struct {
	tag  uint64
	held *held // nil: none
}

// A shard grows by a quarter when four of five places are taken.
const fullOf, full, growth, smallest = 5, 4, 4, 8

func newKeyStore(size int) *keyStore { return &keyStore{max: int64(size)} }

// reserve makes room for so many keys, before there is one.
func (s *keyStore) reserve(n int) {
	n = min(n, int(s.max)) / shardCount
	for i := range s.shards {
		// Shards are not all as large; a few grow.
		s.shards[i].places = make([]place, max(smallest, (n+n/16)*fullOf/full))
	}
}

func (s *keyStore) get(d digest) *held {
	shard := &s.shards[d[0]]
	shard.RLock()
	h := shard.get(&d)
	shard.RUnlock()
	return h
}

func tagOf(d *digest) uint64 { return binary.BigEndian.Uint64(d[8:]) }

// home is the place that a digest says.
func (s *shard) home(d *digest) int {
	at, _ := bits.Mul64(binary.BigEndian.Uint64(d[1:9]), uint64(len(s.places)))
	return int(at) //nolint:gosec // below len
}

// find is where a key is, or the place that it could take.
func (s *shard) find(d *digest) int {
	tag := tagOf(d)
	for i := s.home(d); ; i = s.after(i) {
		if p := &s.places[i]; p.held == nil || p.tag == tag && p.held.digest == *d {
			return i
		}
	}
}

func (s *shard) after(i int) int {
	if i++; i == len(s.places) {
		return 0
	}
	return i
}

func (s *shard) get(d *digest) *held {
	if s.n == 0 {
		return nil
	}
	return s.places[s.find(d)].held
}

// set takes h in, in the place of one of the same digest if there is one.
func (s *shard) set(h *held) {
	if (s.n+1)*fullOf > len(s.places)*full {
		old := s.places
		s.places, s.n = make([]place, max(smallest, len(old)+len(old)/growth)), 0
		for i := range old {
			if old[i].held != nil {
				s.set(old[i].held)
			}
		}
	}
	p := &s.places[s.find(&h.digest)]
	if p.held == nil {
		s.n++
	}
	*p = place{tagOf(&h.digest), h}
}

// remove forgets a key, and closes the gap.
func (s *shard) remove(d *digest) {
	gap := s.find(d)
	if s.places[gap].held == nil {
		return
	}
	s.n--
	for i := s.after(gap); s.places[i].held != nil; i = s.after(i) {
		// What is between its home and here without the gap stays.
		if home := s.home(&s.places[i].held.digest); s.distance(home, i) >= s.distance(gap, i) {
			s.places[gap] = s.places[i]
			gap = i
		}
	}
	s.places[gap] = place{}
}

// distance is how far a place is after another.
func (s *shard) distance(from, to int) int {
	if to < from {
		to += len(s.places)
	}
	return to - from
}

// put keeps h unless something newer is kept. A key that is used seldom makes room: it
// is returned as gone.
func (s *keyStore) put(d digest, h *held) (old, gone *held) {
	h.digest = d
	shard := &s.shards[d[0]]
	shard.Lock()
	defer shard.Unlock()
	old = shard.get(&d)
	if old != nil && (old.position > h.position || old.position == h.position && old.own > h.own) {
		return old, h
	}
	if old == nil && s.size.Add(1) > s.max {
		if gone = shard.evict(&d); gone != nil {
			s.size.Add(-1)
			gone.role.keys.Add(-1)
		}
	}
	if old != nil {
		old.role.keys.Add(-1)
	}
	h.role.keys.Add(1)
	shard.set(h)
	return old, gone
}

// drop forgets h, unless something else is kept in its place.
func (s *keyStore) drop(d digest, h *held) {
	shard := &s.shards[d[0]]
	shard.Lock()
	defer shard.Unlock()
	if shard.get(&d) == h {
		shard.remove(&d)
		s.size.Add(-1)
		h.role.keys.Add(-1)
	}
}

// sample is how many keys are looked at for the one that makes room.
const sample = 8

// evict forgets the one of a few keys that was used longest ago: of those that follow
// where the new one belongs, which is anywhere.
func (s *shard) evict(d *digest) *held {
	if s.n == 0 {
		return nil
	}
	var found *held
	for i, n, looked := s.home(d), 0, 0; n < sample && looked < len(s.places); i, looked = s.after(i), looked+1 {
		h := s.places[i].held
		if h == nil {
			continue
		}
		n++
		if found == nil || h.used.Load() < found.used.Load() {
			found = h
		}
	}
	s.remove(&found.digest)
	return found
}

// all calls fn with every key that is held, without a lock.
func (s *keyStore) all(fn func(d digest, h *held)) {
	var some []*held
	for i := range s.shards {
		shard := &s.shards[i]
		some = some[:0]
		shard.RLock()
		for _, p := range shard.places {
			if p.held != nil {
				some = append(some, p.held)
			}
		}
		shard.RUnlock()
		for _, h := range some {
			fn(h.digest, h)
		}
	}
}
