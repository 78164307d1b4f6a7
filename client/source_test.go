// SPDX-License-Identifier: MPL-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"
)

func TestItIsReadAgainAsTheAnswerSays(t *testing.T) {
	for _, test := range []struct{ ttl, first, last time.Duration }{
		{5 * time.Minute, 255 * time.Second, 285 * time.Second},
		{time.Minute, 51 * time.Second, 57 * time.Second},
		{10 * time.Second, 10 * time.Second, 11 * time.Second},
		{time.Second, time.Second, 1250 * time.Millisecond},
		{0, time.Second, 1250 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			e.ttl = test.ttl
			source(t, e, nil)
			time.Sleep(40 * test.last)
			e.do(func() {
				if n := len(e.reads); n < 40 {
					t.Errorf("ttl %v: %d reads in %v", test.ttl, n, 40*test.last)
				}
				for i := range e.reads[1:] {
					if d := e.reads[i+1].Sub(e.reads[i]); d < test.first || d > test.last {
						t.Errorf("ttl %v: read again after %v", test.ttl, d)
					}
				}
			})
		})
	}
}

func TestTheLastKeyIsServedWhileTheServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, nil)
		has(t, s, "k1")
		e.do(func() { e.err = errAway })
		e.rotate()
		for range 48 {
			time.Sleep(time.Hour)
			has(t, s, "k1")
		}
		if st := s.Stats(); !errors.Is(st.Err, errAway) || st.Failures < 48*100 {
			t.Errorf("%+v", st)
		}
		e.do(func() { e.err = nil })
		time.Sleep(longestRetry)
		has(t, s, "k2")
	})
}

func TestWithoutAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.err = errAway
		s := source(t, e, nil)
		began := time.Now()
		_, err := s.Key(t.Context())
		if !errors.Is(err, ErrNoKey) || !errors.Is(err, errAway) || time.Since(began) != firstWait {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if _, err = s.Key(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// Somebody who waits has the key as soon as there is one.
		e.do(func() { e.err = nil })
		has(t, s, "k1")

		e = newEngine()
		e.err = refusal(400, "repeatable: true: role orders hands out each version once only")
		s = source(t, e, nil)
		synctest.Wait()
		began = time.Now()
		if _, err = s.Key(t.Context()); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "once only") || time.Since(began) > 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		e.do(func() { e.err = nil })
		time.Sleep(longestRetry)
		has(t, s, "k1")
	})
}

func TestALeaseIsRenewedAndTheKeyReplacedBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic, e.maxLife = true, 150*time.Minute
		s := source(t, e, nil)
		began := time.Now()
		has(t, s, "k2")
		for time.Since(began) < 24*time.Hour {
			time.Sleep(10 * time.Second)
			key, err := s.Key(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			e.do(func() {
				if age := time.Since(e.issued["lease-"+key.ID]); age > 150*time.Minute {
					t.Fatalf("a key of %v", age)
				}
			})
		}
		st := s.Stats()
		if st.Changes < 9 || st.Changes > 16 || st.Renewals < 20 || st.Renewals > 45 || st.Failures > 0 {
			t.Errorf("in a day: %+v", st)
		}
	})
}

func TestALeaseThatCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic = true
		s := source(t, e, nil)
		has(t, s, "k2")
		e.do(func() { e.err = errAway })
		time.Sleep(59 * time.Minute)
		has(t, s, "k2")
		time.Sleep(2 * time.Minute)
		if _, err := s.Key(t.Context()); !errors.Is(err, ErrNoKey) || !errors.Is(err, errAway) || !strings.Contains(err.Error(), "ended") {
			t.Errorf("%v", err)
		}
		e.do(func() { e.err = nil })
		has(t, s, "k3")

		// The server says no: another key is asked for at once.
		e.do(func() { e.err = refusal(400, "lease not found") })
		time.Sleep(43 * time.Minute)
		e.do(func() { e.err = nil })
		time.Sleep(longestRetry)
		has(t, s, "k4")
	})
}

func TestAKeyIsReplacedBeforeItsTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic, e.tokenEnds = true, time.Now().Add(10*time.Minute)
		s := source(t, e, nil)
		has(t, s, "k2")
		time.Sleep(6 * time.Minute)
		has(t, s, "k2")
		if end := s.Stats().Ends; time.Until(end) > 4*time.Minute {
			t.Errorf("it is to end in %v, the token ends in four minutes", time.Until(end))
		}
		e.do(func() { e.theToken, e.tokenEnds = "t2", time.Now().Add(10*time.Minute) })
		time.Sleep(longestSleep + time.Second)
		has(t, s, "k3")

		// Nobody has brought another one: the key is dead with its token.
		time.Sleep(10 * time.Minute)
		e.do(func() { e.err = errAway })
		time.Sleep(time.Minute)
		if _, err := s.Key(t.Context()); !errors.Is(err, ErrNoKey) {
			t.Errorf("%v", err)
		}
	})
}

// A token that is renewed in its place keeps the keys that it was issued alive, also where
// nobody could ask since.
func TestATokenThatIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic, e.life = true, 24*time.Hour
		e.tokenEnds = time.Now().Add(time.Hour)
		s := source(t, e, nil)
		has(t, s, "k2")
		for range 10 {
			time.Sleep(40 * time.Minute)
			// Until now it had 20 minutes left, and somebody has renewed it.
			e.do(func() { e.tokenEnds = time.Now().Add(time.Hour) })
			has(t, s, "k2")
		}
		e.do(func() { e.err = errAway })
		time.Sleep(90 * time.Minute)
		has(t, s, "k2")
		// It was not: the server says so when it is back, and there is another one.
		e.do(func() { e.err, e.theToken, e.tokenEnds = nil, "t2", time.Now().Add(time.Hour) })
		time.Sleep(longestRetry + time.Second)
		has(t, s, "k3")
		if n := e.readsNow(); n > 30 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestAReplacedLeaseIsGivenBackOnceItsRequestsHaveEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic = true
		s := source(t, e, nil)
		h, err := s.current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		replace := func(token string) {
			e.do(func() { e.theToken = token })
			time.Sleep(longestSleep + time.Second)
		}
		revoked := func(want ...string) {
			t.Helper()
			synctest.Wait()
			e.do(func() {
				if got := fmt.Sprint(e.revoked); got != fmt.Sprint(want) {
					t.Errorf("given back: %v, want %v", got, want)
				}
			})
		}
		replace("t2")
		revoked()
		s.free(h)
		revoked("lease-k2")
		replace("t3")
		revoked("lease-k2", "lease-k3")
		has(t, s, "k4") // and who has it is not known
		replace("t4")
		revoked("lease-k2", "lease-k3")
		s.Close()
		revoked("lease-k2", "lease-k3", "lease-k5")
	})
}

func TestCloseEndsALoginOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic = true
		s := source(t, e, func(o *Options) { o.Auth = AppRole("", "r", "") })
		has(t, s, "k2")
		s.Close()
		if e.out != 1 || len(e.revoked) > 0 {
			t.Errorf("%d times logged out, given back: %v", e.out, e.revoked)
		}
		if _, err := s.Key(t.Context()); !errors.Is(err, ErrNoKey) {
			t.Errorf("closed: %v", err)
		}
	})
}

// A machine that was suspended has a monotonic clock, and timers, that know nothing of
// it.
func TestAMachineThatWasSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMachine(), newEngine()
		s := source(t, e, func(o *Options) { o.Clock = m.clock })
		has(t, s, "k1")
		m.set(8 * time.Hour)
		e.rotate()
		has(t, s, "k2") // not the one of eight hours ago

		// The server is away: then what is at hand is used, and nobody waits long.
		m.set(8 * time.Hour)
		e.do(func() { e.hang, e.hung = make(chan struct{}), make(chan struct{}, 100) })
		began := time.Now()
		has(t, s, "k2")
		if d := time.Since(began); d > wakeWait {
			t.Errorf("it took %v", d)
		}
		close(e.hang)

		// A lease has ended meanwhile.
		e = newEngine()
		e.dynamic = true
		s = source(t, e, func(o *Options) { o.Clock = m.clock })
		has(t, s, "k2")
		m.set(8 * time.Hour)
		has(t, s, "k3")
	})
}

func TestAClockThatIsSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMachine(), newEngine()
		s := source(t, e, func(o *Options) { o.Clock = m.clock })
		has(t, s, "k1")
		m.set(-8 * time.Hour)
		e.rotate()
		time.Sleep(5 * time.Minute)
		has(t, s, "k2")

		e = newEngine()
		e.dynamic = true
		s = source(t, e, func(o *Options) { o.Clock = m.clock })
		has(t, s, "k2")
		m.set(-8 * time.Hour)
		e.do(func() { e.err = errAway })
		time.Sleep(time.Hour)
		if _, err := s.Key(t.Context()); !errors.Is(err, ErrNoKey) {
			t.Errorf("%v", err)
		}
	})
}

func TestRefusalsShareOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, nil)
		h, err := s.current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.free(h)
		// An answer is under way that was made before the key ended.
		e.do(func() { e.hang, e.hung = make(chan struct{}), make(chan struct{}, 100) })
		<-e.hung
		e.rotate()
		results := make(chan *held)
		for range 50 {
			go func() { results <- s.refused(t.Context(), h) }()
		}
		synctest.Wait()
		close(e.hang)
		for range 50 {
			next := <-results
			if next == nil || next.ID != "k2" {
				t.Fatalf("instead: %v", next)
			}
			s.free(next)
		}
		if n := e.readsNow(); n != 3 { // the first, the early one, one for all
			t.Errorf("%d reads", n)
		}
		// A key that is not at hand any more costs none.
		if next := s.refused(t.Context(), h); next == nil || next.ID != "k2" {
			t.Errorf("instead: %v", next)
		} else {
			s.free(next)
		}
		if n := e.readsNow(); n != 3 {
			t.Errorf("%d reads", n)
		}
	})
}

func TestAKeyThatIsRefusedThoughItIsTheCurrentOne(t *testing.T) {
	for _, dynamic := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			e.dynamic = dynamic
			s := source(t, e, nil)
			// Each request is refused, with whatever key.
			for range 10 * 60 * 10 {
				h, err := s.current(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if next := s.refused(t.Context(), h); next != nil {
					s.noteRefused(next)
					s.free(next)
				}
				s.free(h)
				time.Sleep(100 * time.Millisecond)
			}
			if n := e.readsNow(); n < 40 || n > 130 {
				t.Errorf("dynamic %v: %d reads in ten minutes of refusals", dynamic, n)
			}
		})
	}
}

func TestTheBackgroundAsksForAKeyInstead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, nil)
		h, err := s.current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.free(h)
		if next := s.refused(t.Context(), h); next != nil {
			t.Fatalf("instead: %v", next)
		}
		// Revoked without a replacement; after a minute somebody makes one.
		time.Sleep(time.Minute)
		e.rotate()
		time.Sleep(longestRefused)
		has(t, s, "k2")
		// Nobody doubts that one: it is read as its ttl says.
		n := e.readsNow()
		time.Sleep(4 * time.Minute)
		if e.readsNow() != n {
			t.Errorf("%d reads more", e.readsNow()-n)
		}
	})
}

func TestAnAnswerOfANodeThatLags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, nil)
		has(t, s, "k1")
		old := e.since
		time.Sleep(time.Minute)
		e.rotate()
		time.Sleep(5 * time.Minute)
		has(t, s, "k2")
		lag := func(key int, since time.Time) { e.do(func() { e.key, e.since = key, since }) }
		now := e.since
		lag(1, old)
		for n := e.readsNow(); e.readsNow() == n; {
			time.Sleep(time.Second)
		}
		time.Sleep(20 * time.Second)
		has(t, s, "k2")
		lag(2, now)
		time.Sleep(5 * time.Minute)
		has(t, s, "k2")
		// What stays so is believed: the storage may have been restored.
		lag(1, old)
		time.Sleep(6 * time.Minute)
		has(t, s, "k1")
	})
}

func TestUsesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, func(o *Options) { o.Label = "shop" })
		use := func() {
			t.Helper()
			h, err := s.current(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s.succeeded(h)
			s.free(h)
		}
		reports := func() (out []string) {
			synctest.Wait()
			e.do(func() { out = append(out, e.reports...) })
			return out
		}
		began := time.Now().UTC().Format(time.RFC3339Nano)
		use()
		if got := reports(); len(got) != 1 || got[0] != `1 [{"key_id":"k1","accepted":1,"first":"`+began+`","last":"`+began+`","client":"shop"}]` {
			t.Fatalf("at once: %v", got)
		}
		time.Sleep(time.Second)
		use()
		use()
		if got := reports(); len(got) != 1 {
			t.Errorf("the next use is no news: %v", got)
		}
		time.Sleep(reportEvery * 11 / 10)
		if got := reports(); len(got) != 2 || !strings.Contains(got[1], `2 [{"key_id":"k1","accepted":2,`) {
			t.Errorf("after a while: %v", got)
		}
		// Another key is news; what was not answered is repeated as it was.
		e.rotate()
		time.Sleep(5 * time.Minute)
		e.do(func() { e.err = errAway })
		use()
		if got := reports(); len(got) != 3 || !strings.Contains(got[2], `3 [{"key_id":"k2","accepted":1,`) {
			t.Errorf("another key: %v", got)
		}
		use()
		time.Sleep(2 * reportAgain)
		e.do(func() { e.err = nil })
		time.Sleep(2 * reportAgain)
		got := reports()
		last := got[len(got)-1]
		if got[3] != got[2] || !strings.HasPrefix(last, `4 [{"key_id":"k2","accepted":1,`) || got[len(got)-2] != got[2] {
			t.Errorf("repeated: %v", got)
		}
		use()
		s.Close()
		if got := reports(); !strings.HasPrefix(got[len(got)-1], "5 ") {
			t.Errorf("at the end: %v", got)
		}
	})
}

func TestOptionsThatAreRefused(t *testing.T) {
	ok := Options{Client: &api.Client{}, Mount: "apikeys", Role: "orders"}
	for want, change := range map[string]func(*Options){
		"Client and Mount are required":   func(o *Options) { o.Client = nil },
		"Mount are required":              func(o *Options) { o.Mount = "/" },
		`Role: "Orders" is not`:           func(o *Options) { o.Role = "Orders" },
		`Role: "a/../b" is not`:           func(o *Options) { o.Role = "a/../b" },
		`Role: "a..b" is not`:             func(o *Options) { o.Role = "a..b" },
		"Auth and TokenFile are both set": func(o *Options) { o.Auth, o.TokenFile = AppRole("", "r", ""), "x" },
		"TTL: 1ms":                        func(o *Options) { o.TTL = time.Millisecond },
		"token file":                      func(o *Options) { o.Client, _ = api.NewClient(nil); o.TokenFile = "there/is/none" },
	} {
		opt := ok
		change(&opt)
		if s, err := New(opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
			if s != nil {
				s.Close()
			}
		}
	}
}

func TestAKeyIsNotPrintedByMistake(t *testing.T) {
	k := Key{Value: "value-k1", ID: "k1", Role: "orders"}
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %v", k, k, &k), k.LogValue().String()} {
		if strings.Contains(text, "value") {
			t.Errorf("%s", text)
		}
	}
}

// gaps are the times between calls.
func gaps(calls []time.Time) (out []time.Duration) {
	for i := range len(calls) - 1 {
		out = append(out, calls[i+1].Sub(calls[i]))
	}
	return out
}

func TestPausesAfterFailures(t *testing.T) {
	for _, without := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			e.ttl = time.Second
			if without {
				e.err = errAway
			}
			source(t, e, nil)
			time.Sleep(time.Second)
			e.do(func() { e.err = errAway })
			time.Sleep(10 * time.Minute)
			var all []time.Duration
			e.do(func() { all = gaps(e.reads) })
			longest := longestRetry
			if without {
				longest = longestWithout
			}
			for i, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second} {
				if !without {
					i++
				}
				want = min(want, longest)
				if got := all[i]; got > want || got < want*3/4 {
					t.Errorf("without a key %v: pause %d is %v, want %v or a little less", without, i, got, want)
				}
			}
			if got := all[len(all)-1]; got > longest || got < longest*3/4 {
				t.Errorf("without a key %v: the last pause is %v", without, got)
			}
		})
	}
}

func TestWhenALeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic = true
		source(t, e, nil)
		time.Sleep(10 * time.Hour)
		e.do(func() {
			for _, d := range append(gaps(e.renewals), e.renewals[0].Sub(e.reads[0])) {
				if d < 36*time.Minute || d > 42*time.Minute {
					t.Errorf("a lease of an hour is renewed after %v", d)
				}
			}
			e.renewals = nil
			e.err = errAway
		})
		// Tried again ever more often, the closer the end is.
		time.Sleep(59 * time.Minute)
		e.do(func() {
			all := gaps(e.renewals)
			if len(all) < 20 || all[0] > longestRetry || all[len(all)-1] > longestRetry || all[len(all)-1] < time.Second {
				t.Errorf("pauses: %v", all)
			}
		})
	})
}

// What many consumers do is spread over time, and what one does can be repeated.
func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := map[time.Duration]bool{}
		for i := range 20 {
			e := newEngine()
			source(t, e, func(o *Options) { o.Instance = fmt.Sprint("c", i) })
			began := time.Now()
			time.Sleep(286 * time.Second)
			e.do(func() { first[e.reads[1].Sub(began)] = true })
		}
		if len(first) < 18 {
			t.Errorf("20 consumers read at %d times", len(first))
		}
	})
	a, b := newJitter("a", 1), newJitter("a", 1)
	if a.below(time.Hour) != b.below(time.Hour) || a.below(0) != 0 || a.below(-1) != 0 {
		t.Error("it does not follow from its name")
	}
}

func TestChangedTellsOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		s := source(t, e, nil)
		has(t, s, "k1")
		changed := s.Changed()
		time.Sleep(6 * time.Minute)
		select {
		case <-changed:
			t.Error("the same key is no change")
		default:
		}
		e.rotate()
		<-changed
		has(t, s, "k2")
		select {
		case <-s.Changed():
			t.Error("the next change is not told ahead")
		default:
		}
	})
}

// Whoever cannot look at its own token, or give a lease back, has a key all the same.
func TestAPolicyThatAllowsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.dynamic, e.tokenErr, e.keepErr = true, refusal(403, "permission denied"), refusal(403, "permission denied")
		s := source(t, e, nil)
		has(t, s, "k2")
		if end := s.Stats().Ends; time.Until(end) != time.Hour {
			t.Errorf("it ends in %v", time.Until(end))
		}
		h, err := s.current(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.free(h)
		e.do(func() { e.theToken = "t2" })
		time.Sleep(longestSleep + time.Second)
		has(t, s, "k3")
		s.Close()
	})
}

// A read or two that come late are no reason to make requests wait.
func TestALateReadKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := newMachine(), newEngine()
		s := source(t, e, func(o *Options) { o.Clock = m.clock })
		has(t, s, "k1")
		e.do(func() { e.hang, e.hung = make(chan struct{}), make(chan struct{}, 100) })
		m.set(255*time.Second + lateness - time.Second)
		began := time.Now()
		has(t, s, "k1")
		if d := time.Since(began); d > 0 {
			t.Errorf("it took %v", d)
		}
		close(e.hang)
	})
}
