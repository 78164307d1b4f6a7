// SPDX-License-Identifier: MPL-2.0

package edgegrpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge/edgegrpc"
)

// verifier is an edge of an engine that knows the keys good, disabled, rated and near.
func verifier() (v *edge.Verifier, stop func()) {
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Batch string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		var asked []struct{ Key string }
		_ = json.Unmarshal([]byte(body.Batch), &asked)
		now := time.Now().UTC()
		data := map[string]any{"cursor": "e.1", "reset": true, "now": now, "max_staleness": 60}
		if len(asked) > 0 {
			data["roles"] = map[string]any{
				"good": map[string]any{"role": "orders", "scopes": []string{"orders:read"}}, "disabled": map[string]any{},
				"rated": map[string]any{"rate_limit": 0.001}, "near": map[string]any{"allowed_cidrs": []string{"10.0.0.0/8"}},
			}
		}
		results := []any{}
		for _, q := range asked {
			code := map[string]string{"good": "VALID", "disabled": "DISABLED", "rated": "VALID", "near": "VALID"}[q.Key]
			if code == "" {
				results = append(results, map[string]any{"code": "NOT_FOUND", "hint": "a typing error"})
				continue
			}
			results = append(results, map[string]any{
				"code": code, "role_id": q.Key, "key_id": q.Key, "version": 1,
				"timeline": []any{map[string]any{"from": now, "code": code, "state": "current"}},
			})
		}
		data["results"] = results
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}))
	config := api.DefaultConfig()
	config.Address = vault.URL
	client, err := api.NewClient(config)
	if err != nil {
		panic(err)
	}
	v, err = edge.New(edge.Options{Client: client, Mount: "apikeys"})
	if err != nil {
		panic(err)
	}
	return v, func() {
		_ = v.Close()
		vault.Close()
	}
}

func call(headers ...string) context.Context {
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9}})
	return metadata.NewIncomingContext(ctx, metadata.Pairs(headers...))
}

func ExampleUnary() {
	v, stop := verifier()
	defer stop()
	guard := edgegrpc.Guard{Scopes: func(string) []string { return []string{"orders:read"} }}
	check := edgegrpc.Unary(v, guard) // grpc.NewServer(grpc.UnaryInterceptor(check))

	list := func(ctx context.Context, _ any) (any, error) { return "orders of " + edge.FromContext(ctx).Role, nil }
	info := &grpc.UnaryServerInfo{FullMethod: "/shop.Orders/List"}
	fmt.Println(check(call("authorization", "Bearer good"), nil, info, list))
	_, err := check(call(), nil, info, list)
	fmt.Println(status.Code(err))
	// Output:
	// orders of orders <nil>
	// Unauthenticated
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func TestCallsAreGuarded(t *testing.T) {
	v, stop := verifier()
	defer stop()
	guard := edgegrpc.Guard{
		Scopes: func(method string) []string { return map[string][]string{"/write": {"orders:write"}}[method] },
		Open:   func(method string) bool { return method == "/health" },
	}
	away := guard
	away.RemoteAddr = func(context.Context) netip.Addr { return netip.MustParseAddr("11.0.0.1") }
	_, _ = edgegrpc.Unary(v, guard)(call("x-api-key", "rated"), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { return nil, nil })
	for _, test := range []struct {
		name   string
		ctx    context.Context
		method string
		guard  edgegrpc.Guard
		want   codes.Code
	}{
		{"bearer", call("authorization", "Bearer good"), "/read", guard, codes.OK},
		{"header of its own", call("x-api-key", "good"), "/read", guard, codes.OK},
		{"scope", call("x-api-key", "good"), "/write", guard, codes.PermissionDenied},
		{"none", call(), "/read", guard, codes.Unauthenticated},
		{"no metadata", context.Background(), "/read", guard, codes.Unauthenticated},
		{"open", call(), "/health", guard, codes.OK},
		{"two", call("x-api-key", "good", "authorization", "Bearer good"), "/read", guard, codes.Unauthenticated},
		{"unknown", call("x-api-key", "other"), "/read", guard, codes.Unauthenticated},
		{"disabled", call("x-api-key", "disabled"), "/read", guard, codes.PermissionDenied},
		{"rated", call("x-api-key", "rated"), "/read", guard, codes.ResourceExhausted},
		{"near", call("x-api-key", "near"), "/read", guard, codes.OK},
		{"far", call("x-api-key", "near"), "/read", away, codes.PermissionDenied},
	} {
		var passed, streamed context.Context
		_, err := edgegrpc.Unary(v, test.guard)(test.ctx, nil, &grpc.UnaryServerInfo{FullMethod: test.method}, func(ctx context.Context, _ any) (any, error) {
			passed = ctx //nolint:fatcontext // to look at it
			return nil, nil
		})
		serr := edgegrpc.Stream(v, test.guard)(nil, &stream{ctx: test.ctx}, &grpc.StreamServerInfo{FullMethod: test.method}, func(_ any, s grpc.ServerStream) error {
			streamed = s.Context() //nolint:fatcontext // to look at it
			return nil
		})
		if status.Code(err) != test.want || status.Code(serr) != test.want {
			t.Errorf("%s: %v, %v; want %v", test.name, err, serr, test.want)
		}
		for _, ctx := range []context.Context{passed, streamed} {
			if (ctx != nil) != (test.want == codes.OK) {
				t.Errorf("%s: passed %t", test.name, ctx != nil)
			}
			if ctx == nil || test.method == "/health" {
				continue
			}
			if md, _ := metadata.FromIncomingContext(ctx); len(md["authorization"])+len(md["x-api-key"]) > 0 {
				t.Errorf("%s: the key is handed on", test.name)
			}
			if verdict := edge.FromContext(ctx); verdict == nil || !verdict.Valid {
				t.Errorf("%s: %+v", test.name, verdict)
			}
		}
	}
	stop()
	_, err := edgegrpc.Unary(v, guard)(call("x-api-key", "later"), nil, &grpc.UnaryServerInfo{}, nil)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("while nobody can be asked: %v", err)
	}
}
