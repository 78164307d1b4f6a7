// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// lineOf is the timeline in an answer.
func lineOf(t rapid.TB, data map[string]any) timeline.Timeline {
	t.Helper()
	raw, err := json.Marshal(data["timeline"])
	if err != nil {
		t.Fatal(err)
	}
	var entries []timeline.Entry
	if err := json.Unmarshal(raw, &entries); err != nil {
		t.Fatal(err)
	}
	line, err := timeline.Parse(entries)
	if err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	return line
}

// Whatever happened to a role before: until something is decided, its keys' timelines
// say at every instant what verify says then.
func TestTimelineSaysWhatVerifySays(t *testing.T) {
	outer := t
	rapid.Check(t, func(t *rapid.T) {
		m := mountOn(withoutSchemas{outer}, &logical.InmemStorage{}, newFakeClock())
		m.write("roles/s", map[string]any{"rotation_period": "2h", "grace_period": "30m", "ttl": rapid.SampledFrom([]string{"0", "3h"}).Draw(t, "ttl")})
		m.write("roles/d", map[string]any{"type": "dynamic", "ttl": "1h", "rotation_period": "6h", "max_ttl": "10h"})
		keys := map[string]string{} // by key id
		var leases []*logical.Response
		done := map[string]int{}
		try := func(op logical.Operation, path string, data map[string]any) map[string]any {
			resp, err := m.do(op, path, data)
			if err != nil || resp == nil || resp.IsError() {
				return nil
			}
			if key, ok := resp.Data["api_key"].(string); ok {
				keys[resp.Data["key_id"].(string)] = key
			}
			if resp.Secret != nil {
				leases = append(leases, resp)
			}
			return resp.Data
		}
		span := rapid.SampledFrom([]string{"0", "10s", "5m", "40m", "3h"})
		names := []string{"s", "d"} // what the two roles are called; empty while one is deleted
		deleted := []string{"", ""}
		role := rapid.Map(rapid.IntRange(0, 1), func(i int) string { return cmp.Or(names[i], "gone") })
		onLease := func(t *rapid.T, op logical.Operation) {
			if len(leases) > 0 {
				lease := rapid.SampledFrom(leases).Draw(t, "lease")
				if resp, err := m.onLease(op, lease, 0); err == nil && (resp == nil || !resp.IsError()) {
					done[string(op)]++
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"read":    func(t *rapid.T) { try(logical.ReadOperation, "creds/"+role.Draw(t, "role"), nil) },
			"pending": func(*rapid.T) { try(logical.ReadOperation, "creds/s/pending", nil) },
			"rotate": func(t *rapid.T) {
				try(logical.UpdateOperation, "rotate/"+role.Draw(t, "role"), map[string]any{"grace_period": span.Draw(t, "grace"), "force": rapid.Bool().Draw(t, "force")})
			},
			"stage": func(t *rapid.T) {
				try(logical.UpdateOperation, "rotate/"+role.Draw(t, "role"), map[string]any{"activate_at": span.Draw(t, "at"), "grace_period": span.Draw(t, "grace")})
			},
			"hold": func(t *rapid.T) {
				try(logical.UpdateOperation, "rotate/"+role.Draw(t, "role"), map[string]any{"stage": true})
			},
			"promote":  func(t *rapid.T) { try(logical.UpdateOperation, "promote/"+role.Draw(t, "role"), nil) },
			"rollback": func(t *rapid.T) { try(logical.UpdateOperation, "rollback/"+role.Draw(t, "role"), nil) },
			"revoke": func(t *rapid.T) {
				try(logical.UpdateOperation, "revoke/"+role.Draw(t, "role"), map[string]any{"version": rapid.IntRange(1, 6).Draw(t, "version")})
			},
			"kill": func(t *rapid.T) {
				if len(keys) > 0 {
					try(logical.UpdateOperation, "revoke/"+role.Draw(t, "role"), map[string]any{"key_id": rapid.SampledFrom(slices.Sorted(maps.Keys(keys))).Draw(t, "key")})
				}
			},
			"report": func(t *rapid.T) {
				if len(keys) > 0 {
					try(logical.UpdateOperation, "report", map[string]any{"key": keys[rapid.SampledFrom(slices.Sorted(maps.Keys(keys))).Draw(t, "key")]})
				}
			},
			"grace": func(t *rapid.T) {
				try(logical.UpdateOperation, "grace/"+role.Draw(t, "role"), map[string]any{
					"version": rapid.IntRange(1, 6).Draw(t, "version"), "valid_until": span.Draw(t, "until"), "force": true,
				})
			},
			"valid_until": func(t *rapid.T) {
				until := m.now().Add(time.Duration(rapid.Int64Range(1, int64(6*time.Hour)).Draw(t, "until")))
				try(logical.UpdateOperation, "roles/"+role.Draw(t, "role"), map[string]any{"valid_until": stamp(until)})
			},
			"no valid_until": func(t *rapid.T) {
				try(logical.PatchOperation, "roles/"+role.Draw(t, "role"), map[string]any{"valid_until": nil})
			},
			"renew":        func(t *rapid.T) { onLease(t, logical.RenewOperation) },
			"end of lease": func(t *rapid.T) { onLease(t, logical.RevokeOperation) },
			"delete": func(t *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(t, "which")
				if data := try(logical.DeleteOperation, "roles/"+cmp.Or(names[i], "gone"), nil); data["role_id"] != nil {
					names[i], deleted[i] = "", data["role_id"].(string)
				}
			},
			"restore": func(t *rapid.T) {
				for i, id := range deleted {
					data := map[string]any{}
					if name := rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, "name"); name != "" {
						data["name"] = name
					}
					if id == "" {
						continue
					}
					if data = try(logical.UpdateOperation, "restore/"+id, data); data != nil {
						names[i], deleted[i] = data["role"].(string), ""
					}
				}
			},
			"failover": func(*rapid.T) { m = mountOn(withoutSchemas{outer}, m.storage, m.clock) },
			"disable": func(t *rapid.T) {
				try(logical.UpdateOperation, "roles/"+role.Draw(t, "role"), map[string]any{"disabled": rapid.Bool().Draw(t, "disabled")})
			},
			"leak policy": func(t *rapid.T) {
				try(logical.UpdateOperation, "roles/"+role.Draw(t, "role"), map[string]any{
					"on_leak": rapid.SampledFrom([]string{"revoke", "rotate", "alert"}).Draw(t, "on_leak"), "leak_grace_period": span.Draw(t, "leak grace"),
				})
			},
			"tick": func(*rapid.T) { m.tick() },
			"later": func(t *rapid.T) {
				m.clock.advance(time.Duration(rapid.Int64Range(1, int64(3*time.Hour)).Draw(t, "by")))
			},
			"": func(t *rapid.T) {
				lines := map[string]timeline.Timeline{}
				for id, key := range keys {
					if data := m.write("verify", map[string]any{"key": key, "timeline": 1}); data["timeline"] != nil {
						lines[id] = lineOf(t, data)
					} else if code := data["code"]; code != "NOT_FOUND" {
						t.Fatalf("%s has no timeline: %v", id, data)
					}
				}
				began := m.clock.Now()
				instants := []time.Time{began}
				for _, line := range lines {
					for _, e := range line.Entries() {
						for _, at := range []time.Time{e.From.Add(-1), e.From, e.From.Add(1)} {
							if at.After(began) && at.Before(began.Add(100*time.Hour)) {
								instants = append(instants, at)
							}
						}
					}
				}
				instants = append(instants, began.Add(time.Duration(rapid.Int64Range(1, int64(50*time.Hour)).Draw(t, "instant"))))
				for _, at := range instants {
					m.clock.set(at)
					for id, line := range lines {
						v := m.write("verify", map[string]any{"key": keys[id]})
						i := line.At(at.UnixNano())
						got := fmt.Sprint(line.Code(i), " ", line.State(i), " ", line.Reason(i), " ", line.End(i))
						want := fmt.Sprint(v["code"], " ", v["state"], " ", v["reason"], " ", v["end"])
						if v["code"] == "NOT_FOUND" {
							got, want = line.Code(i).String(), "NOT_FOUND"
						}
						if got != want {
							t.Fatalf("key %s at %v: the timeline of %v, %+v, says %s, verify %s", id, at, began, line.Entries(), got, want)
						}
						if end, known := line.Ends(i); v["code"] != "NOT_FOUND" && known != (v["expires_at"] != "") ||
							known && v["code"] != "NOT_FOUND" && stamp(time.Unix(0, end)) != v["expires_at"] {
							t.Fatalf("key %s at %v: the timeline ends %v, verify says %v", id, at, stamp(time.Unix(0, end)), v["expires_at"])
						}
					}
				}
				m.clock.set(began)
			},
		})
	})
}
