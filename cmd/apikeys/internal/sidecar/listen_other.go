// SPDX-License-Identifier: MPL-2.0

//go:build !unix

package sidecar

import (
	"context"
	"fmt"
	"net"
	"runtime"
)

// listenPrivately refuses: a socket's mode does not keep other users away here.
func listenPrivately(_ context.Context, path string) (net.Listener, error) {
	return nil, fmt.Errorf("%s: on %s a Unix socket is open to every user: listen at a loopback address", path, runtime.GOOS)
}
