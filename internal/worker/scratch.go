// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"io"

	"disdel/internal/store"
)

// scratch puts and gets objects, which is all that tasks do with a store, under
// a prefix that ends with a slash; the other methods are the store's own. A
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

// clear deletes everything under the prefix.
func (s scratch) clear(ctx context.Context) error {
	keys, err := s.List(ctx, s.prefix)
	if err != nil {
		return err
	}
	return s.Delete(ctx, keys...)
}
