// SPDX-License-Identifier: MPL-2.0

package fill

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
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
		{`["${Type}"]`, `is no name`},
		{`["${}"]`, `is no name`},
		{`["${ type }"]`, `is no name`},
		{`["${${type}}"]`, `is no name`},
		{`["${type|date}"]`, `is no name`},
		{`["${data..role}"]`, `is no name`},
		{`["${type"]`, `at "/0" has ${ without }`},
		{`["$type"]`, `has a $ alone`},
		{`["5$"]`, `has a $ alone`},
		{`["$$$"]`, `has a $ alone`},
		{`{"${type}":1}`, `has a name that is not constant`},
		{`{"a":1,"a":2}`, `at "/a" is there twice`},
		{`{"a":1,"\u0061":2}`, `is there twice`},
		{`"${type}"`, `must be a JSON object or list`},
		{`7`, `must be a JSON object or list`},
		{``, `must be JSON`},
		{`{`, `must be JSON`},
		{`{} {}`, `must be JSON`},
		{`[1,]`, `must be JSON`},
		{`{a:1}`, `must be JSON`},
		{"[\"\xff\"]", `must be JSON`},
		{strings.Repeat("[", 34) + strings.Repeat("]", 34), `is more than 32 levels deep`},
		{strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), `is more than 32 levels deep`},
		{`["` + strings.Repeat("x", MaxTree-3) + `"]`, `is longer than 64 KiB`},
	} {
		tree, err := ParseTree("template", []byte(c.template), known)
		if refusal.In(err) == nil || tree != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want a refusal with %s", c.template, err, c.want)
		}
	}
	for _, fits := range []string{
		strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat(`{"a":`, 32) + "1" + strings.Repeat("}", 32), `["` + strings.Repeat("x", MaxTree-4) + `"]`,
	} {
		if _, err := ParseTree("template", []byte(fits), known); err != nil {
			t.Errorf("%.40s: %v", fits, err)
		}
	}
	var many []string
	for i := range 31 {
		many = append(many, "n"+strconv.Itoa(i))
	}
	for n, want := range map[int]string{30: "use one of n0, n1, ", 31: "use one of the names that the documentation lists"} {
		if _, err := ParseTree("template", []byte(`["${x}"]`), many[:n]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %d names: %v", n, err)
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
	if text := (&Error{"/a/1", "type", "has no value"}).Error(); text != `"/a/1": ${type} has no value` {
		t.Errorf("it reads %s", text)
	}
	// The frame of it is `{"a":["","x"]}`.
	for size, want := range map[int]error{MaxFilled - 14: nil, MaxFilled - 13: ErrTooLong, MaxFilled: ErrTooLong} {
		for _, at := range []string{"type", "data.role"} {
			long := map[string]any{"type": "", "data.role": ""}
			long[at] = strings.Repeat("x", size)
			if got, err := tree.Fill(given(long)); !errors.Is(err, want) || want == nil && len(got) != MaxFilled || want != nil && got != nil {
				t.Errorf("%d bytes: made %d, %v", size, len(got), err)
			}
		}
	}
	many, err := ParseTree("template", []byte("["+strings.Repeat(`"${type}",`, 6000)+`""]`), known)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	if _, err := many.Fill(func(string) (any, bool) { calls++; return strings.Repeat("x", 1000), true }); !errors.Is(err, ErrTooLong) || calls > MaxFilled/1000+1 {
		t.Errorf("a body that grows too long: %d values, %v", calls, err)
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

func TestURL(t *testing.T) {
	const secret = "s3cr3t"
	names := []string{"secret.a", "secret.b", "id"}
	for _, c := range []struct {
		template string
		values   map[string]any
		want     string
	}{
		{"https://hooks.example.com", nil, "https://hooks.example.com"},
		{"https://hooks.example.com/", nil, "https://hooks.example.com/"},
		{"https://hooks.example.com:8443/a//b/?x=1&y", nil, "https://hooks.example.com:8443/a//b/?x=1&y"},
		{"https://h.example/x/${secret.a}", map[string]any{"secret.a": "T0/B9 azAZü?#%&=+;:@$[`{/.-_~"}, "https://h.example/x/T0%2FB9%20azAZ%C3%BC%3F%23%25%26%3D%2B%3B%3A%40%24%5B%60%7B%2F.-_~"},
		{"https://h.example/~!a", nil, "https://h.example/~!a"},
		{"https://h.example/${secret.a}/${secret.b}/z", map[string]any{"secret.a": "a", "secret.b": "${secret.a}"}, "https://h.example/a/%24%7Bsecret.a%7D/z"},
		{"https://h.example/v${id}.json?k=${secret.a}&l=x${id}", map[string]any{"id": 7, "secret.a": "a&b=c d/.."}, "https://h.example/v7.json?k=a%26b%3Dc%20d%2F..&l=x7"},
		{"https://h.example?k=${id}", map[string]any{"id": json.Number("12")}, "https://h.example?k=12"},
		{"https://h.example/$$a/%20", nil, "https://h.example/$a/%20"},
		{"https://h.example/${id}", map[string]any{"id": "..."}, "https://h.example/..."},
		{"https://h.example/${id}", map[string]any{"id": "a..b\r\n"}, "https://h.example/a..b%0D%0A"},
		{"https://h.example/..${id}", map[string]any{"id": "a"}, "https://h.example/..a"},
		{"https://h.example/?x=${id}", map[string]any{"id": ".."}, "https://h.example/?x=.."},
	} {
		u, err := ParseURL("url", c.template, names)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if got, err := u.Fill(given(c.values)); err != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.template, got, err, c.want)
		}
	}
	for template, want := range map[string]string{
		"": "constant scheme", "hooks.example.com/x": "constant scheme", "${id}://h.example": "constant scheme", "/x://h": "constant scheme",
		"https://${id}": "constant host", "https://${id}.example/": "constant host", "https://h.example:${id}/": "constant host", "https://h.example${id}/": "constant host",
		"https://${secret.a}@h.example/": "constant host", "https:///x": "constant host", "https://$$/": "constant host", "https://?x": "constant host",
		"https://h.example/${x}": "is not known", "https://h.example/${id": "without }", "https://h.example/$id": "$ alone", "https://h.example/?${x}": "is not known",
		"https://h.example/#x": "fragment", "https://h.example/?#${id}": "fragment",
		"https://h.example/../x": "segment", "https://h.example/./${id}": "segment", "https://h.example/%2e%2E/x": "segment", "https://h.example/.%2e/x": "segment",
		"https://h.example/%${id}": "cannot be read", "https://h.example/%2${id}": "cannot be read", "https://h.example/?a=%${id}": "escapes nothing", "https://h.example/?a=%2${id}": "escapes nothing",
		"https://h.example/a b": "that URLs do not have", "https://h.example/a\\b": "that URLs do not have", "https://h.example/ü": "that URLs do not have", "https://h.example/\n": "that URLs do not have",
		"https://h.example/?a\tb": "that URLs do not have", "https://h.example/a|b": "that URLs do not have", "https://[::1/": "cannot be read",
		"https://h.example/" + strings.Repeat("x", 2031): "is longer than",
	} {
		u, err := ParseURL("url", template, names)
		if r := refusal.In(err); r == nil || r.Field != "url" || r.Todo == "" || !strings.Contains(err.Error(), want) || u != nil {
			t.Errorf("%s: %v, want a refusal with %q", template, err, want)
		}
	}
	for _, c := range []struct {
		template string
		value    any
		want     string
	}{
		{"/x/${id}", "", "is empty"},
		{"/x/v${id}", nil, "is empty"},
		{"/x?a=${id}", "", "is empty"},
		{"/x/${id}", ".", "segment"},
		{"/x/${id}", "..", "segment"},
		{"/x/.${id}", ".", "segment"},
		{"/x/${id}.", ".", "segment"},
		{"/x/%2e${id}", ".", "segment"},
		{"/x/${id}${id}", ".", "segment"},
		{"/x/${id}", "a/../" + secret, "segment"},
		{"/x/${id}", `a\..\` + secret, "segment"},
		{"/x/${id}", "./" + secret, "segment"},
		{"/x/${id}", secret + "/..", "segment"},
		{"/x/${id}", []any{secret}, "part of a text"},
		{"/x/${id}", []string{secret}, "part of a text"},
		{"/x/${id}", map[string]any{secret: 1}, "part of a text"},
		{"/x/${id}", func() {}, "part of a text"},
		{"/x/${secret.a}", "", "has no value"},
		{"/x?${secret.a}", "", "has no value"},
	} {
		u, err := ParsePath("path", c.template, names)
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Fill(given(map[string]any{"id": c.value}))
		var e *Error
		if !errors.As(err, &e) || got != "" || !strings.Contains(e.Error(), c.want) || !strings.HasPrefix(e.Error(), "${") || strings.Contains(err.Error(), secret) {
			t.Errorf("%s with %v: %q, %v", c.template, c.value, got, err)
		}
	}
	for _, template := range []string{"", "x", "//evil.example/x", "https://h.example/", "?x", "/..", "/a#b"} {
		if _, err := ParsePath("path", template, names); refusal.In(err) == nil || refusal.In(err).Field != "path" {
			t.Errorf("the path %q: %v", template, err)
		}
	}
	if _, err := ParseURL("url", "https://h.example/"+strings.Repeat("x", 2030), names); err != nil {
		t.Errorf("2048 characters: %v", err)
	}
	u, err := ParseURL("url", "https://h.example/a${id}/${secret.a}?b=$$${id}", names)
	if err != nil {
		t.Fatal(err)
	}
	if u.Sample() != "https://h.example/ax/x?b=$x" || len(u.Names()) != 2 {
		t.Errorf("a sample of it is %s, its names are %v", u.Sample(), u.Names())
	}
}

func TestHeader(t *testing.T) {
	const secret = "s3cr3t"
	names := []string{"secret.token", "n"}
	for _, c := range []struct {
		template string
		value    any
		want     string
	}{
		{strings.Repeat("x", 8192), nil, strings.Repeat("x", 8192)},
		{"Bearer ${secret.token}", secret, "Bearer " + secret},
		{"${secret.token}", "a b~!", "a b~!"},
		{"x", nil, "x"},
		{"$$${secret.token}", "${n}$$", "$${n}$$"},
		{"n=${secret.token}", 7, "n=7"},
	} {
		h, err := ParseText("headers", c.template, names)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := h.Header(given(map[string]any{"secret.token": c.value})); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.template, got, err, c.want)
		}
	}
	for template, want := range map[string]string{
		"": "is empty", " x": "space at an end", "x ": "space at an end", "a\r\nHost: x": "not printable", "a\tb": "not printable", "ü": "not printable", "\x7f": "not printable", "\xff": "not printable",
		"${x}": "is not known", "${": "without }", "$": "$ alone", strings.Repeat("x", 8193): "is longer than",
	} {
		h, err := ParseText("headers", template, names)
		if r := refusal.In(err); r == nil || r.Field != "headers" || r.Todo == "" || !strings.Contains(err.Error(), want) || h != nil {
			t.Errorf("%.20q: %v, want a refusal with %q", template, err, want)
		}
	}
	h, err := ParseText("headers", "Bearer ${secret.token}", names)
	if err != nil || !reflect.DeepEqual(h.Names(), []string{"secret.token"}) {
		t.Fatal(h.Names(), err)
	}
	for _, v := range []any{"", nil, secret + "\n", secret + "\r\nHost: x", secret + "\x00", "ü" + secret, secret + "\t", secret + " ", " " + secret, []string{secret}, map[string]any{secret: 1}} {
		got, err := h.Header(given(map[string]any{"secret.token": v}))
		var e *Error
		if !errors.As(err, &e) || e.Name != "secret.token" || got != "" || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %q, %v", v, got, err)
		}
	}
	if _, err := h.Header(given(nil)); err == nil || err.Error() != "${secret.token} has no value" {
		t.Errorf("without a value: %v", err)
	}
	for name, ok := range map[string]bool{
		"Authorization": true, "X-Api-Key": true, "x_y": true, "Content-Type": true, "": false, "Host": false, "HOST": false, "Content-Length": false, "Transfer-Encoding": false, "Connection": false,
		"Proxy-Authorization": false, "a b": false, "a:b": false, "a\n": false, "ü": false, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		if err := CheckHeaderName("headers", name); (err == nil) != ok || !ok && (refusal.In(err) == nil || refusal.In(err).Field != "headers") {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

// FuzzTree: what is accepted fills in to JSON of the same shape, in which values are
// data.
func FuzzTree(f *testing.F) {
	for _, seed := range []string{`{"a":"${type}"}`, `["x${type}$$",1.5,null,{"b":[true]}]`, `["$${type}"]`, `{"a":{"a":"${data.role} ${type}"}}`, "[\"\\ud800\"]"} {
		f.Add(seed, `"${type}\`)
	}
	f.Fuzz(func(t *testing.T, template, v string) {
		tree, err := ParseTree("template", []byte(template), known)
		if err != nil {
			if refusal.In(err) == nil {
				t.Fatal(err)
			}
			return
		}
		out, err := tree.Fill(func(string) (any, bool) { return v, true })
		if errors.Is(err, ErrTooLong) {
			return
		}
		if err != nil || !json.Valid(out) {
			t.Fatalf("%s: %s, %v", template, out, err)
		}
		var before, after any
		if json.Unmarshal([]byte(template), &before) == nil && json.Unmarshal(out, &after) == nil && shape(before) != shape(after) {
			t.Fatalf("%s became %s", template, out)
		}
	})
}

func shape(v any) string {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]string{}
		for k, e := range v {
			out[k] = shape(e)
		}
		text, _ := json.Marshal(out)
		return string(text)
	case []any:
		text := "["
		for _, e := range v {
			text += shape(e)
		}
		return text + "]"
	case string:
		return "text"
	}
	text, _ := json.Marshal(v)
	return string(text)
}

// FuzzURL: a value stays in its place, whatever it is.
func FuzzURL(f *testing.F) {
	f.Add("https://h.example/a/${id}?b=${id}", "../x?y#z")
	f.Add("https://h.example/.${id}/c", ".")
	f.Fuzz(func(t *testing.T, template, v string) {
		u, err := ParseURL("url", template, []string{"id"})
		if err != nil {
			return
		}
		text, err := u.Fill(given(map[string]any{"id": v}))
		if err != nil {
			return
		}
		got, err := url.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		sample, err := url.Parse(u.Sample())
		if err != nil {
			t.Fatal(err)
		}
		if got.Scheme != sample.Scheme || got.Host != sample.Host || got.Fragment != "" || strings.Count(got.EscapedPath(), "/") != strings.Count(sample.EscapedPath(), "/") ||
			strings.Count(got.RawQuery, "&") != strings.Count(sample.RawQuery, "&") || strings.Count(got.RawQuery, "=") != strings.Count(sample.RawQuery, "=") {
			t.Fatalf("%s became %s", template, text)
		}
		for _, segment := range strings.Split(got.EscapedPath(), "/") {
			if plain, err := url.PathUnescape(segment); err != nil || plain == "." || plain == ".." {
				t.Fatalf("%s became %s", template, text)
			}
		}
	})
}

// A leaf of many names is given up while it is made.
func TestALeafThatGrows(t *testing.T) {
	many, calls := strings.Repeat("${a}", 10_000), 0
	long := func(string) (any, bool) { calls++; return strings.Repeat("x", 1000), true }
	tree, err := ParseTree("template", []byte(`["`+many+`"]`), []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Fill(long); !errors.Is(err, ErrTooLong) || calls > MaxFilled/1000+1 {
		t.Errorf("%v after %d values", err, calls)
	}
}
