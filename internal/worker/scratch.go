// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"io"

	"disdel/internal/store"
)

// scratch is a store under a prefix that ends with a slash, for what tasks do
// with one; the methods that they do not use are the store's own. A
// rehearsal works in it, so that whoever clears the job's scratch space also
// clears what a killed rehearsal left.
type scratch struct {
	store.Store
	prefix string
}

// PutIfAbsent implements store.Store.
func (s scratch) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	return s.Store.PutIfAbsent(ctx, s.prefix+key, write)
}

// Get implements store.Store.
func (s scratch) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return s.Store.Get(ctx, s.prefix+key)
}

// List implements store.Store.
func (s scratch) List(ctx context.Context, prefix string) ([]string, error) {
	keys, err := s.Store.List(ctx, s.prefix+prefix)
	for i, key := range keys {
		keys[i] = key[len(s.prefix):]
	}
	return keys, err
}

// Delete implements store.Store.
func (s scratch) Delete(ctx context.Context, keys ...string) error {
	prefixed := make([]string, len(keys))
	for i, key := range keys {
		prefixed[i] = s.prefix + key
	}
	return s.Store.Delete(ctx, prefixed...)
}

// SetStatus implements store.Store.
func (s scratch) SetStatus(ctx context.Context, key string, value []byte) error {
	return s.Store.SetStatus(ctx, s.prefix+key, value)
}

// clear deletes everything under the prefix.
func (s scratch) clear(ctx context.Context) error {
	keys, err := s.List(ctx, "")
	if err != nil {
		return err
	}
	return s.Delete(ctx, keys...)
}
