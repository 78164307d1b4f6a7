// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

const (
	// pageSize is how many entries a page holds at most, and does unless asked
	// for less, where each of them costs reads.
	pageSize = 1000
	// pageWaste is how many records a page reads at most beyond those that it
	// shows.
	pageWaste = 1000
)

// pageFields are what every paged list with key info takes.
func pageFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"after": {Type: framework.TypeString, Query: true, Description: "List what comes behind this name, which need not exist."},
		"limit": {Type: framework.TypeInt, Query: true, Default: pageSize, Description: "List so many at most; from 1 to 1000."},
	}
}

// windowAsked reads the page that a request asks for.
func windowAsked(d *framework.FieldData) (window, error) {
	w := window{after: d.Get("after").(string), limit: d.Get("limit").(int)}
	if w.limit < 1 || w.limit > pageSize {
		return window{}, refusal.New("limit", w.limit, fmt.Sprintf("must be from 1 to %d", pageSize),
			"read page by page: give after the last name that you got")
	}
	return w, nil
}

// collect describes the names of the page one by one. show returns nil for what
// does not belong in the list; of those it is asked only a bounded number of
// times.
func (w window) collect(names []string, show func(name string) (map[string]any, error)) (*logical.Response, error) {
	var keys []string
	info := map[string]any{}
	rest := w.behind(names)
	for i, name := range rest {
		if len(keys) == w.limit || i-len(keys) == pageWaste {
			resp := logical.ListResponseWithInfo(keys, info)
			resp.Data["next_after"] = rest[i-1]
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
	limit := "List so many at most; 0 or less: all."
	if keyInfo {
		limit = "List so many at most; 0 or less, like more than 1000: 1000, which is a page."
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
