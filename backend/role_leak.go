// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// sighting is what was found in one place.
type sighting struct {
	text   string // with the keys, as they stood there
	kind   string // what the finder calls them
	url    string
	source string
}

// How much of a sighting is kept, in characters. Together with the operator's
// reason it fits into the reason of an entry of the history.
const (
	maxSeenWord = 100
	maxSeenURL  = 256
	// maxSeenRaw is the longest text that keys are cut out of.
	maxSeenRaw = 64 << 10
)

// where describes the sighting with no key in it, none of this engine's form and
// none of the secrets, and says what of it is not kept.
func (s *sighting) where(secrets []string) (text string, warnings []string) {
	var parts []string
	keep := func(name, text string, limit int) {
		clean, changed := policy.CleanText(keyformat.Scrub(text, secrets...), limit, false)
		if changed {
			warnings = append(warnings, name+": control characters were taken out, or the text was cut, before it was kept")
		}
		if clean != "" {
			parts = append(parts, clean)
		}
	}
	for _, part := range []struct {
		name  string
		text  string
		limit int
	}{{"source", s.source, maxSeenWord}, {"type", s.kind, maxSeenWord}, {"url", s.url, maxSeenURL}} {
		switch {
		case len(part.text) > maxSeenRaw:
			warnings = append(warnings, part.name+": was too long to be kept")
		case part.name == "url":
			keep(part.name, cleanURL(part.text, secrets), part.limit)
		default:
			keep(part.name, part.text, part.limit)
		}
	}
	return strings.Join(parts, " "), warnings
}

// cleanURL is the URL without userinfo, query and fragment, which may hold
// secrets of others. A path that holds a key is kept as it reads.
func cleanURL(text string, secrets []string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "(a URL that does not parse)"
	}
	site := url.URL{Scheme: u.Scheme, Host: u.Host}
	if path := keyformat.Scrub(u.Path, secrets...); path != u.Path {
		return site.String() + path
	}
	site.Path, site.RawPath = u.Path, u.RawPath
	return site.String()
}

// leakBudget bounds how many reports act within leakWindow: a flood of reports
// must not take a whole fleet down before somebody has looked.
type leakBudget struct {
	mu    sync.Mutex
	acted []time.Time
}

// give takes back what was taken for a reaction that failed.
func (l *leakBudget) give(at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.IndexFunc(l.acted, at.Equal); i >= 0 {
		l.acted = slices.Delete(l.acted, i, i+1)
	}
}

func (l *leakBudget) take(now time.Time, limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	keep := l.acted[:0]
	for _, t := range l.acted {
		if age := now.Sub(t); age >= 0 && age < leakWindow {
			keep = append(keep, t)
		}
	}
	l.acted = keep
	if len(l.acted) >= limit {
		return false
	}
	l.acted = append(l.acted, now)
	return true
}

// leakAction is what is to be done about one reported key.
type leakAction int

const (
	leakNothing leakAction = iota // it ended, or was dealt with before
	leakAlert                     // mark it, so that nothing prolongs it
	leakRotate                    // replace it, and let it live on for a short while
	leakRevoke                    // kill it, replacing it where it was current
)

// decideLeak says what a report of a key in that state comes to. A replacement
// happens once per key, ever; a kill until the key is dead.
func decideLeak(state keyring.State, onLeak string, rotated bool) leakAction {
	switch {
	case state.Ended():
		return leakNothing
	case state == keyring.Pending, onLeak == policy.LeakRevoke:
		return leakRevoke
	case onLeak == policy.LeakRotate && !rotated:
		return leakRotate
	case onLeak == policy.LeakRotate:
		return leakNothing
	default:
		return leakAlert
	}
}

// leakReport is what came of a report.
type leakReport struct {
	results  []string // by sighting
	found    []foundKey
	warnings []string
}

// foundKey is one key of a report. find is the number of its sighting.
type foundKey struct {
	find       int
	id, result string
}

func highest(a, b string) string {
	if slices.Index(leakOrder, b) > slices.Index(leakOrder, a) {
		return b
	}
	return a
}

// reportAll acts on every key of the sightings; a sighting is nil where it could
// not be read. One key that fails does not stop the others: the error comes after
// them.
func (b *backend) reportAll(ctx context.Context, s logical.Storage, finds []*sighting, by actor, cfg *configRecord) (*leakReport, error) {
	r := &leakReport{results: make([]string, len(finds))}
	warn := func(find int, text string) {
		if len(finds) > 1 {
			text = fmt.Sprintf("item %d: %s", find+1, text)
		}
		r.warnings = append(r.warnings, text)
	}
	// Which keys there are is found out first: none of them may be kept with where
	// another one was seen.
	keys, secrets := make([][]pasted, len(finds)), []string(nil)
	for i, seen := range finds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if seen == nil {
			continue
		}
		var more bool
		if keys[i], more = b.pastedIn(ctx, s, seen.text); more {
			warn(i, fmt.Sprintf("key: holds more than %d keys: the first %d were dealt with, report the rest by itself", maxPasted, maxPasted))
		}
		for _, key := range keys[i] {
			if key.foreign != "" && !slices.Contains(secrets, key.foreign) {
				secrets = append(secrets, key.foreign)
			}
		}
	}
	var failed failures
	for i := range finds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.results[i] = leakUnknown
		var where string
		if slices.ContainsFunc(keys[i], func(key pasted) bool { return key.record != nil }) {
			var warnings []string
			where, warnings = finds[i].where(secrets)
			for _, text := range warnings {
				warn(i, text)
			}
		}
		for _, key := range keys[i] {
			result, err := leakUnknown, key.err
			if err == nil && key.record != nil {
				var taken time.Time
				result, err = b.reported(ctx, s, key.record, by, where, func() bool {
					now := b.clock.Now()
					if taken.IsZero() && b.leaks.take(now, cfg.maxLeakActions()) {
						taken = now
					}
					return !taken.IsZero()
				})
				if err != nil && !taken.IsZero() {
					b.leaks.give(taken)
				}
			}
			if err != nil {
				failed.add(key.id, err)
				continue
			}
			b.numbers.reports.WithLabelValues(result).Inc()
			if key.id != "" {
				r.found = append(r.found, foundKey{find: i, id: key.id, result: result})
			}
			r.results[i] = highest(r.results[i], result)
		}
	}
	return r, failed.err()
}

// failures collects what failed for some of many keys.
type failures struct {
	ids []string
	all []error
}

func (f *failures) add(id string, err error) {
	if id == "" {
		id = "one of another form"
	}
	f.ids, f.all = append(f.ids, id), append(f.all, err)
}

// err is nil if nothing failed. Where a node that may not write is the reason that
// is what it says.
func (f *failures) err() error {
	if len(f.all) == 0 {
		return nil
	}
	for _, err := range f.all {
		if mustForward(err) {
			return err
		}
	}
	return fmt.Errorf("%d keys could not be dealt with, all others were: %s: %w", len(f.all), fewOf(f.ids, false), f.all[0])
}

// reported acts on one found key, on exactly that one, whether its role lives or is
// deleted and can be restored. budget says whether one more may be ended.
func (b *backend) reported(ctx context.Context, s logical.Storage, key *keyRecord, by actor, seen string, budget func() bool) (string, error) {
	by.cause = causeLeak
	why := strings.TrimSpace("reported " + seen)
	if by.reason != "" {
		why = "released: " + by.reason + "; " + why
	}
	by.reason = shorten(why, maxReason)
	for {
		act := b.reportedStatic
		if key.Dynamic {
			act = b.reportedDynamic
		}
		outcome, err := act(ctx, s, key, by, seen, budget)
		if !isAbsent(err) {
			return outcome, err
		}
		var now *keyRecord
		if outcome, now, err = b.reportedGone(ctx, s, key, by.code); now == nil {
			return outcome, err
		}
		key = now
	}
}

// reportedStatic is the reaction to the report of a version of a static role;
// absence, if the role is gone for good.
func (b *backend) reportedStatic(ctx context.Context, s logical.Storage, key *keyRecord, by actor, seen string, budget func() bool) (string, error) {
	outcome := leakUnknown
	_, err := b.mutateKept(ctx, s, key.Role, key.RoleID, by, func(tx *roleTx) (bool, error) {
		v := tx.rec.Ring.Get(key.Version)
		if v == nil || v.KeyID != key.ID {
			if key.End != nil {
				outcome = leakRecorded // ended so long ago that the role has forgotten it
			}
			return false, nil
		}
		var changed bool
		var err error
		if outcome, changed, err = tx.leaked(v.N, budget); outcome == leakDeferred {
			err = b.deferLeak(ctx, s, key, tx.now, seen)
		}
		return changed, err
	})
	return outcome, err
}

// reportedGone marks a key whose role is gone for good, as long as its record is
// there: it verifies no more, and must not come back by an import. Where an import
// took it over a moment ago its record as it is now is returned.
func (b *backend) reportedGone(ctx context.Context, s logical.Storage, key *keyRecord, code keyring.Reason) (outcome string, now *keyRecord, err error) {
	outcome = leakUnknown
	_, err = b.mutateKey(ctx, s, key.ID, nil, func(rec *keyRecord) (bool, error) {
		switch {
		case rec == nil:
			return false, nil
		case rec.RoleID != key.RoleID:
			now = rec
			return false, nil
		}
		outcome = leakRecorded
		if tombstone(rec) {
			return false, nil
		}
		rec.Reported, rec.Code = b.now(), cmp.Or(rec.Code, code)
		if !rec.Dynamic {
			rec.End = &keyEnd{State: keyring.Retired, Reason: keyring.Superseded, At: rec.Reported}
		}
		return true, nil
	})
	return outcome, now, err
}

// repeatedReport is how often a report that changes nothing is counted at most.
const repeatedReport = time.Minute

// leaked is the reaction to the report of version n of a static role; false if
// it changes nothing.
func (tx *roleTx) leaked(n int, budget func() bool) (outcome string, changed bool, err error) {
	tx.kill = true // that nothing prolongs it any more, to begin with
	ring := &tx.rec.Ring
	v := ring.Get(n)
	st, _ := ring.Status(n, tx.now)
	action := decideLeak(st.State, tx.terms.OnLeak, v.LeakRotated)
	first := v.Reported.IsZero()
	if action == leakRotate || action == leakRevoke {
		if !budget() {
			if !first {
				return leakDeferred, false, nil
			}
			tx.note(historyEntry{Kind: eventReported, Version: n, KeyID: v.KeyID})
			tx.record(ring.Report(tx.now, n, time.Time{}), tx.by)
			return leakDeferred, true, nil
		}
	}
	if !first && (action == leakNothing || action == leakAlert) {
		if last := tx.rec.Noise[noiseReports].Last; tx.now.Sub(last) < repeatedReport {
			return leakRecorded, false, nil
		}
		tx.rec.hear(noiseReports, 1, tx.now, tx.now)
		return leakRecorded, true, nil
	}
	tx.note(historyEntry{Kind: eventReported, Version: n, KeyID: v.KeyID})
	switch action {
	case leakRevoke:
		tx.record(ring.Report(tx.now, n, time.Time{}), tx.by)
		if _, err := tx.revokeVersions(killing{numbers: []int{n}, replace: true}); err != nil {
			return "", false, err
		}
		return leakActed, true, nil
	case leakRotate:
		return leakActed, true, tx.replaceLeaked(n, st)
	case leakAlert, leakNothing:
		tx.record(ring.Report(tx.now, n, time.Time{}), tx.by)
	}
	return leakRecorded, true, nil
}

const noiseReports = "repeated_reports"

// replaceLeaked lets version n, which has the status st, live for the leak grace at
// most, and makes its replacement if it is the current one. Whether there can be one
// or not, version n ends.
func (tx *roleTx) replaceLeaked(n int, st keyring.Status) error {
	until := tx.now.Add(tx.terms.LeakGrace)
	if st.State == keyring.Current {
		replaced, err := tx.replaceKilled(succession{grace: tx.terms.LeakGrace, force: true, apart: true})
		if err != nil {
			return err
		}
		if end := st.Until; !replaced && !end.IsZero() && end.Before(until) {
			until = end // also where it was the pending version's, which is gone
		}
	}
	tx.record(tx.rec.Ring.Report(tx.now, n, until), tx.by)
	tx.rec.Ring.Get(n).LeakRotated = true
	return nil
}

// reportedDynamic is the reaction to the report of one key of a dynamic role.
// Its siblings are left alone: each belongs to somebody else. Absence means that
// the role is gone for good.
func (b *backend) reportedDynamic(ctx context.Context, s logical.Storage, key *keyRecord, by actor, seen string, budget func() bool) (string, error) {
	role, err := b.kept(ctx, s, key.Role, key.RoleID)
	switch {
	case err != nil:
		return "", err
	case role == nil:
		return leakUnknown, noRole(key.Role)
	}
	outcome, changed := leakUnknown, false
	killed := false
	_, err = b.mutateKey(ctx, s, key.ID, &keyTeller{by: by.tells(), role: role}, func(rec *keyRecord) (bool, error) {
		if rec == nil {
			return false, nil
		}
		var action leakAction
		now := b.now(role.Committed)
		if outcome, action = leakOf(rec, role, now, budget); outcome == leakDeferred {
			if err := b.deferLeak(ctx, s, key, now, seen); err != nil {
				return false, err
			}
		}
		if action == leakNothing || (action == leakAlert && !rec.Reported.IsZero()) {
			return false, nil
		}
		if rec.Reported.IsZero() {
			rec.Reported = now
		}
		switch action {
		case leakRevoke:
			rec.RevokedAt, rec.Revoked, rec.Code = now, shorten(causeLeak+": "+seen, maxReason), by.code
			killed = true
		case leakRotate:
			grace := policy.OrDefault(role.Policy.LeakGracePeriod, policy.DefaultLeakGrace)
			rec.Cap, rec.LeakRotated, rec.Code = now.Add(grace), true, by.code
		case leakAlert, leakNothing:
		}
		changed = true
		return true, nil
	})
	if err != nil || !changed {
		return outcome, err
	}
	// The key's own record is the commit; the role's history is told of it.
	_, err = b.mutateKept(ctx, s, key.Role, key.RoleID, by, func(tx *roleTx) (bool, error) {
		tx.kill = true
		tx.note(historyEntry{Kind: eventReported, Version: key.Version, KeyID: key.ID})
		if killed {
			tx.note(historyEntry{Kind: string(keyring.EventRevoked), Version: key.Version, KeyID: key.ID})
		}
		return true, nil
	})
	if err != nil {
		b.Logger().Error("a reported key is missing in the role's history", "role", key.Role, "key_id", key.ID, "error", err)
	}
	return outcome, nil
}

// leakOf says what a report of a dynamic key comes to, and what is to be done to
// its record.
func leakOf(rec *keyRecord, role *roleRecord, now time.Time, budget func() bool) (string, leakAction) {
	action := decideLeak(keyStatus(rec, role, now).State, cmp.Or(role.Policy.OnLeak, policy.LeakRevoke), rec.LeakRotated)
	switch {
	case action != leakRotate && action != leakRevoke:
		return leakRecorded, action
	case !budget():
		return leakDeferred, leakAlert
	default:
		return leakActed, action
	}
}

// deferLeak lets a report wait for an operator. The first report of a key is the
// one that waits. The caller holds the lock of the key's role, or the key's.
func (b *backend) deferLeak(ctx context.Context, s logical.Storage, key *keyRecord, now time.Time, seen string) error {
	path := deferredPath(key.ID)
	old, err := getRecord[deferredLeak](ctx, s, path)
	if err != nil || old != nil {
		return err
	}
	return putRecord(ctx, s, path, &deferredLeak{
		Schema: recordSchema, KeyID: key.ID, Role: key.Role, RoleID: key.RoleID, At: now, Seen: shorten(seen, maxReason),
	})
}

// releaseAll acts on deferred reports. One that fails does not stop the others.
func (b *backend) releaseAll(ctx context.Context, s logical.Storage, ids []string, by actor) (map[string]string, error) {
	outcomes, failed := map[string]string{}, failures{}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, done := outcomes[id]; done {
			continue
		}
		outcome, err := b.releaseLeak(ctx, s, id, by)
		if err != nil {
			failed.add(id, err)
			continue
		}
		outcomes[id] = outcome
	}
	return outcomes, failed.err()
}

// releaseLeak acts on a deferred report, and then forgets that it waited.
func (b *backend) releaseLeak(ctx context.Context, s logical.Storage, id string, by actor) (string, error) {
	waiting, err := getRecord[deferredLeak](ctx, s, deferredPath(id))
	if err != nil || waiting == nil {
		return leakUnknown, err
	}
	key, err := getRecord[keyRecord](ctx, s, keyPath(id))
	if err != nil {
		return "", err
	}
	outcome := leakUnknown
	if key != nil {
		if outcome, err = b.reported(ctx, s, key, by, waiting.Seen, func() bool { return true }); err != nil {
			return "", err
		}
	}
	if err := deleteRecord(ctx, s, deferredPath(id)); err != nil {
		return "", fmt.Errorf("the report was acted on (%s), but still waits: %w", outcome, err)
	}
	return outcome, nil
}
