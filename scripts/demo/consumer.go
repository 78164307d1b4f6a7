// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
)

// counter is an API that verifies each key, and counts with which versions it was called.
type counter struct {
	s *story

	mu       sync.Mutex
	versions map[int64]int
	refused  int // requests that the API has refused; their senders have made them again
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secret, err := c.s.write(r.Context(), "verify", map[string]any{"key": strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")})
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if valid, _ := secret.Data["valid"].(bool); !valid {
		c.refused++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	c.versions[num(secret.Data, "version")]++
}

// seen is how often the API was called with a version.
func (c *counter) seen(version int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.versions[version]
}

// consumer has a program call an API all the time, through a rotation and a revocation.
func (s *story) consumer(ctx context.Context) error {
	s.n.chapter("A program that never holds a dead key")
	if _, err := s.write(ctx, "roles/shop", map[string]any{"refresh_interval": "1s", "grace_period": "1h"}); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed
	if err != nil {
		return err
	}
	counter := &counter{s: s, versions: map[int64]int{}}
	server := &http.Server{Handler: counter, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }() // it says that it was closed
	defer server.Close()
	source, err := client.New(client.Options{Client: s.client, Mount: "apikeys", Role: "shop", Label: "shop"})
	if err != nil {
		return err
	}
	defer source.Close()
	transport, err := client.NewTransport(source, client.TransportOptions{Hosts: []string{listener.Addr().String()}})
	if err != nil {
		return err
	}

	s.n.tell(ctx, "A program calls an API all the time, with the client library.")
	calls, done := make(chan error, 1), make(chan struct{})
	sent := 0
	go func() {
		defer close(calls)
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := call(ctx, &http.Client{Transport: transport}, "http://"+listener.Addr().String()); err != nil {
				calls <- err
				return
			}
			sent++
		}
	}()
	step := func(what string, version int64) error {
		return until(ctx, latest, what, func() (bool, error) {
			select {
			case err := <-calls:
				return false, err
			default:
				return counter.seen(version) > 0, nil
			}
		})
	}
	if err := step("that it is called", 1); err != nil {
		return err
	}
	s.n.do("vault write -force apikeys/rotate/shop")
	if _, err := s.write(ctx, "rotate/shop", nil); err != nil {
		return err
	}
	if err := step("that the program moves", 2); err != nil {
		return err
	}
	s.n.do("vault write apikeys/revoke/shop version=2 reason='seen in a ticket'")
	if _, err := s.write(ctx, "revoke/shop", map[string]any{"version": 2, "reason": "seen in a ticket"}); err != nil {
		return err
	}
	if err := step("that the program has the replacement", 3); err != nil {
		return err
	}
	close(done)
	if err := <-calls; err != nil {
		return err
	}
	s.n.show("✓ %d requests with versions 1, 2 and 3, none of them failed", sent)
	if counter.refused > 0 {
		s.n.show("  %d met the revoked key: made again with the new one, and the program has noticed nothing.", counter.refused)
	}
	return nil
}

// call is one of the program's requests.
func call(ctx context.Context, caller *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := caller.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a program with the client library was answered %d", resp.StatusCode)
	}
	return nil
}
