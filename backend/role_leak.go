// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// What a report of a found key comes to.
const (
	leakActed    = "acted"
	leakRecorded = "recorded" // known, and nothing more was to be done
	leakDeferred = "deferred" // recorded, and waits for an operator
	leakUnknown  = "unknown"
)

// sighting is one found key.
type sighting struct {
	key    string
	kind   string // what the finder calls it
	url    string
	source string
}

// where describes the sighting without anything secret in it.
func (s sighting) where() string {
	parts := []string{}
	for _, p := range []string{s.source, s.kind, cleanURL(s.url)} {
		if p = keyformat.Redact(p); p != "" {
			parts = append(parts, shorten(p, maxReason/4))
		}
	}
	return strings.Join(parts, " ")
}

// cleanURL is the URL without userinfo, query and fragment, which may hold
// secrets of others.
func cleanURL(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return "(an URL that does not parse)"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}

// leakBudget bounds how many reports act within leakWindow: a flood of reports
// must not take a whole fleet down before somebody has looked.
type leakBudget struct {
	mu    sync.Mutex
	acted []time.Time
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

// reported acts on one found key, whose record and role are given. It acts on
// exactly that key. released says that an operator let a deferred one go.
func (b *backend) reported(ctx context.Context, s logical.Storage, key *keyRecord, by actor, seen string, cfg *configRecord, released bool) (string, error) {
	by.cause = causeLeak
	why := strings.TrimSpace("reported " + seen)
	if by.reason != "" {
		why += "; released: " + by.reason
	}
	by.reason = shorten(why, maxReason)
	budget := func() bool { return released || b.leaks.take(b.clock.Now(), cfg.maxLeakActions()) }
	if key.Dynamic {
		return b.reportedDynamic(ctx, s, key, by, seen, budget)
	}
	outcome := leakRecorded
	_, err := b.mutate(ctx, s, key.Role, by, func(tx *roleTx) error {
		v := tx.rec.Ring.Get(key.Version)
		if tx.rec.ID != key.RoleID || v == nil || v.KeyID != key.ID {
			if tx.rec.ID != key.RoleID {
				outcome = leakUnknown
			}
			return errUnchanged // ended so long ago that the role has forgotten it
		}
		var err error
		outcome, err = tx.leaked(v.N, budget)
		return err
	})
	switch {
	case isAbsent(err):
		return leakUnknown, nil
	case err != nil:
		return "", err
	}
	if outcome == leakDeferred {
		return outcome, b.deferLeak(ctx, s, key, seen)
	}
	return outcome, nil
}

// repeatedReport is how often a report that changes nothing is counted at most.
const repeatedReport = time.Minute

// leaked is the reaction to the report of version n of a static role.
func (tx *roleTx) leaked(n int, budget func() bool) (string, error) {
	ring := &tx.rec.Ring
	v := ring.Get(n)
	st, _ := ring.Status(n, tx.now)
	action := decideLeak(st.State, tx.terms.OnLeak, v.LeakRotated)
	first := v.Reported.IsZero()
	if action == leakRotate || action == leakRevoke {
		if !budget() {
			if !first {
				return leakDeferred, errUnchanged
			}
			tx.note(historyEntry{Kind: eventReported, Version: n, KeyID: v.KeyID})
			tx.record(ring.Report(tx.now, n, time.Time{}), tx.by)
			return leakDeferred, nil
		}
	}
	if !first && (action == leakNothing || action == leakAlert) {
		if last := tx.rec.Noise[noiseReports].Last; tx.now.Sub(last) < repeatedReport {
			return leakRecorded, errUnchanged
		}
		tx.rec.hear(noiseReports, 1, tx.now, tx.now)
		return leakRecorded, nil
	}
	tx.note(historyEntry{Kind: eventReported, Version: n, KeyID: v.KeyID})
	switch action {
	case leakRevoke:
		tx.record(ring.Report(tx.now, n, time.Time{}), tx.by)
		if _, err := tx.revokeVersions([]int{n}, true); err != nil {
			return "", err
		}
		return leakActed, nil
	case leakRotate:
		return leakActed, tx.replaceLeaked(n, st)
	case leakAlert, leakNothing:
		tx.record(ring.Report(tx.now, n, time.Time{}), tx.by)
	}
	return leakRecorded, nil
}

const noiseReports = "repeated_reports"

// replaceLeaked lets version n live for the leak grace at most, and makes its
// replacement if it is the current one.
func (tx *roleTx) replaceLeaked(n int, st keyring.Status) error {
	until := tx.now.Add(tx.terms.LeakGrace)
	if st.State == keyring.Current {
		if _, err := tx.succeed(succession{grace: tx.terms.LeakGrace, force: true}); err != nil {
			return err
		}
	}
	tx.record(tx.rec.Ring.Report(tx.now, n, until), tx.by)
	tx.rec.Ring.Get(n).LeakRotated = true
	return nil
}

// reportedDynamic is the reaction to the report of one key of a dynamic role.
// Its siblings are left alone: each belongs to somebody else.
func (b *backend) reportedDynamic(ctx context.Context, s logical.Storage, key *keyRecord, by actor, seen string, budget func() bool) (string, error) {
	role, err := getRecord[roleRecord](ctx, s, rolePath(key.Role))
	if err != nil {
		return "", err
	}
	if role == nil || role.ID != key.RoleID {
		return leakUnknown, nil
	}
	onLeak := role.Policy.OnLeak
	if onLeak == "" {
		onLeak = policy.LeakRevoke
	}
	grace := policy.OrDefault(role.Policy.LeakGracePeriod, policy.DefaultLeakGrace)
	outcome, changed := leakRecorded, false
	_, err = b.mutateKey(ctx, s, key.ID, func(rec *keyRecord) error {
		if rec == nil {
			return errUnchanged
		}
		now := b.now(role.Committed)
		action := decideLeak(keyStatus(rec, role, now).State, onLeak, rec.LeakRotated)
		if (action == leakRotate || action == leakRevoke) && !budget() {
			outcome = leakDeferred
			if !rec.Reported.IsZero() {
				return errUnchanged
			}
			action = leakAlert
		} else if action == leakRotate || action == leakRevoke {
			outcome = leakActed
		}
		if action == leakNothing || (action == leakAlert && !rec.Reported.IsZero()) {
			return errUnchanged
		}
		if rec.Reported.IsZero() {
			rec.Reported = now
		}
		switch action {
		case leakRevoke:
			rec.RevokedAt, rec.Revoked = now, shorten(causeLeak+": "+seen, maxReason)
		case leakRotate:
			rec.Cap, rec.LeakRotated = now.Add(grace), true
		case leakAlert, leakNothing:
		}
		changed = true
		return nil
	})
	if err != nil {
		return "", err
	}
	if outcome == leakDeferred {
		if err := b.deferLeak(ctx, s, key, seen); err != nil {
			return "", err
		}
	}
	if changed {
		// The key's own record is the commit; the role's history is told of it.
		_, err := b.mutate(ctx, s, key.Role, by, func(tx *roleTx) error {
			tx.note(historyEntry{Kind: eventReported, Version: key.Version, KeyID: key.ID})
			if outcome == leakActed && onLeak == policy.LeakRevoke {
				tx.note(historyEntry{Kind: string(keyring.EventRevoked), Version: key.Version, KeyID: key.ID})
			}
			return nil
		})
		if err != nil {
			b.Logger().Error("a reported key is missing in the role's history", "role", key.Role, "key_id", key.ID, "error", err)
		}
	}
	return outcome, nil
}

func (b *backend) deferLeak(ctx context.Context, s logical.Storage, key *keyRecord, seen string) error {
	path := deferredPrefix + key.ID
	old, err := getRecord[deferredLeak](ctx, s, path)
	if err != nil || old != nil {
		return err
	}
	return putRecord(ctx, s, path, &deferredLeak{
		Schema: recordSchema, KeyID: key.ID, Role: key.Role, RoleID: key.RoleID, At: b.now(), Seen: shorten(seen, maxReason),
	})
}

// releaseLeak acts on a deferred report and forgets that it waited.
func (b *backend) releaseLeak(ctx context.Context, s logical.Storage, id string, by actor, cfg *configRecord) (string, error) {
	if !keyformat.ValidID(id) {
		return leakUnknown, nil
	}
	waiting, err := getRecord[deferredLeak](ctx, s, deferredPrefix+id)
	if err != nil {
		return "", err
	}
	if waiting == nil {
		return leakUnknown, nil
	}
	key, err := getRecord[keyRecord](ctx, s, keyPath(id))
	if err != nil {
		return "", err
	}
	outcome := leakUnknown
	if key != nil {
		if outcome, err = b.reported(ctx, s, key, by, waiting.Seen, cfg, true); err != nil {
			return "", err
		}
	}
	if err := deleteRecord(ctx, s, deferredPrefix+id); err != nil {
		return "", fmt.Errorf("the report was acted on (%s), but still waits: %w", outcome, err)
	}
	return outcome, nil
}
