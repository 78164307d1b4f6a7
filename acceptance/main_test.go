// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// serverVariable names the program of a real server; unset, the suite runs behind the development server only.
	serverVariable = "SERVER_BIN"
	// terraformVariable names a Terraform or OpenTofu, and providerVariable the provider hashicorp/vault that it runs;
	// unset, the tests play what these send, and no more.
	terraformVariable = "TERRAFORM_BIN"
	providerVariable  = "PROVIDER_BIN"
	// prometheusVariable names a Prometheus, the others its tool and that of Alertmanager; unset, nobody scrapes.
	prometheusVariable = "PROMETHEUS_BIN"
	promtoolVariable   = "PROMTOOL_BIN"
	amtoolVariable     = "AMTOOL_BIN"
)

// errNotYet is why a wait goes on.
var errNotYet = errors.New("not yet")

const pluginName = "vault-plugin-secrets-apikeys"

// programs are what is tested, built once from the sources beside this package.
var programs struct {
	dir, plugin, devserver, demo, apikeys string
	// real is a Vault or OpenBao, or empty.
	real string
	// terraform and its provider are both there, or both empty.
	terraform, provider string
	// prometheus and the tools are all there, or all empty.
	prometheus, promtool, amtool string
}

func TestMain(m *testing.M) {
	if os.Getenv(standInVariable) != "" {
		os.Exit(standIn(os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "acceptance:", err)
		return 1
	}
	defer os.RemoveAll(programs.dir)
	return m.Run()
}

func prepare() error {
	for variable, to := range map[string]*string{
		serverVariable: &programs.real, terraformVariable: &programs.terraform, providerVariable: &programs.provider,
		prometheusVariable: &programs.prometheus, promtoolVariable: &programs.promtool, amtoolVariable: &programs.amtool,
	} {
		if err := given(variable, to); err != nil {
			return err
		}
	}
	if (programs.terraform == "") != (programs.provider == "") {
		return errors.New(terraformVariable + " and " + providerVariable + " are given together, or neither is")
	}
	if (programs.prometheus == "") != (programs.promtool == "") || (programs.prometheus == "") != (programs.amtool == "") {
		return errors.New(prometheusVariable + ", " + promtoolVariable + " and " + amtoolVariable + " are given together, or none is: see make monitoring")
	}
	// What a developer exported for servers of his own must not reach clients or servers here.
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "BAO_") || strings.HasPrefix(name, "TF_") {
			if err := os.Unsetenv(name); err != nil {
				return err
			}
		}
	}
	// Short, because the plugin's socket is made below it when it is TMPDIR; resolved, because servers want
	// the true path of the plugin directory.
	dir, err := os.MkdirTemp("", "ak")
	if err != nil {
		return err
	}
	if programs.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	plugins := filepath.Join(programs.dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		return err
	}
	programs.plugin = filepath.Join(plugins, pluginName)
	programs.devserver = filepath.Join(programs.dir, "devserver")
	programs.demo = filepath.Join(programs.dir, "demo")
	programs.apikeys = filepath.Join(programs.dir, "apikeys")
	for out, pkg := range map[string]string{
		programs.plugin:    "../cmd/" + pluginName,
		programs.devserver: "../cmd/devserver",
		programs.demo:      "../scripts/demo",
		programs.apikeys:   "../cmd/apikeys",
	} {
		build := exec.Command("go", "build", "-o", out, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
		}
	}
	return nil
}

// given finds the program that the variable names, if it is set.
func given(variable string, to *string) error {
	name, set := os.LookupEnv(variable)
	if !set {
		return nil
	}
	if name == "" {
		return errors.New(variable + " is empty: name a program, or unset it")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	*to, err = filepath.Abs(path)
	return err
}

// TestAcceptance runs every scenario on every server at hand that can take part in it.
func TestAcceptance(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name  string
		start func(t *testing.T) server
	}{{"devserver", startDevserver}}
	if programs.real != "" {
		kinds = append(kinds, []struct {
			name  string
			start func(t *testing.T) server
		}{{"real", startReal}, {"cluster", startCluster}}...)
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			s := &suite{server: kind.start(t)}
			t.Cleanup(func() { s.checkLogs(t) })
			s.run(t)
		})
	}
	if programs.real != "" {
		// Its catalog would change what the other mounts of a server run.
		t.Run("upgrade of two mounts, and back", func(t *testing.T) {
			s := &suite{server: startReal(t)}
			t.Cleanup(func() { s.checkLogs(t) })
			upgrade(t, s.newEnv(t, "upgrade"))
		})
	}
	if programs.real != "" {
		t.Run("rolling upgrade of a cluster", func(t *testing.T) {
			c := startCluster(t).(*cluster)
			s := &suite{server: c}
			t.Cleanup(func() { s.checkLogs(t) })
			rollingUpgrade(t, c, s.newEnv(t, "rolling"))
		})
	}
	if programs.real != "" && programs.terraform != "" {
		t.Run("Terraform pins the version", func(t *testing.T) {
			s := &suite{server: startReal(t)}
			t.Cleanup(func() { s.checkLogs(t) })
			terraformPins(t, s.newEnv(t, "pins"))
		})
	}
}
