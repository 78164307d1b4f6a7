// SPDX-License-Identifier: MPL-2.0

package policy

import "sync"

// recent keeps what was made for a key while it is in use. It keeps the last
// most keys that were asked for, at least, and never more than twice as many.
type recent[V any] struct {
	most int

	mu sync.Mutex
	// young becomes old when it is full; what is not asked for while it is old is
	// forgotten.
	young, old map[string]V
}

// get is what is kept for the key, or else what was made for it. Nothing waits
// while it is made, so two may be made at once, one of which is then returned to
// both. A failure is not kept.
func (r *recent[V]) get(key string, create func(string) (V, error)) (V, error) {
	if v, ok := r.find(key); ok {
		return v, nil
	}
	v, err := create(key)
	if err != nil {
		return v, err
	}
	return r.keep(key, v), nil
}

func (r *recent[V]) find(key string) (v V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.look(key)
}

func (r *recent[V]) keep(key string, v V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first, ok := r.look(key); ok {
		return first
	}
	r.add(key, v)
	return v
}

func (r *recent[V]) look(key string) (v V, ok bool) {
	if v, ok = r.young[key]; ok {
		return v, true
	}
	if v, ok = r.old[key]; ok {
		r.add(key, v)
	}
	return v, ok
}

func (r *recent[V]) add(key string, v V) {
	if len(r.young) >= r.most || r.young == nil {
		r.young, r.old = map[string]V{}, r.young
	}
	r.young[key] = v
}
