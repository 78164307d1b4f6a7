// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// Tidy removes what crashes and failed writes left behind and what is too old to
// keep, and puts back what the calendar lacks. It is one pass over the storage,
// in stages, cut into slices; how far it has come is stored, so a pass outlives
// calls, restarts and failovers.
//
// Why it may run at any moment: whatever it removes or writes, it does under the
// lock of the role concerned, after reading the role's record again under that
// lock. Every commit of a role holds that lock from before its first write to
// after its last, so on this node none is half done then. A node that has just
// lost its place may still have written keys that no record points at and never
// will: these look like those that a commit is about to point at, so nothing is
// taken for left behind before it is an hour old, which no call can last.
//
// Every key record, plaintext and index entry is reached from key/, because the
// key's record is written first and removed last. So no stage has to list the
// plaintexts or the index.

const (
	// tidyAge is how old something must be to be taken for left behind.
	tidyAge = time.Hour
	// deadKept is how long the record of a dead leased key is kept, to say how it
	// ended. One that must not come back is kept as long as history is.
	deadKept = 30 * 24 * time.Hour
	// strayReach is how far before the minutes of the ticks strays are looked for.
	strayReach = 30 * 24 * time.Hour

	// tidyPause and tidyEvery: the periodic function begins a pass this long
	// after the one before, and does a slice of it this often.
	tidyPause = 24 * time.Hour
	tidyEvery = 5 * time.Minute
	// A slice of the periodic function, and one of a pass that somebody waits for.
	slowCalls, slowTime = 400, 500 * time.Millisecond
	fastCalls, fastTime = 20000, 2 * time.Second
	// A request works for so long, whatever that takes.
	tidyWork, maxTidyCalls = 4 * time.Second, math.MaxInt

	// tidyChunk is how many names of a long list are held in memory.
	tidyChunk = 10000
)

// tidyRecord is how far the pass has come.
type tidyRecord struct {
	Schema   int       `json:"schema"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"` // of the last pass; zero while one is under way
	ByHand   bool      `json:"by_hand,omitempty"`
	Stage    string    `json:"stage,omitempty"`
	After    string    `json:"after,omitempty"` // the last name of the stage that is done with
	Counts   tidyCount `json:"counts"`
	// What the pass has seen; nil where it has not looked from the beginning on.
	Foreign  *foreignSeen  `json:"foreign,omitempty"`
	Prefixes *prefixesSeen `json:"prefixes,omitempty"`
}

func (r *tidyRecord) schema() int { return r.Schema }

func (r *tidyRecord) newest() int { return renameSchema }

func (r *tidyRecord) running() bool { return !r.Started.IsZero() && r.Finished.IsZero() }

// tidyCount is what a pass did.
type tidyCount struct {
	Examined     int64 `json:"examined"`
	Refiled      int64 `json:"refiled"`
	Entries      int64 `json:"entries"`
	Keys         int64 `json:"keys"`
	Secrets      int64 `json:"secrets"`
	ArchivePages int64 `json:"archive_pages"`
	DeletedRoles int64 `json:"deleted_roles"`
	Problems     int64 `json:"problems"`
	Usage        int64 `json:"usage"`
	Failed       int64 `json:"failed"`
}

// tidyState is this node's part: who is at work, when the next slice comes, and
// the names read ahead.
type tidyState struct {
	mu     sync.Mutex // held by whoever works
	next   time.Time
	byHand bool // a pass that somebody asked for goes on at next
	prefix string
	names  []string
	last   bool // names reaches to the end of the list
}

// tidyRun is one slice of a pass.
type tidyRun struct {
	b     *backend
	s     *countedStorage
	rec   *tidyRecord
	tick  *tick
	now   time.Time
	calls int // budget
}

type tidyStage struct {
	name string
	run  func(*tidyRun, context.Context) (done bool, err error)
}

// tidyStages are the stages of a pass. A later build may add and reorder them:
// an unknown name begins anew.
var tidyStages = []tidyStage{
	{"deleted", (*tidyRun).deletedRoles},
	{"problems", (*tidyRun).problems}, // after deleted
	{"attention", (*tidyRun).attention},
	{"strays", (*tidyRun).strays},
	{"roles", (*tidyRun).roles},
	{"keys", (*tidyRun).keys},
	{"archive", (*tidyRun).archives},
	{"usage", (*tidyRun).usage},
	{"moved", (*tidyRun).moves},
	{"reporters", (*tidyRun).reporters},
	{"reports", (*tidyRun).reports}, // after keys
}

// tidySlowly is the periodic part: a small slice now and then, so that a tick
// with nothing due costs the same however much there is.
func (b *backend) tidySlowly(ctx context.Context, t *tick) error {
	if !b.tidy.mu.TryLock() {
		return nil
	}
	defer b.tidy.mu.Unlock()
	if b.tidy.next.IsZero() {
		b.tidy.next = t.now.Add(tidyEvery) // a start or failover is busy enough
	}
	if t.now.Before(b.tidy.next) && b.tidy.next.Sub(t.now) <= tidyPause {
		return nil
	}
	rec, err := getRecord[tidyRecord](ctx, t.s, tidyPath)
	if err != nil {
		return err
	}
	if rec == nil {
		rec = &tidyRecord{}
	}
	if !rec.running() {
		if next := rec.Finished.Add(tidyPause); next.After(t.now) && next.Sub(t.now) <= tidyPause {
			b.tidy.next = next
			return nil
		}
		b.beginTidy(rec, t.now, false)
	}
	if err := t.fence(ctx); err != nil {
		return err
	}
	b.tidy.next = t.now.Add(tidyEvery)
	calls, limit := slowCalls, slowTime
	if rec.ByHand {
		calls, limit = fastCalls, fastTime
		b.tidy.next = t.now
	}
	err = b.tidySlice(ctx, t, rec, calls, min(limit, t.restTime()))
	b.tidy.byHand = err == nil && rec.ByHand && rec.running()
	return err
}

// beginTidy starts a pass anew.
func (b *backend) beginTidy(rec *tidyRecord, now time.Time, byHand bool) {
	*rec = tidyRecord{Schema: recordSchema, Started: now, ByHand: byHand, Stage: tidyStages[0].name, Prefixes: &prefixesSeen{}}
	b.tidy.prefix, b.tidy.names, b.tidy.last = "", nil, false
}

// tidySlice does a part of the pass and stores how far it came. The caller
// holds the mutex.
func (b *backend) tidySlice(ctx context.Context, t *tick, rec *tidyRecord, calls int, limit time.Duration) error {
	work, cancel := t.begin(ctx, limit)
	defer cancel()
	s := &countedStorage{Storage: t.s}
	own := &tick{b: b, s: s, now: t.now, config: t.config, lim: t.lim, kept: t.kept}
	r := &tidyRun{b: b, s: s, rec: rec, tick: own, now: t.now, calls: calls}
	err := r.stages(work)
	if err != nil && work.Err() != nil {
		err = nil // out of time, which is no failure: the next slice goes on
	}
	return errors.Join(err, b.keepTidy(ctx, t.s, rec))
}

// keepTidy stores how far the pass has come.
func (b *backend) keepTidy(ctx context.Context, s logical.Storage, rec *tidyRecord) error {
	return b.storeTidy(ctx, s, func(schema int) any {
		rec.Schema = schema
		return rec
	})
}

func (r *tidyRun) stages(ctx context.Context) error {
	i := slices.IndexFunc(tidyStages, func(s tidyStage) bool { return s.name == r.rec.Stage })
	if i < 0 {
		i, r.rec.After = 0, ""
	}
	for ; i < len(tidyStages); i++ {
		if r.rec.Stage != tidyStages[i].name {
			r.rec.Stage, r.rec.After = tidyStages[i].name, ""
		}
		done, err := tidyStages[i].run(r, ctx)
		if err != nil || !done {
			return err
		}
	}
	r.rec.Stage, r.rec.After, r.rec.Finished = "", "", r.now
	return nil
}

// counted counts the records that a visit looks at.
func (r *tidyRun) counted(visit func(context.Context, string) error) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, name string) (bool, error) {
		r.rec.Counts.Examined++
		return true, visit(ctx, name)
	}
}

func (r *tidyRun) over(ctx context.Context) bool {
	return ctx.Err() != nil || r.s.calls >= r.calls || !r.tick.may()
}

// walk visits the names after the cursor, in order. What fails for one of them
// stops no other: the next pass comes by again. A visit that answers false is
// repeated by the next slice.
func (r *tidyRun) walk(ctx context.Context, names []string, visit func(context.Context, string) (bool, error)) (done bool, err error) {
	for _, name := range (window{after: r.rec.After}).rest(names) {
		if r.over(ctx) {
			return false, nil
		}
		var done bool
		err := r.b.guarded("tidy "+r.rec.Stage, func() (err error) {
			done, err = visit(ctx, name)
			return err
		})
		switch {
		case err == nil && !done:
			return false, nil
		case err != nil && (ctx.Err() != nil || mustForward(err)):
			return false, err
		case err != nil:
			r.rec.Counts.Failed++
			r.unseen()
			r.b.Logger().Warn("tidy passes over a record", "stage", r.rec.Stage, "error", err)
		}
		r.rec.After = name
	}
	return true, nil
}

// stream walks a list that may be very long. Servers can only list all of it, so
// that is done seldom, and few of the names are kept until the next slice.
func (r *tidyRun) stream(ctx context.Context, prefix string, visit func(context.Context, string) error) (done bool, err error) {
	t := &r.b.tidy
	for {
		var rest []string
		if t.prefix == prefix {
			rest = window{after: r.rec.After}.rest(t.names)
		}
		if t.prefix != prefix || (len(rest) == 0 && !t.last) {
			all, err := list(ctx, r.s, prefix)
			if err != nil {
				return false, err
			}
			all = window{after: r.rec.After}.rest(all)
			rest = make([]string, min(len(all), tidyChunk))
			for i := range rest {
				rest[i] = strings.Clone(all[i]) // the rest of the list is to be freed
			}
			t.prefix, t.names, t.last = prefix, rest, len(all) <= tidyChunk
		}
		if done, err := r.walk(ctx, rest, r.counted(visit)); err != nil || !done {
			return false, err
		}
		if t.last {
			t.prefix, t.names, t.last = "", nil, false
			return true, nil
		}
	}
}

// remove deletes a record that the caller, under the role's lock, found to be
// left over.
func (r *tidyRun) remove(ctx context.Context, path string, n *int64) error {
	if err := deleteRecord(ctx, r.s, path); err != nil {
		return err
	}
	*n++
	return nil
}

// old reports whether something of that time cannot belong to a call that is under
// way. A time that is not known, or lies ahead, is not old.
func (r *tidyRun) old(born time.Time) bool { return !born.IsZero() && r.now.Sub(born) > tidyAge }
