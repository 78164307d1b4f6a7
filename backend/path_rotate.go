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

func (b *backend) pathsRotate() []*framework.Path {
	grace := &framework.FieldSchema{
		Type:        framework.TypeDurationSecond,
		Description: "How long the version before stays valid after the activation; 0 ends it at once. Default: the role's grace_period.",
	}
	activateAt := &framework.FieldSchema{
		Type:        framework.TypeString,
		Description: "When the new version becomes current: a time (RFC 3339) or a duration from now. Until then it is pending.",
	}
	rotation := ok("The rotation.", fields(replayFields(), map[string]*framework.FieldSchema{
		"version":              {Type: framework.TypeInt, Description: "The version that is, or will be, current.", Required: true},
		"key_id":               {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role.", Required: true},
		"activates_at":         {Type: framework.TypeString, Description: "When it becomes, or became, current (RFC 3339); empty while it is held.", Required: true},
		"previous_version":     {Type: framework.TypeInt, Description: "The version before; 0 if there is none.", Required: true},
		"previous_valid_until": {Type: framework.TypeString, Description: "The end of the version before, as known now (RFC 3339); empty if none is.", Required: true},
		"next_rotation":        {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
	}))
	return []*framework.Path{
		{
			Pattern: "rotate/" + nameRegex,
			Fields: fields(actionFields(), map[string]*framework.FieldSchema{
				"grace_period": grace,
				"stage":        {Type: framework.TypeBool, Description: "Only make the version: it is held until it is promoted, and lapses after 7 days."},
				"activate_at":  activateAt,
				"force":        {Type: framework.TypeBool, Description: "Make room where the role has ten live versions, and let a dynamic role's grace be shorter than its leases."},
			}),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.rotate), Summary: "Make a new version of the role's key.", Responses: rotation,
				}),
			},
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "rotate"},
			HelpSynopsis: "Make a new version of the role's key.",
			HelpDescription: `
Makes a new version, which becomes current at once, at activate_at, or, with
stage, when it is promoted. The version before stays valid for the grace period.
A version that was pending is revoked by it. For a dynamic role every key issued
so far is superseded by this one write.

The answer never holds a key: read it at creds/<role>.`,
		},
		{
			Pattern: "promote/" + nameRegex,
			Fields: fields(actionFields(), map[string]*framework.FieldSchema{
				"grace_period": grace, "activate_at": activateAt,
			}),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.promote), Summary: "Activate the pending version.", Responses: rotation,
				}),
			},
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "promote"},
			HelpSynopsis: "Activate the pending version.",
			HelpDescription: `
Makes the pending version current now, or at activate_at (at most 7 days ahead).
It never makes a new version.`,
		},
		{
			Pattern: "rollback/" + nameRegex,
			Fields: fields(actionFields(), map[string]*framework.FieldSchema{
				"grace_period": {
					Type:        framework.TypeDurationSecond,
					Description: "How long the version that is taken back stays valid, for those who read it already. Default: the role's grace_period.",
				},
				"to_version": {Type: framework.TypeInt, Description: "The version to go back to. Default: the one before; a second rollback in a row has to name it."},
				"pause":      {Type: framework.TypeBool, Description: "Also pause the role's automatic rotation."},
			}),
			Operations: map[logical.Operation]framework.OperationHandler{
				logical.UpdateOperation: writes(&framework.PathOperation{
					Callback: handle(b.rollback), Summary: "Make the version before current again.",
					Responses: ok("The rollback.", fields(replayFields(), map[string]*framework.FieldSchema{
						"version":               {Type: framework.TypeInt, Description: "The version that is current again.", Required: true},
						"key_id":                {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role.", Required: true},
						"withdrawn_version":     {Type: framework.TypeInt, Description: "The version that was taken back.", Required: true},
						"withdrawn_valid_until": {Type: framework.TypeString, Description: "Its end (RFC 3339).", Required: true},
						"next_rotation":         {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
					})),
				}),
			},
			DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: displayPrefix, OperationVerb: "roll-back"},
			HelpSynopsis: "Make the version before current again.",
			HelpDescription: `
Takes the current version back and makes the one before current again, if that
has not ended. The version taken back stays valid for the grace period, so that
nobody who read it is cut off. A pending version is revoked, and the plan of
automatic rotations starts anew.`,
		},
	}
}

// requestedGrace reads grace_period; asked is false where the request names
// none and the role's default was taken.
func (tx *roleTx) requestedGrace(d *framework.FieldData) (grace time.Duration, asked bool, err error) {
	v, ok := d.GetOk("grace_period")
	if !ok {
		return tx.defaultGrace(), false, nil
	}
	grace = policy.Seconds(v.(int)).Duration()
	limit := maxGraceWithoutRotation
	if tx.terms.Shortest > 0 {
		limit = maxGraceDistances * tx.terms.Shortest
	}
	if grace > limit {
		return 0, true, refusal.New("grace_period", v, fmt.Sprintf("is more than %d seconds, %s", int64(limit/time.Second), graceLimitWhy(tx.terms)),
			"choose a shorter one")
	}
	return grace, true, nil
}

func (b *backend) rotate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	if _, err := b.ensureDigest(ctx, req.Storage); err != nil {
		return nil, err
	}
	return b.action(ctx, req, d, "rotate", func(tx *roleTx) (map[string]any, error) {
		grace, asked, err := tx.requestedGrace(d)
		if err != nil {
			return nil, err
		}
		force := d.Get("force").(bool)
		grace = tx.leaseFloor(grace, force)
		stage := d.Get("stage").(bool)
		var at time.Time
		if v, ok := d.GetOk("activate_at"); ok && v.(string) != "" {
			if stage {
				return nil, refusal.New("activate_at", v, "excludes stage: a staged version has no date until it is promoted", "give one of the two")
			}
			if at, err = parseInstant("activate_at", v.(string), tx.now); err != nil {
				return nil, err
			}
		}
		prior := tx.rec.Ring.Current(tx.now)
		m, err := tx.newVersion(grace)
		if err != nil {
			return nil, err
		}
		m.Held, m.Activate = stage, at
		transition := tx.rec.Ring.Rotate
		if stage {
			transition = tx.rec.Ring.Stage
		}
		events, err := transition(tx.now, m, force)
		if err != nil {
			return nil, ringRefusal(err)
		}
		tx.record(events, tx.by)
		activation := later(at, tx.now)
		if cut := tx.rec.Ring.Get(tx.rec.Ring.Last).Grace; cut < grace {
			tx.warn("grace_period is %d seconds instead of %d: the version that was pending would have ended the one before then, and nothing prolongs that",
				policy.InSeconds(cut), policy.InSeconds(grace))
		}
		if !stage {
			tx.rebase(activation)
			if asked {
				tx.warnShortGrace(grace, activation)
			}
		}
		if stage {
			tx.warnGap(prior, time.Time{}, grace)
		} else {
			tx.warnGap(prior, activation, grace)
		}
		tx.rotated()
		return tx.rotationAnswer(tx.rec.Ring.Last, prior), nil
	})
}

func (b *backend) promote(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.action(ctx, req, d, "promote", func(tx *roleTx) (map[string]any, error) {
		grace, asked, err := tx.requestedGrace(d)
		if err != nil {
			return nil, err
		}
		grace = tx.leaseFloor(grace, false)
		at := tx.now
		if v, ok := d.GetOk("activate_at"); ok && v.(string) != "" {
			if at, err = parseInstant("activate_at", v.(string), tx.now); err != nil {
				return nil, err
			}
		}
		prior := tx.rec.Ring.Current(tx.now)
		n, events, err := tx.rec.Ring.Promote(tx.now, at, grace)
		if err != nil {
			return nil, ringRefusal(err)
		}
		tx.record(events, tx.by)
		tx.rebase(at)
		if asked {
			tx.warnShortGrace(grace, at)
		}
		tx.warnGap(prior, at, grace)
		return tx.rotationAnswer(n, prior), nil
	})
}

func (b *backend) rollback(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	return b.action(ctx, req, d, "rollback", func(tx *roleTx) (map[string]any, error) {
		grace, asked, err := tx.requestedGrace(d)
		if err != nil {
			return nil, err
		}
		to := d.Get("to_version").(int)
		if to < 0 {
			return nil, refusal.New("to_version", to, "is not a version", "give a version that status/<role> lists as previous")
		}
		top := tx.rec.Ring.Top(tx.now)
		n, events, err := tx.rec.Ring.Rollback(tx.now, to, grace)
		if err != nil {
			return nil, ringRefusal(err)
		}
		tx.record(events, tx.by)
		if d.Get("pause").(bool) && !tx.rec.Policy.RotationPaused {
			p := tx.rec.Policy
			p.RotationPaused = true
			if err := tx.setPolicy(p); err != nil {
				return nil, err
			}
		}
		tx.rebase(tx.now)
		if asked {
			tx.warnShortGrace(grace, tx.now)
		}
		st, _ := tx.rec.Ring.Status(top.N, tx.now)
		return map[string]any{
			"version": n, "key_id": tx.rec.Ring.Get(n).KeyID,
			"withdrawn_version": top.N, "withdrawn_valid_until": stamp(st.Until),
			"next_rotation": stamp(tx.nextRotation()),
		}, nil
	})
}
