// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// pool is what a sample is drawn from, by the prefix of the files.
type pool struct {
	strata []*stratum
	// skipped are the mutants that are left out as equivalent.
	skipped int
}

// stratum has its mutants in the order in which they are drawn. The order depends on the seed and on
// each mutant alone, so an edit elsewhere leaves the sample as it was.
type stratum struct {
	prefix string
	rest   []*mutant
	want   int
}

// leastOfPrefix is how many mutants a prefix gives, however few it has beside the others.
const leastOfPrefix = 5

func candidates(o *options, c *cache, listed *equivalents, mutants []*mutant) (*pool, error) {
	var survived map[string]bool
	if o.again {
		var err error
		if survived, err = c.survivors(); err != nil {
			return nil, err
		}
	}
	p := &pool{}
	var left []*mutant
	for _, m := range mutants {
		switch {
		case o.only != nil:
			// One that is listed may be asked for, to see whether the reason still holds.
			if o.only.MatchString(m.place()) || o.only.MatchString(m.id) {
				left = append(left, m)
			}
		case !o.files.MatchString(m.file.name) || (o.again && !survived[m.id]):
		case listed.reasons[m.id] != "":
			p.skipped++
		default:
			left = append(left, m)
		}
	}
	n := o.n
	if n == 0 || o.again || o.only != nil {
		n = len(left)
	}
	p.strata = stratify(left, n, o.seed)
	return p, nil
}

// stratify shares n out by the number of mutants that each prefix has.
func stratify(mutants []*mutant, n int, seed uint64) []*stratum {
	by := map[string]*stratum{}
	var strata []*stratum
	for _, m := range mutants {
		s := by[m.prefix()]
		if s == nil {
			s = &stratum{prefix: m.prefix()}
			by[s.prefix] = s
			strata = append(strata, s)
		}
		s.rest = append(s.rest, m)
	}
	slices.SortFunc(strata, func(a, b *stratum) int { return strings.Compare(a.prefix, b.prefix) })
	for _, s := range strata {
		slices.SortFunc(s.rest, func(a, b *mutant) int {
			return cmp.Or(cmp.Compare(rank(seed, a.id), rank(seed, b.id)), strings.Compare(a.id, b.id))
		})
		s.want = min(len(s.rest), leastOfPrefix)
		n -= s.want
	}
	// One by one to the prefix that is furthest behind its share.
	for ; n > 0; n-- {
		var next *stratum
		for _, s := range strata {
			if s.want < len(s.rest) && (next == nil || s.want*len(next.rest) < next.want*len(s.rest)) {
				next = s
			}
		}
		if next == nil {
			break
		}
		next.want++
	}
	return strata
}

func rank(seed uint64, id string) uint64 {
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(nil, seed)) //nolint:errcheck,gosec // a hash does not fail
	h.Write([]byte(id))                               //nolint:errcheck,gosec // the same
	// Identities of neighbours differ in a few bytes; this spreads them.
	x := h.Sum64()
	x ^= x >> 31
	x *= 0x9e3779b97f4a7c15
	return x ^ x>>29
}

// all is the whole of what may be drawn.
func (p *pool) all() []*mutant {
	var all []*mutant
	for _, s := range p.strata {
		all = append(all, s.rest...)
	}
	return all
}

func (p *pool) files() int {
	files := map[*sourceFile]bool{}
	for _, m := range p.all() {
		files[m.file] = true
	}
	return len(files)
}

// sample draws what is wanted.
func (p *pool) sample() []*mutant {
	var drawn []*mutant
	for _, s := range p.strata {
		drawn = append(drawn, s.draw(s.want)...)
	}
	return drawn
}

// instead draws one in the place of a mutant that is no program, nil if there is none left.
func (p *pool) instead(m *mutant) []*mutant {
	for _, s := range p.strata {
		if s.prefix == m.prefix() {
			return s.draw(1)
		}
	}
	return nil
}

func (s *stratum) draw(n int) []*mutant {
	n = min(n, len(s.rest))
	drawn := s.rest[:n]
	s.rest = s.rest[n:]
	return drawn
}

// equivalents are mutants that change nothing that a test could notice.
type equivalents struct {
	reasons map[string]string // by identity
	order   []string
}

// readEquivalents reads a file in which the identity of a mutant is a line of its own and the indented
// lines that follow are the reason.
func readEquivalents(name string) (*equivalents, error) {
	e := &equivalents{reasons: map[string]string{}}
	if name == "" {
		return e, nil
	}
	file, err := os.Open(name) //nolint:gosec // the caller says which file
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		text := strings.TrimSpace(line)
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case line[0] != ' ' && line[0] != '\t':
			if slices.Contains(e.order, text) {
				return nil, fmt.Errorf("%s: listed twice: %s", name, text)
			}
			e.order = append(e.order, text)
		case len(e.order) == 0:
			return nil, fmt.Errorf("%s: a reason before the first mutant: %s", name, text)
		default:
			last := e.order[len(e.order)-1]
			e.reasons[last] = strings.TrimSpace(e.reasons[last] + " " + text)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	for _, id := range e.order {
		if e.reasons[id] == "" {
			return nil, fmt.Errorf("%s: no reason is given for %s", name, id)
		}
	}
	return e, nil
}

// gone are those of the package that its source no longer gives rise to.
func (e *equivalents) gone(p *goPackage, mutants []*mutant) []string {
	var gone []string
	for _, id := range e.order {
		file, _, _ := strings.Cut(id, ":")
		if file[:strings.LastIndexByte(file, '/')+1] != p.rel()+"/" {
			continue
		}
		if !slices.ContainsFunc(mutants, func(m *mutant) bool { return m.id == id }) {
			gone = append(gone, id)
		}
	}
	return gone
}
