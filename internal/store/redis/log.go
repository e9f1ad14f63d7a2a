// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"disdel/internal/store"
)

// logPage bounds the entries that one command reads.
const logPage = 128

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
	next := head.Next(payload)
	err := s.isHead(ctx, log, head)
	if err == nil {
		var answer int64
		answer, err = s.run(ctx, appendScript, []string{s.logKey(log), s.logIndex()},
			head.Sequence, encodeEntry(log, next, payload), log)
		if err == nil && answer == 0 {
			err = fmt.Errorf("the log is not at the given head %d: %w", head.Sequence, store.ErrConflict)
		}
	}
	if err != nil {
		return store.Head{}, s.explain("append", log, err)
	}
	return next, nil
}

// isHead checks that head is a position in the log.
func (s *Store) isHead(ctx context.Context, log string, head store.Head) error {
	if head.Sequence == 0 {
		if head != (store.Head{}) {
			return fmt.Errorf("no log has a hash before its first entry: %w", store.ErrConflict)
		}
		return nil
	}
	if head.Sequence > store.MaxLogEntries {
		return fmt.Errorf("no log has an entry %d: %w", head.Sequence, store.ErrConflict)
	}
	value, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]byte, error) {
		return c.LIndex(ctx, s.logKey(log), int64(head.Sequence-1)).Bytes()
	})
	if errors.Is(err, goredis.Nil) {
		if err := s.present(ctx); err != nil {
			return err
		}
		return fmt.Errorf("the log has no entry %d: %w", head.Sequence, store.ErrConflict)
	}
	if err != nil {
		return err
	}
	entry, err := parseEntry(log, head.Sequence, value)
	if err != nil {
		return err
	}
	if entry.Head != head {
		return fmt.Errorf("entry %d of the log has another hash: %w", head.Sequence, store.ErrConflict)
	}
	return nil
}

// Log implements store.Store.
func (s *Store) Log(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	if err := s.begin(ctx, "log", log); err != nil {
		return nil, err
	}
	entries, err := s.entries(ctx, log, head)
	if err != nil {
		return nil, s.explain("log", log, err)
	}
	return entries, nil
}

func (s *Store) entries(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	if err := s.isHead(ctx, log, head); err != nil {
		return nil, err
	}
	var entries []store.Entry
	for {
		from := int64(head.Sequence)
		values, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]string, error) {
			return c.LRange(ctx, s.logKey(log), from, from+logPage-1).Result()
		})
		if err != nil {
			return nil, err
		}
		for _, value := range values {
			entry, err := parseEntry(log, head.Sequence+1, []byte(value))
			if err != nil {
				return nil, err
			}
			if entry.Head != head.Next(entry.Payload) {
				return nil, fmt.Errorf("entry %d does not follow entry %d: %w", head.Sequence+1, head.Sequence, store.ErrCorrupt)
			}
			head = entry.Head
			entries = append(entries, entry)
		}
		if len(values) < logPage {
			break
		}
	}
	if len(entries) == 0 {
		return nil, s.present(ctx)
	}
	return entries, nil
}
