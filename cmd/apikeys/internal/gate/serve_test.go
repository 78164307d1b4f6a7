// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/apikeys/internal/config"
)

// vaultServer answers as the engine does behind a server: it takes every key for good.
type vaultServer struct {
	*httptest.Server
	slow chan struct{} // told of a question about a slow key, and waited for
}

func newVaultServer(t testing.TB) *vaultServer {
	t.Helper()
	s := &vaultServer{slow: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().UTC().Format(time.RFC3339Nano)
		if r.Header.Get("X-Vault-Token") != "t0" {
			http.Error(w, `{"errors": ["permission denied"]}`, http.StatusForbidden)
			return
		}
		switch r.URL.Path {
		case "/v1/apikeys/changes":
			fmt.Fprintf(w, `{"data": {"cursor": "e.1", "reset": true, "now": %q, "max_staleness": 60, "feed_wait": 2}}`, now)
		case "/v1/apikeys/verify":
			if body, err := io.ReadAll(r.Body); err == nil && strings.Contains(string(body), "slow") {
				s.slow <- struct{}{}
				<-s.slow
			}
			fmt.Fprintf(w, `{"data": {"cursor": "e.1", "roles": {"r": {"role": "orders", "scopes": ["orders:read"]}},
				"results": [{"code": "VALID", "role_id": "r", "key_id": "k1", "version": 3, "timeline": [{"from": %q, "code": "VALID", "state": "current"}]}]}}`, now)
		default:
			fmt.Fprint(w, `{"data": {}}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// locked is a buffer that several write to.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is an edge as the command runs it.
type running struct {
	t      testing.TB
	vault  *vaultServer
	dir    string
	addrs  []net.Addr
	log    *locked
	reload chan os.Signal
	stop   func() error
}

const token = "t0\n"

// start runs an edge. In the text VAULT is the server, DIR the directory of its files.
func start(t testing.TB, conf string) *running {
	t.Helper()
	r := prepare(t)
	r.run(conf)
	return r
}

func prepare(t testing.TB) *running {
	t.Helper()
	r := &running{t: t, dir: t.TempDir(), log: &locked{}, reload: make(chan os.Signal, 1), vault: newVaultServer(t)}
	r.write("token", token)
	return r
}

func (r *running) run(conf string) {
	r.t.Helper()
	r.conf(strings.ReplaceAll(conf, "VAULT", r.vault.URL))
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan []net.Addr, 1), make(chan error, 1)
	go func() { ended <- Serve(ctx, r.path("edge.hcl"), r.log, r.reload, func(a []net.Addr) { ready <- a }) }()
	var once sync.Once
	r.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-ended
		})
		return err
	}
	r.t.Cleanup(func() { _ = r.stop() })
	select {
	case r.addrs = <-ready:
	case err := <-ended:
		r.t.Fatalf("%v\n%s", err, r.log)
	}
}

func (r *running) path(name string) string { return filepath.Join(r.dir, name) }

func (r *running) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) conf(text string) {
	r.t.Helper()
	r.write("edge.hcl", strings.ReplaceAll(text, "DIR", r.dir))
}

// again has the files read again, and waits until that is told.
func (r *running) again(wanted string) {
	r.t.Helper()
	before := strings.Count(r.log.String(), wanted)
	r.reload <- syscall.SIGHUP
	r.says(wanted, before+1)
}

// says waits until the log says something that often.
func (r *running) says(wanted string, times int) {
	r.t.Helper()
	for until := time.Now().Add(10 * time.Second); strings.Count(r.log.String(), wanted) < times; {
		if time.Now().After(until) {
			r.t.Fatalf("the log does not say %q:\n%s", wanted, r.log)
		}
		runtime.Gosched()
	}
}

func (r *running) get(client *http.Client, url string, header ...string) *http.Response {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp
}

const confHead = `
vault {
  address    = "VAULT"
  mount      = "apikeys"
  token_file = "DIR/token"
}
`

func TestServe(t *testing.T) {
	const conf = confHead + `
listen "auth" {
  address = "127.0.0.1:0"
  preset  = "nginx"
}
listen "admin" {
  address = "127.0.0.1:00"
}
listen "verify" {
  address = "unix:DIR/verify.sock"
}
cache {
  max_staleness  = "1h"
  state_file     = "DIR/edge.state"
  state_key_file = "DIR/edge.key"
}
`
	const rules = `
rule {
  methods = ["GET", "HEAD"]
  path    = "/orders/**"
  scopes  = ["orders:read"]
}
`
	r := start(t, conf+rules)
	auth := "http://" + r.addrs[0].String()
	ask := func(uri string) int {
		t.Helper()
		return r.get(http.DefaultClient, auth+"/auth", "X-API-Key", "the-key-of-the-tests", "X-Original-Method", "GET", "X-Original-URI", uri).StatusCode
	}
	if got := ask("/orders/7"); got != 200 {
		t.Errorf("a good key: %d\n%s", got, r.log)
	}
	if got := ask("/status"); got != 403 {
		t.Errorf("no rule: %d", got)
	}
	unix := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.path("verify.sock"))
	}}}
	defer unix.CloseIdleConnections()
	resp, err := unix.Post("http://edge/verify", "application/json", strings.NewReader(`{"key": "the-key-of-the-tests"}`))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	r.says("decisions arrive", 1) // a key may be asked about before
	admin := "http://" + r.addrs[1].String()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/": 404} {
		if got := r.get(http.DefaultClient, admin+path).StatusCode; got != want {
			t.Errorf("%s: %d", path, got)
		}
	}

	// What may change changes; what is wrong changes nothing.
	with := func(text string) string { return strings.ReplaceAll(text, "VAULT", r.vault.URL) }
	r.conf(with(conf + rules + "rule {\n path = \"/status\"\n}\n"))
	r.again("the configuration was read again")
	if got := ask("/status"); got != 200 {
		t.Errorf("a new rule: %d", got)
	}
	r.conf(with(conf + "rule {\n path = \"status\"\n}\n"))
	r.again("the configuration is left as it was")
	if got := ask("/orders/7"); got != 200 {
		t.Errorf("after a configuration that is wrong: %d", got)
	}
	for from, to := range map[string]string{
		"1h": "2h", `"127.0.0.1:00"`: `"127.0.0.1:000"`, `mount      = "apikeys"`: `mount = "other"`, confHead: "label = \"shop\"" + confHead, "rule {": "log {\n format = \"text\"\n}\nrule {",
	} {
		changed := strings.Replace(conf+rules, from, to, 1)
		if changed == conf+rules {
			t.Fatalf("%q is not in the text", from)
		}
		r.conf(with(changed))
		r.again("need a restart")
		if got := ask("/status"); got != 403 {
			t.Errorf("%s: the rules of a configuration of which a part needs a restart: %d", to, got)
		}
	}

	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"edge.state", "edge.key"} {
		if info, err := os.Stat(r.path(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if strings.Contains(r.log.String(), "the-key") || strings.Contains(r.log.String(), "t0") {
		t.Errorf("the log holds a secret:\n%s", r.log)
	}
}

// A request in progress is answered before the edge ends, and listeners are not left
// behind.
func TestStop(t *testing.T) {
	r := start(t, confHead+"listen \"auth\" {\n address = \"unix:DIR/auth.sock\"\n preset = \"caddy\"\n}\nlisten \"verify\" {\n address = \"127.0.0.1:0\"\n}\nrule {\n path = \"/**\"\n}\n")
	answered := make(chan int)
	go func() {
		resp, err := http.Post("http://"+r.addrs[1].String()+"/verify", "application/json", strings.NewReader(`{"key": "a-slow-key-of-the-tests"}`))
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-r.vault.slow // the request is under way
	ended := make(chan error)
	go func() { ended <- r.stop() }()
	for { // until nobody is let in any more
		c, err := net.Dial("tcp", r.addrs[1].String())
		if err != nil {
			break
		}
		_ = c.Close()
		runtime.Gosched()
	}
	r.vault.slow <- struct{}{}
	if got := <-answered; got != 200 {
		t.Errorf("a request in progress: %d", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.path("auth.sock")); err == nil {
		t.Error("the socket is left")
	}
}

// certificate files of a name, in a directory.
func certify(t testing.TB, dir, name string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, from, from, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	rawKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, text := range map[string][]byte{"cert.pem": cert, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: rawKey})} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// Certificates are replaced while the edge runs, and clients have to show theirs.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	pool := certify(t, dir, "one")
	r := start(t, confHead+fmt.Sprintf(`
listen "admin" {
  address = "127.0.0.1:0"
  tls {
    cert_file      = %q
    key_file       = %q
    client_ca_file = %q
  }
}
`, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")))
	asks := func(pool *x509.CertPool, name string, shows bool) error {
		conf := &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12}
		if shows {
			pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			conf.Certificates = []tls.Certificate{pair}
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("https://" + r.addrs[0].String() + "/healthz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Errorf("over %s", resp.Proto)
			}
		}
		return err
	}
	if err := asks(pool, "one", true); err != nil {
		t.Error(err)
	}
	if err := asks(pool, "one", false); err == nil {
		t.Error("without a certificate of its own")
	}
	next := certify(t, dir, "two")
	r.again("the configuration was read again")
	if err := asks(next, "two", true); err != nil {
		t.Error(err)
	}
	// A mistake in the configuration does not keep an old certificate in use.
	r.write("edge.hcl", "half {")
	later := certify(t, dir, "three")
	r.again("the configuration is left as it was")
	if err := asks(later, "three", true); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.again("the certificate is left as it was")
}

// What the file says beats the environment, which counts where it is silent.
func TestEnvironment(t *testing.T) {
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:7001")
	t.Setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:7002")
	t.Setenv("VAULT_NAMESPACE", "theirs")
	t.Setenv("VAULT_TOKEN", "of-the-environment")
	const listen = "\nlisten \"admin\" {\n address = \"127.0.0.1:0\"\n}\n"
	for _, test := range []struct{ vault, address, namespace, token, file, auth string }{
		{`mount = "apikeys"`, "http://127.0.0.1:7002", "theirs", "of-the-environment", "", "<nil>"},
		{`mount = "apikeys"` + "\n" + `address = "http://127.0.0.1:7003"` + "\n" + `namespace = "ours"`, "http://127.0.0.1:7003", "ours", "of-the-environment", "", "<nil>"},
		{`mount = "apikeys"` + "\n" + `token_file = "t"`, "http://127.0.0.1:7002", "theirs", "of-the-environment", "t", "<nil>"},
		{"mount = \"apikeys\"\nauth \"token_file\" {\n path = \"p\"\n}", "http://127.0.0.1:7002", "theirs", "", "p", "<nil>"},
		{"mount = \"apikeys\"\nauth \"approle\" {\n role_id = \"r\"\n}", "http://127.0.0.1:7002", "theirs", "", "", "*vaultlogin.method"},
		{"mount = \"apikeys\"\nauth \"kubernetes\" {\n role = \"r\"\n}", "http://127.0.0.1:7002", "theirs", "", "", "*vaultlogin.method"},
		{"mount = \"apikeys\"\nauth \"jwt\" {\n role = \"r\"\n token_file = \"j\"\n}", "http://127.0.0.1:7002", "theirs", "", "", "*vaultlogin.method"},
	} {
		conf, err := config.Parse("edge.hcl", []byte("vault {\n"+test.vault+"\n}"+listen))
		if err != nil {
			t.Fatal(err)
		}
		conf.Label = "shop"
		opt, err := edgeOptions(conf, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if opt.Label != "shop" || opt.Mount != "apikeys" {
			t.Errorf("%+v", opt)
		}
		if opt.Client.Address() != test.address || opt.Client.Namespace() != test.namespace || opt.Client.Token() != test.token || opt.TokenFile != test.file ||
			fmt.Sprintf("%T", opt.Auth) != test.auth {
			t.Errorf("%s: %s %s %q %q %T", test.vault, opt.Client.Address(), opt.Client.Namespace(), opt.Client.Token(), opt.TokenFile, opt.Auth)
		}
	}
}

func TestOtherCertificates(t *testing.T) {
	dir := t.TempDir()
	certify(t, dir, "vault")
	for file, want := range map[string]bool{"cert.pem": true, "none.pem": false} {
		conf, err := config.Parse("edge.hcl", fmt.Appendf(nil, "vault {\n mount = \"apikeys\"\n token_file = \"t\"\n ca_cert = %q\n}\nlisten \"admin\" {\n address = \"127.0.0.1:0\"\n}\n", filepath.Join(dir, file)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := edgeOptions(conf, slog.New(slog.DiscardHandler)); (err == nil) != want {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// What cannot begin says why.
func TestServeRefuses(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("BAO_TOKEN", "")
	t.Setenv("HOME", t.TempDir())
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for conf, want := range map[string]string{
		`vault { mount = "apikeys" }` + "\nlisten \"admin\" {\n address = \"127.0.0.1:0\"\n}\n":                        "no token: set VAULT_TOKEN",
		strings.ReplaceAll(confHead, "DIR", dir) + fmt.Sprintf("listen \"admin\" {\n address = %q\n}\n", taken.Addr()): "no such file",
	} {
		file := filepath.Join(dir, "edge.hcl")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(conf, "VAULT", "http://127.0.0.1:1")), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Serve(t.Context(), file, io.Discard, nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), filepath.Join(dir, "edge.hcl"), io.Discard, nil, nil); err == nil {
		t.Error("no error")
	}
}
