// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

func (b *backend) pathsStatus() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "status/" + nameRegex, suffix: "status",
		synopsis: "The role's versions, plan and health: everything about it that changes by itself.",
		fields:   nameOf(),
		ops: map[logical.Operation]operation{
			logical.ReadOperation: {
				do: b.status, summary: "The role's versions, plan and health.", told: "The status.",
				answer: map[string]*framework.FieldSchema{
					"role":            {Type: framework.TypeString, Description: "The role.", Required: true},
					"role_id":         {Type: framework.TypeString, Description: "Its id, which is never reused.", Required: true},
					"renamed_from":    {Type: framework.TypeString, Description: "What the role was called before its last rename; empty if it was never renamed.", Required: true},
					"renamed":         {Type: framework.TypeString, Description: "When that was (RFC 3339); empty if it was never renamed.", Required: true},
					"type":            {Type: framework.TypeString, Description: "static or dynamic.", Required: true},
					"now":             {Type: framework.TypeString, Description: "The instant that this answer describes (RFC 3339).", Required: true},
					"current_version": {Type: framework.TypeInt, Description: "The current version; 0 if there is none.", Required: true},
					"pending_version": {Type: framework.TypeInt, Description: "The pending version; 0 if there is none.", Required: true},
					"versions":        {Type: framework.TypeSlice, Description: "The versions, newest first, each with its usage.", Required: true},
					"next_rotation":   {Type: framework.TypeString, Description: "The next planned activation (RFC 3339); empty without one.", Required: true},
					"rotation":        {Type: framework.TypeString, Description: "In words: when the role rotates next, or why it does not.", Required: true},
					"last_error":      {Type: framework.TypeString, Description: "Why the last automatic attempt failed; empty if it did not.", Required: true},
					"attempts":        {Type: framework.TypeInt, Description: "Failed attempts in a row.", Required: true},
					"last_attempt":    {Type: framework.TypeString, Description: "The last failed attempt (RFC 3339).", Required: true},
					"next_attempt":    {Type: framework.TypeString, Description: "When it is tried again (RFC 3339).", Required: true},
					"disabled":        {Type: framework.TypeBool, Description: "verify answers DISABLED.", Required: true},
					"problems":        {Type: framework.TypeStringSlice, Description: "What an operator should look at.", Required: true},
					"still_used":      {Type: framework.TypeSlice, Description: "Who still uses an old version: superseded or withdrawn versions that were accepted since, with the clients and the last time.", Required: true},
					"ended_use":       {Type: framework.TypeSlice, Description: "Uses of ended keys by hour, newest first.", Required: true},
					"noise":           {Type: framework.TypeMap, Description: "Counted rather than listed: what, how often, first and last time.", Required: true},
				},
			},
		},
		help: `
Lists the versions with their states and ends, says when the role rotates next or
in words why it does not, and shows the last error of an automatic attempt with
the number of attempts and the time of the next.`,
	})}
}

func (b *backend) status(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	name := in.text("name")
	r, err := b.lookToRead(ctx, req.Storage, name)
	if err != nil || r == nil {
		return nil, err
	}
	rec, now := r.rec, r.now
	data := map[string]any{
		"role": rec.Name, "role_id": rec.ID, "type": rec.Type, "now": stamp(now),
		"current_version": numberOf(rec.Ring.Current(now)), "pending_version": numberOf(rec.Ring.Pending(now)),
		"next_rotation": stamp(r.nextActivation(b.mountPaused())),
		"rotation":      b.rotationInWords(r),
		"last_error":    "", "attempts": 0, "last_attempt": "", "next_attempt": "",
		"disabled": rec.Policy.Disabled, "renamed_from": "", "renamed": "",
	}
	if m := rec.Moved; m != nil {
		data["renamed_from"], data["renamed"] = m.From, stamp(m.At)
	}
	if rec.Type == policy.Static && r.terms.Cadence == nil && r.unread == nil {
		data["rotation"] = b.rotationInWords(r) + "; the rotation_period that creds answers is its ttl: who reads keys needs a value there"
	}
	use, err := b.usageOf(ctx, req.Storage, rec)
	if err != nil {
		return nil, err
	}
	versions := make([]any, 0, len(rec.Ring.Versions))
	for i := len(rec.Ring.Versions) - 1; i >= 0; i-- {
		v := &rec.Ring.Versions[i]
		status, used := versionStatus(rec, v, now), countsOf(use, v)
		status["usage"] = usageView(&used)
		versions = append(versions, status)
	}
	data["still_used"], data["ended_use"] = stillUsedView(use, rec, now), endedUseView(use)
	data["versions"] = versions
	counted := map[string]any{}
	for kind, n := range noiseWith(use, rec) {
		counted[kind] = map[string]any{"count": n.Count, "first": stamp(n.First), "last": stamp(n.Last)}
	}
	data["noise"] = counted

	p, err := b.problemOf(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if p != nil {
		data["last_error"], data["attempts"] = p.Error, p.Attempts
		data["last_attempt"], data["next_attempt"] = stamp(p.Last), stamp(p.Next)
	}
	data["problems"] = wordsOf(b.problemsOf(r, p, use))
	return answer(data), nil
}

// problemsOf is all that an operator should look at.
func (b *backend) problemsOf(r *roleNow, p *problem, use *usage.Record) []trouble {
	var all []trouble
	if p != nil {
		all = append(all, trouble{
			kind: troubleFailing, since: p.First, text: fmt.Sprintf("failing since %s, %d attempts: %s", stamp(p.First), p.Attempts, p.Error),
		})
	}
	all = slices.Concat(all, troubles(r.rec, r.now), r.unclaimed(use), b.overdue(r))
	if text := b.clockProblem(r.rec.Committed); text != "" {
		all = append(all, trouble{kind: troubleClock, text: "the role's record was " + text})
	}
	if text := b.clockProblem(b.highWater()); text != "" {
		all = append(all, trouble{kind: troubleClock, text: "the mount's mark was " + text})
	}
	if text := b.rivalProblem(); text != "" {
		all = append(all, trouble{kind: troubleRival, text: text})
	}
	return all
}

func numberOf(v *keyring.Version) int {
	if v == nil {
		return 0
	}
	return v.N
}

func versionStatus(rec *roleRecord, v *keyring.Version, now time.Time) map[string]any {
	st, _ := rec.Ring.Status(v.N, now)
	data := map[string]any{
		"version": v.N, "key_id": v.KeyID, "state": string(st.State), "reason": string(st.Reason), "reason_code": string(v.Code),
		"created": stamp(v.Created), "activated": stamp(v.Activate), "expires": stamp(v.Expires),
		"ends": "", "ended": "", "reported": stamp(v.Reported), "automatic": v.Auto,
	}
	if st.State == keyring.Revoked {
		data["reason_code"] = reasonOf(st)
	}
	if st.State.Ended() {
		data["ended"] = stamp(st.Until)
	} else {
		data["ends"] = stamp(st.Until)
	}
	return data
}

// rotationInWords says when the role rotates next, or why it does not.
func (b *backend) rotationInWords(r *roleNow) string {
	rec, t, now := r.rec, &r.terms, r.now
	pending, end := rec.Ring.Pending(now), rec.Ring.Until
	switch {
	case rec.Ring.Over(now):
		return "never: the role ended at " + stamp(end) + " (valid_until)"
	case r.unread != nil:
		return "not as long as the plan cannot be read, " + r.unread.Error()
	case pending != nil && !pending.Activate.IsZero() && !r.endsBeforeTheRole(pending.Activate):
		return fmt.Sprintf("no more: the role ends at %s (valid_until), before the date of version %d", stamp(end), pending.N)
	case pending != nil && !pending.Activate.IsZero():
		return fmt.Sprintf("version %d is staged and becomes current at %s", pending.N, stamp(pending.Activate))
	case pending != nil && t.Cadence != nil:
		return fmt.Sprintf("version %d is held: automatic rotation waits until it is promoted, revoked, or lapses at %s",
			pending.N, stamp(pending.Created.Add(keyring.PendingWindow)))
	case pending != nil:
		return fmt.Sprintf("version %d is held until it is promoted; it lapses at %s", pending.N, stamp(pending.Created.Add(keyring.PendingWindow)))
	case t.Cadence == nil:
		return "only by hand: the role has neither rotation_period nor rotation_schedule"
	case t.AutoPaused:
		return "paused: rotation_paused is set on the role"
	case b.mountPaused():
		return "paused: rotation_paused is set in the mount's config"
	case r.next().IsZero():
		return "no more: the role ends at " + stamp(end) + " (valid_until)"
	case !r.next().After(now):
		return "overdue since " + stamp(r.next()) + ": it comes with one of the next steps of the worker"
	case r.missedWindow():
		return "at " + stamp(r.next()) + ": the rotation of " + stamp(rec.Next) + " was missed, and rotation_window is over"
	default:
		return "at " + stamp(r.next())
	}
}
