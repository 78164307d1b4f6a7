// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// Anybody can make keys whose checksum is right: what is kept of them has a bound.
func TestFindsHaveABound(t *testing.T) {
	f := newFindings(nil, nil)
	k := mint(t, "ak")
	for i := range maxFound + 3 {
		f.add(where{path: fmt.Sprint(i)}, k, 1, 1)
	}
	f.add(where{path: "0"}, k, 2, 1) // one that is known still counts
	if len(f.found) != maxFound || len(f.problems) != 1 || !errors.Is(f.problems[0].err, errTooMany) || f.found[spot{where{path: "0"}, k.Reveal()}].count != 2 {
		t.Errorf("%d finds, problems %v", len(f.found), f.problems)
	}
}

// A name in an index of version 4 is said as a part of the one before: a small file can
// stand for any number of bytes.
func TestAnIndexThatGrows(t *testing.T) {
	index := func(entries int) []byte {
		raw := binary.BigEndian.AppendUint32([]byte("DIRC"), 4)
		raw = binary.BigEndian.AppendUint32(raw, uint32(entries+1)) //nolint:gosec // not many
		entry := func(name string) {
			raw = append(raw, make([]byte, 40+20+2)...)
			raw = append(raw, 0) // nothing of the last name is dropped
			raw = append(append(raw, name...), 0)
		}
		entry(strings.Repeat("x", 1<<20))
		for range entries {
			entry("y")
		}
		return append(raw, make([]byte, 20)...)
	}
	if names, err := indexNames(index(3), 20); err != nil || len(names) != 4 {
		t.Fatalf("%d names, %v", len(names), err)
	}
	if _, err := indexNames(index(300), 20); !errors.Is(err, errIndex) {
		t.Errorf("%v", err)
	}
}

func TestTheBeginningOfWhatGitSays(t *testing.T) {
	var b beginning
	if n, err := io.Copy(&b, bytes.NewReader(make([]byte, 1<<20))); n != 1<<20 || err != nil || len(b.String()) != 1024 {
		t.Errorf("%d of %d bytes kept, %v", len(b.String()), n, err)
	}
}
