// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLife has a client of each gateway present keys without a pause through rotation,
// rollback, revocation, restarts of the edges and a minute without Vault. No good key
// may be refused, no ended one accepted.
func TestLife(t *testing.T) {
	t.Parallel()
	e := startEngine(t)
	gateways := startAll(t, e)
	// Edges whose clock is wrong, as far as they can tell from the server's.
	for name, by := range map[string]time.Duration{"clock 120 s late": 2 * time.Minute, "clock 120 s early": -2 * time.Minute} {
		gateways = append(gateways, startOne(t, e, kind{name, "traefik", standInTraefik}, newShift(t, e.addr, by)))
	}
	for _, g := range gateways {
		g.edge.live()
	}
	e.write("apikeys/roles/orders", data{"scopes": []string{"orders:read"}})
	e.write("apikeys/roles/hand", data{"scopes": []string{"orders:read"}})
	l := startLoad(t, gateways)
	first := l.hold("the first key", e.creds("orders"))
	byHand := l.hold("the key of the role that is rotated by hand", e.creds("hand"))
	l.accepted(20*time.Second, gateways, first, byHand)

	// Rotation: the previous version goes on to its end, and its holder hears of it.
	first.endsAt(endsOf(t, e.write("apikeys/rotate/orders", data{"grace_period": "8s"})))
	second := l.hold("the second key", e.creds("orders"))
	l.accepted(10*time.Second, gateways, first, second)
	for _, g := range gateways {
		g.hears(t, first.secret)
	}
	until(t, first)
	l.drop(first)

	// Rollback: the second version is current again, the third has a grace.
	second.endsAt(endsOf(t, e.write("apikeys/rotate/orders", data{"grace_period": "1m"})))
	third := l.hold("the third key", e.creds("orders"))
	l.accepted(10*time.Second, gateways, second, third)
	begun := time.Now()
	second.ends(time.Time{}, time.Time{})
	e.write("apikeys/rollback/orders", data{"grace_period": "4s"})
	third.ends(begun.Add(4*time.Second-slack/3), time.Now().Add(4*time.Second+slack))
	until(t, third)
	l.drop(third)
	l.accepted(10*time.Second, gateways, second)

	// Revocation.
	fourth := e.revoke(t, l, second, "orders")
	l.accepted(10*time.Second, gateways, fourth)

	// A role that rotates by itself: its grace will end while Vault is away.
	e.write("apikeys/roles/auto", data{"scopes": []string{"orders:read"}, "rotation_period": "60s", "grace_period": "20s"})
	made := time.Now()
	auto := l.hold("the key of the role that rotates by itself", e.creds("auto"))
	l.accepted(10*time.Second, gateways, auto)

	// Edges begin anew, with and without what they held.
	restart(l, gateways, false)
	l.accepted(10*time.Second, gateways, fourth, auto, byHand)
	restart(l, gateways, true)
	l.accepted(10*time.Second, gateways, fourth, auto, byHand)

	// A minute without Vault.
	eventually(t, time.Minute, "the next version is staged", func() error {
		if time.Since(made) < 45*time.Second {
			return errNotYet
		}
		return nil
	})
	end, hold := e.lastEnd(t, auto.secret)
	byHand.endsAt(endsOf(t, e.write("apikeys/rotate/hand", data{"grace_period": "20s"})))
	next := l.hold("the next key by hand", e.creds("hand"))
	l.accepted(5*time.Second, gateways, fourth, auto, byHand, next)
	// An end that an edge has not heard of does not count while Vault is away: the grace
	// of a rotation is no reason to refuse anybody.
	for _, g := range gateways {
		g.hears(t, byHand.secret)
	}
	// Nobody can fetch the next key, so the end of an automatic rotation is held back.
	auto.ends(hold.Add(-slack/3), hold.Add(slack))
	e.process.stop()
	stopped := time.Now()
	if !end.After(stopped.Add(10*time.Second)) || hold.After(stopped.Add(58*time.Second)) {
		t.Fatalf("stopped at %v, but the end is at %v, held back until %v: this machine is too slow for the plan", stopped, end, hold)
	}
	// What an edge holds outlives it, Vault or not.
	restart(l, gateways, false)
	l.accepted(10*time.Second, gateways, fourth, auto, next)
	until(t, byHand)
	l.drop(byHand)
	// Some have lost all: they cannot know, and say that.
	lost := []*gateway{gateways[0], gateways[len(gateways)-1]}
	for _, g := range lost {
		l.excuse(g, true)
		g.edge.process.kill()
		g.edge.forget()
		g.edge.start()
	}
	until(t, auto)
	l.drop(auto)
	eventually(t, time.Minute, "a minute without Vault", func() error {
		if time.Since(stopped) < time.Minute {
			return errNotYet
		}
		return nil
	})
	e.start()
	for _, g := range gateways {
		g.edge.live()
	}
	l.accepted(10*time.Second, gateways, fourth, next)
	for _, g := range lost {
		l.excuse(g, false)
	}

	// Decisions arrive again.
	last := e.revoke(t, l, fourth, "orders")
	l.accepted(10*time.Second, gateways, last, next)
	l.end()
	l.report()
}

// errNotYet is why a wait goes on.
var errNotYet = io.ErrNoProgress

// revoke ends a key, whose successor the clients hold then, and waits for the bound.
func (e *engine) revoke(t *testing.T, l *load, p *promise, role string) *promise {
	return e.revokeWithin(t, l, p, role, bound)
}

func (e *engine) revokeWithin(t *testing.T, l *load, p *promise, role string, bound time.Duration) *promise {
	t.Helper()
	begun := time.Now()
	p.ends(begun, time.Time{})
	e.write("apikeys/revoke/"+role, data{"key_id": e.creds(role).id})
	decided := time.Now()
	p.ends(begun, decided.Add(bound+slack))
	next := l.holdAs(&promise{name: p.next(), unsure: p.unsure}, e.creds(role))
	until(t, p)
	l.lateness(p, decided)
	l.drop(p)
	return next
}

// next is the name of the key that comes after.
func (p *promise) next() string {
	if name, n, counted := strings.Cut(p.name, " +"); counted {
		if i, err := strconv.Atoi(n); err == nil {
			return name + " +" + strconv.Itoa(i+1)
		}
	}
	return p.name + " +1"
}

// until waits until a key's end is past, and has been put to the test.
func until(t *testing.T, p *promise) {
	t.Helper()
	eventually(t, 2*time.Minute, "the end of "+p.name, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if time.Now().Before(p.mustEnd.Add(2 * time.Second)) {
			return errNotYet
		}
		return nil
	})
}

// restart ends all edges and starts them; forget: without what they held.
func restart(l *load, gateways []*gateway, forget bool) {
	var wg sync.WaitGroup
	for _, g := range gateways {
		l.excuse(g, true)
		wg.Go(func() {
			g.edge.process.stop()
			if forget {
				g.edge.forget()
			}
		})
	}
	wg.Wait()
	for _, g := range gateways {
		g.edge.start()
	}
	for _, g := range gateways {
		l.settle(g)
		l.excuse(g, false)
	}
}

// settle waits until the gateway finds its edge again.
func (l *load) settle(g *gateway) {
	y := l.tallies[g]
	since := time.Now()
	eventually(l.t, 20*time.Second, g.name+" finds its edge again", func() error {
		y.mu.Lock()
		defer y.mu.Unlock()
		for _, at := range y.last {
			if at.After(since) {
				return nil
			}
		}
		return errNotYet
	})
}

// hears holds that a client learns that its key is the previous one, and the API too.
func (g *gateway) hears(t *testing.T, secret string) {
	t.Helper()
	eventually(t, 5*time.Second, g.name, func() error {
		r := do(t, g, "GET", "/orders/7", http.Header{"X-Api-Key": {secret}})
		if r.status != http.StatusOK || r.seen.Header.Get("X-Apikey-State") != "previous" {
			return errNotYet
		}
		ends, err := time.Parse(time.RFC3339, r.seen.Header.Get("X-Apikey-Ends"))
		if err != nil {
			t.Errorf("%s: the API hears of no end: %v", g.name, err)
		}
		if told := r.header.Get("X-Apikey-Ends"); g.tells && told != r.seen.Header.Get("X-Apikey-Ends") || !g.tells && told != "" {
			t.Errorf("%s: the client hears of %q, the end is at %v", g.name, told, ends)
		}
		return nil
	})
}

// lastEnd is when a key ends by its timeline, and how long that may be held back.
func (e *engine) lastEnd(t *testing.T, secret string) (end, hold time.Time) {
	t.Helper()
	d := e.write("apikeys/verify", data{"key": secret, "timeline": 1})
	for _, entry := range d["timeline"].([]any) {
		entry := entry.(data)
		if entry["code"] == "VALID" {
			continue
		}
		var err, herr error
		end, err = time.Parse(time.RFC3339, entry["from"].(string))
		hold, herr = time.Parse(time.RFC3339, entry["hold_until"].(string))
		if err != nil || herr != nil {
			t.Fatalf("timeline %v", d["timeline"])
		}
	}
	return end, hold
}

// newShift is a way to the server on which every time is later than it is, or earlier:
// to who asks through it, its own clock is off by as much.
func newShift(t *testing.T, server string, by time.Duration) string {
	to := &url.URL{Scheme: "http", Host: server}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			raw, err := io.ReadAll(r.In.Body)
			if err != nil {
				return
			}
			raw = shifted(raw, -by)
			r.Out.Body, r.Out.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
		},
		ModifyResponse: func(r *http.Response) error {
			raw, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			raw = shifted(raw, by)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
			r.Header.Set("Content-Length", strconv.Itoa(len(raw)))
			r.Header.Del("Date")
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

var instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

func shifted(raw []byte, by time.Duration) []byte {
	return instant.ReplaceAllFunc(raw, func(old []byte) []byte {
		at, err := time.Parse(time.RFC3339Nano, string(old))
		if err != nil || strings.HasPrefix(string(old), "0001") {
			return old
		}
		return []byte(at.Add(by).UTC().Format(time.RFC3339Nano))
	})
}
