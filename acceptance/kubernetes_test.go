// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// Two operators that carry keys into Kubernetes, played by the rules that they read by,
// with what bootstrap/kubernetes has them read. Real ones need a cluster.

// manifest is the text of one file of bootstrap/kubernetes.
func manifest(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "bootstrap", "kubernetes", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// says is the only thing in a text that the pattern's group finds, at the beginning of a line.
func says(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile("(?m)^"+pattern+"$").FindAllStringSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("%d times %q in\n%s", len(found), pattern, text)
	}
	return found[0][1]
}

// carrier is an operator that puts a key into a Secret.
type carrier interface {
	// sync reads once, and says when to read again.
	sync(ctx context.Context) (time.Duration, error)
}

// secretObject is a Secret of the cluster, and what became of it.
type secretObject struct {
	mu   sync.Mutex
	data map[string]string
	// reads counts syncs that went well, writes changes of the object, restarts those of its workload.
	reads, writes, restarts int
	failed                  error
}

func (o *secretObject) key() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.data["api_key"]
}

// store takes over a new content.
func (o *secretObject) store(content map[string]string, restart bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data = content
	o.writes++
	if restart {
		o.restarts++
	}
}

func (o *secretObject) counts() (reads, writes, restarts int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reads, o.writes, o.restarts
}

// run syncs until ctx ends, and notes failures.
func (o *secretObject) run(ctx context.Context, c carrier) {
	for {
		next, err := c.sync(ctx)
		if ctx.Err() != nil {
			return
		}
		o.mu.Lock()
		if err != nil {
			o.failed = errors.Join(o.failed, err)
			next = time.Second
		}
		o.reads++
		o.mu.Unlock()
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// watched is a carrier at work, whose Secret is looked at all the time.
type watched struct {
	e      *env
	object *secretObject
	// longest is how long the Secret held one refused key.
	mu      sync.Mutex
	longest time.Duration
}

// watch runs a carrier, and verifies what its Secret holds ten times a second.
func (e *env) watch(c carrier, object *secretObject) *watched {
	w := &watched{e: e, object: object}
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { object.run(ctx, c) })
	done.Go(func() { w.look(ctx) })
	e.t.Cleanup(func() {
		stop()
		done.Wait()
	})
	eventually(e.t, "first key in the Secret", func() error {
		if object.key() == "" {
			return errNotYet
		}
		return nil
	})
	return w
}

func (w *watched) look(ctx context.Context) {
	client := w.e.active()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	dead := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		held := w.object.key()
		if held == "" {
			continue
		}
		w.e.saw(held)
		s, err := client.Logical().WriteWithContext(ctx, w.e.path("verify"), data{"key": held})
		switch {
		case err != nil || w.object.key() != held:
			// Nobody could be asked, or it is another key by now.
		case s.Data["valid"] == true:
			dead = ""
		case dead != held:
			dead, since = held, time.Now()
			fallthrough
		default:
			w.mu.Lock()
			w.longest = max(w.longest, time.Since(since)+time.Millisecond)
			w.mu.Unlock()
		}
	}
}

// neverDead asserts that no refused key was held until now.
func (w *watched) neverDead(during string) {
	w.e.t.Helper()
	if d := w.deadest(); d > 0 {
		w.e.t.Errorf("%s: the Secret held a refused key for %s", during, d)
	}
}

// deadest is how long one refused key was held, since it was asked the last time.
func (w *watched) deadest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.longest
	w.longest = 0
	return d
}

// carriers are at work on one role.
type carriers []*watched

// take acts, waits until each Secret holds what it should and was read for twice more, and asserts how often it
// changed since, and its workload was restarted.
func (ws carriers) take(what string, version int64, changes int, act func()) {
	t := ws[0].e.t
	t.Helper()
	before := make([]int, len(ws))
	for i, w := range ws {
		_, before[i], _ = w.object.counts()
	}
	act()
	ws.hold(version)
	reads := make([]int, len(ws))
	for i, w := range ws {
		reads[i], _, _ = w.object.counts()
	}
	for i, w := range ws {
		within(t, 30*time.Second, "more reads", func() error {
			if now, _, _ := w.object.counts(); now < reads[i]+2 {
				return errNotYet
			}
			return nil
		})
		_, writes, restarts := w.object.counts()
		if got := writes - before[i]; got != changes {
			t.Errorf("%s: Secret %d changed %d times, want %d", what, i, got, changes)
		}
		if restarts != 0 && restarts != writes {
			t.Errorf("%s: %d restarts for %d changes", what, restarts, writes)
		}
	}
}

// hold waits until each Secret holds that version.
func (ws carriers) hold(version int64) {
	for _, w := range ws {
		w.e.t.Helper()
		within(w.e.t, 30*time.Second, fmt.Sprintf("version %d in the Secret", version), func() error {
			if v := w.e.verify(w.object.key()); number(w.e.t, v, "version") != version {
				return errNotYet
			}
			return nil
		})
	}
}

func (ws carriers) neverDead(during string) {
	for _, w := range ws {
		w.neverDead(during)
	}
}

// noFailures asserts that every sync went well.
func (w *watched) noFailures() {
	w.e.t.Helper()
	w.object.mu.Lock()
	defer w.object.mu.Unlock()
	if err := w.object.failed; err != nil {
		w.e.t.Errorf("syncs failed: %v", err)
	}
}

// secretsFollowStaticRole plays what the life of a static role has for the Secrets of both operators, each
// rotation with one change of them.
func secretsFollowStaticRole(t *testing.T, e *env) {
	const grace = 18 * time.Second
	e.write("roles/orders", data{"refresh_interval": "3s", "grace_period": grace.String()})
	operator, external := newSecretsOperator(t, e, "static.yaml"), newExternalSecrets(t, e, grace)
	ws := carriers{e.watch(operator, operator.object), e.watch(external, external.object)}
	if _, _, restarts := operator.object.counts(); restarts != 1 {
		t.Errorf("%d restarts for the first key", restarts)
	}
	ws.take("rotation by hand", 2, 1, func() { e.write("rotate/orders", data{"reason": "by hand"}) })
	ws.take("staged rotation", 3, 1, func() { e.write("rotate/orders", data{"activate_at": "7s"}) })
	ws.take("what is no rotation", 3, 0, func() {
		e.write("roles/orders", data{"description": "another text", "rate_limit": 1000})
		e.write("grace/orders", data{"valid_until": "15s", "version": 2})
		e.write("rotate/orders", data{"stage": true})
	})
	ws.take("promotion, and a rollback", 3, 2, func() {
		e.write("promote/orders", nil)
		ws.hold(4)
		e.write("rollback/orders", data{"reason": "not good"})
	})
	ws.neverDead("rotations and a rollback")
	ws.take("emergency", 5, 1, func() { e.write("revoke/orders", data{"version": 3, "reason": "found in a log"}) })
	// The bounds that were told, and what a busy machine adds.
	for i, told := range []time.Duration{3650 * time.Millisecond, external.every} {
		d := ws[i].deadest()
		t.Logf("Secret %d held the dead key for %s", i, d.Round(100*time.Millisecond))
		if d == 0 || d > told+5*time.Second {
			t.Errorf("that is not between 0 and the %s that were told", told)
		}
		ws[i].noFailures()
	}
}

// secretsOperator plays the Vault Secrets Operator's controller of VaultDynamicSecret.
type secretsOperator struct {
	client *api.Client
	path   string
	// of the manifest
	static     bool
	includes   *regexp.Regexp
	excludeRaw bool
	percent    int64

	object *secretObject
	macKey []byte

	// its status
	meta  staticCreds
	mac   []byte
	at    time.Time
	lease api.Secret
}

// staticCreds is what the operator looks at in an answer.
type staticCreds struct {
	rotated, period, ttl int64
	schedule             string
}

func (m staticCreds) static() bool { return m.rotated > 0 && (m.period >= 1 || m.schedule != "") }

// newSecretsOperator is set up as a manifest says, but for the mount.
func newSecretsOperator(t *testing.T, e *env, name string) *secretsOperator {
	t.Helper()
	text := manifest(t, filepath.Join("secrets-operator", name))
	if mount := says(t, text, "  mount: (.+)"); mount != "apikeys" {
		t.Fatalf("mount %q", mount)
	}
	for _, other := range []string{"params:", "requestHTTPMethod:", "refreshAfter:", "excludes:", "templates:"} {
		if strings.Contains(text, other) {
			t.Fatalf("%s has %s, which is not played", name, other)
		}
	}
	o := &secretsOperator{
		path: e.path(says(t, text, "  path: (.+)")), static: strings.Contains(text, "\n  allowStaticCreds: true\n"),
		includes: regexp.MustCompile(says(t, text, `      includes:\n      - (.+)`)), excludeRaw: says(t, text, "      excludeRaw: (.+)") == "true",
		object: &secretObject{}, macKey: make([]byte, 16),
	}
	if !o.static {
		if _, err := fmt.Sscan(says(t, text, "  renewalPercent: (.+)"), &o.percent); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rand.Read(o.macKey); err != nil {
		t.Fatal(err)
	}
	// The dynamic role of the manifests has a name of its own, which the policy does not know.
	o.client = e.tokenFor(t, strings.ReplaceAll(e.policy(t, reader), "creds/orders", strings.TrimPrefix(o.path, e.mount+"/")))
	return o
}

func metaOf(d data) (staticCreds, error) {
	var m staticCreds
	if v, ok := d["last_vault_rotation"]; ok && v != nil {
		// The operator asserts without a check: anything but a text is the end of it.
		text, ok := v.(string)
		if !ok {
			return m, fmt.Errorf("last_vault_rotation is %T", v)
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return m, err
		}
		m.rotated = at.Unix()
	}
	for name, to := range map[string]*int64{"rotation_period": &m.period, "ttl": &m.ttl} {
		if v, ok := d[name]; ok && v != nil {
			n, ok := v.(json.Number)
			if !ok {
				return m, fmt.Errorf("%s is %T", name, v)
			}
			var err error
			if *to, err = n.Int64(); err != nil {
				return m, err
			}
		}
	}
	m.schedule, _ = d["rotation_schedule"].(string)
	return m, nil
}

func (o *secretsOperator) read(ctx context.Context) (*api.Secret, error) {
	s, err := o.client.Logical().ReadWithContext(ctx, o.path)
	if err == nil && s == nil {
		err = errors.New("nothing there")
	}
	return s, err
}

func (o *secretsOperator) sync(ctx context.Context) (time.Duration, error) {
	if !o.static && o.lease.Renewable && o.lease.LeaseID != "" {
		s, err := o.client.Sys().RenewWithContext(ctx, o.lease.LeaseID, o.lease.LeaseDuration)
		if err == nil && s.LeaseDuration >= o.lease.LeaseDuration {
			o.lease = *s
			return o.renewAt(), nil
		}
		// Gone, or truncated: another key.
	}
	s, err := o.read(ctx)
	if err != nil {
		return 0, err
	}
	if s.Renewable || !o.static {
		content, err := o.content(s)
		if err != nil {
			return 0, err
		}
		o.lease = *s
		o.object.store(content, true)
		return o.renewAt(), nil
	}
	meta, s, err := o.awaitRotation(ctx, s)
	if err != nil {
		return 0, err
	}
	content, err := o.content(s)
	if err != nil {
		return 0, err
	}
	mac, err := o.macOf(content)
	if err != nil {
		return 0, err
	}
	same := o.mac != nil && hmac.Equal(mac, o.mac)
	o.meta, o.mac, o.at = meta, mac, time.Now()
	if !same {
		o.object.store(content, true)
	}
	switch {
	case !meta.static():
		return 0, errors.New("the answer is not one of static credentials: it would never be read again")
	case meta.ttl <= 0:
		return time.Second, nil
	}
	next := time.Duration(meta.ttl) * time.Second
	if meta.period > 0 {
		next += 500 * time.Millisecond
	}
	return next + mathrand.N(150*time.Millisecond), nil
}

// awaitRotation reads again, for ten seconds at most, where the answer is of the rotation that is known and looks as
// if the next one was under way.
func (o *secretsOperator) awaitRotation(ctx context.Context, s *api.Secret) (staticCreds, *api.Secret, error) {
	first, err := metaOf(s.Data)
	if err != nil || !first.static() || first.rotated != o.meta.rotated || first.schedule != "" && first.schedule != o.meta.schedule {
		return first, s, err
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for pause, until := 500*time.Millisecond, time.Now().Add(10*time.Second); ; pause = min(pause*3/2, 2*time.Second) {
		if s, err = o.read(ctx); err != nil {
			return first, nil, err
		}
		meta, err := metaOf(s.Data)
		if err != nil {
			return first, nil, err
		}
		why := ""
		if meta.rotated == first.rotated {
			expected := max(0, o.meta.ttl-int64(time.Since(o.at)/time.Second))
			switch {
			case meta.ttl <= 2:
				why = "the rotation is near"
			case meta.schedule != "" && (meta.ttl >= o.meta.ttl || expected <= 5 && meta.ttl > 5):
				why = "the ttl grew: a scheduled rotation seems to be under way"
			}
		}
		if why == "" {
			return meta, s, nil
		}
		if time.Now().Add(pause).After(until) {
			return first, nil, errors.New(why)
		}
		wait.Reset(pause)
		select {
		case <-ctx.Done():
			return first, nil, ctx.Err()
		case <-wait.C:
		}
	}
}

// content is what the manifest lets into the Secret.
func (o *secretsOperator) content(s *api.Secret) (map[string]string, error) {
	all, err := inSecret(s.Data)
	if err != nil {
		return nil, err
	}
	if !o.excludeRaw {
		raw, err := json.Marshal(s.Data)
		if err != nil {
			return nil, err
		}
		all["_raw"] = string(raw)
	}
	for name := range all {
		if !o.includes.MatchString(name) && (name != "_raw" || o.excludeRaw) {
			delete(all, name)
		}
	}
	return all, nil
}

// inSecret is an answer's fields as a Secret holds them: texts as they are, all else as JSON.
func inSecret(d data) (map[string]string, error) {
	out := map[string]string{}
	for name, v := range d {
		if text, ok := v.(string); ok {
			out[name] = text
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		out[name] = string(raw)
	}
	return out, nil
}

// unwatched are the fields whose change is none.
var unwatched = regexp.MustCompile(`^ttl|rotation_schedule|rotation_period|last_vault_rotation|_raw$`)

func (o *secretsOperator) macOf(content map[string]string) ([]byte, error) {
	watched := map[string]string{}
	for name, v := range content {
		if !unwatched.MatchString(name) {
			watched[name] = v
		}
	}
	message, err := json.Marshal(watched)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, o.macKey)
	mac.Write(message)
	return mac.Sum(nil), nil
}

// renewAt is when a lease is renewed: after the percentage of it, and up to a tenth later.
func (o *secretsOperator) renewAt() time.Duration {
	lease := time.Duration(o.lease.LeaseDuration) * time.Second
	return lease*time.Duration(o.percent)/100 + mathrand.N(lease/10)
}

// operatorAndSchedules shows which scheduled roles the operator can follow: those whose ttl counts down to the next
// activation. Where it is cut by the refresh interval, the operator takes each read for a rotation under way.
func operatorAndSchedules(t *testing.T, e *env) {
	e.write("roles/orders", data{"rotation_schedule": "0 3 * * *", "grace_period": "3d", "refresh_interval": "24h"})
	o := newSecretsOperator(t, e, "static.yaml")
	again := func() error {
		t.Helper()
		if _, err := o.sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		// It reads again when the ttl is over, or after a restart: by then the rest is smaller.
		told := o.meta.ttl
		eventually(t, "the ttl counts down", func() error {
			if d := e.read("creds/orders"); number(t, d, "ttl") >= told {
				return errNotYet
			}
			return nil
		})
		_, err := o.sync(t.Context())
		return err
	}
	if err := again(); err != nil {
		t.Errorf("with a ttl that counts down: %v", err)
	}
	if o.object.writes != 1 {
		t.Errorf("%d changes of the Secret without a rotation", o.object.writes-1)
	}
	e.write("roles/orders", data{"refresh_interval": "5m"})
	if _, err := o.sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := o.sync(t.Context()); err == nil || !strings.Contains(err.Error(), "the ttl grew") {
		t.Errorf("with a ttl that does not count down: %v; is what the documentation says of schedules still so?", err)
	}
}

func operatorFollowsDynamicRole(t *testing.T, e *env) {
	e.write("roles/jobs", data{"type": "dynamic", "ttl": "6s", "max_ttl": "16s", "grace_period": "20s"})
	o := newSecretsOperator(t, e, "dynamic.yaml")
	w := e.watch(o, o.object)
	first := o.object.key()
	within(t, 30*time.Second, "another key at the end of max_ttl", func() error {
		if o.object.key() == first {
			return errNotYet
		}
		return nil
	})
	// Renewals are no change: the first key lived for more than one lease.
	if reads, writes, restarts := o.object.counts(); writes != 2 || restarts != 2 || reads < 3 {
		t.Errorf("%d changes and %d restarts in %d reads", writes, restarts, reads)
	}
	e.write("rotate/jobs", data{"reason": "a new generation"})
	within(t, 40*time.Second, "a key of the new generation", func() error {
		if v := e.verify(o.object.key()); number(t, v, "version") != 2 {
			return errNotYet
		}
		return nil
	})
	w.neverDead("renewals, the end of max_ttl and a rotation")
	killed := o.object.key()
	e.write("revoke/jobs", data{"all": true, "reason": "found in a log"})
	within(t, 30*time.Second, "another key after the emergency", func() error {
		if o.object.key() == killed {
			return errNotYet
		}
		return nil
	})
	if d := w.deadest(); d > 10*time.Second {
		t.Errorf("the dead key was held for %s, want less than a lease of 6 seconds", d)
	}
	w.noFailures()
}

// externalSecrets plays External Secrets: its generator reads, and its template makes the Secret.
type externalSecrets struct {
	client *api.Client
	path   string
	query  url.Values
	every  time.Duration
	field  string
	object *secretObject
}

func (x *externalSecrets) sync(ctx context.Context) (time.Duration, error) {
	s, err := x.client.Logical().ReadWithDataWithContext(ctx, x.path, x.query)
	if err != nil || s == nil {
		return 0, fmt.Errorf("read: %w, answer %t", err, s != nil)
	}
	all, err := inSecret(s.Data)
	if err != nil {
		return 0, err
	}
	if value := all[x.field]; value == "" {
		return 0, fmt.Errorf("no %s in the answer", x.field)
	} else if value != x.object.key() {
		x.object.store(map[string]string{"api_key": value}, false)
	}
	return x.every, nil
}

// newExternalSecrets is set up as the manifests say, but for the mount. The interval and the README's grace are too
// long for a test: they are scaled to the grace given.
func newExternalSecrets(t *testing.T, e *env, grace time.Duration) *externalSecrets {
	t.Helper()
	generator, external, ok := strings.Cut(manifest(t, "external-secrets/orders.yaml"), "kind: ExternalSecret\n")
	if !ok {
		t.Fatal("there is no ExternalSecret")
	}
	if method := says(t, generator, "  method: (.+)"); method != "GET" {
		t.Fatalf("method %s", method)
	}
	every, err := time.ParseDuration(says(t, external, "  refreshInterval: (.+)"))
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := time.ParseDuration(says(t, manifest(t, "README.md"), `    vault write apikeys/roles/orders .*grace_period=(\S+)`))
	if err != nil {
		t.Fatal(err)
	}
	return &externalSecrets{
		client: e.tokenFor(t, e.policy(t, reader)), path: strings.Replace(says(t, generator, "  path: (.+)"), "apikeys/", e.mount+"/", 1),
		query: url.Values{"repeatable": {says(t, generator, `    repeatable:\n    - "(.+)"`)}},
		every: time.Duration(float64(grace) * float64(every) / float64(shipped)), field: says(t, external, `        api_key: "{{ \.(\w+) }}"`),
		object: &secretObject{},
	}
}

// externalSecretsLeaveOthers reads a role whose keys are handed out once: it is refused, and the key not used up.
func externalSecretsLeaveOthers(t *testing.T, e *env) {
	e.write("roles/orders", data{"reveal": "once"})
	x := newExternalSecrets(t, e, time.Minute)
	if _, err := x.sync(t.Context()); err == nil || x.object.key() != "" {
		t.Errorf("a key that is handed out once: %v", err)
	}
	e.creds("orders")
}
