// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// daemon is `apikeys edge` with a configuration that is shipped.
type daemon struct {
	t       testing.TB
	dir     string
	auth    string // where it answers gateways
	http    string // and where, for Envoy, over HTTP
	admin   string
	out     *output
	process *process
}

// newDaemon takes the edge.hcl of a gateway; server is where its Vault is.
func newDaemon(t testing.TB, gateway, server, token string) *daemon {
	d := &daemon{t: t, dir: t.TempDir(), auth: freeAddress(t), http: freeAddress(t), admin: freeAddress(t), out: &output{}}
	put(t, d.dir, gateway, "edge.hcl", "127.0.0.1:8200", server, "127.0.0.1:9090", d.auth, "127.0.0.1:9091", d.admin, "127.0.0.1:9092", d.http)
	if err := os.WriteFile(filepath.Join(d.dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("edge of %s:\n%s", gateway, d.out.end())
		}
	})
	return d
}

// put writes a shipped file with other addresses.
func put(t testing.TB, dir, gateway, name string, replace ...string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(shipped, gateway, name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if strings.Contains(name, "edge.hcl") && replace[i] == "127.0.0.1:9092" {
			continue // Envoy's alone
		}
		if !strings.Contains(string(raw), replace[i]) {
			t.Fatalf("%s/%s: has no %s to replace", gateway, name, replace[i])
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.NewReplacer(replace...).Replace(string(raw))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start waits until it listens, not until it has heard of the server.
func (d *daemon) start() {
	d.process = launch(d.t, d.out, d.dir, programs.apikeys, "edge", "-config", "edge.hcl")
	eventually(d.t, 30*time.Second, "edge", listens(d.admin, d.process))
	eventually(d.t, 30*time.Second, "edge", listens(d.auth, d.process))
}

func (d *daemon) forget() {
	for _, name := range []string{"edge.state", "edge.key"} {
		if err := os.Remove(filepath.Join(d.dir, name)); err != nil {
			d.t.Fatal(err)
		}
	}
}

// live waits until decisions arrive, and all that is held was verified since the last.
func (d *daemon) live() {
	d.t.Helper()
	eventually(d.t, 30*time.Second, "feed", func() error {
		resp, err := http.Get("http://" + d.admin + "/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var body struct {
			Live  bool
			Dirty int
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			return err
		}
		if !body.Live || body.Dirty > 0 {
			return fmt.Errorf("readyz: %d, live %t, %d keys are dirty", resp.StatusCode, body.Live, body.Dirty)
		}
		return nil
	})
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
