// SPDX-License-Identifier: MPL-2.0

package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const whole = `
label = "shop"
vault {
  address   = "https://vault.example.com:8200"
  namespace = "team"
  mount     = "apikeys"
  role      = "orders"
  ca_cert   = "ca.pem"
  auth "approle" {
    mount          = "approle"
    role_id        = "r"
    secret_id_file = "secret"
  }
}
listen "auth" {
  address         = "127.0.0.1:9090"
  preset          = "nginx"
  trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
  tls {
    cert_file = "cert.pem"
    key_file  = "key.pem"
  }
}
listen "auth" {
  address  = "127.0.0.1:9092"
  protocol = "grpc"
}
listen "admin" {
  address = ":9091"
}
listen "verify" {
  address = "unix:/run/verify.sock"
}
cache {
  max_staleness       = "90s"
  state_file          = "edge.state"
  state_key_file      = "edge.key"
  max_keys            = 10
  unknown_per_second  = 5.5
  unknown_per_address = 2
}
keys {
  headers = ["X-Token"]
  query   = ["api_key"]
}
log {
  level  = "debug"
  format = "text"
}
rule {
  methods   = ["GET"]
  path      = "/orders/**"
  scopes    = ["orders:read"]
  any_scope = ["a", "b"]
}
rule {
  path = "/status"
}
`

func TestParse(t *testing.T) {
	e, err := Parse("edge.hcl", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	auth := e.Listen[0]
	if e.Label != "shop" || e.Vault.Auth.Method != AuthAppRole || e.Vault.Namespace != "team" || len(e.Listen) != 4 || auth.Protocol != ProtocolHTTP ||
		fmt.Sprint(auth.Trusted) != "[10.0.0.0/8 192.0.2.1/32]" || auth.TLS.CertFile != "cert.pem" || e.Cache.Staleness != 90*time.Second ||
		e.Cache.UnknownPerSecond != 5.5 || e.Keys.Query[0] != "api_key" || e.Log.Level != "debug" || len(e.Rules) != 2 || e.Rules[0].AnyScope[1] != "b" {
		t.Errorf("%+v", e)
	}
	e, err = Parse("edge.conf", []byte("vault {\n mount = \"apikeys\"\n}\nlisten \"admin\" {\n address = \":1\"\n}\n"))
	if err != nil || e.Log.Level != "info" || e.Log.Format != "json" || e.Cache.Staleness != 0 || e.Keys.Headers != nil {
		t.Errorf("%+v, %v", e, err)
	}
}

// Each mistake is told with its place, and what to do.
func TestMistakes(t *testing.T) {
	for _, test := range []struct{ from, to, want string }{
		{`mount     = "apikeys"`, `mount = ""`, "vault: mount: is empty"},
		{`mount     = "apikeys"`, ``, "edge.hcl:3"},
		{`role      = "orders"`, `rolle = "orders"`, "edge.hcl:7"},
		{`namespace = "team"`, `token_file = "t"`, "vault: token_file and auth"},
		{`auth "approle"`, `auth "ldap"`, `auth "ldap": is none`},
		{`role_id        = "r"`, ``, "role_id: is missing"},
		{`auth "approle"`, `auth "jwt"`, "token_file: is missing"},
		{`auth "approle"`, `auth "kubernetes"`, "role: is missing"},
		{`auth "approle"`, `auth "token_file"`, "path: is missing"},
		{`preset          = "nginx"`, ``, "preset: is missing"},
		{`protocol = "grpc"`, `protocol = "spdy"`, "protocol: \"spdy\""},
		{`protocol = "grpc"`, "protocol = \"grpc\"\n preset = \"nginx\"", "grpc is what Envoy speaks"},
		{`"10.0.0.0/8"`, `"ten"`, `trusted_proxies: "ten"`},
		{`listen "admin" {`, "listen \"admin\" {\n preset = \"nginx\"", `are for listen "auth"`},
		{`listen "admin"`, `listen "metrics"`, `listen "metrics": is none`},
		{`":9091"`, `""`, `address: ""`},
		{`":9091"`, `"9091"`, `address: "9091": is none`},
		{`"unix:/run/verify.sock"`, `"unix:@verify"`, `address: "unix:@verify": is a socket without a file`},
		{`"unix:/run/verify.sock"`, `"unix:"`, `address: "unix:": is none`},
		{`"https://vault.example.com:8200"`, `"vault.example.com:8200"`, `address: "vault.example.com:8200": is not a URL`},
		{`"https://vault.example.com:8200"`, `"https://vault.example.com:x"`, "is not a URL"},
		{`"127.0.0.1:9092"`, `"127.0.0.1:9090"`, "has another listener"},
		{`"unix:/run/verify.sock"`, `"0.0.0.0:1"`, "must be on loopback"},
		{`"unix:/run/verify.sock"`, `":1"`, "must be on loopback"},
		{`"unix:/run/verify.sock"`, `"example.com:1"`, "must be on loopback"},
		{`"X-Token"`, `"X_Token"`, `keys: headers: "X_Token": is no name`},
		{`"X-Token"`, `""`, `keys: headers: "": is no name`},
		{`"X-Token"`, `"authorization"`, `"authorization": means something else`},
		{`"X-Token"`, `"X-Apikey-Role"`, "means something else"},
		{`"X-Token"`, `"X-Original-Uri"`, "means something else"},
		{`"X-Token"`, `"Host"`, "means something else"},
		{`["api_key"]`, `[""]`, "keys: query: has an empty name"},
		{`"90s"`, `"soon"`, `max_staleness: "soon"`},
		{`"90s"`, `"-1s"`, "max_staleness"},
		{`state_file          = "edge.state"`, ``, "go together"},
		{`unknown_per_second  = 5.5`, `unknown_per_second = -1`, "must not be negative"},
		{`unknown_per_address = 2`, `unknown_per_address = -1`, "must not be negative"},
		{`max_keys            = 10`, `max_keys = -1`, "must not be negative"},
		{`level  = "debug"`, `level = "loud"`, `level: "loud"`},
		{`format = "text"`, `format = "xml"`, `format: "xml"`},
		{`path = "/status"`, ``, "edge.hcl:56"},
	} {
		text := strings.Replace(whole, test.from, test.to, 1)
		if text == whole {
			t.Fatalf("%q is not in the text", test.from)
		}
		if _, err := Parse("edge.hcl", []byte(text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.to, err, test.want)
		}
	}
	text := whole[:strings.Index(whole, "rule {")]
	if _, err := Parse("edge.hcl", []byte(text)); err == nil || !strings.Contains(err.Error(), "rule: there is none") {
		t.Errorf("without rules: %v", err)
	}
	if _, err := Parse("edge.hcl", []byte("vault {\n mount = \"a\"\n}\n")); err == nil || !strings.Contains(err.Error(), "listen: there is none") {
		t.Errorf("without listeners: %v", err)
	}
	// All mistakes at once.
	if _, err := Parse("edge.hcl", []byte("vault {\n mont = 1\n}\nlisen \"auth\" {}\n")); err == nil || strings.Count(err.Error(), "edge.hcl:") < 3 {
		t.Errorf("%v", err)
	}
	for _, private := range []string{"127.0.0.1:1", "[::1]:1", "localhost:1", "unix:x"} {
		text := strings.Replace(whole, `"unix:/run/verify.sock"`, `"`+private+`"`, 1)
		if _, err := Parse("edge.hcl", []byte(text)); err != nil {
			t.Errorf("%s: %v", private, err)
		}
	}
}
