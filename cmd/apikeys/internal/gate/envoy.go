// SPDX-License-Identifier: MPL-2.0

package gate

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
)

// envoy is the gRPC form of ext_authz: envoy.service.auth.v3.Authorization.
type envoy struct {
	authv3.UnimplementedAuthorizationServer
	gate *Gate
	own  proxies
}

// RegisterEnvoy has a gRPC server answer Envoy.
func (g *Gate) RegisterEnvoy(s grpc.ServiceRegistrar, trusted []netip.Prefix) {
	own := proxies(trusted)
	if len(own) == 0 {
		own = loopback
	}
	authv3.RegisterAuthorizationServer(s, &envoy{gate: g, own: own})
}

// envoyHeader are the headers of a request as Envoy sends them: by lower-case names,
// where one that came twice is joined by commas; or raw, one by one.
type envoyHeader map[string][]string

func (h envoyHeader) all(name string) []string { return h[strings.ToLower(name)] }

func (h envoyHeader) names(yield func(string) bool) {
	for name := range h {
		if !yield(http.CanonicalHeaderKey(name)) {
			return
		}
	}
}

// envoyHeaders reads both encodings: with encode_raw_headers the plain one is empty.
func envoyHeaders(r *authv3.AttributeContext_HttpRequest) envoyHeader {
	h := envoyHeader{}
	add := func(name, value string) {
		if name = strings.ToLower(name); !strings.HasPrefix(name, ":") {
			h[name] = append(h[name], value)
		}
	}
	for name, value := range r.GetHeaders() {
		add(name, value)
	}
	for _, v := range r.GetHeaderMap().GetHeaders() {
		value := v.GetValue()
		if raw := v.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		add(v.GetKey(), value)
	}
	return h
}

// Check answers whether a request may pass.
func (e *envoy) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	attrs := req.GetAttributes()
	r := attrs.GetRequest().GetHttp()
	h := envoyHeaders(r)
	q := &question{method: r.GetMethod(), uri: r.GetPath(), header: h, trusted: e.trusts(ctx), joined: true}
	if q.trusted {
		q.addr = e.client(attrs, h)
	}
	d, s := e.gate.decide(ctx, "envoy", q)
	return e.answer(&d, s), nil
}

func (e *envoy) trusts(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return p.Addr.Network() == "unix"
	}
	return e.own.has(addr.Addr())
}

// client is who sent the request to Envoy, or, where that is a proxy of ours, whom that
// names.
func (e *envoy) client(attrs *authv3.AttributeContext, h envoyHeader) netip.Addr {
	addr, err := netip.ParseAddr(attrs.GetSource().GetAddress().GetSocketAddress().GetAddress())
	if err != nil {
		return netip.Addr{}
	}
	if e.own.has(addr) {
		if forwarded := e.own.lastOutside(strings.Join(h.all("x-forwarded-for"), ",")); forwarded.IsValid() {
			return forwarded
		}
	}
	return addr
}

// answer is a decision in Envoy's words.
func (e *envoy) answer(d *decision, s *settings) *authv3.CheckResponse {
	code := codes.PermissionDenied
	switch d.status {
	case http.StatusOK:
		ok := &authv3.OkHttpResponse{HeadersToRemove: s.keys.removed(), QueryParametersToRemove: s.keys.Query}
		for _, p := range d.headers() {
			ok.Headers = append(ok.Headers, overwrite(p))
		}
		if ends := endOf(d.verdict); ends != "" {
			ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, overwrite(pair{headerEnds, ends}))
		}
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.OK)}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
		}
	case http.StatusServiceUnavailable:
		// Not a refusal: it obeys failure_mode_allow, as a verifier that is down does.
		failed := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode(d.status)}, Headers: headerOptions(d), Body: jsonBody(d)}
		return &authv3.CheckResponse{
			Status: &rpcstatus.Status{Code: int32(codes.Unavailable), Message: d.code}, HttpResponse: &authv3.CheckResponse_ErrorResponse{ErrorResponse: failed},
		}
	case http.StatusUnauthorized:
		code = codes.Unauthenticated
	case http.StatusTooManyRequests:
		code = codes.ResourceExhausted
	}
	return &authv3.CheckResponse{
		Status: &rpcstatus.Status{Code: int32(code), Message: d.code}, //nolint:gosec // codes are small
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(d.status)}, Headers: headerOptions(d), Body: jsonBody(d), //nolint:gosec // statuses are small
		}},
	}
}

func headerOptions(d *decision) []*corev3.HeaderValueOption {
	out := []*corev3.HeaderValueOption{overwrite(pair{"Content-Type", "application/json"})}
	for _, p := range d.headers() {
		out = append(out, overwrite(p))
	}
	return out
}

func overwrite(p pair) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header: &corev3.HeaderValue{Key: p.name, Value: p.value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		KeepEmptyValue: true,
	}
}

func jsonBody(d *decision) string {
	raw, err := json.Marshal(refusalBody(d))
	if err != nil {
		return ""
	}
	return string(raw)
}
