// SPDX-License-Identifier: MPL-2.0

package plugin_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/hashicorp/vault/sdk/helper/errutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin"
)

// The test binary is also the plugin: these variables make it one.
const (
	probeEnv    = "SDK_PROBE_PLUGIN" // how to serve
	probeTLSEnv = "SDK_PROBE_TLS"    // PEM certificate and key, for protocol versions without AutoMTLS
)

func TestMain(m *testing.M) {
	mode := os.Getenv(probeEnv)
	if mode == "" {
		os.Exit(m.Run())
	}
	opts := &plugin.ServeOpts{BackendFactoryFunc: newProbe}
	if os.Getenv(probeTLSEnv) != "" {
		opts.TLSProviderFunc = probeTLS
	}
	serve := plugin.ServeMultiplex
	if mode == "single" {
		serve = plugin.Serve
	}
	if err := serve(opts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func probeTLS() (*tls.Config, error) {
	pem := []byte(os.Getenv(probeTLSEnv))
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   probeServerName,
		MinVersion:   tls.VersionTLS12,
	}, nil
}

// probe is a backend that shows what reached it.
type probe struct {
	conf     *logical.BackendConfig
	storage  logical.Storage
	setupErr string // what the storage said during setup
}

func newProbe(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	if text := conf.Config["fail"]; text != "" {
		return nil, errors.New(text)
	}
	p := &probe{conf: conf, storage: conf.StorageView}
	if conf.Config["write"] != "" {
		if err := conf.StorageView.Put(ctx, &logical.StorageEntry{Key: "k", Value: []byte("v")}); err != nil {
			p.setupErr = err.Error()
		}
	}
	return p, nil
}

func (p *probe) Setup(context.Context, *logical.BackendConfig) error { return nil }

func (p *probe) Initialize(ctx context.Context, req *logical.InitializationRequest) error {
	if text := p.conf.Config["fail_initialize"]; text != "" {
		return errutil.UserError{Err: text}
	}
	return req.Storage.Put(ctx, &logical.StorageEntry{Key: "initialized", Value: []byte("yes")})
}

func (p *probe) Cleanup(context.Context) {
	_ = p.storage.Put(context.Background(), &logical.StorageEntry{Key: "cleaned-up", Value: []byte("yes")})
}

func (p *probe) InvalidateKey(ctx context.Context, key string) {
	_ = p.storage.Put(ctx, &logical.StorageEntry{Key: "invalidated/" + key, Value: []byte("yes")})
}

func (p *probe) Type() logical.BackendType { return logical.TypeLogical }

func (p *probe) PluginVersion() logical.PluginVersion {
	return logical.PluginVersion{Version: "v1.2.3"}
}

func (p *probe) System() logical.SystemView { return p.conf.System }

func (p *probe) Logger() hclog.Logger { return p.conf.Logger }

func (p *probe) SpecialPaths() *logical.Paths {
	if p.conf.Config["no_paths"] != "" {
		return nil
	}
	return &logical.Paths{
		Root:                  []string{"config/*"},
		Unauthenticated:       []string{"key-format"},
		LocalStorage:          []string{"local/"},
		SealWrapStorage:       []string{"digest-secret"},
		WriteForwardedStorage: []string{"forwarded/{{clusterId}}/"},
	}
}

func (p *probe) HandleExistenceCheck(ctx context.Context, req *logical.Request) (bool, bool, error) {
	if strings.HasPrefix(req.Path, "error/") {
		return true, true, probeErrors[strings.TrimPrefix(req.Path, "error/")]
	}
	if !strings.HasPrefix(req.Path, "objects/") {
		return false, false, nil
	}
	entry, err := req.Storage.Get(ctx, req.Path)
	return true, entry != nil, err
}

// probeErrors are what path error/<name> returns.
var probeErrors = map[string]error{
	"plain":            errors.New("it broke"),
	"user":             errutil.UserError{Err: "your fault"},
	"internal":         errutil.InternalError{Err: "my fault"},
	"coded":            logical.CodedError(418, "teapot"),
	"bad-request":      &logical.StatusBadRequest{Err: "malformed"},
	"unsupported-op":   logical.ErrUnsupportedOperation,
	"unsupported-path": logical.ErrUnsupportedPath,
	"invalid-request":  logical.ErrInvalidRequest,
	"permission":       logical.ErrPermissionDenied,
	"multi-authz":      logical.ErrMultiAuthzPending,
	"unrecoverable":    logical.ErrUnrecoverable,
	"read-only":        logical.ErrReadOnly,
	"wrapped":          fmt.Errorf("around: %w", logical.ErrPermissionDenied),
	"user-pointer":     &probePointerError{},
}

type probePointerError struct{}

func (*probePointerError) Error() string { return "of no known kind" }

func (p *probe) HandleRequest(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	switch req.Operation {
	case logical.RenewOperation, logical.RevokeOperation:
		return p.lease(req)
	case logical.ReadOperation, logical.UpdateOperation, logical.CreateOperation:
	case logical.RollbackOperation:
		return answer("path", req.Path, "data_nil", req.Data == nil, "id", req.ID)
	default:
		return nil, logical.ErrUnsupportedOperation
	}

	if name, ok := strings.CutPrefix(req.Path, "error/"); ok {
		return nil, probeErrors[name]
	}
	switch req.Path {
	case "echo":
		return p.echo(req)
	case "system":
		return p.system(ctx)
	case "storage":
		return p.store(ctx, req)
	case "setup":
		return answer("error", p.setupErr, "uuid", p.conf.BackendUUID, "config", p.conf.Config)
	case "nothing":
		return nil, nil
	case "nil-data":
		return &logical.Response{Warnings: []string{"no data"}}, nil
	case "empty-data":
		return &logical.Response{Data: map[string]interface{}{}}, nil
	case "both":
		return logical.ErrorResponse("refused"), logical.ErrInvalidRequest
	case "bytes":
		return answer("value", strings.Repeat("x", int(req.Get("size").(float64))))
	case "unencodable":
		return answer("value", func() {})
	case "secret":
		return p.issue()
	case "auth":
		return p.login()
	case "pid":
		return answer("pid", os.Getpid())
	case "wait":
		return p.wait(ctx)
	case "exit":
		os.Exit(3)
	}
	return nil, logical.ErrUnsupportedPath
}

func answer(pairs ...interface{}) (*logical.Response, error) {
	data := make(map[string]interface{}, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		data[pairs[i].(string)] = pairs[i+1]
	}
	return &logical.Response{Data: data}, nil
}

func (p *probe) echo(req *logical.Request) (*logical.Response, error) {
	resp, err := answer(
		"id", req.ID, "path", req.Path, "operation", string(req.Operation),
		"data", req.Data, "data_nil", req.Data == nil,
		"headers", req.Headers, "headers_nil", req.Headers == nil,
		"client_token", req.ClientToken, "accessor", req.ClientTokenAccessor, "display_name", req.DisplayName,
		"mount_point", req.MountPoint, "mount_type", req.MountType, "mount_accessor", req.MountAccessor,
		"uses", req.ClientTokenRemainingUses, "entity_id", req.EntityID, "cluster", req.ReplicationCluster,
		"policy_override", req.PolicyOverride, "unauthenticated", req.Unauthenticated,
		"storage_nil", req.Storage == nil,
	)
	if c := req.Connection; c != nil {
		resp.Data["remote_addr"], resp.Data["remote_port"] = c.RemoteAddr, c.RemotePort
		if c.ConnState != nil {
			resp.Data["server_name"] = c.ConnState.ServerName
			resp.Data["peer"] = c.ConnState.PeerCertificates[0].Subject.CommonName
			resp.Data["chain"] = len(c.ConnState.VerifiedChains[0])
		}
	}
	if w := req.WrapInfo; w != nil {
		resp.Data["wrap_ttl"], resp.Data["wrap_format"], resp.Data["wrap_seal"] = w.TTL.String(), w.Format, w.SealWrap
	}
	resp.Headers = map[string][]string{"X-Probe": {"a", "b"}}
	resp.Warnings = []string{"first", "second"}
	resp.Redirect = "elsewhere"
	return resp, err
}

func (p *probe) issue() (*logical.Response, error) {
	return &logical.Response{
		Data: map[string]interface{}{"name": "n"},
		Secret: &logical.Secret{
			LeaseOptions: logical.LeaseOptions{TTL: time.Hour, MaxTTL: 2 * time.Hour, Renewable: true},
			InternalData: map[string]interface{}{"secret_type": "probe", "serial": 7},
		},
	}, nil
}

// lease shows what a renewal or revocation carried, and gives the secret back
// with another TTL.
func (p *probe) lease(req *logical.Request) (*logical.Response, error) {
	s := req.Secret
	resp, err := answer(
		"operation", string(req.Operation), "internal", s.InternalData, "lease_id", s.LeaseID,
		"issue_time", s.IssueTime.Format(time.RFC3339Nano), "issue_zero", s.IssueTime.IsZero(),
		"increment", s.Increment.String(), "ttl", s.TTL.String(), "data", req.Data, "data_nil", req.Data == nil,
	)
	s.TTL = 3 * time.Hour
	resp.Secret = s
	return resp, err
}

func (p *probe) login() (*logical.Response, error) {
	return &logical.Response{Auth: &logical.Auth{
		LeaseOptions: logical.LeaseOptions{TTL: time.Minute, Renewable: true},
		InternalData: map[string]interface{}{"role": "r"},
		Policies:     []string{"default", "app"},
		Metadata:     map[string]string{"team": "blue"},
		Alias:        &logical.Alias{Name: "alice", Metadata: map[string]string{"k": "v"}},
		GroupAliases: []*logical.Alias{{Name: "devs"}},
		Period:       time.Second,
		NumUses:      4,
		TokenType:    logical.TokenTypeBatch,
	}}, nil
}

func (p *probe) store(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	key, _ := req.Get("key").(string)
	switch req.Get("do") {
	case "put":
		value, _ := req.Get("value").(string)
		return nil, req.Storage.Put(ctx, &logical.StorageEntry{Key: key, Value: []byte(value), SealWrap: req.Get("seal") == true})
	case "delete":
		return nil, req.Storage.Delete(ctx, key)
	case "list":
		keys, err := req.Storage.List(ctx, key)
		if err != nil {
			return nil, err
		}
		return answer("keys", keys)
	case "page":
		keys, err := req.Storage.(interface {
			ListPage(ctx context.Context, prefix, after string, limit int) ([]string, error)
		}).ListPage(ctx, key, "b", 2)
		if err != nil {
			return nil, err
		}
		return answer("keys", keys)
	}
	entry, err := req.Storage.Get(ctx, key)
	if err != nil || entry == nil {
		return nil, err
	}
	return answer("key", entry.Key, "value", string(entry.Value), "seal", entry.SealWrap)
}

func (p *probe) system(ctx context.Context) (*logical.Response, error) {
	sys := p.conf.System
	resp, err := answer(
		"default_ttl", sys.DefaultLeaseTTL().String(), "max_ttl", sys.MaxLeaseTTL().String(),
		"tainted", sys.Tainted(), "caching_disabled", sys.CachingDisabled(), "local", sys.LocalMount(),
		"mlock", sys.MlockEnabled(), "replication", uint32(sys.ReplicationState()),
	)
	note := func(name string, value interface{}, err error) {
		resp.Data[name] = value
		if err != nil {
			resp.Data[name+"_error"] = err.Error()
		}
	}
	entity, entityErr := sys.EntityInfo("e1")
	note("entity", entity.GetName()+"/"+entity.GetMetadata()["team"], entityErr)
	groups, groupsErr := sys.GroupsForEntity("e1")
	note("groups", len(groups), groupsErr)
	version, versionErr := sys.VaultVersion(ctx)
	note("version", version, versionErr)
	password, passwordErr := sys.GeneratePasswordFromPolicy(ctx, "policy")
	note("password", password, passwordErr)
	cluster, clusterErr := sys.ClusterID(ctx)
	note("cluster", cluster, clusterErr)
	info, wrapErr := sys.ResponseWrapData(ctx, map[string]interface{}{"a": "b"}, time.Minute, true)
	if info != nil {
		note("wrap", info.Token+"/"+info.TTL.String()+"/"+info.CreationTime.UTC().Format(time.RFC3339Nano), nil)
	}
	note("wrap_call", true, wrapErr)
	return resp, err
}

// wait tells by storage that it began and, once its context is done, that it
// ended.
func (p *probe) wait(ctx context.Context) (*logical.Response, error) {
	// The cancellation may be faster than the answer to this.
	_ = p.storage.Put(ctx, &logical.StorageEntry{Key: "waiting", Value: []byte("yes")})
	<-ctx.Done()
	return nil, p.storage.Put(context.WithoutCancel(ctx), &logical.StorageEntry{Key: "wait-over", Value: []byte("yes")})
}
