// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"github.com/hashicorp/vault/sdk/framework"
)

// paths lists every path. The first pattern that matches wins, with no fall
// through, so the more specific one of a family comes first.
func (b *backend) paths() []*framework.Path {
	return framework.PathAppend(
		b.pathsVerify(), // first: it is asked most, and the table is searched in order
		b.pathsUsage(),
		b.pathsChanges(),
		b.pathsLookup(),
		b.pathsRoles(),
		b.pathsConfig(),
		b.pathsRestore(),
		b.pathsCreds(),
		b.pathsRotate(),
		b.pathsGrace(),
		b.pathsRevoke(),
		b.pathsStatus(),
		b.pathsHistory(),
		b.pathsKeys(),
		b.pathsInventory(),
		b.pathsVersions(),
		b.pathsProblems(),
		b.pathsCalendar(),
		b.pathsTidy(),
		b.pathsReport(),
		b.pathsImport(),
		b.pathsBulk(),
		b.pathsKeyFormat(),
		b.pathsEvents(),
		b.pathsMetrics(),
	)
}
