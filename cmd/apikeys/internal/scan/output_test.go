// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// TestNothingPrintsASecret: whatever it says, and wherever, of a key there is the id only.
func TestNothingPrintsASecret(t *testing.T) {
	outside(t)
	k, named := mint(t, "ak"), mint(t, "acme_live")
	dir := t.TempDir()
	t.Chdir(dir)
	plant(t, dir, map[string]string{
		"a": k.Reveal(), "d-" + named.Reveal() + "/f": k.Reveal(), "spelled": strings.ReplaceAll(k.Reveal(), "_", "%5F"),
		strings.ReplaceAll(named.Reveal(), "_", "%5f"): "x",
	})
	diff := "diff --git a/x b/x\n--- a/x\n+++ b/" + named.Reveal() + "\n@@ -1 +1 @@\n-x\n+" + k.Reveal() + "\n"
	for _, format := range []string{"text", "json", "sarif"} {
		for _, args := range [][]string{{"."}, {".", named.Reveal() + "-is-not-there"}, {"-"}, {filepath.Join(dir, "a"), "none"}} {
			r := runScan(t, diff, append([]string{"-format", format}, args...)...)
			if !strings.Contains(r.out, k.ID()) {
				t.Errorf("%s %q: the key is not there", format, args)
			}
			for _, k := range []keyformat.Key{k, named} {
				for secret := k.Reveal(); len(secret) > 20; secret = secret[10:] {
					if strings.Contains(r.out+r.errs, secret[:20]) && !strings.HasPrefix(secret, k.Prefix()) {
						t.Errorf("%s %q: a part of the secret is shown", format, args)
					}
				}
			}
			if keys, _ := keyformat.Find(r.out+r.errs, 1); len(keys) > 0 {
				t.Errorf("%s %q: a key is shown", format, args)
			}
		}
	}
}

func TestShown(t *testing.T) {
	k := mint(t, "ak")
	for text, want := range map[string]string{
		"a/b c.txt": "a/b c.txt", "é": "é", "a\nb": `"a\nb"`, "\x1b[2J": `"\x1b[2J"`, "\u202e": `"\u202e"`, "\xff": `"\xff"`, `"`: `"\""`, `a\b`: `"a\\b"`, "\u009b": `"\u009b"`,
		"x" + k.Reveal(): "x[key " + k.ID() + "]",
	} {
		if got := shown(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
	if got := plain("a\n\xffé"); got != "a\n"+`\xff`+"é" {
		t.Errorf("%q", got)
	}
}

func TestJSON(t *testing.T) {
	outside(t)
	k := mint(t, "acme_live")
	dir := t.TempDir()
	t.Chdir(dir)
	plant(t, dir, map[string]string{"é \U0001f511\x1b": "\n " + k.Reveal() + "\n" + k.Reveal()})
	r := runScan(t, "", "-format", "json", ".", "none")
	want := fmt.Sprintf(`{"version":%q,"complete":false,"looked_at":{"files":1,"objects":0,"bytes":%d},`+
		`"findings":[{"key_id":%q,"prefix":"acme_live","path":"é \U0001f511\u001b","line":2,"column":2,"count":2,"places":[{"line":2,"column":2},{"line":3,"column":1}]}],`+
		`"problems":[{"path":"none","problem":"no such file or directory"}]}`, decode(t, r.out).Version, 2*len(k.Reveal())+3, k.ID())
	var a, b any
	if err := json.Unmarshal([]byte(r.out), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(want, `\U0001f511`, "\U0001f511")), &b); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("got %v\nwant %v", a, b)
	}
	if o := runScan(t, "", "-format", "json", "-"); o.out == "" || !strings.Contains(o.out, `"findings": []`) || !strings.Contains(o.out, `"problems": []`) || !strings.Contains(o.out, `"complete": true`) {
		t.Errorf("nothing found: %s", o.out)
	}
}

// sarifShape is what the specification of SARIF 2.1.0 (section 3) says of the objects that
// are used: which properties there may be, which there must be (with a !), and what their
// values are: an object of the table, a list of such, or a kind of value.
var sarifShape = map[string]map[string]string{
	"sarifLog":               {"$schema": "uri", "version!": "2.1.0", "runs!": "[run", "properties": "any"},
	"run":                    {"tool!": "tool", "results": "[result", "invocations": "[invocation", "columnKind": "string"},
	"tool":                   {"driver!": "toolComponent"},
	"toolComponent":          {"name!": "string", "version": "string", "semanticVersion": "string", "informationUri": "uri", "rules": "[reportingDescriptor"},
	"reportingDescriptor":    {"id!": "string", "name": "string", "shortDescription": "message", "fullDescription": "message", "help": "message", "helpUri": "uri", "defaultConfiguration": "reportingConfiguration", "properties": "any"},
	"reportingConfiguration": {"level": "level", "enabled": "bool"},
	"message":                {"text!": "string"},
	"invocation":             {"executionSuccessful!": "bool", "toolExecutionNotifications": "[notification"},
	"notification":           {"message!": "message", "level": "level"},
	"result":                 {"message!": "message", "ruleId": "string", "ruleIndex": "index", "level": "level", "locations": "[location", "relatedLocations": "[location", "partialFingerprints": "strings", "properties": "any"},
	"location":               {"id": "index", "message": "message", "physicalLocation": "physicalLocation", "logicalLocations": "[logicalLocation"},
	"logicalLocation":        {"fullyQualifiedName": "string", "name": "string", "kind": "string"},
	"physicalLocation":       {"artifactLocation!": "artifactLocation", "region": "region"},
	"artifactLocation":       {"uri!": "uri-reference", "uriBaseId": "string"},
	"region":                 {"startLine!": "line", "startColumn": "line"},
}

// shape complains of what in a value is not as the table says.
func shape(t *testing.T, at, kind string, value any) {
	t.Helper()
	if one, list := strings.CutPrefix(kind, "["); list {
		all, ok := value.([]any)
		if !ok {
			t.Errorf("%s is no list", at)
		}
		for i, value := range all {
			shape(t, fmt.Sprint(at, "[", i, "]"), one, value)
		}
		return
	}
	if props, ok := sarifShape[kind]; ok {
		object, ok := value.(map[string]any)
		if !ok {
			t.Errorf("%s is no object", at)
		}
		for name, kind := range props {
			plainName, needed := strings.CutSuffix(name, "!")
			inner, given := object[plainName]
			if needed && !given {
				t.Errorf("%s has no %s", at, plainName)
			}
			if given {
				shape(t, at+"."+plainName, kind, inner)
			}
		}
		for name := range object {
			if props[name] == "" && props[name+"!"] == "" {
				t.Errorf("%s has %s", at, name)
			}
		}
		return
	}
	s, isString := value.(string)
	n, isNumber := value.(float64)
	good := true
	switch kind {
	case "any":
	case "bool":
		_, good = value.(bool)
	case "string":
		good = isString && s != ""
	case "strings":
		all, ok := value.(map[string]any)
		good = ok && len(all) > 0
		for _, v := range all {
			s, ok := v.(string)
			good = good && ok && s != ""
		}
	case "level":
		good = slices.Contains([]string{"none", "note", "warning", "error"}, s)
	case "uri":
		good = strings.HasPrefix(s, "https://")
	case "uri-reference": // RFC 3986, and no colon in what is no scheme
		good = isString && s != "" && !strings.ContainsAny(s, " \"<>\\^`{}|\n") && (strings.HasPrefix(s, "file:///") || !strings.Contains(s, ":"))
		for i := range len(s) {
			good = good && s[i] > ' ' && s[i] < 0x7f
		}
	case "index":
		good = isNumber && n >= 0 && n == float64(int(n))
	case "line":
		good = isNumber && n >= 1 && n == float64(int(n))
	default:
		good = s == kind
	}
	if !good {
		t.Errorf("%s is %v, which is no %s", at, value, kind)
	}
}

func TestSARIF(t *testing.T) {
	k, named := mint(t, "ak"), mint(t, "ak")
	dir := newRepo(t)
	t.Chdir(dir)
	odd := "a:b é%\x1b\xff\"#?.txt"
	plant(t, dir, map[string]string{odd: "\n" + k.Reveal() + "\n" + k.Reveal(), "d/" + named.Reveal(): "", "plain.txt": k.Reveal()})
	commit(t, dir, "one "+named.Reveal())
	type result struct {
		Message   struct{ Text string }
		Locations []struct {
			PhysicalLocation struct{ ArtifactLocation struct{ URI string } }
		}
		Fingerprints map[string]string `json:"partialFingerprints"`
	}
	results := func(args ...string) []result {
		t.Helper()
		r := runScan(t, "", append([]string{"-format", "sarif"}, args...)...)
		var value any
		if err := json.Unmarshal([]byte(r.out), &value); err != nil {
			t.Fatal(err)
		}
		shape(t, "", "sarifLog", value)
		var log struct{ Runs []struct{ Results []result } }
		if err := json.Unmarshal([]byte(r.out), &log); err != nil || len(log.Runs) != 1 {
			t.Fatalf("%v, %d runs", err, len(log.Runs))
		}
		return log.Runs[0].Results
	}
	uris := map[string]string{}
	for _, r := range results(".", "none") {
		if len(r.Locations) != 1 {
			t.Fatalf("%d locations", len(r.Locations))
		}
		uris[r.Locations[0].PhysicalLocation.ArtifactLocation.URI] = r.Fingerprints[fingerprint]
		if !strings.Contains(r.Message.Text, k.ID()) && !strings.Contains(r.Message.Text, named.ID()) {
			t.Error(r.Message.Text)
		}
	}
	oddURI := "a%3Ab%20%C3%A9%25%1B%FF%22%23%3F.txt"
	for _, uri := range []string{oddURI, "plain.txt", "d/%5Bkey%20" + named.ID() + "%5D"} {
		if uris[uri] == "" {
			t.Errorf("no result for %s in %v", uri, uris)
		}
	}
	if len(uris) != 3 || uris[oddURI] == uris["plain.txt"] {
		t.Errorf("%v", uris)
	}
	// A fingerprint is that of the key and the file, wherever in it the key stands.
	plant(t, dir, map[string]string{"plain.txt": "\n\n\n moved " + k.Reveal()})
	for _, r := range results("plain.txt") {
		if r.Fingerprints[fingerprint] != uris["plain.txt"] {
			t.Error("another fingerprint")
		}
	}
	if n := len(results("-history", ".")); n < 3 {
		t.Errorf("%d results of the history", n)
	}
	if got := results(filepath.Join(dir, "plain.txt"))[0].Locations[0].PhysicalLocation.ArtifactLocation.URI; !strings.HasPrefix(got, "file:///") {
		t.Errorf("an absolute path: %s", got)
	}
	if n := len(results("-")); n != 0 {
		t.Errorf("%d results of nothing", n)
	}
}
