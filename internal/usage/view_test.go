// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"fmt"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

func TestOfWhatIsUnknown(t *testing.T) {
	var r Record
	u := r.Of(version(1))
	if !u.LastUse().IsZero() || !u.LastAccepted().IsZero() || line(&u.Seen) != "0" || len(r.EndedHours()) != 0 {
		t.Errorf("something is known: %+v", u)
	}
	if u := r.Of(ID{RoleID: "role", Version: 1, KeyID: "k"}); line(&u.Reported) != "0" {
		t.Errorf("something is known: %+v", u)
	}
}

func TestLastUseIsSeenOrReported(t *testing.T) {
	for _, u := range []Use{
		{Seen: Tally{Last: 20, Used: 10}, Reported: Tally{Last: 15, Used: 5}},
		{Seen: Tally{Last: 15, Used: 5}, Reported: Tally{Last: 20, Used: 10}},
	} {
		if u.LastUse().Unix() != 20 || u.LastAccepted().Unix() != 10 {
			t.Errorf("%+v: %s, %s", u, u.LastUse(), u.LastAccepted())
		}
	}
}

func TestEndedHours(t *testing.T) {
	var r Record
	r.addEnded(at(time.Hour+59*time.Minute).Unix(), 2)
	r.addEnded(at(time.Hour).Unix(), 3)
	r.addEnded(at(0).Unix(), 1)
	if got, want := fmt.Sprint(r.EndedHours()), fmt.Sprint([]Hour{{at(0), 1}, {at(time.Hour), 5}}); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Three versions, of which the first has ended, the second is on its way out
// since an hour, and the third is current.
func threeVersions(t *testing.T) *keyring.Ring {
	t.Helper()
	var ring keyring.Ring
	for n, grace := range []time.Duration{0, 0, 10 * time.Hour} {
		if _, err := ring.Rotate(at(time.Duration(n)*time.Hour), keyring.Mint{KeyID: fmt.Sprint("key-", n+1), Grace: grace}, true); err != nil {
			t.Fatal(err)
		}
	}
	return &ring
}

func TestStillUsed(t *testing.T) {
	ring := threeVersions(t)
	superseded, now := at(2*time.Hour), at(3*time.Hour)
	use := func(n int, when time.Time, reported bool) *Record {
		r := &Record{}
		u := entry(&r.Versions, n)
		tally := &u.Seen
		if reported {
			tally = &u.Reported
		}
		tally.client("early").hit("", at(0).Unix())
		tally.client("refused").hit("REVOKED", when.Unix())
		tally.client("late").hit("", when.Unix())
		tally.hit("", when.Unix())
		return r
	}
	for name, c := range map[string]struct {
		rec  *Record
		want string
	}{
		"nothing":              {&Record{}, "[]"},
		"current":              {use(3, now, false), "[]"},
		"ended":                {use(1, now, false), "[]"},
		"before it superseded": {use(2, superseded.Add(-time.Second), false), "[]"},
		"seen":                 {use(2, superseded, false), "[2 previous until 12h0m0s, 2h0m0s by [late]]"},
		"reported":             {use(2, now, true), "[2 previous until 12h0m0s, 3h0m0s by [late]]"},
	} {
		if got := stillUsed(c.rec, ring, now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestStillUsedAfterARollback(t *testing.T) {
	ring := threeVersions(t)
	now := at(3 * time.Hour)
	if _, _, err := ring.Rollback(now, 2, 5*time.Hour); err != nil {
		t.Fatal(err)
	}
	r := &Record{}
	entry(&r.Versions, 3).Seen.hit("", now.Unix()-1)
	if got := stillUsed(r, ring, now); got != "[]" {
		t.Errorf("not used since: %s", got)
	}
	entry(&r.Versions, 3).Seen.hit("", now.Unix())
	if got := stillUsed(r, ring, now); got != "[3 withdrawn until 8h0m0s, 3h0m0s by []]" {
		t.Errorf("used since: %s", got)
	}
}

func stillUsed(r *Record, ring *keyring.Ring, now time.Time) string {
	out := []string{}
	for _, v := range r.StillUsed(ring, now) {
		out = append(out, fmt.Sprintf("%d %s until %s, %s by %v", v.Number, v.State, v.Until.Sub(epoch), v.LastAccepted.Sub(epoch), v.Clients))
	}
	return fmt.Sprint(out)
}
