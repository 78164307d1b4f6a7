// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/hashicorp/vault/sdk/helper/jsonutil"
)

// PatchPreprocessorFunc turns the converted input into the patch to merge.
type PatchPreprocessorFunc func(map[string]interface{}) (map[string]interface{}, error)

// HandlePatchOperation merges the input into the resource by RFC 7396 and returns the JSON of the outcome,
// for the caller to decode and store.
func HandlePatchOperation(input *FieldData, resource map[string]interface{}, preprocessor PatchPreprocessorFunc) ([]byte, error) {
	if resource == nil {
		return nil, errors.New("resource does not exist")
	}

	patch := make(map[string]interface{})
	for field := range input.Raw {
		if _, ok := input.Schema[field]; !ok {
			continue
		}
		value, ok, err := input.GetOkErr(field)
		if err != nil {
			return nil, err
		}
		if ok {
			patch[field] = value
		}
	}
	if preprocessor != nil {
		var err error
		if patch, err = preprocessor(patch); err != nil {
			return nil, err
		}
	}

	// Merging works on generic JSON, where a nil map and a null are the same.
	target, err := generic(resource)
	if err != nil {
		return nil, err
	}
	change, err := generic(patch)
	if err != nil {
		return nil, err
	}
	return json.Marshal(mergePatch(target, change))
}

func generic(v interface{}) (out interface{}, err error) {
	encoded, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	err = jsonutil.DecodeJSONFromReader(bytes.NewReader(encoded), &out)
	return out, err
}

func mergePatch(target, patch interface{}) interface{} {
	members, ok := patch.(map[string]interface{})
	if !ok {
		return withoutNulls(patch)
	}
	merged, ok := target.(map[string]interface{})
	if !ok {
		return withoutNulls(patch)
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

// withoutNulls drops null members from a new value, also from the objects in a list.
func withoutNulls(v interface{}) interface{} {
	switch v := v.(type) {
	case map[string]interface{}:
		for name, value := range v {
			if value == nil {
				delete(v, name)
			} else {
				v[name] = withoutNulls(value)
			}
		}
	case []interface{}:
		for i := range v {
			v[i] = withoutNulls(v[i])
		}
	}
	return v
}
