// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// leaving are the versions that are on their way out: in their grace, or withdrawn.
func (tx *roleTx) leaving() []int {
	var numbers []int
	for i := range tx.rec.Ring.Versions {
		n := tx.rec.Ring.Versions[i].N
		if st, _ := tx.rec.Ring.Status(n, tx.now); st.State == keyring.Previous || st.State == keyring.Withdrawn {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// leavingVersion is the version that is meant where a request names none: the only
// one that is on its way out. Where there are several a request that can be repeated
// means the one that creds/<role>/previous hands out, else the newest.
func (tx *roleTx) leavingVersion() (int, error) {
	numbers := tx.leaving()
	switch {
	case len(numbers) == 0:
		return 0, refusal.New("version", nil, "no version is on its way out: neither in its grace nor withdrawn", "rotate/"+tx.rec.Name+" puts the current one there; revoke/"+tx.rec.Name+" kills one")
	case len(numbers) == 1:
		return numbers[0], nil
	case tx.by.requestID == "":
		return 0, refusal.New("version", nil, "is missing, and versions "+listed(numbers)+" are on their way out", "name one")
	}
	if prev := tx.rec.Ring.PreviousOf(tx.now); prev != nil {
		return prev.N, nil
	}
	return numbers[len(numbers)-1], nil
}

func listed(numbers []int) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = fmt.Sprint(n)
	}
	return strings.Join(texts, ", ")
}

// setEnd gives version n, which is on its way out, another end, and returns the end
// that it had.
func (tx *roleTx) setEnd(n int, until time.Time, force bool) (was time.Time, err error) {
	ring := &tx.rec.Ring
	st, _ := ring.Status(n, tx.now)
	since := ring.GraceSince(n, tx.now)
	if until.Before(st.Until) {
		tx.kill = true // whatever else fails
		if err := tx.sparesLeases(until, st.Until, force); err != nil {
			return st.Until, err
		}
	} else if tx.unread != nil {
		return st.Until, tx.unread
	} else if limit := graceLimit(tx.terms); !since.IsZero() && until.Sub(since) > limit && until.After(st.Until) {
		return st.Until, refusal.New("valid_until", stamp(until), "is more than "+refusal.Duration(limit)+", "+graceLimitWhy(tx.terms)+
			", after version "+fmt.Sprint(n)+" was superseded or withdrawn", "choose an earlier one")
	}
	events, err := ring.SetEnd(tx.now, n, until)
	if err != nil {
		return st.Until, tx.endRefusal(n, until, err)
	}
	tx.record(events, tx.by)
	if until.After(st.Until) {
		tx.tally(func(n *numbers) { n.extensions.WithLabelValues(causeRequest).Inc() })
	}
	tx.warnEarlyEnd(n, since, until)
	return st.Until, nil
}

// sparesLeases refuses an end before which leases of a dynamic role may not be over,
// unless with force.
func (tx *roleTx) sparesLeases(until, was time.Time, force bool) error {
	if tx.rec.Type != policy.Dynamic {
		return nil
	}
	longest := max(tx.rec.LeaseTTL.Duration(), tx.terms.TTL)
	over := earlierOf(tx.now.Add(longest), was)
	switch {
	case !until.Before(over):
	case !force:
		return refusal.New("force", nil, "keys of that generation may have leases until "+stamp(over), "give no earlier end, or repeat with force=true, which cuts them off")
	default:
		tx.warn("keys of that generation may have leases until %s, which it cuts off", stamp(over))
	}
	return nil
}

// warnEarlyEnd says that readers may hold the version longer than it lives.
func (tx *roleTx) warnEarlyEnd(n int, since, until time.Time) {
	back := since.Add(max(tx.terms.Bound(), tx.promised()))
	if tx.rec.Type == policy.Static && until.Before(back) && back.After(tx.now) {
		tx.warn("readers of version %d may come back as late as %s, but it ends at %s", n, stamp(back), stamp(later(until, tx.now)))
	}
}

// endRefusal turns a refusal of the keyring into the caller's words.
func (tx *roleTx) endRefusal(n int, until time.Time, err error) error {
	name := tx.rec.Name
	switch {
	case errors.Is(err, keyring.ErrUnknown) && n <= tx.rec.Ring.Last:
		return refusal.New("version", n, "ended so long ago that the role no longer lists it", "name one that status/"+name+" lists as previous or withdrawn")
	case errors.Is(err, keyring.ErrUnknown):
		return refusal.New("version", n, "is not a version of this role", "name one that status/"+name+" lists as previous or withdrawn")
	case errors.Is(err, keyring.ErrNotEnding):
		return refusal.New("version", n, err.Error(), "name one that status/"+name+" lists as previous or withdrawn; rotate/"+name+" supersedes the current one, revoke/"+name+" kills any")
	case errors.Is(err, keyring.ErrBeyond):
		return refusal.New("valid_until", stamp(until), err.Error(), "choose an earlier one")
	default:
		return err
	}
}
