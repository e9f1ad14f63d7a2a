// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"

	"disdel/internal/store"
)

// work is what a task that succeeded read, wrote and answered.
type work struct {
	reads, writes map[string][]byte
	answer        []byte
}

// done has all tasks that real workers have done, by their parameters. Workers
// are deterministic, so that a task which finds the same objects need not be
// computed again: most of thousands of simulated jobs take no arithmetic.
var done sync.Map

// replay has the effect on the store of a task that was done before. It does
// nothing and returns false where there was none, or where any object that the
// task reads is not there or has other bytes.
func replay(ctx context.Context, s store.Store, key string) (answer []byte, ok bool) {
	found, ok := done.Load(key)
	if !ok {
		return nil, false
	}
	w := found.(*work)
	for key, want := range w.reads {
		if !holds(ctx, s, key, want) {
			return nil, false
		}
	}
	for key, object := range w.writes {
		if _, err := s.PutIfAbsent(ctx, key, func(out io.Writer) error {
			_, err := out.Write(object)
			return err
		}); err != nil {
			return nil, false
		}
	}
	return w.answer, true
}

// holds says whether the object under key is there and has the bytes want.
func holds(ctx context.Context, s store.Store, key string, want []byte) bool {
	r, err := s.Get(ctx, key)
	if err != nil {
		return false
	}
	defer func() { _ = r.Close() }() // nothing is lost with a reader in memory
	block := make([]byte, 16<<10)
	for {
		n, err := r.Read(block)
		if n > len(want) || !bytes.Equal(block[:n], want[:n]) {
			return false
		}
		want = want[n:]
		if err != nil {
			return errors.Is(err, io.EOF) && len(want) == 0
		}
	}
}

// recorder notes what one task reads and writes, once reads and writes are set.
type recorder struct {
	store.Store
	reads, writes map[string][]byte
	// partial says that the task also went by what is not there.
	partial bool
}

func (r *recorder) List(ctx context.Context, prefix string) ([]string, error) {
	r.partial = true
	return r.Store.List(ctx, prefix)
}

func (r *recorder) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	object, err := r.Store.Get(ctx, key)
	r.partial = r.partial || err != nil
	if err == nil && r.reads != nil {
		var all []byte
		if all, err = io.ReadAll(object); err == nil {
			r.reads[key] = all
			err = object.Close()
			object = io.NopCloser(bytes.NewReader(all))
		}
	}
	return object, err
}

func (r *recorder) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if r.writes == nil {
		return r.Store.PutIfAbsent(ctx, key, write)
	}
	var all bytes.Buffer
	if err := write(&all); err != nil {
		return false, err
	}
	r.writes[key] = all.Bytes()
	return r.Store.PutIfAbsent(ctx, key, func(out io.Writer) error {
		_, err := out.Write(all.Bytes())
		return err
	})
}
