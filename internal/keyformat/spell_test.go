// SPDX-License-Identifier: MPL-2.0

package keyformat_test

import (
	"fmt"
	"html"
	"regexp"
	"strconv"
	"strings"

	"pgregory.net/rapid"
)

// layer is one way in which programs write text so that something else reads
// it. Each decoder here is apart from what it tests: an expression, or the
// standard library.
type layer struct {
	name string
	// must are the characters that the layer never leaves as they are.
	must string
	// spell writes one character; how chooses among the forms that it has.
	spell func(c byte, how int) string
	// gap may stand between any two characters.
	gap    string
	decode func(string) string
}

func hexForm(form string, c byte, how int) string {
	s := fmt.Sprintf(form, c)
	if how%2 == 1 {
		return s
	}
	return strings.ReplaceAll(strings.ToUpper(s), "U", "u")
}

func decoder(expr string, f func(m []string) string) func(string) string {
	re := regexp.MustCompile(expr)
	return func(s string) string {
		return re.ReplaceAllStringFunc(s, func(one string) string { return f(re.FindStringSubmatch(one)) })
	}
}

func fromHex(s string) string {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil {
		panic(err)
	}
	if len(s) == 2 {
		return string([]byte{byte(n)})
	}
	return string(rune(n))
}

var layers = []layer{
	{
		name: "URL", must: "%",
		spell:  func(c byte, how int) string { return hexForm("%%%02x", c, how) },
		decode: decoder(`%([0-9A-Fa-f]{2})`, func(m []string) string { return fromHex(m[1]) }),
	},
	{
		name: "JSON", must: `\"`,
		spell: func(c byte, how int) string {
			if strings.IndexByte(`\"/`, c) >= 0 && how%3 == 0 {
				return `\` + string(c)
			}
			return hexForm(`\u%04x`, c, how)
		},
		decode: decoder(`\\(?:u([0-9A-Fa-f]{4})|([\\"/]))`, func(m []string) string {
			if m[1] != "" {
				return fromHex(m[1])
			}
			return m[2]
		}),
	},
	{
		name: "HTML", must: "&",
		spell: func(c byte, how int) string {
			named := map[byte]string{'_': "lowbar", '&': "amp", '"': "quot", '<': "lt", '>': "gt", '\'': "apos", '%': "percnt", '\\': "bsol", '=': "equals"}
			switch how % 4 {
			case 0:
				return fmt.Sprintf("&#%d;", c)
			case 1:
				return fmt.Sprintf("&#x%X;", c)
			case 2:
				return fmt.Sprintf("&#X%04x;", c)
			default:
				if n := named[c]; n != "" {
					return "&" + n + ";"
				}
				return fmt.Sprintf("&#%04d;", c)
			}
		},
		decode: html.UnescapeString,
	},
	{
		name: "quoted-printable", must: "=", gap: "=\r\n",
		spell: func(c byte, how int) string { return hexForm("=%02x", c, how) },
		decode: decoder(`=(?:\r?\n|([0-9A-Fa-f]{2}))`, func(m []string) string {
			if m[1] != "" {
				return fromHex(m[1])
			}
			return ""
		}),
	},
	{
		name: "shell and Markdown", must: `\`, gap: "\\\n",
		spell: func(c byte, _ int) string {
			if c > ' ' && c < 0x7f && !strings.Contains(base62+"%=&", string(c)) {
				return `\` + string(c)
			}
			return string(c)
		},
		decode: decoder(`\\(?:\n|([!-/:-@\[-`+"`"+`{-~]))`, func(m []string) string { return m[1] }),
	},
	{
		name:   "UTF-16",
		decode: func(s string) string { return strings.ReplaceAll(s, "\x00", "") },
	},
}

// drawSpelling writes text in up to depth layers, each of them wholly or in part.
func drawSpelling(t *rapid.T, text string, depth int) string {
	for range rapid.IntRange(0, depth).Draw(t, "layers") {
		l := rapid.SampledFrom(layers[:len(layers)-1]).Draw(t, "layer")
		share := rapid.SampledFrom([]int{0, 1, 5, 10}).Draw(t, "share")
		gaps := rapid.SampledFrom([]int{0, 0, 1, 10}).Draw(t, "gaps")
		random := rapid.Uint64().Draw(t, "random")
		next := func(n int) int { // xorshift, since a draw for each character is slow
			random ^= random << 13
			random ^= random >> 7
			random ^= random << 17
			return int(random >> 33 % uint64(n))
		}
		random |= 1
		var out strings.Builder
		for i := range len(text) {
			c := text[i]
			if strings.IndexByte(l.must, c) >= 0 || next(10) < share && c < 0x80 {
				out.WriteString(l.spell(c, next(12)))
			} else {
				out.WriteByte(c)
			}
			if next(10) < gaps {
				out.WriteString(l.gap)
			}
		}
		text = out.String()
	}
	if rapid.IntRange(0, 5).Draw(t, "UTF-16") == 0 {
		text = strings.ReplaceAll(text, "", "\x00")
	}
	return text
}

// everyReading calls f with text and with all that it reads as, through any three
// layers, one after the other.
func everyReading(text string, depth int, f func(string)) {
	f(text)
	if depth == 0 {
		return
	}
	for _, l := range layers {
		if decoded := l.decode(text); decoded != text {
			everyReading(decoded, depth-1, f)
		}
	}
}
