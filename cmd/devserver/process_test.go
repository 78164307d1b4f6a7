// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/testplugin"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// runVariable makes the test binary be the development server.
const runVariable = "DEVSERVER_TEST_RUN"

func TestMain(m *testing.M) {
	testplugin.RunIfLaunched()
	if os.Getenv(runVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// limit is how long a test waits for a process to do something.
const limit = 30 * time.Second

// devserver is one running server process with the test plugin mounted at apikeys/.
type devserver struct {
	t      *testing.T
	cmd    *exec.Cmd
	addr   string
	stdout string
	exited chan struct{}
	err    error

	mu  sync.Mutex
	log bytes.Buffer
}

func (d *devserver) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

func (d *devserver) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func start(t *testing.T, args ...string) *devserver {
	t.Helper()
	d := &devserver{t: t, exited: make(chan struct{})}
	d.cmd = exec.Command(self(t), append([]string{"-listen", "127.0.0.1:0", "-plugin", self(t)}, args...)...)
	d.cmd.Env = append(os.Environ(), runVariable+"=1")
	d.cmd.Stderr = d
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		defer close(d.exited)
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			line := scan.Text()
			if _, addr, ok := strings.Cut(line, "ready: "); ok {
				ready <- addr
				continue
			}
			d.stdout += line + "\n"
		}
		d.err = d.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.exited
		if t.Failed() {
			t.Logf("server log:\n%s", d.logged())
		}
	})
	select {
	case d.addr = <-ready:
	case <-d.exited:
		t.Fatalf("server ended before it was ready: %v\n%s", d.err, d.logged())
	case <-time.After(limit):
		t.Fatal("server was not ready in time")
	}
	return d
}

func (d *devserver) client(token string) *api.Client {
	d.t.Helper()
	cfg := api.DefaultConfig()
	cfg.Address, cfg.MaxRetries = d.addr, 0
	c, err := api.NewClient(cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	c.SetToken(token)
	c.ClearNamespace()
	return c
}

func (d *devserver) root() *api.Client { return d.client("root") }

func (d *devserver) pluginPID() int { return d.pluginPIDOf("apikeys") }

func (d *devserver) pluginPIDOf(mount string) int {
	d.t.Helper()
	s, err := d.root().Logical().Read(mount + "/echo")
	if err != nil {
		d.t.Fatal(err)
	}
	pid, err := strconv.Atoi(fmt.Sprint(s.Data["pid"]))
	if err != nil {
		d.t.Fatal(err)
	}
	return pid
}

// stop ends the server as an init system would and returns what it said.
func (d *devserver) stop(sig os.Signal) error {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
	select {
	case <-d.exited:
	case <-time.After(limit):
		d.t.Fatalf("server did not end on %s", sig)
	}
	return d.err
}

// gone reports whether the process is no more; a zombie that nobody reaped counts as gone.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

func TestStopIsClean(t *testing.T) {
	d := start(t, "-tick", "10ms")
	if !strings.Contains(d.stdout, "DEVELOPMENT") {
		t.Errorf("no word of warning in %q", d.stdout)
	}
	if !regexp.MustCompile(`^http://127\.0\.0\.1:\d+$`).MatchString(d.addr) {
		t.Errorf("ready line has %q", d.addr)
	}
	pid := d.pluginPID()
	eventually(t, "periodic calls", func() bool {
		s, err := d.root().Logical().Read("apikeys/counters")
		return err == nil && fmt.Sprint(s.Data["ticks"]) > "1"
	})
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Errorf("exit: %v", err)
	}
	if !gone(pid) {
		t.Error("the plugin outlived the server")
	}
}

func TestKilledServerTakesThePluginAlongAndLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "storage.db")
	d := start(t, "-storage", file)
	must := func(s *api.Secret, err error) *api.Secret {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := d.root().Sys().PutPolicy("app", `path "apikeys/*" { capabilities = ["create", "read", "update"] }`); err != nil {
		t.Fatal(err)
	}
	if err := d.root().Sys().Mount("more", &api.MountInput{Type: filepath.Base(self(t)), Config: api.MountConfigInput{MaxLeaseTTL: "5h"}}); err != nil {
		t.Fatal(err)
	}
	app := must(d.root().Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"app"}, TTL: "1h"})).Auth.ClientToken
	must(d.client(app).Logical().Write("apikeys/kv/a", map[string]any{"value": "kept"}))
	must(d.root().Logical().Write("more/kv/a", map[string]any{"value": "kept too"}))
	long := must(d.client(app).Logical().Write("apikeys/lease/long", map[string]any{"ttl": "30m", "max_ttl": "2h"}))
	must(d.client(app).Logical().Write("apikeys/lease/short", map[string]any{"ttl": "1s"}))
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("storage file: %v, %v", info.Mode(), err)
	}
	pid := d.pluginPID()
	if err := d.stop(syscall.SIGKILL); err == nil {
		t.Error("a killed server exited well")
	}
	if runtime.GOOS == "linux" {
		eventually(t, "the orphaned plugin ends", func() bool { return gone(pid) })
	}

	d = start(t, "-storage", file)
	if got := must(d.client(app).Logical().Read("apikeys/kv/a")).Data["value"]; got != "kept" {
		t.Errorf("value %v", got)
	}
	if got := must(d.root().Logical().Read("more/kv/a")).Data["value"]; got != "kept too" {
		t.Errorf("value of the other mount %v", got)
	}
	if got := must(d.client(app).Sys().Renew(long.LeaseID, 3600)); got.LeaseDuration != 3600 {
		t.Errorf("renewed %+v", got)
	}
	eventually(t, "the short lease ends after the restart", func() bool {
		return fmt.Sprint(must(d.root().Logical().Read("apikeys/counters")).Data["revocations"]) == "1"
	})
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Errorf("exit: %v", err)
	}

	// Another root token replaces the previous one.
	d = start(t, "-storage", file, "-root-token", "another")
	if _, err := d.root().Auth().Token().LookupSelf(); err == nil {
		t.Error("the former root token still works")
	}
	must(d.client("another").Auth().Token().LookupSelf())
}

// TestNothingAcknowledgedIsLost kills the server while many clients write, several times.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "storage.db")
	const writers, rounds = 8, 3
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	for round := range rounds {
		d := start(t, "-storage", file)
		var wg sync.WaitGroup
		var enough sync.Once
		reached := make(chan struct{})
		for w := range writers {
			c := d.client("root")
			wg.Go(func() {
				for i := 0; ; i++ {
					key := fmt.Sprintf("apikeys/kv/r%dw%dn%d", round, w, i)
					if _, err := c.Logical().Write(key, map[string]any{"value": key}); err != nil {
						return
					}
					mu.Lock()
					acknowledged[key] = true
					n := len(acknowledged)
					mu.Unlock()
					if n > 100*(round+1) {
						enough.Do(func() { close(reached) })
					}
				}
			})
		}
		select {
		case <-reached:
		case <-time.After(limit):
			t.Error("the writers did not get far")
		}
		_ = d.stop(syscall.SIGKILL)
		wg.Wait()
	}
	d := start(t, "-storage", file)
	for key := range acknowledged {
		s, err := d.root().Logical().Read(key)
		if err != nil || s == nil || s.Data["value"] != key {
			t.Fatalf("%s was acknowledged and is lost: %v, %v", key, s, err)
		}
	}
}

// TestKilledPluginFailsNoRequest kills the plugin again and again under clients that never see it.
func TestKilledPluginFailsNoRequest(t *testing.T) {
	d := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var done sync.Map
	for w := range 4 {
		c := d.client("root")
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("apikeys/kv/w%d", w)
				if _, err := c.Logical().Write(key, map[string]any{"value": strconv.Itoa(i)}); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				if s, err := c.Logical().Read(key); err != nil || s.Data["value"] != strconv.Itoa(i) {
					t.Errorf("read back: %v, %v", s, err)
					return
				}
				done.Store(w, i)
			}
		})
	}
	for range 5 {
		pid := d.pluginPID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		done.Clear()
		eventually(t, "every client gets on after the kill", func() bool {
			n := 0
			done.Range(func(any, any) bool { n++; return true })
			return n == 4 || t.Failed()
		})
	}
	cancel()
	wg.Wait()
}

func TestSecretsAreNotLogged(t *testing.T) {
	d := start(t, "-log-level", "trace", "-tick", "20ms")
	const secret, header, token = "hidden-in-the-query", "hidden-in-a-header", "hidden-token"
	c := d.root()
	if _, err := c.Auth().Token().Create(&api.TokenCreateRequest{ID: token}); err != nil {
		t.Fatal(err)
	}
	c = d.client(token)
	c.AddHeader("X-Something", header)
	for _, path := range []string{"apikeys/echo", "apikeys/absent/" + secret, "nowhere/" + secret, "sys/nowhere/" + secret} {
		_, _ = c.Logical().ReadWithData(path, map[string][]string{"key": {secret}})
		_, _ = c.Logical().Write(path, map[string]any{"key": secret})
	}
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	log := d.stdout + d.logged()
	if !strings.Contains(log, "request") {
		t.Error("nothing was logged at all")
	}
	for _, s := range []string{secret, header, token} {
		if strings.Contains(log, s) {
			t.Errorf("%s was logged", s)
		}
	}
}

// TestNoKeyOfARequestIsLogged puts keys wherever a request has room for them besides its body.
func TestNoKeyOfARequestIsLogged(t *testing.T) {
	d := start(t, "-log-level", "trace", "-tick", "20ms")
	minted, err := keyformat.Mint("ak", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, foreign := minted.Reveal(), "sk-foreign-key-of-somebody"
	ask := func(method, path string, change func(*http.Request)) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, d.addr+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", "root")
		if change != nil {
			change(req)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, key := range []string{own, foreign} {
		for _, path := range []string{
			"%s", "%s/", "%s/x", "x%sx/y", "nowhere/%s", "apikeys/%s", "apikeys/kv/%s", "apikeys/kv/a/%s", "sys/%s", "sys/mounts/%s", "sys/mounts/%s/tune",
			"sys/internal/ui/mounts/%s", "sys/policies/acl/%s", "sys/leases/revoke/%s", "sys/leases/revoke-prefix/%s", "sys/health/%s", "auth/%s", "auth/token/%s",
			"identity/%s", "cubbyhole/%s", "sys/plugins/catalog/secret/%s", "%s/%%ff", "%s/%%00", "%s/..", "x?%s=1", "x?a=%[1]s",
		} {
			for _, method := range []string{"GET", "LIST", "HELP", "POST", "PATCH", "DELETE", "OPTIONS"} {
				ask(method, "/v1/"+fmt.Sprintf(path, key), nil)
			}
		}
		ask("GET", "/"+key, nil)
		ask(key, "/v1/apikeys/echo", nil)
		ask("GET", "/v1/apikeys/echo", func(r *http.Request) { r.Host = key })
		ask("GET", "/v1/apikeys/echo", func(r *http.Request) { r.Header.Set("Origin", "http://"+key) })
	}
	// What can be mounted has a name that the log tells; where that has a key in it, without the key.
	sum, err := host.Checksum(self(t))
	if err != nil {
		t.Fatal(err)
	}
	plugin := &api.RegisterPluginInput{Name: own, Type: api.PluginTypeSecrets, Command: filepath.Base(self(t)), SHA256: hex.EncodeToString(sum)}
	if err := d.root().Sys().RegisterPlugin(plugin); err != nil {
		t.Fatal(err)
	}
	if err := d.root().Sys().Mount("m-"+own, &api.MountInput{Type: own}); err != nil {
		t.Fatal(err)
	}
	// Its plugin dies, so that the log tells of it.
	if err := syscall.Kill(d.pluginPIDOf("m-"+own), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := ask("GET", "/v1/m-"+own+"/echo", nil); got != http.StatusOK {
		t.Errorf("status %d of a mount named like a key", got)
	}
	if _, err := d.root().Sys().ReloadPlugin(&api.ReloadPluginInput{Plugin: own}); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	log := d.stdout + d.logged()
	for _, s := range []string{own, foreign, strings.ToLower(own)} {
		if at := strings.Index(log, s); at >= 0 {
			t.Errorf("%.8s… was logged: %s", s, strings.ReplaceAll(log[max(0, at-200):at], s, "KEY"))
		}
	}
	for _, want := range []string{"route=apikeys/", "route=none", "route=sys/mounts/", "m-[key " + minted.ID() + "]/", "method=other"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

func TestRefusedFlags(t *testing.T) {
	exe := self(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-listen", "0.0.0.0:0"}, "loopback only"},
		{[]string{"-listen", ":0"}, "loopback only"},
		{[]string{"-listen", "192.0.2.1:0"}, "loopback only"},
		{[]string{"-listen", "nonsense"}, "-listen"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", "/nowhere"}, "make build"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-root-token", ""}, "root token"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-tick", "0s"}, "-tick"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-log-level", "loud"}, "-log-level"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-mount", "sys/x"}, "reserved"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-mount", "../x"}, "relative"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-mount", ""}, "empty"},
		{[]string{"-listen", "127.0.0.1:0", "-plugin", exe, "-storage", t.TempDir()}, "storage"},
		{[]string{"extra"}, "unexpected"},
	} {
		var out bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := run(ctx, c.args, &out, &out)
		if err == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
		if strings.Contains(out.String(), "ready") {
			t.Errorf("%q: said it was ready", c.args)
		}
		cancel()
	}
}

func TestStorageFileIsHeldByOneServer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "storage.db")
	start(t, "-storage", file)
	var out bytes.Buffer
	err := run(t.Context(), []string{"-listen", "127.0.0.1:0", "-plugin", self(t), "-storage", file}, &out, &out)
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second server on the file: %v", err)
	}
}
