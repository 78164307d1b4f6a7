// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"crypto/sha256"
	"sync"
)

// How many reporters are remembered: instances of a caller, and callers. Both
// are bounded by themselves, so that a caller with many instances forgets its own
// and nobody else's.
const (
	MaxInstances = 256
	MaxCallers   = 4096
)

// MaxSequence is the highest number that every reader of JSON reads as it is.
const MaxSequence = 1 << 53

// Reporters remembers which reports were counted, so that a repeat is not. It is
// kept in memory only: after a restart or a failover, and of a reporter that was
// forgotten because that many others have reported since, a repeat counts again.
// The zero value is ready for use.
type Reporters struct {
	mu      sync.Mutex
	callers map[string]*caller
	reports int64 // heard so far: a clock that is never wrong
}

type caller struct {
	instances map[instance]*reporter
	heard     int64
}

// instance is the digest of a name: these are as long as a caller likes.
type instance [16]byte

type reporter struct {
	sequence int64 // the highest
	heard    int64
}

// Take reports whether the report is new, and returns the highest sequence of
// that caller and instance. If it is new, then it is known from now on.
func (r *Reporters) Take(callerID, instanceName string, sequence int64) (highest int64, isNew bool) {
	sum := sha256.Sum256([]byte(instanceName))
	name := instance(sum[:16])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports++
	c := r.callers[callerID]
	if c == nil {
		if r.callers == nil {
			r.callers = map[string]*caller{}
		}
		makeRoom(r.callers, MaxCallers, func(c *caller) int64 { return c.heard })
		c = &caller{instances: map[instance]*reporter{}}
		r.callers[callerID] = c
	}
	rep := c.instances[name]
	if rep == nil {
		makeRoom(c.instances, MaxInstances, func(i *reporter) int64 { return i.heard })
		rep = &reporter{}
		c.instances[name] = rep
	}
	c.heard, rep.heard = r.reports, r.reports
	if sequence <= rep.sequence {
		return rep.sequence, false
	}
	rep.sequence = sequence
	return sequence, true
}

// makeRoom removes what was not heard of for longest, if the map is full.
func makeRoom[K comparable, V any](m map[K]V, limit int, heard func(V) int64) {
	if len(m) < limit {
		return
	}
	var oldest K
	at := int64(-1)
	for k, v := range m {
		if h := heard(v); at < 0 || h < at {
			oldest, at = k, h
		}
	}
	delete(m, oldest)
}
