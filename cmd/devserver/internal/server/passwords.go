// SPDX-License-Identifier: MPL-2.0

package server

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"strings"

	"github.com/hashicorp/hcl"
)

const passwordPrefix = "core/password-policy/"

type passwordPolicy struct {
	Length int
	Rules  []charsetRule
}

type charsetRule struct {
	Charset  string `hcl:"charset"`
	MinChars int    `hcl:"min-chars"`
}

// parsePasswordPolicy reads `length = n` and `rule "charset" { charset = "...", min-chars = n }`.
func parsePasswordPolicy(text string) (*passwordPolicy, error) {
	var raw struct {
		Length int                        `hcl:"length"`
		Rules  []map[string][]charsetRule `hcl:"rule"`
	}
	if err := hcl.Decode(&raw, text); err != nil {
		return nil, fmt.Errorf("failed to parse password policy: %w", err)
	}
	p := &passwordPolicy{Length: raw.Length}
	needed := 0
	for _, byKind := range raw.Rules {
		for kind, rules := range byKind {
			if kind != "charset" {
				return nil, fmt.Errorf("unrecognized rule type %q", kind)
			}
			for _, r := range rules {
				if r.Charset == "" {
					return nil, fmt.Errorf("a charset rule has no charset")
				}
				needed += r.MinChars
				p.Rules = append(p.Rules, r)
			}
		}
	}
	switch {
	case p.Length < 4 || p.Length > 1000:
		return nil, fmt.Errorf("length must be between 4 and 1000")
	case len(p.Rules) == 0:
		return nil, fmt.Errorf("no charset specified")
	case needed > p.Length:
		return nil, fmt.Errorf("length is shorter than the characters that its rules require")
	}
	return p, nil
}

// generate draws the required characters of each rule and the rest from all, and shuffles.
func (p *passwordPolicy) generate() (string, error) {
	var all strings.Builder
	var out []rune
	for _, r := range p.Rules {
		all.WriteString(r.Charset)
		for range r.MinChars {
			c, err := pick([]rune(r.Charset))
			if err != nil {
				return "", err
			}
			out = append(out, c)
		}
	}
	charset := []rune(all.String())
	for len(out) < p.Length {
		c, err := pick(charset)
		if err != nil {
			return "", err
		}
		out = append(out, c)
	}
	for i := len(out) - 1; i > 0; i-- {
		j, err := below(i + 1)
		if err != nil {
			return "", err
		}
		out[i], out[j] = out[j], out[i]
	}
	return string(out), nil
}

func pick(charset []rune) (rune, error) {
	i, err := below(len(charset))
	if err != nil {
		return 0, err
	}
	return charset[i], nil
}

func below(n int) (int, error) {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		return 0, fmt.Errorf("draw random number: %w", err)
	}
	return int(i.Int64()), nil
}

func (s *Server) generatePassword(name string) (string, error) {
	var text string
	found, err := s.load(passwordPrefix+name, &text)
	if err != nil {
		return "", err
	}
	if !found {
		return "", badRequest("policy does not exist")
	}
	p, err := parsePasswordPolicy(text)
	if err != nil {
		return "", err
	}
	return p.generate()
}
