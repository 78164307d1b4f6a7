// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"
	"slices"
	"sync"
)

// markedSchema is the layout of a record that stands at role/ although its role was
// deleted, and the newest of a role that this build reads.
const markedSchema = 2

// unmovedRoles are the roles that this node has deleted so, by role_id.
type unmovedRoles struct {
	mu    sync.Mutex
	names map[string]string
}

func (u *unmovedRoles) add(id, name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil {
		u.names = map[string]string{}
	}
	if len(u.names) < maxMissed {
		u.names[id] = name
	}
}

func (u *unmovedRoles) moved(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.names, id)
}

// nameOf is the name of the role with that id; empty if it is none of them.
func (u *unmovedRoles) nameOf(id string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.names[id]
}

// changed forgets the role of that name: another node has written there.
func (u *unmovedRoles) changed(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.names, func(_, at string) bool { return at == name })
}

// hide takes their names out of a list.
func (u *unmovedRoles) hide(names []string) []string {
	u.mu.Lock()
	gone := slices.Collect(maps.Values(u.names))
	u.mu.Unlock()
	if len(gone) == 0 {
		return names
	}
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(gone, name) })
}
