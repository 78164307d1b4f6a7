// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
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
