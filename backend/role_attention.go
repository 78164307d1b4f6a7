// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// The index of problems has two parts, so that what feeds the one does not
// clear the other: problem/ names the roles at which a look failed, attention/
// those whose own record shows that somebody should look at them. An entry
// decides nothing: who reads the index judges the role's record again.

// troubles says in words what in the role's record an operator should look at,
// as far as it follows from the record and the time of a commit alone.
func troubles(rec *roleRecord, now time.Time) []string {
	var texts []string
	switch told := endToldFrom(rec); {
	case rec.Ring.Over(now):
		// An end, and no problem.
	case !told.IsZero() && !now.Before(told):
		texts = append(texts, fmt.Sprintf("the role ends at %s (valid_until): its keys expire then, and nothing replaces them; "+
			"if it is to go on, raise valid_until before", keyring.Stamp(rec.Ring.Until)))
	}
	if rec.Ring.Current(now) == nil && !rec.Ring.Over(now) {
		if r := refusal.In(noCurrent(rec, now)); r != nil {
			texts = append(texts, r.Rule+": "+r.Todo)
		}
	}
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		if v.Reported.IsZero() {
			continue
		}
		st, _ := rec.Ring.Status(v.N, now)
		switch {
		case st.State.Ended():
		case st.Until.IsZero():
			texts = append(texts, fmt.Sprintf("version %d was reported as found in the open at %s and is accepted without end: "+
				"revoke/%s kills it", v.N, keyring.Stamp(v.Reported), rec.Name))
		default:
			texts = append(texts, fmt.Sprintf("version %d was reported as found in the open at %s and is accepted until %s",
				v.N, keyring.Stamp(v.Reported), keyring.Stamp(st.Until)))
		}
	}
	return texts
}

// overdueAfter is how late an automatic rotation may be: a few runs of the
// periodic function.
const overdueAfter = 5 * time.Minute

// overdue says that the automatic rotation is late, which is no problem of the
// role where the mount's is paused; empty if it is not.
func (b *backend) overdue(r *roleNow) string {
	if r.stageAt().IsZero() || b.mountPaused() || r.now.Sub(r.next()) < overdueAfter {
		return ""
	}
	return "the rotation of " + keyring.Stamp(r.next()) + " is overdue"
}

// attended reports whether the index has the role, as of the record's commit.
func attended(rec *roleRecord) bool {
	return rec.Deleted.IsZero() && wantsAttention(rec, rec.Committed)
}

// wantsAttention reports whether the record says that somebody should look at the
// role. Whether an unclaimed version still is, counts say.
func wantsAttention(rec *roleRecord, now time.Time) bool {
	return len(troubles(rec, now)) > 0 || unclaimedAt(rec, now)
}

// problemNames lists the roles in the index of problems, and says which of them
// are failing.
func problemNames(ctx context.Context, s logical.Storage) (failing map[string]bool, names []string, err error) {
	names, err = list(ctx, s, problemPrefix)
	if err != nil {
		return nil, nil, err
	}
	failing = make(map[string]bool, len(names))
	for _, name := range names {
		failing[name] = true
	}
	attention, err := list(ctx, s, attentionPrefix)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range attention {
		if !failing[name] {
			names = append(names, name)
		}
	}
	return failing, names, nil
}
