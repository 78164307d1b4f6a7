// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		e.set(func() { e.down = true })
		v := e.open(t, Options{MaxStaleness: 30 * time.Second})
		if s := v.Stats(); s.Live || s.Unconfirmed >= 0 || s.Held != 0 || s.MaxStaleness != 30*time.Second {
			t.Errorf("at first: %+v", s)
		}
		e.set(func() { e.down = false })
		time.Sleep(5 * time.Second)
		want(t, v, "a", "VALID")
		if s := v.Stats(); !s.Live || s.Unconfirmed > 3*time.Second || s.Held != 1 || s.FeedWindow != 7*time.Second {
			t.Errorf("live: %+v", s)
		}
		e.set(func() { e.down = true })
		time.Sleep(10 * time.Second)
		if s := v.Stats(); s.Live || s.Unconfirmed < 8*time.Second || s.Unconfirmed > 13*time.Second || s.Held != 1 {
			t.Errorf("cut off: %+v", s)
		}
	})
}
