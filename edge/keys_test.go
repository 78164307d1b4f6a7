// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"testing"
)

func TestDigests(t *testing.T) {
	a, b := newDigester([]byte("a")), newDigester([]byte("b"))
	if first, again := a.of("k"), a.of("k"); first != again || a.of("k") == a.of("l") || a.of("k") == b.of("k") {
		t.Error("a digest is of the key and of the edge's own secret")
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
		h.used.Store(int64(100 + i))
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
