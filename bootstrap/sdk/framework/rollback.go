// SPDX-License-Identifier: MPL-2.0

package framework

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/hashicorp/vault/sdk/logical"
)

const defaultWALRollbackMinAge = 10 * time.Minute

// handleRollback runs the periodic function and then, whatever became of it, the log.
func (b *Backend) handleRollback(ctx context.Context, req *logical.Request) (*logical.Response, error) {
	var errs *multierror.Error
	if b.PeriodicFunc != nil {
		if err := b.PeriodicFunc(ctx, req); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	var resp *logical.Response
	if b.WALRollback != nil {
		resp = b.handleWALRollback(ctx, req)
	}
	return resp, errs.ErrorOrNil()
}

// handleWALRollback answers with an error response if anything failed, else with nothing.
func (b *Backend) handleWALRollback(ctx context.Context, req *logical.Request) *logical.Response {
	ids, err := ListWAL(ctx, req.Storage)
	if err != nil {
		return logical.ErrorResponse(err.Error())
	}

	minAge := b.WALRollbackMinAge
	if minAge == 0 {
		minAge = defaultWALRollbackMinAge
	}
	limit := time.Now().Add(-minAge)
	_, immediate := req.Data["immediate"]

	var errs *multierror.Error
	for _, id := range ids {
		entry, err := GetWAL(ctx, req.Storage, id)
		if err != nil {
			errs = multierror.Append(errs, err)
			continue
		}
		if entry == nil || (!immediate && !time.Unix(entry.CreatedAt, 0).Before(limit)) {
			continue
		}
		if err := b.WALRollback(ctx, req, entry.Kind, entry.Data); err != nil {
			errs = multierror.Append(errs, fmt.Errorf("error rolling back %q entry: %w", entry.Kind, err))
			continue
		}
		if err := DeleteWAL(ctx, req.Storage, id); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	if err := errs.ErrorOrNil(); err != nil {
		return logical.ErrorResponse(err.Error())
	}
	return nil
}
