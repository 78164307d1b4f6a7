// SPDX-License-Identifier: MPL-2.0

package acceptance

import "testing"

func (p *prometheus) picture(t *testing.T, d dashboard) {}
