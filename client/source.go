// SPDX-License-Identifier: MPL-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// Options say which key to have, and how to reach the engine. Client, Mount and Role are
// required; all else has a default.
type Options struct {
	// Client reaches the server: its address, TLS and namespace. It is cloned. Its
	// token is used unless Auth or TokenFile says where one comes from.
	Client *api.Client
	// Auth logs in, again when the token ends or is refused. The token is renewed, and
	// revoked by Close.
	Auth api.AuthMethod
	// TokenFile holds the token, as an agent writes it; it is read again when it
	// changes.
	TokenFile string

	// Mount is where the engine is mounted: "apikeys".
	Mount string
	// Role whose key it is, static or dynamic.
	Role string

	// Scopes and TTL narrow the key of a dynamic role, and KeyLabel says what it is for.
	// A static role hands out one key to everybody, and refuses them.
	Scopes   []string
	TTL      time.Duration
	KeyLabel string

	// Label is this consumer's name in the role's status, among those who use a
	// version: "shop". Instance tells its processes apart, by default with the host's
	// name; random characters are added.
	Label, Instance string
	// NoReports: do not report uses. Then status of the role does not say that this
	// consumer has moved to a new version.
	NoReports bool

	// Log is told of what goes wrong; never a key.
	Log *slog.Logger

	// Clock is for simulations: the wall clock's and the monotonic clock's time in
	// nanoseconds.
	Clock func() (wall, mono int64)
}

// Key is a key, and what is known of it.
type Key struct {
	// Value is the key itself: keep it secret.
	Value string
	// ID is its public id, for logs.
	ID      string
	Version int
	Scopes  []string
	Role    string
}

// String is the key's public id: a key that is printed by mistake stays secret.
func (k Key) String() string { return "[key " + k.ID + "]" }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

const (
	// callTime is what a call may take.
	callTime = 10 * time.Second
	// firstWait is how long a request waits for the first key.
	firstWait = 10 * time.Second
	// wakeWait is how long a request waits for the key to be read again, where the time
	// for that has passed unnoticed: the machine was suspended.
	wakeWait = 2 * time.Second
	// longestSleep bounds the pauses of the background: deadlines are looked at by a
	// clock that goes on while the machine is suspended, timers are not.
	longestSleep = 15 * time.Second
	// lastCalls is what everything at the end may take.
	lastCalls = 2 * time.Second

	// longestRetry bounds the pauses between reads that fail.
	longestRetry = 30 * time.Second
	// longestWithout is longestRetry where there is no key at hand.
	longestWithout = 5 * time.Second
	// longestRefused bounds the pauses between reads for the sake of a key that is
	// refused though it is the current one.
	longestRefused = 15 * time.Second
	// forgiven is how long after the last of these pauses they begin anew.
	forgiven = 5 * time.Minute
)

// ErrNoKey means that there is no key to call with: none was read yet, or the lease of
// the last one has ended. What it wraps says why.
var ErrNoKey = errors.New("there is no key")

var errClosed = errors.New("the source is closed")

// Source has the current key of a role. Its methods may be called at the same time.
type Source struct {
	opt    Options
	log    *slog.Logger
	remote remote

	mu      sync.Mutex
	cur     *held
	flight  *flight
	err     error  // of the last read
	failed  int    // reads in a row
	next    moment // when to read, or to renew, again
	older   int    // answers in a row that were older than the key at hand
	closed  bool
	changed chan struct{} // closed, and replaced, when there is another key
	wake    chan struct{} // the background has something to do earlier than it knew
	stats   Stats

	usage  reporter
	jitter *jitter

	life context.Context //nolint:containedctx // reads are shared, and end with the source
	stop context.CancelFunc
	done sync.WaitGroup
}

// held is a key at hand, and who uses it.
type held struct {
	Key
	scopes []string // as they were read last

	// Of a leased key.
	lease     string
	life      time.Duration
	renewable bool
	leaseEnd  moment
	token     string
	tokenLife time.Duration // when it was looked at; 0: it does not end, or nobody knows
	tokenEnd  moment
	lookAgain moment    // at the token: it may have been renewed
	since     time.Time // of a static role's
	users     int       // requests under way
	handedOut bool      // nobody knows who has it
	replaced  bool
	given     bool // its lease was given back

	suspect   bool   // it was refused since it was accepted last
	refusals  int    // reads for its refusal
	notBefore moment // the next one
}

// ends is when the key is dead for certain; the zero moment if that is not known.
func (h *held) ends() moment { return earlier(h.leaseEnd, h.tokenEnd) }

// flight is a read under way; those who wait for it share what comes of it.
type flight struct {
	done chan struct{}
	// refused is the id of the key for whose refusal it was begun.
	refused string
	err     error
}

var roleForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)

// New begins to read the role's key. It does not wait for it: Key does.
func New(opt Options) (*Source, error) { return open(opt, newVault) }

// open is New with an engine that is reached by dial.
func open(opt Options, dial func(context.Context, *sync.WaitGroup, *Options) (remote, error)) (*Source, error) {
	switch {
	case opt.Client == nil || strings.Trim(opt.Mount, "/") == "":
		return nil, errors.New("client: Client and Mount are required")
	case !roleForm.MatchString(opt.Role) || strings.Contains(opt.Role, ".."):
		return nil, fmt.Errorf("client: Role: %q is not the name of a role", opt.Role)
	case opt.Auth != nil && opt.TokenFile != "":
		return nil, errors.New("client: Auth and TokenFile are both set: one of them says where the token comes from")
	case opt.TTL != 0 && opt.TTL < time.Second:
		return nil, fmt.Errorf("client: TTL: %v: is less than a second", opt.TTL)
	}
	opt.defaults()
	s := &Source{opt: opt, log: opt.Log, changed: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.usage.init(opt.Instance)
	s.next = s.now()
	s.jitter = newJitter(opt.Instance, s.next.wall)
	ctx, cancel := context.WithCancel(context.Background())
	s.life, s.stop = ctx, cancel
	var err error
	if s.remote, err = dial(ctx, &s.done, &s.opt); err != nil {
		cancel()
		return nil, fmt.Errorf("client: %w", err)
	}
	s.done.Go(func() { s.keep(ctx) })
	if !opt.NoReports {
		s.done.Go(func() { s.reportUses(ctx) })
	}
	return s, nil
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = systemClock
	}
	o.Instance = vaultlogin.Instance(o.Instance)
}

func (s *Source) now() moment {
	wall, mono := s.opt.Clock()
	return moment{wall, mono}
}

// Key is the current key. It waits for the first one for as long as ctx and ten seconds
// allow; later it does not wait. A key of a dynamic role that is handed out here is not
// given back before its lease ends: nobody can know who still uses it.
func (s *Source) Key(ctx context.Context) (Key, error) {
	h, err := s.current(ctx)
	if err != nil {
		return Key{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.handedOut = true
	h.users--
	k := h.Key
	k.Scopes = h.scopes
	return k, nil
}

// Changed is closed when there is another key than now: for programs that hold
// connections which were opened with a key.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// current is the key to call with; the caller lets it go with free.
func (s *Source) current(ctx context.Context) (*held, error) {
	s.mu.Lock()
	h := s.usableLocked(s.now(), false)
	s.mu.Unlock()
	if h != nil {
		return h, nil
	}
	return s.await(ctx)
}

// usableLocked is the key at hand, if it can be used; unless late, not one that should
// have been read again long ago.
func (s *Source) usableLocked(now moment, late bool) *held {
	h := s.cur
	if h == nil || s.closed || h.ends().passed(now) || !late && s.overdueLocked(now) {
		return nil
	}
	h.users++
	return h
}

// overdueLocked reports whether the key should have been read again long ago, and not
// because the server is away: this machine was suspended.
func (s *Source) overdueLocked(now moment) bool {
	return s.failed == 0 && s.next.until(now) < -lateness
}

// lateness is by how much a read may be late.
const lateness = 2 * longestSleep

// await waits until there is a key, or until there will be none.
func (s *Source) await(ctx context.Context) (*held, error) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	noKey := func(err error) error { return fmt.Errorf("%w of role %s: %w", ErrNoKey, s.opt.Role, err) }
	for late := false; ; late = true {
		s.mu.Lock()
		now := s.now()
		if h := s.usableLocked(now, late); h != nil {
			s.mu.Unlock()
			return h, nil
		}
		err, due, closed, wait := s.err, s.failed == 0 || s.next.passed(now), s.closed, s.next.until(now)
		if err == nil {
			err = errors.New("the server has not answered yet")
		}
		if ended := s.cur != nil && s.cur.ends().passed(now); ended {
			err = fmt.Errorf("the lease of the last one ended, and no other could be had: %w", err)
		} else if s.cur != nil {
			wait = wakeWait
		}
		var read <-chan struct{}
		if s.flight != nil || due && !closed {
			read, wait = s.readLocked("").done, max(wait, wakeWait)
		}
		s.mu.Unlock()
		switch {
		case closed:
			return nil, noKey(errClosed)
		case final(err) && !due:
			return nil, noKey(err) // asking the same again at once brings nothing new
		}
		timer := time.NewTimer(wait)
		select {
		case <-read:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, noKey(fmt.Errorf("%w (%w)", err, ctx.Err()))
		}
	}
}

// free lets a key go.
func (s *Source) free(h *held) {
	s.mu.Lock()
	h.users--
	give := s.spentLocked(h)
	s.mu.Unlock()
	if give {
		s.giveBack(h)
	}
}

// spentLocked reports whether the lease of a key that was replaced is of no use to
// anybody now.
func (s *Source) spentLocked(h *held) bool {
	if !h.replaced || h.lease == "" || h.users > 0 || h.handedOut || h.given || s.closed {
		return false
	}
	h.given = true
	return true
}

// giveBack ends a lease.
func (s *Source) giveBack(h *held) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.done.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.done.Done()
		ctx, cancel := context.WithTimeout(context.Background(), lastCalls)
		defer cancel()
		if err := s.remote.revoke(ctx, h.lease); err != nil {
			// Most policies do not allow it; then the lease ends by itself.
			s.log.Debug("the lease of a replaced key cannot be given back", "key_id", h.ID, "error", err)
		}
	}()
}

// Stats tell how a Source is.
type Stats struct {
	// KeyID, Version: of the key at hand; empty before the first.
	KeyID   string
	Version int
	// Ends is when the key ends unless it is replaced; zero for a static role's.
	Ends time.Time
	// Reads, Failures: of creds/<role>. Renewals: of leases. Changes: other keys than
	// the one before. Refused: requests that the key at hand was refused for.
	Reads, Failures, Renewals, Changes, Refused int64
	// ReadAt is when the last read succeeded.
	ReadAt time.Time
	// Err is why the last read failed; nil if it did not.
	Err error
}

// Stats tell how the Source is.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Err = s.err
	if s.cur != nil {
		st.KeyID, st.Version = s.cur.ID, s.cur.Version
		if end := s.cur.ends(); end != (moment{}) {
			st.Ends = time.Unix(0, end.wall)
		}
	}
	return st
}

// Close ends the Source. What was used is reported once more, and leases are given back:
// of a login of its own by revoking its token.
func (s *Source) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.done.Wait()
	h := s.cur // nobody else is left
	ctx, cancel := context.WithTimeout(context.Background(), lastCalls)
	defer cancel()
	var err error
	switch {
	case s.opt.Auth != nil && s.remote.token() != "":
		err = s.remote.logOut(ctx)
	case h != nil && h.lease != "":
		err = s.remote.revoke(ctx, h.lease)
	}
	if err != nil {
		s.log.Debug("what was issued cannot be given back: it ends by itself", "error", err)
	}
	return nil
}
