// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"reflect"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func TestRegexHelpers(t *testing.T) {
	for got, want := range map[string]string{
		GenericNameRegex("n"):       `(?P<n>\w(([\w-.]+)?\w)?)`,
		GenericNameWithAtRegex("n"): `(?P<n>\w(([\w-.@]+)?\w)?)`,
		OptionalParamRegex("n"):     `(/(?P<n>.+))?`,
		MatchAllRegex("n"):          `(?P<n>.*)`,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestPathOperationProperties(t *testing.T) {
	op := &PathOperation{
		Callback:                    answer("x"),
		Summary:                     " s\n",
		Description:                 "\td ",
		Examples:                    []RequestExample{{Description: "e"}},
		Responses:                   map[int][]Response{200: {{Description: "OK"}}},
		Unpublished:                 true,
		Deprecated:                  true,
		ForwardPerformanceSecondary: true,
		ForwardPerformanceStandby:   true,
		DisplayAttrs:                &DisplayAttributes{Name: "n"},
	}
	want := OperationProperties{
		Summary:                     "s",
		Description:                 "d",
		Examples:                    op.Examples,
		Responses:                   op.Responses,
		Unpublished:                 true,
		Deprecated:                  true,
		ForwardPerformanceSecondary: true,
		ForwardPerformanceStandby:   true,
		DisplayAttrs:                op.DisplayAttrs,
	}
	if got := op.Properties(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if op.Handler() == nil {
		t.Error("no handler")
	}
	if (&PathOperation{ForwardPerformanceStandby: true}).Properties().ForwardPerformanceSecondary {
		t.Error("the forward flags are mixed up")
	}
}

func TestPathAppend(t *testing.T) {
	a, b, c := &Path{Pattern: "a"}, &Path{Pattern: "b"}, &Path{Pattern: "c"}
	if got := PathAppend([]*Path{a}, nil, []*Path{b, c}); !reflect.DeepEqual(got, []*Path{a, b, c}) {
		t.Errorf("got %v", got)
	}
}

// Code that relies on other constants than the first of each group being typed would not compile everywhere.
func TestOperationConstantsAreUntyped(t *testing.T) {
	read, update, renew := logical.ReadOperation, logical.UpdateOperation, logical.RenewOperation
	for _, op := range []interface{}{read, update, renew} {
		if _, ok := op.(string); !ok {
			t.Errorf("%v is a %T", op, op)
		}
	}
}
