// SPDX-License-Identifier: MPL-2.0

package fill

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/refusal"
)

// given is a source of values out of a map.
func given(m map[string]any) Values {
	return func(name string) (any, bool) {
		v, ok := m[name]
		return v, ok
	}
}

var known = []string{"type", "data.role", "data.version", "data.versions", "data.last", "secret.token", "expiry:date"}

func TestFill(t *testing.T) {
	values := map[string]any{
		"type": "key.revoked", "data.role": `mail "one" ${type} $$ </script>`, "data.version": 7,
		"data.versions": []any{json.Number("1"), "two"}, "data.last": true, "secret.token": nil, "expiry:date": "2027-01-31",
	}
	for _, c := range []struct{ template, want string }{
		{`{"a":"${type}"}`, `{"a":"key.revoked"}`},
		{`{"z":1,"a":[1.50,-0,1e400,true,null,{}]}`, `{"z":1,"a":[1.50,-0,1e400,true,null,{}]}`},
		// A whole leaf keeps its type, a mixed one is text.
		{`["${data.version}","v${data.version}","${data.last}","is ${data.last}"]`, `[7,"v7",true,"is true"]`},
		{`["${data.versions}","${data.versions}.","${secret.token}","<${secret.token}>"]`, `[[1,"two"],"1, two.",null,"<>"]`},
		// Values are data: quotes are escaped, and nothing in them is looked at again.
		{`["${data.role}"]`, `["mail \"one\" ${type} $$ </script>"]`},
		{`["x${data.role}${type}"]`, `["xmail \"one\" ${type} $$ </script>key.revoked"]`},
		{`["$$","$${type}","$$$${type}","$$${type}","a$$b"]`, `["$","${type}","$${type}","$key.revoked","a$b"]`},
		{`["${expiry:date}","", "}", "{type}"]`, `["2027-01-31","","}","{type}"]`},
		{`{"$schema":"x","a/b~":"ü\u0000\n"}`, `{"$schema":"x","a/b~":"ü\u0000\n"}`},
		{` [ "${type}" ] `, `["key.revoked"]`},
	} {
		tree, err := ParseTree("template", []byte(c.template), known)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		got, err := tree.Fill(given(values))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: filled in as %s, %v, want %s", c.template, got, err, c.want)
		}
	}
}

func TestWhatNoTemplateMaySay(t *testing.T) {
	for _, c := range []struct{ template, want string }{
		{`{"a":[{"b/c~d":"${data.rol}"}]}`, `template: "${data.rol}": at "/a/0/b~1c~0d" is not known: use one of type, data.role, data.version, data.versions, data.last, secret.token, expiry:date`},
		{`["${expiry:unix}"]`, `"${expiry:unix}": at "/0" is not known`},
		{`["${Type}"]`, `is no name`}, {`["${}"]`, `is no name`}, {`["${ type }"]`, `is no name`},
		{`["${${type}}"]`, `is no name`}, {`["${type|date}"]`, `is no name`}, {`["${data..role}"]`, `is no name`},
		{`["${type"]`, `at "/0" has ${ without }`}, {`["$type"]`, `has a $ alone`}, {`["5$"]`, `has a $ alone`}, {`["$$$"]`, `has a $ alone`},
		{`{"${type}":1}`, `has a name that is not constant`},
		{`{"a":1,"a":2}`, `at "/a" is there twice`}, {`{"a":1,"\u0061":2}`, `is there twice`},
		{`"${type}"`, `must be a JSON object or list`}, {`7`, `must be a JSON object or list`},
		{``, `must be JSON`}, {`{`, `must be JSON`}, {`{} {}`, `must be JSON`}, {`[1,]`, `must be JSON`}, {`{a:1}`, `must be JSON`}, {"[\"\xff\"]", `must be JSON`},
		{strings.Repeat("[", 40) + strings.Repeat("]", 40), `is more than 32 levels deep`},
		{`["` + strings.Repeat("x", MaxTree) + `"]`, `is longer than 64 KiB`},
	} {
		tree, err := ParseTree("template", []byte(c.template), known)
		if refusal.In(err) == nil || tree != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want a refusal with %s", c.template, err, c.want)
		}
	}
	if _, err := ParseTree("template", []byte(`["${x}"]`), nil); err == nil || !strings.Contains(err.Error(), "write constants only") {
		t.Errorf("without names: %v", err)
	}
}

// What is wrong with a value is told without the value.
func TestValuesThatDoNotFit(t *testing.T) {
	const secret = "the-secret"
	tree, err := ParseTree("template", []byte(`{"a":["${type}","x${data.role}"]}`), known)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"type", "data.role"}; !reflect.DeepEqual(tree.Names(), want) {
		t.Errorf("names %v, want %v", tree.Names(), want)
	}
	for _, c := range []struct {
		values map[string]any
		want   Error
	}{
		{map[string]any{"type": 1}, Error{"/a/1", "data.role", "has no value"}},
		{map[string]any{"data.role": 1}, Error{"/a/0", "type", "has no value"}},
		{map[string]any{"type": func() {}, "data.role": secret}, Error{"/a/0", "type", "has a value that is not of JSON"}},
		{map[string]any{"type": json.Number(secret), "data.role": secret}, Error{"/a/0", "type", "has a value that is not of JSON"}},
		{map[string]any{"type": secret, "data.role": map[string]any{secret: secret}}, Error{"/a/1", "data.role", "has a value that cannot be part of a text"}},
		{map[string]any{"type": secret, "data.role": []any{[]any{secret}}}, Error{"/a/1", "data.role", "has a value that cannot be part of a text"}},
	} {
		got, err := tree.Fill(given(c.values))
		var e *Error
		if !errors.As(err, &e) || *e != c.want || got != nil {
			t.Errorf("%v: %s, %v, want %v", c.values, got, err, c.want)
		}
	}
	long := map[string]any{"type": strings.Repeat("x", MaxFilled), "data.role": secret}
	if got, err := tree.Fill(given(long)); !errors.Is(err, ErrTooLong) || got != nil {
		t.Errorf("a body that is too long: %d bytes, %v", len(got), err)
	}
}

// The bodies that Slack, Teams and PagerDuty document, in their shapes.
func TestShapesOfReceivers(t *testing.T) {
	values := map[string]any{
		"type": "key.reported", "timestamp": "2026-11-26T12:00:00Z", "id": "0b6d-17-k3", "data.role": `billing "eu" <!channel> & co`,
		"data.key_id": "kid1", "data.version": 17, "data.owner": "team\npay", "data.versions": []int{16, 17}, "severity": "critical",
		"secret.routing_key": "not-a-real-key", "data.sequence": int64(9007199254740993),
	}
	var names []string
	for n := range values {
		names = append(names, n)
	}
	files, err := filepath.Glob("testdata/*.template.json")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := ParseTree("template", raw, names)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		got, err := tree.Fill(given(values))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		want, err := os.ReadFile(strings.Replace(file, ".template.", ".filled.", 1))
		if err != nil {
			t.Fatal(err)
		}
		if decoded(t, got) != decoded(t, want) {
			t.Errorf("%s: filled in as %s", file, got)
		}
	}
}

func decoded(t *testing.T, raw []byte) string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
