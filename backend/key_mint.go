// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

var errNoDigest = errors.New("the mount has no digest secret yet")

// digests returns the secrets under which keys are digested; errNoDigest before
// there is one.
func (b *backend) digests(ctx context.Context, s logical.Storage) (*digestRecord, error) {
	rec, err := b.digestSecrets.get(ctx, s)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, errNoDigest
	}
	return rec, nil
}

// ensureDigest is digests, making the first secret where there is none. It must
// not be called under a role's lock.
func (b *backend) ensureDigest(ctx context.Context, s logical.Storage) (*digestRecord, error) {
	if rec, err := b.digests(ctx, s); !errors.Is(err, errNoDigest) {
		return rec, err
	}
	return b.rotateDigest(ctx, s, func(rec *digestRecord) bool { return rec == nil })
}

// rotateDigest adds a digest secret if wanted says so of the stored record,
// which is nil where there is none yet.
func (b *backend) rotateDigest(ctx context.Context, s logical.Storage, wanted func(*digestRecord) bool) (*digestRecord, error) {
	return b.digestSecrets.change(ctx, s, func(stored *digestRecord) (*digestRecord, error) {
		if !wanted(stored) {
			return nil, nil
		}
		rec := &digestRecord{Schema: recordSchema, Current: 1, Secrets: map[int][]byte{}, Rotated: b.now()}
		if stored != nil {
			rec.Current = stored.Current + 1
			for k, v := range stored.Secrets {
				rec.Secrets[k] = v
			}
		}
		secret := make([]byte, keyformat.DigestSecretLen)
		if _, err := io.ReadFull(b.rand, secret); err != nil {
			return nil, fmt.Errorf("reading randomness: %w", err)
		}
		rec.Secrets[rec.Current] = secret
		return rec, nil
	})
}

// mintKey makes a key and its record, stored nowhere yet.
func (b *backend) mintKey(d *digestRecord, prefix string) (keyformat.Key, *keyRecord, error) {
	key, err := keyformat.Mint(prefix, b.rand)
	if err != nil {
		return keyformat.Key{}, nil, fmt.Errorf("minting a key: %w", err)
	}
	return key, &keyRecord{
		Schema: recordSchema, ID: key.ID(),
		Digest: keyformat.Digest(d.Secrets[d.Current], d.Current, keyformat.Sum(key.Reveal())),
	}, nil
}
