// SPDX-License-Identifier: MPL-2.0

package keyring_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/keyring"
)

const day = 24 * time.Hour

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is the instant d after the epoch that every test starts from.
func at(d time.Duration) time.Time { return epoch.Add(d) }

// offset writes an instant as its distance from the epoch.
func offset(t time.Time) string {
	d := t.Sub(epoch)
	if d%day == 0 && d != 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// describe writes a status in full: "+" or "-" for whether it verifies, state,
// reason, "@" until, "~" if that is planned, "from" when it begins to verify.
func describe(st keyring.Status) string {
	s := "-"
	if st.Verifies {
		s = "+"
	}
	s += string(st.State)
	if st.Reason != "" {
		s += "/" + string(st.Reason)
	}
	if !st.Until.IsZero() {
		s += "@" + offset(st.Until)
	}
	if st.Planned {
		s += "~"
	}
	if !st.VerifiesFrom.IsZero() {
		s += " from " + offset(st.VerifiesFrom)
	}
	return s
}

// show writes the status of every version at d.
func show(r *keyring.Ring, d time.Duration) string {
	var all []string
	for _, v := range r.Versions {
		st, ok := r.Status(v.N, at(d))
		if !ok {
			return fmt.Sprintf("version %d is in the ring but has no status", v.N)
		}
		all = append(all, fmt.Sprintf("%d%s", v.N, describe(st)))
	}
	return strings.Join(all, ", ")
}

// told writes events: kind, version, "@" when, "/" reason, ">" until.
func told(events []keyring.Event) string {
	var all []string
	for _, e := range events {
		s := fmt.Sprintf("%s %d@%s", e.Kind, e.Version, offset(e.At))
		if e.Reason != "" {
			s += "/" + string(e.Reason)
		}
		if !e.Until.IsZero() {
			s += ">" + offset(e.Until)
		}
		if e.KeyID != keyID(e.Version) {
			s += " of key " + e.KeyID
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func keyID(n int) string { return fmt.Sprintf("key%d", n) }

// role is a ring under test. Its methods fail the test on an unexpected error
// and take instants as distances from the epoch.
type role struct {
	keyring.Ring
	t *testing.T
}

func newRole(t *testing.T) *role { return &role{t: t} }

// mint is a mint of the next version with that grace, changed by more.
func (r *role) mint(grace time.Duration, more ...func(*keyring.Mint)) keyring.Mint {
	m := keyring.Mint{KeyID: keyID(r.Last + 1), Prefix: "ak", Grace: grace}
	for _, f := range more {
		f(&m)
	}
	return m
}

func ttl(d time.Duration) func(*keyring.Mint) { return func(m *keyring.Mint) { m.TTL = d } }
func on(d time.Duration) func(*keyring.Mint)  { return func(m *keyring.Mint) { m.Activate = at(d) } }
func held(m *keyring.Mint)                    { m.Held = true }
func plain(m *keyring.Mint)                   { m.Plain = true }

func (r *role) rotate(d, grace time.Duration, more ...func(*keyring.Mint)) string {
	r.t.Helper()
	events, err := r.Rotate(at(d), r.mint(grace, more...), false)
	if err != nil {
		r.t.Fatalf("rotate at %s: %v", offset(at(d)), err)
	}
	return told(events)
}

func (r *role) stage(d, grace time.Duration, more ...func(*keyring.Mint)) string {
	r.t.Helper()
	events, err := r.Stage(at(d), r.mint(grace, more...), false)
	if err != nil {
		r.t.Fatalf("stage at %s: %v", offset(at(d)), err)
	}
	return told(events)
}

func (r *role) promote(d, on, grace time.Duration) string {
	r.t.Helper()
	n, events, err := r.Promote(at(d), at(on), grace)
	if err != nil {
		r.t.Fatalf("promote at %s: %v", offset(at(d)), err)
	}
	if n != r.Last {
		r.t.Fatalf("promoted version %d, want %d", n, r.Last)
	}
	return told(events)
}

func (r *role) rollback(d time.Duration, to int, grace time.Duration) string {
	r.t.Helper()
	n, events, err := r.Rollback(at(d), to, grace)
	if err != nil {
		r.t.Fatalf("rollback at %s: %v", offset(at(d)), err)
	}
	if last := events[len(events)-1]; last.Kind != keyring.EventRestored || last.Version != n {
		r.t.Fatalf("rollback to version %d told %s last", n, told(events))
	}
	return told(events)
}

func (r *role) revoke(d time.Duration, numbers ...int) string {
	r.t.Helper()
	events, err := r.Revoke(at(d), numbers...)
	if err != nil {
		r.t.Fatalf("revoke at %s: %v", offset(at(d)), err)
	}
	return told(events)
}

// kill is what the engine does at once where keys are to die: it kills those
// versions and, where the current one is among them, makes its replacement, with
// which the pending version dies. Where there can be no replacement the pending
// version dies without. It reports whether there is one.
func kill(r *keyring.Ring, now time.Time, numbers []int, replacement *keyring.Mint) ([]keyring.Event, bool, error) {
	cur := r.Current(now)
	events, err := r.Revoke(now, numbers...)
	if err != nil || cur == nil || !slices.Contains(numbers, cur.N) {
		return events, false, err
	}
	var more []keyring.Event
	if replacement != nil {
		more, err = r.Rotate(now, *replacement, true)
	} else {
		more = r.DropPending(now)
	}
	return append(events, more...), replacement != nil, err
}

// trim forgets what can be forgotten, but the newest keep, and returns it.
func trim(r *keyring.Ring, now time.Time, keep int) []keyring.Version {
	var gone []keyring.Version
	bare, _ := r.Forgettable(now)
	for _, n := range bare[:max(0, len(bare)-keep)] {
		gone = append(gone, *r.Get(n))
		r.Forget(n)
	}
	return gone
}

// live are the versions that have not ended, the pending one included.
func live(r *keyring.Ring, now time.Time) []int {
	var live []int
	for _, v := range r.Versions {
		if st, _ := r.Status(v.N, now); !st.State.Ended() {
			live = append(live, v.N)
		}
	}
	return live
}

// is compares the status of every version at d.
func (r *role) is(d time.Duration, want string) {
	r.t.Helper()
	if got := show(&r.Ring, d); got != want {
		r.t.Errorf("at %s:\n got  %s\n want %s", offset(at(d)), got, want)
	}
}

// refused compares an error with its sentinel and its whole text.
func refused(t *testing.T, err, sentinel error, text string) {
	t.Helper()
	if !isExactly(err, sentinel) {
		t.Fatalf("got error %v, want one that is %v", err, sentinel)
	}
	if err.Error() != text {
		t.Errorf("got text  %q\nwant text %q", err, text)
	}
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got  %s\n want %s", what, got, want)
	}
}

// unchanged runs f and compares the ring with itself before, settled at d.
func (r *role) unchanged(d time.Duration, f func()) {
	r.t.Helper()
	before := r.Clone()
	before.Settle(at(d))
	f()
	if diff := differ(&before, &r.Ring); diff != "" {
		r.t.Errorf("the ring has changed: %s", diff)
	}
}

// differ says in what two rings differ.
func differ(a, b *keyring.Ring) string {
	if a.Last != b.Last {
		return fmt.Sprintf("last: %d, %d", a.Last, b.Last)
	}
	if !a.Until.Equal(b.Until) {
		return fmt.Sprintf("until: %s, %s", a.Until, b.Until)
	}
	if slices.Equal(a.Versions, b.Versions) {
		return ""
	}
	return fmt.Sprintf("\n%+v\n%+v", a.Versions, b.Versions)
}

var sentinels = []error{
	keyring.ErrPendingExists, keyring.ErrNoPending, keyring.ErrTooManyLive, keyring.ErrBadActivation,
	keyring.ErrNoTarget, keyring.ErrNeedTarget, keyring.ErrUnknown, keyring.ErrOver, keyring.ErrNotEnding, keyring.ErrBeyond,
}

// isExactly reports whether err is that sentinel and no other.
func isExactly(err, sentinel error) bool {
	for _, s := range sentinels {
		if errors.Is(err, s) != errors.Is(sentinel, s) {
			return false
		}
	}
	return true
}
