// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
	"time"
)

// tellOutside is the part of a step that has events delivered.
func (b *backend) tellOutside(ctx context.Context, t *tick) error {
	begin, cancel := t.begin(ctx, t.restTime())
	defer cancel()
	t.tellOverdue(ctx)
	return b.tendOutbox(ctx, begin, &tending{
		s: t.s, may: t.may, fence: func() error { return t.fence(ctx) }, pool: t.pool,
	})
}

const (
	// failingTells is at which attempt in a row it is told that work on a role fails: one
	// that fails once is no news.
	failingTells = 3
	// overdueAtOnce is how many rotations one step tells to be overdue.
	overdueAtOnce = 100
)

// tellFailure tells that work on a role fails, and that its rotation is overdue, once
// each. It returns the problem with that noted.
func (b *backend) tellFailure(ctx context.Context, t *tick, job dueJob, p problem) problem {
	if strings.HasPrefix(job.name, deletedMark) {
		return p
	}
	failing := !p.Told && p.Attempts >= failingTells && b.heard(tellsFailing, job.name)
	late := !p.Overdue && b.heard(tellsOverdue, job.name)
	if !failing && !late {
		return p
	}
	r, err := b.lookToRead(ctx, t.s, job.name)
	if err != nil || r == nil {
		return p
	}
	if failing {
		f := factAbout(r.rec, tellsFailing, t.now, map[string]any{
			"since": stamp(p.First), "attempts": p.Attempts, "next_attempt": stamp(p.Next), "cause": byClock,
		})
		f.addText("error", p.Error)
		if b.tellAlone(ctx, t.s, f) == nil {
			p.Told = true
		}
	}
	if late && r.unread == nil && len(b.overdue(r)) > 0 {
		if b.tellAlone(ctx, t.s, overdueFact(r, t.now)) == nil {
			p.Overdue = true
		}
	}
	b.problems.note(job.name, func(known *problem) { known.Told, known.Overdue = p.Told, p.Overdue })
	return p
}

func overdueFact(r *roleNow, now time.Time) fact {
	return factAbout(r.rec, tellsOverdue, now, map[string]any{"due": stamp(r.next()), "cause": byClock})
}

// tellRecovered tells that work on a role succeeds again.
func (b *backend) tellRecovered(ctx context.Context, t *tick, rec *roleRecord, was *problem) {
	f := factAbout(rec, tellsRecovered, t.now, map[string]any{"since": stamp(was.First), "attempts": was.Attempts, "cause": byClock})
	if err := b.tellAlone(ctx, t.s, f); err != nil {
		b.Logger().Warn("it is not told that work on a role succeeds again", "role", rec.Name, "error", err)
	}
}

// tellOverdue tells of rotations that wait for the worker for too long, once it has had
// the time for them.
func (t *tick) tellOverdue(ctx context.Context) {
	k := t.kept
	if k == nil {
		return
	}
	if k.started.IsZero() {
		k.started = t.now
	}
	if t.now.Sub(k.started) < overdueAfter || len(k.jobs) == 0 || t.config.RotationPaused {
		if len(k.jobs) == 0 {
			k.overdue = nil
		}
		return
	}
	told := 0
	for _, job := range k.jobs {
		if !job.mints || t.now.Sub(job.at) < overdueAfter || k.overdue[job.name].Equal(job.at) || !t.b.heard(tellsOverdue, job.name) {
			continue
		}
		r, err := t.b.lookToRead(ctx, t.s, job.name)
		if err != nil || r == nil || r.unread != nil || len(t.b.overdue(r)) == 0 {
			continue
		}
		if err := t.fence(ctx); err != nil {
			return
		}
		if t.b.tellAlone(ctx, t.s, overdueFact(r, t.now)) != nil {
			return
		}
		if k.overdue == nil {
			k.overdue = map[string]time.Time{}
		}
		k.overdue[job.name] = job.at
		if told++; told == overdueAtOnce {
			return
		}
	}
}
