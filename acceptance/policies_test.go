// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The policies of bootstrap/policies. Those of the operator and of the fleet's report are
// for all roles, the others for the one role `orders`.
const (
	reader   = "reader"
	consumer = "consumer"
	rotator  = "rotator"
	edges    = "edge"
	oneRole  = "edge-role"
	gateway  = "gateway"
	report   = "fleet"
	scraper  = "metrics"
	operator = "operator"
)

// access is an operation that a path of the engine has, and the policies that allow it.
type access struct {
	path, operation string
	policies        []string
}

// engineAccess is every path of the engine: who adds one says here who may use it.
var engineAccess = []access{
	{"bulk", "list", []string{operator}},
	{"bulk", "update", []string{operator}},
	{"bulk/{job}", "delete", []string{operator}},
	{"bulk/{job}", "read", []string{operator}},
	{"calendar", "list", []string{operator}},
	{"calendar", "read", []string{operator, report}},
	{"changes", "read", []string{edges, oneRole}},
	{"changes", "update", []string{edges, oneRole}},
	{"config", "patch", []string{operator}},
	{"config", "read", []string{operator}},
	{"config", "update", []string{operator}},
	{"config/rotate-digest", "update", []string{operator}},
	{"creds/{name}", "read", []string{consumer, reader}},
	{"creds/{name}", "update", nil},
	{"creds/{name}/{which}", "read", nil},
	{"events", "list", []string{operator}},
	{"events/{name}", "create", []string{operator}},
	{"events/{name}", "delete", []string{operator}},
	{"events/{name}", "patch", []string{operator}},
	{"events/{name}", "read", []string{operator}},
	{"events/{name}", "update", []string{operator}},
	{"events/{name}/rotate-secret", "update", []string{operator}},
	{"events/{name}/status", "read", []string{operator}},
	{"events/{name}/test", "update", []string{operator}},
	{"grace/{name}", "update", []string{operator, rotator}},
	{"history/{name}", "list", []string{operator, rotator}},
	{"history/{name}", "read", []string{operator, rotator}},
	{"import", "update", []string{operator}},
	{"inventory", "list", []string{operator, report}},
	{"key-format", "read", []string{gateway, operator}},
	{"keys/{name}", "list", []string{operator}},
	{"lookup", "update", []string{operator}},
	{"metrics", "read", []string{scraper, operator}},
	{"problems", "list", []string{operator, report}},
	{"promote/{name}", "update", []string{operator, rotator}},
	{"report", "update", []string{operator}},
	{"report/deferred", "list", []string{operator}},
	{"report/release", "update", []string{operator}},
	{"restore", "list", []string{operator}},
	{"restore/{role_id}", "update", []string{operator}},
	{"revoke/{name}", "update", []string{operator}},
	{"roles", "list", []string{operator}},
	{"roles/{name}", "create", []string{operator}},
	{"roles/{name}", "delete", []string{operator}},
	{"roles/{name}", "patch", []string{operator}},
	{"roles/{name}", "read", []string{operator}},
	{"roles/{name}", "update", []string{operator}},
	{"rollback/{name}", "update", []string{operator, rotator}},
	{"rotate/{name}", "update", []string{operator, rotator}},
	{"status/{name}", "read", []string{operator, rotator, report}},
	{"tidy", "update", []string{operator}},
	{"usage", "update", []string{edges, gateway}},
	{"usage/{name}", "update", []string{consumer, oneRole}},
	{"verify", "update", []string{edges, gateway}},
	{"verify/{name}", "update", []string{oneRole}},
	{"versions/{name}", "list", []string{operator, rotator}},
}

// startingPolicies tries every operation of every path with every policy.
func startingPolicies(t *testing.T, e *env) {
	if got, want := e.engineOperations(t), engineAccess; !slices.EqualFunc(got, want, func(op string, a access) bool { return op == a.path+" "+a.operation }) {
		table := make([]string, len(want))
		for i, a := range want {
			table[i] = a.path + " " + a.operation
		}
		missing := slices.DeleteFunc(slices.Clone(got), func(op string) bool { return slices.Contains(table, op) })
		extra := slices.DeleteFunc(table, func(op string) bool { return slices.Contains(got, op) })
		t.Errorf("the table is not that of the engine, or not in order: it lacks %q, and only it has %q", missing, extra)
	}
	files, err := filepath.Glob("../bootstrap/policies/*.hcl")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".hcl"))
	}
	if want := []string{consumer, oneRole, edges, report, gateway, scraper, operator, reader, rotator}; !slices.Equal(names, want) {
		t.Fatalf("policies %q, want %q", names, want)
	}
	// No request of this test can change anything: the roles are protected, and bodies have a field that no path takes.
	for _, role := range []string{"orders", "other"} {
		e.write("roles/"+role, data{"deletion_protection": true})
	}
	for _, name := range names {
		token := e.tokenFor(t, e.policy(t, name)).Token()
		for _, a := range engineAccess {
			for _, role := range []string{"orders", "other"} {
				if role == "other" && !strings.Contains(a.path, "{name}") {
					continue
				}
				want := slices.Contains(a.policies, name) && (role == "orders" || name == operator || name == report || name == scraper)
				e.tries(t, name, token, a, role, want)
			}
		}
	}
}

// policy is a policy of bootstrap/policies for the mount of this test.
func (e *env) policy(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "bootstrap", "policies", name+".hcl"))
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`(?m)^path "([^/"]*)/`).FindAllStringSubmatch(string(raw), -1)
	if len(paths) == 0 || slices.ContainsFunc(paths, func(p []string) bool { return p[1] != "apikeys" }) {
		t.Errorf("policy %s is for paths outside the mount: %q", name, paths)
	}
	return strings.ReplaceAll(string(raw), `path "apikeys/`, `path "`+e.path(""))
}

// tries makes one request and compares whether the policy let it through.
func (e *env) tries(t *testing.T, policy, token string, a access, role string, want bool) {
	t.Helper()
	if a.operation == "create" {
		role += "-new"
	}
	path := strings.NewReplacer("{name}", role, "{which}", "previous", "{job}", "absent", "{role_id}", "00000000-0000-4000-8000-000000000000").Replace(a.path)
	method := map[string]string{"read": "GET", "list": "LIST", "create": "POST", "update": "POST", "patch": "PATCH", "delete": "DELETE"}[a.operation]
	body := ""
	if method == "POST" || method == "PATCH" {
		body = `{"no_such_field": 1}`
	}
	status, answer := e.rawAs(t, token, method, path, body)
	if got := status != 403; got != want || status >= 500 {
		if status < 300 {
			answer = "" // it may hold a key
		}
		t.Errorf("%s: %s of %s: status %d, want it allowed: %v: %s", policy, a.operation, path, status, want, answer)
	}
	if status < 300 && body != "" {
		t.Errorf("%s: %s of %s was done: %d", policy, a.operation, path, status)
	}
}

// engineOperations are the engine's paths with their operations, as the server's own document has them, in order.
func (e *env) engineOperations(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	for path, item := range e.openAPI(t).Paths {
		own, ok := strings.CutPrefix(path, "/"+e.path(""))
		if !ok {
			continue
		}
		own = strings.TrimSuffix(own, "/")
		operations := map[string]string{"get": "read", "post": "update", "patch": "patch", "delete": "delete"}
		for member, raw := range item {
			lists, reads := false, true
			if member == "get" {
				lists, reads = getsOf(t, raw)
			}
			if lists {
				found[own+" list"] = true
			}
			switch {
			case !reads:
			case member == "x-vault-createSupported":
				found[own+" create"] = true
			case operations[member] != "":
				found[own+" "+operations[member]] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b string) int { return strings.Compare(order(a), order(b)) })
}

// order sorts by path, then by operation.
func order(pathAndOperation string) string { return strings.Replace(pathAndOperation, " ", "\x00", 1) }

// getsOf says whether a get of the document is there for lists, for reads, or for both: its parameter tells.
func getsOf(t *testing.T, get json.RawMessage) (lists, reads bool) {
	t.Helper()
	var op struct {
		Parameters []struct {
			Name     string `json:"name"`
			Required bool   `json:"required"`
		} `json:"parameters"`
	}
	if err := json.Unmarshal(get, &op); err != nil {
		t.Fatal(err)
	}
	for _, p := range op.Parameters {
		if p.Name == "list" {
			return true, !p.Required
		}
	}
	return false, true
}

// dynamicReader is what the reader's policy says about leases.
func dynamicReader(t *testing.T, e *env) {
	e.write("roles/orders", data{"type": "dynamic", "ttl": "1h"})
	app := e.tokenFor(t, e.policy(t, reader))
	s, err := app.Logical().Read(e.path("creds/orders"))
	if err != nil {
		t.Fatal(err)
	}
	k := e.keyOf(s)
	if _, err := app.Sys().Renew(s.LeaseID, 60); err != nil {
		t.Errorf("renewing: %v", err)
	}
	e.refused(app.Sys().Revoke(s.LeaseID), 403)
	e.judged(k, "VALID current")
	if err := app.Auth().Token().RevokeSelf(""); err != nil {
		t.Errorf("revoking itself: %v", err)
	}
	e.becomes(k, "REVOKED revoked")
}
