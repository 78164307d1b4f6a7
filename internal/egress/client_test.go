// SPDX-License-Identifier: MPL-2.0

package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// internet is names and what is behind addresses. Whoever dials another address is
// refused, and each dialed address is written down.
type internet struct {
	mu     sync.Mutex
	names  map[string][]string // a name's addresses
	behind map[string]func(ctx context.Context) (net.Conn, error)
	dialed []string
	asked  []string
	open   atomic.Int64 // connections
}

// counted is one of the connections that are open.
type counted struct {
	net.Conn
	once *sync.Once
	open *atomic.Int64
}

func (c counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func newInternet() *internet {
	return &internet{names: map[string][]string{}, behind: map[string]func(context.Context) (net.Conn, error){}}
}

func (n *internet) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	list, ok := n.names[host]
	if !ok {
		return nil, errors.New("no such host " + host)
	}
	var out []netip.Addr
	for _, text := range list {
		out = append(out, netip.MustParseAddr(text))
	}
	return out, nil
}

func (n *internet) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, to.String())
	connect := n.behind[to.String()]
	n.mu.Unlock()
	if connect == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	n.open.Add(1)
	return counted{conn, new(sync.Once), &n.open}, nil
}

func (n *internet) options() Options { return Options{Resolver: n, Dial: n.dial, Roots: ca.pool()} }

func (n *internet) log() (dialed, asked string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	dialed, asked = strings.Join(n.dialed, " "), strings.Join(n.asked, " ")
	n.dialed, n.asked = nil, nil
	return dialed, asked
}

func (n *internet) rename(host string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[host] = addrs
}

// serve puts a server with a certificate for these hosts behind an address.
func (n *internet) serve(t testing.TB, at string, handler http.Handler, hosts ...string) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = quiet
	if len(hosts) > 0 {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, hosts...)}}
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	n.put(at, s.Listener.Addr().String())
	return s
}

func (n *internet) put(at, listener string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.behind[at] = func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", listener) }
}

// authority is a CA of these tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

var ca, otherCA = newAuthority(), newAuthority()

// Certificates hold in the bubbles of synctest as well, where it is the year 2000.
var before, after = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC)

func newAuthority() authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: before, NotAfter: after, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return authority{key, cert}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// issue makes a certificate; the host "expired" makes it one that is over.
func (a authority) issue(t testing.TB, hosts ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: before, NotAfter: after, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, h := range hosts {
		switch addr, err := netip.ParseAddr(h); {
		case err == nil:
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		case h == "expired":
			template.NotAfter = time.Now().Add(-time.Minute)
		default:
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func client(t testing.TB, n *internet, c Config) *Client {
	t.Helper()
	p, err := Parse(c)
	if err != nil {
		t.Fatal(err)
	}
	out, err := NewClient(p, "", n.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out.CloseIdle)
	return out
}

func request(ctx context.Context, t testing.TB, target string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(`{"type":"test"}`))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// body knows whether it was closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

func watched(t testing.TB, target string) (*http.Request, *body) {
	t.Helper()
	req, b := request(t.Context(), t, target), &body{Reader: strings.NewReader("{}")}
	req.Body = b
	return req, b
}

func do(t testing.TB, c *Client, target string) (*Answer, error) {
	t.Helper()
	return c.Do(request(t.Context(), t, target), MaxAnswer)
}

// fails holds a request to one class of failure, and the error to its text.
func fails(t testing.TB, c *Client, target string, want Class) {
	t.Helper()
	a, err := do(t, c, target)
	if ClassOf(err) != want || a != nil || err.Error() != "egress: "+string(want) {
		t.Errorf("%s: %+v, %v, want %s", target, a, err, want)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Seen", fmt.Sprint(r.Proto, " ", r.Host, " ", r.URL.RequestURI(), " ", r.Header.Get("User-Agent")+r.Header.Get("Accept-Encoding"), " ", r.TLS != nil))
	w.Write(append([]byte("hello "), body...))
}

func TestDo(t *testing.T) {
	n := newInternet()
	n.rename("hooks.example.com", "8.8.8.8")
	n.serve(t, "8.8.8.8:443", http.HandlerFunc(hello), "hooks.example.com", "8.8.4.4")
	n.serve(t, "127.0.0.1:8080", http.HandlerFunc(hello))
	n.put("8.8.4.4:443", mustDialed(n, "8.8.8.8:443"))
	n.rename("localhost", "127.0.0.1")
	c := client(t, n, Config{Allow: []string{"hooks.example.com", "127.0.0.1:8080", "8.8.4.4"}})

	for target, want := range map[string]string{
		"https://hooks.example.com/a/b?c=d": "HTTP/2.0 hooks.example.com /a/b?c=d vault-plugin-secrets-apikeys true",
		"https://HOOKS.example.com.:443/":   "HTTP/2.0 hooks.example.com / vault-plugin-secrets-apikeys true",
		"https://8.8.4.4/":                  "HTTP/2.0 8.8.4.4 / vault-plugin-secrets-apikeys true",
		"https://[::ffff:8.8.4.4]/":         "HTTP/2.0 8.8.4.4 / vault-plugin-secrets-apikeys true",
		"http://127.0.0.1:8080/x":           "HTTP/1.1 127.0.0.1:8080 /x vault-plugin-secrets-apikeys false",
		"http://localhost:8080/x":           "HTTP/1.1 localhost:8080 /x vault-plugin-secrets-apikeys false",
	} {
		a, err := do(t, c, target)
		if err != nil || a.Status != 200 || string(a.Body) != `hello {"type":"test"}` || !a.Complete || a.Class() != "" || a.Header.Get("X-Seen") != want {
			t.Errorf("%s: %+v, %v", target, a, err)
		}
	}
	if dialed, _ := n.log(); strings.Count(dialed, " ") != 3 {
		t.Errorf("six requests to four hosts dialed %s", dialed)
	}

	req := request(t.Context(), t, "https://hooks.example.com/")
	req.Host = ""
	req.Header.Set("User-Agent", "mine")
	if a, err := c.Do(req, 3); err != nil || string(a.Body) != "hel" || a.Complete || !strings.Contains(a.Header.Get("X-Seen"), " mine ") {
		t.Errorf("three bytes of an answer: %+v, %v", a, err)
	}
	if a, err := c.Do(request(t.Context(), t, "https://hooks.example.com/"), 21); err != nil || !a.Complete {
		t.Errorf("exactly the answer: %+v, %v", a, err)
	}
}

func mustDialed(n *internet, at string) string {
	conn, err := n.behind[at](context.Background())
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	return conn.RemoteAddr().String()
}

func TestForbidden(t *testing.T) {
	n := newInternet()
	for host, addr := range map[string]string{
		"hooks.example.com": "10.0.0.1", "metadata.example.com": "169.254.169.254", "mapped.example.com": "::ffff:127.0.0.1", "nat.example.com": "64:ff9b::a00:1", "localhost": "8.8.8.8", "app.localhost": "10.20.0.1", "zone.example.com": "fe80::1%eth0", "other.example": "8.8.8.8",
	} {
		n.rename(host, addr)
	}
	c := client(t, n, Config{Allow: []string{"*.example.com", "localhost.example", "10.20.0.0/16:80", "8.8.8.0/24:80"}})
	for _, target := range []string{
		"https://hooks.example.com", "https://metadata.example.com", "https://mapped.example.com", "https://nat.example.com", "https://zone.example.com", "https://169.254.169.254", "https://127.0.0.1", "https://[::1]", "https://8.8.8.8",
		"http://localhost", "http://app.localhost", // listed, but another machine
	} {
		fails(t, c, target, Forbidden)
	}
	if dialed, _ := n.log(); dialed != "" {
		t.Errorf("it dialed %s", dialed)
	}
	// A name that nothing can allow is not even asked for: questions carry text as well.
	fails(t, c, "https://other.example", Forbidden)
	fails(t, c, "https://other.example:8443", Forbidden)
	// These are no URLs for ParseURL either.
	for _, target := range []string{"http://other.example.com", "ftp://a.example.com", "https://user@a.example.com", "https://127.1", "https://a.example.com#x", "https:///x"} {
		fails(t, c, target, Forbidden)
	}
	req, body := watched(t, "https://hooks.example.com")
	req.Host = "elsewhere.example.com"
	if _, err := c.Do(req, MaxAnswer); ClassOf(err) != Forbidden || !body.closed {
		t.Errorf("another host in the header: %v, its body closed: %v", err, body.closed)
	}
	// What url.Parse would not make.
	for _, host := range []string{"", "[", "[]", "[::1", "[::1]x", "[127.0.0.1]", "[::1]]", "::1", "hooks.example.com:443:443", "hooks.example.com:*", "hooks.example.com:x", "hooks example.com", "hooks.example.com/x", "x@hooks.example.com", "8.8.8.8%eth0"} {
		req := request(t.Context(), t, "https://hooks.example.com")
		req.URL.Host, req.Host = host, ""
		if _, err := c.Do(req, MaxAnswer); ClassOf(err) != Forbidden {
			t.Errorf("the host %q: %v", host, err)
		}
	}
	if dialed, asked := n.log(); dialed != "" || asked != "" {
		t.Errorf("it dialed %q and asked for %q", dialed, asked)
	}
}

// A name that changes its address between the check and the connection changes nothing:
// the address is asked for once.
func TestRebinding(t *testing.T) {
	n := newInternet()
	n.serve(t, "8.8.8.8:443", http.HandlerFunc(hello), "hooks.example.com")
	n.serve(t, "10.0.0.1:443", http.HandlerFunc(hello), "hooks.example.com")
	n.rename("hooks.example.com", "8.8.8.8")
	with := n.options()
	with.Resolver = resolver(func(ctx context.Context, host string) ([]netip.Addr, error) {
		defer n.rename("hooks.example.com", "10.0.0.1")
		return n.LookupNetIP(ctx, "ip", host)
	})
	c, err := NewClient(policy(t, "hooks.example.com"), "", with)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, c, "https://hooks.example.com"); err != nil {
		t.Fatal(err)
	}
	if dialed, asked := n.log(); dialed != "8.8.8.8:443" || asked != "hooks.example.com" {
		t.Errorf("it dialed %s and asked for %s", dialed, asked)
	}
	// The connection that was checked goes on; a new one is judged anew.
	if _, err := do(t, c, "https://hooks.example.com"); err != nil {
		t.Fatal(err)
	}
	c.CloseIdle()
	fails(t, c, "https://hooks.example.com", Forbidden)
	if dialed, _ := n.log(); dialed != "" {
		t.Errorf("it dialed %s", dialed)
	}
}

type resolver func(ctx context.Context, host string) ([]netip.Addr, error)

func (r resolver) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return r(ctx, host)
}

func TestSeveralAddresses(t *testing.T) {
	n := newInternet()
	n.serve(t, "8.8.4.4:443", http.HandlerFunc(hello), "hooks.example.com")
	c := client(t, n, Config{Allow: []string{"hooks.example.com"}})
	n.rename("hooks.example.com", "127.0.0.1", "8.8.8.8", "169.254.169.254", "::ffff:8.8.4.4", "1.1.1.1")
	if _, err := do(t, c, "https://hooks.example.com"); err != nil {
		t.Fatal(err)
	}
	if dialed, _ := n.log(); dialed != "8.8.8.8:443 8.8.4.4:443" {
		t.Errorf("it dialed %s", dialed)
	}
	c.CloseIdle()
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("1.1.1.%d", i)
	}
	n.rename("hooks.example.com", many...)
	fails(t, c, "https://hooks.example.com", Unreachable)
	if dialed, _ := n.log(); strings.Count(dialed, " ") != maxAddrs-1 {
		t.Errorf("it dialed %s", dialed)
	}
	n.rename("hooks.example.com")
	fails(t, c, "https://hooks.example.com", Forbidden)
}

// Nobody follows a redirect, nor keeps a cookie.
func TestRedirects(t *testing.T) {
	n := newInternet()
	n.rename("hooks.example.com", "8.8.8.8")
	n.rename("other.example.com", "8.8.4.4")
	requests := 0
	n.serve(t, "8.8.8.8:443", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Set-Cookie", "a=b")
		if r.Header.Get("Cookie") != "" {
			t.Error("a cookie came back")
		}
		target := "https://other.example.com/"
		if r.URL.Path == "/self" {
			target = "/elsewhere"
		}
		status := http.StatusFound
		fmt.Sscanf(r.URL.RawQuery, "%d", &status)
		http.Redirect(w, r, target, status)
	}), "hooks.example.com")
	c := client(t, n, Config{Allow: []string{"*.example.com"}})
	for _, path := range []string{"/?301", "/?302", "/?303", "/?307", "/?308", "/self?302", "/self?307", "/?304"} {
		a, err := do(t, c, "https://hooks.example.com"+path)
		if err != nil || a.Status/100 != 3 || a.Class() != Redirect {
			t.Errorf("%s: %+v, %v", path, a, err)
		}
	}
	if dialed, _ := n.log(); dialed != "8.8.8.8:443" || requests != 8 {
		t.Errorf("%d requests, dialed %s", requests, dialed)
	}
}

func TestStatus(t *testing.T) {
	for status, want := range map[int]Class{200: "", 204: "", 299: "", 300: Redirect, 399: Redirect, 400: Status, 410: Status, 500: Status, 0: Status, 199: Status} {
		if got := (&Answer{Status: status}).Class(); got != want {
			t.Errorf("%d: %q", status, got)
		}
	}
	if ClassOf(nil) != "" || ClassOf(context.Canceled) != "" || ClassOf(fmt.Errorf("x: %w", classError(TLS))) != TLS {
		t.Error("the class of an error")
	}
}

func TestCertificates(t *testing.T) {
	n := newInternet()
	put := func(name, addr string, config *tls.Config) {
		n.rename(name, addr)
		s := httptest.NewUnstartedServer(http.HandlerFunc(hello))
		s.Config.ErrorLog = quiet
		s.TLS = config
		s.StartTLS()
		t.Cleanup(s.Close)
		n.put(addr+":443", s.Listener.Addr().String())
	}
	with := func(a authority, hosts ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.issue(t, hosts...)}}
	}
	put("good.example", "1.0.0.1", with(ca, "good.example"))
	put("other-ca.example", "1.0.0.2", with(otherCA, "other-ca.example"))
	put("other-name.example", "1.0.0.3", with(ca, "good.example"))
	put("by-address.example", "1.0.0.4", with(ca, "1.0.0.4")) // the name is what counts, not what is dialed
	put("expired.example", "1.0.0.5", with(ca, "expired.example", "expired"))
	old := with(ca, "old.example")
	old.MaxVersion = tls.VersionTLS11
	put("old.example", "1.0.0.6", old)
	recent := with(ca, "recent.example")
	recent.MaxVersion = tls.VersionTLS12
	put("recent.example", "1.0.0.7", recent)
	mutual := with(ca, "mutual.example")
	mutual.ClientAuth = tls.RequireAnyClientCert
	mutual.MaxVersion = tls.VersionTLS12
	put("mutual.example", "1.0.0.8", mutual)
	n.rename("plain.example", "1.0.0.9")
	n.serve(t, "1.0.0.9:443", http.HandlerFunc(hello))

	allow := []string{"good.example", "recent.example", "other-ca.example", "other-name.example", "by-address.example", "expired.example", "old.example", "mutual.example", "plain.example", "1.0.0.4", "1.0.0.1"}
	c := client(t, n, Config{Allow: allow})
	for _, good := range []string{"https://good.example", "https://recent.example", "https://1.0.0.4"} {
		if _, err := do(t, c, good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	c = client(t, n, Config{Allow: allow})
	before := n.open.Load()
	for _, bad := range []string{"other-ca.example", "other-name.example", "by-address.example", "expired.example", "old.example", "mutual.example", "plain.example", "1.0.0.1"} {
		fails(t, c, "https://"+bad, TLS)
	}
	if open := n.open.Load(); open != before {
		t.Errorf("%d connections are left open", open-before)
	}

	// A CA of its own stands instead of the others, not beside them.
	own, err := NewClient(policy(t, allow...), otherCA.pem(), n.options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, own, "https://other-ca.example"); err != nil {
		t.Error(err)
	}
	fails(t, own, "https://good.example", TLS)
	both, err := NewClient(policy(t, allow...), otherCA.pem()+ca.pem(), n.options())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"https://other-ca.example", "https://good.example"} {
		if _, err := do(t, both, host); err != nil {
			t.Errorf("%s with two CAs: %v", host, err)
		}
	}
}

func TestParseCA(t *testing.T) {
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	for text, want := range map[string]string{
		"": "nothing else", "hello": "nothing else", keyPEM: "something else", ca.pem() + keyPEM: "something else", ca.pem() + "x": "nothing else", ca.pem()[:200]: "nothing else",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")})): "cannot be read", ca.pem() + strings.Repeat(" ", maxCA): "is longer",
	} {
		pool, err := ParseCA("ca", text)
		if r := refusal.In(err); r == nil || r.Field != "ca" || r.Value != "" || !strings.Contains(r.Rule, want) || r.Todo == "" || pool != nil {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for _, text := range []string{ca.pem(), ca.pem() + strings.Repeat(" ", maxCA-len(ca.pem())), ca.pem() + "\n \n" + otherCA.pem(), "# our CA\n" + ca.pem()} {
		if _, err := ParseCA("ca", text); err != nil {
			t.Errorf("%.30q: %v", text, err)
		}
	}
	if _, err := NewClient(&Policy{}, "hello", Options{}); refusal.In(err) == nil {
		t.Errorf("a client with a broken CA: %v", err)
	}
}

// What a reader of errors sees is the same, whatever kept the connection from coming
// about or ended it.
func TestUnreachable(t *testing.T) {
	n := newInternet()
	ends := map[string]func(net.Conn){
		"closed": func(c net.Conn) { c.Close() },
		"closed after the greeting": func(c net.Conn) {
			io.ReadFull(c, make([]byte, 5))
			c.Close()
		},
		"reset": func(c net.Conn) {
			io.ReadFull(c, make([]byte, 5))
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		},
	}
	allow, i := []string{"nobody.example", "refused.example"}, 0
	n.rename("refused.example", "2.0.0.1")
	targets := []string{"https://nobody.example", "https://refused.example"}
	for name, end := range ends {
		i++
		addr := fmt.Sprintf("3.0.0.%d", i)
		l := listen(t, end)
		n.put(addr+":443", l)
		host := fmt.Sprintf("h%d.example", i)
		n.rename(host, addr)
		allow, targets = append(allow, host), append(targets, "https://"+host)
		t.Log(name, host)
	}
	// The other side proves itself, and then speaks no HTTP.
	for j, answer := range []string{"", "hello\r\n\r\n", "HTTP/1.1 99999 x\r\n\r\n", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n", "HTTP/1.1 200 OK\r\n bad\x00: x\r\n\r\n"} {
		host, addr := fmt.Sprintf("talk%d.example", j), fmt.Sprintf("4.0.0.%d", j)
		cert := ca.issue(t, host)
		n.put(addr+":443", listen(t, func(c net.Conn) {
			defer c.Close()
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				io.WriteString(s, answer)
			}
			s.Close()
		}))
		n.rename(host, addr)
		allow, targets = append(allow, host), append(targets, "https://"+host)
	}
	c := client(t, n, Config{Allow: allow})
	for _, target := range targets {
		fails(t, c, target, Unreachable)
	}
}

// listen answers each connection with a function, and returns where.
func listen(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return l.Addr().String()
}

// The machine itself, without doubles.
func TestZeroOptions(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hello))
	t.Cleanup(s.Close)
	c, err := NewClient(policy(t, "127.0.0.1:*", "[::1]:*"), "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	for _, target := range []string{s.URL, strings.Replace(s.URL, "127.0.0.1", "localhost", 1)} {
		if a, err := do(t, c, target); err != nil || a.Status != 200 {
			t.Errorf("%s: %+v, %v", target, a, err)
		}
	}
}

// A gigabyte is not waited for.
func TestLongAnswer(t *testing.T) {
	n := newInternet()
	n.rename("hooks.example.com", "8.8.8.8")
	sent := make(chan int64, 1)
	n.serve(t, "8.8.8.8:443", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk, total := bytes.Repeat([]byte("x"), 1<<16), int64(0)
		if r.URL.Path == "/announced" {
			w.Header().Set("Content-Length", "1073741824")
		}
		for total < 1<<30 {
			k, err := w.Write(chunk)
			total += int64(k)
			if err != nil {
				break
			}
		}
		sent <- total
	}), "hooks.example.com")
	c := client(t, n, Config{Allow: []string{"hooks.example.com"}})
	for _, path := range []string{"/", "/announced"} {
		for limit, want := range map[int64]int{MaxAnswer: 64 << 10, MaxPage: 1 << 20, 1 << 40: 1 << 20, 0: 0} {
			a, err := c.Do(request(t.Context(), t, "https://hooks.example.com"+path), limit)
			if err != nil || len(a.Body) != want || a.Complete || a.Status != 200 {
				t.Fatalf("limit %d: %v", limit, err)
			}
			if total := <-sent; total > 16<<20 {
				t.Errorf("the server could send %d MiB", total>>20)
			}
		}
	}
}

func TestPaused(t *testing.T) {
	n := newInternet()
	n.rename("hooks.example.com", "8.8.8.8")
	c := client(t, n, Config{Allow: []string{"hooks.example.com"}, Paused: true})
	fails(t, c, "https://hooks.example.com", Paused)
	req, body := watched(t, "https://hooks.example.com")
	if _, err := c.Do(req, MaxAnswer); ClassOf(err) != Paused || !body.closed {
		t.Errorf("%v, its body closed: %v", err, body.closed)
	}
	req.Body = nil
	if _, err := c.Do(req, MaxAnswer); ClassOf(err) != Paused {
		t.Errorf("without a body: %v", err)
	}
	if dialed, asked := n.log(); dialed+asked != "" {
		t.Errorf("it dialed %q and asked for %q", dialed, asked)
	}
}

// The environment's proxies are not asked: they would take the addresses out of our
// hands.
func TestEnvironmentProxies(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	n := newInternet()
	n.rename("hooks.example.com", "8.8.8.8")
	n.serve(t, "8.8.8.8:443", http.HandlerFunc(hello), "hooks.example.com")
	c := client(t, n, Config{Allow: []string{"hooks.example.com"}})
	if c.transport.Proxy != nil {
		t.Error("the transport has a proxy")
	}
	if _, err := do(t, c, "https://hooks.example.com"); err != nil {
		t.Error(err)
	}
}

// proxy connects where it is asked to, by the internet's addresses.
func proxyOf(t testing.TB, n *internet, answer func(target string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("User-Agent") != "" && strings.Contains(r.Header.Get("User-Agent"), "apikeys") {
			t.Errorf("the proxy is asked %s %s", r.Method, r.URL)
		}
		down, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		text := answer(r.RequestURI)
		io.WriteString(down, text)
		if text == "" {
			return
		}
		// Whatever it said, it goes on: nobody must take that for a connection.
		n.mu.Lock()
		connect := n.behind["behind "+r.RequestURI]
		n.mu.Unlock()
		if connect == nil {
			return
		}
		up, err := connect(r.Context())
		if err != nil {
			return // the test is over; else its client says so
		}
		defer up.Close()
		go io.Copy(up, rw)
		io.Copy(down, up)
	})
}

func TestProxy(t *testing.T) {
	const established = "HTTP/1.1 200 Connection established\r\n\r\n"
	var mu sync.Mutex
	answer, asked := established, []string{}
	n := newInternet()
	handler := proxyOf(t, n, func(target string) string {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, target)
		return answer
	})
	set := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		answer, asked = text, nil
	}
	n.serve(t, "10.9.9.9:3128", handler)
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = quiet
	s.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "proxy.example")}}
	s.StartTLS()
	t.Cleanup(s.Close)
	n.put("10.9.9.9:443", s.Listener.Addr().String())
	n.put("10.9.9.8:443", s.Listener.Addr().String())
	n.rename("proxy.example", "10.9.9.9")
	n.rename("wrong-proxy.example", "10.9.9.8")
	n.rename("hooks.example.com", "8.8.8.8")
	n.rename("inner.example.com", "10.0.0.1")
	n.rename("localhost", "127.0.0.1")
	n.serve(t, "behind 8.8.8.8:443", http.HandlerFunc(hello), "hooks.example.com")
	n.serve(t, "behind [2606:4700::1111]:8443", http.HandlerFunc(hello), "2606:4700::1111")
	n.serve(t, "127.0.0.1:8080", http.HandlerFunc(hello))
	allow := []string{"*.example.com", "[2606:4700::1111]:8443", "127.0.0.1:8080"}

	for _, proxy := range []string{"http://proxy.example:3128", "http://10.9.9.9:3128", "https://proxy.example"} {
		c := client(t, n, Config{Allow: allow, Proxy: proxy})
		set(established)
		for _, target := range []string{"https://hooks.example.com/x", "https://[2606:4700::1111]:8443/"} {
			a, err := do(t, c, target)
			if err != nil || a.Status != 200 || !strings.HasPrefix(a.Header.Get("X-Seen"), "HTTP/2.0") {
				t.Errorf("%s through %s: %+v, %v", target, proxy, a, err)
			}
		}
		// The engine resolved: the proxy sees addresses only, and cannot be led elsewhere.
		if got := strings.Join(asked, " "); got != "8.8.8.8:443 [2606:4700::1111]:8443" {
			t.Errorf("%s was asked for %s", proxy, got)
		}
		if dialed, _ := n.log(); strings.Trim(strings.NewReplacer("10.9.9.9:3128", "", "10.9.9.9:443", "").Replace(dialed), " ") != "" {
			t.Errorf("with %s it dialed %s", proxy, dialed)
		}
		set(established)
		fails(t, c, "https://inner.example.com", Forbidden)
		if len(asked) > 0 {
			t.Errorf("%s was asked for %v", proxy, asked)
		}
		// This machine is here, not where the proxy is.
		if _, err := do(t, c, "http://localhost:8080/"); err != nil || len(asked) > 0 {
			t.Errorf("to this machine: %v, %s was asked for %v", err, proxy, asked)
		}
		n.log()
	}

	for text, want := range map[string]Class{
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\ntext": Unreachable,
		"HTTP/1.1 407 Who are you\r\n\r\n":                        Unreachable,
		"HTTP/1.1 502 Bad Gateway\r\n\r\n":                        Unreachable,
		"HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\n":       Unreachable,
		"HTTP/1.1 201 Created\r\n\r\n":                            Unreachable,
		"hello\r\n":                                               Unreachable,
		"":                                                        Unreachable,
		established + "too early":                                 Unreachable,
		established:                                               Unreachable, // and nobody behind it
		"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n": Unreachable,
	} {
		n.rename("hooks.example.com", "8.8.8.8")
		if text == established {
			n.rename("hooks.example.com", "8.8.4.4")
		}
		set(text)
		before, start := n.open.Load(), time.Now()
		fails(t, client(t, n, Config{Allow: allow, Proxy: "http://proxy.example:3128"}), "https://hooks.example.com", want)
		if len(asked) != 1 {
			t.Errorf("%.20q: asked for %v", text, asked)
		}
		if open := n.open.Load(); open != before {
			t.Errorf("%.20q: %d connections are left open", text, open-before)
		}
		if took := time.Since(start); took > Timeout/2 {
			t.Errorf("%.20q: waits for something for %v", text, took)
		}
	}
	n.rename("empty-proxy.example")
	for _, proxy := range []string{"http://proxy.example:3129", "http://nobody.example:3128", "http://empty-proxy.example:3128", "https://wrong-proxy.example", "https://10.9.9.9:3128"} {
		fails(t, client(t, n, Config{Allow: allow, Proxy: proxy}), "https://hooks.example.com", Proxy)
	}
}

// The time for all of it is ten seconds, wherever it is lost.
func TestTimeout(t *testing.T) {
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	silent := func(t *testing.T) net.Conn {
		here, there := net.Pipe()
		t.Cleanup(func() { there.Close() })
		go io.Copy(io.Discard, there)
		return here
	}
	for name, c := range map[string]struct {
		config Config
		lookup func(ctx context.Context) ([]netip.Addr, error)
		dial   func(t *testing.T, ctx context.Context) (net.Conn, error)
		want   Class
	}{
		"the question for the address": {
			lookup: func(ctx context.Context) ([]netip.Addr, error) { return nil, hang(ctx) }, want: Unreachable,
		},
		"dialing":               {dial: func(_ *testing.T, ctx context.Context) (net.Conn, error) { return nil, hang(ctx) }, want: Unreachable},
		"the handshake":         {dial: func(t *testing.T, _ context.Context) (net.Conn, error) { return silent(t), nil }, want: Unreachable},
		"dialing the proxy":     {config: Config{Proxy: "http://10.9.9.9:3128"}, dial: func(_ *testing.T, ctx context.Context) (net.Conn, error) { return nil, hang(ctx) }, want: Proxy},
		"the proxy":             {config: Config{Proxy: "http://10.9.9.9:3128"}, dial: func(t *testing.T, _ context.Context) (net.Conn, error) { return silent(t), nil }, want: Unreachable},
		"the proxy's handshake": {config: Config{Proxy: "https://10.9.9.9:3128"}, dial: func(t *testing.T, _ context.Context) (net.Conn, error) { return silent(t), nil }, want: Proxy},
		"the answer": {dial: func(t *testing.T, _ context.Context) (net.Conn, error) {
			done := make(chan struct{})
			t.Cleanup(func() { close(done) })
			return speak(t, func(net.Conn) { <-done }), nil
		}, want: Unreachable},
		"the header": {dial: func(t *testing.T, _ context.Context) (net.Conn, error) {
			return speak(t, func(c net.Conn) {
				io.WriteString(c, "HTTP/1.1 200 OK\r\n")
				for i := 0; ; i++ {
					time.Sleep(time.Second)
					if _, err := fmt.Fprintf(c, "X-%d: x\r\n", i); err != nil {
						return
					}
				}
			}), nil
		}, want: Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				with := Options{
					Roots: ca.pool(),
					Resolver: resolver(func(ctx context.Context, _ string) ([]netip.Addr, error) {
						if c.lookup != nil {
							return c.lookup(ctx)
						}
						return []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4")}, nil
					}),
					Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) { return c.dial(t, ctx) },
				}
				c.config.Allow = []string{"hooks.example.com"}
				p, err := Parse(c.config)
				if err != nil {
					t.Fatal(err)
				}
				client, err := NewClient(p, "", with)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				fails(t, client, "https://hooks.example.com", c.want)
				if took := time.Since(start); took < connectTime || took > Timeout+farewell {
					t.Errorf("it took %v", took)
				}
				// A caller with less time gets no more to know.
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start = time.Now()
				if _, err := client.Do(request(ctx, t, "https://hooks.example.com"), MaxAnswer); ClassOf(err) != Unreachable || time.Since(start) > time.Second+farewell {
					t.Errorf("with a second only: %v after %v", err, time.Since(start))
				}
				ctx, cancel = context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				if _, err := client.Do(request(ctx, t, "https://hooks.example.com"), MaxAnswer); !errors.Is(err, context.Canceled) || ClassOf(err) != "" {
					t.Errorf("given up: %v", err)
				}
				client.CloseIdle()
				time.Sleep(2 * Timeout) // for what is still dialing
			})
		})
	}
}

// speak is a connection to a server that shows its certificate, reads a request and goes
// on as told.
func speak(t *testing.T, then func(net.Conn)) net.Conn {
	here, there := net.Pipe()
	t.Cleanup(func() { there.Close() })
	go func() {
		s := tls.Server(there, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "hooks.example.com")}})
		if req, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
			io.Copy(io.Discard, req.Body)
			then(s)
		}
	}()
	return here
}

// pipes is a listener for connections that are made in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dark is a connection that can be made to swallow what is sent, and to bring nothing.
type dark struct {
	net.Conn
	on *atomic.Bool
}

func (d dark) Write(b []byte) (int, error) {
	if d.on.Load() {
		return len(b), nil
	}
	return d.Conn.Write(b)
}

// A connection of HTTP/2 that went dark is given up: the next request takes a new one.
func TestDarkConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, on, dials := make(pipes), &atomic.Bool{}, 0
		s := &http.Server{
			Handler: http.HandlerFunc(hello), ErrorLog: quiet,
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "hooks.example.com")}},
		}
		served := make(chan error)
		go func() { served <- s.ServeTLS(l, "", "") }()
		with := Options{
			Roots: ca.pool(),
			Resolver: resolver(func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
			}),
			Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
				here, there := net.Pipe()
				l <- there
				if dials++; dials == 1 {
					return dark{here, on}, nil
				}
				return here, nil
			},
		}
		c, err := NewClient(policy(t, "hooks.example.com"), "", with)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if a, err := do(t, c, "https://hooks.example.com"); err != nil || !strings.HasPrefix(a.Header.Get("X-Seen"), "HTTP/2.0") {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		on.Store(true)
		fails(t, c, "https://hooks.example.com", Unreachable)
		if _, err := do(t, c, "https://hooks.example.com"); err != nil || dials != 2 {
			t.Errorf("after %d dials: %v", dials, err)
		}
		c.CloseIdle()
		s.Close()
		<-served
	})
}

// An answer whose end does not come is an answer all the same: its status counts, and
// it is known not to be complete.
func TestAnswerWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		with := Options{
			Roots: ca.pool(),
			Resolver: resolver(func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("8.8.8.8")}, nil
			}),
			Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
				return speak(t, func(c net.Conn) {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")
					io.Copy(io.Discard, c)
				}), nil
			},
		}
		c, err := NewClient(policy(t, "hooks.example.com"), "", with)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		a, err := do(t, c, "https://hooks.example.com")
		if err != nil || a.Status != 200 || string(a.Body) != "hello" || a.Complete {
			t.Errorf("%+v, %v", a, err)
		}
		if took := time.Since(start); took < Timeout || took > Timeout+farewell {
			t.Errorf("it took %v", took)
		}
	})
}
