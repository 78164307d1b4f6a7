// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsTidy() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "tidy", verb: "tidy",
		synopsis: "Remove what crashes left behind and what is too old to keep.",
		ops: map[logical.Operation]operation{
			logical.UpdateOperation: {
				do: b.tidyNow, writes: true, told: "What the pass has done so far.",
				answer: map[string]*framework.FieldSchema{
					"done":                  {Type: framework.TypeBool, Description: "The pass is complete. If not, the worker goes on with it.", Required: true},
					"started":               {Type: framework.TypeString, Description: "When the pass began (RFC 3339).", Required: true},
					"stage":                 {Type: framework.TypeString, Description: "Where the pass is; empty when it is complete.", Required: true},
					"examined":              {Type: framework.TypeInt64, Description: "Records looked at.", Required: true},
					"failed":                {Type: framework.TypeInt64, Description: "Records passed over because of an error, which the server's log has.", Required: true},
					"refiled":               {Type: framework.TypeInt64, Description: "Entries that the calendar or the index of problems lacked.", Required: true},
					"removed_entries":       {Type: framework.TypeInt64, Description: "Entries of the calendar from times that are over.", Required: true},
					"removed_keys":          {Type: framework.TypeInt64, Description: "Records of keys that never came to be, are dead for 30 days, or whose role is gone.", Required: true},
					"removed_secrets":       {Type: framework.TypeInt64, Description: "Plaintexts that hung on those.", Required: true},
					"removed_archive_pages": {Type: framework.TypeInt64, Description: "Pages of history older than 400 days.", Required: true},
					"removed_deleted_roles": {Type: framework.TypeInt64, Description: "Copies of deleted roles that cannot be restored any more, or that were restored.", Required: true},
					"removed_problems":      {Type: framework.TypeInt64, Description: "Entries of the index of problems that were solved.", Required: true},
					"removed_usage":         {Type: framework.TypeInt64, Description: "Counts of roles that are gone.", Required: true},
				},
			},
		},
		help: `
Goes through the mount's storage once and reports what it did. It is safe at any
moment: nothing live is touched, and nothing that is less than an hour old is
taken for left behind. It also writes what the calendar lacks, so that no role is
forgotten.

A request works for a few seconds. If it answers done=false the pass goes on in
the background; repeat the request to see how far it is. The engine does the same
by itself once a day, slowly, so nobody needs to call this.`,
	})}
}

func (b *backend) tidyNow(ctx context.Context, req *logical.Request, _ *input) (*logical.Response, error) {
	if !b.answersAlone() {
		return nil, logical.ErrReadOnly
	}
	if err := b.loadMark(ctx, req.Storage); err != nil {
		return nil, err
	}
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	lim, err := b.limits(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if !b.tidy.mu.TryLock() {
		return nil, refusal.New("tidy", nil, "is at work already", "ask again in a few seconds")
	}
	stored := false
	defer func() {
		b.tidy.mu.Unlock()
		if stored { // not before: a worker that finds it held leaves the pass alone
			b.wake.at(b.now())
		}
	}()
	rec, err := getRecord[tidyRecord](ctx, req.Storage, tidyPath)
	if err != nil {
		return nil, err
	}
	t := &tick{b: b, s: req.Storage, now: b.now(), config: cfg, lim: lim}
	if rec == nil {
		rec = &tidyRecord{}
	}
	if !rec.running() || !rec.ByHand {
		// A pass of the periodic function is not what was asked for: it may be
		// past what the caller wants tidied.
		b.beginTidy(rec, t.now, true)
	}
	if err := b.tidySlice(ctx, t, rec, maxTidyCalls, tidyWork); err != nil {
		return nil, err
	}
	// The next step goes on, or finds that the pass is over.
	b.tidy.next, b.tidy.byHand = t.now, rec.running()
	stored = true
	return answer(rec.view()), nil
}

func (r *tidyRecord) view() map[string]any {
	c := r.Counts
	return map[string]any{
		"done": !r.running(), "started": stamp(r.Started), "stage": r.Stage,
		"examined": c.Examined, "failed": c.Failed, "refiled": c.Refiled,
		"removed_entries": c.Entries, "removed_keys": c.Keys, "removed_secrets": c.Secrets,
		"removed_archive_pages": c.ArchivePages, "removed_deleted_roles": c.DeletedRoles,
		"removed_problems": c.Problems, "removed_usage": c.Usage,
	}
}
