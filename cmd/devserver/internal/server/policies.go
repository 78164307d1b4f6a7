// SPDX-License-Identifier: MPL-2.0

package server

import (
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/cmd/devserver/internal/acl"
)

const (
	policyPrefix  = "core/policy/"
	defaultPolicy = "default"
)

// defaultRules is what every token may do unless it asked otherwise: look after itself.
const defaultRules = `# What a token may do for itself.
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self"  { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self"  { capabilities = ["update"] }
path "sys/internal/ui/mounts"   { capabilities = ["read"] }
path "sys/internal/ui/mounts/*" { capabilities = ["read"] }
path "sys/internal/ui/resultant-acl" { capabilities = ["read"] }
path "sys/renew"         { capabilities = ["update"] }
path "sys/leases/renew"  { capabilities = ["update"] }
path "sys/leases/lookup" { capabilities = ["update"] }
path "sys/wrapping/wrap"   { capabilities = ["update"] }
path "sys/wrapping/lookup" { capabilities = ["update"] }
path "sys/wrapping/unwrap" { capabilities = ["update"] }
`

func (s *Server) writeDefaultPolicy() error {
	if _, found, err := s.policy(defaultPolicy); err != nil || found {
		return err
	}
	return s.cfg.Store.Apply(put(policyPrefix+defaultPolicy, defaultRules))
}

func (s *Server) policy(name string) (string, bool, error) {
	var text string
	found, err := s.load(policyPrefix+name, &text)
	return text, found, err
}

func (s *Server) writePolicy(name, text string) error {
	if _, err := acl.Parse(text); err != nil {
		return badRequest("%v", err)
	}
	defer s.forgetACLs()
	return s.cfg.Store.Apply(put(policyPrefix+name, text))
}

func (s *Server) deletePolicy(name string) error {
	defer s.forgetACLs()
	return s.cfg.Store.Apply(del(policyPrefix + name))
}

func (s *Server) forgetACLs() {
	s.aclMu.Lock()
	defer s.aclMu.Unlock()
	clear(s.aclCache)
}

// aclOf joins the policies of a token. A policy that does not exist permits nothing.
func (s *Server) aclOf(t *token) (*acl.ACL, error) {
	if t.root() {
		return acl.Root(), nil
	}
	key := strings.Join(t.Policies, "\n")
	s.aclMu.Lock()
	defer s.aclMu.Unlock()
	if a, ok := s.aclCache[key]; ok {
		return a, nil
	}
	var rules [][]acl.Rule
	for _, name := range t.Policies {
		text, found, err := s.policy(name)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		parsed, err := acl.Parse(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, parsed)
	}
	a := acl.New(rules...)
	s.aclCache[key] = a
	return a, nil
}

// cleanPolicies brings a list of policy names to the form in which a token carries it.
func cleanPolicies(names []string, withDefault bool) []string {
	out := make([]string, 0, len(names)+1)
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSpace(n)); n != "" {
			out = append(out, n)
		}
	}
	if withDefault && !slices.Contains(out, rootPolicy) {
		out = append(out, defaultPolicy)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
