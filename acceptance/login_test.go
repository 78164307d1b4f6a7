// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// issuer signs tokens as a CI system does, and publishes the key.
type issuer struct {
	*httptest.Server
	t   *testing.T
	key *rsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key}
	mux := http.NewServeMux()
	answer := func(path string, what func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			// A reader that has gone needs no answer.
			_ = json.NewEncoder(w).Encode(what())
		})
	}
	answer("/.well-known/openid-configuration", func() any {
		return data{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}}
	})
	answer("/keys", func() any {
		encode := base64.RawURLEncoding.EncodeToString
		return data{"keys": []data{{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())}}}
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// sign makes a token that is good for five minutes.
func (i *issuer) sign(claims data) string {
	i.t.Helper()
	all := data{"iss": i.URL, "iat": time.Now().Unix(), "nbf": time.Now().Unix() - 1, "exp": time.Now().Unix() + 300}
	maps.Copy(all, claims)
	text := base64.RawURLEncoding.EncodeToString([]byte(inJSON(i.t, data{"alg": "RS256", "typ": "JWT", "kid": "1"}))) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(inJSON(i.t, all)))
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		i.t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// asWritten runs the commands of a README below its heading, with the real program as `vault` and in the README's
// directory, until the next heading of the same depth. It returns what they said.
func (e *env) asWritten(dir, heading string, replace ...string) string {
	e.t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		e.t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n"+heading+"\n")
	if !ok {
		e.t.Fatalf("%s has no %q", dir, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var script strings.Builder
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script.WriteString(command)
		}
	}
	if !strings.Contains(script.String(), "vault ") {
		e.t.Fatalf("%s: no command below %q", dir, heading)
	}
	bin := e.t.TempDir()
	if err := os.Symlink(programs.real, filepath.Join(bin, "vault")); err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.CommandContext(e.t.Context(), "sh", "-eu", "-c", strings.NewReplacer(replace...).Replace(script.String()))
	cmd.Dir = dir
	for name, value := range map[string]string{"ADDR": e.client.Address(), "TOKEN": e.client.Token()} {
		cmd.Env = append(cmd.Env, "VAULT_"+name+"="+value, "BAO_"+name+"="+value)
	}
	cmd.Env = append(os.Environ(), append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+bin, "CLI=")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.t.Fatalf("the commands of %s below %q: %v\n%s", dir, heading, err, out)
	}
	return string(out)
}

// documented is the engine where the READMEs have it, at apikeys/.
func (e *env) documented() *env {
	e.t.Helper()
	d := &env{suite: e.suite, t: e.t, mount: "apikeys", client: e.client}
	// Whoever had it before has no need of it any more.
	if err := e.client.Sys().Unmount(d.mount); err != nil {
		e.t.Fatal(err)
	}
	if err := e.client.Sys().Mount(d.mount, &api.MountInput{Type: pluginName}); err != nil {
		e.t.Fatal(err)
	}
	eventually(e.t, "the mount", func() error {
		_, err := d.client.Logical().Read(d.path("config"))
		return err
	})
	e.t.Cleanup(func() {
		if err := e.client.Sys().Unmount(d.mount); err != nil {
			e.t.Error(err)
		}
	})
	return d
}

// in is the same mount in a test within the test.
func (e *env) in(t *testing.T) *env {
	t.Helper()
	return &env{suite: e.suite, t: t, mount: e.mount, client: e.client}
}

// setUpAsWritten runs what READMEs have a reader do once on the server, and uses what is there then.
func setUpAsWritten(t *testing.T, e *env) {
	d := e.documented()
	t.Run("kubernetes", func(t *testing.T) { d.in(t).kubernetesSetUp(t) })
	ci := filepath.Join("..", "bootstrap", "ci")
	said := d.asWritten(ci, "## Try it", "VAULT_ADDR=http://127.0.0.1:8200 VAULT_TOKEN=root",
		"VAULT_ADDR="+d.client.Address()+" VAULT_TOKEN="+d.client.Token()+" BAO_TOKEN="+d.client.Token())
	if _, after, ok := strings.Cut(said, "\nstatus 4\n"); !ok || !strings.Contains(after, "\ndone\n") || d.creds("orders").version != 2 {
		t.Errorf("the first try said\n%s", said)
	}
	github, gitlab := newIssuer(t), newIssuer(t)
	d.asWritten(ci, "## Once, on the Vault side",
		"https://token.actions.githubusercontent.com", github.URL, "https://gitlab.example.com", gitlab.URL)
	t.Run("github", func(t *testing.T) {
		d.in(t).pipelineLogsIn(t, "github", github, data{
			"aud": "https://vault.example.com", "sub": "repo:somebody/orders:environment:production", "repository": "somebody/orders", "actor": "one",
			"repository_id": "123456789", "repository_owner_id": "987654321", "ref": "refs/heads/main", "environment": "production",
		}, "aud", "repository_id", "repository_owner_id", "ref", "environment")
	})
	t.Run("gitlab", func(t *testing.T) {
		d.in(t).pipelineLogsIn(t, "gitlab", gitlab, data{
			"aud": "https://vault.example.com", "sub": "project_path:somebody/orders:ref_type:branch:ref:main", "user_login": "one",
			"project_id": "1234", "ref": "main", "ref_type": "branch", "ref_protected": "true", "environment": "production",
		}, "aud", "project_id", "ref", "ref_type", "ref_protected", "environment")
	})
}

// newCluster is the part of a cluster that a server asks whether a token is good: it is, and of whom it says. It
// returns what the configuration of the login needs to reach it.
func newCluster(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token     string   `json:"token"`
				Audiences []string `json:"audiences"`
			} `json:"spec"`
		}
		parts := []string{}
		if err := json.NewDecoder(r.Body).Decode(&review); err == nil {
			parts = strings.Split(review.Spec.Token, ".")
		}
		var claims struct {
			Subject string `json:"sub"`
			Pod     struct {
				Account struct {
					UID string `json:"uid"`
				} `json:"serviceaccount"`
			} `json:"kubernetes.io"`
		}
		if len(parts) == 3 {
			if raw, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
				// A token that cannot be read is of nobody.
				_ = json.Unmarshal(raw, &claims)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(data{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": data{
			"authenticated": claims.Subject != "", "audiences": review.Spec.Audiences,
			"user": data{"username": claims.Subject, "uid": claims.Pod.Account.UID, "groups": []string{"system:serviceaccounts", "system:authenticated"}},
		}})
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return "kubernetes_host=" + server.URL + " disable_local_ca_jwt=true kubernetes_ca_cert=@" + file
}

// kubernetesSetUp runs the commands for a cluster, with one that is played.
func (e *env) kubernetesSetUp(t *testing.T) {
	e.asWritten(filepath.Join("..", "bootstrap", "kubernetes"), "## Once, on the Vault side",
		"kubernetes_host=https://kubernetes.default.svc", newCluster(t))
	signer := newIssuer(t)
	login := func(role, namespace, account, audience string) (*api.Client, error) {
		token := signer.sign(data{
			"aud": []string{audience}, "sub": "system:serviceaccount:" + namespace + ":" + account,
			"kubernetes.io": data{"namespace": namespace, "serviceaccount": data{"name": account, "uid": "of-" + account}},
		})
		s, err := e.clientFor(e.client.Address(), "").Logical().Write("auth/kubernetes/login", data{"role": role, "jwt": token})
		if err != nil {
			return nil, err
		}
		return e.clientFor(e.client.Address(), s.Auth.ClientToken), nil
	}
	orders, err := login("orders", "orders", "orders", "vault")
	if err != nil {
		t.Fatal(err)
	}
	s, err := orders.Logical().Read(e.path("creds/orders"))
	if err != nil {
		t.Fatal(err)
	}
	k := e.keyOf(s)
	s, err = orders.Logical().Read(e.path("creds/jobs"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := orders.Sys().Renew(e.keyOf(s).lease.LeaseID, 600); err != nil {
		t.Errorf("renewing a lease: %v", err)
	}
	_, err = orders.Logical().Write(e.path("verify"), data{"key": k.secret})
	e.refused(err, 403)
	edge, err := login("edge", "api", "api", "vault")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := edge.Logical().Write(e.path("verify"), data{"key": k.secret}); err != nil || s.Data["valid"] != true {
		t.Errorf("the edge's login verifies: %v, %v", s, err)
	}
	_, err = edge.Logical().Read(e.path("creds/orders"))
	e.refused(err, 403)
	for _, wrong := range [][4]string{
		{"orders", "orders", "default", "vault"},
		{"orders", "api", "orders", "vault"},
		{"orders", "orders", "orders", "https://kubernetes.default.svc"},
		{"edge", "orders", "orders", "vault"},
		{"edge", "api", "default", "vault"},
	} {
		if _, err := login(wrong[0], wrong[1], wrong[2], wrong[3]); err == nil {
			t.Errorf("%q logs in", wrong)
		}
	}
	e.remove("roles/orders")
}

// pipelineLogsIn logs in by the claims, and without each of those that have to be bound.
func (e *env) pipelineLogsIn(t *testing.T, path string, i *issuer, claims data, bound ...string) {
	login := func(claims data) (*api.Secret, error) {
		return e.clientFor(e.client.Address(), "").Logical().Write("auth/"+path+"/login", data{"role": "apikeys-orders", "jwt": i.sign(claims)})
	}
	rotate := func(claims data, id string) data {
		t.Helper()
		s, err := login(claims)
		if err != nil {
			t.Fatalf("login: %v", err)
		}
		if !slices.Contains(s.Auth.Policies, "apikeys-orders-rotator") || s.Auth.LeaseDuration != 7200 {
			t.Errorf("a token with %v for %d s", s.Auth.Policies, s.Auth.LeaseDuration)
		}
		c := e.clientFor(e.client.Address(), s.Auth.ClientToken)
		if _, err := c.Logical().Read(e.path("creds/orders")); err == nil {
			t.Error("a pipeline may see keys")
		}
		s, err = c.Logical().Write(e.path("rotate/orders"), data{"request_id": id})
		if err != nil {
			t.Fatalf("rotate: %v", err)
		}
		if err := c.Auth().Token().RevokeSelf(""); err != nil {
			t.Errorf("giving the token back: %v", err)
		}
		return s.Data
	}
	first := rotate(claims, path+"/1/0001")
	// Somebody else runs the job again, and it is the same caller.
	other := maps.Clone(claims)
	other["actor"], other["user_login"], other["sub"] = "two", "two", "another form of it"
	again := rotate(other, path+"/1/0001")
	if again["replayed"] != true || number(t, again, "version") != number(t, first, "version") {
		t.Errorf("the first run answered %v, the second %v", first, again)
	}
	for _, claim := range bound {
		for _, value := range []any{nil, "something-else"} {
			wrong := maps.Clone(claims)
			if wrong[claim] = value; value == nil {
				delete(wrong, claim)
			}
			if s, err := login(wrong); err == nil && s != nil {
				t.Errorf("with %s %v somebody logs in", claim, value)
			}
		}
	}
	late := maps.Clone(claims)
	late["exp"] = time.Now().Add(-10 * time.Minute).Unix()
	if _, err := login(late); err == nil {
		t.Error("an old token logs in")
	}
}
