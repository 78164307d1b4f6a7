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
	cell[[]string]

	edit sync.Mutex
}

func readJobs(ctx context.Context, s logical.Storage) (*[]string, error) {
	ids, err := list(ctx, s, jobPrefix)
	return &ids, err
}

// openJobs lists the jobs, from memory where this node knows them.
func (b *backend) openJobs(ctx context.Context, s logical.Storage) ([]string, error) {
	ids, err := b.jobs.get(ctx, s)
	if err != nil {
		return nil, err
	}
	return *ids, nil
}
