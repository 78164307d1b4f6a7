// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// jobAhead is how many names of a list a job keeps from one tick to the next.
const jobAhead = 1000

// readAhead is the rest of a list that a job goes through. Servers can only list
// all that is below a prefix, so it is listed once a tick at most, and more seldom
// while the part that was kept lasts.
type readAhead struct {
	of    string   // what is listed
	names []string // sorted
	whole bool     // names reaches to the end of the list
}

// fill makes names hold what comes after the last one that is done with, unless
// it does. They are left only where there are none.
func (a *readAhead) fill(of, after string, names func() ([]string, error)) error {
	if a.of == of && (len(a.names) > 0 || a.whole) {
		return nil
	}
	all, err := names()
	if err != nil {
		return err
	}
	*a = readAhead{of: of, names: behindName(all, after), whole: true}
	return nil
}

// next takes the first name off.
func (a *readAhead) next() { a.names = a.names[1:] }

// cut keeps the names of the time until the next tick, and frees the rest of the
// list.
func (a *readAhead) cut() {
	if len(a.names) > jobAhead {
		a.names, a.whole = a.names[:jobAhead], false
	}
	kept := make([]string, len(a.names))
	for i, name := range a.names {
		kept[i] = strings.Clone(name)
	}
	a.names = kept
}

// behindName is the part of sorted names that comes after one.
func behindName(names []string, after string) []string {
	i, found := slices.BinarySearch(names, after)
	if found {
		i++
	}
	return names[i:]
}

// beginningWith is the part of sorted names that begin so.
func beginningWith(names []string, prefix string) []string {
	from, _ := slices.BinarySearch(names, prefix)
	names = names[from:]
	to := len(names)
	for i := range names {
		if !strings.HasPrefix(names[i], prefix) {
			to = i
			break
		}
	}
	return names[:to]
}

// listSorted lists what is below a prefix, in order.
func listSorted(ctx context.Context, s logical.Storage, prefix string) ([]string, error) {
	names, err := list(ctx, s, prefix)
	if err != nil {
		return nil, err
	}
	return window{}.rest(names), nil
}
