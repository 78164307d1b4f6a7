// SPDX-License-Identifier: MPL-2.0

package pluginutil

import (
	"fmt"
	"syscall"
)

func lockMemory() error {
	if err := syscall.Mlockall(syscall.MCL_CURRENT | syscall.MCL_FUTURE); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}
