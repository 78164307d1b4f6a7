// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func (b *backend) pathsKeyFormat() []*framework.Path {
	return []*framework.Path{b.path(pathSpec{
		pattern: "key-format", suffix: "key-format",
		synopsis: "What keys look like, for those who search for them.",
		ops: map[logical.Operation]operation{
			logical.ReadOperation: {
				do: b.keyFormat, told: "The form of keys.",
				answer: map[string]*framework.FieldSchema{
					"prefixes": {Type: framework.TypeStringSlice, Description: "Every prefix that a role or an imported key has or had, sorted. Those of ended keys stay as long as there is room.", Required: true},
					"complete": {Type: framework.TypeBool, Description: "False if roles, or imported keys, have more than 1000 prefixes; of each 1000 are listed. tidy makes room.", Required: true},
					"patterns": {Type: framework.TypeMap, Description: "By prefix: the regular expression (RE2) whose first group is the key.", Required: true},
					"checksum": {Type: framework.TypeString, Description: "How what was found is told apart from a key, offline.", Required: true},
					"gitleaks": {Type: framework.TypeString, Description: "Rules for gitleaks (TOML), one for each prefix: a configuration of their own, or to be added to one.", Required: true},
				},
			},
		},
		help: `
For each prefix that a role of this mount ever had: a regular expression, and a
rule for gitleaks. What they find is a key if its checksum is right, which can be
computed without asking anybody.

Keys that were made elsewhere and imported have a form of their own and are found
by none of these; nor are keys of this engine's form that were imported by digest,
unless a role has their prefix.`,
	})}
}

func (b *backend) keyFormat(ctx context.Context, req *logical.Request, _ *input) (*logical.Response, error) {
	rec, err := b.knownPrefixes(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	prefixes := rec.all()
	patterns := make(map[string]any, len(prefixes))
	rules := make([]string, len(prefixes))
	for i, prefix := range prefixes {
		patterns[prefix] = keyformat.Pattern(prefix)
		rules[i] = keyformat.GitleaksRule(prefix)
	}
	return answer(map[string]any{
		"prefixes": orEmpty(prefixes),
		"complete": rec.complete(),
		"patterns": patterns,
		"checksum": keyformat.ChecksumRule,
		"gitleaks": strings.Join(rules, "\n"),
	}), nil
}
