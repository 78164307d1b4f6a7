// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/vault/api"
)

// endpoint plays the provider's resource vault_generic_endpoint with ignore_absent_fields.
type endpoint struct {
	e      *env
	client *api.Client
	path   string
	state  string
}

// apply writes all of data_json, then reads.
func (r *endpoint) apply(config data) {
	r.e.t.Helper()
	if _, err := r.client.Logical().Write(r.path, config); err != nil {
		r.e.t.Fatalf("applying %s %v: %v", r.path, config, err)
	}
	r.refresh(config)
}

// refresh makes the state out of data_json, with what the server answers in place of what was written.
func (r *endpoint) refresh(config data) {
	r.e.t.Helper()
	s, err := r.client.Logical().Read(r.path)
	if err != nil {
		r.e.t.Fatalf("reading %s: %v", r.path, err)
	}
	if s == nil {
		r.state = ""
		return
	}
	relevant := maps.Clone(config)
	for name := range config {
		if v, ok := s.Data[name]; ok {
			relevant[name] = v
		}
	}
	r.state = inJSON(r.e.t, relevant)
}

// planIsEmpty reports whether a plan, which compares the texts of both, finds nothing to do.
func (r *endpoint) planIsEmpty(config data) bool {
	r.e.t.Helper()
	var normalized data
	if err := json.Unmarshal([]byte(inJSON(r.e.t, config)), &normalized); err != nil {
		r.e.t.Fatal(err)
	}
	return r.state == inJSON(r.e.t, normalized)
}

// declared is a field as a configuration has it, with the fields that it needs beside it.
type declared struct {
	field string
	value any
	with  data
}

// declaredRole is every field of a role that can be changed, declaredConfig every one of the mount's config, and
// declaredEndpoint every one of an endpoint but for its secrets.
var (
	declaredRole = []declared{
		{field: "description", value: "a & b <c>\nsecond line "},
		{field: "owner", value: "team-orders"},
		{field: "metadata", value: data{"env": "prod", "cost": "1"}},
		{field: "scopes", value: []string{"b:write", "a:*", "a:read"}},
		{field: "prefix", value: "acme_live"},
		{field: "ttl", value: 365 * 24 * 3600},
		{field: "ttl", value: 600, with: data{"type": "dynamic"}},
		{field: "max_ttl", value: 7200, with: data{"type": "dynamic"}},
		{field: "rotation_period", value: 36000},
		{field: "rotation_period", value: 0},
		{field: "rotation_schedule", value: "CRON_TZ=Europe/Berlin 30  2 * * 1"},
		{field: "rotation_window", value: 7200, with: data{"rotation_schedule": "0 3 * * *"}},
		{field: "rotation_jitter", value: 3600},
		{field: "rotation_paused", value: true},
		{field: "grace_period", value: 7200},
		{field: "grace_period", value: 0},
		{field: "max_grace_period", value: 172800},
		{field: "valid_until", value: "2099-01-31T08:00:00.50+01:00"},
		{field: "refresh_interval", value: 60},
		{field: "reveal", value: "once"},
		{field: "allowed_cidrs", value: []string{"10.1.2.3/8", "2001:DB8::1"}},
		{field: "rate_limit", value: 0.5},
		{field: "rate_limit", value: 1000000},
		{field: "on_leak", value: "alert"},
		{field: "leak_grace_period", value: 7200},
		{field: "disabled", value: true},
		{field: "deletion_protection", value: true},
	}
	declaredConfig = []declared{
		{field: "rotation_paused", value: true},
		{field: "max_rotations_per_second", value: 7},
		{field: "stage_ahead", value: 900},
		{field: "delete_recovery", value: 3600},
		{field: "max_leak_actions", value: 0},
		{field: "trust_reported_usage", value: true},
		{field: "trusted_reporters", value: []string{"entity-2", "entity-1"}},
		{field: "allow_weak_imports", value: true},
		{field: "cache_size", value: 500},
		{field: "count_reads", value: true},
		{field: "edge_max_staleness", value: 600},
		{field: "feed_wait", value: 5},
		{field: "egress_allow", value: []string{"hooks.example.com", "10.20.0.0/16", "!10.20.0.5"}},
		{field: "egress_proxy", value: "http://proxy.example.com:3128"},
		{field: "outbound_paused", value: true},
		{field: "metrics_role_labels", value: true},
		{field: "notify_before", value: []int{86400, 1209600}},
	}
	hooks            = "https://hooks.example.com/apikeys"
	declaredEndpoint = []declared{
		{field: "url", value: hooks + "/2", with: data{"url": hooks}},
		{field: "types", value: []string{"rotation.failing", "key.*"}, with: data{"url": hooks}},
		{field: "name_prefix", value: "shop-", with: data{"url": hooks}},
		{field: "format", value: "cloudevents", with: data{"url": hooks}},
		{field: "template", value: "{\"text\": \"${text} & <more>\"}", with: data{"url": hooks, "format": "template", "template": `{"a":1}`}},
		{field: "include", value: []string{"text", "actor"}, with: data{"url": hooks}},
		{field: "digest", value: 300, with: data{"url": hooks, "format": "template", "template": `{"a":1}`}},
		{field: "pace", value: 2.5, with: data{"url": hooks}},
		{field: "ca", value: selfSigned(), with: data{"url": hooks}},
		{field: "disabled", value: true, with: data{"url": hooks}},
	}
)

// terraformWrites declares each field and takes it away again: every plan is empty after its apply, the same apply
// again changes nothing, and what is no longer named is as if it had never been.
func terraformWrites(t *testing.T, e *env) {
	e.write("roles/never", nil)
	fields := slices.DeleteFunc(slices.Collect(maps.Keys(e.read("roles/never"))), func(name string) bool {
		return slices.Contains([]string{"name", "role_id", "created", "type"}, name)
	})
	if got := fieldsOf(declaredRole); !sameSet(got, fields...) {
		t.Errorf("fields of a role %q, tried are %q", fields, got)
	}
	fields = slices.Collect(maps.Keys(e.read("config")))
	if got := fieldsOf(declaredConfig); !sameSet(got, fields...) {
		t.Errorf("fields of the config %q, tried are %q", fields, got)
	}
	e.write("events/never", data{"url": hooks})
	fields = slices.DeleteFunc(slices.Collect(maps.Keys(e.read("events/never"))), func(name string) bool {
		return slices.Contains([]string{"name", "id", "created", "secret_names"}, name)
	})
	if got := fieldsOf(declaredEndpoint); !sameSet(got, append(fields, "name_prefix")...) {
		t.Errorf("fields of an endpoint %q, tried are %q", fields, got)
	}
	e.remove("events/never")
	for _, d := range declaredEndpoint {
		r := &endpoint{e: e, client: e.client, path: e.path("events/declared")}
		if d.field == "name_prefix" { // it is read back only where there is one
			r.apply(data{"url": hooks, "name_prefix": d.value, "replace": true})
			e.fieldsAre(e.read("events/declared"), map[string]string{"name_prefix": inJSON(t, d.value)})
			if r.apply(data{"url": hooks, "replace": true}); e.read("events/declared")["name_prefix"] != nil {
				t.Error("name_prefix was taken away, and is there")
			}
		} else {
			e.declares(r, "events/declared", d)
		}
		e.remove("events/declared")
		if r.refresh(nil); r.state != "" {
			t.Errorf("%s: the state still has the endpoint that was destroyed: %s", d.field, r.state)
		}
	}
	for _, d := range declaredRole {
		r := &endpoint{e: e, client: e.client, path: e.path("roles/declared")}
		e.declares(r, "roles/declared", d)
		e.write("roles/declared", data{"deletion_protection": false})
		e.remove("roles/declared")
		if r.refresh(nil); r.state != "" {
			t.Errorf("%s: the state still has the role that was destroyed: %s", d.field, r.state)
		}
	}
	for _, d := range declaredConfig {
		e.declares(&endpoint{e: e, client: e.client, path: e.path("config")}, "config", d)
	}
}

func (e *env) declares(r *endpoint, path string, d declared) {
	e.t.Helper()
	without := data{"replace": true}
	maps.Copy(without, d.with)
	with := maps.Clone(without)
	with[d.field] = d.value

	r.apply(without)
	before := e.read(path)
	if !r.planIsEmpty(without) {
		e.t.Errorf("%s: without %s the plan is not empty: %s", path, d.field, r.state)
	}
	if r.refresh(with); r.planIsEmpty(with) {
		// The value of a test must not be the default.
		e.t.Fatalf("%s: %s %v: nothing to do", path, d.field, d.value)
	}
	var first data
	for round := range 2 {
		r.apply(with)
		if !r.planIsEmpty(with) {
			e.t.Errorf("%s: after apply %d of %v the state is %s", path, round+1, with, r.state)
		}
		if now := e.read(path); round == 0 {
			first = now
		} else if !reflect.DeepEqual(now, first) {
			e.t.Errorf("%s: the same apply of %v changed\n%v\nto\n%v", path, with, first, now)
		}
	}
	for range 2 {
		r.apply(without)
		if !r.planIsEmpty(without) {
			e.t.Errorf("%s: after %s was taken away the state is %s", path, d.field, r.state)
		}
		if now := e.read(path); !reflect.DeepEqual(now, before) {
			e.t.Errorf("%s: after %s was taken away it is\n%v\nwant\n%v", path, d.field, now, before)
		}
	}
}

// selfSigned is a certificate in PEM.
func selfSigned() string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func fieldsOf(ds []declared) []string {
	var names []string
	for _, d := range ds {
		names = append(names, d.field)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// terraformLife is what the module of bootstrap/terraform sends for one role, with no more than the policy of the example.
func terraformLife(t *testing.T, e *env) {
	mount := e.mount + "-example"
	raw, err := os.ReadFile(filepath.Join("..", "bootstrap", "terraform", "example", "policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	policies := strings.ReplaceAll(mount, "/", "-") + "-"
	rules := strings.NewReplacer("sys/policies/acl/apikeys-teams-", "sys/policies/acl/"+policies, "apikeys-teams", mount).Replace(string(raw))
	parent := e.tokenFor(t, rules)
	// The provider works with a child of its token, another one in each run.
	run := func() *api.Client {
		t.Helper()
		s, err := parent.Auth().Token().Create(&api.TokenCreateRequest{DisplayName: "terraform", TTL: "20m"})
		if err != nil {
			t.Fatal(err)
		}
		return e.clientFor(parent.Address(), s.Auth.ClientToken)
	}
	c := run()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(c.Sys().Mount(mount, &api.MountInput{Type: pluginName}))
	_, err = c.Logical().Write("sys/mounts/"+mount+"/tune", data{"description": "the engine of the example"})
	must(err)
	_, err = c.Sys().GetMount(mount)
	must(err)
	made := &env{suite: e.suite, t: t, mount: mount, client: e.client}
	role := &endpoint{e: e, client: c, path: made.path("roles/orders.api")}
	eventually(t, "the mount of the example", func() error {
		_, err := c.Logical().Read(role.path)
		return err
	})
	for kind, raw := range modulePolicies(t) {
		name := policies + "orders.api-" + kind
		must(c.Sys().PutPolicy(name, strings.NewReplacer("${mount}", mount, "${role}", "orders.api").Replace(raw)))
		_, err = c.Sys().GetPolicy(name)
		must(err)
		defer func() { must(c.Sys().DeletePolicy(name)) }()
	}
	limits := &endpoint{e: e, client: c, path: made.path("config")}
	ofMount := data{"delete_recovery": 7 * 24 * 3600, "replace": true}
	limits.apply(ofMount)
	if !limits.planIsEmpty(ofMount) {
		t.Errorf("the second plan of the config is not empty: %s", limits.state)
	}
	config := data{
		"owner": "team-orders@example.com", "description": "key of the orders service for the payment API",
		"scopes": []string{"payments:read", "payments:refund"}, "prefix": "acme_live", "rotation_schedule": "CRON_TZ=Europe/Berlin 30 9 * * 2",
		"grace_period": 24 * 3600, "deletion_protection": true, "replace": true,
	}
	role.apply(config)
	if !role.planIsEmpty(config) {
		t.Errorf("the second plan is not empty: %s", role.state)
	}
	k := made.creds("orders.api")

	rotation := func(c *api.Client) data {
		t.Helper()
		s, err := c.Logical().Write(made.path("rotate/orders.api"), data{"request_id": "terraform/2030-01-31", "reason": "terraform: 2030-01-31"})
		if err != nil || s == nil {
			t.Fatalf("rotate: %v, %v", s, err)
		}
		return s.Data
	}
	first, again := rotation(c), rotation(c)
	if number(t, first, "version") != 2 || number(t, again, "version") != 2 || text(again, "key_id") != text(first, "key_id") ||
		text(again, "previous_valid_until") != text(first, "previous_valid_until") {
		t.Errorf("the rotation answered %v, again %v", first, again)
	}
	if got := made.creds("orders.api"); got.version != 2 || got.id != text(first, "key_id") {
		t.Errorf("after the rotation version %d is read", got.version)
	}
	role.refresh(config)
	if !role.planIsEmpty(config) {
		t.Errorf("the plan after a rotation is not empty: %s", role.state)
	}
	// Neither has an entity, so the next run is another caller.
	if got := number(t, rotation(run()), "version"); got != 3 {
		t.Errorf("in a run with another token the rotation answers version %d", got)
	}
	// The ephemeral resource writes where others read.
	s, err := e.client.Logical().Write(made.path("creds/orders.api"), data{"repeatable": true})
	if err != nil || number(t, s.Data, "version") != 3 {
		t.Errorf("creds by a write: %v", err)
	}

	_, err = c.Logical().Delete(role.path)
	e.refused(err, 400, `deletion_protection: true: role "orders.api" is protected: set it to false first`)
	made.judged(k, "VALID previous")
	config["deletion_protection"] = false
	role.apply(config)
	_, err = c.Logical().Delete(role.path)
	must(err)
	if role.refresh(config); role.state != "" {
		t.Errorf("the state still has the role that was destroyed: %s", role.state)
	}
	made.judged(k, "NOT_FOUND")
	e.refused(c.Sys().Unmount(mount), 403)
	must(e.client.Sys().Unmount(mount))
}

// modulePolicies are the templates of the module by kind.
func modulePolicies(t *testing.T) map[string]string {
	t.Helper()
	const suffix = ".hcl.tftpl"
	files, err := filepath.Glob(filepath.Join("..", "bootstrap", "terraform", "modules", "apikeys", "policies", "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), suffix)] = string(raw)
	}
	if got := slices.Sorted(maps.Keys(out)); !slices.Equal(got, []string{"gateway", "reader", "rotator"}) {
		t.Errorf("the module has the policies %q", got)
	}
	return out
}

// TestTerraformPolicies holds the module's policies against those of bootstrap/policies.
func TestTerraformPolicies(t *testing.T) {
	t.Parallel()
	for kind, made := range modulePolicies(t) {
		raw, err := os.ReadFile(filepath.Join("..", "bootstrap", "policies", kind+".hcl"))
		if err != nil {
			t.Fatal(err)
		}
		want := string(raw)
		if kind == "gateway" {
			want = strings.NewReplacer(`"apikeys/verify"`, `"apikeys/verify/orders"`, `"apikeys/usage"`, `"apikeys/usage/orders"`).Replace(want)
		}
		made = strings.NewReplacer("${mount}", "apikeys", "${role}", "orders").Replace(made)
		if got, want := rulesOf(made), rulesOf(want); !slices.Equal(got, want) {
			t.Errorf("the module's %s has %q, bootstrap/policies %q", kind, got, want)
		}
	}
}

// rulesOf are the lines of a policy without comments and empty ones.
func rulesOf(policy string) []string {
	var out []string
	for line := range strings.Lines(policy) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// drifting are values that the engine takes, and answers in another form.
var drifting = []declared{
	{field: "rotation_period", value: "10h"},
	{field: "rotation_period", value: "36000"},
	{field: "rate_limit", value: "5"},
	{field: "disabled", value: "true"},
	{field: "disabled", value: 1},
	{field: "scopes", value: "a:read,b:read"},
	{field: "scopes", value: []any{1}},
	{field: "allowed_cidrs", value: "10.0.0.0/8"},
	{field: "metadata", value: "env=prod"},
	{field: "owner", value: 5},
}

// moduleFields holds the module's table of fields and their forms against the engine: each field of a declared role or
// config is in it, the values that this package declares are in its form, and those that would make a plan that is never
// empty are not.
func moduleFields(t *testing.T, e *env) {
	locals := moduleLocals(t)
	form := locals["form"]
	inForm := func(fields string, d declared) bool {
		t.Helper()
		return regexp.MustCompile(form[locals[fields][d.field]]).MatchString(inJSON(t, d.value))
	}
	for fields, declared := range map[string][]declared{"role_fields": declaredRole, "config_fields": declaredConfig, "endpoint_fields": declaredEndpoint} {
		want := fieldsOf(declared)
		if fields == "role_fields" {
			want = append(want, "type")
		}
		if got := slices.Collect(maps.Keys(locals[fields])); !sameSet(got, want...) {
			t.Errorf("%s of the module are %q, want %q", fields, got, want)
		}
		for _, d := range declared {
			if !inForm(fields, d) {
				t.Errorf("the module refuses %s = %v", d.field, d.value)
			}
		}
	}
	for form := range form {
		if locals["form_says"][form] == "" {
			t.Errorf("the module has no words for the form %s", form)
		}
	}
	for _, d := range drifting {
		r := &endpoint{e: e, client: e.client, path: e.path("roles/drifting")}
		config := data{d.field: d.value, "replace": true}
		r.apply(config)
		if r.planIsEmpty(config) {
			t.Errorf("%s = %v makes no drift, so it is no example", d.field, d.value)
		}
		if inForm("role_fields", d) {
			t.Errorf("the module takes %s = %v, which is read back as %s", d.field, d.value, r.state)
		}
	}
}

// moduleLocals are the maps of texts among the module's local values.
func moduleLocals(t *testing.T) map[string]map[string]string {
	t.Helper()
	file, diags := hclparse.NewParser().ParseHCLFile(filepath.Join("..", "bootstrap", "terraform", "modules", "apikeys", "fields.tf"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, diags := file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "locals"}}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	out := map[string]map[string]string{}
	for _, b := range content.Blocks {
		attributes, diags := b.Body.JustAttributes()
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for name, a := range attributes {
			v, diags := a.Expr.Value(nil)
			if diags.HasErrors() {
				continue // it needs other values, and is no table
			}
			out[name] = map[string]string{}
			for k, v := range v.AsValueMap() {
				out[name][k] = v.AsString()
			}
		}
	}
	return out
}
