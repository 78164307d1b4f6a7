// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	mathrand "math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/vaultlogin"
)

// Options say how to reach the engine. Client and Mount are required; all else has a
// default.
type Options struct {
	// Client reaches the server: its address, TLS and namespace. It is cloned. Its
	// token is used unless Auth or TokenFile says where one comes from.
	Client *api.Client
	// Auth logs in, again when the token ends or is refused. The token is renewed.
	Auth api.AuthMethod
	// TokenFile holds the token, as an agent writes it; it is read again when it
	// changes.
	TokenFile string

	// Mount is where the engine is mounted: "apikeys".
	Mount string
	// Role, if set, is the only role whose keys are known. The edge then needs a
	// policy for verify/<role> only.
	Role string

	// Label is the client label for usage counts where a request has none. Instance
	// names this edge in its reports of use, by default with the host's name; random
	// characters are added, since a restart counts its reports anew.
	Label, Instance string

	// MaxStaleness is how long keys are accepted while the server is away. The mount's
	// own limit, config edge_max_staleness, is never passed; 0 is that limit.
	MaxStaleness time.Duration
	// MaxKeys is how many keys are held, 1,000,000 by default.
	MaxKeys int
	// UnknownPerSecond is how many keys that are not held are asked about per second,
	// together (1,000 by default) and for one client address (20). Beyond it the answer
	// is an error, never a refusal.
	UnknownPerSecond, UnknownPerAddress float64

	// StateFile, if set, keeps what is held over a restart. It is sealed with the key
	// in StateKeyFile (32 bytes, base64), which is made if it is absent.
	StateFile, StateKeyFile string

	// Log is told of what goes wrong; never a key.
	Log *slog.Logger

	// Clock is for simulations: the wall clock's and the monotonic clock's time in
	// nanoseconds.
	Clock func() (wall, mono int64)
}

const (
	defaultMaxKeys    = 1_000_000
	defaultUnknown    = 1000
	defaultPerAddress = 20
	// patience is how long a request waits for the server.
	patience = time.Second
)

// ErrUnavailable means that nobody could be asked whether the key is good. Answer 503.
var ErrUnavailable = errors.New("the server cannot be asked whether the key is good")

// ErrBusy means that too many unknown keys are being asked about. Answer 503, too.
var ErrBusy = fmt.Errorf("too many unknown keys: %w", ErrUnavailable)

// Request is a question about a key.
type Request struct {
	// Key, exactly as it was presented.
	Key string
	// Scopes that the key must have, all of them; and AnyScope, of which one suffices.
	Scopes, AnyScope []string
	// RemoteAddr is the address of who presented it, for the role's allowed_cidrs.
	RemoteAddr netip.Addr
	// Client is a label for usage counts.
	Client string
}

// Verdict is the answer, in the words of the engine's verify. Slices and maps are
// shared: do not change them.
type Verdict struct {
	Valid bool
	// Code is VALID, or why not.
	Code string
	// Role and what follows is empty until the key is known.
	Role, RoleID, KeyID string
	Version             int
	State, Reason, End  string
	Scopes              []string
	Metadata            map[string]string
	RateLimit           float64
	// ExpiresAt is the earliest known end; zero if none is known.
	ExpiresAt time.Time
	// Now is the server's time of the verdict.
	Now time.Time
	// Hint says what is odd about an unknown key.
	Hint string
	// CutOff: the verdict was made while the server was away.
	CutOff bool
}

// Verifier verifies keys. Its methods may be called at the same time.
type Verifier struct {
	opt    Options
	log    *slog.Logger
	remote remote
	clock  *timekeeper
	digest *digester
	secret []byte // of the digests
	keys   *keyStore

	// The feed, as far as the hot path looks at it.
	confirmed atomic.Int64  // when the last answered poll was sent; notConfirmed before the first
	window    atomic.Int64  // how long after that it is live
	reset     atomic.Uint64 // keys of an earlier position are dirty
	stale     atomic.Int64  // max_staleness
	roles     roleNotices
	highWall  atomic.Int64 // the highest time that the wall clock has shown
	loaded    int64        // when the state file's keys were confirmed last; notConfirmed without any
	delays    delays

	feed    feedState
	asks    asker
	unknown *unknownKeys
	limits  *budgets
	usage   reporter

	stop context.CancelFunc
	done sync.WaitGroup
}

const notConfirmed = -1 << 62

// New begins to follow the engine. It does not wait for it: until the server has
// answered, verdicts are errors, or are those of a state file.
func New(opt Options) (*Verifier, error) { return open(opt, newRemote) }

// open is New with an engine that is reached by dial.
func open(opt Options, dial func(context.Context, *sync.WaitGroup, Options) (remote, error)) (*Verifier, error) {
	if opt.Client == nil || opt.Mount == "" {
		return nil, errors.New("edge: Client and Mount are required")
	}
	if opt.Auth != nil && opt.TokenFile != "" {
		return nil, errors.New("edge: Auth and TokenFile are both set: one of them says where the token comes from")
	}
	if (opt.StateFile == "") != (opt.StateKeyFile == "") {
		return nil, errors.New("edge: StateFile and StateKeyFile go together")
	}
	opt.defaults()
	v := &Verifier{
		opt: opt, log: opt.Log, clock: newTimekeeper(opt.Clock), keys: newKeyStore(opt.MaxKeys),
		unknown: newUnknownKeys(), limits: newBudgets(opt.UnknownPerSecond, opt.UnknownPerAddress),
	}
	v.confirmed.Store(notConfirmed)
	v.loaded = notConfirmed
	v.window.Store(int64(defaultWait + grace))
	v.stale.Store(int64(opt.MaxStaleness))
	v.secret = make([]byte, 32)
	_, _ = rand.Read(v.secret) // it never fails
	v.feed.init()
	v.asks.init()
	v.usage.init(opt.Instance)

	ctx, cancel := context.WithCancel(context.Background())
	v.stop = cancel
	remote, err := dial(ctx, &v.done, opt)
	if err == nil {
		v.remote = remote
		if opt.StateFile != "" {
			err = v.loadState()
		}
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("edge: %w", err)
	}
	v.digest = newDigester(v.secret)
	now, _ := v.clock.elapsed()
	v.usage.reported.Store(now)
	for _, run := range []func(context.Context){v.follow, v.answerUses, v.refresh, v.reportUsage, v.keepState} {
		v.done.Go(func() { run(ctx) })
	}
	return v, nil
}

// jitter spreads what one task of an edge does over time.
type jitter struct{ rand *mathrand.Rand }

// jitter of a task follows from the edge's name and from when the task was started: so a
// simulation can be repeated.
func (v *Verifier) jitter(task string) jitter {
	return newJitter(v.opt.Instance+" "+task, v.clock.wall())
}

func newJitter(name string, started time.Time) jitter {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))                                                        // a hash.Hash never fails
	return jitter{mathrand.New(mathrand.NewPCG(h.Sum64(), uint64(started.UnixNano())))} //nolint:gosec // spreads load
}

// below is a random duration that is shorter than d.
func (j jitter) below(d time.Duration) time.Duration { return time.Duration(j.rand.Int64N(int64(d))) }

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxKeys <= 0 {
		o.MaxKeys = defaultMaxKeys
	}
	if o.UnknownPerSecond <= 0 {
		o.UnknownPerSecond = defaultUnknown
	}
	if o.UnknownPerAddress <= 0 {
		o.UnknownPerAddress = defaultPerAddress
	}
	o.Instance = vaultlogin.Instance(o.Instance)
}

// Close stops the verifier. What is held is written to the state file, and uses that
// were counted are reported once more.
func (v *Verifier) Close() error {
	v.stop()
	v.done.Wait()
	return nil
}
