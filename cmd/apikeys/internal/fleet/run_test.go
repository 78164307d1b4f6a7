// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// alone takes the variables and the home of whoever runs the test away.
func alone(t *testing.T) {
	t.Helper()
	for _, name := range []string{"ADDR", "TOKEN", "NAMESPACE", "CACERT"} {
		t.Setenv("VAULT_"+name, "")
		t.Setenv("BAO_"+name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("VAULT_TOKEN", "token")
}

// serve is a server on the network with the real engine. It works by the machine's clock.
func serve(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	server := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	return w
}

func command(args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = Run(context.Background(), args, &o, &e)
	return status, o.String(), e.String()
}

func TestWrongInput(t *testing.T) {
	alone(t)
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	dir := t.TempDir()
	for _, test := range []struct{ args, want string }{
		{"-format pdf", `-format: "pdf": is none: give one of csv, html, ics, json`},
		{"-format=", `-format: "": is none`},
		{"-o=", "-o: is empty: give a file, or - for standard output"},
		{"-o " + dir, "-o: " + dir + " is no file; - is standard output"},
		{"-o " + os.DevNull, "-o: " + os.DevNull + " is no file"},
		{"-o " + filepath.Join(dir, "none", "x.html"), "-o: "},
		{"-owner=", "-owner: is empty: leave it out for all roles"},
		{"-within soon", `-within: "soon": must be from 1h to 3660d`},
		{"-within 59m", "must be from 1h"},
		{"-within 3661d", "must be from 1h"},
		{"-within 99999999d", "must be from 1h"},
		{"-within -5d", "must be from 1h"},
		{"-details -1", "-details: -1: must be from 0 to 10000"},
		{"-details 10001", "must be from 0 to 10000"},
		{"-details many", "invalid value"},
		{"fleet.html", `"fleet.html": is no flag: all that this command takes has a name, such as -o fleet.html`},
		{"-nonsense", "flag provided but not defined: -nonsense"},
		{"-mount /", "-mount: is empty"},
		{"-address vault:8200", "is not a URL"},
		{"-token-file " + filepath.Join(dir, "none"), "token file: "},
		{"-auth ldap", `-auth: "ldap": is none`},
	} {
		status, out, errs := command(strings.Fields(test.args)...)
		if status != exitUsage || !strings.Contains(errs, test.want) || out != "" {
			t.Errorf("%q: status %d, %q, %q; want %q", test.args, status, out, errs, test.want)
		}
	}
	if status, _, errs := command("-h"); status != exitOK || !strings.Contains(errs, "Usage: apikeys fleet -o fleet.html") || !strings.Contains(errs, "VAULT_ADDR") {
		t.Errorf("%d %s", status, errs)
	}
	t.Setenv("VAULT_TOKEN", "")
	if status, _, errs := command(); status != exitUsage || !strings.Contains(errs, "no token: set VAULT_TOKEN") {
		t.Errorf("%d %s", status, errs)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestFile: a file appears as a whole, for its owner alone, and an older one outlives what
// fails.
func TestFile(t *testing.T) {
	alone(t)
	w := serve(t)
	w.write("roles/orders", object{"owner": "team"})
	dir := t.TempDir()
	file := filepath.Join(dir, "fleet.html")
	link := filepath.Join(dir, "latest.html")
	if err := os.Symlink("fleet.html", link); err != nil {
		t.Fatal(err)
	}
	check := func(name, want string, files int) {
		t.Helper()
		raw, err := os.ReadFile(file)
		info, serr := os.Stat(file)
		if err != nil || serr != nil || info.Mode().Perm() != 0o600 || !strings.HasPrefix(string(raw), want) {
			t.Errorf("%s: %v %v %v: %.40q", name, err, serr, info.Mode(), raw)
		}
		if all, _ := os.ReadDir(dir); len(all) != files {
			t.Errorf("%s: %v", name, all)
		}
	}
	if status, out, errs := command("-o", file); status != exitOK || out+errs != "" {
		t.Fatalf("%d %q %q", status, out, errs)
	}
	check("a new file", "<!DOCTYPE html>", 2)
	if err := os.WriteFile(file, []byte("older"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := command("-o", link, "-format", "json"); status != exitOK {
		t.Fatal(errs)
	}
	check("through a link, over one that others may read", `{"schema": 1`, 2)
	if at, err := os.Readlink(link); at != "fleet.html" || err != nil {
		t.Error(at, err)
	}
	w.before = func(path string, _ http.ResponseWriter) int {
		if path == "inventory" {
			return http.StatusForbidden
		}
		return 0
	}
	if status, _, errs := command("-o", file); status != exitFailed || !strings.Contains(errs, "apikeys fleet: list apikeys/inventory: not now: the token's policy lacks it") {
		t.Errorf("%d %q", status, errs)
	}
	check("after a failure", `{"schema": 1`, 2)
}

func TestFormatByEnding(t *testing.T) {
	alone(t)
	serve(t)
	for name, want := range map[string]string{"a.csv": "role,", "a.ics": "BEGIN:VCALENDAR", "a.json": "{", "a.html": "<!DOCTYPE", "a.txt": "<!DOCTYPE", "csv": "<!DOCTYPE"} {
		file := filepath.Join(t.TempDir(), name)
		if status, _, errs := command("-o", file); status != exitOK {
			t.Fatal(errs)
		}
		if raw, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(raw), want) {
			t.Errorf("%s: %v %.30q", name, err, raw)
		}
	}
}

func TestStandardOutput(t *testing.T) {
	alone(t)
	w := serve(t)
	w.write("roles/orders", object{"owner": "team"})
	for _, args := range [][]string{nil, {"-o", "-"}} {
		if status, out, errs := command(args...); status != exitOK || !strings.HasSuffix(out, "</html>\n") || errs != "" {
			t.Errorf("%d %q", status, errs)
		}
	}
	if status, out, errs := command("-owner", "taem"); status != exitOK || out == "" || !strings.Contains(errs, `no role has the owner "taem"`) {
		t.Errorf("%d %q", status, errs)
	}
}

// TestServerIsAway: nobody waits for an address that is wrong.
func TestServerIsAway(t *testing.T) {
	alone(t)
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	if status, _, errs := command(); status != exitFailed || !strings.Contains(errs, "read apikeys/calendar: ") || !strings.Contains(errs, "refused") || strings.Contains(errs, "trying again") {
		t.Errorf("%d %q", status, errs)
	}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	t.Setenv("VAULT_ADDR", server.URL)
	if status, _, errs := command(); status != exitFailed || !strings.Contains(errs, "read apikeys/calendar: ") {
		t.Errorf("%d %q", status, errs)
	}
}
