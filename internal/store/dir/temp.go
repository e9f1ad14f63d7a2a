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
	"strconv"
	"strings"
	"syscall"
	"time"

	"disdel/internal/store"
)

const (
	lockName = "lock"
	// staleAge is how long nothing may have happened in the temporary folder of a
	// client elsewhere before it is swept. The lock alone says that a client is
	// dead where it ran on this kernel, which the lock's content tells; a folder
	// shared with another machine may not share locks, and age covers that.
	staleAge = time.Hour
	// recordBytes is more than the content of a lock ever needs.
	recordBytes = 1024
	bootPath    = "/proc/sys/kernel/random/boot_id"
	// tempTries bounds how often a client makes its temporary folder again
	// because a sweep took it.
	tempTries = 3
)

// scratch is the folder of one client's temporary files. It lives as long as the
// client, which holds a lock in it all the while, so that writing a file costs
// no lock of its own. The lock says where the client runs, and says so only once
// it is held: one that is free and says something belongs to a dead client.
type scratch struct {
	folder string
	lock   *os.File
	count  uint64
}

// openScratch makes a new scratch folder under root.
func openScratch(root string) (*scratch, error) {
	var err error
	for range tempTries {
		folder := filepath.Join(root, tempName, randomName())
		if err = os.Mkdir(folder, folderMode); err != nil {
			if errors.Is(err, fs.ErrExist) {
				continue
			}
			return nil, err
		}
		var lock *os.File
		lock, err = os.OpenFile(filepath.Join(folder, lockName), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // Swept before it had a lock.
				continue
			}
			return nil, err
		}
		if err = flock(lock, syscall.LOCK_EX); err != nil {
			_ = lock.Close()
			return nil, err
		}
		// A sweep may have held the lock first and removed it.
		if _, err = os.Lstat(lock.Name()); err == nil {
			// Without its record the folder is only swept later.
			_, _ = lock.WriteString(whereabouts())
			return &scratch{folder: folder, lock: lock}, nil
		}
		_ = lock.Close()
	}
	return nil, err
}

// whereabouts names this machine and its boot, or is empty when that cannot be
// told from others.
func whereabouts() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return ""
	}
	boot, _ := os.ReadFile(bootPath)
	if len(boot) == 0 && strings.HasPrefix(host, "localhost") {
		return ""
	}
	return fmt.Sprintf("host %s\nboot %s\n", host, strings.TrimSpace(string(boot)))
}

func flock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return &fs.PathError{Op: "lock", Path: file.Name(), Err: err}
		}
	}
}

// close removes the folder and all in it, the lock last.
func (c *scratch) close() {
	removeScratch(c.folder)
	_ = c.lock.Close()
}

func removeScratch(folder string) {
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		if entry.Name() != lockName {
			_ = os.Remove(filepath.Join(folder, entry.Name()))
		}
	}
	_ = os.Remove(filepath.Join(folder, lockName))
	_ = removeFolder(folder)
}

// createTemp makes an empty temporary file.
func (s *Store) createTemp() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for range tempTries {
		if s.closed.Load() {
			return nil, store.ErrClosed
		}
		if s.scratch == nil {
			if s.scratch, err = openScratch(s.root); err != nil {
				return nil, err
			}
		}
		s.scratch.count++
		name := filepath.Join(s.scratch.folder, strconv.FormatUint(s.scratch.count, 10))
		var file *os.File
		file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		_ = s.scratch.lock.Close()
		s.scratch = nil
	}
	return nil, err
}

// writeTemp makes a complete temporary file of what write writes; the caller
// removes it. An error of write itself is returned apart, for it is not the
// store's. With sync the content survives a power failure.
func (s *Store) writeTemp(ctx context.Context, k kind, name string, sync bool, write func(io.Writer) error) (path string, failed, err error) {
	file, err := s.createTemp()
	if err != nil {
		return "", nil, err
	}
	complete := false
	defer func() { // Also when write panics.
		if !complete {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	bounded := s.bounded(file)
	frames := newFrameWriter(ctx, bounded, k, name)
	defer frames.release()
	failed = write(frames)
	if frames.err != nil {
		return "", nil, frames.err
	}
	if failed != nil {
		return "", failed, nil
	}
	if err := frames.finish(); err != nil {
		return "", nil, err
	}
	if sync {
		err = file.Sync()
	} else {
		err = bounded.end()
	}
	if err != nil {
		return "", nil, err
	}
	if err := file.Close(); err != nil {
		return "", nil, err
	}
	if err := ctx.Err(); err != nil {
		return "", nil, err
	}
	complete = true
	return file.Name(), nil, nil
}

// sweep removes the temporary files of clients that are dead: the lock in their
// folder is free, and they ran on this machine since it started or the folder is
// old. It does what it can; what is left is found again by the next sweep.
func sweep(ctx context.Context, root string, now time.Time) error {
	markers, _ := filepath.Glob(filepath.Join(root, markerTemp+"*"))
	for _, path := range markers {
		if old(path, now) {
			_ = os.Remove(path)
		}
	}
	folders, err := os.ReadDir(filepath.Join(root, tempName))
	here := whereabouts()
	for _, entry := range folders {
		if err := ctx.Err(); err != nil {
			return err
		}
		if entry.IsDir() {
			sweepScratch(filepath.Join(root, tempName, entry.Name()), here, now)
		}
	}
	return err
}

func old(path string, now time.Time) bool {
	info, err := os.Lstat(path)
	return err == nil && now.Sub(info.ModTime()) > staleAge
}

func sweepScratch(folder, here string, now time.Time) {
	lock, err := openFile(filepath.Join(folder, lockName), os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		// A client is about to make its lock, or a client or a sweep died over
		// it; then the folder is empty.
		if old(folder, now) {
			_ = removeFolder(folder)
		}
		return
	}
	if err != nil {
		return
	}
	defer lock.Close()
	if flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return
	}
	// A client that has made its lock and does not hold it yet has not written
	// to it.
	record, err := io.ReadAll(io.LimitReader(lock, recordBytes))
	if err == nil && here != "" && string(record) == here || allOld(folder, now) {
		removeScratch(folder)
	}
}

// allOld reports whether nothing has happened in folder for long.
func allOld(folder string, now time.Time) bool {
	entries, err := os.ReadDir(folder)
	return err == nil && old(folder, now) && !slices.ContainsFunc(entries, func(entry fs.DirEntry) bool {
		return !old(filepath.Join(folder, entry.Name()), now)
	})
}
