// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"fmt"
	"regexp"

	"github.com/hashicorp/vault/sdk/logical"
)

// init compiles the patterns. Mistakes in the table are the programmer's and panic.
func (b *Backend) init() {
	b.pathsRe = make([]*regexp.Regexp, len(b.Paths))
	for i, p := range b.Paths {
		if p.Pattern == "" {
			panic("Routing pattern cannot be blank")
		}
		if p.hasOperation(logical.CreateOperation) && p.ExistenceCheck == nil {
			// Nothing would ever be created: without the check the server asks for updates only.
			panic(fmt.Sprintf("Pattern %v defines a CreateOperation but no ExistenceCheck", p.Pattern))
		}
		p.anchor()
		b.pathsRe[i] = regexp.MustCompile(p.Pattern)
	}
}

// anchor looks at the outer bytes only, so that a top-level alternation ends up half anchored: write it in a group.
func (p *Path) anchor() {
	if p.Pattern[0] != '^' {
		p.Pattern = "^" + p.Pattern
	}
	if p.Pattern[len(p.Pattern)-1] != '$' {
		p.Pattern += "$"
	}
}

// Route returns the path that would answer; nil if there is none.
func (b *Backend) Route(path string) *Path {
	p, _ := b.route(path)
	return p
}

// route returns the captures of named groups too. A group that took no part in the match is captured as "".
func (b *Backend) route(path string) (*Path, map[string]string) {
	b.once.Do(b.init)

	for i, re := range b.pathsRe {
		matches := re.FindStringSubmatch(path)
		if matches == nil {
			continue
		}
		captures := make(map[string]string)
		for j, name := range re.SubexpNames() {
			if name != "" {
				captures[name] = matches[j]
			}
		}
		return b.Paths[i], captures
	}
	return nil, nil
}
