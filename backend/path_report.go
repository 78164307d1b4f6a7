// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const maxSightings = 1000

// whereFields say where a key was found. A report is never refused for them.
func whereFields() fieldSet {
	text := func(about string) field {
		return field{kind: kindText, about: about, empty: emptyTaken, free: &freeText{cleaned: true, raw: true}}
	}
	return fieldSet{
		"url":    text("Where it was found. Kept without userinfo, query and fragment."),
		"source": text("What kind of place that is, or who found it."),
		"type":   text("What the finder calls this kind of key."),
	}
}

// findFields are the members of an item that are looked at.
func findFields() fieldSet {
	found := field{kind: kindText, secret: true}
	return fieldsOf(whereFields(), fieldSet{"key": found, "token": found})
}

func (b *backend) pathsReport() []*framework.Path {
	const outcome = "acted, recorded (nothing more was to be done), deferred (too many at once: an operator releases it) or unknown"
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "report/deferred/?", verb: "list", suffix: "deferred-reports",
			synopsis: "The reports that wait for an operator.",
			fields:   pageFieldSet(true),
			ops: map[logical.Operation]operation{
				logical.ListOperation: {
					do: b.listDeferred, told: "The key ids.", answer: listFields("By key id: role, role_id, reported (RFC 3339) and where it was seen."),
				},
			},
			help: "Lists the keys whose report came when max_leak_actions had been reached. report/release acts on them.",
		}),
		b.path(pathSpec{
			pattern: "report/release", verb: "release", suffix: "deferred-reports",
			synopsis: "Act on deferred reports.",
			fields: fieldSet{
				"key_ids":     {kind: kindList, empty: emptyNever, about: "The key ids to act on, at most 1000."},
				"reason":      reasonField("Why; kept in the roles' histories.", true),
				"reason_code": leakCodeField(),
			},
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.release, writes: true, told: "What came of them.",
					answer: map[string]*framework.FieldSchema{
						"results": {Type: framework.TypeMap, Description: "By key id: acted, recorded or unknown.", Required: true},
					},
				},
			},
			help: `
Does for each key what its role's on_leak says, without regard to max_leak_actions.
One that fails does not stop the others, and goes on waiting.`,
		}),
		b.path(pathSpec{
			pattern: "report", verb: "report", suffix: "leaked-keys",
			synopsis: "Report keys that were found in the open.",
			fields: fieldsOf(whereFields(), fieldSet{
				"reason_code": leakCodeField(),
				"key": {
					kind: kindText, secret: true,
					about: "What was found: a key, or a text with keys in it, at most 100. An imported key of another form has to stand alone, " +
						"but for quotes, a scheme or NAME= before it.",
				},
				"matches": {
					kind: kindObjects, secret: true, empty: emptyNever,
					about: "The array that a secret-scanning partner programme sends: objects with token, type, url and source. Other members are ignored.",
				},
				"batch": batchOf("Several finds: objects with key or token, type, url and source. Other members are ignored."),
			}),
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.report, writes: true, told: "What came of the reports.",
					answer: map[string]*framework.FieldSchema{
						"result":  {Type: framework.TypeString, Description: "For a single find: " + outcome + ". Of several keys in it the first that applies of deferred, acted, recorded, unknown."},
						"results": {Type: framework.TypeStringSlice, Description: "For several finds, in order, each the same."},
						"found": {
							Type:        framework.TypeSlice,
							Description: "Each key that was found: key_id and result; of several finds also item, the number of the find, counted from 1.", Required: true,
						},
					},
				},
			},
			help: `
Acts on exactly the keys presented, never on others of their roles. A current or
previous version is dealt with as the role's on_leak says: revoke (killed and
replaced at once), rotate (replaced once; the old one lives leak_grace_period) or
alert (recorded). A pending version is revoked. What ended already is recorded.
A reported version is never prolonged by a rollback, a promotion or an extension.
A key of a role that was deleted and can be restored is dealt with as well.

Every key of this engine's form in a text is acted on, percent-encoded and
escaped ones too. A find that cannot be read is unknown, and a warning says what
is wrong with it; the others are acted on.

The answer does not say whose keys they were.`,
		}),
	}
}

func (b *backend) report(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	finds, several, err := readFinds(in)
	if err != nil {
		return nil, err
	}
	cfg, err := b.configOrLast(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	done, err := b.reportAll(ctx, req.Storage, finds, reporter(req, in), cfg)
	if err != nil {
		return nil, err // what was acted on stays so; a repetition does the rest
	}
	found := make([]any, len(done.found))
	for i, key := range done.found {
		item := map[string]any{"key_id": key.id, "result": key.result}
		if several {
			item["item"] = key.find + 1
		}
		found[i] = item
	}
	data := map[string]any{"found": found, "results": done.results}
	if !several {
		data = map[string]any{"found": found, "result": done.results[0]}
	}
	return answer(data, append(in.warnings, done.warnings...)...), nil
}

// leakCodeField is the reason code of a report.
func leakCodeField() field {
	f := codeField("What the reason is, for the keys that it ends. Default: leaked.")
	f.def = string(keyring.Leaked)
	return f
}

// reporter is who reports, or releases reports.
func reporter(req *logical.Request, in *input) actor {
	by := requester(req)
	by.code = keyring.Reason(in.text("reason_code"))
	return by
}

// readFinds reads the one form that the request uses. What is wrong with an item
// becomes a warning.
func readFinds(in *input) (finds []*sighting, several bool, err error) {
	named := 0
	for _, form := range []string{"key", "matches", "batch"} {
		if in.given(form) {
			named++
		}
	}
	if named != 1 {
		return nil, false, refusal.New("key", nil, "exactly one of key, matches and batch holds what was found", "give one")
	}
	if in.given("key") {
		return []*sighting{seenIn(in, "key")}, false, nil
	}
	for _, where := range sortedKeys(whereFields()) {
		if in.given(where) {
			in.warn("%s: is ignored beside matches and batch: it belongs into their items", where)
		}
	}
	if in.given("batch") {
		finds, err = readBatchOfFinds(in)
		return finds, true, err
	}
	matches := in.objects("matches")
	if len(matches) > maxSightings {
		return nil, false, refusal.New("matches", len(matches), "has more than 1000 items", "send it in parts")
	}
	for i, match := range matches {
		object, _ := match.(map[string]any)
		finds = append(finds, readFind(in, i, object))
	}
	return finds, true, nil
}

func readBatchOfFinds(in *input) ([]*sighting, error) {
	items, err := batchItems(in.text("batch"))
	if err != nil {
		return nil, err
	}
	finds := make([]*sighting, len(items))
	for i, item := range items {
		finds[i] = readFind(in, i, objectOf(item))
	}
	return finds, nil
}

// objectOf is the object that an item of a batch is; nil if it is none.
func objectOf(item json.RawMessage) map[string]any {
	object, err := decodeObject(string(item))
	if err != nil {
		return nil
	}
	return object
}

// readFind reads item i of several; nil, with a warning, if it says nothing that
// could be acted on.
func readFind(in *input, i int, object map[string]any) *sighting {
	wrong := func(what string) *sighting {
		in.warn("item %d: %s: nothing was done for it", i+1, what)
		return nil
	}
	if object == nil {
		return wrong("it is not an object with key or token, type, url and source")
	}
	fields := findFields()
	item, err := fields.readValues(fields.only(object), false)
	switch {
	case err != nil:
		return wrong(err.Error())
	case item.given("key") == item.given("token"):
		return wrong("exactly one of key and token holds what was found")
	}
	for _, warning := range item.warnings {
		in.warn("item %d: %s", i+1, warning)
	}
	if item.given("token") {
		return seenIn(item, "token")
	}
	return seenIn(item, "key")
}

func seenIn(in *input, name string) *sighting {
	return &sighting{text: in.text(name), kind: in.text("type"), url: in.text("url"), source: in.text("source")}
}

func (b *backend) release(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	asked := in.list("key_ids")
	if len(asked) == 0 || len(asked) > maxSightings {
		return nil, refusal.New("key_ids", len(asked), "must name 1 to 1000 keys", "report/deferred lists those that wait")
	}
	ids := idsNamed(in, asked)
	by := reporter(req, in)
	by.reason = keyformat.Redact(in.text("reason"))
	outcomes, err := b.releaseAll(ctx, req.Storage, ids, by)
	if err != nil {
		return nil, err
	}
	results := make(map[string]any, len(outcomes))
	for id, outcome := range outcomes {
		results[id] = outcome
	}
	return answer(map[string]any{"results": results}, in.warnings...), nil
}

// idsNamed are the key ids of a list, in which a whole key stands for its id.
func idsNamed(in *input, asked []string) []string {
	var ids []string
	for i, text := range asked {
		if keyformat.ValidID(text) {
			ids = append(ids, text)
			continue
		}
		keys, _ := keyformat.Find(text, maxPasted)
		if len(keys) == 0 {
			in.warn("key_ids: number %d is not the id of a key: nothing was done for it", i+1)
		} else {
			in.warn("key_ids: number %d is a whole key, not its id: this request may have been logged", i+1)
		}
		for _, key := range keys {
			ids = append(ids, key.ID())
		}
	}
	return ids
}

func (b *backend) listDeferred(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	ids, err := list(ctx, req.Storage, deferredPrefix)
	if err != nil {
		return nil, err
	}
	return windowOf(in).collect(ids, func(id string) (map[string]any, error) {
		rec, err := getRecord[deferredLeak](ctx, req.Storage, deferredPrefix+id)
		if err != nil || rec == nil {
			return nil, err
		}
		role, err := b.homeOf(ctx, req.Storage, rec.Role, rec.RoleID)
		if err != nil {
			return nil, err
		}
		if role == nowhere {
			role = rec.Role
		}
		return map[string]any{"role": role, "role_id": rec.RoleID, "reported": stamp(rec.At), "seen": rec.Seen}, nil
	})
}
