// SPDX-License-Identifier: MPL-2.0

package edge

import (
	"syscall"
	"time"
)

// threadTime is what the calling thread has computed so far.
func threadTime() time.Duration {
	const thread = 1
	var used syscall.Rusage
	if err := syscall.Getrusage(thread, &used); err != nil {
		panic(err) // only for an argument that is wrong
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
