// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// carefree lists backwards and whatever the context says.
type carefree struct{ logical.Storage }

func (s carefree) List(ctx context.Context, prefix string) ([]string, error) {
	names, err := s.Storage.List(context.WithoutCancel(ctx), prefix)
	slices.Reverse(names)
	return names, err
}

// calendarOf files a role under each of the instants, out of order.
func calendarOf(t *testing.T, times ...time.Time) *probe {
	t.Helper()
	p := newProbe(carefree{&logical.InmemStorage{}})
	for i, at := range times {
		if err := putBytes(t.Context(), p, duePath(at, fmt.Sprintf("r%d", i)), dueValue); err != nil {
			t.Fatal(err)
		}
	}
	p.reset()
	return p
}

func TestCalendarIsWalkedInOrderWithoutBeingListed(t *testing.T) {
	now := newFakeClock().Now()
	times := []time.Time{
		now, now.Add(-time.Minute), now.Add(-59 * time.Minute), now.Add(-30 * time.Hour), now.Add(-3 * time.Hour),
		now.Add(-50 * time.Hour), now.Add(time.Minute), now.Add(-30 * time.Hour),
	}
	p := calendarOf(t, times...)
	var got []time.Time
	for e, err := range dueEntries(t.Context(), p, now.Add(-49*time.Hour), now) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.minute)
	}
	want := []time.Time{times[3], times[7], times[4], times[2], times[1], times[0]}
	if !slices.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
	days, minutes := 0, 0
	for _, call := range p.log {
		switch path := strings.TrimPrefix(call, "list "); strings.Count(path, "/") {
		case 2:
			days++
		case 3:
			minutes++
		case 4:
		default:
			t.Errorf("%s: the calendar is not to be listed", call)
		}
	}
	// Three days, and of the last one what is not near the end; no hour of minutes
	// that are far.
	if days != 3 || minutes > 10 {
		t.Errorf("%d days and %d minutes listed", days, minutes)
	}
}

func TestCalendarNearByIsWalkedByTheMinute(t *testing.T) {
	now := newFakeClock().Now()
	p := calendarOf(t, now.Add(-59*time.Minute), now.Add(-3*time.Hour))
	n := 0
	for range dueEntries(t.Context(), p, now.Add(-59*time.Minute), now) {
		n++
	}
	if calls, _ := p.count(); n != 1 || calls != 61 {
		t.Errorf("%d entries in %d calls: %v", n, calls, p.log)
	}
}

func TestCalendarSaysWhichMinuteItCouldNotRead(t *testing.T) {
	now := newFakeClock().Now()
	for name, c := range map[string]struct {
		at   int // call that fails
		want time.Time
	}{
		"minute": {1, now.Add(-2 * time.Minute)},
		"shard":  {3, now.Add(-time.Minute)},
	} {
		p := calendarOf(t, now.Add(-time.Minute), now)
		p.arm(c.at, faultFail)
		var got dueEntry
		var failed error
		n := 0
		for e, err := range dueEntries(t.Context(), p, now.Add(-2*time.Minute), now) {
			got, failed = e, err
			n++
		}
		if n != 1 || !errors.Is(failed, errStorage) || !got.minute.Equal(c.want) {
			t.Errorf("%s: %d entries, the last %+v %v, want %s", name, n, got, failed, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for e, err := range dueEntries(ctx, calendarOf(t, now), now, now) {
		if !errors.Is(err, context.Canceled) || !e.minute.Equal(now) {
			t.Errorf("%+v %v", e, err)
		}
	}
}
