// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// envoyClient asks as Envoy does.
func envoyClient(t testing.TB, g *Gate, trusted ...netip.Prefix) authv3.AuthorizationClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	g.RegisterEnvoy(s, trusted)
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

// checkRequest is a request as Envoy describes it, in either encoding of headers.
func checkRequest(raw bool, source, method, path string, header ...string) *authv3.CheckRequest {
	r := &authv3.AttributeContext_HttpRequest{Method: method, Path: path}
	header = append([]string{":method", method, ":path", path}, header...)
	if raw {
		r.HeaderMap = &corev3.HeaderMap{}
		for i := 0; i < len(header); i += 2 {
			r.HeaderMap.Headers = append(r.HeaderMap.Headers, &corev3.HeaderValue{Key: header[i], RawValue: []byte(header[i+1])})
		}
	} else {
		r.Headers = map[string]string{}
		for i := 0; i < len(header); i += 2 {
			if old, known := r.Headers[header[i]]; known {
				r.Headers[header[i]] = old + "," + header[i+1]
			} else {
				r.Headers[header[i]] = header[i+1]
			}
		}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: r},
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: source},
		}}},
	}}
}

func TestEnvoy(t *testing.T) {
	for _, raw := range []bool{false, true} {
		g := newTestGate(t, Keys{})
		client := envoyClient(t, g.Gate)
		for _, test := range []struct {
			name, method, path string
			header             []string
			status             int
			code               codes.Code
			told               string
		}{
			{"good", "GET", "/orders/7?x", []string{"x-api-key", "good"}, 200, codes.OK, ""},
			{"bearer", "GET", "/orders/7", []string{"authorization", "Bearer good"}, 200, codes.OK, ""},
			{"no key", "GET", "/orders/7", nil, 401, codes.Unauthenticated, "NO_KEY"},
			{"two keys", "GET", "/orders/7", []string{"x-api-key", "good", "x-api-key", "good"}, 401, codes.Unauthenticated, "AMBIGUOUS_KEY"},
			{"a comma", "GET", "/orders/7", []string{"x-api-key", "a,b"}, 401, codes.Unauthenticated, "AMBIGUOUS_KEY"},
			{"revoked", "GET", "/orders/7", []string{"x-api-key", "dead"}, 401, codes.Unauthenticated, "REVOKED"},
			{"scope", "POST", "/orders/7", []string{"x-api-key", "good"}, 403, codes.PermissionDenied, "INSUFFICIENT_SCOPE"},
			{"no rule", "GET", "/other", []string{"x-api-key", "good"}, 403, codes.PermissionDenied, "NO_RULE"},
			{"no path", "GET", "", []string{"x-api-key", "good"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"no method", "", "/status", []string{"x-api-key", "good"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"path", "GET", "/orders/%2e%2e/x", []string{"x-api-key", "good"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"alias", "GET", "/orders/7", []string{"x-api-key", "good", "x_apikey_role", "admin"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"override", "GET", "/orders/7", []string{"x-api-key", "good", "x-http-method-override", "PUT"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"override's alias", "GET", "/orders/7", []string{"x-api-key", "good", "x_http_method_override", "PUT"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"path override", "GET", "/orders/7", []string{"x-api-key", "good", "x-original-url", "/admin"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"trailer", "GET", "/orders/7", []string{"x-api-key", "good", "trailer", "x-apikey-role"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"connection", "GET", "/orders/7", []string{"x-api-key", "good", "connection", "x-apikey-role"}, 403, codes.PermissionDenied, "AMBIGUOUS_REQUEST"},
			{"too many", "GET", "/orders/7", []string{"x-api-key", "fast"}, 429, codes.ResourceExhausted, "RATE_LIMITED"},
		} {
			resp, err := client.Check(t.Context(), checkRequest(raw, "192.0.2.7", test.method, test.path, test.header...))
			if err != nil {
				t.Fatal(err)
			}
			if codes.Code(resp.GetStatus().GetCode()) != test.code { //nolint:gosec // codes are small
				t.Errorf("raw %t: %s: %v", raw, test.name, resp.GetStatus())
			}
			if test.status == 200 {
				ok := resp.GetOkResponse()
				if len(ok.GetHeaders()) != 6 || !slices.Equal(ok.GetHeadersToRemove(), []string{"authorization", "x-apikey-code", "x-api-key"}) {
					t.Errorf("raw %t: %s: %v", raw, test.name, ok)
				}
				for _, h := range ok.GetHeaders() {
					if h.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || !slices.Contains(identity, h.GetHeader().GetKey()) {
						t.Errorf("raw %t: %v", raw, h)
					}
				}
				continue
			}
			denied := resp.GetDeniedResponse()
			told := http.Header{}
			for _, h := range denied.GetHeaders() {
				told.Add(h.GetHeader().GetKey(), h.GetHeader().GetValue())
			}
			if told.Get(headerCode) != test.told || told.Get("Content-Type") != "application/json" ||
				strings.HasPrefix(told.Get("WWW-Authenticate"), "Bearer") != (test.status == 401 || test.told == "INSUFFICIENT_SCOPE") {
				t.Errorf("raw %t: %s: told %v", raw, test.name, told)
			}
			if int(denied.GetStatus().GetCode()) != test.status || !strings.Contains(denied.GetBody(), `"`+test.told+`"`) {
				t.Errorf("raw %t: %s: %v", raw, test.name, denied)
			}
		}

		resp, err := client.Check(t.Context(), checkRequest(raw, "192.0.2.7", "GET", "/orders/7", "x-api-key", "previous"))
		if err != nil || len(resp.GetOkResponse().GetResponseHeadersToAdd()) != 1 {
			t.Errorf("a client with the previous key is told %v, %v", resp, err)
		}
		for _, test := range []struct{ source, forwarded, want string }{
			{"192.0.2.7", "10.0.0.1", "192.0.2.7"},
			{"127.0.0.1", "10.0.0.1, 192.0.2.8", "192.0.2.8"},
			{"127.0.0.1", "nobody", "127.0.0.1"},
			{"", "192.0.2.8", ""},
		} {
			if _, err := client.Check(t.Context(), checkRequest(raw, test.source, "GET", "/orders/7", "x-api-key", "good", "x-forwarded-for", test.forwarded)); err != nil {
				t.Fatal(err)
			}
			if got := g.last().RemoteAddr; got.IsValid() != (test.want != "") || got.IsValid() && got.String() != test.want {
				t.Errorf("%+v: %v", test, got)
			}
		}

		g.set(func() { g.down = true })
		resp, err = client.Check(t.Context(), checkRequest(raw, "192.0.2.7", "GET", "/orders/7", "x-api-key", "good"))
		if err != nil || resp.GetErrorResponse().GetStatus().GetCode() != 503 || codes.Code(resp.GetStatus().GetCode()) == codes.OK { //nolint:gosec // codes are small
			t.Errorf("nobody can be asked: %v, %v", resp, err)
		}
	}
	g := newTestGate(t, Keys{Query: []string{"api_key"}})
	resp, err := envoyClient(t, g.Gate).Check(t.Context(), checkRequest(false, "192.0.2.7", "GET", "/orders/7?api_key=good"))
	if err != nil || !slices.Equal(resp.GetOkResponse().GetQueryParametersToRemove(), []string{"api_key"}) {
		t.Errorf("a key in the query goes on: %v, %v", resp, err)
	}
	client := envoyClient(t, g.Gate, netip.MustParsePrefix("10.0.0.0/8"))
	resp, err = client.Check(t.Context(), checkRequest(false, "192.0.2.7", "GET", "/orders/7", "x-api-key", "good"))
	if err != nil || resp.GetDeniedResponse().GetStatus().GetCode() != 403 {
		t.Errorf("not a proxy of ours: %v, %v", resp, err)
	}
	// Envoy waits for 200 ms; an empty request is refused, not a panic.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if resp, err := client.Check(ctx, &authv3.CheckRequest{}); err != nil || resp.GetOkResponse() != nil {
		t.Errorf("nothing is asked: %v, %v", resp, err)
	}
}
