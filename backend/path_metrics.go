// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

const (
	// fleetAge is how old what was read of the fleet may be until it is read again.
	fleetAge = 50 * time.Second
	// fleetRead is for how long one scrape reads it. Where that is not enough the next
	// one goes on, and until all is read the numbers of before count.
	fleetRead = time.Second
	// maxRoleLabels is how many roles have numbers of their own at most.
	maxRoleLabels = 1000
)

func (b *backend) pathsMetrics() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "metrics", verb: "read", suffix: "metrics",
		synopsis: "The engine's numbers, for Prometheus.",
		fields: fieldSet{
			"format": {kind: kindText, query: true, def: "openmetrics", choices: []string{"openmetrics", "prometheus"}, about: "For scrape configurations that give one. The answer is OpenMetrics in any case, which Prometheus reads."},
		},
		ops: map[logical.Operation]operation{
			logical.ReadOperation: {do: b.readMetrics, told: "OpenMetrics text, without the JSON around it that other answers have."},
		},
		help: `
Answers in the form of OpenMetrics:

    vault read -format=raw apikeys/metrics

Every node counts for itself, since the start of its process: apikeys_instance_info
names it. What is counted over all roles (problem_roles and so on) only the node
that writes tells, and it is a minute old at most. No label names a role, unless
config metrics_role_labels says so, and none ever holds a key.`,
	})}
}

func (b *backend) readMetrics(ctx context.Context, req *logical.Request, _ *input) (*logical.Response, error) {
	if err := b.lookOver(ctx, req.Storage); err != nil {
		// What cannot be read is missing or old, and says so: the other numbers are
		// needed just then.
		b.Logger().Warn("the numbers of the fleet could not be read", "error", err)
	}
	var text bytes.Buffer
	if err := metric.Write(&text, b.numbers.registry); err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode: http.StatusOK, logical.HTTPContentType: string(metric.Format), logical.HTTPRawBody: text.Bytes(),
	}}, nil
}

// fleet is what the last scrapes found out about all roles and endpoints.
type fleet struct {
	writes atomic.Bool // this node writes
	posts  atomic.Pointer[[]endpointNumbers]
	view   atomic.Pointer[fleetView] // nil: nothing was read
	mu     sync.Mutex                // held by who reads
	rest   *fleetPass                // what the next scrape goes on with
}

// fleetView is what was read. It is not changed any more.
type fleetView struct {
	at       time.Time
	listed   int
	troubles map[string]int
	jobs     int
	roles    []roleNumbers
	omitted  int
	labels   bool
}

// roleNumbers is the numbers of one role.
type roleNumbers struct {
	name                               string
	since, next, previousEnds, lastUse time.Time
}

// endpointNumbers is the numbers of an endpoint.
type endpointNumbers struct {
	name string
	postView
}

// fleetPass is a pass over the roles that are looked at.
type fleetPass struct {
	fleetView

	names   []string // to be read, in order
	listed  map[string]bool
	failing map[string]bool
	labeled map[string]bool
}

// lookOver reads what the numbers of the fleet are made of, where this node is the one
// that writes and they are too old. It costs what is wrong, not what there is, unless
// roles have numbers of their own.
func (b *backend) lookOver(ctx context.Context, s logical.Storage) error {
	f, writes := &b.fleet, b.mayWork()
	f.writes.Store(writes)
	if !f.mu.TryLock() {
		return nil // somebody does it; storage may hang
	}
	defer f.mu.Unlock()
	if !writes {
		f.view.Store(nil)
		f.rest = nil
		return nil
	}
	read, cancel := b.clock.WithTimeout(ctx, fleetRead)
	defer cancel()
	posts, err := b.postViews(read, s)
	if err == nil {
		f.posts.Store(&posts)
	}
	return errors.Join(err, b.lookOverRoles(read, s))
}

// lookOverRoles is the part of it that is about roles.
func (b *backend) lookOverRoles(ctx context.Context, s logical.Storage) error {
	f, now := &b.fleet, b.clock.Now()
	if view := f.view.Load(); view != nil && now.Sub(view.at) < fleetAge && !now.Before(view.at) {
		return nil
	}
	var err error
	if f.rest == nil {
		if f.rest, err = b.fleetPass(ctx, s, now); err != nil {
			return err
		}
	}
	done, err := b.readFleet(ctx, s, f.rest)
	if done {
		f.view.Store(&f.rest.fleetView)
	}
	if done || err != nil {
		f.rest = nil
	}
	return err
}

// fleetPass begins a pass.
func (b *backend) fleetPass(ctx context.Context, s logical.Storage, now time.Time) (*fleetPass, error) {
	cfg, err := b.config(ctx, s)
	if err != nil {
		return nil, err
	}
	failing, names, err := problemNames(ctx, s)
	if err != nil {
		return nil, err
	}
	p := &fleetPass{
		fleetView: fleetView{at: now, listed: len(names), troubles: map[string]int{}, labels: cfg.MetricsRoleLabels},
		names:     names, listed: map[string]bool{}, failing: failing, labeled: map[string]bool{},
	}
	for _, name := range names {
		p.listed[name] = true
	}
	jobs, err := b.openJobs(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, id := range jobs {
		job, err := getRecord[jobRecord](ctx, s, jobPath(id))
		if err != nil && !errors.Is(err, errSchema) {
			return nil, err
		}
		if job != nil && job.State == jobRunning {
			p.jobs++
		}
	}
	if !cfg.MetricsRoleLabels {
		return p, nil
	}
	all, err := list(ctx, s, rolePrefix)
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	p.omitted = max(0, len(all)-maxRoleLabels)
	for _, name := range all[:len(all)-p.omitted] {
		if p.labeled[name] = true; !p.listed[name] {
			p.names = append(p.names, name)
		}
	}
	return p, nil
}

// readFleet goes on with a pass, and reports whether it has read all.
func (b *backend) readFleet(ctx context.Context, s logical.Storage, p *fleetPass) (bool, error) {
	lim, err := b.limits(ctx, s)
	if err != nil {
		return false, err
	}
	for len(p.names) > 0 && !timeOver(ctx) {
		err := b.readOne(ctx, s, p, p.names[0], lim)
		switch {
		case err == nil:
			p.names = p.names[1:]
		case !timeOver(ctx):
			return false, err
		}
	}
	return len(p.names) == 0, nil
}

func (b *backend) readOne(ctx context.Context, s logical.Storage, p *fleetPass, name string, lim policy.Limits) error {
	// Not through the cache, which is for the roles in use.
	rec, err := b.storedRole(ctx, s, name)
	if errors.Is(err, errSchema) {
		p.troubles[troubleSchema]++
		return nil
	}
	if err != nil || rec == nil {
		return err
	}
	r, all, use, err := b.problemsAt(ctx, s, rec, p.failing[name], lim)
	if err != nil {
		return err
	}
	if p.listed[name] {
		counted := map[string]bool{}
		for i := range all {
			if kind := all[i].kind; kind != troubleRival && !counted[kind] {
				counted[kind] = true
				p.troubles[kind]++
			}
		}
	}
	if !p.labeled[name] {
		return nil
	}
	v := roleNumbers{name: name, next: r.nextActivation(b.mountPaused())}
	if cur := rec.Ring.Current(r.now); cur != nil {
		v.since = cur.CurrentSince()
	}
	if prev := rec.Ring.PreviousOf(r.now); prev != nil {
		st, _ := rec.Ring.Status(prev.N, r.now)
		v.previousEnds = st.Until
		used, err := b.acceptedIn(ctx, s, use, prev.N)
		if err != nil {
			return err
		}
		if usedOn(rec, prev, used, r.now) {
			v.lastUse = used
		}
	}
	p.roles = append(p.roles, v)
	return nil
}

// usedOn reports whether the previous version was used after its successor had taken over.
func usedOn(rec *roleRecord, prev *keyring.Version, used, now time.Time) bool {
	succ := rec.Ring.Successor(prev.N, now)
	return succ != nil && used.After(succ.CurrentSince())
}

func (b *backend) postViews(ctx context.Context, s logical.Storage) ([]endpointNumbers, error) {
	endpoints, err := b.listeners(ctx, s)
	if err != nil {
		return nil, err
	}
	var all []endpointNumbers
	for _, e := range endpoints {
		v, err := b.postView(ctx, s, e)
		if err != nil {
			return nil, err
		}
		all = append(all, endpointNumbers{e.Name, v})
	}
	return all, nil
}

// scraped tells what is looked up at each scrape. It reads no storage.
func (b *backend) scraped(out *metric.Scrape) {
	r, now := &b.numbers.read, b.clock.Now()
	out.Is(r.info, 1, version.Version, b.instance, b.mountID, stamp(b.started))
	out.Is(r.waiters, float64(b.feed.Waiters()))
	if last := b.numbers.lastStep.Load(); last > 0 {
		out.When(r.lastStep, time.Unix(0, last))
	}
	for name, c := range map[string]interface{ looks() (hits, misses int64) }{
		"roles": b.roles, "keys": b.keys, "secrets": b.secretCache, "moves": b.moves,
	} {
		hits, misses := c.looks()
		out.Is(r.caches, float64(hits), name, "hit")
		out.Is(r.caches, float64(misses), name, "miss")
	}
	writes := b.fleet.writes.Load()
	out.Holds(r.writer, writes)
	if !writes {
		return
	}
	if q := b.numbers.queue.Load(); q != nil {
		out.Is(r.queue, float64(q.roles))
		out.Is(r.due, float64(q.due))
		out.Is(r.overdue, float64(q.overdue))
	}
	out.Holds(r.mount, b.clockProblem(b.highWater()) != "", troubleClock)
	out.Holds(r.mount, b.rivalProblem() != "", troubleRival)
	if posts := b.fleet.posts.Load(); posts != nil {
		for i := range *posts {
			(*posts)[i].tell(out, r, now)
		}
	}
	view := b.fleet.view.Load()
	if view == nil {
		return
	}
	out.When(r.fleetRead, view.at)
	out.Is(r.listed, float64(view.listed))
	out.Is(r.jobs, float64(view.jobs))
	for _, kind := range roleTroubles {
		out.Is(r.problems, float64(view.troubles[kind]), kind)
	}
	if view.labels {
		out.Is(r.roleOmits, float64(view.omitted))
	}
	for i := range view.roles {
		v := &view.roles[i]
		out.When(r.roleSince, v.since, v.name)
		out.When(r.roleNext, v.next, v.name)
		out.When(r.rolePreviousEnds, v.previousEnds, v.name)
		out.When(r.rolePreviousUsed, v.lastUse, v.name)
	}
}

func (v *endpointNumbers) tell(out *metric.Scrape, r *reads, now time.Time) {
	out.Is(r.outboxEvents, float64(v.waiting), v.name)
	oldest := 0.0
	if !v.oldest.IsZero() {
		oldest = max(now.Sub(v.oldest), 0).Seconds()
	}
	out.Is(r.outboxOldest, oldest, v.name)
	out.Is(r.deliveries, float64(v.arrived), v.name, "delivered")
	out.Is(r.deliveries, float64(v.lost), v.name, "failed")
	for _, reason := range []string{"failed", "expired"} {
		out.Is(r.dropped, float64(v.state.Dropped[reason]), v.name, reason)
	}
	out.Holds(r.failing, !v.state.Since.IsZero(), v.name)
	out.Holds(r.stopped, !v.state.Stopped.IsZero(), v.name)
}
