// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsRotate() []*framework.Path {
	grace := field{
		kind: kindDuration, about: "How long the previous version stays valid after the activation; 0 ends it at once. Default: the role's grace_period.",
	}
	activateAt := field{
		kind: kindInstant, about: "When the new version becomes current: a time (RFC 3339) or a duration from now. Until then it is pending.",
	}
	rotation := schemas(replayFields(), map[string]*framework.FieldSchema{
		"version":              {Type: framework.TypeInt, Description: "The version that is, or will be, current.", Required: true},
		"key_id":               {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role.", Required: true},
		"activates_at":         {Type: framework.TypeString, Description: "When it becomes, or became, current (RFC 3339); empty while it is held.", Required: true},
		"previous_version":     {Type: framework.TypeInt, Description: "The previous version; 0 if there is none.", Required: true},
		"previous_valid_until": {Type: framework.TypeString, Description: "The end of the previous version, as known now (RFC 3339); empty if none is.", Required: true},
		"next_rotation":        {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
	})
	return []*framework.Path{
		b.path(pathSpec{
			pattern: "rotate/" + nameRegex, verb: "rotate",
			synopsis: "Make a new version of the role's key.",
			fields: fieldsOf(actionFields(false), fieldSet{
				"grace_period": grace,
				"stage":        {kind: kindSwitch, about: "Only make the version: it is held until it is promoted, and lapses after 7 days."},
				"activate_at":  activateAt,
				"force":        {kind: kindSwitch, about: "Make room where the role has ten live versions, and let a dynamic role's grace be shorter than its leases."},
			}),
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {do: b.rotate, writes: true, told: "The rotation.", answer: rotation},
			},
			help: `
Makes a new version, which becomes current at once, at activate_at, or, with
stage, when it is promoted. The previous version stays valid for the grace
period. A version that was pending is revoked by it. For a dynamic role every key
issued so far is superseded by this one write.

The answer never holds a key: read it at creds/<role>.`,
		}),
		b.path(pathSpec{
			pattern: "promote/" + nameRegex, verb: "promote",
			synopsis: "Activate the pending version.",
			fields: fieldsOf(actionFields(false), fieldSet{
				"grace_period": grace, "activate_at": activateAt,
				"version": {
					kind:  kindInteger,
					about: "The version that is meant. If another one is pending the request is refused; if this one is current already nothing changes and the answer says so.",
				},
			}),
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {do: b.promote, writes: true, told: "The rotation.", answer: rotation},
			},
			help: `
Makes the pending version current now, or at activate_at (at most 7 days ahead).
It never makes a new version.

A promote whose answer was lost may be repeated. So that the repetition does not
activate what was staged since, name the version, cas or a request_id: without any
of them a promote is refused while the current version was promoted by the same
caller less than 5 minutes ago and another one was staged since.`,
		}),
		b.path(pathSpec{
			pattern: "rollback/" + nameRegex, verb: "roll-back",
			synopsis: "Make the previous version current again.",
			fields: fieldsOf(actionFields(false), fieldSet{
				"grace_period": {
					kind:  kindDuration,
					about: "How long the version that is taken back stays valid, for those who read it already. Default: the role's grace_period.",
				},
				"to_version": {kind: kindInteger, about: "The version to go back to. Default: the previous one; a second rollback in a row has to name it."},
				"pause":      {kind: kindSwitch, about: "Also pause the role's automatic rotation."},
			}),
			ops: map[logical.Operation]operation{
				logical.UpdateOperation: {
					do: b.rollback, writes: true, told: "The rollback.",
					answer: schemas(replayFields(), map[string]*framework.FieldSchema{
						"version":               {Type: framework.TypeInt, Description: "The version that is current again.", Required: true},
						"key_id":                {Type: framework.TypeString, Description: "Its key id; empty for a dynamic role.", Required: true},
						"withdrawn_version":     {Type: framework.TypeInt, Description: "The version that was taken back.", Required: true},
						"withdrawn_valid_until": {Type: framework.TypeString, Description: "Its end (RFC 3339).", Required: true},
						"next_rotation":         {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
					}),
				},
			},
			help: `
Takes the current version back and makes the previous one current again, if that
has not ended. The version taken back stays valid for the grace period, so that
nobody who read it is cut off. A pending version is revoked, and the plan of
automatic rotations starts anew.`,
		}),
	}
}

// graceAsked is the grace that a request names; nil where it names none.
func graceAsked(in *input) *policy.Seconds {
	if n, ok := in.seconds("grace_period"); ok {
		return &n
	}
	return nil
}

// rotateRequest is what rotate and promote say.
type rotateRequest struct {
	*actionRequest

	grace    *policy.Seconds
	activate instant
	dated    bool
	stage    bool
	force    bool
}

func readRotate(req *logical.Request, in *input, op string) (*rotateRequest, error) {
	a, err := readAction(req, in, op)
	if err != nil {
		return nil, err
	}
	r := &rotateRequest{actionRequest: a, grace: graceAsked(in), stage: in.flag("stage"), force: in.flag("force")}
	if r.activate, r.dated, err = in.instant("activate_at"); err != nil {
		return nil, err
	}
	if r.stage && r.dated {
		return nil, refusal.New("activate_at", r.activate.text, "excludes stage: a staged version has no date until it is promoted", "give one of the two")
	}
	return r, nil
}

// activation is when the version is to become current; zero where the request
// does not say.
func (r *rotateRequest) activation(now time.Time) (time.Time, error) {
	if !r.dated {
		return time.Time{}, nil
	}
	return r.activate.from("activate_at", now)
}

func (b *backend) rotate(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readRotate(req, in, "rotate")
	if err != nil {
		return nil, err
	}
	if _, err := b.ensureDigest(ctx, req.Storage); err != nil {
		return nil, err
	}
	return b.action(ctx, r.actionRequest, func(tx *roleTx) (map[string]any, error) {
		grace, err := tx.requestedGrace(r.grace)
		if err != nil {
			return nil, err
		}
		asked, force, stage := r.grace != nil, r.force, r.stage
		grace = tx.leaseFloor(grace, force)
		at, err := r.activation(tx.now)
		if err != nil {
			return nil, err
		}
		prior := tx.rec.Ring.Current(tx.now)
		v, err := tx.succeed(succession{grace: grace, at: at, held: stage, force: force})
		if err != nil {
			return nil, ringRefusal(err)
		}
		activation := later(at, tx.now)
		if cut := v.Grace; cut < grace {
			tx.warn("grace_period is %s instead of %s: the pending version would have ended the previous one then; %s",
				refusal.Duration(cut), refusal.Duration(grace), mendedBy(tx.rec.Name, v, prior, tx.now))
		}
		if !stage && asked {
			tx.warnShortGrace(grace, activation)
		}
		if stage {
			tx.warnGap(prior, time.Time{}, grace)
		} else {
			tx.warnGap(prior, activation, grace)
		}
		return tx.rotationAnswer(v.N, prior), nil
	})
}

// mendedBy says what gives the previous version a later end, where a version that
// was pending cut its grace short.
func mendedBy(role string, v, prior *keyring.Version, now time.Time) string {
	switch {
	case v.Activate.IsZero():
		return "promote/" + role + " takes another grace_period"
	case v.Activate.After(now):
		return "promote/" + role + " activate_at=" + stamp(v.Activate) + " with a grace_period gives it a later end"
	case prior != nil && v.Grace > 0:
		return fmt.Sprintf("grace/%s version=%d gives it a later one", role, prior.N)
	default:
		return "nothing brings back what has ended"
	}
}

func (b *backend) promote(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := readRotate(req, in, "promote")
	if err != nil {
		return nil, err
	}
	meant := in.integer("version")
	if in.given("version") && (meant < 1 || meant > math.MaxInt32) {
		return nil, refusal.New("version", meant, "is not a version", "status/<role> shows the pending one")
	}
	return b.action(ctx, r.actionRequest, func(tx *roleTx) (map[string]any, error) {
		if cur := tx.rec.Ring.Current(tx.now); cur != nil && int64(cur.N) == meant {
			tx.warn("version %d is current since %s: nothing was changed", cur.N, stamp(cur.CurrentSince()))
			return tx.rotationAnswer(cur.N, tx.rec.Ring.PreviousOf(tx.now)), nil
		}
		if err := tx.checkPromotion(int(meant), r); err != nil {
			return nil, err
		}
		grace, err := tx.requestedGrace(r.grace)
		if err != nil {
			return nil, err
		}
		asked := r.grace != nil
		grace = tx.leaseFloor(grace, false)
		at, err := r.activation(tx.now)
		if err != nil {
			return nil, err
		}
		at = later(at, tx.now)
		prior := tx.rec.Ring.Current(tx.now)
		n, events, err := tx.rec.Ring.Promote(tx.now, at, grace)
		if err != nil {
			return nil, ringRefusal(err)
		}
		tx.record(events, tx.by)
		if asked {
			tx.warnShortGrace(grace, at)
		}
		tx.warnGap(prior, at, grace)
		if err := tx.bridge(); err != nil {
			return nil, err
		}
		return tx.rotationAnswer(n, prior), nil
	})
}

// promotedLately is how long a promote without a name for what it means may be the
// repetition of one whose answer was lost.
const promotedLately = 5 * time.Minute

// checkPromotion refuses to activate a version that the caller may not mean; meant is
// the version that is named, 0 if none is.
func (tx *roleTx) checkPromotion(meant int, r *rotateRequest) error {
	p := tx.rec.Ring.Pending(tx.now)
	switch {
	case meant != 0 && p == nil:
		return refusal.New("version", meant, "is not pending, and no other version is", "status/"+tx.rec.Name+" lists the versions")
	case meant != 0 && p.N != meant:
		return refusal.New("version", meant, fmt.Sprintf("is not pending: version %d is", p.N), "name that one, if it is meant")
	case meant != 0 || p == nil || r.cas != nil || tx.by.requestID != "":
		return nil
	}
	cur := tx.rec.Ring.Current(tx.now)
	if cur == nil {
		return nil
	}
	for i := range slices.Backward(tx.rec.History) {
		e := &tx.rec.History[i]
		if e.Kind == string(keyring.EventActivated) && e.Version == cur.N {
			if e.Cause == causeRequest && e.EntityID == tx.by.entityID && e.Display == tx.by.display &&
				cur.Created.Before(e.Time) && !p.Created.Before(e.Time) && tx.now.Sub(e.Time) < promotedLately {
				return refusal.New("version", nil, fmt.Sprintf("version %d was promoted at %s by the same caller, and version %d was staged since: this may be a repetition", cur.N, stamp(e.Time), p.N),
					fmt.Sprintf("name version=%d to activate it", p.N))
			}
			return nil
		}
	}
	return nil
}

func (b *backend) rollback(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	a, err := readAction(req, in, "rollback")
	if err != nil {
		return nil, err
	}
	asked, to, pause := graceAsked(in), in.integer("to_version"), in.flag("pause")
	if in.given("to_version") && (to < 1 || to > math.MaxInt32) {
		return nil, refusal.New("to_version", to, "is not a version", "give a version that status/<role> lists as previous")
	}
	return b.action(ctx, a, func(tx *roleTx) (map[string]any, error) {
		grace, err := tx.requestedGrace(asked)
		if err != nil {
			return nil, err
		}
		grace = tx.leaseFloor(grace, false)
		top := 0 // its number: the ring may grow
		if v := tx.rec.Ring.Top(tx.now); v != nil {
			top = v.N
		}
		n, events, err := tx.rec.Ring.Rollback(tx.now, int(to), grace)
		if err != nil {
			return nil, ringRefusal(err)
		}
		tx.record(events, tx.by)
		if pause && !tx.rec.Policy.RotationPaused {
			p := tx.rec.Policy
			p.RotationPaused = true
			if err := tx.setPolicy(p); err != nil {
				return nil, err
			}
		}
		if asked != nil {
			tx.warnShortGrace(grace, tx.now)
		}
		if err := tx.bridge(); err != nil {
			return nil, err
		}
		st, _ := tx.rec.Ring.Status(top, tx.now)
		return map[string]any{
			"version": n, "key_id": tx.rec.Ring.Get(n).KeyID,
			"withdrawn_version": top, "withdrawn_valid_until": stamp(st.Until),
			"next_rotation": stamp(tx.nextRotation()),
		}, nil
	})
}
