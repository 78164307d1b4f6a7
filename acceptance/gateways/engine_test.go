// SPDX-License-Identifier: MPL-2.0

package gateways

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type data = map[string]any

// engine is a development server with the plugin, which keeps its storage when it is
// stopped.
type engine struct {
	t          testing.TB
	addr, file string
	root       string
	at         func() string // where what is decided is told
	out        *output
	process    *process
	edgeToken  string
}

func startEngine(t testing.TB) *engine {
	e := &engine{t: t, addr: freeAddress(t), root: "root", file: filepath.Join(t.TempDir(), "storage"), out: &output{}}
	e.at = func() string { return e.addr }
	e.start()
	e.prepare()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("server:\n%s", e.out.end())
		}
	})
	return e
}

// prepare makes a token as an edge has it.
func (e *engine) prepare() {
	policy, err := os.ReadFile(root + "/bootstrap/policies/edge.hcl")
	if err != nil {
		e.t.Fatal(err)
	}
	e.write("sys/policies/acl/edge", data{"policy": string(policy)})
	auth := e.call(http.MethodPost, "auth/token/create", data{"policies": []string{"edge"}, "ttl": "1h"}, "auth")
	e.edgeToken = auth["client_token"].(string)
}

func (e *engine) start() {
	before := strings.Count(e.out.String(), "ready: ")
	e.process = launch(e.t, e.out, "", programs.devserver, "-listen", e.addr, "-plugin", programs.plugin, "-storage", e.file, "-tick", "1s")
	eventually(e.t, time.Minute, "development server", func() error {
		if strings.Count(e.out.String(), "ready: ") > before {
			return nil
		}
		if err := e.process.running(); err != nil {
			e.t.Fatal(err)
		}
		return fmt.Errorf("is not ready")
	})
}

func (e *engine) call(method, path string, body data, part string) data {
	e.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		e.t.Fatal(err)
	}
	req, err := http.NewRequest(method, "http://"+e.at()+"/v1/"+path, bytes.NewReader(raw))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", e.root)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	if resp.StatusCode/100 != 2 {
		e.t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
	var answer map[string]json.RawMessage
	if len(text) > 0 {
		if err := json.Unmarshal(text, &answer); err != nil {
			e.t.Fatal(err)
		}
	}
	out := data{}
	if len(answer[part]) > 0 {
		if err := json.Unmarshal(answer[part], &out); err != nil {
			e.t.Fatal(err)
		}
	}
	return out
}

func (e *engine) write(path string, body data) data {
	e.t.Helper()
	return e.call(http.MethodPost, path, body, "data")
}

// apikey is a key in the hands of a client.
type apikey struct {
	secret, id string
	version    int
}

// creds are the current key of a role.
func (e *engine) creds(role string) apikey {
	e.t.Helper()
	d := e.call(http.MethodGet, "apikeys/creds/"+role, nil, "data")
	return apikey{secret: d["api_key"].(string), id: d["key_id"].(string), version: int(d["version"].(float64))}
}

// endsOf is when the previous version of an answer of rotate ends.
func endsOf(t testing.TB, answer data) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, answer["previous_valid_until"].(string))
	if err != nil {
		t.Fatal(err)
	}
	return at
}
