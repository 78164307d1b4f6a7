// SPDX-License-Identifier: MPL-2.0

package webhook

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Outcome is what an answer means.
type Outcome int

// The outcomes.
const (
	Failed    Outcome = iota // again later; also what no answer means
	Delivered                // 2xx
	Throttled                // 429, 502, 503, 504: the receiver asks for time
	Gone                     // 410: the receiver wants nothing any more
)

// Verdict is an answer, read.
type Verdict struct {
	Outcome Outcome
	// After is how long a throttling receiver asked to be left alone, at most MaxWait.
	// Zero means that it did not say.
	After time.Duration
}

// Judge reads an answer that came at a time. Redirects are failures: nobody follows them.
func Judge(status int, header http.Header, now time.Time) Verdict {
	switch {
	case status >= 200 && status < 300:
		return Verdict{Outcome: Delivered}
	case status == http.StatusGone:
		return Verdict{Outcome: Gone}
	case status == http.StatusTooManyRequests, status == http.StatusBadGateway,
		status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return Verdict{Outcome: Throttled, After: retryAfter(header, now)}
	}
	return Verdict{Outcome: Failed}
}

// retryAfter reads a number of seconds, or a date. A date is held against the receiver's
// clock if it told it, since that is the one it was made by.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(header.Get("Retry-After"))
	if text != "" && strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(MaxWait/time.Second) {
			return MaxWait
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), MaxWait)
}

const (
	// MaxWait is how long an endpoint waits at most.
	MaxWait = time.Hour

	firstWait = 5 * time.Second
	// jitterPart is how much of a wait chance may take off, so that endpoints that failed
	// together do not come back together.
	jitterPart = 0.25
)

// Backoff is the wait after so many failures in a row: about 5 s after the first, twice
// as long after each other, an hour at most. jitter is a random number from 0 up to 1.
func Backoff(failures int, jitter float64) time.Duration {
	wait := MaxWait
	if n := max(failures, 1) - 1; n < 16 {
		wait = min(firstWait<<n, MaxWait)
	}
	// What is no such number takes nothing off.
	if !(jitter >= 0 && jitter < 1) {
		jitter = 0
	}
	return time.Duration(math.Round(float64(wait) * (1 - jitterPart*jitter)))
}

// Next is the wait after a verdict that was not Delivered. What a receiver asks for
// lengthens the wait and never shortens it: an endpoint that is down for long would
// otherwise be asked as often as a broken load balancer in front of it says.
func Next(v Verdict, failures int, jitter float64) time.Duration {
	return max(Backoff(failures, jitter), min(v.After, MaxWait))
}
