// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

const (
	prefixesPath = "prefixes"
	// maxPrefixes bounds the record, and so the answer.
	maxPrefixes = 1000
)

// prefixRecord holds every prefix that a key of this mount may have, of ended
// keys too: a scanner that goes through old commits wants to know them.
type prefixRecord struct {
	Schema   int      `json:"schema"`
	Prefixes []string `json:"prefixes"` // sorted
	// Truncated: there were more than the record takes.
	Truncated bool `json:"truncated,omitempty"`
}

func (r *prefixRecord) schema() int { return r.Schema }

// settled: there is nothing to write down for the prefix.
func (r *prefixRecord) settled(prefix string) bool {
	_, known := slices.BinarySearch(r.Prefixes, prefix)
	return known || r.Truncated
}

// prefixState is this node's copy of it, absence included.
type prefixState struct {
	mu    sync.Mutex // held from a Get to its fill, and by forget
	cache atomic.Pointer[prefixRecord]
}

// forget makes the next look read it again.
func (p *prefixState) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cache.Store(nil)
}

func (b *backend) knownPrefixes(ctx context.Context, s logical.Storage) (*prefixRecord, error) {
	if rec := b.prefixes.cache.Load(); rec != nil {
		return rec, nil
	}
	b.prefixes.mu.Lock()
	defer b.prefixes.mu.Unlock()
	return b.loadPrefixes(ctx, s)
}

// loadPrefixes fills the copy, under its mutex.
func (b *backend) loadPrefixes(ctx context.Context, s logical.Storage) (*prefixRecord, error) {
	rec, err := getRecord[prefixRecord](ctx, s, prefixesPath)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		rec = &prefixRecord{Schema: recordSchema}
	}
	b.prefixes.cache.Store(rec)
	return rec, nil
}

// notePrefix writes a prefix down before the first key that has it can count.
func (b *backend) notePrefix(ctx context.Context, s logical.Storage, prefix string) error {
	if rec := b.prefixes.cache.Load(); rec != nil && rec.settled(prefix) {
		return nil
	}
	b.prefixes.mu.Lock()
	defer b.prefixes.mu.Unlock()
	rec, err := b.loadPrefixes(ctx, s)
	if err != nil || rec.settled(prefix) {
		return err
	}
	next := &prefixRecord{Schema: recordSchema, Prefixes: rec.Prefixes, Truncated: len(rec.Prefixes) >= maxPrefixes}
	if !next.Truncated {
		at, _ := slices.BinarySearch(rec.Prefixes, prefix)
		next.Prefixes = slices.Insert(slices.Clone(rec.Prefixes), at, prefix)
	}
	b.prefixes.cache.Store(nil)
	if err := putRecord(ctx, s, prefixesPath, next); err != nil {
		return err
	}
	b.prefixes.cache.Store(next)
	return nil
}

// notePrefixes writes down what the role's next keys, and those that this
// transition makes or adopts, begin with.
func (tx *roleTx) notePrefixes() error {
	if err := tx.b.notePrefix(tx.ctx, tx.s, tx.terms.prefix); err != nil {
		return err
	}
	for i := range tx.minted {
		key, err := keyformat.Parse(tx.minted[i].plain)
		if err != nil {
			continue // of another form, or known by its digest only
		}
		if err := tx.b.notePrefix(tx.ctx, tx.s, key.Prefix()); err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) pathsKeyFormat() []*framework.Path {
	return []*framework.Path{{
		Pattern: "key-format",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: handle(b.keyFormat), Summary: "What keys look like, for those who search for them.",
				Responses: ok("The form of keys.", map[string]*framework.FieldSchema{
					"prefixes": {Type: framework.TypeStringSlice, Description: "Every prefix that a role had, sorted; those of ended keys stay.", Required: true},
					"complete": {Type: framework.TypeBool, Description: "False if there were more than 1000 prefixes, of which the first 1000 are listed.", Required: true},
					"patterns": {Type: framework.TypeMap, Description: "By prefix: the regular expression (RE2) whose first group is the key.", Required: true},
					"checksum": {Type: framework.TypeString, Description: "How what was found is told apart from a key, offline.", Required: true},
					"gitleaks": {Type: framework.TypeString, Description: "Rules for gitleaks (TOML), one for each prefix: a configuration of their own, or to be added to one.", Required: true},
				}),
			},
		},
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "read", OperationSuffix: "key-format"},
		HelpSynopsis: "What keys look like, for those who search for them.",
		HelpDescription: `
For each prefix that a role of this mount ever had: a regular expression, and a
rule for gitleaks. What they find is a key if its checksum is right, which can be
computed without asking anybody.

Keys that were made elsewhere and imported have a form of their own and are found
by none of these.`,
	}}
}

func (b *backend) keyFormat(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	rec, err := b.knownPrefixes(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	patterns := make(map[string]any, len(rec.Prefixes))
	rules := make([]string, len(rec.Prefixes))
	for i, prefix := range rec.Prefixes {
		patterns[prefix] = keyformat.Pattern(prefix)
		rules[i] = keyformat.GitleaksRule(prefix)
	}
	return answer(map[string]any{
		"prefixes": append([]string{}, rec.Prefixes...),
		"complete": !rec.Truncated,
		"patterns": patterns,
		"checksum": keyformat.ChecksumRule,
		"gitleaks": strings.Join(rules, "\n"),
	}), nil
}
