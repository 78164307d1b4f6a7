// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// TestMonitoringTools has the tools of Prometheus and Alertmanager look at their files, and run the unit tests of the
// alerts. Without them it looks at nothing: make monitoring names them, or says how to get them.
func TestMonitoringTools(t *testing.T) {
	if programs.promtool == "" {
		return
	}
	dir := t.TempDir()
	copyFiles(t, dashboards, dir, strings.NewReplacer())
	put(t, filepath.Join(dir, "token"), "no token")
	for _, args := range [][]string{
		{programs.promtool, "check", "config", "prometheus.yml"},
		{programs.promtool, "check", "rules", "--lint-fatal", "alerts.yml"},
		{programs.promtool, "test", "rules", "alerts_test.yml"},
		{programs.amtool, "check-config", "alertmanager.yml"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}

// prometheus is a real one, with the configuration of bootstrap/dashboards.
type prometheus struct {
	t    *testing.T
	addr string
}

// startPrometheus scrapes each second what world runs.
func startPrometheus(t *testing.T, e *env, edge string, proxies ...string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	copyFiles(t, dashboards, dir, strings.NewReplacer())
	if e.server.can(isReal) {
		e.agentKeepsToken(t, dir)
	} else {
		put(t, filepath.Join(dir, "token"), e.tokenFor(t, e.policy(t, scraper)).Token())
	}
	var nodes []string
	for _, addr := range e.server.addresses(t) {
		nodes = append(nodes, strings.TrimPrefix(addr, "http://"))
	}
	config := readFile(t, filepath.Join(dir, "prometheus.yml"))
	for old, now := range map[string]string{
		"scrape_interval: 30s": "scrape_interval: 1s", "evaluation_interval: 30s": "evaluation_interval: 1s", "/v1/apikeys/metrics": "/v1/" + e.path("metrics"),
		`["127.0.0.1:8200"]`: inJSON(t, nodes), `["127.0.0.1:9091"]`: inJSON(t, []string{edge}), `["127.0.0.1:9001"]`: inJSON(t, proxies),
	} {
		if strings.Count(config, old) != 1 {
			t.Fatalf("prometheus.yml has %q %d times", old, strings.Count(config, old))
		}
		config = strings.Replace(config, old, now, 1)
	}
	put(t, filepath.Join(dir, "prometheus.yml"), config)
	p := &prometheus{t, freeAddress(t)}
	out := &output{}
	process := launchIn(t, dir, out, nil, programs.prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address="+p.addr, "--log.level=warn")
	eventually(t, "all targets are scraped", func() error {
		var targets struct {
			ActiveTargets []struct{ ScrapeURL, Health, LastError string }
		}
		if err := process.running(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := p.ask("targets", nil, &targets); err != nil {
			return err
		}
		if n := len(targets.ActiveTargets); n != len(nodes)+1+len(proxies) {
			return fmt.Errorf("%d targets", n)
		}
		for _, a := range targets.ActiveTargets {
			if a.Health != "up" {
				return fmt.Errorf("%+v", a)
			}
		}
		return nil
	})
	return p
}

// agentKeepsToken has a real agent log in with agent.hcl and write the file that prometheus.yml names.
func (e *env) agentKeepsToken(t *testing.T, dir string) {
	t.Helper()
	// Other tests have an approle of their own.
	const method = "approle-of-prometheus"
	if err := e.client.Sys().EnableAuthWithOptions(method, &api.EnableAuthOptions{Type: "approle"}); err != nil {
		t.Fatal(err)
	}
	policy := strings.ReplaceAll(e.mount, "/", "-")
	if err := e.client.Sys().PutPolicy(policy, e.policy(t, scraper)); err != nil {
		t.Fatal(err)
	}
	auth := func(path string, d data) data {
		t.Helper()
		s, err := e.client.Logical().Write("auth/"+method+"/role/prometheus"+path, d)
		if err != nil {
			t.Fatal(err)
		}
		if s == nil {
			return nil
		}
		return s.Data
	}
	auth("", data{"token_policies": policy, "token_period": "1h"})
	id, err := e.client.Logical().Read("auth/" + method + "/role/prometheus/role-id")
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "role-id"), text(id.Data, "role_id"))
	put(t, filepath.Join(dir, "secret-id"), text(auth("/secret-id", nil), "secret_id"))
	config := readFile(t, filepath.Join(dir, "agent.hcl"))
	for old, now := range map[string]string{"http://127.0.0.1:8200": e.client.Address(), `method "approle" {`: `method "approle" {` + "\n    mount_path = \"auth/" + method + `"`} {
		if !strings.Contains(config, old) {
			t.Fatalf("agent.hcl lacks %s", old)
		}
		config = strings.Replace(config, old, now, 1)
	}
	put(t, filepath.Join(dir, "agent.hcl"), config)
	out := &output{}
	launchIn(t, dir, out, []string{"HOME=" + dir}, programs.real, "agent", "-config=agent.hcl")
	file := filepath.Join(dir, "token")
	eventually(t, "the agent writes a token", func() error {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			return errors.New(tail(out.String()))
		}
		return nil
	})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	self, err := e.clientFor(e.client.Address(), readFile(t, file)).Auth().Token().LookupSelf()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %v", self.Data["period"], self.Data["policies"]); got != "3600 [default "+strings.ToLower(policy)+"]" {
		t.Errorf("the token has period and policies %s", got)
	}
}

// ask asks Prometheus' API.
func (p *prometheus) ask(what string, query url.Values, into any) error {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+p.addr+"/api/v1/"+what+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" || len(answer.Warnings) > 0 {
		return fmt.Errorf("%s: %s %v: %w: %.300s", query, answer.Error, answer.Warnings, err, body)
	}
	return json.Unmarshal(answer.Data, into)
}

// sample is a value at a time, as Prometheus writes it.
type sample struct {
	at    float64
	value float64
}

func (s *sample) UnmarshalJSON(raw []byte) error {
	var parts [2]any
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	at, timed := parts[0].(float64)
	text, valued := parts[1].(string)
	if !timed || !valued {
		return fmt.Errorf("a sample %s", raw)
	}
	value, err := strconv.ParseFloat(text, 64)
	*s = sample{at, value}
	return err
}

// series is what comes of a query: one value or several.
type series struct {
	Metric map[string]string
	Value  sample
	Values []sample
}

// shown are the series of a query now that have a number.
func (p *prometheus) shown(expr string) ([]series, error) {
	var d struct{ Result []series }
	err := p.ask("query", url.Values{"query": {expr}}, &d)
	return slices.DeleteFunc(d.Result, func(s series) bool { return math.IsNaN(s.Value.value) }), err
}

// asked is a query of the dashboard with all variables in place.
func asked(expr, interval string) string {
	return strings.NewReplacer("$engine", ".*", "$__rate_interval", interval, "$__range", "10m").Replace(expr)
}

// prometheusScrapes: on a stage with rotations, old keys in use, a leak, endpoints good and bad, an edge and proxies,
// a real Prometheus scrapes all of it; then each query of the dashboard has an answer, and the alerts that are due are
// there, and no other.
func prometheusScrapes(t *testing.T, e *env) {
	w := newWorld(t, e)
	p := startPrometheus(t, e, w.edge, w.proxies...)
	w.play()
	d := grafana(t)
	began := time.Now()
	within(t, 4*time.Minute, "each query of the dashboard has an answer", func() error {
		var empty []error
		for _, panel := range d.Panels {
			for _, q := range panel.Targets {
				found, err := p.shown(asked(q.Expr, "5m"))
				if err == nil && len(found) == 0 {
					err = errNotYet
				}
				if err != nil {
					empty = append(empty, fmt.Errorf("%s: %s: %w", panel.Title, q.Expr, err))
				}
			}
		}
		return errors.Join(empty...)
	})
	t.Logf("%v until each query had an answer", time.Since(began))
	p.meetsContract(t, e)
	p.alerts(t)
	if os.Getenv(picturesVariable) != "" && !e.server.can(isReal) && !e.server.can(stepsDown) {
		w.goesOn(t)
		p.picture(t, d, began)
	}
}

// meetsContract: what is scraped is what docs/metrics.md has, and no label has a key or the id of one.
func (p *prometheus) meetsContract(t *testing.T, e *env) {
	t.Helper()
	var names []string
	if err := p.ask("label/__name__/values", nil, &names); err != nil {
		t.Fatal(err)
	}
	scraped := map[string]bool{}
	for _, name := range names {
		scraped[name] = strings.HasPrefix(name, "apikeys_")
	}
	for name, kind := range documentedMetrics(t) {
		if kind == "histogram" {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				if !scraped[name+part] {
					t.Errorf("%s%s is documented, and not there", name, part)
				}
				delete(scraped, name+part)
			}
			continue
		}
		if !scraped[name] {
			t.Errorf("%s is documented, and not there", name)
		}
		delete(scraped, name)
	}
	for name, ours := range scraped {
		if ours {
			t.Errorf("%s is there, and not documented", name)
		}
	}
	var all json.RawMessage
	if err := p.ask("series", url.Values{"match[]": {`{__name__=~"apikeys_.*"}`}}, &all); err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for secret := range e.keys {
		if _, id, _ := strings.Cut(secret, "_"); strings.Contains(string(all), secret) || strings.Contains(string(all), id[:12]) {
			t.Errorf("a label has a key or its id: %s…", secret[:15])
		}
	}
	// Each node tells its own numbers, and one of them writes.
	nodes := float64(len(e.server.addresses(t)))
	for expr, want := range map[string]float64{
		"count(count by (process) (apikeys_instance_info))": nodes, "sum(apikeys_writer)": 1, "count(apikeys_problems_listed)": 1,
	} {
		if got, err := p.shown(expr); err != nil || len(got) != 1 || got[0].Value.value != want {
			t.Errorf("%s: %+v, %v, want %v", expr, got, err, want)
		}
	}
}

// alerts: all rules work, all that they look at is there, and of the alerts those are active that the stage gives
// reason for.
func (p *prometheus) alerts(t *testing.T) {
	t.Helper()
	for _, r := range alertRules(t) {
		for _, name := range metricName.FindAllString(r.expr, -1) {
			if got, err := p.shown("count(" + name + ")"); err != nil || len(got) == 0 {
				t.Errorf("%s looks at %s, which is not there: %v", r.name, name, err)
			}
		}
	}
	type active struct {
		State  string
		Labels map[string]string
	}
	// With the code where it is about keys, and the job where it is about an edge.
	due := []string{
		"ApikeysEndedKeyUsed firing REVOKED", "ApikeysEndedKeyUsed firing REVOKED edge", "ApikeysEndedKeyUsed firing RETIRED", "ApikeysKeyReported firing",
		"ApikeysEndpointFailing pending", "ApikeysRotationRefusals pending",
	}
	// What may come of the same things, or not.
	may := []string{"ApikeysEndedKeyUsed firing RETIRED edge", "ApikeysPreviousInUse firing"}
	within(t, time.Minute, "the alerts", func() error {
		var d struct {
			Groups []struct {
				Rules []struct {
					Name, Health, LastError, State string
					Alerts                         []active
				}
			}
		}
		if err := p.ask("rules", nil, &d); err != nil {
			return err
		}
		rules := 0
		found := map[string]bool{}
		for _, g := range d.Groups {
			for _, r := range g.Rules {
				rules++
				if r.Health != "ok" {
					return fmt.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				}
				for _, a := range r.Alerts {
					text := r.Name + " " + a.State
					if code := a.Labels["code"]; code != "" {
						text += " " + code
						if a.Labels["instance"] != "" {
							text += " edge"
						}
					}
					found[text] = true
				}
			}
		}
		if want := len(alertRules(t)); rules != want {
			return fmt.Errorf("%d rules, want %d", rules, want)
		}
		for _, text := range may {
			delete(found, text)
		}
		if got := slices.Sorted(maps.Keys(found)); !sameSet(got, due...) {
			return fmt.Errorf("the alerts are %q", got)
		}
		return nil
	})
}

// world is a stage on which everything happens that the dashboard shows.
type world struct {
	*env
	edge, gate  string // the edge's listeners: its numbers, and where it is asked
	proxies     []string
	called      []string // where programs call the proxies
	chat        *httptest.Server
	orders, old key // of one role; old is replaced, and still used
	killed      key
	retired     key // by a rotation without grace
	billing     key // replaced each minute
	mail        key // found in the open
}

func newWorld(t *testing.T, e *env) *world {
	t.Helper()
	w := &world{env: e}
	w.chat = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(w.chat.Close)
	e.write("config", data{"metrics_role_labels": true, "egress_allow": "127.0.0.0/8:*"})
	e.write("roles/orders", data{"owner": "team-orders", "scopes": "orders:read"})
	e.write("roles/crm", data{"owner": "team-crm"})
	e.write("roles/legacy", data{"owner": "team-legacy"})
	e.write("roles/mail", data{"owner": "team-mail", "on_leak": "alert"})
	e.write("roles/billing", data{"owner": "team-billing", "rotation_schedule": "* * * * *", "grace_period": "20s", "max_grace_period": "5m"})
	e.write("roles/shop", data{"owner": "team-shop", "rotation_period": "30d"})
	e.write("roles/jobs", data{"owner": "team-jobs", "type": "dynamic", "ttl": "30s", "max_ttl": "10m"})
	w.old, w.killed, w.retired, w.billing, w.mail = e.creds("orders"), e.creds("crm"), e.creds("legacy"), e.creds("billing"), e.creds("mail")

	dir := t.TempDir()
	put(t, filepath.Join(dir, "token"), e.server.root())
	w.gate, w.edge = freeAddress(t), freeAddress(t)
	put(t, filepath.Join(dir, "edge.hcl"), fmt.Sprintf(`vault {
  address    = %q
  mount      = %q
  token_file = "token"
}
listen "auth" {
  address = %q
  preset  = "nginx"
}
listen "admin" {
  address = %q
}
rule {
  path = "/**"
}
`, e.client.Address(), e.mount, w.gate, w.edge))
	w.runs(t, dir, "edge", "-config", "edge.hcl")
	upstream := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/broken":
			panic(http.ErrAbortHandler)
		case "/missing":
			rw.WriteHeader(http.StatusNotFound)
		}
	}))
	upstream.Config.ErrorLog = nil
	t.Cleanup(upstream.Close)
	for _, role := range []string{"shop", "jobs"} {
		admin, listen := freeAddress(t), freeAddress(t)
		w.runs(t, dir, "proxy", "-address", e.client.Address(), "-token-file", "token", "-mount", e.mount, "-role", role,
			"-listen", listen, "-upstream", upstream.URL, "-header", "X-API-Key", "-admin", admin)
		w.proxies, w.called = append(w.proxies, admin), append(w.called, listen)
	}
	for _, addr := range append([]string{w.edge}, w.proxies...) {
		eventually(t, "it is ready", func() error {
			return exec.CommandContext(t.Context(), programs.apikeys, "health", "http://"+addr+"/readyz").Run()
		})
	}
	return w
}

func (w *world) runs(t *testing.T, dir string, args ...string) {
	t.Helper()
	out := &output{}
	launchIn(t, dir, out, nil, programs.apikeys, args...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("apikeys %s:\n%s", args[0], tail(out.String()))
		}
	})
}

// play has everything happen once, and then goes on using keys, good and bad, until the test ends.
func (w *world) play() {
	w.t.Helper()
	w.write("events/ops", data{"url": w.chat.URL})
	w.write("events/gone", data{"url": "http://" + freeAddress(w.t), "types": "key.*"})
	w.asks(w.killed.secret) // the edge holds it when it is killed
	w.write("rotate/orders", data{"grace_period": "1h"})
	w.orders = w.creds("orders")
	w.write("rotate/legacy", data{"grace_period": 0})
	w.write("report", data{"key": w.mail.secret})
	w.write("revoke/crm", data{"version": w.killed.version, "reason_code": "offboarded"})
	w.write("grace/orders", data{"version": w.old.version, "valid_until": "2h"})
	stop := make(chan struct{})
	var playing sync.WaitGroup
	w.t.Cleanup(func() {
		close(stop)
		playing.Wait()
	})
	playing.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		c := w.clientFor(w.client.Address(), w.server.root())
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			for i, secret := range []string{w.orders.secret, w.old.secret, w.billing.secret, w.killed.secret, w.retired.secret, "not-a-key"} {
				if round%(i+1) > 0 {
					continue
				}
				if _, err := c.Logical().Write(w.path("verify"), data{"key": secret, "client": "shop-" + strconv.Itoa(i)}); err != nil {
					w.t.Logf("verify: %v", err) // a server that is busy
				}
				w.asks(secret)
			}
			for _, addr := range w.called {
				for _, path := range []string{"/orders/7", "/orders/8", "/missing", "/broken"} {
					w.calls(addr, path, "")
				}
				w.calls(addr, "/orders/7", "https://evil.example")
			}
			if round%40 == 39 {
				// Decisions for the edge to hear of.
				if _, err := c.Logical().Write(w.path("rotate/shop"), data{"grace_period": "10s"}); err != nil {
					w.t.Logf("rotate: %v", err)
				}
			}
		}
	})
}

// goesOn waits until there is something to see: three rotations by schedule.
func (w *world) goesOn(t *testing.T) {
	t.Helper()
	first := w.creds("billing").version
	within(t, 4*time.Minute, "three rotations", func() error {
		if w.creds("billing").version < first+3 {
			return errNotYet
		}
		return nil
	})
}

// asks asks the edge about a key, as a gateway does.
func (w *world) asks(secret string) {
	w.get("http://"+w.gate+"/auth", http.Header{"X-API-Key": {secret}, "X-Original-Method": {"GET"}, "X-Original-Uri": {"/orders/7"}})
}

// calls calls the upstream by way of a proxy, as a program does, or a page from elsewhere.
func (w *world) calls(addr, path, origin string) {
	h := http.Header{}
	if origin != "" {
		h.Set("Origin", origin)
	}
	w.get("http://"+addr+path, h)
}

// get leaves the verdict on the answer to the numbers.
func (w *world) get(target string, h http.Header) {
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		w.t.Error(err)
		return
	}
	req.Header = h
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}
