// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// programs that know nothing of keys: each calls an address until a file is there, over
// connections that it keeps, and writes a line for each answer that is not the right one.
// What is sent is given back.
var keyless = []struct{ name, program, script string }{
	{"curl", "curl", ""},
	{"curl with HTTP/2", "curl", "--http2-prior-knowledge"},
	{"python3", "python3", `
import http.client, os, sys, urllib.request
host, path, stop = sys.argv[1:]
conn = http.client.HTTPConnection(host, timeout=60)
n = 0
while not os.path.exists(stop):
    n += 1
    body = "order %d " % n * (n % 50)
    conn.request("POST", path, body)
    resp = conn.getresponse()
    text = resp.read().decode()
    if resp.status != 200 or text != body:
        print("http.client:", resp.status, text[:200])
    with urllib.request.urlopen("http://" + host + path, timeout=60) as resp:
        if resp.status != 200 or resp.read() != b"":
            print("urllib:", resp.status)
`},
	{"node", "node", `
const fs = require("fs"), http = require("http");
const [host, path, stop] = process.argv.slice(1);
const agent = new http.Agent({keepAlive: true});
const post = body => new Promise((done, failed) => {
  const req = http.request("http://" + host + path, {method: "POST", agent}, resp => {
    let text = "";
    resp.on("data", part => text += part);
    resp.on("error", failed);
    resp.on("end", () => done([resp.statusCode, text]));
  });
  req.on("error", failed);
  req.end(body);
});
(async () => {
  for (let n = 0; !fs.existsSync(stop); n++) {
    const body = ("order " + n).repeat(n % 50);
    const [status, text] = await post(body);
    if (status !== 200 || text !== body) console.log("http:", status, text.slice(0, 200));
    const resp = await fetch("http://" + host + path, {method: "PUT", body});
    if (resp.status !== 200 || await resp.text() !== body) console.log("fetch:", resp.status);
  }
  agent.destroy();
})().catch(error => { console.log(String(error), String(error.cause)); process.exit(1); });
`},
}

// programsBehindProxy: programs in any language call an API under load, through a
// rotation and an emergency, and see nothing of either.
func programsBehindProxy(t *testing.T, e *env) {
	e.write("roles/orders", nil)
	one := e.creds("orders")
	api := newShop(t, e)

	out := &output{}
	proxy := launch(t, out, []string{"VAULT_ADDR=" + e.server.addresses(t)[0], "VAULT_TOKEN=" + e.server.root()}, programs.apikeys,
		"proxy", "-mount", e.mount, "-role", "orders", "-listen", "127.0.0.1:0", "-upstream", api.URL, "-header", "X-API-Key", "-admin", "127.0.0.1:0", "-upstream-ca-cert", api.ca)
	var at map[string]string
	eventually(t, "the proxy listens", func() error {
		if err := proxy.running(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if at = listeners(out.String()); at["proxy"] == "" || at["admin"] == "" {
			return errNotYet
		}
		return nil
	})
	eventually(t, "the proxy is ready", func() error {
		text, err := exec.Command(programs.apikeys, "health", "http://"+at["admin"]+"/readyz").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return err
	})

	stop := filepath.Join(t.TempDir(), "stop")
	var running []string
	var done sync.WaitGroup
	var ended atomic.Bool
	for i, p := range keyless {
		path, err := exec.LookPath(p.program)
		if err != nil {
			// The whole of it is asked for where a real server is given.
			text := fmt.Sprintf("%s: not found: nobody sees whether it gets on with the proxy (Debian: apt install curl python3 nodejs)", p.program)
			if programs.real != "" {
				t.Error(text)
			}
			fmt.Fprintln(os.Stderr, text)
			continue
		}
		running = append(running, p.name)
		target := fmt.Sprint("/", i)
		done.Go(func() {
			said, err := runKeyless(path, p.script, at["proxy"], target, stop)
			if err != nil || said != "" {
				t.Errorf("%s: %v\n%s", p.name, err, said)
			}
			if !ended.Load() {
				t.Errorf("%s ended", p.name)
			}
		})
	}
	finish := sync.OnceFunc(func() {
		ended.Store(true)
		if err := os.WriteFile(stop, nil, 0o600); err != nil {
			t.Error(err)
		}
		done.Wait()
	})
	t.Cleanup(finish)
	if len(running) == 0 {
		return
	}
	// progress waits until each program was answered some more.
	progress := func(what string) {
		before := api.counts()
		eventually(t, what, func() error {
			now := api.counts()
			for i, p := range keyless {
				if target := fmt.Sprint("/", i); api.asked(target) && now[target] < before[target]+25 || len(now) < len(running) {
					return fmt.Errorf("%s: %v after %v", p.name, now, before)
				}
			}
			return nil
		})
	}
	progress("requests with the first key")

	// Planned: the old key is good for a while.
	e.write("rotate/orders", data{"grace_period": "1h"})
	two := e.creds("orders")
	progress("requests through a rotation")

	// The proxy has not heard of the second version, or has; now both end, at once.
	e.write("revoke/orders", data{"all": true, "reason": "leaked"})
	three := e.creds("orders")
	for _, k := range []key{one, two} {
		e.judged(k, "REVOKED revoked")
	}
	eventually(t, "the API hears of it", func() error {
		if got, err := api.edge.Verify(context.Background(), edge.Request{Key: one.secret}); err != nil || got.Valid {
			return fmt.Errorf("%+v, %w", got, err)
		}
		return nil
	})
	progress("requests through an emergency")
	if got := api.last.Load(); got != three.id {
		t.Errorf("the last key was %v, want %s", got, three.id)
	}
	finish()

	if refused := api.refused.Load(); refused == 0 {
		t.Error("the API refused nothing: the emergency was no test")
	}
	numbers := metricsAt(t, at["admin"])
	if numbers["apikeys_proxy_retries_total"] == "0" || numbers[`apikeys_proxy_requests_total{code="4xx"}`] != "" || numbers[`apikeys_proxy_requests_total{code="5xx"}`] != "" {
		t.Errorf("%v", numbers)
	}
	t.Logf("%v: %v answered, %d refused and made again", running, api.counts(), api.refused.Load())

	if err := proxy.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-proxy.exited
	if proxy.err != nil {
		t.Errorf("the proxy ended: %v\n%s", proxy.err, out)
	}
	for _, k := range []key{one, two, three} {
		if strings.Contains(out.String(), k.secret) {
			t.Error("the proxy's log holds a key")
		}
	}
}

// runKeyless runs a program until the file is there.
func runKeyless(path, script, host, target, stop string) (said string, err error) {
	name := filepath.Base(path)
	if name != "curl" {
		out, err := exec.Command(path, map[string]string{"python3": "-c", "node": "-e"}[name], script, host, target, stop).CombinedOutput()
		return string(out), err
	}
	// Each request has a body, and its status is told.
	for {
		if _, err := os.Stat(stop); err == nil {
			return said, nil
		}
		// Some versions of curl cannot use a connection twice where HTTP/2 is known to be spoken.
		many := 20
		if script != "" {
			many = 1
		}
		args := []string{"-sS", "-X", "POST", "--data-binary", "an order", "-w", "%{http_code}\n", fmt.Sprintf("http://%s%s?n=[1-%d]", host, target, many)}
		if script != "" {
			args = append(args, script)
		}
		var out, errs strings.Builder
		cmd := exec.Command(path, args...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		if want := strings.Repeat("an order200\n", many); err != nil || out.String() != want {
			return fmt.Sprintf("%s%s%.500s", said, errs.String(), out.String()), errors.Join(err, errors.New("curl was answered something else"))
		}
	}
}

// shop is an API whose edge verifies keys, as an API of ours would.
type shop struct {
	*httptest.Server
	t       *testing.T
	edge    *edge.Verifier
	ca      string // a file with its certificate
	refused atomic.Int64
	last    atomic.Value // the id of the key that was accepted last

	mu       sync.Mutex
	answered map[string]int
}

func newShop(t *testing.T, e *env) *shop {
	t.Helper()
	s := &shop{t: t, answered: map[string]int{}, ca: filepath.Join(t.TempDir(), "ca.pem")}
	var err error
	if s.edge, err = edge.New(edge.Options{Client: e.client, Mount: e.mount}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.edge.Close() })
	s.Server = httptest.NewUnstartedServer(s)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// ServeHTTP gives back what was sent, to who has a good key.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	got, err := s.edge.Verify(r.Context(), edge.Request{Key: r.Header.Get("X-API-Key")})
	switch {
	case err != nil:
		s.t.Errorf("nobody judges: %v", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case !got.Valid:
		s.refused.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.last.Store(got.KeyID)
	s.mu.Lock()
	s.answered[r.URL.Path]++
	s.mu.Unlock()
	_, _ = w.Write(body)
}

func (s *shop) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := map[string]int{}
	for target, n := range s.answered {
		counts[target] = n
	}
	return counts
}

func (s *shop) asked(target string) bool { return s.counts()[target] > 0 }

// listeners are the addresses that a program's log tells.
func listeners(log string) map[string]string {
	at := map[string]string{}
	for line := range strings.Lines(log) {
		var entry struct{ Msg, Kind, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			at[entry.Kind] = entry.Address
		}
	}
	return at
}

// metricsAt are the lines of a program's metrics.
func metricsAt(t *testing.T, addr string) map[string]string {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "apikeys_") {
			lines[name] = value
		}
	}
	return lines
}
