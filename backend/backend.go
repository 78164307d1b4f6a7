// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/time/rate"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/egress"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/feed"
	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/version"
)

// backend is one mount of the engine in one process.
//
// Locks: role locks (roleLocks) before keyLocks, never two of a kind but where a
// role is renamed (lockRoles); the others are leaves. None is held across the network but for storage.
type backend struct {
	*framework.Backend

	clock clock
	rand  io.Reader

	roleLocks []*locksutil.LockEntry // by role name: held by every writer of the role
	keyLocks  []*locksutil.LockEntry // by key id: held by every writer of a dynamic key

	roles       *recordCache[roleRecord]
	keys        *recordCache[keyRecord]
	secretCache *recordCache[secretRecord]
	moves       *recordCache[movedRecord]
	copies      unsureSet // of the copies of deleted roles, which no cache has

	commits inFlight
	begun   begunKeys
	// listen is told of every decision about keys; nil: nobody listens.
	listen func(decision)
	// spread is told what came of a commit that the outbox knows.
	spread func(*telling, error)

	configs       cell[configRecord]
	endpoints     cell[endpointsRecord]
	digestSecrets cell[digestRecord]
	mark          cell[markRecord]
	imported      cell[importedRecord]
	aside         cell[importedRecord]
	prefixes      cell[prefixRecord]
	renames       cell[renameState] // from the record of tidy
	jobs          jobSet
	jobWork       jobWork
	resized       []func(int) // told of a new cache_size

	problems problemSet
	missed   missedRoles
	unmoved  unmovedRoles
	wake     *wakeup
	rival    rival
	instance string // a random id of this process's work on this mount
	tidy     tidyState
	// tidyWrites is held by who writes the record of tidy, so that it says of renames
	// what the last one said.
	tidyWrites sync.Mutex
	leaks      leakBudget
	importMu   sync.Mutex // one import at a time; taken before a role's lock

	// Verification.
	views  *keyViews
	rates  *rateLimits
	node   atomic.Pointer[nodeState]
	hmacs  atomic.Int64 // computed for comparisons
	usage  *usageState
	stamps lastStamp // of the present second

	outbox outbox
	// outboxForeign: another node wrote to it.
	outboxForeign atomic.Bool
	egress        *egress.Manager
	// courier sends a request to where the mount's config lets it go.
	courier func(req *http.Request, ca string) (*egress.Answer, error)

	// What is told to those who keep timelines.
	feed    *feed.Feed
	writer  writer
	mountID string

	numbers *numbers
	started time.Time
	fleet   fleet

	specs      map[*framework.Path]*pathSpec
	verifySpec *pathSpec

	worker  *worker
	tickMu  sync.Mutex // held by whoever does a step
	paceMu  sync.Mutex
	limiter *rate.Limiter
}

// Factory makes the engine. It reads and writes nothing, so that a catalog can
// call it without storage.
func Factory(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
	b := newBackend(systemClock{}, rand.Reader)
	b.worker.loops = true
	if err := b.Setup(ctx, conf); err != nil {
		return nil, fmt.Errorf("setting up the engine: %w", err)
	}
	return b, nil
}

func newBackend(c clock, random io.Reader) *backend {
	b := &backend{
		clock: c, rand: random, numbers: newNumbers(), started: c.Now(),
		roleLocks: locksutil.CreateLocks(), keyLocks: locksutil.CreateLocks(),
		roles:       newRecordCache[roleRecord](defaultCacheSize),
		keys:        newRecordCache[keyRecord](defaultCacheSize),
		secretCache: newRecordCache[secretRecord](defaultCacheSize),
		moves:       newRecordCache[movedRecord](defaultCacheSize),
		wake:        newWakeup(), worker: newWorker(), instance: rand.Text(),
		views: newKeyViews(), rates: newRateLimits(c), usage: newUsage(), feed: feed.New(feedSize),
	}
	b.configs.path, b.configs.none, b.configs.learn = configPath, &configRecord{Schema: recordSchema}, b.learn
	b.endpoints.path, b.endpoints.none = endpointsPath, &endpointsRecord{Schema: recordSchema}
	b.digestSecrets.path = digestPath
	b.mark.path, b.mark.none = markPath, &markRecord{}
	b.imported.path, b.imported.none = importedPath, &importedRecord{Schema: recordSchema}
	b.aside.path, b.aside.none = asidePath, &importedRecord{Schema: recordSchema}
	b.prefixes.path, b.prefixes.none = prefixesPath, &prefixRecord{Schema: recordSchema}
	b.renames.path, b.renames.read = tidyPath, readRenames
	b.roles.counts = b.standing
	b.roles.closer, b.keys.closer = closerRole, closerKey
	b.listen, b.spread = b.publish, b.toldOutcome
	b.numbers.set.OnScrape(b.scraped)
	b.egress = egress.NewManager(egress.Options{})
	b.courier = func(req *http.Request, ca string) (*egress.Answer, error) { return b.egress.Do(req, ca, maxAnswer) }
	b.outbox.open(b.mandated)
	b.jobs.path, b.jobs.read = jobPrefix, readJobs
	for _, clock := range []*clock{
		&b.configs.clock, &b.endpoints.clock, &b.digestSecrets.clock, &b.mark.clock, &b.imported.clock, &b.aside.clock, &b.prefixes.clock, &b.renames.clock, &b.jobs.clock,
	} {
		*clock = c
	}
	// What decides about verification is not left half written by who hangs up.
	b.configs.begin, b.digestSecrets.begin, b.imported.begin, b.aside.begin = b.underway, b.underway, b.underway, b.underway
	b.resized = []func(int){b.moves.resize, b.views.resize, b.rates.resize}
	b.specs = map[*framework.Path]*pathSpec{}
	b.Backend = &framework.Backend{
		Help:           backendHelp,
		BackendType:    logical.TypeLogical,
		RunningVersion: version.Version,
		PathsSpecial: &logical.Paths{
			SealWrapStorage: sealedPlaces(),
		},
		Paths:          b.paths(),
		Secrets:        b.secrets(),
		InitializeFunc: b.initialize,
		PeriodicFunc:   b.periodic,
		Invalidate:     b.invalidate,
		Clean:          b.clean,
	}
	return b
}

const backendHelp = `
Issues, rotates, verifies and kills API keys.

A role is the policy of one logical key. A static role has one current key that
everybody who may read the role shares; rotating it makes a new version, and the
previous version stays valid for a grace period. A dynamic role gives each reader a
key of its own, with a lease.

Declare roles at roles/<role>, read the current key at creds/<role>, rotate with
rotate/<role>, ask whether a presented key is good at verify.
`

// Setup is called before anything else, once.
func (b *backend) Setup(ctx context.Context, conf *logical.BackendConfig) error {
	b.mountID = conf.BackendUUID
	return b.Backend.Setup(ctx, conf)
}

// initialize runs after mount, unseal, reload and restart, on every node. It
// lists nothing: what is due is found in the calendar.
func (b *backend) initialize(ctx context.Context, init *logical.InitializationRequest) error {
	req := &logical.InitializationRequest{Storage: b.metered(init.Storage)}
	b.usage.storage.Store(&req.Storage)
	defer func() {
		if b.writeSafe() {
			b.entrust(req.Storage)
		}
	}()
	if err := b.loadMark(ctx, req.Storage); err != nil {
		return err
	}
	if _, err := b.config(ctx, req.Storage); err != nil {
		return err
	}
	switch _, err := b.endpoints.get(ctx, req.Storage); {
	case errors.Is(err, errSchema), errors.Is(err, errDecoding): // no key waits for those who want to hear of it
		b.Logger().Error("the endpoints of events cannot be read: nothing is told", "error", err)
	case err != nil:
		return err
	}
	b.renamesKnown(ctx, req.Storage) // where it cannot be read it is asked for again
	if !b.writeSafe() {
		return nil
	}
	if err := quietly(b.firstMark(ctx, req.Storage)); err != nil {
		return err
	}
	_, err := b.ensureDigest(ctx, req.Storage)
	return quietly(err)
}

// cleanTime is how long the end of the engine may take, with the last counts: all
// mounts of the process wait for it.
const cleanTime = 2 * time.Second

// clean runs before the engine is unloaded.
func (b *backend) clean(ctx context.Context) {
	ctx, cancel := b.clock.WithTimeout(ctx, cleanTime)
	defer cancel()
	b.outbox.cancel()
	b.egress.CloseIdle()
	b.stop(ctx)
	if !b.lingers() {
		return // the mount may be another node's by now
	}
	flushed := make(chan struct{})
	go func() { // storage may hang, whatever its context, and who holds a lock with it
		defer close(flushed)
		_ = b.guarded("the last counts", func() error {
			b.flushRest(ctx)
			return nil
		})
	}()
	select {
	case <-flushed:
	case <-ctx.Done():
	}
}

var errPanic = errors.New("internal error: the request was given up; the server's log has the details")

// HandleRequest refuses unknown and malformed fields in this engine's words
// before the framework sees them, and lets no panic out.
func (b *backend) HandleRequest(ctx context.Context, req *logical.Request) (resp *logical.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			// The value of a panic may hold anything, the request's data too.
			b.Logger().Error("a handler panicked", "operation", req.Operation, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			resp, err = nil, errPanic
		}
	}()
	storage := b.metered(req.Storage)
	spec := b.specOf(req.Path)
	if spec == nil || !spec.handles(req.Operation) {
		metered := *req
		metered.Storage = storage
		return b.Backend.HandleRequest(b.takeOff(ctx), &metered)
	}
	in, err := spec.read(req)
	if err != nil {
		return respond(err)
	}
	if spec == b.verifySpec {
		// Routing, which is the same for each of them, costs more than the verdict.
		if resp, err = b.verdicts(ctx, storage, in); err != nil {
			resp, err = respond(err)
		}
	} else {
		read := *req
		read.Data, read.Storage = in.values, storage
		resp, err = b.Backend.HandleRequest(b.takeOff(ctx), &read)
	}
	if err == nil && len(in.warnings) > 0 {
		if resp == nil {
			resp = &logical.Response{}
		}
		for _, warning := range in.warnings {
			resp.AddWarning(warning)
		}
	}
	return resp, err
}

// specOf is how the path is declared; nil if there is no such path.
func (b *backend) specOf(path string) *pathSpec {
	if path == verifyPattern {
		return b.verifySpec
	}
	return b.specs[b.Route(path)]
}
