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

// trouble is something that an operator should look at: of what kind, since when
// (zero: unknown), and in words.
type trouble struct {
	kind  string
	since time.Time
	text  string
}

// wordsOf are the texts of troubles.
func wordsOf(troubles []trouble) []string {
	texts := make([]string, len(troubles))
	for i := range troubles {
		texts[i] = troubles[i].text
	}
	return texts
}

// troubles are those in the role's record, as far as they follow from the record and
// the time of a commit alone.
func troubles(rec *roleRecord, now time.Time) []trouble {
	var all []trouble
	switch told := endToldFrom(rec); {
	case rec.Ring.Over(now):
		// An end, and no problem.
	case !told.IsZero() && !now.Before(told):
		all = append(all, trouble{kind: troubleEndsSoon, since: told, text: fmt.Sprintf(
			"the role ends at %s (valid_until): its keys expire then, and nothing replaces them; if it is to go on, raise valid_until before",
			keyring.Stamp(rec.Ring.Until))})
	}
	if rec.Ring.Current(now) == nil && !rec.Ring.Over(now) {
		if r := refusal.In(noCurrent(rec, now)); r != nil {
			t := trouble{kind: troubleNoCurrent, text: r.Rule + ": " + r.Todo}
			if top := rec.Ring.Top(now); top != nil {
				st, _ := rec.Ring.Status(top.N, now)
				t.since = st.Until
			}
			all = append(all, t)
		}
	}
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		st, _ := rec.Ring.Status(v.N, now)
		if st.State.Ended() {
			continue
		}
		if !v.Ending.IsZero() && v.Ending.Equal(st.Until) {
			all = append(all, trouble{kind: troubleInUse, text: fmt.Sprintf(
				"version %d ends at %s and was in use when its end came near: move who uses it (status/%s says who), or give it more time (grace/%s)",
				v.N, keyring.Stamp(st.Until), rec.Name, rec.Name)})
		}
		if v.Reported.IsZero() {
			continue
		}
		text := fmt.Sprintf("version %d was reported as found in the open at %s and is accepted", v.N, keyring.Stamp(v.Reported))
		if st.Until.IsZero() {
			text += " without end: revoke/" + rec.Name + " kills it"
		} else {
			text += " until " + keyring.Stamp(st.Until)
		}
		all = append(all, trouble{kind: troubleReported, since: v.Reported, text: text})
	}
	return all
}

// overdueAfter is how late an automatic rotation may be: a few runs of the
// periodic function.
const overdueAfter = 5 * time.Minute

// overdue says that the automatic rotation is late, which is no problem of the
// role where the mount's is paused; nil if it is not.
func (b *backend) overdue(r *roleNow) []trouble {
	if r.stageAt().IsZero() || b.mountPaused() || r.now.Sub(r.next()) < overdueAfter {
		return nil
	}
	return []trouble{{kind: troubleOverdue, since: r.next(), text: "the rotation of " + keyring.Stamp(r.next()) + " is overdue"}}
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
