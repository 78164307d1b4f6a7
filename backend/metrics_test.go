// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/metric/metrictest"
)

// scrape is what metrics answers: samples by name and labels, without the prefix.
func (m *testMount) scrape() map[string]float64 {
	m.t.Helper()
	samples := map[string]float64{}
	for line := range strings.Lines(m.scrapeText()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		cut := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[cut+1:]), 64)
		if err != nil {
			m.t.Fatalf("%q: %v", line, err)
		}
		samples[strings.TrimPrefix(line[:cut], "apikeys_")] = value
	}
	return samples
}

func (m *testMount) scrapeText() string {
	m.t.Helper()
	data := m.read("metrics")
	text := string(data[logical.HTTPRawBody].([]byte))
	if data[logical.HTTPStatusCode] != http.StatusOK || !strings.HasPrefix(data[logical.HTTPContentType].(string), "application/openmetrics-text") ||
		!strings.HasSuffix(text, "# EOF\n") {
		m.t.Fatalf("no OpenMetrics: %v", data)
	}
	return text
}

// counted compares samples with those of before: only the named ones of the families
// that have been named have grown, by as much as is said.
func counted(t testing.TB, what string, before, after map[string]float64, want map[string]float64) {
	t.Helper()
	families := map[string]bool{}
	for name := range want {
		if family, _, _ := strings.Cut(name, "{"); !strings.HasSuffix(family, "_bucket") {
			families[family] = true
		} else if got := after[name] - before[name]; got != want[name] {
			t.Errorf("%s: %s grew by %v, want %v", what, name, got, want[name])
		}
	}
	for name, value := range after {
		family, _, _ := strings.Cut(name, "{")
		if families[family] && value-before[name] != want[name] {
			t.Errorf("%s: %s grew by %v, want %v", what, name, value-before[name], want[name])
		}
	}
	for name := range want {
		if _, there := after[name]; !there {
			t.Errorf("%s: %s is missing", what, name)
		}
	}
}

func TestMetricsAreDeclaredAndDocumented(t *testing.T) {
	m := newEventMount(t)
	m.write("config", map[string]any{"egress_allow": "a.example", "metrics_role_labels": true})
	m.write("events/a", map[string]any{"url": "https://a.example/"})
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	m.write("rotate/r", nil)
	m.write("verify", map[string]any{"key": key})
	m.write("report", map[string]any{"key": key})
	m.tick()
	m.read("metrics")
	if bad := metrictest.Undeclared(t, m.numbers.set.Rows(), m.numbers.registry, "apikeys_"); len(bad) > 0 {
		t.Error(strings.Join(bad, "\n"))
	}
	metrictest.Documented(t, "../docs/metrics.md", "apikeys_", m.numbers.set.Rows())
	if text := m.scrapeText(); strings.Contains(text, key.(string)) || strings.Contains(text, key.(string)[len("ak_"):]) {
		t.Error("a key is told")
	}
}

func TestVerdictsAreCounted(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"scopes": "a"})
	key := m.read("creds/r")["api_key"]
	was := m.scrape()
	m.write("verify", map[string]any{"key": key})
	status := m.read("status/r")
	m.write("verify", map[string]any{"batch": fmt.Sprintf(`[{"key":%q,"scopes":"b"},{"key":"nonsense"},{"key":%q},{"key_id":%q,"role_id":%q}]`,
		key, key, m.read("creds/r")["key_id"], status["role_id"])})
	now := m.scrape()
	counted(t, "verdicts", was, now, map[string]float64{
		`verify_total{code="VALID"}`: 2, `verify_total{code="INSUFFICIENT_SCOPE"}`: 1, `verify_total{code="MALFORMED"}`: 1, `verify_total{code="STATE"}`: 1,
		`verify_seconds_count`: 5, `timelines_total`: 0,
	})
	// What edges judge themselves is not counted here, and no verdict for it.
	m.tick()
	m.write("verify", map[string]any{"key": key, "timeline": 1})
	counted(t, "timelines", now, m.scrape(), map[string]float64{`verify_total{code="VALID"}`: 0, `timelines_total`: 1})
}

func TestRefusalsByRotationsAreCounted(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"grace_period": "1h"})
	first := m.read("creds/r")["api_key"]
	m.write("rotate/r", nil)
	was := m.scrape()
	m.expectVerdict(first, "VALID")
	counted(t, "in its grace", was, m.scrape(), map[string]float64{`rotation_refusals_total{grace="over",reason="grace_ended"}`: 0})
	m.run(61 * time.Minute)
	m.expectVerdict(first, "RETIRED")
	counted(t, "after its grace", was, m.scrape(), map[string]float64{`rotation_refusals_total{grace="over",reason="grace_ended"}`: 1})
	was = m.scrape()
	m.write("rotate/r", nil) // and the grace of another version runs
	m.expectVerdict(first, "RETIRED")
	counted(t, "in another's grace", was, m.scrape(), map[string]float64{`rotation_refusals_total{grace="running",reason="grace_ended"}`: 1})
	// What ended because it was found in the open is no cost of rotations.
	m.write("roles/leaky", map[string]any{"grace_period": "1h", "on_leak": "rotate", "leak_grace_period": "10m"})
	leaked := m.read("creds/leaky")["api_key"]
	m.write("report", map[string]any{"key": leaked})
	m.run(11 * time.Minute)
	was = m.scrape()
	m.expectVerdict(leaked, "RETIRED")
	counted(t, "after a leak", was, m.scrape(), map[string]float64{`rotation_refusals_total{grace="over",reason="superseded"}`: 0})
	// A kill is no rotation.
	was = m.scrape()
	killed := m.read("creds/r")["api_key"]
	m.write("revoke/r", map[string]any{"version": 3})
	m.expectVerdict(killed, "REVOKED")
	counted(t, "after a kill", was, m.scrape(), map[string]float64{`rotation_refusals_total{grace="over",reason="superseded"}`: 0})
}

func TestRotationsAreCounted(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	grew := func(what string, want map[string]float64, fn func()) {
		t.Helper()
		was := m.scrape()
		fn()
		counted(t, what, was, m.scrape(), want)
	}
	rotations := func(cause, result string) string {
		return `rotations_total{cause="` + cause + `",result="` + result + `"}`
	}
	none := map[string]float64{rotations("request", rotatedFirst): 0}
	grew("a first version", none, func() { m.write("roles/r", map[string]any{"rotation_period": "2h", "grace_period": "10m"}) })
	grew("a request", map[string]float64{rotations("request", rotatedFirst): 1, "rotation_delay_seconds_count": 0}, func() { m.write("rotate/r", nil) })
	grew("a refusal", none, func() { m.refused(logical.UpdateOperation, "rotate/r", map[string]any{"grace_period": "x"}) })
	room := map[string]float64{rotations("request", rotatedFirst): 0}
	grew("as many as may live", room, func() {
		for range 20 {
			resp, err := m.do(logical.UpdateOperation, "rotate/r", map[string]any{"grace_period": "1h"})
			if status, _ := httpStatus(resp, err); status == 400 {
				return
			}
			room[rotations("request", rotatedFirst)]++
		}
		t.Error("nothing was refused")
	})
	grew("who may not write", map[string]float64{rotations("request", rotatedFailed): 0}, func() {
		p.arm(1, faultReadOnly)
		_, _ = m.do(logical.UpdateOperation, "rotate/r", map[string]any{"force": true})
		p.reset()
	})
	grew("a failure and its repetition", map[string]float64{rotations("request", rotatedFailed): 1, rotations("request", rotatedRetried): 1}, func() {
		p.onlyWrites = true
		p.arm(1, faultFail)
		if _, err := m.do(logical.UpdateOperation, "rotate/r", map[string]any{"force": true}); err == nil {
			t.Error("it did not fail")
		}
		p.onlyWrites = false
		p.reset()
		m.write("rotate/r", map[string]any{"force": true})
	})
	grew("by the plan", map[string]float64{
		rotations("periodic", rotatedFirst): 1, `rotation_delay_seconds_bucket{le="1.0"}`: 1, `rotation_delay_seconds_count`: 1, `rotation_delay_seconds_sum`: 0,
	}, func() { m.run(2*time.Hour + time.Minute) })
	grew("by the plan, late", map[string]float64{rotations("periodic", rotatedFirst): 1, `rotation_delay_seconds_count`: 1, `rotation_delay_seconds_bucket{le="900.0"}`: 0, `rotation_delay_seconds_bucket{le="3600.0"}`: 1}, func() {
		m.clock.advance(2*time.Hour + 20*time.Minute)
		m.tick()
	})
	grew("a leak", map[string]float64{rotations("leak", rotatedFirst): 1, `reports_total{result="acted"}`: 1, `reports_total{result="unknown"}`: 0, `revocations_total{reason_code="leaked"}`: 1}, func() {
		m.write("report", map[string]any{"key": m.read("creds/r")["api_key"]})
	})
	grew("a kill", map[string]float64{rotations("request", rotatedFirst): 1, `revocations_total{reason_code="abuse"}`: 1}, func() {
		m.write("revoke/r", map[string]any{"version": m.read("status/r")["current_version"], "reason_code": "abuse"})
	})
	grew("a bulk job", map[string]float64{rotations("bulk", rotatedFirst): 1}, func() {
		m.write("bulk", map[string]any{"action": "rotate", "name_prefix": "r", "dry_run": false})
		m.run(2 * time.Minute)
	})
}

// A planned rotation that failed, and then did not: the problem of the role says so also
// after another node took over.
func TestRotationsThatAreTriedAgain(t *testing.T) {
	p := &failingStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", map[string]any{"rotation_period": "2h", "grace_period": "10m"})
	m.clock.advance(119 * time.Minute)
	was := m.scrape()
	p.failing = func(op, key string) bool { return op == "put" && strings.HasPrefix(key, secretPrefix) }
	m.tick()
	counted(t, "it failed", was, m.scrape(), map[string]float64{`rotations_total{cause="periodic",result="failed"}`: 1, `problem_roles{kind="failing"}`: 1})
	p.failing = nil
	m.run(3 * time.Minute)
	counted(t, "it did not", was, m.scrape(), map[string]float64{
		`rotations_total{cause="periodic",result="failed"}`: 1, `rotations_total{cause="periodic",result="retried"}`: 1, `rotations_total{cause="periodic",result="first_try"}`: 0,
	})
}

func TestDynamicKeysThatAreRevokedAreCounted(t *testing.T) {
	m := newMount(t)
	m.write("roles/d", map[string]any{"type": "dynamic"})
	a, b, c := m.lease("d", nil), m.lease("d", nil), m.lease("d", nil)
	was := m.scrape()
	m.write("revoke/d", map[string]any{"key_id": a.Data["key_id"], "reason_code": "offboarded"})
	m.write("revoke/d", map[string]any{"key_id": a.Data["key_id"], "reason_code": "offboarded"})
	m.write("report", map[string]any{"key": b.Data["api_key"]})
	if _, err := m.onLease(logical.RevokeOperation, c, 0); err != nil {
		t.Fatal(err)
	}
	counted(t, "keys", was, m.scrape(), map[string]float64{`revocations_total{reason_code="offboarded"}`: 1, `revocations_total{reason_code="leaked"}`: 1})
}

func TestExtensionsAreCounted(t *testing.T) {
	m := newMount(t)
	m.write("roles/r", map[string]any{"rotation_period": "4h", "grace_period": "1h", "max_grace_period": "3h"})
	key := m.read("creds/r")["api_key"]
	m.run(4*time.Hour + time.Minute)
	was := m.scrape()
	for range 5 {
		m.expectVerdict(key, "VALID")
		m.run(10 * time.Minute)
	}
	m.expectVerdict(key, "VALID")
	m.run(10 * time.Minute)
	counted(t, "in use", was, m.scrape(), map[string]float64{`grace_extensions_total{cause="use"}`: 1, `grace_extensions_total{cause="request"}`: 0})
	m.write("grace/r", map[string]any{"valid_until": "90m"})
	m.write("grace/r", map[string]any{"valid_until": "10m"})
	counted(t, "by hand", was, m.scrape(), map[string]float64{`grace_extensions_total{cause="use"}`: 1, `grace_extensions_total{cause="request"}`: 1})
}

// What somebody should look at is told by kind, from the index, and goes when it is solved.
func TestProblemsAreTold(t *testing.T) {
	m := newMount(t)
	m.tick()
	m.write("config", map[string]any{"count_reads": true})
	for _, name := range []string{"used", "unread", "reported", "fine"} {
		m.write("roles/"+name, map[string]any{"rotation_period": 0, "grace_period": "4h", "on_leak": "alert"})
	}
	used, found := m.read("creds/used")["api_key"], m.read("creds/reported")["api_key"]
	for _, name := range []string{"used", "unread"} {
		m.write("rotate/"+name, nil)
	}
	m.read("creds/used")
	m.write("report", map[string]any{"key": found})
	m.write("rotate/reported", map[string]any{"grace_period": "30d"}) // both of its keys were found
	m.write("report", map[string]any{"key": m.read("creds/reported")["api_key"]})
	kinds := func() string {
		var text []string
		got := m.scrape()
		for _, kind := range roleTroubles {
			if n := got[`problem_roles{kind="`+kind+`"}`]; n > 0 {
				text = append(text, fmt.Sprint(kind, " ", n))
			}
		}
		return fmt.Sprint(strings.Join(text, ", "), "; ", got["problems_listed"])
	}
	if got := kinds(); got != "reported 1; 1" {
		t.Errorf("at first: %s", got)
	}
	for range 7 {
		m.run(30 * time.Minute)
		m.expectVerdict(used, "VALID")
	}
	if got := kinds(); got != "reported 1, in_use 1, unclaimed 1; 3" {
		t.Errorf("near the end: %s", got)
	}
	if text := fmt.Sprint(m.read("status/used")["problems"]); !strings.Contains(text, "in use when its end came near") {
		t.Errorf("status says %s", text)
	}
	m.run(time.Hour)
	if got := kinds(); got != "reported 1; 1" {
		t.Errorf("after the end: %s", got)
	}
}

// The numbers of the fleet are read once a minute, however often is asked.
func TestAScrapeCosts(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.makeRoles("r", 300, nil)
	for i := range 3 {
		m.write(fmt.Sprintf("roles/bad%d", i), map[string]any{"on_leak": "alert"})
		m.write("report", map[string]any{"key": m.read(fmt.Sprintf("creds/bad%d", i))["api_key"]})
	}
	m.tick()
	cost := func() int {
		p.reset()
		m.read("metrics")
		calls, writes := p.count()
		if writes > 0 {
			t.Errorf("a scrape writes: %v", p.log)
		}
		return calls
	}
	if got := cost(); got > 2+3*2 {
		t.Errorf("the first scrape makes %d calls: %v", got, p.log)
	}
	for range 4 {
		m.clock.advance(10 * time.Second)
		if got := cost(); got > 0 {
			t.Errorf("a scrape within the minute makes %d calls: %v", got, p.log)
		}
	}
	at := m.scrape()["fleet_read_timestamp_seconds"]
	m.clock.advance(10 * time.Second)
	if cost() == 0 {
		t.Error("the numbers of the fleet are a minute old")
	}
	if now := m.scrape()["fleet_read_timestamp_seconds"]; now != at+50 {
		t.Errorf("read at %v, and then at %v", at, now)
	}
}

// Where reading takes too long for one scrape the next ones go on, and until all is read
// the numbers of before count.
func TestManyProblemsAreReadOverSeveralScrapes(t *testing.T) {
	c := newWaitingClock()
	s := &slowStorage{Storage: &logical.InmemStorage{}, clock: c}
	m := mountOn(t, s, c)
	const n = 25
	for i := range n {
		m.write(fmt.Sprintf("roles/r%02d", i), map[string]any{"on_leak": "alert"})
		m.write("report", map[string]any{"key": m.read(fmt.Sprintf("creds/r%02d", i))["api_key"]})
	}
	m.tick()
	s.cost = 50 * time.Millisecond
	scrapes := 0
	for ; scrapes < 10; scrapes++ {
		began := c.Now()
		got, there := m.scrape()[`problem_roles{kind="reported"}`]
		if took := c.Now().Sub(began); took > fleetRead+200*time.Millisecond {
			t.Fatalf("a scrape took %v", took)
		}
		if !there {
			continue
		}
		if got != n {
			t.Fatalf("%v roles are told", got)
		}
		break
	}
	if scrapes < 1 || scrapes == 10 {
		t.Errorf("all was read by scrape %d", scrapes+1)
	}
}

func TestTheQueueOfTheWorkerIsTold(t *testing.T) {
	m := entrusted(t, &logical.InmemStorage{}, newFakeClock())
	m.makeRoles("r", 20, map[string]any{"rotation_period": "2h", "grace_period": "10m"})
	step := func() {
		t.Helper()
		if _, err := m.step(m.clock.Now(), stepBudget); err != nil {
			t.Fatal(err)
		}
	}
	m.clock.advance(2*time.Hour + 2*time.Minute)
	m.entrust(m.storage)
	m.write("config", map[string]any{"max_rotations_per_second": 1})
	step()
	queue := func() string {
		got := m.scrape()
		return fmt.Sprint(got["worker_queue_roles"], " ", got["roles_due"], " ", got["roles_overdue"])
	}
	first := queue()
	if first == "0 0 0" || !strings.HasSuffix(first, " 0") {
		t.Errorf("with the pace of one per second the first step leaves %s", first)
	}
	m.clock.advance(5 * time.Minute)
	m.entrust(m.storage)
	step()
	if got := m.scrape(); got["roles_overdue"] == 0 || got["roles_overdue"] != got["roles_due"] {
		t.Errorf("five minutes later it is %s", queue())
	}
	m.write("config", map[string]any{"max_rotations_per_second": 0})
	was := m.scrape()
	step()
	if got := queue(); got != "0 0 0" {
		t.Errorf("without a pace the next step leaves %s", got)
	}
	now := m.scrape()
	counted(t, "steps", was, now, map[string]float64{`worker_steps_total{result="ok"}`: 1})
	if now["worker_last_step_timestamp_seconds"] != float64(m.clock.Now().Unix()) {
		t.Errorf("the last step was at %v", now["worker_last_step_timestamp_seconds"])
	}
}

func TestStorageIsMetered(t *testing.T) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	was := m.scrape()
	p.reset()
	m.write("rotate/r", nil)
	m.tick()
	want := map[string]float64{}
	for _, call := range p.log {
		op, _, _ := strings.Cut(call, " ")
		want[`storage_calls_total{operation="`+op+`"}`]++
		want[`storage_seconds_count{operation="`+op+`"}`]++
	}
	for _, op := range []string{"get", "put", "delete", "list"} {
		want[`storage_errors_total{operation="`+op+`"}`] = 0
	}
	counted(t, "calls", was, m.scrape(), want)
	was = m.scrape()
	for _, f := range []fault{faultReadOnly, faultFail} {
		p.onlyWrites = true
		p.arm(1, f)
		_, _ = m.do(logical.UpdateOperation, "rotate/r", nil)
		p.onlyWrites = false
		p.reset()
	}
	counted(t, "errors", was, m.scrape(), map[string]float64{`storage_errors_total{operation="put"}`: 1, `storage_errors_total{operation="get"}`: 0})
}

func TestCachesAndFeedAreCounted(t *testing.T) {
	m := newMount(t)
	m.tick()
	m.write("roles/r", nil)
	key := m.read("creds/r")["api_key"]
	cursor := m.read("changes")["cursor"]
	was := m.scrape()
	for range 3 {
		m.expectVerdict(key, "VALID")
	}
	m.write("rotate/r", nil)
	m.write("revoke/r", map[string]any{"version": 1})
	m.clock.advance(3 * time.Second)
	m.write("changes", map[string]any{"since": cursor, "wait": 0})
	now := m.scrape()
	counted(t, "decisions", was, now, map[string]float64{
		`feed_decisions_total{closing="false"}`: 1, `feed_decisions_total{closing="true"}`: 1,
		`feed_delay_seconds_count`: 1, `feed_delay_seconds_sum`: 3, `feed_waiters`: 0,
	})
	if hits := now[`cache_requests_total{cache="keys",result="hit"}`] - was[`cache_requests_total{cache="keys",result="hit"}`]; hits < 2 {
		t.Errorf("three verifications of one key hit the cache %v times", hits)
	}
	if misses := now[`cache_requests_total{cache="keys",result="miss"}`] - was[`cache_requests_total{cache="keys",result="miss"}`]; misses > 1 {
		t.Errorf("and missed it %v times", misses)
	}
}

func TestEndpointsAreTold(t *testing.T) {
	m := newEventMount(t)
	m.write("config", map[string]any{"egress_allow": "good.example,dead.example"})
	for _, name := range []string{"good", "dead"} {
		m.write("events/"+name, map[string]any{"url": "https://" + name + ".example/"})
	}
	m.answer("dead.example", answering(http.StatusInternalServerError, nil))
	m.write("roles/r", nil)
	m.goOn(m.clock.Now().Add(2 * time.Minute))
	m.flights.Wait()
	got := m.scrape()
	for name, want := range map[string]float64{
		`outbox_events{endpoint="good"}`: 0, `outbox_oldest_seconds{endpoint="good"}`: 0, `deliveries_total{endpoint="good",result="failed"}`: 0,
		`endpoint_failing{endpoint="good"}`: 0, `endpoint_failing{endpoint="dead"}`: 1, `endpoint_stopped{endpoint="dead"}`: 0,
		`deliveries_total{endpoint="dead",result="delivered"}`: 0, `events_dropped_total{endpoint="dead",reason="failed"}`: 0,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v, want %v", name, value, want)
		}
	}
	for _, name := range []string{
		`deliveries_total{endpoint="good",result="delivered"}`, `deliveries_total{endpoint="dead",result="failed"}`, `outbox_events{endpoint="dead"}`, `delivery_seconds_count`,
	} {
		if got[name] == 0 {
			t.Errorf("%s is 0", name)
		}
	}
	if oldest := got[`outbox_oldest_seconds{endpoint="dead"}`]; oldest < 60 || oldest > 180 {
		t.Errorf("the oldest has waited for %v seconds", oldest)
	}
	m.must(logical.DeleteOperation, "events/dead", nil)
	for name := range m.scrape() {
		if strings.Contains(name, "dead") {
			t.Errorf("%s is told of an endpoint that is gone", name)
		}
	}
}

func TestRolesHaveNumbersWhereTheConfigSaysSo(t *testing.T) {
	m := newMount(t)
	m.makeRoles("team-", maxRoleLabels+3, map[string]any{"rotation_period": 0, "grace_period": "4h"})
	m.write("roles/a", map[string]any{"rotation_period": "24h", "grace_period": "4h"})
	key := m.read("creds/a")["api_key"]
	m.expectVerdict(key, "VALID")
	m.clock.advance(time.Minute)
	m.tick()
	m.write("rotate/a", nil)
	rotated := m.clock.Now()
	if text := m.scrapeText(); strings.Contains(text, "role=") || strings.Contains(text, "team-") {
		t.Error("roles are named without having been asked for")
	}
	m.write("config", map[string]any{"metrics_role_labels": true})
	m.clock.advance(time.Minute)
	got := m.scrape()
	if got["role_labels_omitted"] != 4 {
		t.Errorf("%v roles are left out", got["role_labels_omitted"])
	}
	named := 0
	for name := range got {
		if strings.HasPrefix(name, "role_current_since") {
			named++
		}
	}
	if named != maxRoleLabels {
		t.Errorf("%d roles have numbers", named)
	}
	for name, want := range map[string]time.Time{
		"current_since": rotated, "previous_ends": rotated.Add(4 * time.Hour), "next_rotation": rotated.Add(24 * time.Hour),
	} {
		if value := got[`role_`+name+`_timestamp_seconds{role="a"}`]; value != float64(want.Unix()) {
			t.Errorf("%s is %v, want %v", name, value, want.Unix())
		}
	}
	if _, there := got[`role_previous_used_timestamp_seconds{role="a"}`]; there {
		t.Error("the previous version is told to be in use")
	}
	m.expectVerdict(key, "VALID")
	used := m.clock.Now()
	m.clock.advance(time.Minute)
	if value := m.scrape()[`role_previous_used_timestamp_seconds{role="a"}`]; value != float64(used.Unix()) {
		t.Errorf("the previous version was used at %v, want %v", value, used.Unix())
	}
	// What was read for that alone is no problem that the index has.
	m.clock.advance(25 * time.Hour)
	m.entrust(m.storage)
	if got := m.scrape(); got[`problem_roles{kind="overdue"}`] != 0 || got["problems_listed"] != 0 {
		t.Errorf("%v are overdue, of %v that are listed", got[`problem_roles{kind="overdue"}`], got["problems_listed"])
	}
}

// A node that does not write tells what it has counted, and nothing of the fleet.
func TestMetricsOfANodeThatDoesNotWrite(t *testing.T) {
	store := &logical.InmemStorage{}
	first := mountOn(t, store, newFakeClock())
	first.write("roles/r", nil)
	key := first.read("creds/r")["api_key"]
	if first.tick(); first.scrape()["writer"] != 1 {
		t.Error("who writes does not say so")
	}
	m, _ := mountAs(t, store, first.clock, consts.ReplicationPerformanceStandby)
	m.expectVerdict(key, "VALID")
	got := m.scrape()
	if got["writer"] != 0 || got[`verify_total{code="VALID"}`] != 1 {
		t.Errorf("writer %v, verdicts %v", got["writer"], got[`verify_total{code="VALID"}`])
	}
	for name := range got {
		for _, fleet := range []string{"problem", "mount_", "roles_", "jobs", "outbox", "fleet", "worker_queue", "role_"} {
			if strings.HasPrefix(name, fleet) {
				t.Errorf("%s is told", name)
			}
		}
	}
	// A writer whose mandate is over, as one that was deposed, is none any more.
	first.clock.advance(mandateTime + time.Second)
	if got := first.scrape(); got["writer"] != 0 || got["problems_listed"] != 0 {
		t.Errorf("after its mandate: writer %v", got["writer"])
	}
}

// What cannot be read is missing; what is counted is told all the same.
func TestMetricsWhileStorageFails(t *testing.T) {
	p := &failingStorage{Storage: &logical.InmemStorage{}}
	m := mountOn(t, p, newFakeClock())
	m.write("roles/r", nil)
	m.tick()
	was := m.scrape()["fleet_read_timestamp_seconds"]
	m.clock.advance(time.Minute)
	p.failing = func(string, string) bool { return true }
	got := m.scrape()
	if got["fleet_read_timestamp_seconds"] != was || got[`storage_errors_total{operation="list"}`] == 0 || got["writer"] != 1 {
		t.Errorf("read at %v, was %v; %v errors", got["fleet_read_timestamp_seconds"], was, got[`storage_errors_total{operation="list"}`])
	}
	p.failing = nil
	if got := m.scrape()["fleet_read_timestamp_seconds"]; got != was+60 {
		t.Errorf("afterwards it was read at %v", got)
	}
	// Who comes back after another node has written knows nothing old.
	m.clock.advance(mandateTime)
	m.scrape()
	m.entrust(m.storage)
	p.failing = func(string, string) bool { return true }
	if got, there := m.scrape()["fleet_read_timestamp_seconds"]; there {
		t.Errorf("back again it tells what was read at %v", got)
	}
}

// failingStorage fails where it is told to.
type failingStorage struct {
	logical.Storage

	failing func(op, key string) bool
}

func (s *failingStorage) fails(op, key string) error {
	if s.failing != nil && s.failing(op, key) {
		return errStorage
	}
	return nil
}

func (s *failingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.fails("list", prefix); err != nil {
		return nil, err
	}
	return s.Storage.List(ctx, prefix)
}

func (s *failingStorage) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := s.fails("get", key); err != nil {
		return nil, err
	}
	return s.Storage.Get(ctx, key)
}

func (s *failingStorage) Put(ctx context.Context, e *logical.StorageEntry) error {
	if err := s.fails("put", e.Key); err != nil {
		return err
	}
	return s.Storage.Put(ctx, e)
}

func TestWhatWaitsIsCountedByWhatItIs(t *testing.T) {
	m := newMount(t)
	now := m.clock.Now()
	at := func(name string, mints bool, ago time.Duration) dueJob {
		return dueJob{dueEntry: dueEntry{name: name}, mints: mints, at: now.Add(-ago)}
	}
	m.problems.failed("fails", errStorage, now)
	t1 := &tick{b: m.backend, now: now, kept: &backlog{jobs: []dueJob{
		at("late", true, overdueAfter), at("fails", true, time.Hour), at("due", true, overdueAfter-1), at("ends", false, time.Hour),
	}}}
	was := m.scrape()
	m.stepped(t.Context(), t1, nil)
	if got := *m.numbers.queue.Load(); got != (queueState{roles: 4, due: 3, overdue: 1}) {
		t.Errorf("%+v", got)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	m.stepped(over, t1, errStorage)
	m.stepped(t.Context(), t1, errStorage)
	m.stepped(t.Context(), t1, errNoMandate)
	counted(t, "steps", was, m.scrape(), map[string]float64{
		`worker_steps_total{result="ok"}`: 1, `worker_steps_total{result="cut_short"}`: 1, `worker_steps_total{result="failed"}`: 1,
	})
}

func TestBulkJobsAreTold(t *testing.T) {
	m := newMount(t)
	m.makeRoles("r", 3, nil)
	m.tick()
	m.write("bulk", map[string]any{"action": "rotate", "name_prefix": "r", "dry_run": false})
	if got := m.scrape()["jobs"]; got != 1 {
		t.Errorf("%v jobs are under way", got)
	}
	m.run(2 * time.Minute)
	if got := m.scrape()["jobs"]; got != 0 {
		t.Errorf("%v jobs are under way once it is done", got)
	}
}
