// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"strings"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyformat"
)

// What the mount has to remember of imports (the digest secrets under which keys of
// other forms are found) and of prefixes grows with what is made, and a pass makes
// it shrink: it notes what it comes across, and at the end of the stage what was
// not seen is put aside. It still counts then, and goes at the end of the next
// pass, unless that saw it or somebody took it up meanwhile: whoever imports a key
// or makes one looks at the record first, and writes down what is not there. An
// older build does so too; it does not know what was put aside. So nothing goes
// that somebody has used since the pass before began.

// foreignSeen is what the stage of keys has seen of keys that have not this
// engine's form.
type foreignSeen struct {
	// From is the digest secret that was in use when the stage began: imports have
	// used none before it since.
	From int `json:"from"`
	// Aside and WeakAside are what had been put aside by then: only that may go.
	Aside     []int `json:"aside,omitempty"`
	WeakAside bool  `json:"weak_aside,omitempty"`

	// Numbers of the digest secrets of the keys that were seen.
	Numbers []int `json:"numbers,omitempty"`
	// Weak: a key was seen that is too short for what is otherwise looked up;
	// MaybeWeak: one that may be.
	Weak      bool `json:"weak,omitempty"`
	MaybeWeak bool `json:"maybe_weak,omitempty"`
}

// beginForeign begins to note them. Where the notes are not kept for all of the
// stage, since an older build did a part of it or a record could not be read,
// nothing shrinks.
func (r *tidyRun) beginForeign(ctx context.Context) error {
	r.b.importMu.Lock() // no import is half done
	defer r.b.importMu.Unlock()
	r.rec.Foreign = nil
	d, err := getRecord[digestRecord](ctx, r.s, digestPath)
	if err != nil || d == nil {
		return err
	}
	aside, err := r.b.aside.fill(ctx, r.s)
	if err != nil {
		return err
	}
	r.rec.Foreign = &foreignSeen{From: d.Current, Aside: aside.Numbers, WeakAside: aside.Weak}
	return nil
}

// unseen gives up what the stage notes: it could not read a record.
func (r *tidyRun) unseen() {
	switch r.rec.Stage {
	case "deleted", "roles":
		r.rec.Prefixes = nil
	case "keys":
		r.rec.Foreign = nil
	}
}

// sawKey notes a key that stays; role is its role's record, nil while that is
// deleted.
func (r *tidyRun) sawKey(rec *keyRecord, role *roleRecord) {
	seen := r.rec.Foreign
	if seen == nil || len(rec.ID) != keyformat.ImportedIDLen {
		return
	}
	n, err := keyformat.DigestVersion(rec.Digest)
	if err != nil {
		r.rec.Foreign = nil
		return
	}
	if !slices.Contains(seen.Numbers, n) {
		seen.Numbers = append(seen.Numbers, n)
	}
	if rec.Weak {
		seen.Weak = true
		return
	}
	if role == nil {
		seen.MaybeWeak = true
		return
	}
	if v := role.Ring.Get(rec.Version); v != nil && v.KeyID == rec.ID {
		seen.Weak = seen.Weak || strings.HasPrefix(v.Strength, strengthWeak)
		seen.MaybeWeak = seen.MaybeWeak || v.Strength == strengthUnknown
	}
}

// endForeign makes verification look under the digest secrets that keys were seen
// under, and for a while under those that were put aside.
func (r *tidyRun) endForeign(ctx context.Context) error {
	seen := r.rec.Foreign
	if seen == nil {
		return nil
	}
	r.b.importMu.Lock()
	defer r.b.importMu.Unlock()
	stored, err := r.b.imported.fill(ctx, r.s)
	if err != nil {
		return err
	}
	before, err := r.b.aside.fill(ctx, r.s)
	if err != nil {
		return err
	}
	next, aside := stored.after(before, seen)
	// Where a crash comes between the writes this begins anew, and must not take for
	// unused what only the record said that it replaces.
	if seen.keep(aside) {
		if err := r.b.keepTidy(ctx, r.s, r.rec); err != nil {
			return err
		}
	}
	// First what keeps it.
	if err := r.b.replaceForms(ctx, r.s, &r.b.aside, before, before.with(aside)); err != nil {
		return err
	}
	if err := r.b.replaceForms(ctx, r.s, &r.b.imported, stored, next); err != nil {
		return err
	}
	if err := r.b.replaceForms(ctx, r.s, &r.b.aside, before.with(aside), aside); err != nil {
		return err
	}
	r.rec.Foreign = nil
	return nil
}

// keep notes that what stays aside may not go in this pass; false if that was known.
func (f *foreignSeen) keep(aside *importedRecord) bool {
	n := len(f.Aside)
	f.Aside = slices.DeleteFunc(slices.Clone(f.Aside), func(n int) bool { return slices.Contains(aside.Numbers, n) })
	news := len(f.Aside) < n || f.WeakAside && aside.Weak
	f.WeakAside = f.WeakAside && !aside.Weak
	return news
}

// after is the record at the end of a stage that has seen so much, and what is aside
// then; before is what was aside just before.
func (r *importedRecord) after(before *importedRecord, seen *foreignSeen) (next, aside *importedRecord) {
	next = &importedRecord{Schema: recordSchema, Numbers: slices.Clone(seen.Numbers)}
	newestFirst(next.Numbers)
	next.Weak = seen.Weak || seen.MaybeWeak && (r.Weak || before.Weak)
	aside = &importedRecord{Schema: recordSchema, Weak: !next.Weak && (r.Weak || before.Weak && !seen.WeakAside)}
	for _, n := range r.with(before).Numbers {
		// The one in use when the stage began may have been used since: only a stage
		// that begins after it went out of use can say that no key has it.
		kept := n >= seen.From || !slices.Contains(r.Numbers, n) && !slices.Contains(seen.Aside, n)
		if kept && !slices.Contains(seen.Numbers, n) {
			aside.Numbers = append(aside.Numbers, n)
		}
	}
	return next, aside
}

// prefixesSeen is what the stages of roles have seen of prefixes.
type prefixesSeen struct {
	Own      []string `json:"own,omitempty"`      // sorted
	Imported []string `json:"imported,omitempty"` // sorted
	// Unknown: there are keys that an older build imported, which may have any
	// prefix that is known.
	Unknown bool `json:"unknown,omitempty"`
}

// sawRole notes the prefixes of a role: those of its next keys, of its versions,
// and those of which its history tells. rec may be the copy of a deleted one.
func (r *tidyRun) sawRole(rec *roleRecord) {
	seen := r.rec.Prefixes
	if seen == nil {
		return
	}
	t, err := rec.under(&rec.Policy, r.tick.lim)
	if err != nil {
		r.rec.Prefixes = nil
		return
	}
	note(&seen.Own, t.Prefix)
	for i := range rec.Ring.Versions {
		v := &rec.Ring.Versions[i]
		switch {
		case v.Strength == "":
			note(&seen.Own, v.Prefix)
		case v.Strength == strengthOwn && v.Prefix == "":
			seen.Unknown = true
		default:
			note(&seen.Imported, v.Prefix)
		}
	}
	for i := range rec.History {
		c := rec.History[i].Fields["prefix"]
		for _, was := range []any{c.Old, c.New} {
			if prefix, ok := was.(string); ok {
				note(&seen.Own, prefix)
			}
		}
	}
}

// note adds a prefix to a sorted list, which takes so much that it shows whether
// there is more than is kept.
func note(list *[]string, prefix string) {
	at, known := slices.BinarySearch(*list, prefix)
	if prefix != "" && !known && len(*list) < 2*maxPrefixes+2 {
		*list = slices.Insert(*list, at, prefix)
	}
}

// endPrefixes adds to the known prefixes what lacks there and, where the list is
// full, puts aside what no role has any more.
func (r *tidyRun) endPrefixes(ctx context.Context) error {
	seen := r.rec.Prefixes
	if seen == nil {
		return nil
	}
	_, err := r.b.prefixes.change(ctx, r.s, func(stored *prefixRecord) (*prefixRecord, error) {
		next := stored.after(seen)
		if next.same(stored) {
			return nil, nil
		}
		return next, nil
	})
	if err == nil {
		r.rec.Prefixes = nil
	}
	return err
}

// after is the record at the end of the stages that have seen so much.
func (r *prefixRecord) after(seen *prefixesSeen) *prefixRecord {
	next := &prefixRecord{Schema: recordSchema}
	own, imported := seen.Own, seen.Imported
	full := r.Truncated || r.ImportedTruncated
	if !full {
		own, imported = union(r.Prefixes, own), union(r.Imported, imported)
	}
	if seen.Unknown {
		imported = union(imported, union(r.Imported, r.Prefixes))
	}
	next.Prefixes, next.Truncated = bounded(own)
	next.Imported, next.ImportedTruncated = bounded(without(imported, own))
	if full {
		next.Aside, _ = bounded(without(without(union(r.Prefixes, r.Imported), next.Prefixes), next.Imported))
	}
	return next
}

func bounded(list []string) (kept []string, truncated bool) {
	return list[:min(len(list), maxPrefixes)], len(list) > maxPrefixes
}
