// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._:/-]{8,128}$`)

// actionFields are what every action on a role takes. closes: the action ends
// keys, so the text that comes with it must not stop it.
func actionFields(closes bool) fieldSet {
	return fieldsOf(nameOf(), fieldSet{
		"reason":      reasonField("Why; kept in the role's history.", closes),
		"reason_code": codeField("What the reason is, for what the request ends; kept in the history and told by verify of a REVOKED key."),
		"request_id": {
			about: "Makes the request repeatable: the same id with the same parameters, from the same caller, does nothing again " +
				"and answers as the first time. 8 to 128 of A-Z a-z 0-9 . _ : / -",
		},
		"cas": {
			kind:  kindInteger,
			about: "The version that the caller believes to be current (0: none). If it is not, the request is refused and nothing happens.",
		},
	})
}

// replayFields are what every answer of an action may carry.
func replayFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"replayed":    {Type: framework.TypeBool, Description: "True if this is the answer to an earlier request with the same request_id."},
		"replayed_at": {Type: framework.TypeString, Description: "When that earlier request was carried out (RFC 3339)."},
	}
}

// actionRequest is what every action on a role says.
type actionRequest struct {
	storage logical.Storage
	role    string
	op      string
	by      actor
	// roleID: the role with that id is meant, also while it is deleted.
	roleID string
	cas    *int64
	// earlier finds what carried the request out before, where no request id says so;
	// nil if nothing did.
	earlier func(*roleTx) *replay
	// params identify what is asked for, less the request id: as this build
	// digests it, and as the build before did.
	params []string
}

func readAction(req *logical.Request, in *input, op string) (*actionRequest, error) {
	by, err := readActor(req, in)
	if err != nil {
		return nil, err
	}
	a := &actionRequest{storage: req.Storage, role: in.text("name"), op: op, by: by, params: in.digests()}
	if in.given("cas") {
		cas := in.integer("cas")
		a.cas = &cas
	}
	return a, nil
}

// action runs fn as one transition of the role that the request names. fn's
// result is the answer, also to repetitions of the same request id.
func (b *backend) action(ctx context.Context, a *actionRequest, fn func(*roleTx) (map[string]any, error)) (*logical.Response, error) {
	var resp *logical.Response
	mutate := b.mutate
	if a.roleID != "" {
		mutate = func(ctx context.Context, s logical.Storage, name string, by actor, fn func(*roleTx) (bool, error)) (*roleRecord, error) {
			return b.mutateKept(ctx, s, name, a.roleID, by, fn)
		}
	}
	_, err := mutate(ctx, a.storage, a.role, a.by, func(tx *roleTx) (bool, error) {
		if tx.rec.Name != a.role {
			// It had the name once. A policy may allow what is done to one role only.
			return false, noRole(a.role)
		}
		if a.by.requestID != "" {
			first, err := tx.findReplay(a.op, a.by.requestID, a.params...)
			if err == nil && first != nil {
				resp, err = first.answer()
			}
			if err != nil || first != nil {
				return false, err
			}
		}
		if err := tx.checkCAS(a.cas); err != nil {
			return false, err
		}
		if a.earlier != nil {
			if first := a.earlier(tx); first != nil {
				var err error
				resp, err = first.answer()
				return false, err
			}
		}
		data, err := fn(tx)
		if err != nil {
			return false, err
		}
		resp = answer(data, tx.warnings...)
		if a.by.requestID != "" {
			return true, tx.keepReplay(a.op, a.by.requestID, a.params[0], resp)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// readActor reads who asks and why.
func readActor(req *logical.Request, in *input) (actor, error) {
	by := requester(req)
	by.reason, by.code = keyformat.Redact(in.text("reason")), keyring.Reason(in.text("reason_code"))
	if in.given("request_id") {
		by.requestID = in.text("request_id")
		if !requestIDForm.MatchString(by.requestID) || keyformat.Redact(by.requestID) != by.requestID {
			return actor{}, refusal.New("request_id", by.requestID, "must be 8 to 128 of A-Z a-z 0-9 . _ : / -", "use, for example, the id of the pipeline run")
		}
	}
	return by, nil
}

// digests identify what the request asks for, less who is asked and the request
// id. The second is how the build before saw nulls: as the empty values of their
// kinds.
func (in *input) digests() []string {
	now, before := map[string]any{}, map[string]any{}
	for name, value := range in.values {
		if name == "request_id" || name == "name" {
			continue
		}
		if value != nil {
			now[name], before[name] = value, value
			continue
		}
		switch f := in.fields[name]; f.kind {
		case kindDuration:
		case kindSwitch:
			before[name] = false
		case kindInteger, kindSequence, kindNumber:
			before[name] = 0
		default:
			before[name] = f.none()
		}
	}
	return []string{digestOf(now), digestOf(before)}
}

func digestOf(params map[string]any) string {
	data, err := json.Marshal(params)
	if err != nil {
		data = []byte(err.Error()) // what was decoded from JSON always encodes
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// checkCAS refuses the request if the current version is not the expected one.
func (tx *roleTx) checkCAS(expected *int64) error {
	if expected == nil {
		return nil
	}
	have := 0
	if cur := tx.rec.Ring.Current(tx.now); cur != nil {
		have = cur.N
	}
	if *expected != int64(have) {
		return refusal.New("cas", *expected, fmt.Sprintf("the current version is %d", have), "read the role's status and decide again")
	}
	return nil
}
