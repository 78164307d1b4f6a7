// SPDX-License-Identifier: MPL-2.0

// Package bearer takes the key out of a request's headers. There is one strict form:
// what is ambiguous is refused, since another reader of the same request might take the
// other key.
package bearer

import (
	"errors"
	"strings"
)

// The headers that a key may be in.
const (
	Authorization = "Authorization"
	APIKey        = "X-API-Key"
)

var (
	// ErrNone means that no key was presented.
	ErrNone = errors.New("no API key was presented: send it as Authorization: Bearer, or as X-API-Key")
	// ErrAmbiguous means that more than one was, or one that is not in that form.
	ErrAmbiguous = errors.New("present one API key, once: as Authorization: Bearer, or as X-API-Key")
)

// Key is the key that was presented in the values of the two headers. bearer reports
// whether Authorization is about it: another scheme there is not, and is no key.
func Key(authorization, apiKey []string) (key string, bearer bool, err error) {
	if len(authorization) > 1 || len(apiKey) > 1 {
		return "", true, ErrAmbiguous
	}
	if len(authorization) == 1 {
		scheme, rest, _ := strings.Cut(authorization[0], " ")
		if bearer = strings.EqualFold(scheme, "Bearer"); bearer {
			key = rest
		}
	}
	switch {
	case len(apiKey) == 0 && !bearer:
		return "", bearer, ErrNone
	case len(apiKey) == 1 && bearer:
		return "", bearer, ErrAmbiguous
	case len(apiKey) == 1:
		key = apiKey[0]
	}
	if key == "" {
		return "", bearer, ErrAmbiguous
	}
	return key, bearer, nil
}
