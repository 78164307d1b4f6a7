// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// eventsReachAReceiver: what docs/events.md begins with, against a receiver on this machine, which verifies what
// it is sent.
func eventsReachAReceiver(t *testing.T, e *env) {
	var mu sync.Mutex
	var secret string
	var kinds []string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		key, keyErr := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(r.Header.Get("webhook-id") + "." + r.Header.Get("webhook-timestamp") + "." + string(body)))
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if err != nil || keyErr != nil || !slices.Contains(strings.Fields(r.Header.Get("webhook-signature")), want) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var event struct {
			Type string `json:"type"`
		}
		if json.Unmarshal(body, &event) == nil {
			kinds = append(kinds, event.Type)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	u, err := url.Parse(receiver.URL)
	if err != nil {
		t.Fatal(err)
	}
	e.write("config", data{"egress_allow": "hooks.example.com,10.20.0.0/16,127.0.0.0/8:" + u.Port()})
	made := e.write("events/ops", data{"url": receiver.URL + "/apikeys", "types": "key.*,rotation.failing"})
	mu.Lock()
	secret = made["signing_secret"].(string)
	mu.Unlock()
	if got := e.write("events/ops/test", nil); got["delivered"] != true {
		t.Fatalf("a test comes to %v", got)
	}
	e.write("roles/orders", nil)
	e.write("rotate/orders", data{"grace_period": 0})
	e.write("report", data{"key": e.creds("orders").secret})
	want := "test key.activated key.retired key.activated key.reported key.revoked key.activated"
	within(t, 20*time.Second, "everything is told", func() error {
		mu.Lock()
		defer mu.Unlock()
		if strings.Join(kinds, " ") != want {
			return errNotYet
		}
		return nil
	})
	if st := e.read("events/ops/status"); st["state"] != "ok" {
		t.Errorf("the status is %v", st)
	}
	e.remove("events/ops")
}

// slackLike takes messages as an incoming webhook of Slack does: the secret is in the path, the body is JSON with a
// text, the answer is ok.
type slackLike struct {
	*httptest.Server

	path    string
	arrived chan string
}

func startSlackLike(t *testing.T) *slackLike {
	t.Helper()
	s := &slackLike{path: "/services/T0000/B0000/" + rand.Text(), arrived: make(chan string, 64)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var message struct {
			Text string `json:"text"`
		}
		switch err := json.NewDecoder(r.Body).Decode(&message); {
		case r.Method != http.MethodPost || r.URL.Path != s.path:
			http.Error(w, "invalid_token", http.StatusForbidden)
		case err != nil || message.Text == "" || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json"):
			http.Error(w, "invalid_payload", http.StatusBadRequest)
		default:
			s.arrived <- message.Text
			_, _ = io.WriteString(w, "ok")
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// leakReachesAPerson: somebody finds a key and reports it; within two seconds it is in the chat of those who own it,
// without the key.
func leakReachesAPerson(t *testing.T, e *env) {
	chat := startSlackLike(t)
	u, err := url.Parse(chat.URL)
	if err != nil {
		t.Fatal(err)
	}
	e.write("config", data{"egress_allow": "127.0.0.0/8:" + u.Port()})
	base, hook := path.Split(chat.path)
	e.write("events/chat", data{
		"url": chat.URL + base + "${secret.hook}", "secrets": data{"hook": hook}, "types": "key.reported", "format": "template", "pace": 5,
		"digest": "5m", "template": `{"text": "*${type}* ${data.owner}: ${text} (${data.key_id})"}`,
	})
	most := 2 * time.Second
	if e.server.can(isReal) {
		most *= 2 // several nodes share this machine
	}
	for _, role := range []string{"payments", "orders", "mails"} {
		e.write("roles/"+role, data{"owner": "team-" + role, "on_leak": "alert"})
		found := e.creds(role)
		began := time.Now()
		e.write("report", data{"key": found.secret})
		select {
		case text := <-chat.arrived:
			if took := time.Since(began); took > most {
				t.Errorf("it took %v", took)
			}
			if !strings.Contains(text, "key.reported* team-"+role) || !strings.Contains(text, found.id) || strings.Contains(text, found.secret) {
				t.Errorf("the chat reads %q", text)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing arrives: %v", e.read("events/chat/status"))
		}
	}
	if logs := e.server.logs(); strings.Contains(logs, hook) {
		t.Error("the server's log holds the secret of the chat")
	}
	e.remove("events/chat")
}
