// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// cluster is three real servers with one integrated storage, and what a load balancer
// does in front of them.
type cluster struct {
	t         *testing.T
	nodes     []*node
	unsealKey string
	root      string
	addr      string
}

// node is one process of a real server.
type node struct {
	id, addr, config string
	out              *output
	process          *process
}

const pluginName = "vault-plugin-secrets-apikeys"

// startCluster is a cluster with the plugin mounted, as an engine.
func startCluster(t *testing.T) (*cluster, *engine) {
	// In memory where there is some: on a slow disk elections come by themselves.
	dir, err := os.MkdirTemp("/dev/shm", "gw")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &cluster{t: t}
	addrs := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	for i := range addrs {
		c.nodes = append(c.nodes, newNode(t, dir, fmt.Sprintf("n%d", i+1), addrs, i))
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if t.Failed() {
				t.Logf("%s:\n%s", n.id, n.out.end())
			}
		}
	})
	for i, n := range c.nodes {
		c.start(n)
		if i == 0 {
			init := n.call(t, "", "sys/init", data{"secret_shares": 1, "secret_threshold": 1})
			c.root, c.unsealKey = init["root_token"].(string), init["keys_base64"].([]any)[0].(string)
		} else {
			eventually(t, time.Minute, n.id+" joins", func() error { return n.is(501, false) })
		}
		n.call(t, "", "sys/unseal", data{"key": c.unsealKey})
		eventually(t, time.Minute, n.id+" is unsealed", func() error { return n.is(503, false) })
	}
	first := c.active()
	first.call(t, c.root, "sys/storage/raft/autopilot/configuration", data{"server_stabilization_time": "1s"})
	eventually(t, 2*time.Minute, "three voters", func() error {
		raw, err := json.Marshal(first.call(t, c.root, "sys/storage/raft/configuration", nil))
		if err == nil && strings.Count(string(raw), `"voter":true`) < len(c.nodes) {
			err = errNotYet
		}
		return err
	})
	binary, err := os.ReadFile(programs.plugin)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(binary)
	first.call(t, c.root, "sys/plugins/catalog/secret/"+pluginName, data{"command": pluginName, "sha256": hex.EncodeToString(sum[:])})
	first.call(t, c.root, "sys/mounts/apikeys", data{"type": pluginName})
	c.balance()
	e := &engine{t: t, addr: c.addr, root: c.root, at: func() string { return c.active().addr }}
	e.prepare()
	return c, e
}

func newNode(t *testing.T, dir, id string, addrs []string, i int) *node {
	n := &node{id: id, addr: addrs[i], out: &output{}}
	own := filepath.Join(dir, id)
	if err := os.MkdirAll(filepath.Join(own, "raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	var join []data
	for _, a := range addrs {
		join = append(join, data{"leader_api_addr": "http://" + a})
	}
	inner := freeAddress(t)
	plugins, err := filepath.EvalSymlinks(programs.dir)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(data{
		"api_addr": "http://" + n.addr, "cluster_addr": "https://" + inner, "plugin_directory": plugins, "disable_mlock": true, "log_level": "info",
		"listener": []data{{"tcp": data{"address": n.addr, "cluster_address": inner, "tls_disable": true}}},
		"storage": data{"raft": data{
			"path": filepath.Join(own, "raft"), "node_id": id, "retry_join": join,
			// Quick elections flap on a machine that also runs everything else.
			"performance_multiplier": "5", "autopilot_reconcile_interval": "1s", "autopilot_update_interval": "500ms",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.config = filepath.Join(own, "server.json")
	if err := os.WriteFile(n.config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

func (c *cluster) start(n *node) {
	n.process = launch(c.t, n.out, filepath.Dir(n.config), programs.server, "server", "-config="+n.config)
	eventually(c.t, time.Minute, n.id+" listens", listens(n.addr, n.process))
}

// call asks a node, and gives up the test where that fails.
func (n *node) call(t *testing.T, token, path string, body data) data {
	t.Helper()
	method := http.MethodGet
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		method = http.MethodPut
	}
	req, err := http.NewRequest(method, "http://"+n.addr+"/v1/"+path, strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s: %s: %d %s %v", n.id, path, resp.StatusCode, text, err)
	}
	out := data{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// is complains unless a node's health is that, or unless it is not.
func (n *node) is(health int, want bool) error {
	client := &http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + n.addr + "/v1/sys/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if (resp.StatusCode == health) != want {
		return fmt.Errorf("%s has health %d", n.id, resp.StatusCode)
	}
	return nil
}

// active waits for a node that leads and has the mount.
func (c *cluster) active() *node {
	c.t.Helper()
	var active *node
	eventually(c.t, time.Minute, "a node leads", func() error {
		for _, n := range c.nodes {
			if n.process.running() == nil && n.is(http.StatusOK, true) == nil {
				active = n
				return nil
			}
		}
		return errNotYet
	})
	return active
}

// takesOver waits until another node leads and answers for the mount.
func (c *cluster) takesOver(before *node) {
	c.t.Helper()
	eventually(c.t, 2*time.Minute, "another node takes over", func() error {
		for _, n := range c.nodes {
			if n == before || n.process.running() != nil || n.is(http.StatusOK, true) != nil {
				continue
			}
			req, err := http.NewRequest(http.MethodGet, "http://"+n.addr+"/v1/apikeys/config", nil)
			if err != nil {
				return err
			}
			req.Header.Set("X-Vault-Token", c.root)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		return errNotYet
	})
}

// balance carries connections to nodes that listen, in turn.
func (c *cluster) balance() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	c.t.Cleanup(func() { _ = listener.Close() })
	var turn atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				first := int(turn.Add(1))
				for i := range c.nodes {
					to := c.nodes[(first+i)%len(c.nodes)].addr
					if probe, err := net.DialTimeout("tcp", to, time.Second); err == nil {
						_ = probe.Close()
						carry(conn, to)
						return
					}
				}
				_ = conn.Close()
			}()
		}
	}()
}

// TestFailover has a client of each gateway present keys without a pause while nodes of
// a real cluster hand over, and while the one that leads is killed. No good key may be
// refused or go without an answer, no ended one be accepted.
func TestFailover(t *testing.T) {
	if programs.server == "" {
		t.Logf("%s names no Vault or OpenBao: no failover is played", serverVariable)
		return
	}
	t.Parallel()
	c, e := startCluster(t)
	gateways := startAll(t, e)
	for _, g := range gateways {
		g.edge.live()
	}
	e.write("apikeys/roles/orders", data{"scopes": []string{"orders:read"}})
	e.write("apikeys/roles/steady", data{"scopes": []string{"orders:read"}})
	l := startLoad(t, gateways)
	steady := l.hold("the key that nothing happens to", e.creds("steady"))
	first := l.hold("the first key", e.creds("orders"))
	l.accepted(20*time.Second, gateways, steady, first)

	settled := func(p *promise) {
		t.Helper()
		for _, g := range gateways {
			g.edge.live()
		}
		p.isUnsure(false)
		l.accepted(20*time.Second, gateways, steady, p)
	}

	// The node that leads steps down. A grace ends by date on whichever node.
	first.endsAt(endsOf(t, e.write("apikeys/rotate/orders", data{"grace_period": "15s"})))
	second := l.hold("the second key", e.creds("orders"))
	l.accepted(10*time.Second, gateways, first, second)
	for _, g := range gateways {
		g.hears(t, first.secret)
	}
	settled(second)
	before := c.active()
	before.call(t, c.root, "sys/step-down", data{})
	c.takesOver(before)
	until(t, first)
	l.drop(first)
	settled(second)

	// A revocation right after another hand-over: edges may not have found the feed
	// again. Of the role's next key they know that something was decided, and no more.
	revoke := func(p *promise) *promise {
		t.Helper()
		p.isUnsure(true)
		next := e.revokeWithin(t, l, p, "orders", window)
		settled(next)
		return e.revoke(t, l, next, "orders")
	}
	before = c.active()
	before.call(t, c.root, "sys/step-down", data{})
	c.takesOver(before)
	third := revoke(second)
	settled(third)

	// The node that leads is killed.
	before = c.active()
	before.process.kill()
	l.accepted(20*time.Second, gateways, steady, third)
	c.takesOver(before)
	settled(revoke(third))
	l.end()
	l.report()
}
