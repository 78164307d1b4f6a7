// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// lastUse is when a key of that version of the role was last accepted, as far
// as this server saw it; zero if never.
func (b *backend) lastUse(context.Context, logical.Storage, *roleRecord, int) (time.Time, error) {
	return time.Time{}, nil
}
