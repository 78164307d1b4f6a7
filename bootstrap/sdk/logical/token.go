// SPDX-License-Identifier: MPL-2.0

package logical

import (
	"fmt"
	"strings"
)

// TokenType is the kind of token that a login yields.
type TokenType uint8

const (
	// TokenTypeDefault leaves it to the mount.
	TokenTypeDefault TokenType = iota
	TokenTypeService
	TokenTypeBatch
	// TokenTypeDefaultService and TokenTypeDefaultBatch are mount settings that apply to TokenTypeDefault.
	TokenTypeDefaultService
	TokenTypeDefaultBatch
)

var tokenTypeNames = [...]string{"default", "service", "batch", "default-service", "default-batch"}

// NewTokenType is the inverse of String; an empty name means default.
func NewTokenType(s string) (TokenType, error) {
	name := strings.ReplaceAll(s, `"`, "")
	if name == "" {
		return TokenTypeDefault, nil
	}
	for i, known := range tokenTypeNames {
		if name == known {
			return TokenType(i), nil
		}
	}
	return TokenTypeDefault, fmt.Errorf("unknown token type %q", s)
}

func (t TokenType) String() string {
	if int(t) >= len(tokenTypeNames) {
		panic("unreachable")
	}
	return tokenTypeNames[t]
}

// UnmarshalJSON accepts the number and the name.
func (t *TokenType) UnmarshalJSON(b []byte) error {
	if len(b) == 1 {
		*t = TokenType(b[0] - '0')
		return nil
	}
	parsed, err := NewTokenType(string(b))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}
