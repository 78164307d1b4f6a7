// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// writeRole creates, updates or patches a role.
func (b *backend) writeRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if !validName(name) {
		return nil, refusal.New("name", name, nameRule, "choose another name")
	}
	if v, named := req.Data["name"]; named && v != nil && fmt.Sprint(v) != name {
		return nil, refusal.New("name", v, "is not the role that the path names", "leave it out; a role can not be renamed")
	}
	if req.Operation == logical.CreateOperation {
		return b.createRole(ctx, req, d, name)
	}
	var warnings []string
	_, err := b.mutate(ctx, req.Storage, name, requester(req), func(tx *roleTx) error {
		if err := tx.checkIdentity(req, d); err != nil {
			return err
		}
		given, err := policyGiven(d, req.Operation == logical.PatchOperation)
		if err != nil {
			return err
		}
		p, resets, err := tx.rec.Policy.With(given)
		if err != nil {
			return err
		}
		if err := policy.Check(&tx.old.Policy, p, tx.rec.ID, tx.rec.Type, tx.lim); err != nil {
			return err
		}
		before, err := tx.old.view(tx.lim)
		if err != nil {
			return err
		}
		if err := tx.setPolicy(*p); err != nil {
			return err
		}
		after, err := tx.rec.view(tx.lim)
		if err != nil {
			return err
		}
		warnings = policyWarnings(p, tx.rec.Type, tx.terms)
		changes := changesOf(before, after)
		if len(changes) == 0 && !resets {
			// What was read and is written back leaves the defaults what they are.
			return errUnchanged
		}
		if len(changes) > 0 {
			tx.note(historyEntry{Kind: eventRoleUpdated, Fields: changes})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return warned(warnings), nil
}

// createRole makes a role and its first version in one commit.
func (b *backend) createRole(ctx context.Context, req *logical.Request, d *framework.FieldData, name string) (*logical.Response, error) {
	typ := policy.Static
	if v, named := d.GetOk("type"); named && d.Raw["type"] != nil {
		if typ = v.(string); typ != policy.Static && typ != policy.Dynamic {
			return nil, refusal.New("type", typ, "must be one of static, dynamic", "choose one")
		}
	}
	for _, field := range []string{"role_id", "created"} {
		if v := d.Raw[field]; v != nil {
			return nil, refusal.New(field, v, "is given by the engine", "leave it out; to bring back a deleted role use restore/<role_id>")
		}
	}
	given, err := policyGiven(d, false)
	if err != nil {
		return nil, err
	}
	p, _, err := new(policy.Policy).With(given)
	if err != nil {
		return nil, err
	}
	tx, unlock, err := b.newRole(ctx, req.Storage, name, typ, p, requester(req))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := tx.found(*p); err != nil {
		return nil, err
	}
	if err := tx.commit(); err != nil {
		return nil, err
	}
	return warned(policyWarnings(p, typ, tx.terms)), nil
}

// checkIdentity refuses to change what identifies a role. Writing it as it is
// is no change.
func (tx *roleTx) checkIdentity(req *logical.Request, d *framework.FieldData) error {
	for field, have := range map[string]string{"type": tx.rec.Type, "role_id": tx.rec.ID, "created": stamp(tx.rec.Created)} {
		raw, named := d.Raw[field]
		if !named || (raw == nil && req.Operation != logical.PatchOperation) {
			continue
		}
		want := d.Get(field).(string)
		if raw == nil && field == "type" {
			want = policy.Static
		}
		if want == have {
			continue
		}
		if field == "type" {
			return refusal.New(field, raw, "is fixed at creation; this role is "+have, "delete the role and create it anew, or use another name")
		}
		return refusal.New(field, raw, "is given by the engine; this role's is "+have, "leave it out")
	}
	return nil
}

// policyGiven is what the request says of the policy: values by field, each in
// its kind's Go type; in a patch nil resets a field, elsewhere it is not given.
func policyGiven(d *framework.FieldData, patch bool) (map[string]any, error) {
	given := map[string]any{}
	for i := range policy.Fields {
		name, schema := policy.Fields[i].Name, d.Schema[policy.Fields[i].Name]
		raw, named := d.Raw[name]
		if !named || (raw == nil && !patch) {
			continue
		}
		if raw == nil {
			given[name] = nil
			continue
		}
		if err := wholeSeconds(name, schema.Type, raw); err != nil {
			return nil, err
		}
		value, _, err := d.GetOkErr(name)
		if err != nil {
			return nil, refusal.New(name, nil, "not a "+schema.Type.String(), "give a value of that type")
		}
		if m, isMap := raw.(map[string]any); patch && isMap && policy.Fields[i].Kind == policy.Map {
			value = patchOf(m, value.(map[string]string))
		}
		given[name] = value
	}
	return given, nil
}

// patchOf is a map as a patch gives it: nil removes a name.
func patchOf(raw map[string]any, values map[string]string) map[string]any {
	m := map[string]any{}
	for name, v := range raw {
		if v == nil {
			m[name] = nil
		} else {
			m[name] = values[name]
		}
	}
	return m
}

// wholeSeconds refuses fractions of a second, which the conversion would drop:
// 500ms must not become 0, which means something else.
func wholeSeconds(field string, typ framework.FieldType, raw any) error {
	if typ != framework.TypeDurationSecond {
		return nil
	}
	fraction := false
	switch v := raw.(type) {
	case string:
		dur, err := time.ParseDuration(v)
		fraction = err == nil && dur%time.Second != 0
	case float64:
		fraction = v != float64(int64(v))
	case float32:
		fraction = v != float32(int64(v))
	}
	if fraction {
		return refusal.New(field, raw, "is not a whole number of seconds", "round it")
	}
	return nil
}

func warned(warnings []string) *logical.Response {
	if len(warnings) == 0 {
		return nil
	}
	return &logical.Response{Warnings: warnings}
}
