// SPDX-License-Identifier: MPL-2.0

//go:build unix

package scan

import (
	"io/fs"
	"os"
	"syscall"
)

// openFile opens a file without following a link at its end, and without waiting for
// whoever writes into a pipe.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// owner is who owns a file.
func owner(info fs.FileInfo) (uid uint32) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		uid = stat.Uid
	}
	return uid
}
