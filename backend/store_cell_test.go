// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

func newTestCell() *cell[secretRecord] {
	return &cell[secretRecord]{clock: newFakeClock(), path: configPath, none: &secretRecord{Key: "none"}}
}

// A read that began before a commit or an invalidation does not outlive it.
func TestCellDiscardsReadsThatWereOvertaken(t *testing.T) {
	ctx := context.Background()
	for name, overtake := range map[string]func(*cell[secretRecord], logical.Storage) error{
		"commit": func(c *cell[secretRecord], s logical.Storage) error {
			return c.write(ctx, s, &secretRecord{Key: "new"})
		},
		"invalidation": func(c *cell[secretRecord], s logical.Storage) error {
			plant(t, s, configPath, &secretRecord{Key: "new"})
			c.forget()
			return nil
		},
	} {
		s, c := &pausing{Storage: &logical.InmemStorage{}}, newTestCell()
		s.between = func() {
			s.between = nil
			if err := overtake(c, s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.get(ctx, s); err != nil {
			t.Fatal(err)
		}
		if got, err := c.get(ctx, s); err != nil || got.Key != "new" {
			t.Errorf("%s: then it answers %+v %v", name, got, err)
		}
	}
}

func TestCellForgetsAndRemembers(t *testing.T) {
	ctx := context.Background()
	p := newProbe(&logical.InmemStorage{})
	c := newTestCell()
	var learned []string
	c.learn = func(v *secretRecord) { learned = append(learned, v.Key) }
	if c.last() != nil || c.known() != nil {
		t.Error("something is known of what was never read")
	}
	if got, err := c.get(ctx, p); err != nil || got.Key != "none" {
		t.Fatal(got, err)
	}
	set := func(key string) func(*secretRecord) (*secretRecord, error) {
		return func(*secretRecord) (*secretRecord, error) { return &secretRecord{Key: key}, nil }
	}
	if _, err := c.change(ctx, p, set("one")); err != nil {
		t.Fatal(err)
	}
	p.reset()
	if got, err := c.get(ctx, p); err != nil || got.Key != "one" {
		t.Fatal(got, err)
	}
	if calls, _ := p.count(); calls != 0 {
		t.Errorf("%d calls for what is known", calls)
	}

	// A write of unknown outcome is read again; what was known counts until then.
	p.at, p.fault, p.onlyWrites = 1, faultApplied, true
	if _, err := c.change(ctx, p, set("two")); !errors.Is(err, errStorage) {
		t.Fatal(err)
	}
	if c.known() != nil || c.last().Key != "one" {
		t.Errorf("%+v %+v", c.known(), c.last())
	}
	if got, err := c.get(ctx, p); err != nil || got.Key != "two" {
		t.Fatal(got, err)
	}

	// A change starts from what is stored, not from what is known.
	plant(t, p.Storage, configPath, &secretRecord{Key: "three"})
	p.reset()
	got, err := c.change(ctx, p, func(stored *secretRecord) (*secretRecord, error) {
		if stored.Key != "three" {
			t.Errorf("changed %s", stored.Key)
		}
		return nil, nil
	})
	if _, writes := p.count(); err != nil || got.Key != "three" || writes != 0 || c.known().Key != "three" {
		t.Errorf("%+v %v, %d writes", got, err, writes)
	}
	if want := []string{"none", "none", "one", "one", "two", "three"}; len(learned) != len(want) || learned[5] != "three" {
		t.Errorf("learned %v, want %v", learned, want)
	}
}

// Each cell of a mount forgets when its record changes elsewhere.
func TestCellsAreInvalidated(t *testing.T) {
	m := newMount(t)
	ctx := context.Background()
	m.write("roles/a", nil)
	for name, c := range map[string]struct {
		path  string
		load  func() error
		known func() bool
	}{
		"config":   {configPath, func() error { _, err := m.config(ctx, m.storage); return err }, func() bool { return m.configs.known() != nil }},
		"digests":  {digestPath, func() error { _, err := m.digests(ctx, m.storage); return err }, func() bool { return m.digestSecrets.known() != nil }},
		"mark":     {markPath, func() error { return m.loadMark(ctx, m.storage) }, func() bool { return m.mark.known() != nil }},
		"imported": {importedPath, func() error { _, err := m.importedForms(ctx, m.storage); return err }, func() bool { return m.imported.known() != nil }},
		"prefixes": {prefixesPath, func() error { _, err := m.knownPrefixes(ctx, m.storage); return err }, func() bool { return m.prefixes.known() != nil }},
		"jobs":     {jobPath("x"), func() error { _, err := m.openJobs(ctx, m.storage); return err }, func() bool { return m.jobs.known() != nil }},
	} {
		if err := c.load(); err != nil || !c.known() {
			t.Fatalf("%s: not kept, %v", name, err)
		}
		m.invalidate(ctx, c.path)
		if c.known() {
			t.Errorf("%s outlives an invalidation of %s", name, c.path)
		}
	}
}
