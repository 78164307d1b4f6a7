// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"math"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsGrace() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "grace/" + nameRegex, verb: "set", suffix: "grace",
		synopsis: "Change the end of a version that is on its way out.",
		fields: fieldsOf(actionFields(true), fieldSet{
			"version": {
				kind:  kindInteger,
				about: "The version: a previous one, or one that a rollback took back. Needed unless exactly one is on its way out; with a request_id the default is the one that creds/<role>/previous hands out.",
			},
			"valid_until": {
				kind: kindInstant, required: true,
				about: "Its end: a time (RFC 3339) or a duration from now, earlier or later than the one it has; 0 ends it now.",
			},
			"force": {kind: kindSwitch, about: "End a generation of a dynamic role before its leases are over."},
		}),
		ops: map[logical.Operation]operation{
			logical.UpdateOperation: {
				do: b.grace, writes: true, told: "The new end.",
				answer: schemas(replayFields(), map[string]*framework.FieldSchema{
					"version":              {Type: framework.TypeInt, Description: "The version.", Required: true},
					"key_id":               {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role.", Required: true},
					"state":                {Type: framework.TypeString, Description: "previous or withdrawn, or retired where it has ended.", Required: true},
					"valid_until":          {Type: framework.TypeString, Description: "Its end, as known now (RFC 3339).", Required: true},
					"previous_valid_until": {Type: framework.TypeString, Description: "The end that it had (RFC 3339).", Required: true},
				}),
			},
		},
		help: `
A previous version ends with its grace, one that was taken back with the grace of
the rollback. This gives it another end: later, because somebody is late, or
earlier, because everybody has the new key. What has ended stays so.

A later end is bounded like the grace of a rotation, and never past the version's
own expiry or the role's valid_until; nothing prolongs a version that was reported.
An earlier one is final for the engine: it prolongs such a version no more, whoever
uses it.`,
	})}
}

// graceRequest is what grace says. version is 0 where it names none.
type graceRequest struct {
	*actionRequest

	version int
	until   instant
	force   bool
}

func readGrace(req *logical.Request, in *input) (*graceRequest, error) {
	a, err := readAction(req, in, "grace")
	if err != nil {
		return nil, err
	}
	r := &graceRequest{actionRequest: a, force: in.flag("force")}
	if in.given("version") {
		n := in.integer("version")
		if n < 1 || n > math.MaxInt32 {
			return nil, refusal.New("version", n, "is not a version", "status/<role> lists them")
		}
		r.version = int(n)
	}
	var given bool
	if r.until, given, err = in.instant("valid_until"); err == nil && !given {
		err = refusal.New("valid_until", nil, "is missing", instantTodo+"; 0 ends the version now")
	}
	return r, err
}

func (b *backend) grace(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readGrace(req, in)
	if err != nil {
		return nil, err
	}
	resp, err := b.action(ctx, r.actionRequest, func(tx *roleTx) (map[string]any, error) {
		n := r.version
		if n == 0 {
			if n, err = tx.leavingVersion(); err != nil {
				return nil, err
			}
		}
		until, err := r.until.from("valid_until", tx.now)
		if err != nil {
			return nil, err
		}
		was, err := tx.setEnd(n, until, r.force)
		if err != nil {
			return nil, err
		}
		st, _ := tx.rec.Ring.Status(n, tx.now)
		return map[string]any{
			"version": n, "key_id": tx.rec.Ring.Get(n).KeyID, "state": string(st.State),
			"valid_until": stamp(st.Until), "previous_valid_until": stamp(was),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	for _, warning := range in.warnings {
		resp.AddWarning(warning)
	}
	return resp, nil
}
