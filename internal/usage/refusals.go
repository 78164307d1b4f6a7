// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Refusals counts refused uses by code. There are few codes, so a list is
// searched faster than a map, and verification counts here. As JSON it is an
// object: counts by code.
type Refusals []Refusal

// Refusal is how often a code refused a use.
type Refusal struct {
	Code  string
	Count int64
}

func (r *Refusals) add(code string, n int64) {
	list := *r
	for i := range list {
		if list[i].Code == code {
			list[i].Count += n
			return
		}
	}
	if n != 0 {
		*r = append(list, Refusal{code, n})
	}
}

// MarshalJSON encodes the counts in the order of the codes.
func (r Refusals) MarshalJSON() ([]byte, error) {
	byCode := make(map[string]int64, len(r))
	for _, one := range r {
		byCode[one.Code] = one.Count
	}
	return json.Marshal(byCode)
}

// UnmarshalJSON decodes counts by code.
func (r *Refusals) UnmarshalJSON(data []byte) error {
	var byCode map[string]int64
	if err := json.Unmarshal(data, &byCode); err != nil {
		return fmt.Errorf("decoding counts by code: %w", err)
	}
	*r = nil
	for _, code := range slices.Sorted(maps.Keys(byCode)) {
		r.add(code, byCode[code])
	}
	return nil
}
