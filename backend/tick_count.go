// SPDX-License-Identifier: MPL-2.0

package backend

import "context"

// stepped counts a step of the worker, or a tick, and what it leaves waiting. One that
// another node is to make is none.
func (b *backend) stepped(ctx context.Context, t *tick, err error) {
	n := b.numbers
	switch {
	case err == nil:
		n.steps.WithLabelValues("ok").Inc()
	case mustForward(err):
		return
	case ctx.Err() != nil:
		n.steps.WithLabelValues("cut_short").Inc()
	default:
		n.steps.WithLabelValues("failed").Inc()
	}
	n.lastStep.Store(b.clock.Now().UnixNano())
	if t.kept == nil {
		return
	}
	q := &queueState{roles: len(t.kept.jobs)}
	for i := range t.kept.jobs {
		job := &t.kept.jobs[i]
		if !job.mints {
			continue
		}
		q.due++
		if _, failing := b.problems.get(job.name); !failing && t.now.Sub(job.at) >= overdueAfter {
			q.overdue++
		}
	}
	n.queue.Store(q)
}
