// SPDX-License-Identifier: MPL-2.0

package sidecar

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/client"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/access"
)

// Flags say which key to use, where, and for whom.
type Flags struct {
	set      *flag.FlagSet
	access   *access.Flags
	role     string
	listen   string
	upstream string
	caCert   string
	header   string
	scheme   string
	refused  string
	hosts    []string
	admin    string
	scopes   string
	ttl      time.Duration
	label    string
	keyLabel string
	drain    time.Duration
	level    slog.Level
	format   string
}

const usage = `Usage: apikeys proxy -role orders -listen 127.0.0.1:9000 -upstream https://api.example.com

Passes requests on to one upstream, with the current API key of a role. Every local
process that reaches the listener can use the key.

`

// Register adds the flags to the command.
func Register(set *flag.FlagSet) *Flags {
	f := &Flags{set: set, access: access.Register(set)}
	set.StringVar(&f.role, "role", "", "the `role` whose key is used")
	set.StringVar(&f.listen, "listen", "", "loopback `address` with a port, such as 127.0.0.1:9000, or unix:/path of a socket")
	set.StringVar(&f.upstream, "upstream", "", "`URL` that requests are passed on to: https, or http to a literal loopback address")
	set.StringVar(&f.caCert, "upstream-ca-cert", "", "`file` of the certificates that the upstream's is checked against (default: the machine's)")
	set.StringVar(&f.header, "header", "Authorization", "`name` of the header that holds the key")
	set.StringVar(&f.scheme, "scheme", "", "`word` before the key in the header (default: Bearer in Authorization, none in another header)")
	set.StringVar(&f.refused, "refused-status", "401", "`codes` of the answers that mean that the key is not accepted, with commas")
	set.Func("allow-host", "another `host` that requests may name in Host, with or without a port (repeatable)", func(text string) error {
		f.hosts = append(f.hosts, text)
		return nil
	})
	set.StringVar(&f.admin, "admin", "", "`address` of /healthz, /readyz and /metrics: any, or unix:/path (default: none)")
	set.StringVar(&f.scopes, "scopes", "", "`scopes` to narrow a dynamic role's key to, with commas")
	set.DurationVar(&f.ttl, "ttl", 0, "`duration` of a dynamic role's key (default: the role's)")
	set.StringVar(&f.keyLabel, "key-label", "", "`text` that says what a dynamic role's key is for")
	set.StringVar(&f.label, "label", "", "this consumer's `name` in the status of the role")
	set.DurationVar(&f.drain, "drain", 10*time.Second, "`duration` that requests under way have at the end")
	set.TextVar(&f.level, "log-level", slog.LevelInfo, "`level` of the log: debug, info, warn or error")
	set.StringVar(&f.format, "log-format", "json", "`form` of the log: json or text")
	set.Usage = func() {
		fmt.Fprint(set.Output(), usage)
		set.PrintDefaults()
		fmt.Fprint(set.Output(), "\n"+access.Usage)
	}
	return f
}

// settings are flags that were found in order.
type settings struct {
	source    client.Options
	transport client.TransportOptions
	upstream  *url.URL
	listen    string
	admin     string
	hosts     []string
	drain     time.Duration
}

// settings checks the flags. Errors name the flag.
func (f *Flags) settings(log *slog.Logger) (*settings, error) {
	if f.set.NArg() > 0 {
		return nil, fmt.Errorf("%q: is not a flag: this command takes flags only", f.set.Arg(0))
	}
	for _, need := range []struct{ name, value, example string }{
		{"-role", f.role, "orders"}, {"-listen", f.listen, "127.0.0.1:9000"}, {"-upstream", f.upstream, "https://api.example.com"},
	} {
		if need.value == "" {
			return nil, fmt.Errorf("%s: is missing: give one, such as %s", need.name, need.example)
		}
	}
	s := &settings{listen: f.listen, admin: f.admin, hosts: f.hosts, drain: f.drain}
	var err error
	if s.upstream, err = parseUpstream(f.upstream); err != nil {
		return nil, fmt.Errorf("-upstream: %w", err)
	}
	if err := checkListen(f.listen); err != nil {
		return nil, fmt.Errorf("-listen: %w", err)
	}
	if err := checkAdmin(f.admin); err != nil {
		return nil, fmt.Errorf("-admin: %w", err)
	}
	for _, host := range f.hosts {
		if err := checkHost(host); err != nil {
			return nil, fmt.Errorf("-allow-host: %q: %w", host, err)
		}
	}
	if f.drain < 0 {
		return nil, fmt.Errorf("-drain: %v: is negative: give 0 or more", f.drain)
	}
	if f.ttl != 0 && f.ttl < time.Second {
		return nil, fmt.Errorf("-ttl: %v: is less than a second", f.ttl)
	}
	if s.transport.RefusedStatus, err = statuses(f.refused); err != nil {
		return nil, fmt.Errorf("-refused-status: %w", err)
	}
	if err := f.checkScheme(); err != nil {
		return nil, err
	}
	s.transport.Hosts = []string{hostPort(s.upstream)}
	s.transport.Header, s.transport.Scheme = f.header, f.scheme
	login, err := f.access.Options(log)
	if err != nil {
		return nil, err
	}
	s.source = client.Options{
		Client: login.Client, Auth: login.Auth, TokenFile: login.TokenFile, Mount: f.access.Mount(), Role: f.role,
		TTL: f.ttl, KeyLabel: f.keyLabel, Label: f.label, Log: log,
	}
	if f.scopes != "" {
		for scope := range strings.SplitSeq(f.scopes, ",") {
			s.source.Scopes = append(s.source.Scopes, strings.TrimSpace(scope))
		}
	}
	return s, nil
}

// checkScheme refuses what a Transport understands as not given.
func (f *Flags) checkScheme() (err error) {
	f.set.Visit(func(given *flag.Flag) {
		if given.Name == "scheme" && f.scheme == "" && strings.EqualFold(f.header, "Authorization") {
			err = errors.New("-scheme: is empty: Authorization has a scheme; leave it out for Bearer")
		}
	})
	return err
}

// log is the log that the flags ask for.
func (f *Flags) log(out io.Writer) (*slog.Logger, error) {
	opt := &slog.HandlerOptions{Level: f.level}
	switch f.format {
	case "json":
		return slog.New(slog.NewJSONHandler(out, opt)), nil
	case "text":
		return slog.New(slog.NewTextHandler(out, opt)), nil
	}
	return nil, fmt.Errorf("-log-format: %q: is none: give json or text", f.format)
}

func checkListen(address string) error {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		return checkSocket(path)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: is no address with a port: give one such as 127.0.0.1:9000, or unix:/path", address)
	}
	if err := checkPort(port); err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !addr.IsLoopback()) {
		return fmt.Errorf("%q: others than this machine's processes would reach the key: give a loopback address such as 127.0.0.1:%s, or unix:/path", address, port)
	}
	return nil
}

func checkAdmin(address string) error {
	if address == "" {
		return nil
	}
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		return checkSocket(path)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: is no address with a port: give one such as 127.0.0.1:9001 or :9001", address)
	}
	return checkPort(port)
}

func checkPort(text string) error {
	if n, err := strconv.ParseUint(text, 10, 16); err != nil || n > 65535 {
		return fmt.Errorf("%q: is not a port: give a number from 0 to 65535", text)
	}
	return nil
}

// maxSocketPath is what fits into an address of the kernel, on all systems.
const maxSocketPath = 103

func checkSocket(path string) error {
	switch {
	case path == "" || path[0] == '@':
		return errors.New("unix: names no file: give unix:/path of a socket")
	case len(path) > maxSocketPath:
		return fmt.Errorf("unix: the path has %d characters: the kernel takes %d", len(path), maxSocketPath)
	}
	return nil
}

func checkHost(text string) error {
	u, err := url.Parse("http://" + text)
	if err != nil || u.Host != text || u.Hostname() == "" || strings.Contains(text, "*") {
		return errors.New("is no host: give one such as sidecar.local or sidecar.local:9000")
	}
	return nil
}

func statuses(text string) (all []int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		code, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || code < 400 || code > 499 {
			return nil, fmt.Errorf("%q: is not a status from 400 to 499", part)
		}
		all = append(all, code)
	}
	return all, nil
}
