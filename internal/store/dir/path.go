// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"disdel/internal/store"
)

const (
	leafMark  = "@" // ends the name of a value
	splitMark = "+" // ends the name of a folder whose segment goes on inside
	// partBytes is how much of a segment one name holds: with its mark below
	// the 255 bytes of common file systems, and the 143 of encrypted folders.
	partBytes = 128
)

// keyPath returns where key lives under base.
func keyPath(base, key string) string {
	path := base
	for segment := range strings.SplitSeq(key, "/") {
		path += splitSegment(segment)
	}
	return path + leafMark
}

// splitSegment returns the folders and the last name of a segment.
func splitSegment(segment string) string {
	path := ""
	for len(segment) > partBytes {
		path += "/" + segment[:partBytes] + splitMark
		segment = segment[partBytes:]
	}
	return path + "/" + segment
}

// walk calls visit with every value under base whose key starts with prefix, in
// no particular order. Names that are not in the store's scheme are not the
// store's and are passed over, as is what disappears meanwhile.
func walk(ctx context.Context, base, prefix string, visit func(key, path string, entry fs.DirEntry) error) error {
	folder, folderKey := base, ""
	if whole := strings.LastIndexByte(prefix, '/'); whole >= 0 {
		// Only names that keys can have become paths.
		if store.ValidateKey(prefix[:whole]) != nil {
			return nil
		}
		folder = strings.TrimSuffix(keyPath(base, prefix[:whole]), leafMark)
		folderKey = prefix[:whole+1]
	}
	return walkFolder(ctx, folder, folderKey, prefix, visit)
}

func walkFolder(ctx context.Context, folder, folderKey, prefix string, visit func(key, path string, entry fs.DirEntry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		path := folder + "/" + name
		if leaf, ok := strings.CutSuffix(name, leafMark); ok {
			key := folderKey + leaf
			if !strings.HasPrefix(key, prefix) || store.ValidateKey(key) != nil || len(leaf) > partBytes {
				continue
			}
			if err := visit(key, path, entry); err != nil {
				return err
			}
			continue
		}
		if !entry.IsDir() {
			continue
		}
		key := folderKey + name + "/"
		if part, ok := strings.CutSuffix(name, splitMark); ok {
			if len(part) != partBytes {
				continue
			}
			key = folderKey + part
		} else if len(name) > partBytes {
			continue
		}
		if !strings.HasPrefix(key, prefix) && !strings.HasPrefix(prefix, key) {
			continue
		}
		if err := walkFolder(ctx, path, key, prefix, visit); err != nil {
			return err
		}
	}
	return nil
}

// placeTries bounds the contest with deletions that remove a folder each time
// before something is placed in it. Each lost try needs a whole deletion to fall
// into a few microseconds.
const placeTries = 100

// place gives the file temp its name by calling move (link or rename), making
// the folders between base and it. Deletion removes folders that it finds empty,
// so that they may go between being made and being used.
func (s *Store) place(base, temp, path string, move func(from, to string) error) error {
	var err error
	for range placeTries {
		err = move(temp, path)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, gone := os.Lstat(temp); gone != nil {
			if s.closed.Load() {
				return store.ErrClosed
			}
			return gone
		}
		if err := makeFolder(base, filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// makeFolder makes path and what is missing above it, but never base: a store
// whose folder disappeared must not be made again as an empty one.
func makeFolder(base, path string) error {
	if path == base {
		_, err := os.Stat(base)
		return err
	}
	err := os.Mkdir(path, folderMode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(base, filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, folderMode)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// removeEmpty removes the folder at path and those above it, below base, as far
// as they are empty.
func removeEmpty(base, path string) {
	for len(path) > len(base) && removeFolder(path) == nil {
		path = filepath.Dir(path)
	}
}

// removeFolder removes the folder at path if it is empty, and nothing else that
// may stand there.
func removeFolder(path string) error {
	if err := syscall.Rmdir(path); err != nil {
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

// inUse is what removing a folder answers that is not empty or not there.
var inUse = []error{syscall.ENOTEMPTY, syscall.EEXIST, syscall.ENOENT, syscall.ENOTDIR}

// prune removes the empty folders below folder, as far as their names are the
// store's. A writer that loses one makes it again: see place. It goes on after
// an error and returns the first.
func prune(ctx context.Context, folder string, logs bool) error {
	entries, first := os.ReadDir(folder)
	if errors.Is(first, fs.ErrNotExist) {
		first = nil
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !entry.IsDir() {
			continue
		}
		name, path := entry.Name(), folder+"/"+entry.Name()
		segment, leaf := strings.CutSuffix(name, leafMark)
		if !leaf {
			segment, _ = strings.CutSuffix(name, splitMark)
		}
		if strings.HasSuffix(folder, splitMark) {
			segment = "x" + segment // It goes on here and may start with a dot.
		}
		if leaf && !logs || store.ValidateKey(segment) != nil {
			continue
		}
		var err error
		if !leaf {
			err = prune(ctx, path, logs)
		}
		if gone := removeFolder(path); err == nil && !slices.ContainsFunc(inUse, func(no error) bool { return errors.Is(gone, no) }) {
			err = gone
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// openFile opens the file at path. Whatever else others may have put there (a
// link, a pipe, a device) is corrupt, and neither followed nor waited for.
func openFile(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		if info, lost := os.Lstat(path); lost == nil && !info.Mode().IsRegular() {
			err = notFile(path, info.Mode())
		}
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notFile(path, info.Mode())
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func notFile(path string, mode fs.FileMode) error {
	what := "not a file"
	switch mode.Type() { //nolint:exhaustive // the other types and flags are just not files
	case fs.ModeDir:
		what = "a folder"
	case fs.ModeSymlink:
		what = "a symbolic link"
	case fs.ModeNamedPipe:
		what = "a pipe"
	}
	return fmt.Errorf("%s is %s: %w", path, what, store.ErrCorrupt)
}

// openFolder opens a folder, and does not wait for anything else.
func openFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
}

// syncFolders makes the names in path and in all folders above it, up to root,
// survive a power failure. Folders above may have been made by a client that
// died before it could do so.
func syncFolders(root, path string) error {
	for {
		if err := syncFolder(path); err != nil {
			return err
		}
		if len(path) <= len(root) {
			return nil
		}
		path = filepath.Dir(path)
	}
}

func syncFolder(path string) error {
	folder, err := openFolder(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !slices.ContainsFunc(noFolderSync, func(no error) bool { return errors.Is(err, no) }) {
		return err
	}
	return nil
}
