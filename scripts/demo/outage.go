// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

const (
	// away is how long requests go on without the server, at least.
	away = 2 * time.Second
	// latest is when a revocation must have arrived, whatever else this machine does.
	latest = 7 * time.Second
)

// outage has an edge in front of an API while its server is killed and comes back. That
// is another server than the story's, which has a fleet to look after.
func (s *story) outage(ctx context.Context) (err error) {
	s.n.chapter("An outage that no request notices")
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	o := s.options
	o.storage = filepath.Join(dir, "storage")
	server, err := startServer(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		switch {
		case server == nil:
		case err != nil:
			server.kill()
		default:
			err = server.stop()
		}
	}()
	its := &story{n: s.n, client: server.client}
	shown, err := its.made(ctx, "orders")
	if err != nil {
		return err
	}
	unseen, err := its.made(ctx, "payments")
	if err != nil {
		return err
	}

	s.n.tell(ctx, "Another server, with its storage in a file, and an API with an edge in front: it holds what it has learnt of a key.")
	v, err := edge.New(edge.Options{Client: server.client, Mount: "apikeys"})
	if err != nil {
		return err
	}
	defer v.Close()
	orders, err := serve(v)
	if err != nil {
		return err
	}
	defer orders.close()
	// What it learns before it hears of decisions it does not hold.
	err = until(ctx, latest, "that the edge holds the key", func() (bool, error) {
		return orders.get(ctx, shown) == http.StatusOK && v.Stats().Held == 1, nil
	})
	if err != nil {
		return err
	}
	s.n.do("curl -H 'X-API-Key: %s' %s/7", shown, orders.url)
	s.n.show("✓ 200")

	s.n.tell(ctx, "The server is killed, by kill -9.")
	address, err := url.Parse(server.client.Address())
	if err != nil {
		return err
	}
	if err := server.crash(); err != nil {
		return err
	}
	server = nil
	sent, began := 0, time.Now()
	for ; time.Since(began) < away; sent++ {
		if status := orders.get(ctx, shown); status != http.StatusOK {
			return fmt.Errorf("while the server is away a good key is answered %d", status)
		}
	}
	s.n.show("✓ %d requests in %.1f s, each of them 200", sent, time.Since(began).Seconds())
	if status := orders.get(ctx, unseen); status != http.StatusServiceUnavailable {
		return fmt.Errorf("a key that the edge has never seen is answered %d", status)
	}
	s.n.show("  A key that the edge has never seen: 503, not 401. It cannot know, and nobody throws a good key away.")

	o.listen = address.Host
	if server, err = startServer(ctx, o); err != nil {
		return err
	}
	s.n.tell(ctx, "The server is back, and the edge has found it. Now the key is revoked.")
	if err := until(ctx, latest, "that decisions arrive", func() (bool, error) { return v.Stats().Live && v.Stats().Dirty == 0, nil }); err != nil {
		return err
	}
	s.n.do("vault write apikeys/revoke/orders key_id=%s", shown.id)
	if _, err := its.write(ctx, "revoke/orders", map[string]any{"key_id": shown.id}); err != nil {
		return err
	}
	decided := time.Now()
	err = until(ctx, latest, "that the key is refused", func() (bool, error) { return orders.get(ctx, shown) == http.StatusUnauthorized, nil })
	if err != nil {
		return err
	}
	s.n.show("✗ 401, %.1f s after the revocation was answered", time.Since(decided).Seconds())
	return nil
}

// made is the key of a new role.
func (s *story) made(ctx context.Context, role string) (key, error) {
	if _, err := s.write(ctx, "roles/"+role, map[string]any{"scopes": []string{role + ":read"}}); err != nil {
		return key{}, err
	}
	return s.creds(ctx, role)
}

// guarded is an API behind an edge.
type guarded struct {
	url    string
	server *http.Server
}

func serve(v *edge.Verifier) (*guarded, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/orders/", v.Handler(edge.Guard{Scopes: []string{"orders:read"}}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	g := &guarded{url: "http://" + listener.Addr().String() + "/orders", server: &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}}
	go func() { _ = g.server.Serve(listener) }() // it says that it was closed
	return g, nil
}

func (g *guarded) close() { _ = g.server.Close() }

// get is the status with which a request is answered that presents a key; 0 for none.
func (g *guarded) get(ctx context.Context, k key) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/7", http.NoBody)
	if err != nil {
		return 0
	}
	req.Header.Set("X-API-Key", k.secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}
