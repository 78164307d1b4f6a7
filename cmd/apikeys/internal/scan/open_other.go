// SPDX-License-Identifier: MPL-2.0

//go:build !unix

package scan

import (
	"io/fs"
	"os"
)

func openFile(path string) (*os.File, error) { return os.Open(path) }

func owner(fs.FileInfo) uint32 { return 0 }
