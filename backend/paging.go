// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	defaultPage = 1000
	maxPage     = 10000
)

// page is which part of a list a request asks for: the names behind after, at
// most limit of them. Servers page no lists for plugins, so a page costs one
// whole List, but no more than its own records.
type page struct {
	after string
	limit int // 0: all
}

// pageFields are what every paged list takes.
func pageFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"after": {Type: framework.TypeString, Query: true, Description: "List what comes behind this name, which need not exist."},
		"limit": {Type: framework.TypeInt, Query: true, Description: "List so many at most; 0 or less: as many as one answer holds."},
	}
}

// pageAsked reads the page that a request asks for. Without a limit it is unbounded,
// as for a plain list.
func pageAsked(d *framework.FieldData) (page, error) {
	p := page{after: d.Get("after").(string), limit: max(d.Get("limit").(int), 0)}
	if p.limit > maxPage {
		return page{}, refuse("limit", p.limit, "more than 10000", "read page by page: give after the last name that you got")
	}
	return p, nil
}

// bounded is the page of a list whose every entry costs reads.
func (p page) bounded() page {
	if p.limit == 0 {
		p.limit = defaultPage
	}
	return p
}

// of returns the names of the page, and whether others come behind it. The
// names are sorted and cleared of folders' marks in place.
func (p page) of(names []string) (part []string, more bool) {
	rest := p.behind(names)
	if p.limit > 0 && len(rest) > p.limit {
		return rest[:p.limit], true
	}
	return rest, false
}

// behind returns the names, sorted, that come behind after.
func (p page) behind(names []string) []string {
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], "/")
	}
	if !slices.IsSorted(names) {
		slices.Sort(names)
	}
	if p.after == "" {
		return names
	}
	i, found := slices.BinarySearch(names, p.after)
	if found {
		i++
	}
	return names[i:]
}

// listFields is the declared answer of a list with key info.
func listFields(info string) map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"keys":     {Type: framework.TypeStringSlice, Description: "The names of this page, in order."},
		"key_info": {Type: framework.TypeMap, Description: info},
		"next_after": {Type: framework.TypeString, Description: "Given if there may be more: " +
			"the value of after that the next page begins behind. A page may hold fewer names than asked for, even none, and not be the last."},
	}
}

// listAnswer is a page with what is known of its names. next is where the page
// behind it begins; empty if there is none.
func listAnswer(names []string, info map[string]any, next string) *logical.Response {
	resp := logical.ListResponseWithInfo(names, info)
	if next != "" {
		resp.Data["next_after"] = next
	}
	return resp
}
