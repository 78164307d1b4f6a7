// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// node is one process of a real server with integrated storage.
type node struct {
	t             testing.TB
	id            string
	addr, cluster string
	dir, config   string
	out           *output
	process       *process
}

// newNode writes a node's configuration. peers are the addresses of all nodes of its cluster.
func newNode(t testing.TB, dir, id string, addrs []string, i, multiplier int) *node {
	t.Helper()
	n := &node{t: t, id: id, addr: addrs[i], cluster: freeAddress(t), dir: filepath.Join(dir, id), out: &output{}}
	if err := os.MkdirAll(filepath.Join(n.dir, "raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	raft := data{"path": filepath.Join(n.dir, "raft"), "node_id": id, "performance_multiplier": fmt.Sprint(multiplier)}
	if len(addrs) > 1 {
		// So that a new node votes within seconds, and a step-down finds somebody to follow.
		raft["autopilot_reconcile_interval"], raft["autopilot_update_interval"] = "1s", "500ms"
		var join []data
		for _, a := range addrs {
			join = append(join, data{"leader_api_addr": "http://" + a})
		}
		raft["retry_join"] = join
	}
	raw, err := json.Marshal(data{
		"api_addr": "http://" + n.addr, "cluster_addr": "https://" + n.cluster, "plugin_directory": filepath.Dir(programs.plugin),
		"disable_mlock": true, "log_level": "debug",
		"listener": []data{{"tcp": data{"address": n.addr, "cluster_address": n.cluster, "tls_disable": true}}},
		"storage":  data{"raft": raft},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.config = filepath.Join(n.dir, "server.json")
	if err := os.WriteFile(n.config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.process = launch(n.t, n.out, []string{"HOME=" + n.dir}, programs.real, "server", "-config="+n.config)
	within(n.t, 30*time.Second, n.id+" listens", func() error {
		if err := n.process.running(); err != nil {
			n.t.Fatalf("%s: %v\n%s", n.id, err, tail(n.out.String()))
		}
		_, err := n.get("sys/seal-status")
		return err
	})
}

func (n *node) url() string { return "http://" + n.addr }

func (n *node) client(token string) *api.Client { return (&suite{}).clientFor(n.url(), token) }

// get reads a status endpoint.
func (n *node) get(path string) (data, error) {
	resp, err := http.Get(n.url() + "/v1/" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var d data
	return d, json.Unmarshal(raw, &d)
}

// health is the status of sys/health: 200 active, 429 standby, 503 sealed.
func (n *node) health() int {
	resp, err := http.Get(n.url() + "/v1/sys/health")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (n *node) waitHealth(t testing.TB, want ...int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has health %v", n.id, want), func() error {
		have := n.health()
		for _, w := range want {
			if have == w {
				return nil
			}
		}
		return fmt.Errorf("health is %d", have)
	})
}

// initialise makes the first node a cluster of one, and returns the unseal key and the root token.
func (n *node) initialise() (unsealKey, root string) {
	n.t.Helper()
	init, err := n.client("").Sys().Init(&api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		n.t.Fatal(err)
	}
	return init.KeysB64[0], init.RootToken
}

func (n *node) unseal(t testing.TB, unsealKey string) {
	t.Helper()
	if _, err := n.client("").Sys().Unseal(unsealKey); err != nil {
		t.Fatalf("unseal %s: %v", n.id, err)
	}
}

// register puts the plugin into the catalog.
func (n *node) register(root string) {
	n.t.Helper()
	binary, err := os.ReadFile(programs.plugin)
	if err != nil {
		n.t.Fatal(err)
	}
	sum := sha256.Sum256(binary)
	err = n.client(root).Sys().RegisterPlugin(&api.RegisterPluginInput{
		Name: pluginName, Type: api.PluginTypeSecrets, Command: pluginName, SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// raftDir is a directory in memory where there is one: on a slow disk elections come by themselves.
func raftDir(t testing.TB) string {
	t.Helper()
	parent := "/dev/shm"
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "ak")
	if err != nil {
		dir, err = os.MkdirTemp("", "ak")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
