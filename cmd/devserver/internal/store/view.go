// SPDX-License-Identifier: MPL-2.0

package store

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/vault/sdk/logical"
)

// View is the part of a Store below a prefix, as the plugin of one mount sees it.
type View struct {
	store  Store
	prefix string
	// refuse holds the error that writes get, or nil.
	refuse atomic.Pointer[error]
}

// NewView returns the view below prefix, which ends in a slash.
func NewView(s Store, prefix string) *View {
	return &View{store: s, prefix: prefix}
}

// Refuse makes all writes fail with err from now on; nil allows them again.
func (v *View) Refuse(err error) {
	if err == nil {
		v.refuse.Store(nil)
		return
	}
	v.refuse.Store(&err)
}

// List implements logical.Storage.
func (v *View) List(ctx context.Context, prefix string) ([]string, error) {
	return v.ListPage(ctx, prefix, "", -1)
}

// ListPage lists what follows after, at most limit keys if limit is positive.
func (v *View) ListPage(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := v.usable(ctx, prefix); err != nil {
		return nil, err
	}
	return v.store.List(v.prefix+prefix, after, limit)
}

// Get implements logical.Storage.
func (v *View) Get(ctx context.Context, key string) (*logical.StorageEntry, error) {
	if err := v.usable(ctx, key); err != nil {
		return nil, err
	}
	value, err := v.store.Get(v.prefix + key)
	if value == nil || err != nil {
		return nil, err
	}
	return &logical.StorageEntry{Key: key, Value: value}, nil
}

// Put implements logical.Storage. There is no seal here that could wrap: the flag is accepted.
func (v *View) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if entry == nil {
		return errors.New("cannot write nil entry")
	}
	value := entry.Value
	if value == nil {
		value = []byte{}
	}
	return v.write(ctx, Write{Key: entry.Key, Value: value})
}

// Delete implements logical.Storage.
func (v *View) Delete(ctx context.Context, key string) error {
	return v.write(ctx, Write{Key: key})
}

// Clear removes everything below the view.
func (v *View) Clear(ctx context.Context) error {
	for {
		keys, err := v.store.List(v.prefix, "", 1)
		if err != nil || len(keys) == 0 {
			return err
		}
		if err := v.clear(ctx, keys[0]); err != nil {
			return err
		}
	}
}

func (v *View) clear(ctx context.Context, key string) error {
	if !strings.HasSuffix(key, "/") {
		return v.store.Apply(Write{Key: v.prefix + key})
	}
	const page = 500
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		children, err := v.store.List(v.prefix+key, "", page)
		if err != nil || len(children) == 0 {
			return err
		}
		var deletes []Write
		for _, c := range children {
			if strings.HasSuffix(c, "/") {
				if err := v.clear(ctx, key+c); err != nil {
					return err
				}
				continue
			}
			deletes = append(deletes, Write{Key: v.prefix + key + c})
		}
		if err := v.store.Apply(deletes...); err != nil {
			return err
		}
	}
}

func (v *View) write(ctx context.Context, w Write) error {
	if err := v.usable(ctx, w.Key); err != nil {
		return err
	}
	if w.Key == "" {
		return errEmptyKey
	}
	if refused := v.refuse.Load(); refused != nil {
		return *refused
	}
	w.Key = v.prefix + w.Key
	return v.store.Apply(w)
}

// usable applies the rule of Vault's storage view: two dots anywhere in a key are refused.
func (v *View) usable(ctx context.Context, key string) error {
	if strings.Contains(key, "..") {
		return logical.ErrRelativePath
	}
	return ctx.Err()
}
