// SPDX-License-Identifier: MPL-2.0

package usage

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var allCodes = []string{"EXPIRED", "RETIRED", "REVOKED", "DISABLED", "INSUFFICIENT_SCOPE", "FORBIDDEN_IP", "RATE_LIMITED"}

// fullTally is as long as a tally can be: labels that JSON escapes to six bytes a
// character, every code, and the longest numbers.
func fullTally(labels int) Tally {
	counts := func() *Tally {
		t := &Tally{Accepted: math.MaxInt64, First: math.MaxInt64, Last: math.MaxInt64, Used: math.MaxInt64}
		for _, code := range allCodes {
			t.Refused.add(code, math.MaxInt64)
		}
		return t
	}
	t := counts()
	t.Clients = map[string]*Tally{}
	for i := range labels {
		label := []rune(strings.Repeat("<", 64))
		for bit := range 7 {
			if i>>bit&1 == 1 {
				label[bit] = '\u2028'
			}
		}
		t.Clients[string(label)] = counts()
	}
	return *t
}

func fullRecord(versions int) *Record {
	r := &Record{Role: strings.Repeat("r", 128)}
	for n := 1; n <= versions; n++ {
		*entry(&r.Versions, n) = Use{Seen: fullTally(MaxLabels), Reported: fullTally(MaxLabels)}
	}
	for at := epoch.Add(-15 * 24 * time.Hour); at.Before(epoch.Add(4 * time.Hour)); at = at.Add(time.Hour) {
		r.addEnded(at.Unix(), math.MaxInt64)
	}
	return r
}

func TestTrimTheLongestRecord(t *testing.T) {
	r := fullRecord(45)
	if n := jsonSize(r); n < 3<<20 {
		t.Fatalf("the record is %d bytes only", n)
	}
	r.Trim(epoch)
	if n := len(asJSON(t, r)); n > MaxBytes {
		t.Errorf("trimmed to %d bytes", n)
	}
	if len(r.Versions) != MaxVersions || r.Versions[45] == nil || r.Versions[5] != nil {
		t.Errorf("%d versions", len(r.Versions))
	}
	if n := len(r.Versions[45].Seen.Clients); n != MaxLabels {
		t.Errorf("the newest version has %d labels", n)
	}
	if n := len(r.Versions[35].Seen.Clients); n != 0 {
		t.Errorf("an old version has %d labels", n)
	}
	if got := len(r.Versions[36].Seen.Clients); got != 1 || r.Versions[36].Reported.Clients[OtherLabel] == nil {
		t.Errorf("the oldest of the newest has %d labels", got)
	}
	if len(r.Ended) != 14*24+2 {
		t.Errorf("%d hours", len(r.Ended))
	}
	for at := range r.Ended {
		if at > epoch.Add(endedAhead).Unix() {
			t.Errorf("keeps the hour %s", unixTime(at))
		}
	}
}

// A record that is small enough keeps everything.
func TestTrimLeavesAloneWhatFits(t *testing.T) {
	r := fullRecord(2)
	r.Ended = nil
	before := asJSON(t, r)
	r.Trim(epoch)
	if after := asJSON(t, r); after != before {
		t.Errorf("was %d bytes, is %d", len(before), len(after))
	}
}

func TestTrimKeys(t *testing.T) {
	r := &Record{}
	for i := range MaxKeys + 10 {
		u := entry(&r.Keys, fmt.Sprintf("%012d", i))
		// Those in the middle were used last, as this server saw it or was told.
		if i < MaxKeys/2 {
			u.Seen.hit("", int64(1+i))
		} else {
			u.Reported.hit("", int64(1+MaxKeys-i+10))
		}
	}
	r.Trim(epoch)
	if len(r.Keys) != MaxKeys || r.Keys[fmt.Sprintf("%012d", 0)] != nil || r.Keys[fmt.Sprintf("%012d", MaxKeys+9)] != nil || r.Keys[fmt.Sprintf("%012d", MaxKeys/2)] == nil {
		t.Errorf("%d keys, the first %v, the last %v", len(r.Keys), r.Keys["000000000000"], r.Keys[fmt.Sprintf("%012d", MaxKeys+9)])
	}
	for i := range MaxKeys {
		*entry(&r.Keys, fmt.Sprintf("%012d", i)) = Use{Seen: fullTally(0), Reported: fullTally(0)}
	}
	r.Keys["000000000000"].Seen.Last, r.Keys["000000000000"].Reported.Last = 1, 1
	r.Trim(epoch)
	if n := len(asJSON(t, r)); n > MaxBytes || n < MaxBytes*9/10 || r.Keys["000000000000"] != nil {
		t.Errorf("%d keys in %d bytes", len(r.Keys), n)
	}
}

// Whatever is in a record and however little it may have, trimming makes it fit,
// keeps the counts of what stays, and has nothing to do a second time.
func TestTrimProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Record{Role: "r"}
		for range rapid.IntRange(0, 20).Draw(t, "entries") {
			u := entry(&r.Versions, rapid.IntRange(1, 60).Draw(t, "version"))
			if rapid.Bool().Draw(t, "key") {
				u = entry(&r.Keys, rapid.StringMatching(`[a-z]{3}`).Draw(t, "id"))
			}
			u.Seen.add(drawTally(t, "seen"))
			u.Reported.add(drawTally(t, "reported"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "hours") {
			r.addEnded(epoch.Add(-time.Duration(rapid.IntRange(-10, 400).Draw(t, "hours ago"))*time.Hour).Unix(), 1)
		}
		before := &Record{}
		before.Add(r)
		limit := rapid.IntRange(200, 20000).Draw(t, "limit")
		r.trim(epoch, limit)
		once, err := json.Marshal(r)
		if err != nil || len(once) > limit {
			t.Fatalf("%d bytes, want %d (%v)", len(once), limit, err)
		}
		for n, u := range r.Versions {
			if was := before.Versions[n]; u.Seen.Accepted != was.Seen.Accepted || u.Reported.Last != was.Reported.Last {
				t.Fatalf("version %d was %s and is %s", n, line(&was.Seen), line(&u.Seen))
			}
			for older := range before.Versions {
				if older > n && r.Versions[older] == nil {
					t.Fatalf("%d is kept and %d is not", n, older)
				}
			}
		}
		r.trim(epoch, limit)
		if twice, err := json.Marshal(r); err != nil || string(twice) != string(once) {
			t.Fatalf("trimmed again from %s to %s (%v)", once, twice, err)
		}
	})
}
