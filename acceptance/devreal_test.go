// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeServer stands for the program of a real server: it notes how it was called, and serves nothing.
const fakeServer = `#!/bin/sh
echo "$*" >>"$FAKE/calls"
env | grep -E '^(VAULT|BAO)_' >>"$FAKE/env"
case $1 in
server)
	[ ! -e "$FAKE/taken" ] || { echo "address already in use" >&2; exit 1; }
	for a in "$@"; do
		case $a in
		-config=*) sed -n 's/^cluster_name = "\(.*\)"$/Cluster Name    \1/p' "${a#-config=}" >"$FAKE/status" ;;
		esac
	done
	exec tail -f /dev/null
	;;
status) cat "$FAKE/status" ;;
esac
`

// devReal is the script behind make dev VAULT_BIN=, in a tree of its own and with a fake server.
type devReal struct {
	t    *testing.T
	tree string
}

func newDevReal(t *testing.T) devReal {
	t.Helper()
	d := devReal{t: t, tree: t.TempDir()}
	plugin, err := os.ReadFile(programs.plugin)
	if err != nil {
		t.Fatal(err)
	}
	d.write("bin/"+pluginName, plugin)
	d.write("bin/fake", []byte(fakeServer))
	for _, name := range []string{"dev-real.sh", "try-next.sh"} {
		raw, err := os.ReadFile(filepath.Join("..", "scripts", name))
		if err != nil {
			t.Fatal(err)
		}
		d.write("scripts/"+name, raw)
	}
	return d
}

func (d devReal) write(name string, content []byte) {
	d.t.Helper()
	path := filepath.Join(d.tree, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o755); err != nil {
		d.t.Fatal(err)
	}
}

// noted is what the fake server wrote down, empty if it was not called.
func (d devReal) noted(name string) string {
	raw, err := os.ReadFile(filepath.Join(d.tree, name))
	if err != nil {
		return ""
	}
	return string(raw)
}

func (d devReal) launch(listen string, env ...string) *process {
	d.t.Helper()
	env = append(env, "FAKE="+d.tree, "LISTEN="+listen)
	return launch(d.t, &output{}, env, filepath.Join(d.tree, "scripts", "dev-real.sh"), filepath.Join(d.tree, "bin", "fake"))
}

func (d devReal) wantFailure(p *process, text string) {
	d.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(time.Minute):
		d.t.Fatalf("still runs:\n%s", p.out)
	}
	if p.err == nil || !strings.Contains(p.out.String(), text) {
		d.t.Errorf("ended with %v, want %q:\n%s", p.err, text, p.out)
	}
}

func TestRealDevServerListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	d := newDevReal(t)
	for _, listen := range []string{
		"0.0.0.0:8200", ":8200", "[::]:8200", "::1:8200", "192.0.2.1:8200", "[2001:db8::1]:8200", "evil.example:8200", "localhost.evil.example:8200",
		"127.evil.example:8200", "127.0.0.1.evil.example:8200", "1.127.0.0.1:8200",
	} {
		d.wantFailure(d.launch(listen), "loopback only")
	}
	for _, listen := range []string{"127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:0", "127.0.0.1:8200 -dev-ha"} {
		d.wantFailure(d.launch(listen), "port")
	}
	if calls := d.noted("calls"); calls != "" {
		t.Errorf("the server was called all the same:\n%s", calls)
	}
}

// TestRealDevServerTakesNoOtherForItself has another server answer at the address.
func TestRealDevServerTakesNoOtherForItself(t *testing.T) {
	t.Parallel()
	d := newDevReal(t)
	d.write("taken", nil)
	d.write("status", []byte("Cluster Name    vault-cluster-12345678\n"))
	d.wantFailure(d.launch("127.0.0.1:8200"), "address already in use")
	for call := range strings.Lines(d.noted("calls")) {
		if !strings.HasPrefix(call, "server ") && call != "status\n" {
			t.Errorf("called as: %s", call)
		}
	}
}

func TestRealDevServerGetsThePlugin(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"127.0.0.1:8200", "localhost:8200", "[::1]:8200", "127.1.2.3:8200"} {
		d := newDevReal(t)
		p := d.launch(listen, "VAULT_AGENT_ADDR=http://elsewhere.example", "VAULT_ADDR=http://elsewhere.example", "BAO_ADDR=http://elsewhere.example",
			"VAULT_HTTP_PROXY=http://elsewhere.example", "BAO_NAMESPACE=elsewhere")
		within(t, time.Minute, "the script's last word", func() error {
			if err := p.running(); err != nil {
				t.Fatalf("%v\n%s", err, p.out)
			}
			if !strings.Contains(p.out.String(), "Ctrl-C stops") {
				return errNotYet
			}
			return nil
		})
		calls := slices.Collect(strings.Lines(d.noted("calls")))
		if !slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "plugin register -sha256=") }) ||
			!slices.Contains(calls, "secrets enable -path=apikeys "+pluginName+"\n") {
			t.Errorf("%s: called as:\n%s", listen, strings.Join(calls, ""))
		}
		env := d.noted("env")
		if strings.Contains(env, "elsewhere") || !strings.Contains(env, "VAULT_ADDR=http://"+listen+"\n") {
			t.Errorf("%s: called with:\n%s", listen, env)
		}
	}
}
