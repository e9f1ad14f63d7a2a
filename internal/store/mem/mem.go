// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"disdel/internal/job"
	"disdel/internal/store"
)

// Store is one client of a store in memory.
type Store struct {
	data   *data
	closed atomic.Bool
}

var _ store.Store = (*Store)(nil)

// data is what the clients of one store share. Stored slices are never changed,
// only replaced.
type data struct {
	mu      sync.Mutex
	objects map[string][]byte
	status  map[string][]byte
	logs    map[string][]store.Entry
}

// New makes an empty store and its first client.
func New() *Store {
	return &Store{data: &data{
		objects: map[string][]byte{},
		status:  map[string][]byte{},
		logs:    map[string][]store.Entry{},
	}}
}

// Share makes another client of the same store, open even if s is closed.
func (s *Store) Share() *Store { return &Store{data: s.data} }

// begin is the checks before every operation, in the contract's order.
func (s *Store) begin(ctx context.Context, op string, keys ...string) error {
	for _, key := range keys {
		if err := store.ValidateKey(key); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	if s.closed.Load() {
		return fmt.Errorf("%s: %w", op, store.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// PutIfAbsent implements store.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if err := s.begin(ctx, "put", key); err != nil {
		return false, err
	}
	if s.has(key) {
		return false, nil
	}
	w := &writer{ctx: ctx}
	err := write(w)
	failed := w.err
	w.err = fmt.Errorf("put %s: write after the call: %w", key, store.ErrClosed)
	if failed != nil {
		return false, fmt.Errorf("put %s: %w", key, failed)
	}
	if err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("put %s: %w", key, err)
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	if _, ok := s.data.objects[key]; ok {
		return false, nil
	}
	s.data.objects[key] = w.buffer.Bytes()
	return true, nil
}

func (s *Store) has(key string) bool {
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	_, ok := s.data.objects[key]
	return ok
}

type writer struct {
	ctx    context.Context
	buffer bytes.Buffer
	err    error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	return w.buffer.Write(p)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	object, ok := s.data.objects[key]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", key, store.ErrNotFound)
	}
	return &reader{ctx: ctx, key: key, left: object}, nil
}

type reader struct {
	ctx context.Context
	key string

	mu     sync.Mutex
	left   []byte
	closed bool
}

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0, fmt.Errorf("get %s: read after close: %w", r.key, store.ErrClosed)
	}
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("get %s: %w", r.key, err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.left = true, nil
	return nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.begin(ctx, "list"); err != nil {
		return nil, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	return keysWith(s.data.objects, prefix), nil
}

func keysWith[V any](m map[string]V, prefix string) []string {
	keys := slices.Sorted(maps.Keys(m))
	return slices.DeleteFunc(keys, func(key string) bool { return !strings.HasPrefix(key, prefix) })
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := s.begin(ctx, "delete", keys...); err != nil {
		return err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	for _, key := range keys {
		delete(s.data.objects, key)
	}
	return nil
}

// Flush implements store.Store. Memory cannot promise more than it has.
func (s *Store) Flush(ctx context.Context, keys ...string) error {
	if err := s.begin(ctx, "flush", keys...); err != nil {
		return err
	}
	for _, key := range keys {
		if !s.has(key) {
			return fmt.Errorf("flush %s: %w", key, store.ErrNotFound)
		}
	}
	return nil
}

// SetStatus implements store.Store.
func (s *Store) SetStatus(ctx context.Context, key string, value []byte) error {
	if len(value) > store.MaxStatusBytes {
		return fmt.Errorf("set status: %d bytes, at most %d: %w", len(value), store.MaxStatusBytes, store.ErrLimit)
	}
	if err := s.begin(ctx, "set status", key); err != nil {
		return err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	if value == nil {
		delete(s.data.status, key)
	} else {
		s.data.status[key] = copied(value)
	}
	return nil
}

// copied is never nil, unlike bytes.Clone.
func copied(b []byte) []byte { return append([]byte{}, b...) }

// Status implements store.Store.
func (s *Store) Status(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "status", key); err != nil {
		return nil, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	value, ok := s.data.status[key]
	if !ok {
		return nil, fmt.Errorf("status %s: %w", key, store.ErrNotFound)
	}
	return copied(value), nil
}

// Append implements store.Store.
func (s *Store) Append(ctx context.Context, log string, head store.Head, payload []byte) (store.Head, error) {
	if len(payload) > store.MaxEntryBytes {
		return store.Head{}, fmt.Errorf("append: %d bytes, at most %d: %w", len(payload), store.MaxEntryBytes, store.ErrLimit)
	}
	if head.Sequence >= store.MaxLogEntries {
		return store.Head{}, fmt.Errorf("append: a log has at most %d entries: %w", store.MaxLogEntries, store.ErrLimit)
	}
	if err := s.begin(ctx, "append", log); err != nil {
		return store.Head{}, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	entries := s.data.logs[log]
	last := store.Head{}
	if len(entries) > 0 {
		last = entries[len(entries)-1].Head
	}
	if head != last {
		return store.Head{}, fmt.Errorf("append %s: the log is at %d, not at the given head %d: %w", log, last.Sequence, head.Sequence, store.ErrConflict)
	}
	next := head.Next(payload)
	s.data.logs[log] = append(entries, store.Entry{Head: next, Payload: copied(payload)})
	return next, nil
}

// Log implements store.Store.
func (s *Store) Log(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	if err := s.begin(ctx, "log", log); err != nil {
		return nil, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	entries := s.data.logs[log]
	known := head == store.Head{}
	if n := head.Sequence; n > 0 && n <= uint64(len(entries)) {
		known = entries[n-1].Head == head
	}
	if !known {
		return nil, fmt.Errorf("log %s: head %d is not part of the log: %w", log, head.Sequence, store.ErrConflict)
	}
	after := slices.Clone(entries[head.Sequence:])
	for i := range after {
		after[i].Payload = copied(after[i].Payload)
	}
	return after, nil
}

// Logs implements store.Store.
func (s *Store) Logs(ctx context.Context, prefix string) ([]string, error) {
	if err := s.begin(ctx, "logs"); err != nil {
		return nil, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	return keysWith(s.data.logs, prefix), nil
}

// Size implements store.Store. Memory needs no framing.
func (s *Store) Size(ctx context.Context, prefix string) (job.Bytes, error) {
	if err := s.begin(ctx, "size"); err != nil {
		return 0, err
	}
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	var total job.Bytes
	for key, object := range s.data.objects {
		if strings.HasPrefix(key, prefix) {
			total += job.Bytes(len(object))
		}
	}
	return total, nil
}

// URL implements store.Store. No other process can open it; see Share.
func (s *Store) URL() string { return "mem://" }

// Close implements store.Store.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}
