// SPDX-License-Identifier: MPL-2.0

// Package webhooks_test holds what the engine sends to endpoints against those who read
// it: the reference library of Standard Webhooks and the SDK of CloudEvents. It is a
// module of its own, so that nothing of them becomes a requirement of the engine.
package webhooks_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/webhook"
)

func event(n int) webhook.Event {
	return webhook.Event{
		ID: fmt.Sprintf("0b6d9c1e-%d-k3Xz9Qa1", n), Type: "key.revoked", Time: time.Date(2026, 11, 26, 12, 0, 0, 123456789, time.UTC), Subject: "roles/mail",
		Data: json.RawMessage(fmt.Sprintf(`{"role":"mail","version":%d,"owner":"<Zoë> & \"co\"","sequence":9007199254740991}`, n)),
	}
}

// receiver is an endpoint that keeps the requests it got.
type receiver struct {
	*httptest.Server
	got chan received
}

type received struct {
	header http.Header
	body   []byte
}

func listen(t *testing.T) receiver {
	r := receiver{got: make(chan received, 1)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.got <- received{req.Header.Clone(), body}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(r.Close)
	return r
}

// deliver sends a message the way that the engine does, and returns what arrived.
func (r receiver) deliver(t *testing.T, m webhook.Message, id string, at time.Time, secrets ...webhook.Secret) received {
	t.Helper()
	policy, err := egress.Parse(egress.Config{Allow: []string{"127.0.0.1:*"}})
	if err != nil {
		t.Fatal(err)
	}
	manager := egress.NewManager(egress.Options{})
	defer manager.CloseIdle()
	manager.Use(policy)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL, bytes.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(req.Header, id, at, secrets...); err != nil {
		t.Fatal(err)
	}
	answer, err := manager.Do(req, "", egress.MaxAnswer)
	if err != nil || webhook.Judge(answer.Status, answer.Header, at).Outcome != webhook.Delivered {
		t.Fatalf("%+v, %v", answer, err)
	}
	return <-r.got
}

// verifier is the reference library with the secret as it is shown to people.
func verifier(t *testing.T, s webhook.Secret) *standardwebhooks.Webhook {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(s.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestStandardWebhooks(t *testing.T) {
	r := listen(t)
	for n := range 50 {
		secret := webhook.NewSecret()
		e := event(n)
		m, err := webhook.Standard(e)
		if err != nil {
			t.Fatal(err)
		}
		got := r.deliver(t, m, e.ID, time.Now(), secret)
		if err := verifier(t, secret).Verify(got.body, got.header); err != nil {
			t.Fatal(err)
		}
		if err := verifier(t, webhook.NewSecret()).Verify(got.body, got.header); err == nil {
			t.Fatal("another secret verifies")
		}
		var body struct {
			Type      string
			Timestamp time.Time
			Data      struct {
				Owner    string
				Version  int
				Sequence json.Number
			}
		}
		if err := json.Unmarshal(got.body, &body); err != nil {
			t.Fatal(err)
		}
		if body.Type != e.Type || !body.Timestamp.Equal(e.Time) || body.Data.Owner != `<Zoë> & "co"` || body.Data.Version != n || body.Data.Sequence != "9007199254740991" {
			t.Fatalf("the body reads as %+v", body)
		}
		if ct := got.header.Get("Content-Type"); ct != "application/json" {
			t.Fatalf("it is %s", ct)
		}
	}
}

// Nothing of a message can be changed, and none be sent again much later.
func TestChangedMessages(t *testing.T) {
	secret := webhook.NewSecret()
	v := verifier(t, secret)
	e := event(1)
	m, err := webhook.Standard(e)
	if err != nil {
		t.Fatal(err)
	}
	signed := func(at time.Time) http.Header {
		h := http.Header{}
		if err := m.Sign(h, e.ID, at, secret); err != nil {
			t.Fatal(err)
		}
		return h
	}
	if err := v.Verify(m.Body, signed(time.Now())); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(h http.Header, body []byte){
		"the body":      func(_ http.Header, body []byte) { body[len(body)-3]++ },
		"the id":        func(h http.Header, _ []byte) { h.Set(webhook.IDHeader, "x"+e.ID) },
		"the time":      func(h http.Header, _ []byte) { h.Set(webhook.TimestampHeader, fmt.Sprint(time.Now().Unix()-1)) },
		"the signature": func(h http.Header, _ []byte) { h.Set(webhook.SignatureHeader, "v1,AAAA") },
		"the age": func(h http.Header, _ []byte) {
			for k, values := range signed(time.Now().Add(-6 * time.Minute)) {
				h[k] = values
			}
		},
		"the age, before its time": func(h http.Header, _ []byte) {
			for k, values := range signed(time.Now().Add(6 * time.Minute)) {
				h[k] = values
			}
		},
	} {
		h, body := signed(time.Now()), bytes.Clone(m.Body)
		spoil(h, body)
		if v.Verify(body, h) == nil {
			t.Errorf("%s is changed, and it verifies", name)
		}
	}
}

// While a secret is changed, a receiver may take the new one at any moment: no message is
// refused. After that, the old one is worth nothing.
func TestChangeOfSecret(t *testing.T) {
	r := listen(t)
	old, current := webhook.NewSecret(), webhook.NewSecret()
	const first, last, messages = 5, 15, 20 // the grace is from first to last
	for moved := first; moved <= last; moved++ {
		for n := range messages {
			secrets := []webhook.Secret{current, old}
			switch {
			case n < first:
				secrets = []webhook.Secret{old}
			case n >= last:
				secrets = []webhook.Secret{current}
			}
			holds := old
			if n >= moved {
				holds = current
			}
			e := event(n)
			m, err := webhook.Standard(e)
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			if err := m.Sign(h, e.ID, time.Now(), secrets...); err != nil {
				t.Fatal(err)
			}
			if err := verifier(t, holds).Verify(m.Body, h); err != nil {
				t.Fatalf("a receiver that changed before message %d refuses number %d: %v", moved, n, err)
			}
			if n >= last && verifier(t, old).Verify(m.Body, h) == nil {
				t.Fatalf("the old secret verifies message %d", n)
			}
		}
	}
	// The header is one line, as it arrives.
	e := event(1)
	m, err := webhook.Standard(e)
	if err != nil {
		t.Fatal(err)
	}
	got := r.deliver(t, m, e.ID, time.Now(), current, old)
	for _, s := range []webhook.Secret{old, current} {
		if err := verifier(t, s).Verify(got.body, got.header); err != nil {
			t.Error(err)
		}
	}
	if values := got.header.Values(webhook.SignatureHeader); len(values) != 1 || strings.Count(values[0], " ") != 1 {
		t.Errorf("the signatures arrive as %q", values)
	}
}

func TestCloudEvents(t *testing.T) {
	r := listen(t)
	secret := webhook.NewSecret()
	const source = "urn:uuid:7f0a4a2c-6a4e-4b0e-9a53-0d5b1f6f7c11"
	e := event(17)
	m, err := webhook.CloudEvent(e, source)
	if err != nil {
		t.Fatal(err)
	}
	got := r.deliver(t, m, e.ID, time.Now(), secret)
	if err := verifier(t, secret).Verify(got.body, got.header); err != nil {
		t.Fatal(err)
	}
	read, err := cehttp.NewEventFromHTTPRequest(&http.Request{Header: got.header, Body: io.NopCloser(bytes.NewReader(got.body))})
	if err != nil {
		t.Fatal(err)
	}
	if err := read.Validate(); err != nil {
		t.Fatal(err)
	}
	if read.SpecVersion() != cloudevents.VersionV1 || read.ID() != e.ID || read.Source() != source || read.Type() != e.Type || !read.Time().Equal(e.Time) ||
		read.Subject() != e.Subject || read.DataContentType() != cloudevents.ApplicationJSON || len(read.Extensions()) != 0 {
		t.Errorf("it reads as %s", read)
	}
	var data, want map[string]any
	if err := read.DataAs(&data); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(e.Data, &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(data) != fmt.Sprint(want) {
		t.Errorf("the data reads as %v, want %v", data, want)
	}
	if id := got.header.Get(webhook.IDHeader); id != read.ID() {
		t.Errorf("the headers say %s, the event %s", id, read.ID())
	}
	// What the SDK writes of it says the same.
	again, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	var ours, theirs map[string]any
	if json.Unmarshal(got.body, &ours) != nil || json.Unmarshal(again, &theirs) != nil || fmt.Sprint(ours) != fmt.Sprint(theirs) {
		t.Errorf("the SDK writes %s, we %s", again, got.body)
	}
	// Without a subject it is still one.
	e.Subject = ""
	if m, err = webhook.CloudEvent(e, source); err != nil {
		t.Fatal(err)
	}
	var bare cloudevents.Event
	if err := json.Unmarshal(m.Body, &bare); err != nil || bare.Validate() != nil || bare.Subject() != "" {
		t.Errorf("%s: %v", m.Body, err)
	}
}
