// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
)

// open listens at host:port, or at unix:/path, where only this user may connect.
func open(ctx context.Context, address string) (net.Listener, error) {
	var conf net.ListenConfig
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		return conf.Listen(ctx, "tcp", address)
	}
	if err := clearSocket(ctx, path); err != nil {
		return nil, err
	}
	l, err := listenPrivately(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // file systems may have masks of their own
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// clearSocket takes away a socket that one who was killed has left.
func clearSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil //nolint:nilerr // there is none, or listening says what is wrong
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s: is there, and is not a socket", path)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s: somebody listens there", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// openLocal listens where only this machine's processes reach it.
func openLocal(ctx context.Context, address string) (net.Listener, error) {
	l, err := open(ctx, address)
	if err != nil {
		return nil, err
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("%s: is %s, and that is no loopback address", address, addr.IP)
	}
	return l, nil
}
