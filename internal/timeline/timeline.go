// SPDX-License-Identifier: MPL-2.0

// Package timeline holds the finite future of a key: what a verification of it will
// say from which instant on, as long as nobody decides otherwise. The engine writes
// it, an edge judges by it. Both forms are here, the one that travels (Entry) and the
// one that is kept (Timeline), so that the two sides cannot understand it differently.
package timeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Schema is the highest form of a timeline that this package knows.
const Schema = 1

// MaxEntries is how many entries a timeline has at most. A key passes through its
// states in one order, so there are never more.
const MaxEntries = 12

// Code is what a verification of the key answers when nothing else is asked: no scope,
// no address, no token of a rate limit.
type Code uint8

// The codes that a timeline can hold.
const (
	Valid Code = iota
	NotFound
	Expired
	Retired
	Revoked
	Disabled
	codes // not a code
)

var codeNames = [codes]string{
	Valid: "VALID", NotFound: "NOT_FOUND", Expired: "EXPIRED", Retired: "RETIRED", Revoked: "REVOKED", Disabled: "DISABLED",
}

func (c Code) String() string { return codeNames[c] }

// Ended reports whether the code is for good.
func (c Code) Ended() bool { return c == Expired || c == Retired || c == Revoked }

// names are texts that stand for small numbers in what is kept.
type names []string

func (n names) number(text string) (uint8, bool) {
	i := slices.Index(n, text)
	return uint8(max(i, 0)), i >= 0 //nolint:gosec // the lists are short
}

var (
	states = names{"", "pending", "current", "previous", "withdrawn", "retired", "expired", "revoked"}
	ends   = names{"", "planned", "hard"}
)

// Entry is what holds from an instant on, as it travels.
type Entry struct {
	From  time.Time `json:"from"`
	Code  string    `json:"code"`
	State string    `json:"state"`
	// Reason of an end, as verify says it.
	Reason string `json:"reason,omitempty"`
	// End is the kind of the end that is known: planned, hard, or empty without one.
	End string `json:"end,omitempty"`
	// Renewable: this end is that of a lease, which a renewal moves.
	Renewable bool `json:"renewable,omitempty"`
	// HoldUntil: this end is that of the grace of an automatic rotation. Who cannot ask
	// may go on accepting the key until then.
	HoldUntil time.Time `json:"hold_until,omitzero"`
}

// Data is the entry as an answer holds it.
func (e *Entry) Data() map[string]any {
	data := map[string]any{"from": e.From.UTC().Format(time.RFC3339Nano), "code": e.Code, "state": e.State}
	for name, text := range map[string]string{"reason": e.Reason, "end": e.End} {
		if text != "" {
			data[name] = text
		}
	}
	if e.Renewable {
		data["renewable"] = true
	}
	if !e.HoldUntil.IsZero() {
		data["hold_until"] = e.HoldUntil.UTC().Format(time.RFC3339Nano)
	}
	return data
}

// Moment is what a key is at one instant.
type Moment struct {
	Code          Code
	State, Reason string
	// Until is the earliest known end of a key that has not ended, and the end itself
	// of one that has; End its kind.
	Until time.Time
	End   string
	// Renewable and HoldUntil tell of an end that has happened.
	Renewable bool
	HoldUntil time.Time
}

// Build is the timeline from now on: at is asked for now and for each of the dates
// after it, which have to hold every instant at which its answer changes.
func Build(now time.Time, dates []time.Time, at func(time.Time) Moment) []Entry {
	dates = slices.DeleteFunc(dates, func(t time.Time) bool { return !t.After(now) })
	slices.SortFunc(dates, time.Time.Compare)
	dates = slices.Compact(append([]time.Time{now}, dates...))
	var entries []Entry
	for _, t := range dates {
		m := at(t)
		e := Entry{From: t, Code: m.Code.String(), State: m.State, Reason: m.Reason, End: m.End}
		if m.Code.Ended() {
			e.Renewable, e.HoldUntil = m.Renewable, m.HoldUntil
			if len(entries) == 0 && !m.Until.IsZero() && m.Until.Before(t) {
				e.From = m.Until // an end in the past; one that a clock decided which was ahead holds already
			}
		}
		if last := len(entries) - 1; last >= 0 && same(&entries[last], &e) {
			continue
		}
		if entries = append(entries, e); len(entries) == MaxEntries {
			break
		}
	}
	return entries
}

func same(a, b *Entry) bool {
	return a.Code == b.Code && a.State == b.State && a.Reason == b.Reason && a.End == b.End
}

// Timeline is a timeline as it is kept: small, and judged without an allocation.
// Instants are nanoseconds since 1970.
type Timeline []Step

// Step is one entry of a Timeline.
type Step struct {
	from, hold         int64
	code               Code
	state, reason, end uint8
	renewable          bool
}

var errNone = errors.New("a timeline has no entries")

// reasons is what an end may say; what is not among them is kept as empty.
var reasons = names{
	"", "grace_ended", "rolled_back", "superseded", "lapsed",
	"unspecified", "leaked", "offboarded", "abuse", "policy",
}

// Parse is the timeline of entries that came from somewhere. What it does not know it
// refuses: an edge must not guess.
func Parse(entries []Entry) (Timeline, error) {
	if len(entries) == 0 {
		return nil, errNone
	}
	if len(entries) > MaxEntries {
		return nil, fmt.Errorf("a timeline of %d entries: %d at most", len(entries), MaxEntries)
	}
	t := make(Timeline, len(entries))
	for i := range entries {
		e := &entries[i]
		code := slices.Index(codeNames[:], e.Code)
		state, knownState := states.number(e.State)
		end, knownEnd := ends.number(e.End)
		reason, _ := reasons.number(e.Reason)
		switch {
		case code < 0 || !knownState || !knownEnd:
			return nil, fmt.Errorf("entry %d of a timeline: code %q, state %q, end %q", i, e.Code, e.State, e.End)
		case e.From.Year() < 1970 || e.From.Year() > 2200:
			return nil, fmt.Errorf("entry %d of a timeline: from %v", i, e.From)
		case i > 0 && !e.From.After(entries[i-1].From): //nolint:gosec // i > 0
			return nil, fmt.Errorf("entry %d of a timeline is not after the one before", i)
		case i > 0 && t[i-1].code.Ended() && !Code(code).Ended(): //nolint:gosec // an index of the list
			return nil, fmt.Errorf("entry %d of a timeline is good after an end", i)
		}
		t[i] = Step{
			from: e.From.UnixNano(), code: Code(code), //nolint:gosec // an index of the list
			state: state, reason: reason, end: end, renewable: e.Renewable,
		}
		if !e.HoldUntil.IsZero() {
			t[i].hold = e.HoldUntil.UnixNano()
		}
	}
	return t, nil
}

// Entries is the timeline in the form that travels.
func (t Timeline) Entries() []Entry {
	entries := make([]Entry, len(t))
	for i := range t {
		s := &t[i]
		entries[i] = Entry{
			From: time.Unix(0, s.from).UTC(), Code: s.code.String(), State: states[s.state], Reason: reasons[s.reason], End: ends[s.end],
			Renewable: s.renewable,
		}
		if s.hold != 0 {
			entries[i].HoldUntil = time.Unix(0, s.hold).UTC()
		}
	}
	return entries
}

// At is the number of the entry that holds at that instant. Before the first one that
// one holds: it was true when it was told.
func (t Timeline) At(now int64) int {
	i := len(t) - 1
	for i > 0 && now < t[i].from {
		i--
	}
	return i
}

// Held is At for who could not ask since confirmed: an end that an automatic rotation
// brought after that is held back, since the key's holders cannot fetch their new key
// either.
func (t Timeline) Held(now, confirmed int64) int {
	i := t.At(now)
	if s := &t[i]; i > 0 && s.code.Ended() && !t[i-1].code.Ended() && s.hold != 0 && s.from > confirmed && now < s.hold {
		return i - 1
	}
	return i
}

// Code is what entry i says.
func (t Timeline) Code(i int) Code { return t[i].code }

// State of the key in entry i.
func (t Timeline) State(i int) string { return states[t[i].state] }

// Reason of an end in entry i.
func (t Timeline) Reason(i int) string { return reasons[t[i].reason] }

// End is the kind of the end that is known in entry i.
func (t Timeline) End(i int) string { return ends[t[i].end] }

// Renewable reports whether entry i is the end of a lease, which a renewal moves.
func (t Timeline) Renewable(i int) bool { return t[i].renewable }

// Ends is the instant at which the key ends, as known in entry i, or has ended; false
// if none is known.
func (t Timeline) Ends(i int) (int64, bool) {
	if j := t.FirstEnd(i); j >= 0 {
		return t[j].from, true
	}
	return math.MaxInt64, false
}

// FirstEnd is the number of the entry, from i on, in which the key has ended; -1 if
// there is none.
func (t Timeline) FirstEnd(i int) int {
	for ; i < len(t); i++ {
		if t[i].code.Ended() {
			return i
		}
	}
	return -1
}

// AppendBinary appends the timeline in a form of its own, for a file.
func (t Timeline) AppendBinary(out []byte) []byte {
	out = append(out, byte(len(t)))
	for i := range t {
		s := &t[i]
		var flags byte
		if s.renewable {
			flags = 1
		}
		out = append(out, byte(s.code), s.state, s.reason, s.end, flags)
		out = binary.AppendVarint(out, s.from)
		out = binary.AppendVarint(out, s.hold)
	}
	return out
}

var errBinary = errors.New("not a timeline")

// ReadBinary reads what AppendBinary has written, and returns the rest.
func ReadBinary(in []byte) (Timeline, []byte, error) {
	if len(in) == 0 || in[0] == 0 || in[0] > MaxEntries {
		return nil, nil, errBinary
	}
	t := make(Timeline, in[0])
	in = in[1:]
	for i := range t {
		if len(in) < 5 || in[0] >= byte(codes) || int(in[1]) >= len(states) || int(in[2]) >= len(reasons) || int(in[3]) >= len(ends) {
			return nil, nil, errBinary
		}
		t[i] = Step{code: Code(in[0]), state: in[1], reason: in[2], end: in[3], renewable: in[4] == 1}
		in = in[5:]
		for _, p := range []*int64{&t[i].from, &t[i].hold} {
			v, n := binary.Varint(in)
			if n <= 0 {
				return nil, nil, errBinary
			}
			*p, in = v, in[n:]
		}
	}
	return t, in, nil
}
