// SPDX-License-Identifier: MPL-2.0

package keyformat

import "math"

// A text can spell a character in many ways: in URLs, JSON, HTML, mail, shell
// and Markdown, and in these inside each other. A reading says for each place of a
// text how it reads from there on. Reading from every place, not only from
// where the place before ended, finds a key whatever is glued in front of it:
// "%ac" may be an escape, or a percent sign before a key that begins with ac.
type reading []glyph

// glyph is one character as it stands in the text.
type glyph struct {
	n uint16 // how many bytes of the text spell it
	c byte   // 0 is a blank, which says nothing: a soft line break, a zero byte
	d uint8  // for measure
}

// depth is how often one encoding may sit in another.
const depth = 3

// maxBlanks is how many blanks in a row are read over. UTF-32 has three.
const maxBlanks = 16

// other stands for the characters of an escape that no key is made of.
const other = 0xff

// family is a set of escapes that are taken for what they are wherever they
// stand. Escapes with a backslash are apart from the others, since they may
// take away what others begin with: "\%75" is a percent sign in one order and
// the beginning of "\u…" in the other. All orders are tried.
type family uint8

const (
	backslashes family = iota // of JSON and its kin, of a shell, of Markdown
	references                // of URLs, HTML and quoted-printable
	families                  // how many there are, and no escape at all
)

// begins is the family of the escapes that begin with a character.
var begins = func() (t [256]family) {
	for i := range t {
		t[i] = families
	}
	t['\\'], t['%'], t['='], t['&'] = backslashes, references, references, references
	return t
}()

// layers goes through the readings of a text, deepest first. It is no function
// that calls another for each, because what is passed on to that would live on
// the heap.
type layers struct {
	at    int
	layer [depth + 1]struct {
		reading
		tried family // those before it
		grown bool   // there is a layer above
	}
}

// readingsOf begins with text as it stands. room is memory for a short one.
func readingsOf(text string, room []glyph) (l layers) {
	for i := range l.layer {
		if n := len(text); len(room) >= n {
			l.layer[i].reading, room = room[:n], room[n:]
		} else {
			l.layer[i].reading = make(reading, n)
		}
	}
	for p := range len(text) {
		l.layer[0].reading[p] = glyph{n: 1, c: text[p]}
	}
	return l
}

// next is another reading, nil after the last one, and whether it can be taken no
// further: such a reading holds every key that those on the way to it hold.
func (l *layers) next() (r reading, last bool) {
	for l.at >= 0 {
		here := &l.layer[l.at]
		if here.tried == families || l.at == depth {
			l.at--
			return here.reading, !here.grown
		}
		f := here.tried
		here.tried++
		above := &l.layer[l.at+1]
		if copy(above.reading, here.reading); above.decode(f) {
			here.grown = true
			above.tried, above.grown = 0, false
			l.at++
		}
	}
	return nil, false
}

// decode takes off one layer of encoding, and reports whether there was one.
// Escapes reach to the right only, so what is decoded already is not in the
// way.
func (r reading) decode(f family) bool {
	changed := false
	for p := range r {
		if begins[r[p].c] != f {
			continue
		}
		if c, end := r.escape(p); end > p && end-p <= math.MaxUint16 {
			r[p].c, r[p].n = c, uint16(end-p)
			changed = true
		}
	}
	return changed
}

// escape is the character that the escape at p stands for, and where it ends;
// 0 if there is none at p.
func (r reading) escape(p int) (c byte, end int) {
	q := p + int(r[p].n)
	switch r[p].c {
	case '%':
		return r.hex(q, 2)
	case '=': // quoted-printable
		if end := r.lineBreak(q); end > 0 {
			return 0, end
		}
		return r.hex(q, 2)
	case '\\':
		return r.backslash(q)
	default:
		return r.entity(q)
	}
}

// next is the first character from p on that is no blank, and where it ends. It
// is 0 at the end of the text.
func (r reading) next(p int) (c byte, end int) {
	if p = r.over(p); p < len(r) {
		return r[p].c, p + int(r[p].n)
	}
	return 0, p
}

// over is p, or the end of the blanks at p.
func (r reading) over(p int) int {
	for n := 0; n < maxBlanks && p < len(r) && r[p].c == 0; n++ {
		p += int(r[p].n)
	}
	return p
}

// backslash is the escape whose backslash ends at p.
func (r reading) backslash(p int) (c byte, end int) {
	if end := r.lineBreak(p); end > 0 {
		return 0, end
	}
	c, end = r.next(p)
	switch {
	case c == 'u':
		return r.hex(end, 4)
	case c == 'x':
		return r.hex(end, 2)
	case controls[c] != 0:
		return controls[c], end
	case c > ' ' && c <= '~' && !isLetter(c) && !isNumeral(c):
		return c, end
	default:
		return 0, 0
	}
}

// controls are the control characters that a letter after a backslash means.
var controls = [256]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// hex is the character whose number stands at p in that many digits.
func (r reading) hex(p, digits int) (byte, int) {
	v := 0
	for range digits {
		c, end := r.next(p)
		d := hexValue(c)
		if d < 0 {
			return 0, 0
		}
		v, p = v<<4|d, end
	}
	if digits > 2 && v > '~' {
		return other, p
	}
	return byte(v), p
}

func hexValue(c byte) int {
	switch {
	case isNumeral(c):
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

func isNumeral(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// lineBreak is where the line break at p ends, 0 if there is none.
func (r reading) lineBreak(p int) int {
	c, end := r.next(p)
	if c == '\r' {
		c, end = r.next(end)
	}
	if c != '\n' {
		return 0
	}
	return end
}

// The longest reference to a character, without & and semicolon: a number with
// zeros in front, or a name.
const (
	maxNumber = 8
	maxName   = 16
)

// entity is the HTML character reference whose ampersand ends at p. Without a
// semicolon it is none: where it ends would be a guess.
func (r reading) entity(p int) (byte, int) {
	c, end := r.next(p)
	if c == '#' {
		return r.number(end)
	}
	var name [maxName + 1]byte
	for n := range name {
		switch {
		case c == ';' && entities[string(name[:n])] != 0:
			return entities[string(name[:n])], end
		case !isLetter(c):
			return 0, 0
		}
		name[n] = c
		c, end = r.next(end)
	}
	return 0, 0
}

// entities are the named references to printable ASCII and to white space.
var entities = map[string]byte{
	"Tab": '\t', "NewLine": '\n', "excl": '!', "QUOT": '"', "quot": '"', "num": '#', "dollar": '$', "percnt": '%',
	"AMP": '&', "amp": '&', "apos": '\'', "lpar": '(', "rpar": ')', "ast": '*', "midast": '*', "plus": '+', "comma": ',',
	"period": '.', "sol": '/', "colon": ':', "semi": ';', "LT": '<', "lt": '<', "equals": '=', "GT": '>', "gt": '>',
	"quest": '?', "commat": '@', "lbrack": '[', "lsqb": '[', "bsol": '\\', "rbrack": ']', "rsqb": ']', "Hat": '^',
	"lowbar": '_', "UnderBar": '_', "DiacriticalGrave": '`', "grave": '`', "lbrace": '{', "lcub": '{', "verbar": '|',
	"vert": '|', "VerticalLine": '|', "rbrace": '}', "rcub": '}',
}

// number is the rest of a numeric reference, after its #.
func (r reading) number(p int) (byte, int) {
	base := 10
	c, end := r.next(p)
	if c == 'x' || c == 'X' {
		base = 16
		c, end = r.next(end)
	}
	v := 0
	for n := 0; n <= maxNumber; n++ {
		d := hexValue(c)
		switch {
		case c == ';' && n > 0 && v <= '~':
			return byte(v), end
		case c == ';' && n > 0:
			return other, end
		case d < 0 || d >= base:
			return 0, 0
		}
		v = v*base + d
		c, end = r.next(end)
	}
	return 0, 0
}
