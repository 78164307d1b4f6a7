// SPDX-License-Identifier: MPL-2.0

package plugin

import (
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
)

// callbackGrace is how long storage calls of a plugin that was cleaned up may
// still take.
const callbackGrace = 5 * time.Second

// callbacks is what the host serves to one mount's backend. The broker makes
// the server when it gets to it, perhaps after the mount has ended.
type callbacks struct {
	storage logical.Storage
	system  logical.SystemView
	grace   time.Duration

	mu      sync.Mutex
	server  *grpc.Server
	stopped bool
}

func (c *callbacks) newServer(opts []grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append(opts, largeServer...)...)
	pb.RegisterStorageServer(server, &storageServer{impl: c.storage})
	pb.RegisterSystemViewServer(server, &systemServer{impl: c.system})
	pb.RegisterEventsServer(server, eventsServer{})
	pb.RegisterObservationsServer(server, observationsServer{})

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		server.Stop()
	}
	c.server = server
	return server
}

// stop never waits for a server that may not come, and not for long on a
// plugin that does not hang up.
func (c *callbacks) stop() {
	c.mu.Lock()
	c.stopped = true
	server := c.server
	c.mu.Unlock()
	if server == nil {
		return
	}
	graceful := make(chan struct{})
	go func() {
		server.GracefulStop()
		close(graceful)
	}()
	timeout := time.NewTimer(c.grace)
	defer timeout.Stop()
	select {
	case <-graceful:
	case <-timeout.C:
		// Even this waits for handlers, once GracefulStop has begun.
		go server.Stop()
	}
}
