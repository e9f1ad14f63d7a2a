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

// advised lists the errors of the operating system that the user can do
// something about: what that is, and whether they may pass (ErrUnavailable) or
// stay until it is done (ErrDenied).
var advised = []struct {
	err    error
	advice string
	class  error
}{
	{syscall.ENOSPC, "free space there or use another folder", store.ErrUnavailable},
	{syscall.EDQUOT, "the disk quota is used up: free space or use another folder", store.ErrUnavailable},
	{syscall.EROFS, "mount the file system writable or use another folder", store.ErrDenied},
	{syscall.EACCES, "give this user the right to read and write there", store.ErrDenied},
	{syscall.EPERM, "give this user the right to read and write there, on a file system with hard links", store.ErrDenied},
	{syscall.ENOTSUP, "use a folder on a file system with hard links and locks", store.ErrDenied},
	{syscall.ENOLCK, "use a folder on a file system with locks", store.ErrUnavailable},
	{syscall.EIO, "the disk reports an error: check it and the system's log", store.ErrUnavailable},
	{syscall.ENXIO, "the disk is gone: check it and the system's log", store.ErrUnavailable},
	{syscall.ENODEV, "the disk is gone: check it and the system's log", store.ErrUnavailable},
	{syscall.ESTALE, "the network folder went away: mount it again", store.ErrUnavailable},
	{syscall.ETIMEDOUT, "the network folder does not answer: check its server", store.ErrUnavailable},
	{syscall.EAGAIN, "another program holds the file: wait or stop it", store.ErrUnavailable},
	{syscall.EMFILE, "raise the limit on open files (ulimit -n)", store.ErrUnavailable},
	{syscall.ENFILE, "the machine has too many open files: close some programs", store.ErrUnavailable},
	{syscall.ENOMEM, "the machine is out of memory: close some programs", store.ErrUnavailable},
	{syscall.ENOTDIR, "a file stands where the store needs a folder: name another place, or move the file", store.ErrDenied},
	{fs.ErrNotExist, "the store's folder or a part of it is gone: check that it is still mounted", store.ErrUnavailable},
}

// explain adds the operation and its key to err, and makes what may pass
// ErrUnavailable and what the system refuses ErrDenied, with advice. The errors
// of the operating system name the path.
func explain(op, key string, err error) error {
	if key != "" {
		op += " " + key
	}
	for _, settled := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrCorrupt, store.ErrLimit,
		store.ErrClosed, store.ErrUnavailable, store.ErrDenied, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, settled) {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	for _, known := range advised {
		if errors.Is(err, known.err) {
			return fmt.Errorf("%s: %w: %s: %w", op, err, known.advice, known.class)
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
	if errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return err
}
