// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// maxReplays is how many answers a role remembers for repeated request ids.
const maxReplays = 64

// findReplay returns the answer that the request id already got, or refuses an
// id that was used for something else.
func (tx *roleTx) findReplay(op, id string, params ...string) (*replay, error) {
	for i := range tx.rec.Requests {
		r := &tx.rec.Requests[i]
		if r.ID != id || r.Op != op || r.Caller != tx.by.caller {
			continue
		}
		if !slices.Contains(params, r.Params) {
			return nil, refusal.New("request_id", id, "was used at "+keyring.Stamp(r.Time)+" with other parameters",
				"repeat those, or use a new id")
		}
		return r, nil
	}
	return nil, nil
}

// answered reports whether the role remembers an answer to that request id.
func (r *roleRecord) answered(op, id string) bool {
	return slices.ContainsFunc(r.Requests, func(a replay) bool { return a.Op == op && a.ID == id })
}

func (r *replay) answer() (*logical.Response, error) {
	var stored replayResult
	if err := json.Unmarshal(r.Result, &stored); err != nil {
		return nil, fmt.Errorf("reading the stored answer: %w", err)
	}
	stored.Data["replayed"] = true
	stored.Data["replayed_at"] = keyring.Stamp(r.Time)
	return answer(stored.Data, stored.Warnings...), nil
}

type replayResult struct {
	Data     map[string]any `json:"data"`
	Warnings []string       `json:"warnings,omitempty"`
}

func (tx *roleTx) keepReplay(op, id, params string, resp *logical.Response) error {
	result, err := json.Marshal(replayResult{Data: resp.Data, Warnings: resp.Warnings})
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	tx.rec.Requests = append(tx.rec.Requests, replay{
		ID: id, Op: op, Caller: tx.by.caller, Params: params, Time: tx.now, Result: result,
	})
	if n := len(tx.rec.Requests) - maxReplays; n > 0 {
		tx.rec.Requests = tx.rec.Requests[n:]
	}
	return nil
}

// revokeAllMark keeps the result of the last all=true without request id; no request
// id looks like it.
const revokeAllMark = "(all)"

// revokeAllRepeat is how long a repeated all=true answers the first result: the
// replacement that it got must not die by a retry.
const revokeAllRepeat = 5 * time.Minute

// repeatedRevokeAll is the first result of the same all=true, asked by the same
// caller a moment ago, as long as its replacement is the only version that lives (or
// none does, where there was none): to kill again would kill that alone. A dynamic
// role's keys may have been issued under it, and to nobody but those who name the
// request is it the same one.
func (tx *roleTx) repeatedRevokeAll(params []string) *replay {
	if tx.by.requestID != "" || tx.rec.Type == policy.Dynamic {
		return nil
	}
	for i := range tx.rec.Requests {
		r := &tx.rec.Requests[i]
		if r.ID != revokeAllMark || r.Caller != tx.by.caller || !slices.Contains(params, r.Params) {
			continue
		}
		if age := tx.now.Sub(r.Time); age < 0 || age >= revokeAllRepeat || !slices.Equal(tx.live(), r.replacement()) {
			continue
		}
		return r
	}
	return nil
}

// replacement is what the answer to a revocation calls the replacement, as a list;
// empty where there was none.
func (r *replay) replacement() []int {
	var stored struct {
		Data struct {
			Version  int  `json:"version"`
			Replaced bool `json:"replaced"`
		} `json:"data"`
	}
	if err := json.Unmarshal(r.Result, &stored); err != nil || !stored.Data.Replaced {
		return nil
	}
	return []int{stored.Data.Version}
}

// keepRevokeAll keeps the result of an all=true that may be repeated without a
// request id, in place of the one before: what that made lives no more.
func (tx *roleTx) keepRevokeAll(params string, resp *logical.Response) error {
	tx.rec.Requests = slices.DeleteFunc(tx.rec.Requests, func(r replay) bool { return r.ID == revokeAllMark })
	if tx.by.requestID != "" || tx.rec.Type == policy.Dynamic {
		return nil
	}
	return tx.keepReplay("revoke", revokeAllMark, params, resp)
}
