// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

func (r *report) items(t testing.TB) []usageItem {
	t.Helper()
	var items []usageItem
	if err := json.Unmarshal([]byte(r.batch), &items); err != nil {
		t.Fatal(err)
	}
	return items
}

func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a").facts.Scopes = []string{"x"}
		e.add("p", "p", timeline.Entry{From: time.Now(), Code: "VALID", State: "previous"})
		v := e.start(t, Options{Instance: "i", Label: "shop"})
		began := time.Now()
		for range 3 {
			want(t, v, "a", "VALID")
			time.Sleep(2 * time.Second)
		}
		for _, req := range []Request{{Key: "a", Client: "other"}, {Key: "a", Client: "other"}, {Key: "a", Client: "shop"}, {Key: "a", Scopes: []string{"y"}}} {
			_, _ = v.Verify(t.Context(), req)
		}
		if len(e.reported()) > 0 {
			t.Error("uses of a current version can wait")
		}
		e.set(func() { e.refuse = errDown })
		want(t, v, "p", "VALID")
		time.Sleep(reportSoon + time.Second)
		if len(e.reported()) != 1 {
			t.Fatalf("%d reports soon after a previous version was used", len(e.reported()))
		}
		r := e.reported()[0]
		items := r.items(t)
		if !strings.HasPrefix(r.instance, "i-") || r.sequence != 1 || len(items) != 3 || items[0].KeyID != "id-p" || items[0].Accepted != 1 {
			t.Fatalf("%+v %+v: the previous version comes first", r, items)
		}
		byClient := map[string]usageItem{}
		for _, item := range items[1:] {
			byClient[item.Client] = item
		}
		if shop := byClient["shop"]; shop.KeyID != "id-a" || shop.Accepted != 4 || shop.Refused["INSUFFICIENT_SCOPE"] != 1 {
			t.Errorf("%+v", shop)
		} else {
			first, ferr := time.Parse(time.RFC3339Nano, shop.First)
			last, lerr := time.Parse(time.RFC3339Nano, shop.Last)
			if ferr != nil || lerr != nil || first.Sub(began).Abs() > time.Second || last.Sub(began.Add(6*time.Second)).Abs() > time.Second {
				t.Errorf("from %v to %v, began %v", first, last, began)
			}
		}
		if other := byClient["other"]; other.Accepted != 2 {
			t.Errorf("%+v", other)
		}

		// It was not answered: it is repeated as it was, and what came since follows.
		e.set(func() { e.refuse = nil })
		want(t, v, "a", "VALID")
		want(t, v, "p", "VALID")
		time.Sleep(reportSoon + time.Second)
		if len(e.reported()) != 2 && len(e.reported()) != 3 {
			t.Fatalf("%d reports", len(e.reported()))
		}
		if e.reported()[1] != r {
			t.Errorf("repeated as %+v", e.reported()[1])
		}
		_ = v.Close()
		last := e.reported()[len(e.reported())-1]
		if last.sequence != 2 || len(last.items(t)) != 2 {
			t.Errorf("%+v", last)
		}
	})
}

// Uses belong to a key, whatever is told of it anew meanwhile; and nothing is reported
// where nothing was used.
func TestUsesOutliveAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		want(t, v, "a", "VALID")
		e.revoke("a")
		time.Sleep(time.Second)
		want(t, v, "a", "REVOKED")
		_ = v.Close()
		if len(e.reported()) != 1 {
			t.Fatalf("%d reports", len(e.reported()))
		}
		if items := e.reported()[0].items(t); len(items) != 1 || items[0].Accepted != 1 || items[0].Refused["REVOKED"] != 1 {
			t.Errorf("%+v", items)
		}
		v = e.start(t, Options{})
		_ = v.Close()
		if len(e.reported()) != 1 {
			t.Error("an empty report")
		}
	})
}

// A report that the engine takes at no time does not stand in the way of the others.
func TestReportsThatAreRefusedAreGivenUp(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusForbidden, http.StatusServiceUnavailable} {
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			e.add("p", "p", timeline.Entry{From: time.Now(), Code: "VALID", State: "previous"})
			v := e.start(t, Options{})
			e.set(func() { e.refuse = fmt.Errorf("wrapped: %w", &api.ResponseError{StatusCode: status}) })
			for range 2 {
				want(t, v, "p", "VALID")
				time.Sleep(reportSoon + time.Second)
			}
			all := e.reported()
			if len(all) != 2 || (all[1].sequence == 2) != (status == 400 || status == 413) {
				t.Errorf("%d: %+v", status, all)
			}
		})
	}
}

// Uses of previous versions come first of all that is reported, and others within
// minutes.
func TestPreviousVersionsAreReportedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, Options{UnknownPerAddress: 1000})
		e.hold(t, v, 50)
		time.Sleep(reportEvery + reportEvery/10)
		if n := len(e.reported()); n != 1 || reportEvery > 5*time.Minute {
			t.Errorf("%d reports after %v", n, reportEvery)
		}
		for i := range 50 {
			want(t, v, fmt.Sprint("k", i), "VALID")
		}
		for i := range 20 {
			e.add(fmt.Sprint("p", i), "p", timeline.Entry{From: time.Now(), Code: "VALID", State: "previous"})
			want(t, v, fmt.Sprint("p", i), "VALID")
		}
		_ = v.Close()
		n := 0
		for _, r := range e.reported()[1:] { // the first use of a previous version may have been told by itself
			others := false
			for _, item := range r.items(t) {
				n++
				previous := strings.HasPrefix(item.KeyID, "id-p")
				if previous && others {
					t.Errorf("%s is after one of a current version", item.KeyID)
				}
				others = others || !previous
			}
		}
		if n < 70 {
			t.Fatalf("%d items", n)
		}
	})
}

// A label may be what a client says.
func TestLabelsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		_, _ = v.Verify(t.Context(), Request{Key: "a", Client: strings.Repeat("é", 1<<20)})
		_ = v.Close()
		if items := e.reported()[0].items(t); len(items) != 1 || items[0].Client != strings.Repeat("é", maxLabel/2) {
			t.Errorf("%d bytes", len(items[0].Client))
		}
	})
}

func TestLargeReportsAreDivided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		for i := range maxItems + 5 {
			_, _ = v.Verify(t.Context(), Request{Key: "a", Client: fmt.Sprint(i)})
		}
		_ = v.Close()
		if len(e.reported()) != 2 || e.reported()[0].sequence != 1 || e.reported()[1].sequence != 2 {
			t.Fatalf("%d reports", len(e.reported()))
		}
		seen := map[string]bool{}
		for i := range e.reported() {
			for _, item := range e.reported()[i].items(t) {
				if seen[item.Client] || item.Accepted != 1 {
					t.Fatalf("%+v", item)
				}
				seen[item.Client] = true
			}
		}
		if len(seen) != maxItems+5 {
			t.Errorf("%d items", len(seen))
		}
		v.usage.counts = map[usedBy]*count{}
		h := v.keys.get(v.digest.of("a"))
		for i := range maxCounted + 10 {
			v.count(h, fmt.Sprint(i), codeValid, false, 0, 0)
		}
		if len(v.usage.counts) != maxCounted {
			t.Errorf("%d counts are kept apart", len(v.usage.counts))
		}
	})
}

// A restart counts its reports anew: under the name of before they would be taken for
// old ones.
func TestRestartsHaveNamesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		for range 2 {
			v := e.start(t, Options{Instance: "pod/1"})
			want(t, v, "a", "VALID")
			_ = v.Close()
		}
		all := e.reported()
		if len(all) != 2 || all[0].sequence != 1 || all[1].sequence != 1 || all[0].instance == all[1].instance || !strings.HasPrefix(all[0].instance, "pod/1-") {
			t.Errorf("%+v", all)
		}
	})
}

// What does not fit into one report is told bit by bit, and at once at the end.
func TestReportsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, Options{})
		use := func() {
			for i := range 2*maxItems + 5 {
				_, _ = v.Verify(t.Context(), Request{Key: "a", Client: fmt.Sprint(i)})
			}
		}
		use()
		for len(e.reported()) == 0 {
			time.Sleep(time.Millisecond)
		}
		began := time.Now()
		for len(e.reported()) < 3 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took < 2*betweenReports-time.Millisecond || took > 2*betweenReports+time.Second {
			t.Errorf("three reports in %v", took)
		}
		use()
		began = time.Now()
		_ = v.Close()
		if took := time.Since(began); len(e.reported()) != 6 || took > 0 {
			t.Errorf("%d reports at the end in %v", len(e.reported())-3, took)
		}
	})
}
