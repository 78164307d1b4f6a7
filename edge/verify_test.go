// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// What is known of a held key at minute 10, by what was told and when.
func TestJudge(t *testing.T) {
	at := func(minutes int) time.Time { return time.Date(2030, 1, 1, 0, minutes, 0, 0, time.UTC) }
	good := timeline.Entry{From: at(0), Code: "VALID", State: "current"}
	ends := func(minute int, code string) []timeline.Entry {
		return []timeline.Entry{good, {From: at(minute), Code: code, State: "retired"}}
	}
	held30 := []timeline.Entry{good, {From: at(9), Code: "RETIRED", State: "retired", HoldUntil: at(30)}}
	lease := []timeline.Entry{good, {From: at(9), Code: "EXPIRED", State: "expired", Renewable: true}}
	const position = 5
	for _, test := range []struct {
		name              string
		line              []timeline.Entry
		live              bool
		confirmed         int // minute of the last poll, where it is not live
		role, key         uint64
		roleClose, keyClo uint64
		reset             uint64
		before            int // minute up to which it was confirmed before what made it dirty
		ended             bool
		want              judgement
		wantEnded         bool
	}{
		{name: "clean", live: true},
		{name: "notice before its position", live: true, role: 5, key: 4, roleClose: 5, reset: 5},
		{name: "end to come", live: true, line: ends(11, "RETIRED")},
		{name: "end", live: true, line: ends(9, "RETIRED"), want: judgement{entry: 1, ended: true}, wantEnded: true},
		{name: "role dirty", live: true, role: 6, before: 9, want: judgement{ask: true, must: true}},
		{name: "key dirty", live: true, key: 6, before: 9, want: judgement{ask: true, must: true}},
		{name: "role closing", live: true, role: 7, roleClose: 6, before: 9, want: judgement{ask: true, must: true, closing: true}},
		{name: "closing, answered since", live: true, role: 7, roleClose: 5, before: 9, want: judgement{ask: true, must: true}},
		{name: "reset", live: true, reset: 6, before: 9, want: judgement{ask: true}},
		{name: "reset and closing", live: true, reset: 6, key: 6, keyClo: 6, before: 9, want: judgement{ask: true, must: true, closing: true}},
		{name: "reset long ago", live: true, reset: 6, before: 0, want: judgement{ask: true, must: true}},
		{name: "cut off", confirmed: 8, want: judgement{cutOff: true}},
		{name: "cut off for too long", confirmed: 4, want: judgement{ask: true, must: true, cutOff: true}},
		{name: "cut off, dirty", confirmed: 8, role: 6, before: 7, want: judgement{ask: true, cutOff: true}},
		{name: "cut off, closing", confirmed: 8, role: 6, roleClose: 6, before: 7, want: judgement{ask: true, must: true, closing: true, cutOff: true}},
		{name: "cut off, dirty for long", confirmed: 8, role: 6, before: 4, want: judgement{ask: true, must: true, cutOff: true}},
		{name: "cut off, end", confirmed: 8, line: ends(9, "RETIRED"), want: judgement{entry: 1, ended: true, cutOff: true}, wantEnded: true},
		{name: "cut off, end held back", confirmed: 8, line: held30, want: judgement{cutOff: true}},
		{name: "cut off after the end", confirmed: 9, line: held30, want: judgement{entry: 1, ended: true, cutOff: true}, wantEnded: true},
		{name: "applied before it was cut off", confirmed: 8, line: held30, ended: true, want: judgement{entry: 1, ended: true, cutOff: true}, wantEnded: true},
		{name: "live: not held back", live: true, line: held30, want: judgement{entry: 1, ended: true}, wantEnded: true},
		{name: "lease", live: true, line: lease, want: judgement{ask: true, must: true, entry: 1, ended: true, renewable: true}},
		{name: "lease, dirty", live: true, line: lease, role: 6, before: 9, want: judgement{ask: true, must: true, entry: 1, ended: true}},
		{name: "lease that ended while it was cut off", live: true, line: lease, ended: true, want: judgement{ask: true, must: true, entry: 1, ended: true, renewable: true}, wantEnded: true},
		{name: "lease, cut off", confirmed: 8, line: lease, want: judgement{entry: 1, ended: true, cutOff: true}, wantEnded: true},
		{name: "applied by a clock that was ahead", live: true, line: ends(11, "RETIRED"), ended: true, want: judgement{ask: true, entry: 1, ended: true}, wantEnded: true},
	} {
		c := &twoClocks{wall: at(0).UnixNano(), mono: 0}
		v := &Verifier{clock: newTimekeeper(c.read)}
		v.feed.init()
		v.window.Store(int64(7 * time.Second))
		v.stale.Store(int64(5 * time.Minute))
		minute := func(n int) int64 { return int64(time.Duration(n) * time.Minute) }
		c.pass(10 * time.Minute)
		v.confirmed.Store(minute(test.confirmed))
		if test.live {
			v.confirmed.Store(minute(10) - int64(7*time.Second))
		}
		if test.line == nil {
			test.line = []timeline.Entry{good}
		}
		line, err := timeline.Parse(test.line)
		if err != nil {
			t.Fatal(err)
		}
		h := &held{line: line, role: &role{}, position: position, own: notConfirmed}
		if test.role > 0 {
			h.role.mark(test.role, false, minute(test.before))
			v.roles.note("", test.role)
			h.slot = slotOf("")
			h.role.decided(test.roleClose, nil)
		}
		if test.key > 0 {
			h.mark(test.key, false, minute(test.before))
			h.closing.Store(test.keyClo)
		}
		v.reset.Store(test.reset)
		v.feed.resets = []dirt{{test.reset, minute(test.before)}}
		if test.ended {
			h.ended.Store(1)
		}
		if got := v.judge(h, minute(10)); got != test.want || h.ended.Load() != 0 != test.wantEnded {
			t.Errorf("%s: %+v, ended %d; want %+v, %t", test.name, got, h.ended.Load(), test.want, test.wantEnded)
		}
	}
}

func TestFirstDecisionCounts(t *testing.T) {
	v := &Verifier{}
	v.feed.init()
	h := &held{role: &role{}, position: 2, own: 1}
	for i := range uint64(3) {
		h.role.mark(1+i, false, int64(10*i))
	}
	if got := v.confirmedBefore(h); got != 20 {
		t.Errorf("confirmed at %d, want 20: what came before its position is known to it", got)
	}
	h.mark(5, false, 15)
	h.mark(6, false, 99)
	if got := v.confirmedBefore(h); got != 20 {
		t.Errorf("confirmed at %d, want that of decision 3", got)
	}
	for i := range uint64(maxDirt + 1) {
		h.role.mark(10+i, false, 100)
	}
	if got := v.confirmedBefore(h); got != h.own {
		t.Errorf("confirmed at %d, though the first decision was forgotten", got)
	}
}

func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		k := e.add("k", "r")
		k.facts = roleFacts{
			Role: "orders", Scopes: []string{"orders:*", "x"}, AllowedCIDRs: []string{"10.0.0.0/8"}, RateLimit: 2,
			Metadata: map[string]string{"team": "a"},
		}
		narrow := []string{"x"}
		e.add("n", "r").answer.Scopes = &narrow
		e.keys["n"].facts = k.facts
		v := e.start(t, Options{})
		inside := netip.MustParseAddr("::ffff:10.1.2.3")
		for _, test := range []struct {
			req  Request
			want string
		}{
			{Request{Key: "k", Scopes: []string{"orders:read", "x"}, RemoteAddr: inside}, "VALID"},
			{Request{Key: "k", Scopes: []string{"orders:read", "y"}, RemoteAddr: inside}, "INSUFFICIENT_SCOPE"},
			{Request{Key: "k", AnyScope: []string{"y", "orders:read"}, RemoteAddr: inside}, "VALID"},
			{Request{Key: "k", AnyScope: []string{"y", "z"}, RemoteAddr: inside}, "INSUFFICIENT_SCOPE"},
			{Request{Key: "k", RemoteAddr: netip.MustParseAddr("11.1.2.3")}, "FORBIDDEN_IP"},
			{Request{Key: "k"}, "FORBIDDEN_IP"},
			{Request{Key: "k", RemoteAddr: inside}, "RATE_LIMITED"},
			{Request{Key: "n", Scopes: []string{"orders:read"}, RemoteAddr: inside}, "INSUFFICIENT_SCOPE"},
			{Request{Key: "n", Scopes: []string{"x"}, RemoteAddr: inside}, "RATE_LIMITED"},
			{Request{Key: "other"}, "NOT_FOUND"},
		} {
			verdict, err := v.Verify(t.Context(), test.req)
			if err != nil || verdict.Code != test.want || verdict.Valid != (test.want == "VALID") {
				t.Errorf("%+v: %+v, %v", test.req, verdict, err)
			}
			if test.want != "NOT_FOUND" && (verdict.Role != "orders" || verdict.RoleID != "r" || verdict.Metadata["team"] != "a" || verdict.Version != 1) {
				t.Errorf("%+v", verdict)
			}
		}
		time.Sleep(time.Second)
		if verdict, _ := v.Verify(t.Context(), Request{Key: "n", RemoteAddr: inside}); !verdict.Valid {
			t.Errorf("a second later: %+v", verdict)
		}
	})
}

// A revocation counts within a second; an end without a call.
func TestDecisionsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		e.add("b", "b", valid(), timeline.Entry{From: time.Now().Add(10 * time.Second), Code: "EXPIRED", State: "expired"})
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		want(t, v, "b", "VALID")
		calls, _ := e.asked()
		for range 100 {
			want(t, v, "a", "VALID")
		}
		e.revoke("a")
		time.Sleep(time.Second)
		want(t, v, "a", "REVOKED")
		if now, _ := e.asked(); now > calls+1 {
			t.Errorf("%d calls for one decision", now-calls)
		}
		time.Sleep(7900 * time.Millisecond)
		want(t, v, "b", "VALID")
		time.Sleep(200 * time.Millisecond)
		want(t, v, "b", "EXPIRED")
		if now, _ := e.asked(); now > calls+1 {
			t.Error("an end cost a call")
		}
	})
}

func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		e.add("b", "b")
		e.add("c", "c")
		v := e.start(t, Options{})
		for _, key := range []string{"a", "b", "c"} {
			want(t, v, key, "VALID")
		}
		e.feed.Publish(feed.Notice{RoleID: "b", Closing: true})
		e.set(func() { e.delay = time.Minute }) // the notice arrives, the answer does not
		time.Sleep(500 * time.Millisecond)
		e.set(func() { e.down = true })
		time.Sleep(10 * time.Second)
		verdict, err := v.Verify(t.Context(), Request{Key: "a"})
		if err != nil || !verdict.Valid || !verdict.CutOff {
			t.Errorf("%+v, %v", verdict, err)
		}
		want(t, v, "b", "error") // it was closed, and nobody can say how
		want(t, v, "other", "error")
		time.Sleep(45 * time.Second)
		want(t, v, "a", "VALID")
		time.Sleep(6 * time.Second)
		want(t, v, "a", "error")
		e.set(func() { e.down, e.delay = false, 0 })
		time.Sleep(5 * time.Second)
		for _, key := range []string{"a", "b", "c"} {
			want(t, v, key, "VALID")
		}
	})
}

// A machine that slept asks before it accepts anything; where nobody answers the gap
// counts as time.
func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		var mu sync.Mutex
		slept := time.Duration(0)
		began := time.Now()
		sleep := func(d time.Duration) {
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			slept += d
		}
		e.add("a", "a")
		v := e.start(t, Options{Clock: func() (wall, mono int64) {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().UnixNano(), int64(time.Since(began) - slept)
		}})
		want(t, v, "a", "VALID")
		e.set(func() { e.hang = true })
		sleep(30 * time.Second)
		hurried, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if verdict, err := v.Verify(hurried, Request{Key: "a"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%+v, %v: who does not wait is not told before the server was asked", verdict, err)
		}
		asked := time.Now()
		want(t, v, "a", "VALID") // cut off
		if took := time.Since(asked); took > patience+100*time.Millisecond || took < 100*time.Millisecond {
			t.Errorf("a verdict after %v: the server has a second to answer", took)
		}
		sleep(31 * time.Second)
		want(t, v, "a", "error")
		e.set(func() { e.hang = false })
		e.revoke("a")
		sleep(3 * time.Second)
		want(t, v, "a", "REVOKED")
	})
}

// Nobody makes the others believe clocks that have parted: not a client that hangs up,
// nor an answer to a question that was asked before.
func TestClocksAreNotBelievedEarly(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, e *engine, v *Verifier){
		"a client hangs up": func(t *testing.T, _ *engine, v *Verifier) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if verdict, err := v.Verify(ctx, Request{Key: "a"}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%+v, %v", verdict, err)
			}
		},
		"nobody has asked": func(*testing.T, *engine, *Verifier) {},
		"many ask": func(t *testing.T, _ *engine, v *Verifier) {
			var wg sync.WaitGroup
			for range 40 {
				wg.Go(func() { want(t, v, "a", "REVOKED") })
				time.Sleep(20 * time.Millisecond)
			}
			wg.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine()
				e.add("a", "a")
				var slept atomic.Int64
				began := time.Now()
				v := e.start(t, Options{Clock: func() (wall, mono int64) {
					return time.Now().Add(time.Duration(slept.Load())).UnixNano(), int64(time.Since(began))
				}})
				want(t, v, "a", "VALID")
				e.set(func() { e.late = 300 * time.Millisecond })
				for asks := false; !asks; { // for the time: each minute
					time.Sleep(10 * time.Millisecond)
					e.set(func() { asks = e.exact })
				}
				slept.Store(int64(30 * time.Second))
				e.revoke("a")
				before(t, e, v)
				asked := time.Now()
				if got := code(t, v, "a"); got != "REVOKED" {
					t.Errorf("%s after %v", got, time.Since(asked))
				}
			})
		})
	}
}

func TestVerifyGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{})
		e.set(func() { e.hang = true })
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := v.Verify(ctx, Request{Key: "a"}); !errors.Is(err, ErrUnavailable) || time.Since(began) != 300*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// gapped is an engine that a machine sleeps while it answers.
type gapped struct {
	*engine
	during func()
}

func (g *gapped) changes(ctx context.Context, since string, wait time.Duration) (changes, error) {
	g.during()
	return g.engine.changes(ctx, since, wait)
}

// A machine that is suspended while the server is being asked for its time has not asked
// after that.
func TestSuspendedWhileAsking(t *testing.T) {
	c, k := newClocks()
	v := newFollower()
	v.clock = k
	r := &gapped{engine: newEngine()}
	v.remote = r
	gap := func() { c.wall += int64(time.Hour) }
	settling := make(chan struct{})
	v.feed.settling = settling
	gap()
	for _, test := range []struct {
		during func()
		want   bool
	}{{gap, false}, {gap, false}, {func() {}, true}} {
		r.during = test.during
		if _, err := v.poll(t.Context(), 0, true); err != nil {
			t.Fatal(err)
		}
		if _, sure := k.elapsed(); sure != test.want {
			t.Errorf("the clocks are believed: %t", sure)
		}
		select {
		case <-settling:
			if !test.want {
				t.Error("who waits goes on")
			}
		default:
			if test.want {
				t.Error("who waits does not go on")
			}
		}
	}
}

// The end of a lease is asked about, once for each use: the server's clock may not be
// that far yet. Where nobody can be asked, there is no verdict.
func TestEndsOfLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		ends := timeline.Entry{From: time.Now().Add(5 * time.Second), Code: "EXPIRED", State: "expired", Renewable: true}
		k := e.add("a", "a", valid(), ends)
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		calls, _ := e.asked()
		time.Sleep(3 * time.Second)
		want(t, v, "a", "VALID")
		if now, _ := e.asked(); now != calls {
			t.Error("a use before the end costs a call")
		}
		time.Sleep(2 * time.Second)
		for range 3 {
			want(t, v, "a", "VALID") // the server says so
			if now, _ := e.asked(); now != calls+1 {
				t.Errorf("%d calls for one use", now-calls)
			}
			calls++
		}
		// Also for one that comes while it is being asked about.
		e.set(func() { e.delay = 300 * time.Millisecond })
		first := make(chan string)
		go func() { first <- code(t, v, "a") }()
		time.Sleep(100 * time.Millisecond)
		want(t, v, "a", "VALID")
		if got := <-first; got != "VALID" {
			t.Error(got)
		}
		if now, _ := e.asked(); now != calls+2 {
			t.Errorf("%d calls for two uses", now-calls)
		}
		e.set(func() { e.delay = time.Minute })
		want(t, v, "a", "error")
		time.Sleep(time.Second)
		e.set(func() {
			e.delay, k.Timeline = 0, []timeline.Entry{valid(), {From: time.Now().Add(9 * time.Second), Code: "EXPIRED", State: "expired", Renewable: true}}
		})
		want(t, v, "a", "VALID") // it was renewed
		e.set(func() { e.down = true })
		time.Sleep(10 * time.Second)
		want(t, v, "a", "EXPIRED") // cut off
		e.set(func() { e.down, k.Timeline = false, []timeline.Entry{valid()} })
		time.Sleep(5 * time.Second)
		want(t, v, "a", "VALID") // and renewed meanwhile
	})
}
