// SPDX-License-Identifier: MPL-2.0

// Package testplugin is a small secrets engine that shows what a host does with a plugin. A test binary
// becomes this plugin when a host launches it.
package testplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

// Version is what the plugin reports.
const Version = "v0.0.1-test"

// RunIfLaunched serves the plugin and does not return, if this process was launched by a plugin host.
func RunIfLaunched() {
	if os.Getenv(plugin.HandshakeConfig.MagicCookieKey) == "" {
		return
	}
	if err := plugin.ServeMultiplex(&plugin.ServeOpts{BackendFactoryFunc: Factory}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

type engine struct {
	*framework.Backend
}

// Factory makes the engine.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	e := &engine{}
	e.Backend = &framework.Backend{
		Help:           "A plugin for tests.",
		BackendType:    logical.TypeLogical,
		RunningVersion: Version,
		Paths:          e.paths(),
		PathsSpecial:   &logical.Paths{Root: []string{"sudo"}, Unauthenticated: []string{"open/+/here"}},
		Secrets:        []*framework.Secret{{Type: "thing", Fields: fields("id"), Renew: e.renew, Revoke: e.revoke}},
		PeriodicFunc:   func(ctx context.Context, req *logical.Request) error { return count(ctx, req.Storage, "ticks") },
		InitializeFunc: func(ctx context.Context, req *logical.InitializationRequest) error {
			return count(ctx, req.Storage, "starts")
		},
	}
	if conf.StorageView != nil {
		view := conf.StorageView
		e.Clean = func(ctx context.Context) { _ = count(ctx, view, "cleanups") }
		if err := view.Put(ctx, &logical.StorageEntry{Key: "setup", Value: []byte("x")}); err == nil && conf.BackendUUID != "" {
			return nil, errors.New("a write was accepted during setup")
		}
	}
	return e, e.Setup(ctx, conf)
}

func fields(names ...string) map[string]*framework.FieldSchema {
	out := map[string]*framework.FieldSchema{}
	for _, n := range names {
		out[n] = &framework.FieldSchema{Type: framework.TypeString, Description: "The " + n + "."}
	}
	return out
}

func (e *engine) paths() []*framework.Path {
	op := func(f framework.OperationFunc) framework.OperationHandler {
		return &framework.PathOperation{Callback: f}
	}
	simple := func(pattern string, f framework.OperationFunc, names ...string) *framework.Path {
		return &framework.Path{
			Pattern: pattern, Fields: fields(names...), TakesArbitraryInput: true, HelpSynopsis: "Path " + pattern,
			Operations: map[logical.Operation]framework.OperationHandler{logical.ReadOperation: op(f), logical.UpdateOperation: op(f)},
		}
	}
	page := map[string]*framework.FieldSchema{
		"after": {Type: framework.TypeString, Query: true}, "limit": {Type: framework.TypeInt, Query: true},
	}
	return []*framework.Path{
		{Pattern: "kv/?$", Fields: page, HelpSynopsis: "List.", Operations: map[logical.Operation]framework.OperationHandler{logical.ListOperation: op(e.list)}},
		{
			Pattern: "kv/" + framework.GenericNameRegex("name"), Fields: fields("name", "value"), HelpSynopsis: "A stored value.",
			ExistenceCheck: func(ctx context.Context, req *logical.Request, _ *framework.FieldData) (bool, error) {
				entry, err := req.Storage.Get(ctx, req.Path)
				return entry != nil, err
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ReadOperation: op(e.read), logical.CreateOperation: op(e.write), logical.UpdateOperation: op(e.write),
				logical.PatchOperation: op(e.write), logical.DeleteOperation: op(e.remove),
			},
		},
		simple("echo", e.echo),
		simple("sudo", e.echo),
		simple("open/.*", e.echo),
		simple("counters", e.counters),
		simple("lease/"+framework.GenericNameRegex("name"), e.lease, "name", "ttl", "max_ttl"),
		simple("refuse-revocations", e.refuse, "refuse"),
		simple("die-once", e.dieOnce),
		simple("raw", e.raw),
		simple("fail", func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
			return nil, errors.New("something broke")
		}),
		simple("wrapped", func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
			info, err := e.System().ResponseWrapData(context.Background(), map[string]interface{}{"inner": "data"}, time.Minute, false)
			if err != nil {
				return nil, err
			}
			return &logical.Response{Data: map[string]interface{}{"token": info.Token}}, nil
		}),
		simple("password/"+framework.GenericNameRegex("name"), e.password, "name"),
	}
}

func (e *engine) read(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	entry, err := req.Storage.Get(ctx, req.Path)
	if entry == nil || err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]interface{}{"value": string(entry.Value)}}, nil
}

func (e *engine) write(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	err := req.Storage.Put(ctx, &logical.StorageEntry{Key: req.Path, Value: []byte(d.Get("value").(string)), SealWrap: true})
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]interface{}{"operation": string(req.Operation)}}, nil
}

func (e *engine) remove(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return nil, req.Storage.Delete(ctx, req.Path)
}

func (e *engine) list(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	keys, err := req.Storage.List(ctx, "kv/")
	if err != nil {
		return nil, err
	}
	sort.Strings(keys)
	after, limit := d.Get("after").(string), d.Get("limit").(int)
	keys = keys[sort.Search(len(keys), func(i int) bool { return keys[i] > after }):]
	if limit > 0 && len(keys) > limit {
		keys = keys[:limit]
	}
	return logical.ListResponse(keys), nil
}

func (e *engine) echo(_ context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{
		Data: map[string]interface{}{
			"operation": string(req.Operation), "data": req.Data, "headers": req.Headers, "client_token": req.ClientToken,
			"display_name": req.DisplayName, "mount_point": req.MountPoint, "accessor": req.ClientTokenAccessor, "pid": os.Getpid(),
			"remote_addr": req.Connection.RemoteAddr, "default_ttl": e.System().DefaultLeaseTTL().Seconds(), "max_ttl": e.System().MaxLeaseTTL().Seconds(),
			"server_token": os.Getenv("VAULT_TOKEN") + os.Getenv("BAO_TOKEN"),
		},
		Headers: map[string][]string{"X-Engine": {"yes"}, "X-Other": {"no"}},
	}, nil
}

func (e *engine) counters(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	data := map[string]interface{}{}
	for _, name := range []string{"ticks", "starts", "cleanups", "renewals", "revocations", "deaths"} {
		n, err := counter(ctx, req.Storage, name)
		if err != nil {
			return nil, err
		}
		data[name] = n
	}
	return &logical.Response{Data: data}, nil
}

func (e *engine) lease(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	ttl, err := time.ParseDuration(d.Get("ttl").(string))
	if err != nil {
		ttl = 0
	}
	maxTTL, err := time.ParseDuration(d.Get("max_ttl").(string))
	if err != nil {
		maxTTL = 0
	}
	resp := e.Secret("thing").Response(map[string]interface{}{"id": d.Get("name")}, map[string]interface{}{"id": d.Get("name"), "step": 0})
	resp.Secret.TTL, resp.Secret.MaxTTL = ttl, maxTTL
	return resp, nil
}

func (e *engine) renew(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if err := count(ctx, req.Storage, "renewals"); err != nil {
		return nil, err
	}
	// Whatever the host keeps between calls comes back: data of the answer and internal data.
	if d.Get("id") != req.Secret.InternalData["id"] || req.Secret.IssueTime.IsZero() {
		return nil, fmt.Errorf("lease of %q came back as that of %q", req.Secret.InternalData["id"], d.Get("id"))
	}
	req.Secret.InternalData["step"] = req.Secret.InternalData["step"].(float64) + 1
	data := map[string]interface{}{"id": d.Get("id"), "step": req.Secret.InternalData["step"]}
	return &logical.Response{Secret: req.Secret, Data: data}, nil
}

func (e *engine) revoke(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	entry, err := req.Storage.Get(ctx, "refuse")
	if err != nil {
		return nil, err
	}
	if entry != nil {
		return logical.ErrorResponse("revocation refused"), nil
	}
	return nil, count(ctx, req.Storage, "revocations")
}

func (e *engine) refuse(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if d.Get("refuse").(string) == "false" {
		return nil, req.Storage.Delete(ctx, "refuse")
	}
	return nil, req.Storage.Put(ctx, &logical.StorageEntry{Key: "refuse", Value: []byte("x")})
}

// dieOnce ends the process without an answer, unless it did so before.
func (e *engine) dieOnce(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	n, err := counter(ctx, req.Storage, "deaths")
	if err != nil {
		return nil, err
	}
	if n == 0 {
		if err := count(ctx, req.Storage, "deaths"); err != nil {
			return nil, err
		}
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return &logical.Response{Data: map[string]interface{}{"survived": true}}, nil
}

func (e *engine) raw(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return &logical.Response{Data: map[string]interface{}{
		logical.HTTPStatusCode: http.StatusTeapot, logical.HTTPContentType: "text/plain", logical.HTTPRawBody: []byte("short and stout\n"),
	}}, nil
}

func (e *engine) password(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	p, err := e.System().GeneratePasswordFromPolicy(ctx, d.Get("name").(string))
	if err != nil {
		return logical.ErrorResponse("%s", err.Error()), nil
	}
	return &logical.Response{Data: map[string]interface{}{"password": p}}, nil
}

func counter(ctx context.Context, s logical.Storage, name string) (int, error) {
	entry, err := s.Get(ctx, "count/"+name)
	if entry == nil || err != nil {
		return 0, err
	}
	var n int
	err = json.Unmarshal(entry.Value, &n)
	return n, err
}

// counting keeps the counts right when requests come at once.
var counting sync.Mutex

func count(ctx context.Context, s logical.Storage, name string) error {
	counting.Lock()
	defer counting.Unlock()
	n, err := counter(ctx, s, name)
	if err != nil {
		return err
	}
	entry, err := logical.StorageEntryJSON("count/"+name, n+1)
	if err != nil {
		return err
	}
	return s.Put(ctx, entry)
}
