// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// olderKinds are the records that the store of the older build has. Its problem/ needs a storage that fails.
var olderKinds = []string{
	"archive", "attention", "config", "deferred", "deleted", "digest", "due", "issued", "job", "key", "mark", "prefixes", "role", "secret", "usage",
}

// A store that an earlier build has written (testdata/older): this build goes on with it, the earlier one with what
// this one has made of it, and this one again. What the earlier one cannot understand it refuses and leaves alone.
// The earlier one is built from the history, which not every clone has: it takes its turns in `make acceptance` only.
func TestStoreOfAnOlderBuild(t *testing.T) {
	t.Parallel()
	s := &devserver{t: t, addr: freeAddress(t), file: filepath.Join(t.TempDir(), "storage.db"), out: &output{}, tick: "1s"}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("server log:\n%s", tail(s.out.String()))
		}
	})
	if err := os.WriteFile(s.file, unpacked(t, "storage.db.gz"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := kindsIn(t, s.file); !slices.Equal(got, olderKinds) {
		t.Fatalf("the store has %q", got)
	}
	keys := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(unpacked(t, "keys.gz"))), "\n") {
		name, secret, _ := strings.Cut(line, " ")
		keys[name] = secret
	}
	s.start(t)
	e := &env{suite: &suite{server: s}, t: t, mount: "apikeys", client: (&suite{}).clientFor("http://"+s.addr, s.root())}
	codes := func(when string, want map[string]string) {
		t.Helper()
		for name, code := range want {
			if got := e.verify(keys[name])["code"]; got != code {
				t.Errorf("%s the key %s is %v, want %s", when, name, got, code)
			}
		}
	}
	atFirst := map[string]string{
		"plain": "VALID", "busy": "VALID", "graced-2": "VALID", "alerted": "VALID", "revoked": "REVOKED", "leaked": "REVOKED", "gone": "NOT_FOUND",
	}
	codes("at first", atFirst)

	// This build works with it: on what is there, and on records that the older one does not know.
	e.write("config", data{"egress_allow": "127.0.0.0/8:9"})
	e.write("events/nobody", data{"url": "http://127.0.0.1:9/"})
	e.write("rotate/plain", data{"grace_period": "24h"})
	keys["plain-2"] = e.creds("plain").secret
	e.write("rotate/leases", nil)
	keys["lease"] = e.creds("leases").secret
	e.write("roles/fresh", data{"rotation_period": 0})
	keys["fresh"] = e.creds("fresh").secret
	e.write("revoke/alerted", data{"version": 1, "reason": "test"})
	since := map[string]string{
		"plain": "VALID", "plain-2": "VALID", "busy": "VALID", "graced-2": "VALID", "fresh": "VALID", "lease": "VALID", "alerted": "REVOKED", "revoked": "REVOKED",
	}
	codes("after some work", since)
	if os.Getenv(serverVariable) == "" {
		s.run(t, "")
		codes("after a restart", since)
		return
	}

	older := filepath.Join(t.TempDir(), pluginName)
	buildOlder(t, older, "older")
	s.run(t, older)
	if got, err := e.client.Logical().Read(e.path("events/nobody")); err == nil && got != nil {
		t.Fatal("the older build knows endpoints: it is not that one")
	}
	codes("with the older build", since)
	if got := e.creds("plain").secret; got != keys["plain-2"] {
		t.Error("the older build hands out another key of plain")
	}
	e.write("rotate/fresh", data{"grace_period": "1h"})
	keys["fresh-2"] = e.creds("fresh").secret
	e.write("revoke/plain", data{"version": 1, "reason": "test"})
	since["plain"], since["fresh-2"] = "REVOKED", "VALID"
	codes("after work of the older build", since)

	s.run(t, "")
	codes("with this build again", since)
	if got := e.read("events/nobody"); got["url"] != "http://127.0.0.1:9/" {
		t.Errorf("the endpoint is %v", got)
	}
	// A rename is what an older build must not go on with as if nothing was.
	id := e.read("roles/fresh")["role_id"].(string)
	e.remove("roles/fresh")
	e.write("restore/"+id, data{"name": "renamed"})
	since["fresh"] = "VALID"
	codes("after a rename", since)

	s.run(t, older)
	delete(since, "fresh")
	delete(since, "fresh-2")
	codes("with the older build after a rename", since)
	within(t, 30*time.Second, "the older build refuses to tidy", func() error {
		_, err := e.client.Logical().Write(e.path("tidy"), nil)
		if err != nil && strings.Contains(err.Error(), "newer version of this plugin") || strings.Contains(s.logs(), "newer version of this plugin") {
			return nil
		}
		return errors.Join(errNotYet, err)
	})
	s.run(t, "")
	since["fresh"], since["fresh-2"] = "VALID", "VALID"
	codes("at last", since)
}

// run has the server run with that plugin from now on.
func (s *devserver) run(t *testing.T, plugin string) {
	t.Helper()
	s.process.end()
	s.plugin = plugin
	s.start(t)
}

// unpacked is a file of testdata/older.
func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "older", name))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// kindsIn are the first parts of the paths in a storage file.
func kindsIn(t *testing.T, file string) (kinds []string) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 5 * time.Second, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, _ []byte) error {
				for part := range strings.SplitSeq(string(k), "/") {
					if slices.Contains(olderKinds, part) {
						kinds = append(kinds, part)
						break
					}
				}
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// olderVersionFlag is where that build has its version.
const olderVersionFlag = "-X github.com/vault-apikeys/" + pluginName + "/backend.Version="

var olderCommit = regexp.MustCompile("(?m)^Commit: `([0-9a-f]{40})`$")

// buildOlder builds the plugin of the commit that testdata/older names, which calls itself that version. The history has
// to be there.
func buildOlder(t *testing.T, file, version string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("testdata", "older", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := olderCommit.FindSubmatch(readme)
	if m == nil {
		t.Fatal("testdata/older/README.md names no commit")
	}
	src, tarball := t.TempDir(), filepath.Join(t.TempDir(), "src.tar")
	for _, c := range []*exec.Cmd{
		exec.Command("git", "-C", "..", "archive", "-o", tarball, string(m[1])), //nolint:gosec // forty digits
		exec.Command("tar", "xf", tarball, "-C", src),
		exec.Command("go", "build", "-trimpath", "-ldflags", olderVersionFlag+version, "-o", file, "./cmd/"+pluginName),
	} {
		if c.Args[0] == "go" {
			c.Dir, c.Env = src, append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v (a clone needs its whole history): %v\n%s", c.Args, err, out)
		}
	}
}
