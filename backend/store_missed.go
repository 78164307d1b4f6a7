// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"sync"
	"time"
)

// missedRoles are roles that the calendar seems to lack. Tidy finds every one of
// them, in time; whoever comes across one names it to the next tick. What is
// forgotten here is found again.
type missedRoles struct {
	mu    sync.Mutex
	names map[string]struct{}
}

const maxMissed = 1024

func (m *missedRoles) add(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		m.names = map[string]struct{}{}
	}
	if len(m.names) < maxMissed {
		m.names[name] = struct{}{}
	}
}

// take returns the names and forgets them.
func (m *missedRoles) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.names))
	for name := range m.names {
		names = append(names, name)
	}
	m.names = nil
	return names
}

// notice looks whether a tick will come by the role at now. It costs two
// comparisons where nothing is wrong. While the mount's rotation is paused, roles
// wait elsewhere than their records say.
func (b *backend) notice(rec *roleRecord, now time.Time) {
	switch {
	case rec.Committed.Sub(now) > maxClockLead:
		// Written, and filed, under a clock that was wrong.
	case rec.Owed && now.Sub(rec.Committed) >= time.Minute:
		// The kill may have been committed without an entry.
	case rec.Due.IsZero() || now.Sub(rec.Due) < tickOverlap*time.Minute || b.mountPaused() || !rec.Due.Before(b.walked()):
		return
	}
	b.missed.add(rec.Name)
}
