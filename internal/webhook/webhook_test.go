// SPDX-License-Identifier: MPL-2.0

package webhook

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

var moment = time.Date(2026, 11, 26, 13, 0, 0, 250_000_000, time.FixedZone("", 3600))

func event() Event {
	return Event{ID: "0b6d-17-k3", Type: "key.revoked", Time: moment, Subject: "role/mail", Data: json.RawMessage(`{"version": 17}`)}
}

func TestSecret(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		s := NewSecret()
		text := s.Reveal()
		again, err := ParseSecret(text)
		if err != nil || again.Reveal() != text || len(s.key) < 24 || seen[text] {
			t.Fatalf("a new secret of %d bytes: %v", len(s.key), err)
		}
		seen[text] = true
		if printed := fmt.Sprintf("%v %+v %#v %s %q %x %d %o", s, s, &s, s, s, s, s, []Secret{s}); strings.ReplaceAll(printed, secretPrefix+"…", "?") != "? ? ? ? ? ? ? [?]" {
			t.Fatal("a secret prints")
		}
		if raw, err := json.Marshal(map[string]any{"secret": s}); err == nil {
			t.Fatalf("a secret is in JSON: %d bytes", len(raw))
		}
	}
	encoded := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, text := range []string{
		"", "whsec_", encoded(32), "whsec_" + encoded(23), "whsec_" + encoded(65), "whsk_" + encoded(32), "WHSEC_" + encoded(32),
		"whsec_" + strings.TrimRight(encoded(32), "="), "whsec_" + encoded(32) + "\n", " whsec_" + encoded(32), "whsec_" + strings.Repeat("!", 32),
		"whsec_" + strings.Repeat("A", 42) + "B=", // the same bytes in another spelling
	} {
		if _, err := ParseSecret(text); err == nil || len(text) > 10 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, n := range []int{24, 64} {
		if _, err := ParseSecret("whsec_" + encoded(n)); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// The example of the specification.
func TestSign(t *testing.T) {
	secret, err := ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	m := Message{ContentType: "application/json", Body: []byte(`{"test": 2432232314}`)}
	const id, want = "msg_p5jXN8AQM9LWM0D4loKWxJek", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	at := time.Unix(1614265330, 999)
	h := http.Header{}
	if err := m.Sign(h, id, at, secret); err != nil {
		t.Fatal(err)
	}
	if h.Get(IDHeader) != id || h.Get(TimestampHeader) != "1614265330" || h.Get(SignatureHeader) != want || h.Get("Content-Type") != "application/json" {
		t.Errorf("signed as %v", h)
	}
	other := NewSecret()
	if err := m.Sign(h, id, at, other, secret); err != nil {
		t.Fatal(err)
	}
	if both := strings.Split(h.Get(SignatureHeader), " "); len(both) != 2 || both[1] != want || both[0] == want || len(h[http.CanonicalHeaderKey(SignatureHeader)]) != 1 {
		t.Errorf("two secrets sign as %v", h)
	}
	for _, id := range []string{"", "a.b", "a b", "a\n", "é", strings.Repeat("x", 257)} {
		if m.Sign(h, id, at, secret) == nil {
			t.Errorf("the id %.10q is signed", id)
		}
	}
	if err := m.Sign(h, strings.Repeat("x", 256), at, secret); err != nil {
		t.Error(err)
	}
	if m.Sign(h, id, at) == nil || m.Sign(h, id, at, Secret{}) == nil || m.Sign(h, id, at, secret, Secret{}) == nil {
		t.Error("it signs without a secret")
	}
}

func TestForms(t *testing.T) {
	m, err := Standard(event())
	if want := `{"type":"key.revoked","timestamp":"2026-11-26T12:00:00.25Z","data":{"version":17}}`; err != nil || string(m.Body) != want || m.ContentType != "application/json" {
		t.Errorf("standard: %s, %v", m.Body, err)
	}
	m, err = CloudEvent(event(), "urn:uuid:1")
	if want := `{"specversion":"1.0","id":"0b6d-17-k3","source":"urn:uuid:1","type":"key.revoked","time":"2026-11-26T12:00:00.25Z","subject":"role/mail","datacontenttype":"application/json","data":{"version":17}}`; err != nil || string(m.Body) != want || m.ContentType != "application/cloudevents+json" {
		t.Errorf("CloudEvents: %s, %v", m.Body, err)
	}
	if _, err := CloudEvent(event(), ""); err == nil {
		t.Error("an event without a source")
	}
	if m := Template([]byte("[]")); m.ContentType != "application/json" || string(m.Body) != "[]" {
		t.Errorf("a template: %+v", m)
	}
	for name, spoil := range map[string]func(*Event){
		"no id": func(e *Event) { e.ID = "" }, "no type": func(e *Event) { e.Type = "" }, "no time": func(e *Event) { e.Time = time.Time{} },
		"no data": func(e *Event) { e.Data = nil }, "a list": func(e *Event) { e.Data = json.RawMessage(`[]`) }, "broken data": func(e *Event) { e.Data = json.RawMessage(`{"a":`) }, "more than data": func(e *Event) { e.Data = json.RawMessage(`{} {}`) },
	} {
		e := event()
		spoil(&e)
		if _, err := Standard(e); err == nil {
			t.Errorf("%s: standard", name)
		}
		if _, err := CloudEvent(e, "x"); err == nil {
			t.Errorf("%s: CloudEvents", name)
		}
	}
}

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		status      int
		after, date string
		want        Verdict
	}{
		{200, "", "", Verdict{Delivered, 0}},
		{204, "60", "", Verdict{Delivered, 0}},
		{299, "", "", Verdict{Delivered, 0}},
		{0, "", "", Verdict{Failed, 0}},
		{100, "", "", Verdict{Failed, 0}},
		{199, "", "", Verdict{Failed, 0}},
		{300, "", "", Verdict{Failed, 0}},
		{301, "60", "", Verdict{Failed, 0}},
		{400, "60", "", Verdict{Failed, 0}},
		{404, "", "", Verdict{Failed, 0}},
		{409, "", "", Verdict{Failed, 0}},
		{500, "60", "", Verdict{Failed, 0}},
		{501, "", "", Verdict{Failed, 0}},
		{505, "", "", Verdict{Failed, 0}},
		{410, "60", "", Verdict{Gone, 0}},
		{429, "", "", Verdict{Throttled, 0}},
		{502, "60", "", Verdict{Throttled, time.Minute}},
		{503, " 60 ", "", Verdict{Throttled, time.Minute}},
		{504, "0", "", Verdict{Throttled, 0}},
		{429, "3599", "", Verdict{Throttled, 3599 * time.Second}},
		{429, "3600", "", Verdict{Throttled, time.Hour}},
		{429, "3601", "", Verdict{Throttled, time.Hour}},
		{429, "9223372036854775807", "", Verdict{Throttled, time.Hour}},
		{429, "99999999999999999999999", "", Verdict{Throttled, time.Hour}},
		{429, "-5", "", Verdict{Throttled, 0}},
		{429, "1.5", "", Verdict{Throttled, 0}},
		{429, "soon", "", Verdict{Throttled, 0}},
		{429, "60s", "", Verdict{Throttled, 0}},
		{429, date(time.Minute), "", Verdict{Throttled, time.Minute}},
		{429, date(-time.Minute), "", Verdict{Throttled, 0}},
		{429, date(48 * time.Hour), "", Verdict{Throttled, time.Hour}},
		// The receiver's clock is an hour behind, or not there.
		{503, date(-time.Hour + time.Minute), date(-time.Hour), Verdict{Throttled, time.Minute}},
		{503, date(time.Minute), "today", Verdict{Throttled, time.Minute}},
	} {
		h := http.Header{}
		if c.after != "" {
			h.Set("Retry-After", c.after)
		}
		if c.date != "" {
			h.Set("Date", c.date)
		}
		if got := Judge(c.status, h, now); got != c.want {
			t.Errorf("%d %q %q: %+v, want %+v", c.status, c.after, c.date, got, c.want)
		}
	}
	if got := Judge(503, nil, now); got != (Verdict{Throttled, 0}) {
		t.Errorf("without headers: %+v", got)
	}
}

func TestBackoff(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		-1: 5 * time.Second, 0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 3: 20 * time.Second, 7: 320 * time.Second,
		10: 2560 * time.Second, 11: time.Hour, 12: time.Hour, 64: time.Hour, 1 << 40: time.Hour,
	} {
		if got := Backoff(failures, 0); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
		if got := Backoff(failures, 0.999999); got < want*3/4 || got > want*76/100 {
			t.Errorf("after %d failures with luck %v", failures, got)
		}
	}
	for _, odd := range []float64{-1, 1, 2, nan()} {
		if got := Backoff(1, odd); got != 5*time.Second {
			t.Errorf("a jitter of %v makes %v", odd, got)
		}
	}
	for _, c := range []struct{ after, want time.Duration }{{0, 20 * time.Second}, {time.Second, 20 * time.Second}, {time.Minute, time.Minute}, {2 * time.Hour, time.Hour}} {
		if got := Next(Verdict{Throttled, c.after}, 3, 0); got != c.want {
			t.Errorf("asked for %v it waits %v, want %v", c.after, got, c.want)
		}
	}
	// An endpoint counts as failing after five minutes and five attempts.
	total, attempts := time.Duration(0), 1
	for ; total < 5*time.Minute; attempts++ {
		total += Backoff(attempts, 0)
	}
	if attempts < 5 {
		t.Errorf("five minutes are over after %d attempts", attempts)
	}
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}
