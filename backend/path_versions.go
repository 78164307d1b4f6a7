// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strconv"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

func (b *backend) pathsVersions() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "versions/" + nameRegex + "/?", suffix: "versions", lists: "Version",
		synopsis: "The role's versions as a table: states, ends and uses.",
		fields:   fieldsOf(nameOf(), pageFieldSet(true)),
		ops: map[logical.Operation]operation{
			logical.ListOperation: {
				do: b.listVersions, summary: "The role's versions.", told: "The versions, newest first.",
				answer: listFields("By version: state, key_id (of foreign keys its beginning), since (its activation, as planned or as it was), until (the earliest known end, or the end), " +
					"last_used (accepted), and reads, how often it was handed out."),
			},
		},
		help: `
Lists the versions of the role, newest first, in a few columns that fit a screen:

    vault list -detailed apikeys/versions/<role>

status/<role> tells more of each. after=<version> goes on with those that are
older.`,
	})}
}

func (b *backend) listVersions(ctx context.Context, req *logical.Request, in *input) (*logical.Response, error) {
	r, err := b.lookToRead(ctx, req.Storage, in.text("name"))
	if err != nil || r == nil {
		return nil, err
	}
	w := windowOf(in)
	before := r.rec.Ring.Last + 1
	if w.after != "" {
		if before, err = strconv.Atoi(w.after); err != nil {
			return nil, refusal.New("after", w.after, "is not the number of a version", "give the last one of the page before, or leave it out")
		}
	}
	use, err := b.usageOf(ctx, req.Storage, r.rec)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, v := range slices.Backward(r.rec.Ring.Versions) {
		if v.N < before {
			names = append(names, strconv.Itoa(v.N))
		}
	}
	return w.collectRest(names, func(name string) (map[string]any, error) {
		n, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		v := r.rec.Ring.Get(n)
		st, _ := r.rec.Ring.Status(n, r.now)
		used := countsOf(use, v)
		return map[string]any{
			"state": string(st.State), "key_id": column(v.KeyID, keyIDColumn), "since": stamp(v.Activate), "until": stamp(st.Until),
			"last_used": stamp(used.LastAccepted()), "reads": used.Reads.Count,
		}, nil
	})
}
