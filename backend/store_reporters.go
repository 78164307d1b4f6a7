// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// maxReporters bounds them. Of one that is forgotten, because that many others
// have reported since, a repeat would count again.
const maxReporters = 4096

type reportersRecord struct {
	Schema int `json:"schema"`
	// Reporters by caller and instance, as a digest.
	Reporters map[string]reporter `json:"reporters"`
}

func (r *reportersRecord) schema() int { return r.Schema }

// reporter is what one instance of a caller has reported.
type reporter struct {
	Sequence int64 `json:"s"`
	Last     int64 `json:"l"` // Unix seconds
}

// reporters is this node's copy. What is counted from a report and the report's
// sequence change together, under mu.
type reporters struct {
	mu     sync.Mutex
	loaded bool
	known  map[string]reporter
	edit   int64 // counts the changes of known

	storeMu sync.Mutex
	stored  int64 // the edit that storage holds
}

func reporterID(caller, instance string) string {
	sum := sha256.Sum256([]byte(caller + "\x00" + instance))
	return hex.EncodeToString(sum[:16])
}

// load reads what is stored, once. The caller holds mu.
func (r *reporters) load(ctx context.Context, s logical.Storage) error {
	if r.loaded {
		return nil
	}
	rec, err := getRecord[reportersRecord](ctx, s, reportersPath)
	if err != nil {
		return err
	}
	r.known = map[string]reporter{}
	if rec != nil && rec.Reporters != nil {
		r.known = rec.Reporters
	}
	r.loaded = true
	return nil
}

// told notes a report, and makes room for it.
func (r *reporters) told(id string, rep reporter) {
	if _, known := r.known[id]; !known && len(r.known) >= maxReporters {
		oldest := ""
		for other, o := range r.known {
			if oldest == "" || o.Last < r.known[oldest].Last {
				oldest = other
			}
		}
		delete(r.known, oldest)
	}
	r.known[id] = rep
	r.edit++
}

// takeReported takes the group for a flush, and says which state of the
// reporters has to be stored before it if it holds reported counts.
func (u *usage) takeReported(path string) (*usageGroup, int64) {
	r := &u.reports
	r.mu.Lock()
	defer r.mu.Unlock()
	return u.take(path), r.edit
}

// storeReporters writes what reporters were told, unless that state is stored.
func (b *backend) storeReporters(ctx context.Context, s logical.Storage, edit int64) error {
	r := &b.usage.reports
	r.storeMu.Lock()
	defer r.storeMu.Unlock()
	if r.stored >= edit {
		return nil
	}
	r.mu.Lock()
	rec := &reportersRecord{Schema: recordSchema, Reporters: maps.Clone(r.known)}
	edit = r.edit
	r.mu.Unlock()
	if err := putRecord(ctx, s, reportersPath, rec); err != nil {
		return err
	}
	r.stored = edit
	return nil
}
