// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// Servers refuse bodies with more than about a thousand strings and bodies that
// are arrays, so a batch travels as one string.
const (
	maxBatchItems = 1000
	maxBatchBytes = 1 << 20
)

func batchField(what string) *framework.FieldSchema {
	return &framework.FieldSchema{
		Type: framework.TypeString,
		Description: what + " One string: JSON objects on lines of their own, or a JSON array as text; at most 1000 items and 1 MiB. " +
			"The answer's results has one entry per item, in order.",
	}
}

// batchItems splits a batch. A line that is no JSON is an item like any other:
// only that one fails. Texts never repeat what was given: it may hold keys.
func batchItems(text string) ([]json.RawMessage, error) {
	if len(text) > maxBatchBytes {
		return nil, refuse("batch", len(text), fmt.Sprintf("has more than %d bytes", maxBatchBytes), "send it in parts")
	}
	text = strings.TrimSpace(text)
	var items []json.RawMessage
	if strings.HasPrefix(text, "[") {
		if err := json.Unmarshal([]byte(text), &items); err != nil {
			return nil, refuse("batch", nil, "is not a JSON array", "give one JSON object per line, or a JSON array as text")
		}
	} else {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				items = append(items, json.RawMessage(line))
			}
		}
	}
	switch {
	case len(items) == 0:
		return nil, refuse("batch", nil, "has no items", "give at least one JSON object")
	case len(items) > maxBatchItems:
		return nil, refuse("batch", len(items), fmt.Sprintf("has more than %d items", maxBatchItems), "send it in parts")
	}
	return items, nil
}

// decodeItem reads one item of a batch.
func decodeItem(item json.RawMessage, into any) error {
	dec := json.NewDecoder(bytes.NewReader(item))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil || dec.More() {
		return refuse("batch", nil, "an item is not a JSON object with the fields of this path", "see the path's help")
	}
	return nil
}
