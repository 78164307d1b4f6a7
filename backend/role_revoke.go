// SPDX-License-Identifier: MPL-2.0

package backend

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

// revokeVersions kills the versions and, where the current one is among them
// and replace is set, makes its replacement in the same transition. Where there
// can be no replacement the kill stands alone.
func (tx *roleTx) revokeVersions(numbers []int, replace bool) (map[string]any, error) {
	tx.kill = true
	ring := &tx.rec.Ring
	cur := ring.Current(tx.now)
	hitsCurrent := false
	for _, n := range numbers {
		hitsCurrent = hitsCurrent || (cur != nil && n == cur.N)
	}
	events, err := ring.Revoke(tx.now, numbers...)
	if err != nil {
		return nil, err
	}
	tx.record(events, tx.by)
	replaced := false
	switch {
	case hitsCurrent && !replace:
		tx.skipMissed()
	case !hitsCurrent:
	case tx.hidden:
		if err := tx.owe(); err != nil {
			return nil, err
		}
	default:
		if _, err := tx.succeed(succession{grace: tx.defaultGrace(), force: true, apart: true}); err != nil {
			if mustForward(err) {
				return nil, err
			}
			tx.b.Logger().Error("a killed version could not be replaced", "role", tx.rec.Name, "error", err)
			tx.warn("the version was killed, but its replacement could not be made: the periodic function tries again; rotate/<role> makes one at once")
			if err := tx.owe(); err != nil {
				return nil, err
			}
		} else {
			replaced = true
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

func numbersOf(numbers []int) []int {
	if numbers == nil {
		return []int{}
	}
	return numbers
}
