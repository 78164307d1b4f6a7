// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

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

// begunKeys are the keys whose making failed, of versions that do not exist yet. What
// was written of them may land any time later. So who makes the version after all makes
// that key: then it does not matter what lands when. The zero value is ready.
type begunKeys struct {
	mu   sync.Mutex
	keys map[string]begunKey // by the path of the plaintext
}

type begunKey struct {
	key   keyformat.Key
	until time.Time
}

// keep notes that making the version failed.
func (k *begunKeys) keep(roleID string, n int, plain string, now time.Time) {
	key, err := keyformat.Parse(plain)
	if err != nil {
		return // an imported one, which is the same next time
	}
	k.expire(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) >= maxUnsure {
		return
	}
	if k.keys == nil {
		k.keys = map[string]begunKey{}
	}
	k.keys[secretPath(roleID, n)] = begunKey{key, now.Add(lateFor)}
}

// find is the key that the version is to be, if its making failed.
func (k *begunKeys) find(roleID string, n int, prefix string, now time.Time) (keyformat.Key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	begun, ok := k.keys[secretPath(roleID, n)]
	return begun.key, ok && begun.key.Prefix() == prefix && !over(now, begun.until)
}

// expire forgets the keys of which nothing lands any more.
func (k *begunKeys) expire(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for path, begun := range k.keys {
		if over(now, begun.until) {
			delete(k.keys, path)
		}
	}
}

// drop forgets the key of a version that exists now: no other one may be that key.
func (k *begunKeys) drop(roleID string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, secretPath(roleID, n))
}

// mintVersion is mintKey for a version of a static role.
func (b *backend) mintVersion(d *digestRecord, prefix, roleID string, n int) (keyformat.Key, *keyRecord, error) {
	if key, ok := b.begun.find(roleID, n, prefix, b.clock.Now()); ok {
		return key, recordOf(d, key), nil
	}
	return b.mintKey(d, prefix)
}

// recordOf is the record of a key of the mount's own form.
func recordOf(d *digestRecord, key keyformat.Key) *keyRecord {
	return &keyRecord{
		Schema: recordSchema, ID: key.ID(),
		Digest: keyformat.Digest(d.Secrets[d.Current], d.Current, keyformat.Sum(key.Reveal())),
	}
}

// mintKey makes a key and its record, stored nowhere yet.
func (b *backend) mintKey(d *digestRecord, prefix string) (keyformat.Key, *keyRecord, error) {
	key, err := keyformat.Mint(prefix, b.rand)
	if err != nil {
		return keyformat.Key{}, nil, fmt.Errorf("minting a key: %w", err)
	}
	return key, recordOf(d, key), nil
}
