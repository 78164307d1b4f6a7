// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package host

import "syscall"

// endWithParent has no equivalent here: a plugin outlives a server that was killed.
func endWithParent() *syscall.SysProcAttr { return nil }
