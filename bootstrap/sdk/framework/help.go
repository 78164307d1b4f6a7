// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

const rootHelpPaths = `## PATHS

These are the paths that this backend answers. Ask for help on any route
that matches one of them to learn more about it. What your token may
do there is for its policies to say.`

// handleRootHelp describes the whole backend.
func (b *Backend) handleRootHelp(req *logical.Request) (*logical.Response, error) {
	synopses := make(map[string]string, len(b.Paths))
	patterns := make([]string, len(b.Paths))
	for i, p := range b.Paths {
		patterns[i] = p.Pattern
		synopses[p.Pattern] = strings.TrimSpace(p.HelpSynopsis)
	}
	slices.Sort(patterns)

	var text strings.Builder
	fmt.Fprintf(&text, "## DESCRIPTION\n\n%s\n\n%s\n\n", strings.TrimSpace(b.Help), rootHelpPaths)
	for _, pattern := range patterns {
		fmt.Fprintf(&text, "%s\n%s\n\n", indent(4, pattern), indent(8, synopses[pattern]))
	}

	version := "unknown"
	if system := b.System(); system != nil {
		env, err := system.PluginEnv(context.Background())
		if err != nil {
			return nil, err
		}
		// Every server fills it in.
		version = env.VaultVersion
	}
	doc := NewOASDocument(version)
	documentPaths(b, req.GetString("requestResponsePrefix"), doc)
	return logical.HelpResponse(strings.TrimSpace(text.String()), nil, doc), nil
}

// help describes one path.
func (p *Path) help(b *Backend) OperationFunc {
	return func(_ context.Context, req *logical.Request, _ *FieldData) (*logical.Response, error) {
		version := "unknown"
		if system := b.System(); system != nil {
			env, err := system.PluginEnv(context.Background())
			if err != nil {
				return nil, err
			}
			if env != nil {
				version = env.VaultVersion
			}
		}
		doc := NewOASDocument(version)
		documentPath(p, b.SpecialPaths(), req.GetString("requestResponsePrefix"), b.BackendType, doc)
		return logical.HelpResponse(p.helpText(req.Path), nil, doc), nil
	}
}

func (p *Path) helpText(requested string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "Request:        %s\n", requested)
	fmt.Fprintf(&text, "Matching Route: %s\n\n", p.Pattern)
	fmt.Fprintf(&text, "%s\n\n", orElse(p.HelpSynopsis, "<no synopsis>"))

	if len(p.Fields) > 0 {
		text.WriteString("## PARAMETERS\n")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Fields)) {
		schema := p.Fields[name]
		description := orElse(schema.Description, "<no description>")
		if schema.Deprecated {
			description = "(DEPRECATED) " + description
		}
		fmt.Fprintf(&text, "\n%s (%s)\n\n%s\n", indent(4, name), schema.Type, indent(8, description))
	}

	fmt.Fprintf(&text, "\n## DESCRIPTION\n\n%s", orElse(p.HelpDescription, "<no description>"))
	return strings.TrimSpace(text.String())
}

func orElse(text, instead string) string {
	if text = strings.TrimSpace(text); text != "" {
		return text
	}
	return instead
}

func indent(count int, text string) string {
	if text == "" {
		return ""
	}
	prefix := strings.Repeat(" ", count)
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = prefix + lines[i]
	}
	return strings.Join(lines, "\n")
}
