// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

const (
	// batch is how many keys one call asks about for requests that wait, and in the
	// background.
	batch, backgroundBatch = 500, 200
	// hesitation is how long nobody waits for a call after one has failed.
	hesitation = 250 * time.Millisecond
	// slow is what a call may take before the background leaves the server alone.
	slow = 200 * time.Millisecond
)

// question is what is asked about one key: the key itself, or its state only.
type question struct {
	digest digest
	key    string
	keyID  string
	roleID string
}

// size is how long the question is in a batch at most: a quotation mark takes two bytes
// there.
func (q *question) size() int { return 2*len(q.key) + 150 }

// result is what came of asking.
type result struct {
	code, hint string // of a key that is unknown
	once       *held  // what must not be kept
	err        error
}

var errNoTimeline = errors.New("the engine answers without a timeline: it is too old for this edge")

// ask is one key that requests wait for.
type ask struct {
	question
	done   chan struct{}
	begun  uint64 // what had been received of the feed when the call was sent
	result result
	err    error
}

// asker asks about keys for requests that wait: each key once, several in one call, one
// call at a time.
type asker struct {
	mu      sync.Mutex
	waiting map[digest]*ask
	queue   []digest // what waits, in the order in which it came
	sent    map[digest]*ask
	calls   int // in flight, the background's too
	failed  time.Time
	wake    chan struct{}
	stir    chan struct{}
	stirred atomic.Uint64 // how often keys became dirty
	clean   atomic.Uint64 // as often, when a look found none
}

func (a *asker) init() {
	a.waiting, a.sent = map[digest]*ask{}, map[digest]*ask{}
	a.wake, a.stir = make(chan struct{}, 1), make(chan struct{}, 1)
}

// flying reports whether a call is in flight.
func (a *asker) flying() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls > 0
}

// again wakes the background: a key is dirty.
func (a *asker) again() {
	a.stirred.Add(1)
	select {
	case a.stir <- struct{}{}:
	default:
	}
}

// wait asks about a key, by its state if it is held, and waits for the answer. It
// joins a call that began after everything that was received of the feed.
func (a *asker) wait(ctx context.Context, d digest, key string, h *held, received uint64) (result, error) {
	a.mu.Lock()
	if !a.failed.IsZero() && time.Since(a.failed) < hesitation {
		a.mu.Unlock()
		return result{}, ErrUnavailable
	}
	w := a.sent[d]
	if w == nil || w.begun < received {
		if w = a.waiting[d]; w == nil {
			w = &ask{question: question{digest: d, key: key}, done: make(chan struct{})}
			if h != nil {
				w.key, w.keyID, w.roleID = "", h.keyID(), h.roleID()
			}
			a.waiting[d] = w
			a.queue = append(a.queue, d)
			select {
			case a.wake <- struct{}{}:
			default:
			}
		}
	}
	a.mu.Unlock()
	select {
	case <-w.done:
		return w.result, w.err
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
}

// answerUses makes the calls for requests that wait.
func (v *Verifier) answerUses(ctx context.Context) {
	a := &v.asks
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		for ctx.Err() == nil {
			asks := a.take(v.feed.received())
			if len(asks) == 0 {
				break
			}
			questions := make([]question, len(asks))
			for i, w := range asks {
				questions[i] = w.question
			}
			results, err := v.call(ctx, questions)
			a.finish(asks, results, err)
		}
	}
}

// take is what waits, as far as it fits into one call: keys that are held first, which
// forgeries must not hold up.
func (a *asker) take(received uint64) []*ask {
	a.mu.Lock()
	defer a.mu.Unlock()
	var asks []*ask
	size := 0
	// Held ones first, and what came first.
	slices.SortStableFunc(a.queue, func(x, y digest) int { return min(len(a.waiting[x].key), 1) - min(len(a.waiting[y].key), 1) })
	for len(a.queue) > 0 {
		d := a.queue[0]
		w := a.waiting[d]
		if size += w.size(); len(asks) == batch || size > maxBatchBytes && len(asks) > 0 {
			break
		}
		a.queue = a.queue[1:]
		delete(a.waiting, d)
		w.begun = received
		a.sent[d] = w
		asks = append(asks, w)
	}
	return asks
}

func (a *asker) finish(asks []*ask, results []result, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = time.Time{}
	if err != nil {
		a.failed = time.Now()
	}
	for i, w := range asks {
		if a.sent[w.digest] == w {
			delete(a.sent, w.digest)
		}
		if w.err = err; err == nil {
			w.result, w.err = results[i], results[i].err
		}
		close(w.done)
	}
}

// call asks the server, and keeps what it says.
func (v *Verifier) call(ctx context.Context, questions []question) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := &v.asks
	a.mu.Lock()
	a.calls++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.calls--
		a.mu.Unlock()
	}()
	sent, _ := v.clock.elapsed()
	answers, err := v.remote.verify(ctx, questions)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(questions))
	if len(answers.Results) != len(questions) {
		return nil, fmt.Errorf("%d answers to %d questions", len(answers.Results), len(questions))
	}
	for i := range questions {
		if results[i] = v.learn(&questions[i], answers, i, sent); results[i].err != nil {
			v.log.Error("a key cannot be verified", "key_id", answers.Results[i].KeyID, "error", results[i].err)
		}
	}
	return results, nil
}

// learn keeps what was answered about one key.
func (v *Verifier) learn(q *question, a *answers, i int, sent int64) result {
	r := &a.Results[i]
	epoch, position, _ := feed.ParseCursor(a.Cursor)
	if len(r.Timeline) == 0 {
		if r.Code != codeNotFound && r.Code != codeMalformed {
			return result{err: errNoTimeline}
		}
		v.gone(q.digest, epoch, position)
		if q.key == "" {
			return result{} // by its value then
		}
		v.unknown.put(q.digest, sent, r.Code, r.Hint)
		return result{code: r.Code, hint: r.Hint}
	}
	line, err := timeline.Parse(r.Timeline)
	facts, ferr := a.factsOf(r)
	if err != nil || ferr != nil {
		return result{err: fmt.Errorf("an answer cannot be understood: %w", errors.Join(err, ferr))}
	}
	h := newHeld(line)
	if h.names, err = newNames(r.KeyID, r.RoleID, a.Roles[r.RoleID].Role); err != nil {
		return result{err: err}
	}
	h.facts, h.version, h.dynamic, h.own = facts, r.Version, r.Lease, sent
	h.used.Store(int32(seconds(sent))) //nolint:gosec // not that many

	f := &v.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	old := v.keys.get(q.digest)
	if old != nil && old.keyID() == h.keyID() && old.over() && !h.over() {
		// An end that was told holds for good: what says otherwise is another clock's, or
		// what was stored before.
		h.line = old.line
	}
	h.role = f.role(h.roleID())
	if epoch != f.epoch || f.epoch == "" {
		// The role stays, with what its rate limit has counted.
		return result{once: h}
	}
	h.position = f.base + position
	f.highest = max(f.highest, h.position)
	if f.forgotten > h.position {
		h.closing.Store(f.forgotten)
		h.notice.Store(f.forgotten)
	}
	if n := f.recent[r.RoleID]; n != nil && n.notice > h.role.notice.Load() {
		h.role.decided(n.closing, nil)
		h.role.notice.Store(n.notice)
		v.roles.note(r.RoleID, n.notice)
	}
	if n := f.recent[r.KeyID]; n != nil {
		h.closing.Store(n.closing)
		h.notice.Store(n.notice)
	}
	old, gone := v.keys.put(q.digest, h)
	for _, h := range []*held{old, gone} {
		if h != nil {
			f.unheld(h.role)
		}
	}
	if old != nil && gone != h {
		if at := old.ended.Load(); at > sent {
			h.ended.Store(at) // this answer may be older than that
		}
		// Counts of uses that are not reported yet belong to the key.
		h.accepted.Store(old.accepted.Swap(0))
		h.first.Store(old.first.Load())
		h.last.Store(old.last.Load())
		h.used.Store(old.used.Load())
		if n := old.notice.Load(); n > h.notice.Load() {
			h.closing.Store(old.closing.Load())
			h.notice.Store(n)
			h.before.Store(old.before.Load())
		}
	}
	if h.noticed() {
		v.asks.again() // it is out of date already
	}
	if h.dynamic {
		f.leased[h.keyID()] = q.digest
	}
	if gone != nil && gone != h {
		delete(f.leased, gone.keyID())
	}
	return result{}
}

// gone forgets a key that is deleted, or not this key any more, unless something newer
// was told of it.
func (v *Verifier) gone(d digest, epoch string, position uint64) {
	f := &v.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	h := v.keys.get(d)
	if h == nil || epoch == f.epoch && f.base+position < h.position {
		return
	}
	v.keys.drop(d, h)
	f.unheld(h.role)
	if f.leased[h.keyID()] == d {
		delete(f.leased, h.keyID())
	}
}

// role is the role with that id. The feed is locked.
func (f *feedState) role(id string) *role {
	r := f.roles[id]
	if r == nil {
		r = &role{id: id}
		f.roles[id] = r
	}
	return r
}

// unheld forgets a role of which no key is held. The feed is locked.
func (f *feedState) unheld(r *role) {
	if r.keys.Load() == 0 {
		delete(f.roles, r.id)
	}
}

// refresh asks about dirty keys in the background, those that were used last first, so
// that their next use need not wait.
func (v *Verifier) refresh(ctx context.Context) {
	jitter := v.jitter("background")
	for {
		select {
		case <-ctx.Done():
			return
		case <-v.asks.stir:
		}
		for ctx.Err() == nil {
			questions := v.dirtyKeys()
			if len(questions) == 0 {
				break
			}
			for len(questions) > 0 && ctx.Err() == nil {
				n := min(backgroundBatch, len(questions))
				began := time.Now()
				_, err := v.call(ctx, questions[:n])
				questions = questions[n:]
				pause := jitter.below(20 * time.Millisecond)
				if took := time.Since(began); err != nil || took > slow {
					pause += time.Second + jitter.below(time.Second)
				}
				if err != nil {
					questions = nil
				}
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		}
	}
}

// dirtyKeys are keys that a decision or a reset has made dirty, those used last first.
func (v *Verifier) dirtyKeys() []question {
	type dirty struct {
		question
		used int32
	}
	var found []dirty
	reset := v.reset.Load()
	v.keys.all(func(d digest, h *held) {
		if h.dirty(reset) {
			found = append(found, dirty{question{digest: d, keyID: h.keyID(), roleID: h.roleID()}, h.used.Load()})
		}
	})
	slices.SortFunc(found, func(a, b dirty) int { return cmp.Compare(b.used, a.used) })
	questions := make([]question, len(found))
	for i := range found {
		questions[i] = found[i].question
	}
	return questions
}
