// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// Whatever is asked, no answer and no error shows a key or its secret, nothing
// is written, and every verdict is a code.
func FuzzVerify(f *testing.F) {
	p := newProbe(&logical.InmemStorage{})
	m := mountOn(f, p, newFakeClock())
	m.write("roles/r", map[string]any{"scopes": "a,b:*", "allowed_cidrs": "10.0.0.0/8", "rate_limit": 5})
	key := m.read("creds/r")["api_key"].(string)
	id := m.idOf(key)
	secret := key[len("ak_")+keyformat.IDLen : len(key)-keyformat.ChecksumLen]
	codes := map[any]bool{}
	for _, name := range codeNames {
		codes[name] = true
	}
	for _, seed := range [][6]string{
		{"KEY", "", "", "", "", ""},
		{"KEY", "a,b:c", "10.0.0.1", "edge", "", ""},
		{"KEYx", "", "", "", "", ""},
		{" KEY", "", "", "", "", ""},
		{"", "", "", "", `{"key":"KEY"}`, ""},
		{"", "", "", "", `[{"key":"KEY","scopes":["KEY"]},{"KEY":1},"KEY",KEY`, ""},
		{"", "", "", "", "KEY", ""},
		{"", "", "", "", "", "KEY"},
		{"KEY", "KEY", "KEY", "KEY", "", ""},
		{"x", "", "", "KEY", "", ""},
		{"", "", "", "", `{"key_id":"KEY","role_id":"KEY"}`, ""},
		{"", "", "", "", `{"client":"KEY","key":"KEY"}` + "\n" + `{"key":["KEY"]}` + "\n" + `{"KEY":"KEY"}`, ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], seed[5])
	}
	f.Fuzz(func(t *testing.T, presented, scopes, remote, client, batch, keyID string) {
		data := map[string]any{}
		for name, value := range map[string]string{"key": presented, "scopes": scopes, "remote_addr": remote, "client": client, "batch": batch, "key_id": keyID} {
			if value != "" {
				data[name] = strings.ReplaceAll(value, "KEY", key)
			}
		}
		p.reset()
		m := &testMount{backend: m.backend, t: t, clock: m.clock, storage: m.storage, request: m.request}
		for _, path := range []string{"verify", "verify/r", "lookup"} {
			sent := data
			if path == "lookup" {
				sent = map[string]any{}
				for _, name := range []string{"key", "key_id"} {
					if v, ok := data[name]; ok {
						sent[name] = v
					}
				}
			}
			resp, err := m.do(logical.UpdateOperation, path, sent)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if resp != nil {
				encoded, err := json.Marshal(resp)
				if err != nil {
					t.Fatal(err)
				}
				text += string(encoded)
			}
			if strings.Contains(text, secret) {
				t.Fatalf("%s shows the secret: %s", path, strings.ReplaceAll(text, key, "KEY"))
			}
			if status, _ := httpStatus(resp, err); status >= 500 {
				t.Fatalf("%s: status %d: %v", path, status, err)
			}
			if err != nil || path == "lookup" {
				continue
			}
			results, _ := resp.Data["results"].([]any)
			if results == nil {
				results = []any{resp.Data}
			}
			for _, res := range results {
				res := res.(map[string]any)
				if !codes[res["code"]] || res["valid"] != (res["code"] == "VALID") {
					t.Fatalf("no verdict: %v", res)
				}
				if _, tells := res["role"]; tells && res["key_id"] != id {
					t.Fatalf("tells of another key: %v", res)
				}
			}
		}
		if _, writes := p.count(); writes != 0 {
			t.Fatalf("%d writes", writes)
		}
	})
}
