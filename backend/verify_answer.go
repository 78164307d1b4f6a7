// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync/atomic"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

// Values of answers, made once: a string costs an allocation each time it
// becomes an interface value.
var (
	codeAnswers = func() (a [codeCount]any) {
		for c, name := range codeNames {
			a[c] = name
		}
		return a
	}()
	stateAnswers = map[keyring.State]any{
		keyring.Revoked: string(keyring.Revoked), keyring.Expired: string(keyring.Expired), keyring.Retired: string(keyring.Retired),
		keyring.Withdrawn: string(keyring.Withdrawn), keyring.Pending: string(keyring.Pending), keyring.Current: string(keyring.Current),
		keyring.Previous: string(keyring.Previous),
	}
)

const (
	endPlanned = "planned"
	endHard    = "hard"
)

// rendered is the answer as the path gives it. Before the secret has matched it
// says nothing but the code. An answer is given again while it would be the same,
// so nobody may modify it: made anew each time, a batch of a thousand would miss
// what docs/performance.md promises.
func (b *backend) rendered(v *verdict) map[string]any {
	now := b.stamps.of(v.now)
	if v.known == nil {
		data := map[string]any{"valid": false, "code": codeAnswers[v.code], "now": now}
		if v.hint != "" {
			data["hint"] = v.hint
		}
		return data
	}
	like := answeredTo{unix: v.now.Unix(), code: v.code, cache: v.cache, status: v.status}
	if last := v.known.last.Load(); last != nil && last.to == like {
		return last.data
	}
	data := render(v, now)
	v.known.last.Store(&answered{to: like, data: data})
	return data
}

// answered is an answer about a key, and all that it depends on apart from the
// records that the view belongs to.
type answered struct {
	to   answeredTo
	data map[string]any
}

type answeredTo struct {
	unix   int64
	code   code
	cache  int64
	status keyring.Status
}

func render(v *verdict, now any) map[string]any {
	var ends any = ""
	end := ""
	if st := &v.status; !st.Until.IsZero() {
		if ends, end = v.known.stamps.of(st.Until), endHard; st.Planned {
			end = endPlanned
		}
	}
	data := make(map[string]any, 16)
	data["valid"] = v.code == codeValid
	data["code"] = codeAnswers[v.code]
	data["now"] = now
	data["state"] = stateAnswers[v.status.State]
	data["reason"] = reasonOf(v.status)
	data["expires_at"] = ends
	data["end"] = end
	data["cache_ttl"] = v.cache
	if v.code == codeState {
		return data
	}
	view := v.known
	data["role"] = view.role.name
	data["role_id"] = view.role.id
	data["key_id"] = view.id
	data["version"] = view.version
	data["scopes"] = view.answer
	data["metadata"] = view.role.metadata
	data["rate_limit"] = view.role.rateLimit
	return data
}

// lastStamp remembers the text of the last time it was asked for: the same
// second, and the same end, are written again and again.
type lastStamp struct{ last atomic.Pointer[stamped] }

type stamped struct {
	unix int64
	text any
}

func (l *lastStamp) of(t time.Time) any {
	unix := t.Unix()
	if last := l.last.Load(); last != nil && last.unix == unix {
		return last.text
	}
	text := any(stamp(t))
	l.last.Store(&stamped{unix: unix, text: text})
	return text
}
