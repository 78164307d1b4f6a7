// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/webhook"
)

const (
	// maxEndpoints bounds them: each commit names those that want to know.
	maxEndpoints     = 16
	maxTypes         = 32
	maxTemplate      = 16 << 10
	maxEndpointCA    = 16 << 10
	maxSecrets       = 16
	maxSecret        = 1024
	maxEndpointPace  = 10000
	leastPace        = 0.01
	maxDigest        = 24 * time.Hour
	leastDigest      = 10 * time.Second
	defaultRollover  = 24 * time.Hour
	maxRollover      = 7 * 24 * time.Hour
	maxSigning       = 4
	endpointDefaults = "*"
)

// endpointFields are what an operator writes of an endpoint.
func endpointFields() fieldSet {
	return fieldSet{
		"url": {
			kind: kindText, required: true,
			about: "Where events are sent: https, or http to this machine; config's egress_allow must name it. ${secret.<name>} stands for a secret in its path and query.",
		},
		"types": {
			kind: kindList, empty: emptyNever,
			about: "Which events: their types, or all that begin so, such as key.*. Default: * for all.",
		},
		"name_prefix": {kind: kindText, about: "Only events of roles whose names begin like this, and those of no role. Default: all roles."},
		"format": {
			kind: kindText, def: formatStandard, choices: formats,
			about: "standard: Standard Webhooks 1.0. cloudevents: CloudEvents 1.0, structured, with the same headers. template: the JSON of template, for receivers with a form of their own.",
		},
		"template": {
			kind: kindText, empty: emptyTaken,
			about: "With format=template: a JSON object in which ${type}, ${timestamp}, ${id}, ${text}, ${count}, ${list}, ${data.<name>} and ${secret.<name>} stand for their values. At most 16 KiB.",
		},
		"include": {
			kind: kindList, empty: emptyTaken,
			about: "What the endpoint gets beyond ids, versions, times, owner and reason code: actor, metadata, text (description and reason). Default: none.",
		},
		"digest": {
			kind:  kindDuration,
			about: "With format=template: how long events of a type are collected for one message, 10s to 24h; 0 is not at all. key.reported is never held back. Default: 0.",
		},
		"pace": {kind: kindNumber, about: "Messages per second at most: 0.01 to 10000. Default: 10; with format=template 1."},
		"ca":   {kind: kindText, empty: emptyTaken, about: "Certificates (PEM) that the endpoint's is checked against, in place of the system's. At most 16 KiB."},
		"disabled": {
			kind: kindSwitch, about: "Collects and sends nothing. Writing false also has an endpoint tried again that the engine gave up. Default: false.",
		},
		"secrets": {
			kind: kindMap, secret: true,
			about: "Secrets for url and template, by name; at most 16, each at most 1024 characters. They replace those of before and are never read back.",
		},
	}
}

func endpointView() map[string]*framework.FieldSchema {
	fields := endpointFields()
	delete(fields, "secrets")
	return schemas(fields.schemas(), map[string]*framework.FieldSchema{
		"name":         {Type: framework.TypeString, Description: "Name of the endpoint."},
		"id":           {Type: framework.TypeString, Description: "Its id, never used again."},
		"created":      {Type: framework.TypeString, Description: "When it was created (RFC 3339)."},
		"secret_names": {Type: framework.TypeStringSlice, Description: "Names of its secrets."},
	})
}

func (b *backend) pathsEvents() []*framework.Path {
	nameOf := fieldSet{"name": {kind: kindText, about: "Name of the endpoint."}}
	secret := map[string]*framework.FieldSchema{
		"signing_secret": {
			Type: framework.TypeString, Description: "What the endpoint checks signatures with. It is shown this once.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
	}
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "events/?$", suffix: "event-endpoints", lists: "Endpoint",
			synopsis: "List the endpoints of events.",
			fields:   pageFieldSet(true),
			ops: map[logical.Operation]operation{
				logical.ListOperation: {
					do: b.listEndpoints, told: "The names, sorted.", answer: listFields("By name: format, types, disabled."),
				},
			},
			help: "Where events are sent. events/<name>/status says how deliveries go.",
		}),
		b.path(pathSpec{
			pattern: "events/" + nameRegex + "/rotate-secret", verb: "rotate", suffix: "event-endpoint-secret",
			synopsis: "Make a new signing secret for an endpoint.",
			fields: fieldsOf(nameOf, fieldSet{
				"grace_period": {kind: kindDuration, about: "How long deliveries are signed with the previous secret, too: at most 7d; 0 for one that leaked. Default: 24h."},
			}),
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.rotateSigning, writes: true, told: "The new secret.",
					answer: schemas(secret, map[string]*framework.FieldSchema{
						"previous_valid_until": {Type: framework.TypeString, Description: "Until when deliveries are signed with the previous one, too (RFC 3339); empty: they are not."},
					}),
				},
			},
			help: `
Deliveries are signed with the new secret from now on, and for the grace period with
the previous one, too: the receiver takes either. Give it the new one within that time.`,
		}),
		b.path(pathSpec{
			pattern: "events/" + nameRegex + "/test", verb: "test", suffix: "event-endpoint",
			synopsis: "Send a test event to an endpoint.",
			fields:   nameOf,
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.testEndpoint, writes: true, told: "What came of it.",
					answer: map[string]*framework.FieldSchema{
						"delivered": {Type: framework.TypeBool, Description: "The endpoint answered with 2xx.", Required: true},
						"error":     {Type: framework.TypeString, Description: "The class of the failure; empty for none, or where no answer came in time.", Required: true},
						"status":    {Type: framework.TypeInt, Description: "The HTTP status of the answer; 0 for none.", Required: true},
						"id":        {Type: framework.TypeString, Description: "The webhook-id that was sent.", Required: true},
					},
				},
			},
			help: `
Sends an event of the type test, whatever types the endpoint wants, and waits up to 4
seconds for the answer. A success has an endpoint that failed tried again at once. What
the endpoint answers is not shown.`,
		}),
		b.path(pathSpec{
			pattern: "events/" + nameRegex + "/status", verb: "read", suffix: "event-endpoint-status",
			synopsis: "How deliveries to an endpoint go.",
			fields:   nameOf,
			ops: map[logical.Operation]operation{
				logical.ReadOperation: {do: b.readEndpointStatus, writes: true, told: "How deliveries go, by the node that makes them.", answer: endpointStatusFields()},
			},
			help: "Everything about an endpoint that changes by itself: what waits, the last success, the class of the last failure, the next attempt, and what was given up.",
		}),
		b.path(pathSpec{
			pattern: "events/" + nameRegex, suffix: "event-endpoint",
			synopsis: "Declare, read, change and delete an endpoint of events.",
			fields:   fieldsOf(nameOf, endpointFields(), replaceField("the endpoint, but for url and secrets,")),
			exists:   b.endpointExists,
			ops: map[logical.Operation]operation{
				logical.CreateOperation: {
					do: b.writeEndpoint, writes: true, summary: "Create an endpoint.", told: "Created.",
					answer: schemas(secret, map[string]*framework.FieldSchema{
						"id": {Type: framework.TypeString, Description: "Its id, never used again."},
					}),
				},
				logical.UpdateOperation: {
					do: b.writeEndpoint, writes: true, summary: "Change the fields that are named.", told: "Written, with warnings.", none: "Written.",
				},
				logical.PatchOperation: {
					do: b.writeEndpoint, writes: true, summary: "Change the fields that are named; null resets one to its default.",
					told: "Written, with warnings.", none: "Written.",
				},
				logical.ReadOperation:   {do: b.readEndpoint, summary: "Read an endpoint, without its secrets.", told: "The endpoint.", answer: endpointView()},
				logical.DeleteOperation: {do: b.deleteEndpoint, writes: true, summary: "Delete an endpoint and what waits for it.", none: "Deleted, or there was no such endpoint."},
			},
			help: `
An endpoint is told of events by signed HTTP requests (Standard Webhooks 1.0). Creating
one answers its signing secret, which is shown this once. It gets the events of its
types that happen from then on, each at least once, those of one role in order.

At most 16 endpoints exist. Secrets for url and template (secrets) are never read back,
and have to be written again where url gets another host.`,
		}),
	}
}

var secretNameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

// endpointNamed is the endpoint with that name, nil if there is none.
func (r *endpointsRecord) endpointNamed(name string) *endpointRecord {
	if i := slices.IndexFunc(r.Endpoints, func(e *endpointRecord) bool { return e.Name == name }); i >= 0 {
		return r.Endpoints[i]
	}
	return nil
}

func noEndpoint(name string) error {
	return &absence{what: fmt.Sprintf("endpoint %s does not exist", refusal.Shown(name))}
}

// endpoint is the one with that name, from this node's memory where it knows it; absence
// if there is none.
func (b *backend) endpoint(ctx context.Context, s logical.Storage, name string) (*endpointRecord, error) {
	rec, err := b.endpoints.get(ctx, s)
	if err != nil {
		return nil, err
	}
	if e := rec.endpointNamed(name); e != nil {
		return e, nil
	}
	return nil, noEndpoint(name)
}

func (b *backend) endpointExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	_, err := b.endpoint(ctx, req.Storage, d.Get("name").(string))
	if isAbsent(err) {
		return false, nil
	}
	return err == nil, err
}

func (b *backend) listEndpoints(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	rec, err := b.endpoints.get(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range rec.Endpoints {
		names = append(names, e.Name)
	}
	slices.Sort(names)
	return windowOf(in).collect(names, func(name string) (map[string]any, error) {
		e := rec.endpointNamed(name)
		return map[string]any{"format": e.format(), "types": e.Types, "disabled": e.Disabled}, nil
	})
}

func (e *endpointRecord) format() string {
	if e.Format == "" {
		return formatStandard
	}
	return e.Format
}

func (b *backend) readEndpoint(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	e, err := b.endpoint(ctx, req.Storage, in.text("name"))
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	view := map[string]any{
		"name": e.Name, "id": e.ID, "created": stamp(e.Created), "url": e.URL, "types": e.Types, "format": e.format(),
		"template": e.Template, "include": orEmpty(e.Include), "digest": int64(e.Digest), "pace": (&post{endpoint: e}).perSecond(), "ca": e.CA,
		"disabled": e.Disabled, "secret_names": orEmpty(sortedKeys(e.Secrets)),
	}
	if e.NamePrefix != "" { // an empty one could not be written back
		view["name_prefix"] = e.NamePrefix
	}
	return answer(view), nil
}

// writeEndpoint creates an endpoint or changes the fields that are named.
func (b *backend) writeEndpoint(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	if !validName(name) {
		return nil, refusal.New("name", name, nameRule, "choose another name")
	}
	var made, written *endpointRecord
	_, err := b.endpoints.change(ctx, req.Storage, func(stored *endpointsRecord) (*endpointsRecord, error) {
		made = nil
		old := stored.endpointNamed(name)
		if old == nil && req.Operation == logical.PatchOperation {
			return nil, noEndpoint(name)
		}
		if old == nil && len(stored.Endpoints) >= maxEndpoints {
			return nil, refusal.New("name", name, "would be one of more than 16 endpoints", "delete one first")
		}
		next, err := b.endpointGiven(old, in)
		if err != nil {
			return nil, err
		}
		next.Name = name
		if old != nil && reflect.DeepEqual(old, next) && !in.given("disabled") {
			written = next
			return nil, nil
		}
		now := b.clock.Now()
		next.Revised = now
		if old == nil {
			if next.ID, err = b.randomTag(10); err != nil {
				return nil, err
			}
			next.Created = now.Truncate(time.Second)
			next.Signing = []signingSecret{{Key: webhook.NewSecret().Reveal()}}
			made = next
		}
		written = next
		all := *stored
		all.Schema = recordSchema
		all.Endpoints = slices.DeleteFunc(slices.Clone(stored.Endpoints), func(e *endpointRecord) bool { return e.Name == name })
		all.Endpoints = append(all.Endpoints, next)
		return &all, nil
	})
	if err != nil {
		return nil, err
	}
	b.wakeOutbox()
	warnings, err := b.endpointWarnings(ctx, req.Storage, written)
	if err != nil {
		return nil, err
	}
	if made == nil {
		return warned(warnings), nil
	}
	return answer(map[string]any{"id": made.ID, "signing_secret": made.Signing[0].Key}, warnings...), nil
}

// endpointWarnings say why an endpoint may get nothing.
func (b *backend) endpointWarnings(ctx context.Context, s logical.Storage, e *endpointRecord) ([]string, error) {
	cfg, err := b.config(ctx, s)
	if err != nil {
		return nil, err
	}
	var warnings []string
	form, err := newRendering(e, "")
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(form.url.Sample()); err == nil && !b.egress.Policy().Names(u) {
		warnings = append(warnings, "url: the mount's egress_allow does not name it, so nothing is sent: add "+u.Hostname()+" to it with a write of config")
	}
	if cfg.OutboundPaused {
		warnings = append(warnings, "url: outbound_paused is set in config: nothing is sent while it is")
	}
	return warnings, nil
}

// endpointGiven is the endpoint after what the request says of it; old is nil for a new
// one, and stays as it is.
func (b *backend) endpointGiven(old *endpointRecord, in *input) (*endpointRecord, error) {
	next := &endpointRecord{Types: []string{endpointDefaults}}
	if old != nil {
		c := *old
		next = &c
	}
	reset := func(name string) bool { return !in.given(name) && (in.resets(name) || in.flag("replace")) }
	for name, set := range map[string]func(){
		"types": func() { next.Types = []string{endpointDefaults} }, "name_prefix": func() { next.NamePrefix = "" },
		"format": func() { next.Format = "" }, "template": func() { next.Template = "" }, "include": func() { next.Include = nil },
		"digest": func() { next.Digest = 0 }, "pace": func() { next.Pace = 0 }, "ca": func() { next.CA = "" }, "disabled": func() { next.Disabled = false },
	} {
		if reset(name) {
			set()
		}
	}
	if in.resets("secrets") {
		next.Secrets = nil
	}
	if in.resets("url") || old == nil && !in.given("url") {
		return nil, refusal.New("url", nil, "is missing", "say where events are to be sent, such as https://hooks.example.com/apikeys")
	}
	if in.given("url") {
		next.URL = in.text("url")
	}
	if in.given("types") {
		next.Types = slices.Clone(in.list("types"))
	}
	if in.given("name_prefix") {
		next.NamePrefix = in.text("name_prefix")
	}
	if in.given("format") {
		if next.Format = in.text("format"); next.Format == formatStandard {
			next.Format = ""
		}
	}
	if in.given("template") {
		next.Template = in.text("template")
	}
	if in.given("include") {
		next.Include = slices.Clone(in.list("include"))
	}
	if in.given("ca") {
		next.CA = in.text("ca")
	}
	if in.given("disabled") {
		next.Disabled = in.flag("disabled")
	}
	if in.given("secrets") {
		next.Secrets = in.pairs("secrets")
	}
	if n, given := in.seconds("digest"); given {
		next.Digest = n
	}
	if in.given("pace") {
		next.Pace = valueOf[float64](in, "pace")
	}
	if err := next.check(in); err != nil {
		return nil, err
	}
	if old != nil && len(old.Secrets) > 0 && len(next.Secrets) > 0 && !in.given("secrets") && originOf(old.URL) != originOf(next.URL) {
		return nil, refusal.New("url", nil, "has another host, and the endpoint has secrets", "write secrets again with it: they were for the other host")
	}
	return next, nil
}

// originOf is the part of a URL that says who gets what is sent there.
func originOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return text
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

// check holds an endpoint to the rules.
func (e *endpointRecord) check(in *input) error {
	switch {
	case len(e.Types) > maxTypes:
		return refusal.New("types", len(e.Types), "has more than 32 entries", "use patterns such as key.*")
	case len(e.NamePrefix) > 128:
		return refusal.New("name_prefix", nil, "is longer than the name of any role", "give a shorter one")
	case len(e.Template) > maxTemplate:
		return refusal.New("template", nil, "is longer than 16 KiB", "give a shorter one")
	case len(e.CA) > maxEndpointCA:
		return refusal.New("ca", nil, "is longer than 16 KiB", "give the certificate of the CA only")
	case e.Format == formatTemplate && e.Template == "":
		return refusal.New("template", nil, "is missing", `format=template needs one, such as {"text": "${text}"}`)
	case e.Format != formatTemplate && e.Template != "":
		return refusal.New("template", nil, "goes with format=template only", "leave it out, or give format=template")
	case e.Format != formatTemplate && e.Digest > 0:
		return refusal.New("digest", int64(e.Digest), "goes with format=template only", "leave it out: the other formats have one event per message")
	case e.Digest != 0 && (e.Digest.Duration() < leastDigest || e.Digest.Duration() > maxDigest):
		return refusal.New("digest", int64(e.Digest), "must be from 10s to 24h, or 0", "choose another one")
	case e.Pace != 0 && !(e.Pace >= leastPace && e.Pace <= maxEndpointPace):
		return refusal.New("pace", e.Pace, "must be from 0.01 to 10000", "choose another one, or leave it out for the default")
	case in.given("pace") && e.Pace == 0:
		return refusal.New("pace", 0, "must be from 0.01 to 10000", "to stop deliveries give disabled=true")
	}
	for _, pattern := range e.Types {
		if !validType(pattern) {
			return refusal.New("types", pattern, "is no type of events, and no pattern of some", "give types such as key.revoked, key.* or *")
		}
	}
	for _, name := range e.Include {
		if !slices.Contains(includes, name) {
			return refusal.New("include", name, "must be of "+strings.Join(includes, ", "), "choose among those")
		}
	}
	if err := e.checkSecrets(); err != nil {
		return err
	}
	form, err := newRendering(e, "")
	if err != nil {
		return err
	}
	if _, err := egress.ParseURL("url", form.url.Sample()); err != nil {
		return err
	}
	if e.CA != "" {
		if _, err := egress.ParseCA("ca", e.CA); err != nil {
			return err
		}
	}
	return nil
}

func (e *endpointRecord) checkSecrets() error {
	if len(e.Secrets) > maxSecrets {
		return refusal.New("secrets", len(e.Secrets), "has more than 16 entries", "keep those that url and template name")
	}
	for _, name := range sortedKeys(e.Secrets) {
		if !secretNameForm.MatchString(name) {
			return refusal.New("secrets", nil, "has a name that is not a-z 0-9 _ with a letter first, at most 32 characters", "rename it")
		}
		if v := e.Secrets[name]; v == "" || len(v) > maxSecret {
			return refusal.New("secrets", nil, "has an entry that is empty or longer than 1024 characters", "check "+name)
		} else if clean, changed := policy.CleanText(v, maxSecret, false); changed || clean != v {
			return refusal.New("secrets", nil, "has an entry with control characters", "check "+name)
		}
	}
	return nil
}

// deleteEndpoint deletes it. What waits for it goes with the next steps.
func (b *backend) deleteEndpoint(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	id := ""
	_, err := b.endpoints.change(ctx, req.Storage, func(stored *endpointsRecord) (*endpointsRecord, error) {
		old := stored.endpointNamed(name)
		if old == nil {
			return nil, nil
		}
		id = old.ID
		all := *stored
		all.Schema, all.Sweep = recordSchema, true
		all.Endpoints = slices.DeleteFunc(slices.Clone(stored.Endpoints), func(e *endpointRecord) bool { return e == old })
		return &all, nil
	})
	if err != nil || id == "" {
		return nil, err
	}
	if err := deleteRecord(ctx, req.Storage, endpointPath(id)); err != nil {
		b.Logger().Debug("the state of a deleted endpoint is left behind", "error", err)
	}
	b.sweepOutbox()
	return nil, nil
}

// rotateSigning makes a new signing secret.
func (b *backend) rotateSigning(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	grace := policy.Seconds(defaultRollover / time.Second)
	if n, given := in.seconds("grace_period"); given {
		grace = n
	}
	if grace < 0 || grace.Duration() > maxRollover {
		return nil, refusal.New("grace_period", int64(grace), "must be from 0 to 7d", "choose another one")
	}
	secret, until := webhook.NewSecret().Reveal(), ""
	_, err := b.endpoints.change(ctx, req.Storage, func(stored *endpointsRecord) (*endpointsRecord, error) {
		old := stored.endpointNamed(name)
		if old == nil {
			return nil, noEndpoint(name)
		}
		now := b.clock.Now()
		next := *old
		next.Revised = now
		next.Signing = []signingSecret{{Key: secret}}
		for i, s := range old.Signing[:min(len(old.Signing), maxSigning-1)] {
			end := now.Add(grace.Duration())
			if i > 0 && s.Until.Before(end) {
				end = s.Until // it ends no later than was said
			}
			if end.After(now) {
				next.Signing = append(next.Signing, signingSecret{Key: s.Key, Until: end})
			}
		}
		if len(next.Signing) > 1 {
			until = stamp(next.Signing[1].Until)
		}
		all := *stored
		all.Endpoints = slices.Clone(stored.Endpoints)
		all.Endpoints[slices.Index(all.Endpoints, old)] = &next
		return &all, nil
	})
	if err != nil {
		return nil, err
	}
	return answer(map[string]any{"signing_secret": secret, "previous_valid_until": until}), nil
}
