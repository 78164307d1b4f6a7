// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// MaxLabels is how many labels the uses of a version are told apart by.
	// What comes with further ones is counted under OtherLabel.
	MaxLabels = 64
	// OtherLabel is the label of what came with labels beyond these.
	OtherLabel = "other"
)

// Tally is how often something was used. Times are Unix seconds.
type Tally struct {
	Accepted int64    `json:"a,omitempty"`
	Refused  Refusals `json:"r,omitempty"`
	First    int64    `json:"f,omitempty"`
	Last     int64    `json:"l,omitempty"`
	Used     int64    `json:"u,omitempty"` // last accepted use
	// Clients are the uses by label. Labels have none of their own.
	Clients map[string]*Tally `json:"c,omitempty"`
}

// hit counts one use: accepted, if there is no code that refused it.
func (t *Tally) hit(refused string, at int64) {
	if refused == "" {
		t.Accepted++
		t.Used = max(t.Used, at)
	} else {
		t.Refused.add(refused, 1)
	}
	t.span(at, at)
}

// span takes in the times of a first and a last use.
func (t *Tally) span(first, last int64) {
	if t.First == 0 || first < t.First {
		t.First = first
	}
	t.Last = max(t.Last, last)
}

// client returns the tally of the label, or of OtherLabel if there are too many.
// Two labels that would be one in storage, where text is UTF-8, are one here.
func (t *Tally) client(label string) *Tally {
	if c := t.Clients[label]; c != nil {
		return c
	}
	label = strings.ToValidUTF8(label, "\uFFFD")
	if t.Clients[label] == nil && len(t.Clients) >= MaxLabels {
		label = OtherLabel
	}
	if t.Clients == nil {
		t.Clients = map[string]*Tally{}
	}
	if t.Clients[label] == nil {
		t.Clients[label] = &Tally{}
	}
	return t.Clients[label]
}

// add adds another tally. Nothing of it is kept by reference.
func (t *Tally) add(o *Tally) {
	t.addCounts(o)
	for _, label := range slices.Sorted(maps.Keys(o.Clients)) {
		t.client(label).addCounts(o.Clients[label])
	}
}

// addCounts is add without the labels.
func (t *Tally) addCounts(o *Tally) {
	t.Accepted += o.Accepted
	for _, r := range o.Refused {
		t.Refused.add(r.Code, r.Count)
	}
	t.Used = max(t.Used, o.Used)
	if o.First != 0 || o.Last != 0 {
		t.span(o.First, o.Last)
	}
}

// forgetClients drops the labels; the tally itself counts all uses anyway.
func (t *Tally) forgetClients() { t.Clients = nil }

// foldClients counts all labels as OtherLabel.
func (t *Tally) foldClients() {
	if len(t.Clients) == 0 {
		return
	}
	other := &Tally{}
	for _, c := range t.Clients {
		other.addCounts(c)
	}
	t.Clients = map[string]*Tally{OtherLabel: other}
}

// FirstUse is when the first use was; zero if there was none.
func (t *Tally) FirstUse() time.Time { return unixTime(t.First) }

// LastUse is when the last use was, accepted or not; zero if there was none.
func (t *Tally) LastUse() time.Time { return unixTime(t.Last) }

// LastAccepted is when the last accepted use was; zero if there was none.
func (t *Tally) LastAccepted() time.Time { return unixTime(t.Used) }

// Reads is how often a key was handed out. Times are Unix seconds.
type Reads struct {
	Count int64 `json:"n,omitempty"`
	First int64 `json:"f,omitempty"`
	Last  int64 `json:"l,omitempty"`
}

func (r *Reads) add(o Reads) {
	r.Count += o.Count
	if o.First != 0 && (r.First == 0 || o.First < r.First) {
		r.First = o.First
	}
	r.Last = max(r.Last, o.Last)
}

// FirstRead is when it was handed out first; zero if it never was.
func (r Reads) FirstRead() time.Time { return unixTime(r.First) }

// LastRead is when it was handed out last; zero if it never was.
func (r Reads) LastRead() time.Time { return unixTime(r.Last) }

func unixTime(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}
