// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathsChanges() []*framework.Path {
	told := map[string]*framework.FieldSchema{
		"notices":       {Type: framework.TypeSlice, Description: "What was decided, oldest first: position, role_id or key_id, closing (something was revoked, deleted, disabled or narrowed, or may have been). The last of each role and key."},
		"cursor":        {Type: framework.TypeString, Description: "What to ask with next time."},
		"reset":         {Type: framework.TypeBool, Description: "Something may have been missed: everything that is remembered has to be asked about again."},
		"now":           {Type: framework.TypeString, Description: "The mount's time (RFC 3339)."},
		"oldest":        {Type: framework.TypeString, Description: "When the first of the decisions was made (RFC 3339). Absent without any."},
		"mount":         {Type: framework.TypeString, Description: "The mount's id."},
		"max_staleness": {Type: framework.TypeInt, Description: "For how many seconds keys may be accepted by what was told, while the server is away."},
		"feed_wait":     {Type: framework.TypeInt, Description: "How many seconds a request may wait at most."},
	}
	return []*framework.Path{b.path(pathSpec{
		pattern: "changes", verb: "read", suffix: "changes",
		synopsis: "What was decided about keys since a moment ago, for those who keep timelines.",
		fields: fieldSet{
			"since": {kind: kindText, empty: emptyTaken, asRead: true, about: "The cursor of the last answer. Without one, or with one that is too old or of another process, the answer is a reset."},
			"wait":  {kind: kindDuration, asRead: true, about: "How long to wait for a decision; at most config feed_wait, which is the default. 0: answer at once."},
		},
		ops: map[logical.Operation]operation{
			logical.ReadOperation:   {do: b.changes, summary: "Wait for decisions.", told: "The decisions.", answer: told},
			logical.UpdateOperation: {do: b.changes, verb: "follow", summary: "Wait for decisions.", told: "The decisions.", answer: told},
		},
		help: `
Who keeps timelines of keys (verify with timeline) hears here when a decision made
them obsolete: a rotation, a revocation, a change or deletion of a role. What the
clock does, activations and ends, is in the timelines and is not told; nor are
renewals of leases.

A role is named by its id, and a single leased key by its own. Ask with the cursor
of the last answer: the answer comes when there is something, 0.4 seconds after
the first decision, or after wait. reset says that decisions may have been missed.

Only the node that writes answers; others have the server forward the request.`,
	})}
}

func (b *backend) changes(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	cfg, err := b.config(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	if err := b.assertWriter(ctx, req.Storage); err != nil {
		return nil, err
	}
	wait := cfg.feedWait()
	if asked, given := in.seconds("wait"); given {
		wait = min(wait, asked.Duration())
	}
	a, err := b.feed.Since(ctx, in.text("since"), max(0, wait))
	if err != nil {
		return nil, err
	}
	// The node may have slept meanwhile.
	if err := b.assertWriter(ctx, req.Storage); err != nil {
		return nil, err
	}
	notices := make([]any, len(a.Notices))
	for i := range a.Notices {
		notices[i] = a.Notices[i].Data()
	}
	data := map[string]any{
		"notices": notices, "cursor": a.Cursor, "reset": a.Reset, "now": b.now().Format(time.RFC3339Nano), "mount": b.mountID,
		"max_staleness": int64(cfg.edgeMaxStaleness() / time.Second), "feed_wait": int64(cfg.feedWait() / time.Second),
	}
	if !a.Oldest.IsZero() {
		b.numbers.feedDelay.Observe(max(b.now().Sub(a.Oldest), 0).Seconds())
		data["oldest"] = a.Oldest.Format(time.RFC3339Nano)
	}
	return answer(data), nil
}
