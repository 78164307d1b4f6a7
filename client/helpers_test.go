// SPDX-License-Identifier: MPL-2.0

package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// engine is the engine and the server around it, as a test wants them.
type engine struct {
	mu sync.Mutex

	key       int // its number
	since     time.Time
	ttl       time.Duration
	dynamic   bool
	life      time.Duration // of a lease
	maxLife   time.Duration // of a lease with all renewals; 0: no limit
	issued    map[string]time.Time
	theToken  string
	tokenEnds time.Time     // zero: it does not
	err       error         // of all calls
	tokenErr  error         // of looks at the token
	keepErr   error         // of giving back
	hang      chan struct{} // reads wait for it
	hung      chan struct{} // and say so

	reads    []time.Time
	renewals []time.Time
	revoked  []string
	reports  []string
	out      int // logOut
}

func newEngine() *engine {
	return &engine{key: 1, since: time.Now(), ttl: 5 * time.Minute, issued: map[string]time.Time{}, theToken: "t1", life: time.Hour}
}

func (e *engine) do(fn func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fn()
}

// refuses is why a call fails: the server is away, or the token has ended.
func (e *engine) refuses() error {
	if e.err == nil && !e.tokenEnds.IsZero() && !time.Now().Before(e.tokenEnds) {
		return refusal(403, "permission denied")
	}
	return e.err
}

// rotate gives the static role another key.
func (e *engine) rotate() { e.do(func() { e.key++; e.since = time.Now() }) }

func (e *engine) readsNow() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.reads)
}

func (e *engine) read(ctx context.Context) (*grant, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reads = append(e.reads, time.Now())
	g := &grant{ttl: e.ttl, since: e.since, token: e.theToken}
	if e.dynamic && e.refuses() == nil {
		e.key++
	}
	id := fmt.Sprint("k", e.key)
	g.key = Key{Value: "value-" + id, ID: id, Version: e.key, Role: "orders"}
	if e.dynamic {
		g.ttl, g.since = 0, time.Time{}
		g.lease, g.life, g.renewable = "lease-"+id, e.life, true
		e.issued[g.lease] = time.Now()
	}
	err := e.refuses()
	if hang := e.hang; hang != nil {
		e.mu.Unlock()
		e.hung <- struct{}{}
		select {
		case <-hang:
		case <-ctx.Done():
			err = ctx.Err()
		}
		e.mu.Lock()
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (e *engine) renew(_ context.Context, lease string) (time.Duration, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.renewals = append(e.renewals, time.Now())
	if err := e.refuses(); err != nil {
		return 0, err
	}
	if e.maxLife > 0 {
		return min(e.life, e.maxLife-time.Since(e.issued[lease])), nil
	}
	return e.life, nil
}

func (e *engine) revoke(_ context.Context, lease string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.revoked = append(e.revoked, lease)
	return e.keepErr
}

func (e *engine) tokenLife(context.Context, string) (time.Duration, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tokenEnds.IsZero() {
		return 0, cmp.Or(e.refuses(), e.tokenErr)
	}
	return time.Until(e.tokenEnds), cmp.Or(e.refuses(), e.tokenErr)
}

func (e *engine) token() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.theToken
}

func (e *engine) report(_ context.Context, _ string, sequence uint64, batch string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reports = append(e.reports, fmt.Sprint(sequence, " ", batch))
	return e.err
}

func (e *engine) logOut(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out++
	return nil
}

// source reads from e.
func source(t *testing.T, e *engine, change func(*Options)) *Source {
	t.Helper()
	opt := Options{Client: &api.Client{}, Mount: "apikeys", Role: "orders"}
	if change != nil {
		change(&opt)
	}
	s, err := open(opt, func(context.Context, *sync.WaitGroup, *Options) (remote, error) { return e, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// has asserts which key is at hand.
func has(t *testing.T, s *Source, id string) {
	t.Helper()
	key, err := s.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if key.ID != id {
		t.Fatalf("the key at hand is %s, want %s", key.ID, id)
	}
}

// refusal is an answer of the server that it will give again.
func refusal(status int, text string) error {
	return &api.ResponseError{StatusCode: status, Errors: []string{text}}
}

var errAway = errors.New("no route to host")

// machine are clocks that a test sets.
type machine struct {
	mu         sync.Mutex
	wall, mono time.Duration
	start      time.Time
}

func newMachine() *machine { return &machine{start: time.Now()} }

func (m *machine) clock() (wall, mono int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.wall).UnixNano(), int64(time.Since(m.start) + m.mono)
}

// set changes the wall clock; sleep is the same: it goes on while nothing else does.
func (m *machine) set(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wall += by
}

// roundTripper makes one of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
