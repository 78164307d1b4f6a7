// SPDX-License-Identifier: MPL-2.0

package backend

import "slices"

// live are the versions that have not ended, the pending one included.
func (tx *roleTx) live() []int {
	var live []int
	for i := range tx.rec.Ring.Versions {
		v := &tx.rec.Ring.Versions[i]
		if st, _ := tx.rec.Ring.Status(v.N, tx.now); !st.State.Ended() {
			live = append(live, v.N)
		}
	}
	return live
}

// killing says what is to be revoked: the versions with those numbers, or all.
type killing struct {
	numbers []int
	all     bool
	// replace: where the current version dies another one is made.
	replace bool
}

// revokeVersions kills the versions and, where the current one is among them
// and replace is set, makes its replacement in the same transition. Where there
// can be no replacement the kill stands alone.
func (tx *roleTx) revokeVersions(k killing) (map[string]any, error) {
	tx.kill = true
	numbers := k.numbers
	if k.all {
		numbers = tx.live()
	}
	ring := &tx.rec.Ring
	top, hitsCurrent := 0, false
	if v := ring.Top(tx.now); v != nil {
		top = v.N
		hitsCurrent = ring.Current(tx.now) != nil && slices.Contains(numbers, top)
	}
	events, err := ring.Revoke(tx.now, numbers...)
	if err != nil {
		return nil, err
	}
	tx.record(events, tx.by)
	replaced := false
	switch {
	case !k.replace && (k.all || slices.Contains(numbers, top)):
		// Whoever wants no replacement wants none of what was killed before either.
		tx.rec.Owed = false
		tx.skipMissed()
	case k.replace && hitsCurrent:
		if replaced, err = tx.replaceKilled(succession{grace: tx.defaultGrace(), force: true, apart: true}); err != nil {
			return nil, err
		}
	}
	data := map[string]any{
		"revoked_versions": numbersOf(numbers), "revoked_key_ids": []string{},
		"version": 0, "key_id": "", "replaced": replaced, "next_rotation": stamp(tx.nextRotation()),
	}
	ids := []string{}
	for _, n := range numbers {
		if v := ring.Get(n); v.KeyID != "" {
			ids = append(ids, v.KeyID)
		}
	}
	data["revoked_key_ids"] = ids
	if cur := ring.Current(tx.now); cur != nil {
		data["version"], data["key_id"] = cur.N, cur.KeyID
	}
	return data, nil
}

// replaceKilled makes the replacement of the current version, which was killed or is
// about to end; false where there can be none, and it is owed.
func (tx *roleTx) replaceKilled(how succession) (bool, error) {
	if tx.hidden {
		tx.owe()
		return false, nil
	}
	_, err := tx.succeed(how)
	switch {
	case err == nil:
		return true, nil
	case mustForward(err):
		return false, err
	}
	tx.b.Logger().Error("a version that ends could not be replaced", "role", tx.rec.Name, "error", err)
	tx.warn("the version was killed, but its replacement could not be made: the worker tries again; rotate/<role> makes one at once")
	tx.owe()
	return false, nil
}

func numbersOf(numbers []int) []int {
	if numbers == nil {
		return []int{}
	}
	return numbers
}
