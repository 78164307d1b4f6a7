// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsImport() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "import", verb: "import", suffix: "keys",
		synopsis: "Adopt existing keys, by value or by digest.",
		fields: fieldSet{
			"batch":  batchOf("Keys to adopt: objects with role and either key (the value) or sha256 (the hex digest of the value)."),
			"reason": reasonField("Why; kept in the roles' histories.", false),
		},
		ops: map[logical.Operation]operation{
			logical.UpdateOperation: {
				do: b.importKeys, writes: true, told: "What came of the items.",
				answer: map[string]*framework.FieldSchema{
					"summary": {
						Type: framework.TypeString, Required: true,
						Description: "results in one line: how many were imported, already imported and refused, and why the first ones were refused, by their place in the batch.",
					},
					"results": {
						Type: framework.TypeSlice, Required: true,
						Description: "In order: result (imported, already_imported or refused), role, version, key_id, and error for what was refused.",
					},
				},
			},
		},
		help: `
Each item makes a static role with the key as its first version, or makes the key
the next version of an existing static role: it is current at once, and the
previous version has its grace. What may stand in an item:

  role          the role (required)
  key           the key's value, or
  sha256        the hex SHA-256 of the value: verify knows the key, creds does not
  key_id        with sha256: the id of a key that has this engine's form (required
                for such a key: without it verify does not find the key)
  version       the version's number, above those that the role gave out before
  expires_at    when the key ends (RFC 3339, at most 100 years ahead): this version
                only. valid_until, as of any role, is the end of the role
  grace_period  how long the previous version stays valid
  any field of roles/<role> but type, for a role that is made by the item

A role made by an import rotates by itself only if the item says so: whoever
holds the key does not read it here yet. Repeating an item answers
already_imported. A key that this mount has seen end (revoked, reported, expired,
retired) cannot be imported again. Values shorter than 16 characters are refused
unless the mount's config has allow_weak_imports.`,
	})}
}

// importFields are what an item may say.
func importFields() fieldSet {
	return fieldsOf(policyRequestFields(), fieldSet{
		"role":         {kind: kindText, about: "The role that gets the key."},
		"key":          {kind: kindText, secret: true, about: "The key's value."},
		"sha256":       {kind: kindText, secret: true, about: "The SHA-256 of the value, in hex."},
		"key_id":       {kind: kindText, secret: true, about: "With sha256, for a key of this engine's form: its id."},
		"version":      {kind: kindInteger, about: "The version's number."},
		"expires_at":   {kind: kindTime, about: "When the key ends."},
		"valid_until":  {kind: kindText, about: "When the role ends."},
		"grace_period": {kind: kindDuration, about: "How long the previous version stays valid."},
	})
}

// importItem is one key to adopt, as an item says it.
type importItem struct {
	role     string
	key      string
	sum      [32]byte
	keyID    string
	byDigest bool
	version  int
	expires  time.Time
	grace    *policy.Seconds
	policy   map[string]any // the fields that are named
	rotation bool           // it says something of automatic rotation
}

// readImport reads an item. No refusal shows what may be a key.
func readImport(fields fieldSet, item json.RawMessage) (*importItem, error) {
	in, err := fields.readItem(item)
	if err != nil {
		return nil, err
	}
	it := &importItem{
		role: in.text("role"), key: in.text("key"), keyID: in.text("key_id"), byDigest: in.given("sha256"), expires: in.time("expires_at"),
		grace: graceAsked(in), policy: policyGiven(in), rotation: in.given("rotation_period") || in.text("rotation_schedule") != "",
	}
	if !validName(it.role) {
		return nil, refusal.New("role", nil, nameRule, "name the role")
	}
	if in.given("version") {
		n := in.integer("version")
		if n < 1 || n > math.MaxInt32 {
			return nil, refusal.New("version", n, "is not a version: it must be from 1 to 2147483647", "give another number, or leave it out")
		}
		it.version = int(n)
	}
	switch {
	case in.given("key") == it.byDigest:
		return nil, refusal.New("key", nil, "exactly one of key and sha256 says what to adopt", "give one")
	case !it.byDigest && in.given("key_id"):
		return nil, refusal.New("key_id", nil, "goes with sha256: a value has its id in itself", "leave it out")
	case !it.byDigest:
		return it, nil
	}
	raw, err := hex.DecodeString(in.text("sha256"))
	if err != nil || len(raw) != len(it.sum) {
		return nil, refusal.New("sha256", nil, "is not the hex form of 32 bytes", "give the SHA-256 of the key's value, in hex")
	}
	it.sum = [32]byte(raw)
	if in.given("key_id") && (len(it.keyID) != keyformat.IDLen || !keyformat.ValidID(it.keyID)) {
		return nil, refusal.New("key_id", nil, "is not the id of a key of this engine's form", "give the 12 characters after the prefix, or leave it out")
	}
	return it, nil
}

// importRequest is what an import says. An item that cannot be read is refused by
// itself.
type importRequest struct {
	by      actor
	items   []*importItem
	refused []error // by item; nil where it was read
}

func readImports(req *logical.Request, in *input) (*importRequest, error) {
	by, err := readActor(req, in)
	if err != nil {
		return nil, err
	}
	items, err := batchItems(in.text("batch"))
	if err != nil {
		return nil, err
	}
	r := &importRequest{by: by, items: make([]*importItem, len(items)), refused: make([]error, len(items))}
	fields := importFields()
	for i, item := range items {
		r.items[i], r.refused[i] = readImport(fields, item)
	}
	return r, nil
}

func (b *backend) importKeys(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readImports(req, in)
	if err != nil {
		return nil, err
	}
	if _, err := b.ensureDigest(ctx, req.Storage); err != nil {
		return nil, err
	}
	results := make([]any, len(r.items))
	var sum importSummary
	for i, item := range r.items {
		var result map[string]any
		err := r.refused[i]
		if err == nil {
			result, err = b.importOne(ctx, req.Storage, item, r.by)
		}
		refused := refusal.In(err)
		switch {
		case refused != nil:
			result = map[string]any{"result": importRefused, "error": refused.Error()}
		case err != nil:
			return nil, err // what was adopted stays so; a repetition does the rest
		}
		sum.add(i+1, result)
		results[i] = result
	}
	return answer(map[string]any{"results": results, "summary": sum.String()}), nil
}

// maxSummaryRefusals is how many refusals the line about a batch tells.
const maxSummaryRefusals = 3

// importSummary is what came of a batch, for people.
type importSummary struct {
	imported, already, refused int
	why                        []string
}

// add counts the result of the item at that place, the first of which is 1.
func (s *importSummary) add(place int, result map[string]any) {
	switch result["result"] {
	case importDone:
		s.imported++
	case importRefused:
		if s.refused++; s.refused <= maxSummaryRefusals {
			s.why = append(s.why, fmt.Sprintf("item %d: %v", place, result["error"]))
		}
	default:
		s.already++
	}
}

func (s *importSummary) String() string {
	text := fmt.Sprintf("%d imported, %d already imported, %d refused", s.imported, s.already, s.refused)
	if len(s.why) == 0 {
		return text
	}
	text += ": " + strings.Join(s.why, "; ")
	if more := s.refused - len(s.why); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

func (b *backend) importOne(ctx context.Context, s logical.Storage, item *importItem, by actor) (map[string]any, error) {
	cfg, err := b.config(ctx, s)
	if err != nil {
		return nil, err
	}
	// One import at a time: no two roles may adopt one key.
	b.importMu.Lock()
	defer b.importMu.Unlock()
	d, err := b.digests(ctx, s)
	if err != nil {
		return nil, err
	}
	a, err := item.adopted(d, cfg)
	if err != nil {
		return nil, err
	}
	for _, id := range a.ids(d) {
		if done, err := b.known(ctx, s, id, a, d); done != nil || err != nil {
			return done, err
		}
	}
	rec, err := b.adopt(ctx, s, a, by)
	if err != nil {
		return nil, err
	}
	return map[string]any{"result": importDone, "role": a.role, "version": a.record.Version, "key_id": a.record.ID, "role_id": rec.ID}, nil
}

// adopted is the key as it is to be stored, if it can be adopted.
func (it *importItem) adopted(d *digestRecord, cfg *configRecord) (*adopted, error) {
	a := &adopted{role: it.role, version: it.version, expires: it.expires, grace: it.grace, policy: it.policy, rotation: it.rotation}
	if it.byDigest {
		a.ofDigest(it, d)
		return a, nil
	}
	return a, a.ofValue(it.key, d, cfg)
}

func (a *adopted) ofValue(key string, d *digestRecord, cfg *configRecord) error {
	a.plain, a.sum = key, keyformat.Sum(key)
	if own, err := keyformat.Parse(key); err == nil {
		a.strength, a.prefix = strengthOwn, own.Prefix()
		a.ownRecord(d, own.ID())
		return nil
	}
	switch {
	case keyformat.Classify(key) == keyformat.Foreign:
		a.strength = fmt.Sprintf("%d characters, at most %d bits", len(key), bitsOf(key))
	case len(key) < keyformat.MinForeignLen && printable(key):
		if !cfg.AllowWeakImports {
			return refusal.New("key", nil, fmt.Sprintf("has less than %d characters and can be guessed", keyformat.MinForeignLen),
				"rotate it where it is used; or set allow_weak_imports in the mount's config, knowingly")
		}
		a.weak = true
		a.strength = fmt.Sprintf(strengthWeak+"%d characters, at most %d bits", len(key), bitsOf(key))
	default:
		return refusal.New("key", nil, fmt.Sprintf("must be at most %d printable ASCII characters without space at its ends", keyformat.MaxForeignLen),
			"a gateway could not present it; keys of other forms cannot be adopted")
	}
	a.foreignRecord(d)
	return nil
}

func (a *adopted) ofDigest(it *importItem, d *digestRecord) {
	a.sum, a.byDigest, a.strength = it.sum, true, strengthUnknown
	if it.keyID != "" {
		a.ownRecord(d, it.keyID)
		return
	}
	a.foreignRecord(d)
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
	rec, err := b.mutate(ctx, s, a.role, by, func(tx *roleTx) (bool, error) {
		if tx.rec.Type != policy.Static {
			return false, refusal.New("role", a.role, "is dynamic: its keys are issued one by one", "name a static role")
		}
		if err := tx.samePolicy(a.policy); err != nil {
			return false, err
		}
		return true, tx.adopt(a)
	})
	if !isAbsent(err) {
		return rec, err
	}
	p, err := a.newPolicy()
	if err != nil {
		return nil, err
	}
	tx, err := b.makeRole(ctx, s, a.role, policy.Static, p, by, func(tx *roleTx) error { return tx.adopt(a) })
	if err != nil {
		return nil, err
	}
	return tx.rec, nil
}

// newPolicy is the policy of a role that an import makes.
func (a *adopted) newPolicy() (*policy.Policy, error) {
	p, _, err := new(policy.Policy).With(a.policy)
	if err != nil {
		return nil, err
	}
	if !a.rotation {
		// Whoever holds the key does not read it here yet: nothing ends it
		// without being asked to.
		p.RotationPeriod = new(policy.Seconds)
	}
	return p, nil
}

// samePolicy refuses policy fields of an item that the existing role has
// otherwise: an import adopts keys, it does not change roles.
func (tx *roleTx) samePolicy(named map[string]any) error {
	p, _, err := new(policy.Policy).With(named)
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
