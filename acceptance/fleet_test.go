// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fleetReport is `apikeys fleet` as it is written in the docs, with the policy that is meant
// for it.
func fleetReport(t *testing.T, e *env) {
	e.write("roles/orders", data{"owner": "team-orders <script>", "rotation_period": "30d"})
	e.write("roles/mail", data{"owner": "=team", "rotation_period": "0"})
	e.write("roles/jobs", data{"owner": "team-orders <script>", "type": "dynamic"})
	old := e.creds("orders")
	e.write("rotate/orders", nil)
	e.judged(old, "VALID previous")
	e.write("verify", data{"key": old.secret, "client": "web-1"})
	dead := e.creds("mail")
	e.write("revoke/mail", data{"version": 1, "rotate": false})
	secrets := []string{old.secret, dead.secret, e.creds("orders").secret, e.creds("jobs").secret}

	dir := t.TempDir()
	token := e.tokenFor(t, e.policy(t, report)).Token()
	run := func(token string, args ...string) (status int, output string) {
		cmd := exec.CommandContext(t.Context(), programs.apikeys, append([]string{"fleet", "-mount", e.mount}, args...)...)
		cmd.Dir = dir
		cmd.Env = []string{"VAULT_ADDR=" + e.client.Address(), "VAULT_TOKEN=" + token, "HOME=" + dir}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
	files := map[string][]string{
		"fleet.html": {"team-orders &lt;script&gt;", "vault write -f " + e.path("rotate/mail"), "web-1", "No current key"},
		"fleet.csv":  {"orders,", "'=team,"},
		"fleet.json": {`"role":"jobs"`},
		"fleet.ics":  {"SUMMARY:orders: a new key becomes current\r\n", "SUMMARY:orders: version 1 ends\r\n"},
	}
	for name, wants := range files {
		if status, out := run(token, "-o", name); status != 0 || out != "" {
			t.Fatalf("%s: status %d: %s", name, status, out)
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
		for _, want := range wants {
			if !bytes.Contains(raw, []byte(want)) {
				t.Errorf("%s lacks %q:\n%s", name, want, raw)
			}
		}
		for _, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("a whole key is in %s", name)
			}
		}
		if name == "fleet.json" {
			reportSays(t, raw)
		}
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != len(files) {
		t.Errorf("%v %v", all, err)
	}
	// A token that may not see it is told which policy has what is needed.
	if status, out := run(e.tokenFor(t, e.policy(t, rotator)).Token()); status != 1 || !strings.Contains(out, "apikeys fleet: read "+e.path("calendar")+": ") || !strings.Contains(out, "policies/fleet.hcl") {
		t.Errorf("status %d: %s", status, out)
	}
	if status, out := run(token, "-format", "pdf"); status != 2 || !strings.Contains(out, `-format: "pdf": is none`) {
		t.Errorf("status %d: %s", status, out)
	}
}

func reportSays(t *testing.T, raw []byte) {
	t.Helper()
	var d struct {
		Summary struct {
			Roles    int `json:"roles"`
			Problems int `json:"with_problems"`
			InUse    int `json:"graces_in_use"`
		} `json:"summary"`
		Graces []struct {
			Role    string   `json:"role"`
			Version int      `json:"version"`
			Clients []string `json:"clients"`
		} `json:"graces"`
	}
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	if d.Summary.Roles != 3 || d.Summary.Problems != 1 || d.Summary.InUse != 1 || len(d.Graces) != 1 ||
		d.Graces[0].Role != "orders" || d.Graces[0].Version != 1 || !slices.Contains(d.Graces[0].Clients, "web-1") {
		t.Errorf("%+v", d)
	}
}
