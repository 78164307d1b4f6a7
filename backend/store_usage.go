// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/vault-apikeys/vault-plugin-secrets-apikeys/internal/usage"
)

// Verification never writes: uses are counted in memory, and the periodic
// function brings them to storage. What was not flushed is lost in a crash. What
// a flush could not write stays in memory and is written by a later one; if the
// write happened although it returned an error, that counts twice. Nodes that may
// not write count nothing.

const (
	// usageInterval is how often counts go to storage that nothing waits for.
	usageInterval = 15 * time.Minute
	// lastFlush is how long the unloading of the engine waits for the rest.
	lastFlush = 2 * time.Second
)

// usageRecord is the usage of a role's versions, or of some of its keys, as
// stored. The previous build wrote one more field, flush, and does without it.
type usageRecord struct {
	Schema int `json:"schema"`
	usage.Record
}

func (r *usageRecord) schema() int { return r.Schema }

// reportersRecord is what the previous build stored of those who report usage.
// It is not read for what it says: see usage.Reporters.
type reportersRecord struct {
	Schema int `json:"schema"`
}

func (r *reportersRecord) schema() int { return r.Schema }

// usageState is the counting of one mount in one process.
type usageState struct {
	counter   *usage.Counter
	reporters usage.Reporters
	// locks are held, by record, by who writes it from before the counts are
	// taken from memory to after they are stored, and by who reads it for as long
	// as both are looked at: so each count is in one of the two.
	locks   []*locksutil.LockEntry
	storage atomic.Pointer[logical.Storage] // for the last flush
}

func newUsage() *usageState {
	return &usageState{counter: usage.NewCounter(), locks: locksutil.CreateLocks()}
}

// usagePath is where the record of that name is.
func usagePath(name string) string { return usagePrefix + name }

// storeUsage adds what was counted to the record of that name.
func (b *backend) storeUsage(ctx context.Context, s logical.Storage, name string) error {
	lock := locksutil.LockForKey(b.usage.locks, name)
	lock.Lock()
	defer lock.Unlock()
	rec, err := readUsage(ctx, s, name)
	if err != nil {
		return err
	}
	batch := b.usage.counter.Take(name)
	if batch == nil {
		return nil
	}
	batch.AddTo(&rec.Record)
	rec.Trim(b.now())
	if err := putRecord(ctx, s, usagePath(name), rec); err != nil {
		batch.Failed()
		return err
	}
	batch.Stored()
	return nil
}

func readUsage(ctx context.Context, s logical.Storage, name string) (*usageRecord, error) {
	rec, err := getRecord[usageRecord](ctx, s, usagePath(name))
	if err != nil {
		return nil, err
	}
	if rec == nil {
		rec = &usageRecord{}
	}
	rec.Schema = recordSchema
	return rec, nil
}

// flushRest brings what is left to storage before the engine is unloaded.
func (b *backend) flushRest(ctx context.Context) {
	s := b.usage.storage.Load()
	if s == nil || !b.writeSafe() {
		return
	}
	ctx, cancel := b.clock.WithTimeout(ctx, lastFlush)
	defer cancel()
	for _, name := range b.usage.counter.Due(b.now(), 0) {
		if err := b.guarded("storing counts", func() error { return b.storeUsage(ctx, *s, name) }); err != nil {
			if mustForward(err) {
				return // nor could it have counted
			}
			b.Logger().Warn("uses counted since the last flush are lost", "error", err)
			return
		}
	}
}

// usageNamed is what is stored under that name and counted since.
func (b *backend) usageNamed(ctx context.Context, s logical.Storage, name string) (*usage.Record, error) {
	lock := locksutil.LockForKey(b.usage.locks, name)
	lock.RLock()
	defer lock.RUnlock()
	rec, err := readUsage(ctx, s, name)
	if err != nil {
		return nil, err
	}
	b.usage.counter.AddTo(&rec.Record, name)
	return &rec.Record, nil
}

// usageOf is what is known of the use of the role's keys, by version.
func (b *backend) usageOf(ctx context.Context, s logical.Storage, rec *roleRecord) (*usage.Record, error) {
	return b.usageNamed(ctx, s, usage.ID{RoleID: rec.ID}.RecordName())
}

// keyUsage is what is known of the use of one key: of a version, for a static
// role.
func (b *backend) keyUsage(ctx context.Context, s logical.Storage, key *keyRecord) (usage.Use, error) {
	id := usage.ID{RoleID: key.RoleID, Version: key.Version}
	if key.Dynamic {
		id.KeyID = key.ID
	}
	rec, err := b.usageNamed(ctx, s, id.RecordName())
	if err != nil {
		return usage.Use{}, err
	}
	return rec.Of(id), nil
}

// lastAccepted is when a key of that version of the role was last accepted, as
// far as this server saw it, or was told by whom the mount trusts; zero if
// never.
func (b *backend) lastAccepted(ctx context.Context, s logical.Storage, rec *roleRecord, n int) (time.Time, error) {
	use, err := b.usageOf(ctx, s, rec)
	if err != nil {
		return time.Time{}, err
	}
	return b.acceptedIn(ctx, s, use, n)
}

// acceptedIn is lastAccepted by a role's usage.
func (b *backend) acceptedIn(ctx context.Context, s logical.Storage, stored *usage.Record, n int) (time.Time, error) {
	cfg, err := b.config(ctx, s)
	if err != nil {
		return time.Time{}, err
	}
	use := stored.Of(usage.ID{Version: n})
	switch {
	case cfg.TrustReportedUsage:
		return use.LastAccepted(), nil
	case len(cfg.TrustedReporters) > 0:
		return use.LastTrusted(), nil
	}
	return use.Seen.LastAccepted(), nil
}

// forgetUsage forgets what was counted of a role that is about to be gone for good
// and waits to be stored. What is stored tidy removes.
func (b *backend) forgetUsage(roleID string) {
	for _, name := range b.usage.counter.Names(roleID) {
		b.usage.counter.Forget(name)
	}
}

// dropUsage forgets the counts of a role that is gone for good, in storage and
// in memory.
func (b *backend) dropUsage(ctx context.Context, s logical.Storage, roleID string) error {
	names, err := list(ctx, s, usagePath(roleID+"/"))
	if err != nil {
		return err
	}
	for i := range names {
		names[i] = roleID + "/" + names[i]
	}
	// One that is only in memory may be on its way to storage.
	names = append(names, b.usage.counter.Names(roleID)...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := b.dropUsageNamed(ctx, s, name); err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) dropUsageNamed(ctx context.Context, s logical.Storage, name string) error {
	lock := locksutil.LockForKey(b.usage.locks, name)
	lock.Lock()
	defer lock.Unlock()
	if err := deleteRecord(ctx, s, usagePath(name)); err != nil {
		return err
	}
	b.usage.counter.Forget(name)
	return nil
}
