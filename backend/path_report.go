// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/json"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const maxSightings = 1000

func (b *backend) pathsReport() []*framework.Path {
	attrs := func(verb, suffix string) *framework.DisplayAttributes {
		return &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: verb, OperationSuffix: suffix}
	}
	outcome := "acted, recorded (nothing more was to be done), deferred (too many at once: an operator releases it) or unknown"
	return []*framework.Path{
		{
			Pattern: "report/deferred/?",
			Fields:  pageFields(),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.ListOperation: &framework.PathOperation{
					Callback: handle(b.listDeferred), Summary: "The reports that wait for an operator.",
					Responses: ok("The key ids.", listFields("By key id: role, role_id, reported (RFC 3339) and where it was seen.")),
				},
			},
			DisplayAttrs:    attrs("list", "deferred-reports"),
			HelpSynopsis:    "The reports that wait for an operator.",
			HelpDescription: "Lists the keys whose report came when max_leak_actions had been reached. report/release acts on them.",
		},
		{
			Pattern: "report/release",
			Fields: map[string]*framework.FieldSchema{
				"key_ids": {Type: framework.TypeCommaStringSlice, Description: "The key ids to act on, at most 1000."},
				"reason":  {Type: framework.TypeString, Description: "Why; kept in the roles' histories."},
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.release), Summary: "Act on deferred reports.",
					Responses: ok("What came of them.", map[string]*framework.FieldSchema{
						"results": {Type: framework.TypeMap, Description: "By key id: acted, recorded or unknown.", Required: true},
					}),
				}),
			},
			DisplayAttrs:    attrs("release", "deferred-reports"),
			HelpSynopsis:    "Act on deferred reports.",
			HelpDescription: "Does for each key what its role's on_leak says, without regard to max_leak_actions.",
		},
		{
			Pattern: "report",
			Fields: map[string]*framework.FieldSchema{
				"key":     {Type: framework.TypeString, Description: "The key that was found."},
				"url":     {Type: framework.TypeString, Description: "Where it was found. Kept without userinfo, query and fragment."},
				"source":  {Type: framework.TypeString, Description: "What kind of place that is, or who found it."},
				"type":    {Type: framework.TypeString, Description: "What the finder calls this kind of key."},
				"matches": {Type: framework.TypeSlice, Description: "The array that a secret-scanning partner programme sends: objects with token, type, url and source."},
				"batch":   batchField("Several finds: objects with key or token, type, url and source."),
			},
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.report), Summary: "Report keys that were found in the open.",
					Responses: ok("What came of the reports.", map[string]*framework.FieldSchema{
						"result":  {Type: framework.TypeString, Description: "For a single key: " + outcome + "."},
						"results": {Type: framework.TypeStringSlice, Description: "For several, in order, each: " + outcome + "."},
					}),
				}),
			},
			DisplayAttrs: attrs("report", "leaked-keys"),
			HelpSynopsis: "Report keys that were found in the open.",
			HelpDescription: `
Acts on exactly the key presented, never on others of its role. A current or
previous version is dealt with as the role's on_leak says: revoke (killed and
replaced at once), rotate (replaced once; the old one lives leak_grace_period) or
alert (recorded). A pending version is revoked. What ended already is recorded.
A reported version is never prolonged by a rollback, a promotion or an extension.

The answer does not say whose key it was.`,
		},
	}
}

// find is one reported key as it is sent, in this engine's words or in those of
// scanning programmes.
type find struct {
	Key    string `json:"key"`
	Token  string `json:"token"`
	Type   string `json:"type"`
	URL    string `json:"url"`
	Source string `json:"source"`
}

func (f find) sighting() (sighting, error) {
	if (f.Key == "") == (f.Token == "") {
		return sighting{}, refusal.New("key", nil, "exactly one of key and token holds the key that was found", "give one")
	}
	return sighting{key: f.Key + f.Token, kind: f.Type, url: f.URL, source: f.Source}, nil
}

func (b *backend) report(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	finds, single, err := readFinds(d)
	if err != nil {
		return nil, err
	}
	sightings := make([]sighting, len(finds))
	for i, f := range finds {
		if sightings[i], err = f.sighting(); err != nil {
			return nil, err
		}
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	results := make([]string, len(sightings))
	for i, s := range sightings {
		if results[i], err = b.reportOne(ctx, req.Storage, s, requester(req), cfg); err != nil {
			return nil, err // what was acted on stays so; a repetition does the rest
		}
	}
	if single {
		return answer(map[string]any{"result": results[0]}), nil
	}
	return answer(map[string]any{"results": results}), nil
}

// readFinds reads the one form that the request uses.
func readFinds(d *framework.FieldData) (finds []find, single bool, err error) {
	key := d.Get("key").(string)
	batch := d.Get("batch").(string)
	matches := d.Get("matches").([]any)
	named := 0
	for _, given := range []bool{key != "", batch != "", len(matches) > 0} {
		if given {
			named++
		}
	}
	if named != 1 {
		return nil, false, refusal.New("key", nil, "exactly one of key, matches and batch holds what was found", "give one")
	}
	switch {
	case key != "":
		return []find{{Key: key, Type: d.Get("type").(string), URL: d.Get("url").(string), Source: d.Get("source").(string)}}, true, nil
	case batch != "":
		items, err := batchItems(batch)
		if err != nil {
			return nil, false, err
		}
		finds = make([]find, len(items))
		for i, item := range items {
			// Scanning programmes add fields now and then: they are not refused.
			if err := json.Unmarshal(item, &finds[i]); err != nil {
				return nil, false, refusal.New("batch", i, "the item with this number is not an object with key or token, type, url and source", "correct it")
			}
		}
		return finds, false, nil
	default:
		if len(matches) > maxSightings {
			return nil, false, refusal.New("matches", len(matches), "has more than 1000 items", "send it in parts")
		}
		data, err := json.Marshal(matches)
		if err == nil {
			err = json.Unmarshal(data, &finds)
		}
		if err != nil {
			return nil, false, refusal.New("matches", nil, "is not an array of objects with token, type, url and source", "correct it, or use batch")
		}
		return finds, false, nil
	}
}

// reportOne finds the key and acts on it. Whoever reports something that is not
// a key of this mount learns no more than that.
func (b *backend) reportOne(ctx context.Context, s logical.Storage, seen sighting, by actor, cfg *configRecord) (string, error) {
	key, _, err := b.presented(ctx, s, &question{key: seen.key})
	if err != nil {
		return "", err
	}
	if key == nil {
		return leakUnknown, nil
	}
	return b.reported(ctx, s, key, by, seen.where(), cfg, false)
}

func (b *backend) release(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	ids := d.Get("key_ids").([]string)
	if len(ids) == 0 || len(ids) > maxSightings {
		return nil, refusal.New("key_ids", len(ids), "must name 1 to 1000 keys", "report/deferred lists those that wait")
	}
	by := requester(req)
	by.reason = keyformat.Redact(d.Get("reason").(string))
	if len(by.reason) > maxReason {
		return nil, refusal.New("reason", len(by.reason), "has more than 512 bytes", "shorten it")
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	results := map[string]any{}
	for _, id := range ids {
		if keyformat.Redact(id) != id {
			return nil, refusal.New("key_ids", nil, "holds a whole key, not its id: this request may have been logged", "give ids")
		}
		outcome, err := b.releaseLeak(ctx, req.Storage, id, by, cfg)
		if err != nil {
			return nil, err
		}
		results[id] = outcome
	}
	return answer(map[string]any{"results": results}), nil
}

func (b *backend) listDeferred(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	w, err := windowAsked(d)
	if err != nil {
		return nil, err
	}
	ids, err := list(ctx, req.Storage, deferredPrefix)
	if err != nil {
		return nil, err
	}
	return w.collect(ids, func(id string) (map[string]any, error) {
		rec, err := getRecord[deferredLeak](ctx, req.Storage, deferredPrefix+id)
		if err != nil || rec == nil {
			return nil, err
		}
		return map[string]any{"role": rec.Role, "role_id": rec.RoleID, "reported": stamp(rec.At), "seen": rec.Seen}, nil
	})
}
