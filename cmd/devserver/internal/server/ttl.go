// SPDX-License-Identifier: MPL-2.0

package server

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// human is a duration as Vault's warnings write it: 1h, not 1h0m0s.
func human(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// ttlInput is what the length of a lease depends on.
type ttlInput struct {
	now time.Time
	// start is when the lease was issued.
	start time.Time
	// increment is what the client asked for, ttl and maxTTL what the engine allows.
	increment, ttl, period, maxTTL, explicitMax time.Duration
	mountDefault, mountMax                      time.Duration
}

// leaseTTL is the host's rule for leases and tokens: the client's wish, else the engine's TTL, else the
// mount's, cut at the maximum counted from the issue. The engine's TTL does not cut a client's wish.
func leaseTTL(in ttlInput) (time.Duration, []string, error) {
	now, start := in.now.Truncate(time.Second), in.start.Truncate(time.Second)
	limit := in.mountMax
	for _, l := range []time.Duration{in.maxTTL, in.explicitMax} {
		if l > 0 && l < limit {
			limit = l
		}
	}
	if limit <= 0 {
		return 0, nil, errors.New("max TTL must be greater than zero")
	}
	var warnings []string
	var ttl time.Duration
	end := start.Add(limit)
	switch {
	case in.period > 0:
		ttl = in.period
		if ttl > limit {
			warnings = append(warnings, fmt.Sprintf("period of %q exceeded the effective max_ttl of %q; period value is capped accordingly", human(ttl), human(limit)))
			ttl = limit
		}
		// A periodic token ends only by its explicit maximum.
		if end = start.Add(in.explicitMax); in.explicitMax <= 0 {
			return ttl, warnings, nil
		}
	case in.increment > 0:
		ttl = in.increment
	case in.ttl > 0:
		ttl = in.ttl
	default:
		ttl = in.mountDefault
	}
	left := end.Sub(now)
	if left <= 0 {
		return 0, nil, errors.New("past the max TTL, cannot renew")
	}
	if ttl > left {
		warnings = append(warnings, fmt.Sprintf("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", human(ttl), human(left)))
		ttl = left
	}
	return ttl, warnings, nil
}
