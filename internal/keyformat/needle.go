// SPDX-License-Identifier: MPL-2.0

package keyformat

import (
	"slices"
	"strings"
)

// minNeedle is the length from which a secret is looked for inside a text.
const minNeedle = 4

// markSecrets finds the secrets in text: as they are, and where both read the
// same. A secret may hold what looks like an escape itself ("a%41b"), and then a
// text that holds it is decoded one layer too far; so each way in which the
// secret reads is looked for.
func markSecrets(text string, secrets []string) []mark {
	var marks []mark
	var needles []needle
	for _, s := range secrets {
		if len(s) < minNeedle {
			continue
		}
		for i := 0; ; {
			j := strings.Index(text[i:], s)
			if j < 0 {
				break
			}
			marks = append(marks, mark{start: i + j, end: i + j + len(s)})
			i += j + len(s)
		}
		for _, way := range ways(s) {
			needles = append(needles, newNeedle(way))
		}
	}
	if len(needles) == 0 || !strings.ContainsAny(text, "%=\\&+\x00") {
		return marks
	}
	states := make([]int32, len(text)+1)
	l := readingsOf(text, nil)
	for r, last := l.next(); r != nil; r, last = l.next() {
		if !last {
			continue
		}
		for i := range needles {
			marks = append(marks, needles[i].marks(text, r, states)...)
		}
	}
	return marks
}

// ways are the ways in which a secret reads.
func ways(secret string) []string {
	all := []string{secret}
	l := readingsOf(secret, nil)
	for r, _ := l.next(); r != nil; r, _ = l.next() {
		var way strings.Builder
		for p := 0; p < len(r); p += int(r[p].n) {
			if r[p].c != 0 {
				way.WriteByte(r[p].c)
			}
		}
		if way.Len() >= minNeedle && !slices.Contains(all, way.String()) {
			all = append(all, way.String())
		}
	}
	return all
}

// needle is a secret to look for from right to left, since a glyph knows its
// successor only, with the failure function of Knuth, Morris and Pratt: the time
// is linear in the length of the text, whatever the secret.
type needle struct {
	back []byte // the secret backwards
	fail []int32
	// tail is the end of the secret that what follows in the text may change:
	// the padding of base64 before a line break reads as a soft one.
	tail string
}

func newNeedle(s string) needle {
	core := strings.TrimRight(s, "%=\\&")
	if len(core) < minNeedle {
		core = s
	}
	n := needle{back: make([]byte, len(core)), fail: make([]int32, len(core)+1), tail: s[len(core):]}
	for i := range len(core) {
		n.back[len(core)-1-i] = folded(core[i])
	}
	n.fail[0] = -1
	border := int32(0)
	for i := 1; i < len(core); i++ {
		n.fail[i] = border
		if n.back[i] == n.back[border] {
			// What failed at i fails there too. This bounds the steps at a place
			// that many readings share.
			n.fail[i] = n.fail[border]
		}
		border = n.step(border, n.back[i])
	}
	n.fail[len(core)] = border
	return n
}

// folded takes a plus for the space that it is in a form.
func folded(c byte) byte {
	if c == '+' {
		return ' '
	}
	return c
}

// step is how much of the needle has been seen after c, where it was k before.
func (n *needle) step(k int32, c byte) int32 {
	for k >= 0 && (int(k) == len(n.back) || n.back[k] != c) {
		k = n.fail[k]
	}
	return k + 1
}

// marks finds the needle in text, which reads as r. states is memory to work in,
// one longer than the text.
func (n *needle) marks(text string, r reading, states []int32) []mark {
	var marks []mark // from right to left, apart from each other
	states[len(r)] = 0
	for p := len(r) - 1; p >= 0; p-- {
		after := p + int(r[p].n)
		if r[p].c == 0 {
			states[p] = states[after]
			continue
		}
		states[p] = n.step(states[after], folded(r[p].c))
		if int(states[p]) < len(n.back) {
			continue
		}
		// What overlaps with the next one is made one with it. So no place of the
		// text is walked over twice, nor marked twice.
		end, left := after, len(n.back)-1
		last := len(marks) - 1
		for left > 0 && (last < 0 || end <= marks[last].start) {
			if r[end].c != 0 {
				left--
			}
			end += int(r[end].n)
		}
		if last >= 0 && end > marks[last].start {
			marks[last].start = p
			continue
		}
		marks = append(marks, mark{start: p, end: n.overTail(text, r, end)})
	}
	return marks
}

// overTail is where the tail of the needle ends that begins at p, as far as it
// is there.
func (n *needle) overTail(text string, r reading, p int) int {
	for i := range len(n.tail) {
		switch {
		case p < len(r) && r[p].c == n.tail[i]:
			p += int(r[p].n)
		case p < len(r) && text[p] == n.tail[i]:
			p++
		default:
			return p
		}
	}
	return p
}
