// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/vault/api"
)

const (
	olderVersion = "v0.1.0-older"
	newerVersion = "v0.1.0-newer"

	versionFlag = "-X github.com/vault-apikeys/" + pluginName + "/internal/version.Version="
)

// upgrade follows the runbook of docs/operations.md with two mounts, one of them in a
// namespace where the server has such, and goes back again. Meanwhile both mounts are
// asked without a pause.
func upgrade(t *testing.T, e *env) {
	for _, version := range []string{olderVersion, newerVersion} {
		e.install(version)
	}
	mounts := []*upgraded{e.mountVersion("first", ""), e.mountVersion("second", "upgrades")}

	// One mount by itself first: the other goes on with the version that it has.
	asked := startAsking(mounts, 2)
	mounts[0].moveTo(newerVersion)
	mounts[0].is(newerVersion)
	mounts[1].is(olderVersion)
	mounts[1].moveTo(newerVersion)
	for _, m := range mounts {
		m.is(newerVersion)
		m.survived(m.static, m.dynamic)
	}
	asked.end(t)

	// And back: the records of the newer one are read by the older one where it can.
	for _, m := range mounts {
		m.static, m.dynamic = m.creds("r"), m.creds("d")
		m.moveTo(olderVersion)
		m.is(olderVersion)
		m.survived(m.static, m.dynamic)
	}
}

// rollingUpgrade: the nodes of a cluster come to the newer build one after the other, while the mount is in use. The
// older one is that of an earlier commit: it writes while the others run this one already, and they lead after it.
func rollingUpgrade(t *testing.T, s *cluster, e *env) {
	e.installWith(olderVersion, func(file string) { buildOlder(t, file, olderVersion) })
	e.install(newerVersion)
	m := e.mountVersion("rolling", "")
	asked := startAsking([]*upgraded{m}, 20)

	version := newerVersion
	if err := m.client.Sys().TuneMountAllowNil(m.mount, api.TuneMountConfigInput{PluginVersion: &version}); err != nil {
		t.Fatal(err)
	}
	first := s.active(t)
	restart := func(n *node) {
		n.process.end()
		n.start()
		n.unseal(t, s.unsealKey)
		s.active(t)
	}
	for i, n := range s.nodes {
		if n == first {
			continue
		}
		restart(n)
		m.write("rotate/r", data{"grace_period": "24h"}) // by the older build
		m.write(fmt.Sprintf("roles/while-%d", i), nil)
	}
	if s.active(t) == first {
		if _, err := m.client.Logical().Write(m.path("events/none"), data{"url": "https://hooks.example.com"}); err == nil {
			t.Error("it is not the older build that writes")
		}
	} else {
		t.Log("another node leads already")
	}
	m.static = m.creds("r")
	for _, n := range s.nodes { // whichever build it runs
		c := s.nodeEnv(m.env, n)
		if got := c.verify(m.static.secret)["code"]; got != "VALID" {
			t.Errorf("%s answers %v", n.id, got)
		}
	}
	if s.active(t) == first {
		s.stepDown(t)
	}
	m.client = m.clientFor(s.active(t).url(), s.token)
	m.is(newerVersion)
	m.survived(m.static, m.dynamic)
	m.write("rotate/r", data{"grace_period": "24h"})
	m.write("rotate/r", data{"grace_period": "1h"})
	restart(first)
	m.client = m.clientFor(s.active(t).url(), s.token)
	m.static = m.creds("r")
	m.survived(m.static, m.dynamic)
	asked.end(t)
}

// nodeEnv is env, at that node.
func (s *cluster) nodeEnv(e *env, n *node) *env {
	c := *e
	c.client = e.clientFor(n.url(), s.token)
	return &c
}

// install puts a build of that version into the plugin directory, under a file name of
// its own, and into the catalog.
func (e *env) install(version string) {
	e.t.Helper()
	e.installWith(version, func(file string) {
		build := exec.Command("go", "build", "-ldflags", versionFlag+version, "-o", file, "../cmd/"+pluginName)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			e.t.Fatalf("build: %v\n%s", err, text)
		}
	})
}

func (e *env) installWith(version string, build func(file string)) {
	e.t.Helper()
	command := pluginName + "-" + version
	file := filepath.Join(filepath.Dir(programs.plugin), command)
	build(file)
	e.t.Cleanup(func() { _ = os.Remove(file) })
	binary, err := os.ReadFile(file)
	if err != nil {
		e.t.Fatal(err)
	}
	sum := sha256.Sum256(binary)
	err = e.client.Sys().RegisterPlugin(&api.RegisterPluginInput{
		Name: pluginName, Type: api.PluginTypeSecrets, Command: command, Version: version, SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// upgraded is a mount whose version changes.
type upgraded struct {
	*env
	static, dynamic key
}

func (e *env) mountVersion(name, namespace string) *upgraded {
	e.t.Helper()
	m := &upgraded{env: &env{suite: e.suite, t: e.t, mount: "upgraded-" + name, client: e.clientFor(e.server.addresses(e.t)[0], e.server.root())}}
	if namespace != "" {
		if _, err := m.client.Logical().Write("sys/namespaces/"+namespace, nil); err == nil {
			m.client.SetNamespace(namespace)
		} else {
			e.t.Logf("this server has no namespaces: %v", err)
		}
	}
	input := &api.MountInput{Type: pluginName, Config: api.MountConfigInput{PluginVersion: olderVersion}}
	if err := m.client.Sys().Mount(m.mount, input); err != nil {
		e.t.Fatal(err)
	}
	m.write("roles/r", nil)
	m.write("roles/d", data{"type": "dynamic", "ttl": "1h"})
	m.static, m.dynamic = m.creds("r"), m.creds("d")
	m.is(olderVersion)
	return m
}

// moveTo is what the runbook does with each mount.
func (m *upgraded) moveTo(version string) {
	m.t.Helper()
	if err := m.client.Sys().TuneMountAllowNil(m.mount, api.TuneMountConfigInput{PluginVersion: &version}); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.client.Sys().ReloadPlugin(&api.ReloadPluginInput{Mounts: []string{m.mount}}); err != nil {
		m.t.Fatal(err)
	}
}

// is asserts which version the mount runs.
func (m *upgraded) is(version string) {
	m.t.Helper()
	mounts, err := m.client.Sys().ListMounts()
	if err != nil {
		m.t.Fatal(err)
	}
	if got := mounts[m.mount+"/"]; got == nil || got.RunningVersion != version {
		m.t.Errorf("%s runs %+v, want %s", m.mount, got, version)
	}
}

// asking reads and verifies on several mounts until it is told to end. It repeats what
// was answered with a 5xx, as clients do by default: a reload ends the process that all
// mounts of one version share, and with it what the others were just asked.
type asking struct {
	stop  atomic.Bool
	wg    sync.WaitGroup
	mu    sync.Mutex
	asked int
	wrong []string
}

func startAsking(mounts []*upgraded, retries int) *asking {
	a := &asking{}
	for _, m := range mounts {
		client := m.clientFor(m.client.Address(), m.client.Token())
		client.SetNamespace(m.client.Namespace())
		client.SetMaxRetries(retries)
		for _, ask := range []func() error{
			func() error {
				s, err := client.Logical().Read(m.path("creds/r"))
				if err == nil && s == nil {
					err = errNotYet
				}
				return err
			},
			func() error {
				s, err := client.Logical().Write(m.path("verify"), data{"key": m.dynamic.secret})
				if err == nil && (s == nil || s.Data["valid"] != true) {
					err = fmt.Errorf("not valid: %v", s)
				}
				return err
			},
		} {
			a.wg.Go(func() {
				for !a.stop.Load() {
					err := ask()
					a.mu.Lock()
					a.asked++
					if err != nil {
						a.wrong = append(a.wrong, fmt.Sprintf("%s: %v", m.mount, err))
					}
					a.mu.Unlock()
				}
			})
		}
	}
	return a
}

func (a *asking) end(t *testing.T) {
	t.Helper()
	a.stop.Store(true)
	a.wg.Wait()
	if len(a.wrong) > 0 || a.asked < 20 {
		t.Errorf("%d of %d requests failed: %s", len(a.wrong), a.asked, a.wrong[:min(5, len(a.wrong))])
	}
}
