// SPDX-License-Identifier: MPL-2.0

package kubernetes_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rhysd/actionlint"
	"sigs.k8s.io/yaml"
)

// workflow is what of a workflow's text the tests look at.
type workflow struct {
	Permissions map[string]string `json:"permissions"`
	Jobs        map[string]struct {
		Environment string            `json:"environment"`
		Env         map[string]string `json:"env"`
		Steps       []struct {
			ID   string            `json:"id"`
			Uses string            `json:"uses"`
			With map[string]any    `json:"with"`
			Env  map[string]string `json:"env"`
			Run  string            `json:"run"`
		} `json:"steps"`
	} `json:"jobs"`
}

func pipelineFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shipped, "ci", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// lint is what actionlint says of a workflow.
func lint(t *testing.T, text []byte) []*actionlint.Error {
	t.Helper()
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := linter.Lint("workflow.yml", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWorkflowIsInOrder(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"github-actions.yml", "scan/github-actions.yml"} {
		for _, e := range lint(t, pipelineFile(t, name)) {
			t.Errorf("%s: %v", name, e)
		}
	}
	text := pipelineFile(t, "github-actions.yml")
	if found := lint(t, []byte(strings.Replace(string(text), "steps.login.outputs", "steps.logon.outputs", 1))); len(found) == 0 {
		t.Error("a step that does not exist passes")
	}
	var w workflow
	if err := yaml.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	if len(w.Permissions) != 2 || w.Permissions["contents"] != "read" || w.Permissions["id-token"] != "write" {
		t.Errorf("permissions %v", w.Permissions)
	}
	if found := regexp.MustCompile(`(?m)uses: .*$`).FindAllString(string(text), -1); len(found) != 2 ||
		slices.ContainsFunc(found, func(s string) bool { return !regexp.MustCompile(`^uses: \S+@[0-9a-f]{40} # v[0-9.]+$`).MatchString(s) }) {
		t.Errorf("actions are not named by their commits: %q", found)
	}
	job := w.Jobs["rotate"]
	if job.Environment != "production" || len(job.Steps) != 3 {
		t.Fatalf("job %+v", job)
	}
	login := job.Steps[1]
	if login.ID != "login" || login.With["exportEnv"] != false || login.With["outputToken"] != true || login.With["method"] != "jwt" || login.With["secrets"] != nil {
		t.Errorf("the login is %+v", login)
	}
	if checkout := job.Steps[0]; checkout.With["persist-credentials"] != false {
		t.Errorf("the checkout is %+v", checkout)
	}
	if strings.Contains(job.Steps[2].Run, "${{") {
		t.Error("an expression stands in a script")
	}
	calls := played(t, job.Steps[2].Run, "GITHUB_REPOSITORY_ID=123456789", "GITHUB_RUN_ID=42", "VAULT_TOKEN=token")
	wantCalls(t, calls, "write -format=json apikeys/rotate/orders request_id=github/123456789/42 grace_period=3600 reason=run 42", "token revoke -self")
	agree(t, "github", login.With["path"], login.With["role"], login.With["jwtGithubAudience"])
}

// agree holds a pipeline against what the README has the server know.
func agree(t *testing.T, path string, names ...any) {
	t.Helper()
	readme := string(pipelineFile(t, "README.md"))
	_, section, ok := strings.Cut(readme, "vault auth enable -path="+path+" jwt\n")
	if !ok {
		t.Fatalf("the README enables no login at %s", path)
	}
	section, _, _ = strings.Cut(section, "EOF\n\n")
	for i, want := range []string{"auth/" + path + "/", "/role/apikeys-orders ", `"bound_audiences": ["https://vault.example.com"]`} {
		name, ok := names[i].(string)
		if !ok || !strings.Contains(want, strings.TrimSuffix(name, "/")) || !strings.Contains(section, want) {
			t.Errorf("the pipeline says %q, the README %q", names[i], want)
		}
	}
}

// gitlabJob has the keywords that the job uses, and no other.
type gitlabJob struct {
	Stage string `json:"stage"`
	Image struct {
		Name       string   `json:"name"`
		Entrypoint []string `json:"entrypoint"`
	} `json:"image"`
	Rules []struct {
		If           string `json:"if"`
		When         string `json:"when"`
		AllowFailure bool   `json:"allow_failure"`
	} `json:"rules"`
	Environment struct {
		Name string `json:"name"`
	} `json:"environment"`
	IDTokens map[string]struct {
		Audience string `json:"aud"`
	} `json:"id_tokens"`
	ResourceGroup string `json:"resource_group"`
	Interruptible *bool  `json:"interruptible"`
	Timeout       string `json:"timeout"`
	AllowFailure  struct {
		ExitCodes int `json:"exit_codes"`
	} `json:"allow_failure"`
	Script []string `json:"script"`
}

func TestJobOfGitLabIsInOrder(t *testing.T) {
	t.Parallel()
	text := pipelineFile(t, "gitlab-ci.yml")
	jobs := map[string]gitlabJob{}
	if err := yaml.UnmarshalStrict(text, &jobs); err != nil {
		t.Fatal(err)
	}
	job, ok := jobs["rotate-orders"]
	if !ok || len(jobs) != 1 {
		t.Fatalf("jobs %+v", jobs)
	}
	if job.Environment.Name != "production" || job.Interruptible == nil || *job.Interruptible || job.ResourceGroup == "" || job.AllowFailure.ExitCodes != 4 || len(job.Rules) == 0 {
		t.Errorf("the job is %+v", job)
	}
	calls := played(t, strings.Join(job.Script, "\n"), "CI_PROJECT_ID=1234", "CI_PIPELINE_ID=42", "VAULT_ID_TOKEN=the-id-token")
	wantCalls(t, calls, "write -field=token auth/gitlab/login role=apikeys-orders jwt=- < the-id-token",
		"write -format=json apikeys/rotate/orders request_id=gitlab/1234/42 grace_period=3600 reason=pipeline 42", "token revoke -self")
	path := regexp.MustCompile(`auth/(\w+)/login role=(\S+)`).FindStringSubmatch(strings.Join(job.Script, "\n"))
	agree(t, "gitlab", path[1], path[2], job.IDTokens["VAULT_ID_TOKEN"].Audience)
}

// played runs a job's script with a `vault` that notes how it was called, logs in, and refuses the rotation. It asserts
// that the job fails as the script did, and returns the calls.
func played(t *testing.T, script string, env ...string) []string {
	t.Helper()
	dir := t.TempDir()
	source, err := filepath.Abs(filepath.Join(shipped, "ci", "rotate-and-watch.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ci", "bin"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(source, filepath.Join(dir, "ci", "rotate-and-watch.sh")); err != nil {
		t.Fatal(err)
	}
	const vault = `#!/bin/sh
case $* in
*jwt=-) echo "$* < $(cat)" >>calls; echo a-token ;;
*) echo "$*" >>calls; [ "$1" = token ] || { echo 'Code: 400. Errors:' >&2; exit 2; } ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "bin", "vault"), []byte(vault), 0o755); err != nil {
		t.Fatal(err)
	}
	// As both systems run scripts: they end with the first command that fails.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Dir = dir
	// Nothing of a developer's own servers.
	cmd.Env = append(env, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the job ended with %v, want the script's 1:\n%s", err, out)
	}
	if strings.Contains(string(out), "a-token") || strings.Contains(string(out), "the-id-token") {
		t.Errorf("a token is printed:\n%s", out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatalf("nothing was called: %v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}

func wantCalls(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("called were\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
