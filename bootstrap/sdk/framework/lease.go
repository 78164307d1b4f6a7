// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// LeaseExtend sets TTL and MaxTTL for the server to apply.
//
// Deprecated: a Renew function can set them itself.
func LeaseExtend(backendIncrement, backendMax time.Duration, _ logical.SystemView) OperationFunc {
	return func(_ context.Context, req *logical.Request, _ *FieldData) (*logical.Response, error) {
		switch {
		case req.Auth != nil:
			req.Auth.TTL, req.Auth.MaxTTL = backendIncrement, backendMax
			return &logical.Response{Auth: req.Auth}, nil
		case req.Secret != nil:
			req.Secret.TTL, req.Secret.MaxTTL = backendIncrement, backendMax
			return &logical.Response{Secret: req.Secret}, nil
		}
		return nil, errors.New("no lease options for request")
	}
}

// CalculateTTL applies every limit to a wished TTL, in whole seconds. startTime is that of the first issue;
// zero means now.
func CalculateTTL(sysView logical.SystemView, increment, backendTTL, period, backendMaxTTL, explicitMaxTTL time.Duration, startTime time.Time) (ttl time.Duration, warnings []string, err error) {
	now := time.Now().Truncate(time.Second)
	start := now
	if !startTime.IsZero() {
		start = startTime.Truncate(time.Second)
	}

	maxTTL := sysView.MaxLeaseTTL()
	for _, limit := range []time.Duration{backendMaxTTL, explicitMaxTTL} {
		if limit > 0 {
			maxTTL = min(maxTTL, limit)
		}
	}
	if maxTTL <= 0 {
		return 0, nil, errors.New("max TTL must be greater than zero")
	}

	// A periodic lease can be renewed forever, unless there is an explicit limit.
	limited, lifetime := true, maxTTL
	switch {
	case period > 0:
		if period > maxTTL {
			warnings = append(warnings, fmt.Sprintf("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly",
				humanDuration(period), humanDuration(maxTTL)))
		}
		ttl = min(period, maxTTL)
		limited, lifetime = explicitMaxTTL > 0, explicitMaxTTL
	case increment > 0:
		ttl = increment
	case backendTTL > 0:
		ttl = backendTTL
	default:
		ttl = sysView.DefaultLeaseTTL()
	}
	if !limited {
		return ttl, warnings, nil
	}

	left := start.Add(lifetime).Sub(now)
	if left <= 0 {
		return 0, nil, errors.New("past the max TTL, cannot renew")
	}
	if ttl > left {
		warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly",
			humanDuration(ttl), humanDuration(left)))
		ttl = left
	}
	return ttl, warnings, nil
}

// humanDuration leaves out zero minutes and seconds.
func humanDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if i := strings.Index(s, "h0m"); i > 0 {
		s = s[:i+1] + s[i+3:]
	}
	return s
}
