// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"maps"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/policy"
)

// fieldKind is what a field of a request is, and the Go type in which handlers
// get its value.
type fieldKind uint8

const (
	kindText     fieldKind = iota // string
	kindInstant                   // string: a time, or a duration from now
	kindTime                      // time.Time: an instant, written as RFC 3339 has it
	kindSwitch                    // bool
	kindInteger                   // int64, at most 2^53 either way
	kindSequence                  // the same, documented as 64 bits
	kindNumber                    // float64
	kindDuration                  // int, whole seconds
	kindList                      // []string
	kindMap                       // map[string]string; in a patch map[string]any, where nil removes a name
	kindObjects                   // []any
	kindCounts                    // map[string]int64
)

// emptyRule is what the empty value of a field does. An empty text is what an
// unset shell variable leaves, so it is refused unless the field says otherwise.
type emptyRule uint8

const (
	emptyRefused emptyRule = iota // "" is refused; an empty list or map is one
	emptyNever                    // an empty list or map is refused, too: the field selects or requires
	emptyTaken                    // "" is a value: it clears, or means none
)

// freeText is how text that people write is held.
type freeText struct {
	limit   int  // characters
	lines   bool // newlines and tabs are text
	cleaned bool // what is wrong with it is mended and told, never refused
	// raw: the handler cleans it, after it has cut out the keys that the request is
	// about. A key that was cleaned or cut would not be known for one.
	raw bool
}

// field is one field of a request, by which a path declares it and the reader
// reads it.
type field struct {
	kind     fieldKind
	about    string // its documentation
	def      any    // what it is where it is not given
	choices  []string
	required bool // documented as such; the handler decides
	secret   bool // its value may be a key: it is taken exactly as given, and never shown
	empty    emptyRule
	free     *freeText

	// Where it may stand: in the body unless query says that it is a query
	// parameter of reads and lists; asRead is a body's field that a read takes, too.
	query, asRead bool
}

// fieldSet is the fields of a path, or of an item of its batch.
type fieldSet map[string]field

// fieldsOf joins sets of fields.
func fieldsOf(sets ...fieldSet) fieldSet {
	all := fieldSet{}
	for _, set := range sets {
		maps.Copy(all, set)
	}
	return all
}

var fieldTypes = map[fieldKind]framework.FieldType{
	kindText: framework.TypeString, kindInstant: framework.TypeString, kindTime: framework.TypeTime, kindSwitch: framework.TypeBool, kindInteger: framework.TypeInt, kindSequence: framework.TypeInt64,
	kindNumber: framework.TypeFloat, kindDuration: framework.TypeDurationSecond, kindList: framework.TypeCommaStringSlice,
	kindMap: framework.TypeKVPairs, kindObjects: framework.TypeSlice,
}

// schemas is how the framework documents the fields. It converts nothing: what
// reaches it was read.
func (s fieldSet) schemas() map[string]*framework.FieldSchema {
	all := make(map[string]*framework.FieldSchema, len(s))
	for name, f := range s {
		schema := &framework.FieldSchema{
			Type: fieldTypes[f.kind], Description: f.about, Default: f.def, Required: f.required, Query: f.query,
		}
		for _, c := range f.choices {
			schema.AllowedValues = append(schema.AllowedValues, c)
		}
		if f.secret {
			schema.DisplayAttrs = &framework.DisplayAttributes{Sensitive: true}
		}
		all[name] = schema
	}
	return all
}

// policyRequestFields are the fields of a role's policy.
func policyRequestFields() fieldSet {
	kinds := map[policy.Kind]fieldKind{
		policy.Text: kindText, policy.Choice: kindText, policy.List: kindList, policy.Map: kindMap,
		policy.Switch: kindSwitch, policy.Duration: kindDuration, policy.Number: kindNumber,
	}
	all := fieldSet{}
	for i := range policy.Fields {
		f := &policy.Fields[i]
		rule := emptyRefused
		if f.Clears || f.Blank {
			rule = emptyTaken
		}
		all[f.Name] = field{kind: kinds[f.Kind], about: f.About, def: f.Default, choices: f.Choices, empty: rule}
	}
	return all
}

// codeField is the reason code of what ends keys.
func codeField(about string) field {
	f := field{kind: kindText, about: about}
	for _, code := range keyring.Codes {
		f.choices = append(f.choices, string(code))
	}
	return f
}

// reasonField is why something is done. What closes is never refused for it.
func reasonField(about string, closes bool) field {
	return field{
		kind: kindText, about: about + " At most 512 characters.", empty: emptyTaken,
		free: &freeText{limit: maxReason, lines: true, cleaned: closes},
	}
}
