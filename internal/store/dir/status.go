// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"fmt"
	"io"
	"os"

	"disdel/internal/store"
)

// SetStatus implements store.Store. It is not synced: a status is written often
// and is worth nothing after a power failure.
func (s *Store) SetStatus(ctx context.Context, key string, value []byte) error {
	const op = "set status"
	if len(value) > store.MaxStatusBytes {
		return fmt.Errorf("set status: %d bytes, at most %d: %w", len(value), store.MaxStatusBytes, store.ErrLimit)
	}
	if err := s.begin(ctx, op, key); err != nil {
		return err
	}
	base := s.base(statusName)
	path := keyPath(base, key)
	if value == nil {
		if err := s.remove(base, path); err != nil {
			return explain(op, key, err)
		}
		return nil
	}
	temp, _, err := s.writeTemp(ctx, kindStatus, key, false, func(w io.Writer) error {
		_, err := w.Write(value)
		return err
	})
	if err != nil {
		return explain(op, key, err)
	}
	if err := s.place(base, temp, path, os.Rename); err != nil {
		_ = os.Remove(temp)
		return explain(op, key, err)
	}
	return nil
}

// Status implements store.Store.
func (s *Store) Status(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "status", key); err != nil {
		return nil, err
	}
	value, err := readFile(keyPath(s.base(statusName), key), kindStatus, key, store.MaxStatusBytes)
	if err != nil {
		return nil, explain("status", key, s.absent(err))
	}
	return value, nil
}

// readFile returns the data of the file at path, at most limit bytes.
func readFile(path string, k kind, name string, limit int) ([]byte, error) {
	file, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	frames := newFrameReader(file, k, name)
	defer frames.release()
	data, err := frames.readAll(limit)
	if err != nil {
		return nil, inFile(path, err)
	}
	return data, nil
}
