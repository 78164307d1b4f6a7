// SPDX-License-Identifier: MPL-2.0

// Package config reads the configuration of the edge: one HCL file, in which nothing is
// taken that it does not know.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsimple"
)

// Edge is the file of `apikeys edge`.
type Edge struct {
	Label  string   `hcl:"label,optional"`
	Vault  Vault    `hcl:"vault,block"`
	Listen []Listen `hcl:"listen,block"`
	Cache  *Cache   `hcl:"cache,block"`
	Keys   *Keys    `hcl:"keys,block"`
	Log    *Log     `hcl:"log,block"`
	Rules  []Rule   `hcl:"rule,block"`
}

// Vault is where the engine is, and how to log in.
type Vault struct {
	Address   string `hcl:"address,optional"`
	Namespace string `hcl:"namespace,optional"`
	Mount     string `hcl:"mount"`
	Role      string `hcl:"role,optional"`
	TokenFile string `hcl:"token_file,optional"`
	CACert    string `hcl:"ca_cert,optional"`
	Auth      *Auth  `hcl:"auth,block"`
}

// Auth is a login.
type Auth struct {
	Method       string `hcl:"method,label"`
	Mount        string `hcl:"mount,optional"`
	Role         string `hcl:"role,optional"`
	RoleID       string `hcl:"role_id,optional"`
	SecretIDFile string `hcl:"secret_id_file,optional"`
	TokenFile    string `hcl:"token_file,optional"`
	Path         string `hcl:"path,optional"`
}

// Listen is a listener: auth for gateways, verify for programs on this machine, admin
// for health and metrics.
type Listen struct {
	Kind           string   `hcl:"kind,label"`
	Address        string   `hcl:"address"`
	Preset         string   `hcl:"preset,optional"`
	Protocol       string   `hcl:"protocol,optional"`
	TrustedProxies []string `hcl:"trusted_proxies,optional"`
	TLS            *TLS     `hcl:"tls,block"`

	Trusted []netip.Prefix
}

// TLS are the certificate of a listener, and whose certificates its clients must show.
type TLS struct {
	CertFile     string `hcl:"cert_file"`
	KeyFile      string `hcl:"key_file"`
	ClientCAFile string `hcl:"client_ca_file,optional"`
}

// Cache bounds what is held, and how long it counts while Vault is away.
type Cache struct {
	MaxStaleness      string  `hcl:"max_staleness,optional"`
	StateFile         string  `hcl:"state_file,optional"`
	StateKeyFile      string  `hcl:"state_key_file,optional"`
	MaxKeys           int     `hcl:"max_keys,optional"`
	UnknownPerSecond  float64 `hcl:"unknown_per_second,optional"`
	UnknownPerAddress float64 `hcl:"unknown_per_address,optional"`

	Staleness time.Duration
}

// Keys say where keys are presented, beside Authorization: Bearer.
type Keys struct {
	Headers []string `hcl:"headers,optional"`
	Query   []string `hcl:"query,optional"`
}

// Log says how much is logged.
type Log struct {
	Level  string `hcl:"level,optional"`
	Format string `hcl:"format,optional"`
}

// Rule is what a key must have for some requests.
type Rule struct {
	Methods  []string `hcl:"methods,optional"`
	Path     string   `hcl:"path"`
	Scopes   []string `hcl:"scopes,optional"`
	AnyScope []string `hcl:"any_scope,optional"`
}

// Load reads and checks the file. Its errors name the place in it.
func Load(file string) (*Edge, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, src)
}

// Parse is Load for a text in hand.
func Parse(file string, src []byte) (*Edge, error) {
	// The name decides about the syntax, and there is one.
	name := file
	if !strings.HasSuffix(name, ".hcl") {
		name += ".hcl"
	}
	e := &Edge{}
	if err := hclsimple.Decode(name, src, nil, e); err != nil {
		return nil, told(err)
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return e, nil
}

// Files complains about files that the configuration names and that are not there, as
// far as they are not made.
func (e *Edge) Files() error {
	type named struct{ field, file string }
	files := []named{{"vault: token_file", e.Vault.TokenFile}, {"vault: ca_cert", e.Vault.CACert}}
	if a := e.Vault.Auth; a != nil {
		block := fmt.Sprintf("vault: auth %q: ", a.Method)
		files = append(files, named{block + "secret_id_file", a.SecretIDFile}, named{block + "token_file", a.TokenFile}, named{block + "path", a.Path})
	}
	for _, made := range []named{{"cache: state_file", e.Cache.StateFile}, {"cache: state_key_file", e.Cache.StateKeyFile}} {
		if made.file != "" {
			files = append(files, named{made.field + ": the directory", filepath.Dir(made.file)})
		}
	}
	for _, f := range files {
		if f.file == "" {
			continue
		}
		if _, err := os.Stat(f.file); errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(f.file) {
			dir, _ := os.Getwd()
			return fmt.Errorf("%s: %q: does not exist in %s: paths are relative to the working directory", f.field, f.file, dir)
		} else if err != nil {
			return fmt.Errorf("%s: %w", f.field, err)
		}
	}
	return nil
}

// told is every complaint about a file on a line of its own.
func told(err error) error {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	var all []error
	for _, d := range diags {
		all = append(all, d)
	}
	return errors.Join(all...)
}

// The kinds of listeners.
const (
	KindAuth   = "auth"
	KindAdmin  = "admin"
	KindVerify = "verify"
	// ProtocolGRPC is that of Envoy's ext_authz; the other one is HTTP.
	ProtocolGRPC = "grpc"
	ProtocolHTTP = "http"
)

// The methods of a login.
const (
	AuthAppRole    = "approle"
	AuthKubernetes = "kubernetes"
	AuthJWT        = "jwt"
	AuthTokenFile  = "token_file"
)

// check completes the configuration, and refuses what would not do what was meant.
func (e *Edge) check() error {
	if err := e.Vault.check(); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	auth := false
	for i := range e.Listen {
		l := &e.Listen[i]
		if err := l.check(); err != nil {
			return fmt.Errorf("listen %q: %w", l.Kind, err)
		}
		for _, other := range e.Listen[:i] {
			if other.Address == l.Address {
				return fmt.Errorf("listen %q: address %q: has another listener", l.Kind, l.Address)
			}
		}
		auth = auth || l.Kind == KindAuth
	}
	if len(e.Listen) == 0 {
		return errors.New("listen: there is none: give one for each gateway, such as listen \"auth\" { … }")
	}
	if auth && len(e.Rules) == 0 {
		return errors.New("rule: there is none, and what no rule matches is refused: give rules, such as rule { path = \"/**\" } for a good key everywhere")
	}
	if e.Cache == nil {
		e.Cache = &Cache{}
	}
	if err := e.Cache.check(); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	if e.Keys == nil {
		e.Keys = &Keys{}
	}
	if err := e.Keys.check(); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	if e.Log == nil {
		e.Log = &Log{}
	}
	return e.Log.check()
}

func (v *Vault) check() error {
	if strings.Trim(v.Mount, "/") == "" {
		return errors.New("mount: is empty: give the path of the mount, such as apikeys")
	}
	if u, err := url.Parse(v.Address); v.Address != "" && (err != nil || !slices.Contains([]string{"http", "https", "unix"}, u.Scheme)) {
		return fmt.Errorf("address: %q: is not a URL such as https://vault.example.com:8200", v.Address)
	}
	a := v.Auth
	if a == nil {
		return nil
	}
	if v.TokenFile != "" {
		return errors.New("token_file and auth: one of them says where the token comes from")
	}
	need := func(name, value string) error {
		if value == "" {
			return fmt.Errorf("auth %q: %s: is missing", a.Method, name)
		}
		return nil
	}
	var err error
	switch a.Method {
	case AuthAppRole:
		err = need("role_id", a.RoleID)
	case AuthKubernetes:
		err = need("role", a.Role)
	case AuthJWT:
		err = errors.Join(need("role", a.Role), need("token_file", a.TokenFile))
	case AuthTokenFile:
		err = need("path", a.Path)
	default:
		err = fmt.Errorf("auth %q: is none: give approle, kubernetes, jwt or token_file", a.Method)
	}
	return err
}

func (l *Listen) check() error {
	switch l.Kind {
	case KindAuth, KindAdmin, KindVerify:
	default:
		return errors.New("is none: give auth, admin or verify")
	}
	if _, _, err := net.SplitHostPort(l.Address); err != nil && !strings.HasPrefix(l.Address, socket) || l.Address == socket {
		return fmt.Errorf("address: %q: is none: give one such as 127.0.0.1:9090, or unix:/run/apikeys.sock", l.Address)
	}
	if strings.HasPrefix(l.Address, socket+"@") {
		return fmt.Errorf("address: %q: is a socket without a file, which every program on the machine may use: give a path", l.Address)
	}
	if l.Protocol == "" {
		l.Protocol = ProtocolHTTP
	}
	switch {
	case l.Protocol != ProtocolHTTP && l.Protocol != ProtocolGRPC:
		return fmt.Errorf("protocol: %q: is none: give http or grpc", l.Protocol)
	case l.Kind != KindAuth && (l.Preset != "" || l.Protocol == ProtocolGRPC || len(l.TrustedProxies) > 0):
		return errors.New("preset, protocol and trusted_proxies are for listen \"auth\"")
	case l.Protocol == ProtocolGRPC && l.Preset != "" && l.Preset != "envoy":
		return fmt.Errorf("preset: %q: grpc is what Envoy speaks", l.Preset)
	case l.Kind == KindAuth && l.Protocol == ProtocolHTTP && l.Preset == "":
		return errors.New("preset: is missing: say which gateway asks")
	case l.Kind == KindVerify && !private(l.Address):
		return fmt.Errorf("address: %q: must be on loopback or a Unix socket: whoever reaches it can ask about any key", l.Address)
	}
	for _, text := range l.TrustedProxies {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			addr, aerr := netip.ParseAddr(text)
			if aerr != nil {
				return fmt.Errorf("trusted_proxies: %q: is no address and no network", text)
			}
			network = netip.PrefixFrom(addr, addr.BitLen())
		}
		l.Trusted = append(l.Trusted, network.Masked())
	}
	return nil
}

// socket begins the address of a Unix socket.
const socket = "unix:"

// private reports whether nobody but this machine reaches an address.
func private(address string) bool {
	if strings.HasPrefix(address, socket) {
		return true
	}
	if host, ok := strings.CutPrefix(address, "localhost:"); ok && host != "" {
		return true
	}
	ap, err := netip.ParseAddrPort(address)
	return err == nil && ap.Addr().IsLoopback()
}

func (c *Cache) check() error {
	if c.MaxStaleness != "" {
		d, err := time.ParseDuration(c.MaxStaleness)
		if err != nil || d <= 0 {
			return fmt.Errorf("max_staleness: %q: is not a duration such as 1h or 90s", c.MaxStaleness)
		}
		c.Staleness = d
	}
	if (c.StateFile == "") != (c.StateKeyFile == "") {
		return errors.New("state_file and state_key_file go together")
	}
	if c.MaxKeys < 0 || c.UnknownPerSecond < 0 || c.UnknownPerAddress < 0 {
		return errors.New("max_keys, unknown_per_second and unknown_per_address must not be negative")
	}
	return nil
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)

// notForKeys are headers that mean something else, or never reach the edge as they came.
var notForKeys = regexp.MustCompile(`(?i)^(authorization|proxy-.*|x-apikey-.*|x-original-.*|x-forwarded-.*|x-real-ip|forwarded|host|connection|cookie|content-.*|transfer-encoding|te|trailer|upgrade|expect)$`)

func (k *Keys) check() error {
	for _, name := range k.Headers {
		switch {
		case !headerName.MatchString(name):
			return fmt.Errorf("headers: %q: is no name: letters, digits and hyphens, such as X-API-Key", name)
		case notForKeys.MatchString(name):
			return fmt.Errorf("headers: %q: means something else: give a header of your own; Authorization: Bearer is always looked at", name)
		}
	}
	for _, name := range k.Query {
		if name == "" {
			return errors.New("query: has an empty name")
		}
	}
	return nil
}

func (l *Log) check() error {
	if l.Level == "" {
		l.Level = "info"
	}
	if l.Format == "" {
		l.Format = "json"
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		return fmt.Errorf("log: level: %q: give debug, info, warn or error", l.Level)
	}
	if l.Format != "json" && l.Format != "text" {
		return fmt.Errorf("log: format: %q: give json or text", l.Format)
	}
	return nil
}
