// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// key is what `creds/<role>` hands out.
type key struct {
	secret, id string
	version    int64
	ttl        int64
	lease      *api.Secret
}

// keyShown is how much of a key follows its id: nothing.
func (k key) String() string {
	for i := range k.secret {
		if rest := k.secret[i:]; len(rest) >= len(k.id) && rest[:len(k.id)] == k.id {
			return k.secret[:i] + k.id + "…"
		}
	}
	return "…"
}

// verdict is what `verify` says.
type verdict struct {
	valid               bool
	code, state, reason string
	expires             time.Time
}

func (s *story) write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	secret, err := s.client.Logical().WriteWithContext(ctx, "apikeys/"+path, data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return secret, nil
}

func (s *story) read(ctx context.Context, path string) (*api.Secret, error) {
	secret, err := s.client.Logical().ReadWithContext(ctx, "apikeys/"+path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if secret == nil {
		return nil, fmt.Errorf("read %s: nothing there", path)
	}
	return secret, nil
}

func (s *story) creds(ctx context.Context, role string) (key, error) {
	secret, err := s.read(ctx, "creds/"+role)
	if err != nil {
		return key{}, err
	}
	k := key{secret: str(secret.Data, "api_key"), id: str(secret.Data, "key_id"), version: num(secret.Data, "version"), ttl: num(secret.Data, "ttl"), lease: secret}
	if k.secret == "" || k.id == "" {
		return key{}, fmt.Errorf("creds/%s has no key", role)
	}
	return k, nil
}

func (s *story) verify(ctx context.Context, k key) (verdict, error) {
	secret, err := s.write(ctx, "verify", map[string]any{"key": k.secret})
	if err != nil {
		return verdict{}, err
	}
	if secret == nil {
		return verdict{}, errors.New("verify answered nothing")
	}
	valid, _ := secret.Data["valid"].(bool)
	v := verdict{valid: valid, code: str(secret.Data, "code"), state: str(secret.Data, "state"), reason: str(secret.Data, "reason")}
	v.expires, _ = time.Parse(time.RFC3339, str(secret.Data, "expires_at"))
	return v, nil
}

// expect verifies k, tells the verdict, and fails if it is another.
func (s *story) expect(ctx context.Context, k key, code, state string) error {
	v, err := s.verify(ctx, k)
	if err != nil {
		return err
	}
	s.verdict(k, v)
	if v.code != code || v.valid != (code == "VALID") || state != "" && v.state != state {
		return fmt.Errorf("the key of version %d verifies as %s %s, told was %s %s", k.version, v.code, v.state, code, state)
	}
	return nil
}

func (s *story) verdict(k key, v verdict) {
	s.n.do("vault write apikeys/verify key=%s", k)
	mark, text := "✗", v.code
	if v.valid {
		mark = "✓"
	}
	if v.state != "" && !strings.EqualFold(v.state, v.code) {
		text += ", " + v.state
	}
	if v.reason != "" {
		text += ", " + v.reason
	}
	if v.valid && !v.expires.IsZero() {
		text += fmt.Sprintf(", ends in %.0f s", time.Until(v.expires).Seconds())
	}
	s.n.show("%s %s", mark, text)
}

// until polls ask until it says yes.
func until(ctx context.Context, limit time.Duration, what string, ask func() (bool, error)) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ask()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("%s did not happen within %s", what, limit)
		case <-tick.C:
		}
	}
}

func str(data map[string]any, name string) string {
	v, _ := data[name].(string)
	return v
}

func num(data map[string]any, name string) int64 {
	n, _ := data[name].(json.Number)
	i, _ := n.Int64()
	return i
}
