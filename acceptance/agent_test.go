// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// holder is a consumer by the real agent, with a file of bootstrap/agent as it is: what it holds is shown to the
// server all the time.
type holder struct {
	e *env
	// t is that of the scenario: it names the holder in what it tells.
	t     *testing.T
	name  string
	file  string
	out   *output
	agent *process

	mu sync.Mutex
	// key is what is held, verdict what the server last said of it.
	key     string
	verdict data
	// refused is for how long a refused key was held since the last account, refusals how often it was seen.
	refused  time.Duration
	refusals int
	keys     map[string]bool
}

// toldByApplication is the file in which an application with its key in the environment tells what it was started with.
const toldByApplication = "held"

// applicationInEnvironment is in the place of bootstrap/agent/app-env.sh.
const applicationInEnvironment = `umask 077
printf %s "${ORDERS_API_KEY:-$JOBS_API_KEY}" >` + toldByApplication + `.new && mv ` + toldByApplication + `.new ` + toldByApplication + `
exec sleep 86400
`

// watchPace is how often a holder's key is shown to the server.
const watchPace = 25 * time.Millisecond

// agentSlack is beyond what an agent promises, on a machine that is busy: for a read, a verdict, the start of a process.
const agentSlack = 3 * time.Second

// agentDelay is from the end of the ttl that it was told until an agent reads, environmentDelay from then until it
// stops an application whose environment changed.
const (
	agentDelay       = time.Second
	environmentDelay = 2 * time.Second
)

// holders starts one agent for each configuration, with a token that the server's own renewals keep alive.
func (e *env) holders(t *testing.T, role string, configs ...string) []*holder {
	t.Helper()
	policy := strings.ReplaceAll(e.mount, "/", "-") + "-" + role
	if err := e.client.Sys().PutPolicy(policy, strings.ReplaceAll(e.policy(t, reader), "creds/orders", "creds/"+role)); err != nil {
		t.Fatal(err)
	}
	var hs []*holder
	for _, config := range configs {
		token, err := e.client.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{policy}, Period: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		ours := strings.NewReplacer("apikeys/creds/orders", e.path("creds/"+role), "apikeys/creds/jobs", e.path("creds/"+role))
		copyFiles(t, filepath.Join("..", "bootstrap", "agent"), dir, ours)
		put(t, filepath.Join(dir, "token"), token.Auth.ClientToken)
		put(t, filepath.Join(dir, "app-env.sh"), applicationInEnvironment)
		h := &holder{e: e, t: t, name: config, out: &output{}, file: filepath.Join(dir, role+".key"), keys: map[string]bool{}}
		if strings.HasPrefix(config, "env") {
			h.file = filepath.Join(dir, toldByApplication)
		}
		h.agent = launchIn(t, dir, h.out, []string{"HOME=" + dir, "VAULT_ADDR=" + e.client.Address()}, programs.real,
			"agent", "-config=login-token.hcl", "-config="+config)
		watch := make(chan struct{})
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			h.watch(e.clientFor(e.client.Address(), e.server.root()), watch)
		}()
		t.Cleanup(func() {
			close(watch)
			<-stopped
			h.leaksNothing()
		})
		hs = append(hs, h)
	}
	return hs
}

// copyFiles copies the files of a directory, with their text replaced.
func copyFiles(t *testing.T, from, to string, r *strings.Replacer) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range entries {
		raw, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(to, f.Name()), r.Replace(string(raw)))
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// watch shows the server what is held, until stop. A server that is away says nothing of a key.
func (h *holder) watch(c *api.Client, stop chan struct{}) {
	tick := time.NewTicker(watchPace)
	defer tick.Stop()
	var since time.Time // a refused key is held
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		raw, err := os.ReadFile(h.file)
		if err != nil {
			continue
		}
		key := string(raw)
		d := data{"code": "nothing in it"}
		if key != "" {
			s, err := c.Logical().Write(h.e.path("verify"), data{"key": key})
			var refusal *api.ResponseError
			switch {
			case err == nil && s != nil:
				d = s.Data
			case errors.As(err, &refusal) && refusal.StatusCode == http.StatusBadRequest:
				d = data{"code": refusal.Error()}
			default:
				continue
			}
		}
		// It may have been replaced while the server judged it.
		if again, err := os.ReadFile(h.file); err != nil || string(again) != key {
			continue
		}
		now := time.Now()
		h.mu.Lock()
		h.key, h.verdict = key, d
		h.keys[key] = true
		if !since.IsZero() {
			h.refused += now.Sub(since)
		}
		if since = (time.Time{}); d["valid"] != true {
			since = now
			h.refusals++
		}
		h.mu.Unlock()
	}
}

// holds is the version of the key that is held and good.
func (h *holder) holds() (id string, version int64, err error) {
	if err := h.agent.running(); err != nil {
		h.t.Fatalf("%s: %v\n%s", h.name, err, tail(h.out.String()))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.verdict == nil:
		return "", 0, errNotYet
	case h.verdict["valid"] != true:
		return "", 0, fmt.Errorf("the key is %s", verdict(h.verdict))
	}
	return text(h.verdict, "key_id"), number(h.t, h.verdict, "version"), nil
}

// take waits until every holder has a good key of a version, or of a later one.
func take(t *testing.T, hs []*holder, version int64) {
	t.Helper()
	for _, h := range hs {
		eventually(t, fmt.Sprintf("%s has version %d", h.name, version), func() error {
			_, v, err := h.holds()
			if err == nil && v < version {
				return fmt.Errorf("it has version %d", v)
			}
			return err
		})
	}
}

// account tells for how long a refused key was held since the last account, and that it was not more than it may be.
func (h *holder) account(phase string, most time.Duration) (refused time.Duration) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	refused = h.refused
	h.t.Logf("%-20s %-40s a refused key was held for %s", h.name, phase, refused.Round(time.Millisecond))
	if refused > most || most == 0 && h.refusals > 0 {
		h.t.Errorf("%s: %s: a refused key was held for %s (%d verdicts), at most %s is allowed", h.name, phase, refused, h.refusals, most)
	}
	h.refused, h.refusals = 0, 0
	return refused
}

// leaksNothing looks at who may read the key beside the application.
func (h *holder) leaksNothing() {
	secretFile(h.t, h.file)
	for key := range h.keys {
		h.e.saw(key)
		if strings.Contains(h.out.String(), key) {
			h.t.Errorf("%s: the agent logged a key", h.name)
		}
	}
}

// secretFile asserts that a file can be read by its owner alone.
func secretFile(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Stat(path); err != nil {
		t.Error(err)
	} else if perm := info.Mode().Perm(); perm != 0o600 {
		t.Errorf("%s has the mode %o", path, perm)
	}
}

// environment reports whether the agent runs an application instead of writing a file.
func (h *holder) environment() bool { return strings.HasPrefix(h.name, "env") }

// emergency accounts for keys that were revoked while they were held: agents notice when they ask again, which they do
// within `asks`.
func emergency(t *testing.T, hs []*holder, phase string, asks time.Duration) {
	t.Helper()
	for _, h := range hs {
		most, least := asks+agentSlack, time.Duration(0)
		if h.environment() {
			most, least = most+environmentDelay, environmentDelay/2
		}
		// A refusal that nobody saw would mean that nobody looked.
		if refused := h.account(phase, most); refused < least {
			t.Errorf("%s: a revoked key was held for %s, so the watch does not see refusals", h.name, refused)
		}
	}
}

func never(hs []*holder, phase string) {
	for _, h := range hs {
		h.t.Helper()
		h.account(phase, 0)
	}
}

// agentsWithStaticRole: a file and an application in its environment follow every rotation before the old key is
// refused. What is revoked they hold until the ttl that they were told is over.
func agentsWithStaticRole(t *testing.T, e *env) {
	const refresh = 2 * time.Second
	e.write("roles/orders", data{"refresh_interval": "2s", "grace_period": "30s"})
	hs := e.holders(t, "orders", "file.hcl", "env.hcl")
	take(t, hs, 1)

	e.write("rotate/orders", data{"reason": "by hand"})
	take(t, hs, 2)
	never(hs, "rotation by hand")

	e.write("rotate/orders", data{"activate_at": "3s"})
	take(t, hs, 3)
	never(hs, "staged, active at its time")

	e.write("rotate/orders", data{"stage": true})
	e.write("promote/orders", nil)
	take(t, hs, 4)
	never(hs, "staged, promoted")

	// At the worst moment: the file was read anew just now, and the application is about to be.
	e.write("rotate/orders", nil)
	take(t, hs[:1], 5)
	e.write("revoke/orders", data{"all": true, "reason": "leaked"})
	take(t, hs, 6)
	emergency(t, hs, "emergency", refresh+agentDelay)
}

// agentsWithDynamicRole: each has a key of its own, whose lease the agent renews, and another one before the lease
// cannot be renewed any longer.
func agentsWithDynamicRole(t *testing.T, e *env) {
	// Long enough for a tenth of it to be more than the two seconds before an application is restarted; a rotation is
	// noticed at the first renewal after it, when a quarter is left.
	const lease = 15 * time.Second
	e.write("roles/jobs", data{"type": "dynamic", "ttl": "15s", "max_ttl": "10m", "grace_period": "15s"})
	hs := e.holders(t, "jobs", "file-dynamic.hcl", "env-dynamic.hcl")
	take(t, hs, 1)
	first := ids(t, hs)
	if len(first) != len(hs) {
		t.Errorf("%d agents have the keys %v", len(hs), first)
	}
	renewed := 0
	leases, err := e.client.Logical().List("sys/leases/lookup/" + e.path("creds/jobs"))
	if err != nil || leases == nil {
		t.Fatalf("leases: %v", err)
	}
	names, _ := leases.Data["keys"].([]any)
	for _, name := range names {
		l, err := e.client.Sys().Lookup(e.path("creds/jobs/") + fmt.Sprint(name))
		if err != nil {
			t.Fatal(err)
		}
		if l.Data["last_renewal"] != nil {
			renewed++
		}
	}
	if renewed != len(hs) {
		t.Errorf("%d of %d leases were renewed", renewed, len(names))
	}

	e.write("rotate/jobs", data{"reason": "by hand"})
	take(t, hs, 2)
	never(hs, "rotation by hand")

	before := ids(t, hs)
	e.write("revoke/jobs", data{"all": true, "reason": "leaked"})
	another(t, before, hs...)
	emergency(t, hs, "emergency", lease*3/4)
}

// ids are the different keys of the holders.
func ids(t *testing.T, hs []*holder) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, h := range hs {
		id, _, err := h.holds()
		if err != nil {
			t.Fatalf("%s: %v", h.name, err)
		}
		found[id] = true
	}
	return found
}

// another waits until every holder has a good key that is none of those before.
func another(t *testing.T, before map[string]bool, hs ...*holder) {
	t.Helper()
	for _, h := range hs {
		eventually(t, h.name+" has another key", func() error {
			id, _, err := h.holds()
			if err == nil && before[id] {
				return fmt.Errorf("it has %s still", id)
			}
			return err
		})
	}
}

// agentsThroughUpheaval: whatever the server suffers, an agent holds a good key, and follows a rotation after it.
func agentsThroughUpheaval(t *testing.T, e *env) {
	e.write("roles/orders", data{"refresh_interval": "2s", "grace_period": "1m"})
	// An agent renews at two thirds of the lease, so the server is sealed then; a third is left to try again.
	e.write("roles/jobs", data{"type": "dynamic", "ttl": "36s", "max_ttl": "10m"})
	e.write("roles/long-jobs", data{"type": "dynamic", "ttl": "10m"})
	unrenewed := e.holders(t, "jobs", "file-dynamic.hcl")
	take(t, unrenewed, 1)
	static := e.holders(t, "orders", "file.hcl", "env.hcl")
	all := slices.Concat(unrenewed, static, e.holders(t, "long-jobs", "env-dynamic.hcl"))
	take(t, all, 1)

	for _, pid := range e.server.pluginPIDs(t) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	e.rotateUntilAnswered(t, "orders")
	take(t, static, 2)
	take(t, all, 1)
	never(all, "the plugin killed")

	before := ids(t, unrenewed)
	marks := map[*holder]int{}
	for _, h := range all {
		marks[h] = len(h.out.String())
	}
	e.server.seal(t)
	for _, h := range static {
		h.logs(t, "retry attempt", marks[h])
	}
	unrenewed[0].logs(t, "failed to renew", marks[unrenewed[0]])
	e.server.unseal(t)
	e.rotateUntilAnswered(t, "orders")
	// What could not be renewed was replaced before its end.
	another(t, before, unrenewed...)
	take(t, static, 3)
	take(t, all, 1)
	never(all, "sealed and unsealed")
}

// rotateUntilAnswered repeats one rotation until a server that is getting up answers it.
func (e *env) rotateUntilAnswered(t *testing.T, role string) {
	t.Helper()
	id := fmt.Sprint("upheaval-", time.Now().UnixNano())
	eventually(t, "a rotation", func() error {
		s, err := e.client.Logical().Write(e.path("rotate/"+role), data{"request_id": id})
		if err == nil && s == nil {
			return errNotYet
		}
		return err
	})
}

// logs waits until the agent told something after that much of its output.
func (h *holder) logs(t *testing.T, what string, after int) {
	t.Helper()
	eventually(t, h.name+" logs "+what, func() error {
		if !strings.Contains(h.out.String()[after:], what) {
			return errNotYet
		}
		return nil
	})
}

// agentReadme does what bootstrap/agent/README.md says, as it is written there.
func agentReadme(t *testing.T, e *env) {
	// Where this runs under nohup, SIGHUP is ignored, and a shell cannot trap what was when it began.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	const mount = "apikeys"
	if err := e.client.Sys().Mount(mount, &api.MountInput{Type: pluginName}); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	here := filepath.Join(home, "agent")
	for _, dir := range []string{"agent", "policies", "bin"} {
		if err := os.Mkdir(filepath.Join(home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	copyFiles(t, filepath.Join("..", "bootstrap", "agent"), here, strings.NewReplacer())
	copyFiles(t, filepath.Join("..", "bootstrap", "policies"), filepath.Join(home, "policies"), strings.NewReplacer())
	if err := os.Symlink(programs.real, filepath.Join(home, "bin", "vault")); err != nil {
		t.Fatal(err)
	}
	made := &env{suite: e.suite, t: t, mount: mount, client: e.client}
	eventually(t, "the mount", func() error {
		_, err := e.client.Logical().Read(mount + "/config")
		return err
	})

	// start runs a block in a terminal. Where the reader's server and token are said, the ones at hand are meant.
	exports := "export VAULT_ADDR=http://127.0.0.1:8200 VAULT_TOKEN=root\n"
	start := func(block string) *process {
		t.Helper()
		script := strings.NewReplacer("http://127.0.0.1:8200", e.client.Address(), "VAULT_TOKEN=root", "VAULT_TOKEN="+e.client.Token()).
			Replace(exports + block)
		return launchIn(t, here, &output{}, []string{"HOME=" + home, "PATH=" + filepath.Join(home, "bin") + ":" + os.Getenv("PATH")}, "sh", "-ec", script)
	}
	shows := func(p *process, want string) {
		t.Helper()
		eventually(t, "it shows "+want, func() error {
			switch err := p.running(); {
			case strings.Contains(p.out.String(), want):
				return nil
			case err != nil:
				t.Fatalf("%v\n%s", err, tail(p.out.String()))
			}
			return errNotYet
		})
	}
	done := func(p *process) string {
		t.Helper()
		eventually(t, "a block ends", func() error {
			if p.running() == nil {
				return errNotYet
			}
			return nil
		})
		if p.err != nil {
			t.Fatalf("%v\n%s", p.err, tail(p.out.String()))
		}
		return p.out.String()
	}
	public := func(k key) string { return "ak_" + k.id }
	current := func() string { return public(made.creds("orders")) }
	// keeps waits until a file holds a good key, and shows the public part.
	keeps := func(name string) string {
		t.Helper()
		path := filepath.Join(here, name)
		var id string
		eventually(t, name, func() error {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			made.saw(string(raw))
			v := made.verify(string(raw))
			if id = text(v, "key_id"); v["valid"] != true {
				return fmt.Errorf("the key is %s", verdict(v))
			}
			return nil
		})
		secretFile(t, path)
		return "ak_" + id
	}

	var agent, app *process
	var jobs string
	steps := []struct {
		has string
		run func(block string)
	}{
		{"-config=login-token.hcl -config=file.hcl", func(block string) {
			if !strings.HasPrefix(block, exports) {
				t.Errorf("the first block does not begin with %s", exports)
			}
			agent = start(block)
			keeps("orders.key")
			secretFile(t, filepath.Join(here, "token"))
		}},
		{"sh app-file.sh", func(block string) {
			app = start(block)
			shows(app, "took up "+current())
		}},
		{"rotate/orders", func(block string) {
			done(start(block))
			shows(app, "took up "+current())
			keeps("orders.key")
		}},
		{"revoke/orders version=2", func(block string) {
			dead := made.creds("orders")
			done(start(block))
			made.judged(dead, "REVOKED")
			shows(app, "took up "+current())
			app.interrupt(t)
			agent.interrupt(t)
		}},
		{"-config=env.hcl", func(block string) {
			agent = start(block)
			shows(agent, "runs with "+current())
		}},
		{"rotate/orders", func(block string) {
			done(start(block))
			shows(agent, "runs with "+current())
			agent.interrupt(t)
		}},
		{"-config=file-dynamic.hcl", func(block string) {
			agent = start(block)
			jobs = keeps("jobs.key")
		}},
		{"cut -c1-15 jobs.key", func(block string) {
			out := done(start(block))
			if strings.Count(out, strings.TrimPrefix(jobs, "ak_")) != 2 || !strings.Contains(out, jobs+"\n") {
				t.Errorf("of the key %s it shows\n%s", jobs, out)
			}
			agent.interrupt(t)
		}},
		{"-config=env-dynamic.hcl", func(block string) {
			agent = start(block)
			shows(agent, "runs with ak_")
			agent.interrupt(t)
			if err := os.Remove(filepath.Join(here, "orders.key")); err != nil {
				t.Error(err)
			}
		}},
		{"-config=login-approle.hcl", func(block string) {
			agent = start(block)
			got := keeps("orders.key")
			secretFile(t, filepath.Join(here, "secret-id"))
			if got != current() {
				t.Errorf("the file has %s, current is %s", got, current())
			}
			agent.interrupt(t)
		}},
		{"rm -f", func(block string) {
			done(start(block))
			left, err := filepath.Glob(filepath.Join(here, "*"))
			if err != nil {
				t.Fatal(err)
			}
			shipped, err := filepath.Glob(filepath.Join("..", "bootstrap", "agent", "*"))
			if err != nil {
				t.Fatal(err)
			}
			if len(left) != len(shipped) {
				t.Errorf("left behind: %v", left)
			}
		}},
	}
	raw, err := os.ReadFile(filepath.Join(here, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := indented(string(raw))
	for i, s := range steps {
		if i >= len(blocks) || !strings.Contains(blocks[i], s.has) {
			t.Fatalf("block %d of the README has no %s:\n%s", i+1, s.has, strings.Join(blocks, "\n"))
		}
		s.run(blocks[i])
	}
	if len(blocks) != len(steps) {
		t.Errorf("%d blocks, %d were run", len(blocks), len(steps))
	}
}

// indented are the blocks of code of a page.
func indented(page string) []string {
	var blocks []string
	inside := false
	for line := range strings.Lines(page) {
		code, ok := strings.CutPrefix(line, "    ")
		switch {
		case ok && inside:
			blocks[len(blocks)-1] += code
		case ok:
			blocks = append(blocks, code)
		}
		inside = ok
	}
	return blocks
}
