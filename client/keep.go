// SPDX-License-Identifier: MPL-2.0

package client

import (
	"context"
	"time"
)

// keep reads the key, and reads or renews it again when that is due, until ctx ends.
func (s *Source) keep(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		now := s.now()
		h := s.cur
		another := false
		if h != nil && h.lease != "" {
			s.mu.Unlock()
			token := s.remote.token() // may look at a file
			s.mu.Lock()
			another = token != "" && token != h.token && s.cur == h
			h = s.cur
		}
		var wait <-chan struct{}
		var renew, look *held
		switch {
		case s.flight != nil:
			wait = s.flight.done
		case s.failed == 0 && (another || h != nil && h.ends().passed(now)):
			// The key ends with the token that issued it, and there is another one now; or it
			// has ended.
			wait = s.readLocked("").done
		case h != nil && h.lookAgain.passed(now):
			look = h
		case !s.next.passed(now):
		case h != nil && h.renewable && !h.ends().passed(now) && s.failed == 0:
			renew = h
		default:
			wait = s.readLocked("").done
		}
		pause := min(max(s.next.until(now), 0), longestSleep)
		if h != nil && h.lease != "" {
			pause = min(pause, max(h.ends().until(now)/8, minSleep))
		}
		s.mu.Unlock()
		switch {
		case renew != nil:
			s.renew(ctx, renew)
		case look != nil:
			s.lookAtToken(ctx, look)
		case wait != nil:
			select {
			case <-ctx.Done():
			case <-wait:
			}
		default:
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-s.wake:
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// minSleep bounds how often a short lease has the background look.
const minSleep = 250 * time.Millisecond

// readLocked begins to read the key, unless somebody does already.
func (s *Source) readLocked(refused string) *flight {
	if s.flight != nil {
		return s.flight
	}
	f := &flight{done: make(chan struct{}), refused: refused}
	if s.closed {
		f.err = errClosed
		close(f.done)
		return f
	}
	s.flight = f
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		s.read(f)
	}()
	return f
}

func (s *Source) read(f *flight) {
	ctx, cancel := context.WithTimeout(s.life, callTime)
	defer cancel()
	began := s.now()
	g, err := s.remote.read(ctx)
	var h *held
	if err == nil {
		h = newHeld(g, began)
		s.lookAtToken(ctx, h)
	}
	s.mu.Lock()
	s.stats.Reads++
	var spent *held
	if err != nil {
		s.stats.Failures++
		s.failedLocked(err)
	} else {
		spent = s.takeLocked(h, g, began, f.refused)
	}
	s.flight, f.err = nil, err
	close(f.done)
	s.mu.Unlock()
	if spent != nil {
		s.giveBack(spent)
	}
}

func newHeld(g *grant, began moment) *held {
	h := &held{Key: g.key, scopes: g.key.Scopes, since: g.since}
	if g.lease != "" {
		h.lease, h.life, h.renewable, h.token = g.lease, g.life, g.renewable, g.token
		h.leaseEnd = began.add(g.life)
	}
	return h
}

// lookAtToken notes when the token ends to which a key was issued: the key ends with it.
// Whoever keeps the token usable renews it, so it is looked at again at half of what it
// has left.
func (s *Source) lookAtToken(ctx context.Context, h *held) {
	if h.lease == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	now := s.now()
	life, err := s.remote.tokenLife(ctx, h.token)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && life > 0:
		h.tokenLife, h.tokenEnd, h.lookAgain = life, now.add(life), now.add(max(life/2, firstPause))
	case err == nil:
		h.tokenLife, h.tokenEnd, h.lookAgain = 0, moment{}, moment{}
	case final(err):
		s.log.Debug("nobody says when the token ends", "error", err)
		h.lookAgain = moment{}
	default:
		h.lookAgain = now.add(longestRetry)
		if !h.tokenEnd.passed(now) {
			h.tokenEnd = moment{} // it may be renewed by then, and nobody can say
		}
	}
}

func (s *Source) failedLocked(err error) {
	s.failed++
	s.err = err
	now := s.now()
	longest := longestRetry
	if s.cur == nil || s.cur.ends().passed(now) {
		longest = longestWithout // requests wait
	}
	s.next = now.add(s.jitter.backoff(s.failed, longest))
	if s.cur != nil && !s.cur.ends().passed(now) {
		s.next = earlier(s.next, s.cur.ends())
	}
	if s.failed == 1 || s.failed%20 == 0 {
		s.log.Warn("the key cannot be read: what is at hand is used", "role", s.opt.Role, "error", err)
	}
}

// maxOlder is how many older answers in a row are put down to a node that lags behind.
const maxOlder = 5

// takeLocked takes what was read, for the refusal of a key where refused names one. It
// returns a key whose lease is to be given back.
func (s *Source) takeLocked(h *held, g *grant, began moment, refused string) (spent *held) {
	if s.failed > 0 {
		s.log.Info("the key can be read again", "role", s.opt.Role)
	}
	s.failed, s.err = 0, nil
	s.stats.ReadAt = time.Unix(0, began.wall)
	s.usage.ahead.Store(int64(g.ahead))
	old := s.cur
	if old != nil && h.lease == "" && h.since.Before(old.since) && h.Role == old.Role && s.older < maxOlder {
		// What a key succeeds is never handed out again as of an earlier time: a node
		// that lags behind has answered.
		s.older++
		s.next = began.add(s.jitter.backoff(s.older, longestRetry))
		return nil
	}
	s.older = 0
	if h.lease == "" {
		s.next = began.add(s.readAgain(g.ttl))
	} else {
		s.next = s.renewAt(h, began)
	}
	if old != nil && old.ID == h.ID {
		old.scopes, old.since = h.Scopes, h.since
		if old.suspect {
			s.next = earlier(s.next, began.add(s.jitter.backoff(old.refusals, longestRefused)))
		}
		return nil
	}
	if old != nil && h.lease != "" && old.ID == refused {
		// Each read issues a key. Where all of them are refused, it is not the keys.
		h.refusals, h.notBefore = old.refusals, old.notBefore
	}
	s.cur = h
	if old != nil {
		s.stats.Changes++
		s.log.Info("there is another key", "role", h.Role, "key_id", h.ID, "version", h.Version, "previous", old.ID)
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.hurry()
	if old == nil {
		return nil
	}
	old.replaced = true
	if s.spentLocked(old) {
		return old
	}
	return nil
}

// readAgain is when to read again, of a key with this ttl. Ahead of it, by a part that
// differs between consumers; at its end the key may be another one, so what is left of
// it then is waited for.
func (s *Source) readAgain(ttl time.Duration) time.Duration {
	ttl = max(ttl, time.Second)
	if ttl <= 10*time.Second {
		return ttl + s.jitter.below(min(time.Second, ttl/4))
	}
	return ttl*17/20 + s.jitter.below(ttl/10)
}

// renewAt is when to renew or replace a leased key.
func (s *Source) renewAt(h *held, began moment) moment {
	life := h.life
	if h.tokenLife > 0 && !h.renewable {
		life = min(life, h.tokenLife)
	}
	return began.add(life*3/5 + s.jitter.below(life/10))
}

// renew renews the lease of a key, or has the key replaced where that does not help for
// long.
func (s *Source) renew(ctx context.Context, h *held) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	began := s.now()
	life, err := s.remote.renew(ctx, h.lease)
	if err == nil {
		s.lookAtToken(ctx, h)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != h {
		return
	}
	switch {
	case err == nil:
		s.stats.Renewals++
		h.leaseEnd = began.add(life)
		if life < h.life/2 {
			h.renewable = false // its last part has begun: the next act is another key
			s.next = began
			return
		}
		s.next = s.renewAt(&held{life: life, renewable: true}, began)
	case final(err):
		s.log.Info("the lease cannot be renewed: the key is replaced", "key_id", h.ID, "error", err)
		h.renewable = false
		s.next = began
	default:
		s.log.Debug("the lease cannot be renewed yet", "key_id", h.ID, "error", err)
		s.next = began.add(min(longestRetry, max(h.ends().until(began)/8, firstPause)))
	}
}

// hurry has the background look at once.
func (s *Source) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// refused says that a request was refused for a key, and returns the one to try instead;
// nil if there is none. For each key it is read once, whoever asks; then, where that
// brought no other one, after growing pauses.
func (s *Source) refused(ctx context.Context, h *held) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Refused++
	h.suspect = true
	for !s.closed {
		now := s.now()
		if cur := s.cur; cur.ID != h.ID {
			if cur.ends().passed(now) {
				return nil
			}
			cur.users++
			return cur
		}
		f := s.flight
		if f == nil {
			if f = s.forceLocked(h, now); f == nil {
				return nil
			}
		}
		s.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		s.mu.Lock()
		// A read that was begun for another reason may have been answered before the key
		// ended: that one counts for nothing.
		if ctx.Err() != nil || f.refused == h.ID && s.cur.ID == h.ID {
			// Until there is another one, the background asks by itself.
			s.next = earlier(s.next, h.notBefore)
			s.hurry()
			return nil
		}
	}
	return nil
}

// forceLocked begins a read for the refusal of a key; nil while there is a pause.
func (s *Source) forceLocked(h *held, now moment) *flight {
	if h.notBefore != (moment{}) {
		left := h.notBefore.until(now)
		if left > 0 {
			return nil
		}
		if left < -forgiven {
			h.refusals = 0
		}
	}
	h.refusals++
	h.notBefore = now.add(s.jitter.backoff(h.refusals, longestRefused))
	return s.readLocked(h.ID)
}

// noteRefused says that a request was refused for a key, where nobody waits for another
// one.
func (s *Source) noteRefused(h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Refused++
	h.suspect = true
	if !s.closed && s.cur == h && s.flight == nil {
		s.forceLocked(h, s.now())
	}
}

// succeeded says that a request was answered with a key.
func (s *Source) succeeded(h *held) {
	s.mu.Lock()
	h.suspect = false
	s.mu.Unlock()
	s.usage.used(h.ID, s.now().wall)
}
