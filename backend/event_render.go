// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/fill"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/webhook"
)

// rendering is how an endpoint is told: what its configuration comes to.
type rendering struct {
	of     *endpointRecord
	url    *fill.URL
	tree   *fill.Tree // of a template
	source string
}

// payloadNames are the names that payloads have, for templates.
var payloadNames = []string{
	"role", "role_id", "owner", "version", "key_id", "sequence", "cause", "reason", "reason_code", "state", "activates_at",
	"previous_version", "previous_key_id", "previous_valid_until", "current_version", "current_key_id", "automatic", "again", "valid_until", "expires_at",
	"notice", "type", "fields", "former_name", "restorable_until", "code", "used_at", "ended_at", "due", "since", "attempts", "next_attempt", "error",
	"endpoint", "keys", "reason_text", "metadata", "actor", "description", "shortened",
}

// templateNames are the names that a template may hold, with those of the secrets.
func templateNames(secrets map[string]string) []string {
	names := []string{"id", "type", "timestamp", "text", "count", "list"}
	for _, name := range payloadNames {
		names = append(names, "data."+name)
	}
	return append(names, secretNames(secrets)...)
}

func secretNames(secrets map[string]string) []string {
	var names []string
	for _, name := range sortedKeys(secrets) {
		names = append(names, "secret."+name)
	}
	return names
}

// newRendering reads the configuration of an endpoint. The error is a refusal.
func newRendering(e *endpointRecord, source string) (*rendering, error) {
	r := &rendering{of: e, source: source}
	var err error
	if r.url, err = fill.ParseURL("url", e.URL, secretNames(e.Secrets)); err != nil {
		return nil, err
	}
	if e.Format == formatTemplate {
		if r.tree, err = fill.ParseTree("template", []byte(e.Template), templateNames(e.Secrets)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// secret looks a name up among the secrets.
func (r *rendering) secret(name string) (any, bool) {
	rest, ok := strings.CutPrefix(name, "secret.")
	if !ok {
		return nil, false
	}
	v, ok := r.of.Secrets[rest]
	return v, ok
}

// message is what is sent, and where to.
func (r *rendering) message(id string, facts []*fact) (m webhook.Message, target string, err error) {
	if target, err = r.url.Fill(r.secret); err != nil {
		return m, "", fmt.Errorf("the URL: %w", err)
	}
	f := facts[0]
	if r.tree != nil {
		body, err := r.tree.Fill(r.values(id, facts))
		if err != nil {
			return m, "", fmt.Errorf("the template: %w", err)
		}
		return webhook.Template(body), target, nil
	}
	data, err := json.Marshal(f.payload(r.of.Include))
	if err != nil {
		return m, "", fmt.Errorf("the payload: %w", err)
	}
	subject, _ := f.Data["role"].(string)
	event := webhook.Event{ID: id, Type: f.Type, Time: f.At, Subject: subject, Data: data}
	if r.of.Format == formatCloudEvents {
		event.Type = cloudEventsPrefix + f.Type
		m, err = webhook.CloudEvent(event, r.source)
	} else {
		m, err = webhook.Standard(event)
	}
	if err != nil {
		return m, "", fmt.Errorf("the message: %w", err)
	}
	return m, target, nil
}

// cloudEventsPrefix makes a type one of this engine's, in CloudEvents.
const cloudEventsPrefix = "apikeys."

// values are what a template's names stand for.
func (r *rendering) values(id string, facts []*fact) fill.Values {
	f := facts[0]
	data := f.payload(r.of.Include)
	return func(name string) (any, bool) {
		switch name {
		case "id":
			return id, true
		case "type":
			return f.Type, true
		case "timestamp":
			return stamp(f.At), true
		case "count":
			return len(facts), true
		case "text":
			if len(facts) > 1 {
				return fmt.Sprintf("%d × %s", len(facts), f.Type), true
			}
			return f.line(), true
		case "list":
			return listedFacts(facts), true
		}
		if rest, ok := strings.CutPrefix(name, "data."); ok {
			v := data[rest]
			return v, v != nil || slices.Contains(payloadNames, rest)
		}
		return r.secret(name)
	}
}

// listedFacts is a line for each of the first events.
func listedFacts(facts []*fact) string {
	var lines []string
	for _, f := range facts[:min(len(facts), digestShown)] {
		lines = append(lines, f.line())
	}
	if more := len(facts) - digestShown; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// line is the event in words, for people.
func (f *fact) line() string {
	get := func(name string) string {
		switch v := f.Data[name].(type) {
		case nil:
			return ""
		case string:
			return v
		default:
			return fmt.Sprint(v)
		}
	}
	what := "role " + get("role")
	if v := get("version"); v != "" && v != "0" {
		what += " version " + v
	}
	said := func(prefix, name string) string {
		if v := get(name); v != "" {
			return prefix + v
		}
		return ""
	}
	switch f.Type {
	case tellsStaged:
		return what + " is staged" + said(", to be activated at ", "activates_at")
	case tellsActivated:
		return what + " is current" + said("; the previous one ends at ", "previous_valid_until")
	case tellsEnding:
		return what + said(" ends at ", "valid_until") + said(": ", "reason")
	case tellsRetired:
		return what + " has ended" + said(": ", "reason")
	case tellsRevoked:
		return what + " was revoked" + said(": ", "reason_code")
	case tellsExpiring:
		return what + said(" expires at ", "expires_at") + " and nothing replaces it"
	case tellsReported:
		return what + " was found in the open; it is " + get("state")
	case tellsEndedUsed:
		return what + " was used after its end" + said(": ", "state")
	case tellsCreated, tellsUpdated, tellsDeleted, tellsRestored:
		return what + " was " + strings.TrimPrefix(f.Type, "role.")
	case tellsOverdue:
		return "the rotation of " + what + " is overdue" + said(" since ", "due")
	case tellsFailing:
		return "work on " + what + " fails" + said(" since ", "since")
	case tellsRecovered:
		return "work on " + what + " succeeds again"
	case tellsEndpoint:
		return "endpoint " + get("endpoint") + " fails" + said(" since ", "since")
	default:
		return "a test of this endpoint"
	}
}
