// SPDX-License-Identifier: MPL-2.0

package bearer

import (
	"errors"
	"testing"
)

func TestKey(t *testing.T) {
	for _, test := range []struct {
		name                  string
		authorization, apiKey []string
		key                   string
		bearer                bool
		err                   error
	}{
		{name: "nothing", err: ErrNone},
		{name: "bearer", authorization: []string{"Bearer k"}, key: "k", bearer: true},
		{name: "scheme in another case", authorization: []string{"bEARER k"}, key: "k", bearer: true},
		{name: "header of its own", apiKey: []string{"k"}, key: "k"},
		{name: "another scheme is no key", authorization: []string{"Basic abc"}, err: ErrNone},
		{name: "another scheme beside a key", authorization: []string{"Basic abc"}, apiKey: []string{"k"}, key: "k"},
		{name: "two headers", authorization: []string{"Bearer k"}, apiKey: []string{"k"}, bearer: true, err: ErrAmbiguous},
		{name: "two values", authorization: []string{"Bearer k", "Bearer k"}, bearer: true, err: ErrAmbiguous},
		{name: "two values of the other", apiKey: []string{"k", "l"}, bearer: true, err: ErrAmbiguous},
		{name: "a scheme alone", authorization: []string{"Bearer"}, bearer: true, err: ErrAmbiguous},
		{name: "a scheme and a space", authorization: []string{"Bearer "}, bearer: true, err: ErrAmbiguous},
		{name: "an empty header", apiKey: []string{""}, err: ErrAmbiguous},
		{name: "kept as it was presented", authorization: []string{"Bearer  k "}, key: " k ", bearer: true},
	} {
		key, bearer, err := Key(test.authorization, test.apiKey)
		if key != test.key || bearer != test.bearer || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %t, %v; want %q, %t, %v", test.name, key, bearer, err, test.key, test.bearer, test.err)
		}
	}
}
