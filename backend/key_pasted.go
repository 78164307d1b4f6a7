// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// maxPasted is how many keys of one text are looked at.
const maxPasted = 100

// pasted is a key in a text that a person or a scanner copied: in quotes, after
// NAME=, in percent-encoding, among other words.
type pasted struct {
	id     string     // empty: the text holds nothing of this engine's form, and nothing that was imported
	record *keyRecord // nil: this mount does not know the key
	// foreign is the part of the text that is the key, where it was imported and has
	// not this engine's form.
	foreign string
	err     error // whether this mount knows it could not be found out
}

// pastedIn finds the keys in a text: every one of this engine's form, or else the
// imported one that the text is when what surrounds it is taken away. It returns
// at least one; more reports whether there are others of this engine's form.
func (b *backend) pastedIn(ctx context.Context, s logical.Storage, text string) (all []pasted, more bool) {
	keys, more := keyformat.Find(text, maxPasted)
	if len(keys) == 0 {
		return []pasted{b.pastedForeign(ctx, s, text)}, false
	}
	for _, key := range keys {
		rec, _, err := b.knownKey(ctx, s, &question{key: key.Reveal()})
		all = append(all, pasted{id: key.ID(), record: rec, err: err})
	}
	return all, more
}

// pastedForeign looks for an imported key of another form. Where a look fails the
// others are made all the same.
func (b *backend) pastedForeign(ctx context.Context, s logical.Storage, text string) pasted {
	var failed error
	for _, candidate := range keyformat.Candidates(text) {
		rec, _, err := b.knownKey(ctx, s, &question{key: candidate})
		switch {
		case err != nil:
			failed = err
		case rec != nil:
			return pasted{id: rec.ID, record: rec, foreign: candidate}
		}
	}
	return pasted{err: failed}
}

// meantKey is the key that a request names.
type meantKey struct {
	id string
	// whole: the key itself was given, not its id. Of a foreign one secret is it.
	whole  bool
	secret string
}

// keyMeant reads which key is meant by a text that should be a key's id and may be
// a key, as it was pasted. Two keys are refused: which of them is meant would be a
// guess.
func (b *backend) keyMeant(ctx context.Context, s logical.Storage, field, text string) (meantKey, error) {
	switch keys, more := keyformat.Find(text, maxPasted); {
	case len(keys) > 1:
		return meantKey{}, severalKeys(field, keys, more)
	case len(keys) == 1:
		return meantKey{id: keys[0].ID(), whole: true}, nil
	}
	byID := meantKey{id: text}
	isID := keyformat.ValidID(text)
	if isID {
		// Imported keys may look like ids. Where the record cannot be read, the
		// role's own may still know the id.
		if rec, err := b.keys.getOrAbsent(ctx, s, keyPath(text), b.clock.Now()); err != nil || rec != nil {
			return byID, nil //nolint:nilerr // see above: a kill goes on
		}
	}
	key := b.pastedForeign(ctx, s, text)
	if key.record != nil {
		return meantKey{id: key.id, whole: true, secret: key.foreign}, nil
	}
	if isID {
		return byID, nil
	}
	for _, candidate := range keyformat.Candidates(text) {
		if keyformat.ValidID(candidate) {
			return meantKey{id: candidate}, nil
		}
	}
	if key.err != nil {
		return meantKey{}, key.err
	}
	return meantKey{}, errNoKey
}

// severalKeys refuses a text with more than one key, by their ids.
func severalKeys(field string, keys []keyformat.Key, more bool) error {
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = key.ID()
	}
	return refusal.New(field, nil, "holds more than one key: "+fewOf(ids, more), "give one")
}

const maxListed = 10

// fewOf lists the first of the ids.
func fewOf(ids []string, more bool) string {
	if more || len(ids) > maxListed {
		return strings.Join(ids[:min(len(ids), maxListed)], ", ") + " and others"
	}
	return strings.Join(ids, ", ")
}

var errNoKey = &absence{what: "no such key is known"}
