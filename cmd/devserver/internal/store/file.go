// SPDX-License-Identifier: MPL-2.0

package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var bucketName = []byte("entries")

// maxBatch bounds how many waiting calls share one commit, and so how long the first of them waits.
const maxBatch = 512

// File is a Store in one bbolt file. Apply returns after the commit is on disk; calls that arrive
// while a commit is under way share the next one, so that many writers do not each wait for a sync.
type File struct {
	db      *bbolt.DB
	pending chan *commit
	done    chan struct{}

	mu     sync.RWMutex
	closed bool
}

type commit struct {
	writes []Write
	result chan error
}

// OpenFile opens or creates the file at path. It refuses a file that another process holds.
func OpenFile(path string) (*File, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 2 * time.Second, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("storage file %s is in use by another process", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open storage file %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucketName)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare storage file %s: %w", path, err), db.Close())
	}
	f := &File{db: db, pending: make(chan *commit, maxBatch), done: make(chan struct{})}
	go f.run()
	return f, nil
}

func (f *File) run() {
	defer close(f.done)
	for first := range f.pending {
		batch := []*commit{first}
		for len(batch) < maxBatch && len(f.pending) > 0 {
			batch = append(batch, <-f.pending)
		}
		err := f.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketName)
			for _, c := range batch {
				for _, w := range c.writes {
					if err := write(b, w); err != nil {
						return err
					}
				}
			}
			return nil
		})
		for _, c := range batch {
			c.result <- err
		}
	}
}

func write(b *bbolt.Bucket, w Write) error {
	if w.Value == nil {
		return b.Delete([]byte(w.Key))
	}
	return b.Put([]byte(w.Key), w.Value)
}

// Get implements Store.
func (f *File) Get(key string) ([]byte, error) {
	var out []byte
	err := f.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketName).Get([]byte(key)); v != nil {
			out = append([]byte{}, v...)
		}
		return nil
	})
	return out, f.wrap(err)
}

// List implements Store.
func (f *File) List(prefix, after string, limit int) ([]string, error) {
	out := []string{}
	err := f.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketName).Cursor()
		p := []byte(prefix)
		from := prefix
		if after != "" {
			from += next(after)
		}
		for k, _ := c.Seek([]byte(from)); k != nil && bytes.HasPrefix(k, p); {
			name, _, isDir := strings.Cut(string(k[len(p):]), "/")
			if isDir {
				name += "/"
			}
			out = append(out, name)
			if limit > 0 && len(out) == limit {
				return nil
			}
			k, _ = c.Seek([]byte(prefix + next(name)))
		}
		return nil
	})
	return out, f.wrap(err)
}

// next is the smallest string that sorts after name and after all that name stands for.
func next(name string) string {
	if dir, ok := strings.CutSuffix(name, "/"); ok {
		return dir + string(rune('/'+1))
	}
	return name + "\x00"
}

// Apply implements Store.
func (f *File) Apply(writes ...Write) error {
	if err := check(writes); err != nil {
		return err
	}
	c := &commit{writes: writes, result: make(chan error, 1)}
	f.mu.RLock()
	if f.closed {
		f.mu.RUnlock()
		return ErrClosed
	}
	f.pending <- c
	f.mu.RUnlock()
	return f.wrap(<-c.result)
}

// Close waits for commits under way.
func (f *File) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	close(f.pending)
	f.mu.Unlock()
	<-f.done
	return f.db.Close()
}

func (f *File) wrap(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}
