// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

const (
	// every is how often a client of each gateway asks.
	every = 50 * time.Millisecond
	// bound is how late a decision may count, by the book.
	bound = time.Second
	// window is that while an edge may not have noticed that its feed is gone.
	window = 7 * time.Second
	// slack is for busy machines: between an answer and when it is noted here, and for
	// clocks that are compared over a connection.
	slack = 750 * time.Millisecond
)

// promise is what must be true about a key, by this machine's clock.
type promise struct {
	name, secret string

	mu sync.Mutex
	// Until mayEnd it must be accepted; after mustEnd it must not. Zero: never.
	mayEnd, mustEnd time.Time
	// asked is since when the load has it.
	asked time.Time
	// unsure: something was decided about its role while nobody could be asked. Then the
	// answer may be that, and is no refusal.
	unsure bool
}

func (p *promise) isUnsure(is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsure = is
}

func (p *promise) ends(may, must time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mayEnd, p.mustEnd = may, must
}

// endsAt: an end by date, which is told in whole seconds, and may be a fraction later.
func (p *promise) endsAt(at time.Time) { p.ends(at.Add(-slack/3), at.Add(time.Second+slack)) }

// judge complains about an answer that was asked for at begun and came at ended.
func (p *promise) judge(status int, begun, ended time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status == http.StatusOK:
		if !p.mustEnd.IsZero() && begun.After(p.mustEnd) {
			return fmt.Errorf("WRONG ACCEPTANCE of %s, %v late", p.name, begun.Sub(p.mustEnd))
		}
	case status == http.StatusUnauthorized:
		if p.mayEnd.IsZero() || ended.Before(p.mayEnd) {
			return fmt.Errorf("WRONG REFUSAL of %s", p.name)
		}
	default:
		return fmt.Errorf("%d for %s", status, p.name)
	}
	return nil
}

// unavailable are answers that are no refusals.
func unavailable(status int) bool {
	return status == http.StatusServiceUnavailable || status == http.StatusInternalServerError || status == http.StatusBadGateway
}

// load is the clients of all gateways. Every client holds all keys.
type load struct {
	t        *testing.T
	mu       sync.Mutex
	promises []*promise
	tallies  map[*gateway]*tally
	stop     context.CancelFunc
	done     sync.WaitGroup
}

// tally is what the client of a gateway got.
type tally struct {
	mu                             sync.Mutex
	accepted, refused, away, wrong int
	// excused: the edge may be away, or not know.
	excused bool
	// last is when the last accepted request with a key began; seen how often.
	last map[*promise]time.Time
	seen map[*promise]int
}

func startLoad(t *testing.T, gateways []*gateway) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, tallies: map[*gateway]*tally{}, stop: cancel}
	for _, g := range gateways {
		tally := &tally{last: map[*promise]time.Time{}, seen: map[*promise]int{}}
		l.tallies[g] = tally
		l.done.Go(func() { l.ask(ctx, g, tally) })
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// hold gives every client a key.
func (l *load) hold(name string, k apikey) *promise {
	return l.holdAs(&promise{name: name}, k)
}

func (l *load) holdAs(p *promise, k apikey) *promise {
	p.secret, p.asked = k.secret, time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promises = append(l.promises[:len(l.promises):len(l.promises)], p)
	return p
}

// drop takes a key from them.
func (l *load) drop(p *promise) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var left []*promise
	for _, other := range l.promises {
		if other != p {
			left = append(left, other)
		}
	}
	l.promises = left
}

func (l *load) held() []*promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.promises
}

func (l *load) ask(ctx context.Context, g *gateway, tally *tally) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		held := l.held()
		if len(held) == 0 {
			continue
		}
		p := held[n%len(held)]
		begun := time.Now()
		status, err := present(client, g, p.secret, n%3 == 0)
		ended := time.Now()
		if err != nil {
			l.t.Errorf("%s: %v", g.name, err)
			continue
		}
		tally.count(l.t, g, p, status, begun, ended)
	}
}

// present asks a gateway with a key.
func present(client *http.Client, g *gateway, secret string, bearer bool) (int, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+g.addr+"/orders/7?page=2", nil)
	if err != nil {
		return 0, err
	}
	if bearer {
		req.Header.Set("Authorization", "Bearer "+secret)
	} else {
		req.Header.Set("X-API-Key", secret)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (y *tally) count(t *testing.T, g *gateway, p *promise, status int, begun, ended time.Time) {
	y.mu.Lock()
	defer y.mu.Unlock()
	switch {
	case unavailable(status):
		y.away++
		p.mu.Lock()
		unsure := p.unsure && status == http.StatusServiceUnavailable
		p.mu.Unlock()
		if !y.excused && !unsure {
			y.complain(t, fmt.Errorf("%s at %s: %d for %s, though nothing was away", g.name, begun.Format(clock), status, p.name))
		}
		return
	case status == http.StatusOK:
		y.accepted++
		y.last[p] = begun
		y.seen[p]++
	default:
		y.refused++
	}
	if err := p.judge(status, begun, ended); err != nil {
		y.complain(t, fmt.Errorf("%s at %s: %w", g.name, begun.Format(clock), err))
	}
}

// clock is how instants are told.
const clock = "15:04:05.000"

// complain tells the first wrong answers, and counts all.
func (y *tally) complain(t *testing.T, err error) {
	const enough = 5
	if y.wrong++; y.wrong <= enough {
		t.Error(err)
	}
}

// excuse lets a gateway's edge be away, from now on or no more. What is in flight may
// still tell of it.
func (l *load) excuse(g *gateway, away bool) {
	y := l.tallies[g]
	y.mu.Lock()
	defer y.mu.Unlock()
	y.excused = away
}

// accepted waits until every client has presented each key that it holds, from now on,
// and was let through.
func (l *load) accepted(limit time.Duration, gateways []*gateway, promises ...*promise) {
	l.t.Helper()
	since := time.Now()
	for _, g := range gateways {
		y := l.tallies[g]
		for _, p := range promises {
			eventually(l.t, limit, g.name+" accepts "+p.name, func() error {
				y.mu.Lock()
				defer y.mu.Unlock()
				if !y.last[p].After(since) {
					return fmt.Errorf("last accepted at %s", y.last[p].Format(clock))
				}
				return nil
			})
		}
	}
}

// lateness tells how long after a decision each gateway let a key through.
func (l *load) lateness(p *promise, decided time.Time) {
	for g, y := range l.tallies {
		y.mu.Lock()
		l.t.Logf("%s: last accepted %v after it was decided about %s; %d times at all", g.name, y.last[p].Sub(decided).Round(time.Millisecond), p.name, y.seen[p])
		y.mu.Unlock()
	}
}

// report says what the clients got, and holds that the API was spared.
func (l *load) report() {
	for g, y := range l.tallies {
		y.mu.Lock()
		l.t.Logf("%s: %d accepted, %d refused, %d times the edge or Vault was away, %d wrong, %d connections to the edge", g.name, y.accepted, y.refused, y.away, y.wrong, g.line.accepted.Load())
		if y.accepted < 200 || y.refused < 20 {
			l.t.Errorf("%s: the load was too small to show anything", g.name)
		}
		y.mu.Unlock()
		if n := g.api.keys.Load(); n > 0 {
			l.t.Errorf("%s: the API has seen %d keys", g.name, n)
		}
		if n := g.api.nobodies.Load(); n > 0 {
			l.t.Errorf("%s: the API was not told of whom %d requests are", g.name, n)
		}
	}
}
