// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

func newFollower() *Verifier {
	v := &Verifier{keys: newKeyStore(10), clock: newTimekeeper((&twoClocks{}).read)}
	v.feed.init()
	v.asks.init()
	return v
}

// Positions go on growing when the server's begin anew, also past what an answer about
// a key was ahead of the feed.
func TestEpochs(t *testing.T) {
	v := newFollower()
	v.apply(&changes{Cursor: "a.5"}, 1)
	first := v.feed.received()
	if v.reset.Load() != first || first < 5 {
		t.Errorf("reset at %d, position %d", v.reset.Load(), first)
	}
	v.apply(&changes{Cursor: "a.7"}, 2)
	if v.feed.received() != first+2 || v.reset.Load() != first || v.confirmed.Load() != 2 {
		t.Error("the same epoch goes on")
	}
	v.feed.highest = first + 90
	v.apply(&changes{Cursor: "b.0"}, 3)
	if v.feed.received() <= first+90 || v.reset.Load() != v.feed.received() {
		t.Errorf("a key that was told at %d is not older than position %d", first+90, v.feed.received())
	}
	before := v.feed.received()
	v.apply(&changes{Cursor: "nonsense"}, 9)
	if v.feed.received() != before || v.confirmed.Load() != 3 {
		t.Error("an answer without a cursor confirmed something")
	}
	for range 2 * maxDirt {
		v.apply(&changes{Cursor: "b.0", Reset: true}, 4)
	}
	if len(v.feed.resets) != maxDirt {
		t.Errorf("%d resets are told apart", len(v.feed.resets))
	}
}

// Decisions reach keys that are held, and those whose answer is still on its way.
func TestNotices(t *testing.T) {
	v := newFollower()
	v.apply(&changes{Cursor: "a.1"}, 1)
	d := digest{1}
	r := &role{id: "r"}
	h := &held{role: r, names: named("k", "r"), position: v.feed.received()}
	v.feed.roles["r"], v.feed.leased["k"] = r, d
	v.keys.put(d, h)
	v.apply(&changes{Cursor: "a.3", Notices: []feed.Notice{{RoleID: "r", Position: 2}, {KeyID: "k", Position: 3, Closing: true}, {RoleID: "other", Position: 3}}}, 2)
	if r.notice.Load() != h.position+1 || r.closing() != 0 || h.notice.Load() != h.position+2 || h.closing.Load() != h.position+2 || h.before.Load() != 1 {
		t.Errorf("role %d, key %d closing %d before %d", r.notice.Load(), h.notice.Load(), h.closing.Load(), h.before.Load())
	}
	if len(v.feed.recent) != 0 {
		t.Error("decisions are remembered though no call is in flight")
	}
	v.asks.calls = 1
	v.apply(&changes{Cursor: "a.4", Notices: []feed.Notice{{RoleID: "other", Position: 4, Closing: true}}}, 3)
	if n := v.feed.recent["other"]; n == nil || n.closing != v.feed.received() {
		t.Error("a decision about what an answer may bring is forgotten")
	}
	for i := range uint64(maxRecent) {
		v.feed.recent[string(rune(i+1000))] = &recentNotice{}
	}
	v.apply(&changes{Cursor: "a.5", Notices: []feed.Notice{{RoleID: "more", Position: 5}}}, 4)
	if v.feed.forgotten != v.feed.received() || len(v.feed.recent) > 0 {
		t.Error("what is forgotten is not told")
	}
}

func TestLimitsOfTheMount(t *testing.T) {
	v := newFollower()
	v.opt.MaxStaleness = time.Minute
	v.apply(&changes{Cursor: "a.1", MaxStaleness: 30, FeedWait: 4}, 1)
	if v.stale.Load() != int64(30*time.Second) || v.window.Load() != int64(9*time.Second) || v.wait() != 4*time.Second {
		t.Error("the mount's limit is passed")
	}
	v.apply(&changes{Cursor: "a.1", MaxStaleness: 90}, 1)
	if v.stale.Load() != int64(time.Minute) {
		t.Error("the edge's own limit is passed")
	}
}

// Keys are looked through for dirty ones where one may be, and not after each poll.
func TestOnlyDecisionsStir(t *testing.T) {
	v := newFollower()
	stirred := func(what string, want bool, a *changes) {
		t.Helper()
		v.apply(a, 1)
		select {
		case <-v.asks.stir:
			if !want {
				t.Errorf("%s: all keys are looked through", what)
			}
		default:
			if want {
				t.Errorf("%s: nobody looks for dirty keys", what)
			}
		}
	}
	stirred("the first answer", true, &changes{Cursor: "a.1"})
	h := &held{role: v.feed.role("r"), names: named("k", "r"), position: v.feed.received(), line: make(timeline.Timeline, 1)}
	v.keys.put(digest{1}, h)
	v.feed.leased["k"] = digest{1}
	stirred("nothing", false, &changes{Cursor: "a.1"})
	stirred("another role", false, &changes{Cursor: "a.2", Notices: []feed.Notice{{RoleID: "other", Position: 2}}})
	stirred("the role", true, &changes{Cursor: "a.3", Notices: []feed.Notice{{RoleID: "r", Position: 3}, {RoleID: "other", Position: 3}}})
	if !v.judge(h, 1).ask {
		t.Error("the decision is not seen")
	}
	stirred("the key", true, &changes{Cursor: "a.4", Notices: []feed.Notice{{KeyID: "k", Position: 4}}})
	stirred("a reset", true, &changes{Cursor: "a.4", Reset: true})
}

// Another engine in the mount's place knows none of the keys.
func TestAnotherMount(t *testing.T) {
	v := newFollower()
	v.apply(&changes{Cursor: "a.1", Mount: "one"}, 1)
	v.keys.put(digest{1}, &held{role: &role{}})
	v.apply(&changes{Cursor: "b.1", Mount: "one"}, 2)
	if v.keys.size.Load() != 1 {
		t.Error("a restart dropped the keys")
	}
	v.apply(&changes{Cursor: "c.1", Mount: "two"}, 3)
	if v.keys.size.Load() != 0 {
		t.Error("keys of another engine are held")
	}
}

// A poll that is not answered ends 5 seconds after it should have been, and the next has
// a connection of its own; what is answered with an error needs none.
func TestPollsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		e.set(func() { e.down = true })
		time.Sleep(20 * time.Second)
		if n := e.reconnected(); n != 0 {
			t.Errorf("%d new connections for errors", n)
		}
		e.set(func() { e.down = false })
		time.Sleep(10 * time.Second)
		var polled time.Time
		e.set(func() { e.hang, polled = true, e.polled })
		time.Sleep(time.Until(polled.Add(defaultWait + grace - time.Millisecond)))
		if n := e.reconnected(); n != 0 {
			t.Errorf("%d new connections before the time", n)
		}
		time.Sleep(2 * time.Millisecond)
		if n := e.reconnected(); n != 1 || v.Stats().Live {
			t.Errorf("%d new connections: %+v", n, v.Stats())
		}
		e.set(func() { e.hang = false })
		time.Sleep(defaultWait + 2*firstPause)
		if !v.Stats().Live {
			t.Errorf("not live again: %+v", v.Stats())
		}
	})
}

// The server is asked for its time once a minute, at once.
func TestTimeIsAskedForEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.start(t, Options{})
		time.Sleep(20 * time.Minute)
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.exacts < 20 || e.exacts > 22 {
			t.Errorf("%d times in 20 minutes", e.exacts)
		}
	})
}

// A poll that comes to nothing leads to another soon, and then seldom.
func TestPollsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		e.set(func() { e.down = true })
		time.Sleep(20 * time.Second)
		if s := v.Stats(); s.Live {
			t.Error("live without an answer")
		}
		e.set(func() { e.down = false })
		time.Sleep(longestPause + longestPause/2 + 2*time.Second + 100*time.Millisecond)
		if s := v.Stats(); !s.Live {
			t.Errorf("not live again: %+v", s)
		}
	})
}

// A silence is told when it begins, now and then, and when it ends.
func TestSilenceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		var logged strings.Builder
		v := e.start(t, Options{Log: slog.New(slog.NewTextHandler(&logged, nil))})
		time.Sleep(10 * time.Second)
		e.set(func() { e.down = true })
		time.Sleep(90 * time.Second)
		e.set(func() { e.down, e.hang = false, true })
		time.Sleep(25 * time.Second)
		e.set(func() { e.hang = false })
		time.Sleep(20 * time.Second) // the poll that hangs ends first
		_ = v.Close()
		arrive, cannot := strings.Count(logged.String(), "decisions arrive"), strings.Count(logged.String(), "cannot be read")
		if arrive != 2 || cannot != 3 {
			t.Errorf("%d and %d times:\n%s", arrive, cannot, &logged)
		}
	})
}

// A server that answers at once, be it that it does not wait or that two take turns, is not
// asked without a pause, and decisions count all the same.
func TestPollsOfAServerThatDoesNotWait(t *testing.T) {
	for name, fault := range map[string]func(*engine){
		"it does not wait": func(e *engine) { e.hasty = true },
		"it resets always": func(e *engine) { e.hasty, e.resets = true, true },
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			k := e.add("a", "a")
			v := e.start(t, Options{})
			want(t, v, "a", "VALID")
			e.set(func() { fault(e); e.polls = 0 })
			time.Sleep(20 * time.Second)
			if e.set(func() {}); e.polls > 100 {
				t.Errorf("%s: %d polls in 20 seconds", name, e.polls)
			}
			e.set(func() { k.Timeline = []timeline.Entry{{From: time.Now(), Code: "REVOKED", State: "revoked"}} })
			e.feed.Publish(feed.Notice{RoleID: "a", Closing: true})
			time.Sleep(time.Second)
			want(t, v, "a", "REVOKED")
		})
	}
}

// However long the mount lets polls wait, and however slow the ways are within reason, an
// edge that is answered is never cut off.
func TestAnswersComeInTimeForEveryWait(t *testing.T) {
	for wait := int64(1); wait <= 5; wait++ {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			e.add("a", "a")
			e.feedWait, e.way = wait, 20*time.Millisecond
			v := e.start(t, Options{})
			want(t, v, "a", "VALID")
			for range 6000 {
				time.Sleep(10 * time.Millisecond)
				if got, err := v.Verify(t.Context(), Request{Key: "a"}); err != nil || got.CutOff {
					t.Fatalf("feed_wait %d s: %+v, %v", wait, got, err)
				}
			}
		})
	}
}
