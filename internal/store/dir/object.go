// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"disdel/internal/job"
	"disdel/internal/store"
)

// PutIfAbsent implements store.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if err := s.begin(ctx, "put", key); err != nil {
		return false, err
	}
	base := s.base(objectsName)
	path := keyPath(base, key)
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	temp, failed, err := s.writeTemp(ctx, kindObject, key, false, write)
	if failed != nil {
		return false, failed
	}
	if err != nil {
		return false, explain("put", key, err)
	}
	defer os.Remove(temp)
	// Of several links to one name one succeeds, whoever makes them.
	err = s.place(base, temp, path, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, explain("put", key, err)
	}
	return true, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	file, err := openFile(keyPath(s.base(objectsName), key), os.O_RDONLY)
	if err != nil {
		return nil, explain("get", key, s.absent(err))
	}
	return &reader{ctx: ctx, key: key, file: file, frames: newFrameReader(file, kindObject, key)}, nil
}

// reader hands out an object's verified frames. The lock lets Close come from
// another goroutine than Read without a read of a buffer that was given back.
type reader struct {
	ctx  context.Context
	key  string
	file *os.File

	mu     sync.Mutex
	frames *frameReader // nil once closed
	data   []byte       // verified, not yet handed out
}

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frames == nil {
		return 0, fmt.Errorf("get %s: read after close: %w", r.key, store.ErrClosed)
	}
	if err := r.ctx.Err(); err != nil {
		return 0, explain("get", r.key, err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.data) == 0 {
		data, err := r.frames.next()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, explain("get", r.key, inFile(r.file.Name(), err))
		}
		r.data = data
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frames == nil {
		return nil
	}
	r.frames.release()
	r.frames, r.data = nil, nil
	return r.file.Close()
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	err := s.eachFile(ctx, "list", prefix, func(key, _ string, _ fs.DirEntry) error {
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return keys, nil
}

// Size implements store.Store.
func (s *Store) Size(ctx context.Context, prefix string) (job.Bytes, error) {
	var total job.Bytes
	err := s.eachFile(ctx, "size", prefix, func(_, _ string, entry fs.DirEntry) error {
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += job.Bytes(info.Size())
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return total, nil
}

func (s *Store) eachFile(ctx context.Context, op, prefix string, visit func(key, path string, entry fs.DirEntry) error) error {
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	found := false
	err := walk(ctx, s.base(objectsName), prefix, func(key, path string, entry fs.DirEntry) error {
		if !entry.Type().IsRegular() {
			return nil
		}
		found = true
		return visit(key, path, entry)
	})
	if err == nil && !found {
		err = s.present()
	}
	if err != nil {
		return explain(op, prefix, err)
	}
	return nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := s.begin(ctx, "delete", keys...); err != nil {
		return err
	}
	base := s.base(objectsName)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return explain("delete", key, err)
		}
		if err := s.remove(base, keyPath(base, key)); err != nil {
			return explain("delete", key, err)
		}
	}
	return nil
}

// remove removes the file at path, if there is one, and the folders that it
// leaves empty.
func (s *Store) remove(base, path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s.present()
	}
	if err == nil {
		removeEmpty(base, filepath.Dir(path))
	}
	return err
}

// Flush implements store.Store.
func (s *Store) Flush(ctx context.Context, keys ...string) error {
	if err := s.begin(ctx, "flush", keys...); err != nil {
		return err
	}
	base := s.base(objectsName)
	folders := map[string]string{} // by path, with one of the keys in it
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return explain("flush", key, err)
		}
		path := keyPath(base, key)
		if err := syncFile(path); err != nil {
			return explain("flush", key, s.absent(err))
		}
		folders[s.root] = key
		for folder := filepath.Dir(path); len(folder) > len(s.root); folder = filepath.Dir(folder) {
			folders[folder] = key
		}
	}
	for folder, key := range folders {
		if err := ctx.Err(); err != nil {
			return explain("flush", key, err)
		}
		// A folder goes only once the objects in it have gone.
		if err := syncFolder(folder); err != nil {
			return explain("flush", key, s.absent(err))
		}
	}
	return nil
}

func syncFile(path string) error {
	file, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
