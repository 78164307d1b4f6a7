// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

var requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._:/-]{8,128}$`)

// actionFields are what every action on a role takes.
func actionFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"name": nameField(),
		"reason": {
			Type:        framework.TypeString,
			Description: "Why; kept in the role's history. At most 512 characters.",
		},
		"request_id": {
			Type: framework.TypeString,
			Description: "Makes the request repeatable: the same id with the same parameters, from the same caller, does nothing again " +
				"and answers as the first time. 8 to 128 of A-Z a-z 0-9 . _ : / -",
		},
		"cas": {
			Type:        framework.TypeInt,
			Description: "The version that the caller believes to be current (0: none). If it is not, the request is refused and nothing happens.",
		},
	}
}

// replayFields are what every answer of an action may carry.
func replayFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"replayed":    {Type: framework.TypeBool, Description: "True if this is the answer to an earlier request with the same request_id."},
		"replayed_at": {Type: framework.TypeString, Description: "When that earlier request was carried out (RFC 3339)."},
	}
}

// action runs fn as one transition of the role that the request names. fn's
// result is the answer, also to repetitions of the same request id.
func (b *backend) action(ctx context.Context, req *logical.Request, d *framework.FieldData, op string,
	fn func(*roleTx) (map[string]any, error),
) (*logical.Response, error) {
	by, err := actorOf(req, d)
	if err != nil {
		return nil, err
	}
	name := d.Get("name").(string)
	params := paramsDigest(d)
	var resp *logical.Response
	_, err = b.mutate(ctx, req.Storage, name, by, func(tx *roleTx) error {
		if by.requestID != "" {
			first, err := tx.findReplay(op, by.requestID, params)
			if err != nil {
				return err
			}
			if first != nil {
				resp, err = first.answer()
				if err != nil {
					return err
				}
				return errUnchanged
			}
		}
		if err := tx.checkCAS(d); err != nil {
			return err
		}
		data, err := fn(tx)
		if again := (*repeated)(nil); errors.As(err, &again) {
			if resp, err = again.first.answer(); err != nil {
				return err
			}
			return errUnchanged
		}
		if err != nil {
			return err
		}
		resp = answer(data, tx.warnings...)
		if by.requestID != "" {
			return tx.keepReplay(op, by.requestID, params, resp)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// actorOf reads who asks and why.
func actorOf(req *logical.Request, d *framework.FieldData) (actor, error) {
	by := requester(req)
	if v, ok := d.GetOk("reason"); ok {
		by.reason = keyformat.Redact(v.(string))
		if len(by.reason) > maxReason {
			return actor{}, refusal.New("reason", len(by.reason), "has more than 512 bytes", "shorten it")
		}
	}
	if v, ok := d.GetOk("request_id"); ok {
		by.requestID = v.(string)
		if !requestIDForm.MatchString(by.requestID) || keyformat.Redact(by.requestID) != by.requestID {
			return actor{}, refusal.New("request_id", v, "must be 8 to 128 of A-Z a-z 0-9 . _ : / -", "use, for example, the id of the pipeline run")
		}
	}
	return by, nil
}

// paramsDigest identifies what the request asks for, less the request id.
func paramsDigest(d *framework.FieldData) string {
	params := map[string]any{}
	for name := range d.Raw {
		if v, ok := d.GetOk(name); ok && name != "request_id" && name != "name" {
			params[name] = v
		}
	}
	data, err := json.Marshal(params)
	if err != nil {
		data = []byte(err.Error()) // decoded JSON always encodes
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// checkCAS refuses the request if the current version is not the expected one.
func (tx *roleTx) checkCAS(d *framework.FieldData) error {
	v, ok := d.GetOk("cas")
	if !ok {
		return nil
	}
	have := 0
	if cur := tx.rec.Ring.Current(tx.now); cur != nil {
		have = cur.N
	}
	if v.(int) != have {
		return refusal.New("cas", v, fmt.Sprintf("the current version is %d", have), "read the role's status and decide again")
	}
	return nil
}

const maxActivateAhead = 366 * 24 * time.Hour

// parseInstant reads a time (RFC 3339 or Unix seconds) or a duration from now.
func parseInstant(field, text string, now time.Time) (time.Time, error) {
	const todo = "give a time such as 2026-01-31T08:00:00Z or a duration from now such as 90m"
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		n, numErr := strconv.ParseInt(text, 10, 64)
		switch {
		case numErr == nil && n >= 1e9:
			at = time.Unix(n, 0)
		case numErr == nil && n >= 0:
			at = now.Add(time.Duration(n) * time.Second)
		default:
			d, durErr := time.ParseDuration(text)
			if durErr != nil {
				return time.Time{}, refusal.New(field, text, "is neither a time nor a duration", todo)
			}
			at = now.Add(d)
		}
	}
	switch {
	case at.Before(now):
		return time.Time{}, refusal.New(field, text, "is in the past; it is "+keyring.Stamp(now)+" here", todo)
	case at.Sub(now) > maxActivateAhead:
		return time.Time{}, refusal.New(field, text, "is more than 366 days ahead", "choose an earlier time")
	}
	return at.UTC(), nil
}
