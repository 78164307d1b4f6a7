// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// fault is what a probed storage does to one of its calls.
type fault int

const (
	faultNone       fault = iota
	faultFail             // the call fails and does nothing
	faultApplied          // the call does its work and reports an error
	faultCrash            // the call and all later ones fail
	faultApplyCrash       // the call does its work, then it and all later ones fail
	faultReadOnly         // from this call on, writes are refused as on a standby
)

// plant writes a record as another node does: this one is told nothing.
func plant(t testing.TB, s logical.Storage, path string, rec any) {
	t.Helper()
	entry, err := logical.StorageEntryJSON(path, rec)
	if err == nil {
		err = s.Put(context.Background(), entry)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var errStorage = errors.New("the storage failed")

// probe is a storage that counts its calls and can fail at any of them.
type probe struct {
	logical.Storage

	mu       sync.Mutex
	calls    int
	writes   int
	log      []string
	at       int // the call to fail, from 1; 0 never
	fault    fault
	crashed  bool
	readonly bool
	// onlyWrites counts writes only towards at.
	onlyWrites bool
}

func newProbe(s logical.Storage) *probe { return &probe{Storage: s} }

// arm makes the n-th call from now do what f says.
func (p *probe) arm(n int, f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls, p.writes, p.log, p.at, p.fault, p.crashed, p.readonly = 0, 0, nil, n, f, false, false
}

func (p *probe) reset() { p.arm(0, faultNone) }

func (p *probe) count() (calls, writes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls, p.writes
}

// step decides about one call: whether it is carried out, and its error.
func (p *probe) step(op, key string, write bool) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if write {
		p.writes++
	}
	p.log = append(p.log, op+" "+key)
	if p.crashed {
		return false, errStorage
	}
	n := p.calls
	if p.onlyWrites {
		n = p.writes
	}
	if p.at == n && (write || !p.onlyWrites) {
		switch p.fault {
		case faultFail:
			return false, errStorage
		case faultApplied:
			return true, errStorage
		case faultCrash:
			p.crashed = true
			return false, errStorage
		case faultApplyCrash:
			p.crashed = true
			return true, errStorage
		case faultReadOnly:
			p.readonly = true
		case faultNone:
		}
	}
	if p.readonly && write {
		return false, logical.ErrReadOnly
	}
	return true, nil
}

func (p *probe) List(ctx context.Context, prefix string) ([]string, error) {
	if ok, err := p.step("list", prefix, false); !ok || err != nil {
		return nil, err
	}
	return p.Storage.List(ctx, prefix)
}

func (p *probe) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if ok, err := p.step("get", key, false); !ok || err != nil {
		return nil, err
	}
	return p.Storage.Get(ctx, key)
}

func (p *probe) Put(ctx context.Context, e *logical.StorageEntry) error {
	ok, err := p.step("put", e.Key, true)
	if ok {
		if putErr := p.Storage.Put(ctx, e); putErr != nil {
			return putErr
		}
	}
	return err
}

func (p *probe) Delete(ctx context.Context, key string) error {
	ok, err := p.step("delete", key, true)
	if ok {
		if delErr := p.Storage.Delete(ctx, key); delErr != nil {
			return delErr
		}
	}
	return err
}
