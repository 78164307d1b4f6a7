// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// eventForms: each template of bootstrap/endpoints, as docs/monitoring.md has it written, against a receiver that
// takes what the service documents that it takes and refuses all else.
func eventForms(t *testing.T, e *env) {
	services := newServices(t)
	u, err := url.Parse(services.URL)
	if err != nil {
		t.Fatal(err)
	}
	e.write("config", data{"egress_allow": "127.0.0.0/8:" + u.Port()})
	const routingKey = "0123456789abcdef0123456789abcdef"
	pager := data{"url": services.URL + "/v2/enqueue", "secrets": data{"routing_key": routingKey}}
	chat := data{"url": services.URL + "/services/T0123/B0456/${secret.hook}", "secrets": data{"hook": "not-a-hook"}}
	flow := data{"url": services.URL + "/workflows/0123/triggers/manual/paths/invoke?api-version=2016-06-01&sig=${secret.sig}", "secrets": data{"sig": "not/a+sig="}}
	endpoint := func(name, file string, of data, types string, more data) {
		t.Helper()
		raw := readFile(t, filepath.Join("..", "bootstrap", "endpoints", file))
		d := data{"format": "template", "template": raw, "types": types, "pace": 10}
		for _, m := range []data{of, more} {
			for k, v := range m {
				d[k] = v
			}
		}
		e.write("events/"+name, d)
	}
	endpoint("slack", "slack.json", chat, "key.*,role.*,rotation.*,endpoint.failing", nil)
	endpoint("slack-news", "slack-digest.json", chat, "role.created", data{"digest": "10s"})
	endpoint("teams", "teams.json", flow, "*", nil)
	endpoint("pagerduty", "pagerduty.json", pager, "key.reported,key.ending,endpoint.failing", nil)
	endpoint("pagerduty-failing", "pagerduty-failing.json", pager, "rotation.failing", nil)
	endpoint("pagerduty-recovered", "pagerduty-recovered.json", pager, "rotation.recovered", nil)
	for _, name := range []string{"slack", "slack-news", "teams", "pagerduty", "pagerduty-failing", "pagerduty-recovered"} {
		if got := e.write("events/"+name+"/test", nil); got["delivered"] != true {
			t.Errorf("a test of %s comes to %v: %v", name, got, services.refusals())
		}
	}

	// The longest names and owners, with what the services would take for markup.
	long := strings.Repeat("r", 128)
	owner := "<!channel> *team* [x](https://evil.example) " + strings.Repeat("ü", 400)
	e.write("roles/"+long, data{"owner": owner, "on_leak": "alert"})
	for i := range 25 {
		e.write(fmt.Sprintf("roles/%s%02d", long[2:], i), data{"owner": owner})
	}
	e.write("rotate/"+long, data{"grace_period": 0})
	k := e.creds(long)
	reported := time.Now()
	e.write("report", data{"key": k.secret, "source": "paste"})
	within(t, 10*time.Second, "a person is told of a leak", func() error {
		if !services.got("slack", "key.reported") || !services.got("pagerduty", "trigger") {
			return errNotYet
		}
		return nil
	})
	// Two seconds by the book; machines are slow.
	if took := time.Since(reported); took > 5*time.Second {
		t.Errorf("from a leak to the chat and the pager it took %v", took)
	} else {
		t.Logf("from a leak to the chat and the pager it took %v", took)
	}
	within(t, 60*time.Second, "everything is told", func() error {
		if len(services.refusals()) > 0 {
			return nil
		}
		for _, name := range []string{"slack", "slack-news", "teams", "pagerduty"} {
			if e.read("events/" + name + "/status")["backlog"] != json.Number("0") {
				return errNotYet
			}
		}
		if !services.got("slack-digest", "role.created: 2") {
			return errNotYet
		}
		return nil
	})
	for _, refusal := range services.refusals() {
		t.Error(refusal)
	}
	for _, p := range services.pages() {
		if p.RoutingKey != routingKey {
			t.Errorf("a routing key of %d characters", len(p.RoutingKey))
		}
	}
	// A resolution finds the incident: both keys are made of the role alone.
	keys := map[string]string{}
	for _, file := range []string{"pagerduty-failing.json", "pagerduty-recovered.json"} {
		var p page
		if err := json.Unmarshal([]byte(readFile(t, filepath.Join("..", "bootstrap", "endpoints", file))), &p); err != nil {
			t.Fatal(err)
		}
		keys[p.EventAction] = p.DedupKey
	}
	if keys["trigger"] != "apikeys/failing/${data.role_id}" || keys["resolve"] != keys["trigger"] {
		t.Errorf("incidents %q", keys)
	}
}

// services take messages as Slack, Teams and PagerDuty do.
type services struct {
	*httptest.Server
	mu      sync.Mutex
	seen    map[string]bool
	refused []string
	paged   []page
}

func newServices(t *testing.T) *services {
	s := &services{seen: map[string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = s.take(r, body)
		}
		if err != nil {
			s.mu.Lock()
			s.refused = append(s.refused, fmt.Sprintf("%s: %v: %s", r.URL.Path, err, body))
			s.mu.Unlock()
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *services) take(r *http.Request, body []byte) error {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || bytes.Contains(body, []byte("${")) {
		return fmt.Errorf("%s of %s", r.Method, r.Header.Get("Content-Type"))
	}
	saw := func(what ...string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, w := range what {
			s.seen[w] = true
		}
	}
	switch {
	case r.URL.Path == "/services/T0123/B0456/not-a-hook":
		m, err := takesSlack(body)
		if err != nil {
			return err
		}
		if len(m.Blocks) == 0 {
			first, _, _ := strings.Cut(m.Text, "\n")
			saw("slack-digest/"+first, "slack-digest/"+first[:min(len(first), len("role.created: 2"))])
			return nil
		}
		saw("slack/" + m.Blocks[0].Text.Text)
	case strings.HasPrefix(r.URL.Path, "/workflows/") && r.URL.Query().Get("sig") == "not/a+sig=":
		return takesTeams(body)
	case r.URL.Path == "/v2/enqueue":
		p, err := takesPagerDuty(body)
		if err != nil {
			return err
		}
		saw("pagerduty/" + p.EventAction)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.paged = append(s.paged, p)
	default:
		return errors.New("nobody is there")
	}
	return nil
}

func (s *services) got(service, what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[service+"/"+what]
}

func (s *services) refusals() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

func (s *services) pages() []page {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.paged)
}

// strict decodes what has no members but the documented ones.
func strict(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// between reports whether a text has a length that a service takes, in characters.
func between(text string, least, most int) bool {
	n := utf8.RuneCountInString(text)
	return n >= least && n <= most
}

// slackText is a text object of Slack's blocks.
type slackText struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Emoji *bool  `json:"emoji"`
}

// slackMessage is the payload of an incoming webhook, as far as the templates use it.
type slackMessage struct {
	Text   string `json:"text"`
	Mrkdwn *bool  `json:"mrkdwn"`
	Blocks []struct {
		Type   string      `json:"type"`
		Text   *slackText  `json:"text"`
		Fields []slackText `json:"fields"`
	} `json:"blocks"`
}

// takesSlack holds a message to Slack's documentation of incoming webhooks and of blocks: sizes, and what is refused
// as invalid_blocks.
func takesSlack(body []byte) (m slackMessage, err error) {
	if err := strict(body, &m); err != nil {
		return m, err
	}
	plain := func(t *slackText, most int) bool {
		// Markup of senders is not looked at: only texts that are shown as they are may hold what they say.
		return t != nil && t.Type == "plain_text" && between(t.Text, 1, most)
	}
	switch {
	case !between(m.Text, 1, 40_000):
		return m, errors.New("no_text")
	case len(m.Blocks) == 0 && (m.Mrkdwn == nil || *m.Mrkdwn):
		return m, errors.New("a text that is read as markup")
	case strings.Contains(m.Text, "<!"):
		return m, errors.New("a mention")
	case len(m.Blocks) > 50:
		return m, errors.New("invalid_blocks: more than 50")
	}
	for i, b := range m.Blocks {
		ok := false
		switch b.Type {
		case "header":
			ok = plain(b.Text, 150) && b.Fields == nil
		case "section":
			ok = (b.Text == nil || plain(b.Text, 3000)) && (b.Text != nil || len(b.Fields) > 0) && len(b.Fields) <= 10
			for _, f := range b.Fields {
				ok = ok && plain(&f, 2000)
			}
		}
		if !ok {
			return m, fmt.Errorf("invalid_blocks: %d", i)
		}
	}
	return m, nil
}

// takesTeams holds a message to what a workflow of Teams takes: an adaptive card of at most 28 KB.
func takesTeams(body []byte) error {
	type text struct {
		Type, Text, Size, Weight string
		Wrap                     bool
		Facts                    []struct{ Title, Value string }
	}
	var m struct {
		Type        string `json:"type"`
		Attachments []struct {
			ContentType string  `json:"contentType"`
			ContentURL  *string `json:"contentUrl"`
			Content     struct {
				Schema  string `json:"$schema"`
				Type    string `json:"type"`
				Version string `json:"version"`
				Body    []text `json:"body"`
			} `json:"content"`
		} `json:"attachments"`
	}
	if err := strict(body, &m); err != nil {
		return err
	}
	if len(body) > 28<<10 || m.Type != "message" || len(m.Attachments) != 1 {
		return fmt.Errorf("%d bytes, %s, %d cards", len(body), m.Type, len(m.Attachments))
	}
	a := m.Attachments[0]
	if a.ContentType != "application/vnd.microsoft.card.adaptive" || a.ContentURL != nil || a.Content.Type != "AdaptiveCard" || a.Content.Version != "1.4" ||
		a.Content.Schema != "http://adaptivecards.io/schemas/adaptive-card.json" || len(a.Content.Body) == 0 {
		return errors.New("no adaptive card")
	}
	for _, b := range a.Content.Body {
		if !(b.Type == "TextBlock" && b.Text != "" && b.Facts == nil || b.Type == "FactSet" && b.Text == "" && len(b.Facts) > 0) {
			return fmt.Errorf("an element %+v", b)
		}
	}
	return nil
}

// page is an alert event of PagerDuty's Events API v2.
type page struct {
	RoutingKey  string `json:"routing_key"`
	EventAction string `json:"event_action"`
	DedupKey    string `json:"dedup_key"`
	Payload     *struct {
		Summary       string         `json:"summary"`
		Source        string         `json:"source"`
		Severity      string         `json:"severity"`
		Timestamp     string         `json:"timestamp"`
		Component     *string        `json:"component"`
		Group         *string        `json:"group"`
		Class         *string        `json:"class"`
		CustomDetails map[string]any `json:"custom_details"`
	} `json:"payload"`
}

// takesPagerDuty holds a message to the documentation of the Events API v2.
func takesPagerDuty(body []byte) (p page, err error) {
	if err := strict(body, &p); err != nil {
		return p, err
	}
	switch {
	case len(body) > 512<<10 || !between(p.RoutingKey, 32, 32):
		return p, errors.New("'routing_key' is missing or blank")
	case !slices.Contains([]string{"trigger", "acknowledge", "resolve"}, p.EventAction):
		return p, errors.New("'event_action' is invalid")
	case !between(p.DedupKey, 0, 255) || p.EventAction != "trigger" && p.DedupKey == "":
		return p, errors.New("'dedup_key' is invalid")
	case p.EventAction == "resolve":
		return p, nil
	case p.Payload == nil || !between(p.Payload.Summary, 1, 1024) || p.Payload.Source == "":
		return p, errors.New("'payload.summary' or 'payload.source' is missing, blank or too long")
	case !slices.Contains([]string{"critical", "error", "warning", "info"}, p.Payload.Severity):
		return p, errors.New("'payload.severity' is invalid")
	}
	// Strings are not null.
	var raw struct{ Payload map[string]any }
	if err := json.Unmarshal(body, &raw); err != nil {
		return p, err
	}
	for _, name := range []string{"component", "class"} {
		if _, ok := raw.Payload[name].(string); !ok {
			return p, fmt.Errorf("'payload.%s' is no string", name)
		}
	}
	_, err = time.Parse(time.RFC3339Nano, p.Payload.Timestamp)
	return p, err
}
