// SPDX-License-Identifier: MPL-2.0

package backend

import "github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"

// saw counts a use that this server judged.
func (u *usage) saw(v *verdict, client string) {
	view := v.known
	key := view.key
	at := v.now.Unix()
	u.count(&view.use, key, usageID{version: key.Version}, v.now, func(g *usageGroup, e *usageEntry) {
		e.seen.hit(v.code, at)
		if c := e.seen.client(client); c != nil {
			c.hit(v.code, at)
		}
		switch {
		case v.status.State.Ended():
			if g.ended == nil {
				g.ended = map[int64]int64{}
			}
			g.ended[at-at%3600]++
		case v.code == codeValid && v.status.State == keyring.Previous:
			g.urgent = true
		}
	})
	if key.Dynamic {
		u.count(&view.keyUse, key, usageID{version: key.Version, keyID: key.ID}, v.now, func(_ *usageGroup, e *usageEntry) {
			e.seen.hit(v.code, at)
		})
	}
}
