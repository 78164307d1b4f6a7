// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
)

const (
	defaultWait = 2 * time.Second
	// grace is how much longer than a poll waits at the server it may take: after that
	// the edge is cut off.
	grace = 5 * time.Second
	// longestWait: an answer confirms when its poll was sent, and the next one comes a
	// wait after it. Two waits and the ways have to fit into one and the grace.
	longestWait = grace - time.Second
	// exactly is how often the server is asked for its time, at once.
	exactly = time.Minute
	// exactPatience is how long that may take: who waits for it has little more.
	exactPatience = patience - 100*time.Millisecond
	// exactlyAgain is how soon it is asked again where that told too little.
	exactlyAgain = 2 * time.Second
	// pauses between polls that fail.
	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second
	// atOnce is within what time a server has not waited, and breath how long the next poll
	// waits then.
	atOnce, breath = 50 * time.Millisecond, 250 * time.Millisecond
)

// feedState is what is known of decisions. Positions are this edge's own: they go on
// growing when the server's begin anew, so that whatever was told before is older.
type feedState struct {
	position atomic.Uint64 // of the newest decision that was received

	mu     sync.Mutex
	cursor string
	epoch  string
	base   uint64 // position = base + the server's
	// highest is the latest position of any answer about a key.
	highest uint64
	mount   string // its id
	stale   int64  // its max_staleness, whatever this edge's own limit is
	resets  []dirt
	// recent are decisions about roles and keys that are not held, as long as calls are
	// in flight that may bring them.
	recent    map[string]*recentNotice
	forgotten uint64 // decisions up to here are not in recent any more
	roles     map[string]*role
	leased    map[string]digest // by key id: keys that decisions can be about alone

	settling chan struct{} // closed when a call that asks for the time has ended
	wanted   chan struct{} // wakes the poller
}

// maxRecent is how many decisions about what is not held are told apart while a call is
// in flight.
const maxRecent = 10_000

type recentNotice struct{ notice, closing uint64 }

func (f *feedState) init() {
	f.recent, f.roles, f.leased = map[string]*recentNotice{}, map[string]*role{}, map[string]digest{}
	f.wanted = make(chan struct{}, 1)
}

func (f *feedState) received() uint64 { return f.position.Load() }

// resetsSince are the resets after a position.
func (f *feedState) resetsSince(position uint64) []dirt {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.resets); n == 0 || f.resets[n-1].position <= position {
		return nil
	}
	return append([]dirt(nil), f.resets...)
}

// settle has the server asked for its time, and waits for the answer or the failure;
// an error is that of ctx.
func (f *feedState) settle(ctx context.Context) error {
	f.mu.Lock()
	if f.settling == nil {
		f.settling = make(chan struct{})
	}
	done := f.settling
	f.mu.Unlock()
	select {
	case f.wanted <- struct{}{}:
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settled lets those go on who wait for settle.
func (f *feedState) settled() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.settling != nil {
		close(f.settling)
		f.settling = nil
	}
}

// awaited reports whether somebody waits for the server to be asked for its time.
func (f *feedState) awaited() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.settling != nil
}

// follow polls for decisions until ctx ends.
func (v *Verifier) follow(ctx context.Context) {
	jitter := v.jitter("feed")
	pause := firstPause
	var lastExact int64 = notConfirmed
	away := silence{log: v.log}
	for ctx.Err() == nil {
		now, sure := v.clock.elapsed()
		wait := v.wait()
		exact := !sure || v.feed.awaited() || now-lastExact >= int64(exactly) || v.clock.vague(now) && now-lastExact >= int64(exactlyAgain)
		if exact {
			wait = 0
		}
		told, err := v.poll(ctx, wait, exact)
		if exact {
			lastExact = now
		}
		if err == nil {
			pause = firstPause
			away.over()
			if after, _ := v.clock.elapsed(); !told && !exact && after-now < int64(atOnce) {
				// A reset, a server that does not wait, or two that take turns: it must not be
				// asked without a pause.
				select {
				case <-ctx.Done():
				case <-v.feed.wanted:
				case <-time.After(breath):
				}
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if _, sure := v.clock.elapsed(); !sure || errors.Is(err, errWoken) {
			continue // somebody waits for the server's time
		}
		away.because(err)
		if errors.Is(err, context.DeadlineExceeded) {
			v.remote.reconnect()
		}
		select {
		case <-ctx.Done():
		case <-v.feed.wanted:
		case <-time.After(pause/2 + jitter.below(pause)):
		}
		pause = min(2*pause, longestPause)
	}
}

// silence logs that the feed cannot be read: at once, and now and then, sooner for another
// reason; and that it can be read again.
type silence struct {
	log  *slog.Logger
	told string // empty: nothing is wrong, as far as the log says
	at   time.Time
	ever bool // it was read
}

// sameReason and otherReason are how soon the log says again why the feed cannot be read.
const sameReason, otherReason = time.Minute, 10 * time.Second

func (s *silence) because(err error) {
	pause := sameReason
	if err.Error() != s.told {
		pause = otherReason
	}
	if s.told == "" || time.Since(s.at) >= pause {
		s.log.Warn("the feed of decisions cannot be read", "error", err)
		s.told, s.at = err.Error(), time.Now()
	}
}

func (s *silence) over() {
	if s.told != "" || !s.ever {
		s.log.Info("decisions arrive")
		s.told, s.ever = "", true
	}
}

// wait is how long a poll waits at the server.
func (v *Verifier) wait() time.Duration {
	return min(time.Duration(v.window.Load())-grace, longestWait)
}

// errWoken: a poll was given up for one that asks for the server's time.
var errWoken = errors.New("woken")

// poll asks once for decisions, and applies them. An exact one asks for the server's
// time, too: when it has ended, however it did, clocks that had parted before it was
// sent are believed again.
//
// told reports whether something was decided.
func (v *Verifier) poll(ctx context.Context, wait time.Duration, exact bool) (told bool, err error) {
	limit := wait + grace
	if exact {
		limit = exactPatience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sent, _ := v.clock.elapsed()
	jumps := v.clock.jumped()
	var woken atomic.Bool
	go func() {
		select {
		case <-ctx.Done():
		case <-v.feed.wanted:
			// Whoever finds that the clocks have parted does not wait for the end of a
			// poll that was sent before.
			if !exact || v.clock.jumped() != jumps {
				woken.Store(true)
				cancel()
			}
		}
	}()
	answer, err := v.remote.changes(ctx, v.feed.since(), wait)
	received, _ := v.clock.elapsed()
	if err == nil {
		v.clock.learn(sent, received, answer.Now, exact, v.feed.isOther(answer.Cursor), jumps)
		v.apply(&answer, sent)
		v.heard(&answer, sent, received)
	}
	if exact && v.clock.trust(jumps) {
		v.feed.settled()
	}
	if err != nil && woken.Load() {
		return false, errWoken
	}
	return len(answer.Notices) > 0, err
}

// isOther reports whether a cursor is of another process of the engine.
func (f *feedState) isOther(cursor string) bool {
	epoch, _, _ := feed.ParseCursor(cursor)
	f.mu.Lock()
	defer f.mu.Unlock()
	return epoch != f.epoch
}

func (f *feedState) since() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cursor
}

// apply takes an answer of the feed, to a poll that was sent then.
func (v *Verifier) apply(a *changes, sent int64) {
	f := &v.feed
	before := v.confirmed.Load()
	epoch, position, ok := feed.ParseCursor(a.Cursor)
	if !ok {
		return
	}
	if a.MaxStaleness > 0 {
		limit := time.Duration(a.MaxStaleness) * time.Second
		if v.opt.MaxStaleness > 0 {
			limit = min(limit, v.opt.MaxStaleness)
		}
		v.stale.Store(int64(limit))
	}

	f.mu.Lock()
	if f.mount != "" && a.Mount != f.mount {
		// Another engine was mounted in its place: it knows none of these keys.
		v.keys.all(v.keys.drop)
		clear(f.roles)
		clear(f.leased)
	}
	f.mount = a.Mount
	if a.MaxStaleness > 0 {
		f.stale = a.MaxStaleness * int64(time.Second)
	}
	if epoch != f.epoch {
		// After whatever was told by the one before, which may have been ahead of what
		// was received of its feed.
		f.base = max(f.position.Load(), f.highest) + 1
		f.epoch = epoch
		a.Reset = true
	}
	dirty := a.Reset
	for i := range a.Notices {
		dirty = v.notice(&a.Notices[i], f.base+a.Notices[i].Position, before) || dirty
	}
	newest := f.base + position
	if a.Reset {
		// Whatever was told before this answer may be out of date.
		f.resets = append(f.resets, dirt{position: newest, confirmed: before})
		if len(f.resets) > maxDirt {
			f.resets = f.resets[1:]
		}
		v.reset.Store(newest)
	}
	f.position.Store(max(f.position.Load(), newest))
	f.cursor = a.Cursor
	f.mu.Unlock()

	if a.FeedWait > 0 {
		v.window.Store(int64(time.Duration(a.FeedWait)*time.Second + grace))
	}
	// Last: a key is judged by what the answer says before it counts as confirmed.
	v.confirmed.Store(sent)
	if dirty {
		v.asks.again()
	}
}

// notice applies one decision, and reports whether it was about what may be held. The
// feed is locked.
func (v *Verifier) notice(n *feed.Notice, position uint64, before int64) (about bool) {
	f := &v.feed
	id := n.RoleID
	if id == "" {
		id = n.KeyID
	}
	switch {
	case !v.asks.flying():
		clear(f.recent)
	case len(f.recent) >= maxRecent:
		clear(f.recent)
		f.forgotten = position
	default:
		r := f.recent[id]
		if r == nil {
			r = &recentNotice{}
			f.recent[id] = r
		}
		r.notice = position
		if n.Closing {
			r.closing = position
		}
	}
	if r := f.roles[n.RoleID]; n.RoleID != "" && r != nil {
		r.mark(position, n.Closing, before)
		v.roles.note(n.RoleID, position)
		about = true
	}
	if d, known := f.leased[n.KeyID]; n.KeyID != "" && known {
		if h := v.keys.get(d); h != nil && h.keyID() == n.KeyID {
			h.mark(position, n.Closing, before)
			about = true
		}
	}
	return about
}

func (r *role) mark(position uint64, closing bool, before int64) {
	closed := uint64(0)
	if closing {
		closed = position
	}
	r.decided(closed, &dirt{position: position, confirmed: before})
	r.notice.Store(position)
}

// decided notes a decision, and at which position one closed something, if it did.
func (r *role) decided(closing uint64, d *dirt) {
	told := &decisions{}
	if old := r.told.Load(); old != nil {
		told.closing, told.last = old.closing, slices.Clone(old.last)
	}
	told.closing = max(told.closing, closing)
	if d != nil {
		if told.last = append(told.last, *d); len(told.last) > maxDirt {
			told.last = told.last[1:]
		}
	}
	r.told.Store(told)
}

func (h *held) mark(position uint64, closing bool, before int64) {
	if h.notice.Load() <= h.position {
		h.before.Store(before)
	}
	if closing {
		h.closing.Store(position)
	}
	h.notice.Store(position)
}
