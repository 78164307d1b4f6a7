// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the packages bring for systemd is something that the programs take.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("../../bootstrap/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	secret := filepath.Join(dir, "secret-id")
	if err := os.WriteFile(secret, []byte("made by this test"), 0o600); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	ran := func(command string, changes ...string) {
		t.Helper()
		command = strings.NewReplacer(changes...).Replace(command)
		args, ok := strings.CutPrefix(command, "/usr/bin/apikeys ")
		if !ok {
			t.Fatalf("%q is no command of the package", command)
		}
		var out, errs bytes.Buffer
		if status := run(ended, strings.Fields(args), strings.NewReader(""), &out, &errs); status != exitOK {
			t.Errorf("%s: %d\n%s%s", command, status, &out, &errs)
		}
	}
	value := func(text, name string) string {
		t.Helper()
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
				return v
			}
		}
		t.Fatalf("no %s in\n%s", name, text)
		return ""
	}

	// Two listeners may not have the same address, so one of them names its port.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := l.Addr().String()
	l.Close()

	config := filepath.Join(dir, "edge.hcl")
	text := strings.NewReplacer("/etc/apikeys/edge.secret-id", secret, "/var/lib/apikeys-edge", dir, "127.0.0.1:9090", "127.0.0.1:0", "127.0.0.1:9091", admin).Replace(read("edge.hcl"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	unit := read("apikeys-edge.service")
	ran(value(unit, "ExecStartPre"), "/etc/apikeys/edge.hcl", config)
	ran(value(unit, "ExecStart"), "/etc/apikeys/edge.hcl", config)

	flags := strings.NewReplacer("/etc/apikeys/proxy-orders.secret-id", secret, "127.0.0.1:9000", "127.0.0.1:0", "127.0.0.1:9001", admin).Replace(value(read("proxy-orders.env"), "FLAGS"))
	ran(value(read("apikeys-proxy@.service"), "ExecStart"), "$FLAGS", flags)
}
