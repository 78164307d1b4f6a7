// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

const confAuth = confHead + `
listen "auth" {
  address = "127.0.0.1:0"
  preset  = "PRESET"
}
rule {
  path = "/**"
}
`

// send writes to a connection of its own, and reads the statuses of all answers until
// the edge closes it.
func (r *running) send(text string) (statuses []int) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addrs[0].String())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.WriteString(conn, text) // the edge may have closed it
	for in := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(in, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.t.Errorf("the edge holds a connection on which %.100q was sent", text)
		}
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}

// What is no question gets no 200, and nothing passes for a question that was not sent
// as one.
func TestWire(t *testing.T) {
	t.Parallel()
	question := func(line, uri string, more ...string) string {
		return line + " HTTP/1.1\r\nHost: edge\r\nX-API-Key: the-key-of-the-tests\r\nX-Original-Method: GET\r\nX-Original-URI: " + uri + "\r\n" + strings.Join(more, "")
	}
	// It is answered where the edge goes on with the connection.
	const last = "GET /last HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"
	inner := question("GET /auth", "/orders/7", "\r\n")
	for _, preset := range []string{"nginx", "envoy"} {
		r := start(t, strings.Replace(confAuth, "PRESET", preset, 1))
		path := "/auth"
		if preset == "envoy" {
			path = "/auth/orders/7"
		}
		for name, test := range map[string]struct {
			text string
			want []int
		}{
			"a question":            {question("GET "+path, "/orders/7", "\r\n"), []int{200, 404}},
			"two":                   {question("GET "+path, "/orders/7", "\r\n") + question("GET "+path, "/orders/8", "\r\n"), []int{200, 200, 404}},
			"OPTIONS *":             {"OPTIONS * HTTP/1.1\r\nHost: edge\r\n\r\n", []int{404, 404}},
			"OPTIONS * with a key":  {question("OPTIONS *", "/orders/7", "\r\n"), []int{404, 404}},
			"an absolute target":    {question("GET http://edge"+path, "/orders/7", "\r\n"), []int{404, 404}},
			"CONNECT":               {question("CONNECT edge:80", "/orders/7", "\r\n"), []int{404, 404}},
			"a body that is one":    {question("POST "+path, "/orders/7", fmt.Sprintf("Content-Length: %d\r\n\r\n", len(inner)), inner), []int{200}},
			"one that is announced": {question("GET "+path, "/orders/7", "Content-Length: 500\r\n\r\n"), []int{200}},
			"a chunked one":         {question("POST "+path, "/orders/7", "Transfer-Encoding: chunked\r\n\r\n", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner)), []int{200}},
			"a trailer of identity": {question("POST "+path, "/orders/7", "Trailer: expires, X-Apikey-Role\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Apikey-Role: admin\r\n\r\n"), []int{403}},
			"another trailer":       {question("POST "+path, "/orders/7", "Trailer: expires\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), []int{200}},
			"two lengths":           {question("GET "+path, "/orders/7", "Content-Length: 0\r\nContent-Length: 5\r\n\r\n"), []int{400}},
			"an odd encoding":       {question("GET "+path, "/orders/7", "Transfer-Encoding: xchunked\r\n\r\n"), []int{501}},
			"a folded header":       {question("GET "+path, "/orders/7", "X-A: b\r\n X-Apikey-Role: admin\r\n\r\n"), []int{200, 404}},
			"a space before colon":  {question("GET "+path, "/orders/7", "X-Apikey-Role : admin\r\n\r\n"), []int{400}},
			"a header that is huge": {question("GET "+path, "/orders/7", "X-A: "+strings.Repeat("a", 80<<10)+"\r\n\r\n"), []int{431}},
			"one that is large":     {question("GET "+path, "/orders/7", "X-A: "+strings.Repeat("a", 30<<10)+"\r\n\r\n"), []int{200, 404}},
		} {
			if statuses := r.send(test.text + last); fmt.Sprint(statuses) != fmt.Sprint(test.want) {
				t.Errorf("%s: %s: %v, want %v", preset, name, statuses, test.want)
			}
		}
	}
}

// Who does not finish a header does not hold a connection.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	r := start(t, strings.Replace(confAuth, "PRESET", "nginx", 1))
	if statuses := r.send("GET /auth HTTP/1.1\r\nHost: edge\r\n"); len(statuses) > 0 {
		t.Errorf("%v", statuses)
	}
}

// What was written is seen without a signal; what went away is told, and changes nothing.
func TestFilesAreLookedAt(t *testing.T) {
	r := prepare(t)
	conf := strings.NewReplacer("PRESET", "nginx", "VAULT", r.vault.URL).Replace(confAuth)
	r.conf(conf)
	d, err := begin(t.Context(), r.path("edge.hcl"), r.log, func(a []net.Addr) { r.addrs = a })
	if err != nil {
		t.Fatal(err)
	}
	d.look = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.run(ctx, nil) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		d.stop()
		_ = d.edge.Close()
	}()
	ask := func() int {
		return r.get(http.DefaultClient, "http://"+r.addrs[0].String()+"/auth", "X-API-Key", "the-key-of-the-tests", "X-Original-Method", "GET", "X-Original-URI", "/orders/7").StatusCode
	}
	if got := ask(); got != 200 {
		t.Fatalf("%d\n%s", got, r.log)
	}
	r.conf(strings.Replace(conf, "/**", "/status", 1))
	r.says("the configuration was read again", 1)
	if got := ask(); got != 403 {
		t.Errorf("by the new rules: %d", got)
	}
	if err := os.Remove(r.path("edge.hcl")); err != nil {
		t.Fatal(err)
	}
	r.says("the configuration is left as it was", 1)
	if got := ask(); got != 403 {
		t.Errorf("without a file: %d", got)
	}
	r.conf(conf)
	r.says("the configuration was read again", 2)
	if got := ask(); got != 200 {
		t.Errorf("when it is back: %d", got)
	}
	if again, left := strings.Count(r.log.String(), "was read again"), strings.Count(r.log.String(), "is left as it was"); again != 2 || left != 1 {
		t.Errorf("read again %d times, left %d times:\n%s", again, left, r.log)
	}
}

// Requests in progress are not disturbed by a reload.
func TestReloadKeepsRequests(t *testing.T) {
	r := start(t, strings.Replace(confAuth, "PRESET", "caddy", 1))
	answered := make(chan int, 1)
	go func() {
		answered <- r.get(http.DefaultClient, "http://"+r.addrs[0].String()+"/auth", "X-API-Key", "a-slow-key-of-the-tests", "X-Forwarded-Method", "GET", "X-Forwarded-URI", "/orders/7").StatusCode
	}()
	<-r.vault.slow
	r.conf(strings.NewReplacer("PRESET", "caddy", "VAULT", r.vault.URL, "/**", "/status").Replace(confAuth))
	r.again("the configuration was read again")
	r.vault.slow <- struct{}{}
	if got := <-answered; got != 200 {
		t.Errorf("a request that came before: %d", got)
	}
}

// An edge that begins while Vault is away is ready if it holds what still counts.
func TestBeginsFromItsState(t *testing.T) {
	const conf = confAuth + "listen \"admin\" {\n address = \"127.0.0.1:00\"\n}\ncache {\n state_file = \"DIR/state\"\n state_key_file = \"DIR/key\"\n}\n"
	r := prepare(t)
	text := strings.Replace(conf, "PRESET", "nginx", 1)
	r.run(text)
	ask := func(key string) int {
		return r.get(http.DefaultClient, "http://"+r.addrs[0].String()+"/auth", "X-API-Key", key, "X-Original-Method", "GET", "X-Original-URI", "/orders/7").StatusCode
	}
	ready := func() int { return r.get(http.DefaultClient, "http://"+r.addrs[1].String()+"/readyz").StatusCode }
	r.says("decisions arrive", 1) // what was told before is not held
	if ask("the-key-of-the-tests") != 200 || ready() != 200 {
		t.Fatal(r.log)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.vault.CloseClientConnections()
	r.vault.Close()
	r.run(text)
	if got := ask("the-key-of-the-tests"); got != 200 {
		t.Errorf("a key that is held: %d", got)
	}
	if got := ask("a-key-that-was-never-seen"); got != 503 {
		t.Errorf("another one: %d", got)
	}
	if got := ready(); got != 200 {
		t.Errorf("with what is held it is ready: %d", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"state", "key"} {
		if err := os.Remove(r.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	r.run(text)
	if ask("the-key-of-the-tests") != 503 || ready() != 503 {
		t.Error("ready with nothing")
	}
}

// Envoy's protocol has a listener like the others.
func TestServesGRPC(t *testing.T) {
	r := start(t, confHead+"listen \"auth\" {\n address = \"unix:DIR/envoy.sock\"\n protocol = \"grpc\"\n}\nrule {\n path = \"/orders/**\"\n}\n")
	conn, err := grpc.NewClient("unix:"+r.path("envoy.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := authv3.NewAuthorizationClient(conn)
	for path, want := range map[string]codes.Code{"/orders/7": codes.OK, "/other": codes.PermissionDenied} {
		resp, err := client.Check(t.Context(), checkRequest(true, "192.0.2.7", "GET", path, "x-api-key", "the-key-of-the-tests"))
		if err != nil || codes.Code(resp.GetStatus().GetCode()) != want { //nolint:gosec // codes are small
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	if strings.Contains(r.log.String(), "the-key") {
		t.Errorf("the log holds a key:\n%s", r.log)
	}
}

// Whoever keeps a connection to Envoy's listener alive with pings is not thrown out.
func TestPings(t *testing.T) {
	t.Parallel()
	r := start(t, confHead+"listen \"auth\" {\n address = \"127.0.0.1:0\"\n protocol = \"grpc\"\n}\nrule {\n path = \"/**\"\n}\n")
	conn, err := net.Dial("tcp", r.addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const settings, ping, away, ack = 4, 6, 7, 1
	frame := func(kind, size byte) string {
		return string([]byte{0, 0, size, kind, 0, 0, 0, 0, 0}) + strings.Repeat("x", int(size))
	}
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"+frame(settings, 0)); err != nil {
		t.Fatal(err)
	}
	// grpc forgives two pings.
	for answered := 0; answered < 6; {
		if _, err := io.WriteString(conn, frame(ping, 8)); err != nil {
			t.Fatal(err)
		}
		for {
			head := make([]byte, 9)
			if _, err := io.ReadFull(conn, head); err != nil {
				t.Fatalf("after %d pings: %v", answered, err)
			}
			if _, err := io.CopyN(io.Discard, conn, int64(head[1])<<8|int64(head[2])); err != nil {
				t.Fatal(err)
			}
			if head[3] == away {
				t.Fatalf("sent away after %d pings", answered)
			}
			if head[3] == ping && head[4] == ack {
				answered++
				break
			}
		}
	}
}

// A handler that panics is told, at a level that nobody turns off.
func TestComplaints(t *testing.T) {
	var out bytes.Buffer
	c := complaints{slog.New(slog.NewTextHandler(&out, nil))}
	_, _ = io.WriteString(c, "http: TLS handshake error from 127.0.0.1:1: EOF\n")
	_, _ = io.WriteString(c, "http: panic serving 127.0.0.1:1: oh\n")
	if got := out.String(); strings.Contains(got, "handshake") || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "panic serving") {
		t.Error(got)
	}
}

// A socket that an edge has left when it was killed is in nobody's way; one on which
// somebody listens is.
func TestLeftSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := open(t.Context(), "unix:"+path); err == nil {
		_ = l.Close()
		t.Error("two listen at one socket")
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = left.Close()
	l, err := open(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := os.WriteFile(path, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := open(t.Context(), "unix:"+path); err == nil {
		_ = l.Close()
		t.Error("a file is overwritten")
	}
}

// Keys in queries work where somebody insists, and that is told at every start.
func TestQueriesAreWarnedOf(t *testing.T) {
	r := start(t, strings.Replace(confAuth, "PRESET", "nginx", 1)+"keys {\n query = [\"api_key\"]\n}\n")
	if log := r.log.String(); !strings.Contains(log, `"level":"WARN"`) || !strings.Contains(log, "api_key") {
		t.Error(log)
	}
}
