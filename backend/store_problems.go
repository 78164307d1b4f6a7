// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

const (
	minBackoff = 10 * time.Second
	maxBackoff = time.Hour
	maxProblem = 512
)

// problem is why looking at a role fails, and when it is tried again. It is
// kept in memory, so that a storage that refuses writes does not hide it, and
// stored as far as that works: the stored ones are the index of problems.
type problem struct {
	Schema   int       `json:"schema"`
	Role     string    `json:"role"`
	Error    string    `json:"error"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"`
	// Told and Overdue: it was told that work on the role fails, and that its rotation is
	// overdue.
	Told    bool `json:"told,omitempty"`
	Overdue bool `json:"overdue,omitempty"`
}

func (p *problem) schema() int { return p.Schema }

// awaited reports whether the next attempt lies ahead of now, as far as one can.
func (p *problem) awaited(now time.Time) bool {
	return p.Next.After(now) && p.Next.Sub(now) <= maxBackoff
}

// lately reports whether the problem is no older than any retry waits.
func (p *problem) lately(now time.Time) bool {
	return now.Sub(p.Next) < 2*maxBackoff && p.Next.Sub(now) <= maxBackoff
}

type problemSet struct {
	mu    sync.Mutex
	known map[string]*problem
	// others are the roles of which another instance of the engine has stored a
	// problem, as far as the index was read; nil: it is to be read.
	others map[string]struct{}
	tells  int // how often told was called
}

// told notes that another node wrote a problem of the role, or removed it.
func (p *problemSet) told(role string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, role)
	p.others = nil
	p.tells++
}

// failed counts a failure and decides when the next attempt comes: exponential
// from 10 s to 1 h, with a jitter of a fifth.
func (p *problemSet) failed(role string, err error, now time.Time) problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[string]*problem{}
	}
	e := p.known[role]
	if e == nil {
		e = &problem{Schema: recordSchema, Role: role, First: now}
		p.known[role] = e
	}
	e.Attempts++
	e.Last = now
	e.Error = keyformat.Redact(err.Error())
	if len(e.Error) > maxProblem {
		e.Error = e.Error[:maxProblem]
	}
	backoff := maxBackoff
	if shift := e.Attempts - 1; shift < 9 {
		backoff = min(minBackoff<<shift, maxBackoff)
	}
	e.Next = now.Add(backoff - rand.N(backoff/5)) //nolint:gosec // spreads retries, decides nothing
	return *e
}

// waiting reports whether the role failed and its next attempt is not due, and when
// that is. One that is further ahead than any was put there by a wrong clock.
func (p *problemSet) waiting(role string, now time.Time) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.known[role]; e != nil && e.awaited(now) {
		return e.Next, true
	}
	return time.Time{}, false
}

func (p *problemSet) get(role string) (problem, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.known[role]; e != nil {
		return *e, true
	}
	return problem{}, false
}

func (p *problemSet) clear(role string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.known[role]
	delete(p.known, role)
	return known
}

// storeProblem adds the role to the index of problems, as far as storage takes it.
func (b *backend) storeProblem(ctx context.Context, s logical.Storage, role string, p problem) {
	if _, err := getRecord[problem](ctx, s, problemPath(role)); errors.Is(err, errSchema) {
		return // a newer build's is not overwritten
	}
	if err := putRecord(ctx, s, problemPath(role), &p); err != nil {
		b.Logger().Debug("a problem is known in memory only", "role", role, "error", err)
	}
}

// note changes what is known of the role's problem.
func (p *problemSet) note(role string, fn func(*problem)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.known[role]; e != nil {
		fn(e)
	}
}

// clearProblem removes a role that works again from the index of problems. recovered, if
// it is given, is told of a problem that others know.
func (b *backend) clearProblem(ctx context.Context, s logical.Storage, role string, recovered func(*problem)) {
	was, known := b.problems.get(role)
	own := b.problems.clear(role)
	others := b.othersProblem(ctx, s, role)
	if !own && !others {
		return
	}
	if recovered != nil && !known && b.heard(tellsRecovered, role) {
		if stored, err := getRecord[problem](ctx, s, problemPath(role)); err == nil && stored != nil {
			was = *stored
		}
	}
	if recovered != nil && was.Told {
		recovered(&was)
	}
	if err := deleteRecord(ctx, s, problemPath(role)); err != nil {
		b.Logger().Debug("a solved problem is still listed", "role", role, "error", err)
	}
}

// othersProblem reports whether the index has a problem of the role that another
// instance of the engine stored, and forgets that.
func (b *backend) othersProblem(ctx context.Context, s logical.Storage, role string) bool {
	p := &b.problems
	there, read, tells := p.takeOthers(role)
	if read {
		return there
	}
	// Without the lock, which everybody needs: storage may take its time.
	names, err := list(ctx, s, problemPrefix)
	if err != nil {
		b.Logger().Debug("solved problems of another node are still listed", "error", err)
		return false
	}
	p.keepOthers(names, tells)
	return slices.Contains(names, role)
}

// takeOthers reports whether another instance has stored a problem of the role, and
// forgets that. read is false where the index is to be read first.
func (p *problemSet) takeOthers(role string) (there, read bool, tells int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, there = p.others[role]
	delete(p.others, role)
	return there, p.others != nil, p.tells
}

// keepOthers keeps what the index had, unless somebody has read it before or was told of
// something new since.
func (p *problemSet) keepOthers(names []string, tells int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.others != nil || p.tells != tells {
		return
	}
	p.others = make(map[string]struct{}, len(names))
	for _, name := range names {
		p.others[name] = struct{}{}
	}
}

// problemOf returns the role's problem, from this node's memory or as another
// node stored it; nil if there is none.
func (b *backend) problemOf(ctx context.Context, s logical.Storage, role string) (*problem, error) {
	if p, ok := b.problems.get(role); ok {
		return &p, nil
	}
	return getRecord[problem](ctx, s, problemPath(role))
}
