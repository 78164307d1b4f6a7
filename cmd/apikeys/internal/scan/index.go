// SPDX-License-Identifier: MPL-2.0

package scan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

var errIndex = errors.New("is not an index of git that can be read")

// indexNames are the names of the files in an index of git, of version 2, 3 or 4. One
// that says the rest is in another file cannot be read.
func indexNames(raw []byte, hashLen int) ([]string, error) {
	if len(raw) < 12+hashLen || string(raw[:4]) != "DIRC" {
		return nil, errIndex
	}
	version, count := binary.BigEndian.Uint32(raw[4:]), binary.BigEndian.Uint32(raw[8:])
	if version < 2 || version > 4 {
		return nil, errIndex
	}
	rest := raw[12 : len(raw)-hashLen]
	var names []string
	last, room := "", maxNames
	for range count {
		name, n := indexEntry(rest, version, hashLen, last)
		// Of version 4 a name can stand for many more bytes than it takes.
		if room -= len(name); n == 0 || room < 0 {
			return nil, errIndex
		}
		rest, last = rest[n:], name
		names = append(names, name)
	}
	for len(rest) >= 8 { // the extensions
		n := uint64(binary.BigEndian.Uint32(rest[4:])) + 8
		if n > uint64(len(rest)) || string(rest[:4]) == "link" {
			return nil, errIndex
		}
		rest = rest[n:]
	}
	// It is sorted; whoever wrote it otherwise shall not hide a file.
	slices.Sort(names)
	return names, nil
}

// maxNames is how long the names in an index may be, together.
const maxNames = 256 << 20

// indexEntry is the name of the first entry, and the entry's length; 0 if there is none.
func indexEntry(raw []byte, version uint32, hashLen int, last string) (name string, n int) {
	const stat = 40
	n = stat + hashLen + 2
	if len(raw) < n {
		return "", 0
	}
	if extended := raw[n-2]&0x40 != 0; extended {
		n += 2
	}
	keep := 0 // of the last name
	if version == 4 {
		drop, digits := 0, 0
		for {
			if n >= len(raw) || digits > 4 {
				return "", 0
			}
			c := raw[n]
			n++
			drop = drop<<7 | int(c&0x7f)
			if c&0x80 == 0 {
				break
			}
			drop, digits = drop+1, digits+1
		}
		if keep = len(last) - drop; keep < 0 {
			return "", 0
		}
	}
	if n > len(raw) {
		return "", 0
	}
	end := bytes.IndexByte(raw[n:], 0)
	if end < 0 {
		return "", 0
	}
	name = last[:keep] + string(raw[n:n+end])
	if n += end + 1; version < 4 {
		n = (n + 7) &^ 7
	}
	if n > len(raw) {
		return "", 0
	}
	return name, n
}
