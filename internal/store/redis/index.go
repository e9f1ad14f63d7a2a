// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"disdel/internal/job"
	"disdel/internal/store"
)

// page bounds the names that one script looks at, and so for how long the server
// does nothing else.
const page = 1000

// What eachName does besides.
const (
	namesOnly = ""
	withSize  = "size"
	renewing  = "renew"
)

// eachName visits, in order, the names in an index that start with prefix and
// whose keys exist.
func (s *Store) eachName(ctx context.Context, index, keys, prefix, mode string, visit func(name, manifest string)) error {
	first, last := "["+prefix, "("+prefix+"\xff" // No name has such a character.
	for {
		names, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]string, error) {
			answer, err := listScript.Run(ctx, c, []string{s.markerKey(), index},
				s.marker, first, last, page, keys, mode, s.scratchLife.Milliseconds()).Result()
			if err != nil {
				return nil, err
			}
			return listAnswer(answer)
		})
		if err != nil {
			return err
		}
		seen, lastSeen, names := names[0], names[1], names[2:]
		step := 1
		if mode == withSize {
			step = 2
		}
		for ; len(names) >= step; names = names[step:] {
			visit(names[0], names[step-1])
		}
		if seen != fmt.Sprint(page) {
			return nil
		}
		first = "(" + lastSeen
	}
}

// listAnswer returns the strings of the list script's answer, the first of which
// is a number.
func listAnswer(answer any) ([]string, error) {
	list, ok := answer.([]any)
	if !ok {
		return nil, errGone
	}
	out := make([]string, len(list))
	for i, item := range list {
		out[i] = fmt.Sprint(item)
	}
	if len(out) < 2 {
		return nil, refuse("the server answers a script with too little")
	}
	return out, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]string, error) {
	return s.names(ctx, "list", s.objectIndex(), s.objectKey(""), prefix)
}

// Logs implements store.Store.
func (s *Store) Logs(ctx context.Context, prefix string) ([]string, error) {
	return s.names(ctx, "logs", s.logIndex(), s.logKey(""), prefix)
}

func (s *Store) names(ctx context.Context, op, index, keys, prefix string) ([]string, error) {
	if err := s.begin(ctx, op); err != nil {
		return nil, err
	}
	var names []string
	err := s.eachName(ctx, index, keys, prefix, namesOnly, func(name, _ string) { names = append(names, name) })
	if err != nil {
		return nil, s.explain(op, prefix, err)
	}
	return names, nil
}

// Size implements store.Store. It counts the bytes of the values, not what the
// server needs around them.
func (s *Store) Size(ctx context.Context, prefix string) (job.Bytes, error) {
	if err := s.begin(ctx, "size"); err != nil {
		return 0, err
	}
	var total job.Bytes
	err := s.eachName(ctx, s.objectIndex(), s.objectKey(""), prefix, withSize, func(key, raw string) {
		m, err := parseManifest(key, []byte(raw))
		if err != nil {
			total += job.Bytes(len(raw)) // Get says what is wrong with it.
			return
		}
		total += job.Bytes(m.stored())
	})
	if err != nil {
		return 0, s.explain("size", prefix, err)
	}
	return total, nil
}

// Renew implements store.Renewer.
func (s *Store) Renew(ctx context.Context, prefix string) error {
	if err := s.begin(ctx, "renew"); err != nil {
		return err
	}
	err := s.eachName(ctx, s.objectIndex(), s.objectKey(""), prefix, renewing, func(string, string) {})
	if err != nil {
		return s.explain("renew", prefix, err)
	}
	return nil
}

// SetStatus implements store.Store.
func (s *Store) SetStatus(ctx context.Context, key string, value []byte) error {
	const op = "set status"
	if len(value) > store.MaxStatusBytes {
		return fmt.Errorf("set status: %d bytes, at most %d: %w", len(value), store.MaxStatusBytes, store.ErrLimit)
	}
	if err := s.begin(ctx, op, key); err != nil {
		return err
	}
	var err error
	if value == nil {
		_, err = call(ctx, s, func(ctx context.Context, c *goredis.Client) (int64, error) {
			return c.Unlink(ctx, s.statusKey(key)).Result()
		})
		if err == nil {
			err = s.present(ctx)
		}
	} else {
		_, err = s.run(ctx, statusScript, []string{s.statusKey(key)}, encodeStatus(key, value), s.life(key))
	}
	if err != nil {
		return s.explain(op, key, err)
	}
	return nil
}

// Status implements store.Store.
func (s *Store) Status(ctx context.Context, key string) ([]byte, error) {
	if err := s.begin(ctx, "status", key); err != nil {
		return nil, err
	}
	value, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]byte, error) {
		return c.Get(ctx, s.statusKey(key)).Bytes()
	})
	if errors.Is(err, goredis.Nil) {
		err = s.absent(ctx)
	}
	if err == nil {
		value, err = parseStatus(key, value)
	}
	if err != nil {
		return nil, s.explain("status", key, err)
	}
	return value, nil
}
