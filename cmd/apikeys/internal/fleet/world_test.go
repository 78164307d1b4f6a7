// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/backend"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// world is the real engine, behind as much of a server as is needed to ask it. In a bubble
// months pass in a second.
type world struct {
	t       testing.TB
	engine  logical.Backend
	storage logical.Storage
	session *vaultlogin.Session

	mu    sync.Mutex
	asked []string
	// before may answer in the engine's place: with a status, or 0.
	before func(path string, w http.ResponseWriter) int
	keys   []string // that were handed out
}

type object = map[string]any

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, run func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		run(t, w)
	})
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, storage: &logical.InmemStorage{}}
	sys := logical.TestSystemView()
	sys.ReplicationStateVal = consts.ReplicationPerformanceDisabled | consts.ReplicationDRDisabled
	var err error
	w.engine, err = backend.Factory(context.Background(), &logical.BackendConfig{
		Logger: hclog.NewNullLogger(), System: sys, StorageView: w.storage, BackendUUID: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.engine.Initialize(context.Background(), &logical.InitializationRequest{Storage: w.storage}); err != nil {
		t.Fatal(err)
	}
	config := api.DefaultConfig()
	config.Address, config.HttpClient = "http://vault.example.com", &http.Client{Transport: w}
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken("token")
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	if w.session, err = vaultlogin.Start(ctx, &done, vaultlogin.Options{Client: client, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		done.Wait()
		w.engine.Cleanup(context.Background())
	})
	return w
}

// pass lets time pass, with the calls that a server makes meanwhile.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	const pause = 6 * time.Hour
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(time.Until(time.Now().Truncate(pause).Add(pause)), time.Until(end)))
		w.do(logical.RollbackOperation, "", nil)
		synctest.Wait()
	}
}

func (w *world) do(op logical.Operation, path string, data object) object {
	w.t.Helper()
	resp, err := w.engine.HandleRequest(context.Background(), w.request(op, path, data))
	if err != nil || resp.IsError() {
		w.t.Fatalf("%s %s: %v %v", op, path, err, resp)
	}
	if resp == nil {
		return nil
	}
	return resp.Data
}

func (w *world) request(op logical.Operation, path string, data object) *logical.Request {
	req := &logical.Request{
		Operation: op, Path: path, Data: data, Storage: w.storage, MountPoint: "apikeys/", DisplayName: "token", Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	}
	if op == logical.UpdateOperation {
		if found, exists, err := w.engine.HandleExistenceCheck(context.Background(), req); err == nil && found && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	return req
}

func (w *world) write(path string, data object) object {
	w.t.Helper()
	return w.do(logical.UpdateOperation, path, data)
}

// key reads the current key.
func (w *world) key(role string) string {
	w.t.Helper()
	key, _ := w.do(logical.ReadOperation, "creds/"+role, nil)["api_key"].(string)
	w.keys = append(w.keys, key)
	return key
}

// use presents a key, as a service of that name.
func (w *world) use(key, client string) {
	w.t.Helper()
	if v := w.write("verify", object{"key": key, "client": client}); v["valid"] != true {
		w.t.Fatalf("%v", v)
	}
}

// RoundTrip is the server.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	w.serve(rec, r)
	resp := rec.Result()
	resp.Request = r
	return resp, r.Context().Err()
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	path, ours := strings.CutPrefix(r.URL.Path, "/v1/apikeys/")
	w.mu.Lock()
	w.asked = append(w.asked, r.Method+" "+path)
	before := w.before
	w.mu.Unlock()
	answer := func(status int, body any) {
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(body)
	}
	if before != nil {
		if status := before(path, rw); status != 0 {
			answer(status, object{"errors": []string{"not now"}})
			return
		}
	}
	if !ours || r.Method != http.MethodGet || r.Header.Get("X-Vault-Token") != "token" {
		answer(http.StatusNotFound, object{"errors": []string{"no handler for route"}})
		return
	}
	op, data := logical.Operation(logical.ReadOperation), object{}
	for name, values := range r.URL.Query() {
		if name == "list" {
			op = logical.ListOperation
		} else {
			data[name] = values[0]
		}
	}
	resp, err := w.engine.HandleRequest(r.Context(), w.request(op, path, data))
	switch {
	case err != nil:
		answer(http.StatusInternalServerError, object{"errors": []string{err.Error()}})
	case resp == nil || op == logical.ListOperation && !resp.IsError() && resp.Data["keys"] == nil:
		answer(http.StatusNotFound, object{"errors": []string{}})
	case resp.IsError():
		answer(http.StatusBadRequest, object{"errors": []string{resp.Error().Error()}})
	default:
		answer(http.StatusOK, object{"data": resp.Data, "warnings": resp.Warnings})
	}
}

// count is how often a path was asked for.
func (w *world) count(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.asked {
		if a == "GET "+path || strings.HasSuffix(path, "/") && strings.HasPrefix(a, "GET "+path) {
			n++
		}
	}
	return n
}

// fleet is what the command writes.
func (w *world) fleet(args ...string) (string, error) {
	w.t.Helper()
	o, flags, err := parse(args, &bytes.Buffer{})
	if err != nil {
		w.t.Fatal(err)
	}
	o.server, o.mount = "http://vault.example.com", flags.Mount()
	var out bytes.Buffer
	m := &mount{session: w.session, path: o.mount, log: slog.New(slog.DiscardHandler)}
	_, err = m.write(context.Background(), &out, o, time.Now())
	for _, key := range w.keys {
		if key != "" && strings.Contains(out.String(), key) {
			w.t.Errorf("a whole key is in the output of %v", args)
		}
	}
	return out.String(), err
}

func (w *world) must(args ...string) string {
	w.t.Helper()
	out, err := w.fleet(args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// hostile texts, as owners and labels.
const (
	script  = `<script>alert(1)</script>`
	formula = `=HYPERLINK("http://evil.example/","x")`
	punct   = `ops; "night, shift" \ EMEA`
)

// settledFleet is a mount with a past of four months, and with all that a report tells.
func settledFleet(w *world) {
	w.t.Helper()
	w.write("config", object{"count_reads": true})
	for name, role := range map[string]object{
		"orders":   {"owner": script, "rotation_period": "30d", "grace_period": "48h"},
		"billing":  {"owner": "payments", "rotation_period": "40d"},
		"partner":  {"owner": formula, "rotation_period": "0", "on_leak": "alert"},
		"revoked":  {"owner": "payments", "rotation_period": "0"},
		"ending":   {"owner": punct, "rotation_period": "0", "ttl": "125d"},
		"dynamic":  {"owner": "payments", "type": "dynamic"},
		"rolled":   {"owner": "platform", "rotation_period": "0", "grace_period": "5d"},
		"deleted":  {"owner": "platform", "rotation_period": "0"},
		"sleeping": {"owner": "", "rotation_period": "0"},
		"paused":   {"owner": "platform", "rotation_period": "30d", "rotation_paused": true},
	} {
		w.write("roles/"+name, role)
	}
	w.use(w.key("partner"), "")
	w.use(w.key("revoked"), "")
	// Two hours after the fourth rotation of orders, and the third of billing.
	w.pass(120*day + 2*time.Hour)
	w.use(w.key("billing"), "")
	old, _ := w.do(logical.ReadOperation, "creds/orders/previous", nil)["api_key"].(string)
	w.keys = append(w.keys, old)
	w.use(old, script)
	w.use(old, "nightly-export")
	w.write("revoke/revoked", object{"all": true, "rotate": false})
	w.write("report", object{"key": w.keys[0], "source": "test"})
	w.write("rotate/rolled", object{})
	w.use(w.key("rolled"), "canary")
	w.write("rollback/rolled", object{})
	w.use(w.keys[len(w.keys)-1], "canary")
	w.do(logical.DeleteOperation, "roles/deleted", nil)
	w.pass(time.Minute)
}

// roleNames of settledFleet that live.
var roleNames = []string{"billing", "dynamic", "ending", "orders", "partner", "paused", "revoked", "rolled", "sleeping"}

// many makes roles.
func (w *world) many(n int) {
	w.t.Helper()
	for i := range n {
		w.write(fmt.Sprintf("roles/r%05d", i), object{"owner": "team", "rotation_period": "30d"})
	}
}

func sorted[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
