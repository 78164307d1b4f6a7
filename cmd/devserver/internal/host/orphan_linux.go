// SPDX-License-Identifier: MPL-2.0

package host

import "syscall"

// endWithParent makes the kernel end the plugin if this process dies without stopping it.
func endWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
