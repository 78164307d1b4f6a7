// SPDX-License-Identifier: MPL-2.0

// Package sidecar is the command proxy: a reverse proxy on this machine that adds the
// current API key of a role to requests for one upstream.
package sidecar

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
)

const (
	// A client that does not send its header is none. Bodies and answers take as long
	// as they take: they may be streams.
	headerTime = 10 * time.Second
	// Clients keep connections, and should be the ones that end them.
	idleTime   = 5 * time.Minute
	adminTime  = 30 * time.Second
	maxHeader  = 64 << 10
	settleTime = 2 * time.Second
)

// ErrBegin is why a proxy does not listen.
var ErrBegin = errors.New("the proxy cannot begin")

// sidecar is a running proxy.
type sidecar struct {
	settings *settings
	log      *slog.Logger
	source   *client.Source
	proxy    *proxy
	main     *http.Server
	admin    *http.Server
	ending   atomic.Bool
	cut      context.CancelFunc // ends connections that have switched protocols
	idle     func()             // closes idle connections to the upstream
	failed   chan error
}

// Serve runs a proxy until ctx ends. ready, if not nil, is told the addresses of the
// listener and of the one for probes. The error wraps ErrBegin if the proxy has not
// listened.
func Serve(ctx context.Context, f *Flags, out io.Writer, ready func(main, admin net.Addr)) error {
	s, err := begin(ctx, f, out, ready)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBegin, err)
	}
	defer s.stop()
	select {
	case <-ctx.Done():
		s.log.Info("the proxy ends")
		return nil
	case err := <-s.failed:
		return err
	}
}

// begin is a proxy that listens.
func begin(ctx context.Context, f *Flags, out io.Writer, ready func(main, admin net.Addr)) (*sidecar, error) {
	log, err := f.log(out)
	if err != nil {
		return nil, err
	}
	set, err := f.settings(log)
	if err != nil {
		return nil, err
	}
	pool, err := readPool(f.caCert)
	if err != nil {
		return nil, fmt.Errorf("-upstream-ca-cert: %w", err)
	}
	// Listeners first: where an address is taken, nothing was asked of the server.
	local, err := openLocal(ctx, set.listen)
	if err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	var probes net.Listener
	undo := func() {
		_ = local.Close()
		if probes != nil {
			_ = probes.Close()
		}
	}
	if local.Addr().String() == hostPort(set.upstream) {
		undo()
		return nil, fmt.Errorf("-upstream: %s: is the proxy itself", set.upstream.Host)
	}
	if set.admin != "" {
		if probes, err = open(ctx, set.admin); err != nil {
			undo()
			return nil, fmt.Errorf("-admin: %w", err)
		}
	}
	s := &sidecar{settings: set, log: log, failed: make(chan error, 2)}
	if err := s.build(pool, local.Addr()); err != nil {
		undo()
		return nil, err
	}
	go s.serve(s.main, local)
	log.Info("listening", "kind", "proxy", "address", local.Addr().String(), "upstream", set.upstream.String(), "role", set.source.Role)
	var adminAddr net.Addr
	if probes != nil {
		adminAddr = probes.Addr()
		go s.serve(s.admin, probes)
		log.Info("listening", "kind", "admin", "address", adminAddr.String())
	}
	if ready != nil {
		ready(local.Addr(), adminAddr)
	}
	return s, nil
}

// build makes what serves.
func (s *sidecar) build(pool *x509.CertPool, addr net.Addr) error {
	var err error
	if s.source, err = client.New(s.settings.source); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := newMetrics(registry, s.source.Stats)
	base := connect(pool, m)
	options := s.settings.transport
	options.Base = base
	transport, err := client.NewTransport(s.source, options)
	if err != nil {
		_ = s.source.Close()
		return err
	}
	s.idle = base.CloseIdleConnections
	life, cut := context.WithCancel(context.Background())
	s.cut = cut
	s.proxy = newProxy(life, s.settings.upstream, options.Header, transport, m, s.log)
	s.proxy.judge = newJudge(addr, s.settings.hosts)
	s.main = s.server(s.proxy)
	s.main.BaseContext = func(net.Listener) context.Context { return life }
	s.main.Protocols = new(http.Protocols)
	s.main.Protocols.SetHTTP1(true)
	s.main.Protocols.SetUnencryptedHTTP2(true)
	s.admin = s.server(admin(s.source.Stats, &s.ending, registry))
	s.admin.ReadTimeout, s.admin.WriteTimeout = headerTime, adminTime
	return nil
}

func (s *sidecar) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: complaintsTo(s.log),
		DisableGeneralOptionsHandler: true, // it would answer OPTIONS * with 200
	}
}

func (s *sidecar) serve(server *http.Server, l net.Listener) {
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.failed <- err
	}
}

// stop lets nobody in any more. Requests under way have a while; connections that have
// switched protocols end when those are done, since nobody knows when they would.
func (s *sidecar) stop() {
	s.ending.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), s.settings.drain)
	defer cancel()
	if err := s.main.Shutdown(ctx); err != nil {
		s.log.Warn("requests were cut off", "after", s.settings.drain.String())
	}
	s.cut()
	_ = s.main.Close()
	s.settle()
	_ = s.admin.Close()
	s.idle()
	_ = s.source.Close()
}

// settle waits for handlers that were cut off.
func (s *sidecar) settle() {
	done := make(chan struct{})
	go func() {
		s.proxy.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// complaintsTo is a log for what net/http has to say: of clients that are none, mostly.
func complaintsTo(to *slog.Logger) *log.Logger { return log.New(complaints{to}, "", 0) }

type complaints struct{ log *slog.Logger }

func (c complaints) Write(text []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.Contains(text, []byte("panic")) {
		level = slog.LevelError
	}
	c.log.Log(context.Background(), level, "http", "text", strings.TrimSpace(string(text)))
	return len(text), nil
}
