// SPDX-License-Identifier: MPL-2.0

package server

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// dueKind says whose end an entry of the queue announces.
type dueKind int

const (
	dueLease dueKind = iota
	dueToken
	dueWrap
)

type dueItem struct {
	at   time.Time
	kind dueKind
	id   string
}

// dueQueue says what to look at when. It is only a hint: whoever looks decides by the stored record,
// so an entry too many is harmless, and one that moved is looked at again.
type dueQueue struct {
	mu    sync.Mutex
	items dueHeap
}

type dueHeap []dueItem

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(dueItem)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

func (q *dueQueue) push(item dueItem) {
	q.mu.Lock()
	defer q.mu.Unlock()
	heap.Push(&q.items, item)
}

func (q *dueQueue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = nil
}

func (q *dueQueue) next() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return time.Time{}, false
	}
	return q.items[0].at, true
}

// take removes what is due, at most limit entries.
func (q *dueQueue) take(now time.Time, limit int) []dueItem {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []dueItem
	for len(q.items) > 0 && len(out) < limit && !q.items[0].at.After(now) {
		out = append(out, heap.Pop(&q.items).(dueItem))
	}
	return out
}

// revokers bounds how many revocations reach the plugins at once.
const revokers = 32

// RunDue ends everything whose time has come and returns when that is done. What could not be ended
// has been put back for later.
func (s *Server) RunDue(ctx context.Context) {
	for ctx.Err() == nil && !s.sealed.Load() {
		items := s.due.take(s.now(), revokers)
		if len(items) == 0 {
			return
		}
		var wg sync.WaitGroup
		for _, item := range items {
			wg.Go(func() {
				var err error
				switch item.kind {
				case dueLease:
					err = s.endLease(ctx, item.id)
				case dueToken:
					err = s.endToken(item.id)
				case dueWrap:
					err = s.endWrap(item.id)
				}
				if err != nil {
					s.logger.Warn("what is due could not be ended", "error", errForLog(err))
				}
			})
		}
		wg.Wait()
	}
}

func (s *Server) schedule(kind dueKind, id string, at time.Time) {
	s.due.push(dueItem{at: at, kind: kind, id: id})
	s.kick()
}

// loadDue fills the queue from storage.
func (s *Server) loadDue() error {
	s.due.clear()
	if err := s.loadLeases(); err != nil {
		return err
	}
	if err := s.loadTokens(); err != nil {
		return err
	}
	return s.loadWraps()
}

// walk visits every key below prefix, in pages so that a large store is not held in memory.
func (s *Server) walk(prefix string, visit func(key string) error) error {
	const page = 1000
	after := ""
	for {
		keys, err := s.cfg.Store.List(prefix, after, page)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if k[len(k)-1] == '/' {
				err = s.walk(prefix+k, visit)
			} else {
				err = visit(prefix + k)
			}
			if err != nil {
				return err
			}
			after = k
		}
		if len(keys) < page {
			return nil
		}
	}
}
