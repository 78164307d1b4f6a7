// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// BenchmarkEdgeAudit tells by how much the audit log of a real server, which SERVER_BIN
// names, grows for an edge that holds a key and hears of nothing.
func BenchmarkEdgeAudit(b *testing.B) {
	if programs.real == "" {
		b.ReportMetric(0, "ns/op")
		b.Logf("not measured: %s names no server", serverVariable)
		return
	}
	n := newNode(b, raftDir(b), "n1", []string{freeAddress(b)}, 0, 1)
	log := filepath.Join(n.dir, "audit.log")
	n.mayAudit(b)
	n.start()
	unsealKey, token := n.initialise()
	n.unseal(b, unsealKey)
	n.waitHealth(b, 200)
	n.register(token)
	c := n.client(token)
	if err := c.Sys().EnableAuditWithOptions("main", &api.EnableAuditOptions{Type: "file", Options: map[string]string{"file_path": log}}); err != nil {
		b.Fatal(err)
	}
	if err := c.Sys().Mount("apikeys", &api.MountInput{Type: pluginName}); err != nil {
		b.Fatal(err)
	}
	write := func(path string, body data) {
		if _, err := c.Logical().Write(path, body); err != nil {
			b.Fatal(err)
		}
	}
	write("apikeys/roles/r", data{})
	creds, err := c.Logical().Read("apikeys/creds/r")
	if err != nil {
		b.Fatal(err)
	}
	for _, wait := range []time.Duration{2 * time.Second, 5 * time.Second} {
		b.Run(fmt.Sprint("feed_wait=", wait), func(b *testing.B) {
			write("apikeys/config", data{"feed_wait": wait.String()})
			v, err := edge.New(edge.Options{Client: c, Mount: "apikeys"})
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			eventually(b, "the edge follows", func() error {
				got, err := v.Verify(context.Background(), edge.Request{Key: creds.Data["api_key"].(string)})
				if err == nil && !got.Valid {
					b.Fatal(got)
				}
				return err
			})
			span := 6 * wait
			var polls, grown float64
			for b.Loop() {
				before := feedEntries(b, log)
				<-time.After(span)
				for _, entry := range feedEntries(b, log)[len(before):] {
					polls += 0.5 // request and answer
					grown += float64(len(entry))
				}
			}
			if polls == 0 {
				b.Fatal("the feed is not in the audit log")
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(grown/polls, "bytes/poll")
			b.ReportMetric(float64(24*time.Hour)/float64(wait)*grown/polls/1e6, "MB/day")
			b.ReportMetric(polls*float64(wait)/float64(b.N)/float64(span), "polls/wait")
		})
	}
}

// mayAudit lets audit devices be made by a request, on a server that asks for that.
func (n *node) mayAudit(t testing.TB) {
	t.Helper()
	raw, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	var config data
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	config["unsafe_allow_api_audit_creation"] = true
	if raw, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.config, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// feedEntries are the lines of an audit log about the feed.
func feedEntries(t testing.TB, log string) [][]byte {
	t.Helper()
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var entries [][]byte
	for line := range bytes.Lines(raw) {
		if bytes.Contains(line, []byte(`"path":"apikeys/changes"`)) {
			entries = append(entries, line)
		}
	}
	return entries
}
