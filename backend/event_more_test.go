// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
)

// With a memory that is too small for what waits, a dead endpoint delays nobody, and gets
// everything when it works again.
func TestMemoryIsTooSmall(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.outbox.most = 40
	m.endpoint("dead", map[string]any{"types": "role.*"})
	m.endpoint("good", map[string]any{"types": "role.*"})
	m.answer("dead.example.com", badAnswers["breaks"])
	const n = 150
	for i := range n {
		m.write(fmt.Sprintf("roles/r%03d", i), map[string]any{"type": "dynamic"})
		if i%10 == 9 {
			m.clock.advance(time.Minute)
			m.deliver()
			if got := m.heardBy("good"); len(got) != 10 {
				t.Fatalf("after %d roles the good one heard %d more", i+1, len(got))
			}
		}
	}
	if have := len(m.outbox.heads); have > 40 {
		t.Errorf("%d entries are in memory", have)
	}
	if st := m.read("events/dead/status"); st["more"] != true {
		t.Errorf("the status is %v", st)
	}
	m.answer("dead.example.com", nil)
	m.pass(4*time.Hour, 5*time.Minute)
	if got := m.heardBy("dead"); len(got) != n {
		t.Errorf("it got %d of %d: %v", len(got), n, m.read("events/dead/status"))
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left in the outbox", len(left))
	}
}

// What somebody has to act upon goes first, with what came before of its role; after a
// failover the newest is told first.
func TestTheOrderAcrossRoles(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("e", nil)
	m.write("config", map[string]any{"outbound_paused": true})
	for _, role := range []string{"a", "b", "c"} {
		m.write("roles/"+role, map[string]any{"rotation_period": 0, "on_leak": "alert"})
		m.clock.advance(time.Minute)
	}
	m.write("revoke/b", map[string]any{"version": 1})
	m.write("report", map[string]any{"key": m.read("creds/c")["api_key"]})
	m.deliver()
	m.outbox.spawn = func(fn func()) { fn() } // one after the other
	m.write("config", map[string]any{"outbound_paused": false})
	m.deliver()
	var order []string
	for _, n := range m.heardBy("e") {
		if len(order) == 0 || order[len(order)-1] != n.role {
			order = append(order, n.role)
		}
	}
	if len(order) == 0 || order[0] != "c" || slices.Index(order, "b") > slices.Index(order, "a") {
		t.Errorf("the order is %q", order)
	}
}

// The forms of a message.
func TestForms(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("std", map[string]any{"types": "role.updated", "include": "actor,metadata,text"})
	m.endpoint("bare", map[string]any{"types": "role.updated"})
	m.endpoint("ce", map[string]any{"types": "role.updated", "format": "cloudevents"})
	m.write("events/slack", map[string]any{
		"url": "https://slack.example.com/services/T1/${secret.hook}?x=${secret.hook}", "types": "role.updated", "format": "template",
		"template": `{"text":"${text}","n":"${count}","owner":"${data.owner}","seq":"${data.sequence}","none":"${data.version}"}`,
		"secrets":  map[string]any{"hook": "a/b"},
	})
	var target string
	courier := m.courier
	_ = courier
	m.write("roles/r", map[string]any{"owner": "team", "metadata": map[string]any{"env": "prod"}, "description": "orders"})
	m.write("roles/r", map[string]any{"owner": "team2"})
	m.answer("slack.example.com", func(n tidings) (*egress.Answer, error) {
		target = n.body
		return &egress.Answer{Status: 200, Header: map[string][]string{}}, nil
	})
	m.deliver()
	std := m.heardBy("std")
	if len(std) != 1 || std[0].data["owner"] != "team2" || fmt.Sprint(std[0].data["metadata"]) != "map[env:prod]" || std[0].data["description"] != "orders" ||
		fmt.Sprint(std[0].data["actor"]) != "map[display_name:token-operator entity_id:]" || fmt.Sprint(std[0].data["fields"]) != "[owner]" {
		t.Errorf("standard: %+v", std)
	}
	bare := m.heardBy("bare")
	if len(bare) != 1 || bare[0].data["metadata"] != nil || bare[0].data["actor"] != nil || bare[0].data["description"] != nil {
		t.Errorf("bare: %+v", bare)
	}
	ce := m.heardBy("ce")
	var event map[string]any
	if len(ce) != 1 || json.Unmarshal([]byte(ce[0].body), &event) != nil || event["specversion"] != "1.0" || event["type"] != "apikeys.role.updated" ||
		event["source"] != "urn:uuid:test" || event["id"] != ce[0].id || event["subject"] != "r" || !strings.HasPrefix(ce[0].head.Get("Content-Type"), "application/cloudevents+json") {
		t.Errorf("cloudevents: %+v", ce)
	}
	var body map[string]any
	if json.Unmarshal([]byte(target), &body) != nil || body["text"] != "role r was updated" || body["n"] != 1.0 || body["owner"] != "team2" || body["none"] != nil {
		t.Errorf("template: %s", target)
	}
	if v := fmt.Sprint(m.read("events/slack")); strings.Contains(v, "a/b") || !strings.Contains(v, "hook") {
		t.Errorf("a read shows %s", v)
	}
}

// A digest joins what happens in its time, and holds back nothing that was found in the
// open.
func TestADigest(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.write("events/d", map[string]any{
		"url": "https://d.example.com", "types": "key.activated,key.reported", "format": "template", "digest": "10m", "pace": 1000,
		"template": `{"type":"${type}","data":{"count":"${count}","list":"${list}"}}`,
	})
	for i := range 30 {
		m.write(fmt.Sprintf("roles/r%d", i), map[string]any{"rotation_period": 0, "on_leak": "alert"})
	}
	m.deliver()
	m.write("report", map[string]any{"key": m.read("creds/r3")["api_key"]})
	m.deliver()
	if got := m.heardBy("d"); kinds(got) != "key.reported" {
		t.Errorf("at once it got %q", kinds(got))
	}
	m.pass(9*time.Minute, time.Minute)
	if got := m.heardBy("d"); len(got) > 0 {
		t.Errorf("before its time it got %q", kinds(got))
	}
	m.pass(2*time.Minute, time.Minute)
	got := m.heardBy("d")
	if len(got) != 1 || got[0].data["count"] != 30.0 || strings.Count(got[0].data["list"].(string), "\n") != 20 || !strings.Contains(got[0].data["list"].(string), "and 10 more") {
		t.Errorf("it got %+v", got)
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("%d are left in the outbox", len(left))
	}
}

// What an operator may not write of an endpoint.
func TestEndpointsAreChecked(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.write("events/e", map[string]any{"url": "https://hooks.example.com/${secret.a}", "secrets": map[string]any{"a": "x"}})
	for what, c := range map[string]struct {
		data map[string]any
		want string
	}{
		"plain http":      {map[string]any{"url": "http://hooks.example.com"}, "url: "},
		"unknown secret":  {map[string]any{"url": "https://hooks.example.com/${secret.b}"}, "url: "},
		"another host":    {map[string]any{"url": "https://evil.example.com/${secret.a}"}, "write secrets again"},
		"no such type":    {map[string]any{"types": "key.made"}, "types: "},
		"odd pattern":     {map[string]any{"types": "k*"}, "types: "},
		"no template":     {map[string]any{"format": "template"}, "template: "},
		"unasked":         {map[string]any{"template": "{}"}, "template: "},
		"unknown name":    {map[string]any{"format": "template", "template": `{"a":"${data.secret}"}`}, "template: "},
		"digest":          {map[string]any{"digest": "1h"}, "digest: "},
		"pace":            {map[string]any{"pace": 0}, "pace: "},
		"include":         {map[string]any{"include": "key"}, "include: "},
		"certificate":     {map[string]any{"ca": "x"}, "ca: "},
		"secret's name":   {map[string]any{"secrets": map[string]any{"A": "x"}}, "secrets: "},
		"the secret goes": {map[string]any{"secrets": map[string]any{"b": "x"}}, "url: "},
	} {
		t.Run(what, func(*testing.T) {
			m.refused(logical.UpdateOperation, "events/e", c.data, c.want)
		})
	}
	for i := range maxEndpoints - 1 {
		m.endpoint(fmt.Sprintf("e%d", i), nil)
	}
	m.refused(logical.UpdateOperation, "events/more", map[string]any{"url": "https://hooks.example.com"}, "16")
	if status, _ := httpStatus(m.do(logical.UpdateOperation, "events/none/test", nil)); status != 404 {
		t.Errorf("a test of none: %d", status)
	}
	if resp, err := m.do(logical.UpdateOperation, "events/e1", map[string]any{"url": "https://elsewhere.example.org"}); err != nil || resp == nil || len(resp.Warnings) == 0 {
		t.Errorf("nothing says that it may not leave: %v %v", resp, err)
	}
}

// Work on a role that fails is told once, and that it succeeds again.
func TestFailingAndRecovered(t *testing.T) {
	t.Parallel()
	s := &broken{Storage: &logical.InmemStorage{}}
	m := eventMountOn(t, s, newFakeClock(), nil)
	m.endpoint("e", map[string]any{"types": "rotation.*"})
	m.write("roles/r", map[string]any{"rotation_period": "24h"})
	m.deliver()
	m.clock.advance(24*time.Hour - 5*time.Minute)
	s.call = "put " + rolePath("r")
	m.pass(30*time.Minute, time.Minute)
	if got := kinds(m.heardBy("e")); got != "rotation.failing rotation.overdue" {
		t.Errorf("it fails, and tells %q", got)
	}
	m = eventMountOn(t, s, m.clock, m.outside)
	s.call = ""
	m.pass(2*time.Hour, 5*time.Minute)
	if got := kinds(m.heardBy("e")); got != "rotation.recovered" {
		t.Errorf("it recovers, and tells %q", got)
	}
}

// Where the outbox cannot take what a kill tells, the kill goes on, and it is told later,
// also by another node.
func TestAKillIsToldLater(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix  string
		restart bool
	}{{outboxPrefix, false}, {outboxPrefix, true}, {endpointsPath, true}} {
		restart := c.restart
		s := &failsUnder{Storage: &logical.InmemStorage{}}
		m := eventMountOn(t, s, newFakeClock(), nil)
		m.endpoint("e", nil)
		m.write("roles/r", map[string]any{"rotation_period": 0})
		m.deliver()
		m.heardBy("e")
		if c.prefix == endpointsPath { // a node that has not read them yet
			m = eventMountOn(t, s, m.clock, m.outside)
			m.endpoints.state.Store(nil) // a server goes on with what has not started well
		}
		s.prefix = c.prefix
		m.write("revoke/r", map[string]any{"version": 1})
		s.prefix = ""
		if restart {
			m = eventMountOn(t, s, m.clock, m.outside)
			m.clock.advance(2 * time.Minute)
		}
		m.pass(5*time.Minute, time.Minute)
		if got := kinds(m.heardBy("e")); got != "key.revoked key.activated" {
			t.Errorf("%+v: it tells %q", c, got)
		}
		rec, err := getRecord[roleRecord](t.Context(), s, rolePath("r"))
		if err != nil || len(rec.Untold) > 0 {
			t.Errorf("still untold: %v %v", rec.Untold, err)
		}
	}
}

// Notices keep the order and the form in which a program writes them.
func TestNotifyBefore(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.write("config", map[string]any{"notify_before": []any{json.Number("86400"), "14d"}})
	if got := fmt.Sprint(m.read("config")["notify_before"]); got != "[86400 1209600]" {
		t.Errorf("it is %s", got)
	}
	for value, want := range map[string]string{"1d,x": "notify_before: ", "1s": "1m to 365d", "1d,2d,3d,4d,5d,6d,7d,8d,9d": "more than 8"} {
		m.refused(logical.UpdateOperation, "config", map[string]any{"notify_before": value}, want)
	}
	m.write("config", map[string]any{"notify_before": []any{}})
	m.endpoint("e", map[string]any{"types": "key.expiring"})
	m.write("roles/r", map[string]any{"rotation_period": 0, "ttl": "30d"})
	m.pass(29*24*time.Hour, time.Hour)
	if got := m.heardBy("e"); len(got) > 0 {
		t.Errorf("it tells %q", kinds(got))
	}
}

// What another node may have dealt with meanwhile is read anew: nothing is lost, and
// what it has removed is not told again.
func TestAnotherNodeWrites(t *testing.T) {
	t.Parallel()
	m := newEventMount(t)
	m.endpoint("e", map[string]any{"types": "key.activated"})
	m.answer("e.example.com", badAnswers["breaks"])
	for _, role := range []string{"a", "b", "c"} {
		m.write("roles/"+role, map[string]any{"rotation_period": 0})
		m.write("rotate/"+role, nil)
	}
	m.pass(time.Minute, 10*time.Second)
	paths := m.under(outboxPrefix)
	if len(paths) != 6 {
		t.Fatalf("%d entries", len(paths))
	}
	if err := m.storage.Delete(t.Context(), paths[0]); err != nil { // another node has told it
		t.Fatal(err)
	}
	m.invalidate(t.Context(), paths[0])
	m.pass(time.Minute, 10*time.Second)
	if st := m.read("events/e/status"); number(t, st["backlog"]) != 5 {
		t.Errorf("the status is %v", st)
	}
	m.answer("e.example.com", nil)
	m.pass(10*time.Minute, time.Minute)
	if got := m.heardBy("e"); len(got) != 5 {
		t.Errorf("it got %d", len(got))
	}
	if left := m.under(outboxPrefix); len(left) > 0 {
		t.Errorf("left in the outbox: %q", left)
	}
}

// Endpoints that a newer build wrote, or that are damaged, are left alone, and keep no key
// from anything.
func TestEndpointsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, stored := range []string{`{"schema":99,"endpoints":{"e":{}}}`, `{"schema":`} {
		endpointsCannotBeRead(t, stored)
	}
}

func endpointsCannotBeRead(t *testing.T, stored string) {
	t.Helper()
	m := newEventMount(t)
	m.endpoint("e", nil)
	m.write("roles/r", map[string]any{"rotation_period": "24h"})
	m.answer("e.example.com", badAnswers["refuses"])
	m.deliver()
	if err := m.storage.Put(t.Context(), &logical.StorageEntry{Key: endpointsPath, Value: []byte(stored)}); err != nil {
		t.Fatal(err)
	}
	waits := len(m.under(outboxPrefix))
	m = eventMountOn(t, m.storage, m.clock, m.outside)
	m.write("rotate/r", nil)
	m.write("revoke/r", map[string]any{"version": 1})
	m.pass(25*time.Hour, time.Hour)
	if v := m.newestVersion("r"); v < 3 {
		t.Errorf("the newest version is %d", v)
	}
	if left := len(m.under(outboxPrefix)); left != waits {
		t.Errorf("%d entries, before it were %d", left, waits)
	}
}
