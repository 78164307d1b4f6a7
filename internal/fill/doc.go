// SPDX-License-Identifier: MPL-2.0

// Package fill makes requests out of templates that somebody wrote: JSON trees, URLs and
// header values in which ${name} stands for a value. There is nothing else: no control
// flow, no functions, no text that is put together and read again. A value is data
// wherever it lands, and what it contains is never looked at for names.
//
//	tree, err := fill.ParseTree("template", raw, []string{"type", "data.role", "secret.token"})
//	body, err := tree.Fill(func(name string) (any, bool) { … })
//
// A template is checked when it is written: each name must be one of those that the
// caller knows. $$ is a dollar sign; one alone is refused, since it is mostly a slip.
// Names are words with dots between them, and may end in a colon and a form, such as
// expiry:date, which is just another name here.
package fill
