// SPDX-License-Identifier: MPL-2.0

//go:build unix

package sidecar

import (
	"context"
	"net"
	"syscall"
)

// listenPrivately makes a socket that is nobody else's from its first moment. Nothing else
// makes files yet.
func listenPrivately(ctx context.Context, path string) (net.Listener, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return (&net.ListenConfig{}).Listen(ctx, "unix", path)
}
