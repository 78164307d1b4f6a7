// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// patience is how long a server is given to get something done.
const patience = 45 * time.Second

// key is what a read of `creds/` hands out.
type key struct {
	secret, id string
	version    int64
	lease      *api.Secret
}

type data = map[string]any

func (e *env) path(p string) string { return e.mount + "/" + p }

// write fails the test unless the server accepts.
func (e *env) write(p string, d data) data {
	e.t.Helper()
	s, err := e.client.Logical().Write(e.path(p), d)
	if err != nil {
		e.t.Fatalf("write %s: %v", p, err)
	}
	if s == nil {
		return nil
	}
	return s.Data
}

// read fails the test unless there is something.
func (e *env) read(p string) data {
	e.t.Helper()
	s, err := e.client.Logical().Read(e.path(p))
	if err != nil {
		e.t.Fatalf("read %s: %v", p, err)
	}
	if s == nil {
		e.t.Fatalf("read %s: nothing there", p)
	}
	return s.Data
}

func (e *env) remove(p string) {
	e.t.Helper()
	if _, err := e.client.Logical().Delete(e.path(p)); err != nil {
		e.t.Fatalf("delete %s: %v", p, err)
	}
}

// refused asserts status and words of a refusal.
func (e *env) refused(err error, status int, words ...string) {
	e.t.Helper()
	var re *api.ResponseError
	if !errors.As(err, &re) {
		e.t.Errorf("got %v, want status %d", err, status)
		return
	}
	text := strings.Join(re.Errors, "\n")
	if re.StatusCode != status {
		e.t.Errorf("status %d (%s), want %d", re.StatusCode, text, status)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			e.t.Errorf("refusal %q does not name %q", text, w)
		}
	}
}

// refuses asserts that a write is answered with a 400 that names the words.
func (e *env) refuses(p string, d data, words ...string) {
	e.t.Helper()
	_, err := e.client.Logical().Write(e.path(p), d)
	if err == nil {
		e.t.Errorf("write %s %v was accepted", p, d)
		return
	}
	e.refused(err, 400, words...)
}

func (e *env) keyOf(s *api.Secret) key {
	e.t.Helper()
	k := key{secret: text(s.Data, "api_key"), id: text(s.Data, "key_id"), version: number(e.t, s.Data, "version"), lease: s}
	if k.secret == "" || k.id == "" || !strings.Contains(k.secret, k.id) {
		e.t.Fatalf("no key in the answer with version %d", k.version)
	}
	e.saw(k.secret)
	return k
}

func (e *env) creds(p string) key {
	e.t.Helper()
	s, err := e.client.Logical().Read(e.path("creds/" + p))
	if err != nil || s == nil {
		e.t.Fatalf("read creds/%s: %v", p, err)
	}
	return e.keyOf(s)
}

func (e *env) verify(secret string) data {
	e.t.Helper()
	return e.write("verify", data{"key": secret})
}

// judged asserts the verdict on a key, as `CODE` or `CODE state`.
func (e *env) judged(k key, want string) {
	e.t.Helper()
	if got := verdict(e.verify(k.secret)); got != want && !strings.HasPrefix(got, want+" ") {
		e.t.Errorf("the key of version %d is %s, want %s", k.version, got, want)
	}
}

// becomes waits for a verdict that only time brings.
func (e *env) becomes(k key, want string) {
	e.t.Helper()
	eventually(e.t, "key becomes "+want, func() error {
		if got := verdict(e.verify(k.secret)); got != want && !strings.HasPrefix(got, want+" ") {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

func verdict(d data) string {
	return strings.TrimSpace(text(d, "code") + " " + text(d, "state"))
}

// states are the versions of a role with their states, as `1 retired`, the highest first.
func (e *env) states(role string) []string {
	e.t.Helper()
	var out []string
	list, _ := e.read("status/" + role)["versions"].([]any)
	for _, v := range list {
		d, _ := v.(map[string]any)
		out = append(out, fmt.Sprintf("%d %s", number(e.t, d, "version"), text(d, "state")))
	}
	return out
}

func text(d data, name string) string {
	s, _ := d[name].(string)
	return s
}

func number(t *testing.T, d data, name string) int64 {
	t.Helper()
	n, ok := d[name].(json.Number)
	if !ok {
		t.Fatalf("%s is %T, want a number", name, d[name])
	}
	i, err := n.Int64()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return i
}

func sameSet(got []string, want ...string) bool {
	slices.Sort(got)
	slices.Sort(want)
	return slices.Equal(got, want)
}

// eventually polls until check is content.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	within(t, patience, what, check)
}

func within(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, limit, err)
		case <-tick.C:
		}
	}
}
