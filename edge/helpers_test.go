// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

var errDown = errors.New("down")

// engine stands for the one behind a server.
type engine struct {
	feed *feed.Feed

	mu       sync.Mutex
	keys     map[string]*engineKey
	down     bool          // calls fail at once
	hang     bool          // calls never come back
	delay    time.Duration // of calls to verify, after the engine looked
	calls    [][]question
	reports  []report
	refuse   error         // of reports
	late     time.Duration // how long the feed takes to answer
	way      time.Duration // how long an answer of the feed is on its way
	exact    bool          // a poll that asks for the time is under way
	exacts   int           // how many there were
	feedWait int64         // the mount's, in seconds; zero: 2
	polls    int           // how many polls there were, exact ones too
	resets   bool          // each answer of the feed is a reset
	hasty    bool          // no poll waits
	polled   time.Time     // when the last poll came
	mount    string        // its id
	ahead    time.Duration // of the server's clock
	anew     int           // how often a new connection was asked for
}

type engineKey struct {
	answer
	facts roleFacts
}

type report struct {
	instance string
	sequence uint64
	batch    string
}

func newEngine() *engine {
	return &engine{feed: feed.New(1000), keys: map[string]*engineKey{}}
}

func valid() timeline.Entry {
	return timeline.Entry{From: time.Now().Add(-time.Hour), Code: "VALID", State: "current"}
}

// add makes the engine know a key.
func (e *engine) add(key, roleID string, line ...timeline.Entry) *engineKey {
	if len(line) == 0 {
		line = []timeline.Entry{valid()}
	}
	k := &engineKey{answer{Code: line[0].Code, RoleID: roleID, KeyID: "id-" + key, Version: 1, Timeline: line}, roleFacts{Role: "name-" + roleID}}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys[key] = k
	return k
}

func (e *engine) remove(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.keys, key)
}

// revoke ends a key, and tells.
func (e *engine) revoke(key string) {
	k := e.add(key, e.keys[key].RoleID, timeline.Entry{From: time.Now(), Code: "REVOKED", State: "revoked", Reason: "leaked"})
	e.feed.Publish(feed.Notice{RoleID: k.RoleID, Closing: true})
}

func (e *engine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *engine) away(ctx context.Context) error {
	e.mu.Lock()
	down, hang := e.down, e.hang
	e.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if down {
		return errDown
	}
	return nil
}

func (e *engine) changes(ctx context.Context, since string, wait time.Duration) (changes, error) {
	if err := e.away(ctx); err != nil {
		return changes{}, err
	}
	e.mu.Lock()
	f, late, mount, ahead := e.feed, e.late, e.mount, e.ahead
	e.polled = time.Now()
	e.polls++
	resets := e.resets
	if e.hasty && wait > 0 {
		wait = time.Nanosecond
	}
	if e.exact = wait == 0; e.exact {
		e.exacts++
	}
	e.mu.Unlock()
	a, err := f.Since(ctx, since, wait)
	if resets {
		a.Notices, a.Reset = nil, true
	}
	if late > 0 {
		select {
		case <-time.After(late):
		case <-ctx.Done():
			return changes{}, ctx.Err()
		}
	}
	if err == nil {
		err = e.away(ctx)
	}
	now := time.Now().Add(ahead)
	e.mu.Lock()
	way, feedWait := e.way, cmp.Or(e.feedWait, 2)
	e.mu.Unlock()
	if way > 0 {
		<-time.After(way)
	}
	return changes{Notices: a.Notices, Cursor: a.Cursor, Reset: a.Reset, Now: now, Oldest: a.Oldest, Mount: mount, MaxStaleness: 60, FeedWait: feedWait}, err
}

func (e *engine) verify(ctx context.Context, questions []question) (*answers, error) {
	e.mu.Lock()
	e.calls = append(e.calls, questions)
	delay := e.delay
	out := &answers{Cursor: e.feed.Cursor(), Roles: map[string]roleFacts{}}
	for i := range questions {
		q := &questions[i]
		k := e.keys[q.key]
		for _, other := range e.keys {
			if q.keyID != "" && other.KeyID == q.keyID {
				k = other
			}
		}
		if k == nil {
			out.Results = append(out.Results, answer{Code: codeNotFound})
			continue
		}
		out.Results = append(out.Results, k.answer)
		out.Roles[k.RoleID] = k.facts
	}
	e.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return out, e.away(ctx)
}

// reported are the reports that have come.
func (e *engine) reported() []report {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.reports)
}

func (e *engine) report(_ context.Context, instance string, sequence uint64, batch string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reports = append(e.reports, report{instance, sequence, batch})
	return e.refuse
}

func (e *engine) reconnect() { e.set(func() { e.anew++ }) }

// reconnected is how often a new connection was asked for.
func (e *engine) reconnected() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.anew
}

// asked is how many calls have been made, and keys asked about.
func (e *engine) asked() (calls, keys int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.calls {
		keys += len(c)
	}
	return len(e.calls), keys
}

// start opens an edge of the engine, and waits until it is live. In a bubble.
func (e *engine) start(t testing.TB, opt Options) *Verifier {
	t.Helper()
	v := e.open(t, opt)
	<-time.After(time.Second)
	return v
}

func (e *engine) open(t testing.TB, opt Options) *Verifier {
	t.Helper()
	v, err := e.tryOpen(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func (e *engine) tryOpen(opt Options) (*Verifier, error) {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return nil, err
	}
	opt.Client, opt.Mount = client, "apikeys"
	return open(opt, func(context.Context, *sync.WaitGroup, Options) (remote, error) { return e, nil })
}

// code is the verdict's code, or the error's text.
func code(t testing.TB, v *Verifier, key string) string {
	t.Helper()
	verdict, err := v.Verify(context.Background(), Request{Key: key})
	if err != nil {
		if !errors.Is(err, ErrUnavailable) || verdict.Valid || verdict.Code != "" {
			t.Errorf("%+v, %v", verdict, err)
		}
		return "error"
	}
	return verdict.Code
}

func want(t testing.TB, v *Verifier, key, wanted string) {
	t.Helper()
	if got := code(t, v, key); got != wanted {
		t.Errorf("%s is %s, want %s", key, got, wanted)
	}
}
