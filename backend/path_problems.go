// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// Columns of tables, so that they fit a screen.
const (
	keyIDColumn  = 13 // all of an own key's; those of foreign ones are longer
	ownerColumn  = 24
	reasonColumn = 24
	nameColumn   = 20
)

func (b *backend) pathsProblems() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "problems/?", suffix: "problems", lists: "Role",
		synopsis: "The roles that somebody should look at, as a table.",
		fields:   pageFieldSet(true),
		ops: map[logical.Operation]operation{
			logical.ListOperation: {
				do: b.listProblems, summary: "The roles that somebody should look at.", told: "The roles.",
				answer: listFields("By role: problems (kinds: failing, no_current, reported, ends_soon, in_use, unclaimed, overdue, clock, rival, schema), since (the oldest of them, if known), " +
					"owner, and version, the current one (0: none)."),
			},
		},
		help: `
Lists the roles of inventory problems=true in a few columns that fit a screen:

    vault list -detailed apikeys/problems

failing: automatic work on the role fails. no_current: it has no current key.
reported: a key of it that is accepted was found in the open. ends_soon: its
valid_until is near. in_use: a previous version was in use when its end came near.
unclaimed: nobody has come for the new key while the previous one ends. overdue:
its rotation is late. clock: a wrong clock wrote ahead. rival: another instance
works on the storage. schema: a newer build wrote the record. status/<role> has
each in words. An empty list is a 404.`,
	})}
}

func (b *backend) listProblems(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	failing, names, err := problemNames(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	resp, err := windowOf(in).collect(names, func(name string) (map[string]any, error) {
		rec, err := b.storedRole(ctx, req.Storage, name)
		if errors.Is(err, errSchema) {
			return map[string]any{"problems": troubleSchema, "since": "", "owner": "", "version": 0}, nil
		}
		if err != nil || rec == nil {
			return nil, err
		}
		r, all, _, err := b.problemsAt(ctx, req.Storage, rec, failing[name], lim)
		if err != nil || len(all) == 0 {
			return nil, err // solved since
		}
		kinds, since := summaryOf(all)
		return map[string]any{
			"problems": kinds, "since": stamp(since), "owner": column(rec.Policy.Owner, ownerColumn), "version": numberOf(rec.Ring.Current(r.now)),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	b.warnOfMount(resp)
	return resp, nil
}

// warnOfMount tells of what is wrong with the mount, and not with one role of it.
func (b *backend) warnOfMount(resp *logical.Response) {
	if text := b.clockProblem(b.highWater()); text != "" {
		resp.AddWarning("the mount's mark was " + text)
	}
	if text := b.rivalProblem(); text != "" {
		resp.AddWarning(text)
	}
}

// problemsAt is what an operator should look at of a role whose record was read, and
// its usage where a previous version is live.
func (b *backend) problemsAt(ctx context.Context, s logical.Storage, rec *roleRecord, failing bool, lim policy.Limits) (*roleNow, []trouble, *usage.Record, error) {
	r, err := b.lookOf(rec, lim)
	if err != nil {
		return nil, nil, nil, err
	}
	var p *problem
	if failing {
		if p, err = b.problemOf(ctx, s, rec.Name); err != nil {
			return nil, nil, nil, err
		}
	}
	use := &usage.Record{}
	if rec.Ring.PreviousOf(r.now) != nil {
		if use, err = b.usageOf(ctx, s, rec); err != nil {
			return nil, nil, nil, err
		}
	}
	return r, b.problemsOf(r, p, use), use, nil
}

// summaryOf is the kinds of troubles, each once, and since when there is one.
func summaryOf(all []trouble) (kinds string, since time.Time) {
	var names []string
	for i := range all {
		if t := &all[i]; !slices.Contains(names, t.kind) {
			names = append(names, t.kind)
		}
		if at := all[i].since; !at.IsZero() && (since.IsZero() || at.Before(since)) {
			since = at
		}
	}
	return strings.Join(names, ","), since
}

// column is a text as a table shows it: on one line, and cut.
func column(text string, width int) string {
	text = strings.Join(strings.Fields(text), " ")
	if chars := []rune(text); len(chars) > width {
		return string(chars[:width-1]) + "…"
	}
	return text
}
