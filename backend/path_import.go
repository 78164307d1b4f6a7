// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsImport() []*framework.Path {
	return []*framework.Path{{
		Pattern: "import",
		Fields: map[string]*framework.FieldSchema{
			"batch":  batchField("Keys to adopt: objects with role and either key (the value) or sha256 (the hex digest of the value)."),
			"reason": {Type: framework.TypeString, Description: "Why; kept in the roles' histories."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: writes(&framework.PathOperation{
				Callback: handle(b.importKeys), Summary: "Adopt existing keys.",
				Responses: ok("What came of the items.", map[string]*framework.FieldSchema{
					"results": {
						Type: framework.TypeSlice, Required: true,
						Description: "In order: result (imported, already_imported or refused), role, version, key_id, and error for what was refused.",
					},
				}),
			}),
		},
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "import", OperationSuffix: "keys"},
		HelpSynopsis: "Adopt existing keys, by value or by digest.",
		HelpDescription: `
Each item makes a static role with the key as its first version, or makes the key
the next version of an existing static role: it is current at once, and the one
before has its grace. What may stand in an item:

  role          the role (required)
  key           the key's value, or
  sha256        the hex SHA-256 of the value: verify knows the key, creds does not
  key_id        with sha256: the id of a key that has this engine's form
  version       the version's number, above those the role gave out before
  expires_at    when the key ends (RFC 3339)
  grace_period  how long the version before stays valid
  any field of roles/<role> but type, for a role that is made by the item

A role made by an import rotates by itself only if the item says so: whoever
holds the key does not read it here yet. Repeating an item answers
already_imported. Values shorter than 16 characters are refused unless the
mount's config has allow_weak_imports.`,
	}}
}

// importItem is one key to adopt. What is not listed here is a policy field.
type importItem struct {
	Role      string    `json:"role"`
	Key       string    `json:"key"`
	SHA256    string    `json:"sha256"`
	KeyID     string    `json:"key_id"`
	Version   int       `json:"version"`
	ExpiresAt time.Time `json:"expires_at"`
	Grace     any       `json:"grace_period"`
}

var importFields = []string{"role", "key", "sha256", "key_id", "version", "expires_at"}

func (b *backend) importKeys(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	by, err := actorOf(req, d)
	if err != nil {
		return nil, err
	}
	items, err := batchItems(d.Get("batch").(string))
	if err != nil {
		return nil, err
	}
	if _, err := b.ensureDigest(ctx, req.Storage); err != nil {
		return nil, err
	}
	results := make([]any, len(items))
	for i, item := range items {
		result, err := b.importOne(ctx, req.Storage, item, by)
		r := refusal.In(err)
		switch {
		case r != nil:
			result = map[string]any{"result": importRefused, "error": r.Error()}
		case err != nil:
			return nil, err // what was adopted stays so; a repetition does the rest
		}
		results[i] = result
	}
	return answer(map[string]any{"results": results}), nil
}

func (b *backend) importOne(ctx context.Context, s logical.Storage, item json.RawMessage, by actor) (map[string]any, error) {
	cfg, err := b.config(ctx, s)
	if err != nil {
		return nil, err
	}
	d, err := b.digests(ctx, s)
	if err != nil {
		return nil, err
	}
	a, err := readImport(item, d, cfg)
	if err != nil {
		return nil, err
	}
	// One import at a time: no two roles may adopt one key.
	b.importMu.Lock()
	defer b.importMu.Unlock()
	ids := []string{a.record.ID}
	if a.foreign {
		if ids, err = b.foreignIDs(ctx, s, d, a.sum); err != nil {
			return nil, err
		}
	}
	for _, id := range ids {
		known, err := getRecord[keyRecord](ctx, s, keyPath(id))
		if err != nil {
			return nil, err
		}
		if known == nil {
			continue
		}
		if done, err := b.alreadyImported(ctx, s, known, a, d); done != nil || err != nil {
			return done, err
		}
		if err := b.dropLeftPlaintext(ctx, s, known); err != nil {
			return nil, err
		}
	}
	if a.foreign {
		if err := b.markImported(ctx, s, d.Current, a.weak); err != nil {
			return nil, err
		}
	}
	rec, err := b.adopt(ctx, s, a, by)
	if err != nil {
		return nil, err
	}
	return map[string]any{"result": importDone, "role": a.role, "version": a.record.Version, "key_id": a.record.ID, "role_id": rec.ID}, nil
}

// readImport reads an item and refuses what can not be adopted. No refusal
// shows what may be a key.
func readImport(item json.RawMessage, d *digestRecord, cfg *configRecord) (*adopted, error) {
	var it importItem
	raw := map[string]any{}
	if json.Unmarshal(item, &raw) != nil || json.Unmarshal(item, &it) != nil {
		return nil, refusal.New("batch", nil, "the item is not an object with fields of the right types", "see the path's help")
	}
	a := &adopted{role: it.Role, version: it.Version, expires: it.ExpiresAt, policy: raw}
	for _, f := range importFields {
		delete(raw, f)
	}
	if !validName(it.Role) {
		return nil, refusal.New("role", nil, nameRule, "name the role")
	}
	if it.Version < 0 || it.Version > math.MaxInt32 {
		return nil, refusal.New("version", it.Version, "is not a version", "give a number above zero, or leave it out")
	}
	if (it.Key == "") == (it.SHA256 == "") {
		return nil, refusal.New("key", nil, "exactly one of key and sha256 says what to adopt", "give one")
	}
	if it.Grace != nil {
		if _, exists := raw["grace_period"]; exists {
			fd := framework.FieldData{Raw: map[string]any{"grace_period": it.Grace}, Schema: policySchemas()}
			v, _, err := fd.GetOkErr("grace_period")
			if err != nil {
				return nil, refusal.New("grace_period", it.Grace, "not a duration", "give a duration such as 24h")
			}
			g := policy.Seconds(v.(int)).Duration()
			a.grace = &g
		}
	}
	if it.Key != "" {
		return a, a.byValue(it, d, cfg)
	}
	return a, a.byDigest(it, d)
}

func (a *adopted) byValue(it importItem, d *digestRecord, cfg *configRecord) error {
	sum := keyformat.Sum(it.Key)
	a.plain, a.sum = it.Key, sum
	if it.KeyID != "" {
		return refusal.New("key_id", nil, "goes with sha256: a value has its id in itself", "leave it out")
	}
	if own, err := keyformat.Parse(it.Key); err == nil {
		a.strength = "256 bits"
		a.record = &keyRecord{Schema: recordSchema, ID: own.ID(), Digest: keyformat.Digest(d.Secrets[d.Current], d.Current, sum)}
		return nil
	}
	switch {
	case keyformat.Classify(it.Key) == keyformat.Foreign:
		a.strength = fmt.Sprintf("%d characters, at most %d bits", len(it.Key), bitsOf(it.Key))
	case len(it.Key) < keyformat.MinForeignLen && printable(it.Key):
		if !cfg.AllowWeakImports {
			return refusal.New("key", nil, fmt.Sprintf("has less than %d characters and can be guessed", keyformat.MinForeignLen),
				"rotate it where it is used; or set allow_weak_imports in the mount's config, knowingly")
		}
		a.weak = true
		a.strength = fmt.Sprintf("weak: %d characters, at most %d bits", len(it.Key), bitsOf(it.Key))
	default:
		return refusal.New("key", nil, fmt.Sprintf("must be at most %d printable ASCII characters without space at its ends", keyformat.MaxForeignLen),
			"a gateway could not present it; keys of other forms can not be adopted")
	}
	a.foreignRecord(d, sum)
	return nil
}

func (a *adopted) byDigest(it importItem, d *digestRecord) error {
	raw, err := hex.DecodeString(it.SHA256)
	if err != nil || len(raw) != 32 {
		return refusal.New("sha256", nil, "is not the hex form of 32 bytes", "give the SHA-256 of the key's value, in hex")
	}
	sum := [32]byte(raw)
	a.sum = sum
	a.strength = "unknown: imported by digest"
	if it.KeyID == "" {
		a.foreignRecord(d, sum)
		return nil
	}
	if len(it.KeyID) != keyformat.IDLen || !keyformat.ValidID(it.KeyID) {
		return refusal.New("key_id", nil, "is not the id of a key of this engine's form", "give the 12 characters after the prefix, or leave it out")
	}
	a.record = &keyRecord{Schema: recordSchema, ID: it.KeyID, Digest: keyformat.Digest(d.Secrets[d.Current], d.Current, sum)}
	return nil
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e {
			return false
		}
	}
	return s != ""
}

// bitsOf is how many bits a key of that length over the kinds of characters in
// it can have at most.
func bitsOf(s string) int {
	kinds := []struct {
		size   int
		within func(c byte) bool
	}{
		{10, func(c byte) bool { return c >= '0' && c <= '9' }},
		{26, func(c byte) bool { return c >= 'a' && c <= 'z' }},
		{26, func(c byte) bool { return c >= 'A' && c <= 'Z' }},
	}
	alphabet, other := 0, false
	for _, k := range kinds {
		if slices.ContainsFunc([]byte(s), k.within) {
			alphabet += k.size
		}
	}
	for _, c := range []byte(s) {
		other = other || !slices.ContainsFunc(kinds, func(k struct {
			size   int
			within func(c byte) bool
		},
		) bool {
			return k.within(c)
		})
	}
	if other {
		alphabet += 33
	}
	return int(float64(len(s)) * math.Log2(float64(alphabet)))
}

// adopt commits the key as the next version of its role, which is made if there
// is none.
func (b *backend) adopt(ctx context.Context, s logical.Storage, a *adopted, by actor) (*roleRecord, error) {
	rec, err := b.mutate(ctx, s, a.role, by, func(tx *roleTx) error {
		if tx.rec.Type != policy.Static {
			return refusal.New("role", a.role, "is dynamic: its keys are issued one by one", "name a static role")
		}
		if err := tx.samePolicy(a.policy); err != nil {
			return err
		}
		return tx.adopt(a)
	})
	if !isAbsent(err) {
		return rec, err
	}
	p, err := importedPolicy(a.policy)
	if err != nil {
		return nil, err
	}
	tx, err := b.makeRole(ctx, s, a.role, policy.Static, p, by, func(tx *roleTx) error { return tx.adopt(a) })
	if err != nil {
		return nil, err
	}
	return tx.rec, nil
}

// importedPolicy is the policy of a role that an import makes.
func importedPolicy(named map[string]any) (*policy.Policy, error) {
	p, err := policyOf(named)
	if err != nil {
		return nil, err
	}
	if _, asked := named["rotation_period"]; !asked && p.RotationSchedule == "" {
		// Whoever holds the key does not read it here yet: nothing ends it
		// without being asked to.
		p.RotationPeriod = new(policy.Seconds)
	}
	return p, nil
}

// policyOf reads policy fields as roles/<role> does.
func policyOf(named map[string]any) (*policy.Policy, error) {
	in, err := policyRequestFields().readValues(named, false)
	if err != nil {
		return nil, err
	}
	p, _, err := new(policy.Policy).With(policyGiven(in))
	return p, err
}

// samePolicy refuses policy fields of an item that the existing role has
// otherwise: an import adopts keys, it does not change roles.
func (tx *roleTx) samePolicy(named map[string]any) error {
	p, err := policyOf(named)
	if err != nil {
		return err
	}
	for _, f := range sortedKeys(named) {
		if f != "grace_period" && !policy.SameField(f, p, &tx.rec.Policy) {
			return refusal.New(f, nil, "the role exists and has another value", "leave it out, or update the role first")
		}
	}
	return nil
}
