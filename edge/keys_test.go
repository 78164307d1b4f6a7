// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
)

func named(keyID, roleID string) names {
	n, _ := newNames(keyID, roleID, "name")
	return n
}

func TestDigests(t *testing.T) {
	a, b := newDigester([]byte("a")), newDigester([]byte("b"))
	if first, again := a.of("k"), a.of("k"); first != again || a.of("k") == a.of("l") || a.of("k") == b.of("k") {
		t.Error("a digest is of the key and of the edge's own secret")
	}
	// Keys of any length, on both sides of what fits.
	seen := map[digest]bool{}
	for n := range 2 * usual {
		seen[a.of(strings.Repeat("k", n))] = true
	}
	if len(seen) != 2*usual {
		t.Errorf("%d digests of %d keys", len(seen), 2*usual)
	}
	if n := testing.AllocsPerRun(100, func() { a.of("some key") }); n > 0 && !raced {
		t.Errorf("%v allocations", n)
	}
}

func TestNewerAnswersStay(t *testing.T) {
	s := newKeyStore(10)
	r, other := &role{}, &role{}
	d := digest{1}
	older, newer := &held{role: r, position: 3}, &held{role: other, position: 4}
	if old, gone := s.put(d, newer); old != nil || gone != nil {
		t.Error(old, gone)
	}
	if old, gone := s.put(d, older); old != newer || gone != older || s.get(d) != newer {
		t.Error("an answer from before a decision took the place of one from after it")
	}
	again := &held{role: r, position: 4}
	if old, gone := s.put(d, again); old != newer || gone != nil || s.get(d) != again {
		t.Error("a later answer was not kept")
	}
	if r.keys.Load() != 1 || other.keys.Load() != 0 || s.size.Load() != 1 {
		t.Errorf("%d and %d keys, %d together", r.keys.Load(), other.keys.Load(), s.size.Load())
	}
	s.drop(d, newer) // was replaced meanwhile
	if s.get(d) != again {
		t.Error("what is not held any more was dropped")
	}
	s.drop(d, again)
	if s.get(d) != nil || s.size.Load() != 0 || r.keys.Load() != 0 {
		t.Error("not dropped")
	}
}

func TestSeldomUsedKeysMakeRoom(t *testing.T) {
	s := newKeyStore(sample)
	r := &role{}
	for i := range byte(sample) {
		h := &held{role: r}
		h.used.Store(100 + int32(i))
		s.put(digest{7, i}, h)
	}
	s.get(digest{7, 3}).used.Store(1)
	if _, gone := s.put(digest{7, 99}, &held{role: r}); gone == nil || gone.used.Load() != 1 {
		t.Errorf("%+v went", gone)
	}
	if s.get(digest{7, 3}) != nil || s.get(digest{7, 99}) == nil || s.size.Load() != sample || r.keys.Load() != sample {
		t.Errorf("%d held, %d of the role", s.size.Load(), r.keys.Load())
	}
	n := 0
	s.all(func(digest, *held) { n++ })
	if n != sample {
		t.Errorf("%d of %d", n, sample)
	}
}

// A role of which no key is held any more is forgotten, too.
func TestRolesGoWithTheirKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{MaxKeys: 500})
		fill(t, v, 5000, 1)
		of := map[string]bool{}
		v.keys.all(func(_ digest, h *held) { of[h.roleID()] = true })
		if size := int(v.keys.size.Load()); size < 500 || size > 500+shardCount || len(of) != size || len(v.feed.roles) != size {
			t.Errorf("%d keys of %d roles are held, %d roles are known", size, len(of), len(v.feed.roles))
		}
		var d digest
		var last *held
		v.keys.all(func(at digest, h *held) { d, last = at, h })
		v.gone(d, "another", 0)
		if v.keys.get(d) != nil || v.feed.roles[last.roleID()] != nil {
			t.Error("a key that is gone, or its role, is still known")
		}
	})
}

// Whatever is put and dropped: what is held is found, and nothing else.
func TestPlaces(t *testing.T) {
	s := newKeyStore(1 << 30)
	rng := rand.New(rand.NewPCG(1, 2))
	r, want := &role{}, map[digest]*held{}
	// Few homes, so that keys are in each other's way; digests that differ in one byte.
	some := func() digest { return digest{1, byte(rng.IntN(4) * 80), 15: byte(rng.IntN(40))} }
	for i := range 20_000 {
		d := some()
		if rng.IntN(2) == 0 {
			h := &held{role: r, position: uint64(i)}
			s.put(d, h)
			want[d] = h
		} else if h := want[d]; h != nil {
			s.drop(d, h)
			delete(want, d)
		}
		if d = some(); s.get(d) != want[d] {
			t.Fatalf("%d: %v is %p, want %p", i, d, s.get(d), want[d])
		}
	}
	if int(s.size.Load()) != len(want) || s.shards[1].n != len(want) || int(r.keys.Load()) != len(want) {
		t.Errorf("%d, %d and %d of %d", s.size.Load(), s.shards[1].n, r.keys.Load(), len(want))
	}
	n := 0
	s.all(func(d digest, h *held) {
		if n++; want[d] != h {
			t.Errorf("%v is %p, want %p", d, h, want[d])
		}
	})
	if n != len(want) {
		t.Errorf("%d of %d", n, len(want))
	}
}

// A key that makes room is the one of a few that was used longest ago.
func TestTheOneUsedLongestAgoMakesRoom(t *testing.T) {
	for oldest := range sample {
		s, r := newKeyStore(sample), &role{}
		held := make([]*held, sample)
		for i := range held {
			held[i] = newHeld(nil)
			held[i].role = r
			held[i].used.Store(100 + int32(i)) //nolint:gosec // small
			if i == oldest {
				held[i].used.Store(1)
			}
			s.put(digest{1, 15: byte(i)}, held[i])
		}
		next := newHeld(nil)
		next.role = r
		if _, gone := s.put(digest{1, 15: 0xff}, next); gone != held[oldest] || int(s.size.Load()) != sample {
			t.Errorf("%p is gone, want %p; %d are held", gone, held[oldest], s.size.Load())
		}
	}
}
