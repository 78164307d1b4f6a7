// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3" // of the configuration
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3" // of the configuration
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// What stands in for a gateway that is not to be had: a proxy that asks the edge as the
// gateway does by its shipped configuration, and does with the answer what it would.

// hop are headers that are about one connection.
var hop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// cleaned is a copy without what is about the connection, and what Connection names.
func cleaned(h http.Header) http.Header {
	out := h.Clone()
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hop {
		out.Del(name)
	}
	return out
}

// serve has a handler stand in for the gateway.
func (g *gateway) serve(t testing.TB, h http.Handler) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	g.addr = s.Listener.Addr().String()
}

// asker is a client that goes nowhere but where it is told to.
func asker(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 32},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

var toAPI = asker(10 * time.Second)

// pass gives a request to the API, and its answer to the client.
func (g *gateway) pass(w http.ResponseWriter, r *http.Request, header, answer http.Header) {
	req, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+g.api.addr, r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	req.URL.Opaque = r.RequestURI // as it came
	req.Header = header
	resp, err := toAPI.Do(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	maps.Copy(w.Header(), answer)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// ask sends a question. Nil: there is no answer.
func ask(ctx context.Context, client *http.Client, method, url, path string, header http.Header) (*http.Response, []byte) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, nil
	}
	if path != "" {
		req.URL.Opaque = path
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil
	}
	return resp, body
}

func readYAML(t testing.TB, name string, to any) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(shipped, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(raw, to); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// standInTraefik is ForwardAuth with trustForwardHeader: false, and headers.
func standInTraefik(t testing.TB, g *gateway) {
	var conf struct {
		HTTP struct {
			Routers     map[string]struct{ Middlewares []string }
			Middlewares map[string]struct {
				ForwardAuth struct {
					Address             string
					TrustForwardHeader  bool     `yaml:"trustForwardHeader"`
					AuthRequestHeaders  []string `yaml:"authRequestHeaders"`
					AuthResponseHeaders []string `yaml:"authResponseHeaders"`
				} `yaml:"forwardAuth"`
				Headers struct {
					CustomRequestHeaders map[string]string `yaml:"customRequestHeaders"`
				}
			}
		}
	}
	readYAML(t, "traefik/dynamic.yml", &conf)
	forward, without := conf.HTTP.Middlewares["apikeys"].ForwardAuth, conf.HTTP.Middlewares["without-key"].Headers.CustomRequestHeaders
	if !slices.Equal(conf.HTTP.Routers["api"].Middlewares, []string{"apikeys", "without-key"}) || forward.TrustForwardHeader || len(forward.AuthRequestHeaders) > 0 {
		t.Fatalf("dynamic.yml says something else than this stand-in does: %+v", conf)
	}
	url := strings.Replace(forward.Address, "127.0.0.1:9090", g.line.addr, 1)
	client := asker(30 * time.Second)
	g.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := cleaned(r.Header)
		question := header.Clone()
		for name := range question {
			if strings.HasPrefix(name, "X-Forwarded-") {
				question.Del(name)
			}
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		question.Set("X-Forwarded-For", host)
		question.Set("X-Forwarded-Method", r.Method)
		question.Set("X-Forwarded-Uri", r.RequestURI)
		question.Set("X-Forwarded-Host", r.Host)
		question.Set("X-Forwarded-Proto", "http")
		resp, body := ask(r.Context(), client, http.MethodGet, url, "", question)
		switch {
		case resp == nil:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case resp.StatusCode/100 != 2:
			maps.Copy(w.Header(), cleaned(resp.Header))
			w.WriteHeader(resp.StatusCode)
			_, _ = w.Write(body)
			return
		}
		for _, name := range forward.AuthResponseHeaders {
			name = http.CanonicalHeaderKey(name)
			header.Del(name)
			if values := resp.Header[name]; len(values) > 0 {
				header[name] = values
			}
		}
		for name, value := range without {
			if value == "" {
				header.Del(name)
			} else {
				header.Set(name, value)
			}
		}
		g.pass(w, r, header, nil)
	}))
}

// standInAPISIX is forward-auth, proxy-rewrite and response-rewrite. It sees the first
// of headers that came twice, and none with underscores and dots.
func standInAPISIX(t testing.TB, g *gateway) {
	var conf struct {
		Routes []struct {
			Plugins struct {
				ForwardAuth struct {
					URI              string
					RequestHeaders   []string `yaml:"request_headers"`
					UpstreamHeaders  []string `yaml:"upstream_headers"`
					ClientHeaders    []string `yaml:"client_headers"`
					AllowDegradation bool     `yaml:"allow_degradation"`
					StatusOnError    int      `yaml:"status_on_error"`
					Timeout          int
				} `yaml:"forward-auth"`
				ProxyRewrite struct {
					Headers struct{ Remove []string }
				} `yaml:"proxy-rewrite"`
				ResponseRewrite struct {
					Headers struct{ Set map[string]string }
				} `yaml:"response-rewrite"`
			}
		}
	}
	readYAML(t, "apisix/apisix.yaml", &conf)
	plugins := conf.Routes[0].Plugins
	forward, set := plugins.ForwardAuth, plugins.ResponseRewrite.Headers.Set
	if forward.AllowDegradation || !maps.Equal(set, map[string]string{"X-Apikey-Ends": "$http_x_apikey_ends"}) {
		t.Fatalf("apisix.yaml says something else than this stand-in does: %+v", plugins)
	}
	url := strings.Replace(forward.URI, "127.0.0.1:9090", g.line.addr, 1)
	client := asker(time.Duration(forward.Timeout) * time.Millisecond)
	g.first, g.drops, g.tells = true, true, true
	g.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Clone()
		for _, name := range hop {
			header.Del(name)
		}
		for name := range header {
			if strings.ContainsAny(name, "_.") {
				delete(header, name)
			}
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		question := http.Header{
			"X-Forwarded-Proto": {"http"}, "X-Forwarded-Method": {r.Method}, "X-Forwarded-Host": {r.Host}, "X-Forwarded-Uri": {r.RequestURI}, "X-Forwarded-For": {host},
		}
		for _, name := range forward.RequestHeaders {
			if value := header.Get(name); value != "" {
				question.Set(name, value)
			}
		}
		resp, body := ask(r.Context(), client, http.MethodGet, url, "", question)
		switch {
		case resp == nil:
			w.WriteHeader(forward.StatusOnError)
			return
		case resp.StatusCode >= 300:
			for _, name := range forward.ClientHeaders {
				if value := resp.Header.Get(name); value != "" {
					w.Header().Set(name, value)
				}
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = w.Write(body)
			return
		}
		for _, name := range forward.UpstreamHeaders {
			header.Del(name)
			if values := resp.Header.Values(name); len(values) > 0 {
				header.Set(name, values[0])
			}
		}
		for _, name := range plugins.ProxyRewrite.Headers.Remove {
			header.Del(name)
		}
		answer := http.Header{}
		if ends := header.Get("X-Apikey-Ends"); ends != "" {
			answer.Set("X-Apikey-Ends", ends)
		}
		g.pass(w, r, header, answer)
	}))
}

// readProto reads YAML that stands for a message, and knows each of its fields.
func readProto(t testing.TB, name string, part func(any) any, to proto.Message) {
	t.Helper()
	var tree any
	readYAML(t, name, &tree)
	raw, err := json.Marshal(part(tree))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(raw, to); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if v, ok := to.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// envoyFilter is the ext_authz filter of envoy.yaml, and its connection manager.
func envoyFilter(t testing.TB) (*extauthzv3.ExtAuthz, *hcmv3.HttpConnectionManager) {
	t.Helper()
	var boot bootstrapv3.Bootstrap
	readProto(t, "envoy/envoy.yaml", func(tree any) any { return tree }, &boot)
	var hcm hcmv3.HttpConnectionManager
	if err := boot.StaticResources.Listeners[0].FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(&hcm); err != nil {
		t.Fatal(err)
	}
	var filter extauthzv3.ExtAuthz
	if err := hcm.HttpFilters[0].GetTypedConfig().UnmarshalTo(&filter); err != nil {
		t.Fatal(err)
	}
	if last := hcm.HttpFilters[len(hcm.HttpFilters)-1].Name; last != "envoy.filters.http.router" {
		t.Fatalf("the last filter is %s", last)
	}
	return &filter, &hcm
}

// rejects reports whether Envoy refuses the request by itself, because of an underscore.
func rejects(hcm *hcmv3.HttpConnectionManager, h http.Header) bool {
	if hcm.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_REJECT_REQUEST {
		return false
	}
	for name := range h {
		if strings.Contains(name, "_") {
			return true
		}
	}
	return false
}

// standInEnvoy asks over gRPC; raw: with encode_raw_headers, as it is shipped.
func standInEnvoy(raw bool) func(testing.TB, *gateway) {
	return func(t testing.TB, g *gateway) {
		filter, hcm := envoyFilter(t)
		if !filter.EncodeRawHeaders || filter.FailureModeAllow || filter.GetGrpcService() == nil {
			t.Fatalf("envoy.yaml says something else than this stand-in does: %v", filter)
		}
		timeout := filter.GetGrpcService().GetTimeout().AsDuration()
		conn, err := grpc.NewClient(g.line.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		client := authv3.NewAuthorizationClient(conn)
		g.tells = true
		g.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if rejects(hcm, r.Header) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			header := cleaned(r.Header)
			ctx, cancel := context.WithTimeout(r.Context(), timeout)
			defer cancel()
			resp, err := client.Check(ctx, checkOf(r, header, raw))
			failed := int(filter.StatusOnError.GetCode())
			switch {
			case err != nil:
				w.WriteHeader(failed)
			case resp.GetErrorResponse() != nil:
				if code := int(resp.GetErrorResponse().GetStatus().GetCode()); code != 0 {
					failed = code
				}
				w.WriteHeader(failed)
			case resp.GetStatus().GetCode() != 0:
				denied := resp.GetDeniedResponse()
				setEach(w.Header(), denied.GetHeaders())
				w.WriteHeader(max(int(denied.GetStatus().GetCode()), http.StatusUnauthorized))
				_, _ = io.WriteString(w, denied.GetBody())
			default:
				ok := resp.GetOkResponse()
				for _, name := range ok.GetHeadersToRemove() {
					header.Del(name)
				}
				setEach(header, ok.GetHeaders())
				answer := http.Header{}
				setEach(answer, ok.GetResponseHeadersToAdd())
				g.pass(w, r, header, answer)
			}
		}))
	}
}

func setEach(h http.Header, options []*corev3.HeaderValueOption) {
	for _, o := range options {
		if o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			h.Set(o.GetHeader().GetKey(), o.GetHeader().GetValue())
		} else {
			h.Add(o.GetHeader().GetKey(), o.GetHeader().GetValue())
		}
	}
}

// checkOf is the question about a request.
func checkOf(r *http.Request, header http.Header, raw bool) *authv3.CheckRequest {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	about := &authv3.AttributeContext_HttpRequest{Method: r.Method, Path: r.RequestURI, Host: r.Host, Scheme: "http", Protocol: r.Proto}
	plain := map[string]string{":method": r.Method, ":path": r.RequestURI, ":authority": r.Host}
	list := &corev3.HeaderMap{}
	for name, value := range plain {
		list.Headers = append(list.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	for name, values := range header {
		name = strings.ToLower(name)
		plain[name] = strings.Join(values, ",")
		for _, value := range values {
			list.Headers = append(list.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
	}
	if raw {
		about.HeaderMap = list
	} else {
		about.Headers = plain
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 1}},
		}}},
		Request: &authv3.AttributeContext_Request{Http: about},
	}}
}

// standInEnvoyHTTP is the filter of http-filter.yaml.
func standInEnvoyHTTP(t testing.TB, g *gateway) {
	_, hcm := envoyFilter(t)
	var filter extauthzv3.ExtAuthz
	readProto(t, "envoy/http-filter.yaml", func(tree any) any {
		conf := tree.(map[string]any)["typed_config"].(map[string]any)
		delete(conf, "@type")
		return conf
	}, &filter)
	service := filter.GetHttpService()
	if filter.FailureModeAllow || service == nil {
		t.Fatalf("http-filter.yaml says something else than this stand-in does: %v", &filter)
	}
	client := asker(service.GetServerUri().GetTimeout().AsDuration())
	g.tells = true
	g.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rejects(hcm, r.Header) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		header := cleaned(r.Header)
		question := http.Header{}
		for name, values := range header {
			if strings.EqualFold(name, "Authorization") || matches(t, filter.GetAllowedHeaders(), name) {
				question[http.CanonicalHeaderKey(name)] = []string{strings.Join(values, ",")}
			}
		}
		resp, body := ask(r.Context(), client, r.Method, "http://"+g.line.addr, service.GetPathPrefix()+r.RequestURI, question)
		answer := service.GetAuthorizationResponse()
		switch {
		case resp == nil, resp.StatusCode/100 == 5:
			w.WriteHeader(int(filter.StatusOnError.GetCode()))
		case resp.StatusCode != http.StatusOK:
			for name, values := range resp.Header {
				if matches(t, answer.GetAllowedClientHeaders(), name) {
					w.Header()[name] = values
				}
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, bytes.NewReader(body))
		default:
			for name := range strings.SplitSeq(resp.Header.Get("X-Envoy-Auth-Headers-To-Remove"), ",") {
				header.Del(strings.TrimSpace(name))
			}
			told := http.Header{}
			for name, values := range resp.Header {
				if matches(t, answer.GetAllowedUpstreamHeaders(), name) {
					header[name] = values
				}
				if matches(t, answer.GetAllowedClientHeadersOnSuccess(), name) {
					told[name] = values
				}
			}
			g.pass(w, r, header, told)
		}
	}))
}

// matches reports whether a list of matchers names a header; Envoy's are in lower case.
func matches(t testing.TB, list *matcherv3.ListStringMatcher, name string) bool {
	name = strings.ToLower(name)
	for _, m := range list.GetPatterns() {
		switch p := m.GetMatchPattern().(type) {
		case *matcherv3.StringMatcher_Exact:
			if p.Exact == name {
				return true
			}
		case *matcherv3.StringMatcher_Prefix:
			if strings.HasPrefix(name, p.Prefix) {
				return true
			}
		case *matcherv3.StringMatcher_SafeRegex:
			if regexp.MustCompile("^(?:" + p.SafeRegex.GetRegex() + ")$").MatchString(name) {
				return true
			}
		default:
			t.Errorf("the stand-in knows no matcher %T", p)
		}
	}
	return false
}
