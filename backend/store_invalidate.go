// SPDX-License-Identifier: MPL-2.0

package backend

import (
	"context"
	"strings"
)

// invalidate forgets what another node wrote. The key is the path in storage.
func (b *backend) invalidate(_ context.Context, key string) {
	switch {
	case strings.HasPrefix(key, rolePrefix):
		b.roles.drop(key)
	case strings.HasPrefix(key, keyPrefix):
		b.keys.drop(key)
	case strings.HasPrefix(key, secretPrefix):
		b.secretCache.drop(key)
	case key == digestPath:
		b.digestSecrets.forget()
	case key == configPath:
		b.configs.forget()
	case strings.HasPrefix(key, jobPrefix):
		b.jobs.forget()
	case key == markPath:
		b.mark.forget()
	case key == importedPath:
		b.imported.forget()
	case key == asidePath:
		b.aside.forget()
	case key == prefixesPath:
		b.prefixes.forget()
	}
}

// overtaken forgets a role's record that storage turned out to be ahead of.
func (b *backend) overtaken(name string) { b.roles.drop(rolePath(name)) }
