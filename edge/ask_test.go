// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// Requests that miss at the same time share calls, and their keys share batches.
func TestMissesShareCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		for i := range 100 {
			e.add(fmt.Sprint("k", i), "r")
		}
		v := e.start(t, Options{})
		e.set(func() { e.delay = 100 * time.Millisecond })
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() { want(t, v, fmt.Sprint("k", i%100), "VALID") })
		}
		wg.Wait()
		if calls, keys := e.asked(); calls > 3 || keys != 100 {
			t.Errorf("%d calls about %d keys, for 100", calls, keys)
		}
	})
}

// An answer that was on its way when a decision arrived is not what a request gets that
// came after it.
func TestRequestsWaitForLaterAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		e.set(func() { e.delay = 900 * time.Millisecond }) // after it looked
		first := make(chan string)
		go func() { first <- code(t, v, "a") }()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		e.revoke("a")
		time.Sleep(feed.Collect + 10*time.Millisecond) // the notice is here, the answer is not
		e.set(func() { e.delay = 0 })
		want(t, v, "a", "REVOKED")
		if got := <-first; got == "VALID" {
			t.Error("the answer from before the decision was taken for the first request, though the notice came before it")
		}
		if calls, _ := e.asked(); calls < 2 || calls > 3 { // the background may ask, too
			t.Errorf("%d calls", calls)
		}
	})
}

// Nor is it what a request gets that came before the decision, once that is known to have
// closed something.
func TestClosedWhileARequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		e.set(func() { e.delay = 600 * time.Millisecond }) // after it looked
		first := make(chan string)
		go func() { first <- code(t, v, "a") }()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		e.revoke("a")
		e.set(func() { e.delay = 100 * time.Millisecond })
		if got := <-first; got != "REVOKED" {
			t.Errorf("%s, though it was told before the answer that something was closed", got)
		}
	})
}

// Nor is one from before an import a refusal for who comes after it was told.
func TestImportedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		e.set(func() { e.delay = 900 * time.Millisecond })
		first := make(chan string)
		go func() { first <- code(t, v, "a") }()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		e.add("a", "a")
		e.feed.Publish(feed.Notice{RoleID: "a"})
		time.Sleep(feed.Collect + 10*time.Millisecond)
		e.set(func() { e.delay = 0 })
		want(t, v, "a", "VALID")
		<-first
	})
}

// An answer that was on its way when a decision arrived is dirty from the start.
func TestAnswersOvertakenByDecisions(t *testing.T) {
	for _, test := range []struct {
		name   string
		notice feed.Notice
		many   bool
		old    bool
	}{
		{name: "role", notice: feed.Notice{RoleID: "r", Closing: true}},
		{name: "key", notice: feed.Notice{KeyID: "k", Closing: true}},
		{name: "held key", notice: feed.Notice{KeyID: "k", Closing: true}, old: true},
		{name: "one of many", notice: feed.Notice{RoleID: "r", Closing: true}, many: true},
	} {
		v := newFollower()
		v.apply(&changes{Cursor: "e.1"}, 0)
		told := func() *held {
			line := []timeline.Entry{{From: time.Unix(1, 0), Code: "VALID", State: "current"}}
			a := &answers{
				Cursor:  "e.1",
				Results: []answer{{Code: "VALID", RoleID: "r", KeyID: "k", Lease: true, Timeline: line}},
				Roles:   map[string]roleFacts{"r": {}},
			}
			if r := v.learn(&question{digest: digest{1}}, a, 0, 1); r.err != nil || r.once != nil {
				t.Fatal(r)
			}
			return v.keys.get(digest{1})
		}
		if test.old {
			told()
		} else {
			v.asks.calls = 1
		}
		if test.many {
			for i := range maxRecent {
				v.feed.recent[fmt.Sprint(i)] = &recentNotice{}
			}
		}
		test.notice.Position = 2
		v.apply(&changes{Cursor: "e.2", Notices: []feed.Notice{test.notice}}, 1)
		for len(v.asks.stir) > 0 {
			<-v.asks.stir
		}
		if j := v.judge(told(), 1); !j.ask || !j.must || !j.closing {
			t.Errorf("%s: %+v", test.name, j)
		}
		if len(v.asks.stir) == 0 {
			t.Errorf("%s: the background does not look for what came out of date", test.name)
		}
	}
}

// What is told by another process of the engine than the feed's is good for once.
func TestAnswersOfAnotherEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		other := feed.New(8)
		mine := e.feed
		e.set(func() { e.feed = other })
		// The poll under way is the old process's.
		want(t, v, "a", "VALID")
		if v.keys.get(v.digest.of("a")) != nil {
			t.Error("it was kept")
		}
		e.set(func() { e.feed = mine })
		want(t, v, "a", "VALID")
		if v.keys.get(v.digest.of("a")) == nil {
			t.Error("it was not kept")
		}
	})
}

// While calls fail requests do not wait for each other's failures.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		e.set(func() { e.hang = true })
		began := time.Now()
		want(t, v, "a", "error")
		if took := time.Since(began); took != patience {
			t.Errorf("took %v", took)
		}
		time.Sleep(time.Millisecond) // the call fails when the request gives up
		began = time.Now()
		for i := range 100 {
			want(t, v, fmt.Sprint("k", i), "error")
		}
		if took := time.Since(began); took > patience {
			t.Errorf("100 requests after a failure took %v", took)
		}
		e.set(func() { e.hang = false })
		time.Sleep(2 * time.Second)
		want(t, v, "a", "NOT_FOUND")
	})
}

// A dirty key is asked about in the background, before its next use.
func TestBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		for i := range 500 {
			e.add(fmt.Sprint("k", i), "r")
		}
		v := e.start(t, Options{UnknownPerAddress: 1000})
		var wg sync.WaitGroup
		for i := range 500 {
			wg.Go(func() { want(t, v, fmt.Sprint("k", i), "VALID") })
		}
		wg.Wait()
		e.set(func() { e.calls = nil })
		e.feed.Publish(feed.Notice{RoleID: "r"})
		time.Sleep(2 * time.Second)
		calls, keys := e.asked()
		if calls != 3 || keys != 500 {
			t.Errorf("%d calls about %d keys", calls, keys)
		}
		for _, c := range e.calls {
			for i := range c {
				if c[i].key != "" || c[i].keyID == "" || c[i].roleID != "r" {
					t.Fatalf("asked by %+v: by the state, without the key", c[i])
				}
			}
		}
		want(t, v, "k7", "VALID")
		if calls, _ := e.asked(); calls != 3 {
			t.Error("a use cost a call")
		}
	})
}

// hold has the edge hold so many keys of one role: k0, k1, …
func (e *engine) hold(t testing.TB, v *Verifier, n int) {
	t.Helper()
	for i := range n {
		e.add(fmt.Sprint("k", i), "r")
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { want(t, v, fmt.Sprint("k", i), "VALID") })
	}
	wg.Wait()
	e.set(func() { e.calls = nil })
}

// The background leaves a server alone that is slow or fails, takes what was used last
// first, and stands in no request's way.
func TestBackgroundStepsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 3 * backgroundBatch
		e := newEngine()
		v := e.start(t, Options{UnknownPerAddress: 1000})
		e.hold(t, v, keys)
		time.Sleep(2 * time.Second)
		for i := range 10 {
			want(t, v, fmt.Sprint("k", 50*i), "VALID")
		}
		e.set(func() { e.delay = slow + 100*time.Millisecond })
		e.feed.Publish(feed.Notice{RoleID: "r"})
		time.Sleep(feed.Collect + 100*time.Millisecond) // the first call is under way
		e.set(func() { e.delay = 0 })
		began := time.Now()
		want(t, v, "k7", "VALID")
		if took := time.Since(began); took > 0 {
			t.Errorf("a use waited for the background for %v", took)
		}
		e.set(func() { e.delay = slow + 100*time.Millisecond })
		time.Sleep(time.Second)
		if calls, _ := e.asked(); calls != 2 {
			t.Errorf("%d calls within a second of a slow one, and one of them was a use's", calls-1)
		}
		hot := map[string]bool{}
		e.set(func() {
			for i := range e.calls[0] {
				hot[e.calls[0][i].keyID] = true
			}
		})
		for i := range 10 {
			if !hot[fmt.Sprint("id-k", 50*i)] {
				t.Errorf("k%d was used last, and is not asked about first", 50*i)
			}
		}
		time.Sleep(10 * time.Second)
		if _, n := e.asked(); n < keys || n > keys+1 {
			t.Errorf("%d of %d keys were asked about", n, keys)
		}

		// One that fails is tried again, not soon, and then without a use.
		e.set(func() { e.calls, e.delay = nil, time.Minute })
		e.feed.Publish(feed.Notice{RoleID: "r"})
		time.Sleep(20 * time.Second)
		if calls, _ := e.asked(); calls < 3 || calls > 10 {
			t.Errorf("%d calls in 20 seconds of failures", calls)
		}
		e.set(func() { e.delay = 0 })
		time.Sleep(5 * time.Second)
		e.set(func() { e.calls, e.down = nil, true })
		want(t, v, "k9", "VALID")
		if calls, _ := e.asked(); calls != 0 {
			t.Error("a use cost a call")
		}
	})
}

// After a reset the timeline decides where nobody answers within a second; where
// something was closed it does not, nor before the second is over.
func TestResetWithoutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		e.add("closed", "c")
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		want(t, v, "closed", "VALID")
		e.set(func() { e.delay = time.Minute }) // of verify: the feed goes on
		e.feed.Publish(feed.Notice{RoleID: "c", Closing: true})
		time.Sleep(feed.Collect + time.Millisecond)
		e.feed.Renew()
		time.Sleep(2 * time.Second)
		for key, wanted := range map[string]string{"a": "VALID", "closed": "error"} {
			time.Sleep(time.Second) // no call has just failed
			began := time.Now()
			want(t, v, key, wanted)
			if took := time.Since(began); took != patience {
				t.Errorf("%s: a verdict after %v", key, took)
			}
		}
		e.revoke("a")
		e.set(func() { e.delay = 0 })
		time.Sleep(3 * time.Second)
		want(t, v, "a", "REVOKED")
		want(t, v, "closed", "VALID")
	})
}

// A request that comes while a call hangs waits a second, too, and not for the rest of
// that call besides.
func TestAllWaitsAreASecondTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		e.set(func() { e.hang = true })
		first := make(chan string)
		go func() { first <- code(t, v, "a") }()
		time.Sleep(patience / 2)
		began := time.Now()
		want(t, v, "b", "error")
		if took := time.Since(began); took != patience {
			t.Errorf("an error after %v", took)
		}
		<-first
	})
}

// Whatever goes wrong with a key, neither the log nor an error shows it.
func TestKeysAreNotLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const key = "presented-key"
		e := newEngine()
		k := e.add(key, "a")
		k.KeyID = "id"
		log := &strings.Builder{}
		v := e.start(t, Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		for name, fault := range map[string]func(){
			"no timeline":   func() { k.Timeline = nil },
			"a timeline":    func() { k.Timeline = []timeline.Entry{{From: time.Now(), Code: "SOMETHING"}} },
			"a network":     func() { k.Timeline, k.facts.AllowedCIDRs = []timeline.Entry{valid()}, []string{"nowhere"} },
			"no answer":     func() { e.hang = true },
			"a failed call": func() { e.hang, e.down = false, true },
		} {
			e.set(fault)
			_, err := v.Verify(t.Context(), Request{Key: key})
			if err == nil || strings.Contains(err.Error(), key) {
				t.Errorf("%s: %v", name, err)
			}
			time.Sleep(3 * time.Second)
		}
		_ = v.Close() // then nobody logs any more
		if log.Len() == 0 || strings.Contains(log.String(), key) {
			t.Errorf("logged: %s", log)
		}
	})
}

// A key whose state is not found is asked about by its value.
func TestGoneAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		e.remove("a")
		e.add("a", "b").KeyID = "another"
		e.feed.Publish(feed.Notice{RoleID: "a", Closing: true})
		time.Sleep(time.Second)
		verdict, err := v.Verify(t.Context(), Request{Key: "a"})
		if err != nil || !verdict.Valid || verdict.KeyID != "another" {
			t.Errorf("%+v, %v", verdict, err)
		}
		e.remove("a")
		e.feed.Publish(feed.Notice{RoleID: "b", Closing: true})
		time.Sleep(time.Second)
		want(t, v, "a", "NOT_FOUND")
		e.add("a", "b")
		want(t, v, "a", "NOT_FOUND") // it is remembered
		time.Sleep(5 * time.Second)  // as the documentation says
		want(t, v, "a", "VALID")
	})
}

// An engine that knows no timelines is no reason for a 401.
func TestOldEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a").Timeline = nil
		v := e.start(t, Options{})
		if _, err := v.Verify(t.Context(), Request{Key: "a"}); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errNoTimeline) {
			t.Error(err)
		}
		e.add("b", "b", timeline.Entry{From: time.Now(), Code: "SOMETHING", State: "current"})
		want(t, v, "b", "error")
	})
}

// What no key can be is not asked about: it would take the place of others in a call, or
// make it fail.
func TestWhatIsNoKeyCostsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		for _, key := range []string{"", " k", "k ", "k\x00", "k\xff", "ké", "a\nb", strings.Repeat("k", keyformat.MaxForeignLen+1)} {
			verdict, err := v.Verify(t.Context(), Request{Key: key})
			if err != nil || verdict.Valid || verdict.Code != codeMalformed || verdict.Hint != keyformat.Hint(key) || verdict.Now.IsZero() {
				t.Errorf("%.20q: %+v, %v", key, verdict, err)
			}
		}
		if calls, _ := e.asked(); calls > 0 {
			t.Errorf("%d calls", calls)
		}
		want(t, v, strings.Repeat("k", keyformat.MaxForeignLen), codeNotFound)
	})
}

// Forgeries do not hold up keys that are known, and a call is never longer than the
// engine takes, whatever it asks about.
func TestKnownKeysAreAskedAboutFirst(t *testing.T) {
	var a asker
	a.init()
	for i := range 3 * batch {
		d := digest{byte(i), byte(i >> 8)}
		a.queue = append(a.queue, d)
		a.waiting[d] = &ask{question: question{digest: d, key: strings.Repeat("\"\\", 1500)}}
	}
	for i := range 3 {
		d := digest{2: 1, 0: byte(i)}
		a.queue = append(a.queue, d)
		a.waiting[d] = &ask{question: question{digest: d, keyID: "k", roleID: "r"}}
	}
	known, all := 0, 0
	for {
		asks := a.take(7)
		if len(asks) == 0 {
			break
		}
		if all == 0 {
			for _, w := range asks[:3] {
				if w.keyID != "" {
					known++
				}
			}
		}
		all += len(asks)
		var batch strings.Builder
		items := make([]map[string]any, len(asks))
		for i, w := range asks {
			items[i] = map[string]any{"key": w.key, "timeline": 1}
		}
		enc := json.NewEncoder(&batch)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(items); err != nil || batch.Len() > maxBatchBytes {
			t.Fatalf("%d bytes, %v", batch.Len(), err)
		}
	}
	if known != 3 || all != 3*batch+3 {
		t.Errorf("%d of 3 known keys came first, %d in all", known, all)
	}
}

// Decisions that close nothing hold up nobody who came before them, however many there
// are.
func TestManyDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		e.set(func() { e.delay = 450 * time.Millisecond })
		ctx, cancel := context.WithCancel(t.Context())
		var decides sync.WaitGroup
		defer decides.Wait()
		defer cancel()
		decides.Go(func() {
			for ctx.Err() == nil {
				e.feed.Publish(feed.Notice{RoleID: "a"})
				time.Sleep(50 * time.Millisecond)
			}
		})
		time.Sleep(2 * time.Second)
		for range 20 {
			want(t, v, "a", "VALID")
		}
	})
}

// An answer that comes late takes nothing back: what was told by a later one stays.
func TestLateAnswers(t *testing.T) {
	v := newFollower()
	v.apply(&changes{Cursor: "e.5"}, 0)
	told := func(cursor string, sent int64, codes ...string) {
		a := &answers{Cursor: cursor, Roles: map[string]roleFacts{"r": {}}}
		for _, c := range codes {
			r := answer{Code: c, RoleID: "r", KeyID: "k", Lease: true}
			if c != codeNotFound {
				r.Timeline = []timeline.Entry{{From: time.Unix(1, 0), Code: c, State: "current"}}
			}
			a.Results = append(a.Results, r)
		}
		v.learn(&question{digest: digest{1}}, a, 0, sent)
	}
	held := func() string {
		if h := v.keys.get(digest{1}); h != nil {
			return h.line.Code(0).String()
		}
		return ""
	}
	told("e.5", 10, "VALID")
	told("e.4", 9, codeNotFound)
	if held() != "VALID" {
		t.Errorf("held as %q after an earlier NOT_FOUND", held())
	}
	told("e.5", 8, "EXPIRED") // the lease was renewed since, which is not told
	if held() != "VALID" {
		t.Errorf("held as %q after an earlier answer", held())
	}
	told("e.5", 11, "EXPIRED")
	if held() != "EXPIRED" {
		t.Errorf("held as %q after a later answer", held())
	}
	told("e.5", 12, codeNotFound)
	if held() != "" || len(v.feed.leased) > 0 {
		t.Errorf("held as %q, %d leased after a later NOT_FOUND", held(), len(v.feed.leased))
	}
}

// An end that was applied while a call was under way stays until a later call tells, even
// where what it brings knows of no end.
func TestEndsOutliveEarlierCalls(t *testing.T) {
	v := newFollower()
	v.apply(&changes{Cursor: "e.5"}, 0)
	line := func(sent int64, end bool) *held {
		entries := []timeline.Entry{{From: time.Unix(0, 1), Code: "VALID", State: "current"}}
		if end {
			entries = append(entries, timeline.Entry{From: time.Unix(0, 2), Code: "RETIRED", State: "retired"})
		}
		v.learn(&question{digest: digest{2}}, &answers{
			Cursor: "e.5", Roles: map[string]roleFacts{"r": {}}, Results: []answer{{Code: "VALID", RoleID: "r", KeyID: "s", Timeline: entries}},
		}, 0, sent)
		return v.keys.get(digest{2})
	}
	v.confirmed.Store(100)
	v.stale.Store(1000)
	v.window.Store(1000)
	v.clock.offset.Store(0)
	if j := v.judge(line(20, true), 100); !j.ended || j.ask {
		t.Errorf("%+v", j)
	}
	if j := v.judge(line(30, false), 110); !j.ask || !j.must {
		t.Errorf("an answer to an earlier call: %+v", j)
	}
	if j := v.judge(line(120, false), 130); j.ask || j.ended {
		t.Errorf("an answer to a later call: %+v", j)
	}
}

// A flood of forgeries is answered with errors, never with refusals; it evicts no key
// that is known, and takes nothing from other clients.
func TestForgeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		for i := range 100 {
			e.add(fmt.Sprint("k", i), "r")
		}
		v := e.start(t, Options{MaxKeys: 100, UnknownPerSecond: 1000, UnknownPerAddress: 1})
		for i := range 100 {
			want(t, v, fmt.Sprint("k", i), "VALID")
		}
		attacker := netip.MustParseAddr("2001:db8::1")
		busy, refused := 0, 0
		for i := range 2000 {
			verdict, err := v.Verify(context.Background(), Request{Key: fmt.Sprint("forged", i), RemoteAddr: attacker})
			switch {
			case errors.Is(err, ErrBusy) && errors.Is(err, ErrUnavailable):
				busy++
			case err == nil && verdict.Code == codeNotFound:
				refused++
			default:
				t.Fatal(verdict, err)
			}
			attacker = attacker.Next() // within its own network
		}
		if refused != 60 || busy != 1940 {
			t.Errorf("%d asked about, %d not", refused, busy)
		}
		if verdict, err := v.Verify(t.Context(), Request{Key: "forged3", RemoteAddr: attacker}); err != nil || verdict.Code != codeNotFound {
			t.Error("one that is remembered as unknown costs nothing:", err)
		}
		calls, _ := e.asked()
		for i := range 100 {
			want(t, v, fmt.Sprint("k", i), "VALID")
		}
		if now, _ := e.asked(); now != calls {
			t.Error("forgeries evicted known keys")
		}
		e.add("new", "r")
		if verdict, err := v.Verify(t.Context(), Request{Key: "new", RemoteAddr: netip.MustParseAddr("192.0.2.1")}); err != nil || !verdict.Valid {
			t.Errorf("another client: %+v, %v", verdict, err)
		}
	})
}

// What is remembered of forgeries and of who sends them is bounded.
func TestForgeriesTakeLittleMemory(t *testing.T) {
	u, b := newUnknownKeys(), newBudgets(1e9, 1e9)
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range 12_000 {
		u.put(digest{byte(i), byte(i >> 8)}, 0, codeNotFound, "")
		if addr = addr.Next(); !b.allow(addr, time.Unix(1000, 0)) {
			t.Fatal(i)
		}
	}
	if u.cache.Len() != 10_000 || b.addresses.Len() != 10_000 {
		t.Errorf("%d keys, %d addresses", u.cache.Len(), b.addresses.Len())
	}
}

func TestBudgets(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBudgets(10, 1)
	for i := range 10 {
		if !b.allow(netip.Addr{}, now) {
			t.Fatalf("%d of 10 that come from nowhere", i)
		}
	}
	if b.allow(netip.MustParseAddr("192.0.2.1"), now) || !b.allow(netip.MustParseAddr("192.0.2.1"), now.Add(100*time.Millisecond)) {
		t.Error("10 per second, together")
	}
	b = newBudgets(1000, 1)
	a, mapped := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")
	for range 60 {
		b.allow(a, now)
	}
	if b.allow(mapped, now) || !b.allow(mapped, now.Add(time.Second)) || !b.allow(netip.MustParseAddr("192.0.2.2"), now) {
		t.Error("a minute's worth at once, for one address")
	}
}

// Who came first is asked about first, in batches that are full.
func TestFirstComeFirstAsked(t *testing.T) {
	var a asker
	a.init()
	for i := range 2*batch + 1 {
		d := digest{byte(i), byte(i >> 8)}
		a.waiting[d] = &ask{question: question{digest: d, keyID: fmt.Sprint(i)}}
		a.queue = append(a.queue, d)
	}
	next := 0
	for _, size := range []int{batch, batch, 1, 0} {
		asks := a.take(7)
		if len(asks) != size {
			t.Fatalf("%d at once, want %d", len(asks), size)
		}
		for _, w := range asks {
			if w.keyID != fmt.Sprint(next) || w.begun != 7 || a.sent[w.digest] != w {
				t.Fatalf("%s is asked about in place of %d", w.keyID, next)
			}
			next++
		}
	}
	if len(a.waiting) != 0 {
		t.Errorf("%d wait for ever", len(a.waiting))
	}
}

// An end that an answer told holds for good, whatever another node or older storage says
// later; that a key was unknown or disabled does not.
func TestEndsInAnswersHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		for _, test := range []struct{ code, state, want string }{
			{"REVOKED", "revoked", "REVOKED"},
			{"EXPIRED", "expired", "EXPIRED"},
			{"RETIRED", "retired", "RETIRED"},
			{"DISABLED", "current", "VALID"},
			{"NOT_FOUND", "pending", "VALID"},
		} {
			key := test.code
			e.add(key, "r", timeline.Entry{From: time.Now(), Code: test.code, State: test.state})
			want(t, v, key, test.code)
			e.add(key, "r")
			for range 2 {
				e.feed.Renew() // a failover
				time.Sleep(3 * time.Second)
				want(t, v, key, test.want)
			}
		}
		// The engine of another epoch is asked, and not believed either.
		e.add("a", "r", timeline.Entry{From: time.Now(), Code: "REVOKED", State: "revoked"})
		want(t, v, "a", "REVOKED")
		e.add("a", "r")
		e.set(func() { e.feed = feed.New(8) })
		e.feed.Publish(feed.Notice{RoleID: "r"})
		time.Sleep(3 * time.Second)
		want(t, v, "a", "REVOKED")
		// Another key in its place is another key.
		e.add("a", "other").KeyID = "another"
		e.feed.Renew()
		time.Sleep(3 * time.Second)
		want(t, v, "a", "VALID")
	})
}

// An end that was applied while a call was on its way is not undone by its answer.
func TestEndsOutliveOlderAnswers(t *testing.T) {
	v := newFollower()
	v.window.Store(int64(time.Hour))
	v.stale.Store(int64(time.Hour))
	v.apply(&changes{Cursor: "e.1"}, 0)
	line := []timeline.Entry{
		{From: time.Unix(0, 0), Code: "VALID", State: "previous"},
		{From: time.Unix(0, 100), Code: "RETIRED", State: "retired", HoldUntil: time.Unix(0, 1000)},
	}
	told := func(sent int64) *held {
		a := &answers{Cursor: "e.1", Results: []answer{{Code: "VALID", RoleID: "r", KeyID: "k", Timeline: line}}, Roles: map[string]roleFacts{"r": {}}}
		if r := v.learn(&question{digest: digest{1}}, a, 0, sent); r.err != nil || r.once != nil {
			t.Fatal(r)
		}
		return v.keys.get(digest{1})
	}
	if j := v.judge(told(50), 150); !j.ended || j.ask {
		t.Fatalf("%+v", j)
	}
	v.window.Store(0) // cut off
	v.confirmed.Store(60)
	if j := v.judge(told(90), 200); !j.ended {
		t.Errorf("%+v: an answer to a call of before brought it back", j)
	}
	if j := v.judge(told(160), 200); !j.ended {
		t.Errorf("%+v: it ended before the confirmed instant", j)
	}
	v.confirmed.Store(60)
	line[1].From = time.Unix(0, 215)
	if j := v.judge(told(210), 220); j.ended {
		t.Errorf("%+v: an answer to a later call says otherwise", j)
	}
}
