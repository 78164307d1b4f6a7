// SPDX-License-Identifier: MPL-2.0

package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// target is where a report goes: a file that appears as a whole or not at all, or a
// stream.
type target struct {
	*bufio.Writer
	file *os.File // the new one; nil with a stream
	path string
}

// create begins a file, or with - goes on with the stream. It fails early where there can
// be no file in the end.
func create(path string, stream io.Writer) (*target, error) {
	if path == "-" {
		return &target{Writer: bufio.NewWriter(stream)}, nil
	}
	// A link stays one, and what it points at is replaced.
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("-o: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("-o: %s is no file; - is standard output", path)
	default:
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, fmt.Errorf("-o: %w", err)
		}
	}
	// Made with mode 0600: who reads the mount may be few.
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, fmt.Errorf("-o: %w", err)
	}
	return &target{Writer: bufio.NewWriter(file), file: file, path: path}, nil
}

// keep puts the file in its place.
func (t *target) keep() error {
	if err := t.Flush(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if t.file == nil {
		return nil
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if err := t.file.Close(); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	if err := os.Rename(t.file.Name(), t.path); err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	t.file = nil
	return nil
}

// discard leaves nothing of a file that was not kept.
func (t *target) discard() {
	if t.file != nil {
		_ = t.file.Close()
		_ = os.Remove(t.file.Name())
	}
}
