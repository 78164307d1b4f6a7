// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	// pageSize is how many entries a list holds at most, where each of them costs
	// reads.
	pageSize = 1000
	// pageWaste is how many records a page reads at most beyond those that it
	// shows.
	pageWaste = 1000
)

// collect describes the names of the page one by one. show returns nil for what
// does not belong in the list; of those it is asked only a bounded number of
// times. A list that ends before what was asked for says so.
func (w window) collect(names []string, show func(name string) (map[string]any, error)) (*logical.Response, error) {
	return w.collectRest(w.rest(names), show)
}

// collectRest is collect for a list that has an order of its own: rest are the names
// that follow the one that the window begins at.
func (w window) collectRest(rest []string, show func(name string) (map[string]any, error)) (*logical.Response, error) {
	limit := w.limit
	if limit == 0 || limit > pageSize {
		limit = pageSize
	}
	var keys []string
	info := map[string]any{}
	for i, name := range rest {
		if len(keys) == limit || i-len(keys) == pageWaste {
			resp := logical.ListResponseWithInfo(keys, info)
			resp.Data["next_after"] = rest[i-1]
			if len(keys) != w.limit {
				resp.AddWarning("there may be more: give after=<next_after> for the next page")
			}
			return resp, nil
		}
		data, err := show(name)
		if err != nil {
			return nil, err
		}
		if data != nil {
			keys, info[name] = append(keys, name), data
		}
	}
	return logical.ListResponseWithInfo(keys, info), nil
}

// listFields is the declared answer of a list with key info.
func listFields(info string) map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"keys":     {Type: framework.TypeStringSlice, Description: "The names of this page, in order."},
		"key_info": {Type: framework.TypeMap, Description: info},
		"next_after": {Type: framework.TypeString, Description: "Given where there may be more: the value of after for the next page. " +
			"A page that is not the last may hold less than asked for, even nothing."},
	}
}

// pageFieldSet are what every list takes. keyInfo: the list tells something of
// each name, so it stops at a page.
func pageFieldSet(keyInfo bool) fieldSet {
	limit := "List so many at most. 0 or less means all."
	if keyInfo {
		limit = "List so many at most. 0 or less means as many as one answer holds, which is 1000; the answer warns if there may be more."
	}
	return fieldSet{
		"after": {kind: kindText, query: true, empty: emptyTaken, about: "List what comes after this name, which need not exist."},
		"limit": {kind: kindInteger, query: true, about: limit},
	}
}

// windowOf is the part of a list that a request asks for.
func windowOf(in *input) window {
	return window{after: in.text("after"), limit: int(max(0, in.integer("limit")))}
}
