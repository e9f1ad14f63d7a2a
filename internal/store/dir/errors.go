// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"disdel/internal/store"
)

// noFolderSync is what file systems answer that cannot sync a folder; there,
// syncing the file is all that can be promised.
var noFolderSync = []error{syscall.EINVAL, syscall.ENOTSUP}

// transient lists the errors of the operating system that may pass, with what
// the user can do so that they do.
var transient = []struct {
	err    error
	advice string
}{
	{syscall.ENOSPC, "free space there or use another folder"},
	{syscall.EDQUOT, "the disk quota is used up: free space or use another folder"},
	{syscall.EROFS, "mount the file system writable or use another folder"},
	{syscall.EACCES, "give this user the right to read and write there"},
	{syscall.EPERM, "give this user the right to read and write there, on a file system with hard links"},
	{syscall.ENOTSUP, "use a folder on a file system with hard links and locks"},
	{syscall.ENOLCK, "use a folder on a file system with locks"},
	{syscall.EIO, "the disk reports an error: check it and the system's log"},
	{syscall.ENXIO, "the disk is gone: check it and the system's log"},
	{syscall.ENODEV, "the disk is gone: check it and the system's log"},
	{syscall.ESTALE, "the network folder went away: mount it again"},
	{syscall.ETIMEDOUT, "the network folder does not answer: check its server"},
	{syscall.EMFILE, "raise the limit on open files (ulimit -n)"},
	{syscall.ENFILE, "the machine has too many open files: close some programs"},
	{syscall.ENOMEM, "the machine is out of memory: close some programs"},
	{syscall.ENOTDIR, "a file stands where the store needs a folder: remove it"},
	{fs.ErrNotExist, "the store's folder or a part of it is gone: check that it is still mounted"},
}

// explain adds the operation and its key to err, and makes what may pass
// ErrUnavailable with advice. The errors of the operating system name the path.
func explain(op, key string, err error) error {
	if key != "" {
		op += " " + key
	}
	for _, settled := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrCorrupt, store.ErrLimit,
		store.ErrClosed, store.ErrUnavailable, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, settled) {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	for _, known := range transient {
		if errors.Is(err, known.err) {
			return fmt.Errorf("%s: %w: %s: %w", op, err, known.advice, store.ErrUnavailable)
		}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// present fails when the whole store is not there, as when its disk was
// unmounted.
func (s *Store) present() error {
	_, err := os.Stat(filepath.Join(s.root, markerName))
	return err
}

// absent is the answer to a name that is not there: ErrNotFound, unless the
// whole store is not there.
func (s *Store) absent(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if gone := s.present(); gone != nil {
		return gone
	}
	return store.ErrNotFound
}

// inFile names the file in which corruption was found; other errors of a file
// name it already.
func inFile(path string, err error) error {
	if errors.Is(err, syscall.EISDIR) {
		return fmt.Errorf("%s is a folder: %w", path, store.ErrCorrupt)
	}
	if errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return err
}
