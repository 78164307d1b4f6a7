// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// standInVariable makes this test's program act as the server's command line, where there is no real one.
const standInVariable = "ACCEPTANCE_CLI"

// standIn is `vault` for those who want JSON: read and write with name=value. It returns the exit status.
func standIn(args []string) int {
	if len(args) < 3 || args[1] != "-format=json" {
		fmt.Fprintf(os.Stderr, "usage: read|write -format=json path [name=value]: %q\n", args)
		return 1
	}
	client, err := api.NewClient(nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	client.SetMaxRetries(0)
	var s *api.Secret
	switch args[0] {
	case "read":
		s, err = client.Logical().Read(args[2])
	case "write":
		fields := data{}
		for _, arg := range args[3:] {
			name, value, _ := strings.Cut(arg, "=")
			fields[name] = value
		}
		s, err = client.Logical().Write(args[2], fields)
	default:
		err = fmt.Errorf("%q is not played", args[0])
	}
	if err == nil && s == nil {
		err = errors.New("No value found at " + args[2]) //nolint:staticcheck // the words of the real one
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "Error in %s: %v\n", args[2], err)
		return 2
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(string(text))
	return 0
}

// pipeline is a job with the script of bootstrap/ci, and a token with its policy.
type pipeline struct {
	e   *env
	env []string
	// every output of the script
	mu  sync.Mutex
	out strings.Builder
}

// newPipeline may rotate the roles named. The program that it calls is the real one where there is one.
func newPipeline(t *testing.T, e *env, roles ...string) *pipeline {
	t.Helper()
	var rules strings.Builder
	for _, role := range roles {
		e.write("roles/"+role, data{"grace_period": "1h"})
		rules.WriteString(strings.ReplaceAll(e.policy(t, rotator), "/orders", "/"+role))
	}
	token := e.tokenFor(t, rules.String()).Token()
	p := &pipeline{e: e, env: append(os.Environ(), "VAULT_ADDR="+e.client.Address(), "VAULT_TOKEN="+token, "BAO_ADDR="+e.client.Address(), "BAO_TOKEN="+token)}
	cli := programs.real
	if cli == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cli = self
		p.env = append(p.env, standInVariable+"=yes")
	}
	p.env = append(p.env, "CLI="+cli)
	t.Cleanup(func() {
		if strings.Contains(p.out.String(), token) {
			t.Error("the script printed its token")
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for k := range e.keys {
			if strings.Contains(p.out.String(), k) {
				t.Error("the script printed a key")
			}
		}
	})
	return p
}

// run runs the script with the shell telling each step, and asserts its exit status. It returns what it said.
func (p *pipeline) run(t *testing.T, want int, args ...string) string {
	t.Helper()
	return p.runWith(t, nil, want, args...)
}

func (p *pipeline) runWith(t *testing.T, env []string, want int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	script := filepath.Join("..", "bootstrap", "ci", "rotate-and-watch.sh")
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-x", script, "-mount", p.e.mount}, args...)...)
	cmd.Env = append(p.env, env...) //nolint:gocritic // each run has its own
	raw, err := cmd.CombinedOutput()
	p.mu.Lock()
	p.out.Write(raw)
	p.mu.Unlock()
	var said strings.Builder
	for line := range strings.Lines(string(raw)) {
		// What the shell tells of its steps goes over several lines.
		if strings.HasPrefix(line, "rotate-and-watch: ") || strings.HasPrefix(line, "* ") {
			said.WriteString(line)
		}
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("%q: exit status %d (%v), want %d:\n%s", args, got, err, want, said.String())
	}
	return said.String()
}

// presents verifies a key every 200 ms until the test ends, as its consumer would be seen to.
func (e *env) presents(t *testing.T, k key, more data) {
	t.Helper()
	ask := data{"key": k.secret, "client": "batch-job"}
	for name, v := range more {
		ask[name] = v
	}
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			// What a server that is busy or gone answers is nobody's business here.
			_, _ = e.client.Logical().WriteWithContext(ctx, e.path("verify"), ask)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() {
		stop()
		done.Wait()
	})
}

func (e *env) statesAre(t *testing.T, role string, want ...string) {
	t.Helper()
	if got := e.states(role); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("%s: versions %q, want %q", role, got, want)
	}
}

// endsOf is when a version ends, by status.
func (e *env) endsOf(t *testing.T, role string, version int64) time.Time {
	t.Helper()
	list, _ := e.read("status/" + role)["versions"].([]any)
	for _, v := range list {
		if d, _ := v.(data); number(t, d, "version") == version {
			at, err := time.Parse(time.RFC3339, text(d, "ends"))
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
	}
	t.Fatalf("%s has no version %d", role, version)
	return time.Time{}
}

// pipelineDecides runs the script through what may happen after a rotation, each on a role of its own.
func pipelineDecides(t *testing.T, e *env) {
	cases := map[string]func(t *testing.T, p *pipeline, role string){
		"another-caller": func(t *testing.T, p *pipeline, role string) {
			// A request id is its caller's: this one's rotation is its own.
			e.write("rotate/"+role, data{"request_id": "job-00000001"})
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "0", "-every", "1s")
			e.statesAre(t, role, "3 current", "2 previous", "1 previous")
		},
		"old-one-killed-in-use": func(t *testing.T, p *pipeline, role string) {
			e.presents(t, e.creds(role), nil)
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "3s", "-every", "1s")
			e.presents(t, e.creds(role), nil)
			e.write("revoke/"+role, data{"version": 1})
			p.run(t, 3, "-role", role, "-request-id", "job-00000001", "-for", "30s", "-every", "1s", "-quiet", "10s")
		},
		"new-one-is-used": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-grace", "6s", "-for", "0", "-every", "1s")
			e.presents(t, e.creds(role), nil)
			said := p.run(t, 0, "-role", role, "-request-id", "job-00000001", "-grace", "6s", "-for", "60s", "-every", "1s")
			if !strings.Contains(said, "by this request id") || !strings.Contains(said, "version 1 has ended") {
				t.Errorf("said\n%s", said)
			}
			e.statesAre(t, role, "2 current", "1 retired")
		},
		"no-use-is-no-evidence": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			before := time.Now().Add(time.Hour)
			for range 2 {
				said := p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "2s", "-every", "1s", "-reason", "a release")
				if !strings.Contains(said, "no evidence") {
					t.Errorf("said\n%s", said)
				}
			}
			e.statesAre(t, role, "2 current", "1 previous")
			if ends := e.endsOf(t, role, 1); ends.Before(before.Truncate(time.Second)) || ends.After(time.Now().Add(time.Hour)) {
				t.Errorf("version 1 ends at %s", ends)
			}
		},
		"old-one-in-use-near-its-end": func(t *testing.T, p *pipeline, role string) {
			old := e.creds(role)
			e.presents(t, old, nil)
			args := []string{"-role", role, "-request-id", "job-00000001", "-grace", "16s", "-every", "1s", "-quiet", "8s", "-extend", "12s"}
			p.run(t, 4, append(args, "-for", "0")...)
			e.presents(t, e.creds(role), nil)
			ends := e.endsOf(t, role, 1)
			said := p.run(t, 3, append(args, "-for", "60s")...)
			if !strings.Contains(said, "in use by batch-job") {
				t.Errorf("said\n%s", said)
			}
			if got := e.endsOf(t, role, 1); !got.Equal(ends.Add(12 * time.Second)) {
				t.Errorf("the end was %s and is %s", ends, got)
			}
			// The next run has the later end before it, and puts that off in its turn.
			p.run(t, 3, append(args, "-for", "60s")...)
			if got := e.endsOf(t, role, 1); !got.Equal(ends.Add(24 * time.Second)) {
				t.Errorf("the end was %s and is %s after two runs", ends, got)
			}
			e.statesAre(t, role, "2 current", "1 previous")
		},
		"old-one-used-before-only": func(t *testing.T, p *pipeline, role string) {
			old := e.creds(role)
			e.judged(old, "VALID current")
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-grace", "60s", "-for", "2s", "-every", "1s", "-quiet", "10m", "-check", "exit 0")
			e.statesAre(t, role, "2 current", "1 previous")
		},
		"new-one-is-refused": func(t *testing.T, p *pipeline, role string) {
			// The old one is in use and near its end, too: to go back counts more.
			e.presents(t, e.creds(role), nil)
			args := []string{"-role", role, "-request-id", "job-00000001", "-grace", "60s", "-every", "1s", "-quiet", "10m", "-check", `[ "$APIKEYS_VERSION" != 2 ]`}
			p.run(t, 5, args...)
			e.statesAre(t, role, "2 withdrawn", "1 current")
			p.run(t, 5, args...)
			e.statesAre(t, role, "2 withdrawn", "1 current")
		},
		"check-cannot-tell": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "3s", "-every", "1s", "-check", "exit 7")
			// One refusal between answers that are none is not two running.
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "3s", "-every", "1s", "-check", `test -e "$FLAG" && exit 7; touch "$FLAG"; exit 1`)
			e.statesAre(t, role, "2 current", "1 previous")
		},
		"check-accepts": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			p.run(t, 0, "-role", role, "-request-id", "job-00000001", "-for", "6s", "-every", "1s", "-check", `[ "$APIKEYS_STATE" = current ]`)
			// Who looked for a shorter time than -quiet cannot say that nobody uses the old one.
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "2s", "-every", "1s", "-quiet", "10m", "-check", "exit 0")
		},
		// The engine refuses a current version for what the role says, or the request asks: the old
		// one would be refused, too.
		"refused-by-the-engine": func(t *testing.T, p *pipeline, role string) {
			e.presents(t, e.creds(role), nil)
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "1s", "-every", "1s")
			e.presents(t, e.creds(role), data{"scopes": []string{"somewhere:else"}})
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "4s", "-every", "1s")
			e.statesAre(t, role, "2 current", "1 previous")
		},
		"both-are-refused": func(t *testing.T, p *pipeline, role string) {
			old := e.creds(role)
			e.presents(t, old, nil)
			e.presents(t, old, data{"scopes": []string{"somewhere:else"}})
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "1s", "-every", "1s")
			e.presents(t, e.creds(role), data{"scopes": []string{"somewhere:else"}})
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "4s", "-every", "1s")
			e.statesAre(t, role, "2 current", "1 previous")
		},
		"staged": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			args := []string{"-role", role, "-request-id", "job-00000001", "-stage", "-every", "1s", "-grace", "6s"}
			p.run(t, 5, append(args, "-for", "30s", "-check", "exit 1")...)
			e.statesAre(t, role, "2 pending", "1 current")
			p.run(t, 4, append(args, "-for", "1s", "-check", "exit 7")...)
			e.statesAre(t, role, "2 pending", "1 current")
			p.run(t, 0, append(args, "-for", "60s", "-check", `[ "$APIKEYS_STATE" = pending ]`)...)
			e.statesAre(t, role, "2 current", "1 retired")
		},
		"overtaken": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			p.run(t, 4, "-role", role, "-request-id", "job-00000001", "-for", "0", "-every", "1s")
			e.write("rotate/"+role, nil)
			p.run(t, 6, "-role", role, "-request-id", "job-00000001", "-for", "30s", "-every", "1s")
			e.statesAre(t, role, "3 current", "2 previous", "1 previous")
		},
		"answer-is-lost": func(t *testing.T, p *pipeline, role string) {
			e.creds(role)
			// The first answer of all is lost after the server has acted.
			dir := t.TempDir()
			lossy := filepath.Join(dir, "cli")
			if err := os.WriteFile(lossy, []byte("#!/bin/sh\n\"$REAL\" \"$@\" >"+dir+"/out || exit\n[ -e "+dir+"/lost ] || { touch "+dir+"/lost; echo 'connection reset' >&2; exit 2; }\ncat "+dir+"/out\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			cli := strings.TrimPrefix(p.env[len(p.env)-1], "CLI=")
			said := p.runWith(t, []string{"REAL=" + cli, "CLI=" + lossy}, 4, "-role", role, "-request-id", "job-00000001", "-for", "3s", "-every", "1s")
			if !strings.Contains(said, "by this request id") {
				t.Errorf("said\n%s", said)
			}
			e.statesAre(t, role, "2 current", "1 previous")
		},
		"not-allowed": func(t *testing.T, p *pipeline, role string) {
			p.run(t, 1, "-role", "absent", "-request-id", "job-00000001", "-for", "30s", "-every", "1s")
			p.runWith(t, []string{"VAULT_ADDR=http://127.0.0.1:1", "BAO_ADDR=http://127.0.0.1:1", "VAULT_MAX_RETRIES=0", "BAO_MAX_RETRIES=0"}, 1,
				"-role", role, "-request-id", "job-00000001", "-for", "0", "-every", "1s")
			e.statesAre(t, role, "1 current")
		},
	}
	var roles []string
	for role := range cases {
		roles = append(roles, role)
	}
	p := newPipeline(t, e, roles...)
	p.env = append([]string{"FLAG=" + filepath.Join(t.TempDir(), "flag")}, p.env...)
	// The cases wait most of the time, and none knows of the others.
	var done sync.WaitGroup
	for role, run := range cases {
		done.Go(func() { t.Run(role, func(t *testing.T) { run(t, p, role) }) })
	}
	done.Wait()
}

// TestPipelineRefusesWrongInput holds the script to ask nobody before its flags are in order.
func TestPipelineRefusesWrongInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	cli := filepath.Join(dir, "cli")
	if err := os.WriteFile(cli, []byte("#!/bin/sh\necho \"$@\" >>"+asked+"\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	good := []string{"-role", "orders", "-request-id", "job-00000001", "-for", "0", "-every", "1"}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-request-id", "job-00000001"}, "-role: is missing"},
		{[]string{"-role", "orders"}, "-request-id: is missing"},
		{append(good, "-role", "or ders"), "-role: or ders: is no name"},
		{append(good, "-role", "../config"), "-role: ../config: is no name"},
		{append(good, "-role="), "-role: is empty"},
		{append(good, "-request-id", ""), "-request-id: is empty"},
		{append(good, "-request-id", "short"), "give 8 to 100"},
		{append(good, "-request-id", strings.Repeat("x", 101)), "give 8 to 100"},
		{append(good, "-request-id", "job 00000001"), "has characters other than"},
		{append(good, "-mount", "apikeys/"), "-mount: apikeys/: is no path"},
		{append(good, "-grace", "1.5h"), "-grace: 1.5h: is no time"},
		{append(good, "-grace", "010"), "-grace: 010: begins with a zero"},
		{append(good, "-for", "soon"), "-for: soon: is no time"},
		{append(good, "-every", "0"), "-every: is 0"},
		{append(good, "-quiet", "0s"), "-quiet: is 0"},
		{append(good, "-extend", "0"), "-extend: is 0"},
		{append(good, "-reason", "@/etc/passwd"), "-reason: @/etc/passwd: vault and bao would read it"},
		{append(good, "-reason", "-"), "-reason: -: vault and bao would read it"},
		{append(good, "-stage"), "-stage: waits for -check"},
		{append(good, "-check"), "-check: its value is missing"},
		{append(good, "-fro", "1m"), "-fro: is no flag"},
		{append(good, "-fro=1m"), "-fro: is no flag"},
		{append(good, "orders"), "orders: is no flag"},
	} {
		cmd := exec.Command("sh", append([]string{filepath.Join("..", "bootstrap", "ci", "rotate-and-watch.sh")}, c.args...)...)
		cmd.Env = append(os.Environ(), "CLI="+cli)
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), c.want) || strings.Count(string(out), "\n") != 1 {
			t.Errorf("%q: exit status %d, want 2 and %q:\n%s", c.args, cmd.ProcessState.ExitCode(), c.want, out)
		}
	}
	if _, err := os.Stat(asked); err == nil {
		t.Error("the server was asked all the same")
	}
	cmd := exec.Command("sh", append([]string{filepath.Join("..", "bootstrap", "ci", "rotate-and-watch.sh")}, good...)...)
	cmd.Env = append(os.Environ(), "CLI="+cli)
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("flags that are in order: exit status %d\n%s", cmd.ProcessState.ExitCode(), out)
	}
	if _, err := os.Stat(asked); err != nil {
		t.Errorf("nobody was asked: %v", err)
	}
}
