// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"strings"
)

// window is which part of a list a request asks for: the names that follow one, at
// most limit of them. Servers page no lists for plugins, so a page costs one
// whole List, but no more than its own records.
type window struct {
	after string
	limit int
}

// rest returns the names that come after the one that the window begins at,
// sorted and cleared of folders' marks. It changes what it is given.
func (w window) rest(names []string) []string {
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], "/")
	}
	if !slices.IsSorted(names) {
		slices.Sort(names)
	}
	if w.after == "" {
		return names
	}
	i, found := slices.BinarySearch(names, w.after)
	if found {
		i++
	}
	return names[i:]
}
