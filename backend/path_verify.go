// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const maxClient = 64

func (b *backend) pathsVerify() []*framework.Path {
	path := func(pattern, suffix, synopsis string, extra map[string]*framework.FieldSchema) *framework.Path {
		return &framework.Path{
			Pattern: pattern,
			Fields:  fields(verifyFields(), extra),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: &framework.PathOperation{
					Callback: handle(b.verify), Summary: synopsis, Responses: ok("The verdict; HTTP 200 whatever it is.", verifyAnswer()),
				},
			},
			DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "verify", OperationSuffix: suffix},
			HelpSynopsis:    synopsis,
			HelpDescription: verifyHelp,
		}
	}
	return []*framework.Path{
		path("verify", "key", "Is this key good?", nil),
		path("verify/"+nameRegex, "key-of-role", "Is this a good key of that role?",
			map[string]*framework.FieldSchema{"name": {Type: framework.TypeString, Description: "The role whose keys are known; any other key is NOT_FOUND."}}),
	}
}

const verifyHelp = `
Says whether a presented key is good, with HTTP 200 whatever the verdict: look at
valid and code. VALID; MALFORMED (no key has this form); NOT_FOUND; EXPIRED,
RETIRED (reason says how) and REVOKED, which are for good; DISABLED,
INSUFFICIENT_SCOPE, FORBIDDEN_IP and RATE_LIMITED. Everything else in the answer
is there only if the secret matched.

state says whether the key is the current one or, for example, the previous one
after a rotation, and expires_at when it ends as far as is known: planned is the
grace of a rotation, so a client can be told to fetch its new key; hard is
anything else.

cache_ttl is for how many seconds the answer may be used without asking again.
It is 30 at most, and 10 for a refusal: so late does a cache that follows no
changes notice a revocation. It is never past expires_at, and 5 at most on nodes
that may not write.

key_id and role_id in place of key ask for state and end only: the code is then
STATE and valid is false. batch asks about many keys at once.

verify/<role> knows the keys of that role only, so that a policy can bind a
gateway to it.`

func verifyFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"key": {
			Type: framework.TypeString, Description: "The presented key.",
			DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
		},
		"scopes":      {Type: framework.TypeCommaStringSlice, Description: "Scopes that the key must have, all of them."},
		"remote_addr": {Type: framework.TypeString, Description: "Address of the client that presented the key, for the role's allowed_cidrs. A port and brackets are left aside."},
		"client":      {Type: framework.TypeString, Description: "Label for usage counts, such as the name of the gateway; at most 64 bytes."},
		"key_id":      {Type: framework.TypeString, Description: "With role_id, in place of key: tell the state of that key only."},
		"role_id":     {Type: framework.TypeString, Description: "The id of the role that key_id belongs to."},
		"batch":       batchField("Many keys, each an object with the fields of this path."),
	}
}

func verifyAnswer() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"valid":      {Type: framework.TypeBool, Description: "The key is good for what was asked. Missing in the answer to a batch, like all but results."},
		"code":       {Type: framework.TypeString, Description: "VALID, or why not."},
		"now":        {Type: framework.TypeString, Description: "The instant of the verdict (RFC 3339)."},
		"role":       {Type: framework.TypeString, Description: "The role. This and what follows only once the secret matched."},
		"role_id":    {Type: framework.TypeString, Description: "Its id, which is never reused."},
		"key_id":     {Type: framework.TypeString, Description: "The key's public id."},
		"version":    {Type: framework.TypeInt, Description: "The version of the role that the key is, or was issued in."},
		"state":      {Type: framework.TypeString, Description: "pending, current, previous, withdrawn, retired, expired or revoked."},
		"reason":     {Type: framework.TypeString, Description: "Of a retired key: grace_ended, rolled_back, superseded or lapsed; else empty."},
		"scopes":     {Type: framework.TypeStringSlice, Description: "What the key may do."},
		"metadata":   {Type: framework.TypeKVPairs, Description: "What the role says about the key's owner."},
		"expires_at": {Type: framework.TypeString, Description: "The earliest known end, or the end of a key that has ended (RFC 3339); empty if none is known."},
		"end":        {Type: framework.TypeString, Description: "What kind of end that is: planned (the grace of a rotation) or hard; empty without one."},
		"cache_ttl":  {Type: framework.TypeInt, Description: "Seconds for which the answer may be used without asking again; 0: not at all."},
		"rate_limit": {Type: framework.TypeFloat, Description: "Requests per second that the role allows, all its keys together; 0: any number."},
		"error":      {Type: framework.TypeString, Description: "In results: what is wrong with that item of the batch."},
		"results":    {Type: framework.TypeSlice, Description: "The answers to a batch, in order."},
	}
}

var verifySchema = verifyFields()

// plainVerify returns the fields of a request to verify that nothing is wrong
// with: each is known, and is of its type already. Routing and conversion, which
// are the same for each of them, cost more than the verdict. nil: the framework
// is to see the request.
func plainVerify(req *logical.Request) *framework.FieldData {
	if req.Operation != logical.UpdateOperation || req.Path != "verify" {
		return nil
	}
	for name, v := range req.Data {
		if _, known := verifySchema[name]; !known {
			return nil
		}
		if _, text := v.(string); !text && name != "scopes" {
			return nil
		}
	}
	d := &framework.FieldData{Raw: req.Data, Schema: verifySchema}
	if _, asked := req.Data["scopes"]; asked {
		if _, _, err := d.GetOkErr("scopes"); err != nil {
			return nil
		}
	}
	return d
}

func (b *backend) verify(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	role, _ := d.Raw["name"].(string)
	if text, given := textOf(d, "batch"); given {
		for _, f := range []string{"key", "key_id", "role_id", "scopes", "remote_addr", "client"} {
			if _, also := d.GetOk(f); also {
				return nil, refusal.New(f, nil, "stands beside batch", "give it in the items")
			}
		}
		return b.verifyBatch(ctx, req, text, role)
	}
	q, err := questionOf(d, role)
	if err != nil {
		return nil, err
	}
	v, err := b.verifyOne(ctx, req.Storage, &q)
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: b.rendered(&v)}, nil
}

func questionOf(d *framework.FieldData, role string) (question, error) {
	q := question{role: role}
	var byKey, byRole bool
	q.key, byKey = textOf(d, "key")
	q.keyID, q.byID = textOf(d, "key_id")
	q.roleID, byRole = textOf(d, "role_id")
	q.byID = q.byID || byRole
	q.remoteAddr, _ = textOf(d, "remote_addr")
	q.client, _ = textOf(d, "client")
	if _, ok := d.Raw["scopes"]; ok {
		q.scopes, _ = d.Get("scopes").([]string)
	}
	return q, q.check(byKey)
}

// textOf is a field that is a string. Most are one already: converting costs
// more than all of the rest.
func textOf(d *framework.FieldData, name string) (string, bool) {
	raw, ok := d.Raw[name]
	if !ok {
		return "", false
	}
	if s, ok := raw.(string); ok {
		return s, true
	}
	s, ok := d.Get(name).(string)
	return s, ok
}

// check refuses a question that is none, and makes its label fit to be kept.
func (q *question) check(byKey bool) error {
	switch {
	case byKey && q.byID:
		return refusal.New("key_id", nil, "stands beside key", "give the key, or key_id and role_id")
	case !byKey && !q.byID:
		return refusal.New("key", nil, "is missing", "give the presented key")
	case q.byID && (q.keyID == "" || q.roleID == ""):
		return refusal.New("key_id", nil, "key_id and role_id go together", "give both")
	case q.byID && wantsID("key_id", q.keyID) != nil:
		return wantsID("key_id", q.keyID)
	case len(q.scopes) > policy.MaxScopes:
		return refusal.New("scopes", len(q.scopes), fmt.Sprintf("more than %d", policy.MaxScopes), "ask for fewer")
	case len(q.client) > maxClient:
		return refusal.New("client", len(q.client), fmt.Sprintf("has more than %d bytes", maxClient), "shorten it")
	}
	q.client = keyformat.Redact(q.client)
	return nil
}

// wantsID refuses what is no key id; a whole key in its place above all.
func wantsID(field, id string) error {
	if key, err := keyformat.Parse(id); err == nil {
		return refusal.New(field, nil, "is a whole key, not its id: this request may have been logged", "give the id, "+key.ID())
	}
	if !keyformat.ValidID(id) {
		return refusal.New(field, nil, "is not the id of a key", "give the 12 characters after the key's prefix")
	}
	return nil
}

// batchQuestion is an item of a batch.
type batchQuestion struct {
	Key        *string  `json:"key"`
	Scopes     []string `json:"scopes"`
	RemoteAddr string   `json:"remote_addr"`
	Client     string   `json:"client"`
	KeyID      *string  `json:"key_id"`
	RoleID     *string  `json:"role_id"`
}

func (i *batchQuestion) question(role string) (question, error) {
	q := question{role: role, scopes: i.Scopes, remoteAddr: i.RemoteAddr, client: i.Client, byID: i.KeyID != nil || i.RoleID != nil}
	for _, field := range []struct{ from, to *string }{{i.Key, &q.key}, {i.KeyID, &q.keyID}, {i.RoleID, &q.roleID}} {
		if field.from != nil {
			*field.to = *field.from
		}
	}
	return q, q.check(i.Key != nil)
}

// readQuestion reads an item of a batch.
func readQuestion(item json.RawMessage, role string) (question, error) {
	q, byKey := question{role: role}, false
	var seen [6]bool
	plain := plainItem(string(item), func(name string, value []string, list bool) bool {
		var to *string
		var n int
		switch name {
		case "key":
			to, n, byKey = &q.key, 0, true
		case "key_id":
			to, n, q.byID = &q.keyID, 1, true
		case "role_id":
			to, n, q.byID = &q.roleID, 2, true
		case "remote_addr":
			to, n = &q.remoteAddr, 3
		case "client":
			to, n = &q.client, 4
		case "scopes":
			n = 5
		default:
			return false
		}
		if seen[n] || list != (to == nil) {
			return false
		}
		seen[n] = true
		if to == nil {
			q.scopes = value
		} else {
			*to = value[0]
		}
		return true
	})
	if plain {
		return q, q.check(byKey)
	}
	var in batchQuestion
	if err := decodeItem(item, &in); err != nil {
		return question{}, err
	}
	return in.question(role)
}

// verifyBatch answers each item by itself. An item that can not be read is
// MALFORMED, with the reason.
func (b *backend) verifyBatch(ctx context.Context, req *logical.Request, text, role string) (*logical.Response, error) {
	items, err := batchItems(text)
	if err != nil {
		return nil, err
	}
	results := make([]any, len(items))
	for i, item := range items {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q, err := readQuestion(item, role)
		if err != nil {
			v := verdict{code: codeMalformed, now: b.now()}
			data := b.rendered(&v)
			data["error"] = err.Error()
			results[i] = data
			continue
		}
		v, err := b.verifyOne(ctx, req.Storage, &q)
		if err != nil {
			return nil, err
		}
		results[i] = b.rendered(&v)
	}
	return answer(map[string]any{"results": results}), nil
}
