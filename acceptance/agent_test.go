// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// agentRendersRotation runs the real agent: it follows rotations by the answer's ttl, and what it has
// rendered is good at every moment.
func agentRendersRotation(t *testing.T, e *env) {
	e.write("roles/r", data{"refresh_interval": "2s", "grace_period": "20s"})
	one := e.creds("r")
	policy := strings.ReplaceAll(e.mount, "/", "-")
	if err := e.client.Sys().PutPolicy(policy, `path "`+e.mount+`/creds/r" { capabilities = ["read"] }`); err != nil {
		t.Fatal(err)
	}
	token, err := e.client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{policy}, Period: "10m"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	rendered := filepath.Join(dir, "rendered")
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tokenFile := write("token", token.Auth.ClientToken)
	config := write("agent.hcl", fmt.Sprintf(`
vault {
  address = %q
}
auto_auth {
  method {
    type = "token_file"
    config = {
      token_file_path = %q
    }
  }
}
template_config {
  exit_on_retry_failure = true
}
template {
  contents             = "{{ with secret \"%s/creds/r\" }}{{ .Data.api_key }} {{ .Data.version }}{{ end }}"
  destination          = %q
  perms                = "0600"
  error_on_missing_key = true
}
`, e.client.Address(), tokenFile, e.mount, rendered))
	out := &output{}
	agent := launch(t, out, []string{"HOME=" + dir}, programs.real, "agent", "-config="+config)

	// has asserts that what is rendered verifies, whatever it is, and says which version it is.
	has := func(version int64) error {
		if err := agent.running(); err != nil {
			t.Fatalf("agent: %v\n%s", err, tail(out.String()))
		}
		raw, err := os.ReadFile(rendered)
		if err != nil {
			return err
		}
		secret, n, ok := strings.Cut(string(raw), " ")
		if !ok {
			return errNotYet
		}
		if v := e.verify(secret); v["valid"] != true {
			t.Fatalf("the rendered key of version %s is %s", n, verdict(v))
		}
		if n != fmt.Sprint(version) {
			return fmt.Errorf("version %s is rendered", n)
		}
		return nil
	}
	eventually(t, "first key rendered", func() error { return has(one.version) })
	for version := one.version + 1; version <= one.version+2; version++ {
		e.write("rotate/r", data{"reason": "for the agent"})
		within(t, 20*time.Second, "rotation rendered", func() error { return has(version) })
	}
	if strings.Contains(out.String(), one.secret) {
		t.Error("the agent logged a key")
	}
}
