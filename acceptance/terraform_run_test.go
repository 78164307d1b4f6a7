// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// atHand reports whether this machine has what f asks for; no server matters to it.
func atHand(f feature) bool {
	return programs.terraform != "" && (f == runsTerraform || f == runsGuides && programs.real != "") || programs.prometheus != "" && f == runsPrometheus
}

// checkout is the name of the repository's directory, beside which a reader of the guide works.
const checkout = "vault-plugin-secrets-apikeys"

// terraform is a directory with the files of bootstrap/terraform in checkout, and an environment in which
// `terraform` is the program given and finds the provider given, and `vault` is the real server's command line.
type terraform struct {
	*env
	dir     string // of the configuration
	environ []string
}

// terraform makes the directory, and an empty one for a configuration beside the checkout.
func (e *env) terraform() *terraform {
	e.t.Helper()
	root := e.t.TempDir()
	tf := &terraform{env: e, dir: filepath.Join(root, "keys")}
	bin := filepath.Join(root, "bin")
	mirror := filepath.Join(root, "mirror")
	for _, dir := range []string{tf.dir, bin} {
		tf.must(os.Mkdir(dir, 0o700))
	}
	for name, program := range map[string]string{"terraform": programs.terraform, "vault": programs.real} {
		if program != "" {
			tf.must(os.Symlink(program, filepath.Join(bin, name)))
		}
	}
	// A mirror, and not the override for developers: with that, init installs nothing, and no version is looked at.
	for _, registry := range []string{"registry.terraform.io", "registry.opentofu.org"} {
		version := providerVersion(programs.provider)
		dir := filepath.Join(mirror, registry, "hashicorp", "vault", version, runtime.GOOS+"_"+runtime.GOARCH)
		tf.must(os.MkdirAll(dir, 0o700))
		tf.must(os.Symlink(programs.provider, filepath.Join(dir, "terraform-provider-vault_v"+version)))
	}
	rc := filepath.Join(root, "terraformrc")
	tf.must(os.WriteFile(rc, []byte("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = \""+mirror+"\"\n  }\n}\n"), 0o600))
	tf.must(copySources(filepath.Join(root, checkout, "bootstrap", "terraform"), filepath.Join("..", "bootstrap", "terraform")))
	tf.environ = append(os.Environ(), "HOME="+root, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "TF_CLI_CONFIG_FILE="+rc, "TF_INPUT=0",
		"TF_CLI_ARGS=-no-color", "TF_CLI_ARGS_apply=-auto-approve", "TF_CLI_ARGS_destroy=-auto-approve",
		"VAULT_ADDR="+e.client.Address(), "VAULT_TOKEN="+e.client.Token())
	return tf
}

// must fails the test if there is an error.
func (tf *terraform) must(err error) {
	tf.t.Helper()
	if err != nil {
		tf.t.Fatal(err)
	}
}

// providerVersion is what the file's name says, or else the oldest that will do: the program itself does not tell.
func providerVersion(path string) string {
	if m := regexp.MustCompile(`_v([0-9]+\.[0-9]+\.[0-9]+)`).FindStringSubmatch(filepath.Base(path)); m != nil {
		return m[1]
	}
	return "5.9.0"
}

// copySources leaves out what running Terraform leaves in a directory.
func copySources(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".terraform" {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".tf", ".hcl", ".tftpl", ".md"}, filepath.Ext(path)) || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		out := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
			return err
		}
		return os.WriteFile(out, raw, 0o600)
	})
}

// run runs terraform, and returns what it says, with white space and breaks of lines as one space.
func (tf *terraform) run(args ...string) (said string, status int) {
	tf.t.Helper()
	cmd := exec.Command(programs.terraform, args...)
	cmd.Dir, cmd.Env = tf.dir, tf.environ
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		tf.t.Fatal(err)
	}
	tf.keepsSecrets(string(out))
	return flat(string(out)), cmd.ProcessState.ExitCode()
}

// flat undoes the breaking of lines.
func flat(s string) string { return strings.Join(strings.Fields(s), " ") }

func (tf *terraform) does(args []string, words ...string) {
	tf.t.Helper()
	said, status := tf.run(args...)
	if status != 0 {
		tf.t.Fatalf("terraform %q: status %d\n%s", args, status, tail(said))
	}
	tf.says(args, said, words)
}

func (tf *terraform) fails(args []string, words ...string) {
	tf.t.Helper()
	said, status := tf.run(args...)
	if status != 1 {
		tf.t.Errorf("terraform %q: status %d, want a refusal\n%s", args, status, tail(said))
	}
	tf.says(args, said, words)
}

func (tf *terraform) says(args []string, said string, words []string) {
	tf.t.Helper()
	for _, w := range words {
		if !strings.Contains(said, flat(w)) {
			tf.t.Errorf("terraform %q does not say %q:\n%s", args, w, tail(said))
		}
	}
}

func (tf *terraform) applies(added, changed, destroyed int) {
	tf.t.Helper()
	tf.does([]string{"apply"}, fmt.Sprintf("Apply complete! Resources: %d added, %d changed, %d destroyed.", added, changed, destroyed))
}

func (tf *terraform) planIsEmpty(want bool) {
	tf.t.Helper()
	said, status := tf.run("plan", "-detailed-exitcode")
	if got := status == 0; status == 1 || got != want {
		tf.t.Errorf("the plan is empty: %v, want %v; status %d\n%s", got, want, status, tail(said))
	}
}

// keepsSecrets asserts that no key is in what was said, nor in any file that Terraform has made: states, their backups,
// saved plans, which are archives, and whatever comes to be there.
func (tf *terraform) keepsSecrets(said string) {
	tf.t.Helper()
	tf.holdsNoKey("the output", said)
	root := filepath.Dir(tf.dir)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tf.holdsNoKey(path, string(raw))
		if z, err := zip.OpenReader(path); err == nil {
			defer z.Close()
			for _, f := range z.File {
				r, err := f.Open()
				if err != nil {
					return err
				}
				raw, err := io.ReadAll(r)
				if err != nil {
					return err
				}
				tf.holdsNoKey(path+": "+f.Name, string(raw))
			}
		}
		return nil
	})
	tf.must(err)
}

func (tf *terraform) holdsNoKey(what, text string) {
	tf.t.Helper()
	if keys, _ := keyformat.Find(text, 1); len(keys) > 0 {
		tf.t.Errorf("%s has the key with the id %s", what, keys[0].ID())
	}
	tf.mu.Lock()
	defer tf.mu.Unlock()
	for k := range tf.keys {
		if strings.Contains(text, k) {
			tf.t.Errorf("%s has a key that was handed out", what)
		}
	}
}

// root is a configuration of the module alone, which takes everything from variables.
const root = `
variable "mount" { type = string }
variable "config" { type = any }
variable "roles" { type = any }
variable "rotations" { type = map(string) }

module "apikeys" {
  source    = "../` + checkout + `/bootstrap/terraform/modules/apikeys"
  mount     = var.mount
  config    = var.config
  roles     = var.roles
  rotations = var.rotations
  policies  = ["reader", "rotator", "gateway"]
}

output "policies" { value = module.apikeys.policies }
output "rotations" { value = module.apikeys.rotations }
`

// with writes the variables of root.
func (tf *terraform) with(mount string, config, roles, rotations data) {
	tf.t.Helper()
	tf.puts("main.tf", root)
	tf.puts("terraform.tfvars.json", inJSON(tf.t, data{"mount": mount, "config": config, "roles": roles, "rotations": rotations}))
}

func (tf *terraform) puts(name, content string) {
	tf.t.Helper()
	tf.must(os.WriteFile(filepath.Join(tf.dir, name), []byte(content), 0o600))
}

func (tf *terraform) output(name string) any {
	tf.t.Helper()
	cmd := exec.Command(programs.terraform, "output", "-json", name)
	cmd.Dir, cmd.Env = tf.dir, tf.environ
	raw, err := cmd.Output()
	tf.must(err)
	var v any
	tf.must(json.Unmarshal(raw, &v))
	return v
}

// mounts are the paths that begin with prefix at which the engine is mounted, with the accessors, which no move changes.
func (tf *terraform) mounts(prefix string) map[string]string {
	tf.t.Helper()
	all, err := tf.client.Sys().ListMounts()
	tf.must(err)
	out := map[string]string{}
	for path, m := range all {
		if m.Type == pluginName && strings.HasPrefix(path, prefix) {
			out[path] = m.Accessor
		}
	}
	return out
}

// terraformModule is the life of a mount in the real Terraform.
func terraformModule(t *testing.T, e *env) {
	tf := e.terraform()
	mount := e.mount + "-made"
	made := &env{suite: e.suite, t: t, mount: mount, client: e.client}
	role := func(changes data) data {
		r := data{"owner": "team-orders", "scopes": []string{"a:read", "b:*"}, "grace_period": 7200, "description": nil}
		maps.Copy(r, changes)
		return r
	}
	config := data{"stage_ahead": 900, "cache_size": 500}
	tf.with(mount, config, data{"orders": role(nil)}, nil)
	tf.does([]string{"init"})
	tf.applies(6, 0, 0)
	tf.planIsEmpty(true)
	tf.planIsEmpty(true)
	e.fieldsAre(made.read("roles/orders"), map[string]string{"owner": `"team-orders"`, "scopes": `["a:read","b:*"]`, "grace_period": "7200", "deletion_protection": "true"})
	e.fieldsAre(made.read("config"), map[string]string{"stage_ahead": "900", "cache_size": "500"})
	names := tf.output("policies")
	if want := any(map[string]any{
		"reader": map[string]any{"orders": policyOf(mount, "reader")}, "rotator": map[string]any{"orders": policyOf(mount, "rotator")},
		"gateway": map[string]any{"orders": policyOf(mount, "gateway")},
	}); !reflect.DeepEqual(names, want) {
		t.Errorf("policies %v", names)
	}
	for kind, like := range modulePolicies(t) {
		want := strings.NewReplacer("${mount}", mount, "${role}", "orders").Replace(like)
		if have, err := e.client.Sys().GetPolicy(policyOf(mount, kind)); err != nil || !slices.Equal(rulesOf(have), rulesOf(want)) {
			t.Errorf("the policy of the %s is %v, %q", kind, err, have)
		}
	}

	k := made.creds("orders")
	made.judged(k, "VALID current")
	tf.does([]string{"plan", "-out=saved"})
	tf.does([]string{"show", "-json", "saved"})

	// What was changed by hand shows and is put right, where it is declared.
	made.write("roles/orders", data{"owner": "somebody"})
	made.write("config", data{"cache_size": 600})
	tf.planIsEmpty(false)
	tf.applies(0, 2, 0)
	tf.planIsEmpty(true)
	e.fieldsAre(made.read("roles/orders"), map[string]string{"owner": `"team-orders"`})
	e.fieldsAre(made.read("config"), map[string]string{"cache_size": "500"})
	longer := "50h"
	tf.must(e.client.Sys().TuneMountAllowNil(mount, api.TuneMountConfigInput{MaxLeaseTTL: &longer}))
	tf.planIsEmpty(true)

	// A field that is taken away, or null, is as if it had never been.
	tf.with(mount, data{"stage_ahead": nil}, data{"orders": role(data{"grace_period": nil})}, nil)
	tf.applies(0, 2, 0)
	tf.planIsEmpty(true)
	e.fieldsAre(made.read("roles/orders"), map[string]string{"grace_period": "86400", "owner": `"team-orders"`})
	e.fieldsAre(made.read("config"), map[string]string{"stage_ahead": "600", "cache_size": "20000"})

	// The plan refuses what the engine would answer in another form, or does not know.
	tf.with(mount, nil, data{"orders": role(data{"grace_period": "2h", "allowed_cidr": []string{"10.0.0.0/8"}})}, nil)
	tf.fails([]string{"plan"}, "Role orders: allowed_cidr is no field of a role; grace_period: a number without quotes")
	tf.fails([]string{"apply"}, "Role orders")
	tf.with(mount, data{"feed_wait": "5s"}, data{"orders": role(nil)}, nil)
	tf.fails([]string{"plan"}, "config: feed_wait: a number without quotes")
	tf.with(mount, nil, data{"orders": role(nil)}, data{"order": "one"})
	tf.fails([]string{"plan"}, "rotations names the role order, which roles does not have")

	// Another mount is refused, whatever the command, and nothing moves.
	before := tf.mounts(mount)
	for _, other := range []string{mount + "-elsewhere", mount + "/below"} {
		tf.with(other, nil, data{"orders": role(nil)}, nil)
		for _, args := range [][]string{{"plan"}, {"apply"}, {"apply", "-refresh=false"}} {
			tf.fails(args, `The engine is mounted at "`+mount+`" and the variable mount is "`+other+`"`)
		}
	}
	if after := tf.mounts(mount); !reflect.DeepEqual(after, before) || len(after) == 0 {
		t.Errorf("the mounts were %v, and are %v", before, after)
	}
	made.judged(k, "VALID current")

	// One rotation for each name, none for a plan.
	tf.with(mount, nil, data{"orders": role(data{"grace_period": nil})}, nil)
	tf.applies(0, 0, 0)
	versionIs := func(want int64) {
		t.Helper()
		if got := made.creds("orders"); got.version != want {
			t.Errorf("version %d is read, want %d", got.version, want)
		}
	}
	for i, name := range []string{"2030-01-31", "OPS-4711"} {
		tf.with(mount, nil, data{"orders": role(data{"grace_period": nil})}, data{"orders": name})
		tf.does([]string{"plan", "-out=saved"})
		tf.does([]string{"show", "-json", "saved"})
		versionIs(int64(i + 1))
		tf.does([]string{"apply"})
		versionIs(int64(i + 2))
		now := made.creds("orders")
		answer, _ := tf.output("rotations").(map[string]any)["orders"].(map[string]any)
		if !sameSet(slices.Collect(maps.Keys(answer)), "version", "key_id", "previous_valid_until") ||
			answer["version"] != fmt.Sprint(now.version) || answer["key_id"] != now.id {
			t.Errorf("the rotation answered %v, and version %d has %s", answer, now.version, now.id)
		}
		tf.applies(0, 0, 0)
		tf.planIsEmpty(true)
		versionIs(int64(i + 2))
	}
	// The name is the request's id: for one caller it rotates once, also where the state does not know of it.
	each := tf.environ
	tf.environ = append(slices.Clone(each), "TERRAFORM_VAULT_SKIP_CHILD_TOKEN=true")
	tf.with(mount, nil, data{"orders": role(data{"grace_period": nil})}, data{"orders": "lost"})
	tf.does([]string{"apply"})
	versionIs(4)
	tf.does([]string{"state", "rm", `module.apikeys.vault_generic_endpoint.rotation["orders"]`})
	tf.applies(1, 0, 0)
	versionIs(4)
	tf.environ = each
	tf.with(mount, nil, data{"orders": role(data{"grace_period": nil})}, nil)
	tf.applies(0, 0, 2)
	tf.planIsEmpty(true)
	versionIs(4)

	// Neither the mount nor a role is destroyed by mistake.
	k = made.creds("orders")
	tf.fails([]string{"destroy"}, "cannot be destroyed")
	tf.with(mount, nil, nil, nil)
	tf.fails([]string{"apply"}, "deletion_protection: true: role")
	made.judged(k, "VALID current")
	tf.with(mount, nil, data{"orders": role(data{"deletion_protection": false, "grace_period": nil})}, nil)
	tf.does([]string{"apply"})
	tf.planIsEmpty(true)
	tf.with(mount, nil, nil, nil)
	tf.does([]string{"apply"})
	tf.planIsEmpty(true)
	made.judged(k, "NOT_FOUND")
	tf.does([]string{"state", "rm", "module.apikeys.vault_mount.apikeys"})
	tf.does([]string{"destroy"}, "Destroy complete!")
	if now := tf.mounts(mount); !reflect.DeepEqual(now, before) {
		t.Errorf("the mounts were %v, and are %v", before, now)
	}
	tf.must(e.client.Sys().Unmount(mount))
}

// policyOf is the name of a policy of the role orders.
func policyOf(mount, kind string) string {
	return strings.ReplaceAll(mount, "/", "-") + "-orders-" + kind
}

// terraformFields declares every field of a role and of the config with the real provider, twice, and takes it away.
func terraformFields(t *testing.T, e *env) {
	tf := e.terraform()
	mount := e.mount + "-made"
	made := &env{suite: e.suite, t: t, mount: mount, client: e.client}
	with, without, never := data{}, data{}, data{}
	for i, d := range declaredRole {
		name := fmt.Sprintf("f%02d", i)
		without[name] = data{}
		never["never"+name] = data{}
		for _, into := range []any{without[name], never["never"+name]} {
			fields, _ := into.(data)
			maps.Copy(fields, d.with)
			fields["deletion_protection"] = false
		}
		fields := maps.Clone(without[name].(data)) //nolint:errcheck // put there above
		fields[d.field] = d.value
		with[name] = fields
	}
	// The two are two ways to say one thing.
	config, other := data{}, data{}
	for _, d := range declaredConfig {
		if d.field != "trust_reported_usage" {
			config[d.field] = d.value
		} else {
			other[d.field] = d.value
		}
	}
	tf.with(mount, nil, never, nil)
	tf.does([]string{"init"})
	tf.does([]string{"apply"})
	tf.planIsEmpty(true)
	initial := made.read("config")

	for _, c := range []data{config, other} {
		for range 2 {
			roles := maps.Clone(never)
			maps.Copy(roles, with)
			tf.with(mount, c, roles, nil)
			tf.does([]string{"apply"})
			tf.planIsEmpty(true)
			for field, value := range c {
				e.fieldsAre(made.read("config"), map[string]string{field: inJSON(t, value)})
			}
			for i, d := range declaredRole {
				e.fieldsAre(made.read(fmt.Sprintf("roles/f%02d", i)), map[string]string{d.field: inJSON(t, d.value)})
			}
		}
	}
	roles := maps.Clone(never)
	maps.Copy(roles, without)
	tf.with(mount, nil, roles, nil)
	tf.does([]string{"apply"})
	tf.planIsEmpty(true)
	if now := made.read("config"); !reflect.DeepEqual(now, initial) {
		t.Errorf("with its fields taken away the config is\n%v\nwant\n%v", now, initial)
	}
	for i, d := range declaredRole {
		got, want := made.read(fmt.Sprintf("roles/f%02d", i)), made.read(fmt.Sprintf("roles/neverf%02d", i))
		for _, own := range []string{"name", "role_id", "created"} {
			delete(got, own)
			delete(want, own)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("after %s was taken away the role is\n%v\nwant\n%v", d.field, got, want)
		}
	}
	tf.does([]string{"state", "rm", "module.apikeys.vault_mount.apikeys"})
	tf.does([]string{"destroy"})
	tf.must(e.client.Sys().Unmount(mount))
}

// terraformReads has the configuration of bootstrap/terraform/reading read keys, which only plans can see.
func terraformReads(t *testing.T, e *env) {
	e.write("roles/shared", nil)
	e.write("roles/once", data{"reveal": "once"})
	e.write("roles/leased", data{"type": "dynamic", "ttl": "1h"})
	tf := e.terraform()
	tf.dir = filepath.Join(filepath.Dir(tf.dir), checkout, "bootstrap", "terraform", "reading")
	tf.environ = append(tf.environ, "TF_VAR_mount="+e.mount)
	tf.does([]string{"init"})
	k := e.creds("shared")
	for _, args := range [][]string{{"plan", "-out=saved"}, {"show", "-json", "saved"}, {"apply"}} {
		if args[0] != "show" {
			args = append(args, "-var", "role=shared")
		}
		tf.does(args)
	}
	e.write("roles/shared", data{"disabled": true})
	tf.fails([]string{"plan", "-var", "role=shared"}, `verdict = regex("^VALID$"`)
	tf.fails([]string{"plan", "-var", "role=once"}, "repeatable: true: role once hands out each version once only")
	if once := e.creds("once"); once.version != 1 || once.secret == k.secret {
		t.Errorf("after a plan was refused version %d is read", once.version)
	}
	live := func() int {
		t.Helper()
		s, err := e.client.Logical().List(e.path("keys/leased"))
		tf.must(err)
		if s == nil {
			return 0
		}
		keys, _ := s.Data["keys"].([]any)
		return len(keys)
	}
	// The provider's token ends soon, but not before a plan on a busy machine is done.
	tf.environ = append(tf.environ, "TERRAFORM_VAULT_MAX_TTL=20")
	tf.does([]string{"plan", "-var", "role=leased"})
	if live() != 1 {
		t.Errorf("after a plan %d keys are live, and nothing gives one back", live())
	}
	eventually(t, "the end of the key with the provider's token", func() error {
		if live() > 0 {
			return errNotYet
		}
		return nil
	})
}

// terraformPins has Terraform choose the version that a mount runs.
func terraformPins(t *testing.T, e *env) {
	e.install(olderVersion)
	e.install(newerVersion)
	tf := e.terraform()
	m := &upgraded{env: &env{suite: e.suite, t: t, mount: "pinned", client: e.client}}
	pin := func(version string) {
		t.Helper()
		tf.puts("main.tf", `
module "apikeys" {
  source         = "../`+checkout+`/bootstrap/terraform/modules/apikeys"
  mount          = "pinned"
  plugin_version = "`+version+`"
  roles          = { r = { owner = "team-orders" } }
}
`)
	}
	pin(olderVersion)
	tf.does([]string{"init"})
	tf.does([]string{"apply"})
	tf.planIsEmpty(true)
	m.is(olderVersion)
	k := m.creds("r")
	pin(newerVersion)
	tf.applies(0, 1, 0)
	tf.planIsEmpty(true)
	m.is(olderVersion)
	if _, err := e.client.Sys().ReloadPlugin(&api.ReloadPluginInput{Mounts: []string{m.mount}}); err != nil {
		t.Fatal(err)
	}
	m.is(newerVersion)
	m.judged(k, "VALID current")
	tf.planIsEmpty(true)
	m.judged(k, "VALID current")
}
