// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// writeRole creates, updates or patches a role.
func (b *backend) writeRole(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	if !validName(name) {
		return nil, refusal.New("name", name, nameRule, "choose another name")
	}
	if req.Operation == logical.CreateOperation {
		return b.createRole(ctx, req, in, name)
	}
	given := policyGiven(in)
	var warnings []string
	_, err := b.mutate(ctx, req.Storage, name, requester(req), func(tx *roleTx) (bool, error) {
		if err := tx.checkIdentity(in); err != nil {
			return false, err
		}
		if in.flag("replace") {
			replaceUnnamed(given)
		}
		p, resets, err := tx.rec.Policy.With(given)
		if err != nil {
			return false, err
		}
		if err := policy.Check(&tx.old.Policy, p, tx.rec.ID, tx.rec.Type, tx.lim); err != nil {
			return false, err
		}
		before, was := tx.view(), tx.terms
		if err := tx.setPolicy(*p); err != nil {
			return false, err
		}
		after := tx.view()
		warnings = append(policyWarnings(p, tx.rec.Type, tx.terms), tx.warnings...)
		if was.Reveal != tx.terms.Reveal && was.Cadence != nil && tx.terms.Cadence == nil && !in.given("rotation_period") {
			warnings = append(warnings, "reveal: rotation is by hand only from now on, because a key that is handed out once does not reach who holds the one before: "+
				"give rotation_period or rotation_schedule in the same write to keep it automatic")
		}
		changes := changesOf(before, after)
		if len(changes) == 0 && !resets {
			// What was read and is written back leaves the defaults what they are.
			return false, nil
		}
		if len(changes) > 0 {
			tx.note(historyEntry{Kind: eventRoleUpdated, Fields: changes})
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return warned(warnings), nil
}

// createRole makes a role and its first version in one commit.
func (b *backend) createRole(ctx context.Context, req *logical.Request, in *input, name string) (*logical.Response, error) {
	typ := in.text("type")
	for _, field := range []string{"role_id", "created"} {
		if in.given(field) {
			return nil, refusal.New(field, in.text(field), "is given by the engine", "leave it out; to bring back a deleted role use restore/<role_id>")
		}
	}
	given := policyGiven(in)
	if given["valid_until"] == "" {
		return nil, refusal.New("valid_until", "", "is empty", "leave it out, or give a time such as 2027-01-31T08:00:00Z")
	}
	p, _, err := new(policy.Policy).With(given)
	if err != nil {
		return nil, err
	}
	tx, err := b.makeRole(ctx, req.Storage, name, typ, p, requester(req), (*roleTx).firstVersion)
	if err != nil {
		return nil, err
	}
	return warned(policyWarnings(p, typ, tx.terms)), nil
}

// checkIdentity refuses to change what identifies a role. Writing it as it is
// is no change.
func (tx *roleTx) checkIdentity(in *input) error {
	for _, f := range []struct{ name, have string }{
		{"type", tx.rec.Type}, {"role_id", tx.rec.ID}, {"created", stamp(tx.rec.Created)},
	} {
		if !in.given(f.name) && !in.resets(f.name) {
			continue
		}
		want := in.text(f.name) // the default of type, where a patch resets it
		if want == f.have {
			continue
		}
		if f.name == "type" {
			return refusal.New(f.name, want, "is fixed at creation; this role is "+f.have, "delete the role and create it anew, or use another name")
		}
		return refusal.New(f.name, want, "is given by the engine; this role's is "+f.have, "leave it out")
	}
	return nil
}

// replaceUnnamed puts every field that a write does not name back to its default.
func replaceUnnamed(given map[string]any) {
	for i := range policy.Fields {
		name := policy.Fields[i].Name
		if _, named := given[name]; !named {
			given[name] = nil
		}
	}
}

func warned(warnings []string) *logical.Response {
	if len(warnings) == 0 {
		return nil
	}
	return &logical.Response{Warnings: warnings}
}
