// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTally(t *testing.T) {
	var tally Tally
	if !tally.FirstUse().IsZero() || !tally.LastUse().IsZero() || !tally.LastAccepted().IsZero() {
		t.Error("a tally without uses has times")
	}
	tally.hit("", at(time.Minute).Unix())
	tally.hit("REVOKED", at(time.Hour).Unix())
	tally.hit("REVOKED", at(0).Unix())
	tally.client("shop").hit("", at(0).Unix())
	if got := line(&tally); got != "1 REVOKED=2 [shop 1]" {
		t.Errorf("counted %s", got)
	}
	for what, got := range map[string][2]time.Time{
		"first": {tally.FirstUse(), at(0)}, "last": {tally.LastUse(), at(time.Hour)}, "accepted": {tally.LastAccepted(), at(time.Minute)},
	} {
		if !got[0].Equal(got[1]) {
			t.Errorf("%s: %s, want %s", what, got[0], got[1])
		}
	}
}

func TestLabelsBeyondTheBoundAreOther(t *testing.T) {
	var tally Tally
	for i := range MaxLabels + 3 {
		tally.client(fmt.Sprint("client-", i)).hit("", 1)
	}
	tally.client("client-0").hit("", 1)
	if len(tally.Clients) != MaxLabels+1 || tally.Clients[OtherLabel].Accepted != 3 || tally.Clients["client-0"].Accepted != 2 {
		t.Errorf("%d labels, %s", len(tally.Clients), line(&tally))
	}
	var more Tally
	more.client("late").hit("", 1)
	tally.add(&more)
	if tally.Clients[OtherLabel].Accepted != 4 {
		t.Errorf("added: %s", line(&tally))
	}
	tally.foldClients()
	if got := line(&tally); got != "0 [other 69]" {
		t.Errorf("folded: %s", got)
	}
	tally.forgetClients()
	tally.foldClients()
	if tally.Clients != nil {
		t.Errorf("forgotten: %s", line(&tally))
	}
}

// Two texts that are one in storage must not overwrite each other there.
func TestLabelsThatAreNoText(t *testing.T) {
	var tally Tally
	for _, label := range []string{"a\xff", "a\xfe", "a\uFFFD"} {
		tally.client(label).hit("", 1)
	}
	if got := line(&tally); got != "0 [a\uFFFD 3]" {
		t.Errorf("counted %s", got)
	}
}

// An item that counts nothing leaves no trace but its times.
func TestAddNothing(t *testing.T) {
	var tally Tally
	tally.add(&Tally{Refused: Refusals{{"REVOKED", 0}}})
	if got := asJSON(t, &Use{Seen: tally}); got != "{}" {
		t.Errorf("left %s", got)
	}
}

func drawTally(t *rapid.T, name string) *Tally {
	tally := &Tally{}
	for range rapid.IntRange(0, 30).Draw(t, name) {
		code, when := rapid.SampledFrom([]string{"", "REVOKED", "EXPIRED"}).Draw(t, "code"), rapid.Int64Range(1, 1000).Draw(t, "at")
		tally.hit(code, when)
		tally.client(rapid.StringMatching(`[a-z]{1,2}`).Draw(t, "label")).hit(code, when)
	}
	return tally
}

func copyOf(o *Tally) *Tally {
	t := &Tally{}
	t.add(o)
	return t
}

// Adding loses nothing, in whatever order, and leaves what is added alone.
func TestAddProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTally(t, "a"), drawTally(t, "b")
		before := line(b)
		ab, ba := copyOf(a), copyOf(b)
		ab.add(b)
		ba.add(a)
		if line(ab) != line(ba) || ab.First != ba.First || ab.Last != ba.Last || ab.Used != ba.Used {
			t.Fatalf("a+b is %s, b+a is %s", line(ab), line(ba))
		}
		if ab.Accepted != a.Accepted+b.Accepted || ab.Last != max(a.Last, b.Last) || ab.Used != max(a.Used, b.Used) {
			t.Fatalf("%s and %s are %s", line(a), line(b), line(ab))
		}
		ab.hit("REVOKED", 1)
		for _, c := range ab.Clients {
			c.hit("REVOKED", 1)
		}
		if line(b) != before {
			t.Fatalf("what was added has changed to %s", line(b))
		}
		sum := &Tally{}
		for _, c := range ba.Clients {
			sum.addCounts(c)
		}
		ba.foldClients()
		if len(ba.Clients) > 0 && line(ba.Clients[OtherLabel]) != line(sum) {
			t.Fatalf("folded to %s, want %s", line(ba), line(sum))
		}
	})
}
