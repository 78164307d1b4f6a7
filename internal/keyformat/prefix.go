// SPDX-License-Identifier: MPL-2.0

package keyformat

import "errors"

const (
	minPartLen   = 2
	maxPartLen   = 16
	minPrefixLen = minPartLen
	maxPrefixLen = 32
)

var errPrefixRule = errors.New("a prefix is one or more parts joined by _, each part a lower-case letter " +
	"followed by 1 to 15 lower-case letters or digits, at most 32 characters in all")

// ValidPrefix refuses what keys may not begin with; the error is the rule.
func ValidPrefix(s string) error {
	if !isPrefix(s) {
		return errPrefixRule
	}
	return nil
}

func isPrefix(s string) bool {
	if len(s) < minPrefixLen || len(s) > maxPrefixLen {
		return false
	}
	part := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9' && part > 0:
			part++
			if part > maxPartLen {
				return false
			}
		case c == separator && part >= minPartLen:
			part = 0
		default:
			return false
		}
	}
	return part >= minPartLen
}
