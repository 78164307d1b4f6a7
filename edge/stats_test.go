// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
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

// What was kept over a restart is known to be as old as what it was confirmed by.
func TestStatsOfAStateFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		e.add("closed", "c")
		v := e.start(t, stateOptions(dir))
		want(t, v, "a", "VALID")
		want(t, v, "closed", "VALID")
		e.feed.Publish(feed.Notice{RoleID: "c", Closing: true})
		e.set(func() { e.delay = time.Minute })
		time.Sleep(500 * time.Millisecond)
		e.set(func() { e.down = true })
		_ = v.Close()
		time.Sleep(20 * time.Second)
		v = e.open(t, stateOptions(dir))
		if s := v.Stats(); s.Live || s.Unconfirmed < 20*time.Second || s.Unconfirmed > 25*time.Second || s.Held != 2 || s.Dirty != 1 || s.MaxStaleness != time.Minute {
			t.Errorf("after a restart: %+v", s)
		}
		// A file that is left aside says nothing.
		_ = v.Close()
		if err := os.WriteFile(filepath.Join(dir, "key"), []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
			t.Fatal(err)
		}
		v = e.open(t, stateOptions(dir))
		if s := v.Stats(); s.Unconfirmed >= 0 || s.Held != 0 {
			t.Errorf("without a state: %+v", s)
		}
	})
}

func TestStatsOfDirtyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		for _, key := range []string{"a", "b", "c"} {
			e.add(key, key)
		}
		v := e.start(t, Options{})
		dirty := func(when string, wanted int) {
			t.Helper()
			if got := v.Stats().Dirty; got != wanted {
				t.Errorf("%s: %d dirty, want %d", when, got, wanted)
			}
		}
		dirty("at first", 0)
		for _, key := range []string{"a", "b", "c"} {
			want(t, v, key, "VALID")
		}
		dirty("held", 0)
		if v.asks.clean.Load() != v.asks.stirred.Load() {
			t.Error("keys are looked at though none has become dirty")
		}
		e.set(func() { e.delay = 10 * time.Second })
		e.feed.Publish(feed.Notice{RoleID: "a"})
		e.feed.Publish(feed.Notice{RoleID: "b"})
		time.Sleep(time.Second)
		dirty("decided about", 2)
		dirty("asked again", 2)
		e.set(func() { e.delay = 0 })
		time.Sleep(10 * time.Second)
		dirty("verified in the background", 0)
		e.set(func() { e.delay = 10 * time.Second })
		e.feed.Renew()
		time.Sleep(time.Second)
		dirty("after a reset", 3)
	})
}

// Decisions take what the feed collects and the way; at most what the call took.
func TestStatsOfDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		if d := v.Stats().Delays; d.Count != 0 {
			t.Errorf("%+v before any", d)
		}
		publish := func() { e.feed.Publish(feed.Notice{RoleID: "r", At: time.Now()}) }
		publish()
		time.Sleep(200 * time.Millisecond)
		publish()
		time.Sleep(time.Second)
		if d := v.Stats().Delays; d.Count != 1 || d.Sum != feed.Collect || d.Within != [...]uint64{0, 0, 1, 1, 1, 1, 1, 1} {
			t.Errorf("%+v, want the first of two decisions", d)
		}
		e.set(func() { e.way = 300 * time.Millisecond })
		publish()
		time.Sleep(2 * time.Second)
		if d := v.Stats().Delays; d.Count != 2 || d.Sum != 2*feed.Collect+300*time.Millisecond || d.Within != [...]uint64{0, 0, 1, 2, 2, 2, 2, 2} {
			t.Errorf("%+v, want the way to count", d)
		}
		// An engine that does not say.
		e.feed.Publish(feed.Notice{RoleID: "r"})
		time.Sleep(2 * time.Second)
		if d := v.Stats().Delays; d.Count != 2 {
			t.Errorf("%+v", d)
		}
	})
}

func TestStatsOfFirstSights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{UnknownPerSecond: 10})
		if s := v.Stats(); s.FirstSights != 10 || s.Busy != 0 {
			t.Errorf("at first: %+v", s)
		}
		for i := range 12 {
			_ = code(t, v, fmt.Sprint("forged-", i))
		}
		if s := v.Stats(); s.FirstSights >= 1 || s.Busy != 2 {
			t.Errorf("in a flood: %+v", s)
		}
		time.Sleep(time.Second)
		if s := v.Stats(); s.FirstSights != 10 || s.Busy != 2 {
			t.Errorf("after it: %+v", s)
		}
	})
}

func TestStatsOfUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a").facts.Scopes = []string{"x"}
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		_, _ = v.Verify(t.Context(), Request{Key: "a", Client: "other"})
		_, _ = v.Verify(t.Context(), Request{Key: "a", Client: "third", Scopes: []string{"y"}})
		if s := v.Stats(); s.Uses != 2 || s.Unreported > 2*time.Second {
			t.Errorf("counted: %+v", s)
		}
		e.set(func() { e.refuse = errDown })
		time.Sleep(2*reportEvery + reportEvery/5)
		_, _ = v.Verify(t.Context(), Request{Key: "a", Client: "other"})
		if s := v.Stats(); s.Uses != 4 || s.Unreported < 2*reportEvery {
			t.Errorf("not taken: %+v", s)
		}
		e.set(func() { e.refuse = nil })
		time.Sleep(reportEvery + reportEvery/10)
		if s := v.Stats(); s.Uses != 0 || s.Unreported > reportEvery {
			t.Errorf("taken: %+v", s)
		}
	})
}
