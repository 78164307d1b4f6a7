// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

func (b *backend) pathsInventory() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "inventory/?", suffix: "inventory", lists: "Role",
		synopsis: "The fleet: owner, current version and its age, next rotation, previous still in use, problems.",
		fields: fieldsOf(pageFieldSet(true), fieldSet{
			"problems": {
				kind: kindSwitch, query: true,
				about: "List only roles that somebody should look at. They are kept in an index, so this costs little however many roles there are.",
			},
		}),
		ops: map[logical.Operation]operation{
			logical.ListOperation: {
				do: b.inventory, summary: "The fleet: all roles, or those with problems.", told: "The roles.",
				answer: listFields("By role: role_id, type, owner, disabled, current_version, key_id, current_since, current_age (seconds), expires, strength " +
					"of an imported key, next_rotation, rotation in words, previous_version, previous_until, previous_last_used, previous_in_use, problems."),
			},
		},
		help: `
Lists roles with what an operator asks about a fleet of them. previous_in_use says
that a key of the previous version was accepted after its successor had taken
over, as far as this server was asked to verify or caches have reported.

problems=true lists only roles that somebody should look at: those that fail, are
overdue, have no current key, or end within seven days, or whose key was reported
as found in the open. The texts say what is wrong; status/<role> tells more.
problems/ is the same in a few columns. Use after and limit to read page by page.`,
	})}
}

func (b *backend) inventory(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	onlyProblems := in.flag("problems")
	failing, names, err := problemNames(ctx, req.Storage)
	if err == nil && !onlyProblems {
		names, err = list(ctx, req.Storage, rolePrefix)
	}
	if err != nil {
		return nil, err
	}
	resp, err := windowOf(in).collect(names, func(name string) (map[string]any, error) {
		// Not through the cache, which is for the roles in use: a long list
		// would push those out.
		rec, err := b.storedRole(ctx, req.Storage, name)
		if errors.Is(err, errSchema) {
			return map[string]any{"problems": []string{err.Error()}}, nil
		}
		if err != nil || rec == nil {
			return nil, err
		}
		data, err := b.inventoryEntry(ctx, req.Storage, rec, failing[name], lim)
		if err != nil {
			return nil, err
		}
		if onlyProblems && len(data["problems"].([]string)) == 0 {
			return nil, nil // solved since
		}
		return data, nil
	})
	if err != nil {
		return nil, err
	}
	b.warnOfMount(resp)
	return resp, nil
}

// inventoryEntry is what the inventory tells of one role.
func (b *backend) inventoryEntry(ctx context.Context, s logical.Storage, rec *roleRecord, failing bool, lim policy.Limits) (map[string]any, error) {
	r, problems, use, err := b.problemsAt(ctx, s, rec, failing, lim)
	if err != nil {
		return nil, err
	}
	now := r.now
	data := map[string]any{
		"role_id": rec.ID, "type": rec.Type, "owner": rec.Policy.Owner, "disabled": rec.Policy.Disabled,
		"current_version": 0, "key_id": "", "current_since": "", "current_age": int64(0), "expires": "", "strength": "",
		"next_rotation": stamp(r.nextActivation(b.mountPaused())), "rotation": b.rotationInWords(r),
		"previous_version": 0, "previous_until": "", "previous_last_used": "", "previous_in_use": false,
		"problems": wordsOf(problems),
	}
	if cur := rec.Ring.Current(now); cur != nil {
		since := cur.CurrentSince()
		data["current_version"], data["key_id"], data["strength"] = cur.N, cur.KeyID, cur.Strength
		data["current_since"], data["current_age"] = stamp(since), int64(now.Sub(since)/time.Second)
		data["expires"] = stamp(earlierOf(hardEnd(cur), rec.Ring.Until))
	}
	if prev := rec.Ring.PreviousOf(now); prev != nil {
		used, err := b.acceptedIn(ctx, s, use, prev.N)
		if err != nil {
			return nil, err
		}
		st, _ := rec.Ring.Status(prev.N, now)
		data["previous_version"], data["previous_until"], data["previous_last_used"] = prev.N, stamp(st.Until), stamp(used)
		data["previous_in_use"] = usedOn(rec, prev, used, now)
	}
	return data, nil
}
