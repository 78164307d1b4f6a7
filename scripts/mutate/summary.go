// SPDX-License-Identifier: MPL-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// summary is what a run found.
type summary struct {
	o        *options
	out      io.Writer
	progress io.Writer
	built    *built
	outcomes []outcome
}

// add notes an outcome and tells how far the run is.
func (s *summary) add(o outcome) {
	s.outcomes = append(s.outcomes, o)
	done := len(s.outcomes)
	if s.o.verbose {
		fmt.Fprintf(s.progress, "%4d/%d  %-9s %s  %s\n", done, len(s.built.mutants), o.verdict, o.m.place(), o.by)
	} else if done%20 == 0 {
		fmt.Fprintf(s.progress, "%4d/%d  %d survived\n", done, len(s.built.mutants), len(s.survivors()))
	}
}

func (v verdict) String() string {
	return [...]string{"killed", "hung", "survived", "unreached", "broken"}[v]
}

// survivors are those that no test noticed, in the order of the source.
func (s *summary) survivors() []outcome {
	var all []outcome
	for _, o := range s.outcomes {
		if o.verdict == survived || o.verdict == unreached {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b outcome) int {
		return cmp.Or(strings.Compare(a.m.file.name, b.m.file.name), cmp.Compare(a.m.at, b.m.at), strings.Compare(a.m.id, b.m.id))
	})
	return all
}

// count is a line of the table.
type count struct{ killed, hung, survived, unreached int }

func (c *count) add(v verdict) {
	switch v {
	case killed:
		c.killed++
	case hung:
		c.hung++
	case survived:
		c.survived++
	case unreached:
		c.unreached++
	case broken:
	}
}

func (c *count) all() int { return c.killed + c.hung + c.survived + c.unreached }

// share is how many of a hundred are killed.
func (c *count) share() float64 {
	if c.all() == 0 {
		return 100
	}
	return 100 * float64(c.killed+c.hung) / float64(c.all())
}

func (s *summary) share() float64 {
	total := &count{}
	for _, o := range s.outcomes {
		total.add(o.verdict)
	}
	return total.share()
}

func (s *summary) print(took time.Duration) {
	for _, o := range s.survivors() {
		note := ""
		if o.verdict == unreached {
			note = "  (no test reaches it)"
		}
		fmt.Fprintf(s.out, "%s  %s%s\n  - %s\n  + %s\n", o.m.place(), o.m.function(), note, o.m.was, o.m.now)
	}
	by := map[string]*count{}
	total := &count{}
	notBuilt := s.built.broken
	var prefixes []string
	for _, o := range s.outcomes {
		if by[o.m.prefix()] == nil {
			by[o.m.prefix()] = &count{}
			prefixes = append(prefixes, o.m.prefix())
		}
		by[o.m.prefix()].add(o.verdict)
		total.add(o.verdict)
		if o.verdict == broken {
			notBuilt++
		}
	}
	slices.Sort(prefixes)
	fmt.Fprintf(s.out, "%-12s %8s %8s %8s %10s %10s %8s\n", "files", "mutants", "killed", "hung", "survived", "unreached", "share")
	line := func(name string, c *count) {
		fmt.Fprintf(s.out, "%-12s %8d %8d %8d %10d %10d %6.1f %%\n", name, c.all(), c.killed, c.hung, c.survived, c.unreached, c.share())
	}
	for _, prefix := range prefixes {
		line(prefix, by[prefix])
	}
	line("all", total)
	fmt.Fprintf(s.out, "%d more do not compile, %d are listed as equivalent; seed %d; %s\n",
		notBuilt, s.built.skipped, s.o.seed, took.Round(time.Second))
	if total.all() < len(s.built.mutants)-(notBuilt-s.built.broken) {
		fmt.Fprintln(s.out, "the run did not come to its end")
	}
}
