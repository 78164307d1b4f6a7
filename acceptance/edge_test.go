// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/edge"
)

// An edge on every node verifies without a call, and hears of a revocation, also from a
// node that only forwards.
func edgesFollow(t *testing.T, e *env) {
	e.write("roles/r", data{"scopes": []string{"orders:read"}, "metadata": data{"plan": "gold"}})
	k := e.creds("r")
	for _, addr := range e.server.addresses(t) {
		v, err := edge.New(edge.Options{Client: e.clientFor(addr, e.server.root()), Mount: e.mount})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		verify := func(secret string, scopes ...string) (edge.Verdict, error) {
			return v.Verify(context.Background(), edge.Request{Key: secret, Scopes: scopes})
		}
		eventually(t, "the edge follows", func() error {
			got, err := verify(k.secret, "orders:read")
			switch {
			case err != nil:
				return err
			case !got.Valid:
				return fmt.Errorf("%+v", got)
			case got.Role != "r" || got.KeyID != k.id || got.State != "current" || got.Metadata["plan"] != "gold":
				t.Errorf("verdict %+v", got)
			}
			return nil
		})
		if got, err := verify(k.secret, "orders:write"); err != nil || got.Code != "INSUFFICIENT_SCOPE" {
			t.Errorf("%+v, %v", got, err)
		}
		e.write("rotate/r", data{"grace_period": "1h"})
		next := e.creds("r")
		eventually(t, "the edge tells the previous version from the current one", func() error {
			old, err := verify(k.secret)
			if err == nil && (!old.Valid || old.State != "previous" || old.End != "planned") {
				err = fmt.Errorf("%+v", old)
			}
			if err != nil {
				return err
			}
			if now, err := verify(next.secret); err != nil || !now.Valid || now.State != "current" {
				return fmt.Errorf("%+v, %w", now, err)
			}
			return nil
		})
		e.write("revoke/r", data{"key_id": k.id})
		answered := time.Now()
		for {
			got, err := verify(k.secret)
			if err == nil && got.Code == "REVOKED" {
				break
			}
			if time.Since(answered) > 5*time.Second { // a second by the book; machines are slow
				t.Fatalf("%v after the revocation: %+v, %v", time.Since(answered), got, err)
			}
			<-time.After(20 * time.Millisecond)
		}
		k = next
	}
}
