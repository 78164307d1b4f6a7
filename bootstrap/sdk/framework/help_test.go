// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func helpBackend(view logical.SystemView) *Backend {
	return &Backend{
		Help: "\nWhat it is.\n",
		Paths: []*Path{
			{Pattern: "z/?", HelpSynopsis: " List. "},
			{
				Pattern:         "a/" + MatchAllRegex("rest"),
				HelpSynopsis:    "One thing.",
				HelpDescription: "\nAll about it.\nIn two lines.\n",
				Fields: map[string]*FieldSchema{
					"rest": {Type: TypeString, Description: "What is left.\nReally."},
					"old":  {Type: TypeDurationSecond, Description: "Not now.", Deprecated: true},
					"bare": {Type: TypeCommaStringSlice},
				},
				Operations: reads(""),
			},
			{Pattern: "custom", Operations: handlers(map[logical.Operation]OperationFunc{logical.HelpOperation: answer("custom")})},
		},
		system: view,
	}
}

func help(t *testing.T, b *Backend, path string) (string, *OASDocument) {
	t.Helper()
	resp, err := handle(t, b, logical.HelpOperation, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if seeAlso, ok := resp.Data["see_also"].([]string); !ok || seeAlso != nil {
		t.Errorf("see_also is %#v", resp.Data["see_also"])
	}
	return resp.Data["help"].(string), resp.Data["openapi"].(*OASDocument)
}

func TestRootHelp(t *testing.T) {
	text, doc := help(t, helpBackend(nil), "")
	before, after, found := strings.Cut(text, "## PATHS\n\n")
	if want := "## DESCRIPTION\n\nWhat it is.\n\n"; !found || before != want {
		t.Errorf("starts with %q, want %q", before, want)
	}
	_, paths, _ := strings.Cut(after, "\n\n")
	want := `    ^a/(?P<rest>.*)$
        One thing.

    ^custom$


    ^z/?$
        List.`
	if paths != want {
		t.Errorf("got:\n%s\nwant:\n%s", paths, want)
	}
	if doc.Info.Version != "unknown" || len(doc.Paths) != 3 {
		t.Errorf("document is %+v", doc)
	}
}

func TestPathHelp(t *testing.T) {
	want := `Request:        a/b/c
Matching Route: ^a/(?P<rest>.*)$

One thing.

## PARAMETERS

    bare (slice)

        <no description>

    old (duration (sec))

        (DEPRECATED) Not now.

    rest (string)

        What is left.
        Really.

## DESCRIPTION

All about it.
In two lines.`
	text, doc := help(t, helpBackend(nil), "a/b/c")
	if text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
	if len(doc.Paths) != 1 || doc.Paths["/a/{rest}"] == nil {
		t.Errorf("document has %v", doc.Paths)
	}

	// There need not be any operation, nor text.
	want = `Request:        z
Matching Route: ^z/?$

List.


## DESCRIPTION

<no description>`
	if text, _ = help(t, helpBackend(nil), "z"); text != want {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
	text = (&Path{Pattern: "p"}).helpText("p")
	if !strings.Contains(text, "\n\n<no synopsis>\n\n") {
		t.Errorf("got:\n%s", text)
	}

	resp, err := handle(t, helpBackend(nil), logical.HelpOperation, "custom", nil)
	if err != nil || resp.Data["by"] != "custom" {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestHelpVersion(t *testing.T) {
	view := logical.StaticSystemView{PluginEnvironment: &logical.PluginEnvironment{VaultVersion: "9.8.7"}}
	for _, path := range []string{"", "z"} {
		if _, doc := help(t, helpBackend(view), path); doc.Info.Version != "9.8.7" {
			t.Errorf("%q: version is %q", path, doc.Info.Version)
		}
	}
	// A server that says nothing of itself breaks root help only.
	if _, doc := help(t, helpBackend(logical.StaticSystemView{}), "z"); doc.Info.Version != "unknown" {
		t.Errorf("version is %q", doc.Info.Version)
	}
	b := helpBackend(logical.StaticSystemView{})
	if !panics(func() {
		_, _ = b.HandleRequest(context.Background(), &logical.Request{Operation: logical.HelpOperation})
	}) {
		t.Error("no panic")
	}
}
