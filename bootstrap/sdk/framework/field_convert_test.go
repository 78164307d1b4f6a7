// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// refused is the wish for an error.
type refused struct{}

// notSet is the wish for a value that counts as absent.
type notSet struct{}

func TestFieldConversions(t *testing.T) {
	type m = map[string]interface{}
	type list = []interface{}
	epoch := time.Unix(1700000000, 0).UTC()
	header := http.Header{"A": {"b"}}

	for _, c := range []struct {
		t    FieldType
		in   interface{}
		want interface{}
	}{
		{TypeString, "x", "x"},
		{TypeString, " x ", " x "},
		{TypeString, 42, "42"},
		{TypeString, 1.5, "1.5"},
		{TypeString, true, "1"},
		{TypeString, false, "0"},
		{TypeString, json.Number("42"), "42"},
		{TypeString, nil, ""},
		{TypeString, list{"x"}, refused{}},
		{TypeString, m{"x": 1}, refused{}},

		{TypeLowerCaseString, "ÄbC", "äbc"},
		{TypeLowerCaseString, m{"x": 1}, refused{}},

		{TypeNameString, "a", "a"},
		{TypeNameString, "a.b-c_1", "a.b-c_1"},
		{TypeNameString, 7, "7"},
		{TypeNameString, "", refused{}},
		{TypeNameString, nil, refused{}},
		{TypeNameString, "-a", refused{}},
		{TypeNameString, "a.", refused{}},
		{TypeNameString, "a b", refused{}},
		{TypeNameString, "a/b", refused{}},
		{TypeNameString, "a\n", refused{}},
		{TypeNameString, m{}, refused{}},

		{TypeInt, 3, 3},
		{TypeInt, 3.9, 3},
		{TypeInt, "12", 12},
		{TypeInt, "", 0},
		{TypeInt, true, 1},
		{TypeInt, json.Number("9"), 9},
		{TypeInt, nil, 0},
		{TypeInt, "1h", refused{}},
		{TypeInt, "1.5", refused{}},
		{TypeInt, json.Number("1.5"), refused{}},
		{TypeInt, list{1}, refused{}},

		{TypeInt64, 3.0, int64(3)},
		{TypeInt64, "9007199254740993", int64(9007199254740993)},
		{TypeInt64, nil, int64(0)},
		{TypeInt64, "x", refused{}},

		{TypeFloat, 1.5, 1.5},
		{TypeFloat, "1.5", 1.5},
		{TypeFloat, 2, 2.0},
		{TypeFloat, "", 0.0},
		{TypeFloat, json.Number("4.5"), 4.5},
		{TypeFloat, "x", refused{}},

		{TypeBool, true, true},
		{TypeBool, "true", true},
		{TypeBool, "1", true},
		{TypeBool, "t", true},
		{TypeBool, "f", false},
		{TypeBool, "", false},
		{TypeBool, 2, true},
		{TypeBool, 0.0, false},
		{TypeBool, nil, false},
		{TypeBool, "yes", refused{}},

		{TypeMap, m{"a": 1}, m{"a": 1}},
		{TypeMap, map[string]string{"a": "b"}, m{"a": "b"}},
		{TypeMap, nil, m(nil)},
		{TypeMap, `{"a":1}`, refused{}},
		{TypeMap, "", refused{}},

		{TypeKVPairs, m{"a": 1, "b": "c"}, map[string]string{"a": "1", "b": "c"}},
		{TypeKVPairs, "a=b", map[string]string{"a": "b"}},
		{TypeKVPairs, list{"a=b", "c=d=e", "f="}, map[string]string{"a": "b", "c": "d=e", "f": ""}},
		{TypeKVPairs, "ab", refused{}},
		{TypeKVPairs, "=b", refused{}},
		{TypeKVPairs, list{"a=b", "c"}, refused{}},

		{TypeDurationSecond, 90, 90},
		{TypeDurationSecond, 90.9, 90},
		{TypeDurationSecond, "90", 90},
		{TypeDurationSecond, "42m", 2520},
		{TypeDurationSecond, "24h", 86400},
		{TypeDurationSecond, "7d", 604800},
		{TypeDurationSecond, "", 0},
		{TypeDurationSecond, json.Number("90"), 90},
		{TypeDurationSecond, time.Minute, 60},
		{TypeDurationSecond, nil, notSet{}},
		{TypeDurationSecond, -1, refused{}},
		{TypeDurationSecond, "-1s", refused{}},
		{TypeDurationSecond, "1w", refused{}},
		{TypeDurationSecond, true, refused{}},
		{TypeDurationSecond, list{}, refused{}},

		{TypeSignedDurationSecond, "-1m", -60},
		{TypeSignedDurationSecond, 5, 5},
		{TypeSignedDurationSecond, nil, notSet{}},
		{TypeSignedDurationSecond, "x", refused{}},

		{TypeSlice, list{1, "a"}, list{1, "a"}},
		{TypeSlice, "a,b", list{"a,b"}},
		{TypeSlice, list{}, list{}},
		{TypeSlice, nil, list{}},

		{TypeStringSlice, "a,b", []string{"a,b"}},
		{TypeStringSlice, "", []string{}},
		{TypeStringSlice, list{" a ", 2}, []string{"a", "2"}},
		{TypeStringSlice, nil, []string{}},
		{TypeStringSlice, list{list{"a"}}, refused{}},

		{TypeCommaStringSlice, "a, b ,c", []string{"a", "b", "c"}},
		{TypeCommaStringSlice, "", []string{}},
		{TypeCommaStringSlice, list{" a ", "b,c"}, []string{"a", "b,c"}},
		{TypeCommaStringSlice, json.Number("1"), []string{"1"}},
		{TypeCommaStringSlice, nil, []string{}},
		{TypeCommaStringSlice, list{m{"a": 1}}, refused{}},

		{TypeCommaIntSlice, "1,2,3", []int{1, 2, 3}},
		{TypeCommaIntSlice, 4, []int{4}},
		{TypeCommaIntSlice, json.Number("5"), []int{5}},
		{TypeCommaIntSlice, list{1, "2", 3.0, json.Number("4")}, []int{1, 2, 3, 4}},
		{TypeCommaIntSlice, "", []int{}},
		{TypeCommaIntSlice, nil, []int{}},
		{TypeCommaIntSlice, "1,x", refused{}},

		{TypeHeader, m{"a": "b"}, header},
		{TypeHeader, m{"a": list{"b", json.Number("1")}, "c": json.Number("2"), "d e": []string{"f"}}, http.Header{"A": {"b", "1"}, "C": {"2"}, "d e": {"f"}}},
		{TypeHeader, `{"a":"b"}`, header},
		{TypeHeader, base64.StdEncoding.EncodeToString([]byte(`{"a":["b"]}`)), header},
		{TypeHeader, list{"a:b"}, header},
		{TypeHeader, list{"content-type:a:b"}, http.Header{"Content-Type": {"a:b"}}},
		{TypeHeader, nil, http.Header{}},
		{TypeHeader, m{"a": list{true}}, refused{}},
		{TypeHeader, m{"a": 1}, refused{}},
		{TypeHeader, "x", refused{}},
		{TypeHeader, list{"ab"}, refused{}},
		{TypeHeader, list{":b"}, refused{}},
		{TypeHeader, list{1}, refused{}},

		{TypeTime, "2023-11-14T22:13:20Z", epoch},
		{TypeTime, "2023-11-14T23:13:20+01:00", epoch},
		{TypeTime, "2023-11-14T22:13:20.5Z", epoch.Add(500 * time.Millisecond)},
		{TypeTime, 1700000000, epoch},
		{TypeTime, "1700000000", epoch},
		{TypeTime, json.Number("1700000000"), epoch},
		{TypeTime, nil, notSet{}},
		{TypeTime, "yesterday", refused{}},

		{TypeInvalid, "x", refused{}},
		{TypeTime + 1, "x", refused{}},
	} {
		data := &FieldData{Raw: m{"f": c.in}, Schema: map[string]*FieldSchema{"f": {Type: c.t}}}
		got, set, err := data.GetOkErr("f")
		invalid := data.Validate()

		switch c.want.(type) {
		case refused:
			if err == nil || set || got != nil || invalid == nil {
				t.Errorf("%s of %#v: got %#v, %v, %v, valid: %v; want it refused", c.t, c.in, got, set, err, invalid)
			}
			if !panics(func() { data.Get("f") }) {
				t.Errorf("%s of %#v: Get did not panic", c.t, c.in)
			}
		case notSet:
			if err != nil || set || got != nil || invalid != nil {
				t.Errorf("%s of %#v: got %#v, %v, %v, valid: %v; want it not set", c.t, c.in, got, set, err, invalid)
			}
			if got := data.Get("f"); !reflect.DeepEqual(got, c.t.Zero()) {
				t.Errorf("%s of %#v: Get gives %#v, want the zero value", c.t, c.in, got)
			}
		default:
			if err != nil || !set || invalid != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s of %#v: got %#v, %v, %v, valid: %v; want %#v", c.t, c.in, got, set, err, invalid, c.want)
			}
			if got := data.Get("f"); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s of %#v: Get gives %#v, want %#v", c.t, c.in, got, c.want)
			}
		}
	}
}

func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

func TestConversionErrorsKeepTheValueToThemselves(t *testing.T) {
	const value = "hunter2-hunter2"
	for _, ft := range []FieldType{TypeInt, TypeInt64, TypeBool, TypeFloat, TypeMap, TypeNameString} {
		data := &FieldData{
			Raw:    map[string]interface{}{"f": value + "!"},
			Schema: map[string]*FieldSchema{"f": {Type: ft}},
		}
		err := data.Validate()
		if err == nil || strings.Contains(err.Error(), value) {
			t.Errorf("%s: error is %v", ft, err)
		}
	}
}

func TestFieldErrorTexts(t *testing.T) {
	for _, c := range []struct {
		t    FieldType
		in   interface{}
		want string
	}{
		{TypeDurationSecond, -5, `error converting input for field "f": cannot provide negative value '-5'`},
		{TypeNameString, "-", `error converting input for field "f": field does not match the formatting rules`},
		{TypeKVPairs, "x", `error converting input for field "f": invalid key pair "x"`},
	} {
		data := &FieldData{Raw: map[string]interface{}{"f": c.in}, Schema: map[string]*FieldSchema{"f": {Type: c.t}}}
		if err := data.Validate(); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.t, err, c.want)
		}
	}
}

func TestFieldTypeNamesAndZeros(t *testing.T) {
	for i, want := range []struct {
		name string
		zero interface{}
	}{
		1:                        {"string", ""},
		TypeInt:                  {"int", 0},
		TypeInt64:                {"int64", int64(0)},
		TypeBool:                 {"bool", false},
		TypeMap:                  {"map", map[string]interface{}{}},
		TypeDurationSecond:       {"duration (sec)", 0},
		TypeSignedDurationSecond: {"duration (sec)", 0},
		TypeSlice:                {"slice", []interface{}{}},
		TypeStringSlice:          {"slice", []string{}},
		TypeCommaStringSlice:     {"slice", []string{}},
		TypeLowerCaseString:      {"lowercase string", ""},
		TypeNameString:           {"name string", ""},
		TypeKVPairs:              {"keypair", map[string]string{}},
		TypeCommaIntSlice:        {"slice", []int{}},
		TypeHeader:               {"header", http.Header{}},
		TypeFloat:                {"float", 0.0},
		17:                       {"time", time.Time{}},
	} {
		ft := FieldType(i)
		if i == 0 {
			if ft.String() != "unknown type" || !panics(func() { ft.Zero() }) {
				t.Error("the invalid type has a name or a zero value")
			}
			continue
		}
		if ft.String() != want.name || !reflect.DeepEqual(ft.Zero(), want.zero) {
			t.Errorf("type %d is %q with zero %#v, want %q with %#v", i, ft, ft.Zero(), want.name, want.zero)
		}
	}
}

func TestFieldDefaults(t *testing.T) {
	for _, c := range []struct {
		t    FieldType
		def  interface{}
		want interface{}
	}{
		{TypeString, nil, ""},
		{TypeString, "d", "d"},
		{TypeLowerCaseString, "D", "D"},
		{TypeInt, "5", "5"},
		{TypeDurationSecond, "1h", 3600},
		{TypeDurationSecond, time.Hour, 3600},
		{TypeDurationSecond, "soon", 0},
		{TypeSignedDurationSecond, "-1h", -3600},
		{TypeTime, nil, time.Time{}},
	} {
		for _, raw := range []map[string]interface{}{nil, {}} {
			data := &FieldData{Raw: raw, Schema: map[string]*FieldSchema{"f": {Type: c.t, Default: c.def}}}
			if got := data.Get("f"); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s with default %v: got %#v, want %#v", c.t, c.def, got, c.want)
			}
			if got := data.GetDefaultOrZero("f"); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s with default %v: GetDefaultOrZero gives %#v, want %#v", c.t, c.def, got, c.want)
			}
			if got, ok := data.GetOk("f"); ok || got != nil {
				t.Errorf("%s with default %v: GetOk gives %#v, %v", c.t, c.def, got, ok)
			}
		}
	}
}

func TestExplicitNullIsNoDefaultExceptForDurations(t *testing.T) {
	data := &FieldData{
		Raw: map[string]interface{}{"s": nil, "d": nil},
		Schema: map[string]*FieldSchema{
			"s": {Type: TypeString, Default: "x"},
			"d": {Type: TypeDurationSecond, Default: 60},
		},
	}
	if got, ok := data.GetOk("s"); got != "" || !ok {
		t.Errorf("string: %#v, %v", got, ok)
	}
	if got := data.Get("s"); got != "" {
		t.Errorf("string: %#v", got)
	}
	if got, ok := data.GetOk("d"); got != nil || ok {
		t.Errorf("duration: %#v, %v", got, ok)
	}
	if got := data.Get("d"); got != 60 {
		t.Errorf("duration: %#v", got)
	}
}

func TestFieldDataUnknownField(t *testing.T) {
	data := &FieldData{
		Raw:    map[string]interface{}{"x": 1, "b": "v"},
		Schema: map[string]*FieldSchema{"a": {Type: TypeString}, "b": {Type: TypeString}},
	}
	if !panics(func() { data.Get("x") }) || !panics(func() { data.GetDefaultOrZero("x") }) {
		t.Error("no panic")
	}
	if got, ok := data.GetOk("x"); got != nil || ok {
		t.Errorf("GetOk: %v, %v", got, ok)
	}
	if got, ok, err := data.GetOkErr("x"); got != nil || ok || err == nil {
		t.Errorf("GetOkErr: %v, %v, %v", got, ok, err)
	}
	if got, ok := data.GetFirst("x", "a", "b"); got != "v" || !ok {
		t.Errorf("GetFirst: %v, %v", got, ok)
	}
	if got, ok := data.GetFirst("x", "a"); got != nil || ok {
		t.Errorf("GetFirst: %v, %v", got, ok)
	}
	if err := data.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
}

func TestValidateStrict(t *testing.T) {
	schema := map[string]*FieldSchema{"a": {Type: TypeInt, Required: true}, "b": {Type: TypeInt}}
	for _, c := range []struct {
		schema map[string]*FieldSchema
		raw    map[string]interface{}
		want   error
	}{
		{nil, map[string]interface{}{"z": 1}, nil},
		{schema, map[string]interface{}{"a": 1}, nil},
		{schema, map[string]interface{}{"a": 1, "b": 2}, nil},
		{schema, map[string]interface{}{"b": 2}, errors.New(`missing required field "a"`)},
		{schema, map[string]interface{}{"a": 1, "z": 2}, errors.New(`field "z": unknown field: "z"`)},
	} {
		err := (&FieldData{Raw: c.raw, Schema: c.schema}).ValidateStrict()
		if (err == nil) != (c.want == nil) || (err != nil && err.Error() != c.want.Error()) {
			t.Errorf("%v: got %v, want %v", c.raw, err, c.want)
		}
	}
	if err := (&FieldData{Raw: map[string]interface{}{"a": "x"}, Schema: schema}).ValidateStrict(); err == nil {
		t.Error("a value of the wrong type passes")
	}
}
