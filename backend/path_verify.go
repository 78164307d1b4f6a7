// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	maxClient     = 64 // characters
	verifyPattern = "verify"
)

func (b *backend) pathsVerify() []*framework.Path {
	spec := func(pattern, suffix, synopsis string, extra fieldSet) *framework.Path {
		return b.path(pathSpec{
			pattern: pattern, verb: "verify", suffix: suffix, synopsis: synopsis, fields: fieldsOf(verifyFields(), extra), help: verifyHelp,
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {do: b.verify, told: "The verdict; HTTP 200 whatever it is.", answer: verifyAnswer()},
			},
		})
	}
	plain := spec(verifyPattern, "key", "Is this key good?", nil)
	b.verifySpec = b.specs[plain]
	return []*framework.Path{
		plain,
		spec("verify/"+nameRegex, "key-of-role", "Is this a good key of that role?",
			fieldSet{"name": {about: "The role whose keys are known; any other key is NOT_FOUND."}}),
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

hint says what is odd about a text that is MALFORMED or NOT_FOUND: white space, a
scheme, quotes. The key itself is always taken exactly as it is given.

scopes names what the key must have, all of it; any_scope names alternatives, one
of which suffices. Where both are given both must hold.

fresh=true reads storage and none of the caches of this node, and is answered by
the node that writes. It says nothing about what caches in front of the engine
remember; cache_ttl is as always.

timeline=1 adds the key's timeline: what verify will say of it, from which instant
on, as long as nobody decides otherwise (changes tells when somebody does). code
then follows from time alone; the asker enforces scopes, allowed_cidrs and
rate_limit, which the answer has, and nothing is counted. In the answer to a batch
what a role says stands once, in roles.

key_id and role_id in place of key ask for state and end only: the code is then
STATE and valid is false. batch asks about many keys at once.

verify/<role> knows the keys of that role only, so that a policy can bind a
gateway to it.`

// verifyItem are the fields of one question.
func verifyItem() fieldSet {
	return fieldSet{
		"key":         {kind: kindText, secret: true, empty: emptyTaken, about: "The presented key."},
		"scopes":      {kind: kindList, empty: emptyNever, about: "Scopes that the key must have, all of them."},
		"any_scope":   {kind: kindList, empty: emptyNever, about: "Scopes of which the key must have one, whichever it is; beside scopes, if that is given."},
		"remote_addr": {kind: kindText, empty: emptyTaken, about: "Address of the client that presented the key, for the role's allowed_cidrs. A port and brackets are left aside."},
		"client": {
			kind: kindText, empty: emptyTaken, about: "Label for usage counts, such as the name of the gateway; at most 64 characters.",
			free: &freeText{limit: maxClient, cleaned: true},
		},
		"key_id":   {kind: kindText, secret: true, about: "With role_id, in place of key: tell the state of that key only."},
		"role_id":  {kind: kindText, about: "The id of the role that key_id belongs to."},
		"timeline": {kind: kindInteger, about: "The highest form of a timeline that the asker knows: 1. The answer adds the key's timeline, in that form or a lower one, and what the asker has to enforce."},
		"fresh": {
			kind:  kindSwitch,
			about: "Ask storage, not what this node remembers, and only a node that may write: dearer, for the few requests that must not be served by an answer of a moment ago. Default: false.",
		},
	}
}

func verifyFields() fieldSet {
	return fieldsOf(verifyItem(), fieldSet{"batch": batchOf("Many keys, each an object with the fields of this path.")})
}

func verifyAnswer() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"valid":         {Type: framework.TypeBool, Description: "The key is good for what was asked. Missing in the answer to a batch, like all but results."},
		"code":          {Type: framework.TypeString, Description: "VALID, or why not."},
		"now":           {Type: framework.TypeString, Description: "The instant of the verdict (RFC 3339)."},
		"role":          {Type: framework.TypeString, Description: "The role. This and what follows only once the secret matched."},
		"role_id":       {Type: framework.TypeString, Description: "Its id, which is never reused."},
		"key_id":        {Type: framework.TypeString, Description: "The key's public id."},
		"version":       {Type: framework.TypeInt, Description: "The version of the role that the key is, or was issued in."},
		"state":         {Type: framework.TypeString, Description: "pending, current, previous, withdrawn, retired, expired or revoked."},
		"reason":        {Type: framework.TypeString, Description: "Of a retired key: grace_ended, rolled_back, superseded or lapsed. Of a revoked one: the reason_code that it ended with. Else empty."},
		"scopes":        {Type: framework.TypeStringSlice, Description: "What the key may do."},
		"metadata":      {Type: framework.TypeKVPairs, Description: "What the role says about the key's owner."},
		"expires_at":    {Type: framework.TypeString, Description: "The earliest known end, or the end of a key that has ended (RFC 3339); empty if none is known."},
		"end":           {Type: framework.TypeString, Description: "What kind of end that is: planned (the grace of a rotation) or hard; empty without one."},
		"cache_ttl":     {Type: framework.TypeInt, Description: "Seconds for which the answer may be used without asking again; 0: not at all."},
		"rate_limit":    {Type: framework.TypeFloat, Description: "Requests per second that the role allows, all its keys together; 0: any number."},
		"timeline":      {Type: framework.TypeSlice, Description: "Of a question with timeline: entries with from (RFC 3339), code, state, reason, end, renewable (that end is a lease's) and hold_until, until when who cannot ask may hold back that end."},
		"cursor":        {Type: framework.TypeString, Description: "With timeline: how far the feed of changes had come before the engine looked."},
		"allowed_cidrs": {Type: framework.TypeStringSlice, Description: "With timeline: where the key may be presented from; empty: anywhere."},
		"disabled":      {Type: framework.TypeBool, Description: "With timeline: the role is disabled."},
		"lease":         {Type: framework.TypeBool, Description: "With timeline: the key is a leased one, of a dynamic role."},
		"roles":         {Type: framework.TypeMap, Description: "With timeline in a batch: by role_id what its keys share: role, scopes, metadata, allowed_cidrs, rate_limit, disabled. An item has scopes only where its key has fewer."},
		"hint":          {Type: framework.TypeString, Description: "What is odd about a text that is no known key, such as white space or a scheme around it. Made of the text alone; missing where nothing is."},
		"error":         {Type: framework.TypeString, Description: "In results: what is wrong with that item of the batch."},
		"results":       {Type: framework.TypeSlice, Description: "The answers to a batch, in order."},
	}
}

var verifyItemFields = verifyItem()

func (b *backend) verify(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	return b.verdicts(ctx, req.Storage, in)
}

func (b *backend) verdicts(ctx context.Context, s logical.Storage, in *input) (*logical.Response, error) {
	role := in.text("name")
	if in.given("batch") {
		for _, f := range slices.Sorted(maps.Keys(in.values)) {
			if f != "batch" && f != "name" && in.given(f) {
				return nil, refusal.New(f, nil, "stands beside batch", "give it in the items")
			}
		}
		return b.verifyBatch(ctx, s, in.text("batch"), role)
	}
	q, err := readQuestion(in, role)
	if err != nil {
		return nil, err
	}
	var cursor string
	if q.timeline > 0 {
		if cursor, err = b.feedCursor(ctx, s); err != nil {
			return nil, err
		}
	}
	v, err := b.verifyOne(ctx, s, &q)
	if err != nil {
		return nil, err
	}
	if v.future != nil {
		if err := b.assertWriter(ctx, s); err != nil { // the node may have slept meanwhile
			return nil, err
		}
		data := b.renderedFuture(&v, nil)
		data["cursor"] = cursor
		return answer(data), nil
	}
	return &logical.Response{Data: b.rendered(&v)}, nil
}

// feedCursor is how far the feed of decisions has come, to be read before any record:
// what is decided after it is not in the answer. A node that may be behind has none.
func (b *backend) feedCursor(ctx context.Context, s logical.Storage) (string, error) {
	if err := b.assertWriter(ctx, s); err != nil {
		return "", err
	}
	return b.feed.Cursor(), nil
}

// readQuestion reads one question, of a request or of an item.
func readQuestion(in *input, role string) (question, error) {
	q := question{
		role: role, key: in.text("key"), byID: in.given("key_id") || in.given("role_id"),
		scopes: in.list("scopes"), remoteAddr: in.text("remote_addr"), client: in.text("client"),
	}
	// What few ask for costs the others one look each.
	if q.byID {
		q.keyID, q.roleID = in.text("key_id"), in.text("role_id")
	}
	if in.given("any_scope") {
		q.anyScope = in.list("any_scope")
	}
	if in.given("fresh") {
		q.fresh = in.flag("fresh")
	}
	if in.given("timeline") {
		if q.timeline = in.integer("timeline"); q.timeline < 1 {
			return q, refusal.New("timeline", q.timeline, "must be 1 or more", "give the highest form that you know")
		}
	}
	return q, q.check(in.given("key"))
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
	case q.timeline > 0 && (len(q.scopes) > 0 || len(q.anyScope) > 0 || q.remoteAddr != ""):
		return refusal.New("timeline", q.timeline, "stands beside scopes, any_scope or remote_addr", "enforce those by what the answer says")
	case len(q.scopes) > policy.MaxScopes:
		return refusal.New("scopes", len(q.scopes), fmt.Sprintf("more than %d", policy.MaxScopes), "ask for fewer")
	case len(q.anyScope) > policy.MaxScopes:
		return refusal.New("any_scope", len(q.anyScope), fmt.Sprintf("more than %d", policy.MaxScopes), "ask for fewer")
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

// verifyBatch answers each item by itself. An item that cannot be read is
// MALFORMED, with the reason.
func (b *backend) verifyBatch(ctx context.Context, s logical.Storage, text, role string) (*logical.Response, error) {
	items, err := batchItems(text)
	if err != nil {
		return nil, err
	}
	results := make([]any, len(items))
	whole := map[string]any{"results": results}
	var roles map[string]any
	for i, item := range items {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q, err := verifyItemFields.question(item, role)
		if err != nil {
			v := verdict{code: codeMalformed, now: b.now()}
			data := b.rendered(&v)
			data["error"] = err.Error()
			results[i] = data
			continue
		}
		if q.timeline > 0 && roles == nil {
			// What comes before the first of them has no timeline, so it is soon enough.
			roles = map[string]any{}
			if whole["cursor"], err = b.feedCursor(ctx, s); err != nil {
				return nil, err
			}
			whole["roles"] = roles
		}
		v, err := b.verifyOne(ctx, s, &q)
		if err != nil {
			return nil, err
		}
		if v.future != nil {
			results[i] = b.renderedFuture(&v, roles)
		} else {
			results[i] = b.rendered(&v)
		}
	}
	if roles != nil {
		if err := b.assertWriter(ctx, s); err != nil {
			return nil, err
		}
	}
	return answer(whole), nil
}

// question reads an item of a batch.
func (s fieldSet) question(item json.RawMessage, role string) (question, error) {
	in, err := s.readItem(item)
	if err != nil {
		return question{}, err
	}
	return readQuestion(in, role)
}
