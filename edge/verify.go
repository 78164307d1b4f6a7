// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

// The codes of a verdict that this package looks at.
const (
	codeValid     = "VALID"
	codeDisabled  = "DISABLED"
	codeScope     = "INSUFFICIENT_SCOPE"
	codeIP        = "FORBIDDEN_IP"
	codeRate      = "RATE_LIMITED"
	codeNotFound  = "NOT_FOUND"
	codeMalformed = "MALFORMED"
)

// Verify says whether a key is good. An error means that nobody could be asked, and
// wraps ErrUnavailable: answer 503. ctx bounds the wait for the server, which is a
// second at most.
func (v *Verifier) Verify(ctx context.Context, req Request) (Verdict, error) {
	now, sure := v.clock.elapsed()
	if !sure {
		return v.verifySlowly(ctx, v.digest.of(req.Key), &req)
	}
	d := v.digest.of(req.Key)
	if h := v.keys.get(d); h != nil {
		if j := v.judge(h, now); !j.ask {
			return v.verdict(h, &j, &req, now), nil
		}
	}
	return v.verifySlowly(ctx, d, &req)
}

// judgement is what is known of a held key at an instant.
type judgement struct {
	ask     bool // the server has to be asked
	must    bool // and there is no verdict without its answer
	entry   int
	ended   bool
	cutOff  bool
	closing bool
	// renewable: it is the end of a lease that is asked about, and nothing else.
	renewable bool
}

// judge decides about a held key from what was told: pure but for the mark that an end
// was applied.
func (v *Verifier) judge(h *held, now int64) judgement {
	confirmed := v.confirmed.Load()
	live := now-confirmed <= v.window.Load()
	noticed := h.notice.Load() > h.position || v.roles[h.slot].Load() > h.position && h.role.notice.Load() > h.position
	reset := v.reset.Load() > h.position
	j := judgement{cutOff: !live}
	j.closing = noticed && (h.role.closing() > h.position || h.closing.Load() > h.position)

	if noticed || reset {
		j.ask = true
		confirmed = v.confirmedBefore(h)
		// Without an answer the timeline decides where nobody said otherwise: after a
		// reset, and for what a decision did not close while the server is away.
		j.must = j.closing || noticed && live
	} else {
		confirmed = max(confirmed, h.own)
	}
	if now-confirmed > v.stale.Load() {
		j.ask, j.must = true, true
	}

	server := v.clock.server(now)
	if live {
		j.entry = h.line.At(server)
	} else {
		j.entry = h.line.Held(server, v.clock.past(confirmed))
	}
	j.ended = h.line.Code(j.entry).Ended()
	switch {
	case j.ended && live && h.line.Renewable(j.entry):
		// A renewal moves the end of a lease, and is not told, be it that this edge has
		// applied the end while it was cut off.
		j.renewable = !j.ask
		j.ask, j.must = true, true
	case j.ended && h.ended.Load() == 0:
		h.ended.Store(max(now, 1))
	case j.ended:
	case h.ended.Load() != 0:
		// It was applied before: the server went away after that, and the end would be
		// held back, or this edge's idea of the time was wrong. An answer tells.
		if end := h.line.FirstEnd(j.entry); end >= 0 {
			j.entry, j.ended = end, true
			j.ask = j.ask || live
		} else {
			// What was told since knows of no end, but by a call that is older than this
			// one: only a later one tells.
			j.ask, j.must = true, true
		}
	}
	return j
}

// confirmedBefore is when it was last sure that nothing had been decided about a key
// that is dirty.
func (v *Verifier) confirmedBefore(h *held) int64 {
	confirmed := int64(notConfirmed)
	first := ^uint64(0)
	note := func(position uint64, before int64) {
		if position > h.position && position < first {
			first, confirmed = position, before
		}
	}
	if told := h.role.told.Load(); told != nil {
		if len(told.last) == maxDirt && told.last[0].position > h.position {
			return h.own // what came first is not known any more
		}
		for _, d := range told.last {
			note(d.position, d.confirmed)
		}
	}
	if n := h.notice.Load(); n > h.position {
		note(n, h.before.Load())
	}
	for _, d := range v.feed.resetsSince(h.position) {
		note(d.position, d.confirmed)
	}
	return max(confirmed, h.own)
}

// verdict is the answer about a held key for what was asked.
func (v *Verifier) verdict(h *held, j *judgement, req *Request, now int64) (out Verdict) {
	server := v.clock.server(now)
	line, f := h.line, h.facts
	code := line.Code(j.entry)
	out.Now, out.CutOff = time.Unix(0, server).UTC(), j.cutOff
	if code == timeline.NotFound {
		// Too early: as for a key that is unknown.
		out.Code = codeNotFound
		return out
	}
	out.Code, out.Role, out.RoleID, out.KeyID, out.Version = code.String(), h.roleName(), h.roleID(), h.keyID(), int(h.version)
	out.State, out.Reason, out.End = line.State(j.entry), line.Reason(j.entry), line.End(j.entry)
	out.Scopes, out.Metadata, out.RateLimit = f.scopes, f.metadata, f.rateLimit
	if end, known := line.Ends(j.entry); known {
		out.ExpiresAt = time.Unix(0, end).UTC()
	}
	if code == timeline.Valid {
		switch {
		case !policy.ScopesCover(f.scopes, req.Scopes...) || len(req.AnyScope) > 0 && !coversAny(f.scopes, req.AnyScope):
			out.Code = codeScope
		case !f.admits(req.RemoteAddr):
			out.Code = codeIP
		case f.rateLimit > 0 && !h.role.allow(f.rateLimit, server):
			out.Code = codeRate
		default:
			out.Valid = true
		}
	}
	v.count(h, req.Client, out.Code, out.State == "previous", server, now)
	return out
}

func coversAny(scopes, some []string) bool {
	for i := range some {
		if policy.ScopesCover(scopes, some[i:i+1]...) {
			return true
		}
	}
	return false
}

// allow takes a token of the role's rate limit, which all its keys share.
func (r *role) allow(perSecond float64, now int64) bool {
	l := r.limit.Load()
	if l == nil || l.perSecond != perSecond {
		l = &limiter{Limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond))), perSecond: perSecond}
		r.limit.Store(l)
	}
	return l.AllowN(time.Unix(0, now), 1)
}

// verifySlowly is for what cannot be judged without the server. All its waits are one
// second together.
func (v *Verifier) verifySlowly(ctx context.Context, d digest, req *Request) (Verdict, error) {
	if !keyformat.Presentable(req.Key) {
		// No key has this form: the server would say no more.
		now, _ := v.clock.elapsed()
		return Verdict{Code: codeMalformed, Hint: keyformat.Hint(req.Key), Now: v.serverTime(now)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began, err := v.settled(ctx)
	if err != nil {
		return Verdict{}, err
	}
	h := v.keys.get(d)
	if h == nil {
		if u := v.unknown.get(d, began); u != nil {
			return Verdict{Code: u.code, Hint: u.hint, Now: v.serverTime(began)}, nil
		}
		if !v.limits.allow(req.RemoteAddr, time.Unix(0, began)) {
			v.limits.busy.Add(1)
			return Verdict{}, ErrBusy
		}
	} else if j := v.judge(h, began); !j.ask {
		return v.verdict(h, &j, req, began), nil
	}
	for {
		result, err := v.asks.wait(ctx, d, req.Key, v.keys.get(d), v.feed.received())
		now, serr := v.settled(ctx)
		if serr != nil {
			return Verdict{}, serr
		}
		h := v.keys.get(d)
		switch {
		case err != nil:
			if h != nil {
				if j := v.judge(h, now); !j.must {
					return v.verdict(h, &j, req, now), nil
				}
			}
			return Verdict{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		case result.once != nil:
			// Of another epoch than the feed's: good for this once.
			j := judgement{entry: result.once.line.At(v.clock.server(now))}
			return v.verdict(result.once, &j, req, now), nil
		case h != nil:
			fresh := h.own >= began
			j := v.judge(h, now)
			if j.renewable && fresh && !j.closing {
				// It was not renewed, and goes on: the server's clock is not as far as this
				// edge takes it to be.
				j = judgement{cutOff: j.cutOff}
			}
			// What was decided since the request came, and closed nothing, it need not
			// wait for: it would wait for ever where much is decided.
			if !j.ask || fresh && !j.closing && h.ended.Load() == 0 {
				return v.verdict(h, &j, req, now), nil
			}
		case result.code != "":
			return Verdict{Code: result.code, Hint: result.hint, Now: v.serverTime(now)}, nil
		}
		// Somebody decided meanwhile, or the key has to be asked about by its value.
	}
}

// serverTime is the server's time at an elapsed instant.
func (v *Verifier) serverTime(now int64) time.Time { return time.Unix(0, v.clock.server(now)).UTC() }

// settled is the time that has passed. Where the clocks have parted it waits until the
// server was asked for its time or has not answered for a second: then what is missing
// counts as time that has passed.
func (v *Verifier) settled(ctx context.Context) (int64, error) {
	for {
		now, sure := v.clock.elapsed()
		if sure {
			return now, nil
		}
		if err := v.feed.settle(ctx); err != nil {
			if now, sure := v.clock.elapsed(); sure {
				return now, nil
			}
			return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}
