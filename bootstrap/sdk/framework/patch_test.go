// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"errors"
	"testing"
)

func TestHandlePatchOperation(t *testing.T) {
	type m = map[string]interface{}
	schema := map[string]*FieldSchema{
		"s": {Type: TypeString, Default: "default"},
		"n": {Type: TypeInt},
		"m": {Type: TypeMap},
		"d": {Type: TypeDurationSecond},
		"l": {Type: TypeCommaStringSlice},
		"a": {Type: TypeSlice},
	}
	resource := func() m {
		return m{"s": "old", "n": 1, "d": 60, "big": int64(9007199254740993), "m": m{"x": 1, "y": m{"z": "q"}}}
	}
	for name, c := range map[string]struct {
		in   m
		pre  PatchPreprocessorFunc
		want string
	}{
		"nothing":           {m{}, nil, `{"big":9007199254740993,"d":60,"m":{"x":1,"y":{"z":"q"}},"n":1,"s":"old"}`},
		"many unknown":      {m{"o1": 1, "o2": 2, "o3": 3, "o4": 4, "o5": 5, "o6": 6, "o7": 7, "s": "old", "n": 7, "d": 8}, nil, `{"big":9007199254740993,"d":8,"m":{"x":1,"y":{"z":"q"}},"n":7,"s":"old"}`},
		"unknown":           {m{"other": 1}, nil, `{"big":9007199254740993,"d":60,"m":{"x":1,"y":{"z":"q"}},"n":1,"s":"old"}`},
		"converted":         {m{"s": 5, "n": "2", "d": "1h", "l": "p, q"}, nil, `{"big":9007199254740993,"d":3600,"l":["p","q"],"m":{"x":1,"y":{"z":"q"}},"n":2,"s":"5"}`},
		"null of scalars":   {m{"s": nil, "n": nil, "d": nil}, nil, `{"big":9007199254740993,"d":60,"m":{"x":1,"y":{"z":"q"}},"n":0,"s":""}`},
		"null of a map":     {m{"m": nil}, nil, `{"big":9007199254740993,"d":60,"n":1,"s":"old"}`},
		"merged map":        {m{"m": m{"x": nil, "y": m{"w": 1}, "v": m{"k": nil, "i": 2}}}, nil, `{"big":9007199254740993,"d":60,"m":{"v":{"i":2},"y":{"w":1,"z":"q"}},"n":1,"s":"old"}`},
		"map over scalar":   {m{"m": m{"x": m{"k": nil, "i": 2}, "y": 3}}, nil, `{"big":9007199254740993,"d":60,"m":{"x":{"i":2},"y":3},"n":1,"s":"old"}`},
		"list replaced":     {m{"a": []interface{}{nil, m{"k": nil}}}, nil, `{"a":[null,{}],"big":9007199254740993,"d":60,"m":{"x":1,"y":{"z":"q"}},"n":1,"s":"old"}`},
		"preprocessed":      {m{"s": "new"}, func(in m) (m, error) { return m{"seen": in["s"], "s": nil, "n": nil}, nil }, `{"big":9007199254740993,"d":60,"m":{"x":1,"y":{"z":"q"}},"seen":"new"}`},
		"preprocessed away": {m{"s": "new"}, func(m) (m, error) { return m{}, nil }, `{"big":9007199254740993,"d":60,"m":{"x":1,"y":{"z":"q"}},"n":1,"s":"old"}`},
	} {
		got, err := HandlePatchOperation(&FieldData{Raw: c.in, Schema: schema}, resource(), c.pre)
		if err != nil || string(got) != c.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", name, got, err, c.want)
		}
	}

	if _, err := HandlePatchOperation(&FieldData{}, nil, nil); err == nil || err.Error() != "resource does not exist" {
		t.Errorf("patched nothing: %v", err)
	}
	if got, err := HandlePatchOperation(&FieldData{Raw: m{"s": "x"}, Schema: schema}, m{}, nil); err != nil || string(got) != `{"s":"x"}` {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := HandlePatchOperation(&FieldData{Raw: m{"n": "x"}, Schema: schema}, m{}, nil); err == nil {
		t.Error("patched with a wrong value")
	}
	failure := errors.New("failed")
	if _, err := HandlePatchOperation(&FieldData{}, m{}, func(m) (m, error) { return nil, failure }); !errors.Is(err, failure) {
		t.Errorf("error is %v", err)
	}
	notJSON := func(m) (m, error) { return m{"f": func() {}}, nil }
	if _, err := HandlePatchOperation(&FieldData{}, m{"f": func() {}}, nil); err == nil {
		t.Error("patched what is not JSON")
	}
	if _, err := HandlePatchOperation(&FieldData{}, m{}, notJSON); err == nil {
		t.Error("patched with what is not JSON")
	}
}

func TestPatchLeavesTheResourceAlone(t *testing.T) {
	inner := map[string]interface{}{"x": 1}
	_, err := HandlePatchOperation(&FieldData{
		Raw:    map[string]interface{}{"m": map[string]interface{}{"x": nil}},
		Schema: map[string]*FieldSchema{"m": {Type: TypeMap}},
	}, map[string]interface{}{"m": inner}, nil)
	if err != nil || inner["x"] != 1 {
		t.Errorf("the caller's map became %v, %v", inner, err)
	}
}
