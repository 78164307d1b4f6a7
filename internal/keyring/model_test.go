// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"cmp"
	"slices"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// model is the life of a role's versions told as a story: it walks from event
// to event and writes down what each version has become, where the ring works
// it out from dates. It shares no code with the ring but the names of states
// and refusals.
type model struct {
	versions []*modelVersion
	top      *modelVersion // the highest activated one that is not withdrawn
	last     int
	until    time.Time // the end of the role
}

type modelVersion struct {
	n       int
	created time.Time
	held    bool
	date    time.Time // of the activation, past or to come
	grace   time.Duration
	ttl     time.Duration
	expires time.Time

	state    keyring.State
	reason   keyring.Reason
	endedAt  time.Time
	hadGrace bool // ended with the grace of a rotation

	activated  bool
	reinstated bool
	deadline   time.Time // given by the successor
	graceless  bool      // the successor gave no grace
	prolonged  bool
	graceBegan time.Time

	withdrawn bool
	until     time.Time // given by the rollback
	reported  bool
	cap       time.Time
	hand      time.Time // an earlier end, given by somebody
	past      int       // the versions up to this one end it no more
}

func (v *modelVersion) live() bool { return !v.state.Ended() }

func (m *model) clone() *model {
	c := &model{last: m.last, until: m.until}
	for _, v := range m.versions {
		w := *v
		c.versions = append(c.versions, &w)
		if v == m.top {
			c.top = &w
		}
	}
	return c
}

func (m *model) get(n int) *modelVersion {
	for _, v := range m.versions {
		if v.n == n {
			return v
		}
	}
	return nil
}

func (m *model) pending() *modelVersion {
	for _, v := range m.versions {
		if v.state == keyring.Pending {
			return v
		}
	}
	return nil
}

func (m *model) liveCount() int {
	n := 0
	for _, v := range m.versions {
		if v.live() {
			n++
		}
	}
	return n
}

// first is the earliest of the times that are set.
func first(times ...time.Time) time.Time {
	var f time.Time
	for _, t := range times {
		if !t.IsZero() && (f.IsZero() || t.Before(f)) {
			f = t
		}
	}
	return f
}

func upTo(t, limit time.Time) bool { return !t.IsZero() && !t.After(limit) }

// lapse is when a held version lapses.
func (v *modelVersion) lapse() time.Time {
	if v.state == keyring.Pending && v.held {
		return v.created.Add(7 * 24 * time.Hour)
	}
	return time.Time{}
}

// comes reports whether v is pending and lives to see its date.
func (m *model) comes(v *modelVersion) bool {
	return v.state == keyring.Pending && !v.held && !upTo(first(v.expires, v.cap, m.until), v.date)
}

// advance tells what happens up to now, one event at a time.
func (m *model) advance(now time.Time) {
	for m.step(now) {
	}
}

// step lets the earliest event up to now happen. At the same instant what
// expires comes first, then activations, then retirements.
func (m *model) step(now time.Time) bool {
	var when time.Time
	var rank int
	var happen func()
	offer := func(t time.Time, r int, f func()) {
		if upTo(t, now) && (happen == nil || t.Before(when) || t.Equal(when) && r < rank) {
			when, rank, happen = t, r, f
		}
	}
	for _, v := range m.versions {
		if v.live() || v.state == keyring.Retired {
			offer(v.expires, 0, func() { v.state, v.endedAt = keyring.Expired, v.expires })
		}
		if v.live() {
			offer(m.until, 0, func() { v.state, v.endedAt, v.expires = keyring.Expired, m.until, m.until })
		}
		if m.comes(v) {
			offer(v.date, 1, func() { m.activate(v, v.date) })
		}
		if v.live() {
			end := first(v.deadline, v.until, v.cap, v.hand, v.lapse())
			offer(end, 2, func() {
				why := keyring.Superseded // by its cap, or by hand
				switch end {
				case v.deadline:
					if !v.graceless {
						why = keyring.GraceEnded
					}
				case v.until:
					why = keyring.RolledBack
				case v.lapse():
					why = keyring.Lapsed
				}
				v.retire(end, why)
			})
		}
	}
	if happen == nil {
		return false
	}
	happen()
	return true
}

func (v *modelVersion) retire(when time.Time, why keyring.Reason) {
	v.state, v.endedAt, v.reason = keyring.Retired, when, why
	v.hadGrace = why == keyring.GraceEnded
}

// activate makes v the current version and gives those without a successor
// their deadline.
func (m *model) activate(v *modelVersion, when time.Time) {
	for _, o := range m.versions {
		if !o.live() || !o.deadline.IsZero() || v.n <= o.past || (o.state != keyring.Current && o.state != keyring.Withdrawn) {
			continue
		}
		o.deadline, o.graceless = when.Add(v.grace), v.grace == 0
		if o.state == keyring.Current {
			o.state, o.graceBegan = keyring.Previous, when
		}
	}
	v.state, v.activated, v.date, v.held = keyring.Current, true, when, false
	m.top = v
}

// coming is the end that the successor gave v, or that the pending version is
// going to give it, and whether that is the end of a grace.
func (m *model) coming(v *modelVersion) (time.Time, bool) {
	if !v.deadline.IsZero() {
		return v.deadline, !v.graceless
	}
	p := m.pending()
	if p == nil || !m.comes(p) || p.n <= v.past || (v.state != keyring.Current && v.state != keyring.Withdrawn) {
		return time.Time{}, false
	}
	return p.date.Add(p.grace), p.grace > 0
}

// ends is the earliest known end of a live version, and whether it is planned.
func (m *model) ends(v *modelVersion) (time.Time, bool) {
	end, grace := m.coming(v)
	all := first(end, v.until, v.cap, v.hand, v.lapse(), v.expires, m.until)
	return all, grace && all.Equal(end) && !all.Equal(v.expires) && !all.Equal(m.until)
}

func verifiesFrom(created, date time.Time, held bool) time.Time {
	if from := date.Add(-7 * 24 * time.Hour); !held && from.After(created) {
		return from
	}
	return created
}

func (m *model) status(n int, now time.Time) keyring.Status {
	v := m.get(n)
	switch {
	case v.state == keyring.Retired:
		return keyring.Status{State: v.state, Reason: v.reason, Until: v.endedAt, Planned: v.hadGrace}
	case !v.live():
		return keyring.Status{State: v.state, Until: v.endedAt}
	}
	st := keyring.Status{State: v.state, Verifies: true}
	st.Until, st.Planned = m.ends(v)
	if v.state == keyring.Pending {
		st.VerifiesFrom = verifiesFrom(v.created, v.date, v.held)
		st.Verifies = !now.Before(st.VerifiesFrom)
	}
	return st
}

func (m *model) kill(v *modelVersion, now time.Time) {
	if v.state != keyring.Revoked {
		v.state, v.endedAt = keyring.Revoked, now
	}
}

func (m *model) killPending(now time.Time) {
	if p := m.pending(); p != nil {
		m.kill(p, now)
	}
}

func (m *model) rotate(now time.Time, mint keyring.Mint, force bool) error {
	date := mint.Activate
	if !date.After(now) {
		date = now
	}
	from := verifiesFrom(now, date, mint.Held)
	if upTo(m.until, now) {
		return keyring.ErrOver
	}
	if !mint.Held && date.After(now) && upTo(m.until, date) {
		return keyring.ErrBadActivation
	}
	if mint.TTL > 0 && !mint.Held && date.After(now) && !from.Add(mint.TTL).After(date) {
		return keyring.ErrBadActivation
	}
	if mint.Held {
		date = now
	}
	if p := m.pending(); p != nil && m.comes(p) {
		// Invariant 4: no end moves back because p is replaced.
		if left := p.date.Add(p.grace).Sub(date); left < mint.Grace {
			mint.Grace = max(left, 0)
		}
	}
	add := func(m *model) {
		m.killPending(now)
		m.last++
		v := &modelVersion{
			n: m.last, created: now, held: mint.Held, date: date, grace: mint.Grace,
			ttl: mint.TTL, state: keyring.Pending,
		}
		if mint.TTL > 0 {
			v.expires = from.Add(mint.TTL)
		}
		m.versions = append(m.versions, v)
		if !v.held && date.Equal(now) {
			m.activate(v, now)
		}
		m.advance(now)
	}
	try := m.clone()
	add(try)
	over := try.liveCount() - 10
	if over > 0 && !force {
		return keyring.ErrTooManyLive
	}
	if over > 0 {
		for _, v := range m.expendable()[:over] {
			v.retire(now, keyring.Superseded)
		}
	}
	add(m)
	return nil
}

// expendable are the superseded and withdrawn versions, in the order in which
// they make room.
func (m *model) expendable() []*modelVersion {
	var all []*modelVersion
	for _, v := range m.versions {
		if v.state == keyring.Previous || v.state == keyring.Withdrawn {
			all = append(all, v)
		}
	}
	prolonged := func(v *modelVersion) int {
		if _, planned := m.ends(v); v.state == keyring.Previous && v.prolonged && planned {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b *modelVersion) int {
		return cmp.Or(cmp.Compare(prolonged(a), prolonged(b)), a.graceBegan.Compare(b.graceBegan))
	})
	return all
}

func (m *model) stage(now time.Time, mint keyring.Mint, force bool) error {
	if m.pending() != nil {
		return keyring.ErrPendingExists
	}
	return m.rotate(now, mint, force)
}

func (m *model) promote(now, when time.Time, grace time.Duration) error {
	p := m.pending()
	if p == nil {
		return keyring.ErrNoPending
	}
	if when.Before(now) {
		when = now
	}
	if when.Sub(now) > 7*24*time.Hour {
		return keyring.ErrBadActivation
	}
	expires := p.expires
	if p.ttl > 0 {
		expires = first(expires, verifiesFrom(p.created, when, false).Add(p.ttl))
	}
	if upTo(first(expires, p.cap, m.until), when) {
		return keyring.ErrBadActivation
	}
	for _, v := range m.versions {
		end, _ := m.ends(v)
		if byPending, _ := m.coming(v); !v.reported || !v.deadline.IsZero() || byPending.IsZero() {
			continue
		}
		if v.state == keyring.Withdrawn {
			v.cap = end
		} else if left := end.Sub(when); left < grace {
			grace = max(left, 0)
		}
	}
	p.held, p.date, p.grace, p.expires = false, when, grace, expires
	if when.Equal(now) {
		m.activate(p, now)
		m.advance(now)
	}
	return nil
}

func (m *model) rollback(now time.Time, to int, grace time.Duration) error {
	if m.top == nil {
		return keyring.ErrNoTarget
	}
	if to == 0 && m.top.reinstated {
		return keyring.ErrNeedTarget
	}
	var target *modelVersion
	for _, v := range m.versions {
		if v.n < m.top.n && (v.n == to || to == 0 && v.activated && !v.withdrawn) {
			target = v
		}
	}
	if target == nil || target.state != keyring.Previous || target.reported {
		return keyring.ErrNoTarget
	}
	if end, _ := m.ends(target); upTo(end, now.Add(10*time.Second)) {
		return keyring.ErrNoTarget
	}
	ends := map[*modelVersion]time.Time{}
	for _, v := range m.versions {
		if v.reported || !v.deadline.IsZero() {
			ends[v], _ = m.ends(v) // nothing prolongs it, if it was reported the end of p included
		}
	}
	m.killPending(now)
	for _, v := range m.versions {
		if !v.activated || v.n == target.n || v.n < target.n && v.past < target.n {
			continue
		}
		until := now.Add(grace)
		if v.withdrawn {
			until = v.until
		}
		v.until = first(until, ends[v])
		v.deadline, v.prolonged = time.Time{}, false
		if v.withdrawn {
			continue
		}
		v.withdrawn, v.graceBegan = true, now
		if v.live() {
			v.state = keyring.Withdrawn
		}
	}
	m.advance(now)
	target.state, target.reinstated = keyring.Current, true
	target.deadline, target.hand, target.prolonged = time.Time{}, time.Time{}, false
	m.top = target
	return nil
}

func (m *model) revoke(now time.Time, n int) error {
	v := m.get(n)
	if v == nil {
		return keyring.ErrUnknown
	}
	m.kill(v, now)
	return nil
}

// killed tells the end of those versions. Where the current one is among them
// the pending version shares its fate, if there is to be a replacement, and that
// comes at once where it can be made.
func (m *model) killed(now time.Time, numbers []int, replace bool, replacement *keyring.Mint) error {
	for _, n := range numbers {
		if m.get(n) == nil {
			return keyring.ErrUnknown
		}
	}
	hit := m.top != nil && m.top.state == keyring.Current && slices.Contains(numbers, m.top.n)
	for _, n := range numbers {
		m.kill(m.get(n), now)
	}
	switch {
	case !hit || !replace:
		return nil
	case replacement == nil:
		for _, v := range m.versions {
			// Invariant 4: no end moves back because p dies.
			if end, _ := m.coming(v); v.state == keyring.Withdrawn && v.deadline.IsZero() {
				v.until = first(v.until, end)
			}
		}
		m.killPending(now)
		return nil
	case upTo(m.until, now):
		return nil
	default:
		return m.rotate(now, *replacement, true)
	}
}

// bound gives the role another end.
func (m *model) bound(now, until time.Time) {
	m.until = until
	m.advance(now)
}

func (m *model) extend(n int, step time.Duration) {
	v := m.get(n)
	if _, planned := m.ends(v); v.state == keyring.Previous && planned && !v.reported && step > 0 {
		v.deadline, v.prolonged = v.deadline.Add(step), true
	}
}

// setEnd gives a version that is on its way out another end.
func (m *model) setEnd(now time.Time, n int, until time.Time) error {
	v := m.get(n)
	switch {
	case v == nil:
		return keyring.ErrUnknown
	case v.state != keyring.Previous && v.state != keyring.Withdrawn:
		return keyring.ErrNotEnding
	}
	limit := first(v.expires, m.until)
	if v.reported {
		limit, _ = m.ends(v)
	}
	if !limit.IsZero() && until.After(limit) {
		return keyring.ErrBeyond
	}
	if until.Before(now) {
		until = now
	}
	v.hand = time.Time{}
	deadline, _ := m.coming(v)
	switch {
	case v.state == keyring.Withdrawn:
		v.until = until
		if !deadline.IsZero() && until.After(deadline) {
			v.deadline, v.past = time.Time{}, m.last
		}
	case until.Before(v.deadline):
		v.hand = until
	case until.After(v.deadline):
		v.deadline, v.prolonged = until, true
	}
	m.advance(now)
	return nil
}

func (m *model) report(now time.Time, n int, until time.Time) {
	v := m.get(n)
	v.reported = true
	if !v.live() {
		return
	}
	if v.state != keyring.Current {
		end, _ := m.ends(v)
		until = first(until, end)
	}
	if !until.IsZero() && until.Before(now) {
		until = now
	}
	v.cap = first(v.cap, until)
	m.advance(now)
}

// instants are the times at which something is going to happen after now.
func (m *model) instants(now time.Time) []time.Time {
	var all []time.Time
	for _, v := range m.versions {
		if !v.live() {
			continue
		}
		end, _ := m.ends(v)
		for _, t := range []time.Time{end, v.expires, v.deadline, v.until, v.cap, v.hand, v.lapse(), m.status(v.n, now).VerifiesFrom} {
			if t.After(now) {
				all = append(all, t)
			}
		}
		if m.until.After(now) {
			all = append(all, m.until)
		}
		if m.comes(v) && v.date.After(now) {
			all = append(all, v.date)
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}
