// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"disdel/internal/store"
)

// A log is a folder with one file for each entry, which holds the hash of the
// entry before it and the payload. An entry is synced before link(2) gives it
// its number, and link lets exactly one appender have a number. One growing file
// would need a lock that every machine sharing the folder honours, and could not
// tell an append that was cut short from an entry that was damaged later; here a
// damaged entry is always an error. The price is a file for each entry: 4 KiB of
// disk, and one open each to read it.

const prefixBytes = sha256.Size // the hash of the entry before, ahead of the payload

func entryName(sequence uint64) string { return fmt.Sprintf("%08d", sequence) }

// readEntry returns an entry with its own hash, and the hash of the entry before
// it. The chain is the caller's to check.
func (s *Store) readEntry(log string, sequence uint64) (entry store.Entry, before store.Head, err error) {
	name := entryName(sequence)
	path := filepath.Join(keyPath(s.base(logsName), log), name)
	data, err := readFile(path, kindEntry, log+leafMark+name, prefixBytes+store.MaxEntryBytes)
	if err != nil {
		return store.Entry{}, store.Head{}, err
	}
	entry, before, err = parseEntry(sequence, data)
	if err != nil {
		return store.Entry{}, store.Head{}, inFile(path, err)
	}
	return entry, before, nil
}

// parseEntry keeps data.
func parseEntry(sequence uint64, data []byte) (entry store.Entry, before store.Head, err error) {
	if len(data) < prefixBytes {
		return store.Entry{}, store.Head{}, fmt.Errorf("entry too short: %w", store.ErrCorrupt)
	}
	before = store.Head{Sequence: sequence - 1, Hash: [sha256.Size]byte(data)}
	payload := data[prefixBytes:]
	return store.Entry{Head: before.Next(payload), Payload: payload}, before, nil
}

// isHead checks that head is a position in the log.
func (s *Store) isHead(log string, head store.Head) error {
	if head.Sequence == 0 {
		if head != (store.Head{}) {
			return fmt.Errorf("no log has a hash before its first entry: %w", store.ErrConflict)
		}
		return nil
	}
	entry, _, err := s.readEntry(log, head.Sequence)
	if err != nil {
		if err = s.absent(err); errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("the log has no entry %d: %w", head.Sequence, store.ErrConflict)
		}
		return err
	}
	if entry.Head != head {
		return fmt.Errorf("entry %d of the log has another hash: %w", head.Sequence, store.ErrConflict)
	}
	return nil
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
	next, err := s.append(ctx, log, head, payload)
	if err != nil {
		return store.Head{}, explain("append", log, err)
	}
	return next, nil
}

func (s *Store) append(ctx context.Context, log string, head store.Head, payload []byte) (store.Head, error) {
	if err := s.isHead(log, head); err != nil {
		return store.Head{}, err
	}
	next := head.Next(payload)
	base, name := s.base(logsName), entryName(next.Sequence)
	folder := keyPath(base, log)
	path := filepath.Join(folder, name)
	moved := fmt.Errorf("the log has an entry %d already: %w", next.Sequence, store.ErrConflict)
	if _, err := os.Lstat(path); err == nil { // Before the price of a sync.
		return store.Head{}, moved
	}
	temp, _, err := s.writeTemp(ctx, kindEntry, log+leafMark+name, true, func(w io.Writer) error {
		if _, err := w.Write(head.Hash[:]); err != nil {
			return err
		}
		_, err := w.Write(payload)
		return err
	})
	if err != nil {
		return store.Head{}, err
	}
	defer os.Remove(temp)
	err = s.place(base, temp, path, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return store.Head{}, moved
	}
	if err != nil {
		return store.Head{}, err
	}
	if err := syncFolders(s.root, folder); err != nil {
		return store.Head{}, err
	}
	return next, nil
}

// Log implements store.Store.
func (s *Store) Log(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	if err := s.begin(ctx, "log", log); err != nil {
		return nil, err
	}
	entries, err := s.entries(ctx, log, head)
	if err != nil {
		return nil, explain("log", log, err)
	}
	return entries, nil
}

func (s *Store) entries(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	if err := s.isHead(log, head); err != nil {
		return nil, err
	}
	var entries []store.Entry
	checked := false // that nothing follows the first missing number
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		entry, before, err := s.readEntry(log, head.Sequence+1)
		if errors.Is(err, fs.ErrNotExist) {
			if err := s.present(); err != nil {
				return nil, err
			}
			last, err := s.lastNumber(log)
			if err != nil {
				return nil, err
			}
			if last <= head.Sequence+1 {
				return entries, nil
			}
			// Entries get their numbers in order, so the missing one is there by
			// now if it was only late.
			if checked {
				return nil, fmt.Errorf("entry %d is missing before entry %d: %w", head.Sequence+1, last, store.ErrCorrupt)
			}
			checked = true
			continue
		}
		if err != nil {
			return nil, err
		}
		if before != head {
			return nil, fmt.Errorf("entry %d does not follow entry %d: %w", head.Sequence+1, head.Sequence, store.ErrCorrupt)
		}
		head, checked = entry.Head, false
		entries = append(entries, entry)
	}
}

// lastNumber returns the highest number of an entry in the log's folder, or 0.
func (s *Store) lastNumber(log string) (uint64, error) {
	folder, err := openFolder(keyPath(s.base(logsName), log))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	var last uint64
	for _, name := range names {
		if number, err := strconv.ParseUint(name, 10, 64); err == nil && entryName(number) == name {
			last = max(last, number)
		}
	}
	return last, nil
}

// Logs implements store.Store.
func (s *Store) Logs(ctx context.Context, prefix string) ([]string, error) {
	if err := s.begin(ctx, "logs"); err != nil {
		return nil, err
	}
	var logs []string
	err := walk(ctx, s.base(logsName), prefix, func(log, path string, entry fs.DirEntry) error {
		if !entry.IsDir() {
			return nil
		}
		// The folder comes before its first entry, and without one is no log.
		switch _, err := os.Lstat(filepath.Join(path, entryName(1))); {
		case err == nil:
			logs = append(logs, log)
			return nil
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		// A damaged log is still one, so that reading it can tell.
		last, err := s.lastNumber(log)
		if last > 0 {
			logs = append(logs, log)
		}
		return err
	})
	if err == nil && len(logs) == 0 {
		err = s.present()
	}
	if err != nil {
		return nil, explain("logs", prefix, err)
	}
	slices.Sort(logs)
	return logs, nil
}
