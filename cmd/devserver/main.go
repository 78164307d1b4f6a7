// SPDX-License-Identifier: MPL-2.0

// Command devserver hosts the plugin binary behind Vault's HTTP API, for development, demos and tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/host"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/server"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/store"
)

// drainLimit is how long requests under way are waited for at the end.
const drainLimit = 8 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "devserver:", err)
		os.Exit(1)
	}
}

type options struct {
	listen, plugin, mount, storage, rootToken, logLevel string
	tick                                                time.Duration
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("devserver", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.listen, "listen", "127.0.0.1:8200", "loopback address to serve on; port 0 takes a free one")
	f.StringVar(&o.plugin, "plugin", "bin/vault-plugin-secrets-apikeys", "plugin binary")
	f.StringVar(&o.mount, "mount", "apikeys", "path to mount the plugin at")
	f.StringVar(&o.storage, "storage", "memory", "`memory`, or a file that survives the server")
	f.StringVar(&o.rootToken, "root-token", "root", "token that may do everything")
	f.DurationVar(&o.tick, "tick", time.Second, "period of the plugin's periodic call; Vault's is one minute")
	f.StringVar(&o.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	if err := f.Parse(args); err != nil {
		return o, flag.ErrHelp
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.tick <= 0 {
		return o, errors.New("-tick: must be longer than zero")
	}
	if hclog.LevelFromString(o.logLevel) == hclog.NoLevel {
		return o, fmt.Errorf("-log-level: %q: must be trace, debug, info, warn or error", o.logLevel)
	}
	return o, nil
}

// run serves until ctx is done, and returns when the plugin's process is gone.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "devserver", Level: hclog.LevelFromString(o.logLevel), Output: stderr})
	listener, err := listenLoopback(ctx, o.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	fmt.Fprintln(stdout, "This is a DEVELOPMENT server: no encryption, no TLS, no audit, a well-known root token. Never use it for real keys.")

	plugin, err := filepath.Abs(o.plugin)
	if err != nil {
		return fmt.Errorf("-plugin: %w", err)
	}
	if _, err := os.Stat(plugin); err != nil {
		return fmt.Errorf("-plugin: %w (run `make build` first)", err)
	}
	db, err := openStore(o.storage)
	if err != nil {
		return err
	}
	defer db.Close()
	plugins := host.New(logger, server.Version)
	defer plugins.Close()
	storageType := "inmem"
	if o.storage != "memory" {
		storageType = "file"
	}
	srv, err := server.New(server.Config{
		Store: db, Host: plugins, Logger: logger, RootToken: o.rootToken, Plugin: plugin, PluginDir: filepath.Dir(plugin), StorageType: storageType,
	})
	if err != nil {
		return err
	}
	defer srv.Close()
	if err := srv.Open(ctx); err != nil {
		return err
	}
	if err := srv.EnsureMounted(ctx, o.mount, srv.PluginName()); err != nil {
		return fmt.Errorf("mount %s at %s/: %w", srv.PluginName(), o.mount, err)
	}
	srv.Run(o.tick)
	return serve(ctx, listener, srv, stdout)
}

func serve(ctx context.Context, listener net.Listener, srv *server.Server, stdout io.Writer) error {
	h := &http.Server{
		Handler: srv.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(listener) }()
	fmt.Fprintf(stdout, "ready: http://%s\n", listener.Addr())
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := h.Shutdown(drain); err != nil {
		return errors.Join(fmt.Errorf("stop serving: %w", err), h.Close())
	}
	return nil
}

// listenLoopback refuses every address that somebody else could reach.
func listenLoopback(ctx context.Context, address string) (net.Listener, error) {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	var lc net.ListenConfig
	if ip := net.ParseIP(name); name != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("-listen: %s: a development server listens on loopback only (127.0.0.1, ::1 or localhost)", address)
	}
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	// A name resolves to what the machine's files say: look at what it came to.
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("-listen: %s is not a loopback address here", address)
	}
	return l, nil
}

func openStore(storage string) (store.Store, error) {
	if storage == "memory" {
		return store.NewMemory(), nil
	}
	return store.OpenFile(storage)
}
