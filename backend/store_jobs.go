// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"sync"

	"github.com/hashicorp/vault/sdk/logical"
)

// jobSet is this node's list of bulk jobs. edit is held from the read of a job's
// record to its write.
type jobSet struct {
	mu     sync.Mutex
	loaded bool
	ids    []string
	edit   sync.Mutex
}

func (j *jobSet) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.loaded = false
}

// openJobs lists the jobs, from memory where this node knows them.
func (b *backend) openJobs(ctx context.Context, s logical.Storage) ([]string, error) {
	b.jobs.mu.Lock()
	defer b.jobs.mu.Unlock()
	if b.jobs.loaded {
		return b.jobs.ids, nil
	}
	ids, err := list(ctx, s, jobPrefix)
	if err != nil {
		return nil, err
	}
	b.jobs.ids, b.jobs.loaded = ids, true
	return ids, nil
}
