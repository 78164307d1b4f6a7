// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/timeline"
)

func stateOptions(dir string) Options {
	return Options{StateFile: filepath.Join(dir, "state"), StateKeyFile: filepath.Join(dir, "key")}
}

// A restart while the server is away grants what an edge that was cut off would grant.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		k := e.add("a", "a")
		k.facts = roleFacts{Role: "orders", Scopes: []string{"x"}, AllowedCIDRs: []string{"10.0.0.0/8"}, Metadata: map[string]string{"m": "1"}, RateLimit: 9}
		k.Version, k.Lease = 7, true
		e.add("closed", "c")
		e.add("ends", "e", valid(), timeline.Entry{From: time.Now().Add(20 * time.Second), Code: "RETIRED", State: "retired"})
		e.add("gone", "g", valid(), timeline.Entry{From: time.Now().Add(3 * time.Second), Code: "RETIRED", State: "retired", HoldUntil: time.Now().Add(time.Hour)})
		v := e.start(t, stateOptions(dir))
		inside := netip.MustParseAddr("10.0.0.1")
		before, err := v.Verify(t.Context(), Request{Key: "a", RemoteAddr: inside})
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"closed", "ends", "gone"} {
			want(t, v, key, "VALID")
		}
		time.Sleep(4 * time.Second)
		want(t, v, "gone", "RETIRED")
		e.feed.Publish(feed.Notice{RoleID: "c", Closing: true})
		e.set(func() { e.delay = time.Minute })
		time.Sleep(500 * time.Millisecond)
		e.set(func() { e.down = true })
		_ = v.Close()

		time.Sleep(10 * time.Second)
		v = e.open(t, stateOptions(dir))
		after, err := v.Verify(t.Context(), Request{Key: "a", RemoteAddr: inside})
		if err != nil {
			t.Fatal(err)
		}
		if !after.CutOff || after.Now.Sub(before.Now) < 14*time.Second || after.Now.Sub(before.Now) > 15*time.Second {
			t.Errorf("%v, %v later", after, after.Now.Sub(before.Now))
		}
		before.CutOff, before.Now = after.CutOff, after.Now
		if fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("%+v, was %+v", after, before)
		}
		want(t, v, "closed", "error") // closed, and not asked about since
		want(t, v, "ends", "VALID")
		want(t, v, "gone", "RETIRED") // it was applied: not held back again
		time.Sleep(6 * time.Second)
		want(t, v, "ends", "RETIRED")
		_ = v.Close()

		// Restarts do not add up.
		time.Sleep(30 * time.Second)
		v = e.open(t, stateOptions(dir))
		if got, err := v.Verify(t.Context(), Request{Key: "a", RemoteAddr: inside}); err != nil || !got.Valid {
			t.Errorf("%+v, %v", got, err)
		}
		want(t, v, "closed", "error")
		time.Sleep(12 * time.Second)
		want(t, v, "a", "error")

		e.set(func() { e.down, e.delay = false, 0 })
		time.Sleep(5 * time.Second)
		want(t, v, "closed", "VALID")
		_ = v.Close()
		for _, name := range []string{"state", "key"} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", name, info, err)
			}
		}
		found, _ := fs.Glob(os.DirFS(dir), "*")
		hidden, _ := fs.Glob(os.DirFS(dir), ".*")
		if len(found)+len(hidden) != 2 {
			t.Errorf("left behind: %v %v", found, hidden)
		}
		raw, _ := os.ReadFile(filepath.Join(dir, "state"))
		if bytes.Contains(raw, []byte("orders")) || bytes.Contains(raw, []byte("id-a")) {
			t.Error("the state file is not sealed")
		}
	})
}

// An end that was applied is not held back after a restart, though the server was not
// heard since before it.
func TestRestartKeepsEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a", valid(), timeline.Entry{From: time.Now().Add(6 * time.Second), Code: "RETIRED", State: "retired", HoldUntil: time.Now().Add(time.Hour)})
		e.add("b", "b", e.keys["a"].Timeline...)
		v := e.start(t, stateOptions(dir))
		want(t, v, "a", "VALID")
		want(t, v, "b", "VALID")
		time.Sleep(3 * time.Second)
		e.set(func() { e.down = true })
		time.Sleep(2200 * time.Millisecond)
		want(t, v, "a", "RETIRED") // live, as far as it knows
		_ = v.Close()
		time.Sleep(5 * time.Second)
		v = e.open(t, stateOptions(dir))
		want(t, v, "a", "RETIRED")
		want(t, v, "b", "VALID") // one that was not applied is held back
	})
}

// What is damaged, of another edge or from the future is left aside.
func TestStateIsRefused(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		for i := range 3 {
			e.add(fmt.Sprint("k", i), "r")
		}
		opt := stateOptions(dir)
		v := e.start(t, opt)
		for i := range 3 {
			want(t, v, fmt.Sprint("k", i), "VALID")
		}
		_ = v.Close()
		good, err := os.ReadFile(opt.StateFile)
		if err != nil {
			t.Fatal(err)
		}
		e.set(func() { e.down = true })
		held := func(name string, opt Options, raw []byte, want bool) {
			t.Helper()
			if err := os.WriteFile(opt.StateFile, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			log := &strings.Builder{}
			opt.Log = slog.New(slog.NewTextHandler(log, nil))
			v, err := e.tryOpen(opt)
			if err != nil {
				t.Fatal(name, err)
			}
			n := v.keys.size.Load()
			_ = v.Close()
			if (n == 3) != want || n != 0 && n != 3 || strings.Contains(log.String(), "left aside") == want {
				t.Errorf("%s: %d keys are held: %s", name, n, log)
			}
		}
		held("as it was", opt, good, true)
		for _, n := range []int{0, 5, len(stateForm), len(stateForm) + 3, len(good) / 2, len(good) - 1, len(good) - 32} {
			held(fmt.Sprint("cut at ", n), opt, good[:n], false)
		}
		for i := range 40 {
			raw := bytes.Clone(good)
			raw[i*len(raw)/40] ^= 1
			held(fmt.Sprint("changed at ", i*len(raw)/40), opt, raw, false)
		}
		other := opt
		other.Role = "orders"
		held("another edge's", other, good, false)
		other = opt
		other.Clock = func() (wall, mono int64) {
			return time.Now().Add(-time.Minute).UnixNano(), time.Now().UnixNano()
		}
		held("of a later time", other, good, false)
		other = opt
		other.StateKeyFile += "2"
		held("of another key", other, good, false)

		if err := os.WriteFile(opt.StateKeyFile, []byte("short"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := e.tryOpen(opt); err == nil || strings.Contains(err.Error(), "short\n") {
			t.Errorf("a key file that holds no key: %v", err)
		}
	})
}

// What is written replaces the file as a whole: a crash leaves the one before.
func TestStateIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		opt := stateOptions(dir)
		v := e.start(t, opt)
		e.hold(t, v, 3)
		time.Sleep(saveEvery)
		before, err := os.ReadFile(opt.StateFile)
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(dir, "other") // the same file by another name
		if err := os.Link(opt.StateFile, other); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		after, err := os.ReadFile(opt.StateFile)
		if err != nil || bytes.Equal(before, after) {
			t.Errorf("it is not written each minute: %v", err)
		}
		if kept, err := os.ReadFile(other); err != nil || !bytes.Equal(kept, before) {
			t.Errorf("the file that there was is written over: %v", err)
		}
	})
}

// A file is of one mount of one server in one namespace, and of one role where the edge
// is bound to it.
func TestStateIsBound(t *testing.T) {
	seen := map[string]bool{}
	for _, address := range []string{"https://a:8200", "https://b:8200"} {
		for _, namespace := range []string{"", "team"} {
			for _, mount := range []string{"keys", "other"} {
				for _, role := range []string{"", "orders"} {
					config := api.DefaultConfig()
					config.Address = address
					client, err := api.NewClient(config)
					if err != nil {
						t.Fatal(err)
					}
					client.SetNamespace(namespace)
					seen[(&Verifier{opt: Options{Client: client, Mount: mount, Role: role}}).bound()] = true
				}
			}
		}
	}
	if len(seen) != 16 {
		t.Errorf("%d of 16 edges are told apart", len(seen))
	}
}

// The server's time and the mount outlive a restart.
func TestStateKeepsTimeAndMount(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.mount, e.ahead = "one", time.Hour
		e.add("a", "a")
		v := e.start(t, stateOptions(dir))
		want(t, v, "a", "VALID")
		_ = v.Close()
		e.set(func() { e.down = true })
		v = e.open(t, stateOptions(dir))
		verdict, err := v.Verify(t.Context(), Request{Key: "a"})
		if off := verdict.Now.Sub(time.Now().Add(time.Hour)); err != nil || !verdict.Valid || off.Abs() > time.Second {
			t.Errorf("%+v, %v: off by %v", verdict, err, off)
		}
		_ = v.Close()
		for _, test := range []struct {
			mount string
			want  int64
		}{{"one", 1}, {"two", 0}} {
			e.set(func() { e.down, e.mount = false, test.mount })
			v := e.start(t, stateOptions(dir))
			if got := v.keys.size.Load(); got != test.want {
				t.Errorf("%d keys of mount one are held, by an edge of mount %s", got, test.mount)
			}
			_ = v.Close()
		}
	})
}

// A limit that was set lower counts for what a file holds, too.
func TestStateKeepsTheLowerLimit(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		v := e.start(t, stateOptions(dir))
		want(t, v, "a", "VALID")
		_ = v.Close()
		e.set(func() { e.down = true })
		for _, test := range []struct{ own, want time.Duration }{{0, 60 * time.Second}, {5 * time.Second, 5 * time.Second}, {time.Hour, 60 * time.Second}} {
			opt := stateOptions(dir)
			opt.MaxStaleness = test.own
			v := e.open(t, opt)
			if got := time.Duration(v.stale.Load()); got != test.want {
				t.Errorf("own limit %v: %v", test.own, got)
			}
			_ = v.Close()
		}
	})
}

// Many keys and roles are more than one block.
func TestManyBlocks(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		v := e.start(t, stateOptions(dir))
		line, err := timeline.Parse([]timeline.Entry{valid()})
		if err != nil {
			t.Fatal(err)
		}
		long := strings.Repeat("x", 5000)
		for i := range 20_000 {
			h := &held{line: line, names: named(fmt.Sprint("key ", i), fmt.Sprint("role ", i/3)), version: int32(i), position: 1 << 40}
			v.feed.mu.Lock()
			h.role = v.feed.role(h.roleID())
			v.feed.mu.Unlock()
			h.facts = &facts{scopes: []string{"x"}, anyone: true}
			if i%40 == 0 {
				h.facts.metadata = map[string]string{"long": fmt.Sprint(i, long)}
			}
			h.facts = intern(h.facts)
			v.keys.put(v.digest.of(fmt.Sprint(i)), h)
		}
		_ = v.Close()
		e.set(func() { e.down = true })
		again := e.open(t, stateOptions(dir))
		if again.keys.size.Load() != 20_000 {
			t.Fatalf("%d keys", again.keys.size.Load())
		}
		for i := 0; i < 20_000; i += 7 {
			h := again.keys.get(again.digest.of(fmt.Sprint(i)))
			if h == nil || h.keyID() != fmt.Sprint("key ", i) || h.roleName() != "name" || h.role.id != fmt.Sprint("role ", i/3) || h.version != int32(i) {
				t.Fatalf("%d: %+v", i, h)
			}
			if got := h.facts.metadata["long"]; (i%40 == 0) != (got == fmt.Sprint(i, long)) {
				t.Fatalf("%d: %.20q", i, got)
			}
		}
	})
}

// A clock that was set back while the edge ran makes its file no younger.
func TestStateOfAClockThatWasSetBack(t *testing.T) {
	for _, test := range []struct {
		away       time.Duration
		want, then string // a moment later
	}{
		{20 * time.Second, "error", "error"}, // the clock has shown later times than this
		{45 * time.Second, "VALID", "error"}, // a minute after it was confirmed, and not 40 s more
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			e := newEngine()
			e.add("a", "a")
			began := time.Now()
			var wrong atomic.Int64
			opt := stateOptions(dir)
			opt.Clock = func() (wall, mono int64) {
				return time.Now().Add(time.Duration(wrong.Load())).UnixNano(), int64(time.Since(began))
			}
			v := e.start(t, opt)
			wrong.Store(int64(50 * time.Second))
			time.Sleep(saveEvery)
			wrong.Store(0)
			time.Sleep(10 * time.Second)
			want(t, v, "a", "VALID")
			e.set(func() { e.down = true })
			_ = v.Close()
			time.Sleep(test.away)
			v = e.open(t, opt)
			want(t, v, "a", test.want)
			time.Sleep(20 * time.Second)
			want(t, v, "a", test.then)
		})
	}
}

// The highest time that the clock has shown outlives restarts.
func TestStateKeepsTheHighestTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.add("a", "a")
		began := time.Now()
		var wrong atomic.Int64
		opt := stateOptions(dir)
		opt.Clock = func() (wall, mono int64) {
			return time.Now().Add(time.Duration(wrong.Load())).UnixNano(), int64(time.Since(began))
		}
		v := e.start(t, opt)
		want(t, v, "a", "VALID")
		e.set(func() { e.down = true })
		_ = v.Close()
		time.Sleep(20 * time.Second)
		v = e.open(t, opt)
		want(t, v, "a", "VALID")
		wrong.Store(-int64(5 * time.Second)) // later than the first file was written at
		_ = v.Close()
		v = e.open(t, opt)
		want(t, v, "a", "error")
	})
}

// A state file that could not be written is told at the start.
func TestStateNeedsItsDirectory(t *testing.T) {
	dir := t.TempDir()
	e := newEngine()
	opt := Options{StateFile: filepath.Join(dir, "none", "state"), StateKeyFile: filepath.Join(dir, "key")}
	if v, err := e.tryOpen(opt); err == nil {
		_ = v.Close()
		t.Error("no error")
	} else if !strings.Contains(err.Error(), "edge: state file: ") {
		t.Error(err)
	}
}
