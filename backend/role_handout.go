// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// countdown is what tells the reader of a current version when to come back:
// fields whose names and types agents and operators of servers look at.
func (b *backend) countdown(r *roleNow, cur *keyring.Version) map[string]any {
	rec, t, now := r.rec, &r.terms, r.now
	next := r.nextActivation(b.mountPaused())
	h := keyring.Handout{NextActivation: next, Refresh: t.Refresh, Grace: t.Grace, Ends: earlierOf(hardEnd(cur), rec.Ring.Until)}
	if p := rec.Ring.Pending(now); p != nil && p.Grace > 0 && (h.Grace == 0 || p.Grace < h.Grace) {
		h.Grace = p.Grace
	}
	ttl := h.TTL(now)
	period := ttl
	if t.Cadence != nil && !next.IsZero() {
		period = max(t.Cadence.Distance(now, t.Jitter), time.Second)
	}
	data := map[string]any{
		"ttl": int64(ttl / time.Second), "rotation_period": int64(period / time.Second),
		"last_vault_rotation": cur.CurrentSince().UTC().Format(time.RFC3339Nano),
	}
	if rec.Policy.RotationSchedule != "" {
		data["rotation_schedule"] = rec.Policy.RotationSchedule
	}
	return data
}

// hardEnd is the end of a version that no rotation decides, and not that of its
// role; zero if there is none.
func hardEnd(v *keyring.Version) time.Time {
	return earlierOf(v.Cap, v.Expires)
}

// earlierOf is the earlier of two ends; a zero time is none.
func earlierOf(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// plaintext returns the stored key of a live version, and the role's record as
// it was when that was found. No record and no error: a commit came between, and
// the role is to be looked at again.
func (b *backend) plaintext(ctx context.Context, req *logical.Request, r *roleNow, n int) (string, *roleRecord, error) {
	rec := r.rec
	v := rec.Ring.Get(n)
	switch {
	case v == nil:
		return "", nil, fmt.Errorf("version %d is missing in the role record", n)
	case !v.Revealed.IsZero():
		return "", nil, alreadyRevealed(rec, v)
	case !v.Plain && v.Strength != "":
		return "", nil, refusal.New("role", rec.Name, fmt.Sprintf("version %d was imported by digest: its value was never known here", n),
			"ask who imported it, or make a new key with rotate/"+rec.Name)
	case r.terms.Reveal == policy.RevealOnce:
		return b.revealOnce(ctx, req, r, n)
	}
	secret, err := b.secretCache.get(ctx, req.Storage, secretPath(rec.ID, n))
	if err != nil {
		return "", nil, err
	}
	if secret == nil || secret.of(rec, v) != nil {
		// Ended and erased since the record was read, or written by another node.
		b.mistaken(rec.ID, n)
		fresh, err := b.storedRole(ctx, req.Storage, rec.Name)
		if err != nil {
			return "", nil, err
		}
		b.overtaken(rec.Name)
		if fresh == nil {
			return "", nil, noRole(rec.Name)
		}
		if fv := fresh.Ring.Get(n); fv != nil && !fv.Revealed.IsZero() {
			return "", nil, alreadyRevealed(fresh, fv)
		}
		if fresh.Seq != rec.Seq {
			return "", nil, nil
		}
		if secret, err = getRecord[secretRecord](ctx, req.Storage, secretPath(rec.ID, n)); err != nil {
			return "", nil, err
		}
		if secret == nil {
			return "", nil, fmt.Errorf("the plaintext of version %d is missing in storage", n)
		}
		if err := secret.of(rec, v); err != nil {
			return "", nil, err
		}
	}
	return secret.Key, rec, nil
}

// of refuses a value that is not the version's: one of an attempt that failed may have
// landed over it. Nobody is to be handed a key that never verifies.
func (r *secretRecord) of(rec *roleRecord, v *keyring.Version) error {
	if key, err := keyformat.Parse(r.Key); err == nil && key.ID() != v.KeyID {
		return fmt.Errorf("the value that is stored for version %d of role %s is another key's: rotate/%[2]s makes a new one", v.N, rec.Name)
	}
	return nil
}

func alreadyRevealed(rec *roleRecord, v *keyring.Version) error {
	return refusal.New("role", rec.Name, fmt.Sprintf("version %d was handed out at %s, and its value is not kept", v.N, keyring.Stamp(v.Revealed)),
		"rotate/"+rec.Name+" makes a new key")
}

// revealOnce hands a version out for the only time: that it was is committed
// before the answer, and the plaintext is erased. What it returns is as of plaintext:
// where the version is something else by now than it was when the caller looked at
// the role, current or not, nothing is handed out and used up.
func (b *backend) revealOnce(ctx context.Context, req *logical.Request, r *roleNow, n int) (string, *roleRecord, error) {
	var plain string
	rec, err := b.mutate(ctx, req.Storage, r.rec.Name, requester(req), func(tx *roleTx) (bool, error) {
		v := tx.rec.Ring.Get(n)
		if v == nil || tx.rec.ID != r.rec.ID {
			return false, nil
		}
		if !v.Revealed.IsZero() {
			return false, alreadyRevealed(tx.rec, v)
		}
		was, _ := r.rec.Ring.Status(n, r.now)
		if st, _ := tx.rec.Ring.Status(n, tx.now); st.State != was.State || st.State.Ended() {
			return false, nil
		}
		secret, err := getRecord[secretRecord](ctx, req.Storage, secretPath(tx.rec.ID, n))
		if err != nil {
			return false, err
		}
		if secret == nil {
			return false, fmt.Errorf("the plaintext of version %d is missing in storage", n)
		}
		if err := secret.of(tx.rec, v); err != nil {
			return false, err
		}
		plain = secret.Key
		v.Revealed = tx.now
		tx.note(historyEntry{Kind: eventRevealed, Version: n, KeyID: v.KeyID})
		return true, nil
	})
	if err != nil || plain == "" {
		return "", nil, err
	}
	return plain, rec, nil
}
