// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// What is due happens although no periodic call comes: the plugin's worker does it, also
// after its process was killed, after a reload in the middle, and after the server was
// killed.
func TestWorkBetweenPeriodicCalls(t *testing.T) {
	t.Parallel()
	s := &suite{server: startDevserverTicking(t, "10m"), keys: map[string]bool{}}
	e := s.newEnv(t, "worker")
	job := func(name string) {
		t.Helper()
		e.write("roles/"+name, data{"rotation_period": 0})
		first := e.creds(name)
		e.write("bulk", data{"action": "rotate", "roles": name, "dry_run": false, "reason": "worker"})
		within(t, 20*time.Second, "a job is done", func() error {
			if e.creds(name).version == first.version {
				return errNotYet
			}
			return nil
		})
		e.judged(first, "VALID previous")
	}
	job("one")
	e.write("roles/r", data{"rotation_period": "60s", "grace_period": "30s"})
	first := e.creds("r")

	for _, pid := range e.server.pluginPIDs(t) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	job("two")
	e.write("bulk", data{"action": "rotate", "roles": "one,two,r", "pace": 1, "dry_run": false, "reason": "in the middle"})
	if _, err := e.client.Sys().ReloadPlugin(&api.ReloadPluginInput{Plugin: pluginName}); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the job goes on after a reload", func() error {
		for _, name := range []string{"one", "two", "r"} {
			if v := e.creds(name).version; v < first.version+1 {
				return fmt.Errorf("%s has version %v", name, v)
			}
		}
		return nil
	})
	e.server.crash(t)
	if programs.real == "" {
		return // the rest takes a minute, which the longer run has
	}
	version := e.creds("r").version
	within(t, 130*time.Second, "a rotation by its period", func() error {
		if v := e.creds("r").version; v <= version {
			return fmt.Errorf("version %v", v)
		}
		return nil
	})
}
