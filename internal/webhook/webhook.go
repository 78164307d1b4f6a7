// SPDX-License-Identifier: MPL-2.0

// Package webhook is the form of what endpoints are sent, and the reading of what they
// answer: Standard Webhooks 1.0, and CloudEvents 1.0 in its structured form with the same
// signatures. It sends nothing and asks no clock.
//
//	m, err := webhook.Standard(event)             // or webhook.CloudEvent(event, source)
//	err = m.Sign(request.Header, event.ID, now, secret, previous)
//	…
//	verdict := webhook.Judge(answer.Status, answer.Header, now)
//	again := webhook.Next(verdict, failures, jitter)
package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of a message.
const (
	IDHeader        = "webhook-id"
	TimestampHeader = "webhook-timestamp"
	SignatureHeader = "webhook-signature"
)

// Event is what a message tells.
type Event struct {
	ID      string    // the same at every attempt; no dots
	Type    string    // dotted words, such as key.revoked
	Time    time.Time // when it became true
	Subject string    // what it is about; CloudEvents has a place for it, and only that form
	Data    json.RawMessage
}

// Message is a body with its type.
type Message struct {
	ContentType string
	Body        []byte
}

// Sign sets the headers of one attempt: at is the attempt's time, not the event's. While
// a secret is changed it is called with the new one and the old one, and receivers that
// hold either are content. The content type is set too.
func (m Message) Sign(h http.Header, id string, at time.Time, secrets ...Secret) error {
	if err := checkID(id); err != nil {
		return err
	}
	if len(secrets) == 0 {
		return errors.New("webhook: nothing to sign with")
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		if len(s.key) < minKey {
			return errors.New("webhook: a secret is too short to sign with")
		}
		signatures[i] = "v1," + s.sign([]byte(id+"."+timestamp+"."), m.Body)
	}
	h.Set("Content-Type", m.ContentType)
	h.Set(IDHeader, id)
	h.Set(TimestampHeader, timestamp)
	h.Set(SignatureHeader, strings.Join(signatures, " "))
	return nil
}

// checkID holds an id to what can be signed without doubt where it ends.
func checkID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if id == "" || len(id) > 256 || strings.Trim(id, letters) != "" {
		return fmt.Errorf("webhook: the id %q is not letters, digits, - and _", id)
	}
	return nil
}

func check(e Event) error {
	if err := checkID(e.ID); err != nil {
		return err
	}
	if e.Type == "" || e.Time.IsZero() {
		return errors.New("webhook: an event needs a type and a time")
	}
	if data := strings.TrimLeft(string(e.Data), " \t\r\n"); !strings.HasPrefix(data, "{") || !json.Valid(e.Data) {
		return errors.New("webhook: the data of an event is a JSON object")
	}
	return nil
}

// Standard is the body of Standard Webhooks.
func Standard(e Event) (Message, error) {
	if err := check(e); err != nil {
		return Message{}, err
	}
	body, err := json.Marshal(struct {
		Type      string          `json:"type"`
		Timestamp string          `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
	}{e.Type, rfc3339(e.Time), e.Data})
	return Message{ContentType: "application/json", Body: body}, err
}

// CloudEvent is an event in the structured form. source is a URI reference that names
// this engine, the same for all its events.
func CloudEvent(e Event, source string) (Message, error) {
	if err := check(e); err != nil {
		return Message{}, err
	}
	if source == "" {
		return Message{}, errors.New("webhook: a CloudEvent needs a source")
	}
	body, err := json.Marshal(struct {
		SpecVersion     string          `json:"specversion"`
		ID              string          `json:"id"`
		Source          string          `json:"source"`
		Type            string          `json:"type"`
		Time            string          `json:"time"`
		Subject         string          `json:"subject,omitempty"`
		DataContentType string          `json:"datacontenttype"`
		Data            json.RawMessage `json:"data"`
	}{"1.0", e.ID, source, e.Type, rfc3339(e.Time), e.Subject, "application/json", e.Data})
	return Message{ContentType: "application/cloudevents+json", Body: body}, err
}

// Template is a body that was made elsewhere, for receivers with a form of their own.
func Template(body []byte) Message { return Message{ContentType: "application/json", Body: body} }

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
