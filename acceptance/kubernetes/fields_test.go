// SPDX-License-Identifier: MPL-2.0

package kubernetes_test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// field is what a custom resource's definition says about one field.
type field struct {
	kind     string
	required bool
	enum     []string
	pattern  *regexp.Regexp
	// bounds of a number, of a text's length, or of how many fields an object has
	least, most *int
}

// fieldList has the fields of one kind of object by their path, as `spec.params{}`.
type fieldList map[string]field

// readFields are the lists of testdata, by `group/version Kind`.
func readFields(t *testing.T) map[string]fieldList {
	t.Helper()
	file, err := os.Open("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lists := map[string]fieldList{}
	var list fieldList
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		switch words := strings.Fields(line); {
		case len(words) == 0 || words[0] == "#":
		case !strings.HasPrefix(line, "spec"):
			list = fieldList{}
			lists[line] = list
		default:
			list[words[0]] = readField(t, line, words[1:])
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return lists
}

func readField(t *testing.T, line string, words []string) field {
	t.Helper()
	f := field{kind: words[0]}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "required":
			f.required = true
		case "enum":
			f.enum = strings.Split(value, "|")
		case "pattern":
			f.pattern, err = regexp.Compile(value)
		case "min", "minlen", "minfields":
			f.least = new(int)
			*f.least, err = strconv.Atoi(value)
		case "max", "maxlen", "maxfields":
			f.most = new(int)
			*f.most, err = strconv.Atoi(value)
		default:
			t.Fatalf("%q: what is %q?", line, name)
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
	}
	return f
}

// check returns what is wrong with a value at a path.
func (l fieldList) check(path string, value any) []string {
	f, ok := l[path]
	if !ok {
		return []string{path + ": there is no such field"}
	}
	wrong := func(format string, args ...any) []string {
		return []string{path + ": " + fmt.Sprintf(format, args...)}
	}
	measure, countable := 0, true
	var found []string
	switch v := value.(type) {
	case map[string]any:
		if f.kind == "any" {
			return nil
		}
		if f.kind != "object" {
			return wrong("is an object, want %s", f.kind)
		}
		measure = len(v)
		found = l.checkObject(path, v)
	case []any:
		if f.kind != "array" {
			return wrong("is a list, want %s", f.kind)
		}
		countable = false
		for i, element := range v {
			for _, text := range l.check(path+"[]", element) {
				found = append(found, fmt.Sprintf("element %d: %s", i, text))
			}
		}
	case string:
		if f.kind != "string" {
			return wrong("%q is a text, want %s", v, f.kind)
		}
		measure = len(v)
		if f.enum != nil && !slices.Contains(f.enum, v) {
			return wrong("%q is none of %q", v, f.enum)
		}
		if f.pattern != nil && !f.pattern.MatchString(v) {
			return wrong("%q does not match %s", v, f.pattern)
		}
	case float64:
		if f.kind != "integer" || v != float64(int(v)) {
			return wrong("%v is a number, want %s", v, f.kind)
		}
		measure = int(v)
	case bool:
		if f.kind != "boolean" {
			return wrong("%v is a boolean, want %s", v, f.kind)
		}
		countable = false
	default:
		return wrong("is %T", v)
	}
	if countable && (f.least != nil && measure < *f.least || f.most != nil && measure > *f.most) {
		found = append(found, wrong("%v is out of bounds", value)...)
	}
	return found
}

func (l fieldList) checkObject(path string, object map[string]any) []string {
	var found []string
	_, isMap := l[path+"{}"]
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if isMap {
			found = append(found, l.check(path+"{}", object[name])...)
		} else {
			found = append(found, l.check(path+"."+name, object[name])...)
		}
	}
	for below, f := range l {
		name, direct := strings.CutPrefix(below, path+".")
		if _, given := object[name]; direct && !strings.ContainsAny(name, ".[{") && f.required && !given {
			found = append(found, path+"."+name+": is missing")
		}
	}
	return found
}

// TestFieldListsNotice holds the check itself: each of these is wrong in one way.
func TestFieldListsNotice(t *testing.T) {
	t.Parallel()
	list := readFields(t)["secrets.hashicorp.com/v1beta1 VaultDynamicSecret"]
	good := func() map[string]any {
		return map[string]any{"mount": "a", "path": "b", "renewalPercent": 67.0, "destination": map[string]any{"name": "c"}, "params": map[string]any{"d": "e"}}
	}
	if found := list.check("spec", good()); len(found) > 0 {
		t.Fatalf("nothing is wrong, and found is %q", found)
	}
	for want, spoil := range map[string]func(map[string]any){
		"spec.refreshInterval: there is no such field":                   func(s map[string]any) { s["refreshInterval"] = "1m" },
		"spec.path: is missing":                                          func(s map[string]any) { delete(s, "path") },
		"spec.destination.name: is missing":                              func(s map[string]any) { s["destination"] = map[string]any{} },
		"spec.renewalPercent: 91 is out of bounds":                       func(s map[string]any) { s["renewalPercent"] = 91.0 },
		`spec.refreshAfter: "60" does not match`:                         func(s map[string]any) { s["refreshAfter"] = "60" },
		`spec.requestHTTPMethod: "LIST" is none of ["GET" "POST" "PUT"]`: func(s map[string]any) { s["requestHTTPMethod"] = "LIST" },
		`spec.allowStaticCreds: "true" is a text, want boolean`:          func(s map[string]any) { s["allowStaticCreds"] = "true" },
		"spec.params{}: 1 is a number, want string":                      func(s map[string]any) { s["params"] = map[string]any{"d": 1.0} },
		"element 0: spec.rolloutRestartTargets[].kind: is missing":       func(s map[string]any) { s["rolloutRestartTargets"] = []any{map[string]any{"name": "x"}} },
		"spec.destination.transformation: is a list, want object":        func(s map[string]any) { s["destination"] = map[string]any{"name": "c", "transformation": []any{}} },
	} {
		spec := good()
		spoil(spec)
		if found := list.check("spec", spec); len(found) != 1 || !strings.HasPrefix(found[0], want) {
			t.Errorf("found %q, want %q", found, want)
		}
	}
}
