// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/access"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/config"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

const (
	// lookEvery is how often the files are looked at.
	lookEvery = 5 * time.Second
	// drainTime is how long requests in progress have at the end.
	drainTime = 10 * time.Second
	// Gateways keep connections open; a client that does not send its header is none.
	headerTime, idleTime = 5 * time.Second, 2 * time.Minute
	answerTime           = 30 * time.Second
	maxHeader            = 64 << 10
)

// daemon is a running edge.
type daemon struct {
	file   string
	conf   *config.Edge
	level  *slog.LevelVar
	log    *slog.Logger
	edge   *edge.Verifier
	gate   *Gate
	certs  []*certificate
	seen   [sha256.Size]byte // of the files, as they were read last
	look   time.Duration     // how often they are looked at
	ready  func([]net.Addr)
	stops  []func(context.Context)
	failed chan error
}

// ErrBegin is why an edge does not listen.
var ErrBegin = errors.New("the edge cannot begin")

// Serve runs an edge by a configuration file until ctx ends. A value from reload has it
// read its files again. ready, if not nil, is told the listeners' addresses. The error
// wraps ErrBegin if the edge has not listened.
func Serve(ctx context.Context, file string, out io.Writer, reload <-chan os.Signal, ready func([]net.Addr)) error {
	d, err := begin(ctx, file, out, ready)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBegin, err)
	}
	defer d.edge.Close()
	defer d.stop()
	return d.run(ctx, reload)
}

// begin is an edge that listens.
func begin(ctx context.Context, file string, out io.Writer, ready func([]net.Addr)) (*daemon, error) {
	conf, rules, err := read(file)
	if err != nil {
		return nil, err
	}
	d := &daemon{file: file, conf: conf, level: &slog.LevelVar{}, look: lookEvery, ready: ready, failed: make(chan error, 1)}
	d.seen = d.fingerprint() // at once: what changes while the edge begins is taken over then
	d.log = newLog(out, conf.Log, d.level)
	options, err := edgeOptions(conf, d.log)
	if err != nil {
		return nil, err
	}
	if d.edge, err = edge.New(*options); err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.gate = New(d.edge, rules, keysOf(conf), NewMetrics(registry, d.edge.Stats), d.log)
	d.warn()
	if err := d.listen(ctx, registry); err != nil {
		d.stop()
		_ = d.edge.Close()
		return nil, err
	}
	return d, nil
}

// run takes over what changes until ctx ends, or a listener does.
func (d *daemon) run(ctx context.Context, reload <-chan os.Signal) error {
	ticker := time.NewTicker(d.look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			d.log.Info("the edge ends")
			return nil
		case err := <-d.failed:
			return err
		case <-reload:
			d.reload()
		case <-ticker.C:
			if d.fingerprint() != d.seen {
				d.reload()
			}
		}
	}
}

// Check reads a configuration, as Serve would.
func Check(file string) error {
	conf, _, err := read(file)
	if err != nil {
		return err
	}
	if err := conf.Files(); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if _, err := edgeOptions(conf, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for i := range conf.Listen {
		if t := conf.Listen[i].TLS; t != nil {
			if _, err := newCertificate(t); err != nil {
				return fmt.Errorf("%s: listen %q: tls: %w", file, conf.Listen[i].Kind, err)
			}
		}
	}
	return nil
}

// read is the configuration, with its rules.
func read(file string) (*config.Edge, []*Rule, error) {
	conf, err := config.Load(file)
	if err != nil {
		return nil, nil, err
	}
	rules := make([]*Rule, len(conf.Rules))
	for i, r := range conf.Rules {
		if rules[i], err = NewRule(r.Methods, r.Path, r.Scopes, r.AnyScope); err != nil {
			return nil, nil, fmt.Errorf("%s: rule %d: %w", file, i+1, err)
		}
	}
	for i := range conf.Listen {
		if l := &conf.Listen[i]; l.Kind == config.KindAuth && l.Protocol == config.ProtocolHTTP {
			if _, err := presetOf(l.Preset); err != nil {
				return nil, nil, fmt.Errorf("%s: listen %q: %w", file, l.Kind, err)
			}
		}
	}
	return conf, rules, nil
}

func keysOf(conf *config.Edge) Keys {
	headers := conf.Keys.Headers
	if headers == nil {
		headers = DefaultHeaders
	}
	return Keys{Headers: headers, Query: conf.Keys.Query}
}

func newLog(out io.Writer, conf *config.Log, level *slog.LevelVar) *slog.Logger {
	setLevel(level, conf)
	opt := &slog.HandlerOptions{Level: level}
	if conf.Format == "text" {
		return slog.New(slog.NewTextHandler(out, opt))
	}
	return slog.New(slog.NewJSONHandler(out, opt))
}

func setLevel(level *slog.LevelVar, conf *config.Log) {
	var l slog.Level
	_ = l.UnmarshalText([]byte(conf.Level)) // it was checked
	level.Set(l)
}

// edgeOptions are the edge's. What the configuration says beats the environment.
func edgeOptions(conf *config.Edge, log *slog.Logger) (*edge.Options, error) {
	client, err := access.Reach(conf.Vault.Address, conf.Vault.Namespace, conf.Vault.CACert, func(name string) string { return strings.ReplaceAll(name, "-", "_") })
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	opt := &edge.Options{
		Client: client, Mount: conf.Vault.Mount, Role: conf.Vault.Role, TokenFile: conf.Vault.TokenFile, Label: conf.Label,
		MaxStaleness: conf.Cache.Staleness, MaxKeys: conf.Cache.MaxKeys,
		UnknownPerSecond: conf.Cache.UnknownPerSecond, UnknownPerAddress: conf.Cache.UnknownPerAddress,
		StateFile: conf.Cache.StateFile, StateKeyFile: conf.Cache.StateKeyFile, Log: log,
	}
	if a := conf.Vault.Auth; a != nil {
		client.ClearToken()
		switch a.Method {
		case config.AuthAppRole:
			opt.Auth = edge.AppRole(a.Mount, a.RoleID, a.SecretIDFile)
		case config.AuthKubernetes:
			opt.Auth = edge.Kubernetes(a.Mount, a.Role, a.TokenFile)
		case config.AuthJWT:
			opt.Auth = edge.JWT(a.Mount, a.Role, a.TokenFile)
		case config.AuthTokenFile:
			opt.TokenFile = a.Path
		}
	}
	if opt.Auth == nil && opt.TokenFile == "" && client.Token() == "" {
		if opt.TokenFile, err = access.HomeToken(); err != nil {
			return nil, fmt.Errorf("vault: %w", err)
		}
	}
	return opt, nil
}

// warn tells of what works, and should not be so.
func (d *daemon) warn() {
	if len(d.conf.Keys.Query) > 0 {
		d.log.Warn("keys are taken from the query: they stand in the logs of every program on the way", "parameters", d.conf.Keys.Query)
	}
}

// listen opens the listeners, all of them or none.
func (d *daemon) listen(ctx context.Context, registry *prometheus.Registry) error {
	addrs := make([]net.Addr, 0, len(d.conf.Listen))
	var serve []func()
	for i := range d.conf.Listen {
		l := &d.conf.Listen[i]
		listener, err := open(ctx, l.Address)
		if err != nil {
			return fmt.Errorf("listen %q: %w", l.Kind, err)
		}
		d.stops = append(d.stops, func(context.Context) { _ = listener.Close() })
		addrs = append(addrs, listener.Addr())
		var secure *tls.Config
		if l.TLS != nil {
			cert, err := newCertificate(l.TLS)
			if err != nil {
				return fmt.Errorf("listen %q: tls: %w", l.Kind, err)
			}
			d.certs = append(d.certs, cert)
			secure = cert.config()
		}
		run, err := d.server(l, listener, secure, registry)
		if err != nil {
			return fmt.Errorf("listen %q: %w", l.Kind, err)
		}
		serve = append(serve, run)
	}
	for i, run := range serve {
		go run()
		d.log.Info("listening", "kind", d.conf.Listen[i].Kind, "address", addrs[i].String())
	}
	if d.ready != nil {
		d.ready(addrs)
	}
	return nil
}

// open listens at host:port, or at unix:/path.
func open(ctx context.Context, address string) (net.Listener, error) {
	var conf net.ListenConfig
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		return conf.Listen(ctx, "tcp", address)
	}
	// What an edge that was killed has left.
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("%s: somebody listens there", path)
		}
		_ = os.Remove(path)
	}
	return conf.Listen(ctx, "unix", path)
}

// server is what serves a listener until it is stopped.
func (d *daemon) server(l *config.Listen, listener net.Listener, secure *tls.Config, registry *prometheus.Registry) (func(), error) {
	if l.Protocol == config.ProtocolGRPC {
		var opts []grpc.ServerOption
		if secure != nil {
			opts = append(opts, grpc.Creds(credentials.NewTLS(secure)))
		}
		opts = append(opts, grpc.ConnectionTimeout(headerTime), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTime, Time: time.Minute}),
			// Envoy may ping as often as it likes: a ping costs less than a question.
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Nanosecond, PermitWithoutStream: true}))
		s := grpc.NewServer(opts...)
		d.gate.RegisterEnvoy(s, l.Trusted)
		d.stops = append(d.stops, func(ctx context.Context) {
			over := context.AfterFunc(ctx, s.Stop)
			s.GracefulStop()
			over()
		})
		return func() { d.fail(s.Serve(listener)) }, nil
	}
	var handler http.Handler
	switch l.Kind {
	case config.KindAuth:
		var err error
		if handler, err = d.gate.Auth(l.Preset, l.Trusted); err != nil {
			return nil, err
		}
	case config.KindVerify:
		handler = d.gate.Verify()
	default:
		handler = Admin(d.edge.Stats, registry)
	}
	s := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTime, ReadTimeout: 2 * headerTime, WriteTimeout: answerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		TLSConfig: secure, ErrorLog: log.New(complaints{d.log}, "", 0),
		DisableGeneralOptionsHandler: true, // it would answer OPTIONS * with 200
	}
	d.stops = append(d.stops, func(ctx context.Context) { _ = s.Shutdown(ctx) })
	if secure != nil {
		return func() { d.fail(s.ServeTLS(listener, "", "")) }, nil
	}
	return func() { d.fail(s.Serve(listener)) }, nil
}

// complaints are what net/http has to say: of clients that are none, mostly.
type complaints struct{ log *slog.Logger }

func (c complaints) Write(text []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(text, []byte("panic")) {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "http", "text", strings.TrimSpace(string(text)))
	return len(text), nil
}

// fail ends the daemon for a listener that has ended by itself.
func (d *daemon) fail(err error) {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return
	}
	select {
	case d.failed <- err:
	default:
	}
}

// stop ends the listeners; requests in progress have a while.
func (d *daemon) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, stop := range d.stops {
		wg.Go(func() { stop(ctx) })
	}
	wg.Wait()
}

// fingerprint is of everything that is read again. A file that cannot be read is
// something else than it was, so that it is told.
func (d *daemon) fingerprint() [sha256.Size]byte {
	files := []string{d.file}
	for i := range d.conf.Listen {
		if t := d.conf.Listen[i].TLS; t != nil {
			files = append(files, t.CertFile, t.KeyFile)
			if t.ClientCAFile != "" {
				files = append(files, t.ClientCAFile)
			}
		}
	}
	h := sha256.New()
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			raw = []byte(err.Error())
		}
		part := sha256.Sum256(raw)
		_, _ = h.Write(part[:]) // it never fails
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// reload takes over what may change while the edge runs: rules, where keys are, the
// log's level, certificates. What is wrong changes nothing.
func (d *daemon) reload() {
	d.seen = d.fingerprint() // before they are read; what is wrong is told once
	// Certificates end, whatever the configuration is like.
	for _, c := range d.certs {
		if err := c.load(); err != nil {
			d.log.Error("the certificate is left as it was", "error", err)
		}
	}
	conf, rules, err := read(d.file)
	if err != nil {
		d.log.Error("the configuration is left as it was", "error", err)
		return
	}
	if !reflect.DeepEqual(conf.Vault, d.conf.Vault) || !reflect.DeepEqual(conf.Cache, d.conf.Cache) || !reflect.DeepEqual(conf.Listen, d.conf.Listen) ||
		conf.Label != d.conf.Label || conf.Log.Format != d.conf.Log.Format {
		d.log.Error("vault, listen, cache, label and the log's format need a restart: they are left as they were")
	}
	conf.Vault, conf.Cache, conf.Listen, conf.Label = d.conf.Vault, d.conf.Cache, d.conf.Listen, d.conf.Label
	d.conf = conf
	d.gate.Set(rules, keysOf(conf))
	setLevel(d.level, conf.Log)
	d.warn()
	d.log.Info("the configuration was read again", "rules", len(rules))
}

// certificate is one that can be replaced while a listener uses it.
type certificate struct {
	files config.TLS
	pair  atomic.Pointer[tls.Certificate]
	pool  atomic.Pointer[x509.CertPool]
}

func newCertificate(files *config.TLS) (*certificate, error) {
	c := &certificate{files: *files}
	return c, c.load()
}

func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return err
	}
	var pool *x509.CertPool
	if c.files.ClientCAFile != "" {
		raw, err := os.ReadFile(c.files.ClientCAFile)
		if err != nil {
			return err
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(raw) {
			return fmt.Errorf("%s: holds no certificate", c.files.ClientCAFile)
		}
	}
	c.pair.Store(&pair)
	c.pool.Store(pool)
	return nil
}

// config asks for the certificates at each connection.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			conf := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*c.pair.Load()}, NextProtos: []string{"h2", "http/1.1"}}
			if pool := c.pool.Load(); pool != nil {
				conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, pool
			}
			return conf, nil
		},
	}
}
