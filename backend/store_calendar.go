// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// The calendar says which role to look at when: due/<day>/<minute>/<shard>/<role>.
// An entry decides nothing; the role record does. So entries may be too many,
// never too few: one is written before the commit that needs it and deleted
// after, and both happen under the role's lock.

// dueShards spreads the roles of one minute over so many lists.
const dueShards = 16

// deletedMark begins the calendar's name of a deleted role, which is its id: no
// role name begins like that.
const deletedMark = "~"

const dayFormat = "20060102"

func dayPrefix(day time.Time) string { return duePrefix + day.UTC().Format(dayFormat) + "/" }

func minutePrefix(minute time.Time) string {
	return dayPrefix(minute) + minute.UTC().Format("1504") + "/"
}

func duePath(minute time.Time, name string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash.Hash never fails
	return minutePrefix(minute) + fmt.Sprintf("%02x/", h.Sum32()%dueShards) + name
}

var dueValue = []byte(`{"schema":1}`)

// fileAt is the minute under which a look wanted at at is filed: never one that
// the periodic function may be done with.
func (b *backend) fileAt(at time.Time) time.Time {
	minute := at.UTC().Truncate(time.Minute)
	if next := b.cursor().Add(time.Minute); minute.Before(next) {
		minute = next
	}
	return minute
}

// file writes the calendar entry for the next look at the role. It is left to
// unfile, after the commit, to take away the old one.
func (tx *roleTx) file() error {
	look := tx.nextLook()
	if look.IsZero() {
		tx.rec.Due = time.Time{}
		return nil
	}
	minute := tx.b.fileAt(look)
	if minute.Equal(tx.rec.Due) {
		return nil
	}
	if err := putBytes(tx.ctx, tx.s, duePath(minute, tx.rec.Name), dueValue); err != nil {
		return err
	}
	tx.rec.Due = minute
	return nil
}

// unfile deletes an entry that is not needed any more. Where that fails the
// entry causes one look too many.
func (b *backend) unfile(ctx context.Context, s logical.Storage, minute time.Time, name string) {
	if err := s.Delete(ctx, duePath(minute, name)); err != nil {
		b.Logger().Debug("a calendar entry is left behind", "role", name, "error", err)
	}
}

// nextLook is when the periodic function has to look at the role next; zero:
// never, as far as is known now.
func (tx *roleTx) nextLook() time.Time { return tx.b.nextLook(tx.rec, tx.terms, tx.now) }

func (b *backend) nextLook(rec *roleRecord, t terms, now time.Time) time.Time {
	next := rec.Ring.NextEnd(now)
	consider := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if rec.Owed {
		consider(now)
	}
	if p := rec.Ring.Pending(now); p != nil {
		// The clock alone activates; the look records that it did, so that no
		// other clock can undo it.
		consider(p.Activate)
	}
	consider(stageAt(rec, t, now))
	if at, ok := extensionLook(rec, t, now); ok {
		consider(at)
	}
	return next
}

// stageAt is when the automatic rotation makes its next version; zero without
// automatic rotation, and while a version is held.
func stageAt(rec *roleRecord, t terms, now time.Time) time.Time {
	if t.cadence == nil || t.autoPaused || rec.Next.IsZero() {
		return time.Time{}
	}
	if p := rec.Ring.Pending(now); p != nil && p.Activate.IsZero() {
		return time.Time{}
	}
	return rec.Next.Add(-t.lead)
}

// nextActivation is the next activation that is planned; zero if there is none.
func nextActivation(rec *roleRecord, t terms, mountPaused bool, now time.Time) time.Time {
	if p := rec.Ring.Pending(now); p != nil {
		return p.Activate
	}
	if t.cadence == nil || t.autoPaused || mountPaused {
		return time.Time{}
	}
	return rec.Next
}

// extensionMargin is how long before the end of a grace it is decided whether
// the grace is prolonged: time for a few runs of the periodic function.
func extensionMargin(grace time.Duration) time.Duration {
	return min(keyring.MinLead, grace/4)
}

// extensible returns the previous version whose grace may be prolonged because
// it is still in use, with its successor; nil if there is none. Only the grace
// of an automatic rotation is, and never that of a reported version.
func extensible(rec *roleRecord, t terms, now time.Time) (prev, succ *keyring.Version) {
	if t.maxGrace <= t.grace {
		return nil, nil
	}
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		if st, _ := rec.Ring.Status(v.N, now); st.State != keyring.Previous || !st.Planned {
			continue
		}
		s := rec.Ring.Successor(v.N, now)
		if s == nil || !s.Auto || s.Grace+s.Extended >= t.maxGrace || !v.Reported.IsZero() || !v.Cap.IsZero() {
			continue
		}
		return v, s
	}
	return nil, nil
}

func extensionLook(rec *roleRecord, t terms, now time.Time) (time.Time, bool) {
	prev, succ := extensible(rec, t, now)
	if prev == nil {
		return time.Time{}, false
	}
	st, _ := rec.Ring.Status(prev.N, now)
	return st.Until.Add(-extensionMargin(succ.Grace)), true
}
