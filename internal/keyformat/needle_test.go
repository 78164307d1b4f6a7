// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

func TestScrub(t *testing.T) {
	own := mint(t, "ak")
	const secret = `sk-live/9f+8a=b"c%41d&e\f==`
	jwt := strings.Repeat("eyJhbGciOiJFUzUxMiJ9.", 100)
	for name, c := range map[string]struct {
		text    string
		secrets []string
		want    string
	}{
		"nothing":                  {"a text", []string{secret}, "a text"},
		"no secret":                {"a %41 text", nil, "a %41 text"},
		"an empty one":             {"", []string{""}, ""},
		"as it is":                 {"<" + secret + "> " + secret, []string{secret}, "<[key]> [key]"},
		"the whole text":           {secret, []string{secret}, "[key]"},
		"glued":                    {"x" + secret + secret + "9", []string{secret}, "x[key][key]9"},
		"at the end of a line":     {secret + "\n" + secret + "\r\n", []string{secret}, "[key]\n[key]\r\n"},
		"in a query":               {"https://x/?a=1&k=" + url.QueryEscape(secret) + "&b=%20c+d", []string{secret}, "https://x/?a=1&k=[key]&b=%20c+d"},
		"in a path":                {"/v1/" + url.PathEscape(secret) + "/%78", []string{secret}, "/v1/[key]/%78"},
		"twice encoded":            {"?u=" + url.QueryEscape("?k="+url.QueryEscape(secret)) + "&", []string{secret}, "?u=%3Fk%3D[key]&"},
		"in JSON":                  {`{"k":"sk-live\/9f+8a=b\"c%41d\u0026e\\f=="}`, []string{secret}, `{"k":"[key]"}`},
		"in HTML":                  {`<a title="sk-live&sol;9f&#43;8a=b&quot;c%41d&amp;e\f==">`, []string{secret}, `<a title="[key]">`},
		"partly encoded":           {"%73k-live%2f9f+8a=b%22c%2541d&e%5cf==\n", []string{secret}, "[key]\n"},
		"padding before a break":   {"QUJD%2fREVG==\nnext", []string{"QUJD/REVG=="}, "[key]\nnext"},
		"padding encoded":          {"QUJD%2fREVG%3D=x", []string{"QUJD/REVG=="}, "[key]x"},
		"padding lost":             {"QUJD%2fREVG", []string{"QUJD/REVG=="}, "[key]"},
		"only special characters":  {`x%%%%y`, []string{"%%%%"}, "x[key]y"},
		"spaces in a form":         {"k=two+words+and+more&x", []string{"two words and more"}, "k=[key]&x"},
		"spaces encoded":           {"k=two%20words+and%20more&x", []string{"two words and more"}, "k=[key]&x"},
		"after a percent sign":     {"100%acme%2Fsecret", []string{"acme/secret"}, "100%[key]"},
		"after half an escape":     {"%2acme%2Fsecret", []string{"acme/secret"}, "%2[key]"},
		"a broken line":            {"acme=\r\n%2Fsec\\\nret", []string{"acme/secret"}, "[key]"},
		"wide characters":          {"a\x00c\x00m\x00e\x00/\x00x\x00", []string{"acme/x"}, "[key]\x00"},
		"several":                  {"one-one%2Ctwo-two%2cthree", []string{"two-two", "one-one"}, "[key]%2C[key]%2cthree"},
		"overlapping":              {"abcdefgh %61", []string{"abcdef", "cdefgh"}, "[key] %61"},
		"overlapping with itself":  {"aaaaaaaa%61a b", []string{"aaaa"}, "[key] b"},
		"one inside another":       {"abcdefgh", []string{"cdef", "abcdefgh"}, "[key]"},
		"long":                     {"t=" + url.QueryEscape(jwt) + "%26" + jwt, []string{jwt}, "t=[key]%26[key]"},
		"three characters":         {"abc is not abc", []string{"abc"}, "abc is not abc"},
		"three characters, all":    {"abc", []string{"x", "abc"}, "[key]"},
		"one character":            {"a", []string{"a"}, "[key]"},
		"four characters":          {"the abcd", []string{"abcd"}, "the [key]"},
		"what reads too short":     {"abA %41", []string{"ab%41"}, "abA %41"},
		"another case":             {"ACME%2Fsecret", []string{"acme/secret"}, "ACME%2Fsecret"},
		"not quite":                {"acme%2Fsecre%20t", []string{"acme/secret"}, "acme%2Fsecre%20t"},
		"bytes beyond ASCII":       {"schl%C3%BCssel und schlüssel", []string{"schlüssel"}, "[key] und [key]"},
		"own keys":                 {"k=" + strings.Replace(own.Reveal(), "_", "%5F", 1) + "," + secret, []string{secret}, "k=[key " + own.ID() + "],[key]"},
		"an own key as the secret": {"k=" + strings.Replace(own.Reveal(), "_", "%5F", 1), []string{own.Reveal()}, "k=[key " + own.ID() + "]"},
		"a secret over a key":      {"(" + own.Reveal() + ")", []string{"(" + own.Reveal() + ")"}, "[key]"},
		"a secret into a key":      {"x_" + own.Reveal() + "%20", []string{"x_ak_"}, "[key][key " + own.ID() + "]%20"},
		"a secret out of a key":    {own.Reveal() + "-x%20", []string{own.Reveal()[60:] + "-x"}, "[key " + own.ID() + "][key]%20"},
	} {
		t.Run(name, func(t *testing.T) {
			got := keyformat.Scrub(c.text, c.secrets...)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestScrubProperty: through whatever layers a secret was written, and whatever
// stands around it, it is in no reading of what is left.
func TestScrubProperty(t *testing.T) {
	const base64 = base62 + "+/"
	printable := ""
	for c := byte('!'); c <= '~'; c++ {
		printable += string(c)
	}
	rapid.Check(t, func(t *rapid.T) {
		alphabet := rapid.SampledFrom([]string{base62 + "-_.", base64, printable}).Draw(t, "alphabet")
		var secret strings.Builder
		for range rapid.IntRange(12, 40).Draw(t, "length") {
			secret.WriteByte(alphabet[rapid.IntRange(0, len(alphabet)-1).Draw(t, "character")])
		}
		if alphabet == base64 {
			secret.WriteString(rapid.SampledFrom([]string{"", "=", "=="}).Draw(t, "padding"))
		}
		s := secret.String()
		if alphabet == printable {
			// A text that is written in part cannot be told from one that is not, if
			// the secret itself looks written.
			s = strings.NewReplacer("%", "!", "&", "?", "=", "*", `\`, "^").Replace(s)
		}
		text := rapid.SampledFrom(glue).Draw(t, "before") + drawSpelling(t, s, 3) + rapid.SampledFrom([]string{"", " ", "\n", "&x=", `","`, "%", "x"}).Draw(t, "after")
		scrubbed := keyformat.Scrub(text, s)
		if scrubbed == text {
			t.Fatalf("%q is not found in %q", s, text)
		}
		everyReading(scrubbed, 3, func(r string) {
			if strings.Contains(r, strings.TrimRight(s, "=")) {
				t.Fatalf("%q is left in %q of %q", s, scrubbed, text)
			}
		})
	})
}

// TestScrubOverlaps compares with the obvious way to look for a secret that
// begins again inside itself.
func TestScrubOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string, least, most int) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), least, most).Draw(t, name), "")
		}
		plain := draw("text", 4, 60)
		from := rapid.IntRange(0, len(plain)-4).Draw(t, "from")
		secret := plain[from:rapid.IntRange(from+4, len(plain)).Draw(t, "to")]
		var text, want strings.Builder
		end := 0 // of what is covered
		for i := range len(plain) {
			spelled := string(plain[i])
			if rapid.Bool().Draw(t, "spelled") {
				spelled = layers[0].spell(plain[i], 0)
			}
			text.WriteString(spelled)
			if strings.HasPrefix(plain[i:], secret) {
				if i >= end {
					want.WriteString("[key]")
				}
				end = i + len(secret)
			}
			if i >= end {
				want.WriteString(spelled)
			}
		}
		want.WriteString("%20")
		if got := keyformat.Scrub(text.String()+"%20", secret); got != want.String() {
			t.Fatalf("%q in %q: %q, want %q", secret, text.String(), got, want.String())
		}
	})
}

// TestScrubWhole: a secret of any characters, written wholly in one of the layers,
// or in two, is found.
func TestScrubWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var secret strings.Builder
		for range rapid.IntRange(8, 20).Draw(t, "length") {
			secret.WriteByte(byte(rapid.IntRange('!', '~').Draw(t, "character")))
		}
		s := secret.String()
		text := s
		for range rapid.IntRange(0, 2).Draw(t, "layers") {
			l := rapid.SampledFrom(layers[:4]).Draw(t, "layer")
			how := rapid.IntRange(0, 11).Draw(t, "how")
			sparing := rapid.Bool().Draw(t, "sparing")
			var out strings.Builder
			for i := range len(text) {
				if c := text[i]; !sparing || strings.IndexByte(l.must, c) >= 0 {
					out.WriteString(l.spell(c, how))
				} else {
					out.WriteByte(c)
				}
			}
			text = out.String()
		}
		if got := keyformat.Scrub("< "+text+" >", s); got != "< [key] >" {
			t.Fatalf("%q in %q: %q", s, text, got)
		}
	})
}

func FuzzScrub(f *testing.F) {
	f.Add("https://x/?k=a%2Fb+c%3D%3D&x", "a/b c==")
	f.Add(`{"k":"a\/\u0062\\c"}`, `a/b\c`)
	f.Add("aaaa%61aaa=\r\na", "aaaa")
	f.Add("&amp;lowbar;&#37;41", "%41_")
	f.Fuzz(func(t *testing.T, text, secret string) {
		scrubbed := keyformat.Scrub(text, secret)
		if keyformat.Scrub(text) != keyformat.Redact(text) {
			t.Fatal("without secrets it is Redact")
		}
		if len(secret) >= 4 && strings.Contains(text, secret) && scrubbed == text && !strings.Contains("[key]", secret) {
			t.Fatal("a plain secret is left")
		}
		if keys, _ := keyformat.Find(scrubbed, 1); len(keys) > 0 {
			t.Fatal("a key is left")
		}
		if len(secret) >= 4 && !strings.ContainsAny(secret, "[key]") && strings.Contains(scrubbed, secret) {
			t.Fatal("the secret is left")
		}
	})
}
