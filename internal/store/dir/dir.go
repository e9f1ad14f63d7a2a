// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"disdel/internal/store"
)

const (
	markerName    = "disdel-store"
	markerPrefix  = "disdel store\nformat "
	markerTemp    = ".disdel-store-" // followed by something random
	formatVersion = 1
	markerBytes   = 256 // more than a marker ever needs

	objectsName = "objects"
	statusName  = "status"
	logsName    = "logs"
	tempName    = "tmp"

	folderMode fs.FileMode = 0o700
	fileMode   fs.FileMode = 0o600
)

// Store is one client of a store in a folder.
type Store struct {
	root   string
	closed atomic.Bool
	bound  atomic.Int64 // see Bound

	mu      sync.Mutex
	scratch *scratch // made by the first write
}

var (
	_ store.Store = (*Store)(nil)
	_ store.Idler = (*Store)(nil)

	_ store.Bounder = (*Store)(nil)

	_ store.Sweeper = (*Store)(nil)
)

// Open opens the store in the folder at path, an absolute path. A missing or
// empty folder becomes a store. One that holds anything else, or a store of a
// newer format, is refused, and so is one that others can write to.
func Open(ctx context.Context, path string) (*Store, error) {
	const op = "open store"
	if err := ctx.Err(); err != nil {
		return nil, explain(op, path, err)
	}
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("open store %q: want an absolute path", path)
	}
	root := filepath.Clean(path)
	if err := claim(ctx, root); err != nil {
		return nil, explain(op, root, err)
	}
	for _, name := range []string{objectsName, statusName, logsName, tempName} {
		folder := filepath.Join(root, name)
		if err := makeFolder(root, folder); err != nil {
			// A read-only file system may say so before it looks whether the
			// folder is there already.
			if info, absent := os.Stat(folder); absent != nil || !info.IsDir() {
				return nil, explain(op, root, err)
			}
		}
	}
	_ = sweep(ctx, root, time.Now())
	return &Store{root: root}, nil
}

// claim returns once root is a folder with a marker of a known format.
func claim(ctx context.Context, root string) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := checkRoot(root); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		marker, err := readMarker(root)
		if err == nil {
			return checkMarker(root, marker)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.MkdirAll(root, folderMode); err != nil {
			return err
		}
		if err := checkRoot(root); err != nil { // Another client may have made it.
			return err
		}
		entries, err := os.ReadDir(root)
		if err != nil {
			return err
		}
		claimed := false // by another client, since the marker was looked for
		for _, entry := range entries {
			name := entry.Name()
			claimed = claimed || name == markerName
			if !claimed && !strings.HasPrefix(name, markerTemp) {
				return fmt.Errorf("the folder is not a store and is not empty (it holds %q): name an empty or a new folder", name)
			}
		}
		if !claimed {
			if err := writeMarker(root); err != nil {
				return err
			}
		}
	}
}

// checkRoot refuses a folder in which another user could plant files. On a
// read-only file system nobody can.
func checkRoot(root string) error {
	info, err := os.Stat(root)
	if err != nil || !info.IsDir() {
		return err // What is no folder, the marker's path will say.
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	err = checkAccess(root, info.Mode(), owner, os.Geteuid())
	if err != nil && errors.Is(syscall.Access(root, writeAccess), syscall.EROFS) {
		return nil
	}
	return err
}

const writeAccess = 2 // W_OK of access(2)

func checkAccess(root string, mode fs.FileMode, owner, user int) error {
	// A group may write: where each user has a group of his own, that is how
	// folders are made.
	if mode.Perm()&0o002 != 0 {
		return fmt.Errorf("other users can write to %s (mode %#o): run chmod o-w %[1]s, or name a new folder inside it: %[3]w",
			root, mode.Perm(), store.ErrDenied)
	}
	if owner != user && user != 0 {
		return fmt.Errorf("%s belongs to another user (%d, and this is %d): name a folder of your own, or have it given to you with chown: %w",
			root, owner, user, store.ErrDenied)
	}
	return nil
}

func readMarker(root string) ([]byte, error) {
	file, err := openFile(filepath.Join(root, markerName), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, markerBytes))
}

func checkMarker(root string, marker []byte) error {
	rest, known := strings.CutPrefix(string(marker), markerPrefix)
	text, _, ended := strings.Cut(rest, "\n")
	version, err := strconv.ParseUint(text, 10, 32)
	switch {
	case !known || !ended || err != nil || version == 0:
		return fmt.Errorf("%s is not a store's marker: %w", filepath.Join(root, markerName), store.ErrCorrupt)
	case version > formatVersion:
		return fmt.Errorf("the store has format %d and this program knows formats up to %d: use a newer disdel or another folder", version, formatVersion)
	}
	return nil
}

// writeMarker makes an empty folder a store. Another client may do the same at
// the same time.
func writeMarker(root string) (err error) {
	temp := filepath.Join(root, markerTemp+randomName())
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	_, err = fmt.Fprintf(file, "%s%d\n", markerPrefix, formatVersion)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Link(temp, filepath.Join(root, markerName)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := syncFolder(root); err != nil {
		return err
	}
	// The folder's own name, if that can be done: the parent may be one that
	// this user cannot read.
	_ = syncFolder(filepath.Dir(root))
	return nil
}

func randomName() string { return strconv.FormatUint(rand.Uint64(), 36) }

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

func (s *Store) base(name string) string { return filepath.Join(s.root, name) }

// URL implements store.Store.
func (s *Store) URL() string { return store.SchemeDir + "://" + s.root }

// Close implements store.Store. It removes this client's temporary files, and
// those of clients that died meanwhile.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.mu.Lock()
	if s.scratch != nil {
		s.scratch.close()
		s.scratch = nil
	}
	s.mu.Unlock()
	_ = sweep(context.Background(), s.root, time.Now())
	return nil
}

// Sweep implements store.Sweeper. It removes the temporary files of dead clients
// and the empty folders that they made for what they did not come to store.
func (s *Store) Sweep(ctx context.Context) error {
	const op = "sweep"
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	err := s.present()
	if err == nil {
		err = sweep(ctx, s.root, time.Now())
	}
	for _, name := range []string{objectsName, statusName, logsName} {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			break
		}
		err = prune(ctx, s.base(name), name == logsName)
	}
	if err != nil {
		return explain(op, "", err)
	}
	return nil
}

// Idle implements store.Idler: without a write in progress this client leaves
// nothing in the folder, so that it can be killed without a trace.
func (s *Store) Idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scratch == nil {
		return
	}
	entries, err := os.ReadDir(s.scratch.folder)
	if err != nil || len(entries) > 1 {
		return
	}
	s.scratch.close()
	s.scratch = nil
}
