// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"disdel/internal/store"
)

const (
	manifestField = "m"
	// cleanupTimeout bounds the removal of an upload that came to nothing.
	cleanupTimeout = 2 * time.Second
	// batch bounds the keys that one command names.
	batch = 500
)

// buffers hold a chunk, its trailer and the end of a reply's line.
var buffers = sync.Pool{New: func() any { return new([chunkBytes + trailerBytes + 2]byte) }}

type buffer = *[chunkBytes + trailerBytes + 2]byte

// PutIfAbsent implements store.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	if err := s.begin(ctx, "put", key); err != nil {
		return false, err
	}
	exists, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) (int64, error) {
		return c.Exists(ctx, s.objectKey(key)).Result()
	})
	if err != nil {
		return false, s.explain("put", key, err)
	}
	if exists > 0 {
		return false, nil
	}
	u := &upload{s: s, ctx: ctx, key: key, id: newID(), buf: buffers.Get().(buffer)}
	defer u.end()
	if err := write(u); u.err == nil && err != nil {
		return false, err
	}
	created, err := u.commit()
	if err != nil {
		return false, s.explain("put", key, err)
	}
	return created, nil
}

// upload cuts what is written to it into chunks, and sends each once it is full
// and more follows.
type upload struct {
	s      *Store
	ctx    context.Context
	key    string
	id     uploadID
	buf    buffer
	used   int    // data bytes in buf
	sent   uint64 // chunks
	total  uint64 // bytes in sent chunks
	placed bool   // the upload's own key is gone: it is the object, or removed
	err    error  // sticky
}

func (u *upload) Write(p []byte) (int, error) {
	if u.err == nil {
		u.err = u.ctx.Err()
	}
	written := 0
	for len(p) > 0 && u.err == nil {
		if u.used == u.s.chunk {
			u.send()
			continue
		}
		n := copy(u.buf[u.used:u.s.chunk], p)
		u.used, written, p = u.used+n, written+n, p[n:]
	}
	return written, u.err
}

func (u *upload) send() {
	_, u.err = u.transact(func(goredis.Pipeliner) {})
}

// transact sends the chunk in the buffer, if there is one, and what more adds, in
// one transaction: the upload's key never is without a time limit.
func (u *upload) transact(more func(goredis.Pipeliner)) ([]goredis.Cmder, error) {
	uploadKey, number, life := u.s.uploadKey(u.id), strconv.FormatUint(u.sent, 10), u.s.uploadLife
	var chunk []byte
	if u.used > 0 {
		chunk = sealChunk(u.buf[:u.used:len(u.buf)], u.id, u.sent)
		u.sent++
		u.total += uint64(u.used)
		u.used = 0
	}
	return call(u.ctx, u.s, func(ctx context.Context, c *goredis.Client) ([]goredis.Cmder, error) {
		cmds, err := c.TxPipelined(ctx, func(p goredis.Pipeliner) error {
			if chunk != nil {
				p.HSet(ctx, uploadKey, number, chunk)
				p.PExpire(ctx, uploadKey, life)
			}
			more(p)
			return nil
		})
		return cmds, firstError(cmds, err)
	})
}

// commit sends what is left and gives the object its key, unless another has it.
func (u *upload) commit() (created bool, err error) {
	if u.err == nil {
		u.err = u.ctx.Err()
	}
	if u.err != nil {
		return false, u.err
	}
	s := u.s
	total, chunks := u.total+uint64(u.used), u.sent
	if u.used > 0 {
		chunks++
	}
	m := manifest{total: total, chunk: uint32(s.chunk), id: u.id}
	keys := []string{s.objectKey(u.key), s.uploadKey(u.id), s.objectIndex()}
	args := []any{m.encode(u.key), chunks, u.key, s.life(u.key)}

	var answer int64
	cmds, err := u.transact(func(p goredis.Pipeliner) {
		p.EvalSha(u.ctx, commitScript.Hash(), append([]string{s.markerKey()}, keys...), append([]any{s.marker}, args...)...)
	})
	switch {
	case goredis.HasErrorPrefix(err, "NOSCRIPT"): // Then the chunk has arrived, and run sends the script.
		answer, err = s.run(u.ctx, commitScript, keys, args...)
	case err == nil:
		answer, err = cmds[len(cmds)-1].(*goredis.Cmd).Int64()
	}
	switch {
	case err == nil && answer == answerGone:
		err = errGone
	case err == nil && answer == answerIncomplete:
		err = errIncomplete
	}
	u.err, u.placed = err, err == nil
	return err == nil && answer == 1, err
}

// end removes what came to nothing; later writes fail.
func (u *upload) end() {
	if !u.placed && u.sent > 0 && !errors.Is(u.err, store.ErrClosed) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), cleanupTimeout)
		// If this fails the upload expires.
		_, _ = call(ctx, u.s, func(ctx context.Context, c *goredis.Client) (int64, error) {
			return c.Unlink(ctx, u.s.uploadKey(u.id)).Result()
		})
		cancel()
	}
	if u.err == nil { // Else a call that was given up may still read the buffer.
		buffers.Put(u.buf)
	}
	u.buf = nil
	u.err = fmt.Errorf("write after the call that owns the writer: %w", store.ErrClosed)
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := s.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	raw, err := s.readManifest(ctx, key)
	if err != nil {
		return nil, s.explain("get", key, err)
	}
	m, err := parseManifest(key, raw)
	if err != nil {
		return nil, s.explain("get", key, err)
	}
	return &reader{s: s, ctx: ctx, key: key, raw: raw, m: m}, nil
}

func (s *Store) readManifest(ctx context.Context, key string) ([]byte, error) {
	raw, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]byte, error) {
		return c.HGet(ctx, s.objectKey(key), manifestField).Bytes()
	})
	if !errors.Is(err, goredis.Nil) {
		return raw, err
	}
	// It may have been made since: only one transaction tells an object that lacks its
	// manifest from one that has just come.
	raw, err = call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]byte, error) {
		var field *goredis.StringCmd
		var count *goredis.IntCmd
		cmds, err := c.TxPipelined(ctx, func(p goredis.Pipeliner) error {
			field, count = p.HGet(ctx, s.objectKey(key), manifestField), p.Exists(ctx, s.objectKey(key))
			return nil
		})
		if err := firstError(cmds, err); err != nil && !errors.Is(err, goredis.Nil) {
			return nil, err
		}
		if raw, err := field.Bytes(); err == nil || count.Val() == 0 {
			return raw, err
		}
		return nil, fmt.Errorf("the object's manifest is missing: %w", store.ErrCorrupt)
	})
	if errors.Is(err, goredis.Nil) {
		return nil, s.absent(ctx)
	}
	return raw, err
}

// reader hands out an object's verified chunks.
type reader struct {
	s   *Store
	ctx context.Context
	key string
	raw []byte // manifest as it was when the object was opened
	m   manifest

	mu     sync.Mutex
	buf    []byte // holds a whole chunk
	shared buffer // backs buf if that is of the usual size
	next   uint64 // chunk
	data   []byte // verified, not yet handed out
	err    error  // sticky
}

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	if err := r.ctx.Err(); err != nil {
		return 0, r.s.explain("get", r.key, err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.data) == 0 {
		if r.next == r.m.chunks() {
			r.release()
			r.err = io.EOF
			return 0, io.EOF
		}
		data, err := r.fetch()
		if err != nil {
			r.err = r.s.explain("get", r.key, err)
			return 0, r.err
		}
		r.data = data
		r.next++
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (r *reader) fetch() ([]byte, error) {
	length := r.m.length(r.next) + trailerBytes
	r.grow()
	buf, number := r.buf, strconv.FormatUint(r.next, 10)
	got, err := call(r.ctx, r.s, func(ctx context.Context, c *goredis.Client) (int64, error) {
		key := r.s.objectKey(r.key)
		value := goredis.NewZeroCopyStringCmd(ctx, buf, "hget", key, number)
		var size *goredis.IntCmd
		cmds, err := c.Pipelined(ctx, func(p goredis.Pipeliner) error {
			size = p.HStrLen(ctx, key, number)
			return p.Process(ctx, value)
		})
		// A value that does not fit is none of ours. Then its own command fails,
		// which the client takes for a failure of both.
		if got := size.Val(); got != 0 && got != int64(length) {
			return got, nil
		}
		return int64(value.Val()), firstError(cmds, err)
	})
	switch {
	case errors.Is(err, goredis.Nil) || err == nil && got == 0:
		return nil, r.damaged(fmt.Errorf("chunk %d of %d is missing: %w", r.next, r.m.chunks(), store.ErrCorrupt))
	case err != nil:
		// A call that was given up may still write into the buffer.
		r.buf, r.shared = nil, nil
		return nil, err
	case got != int64(length):
		return nil, r.damaged(fmt.Errorf("chunk %d has %d bytes, want %d: %w", r.next, got, length, store.ErrCorrupt))
	}
	data, err := openChunk(buf[:length], r.m, r.next)
	if err != nil {
		return nil, r.damaged(err)
	}
	return data, nil
}

// grow makes room for a chunk and the end of its reply's line.
func (r *reader) grow() {
	switch {
	case r.buf != nil:
	case r.m.chunk <= chunkBytes:
		r.shared = buffers.Get().(buffer)
		r.buf = r.shared[:]
	default:
		r.buf = make([]byte, int(r.m.chunk)+trailerBytes+2)
	}
}

// damaged tells damage from an object that was deleted, and perhaps made again,
// while it was read.
func (r *reader) damaged(cause error) error {
	raw, err := r.s.readManifest(r.ctx, r.key)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, r.raw) {
		return fmt.Errorf("the object was deleted while it was read: %w", store.ErrNotFound)
	}
	return cause
}

func (r *reader) release() {
	if r.shared != nil {
		buffers.Put(r.shared)
	}
	r.buf, r.shared, r.data = nil, nil, nil
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release()
	r.err = fmt.Errorf("get %s: read after close: %w", r.key, store.ErrClosed)
	return nil
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := s.begin(ctx, "delete", keys...); err != nil {
		return err
	}
	for len(keys) > 0 {
		n := min(len(keys), batch)
		scriptKeys, args := []string{s.objectIndex()}, make([]any, 0, n)
		for _, key := range keys[:n] {
			scriptKeys = append(scriptKeys, s.objectKey(key))
			args = append(args, key)
		}
		if _, err := s.run(ctx, deleteScript, scriptKeys, args...); err != nil {
			return s.explain("delete", keys[0], err)
		}
		keys = keys[n:]
	}
	return nil
}

// Flush implements store.Store. What a finished write survives is decided by the
// server's configuration, see the package's documentation; there is nothing to
// wait for here.
func (s *Store) Flush(ctx context.Context, keys ...string) error {
	if err := s.begin(ctx, "flush", keys...); err != nil {
		return err
	}
	for len(keys) > 0 {
		n := min(len(keys), batch)
		cmds, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]goredis.Cmder, error) {
			return c.Pipelined(ctx, func(p goredis.Pipeliner) error {
				for _, key := range keys[:n] {
					p.Exists(ctx, s.objectKey(key))
				}
				return nil
			})
		})
		if err != nil {
			return s.explain("flush", keys[0], err)
		}
		for i, cmd := range cmds {
			if cmd.(*goredis.IntCmd).Val() == 0 {
				return s.explain("flush", keys[i], s.absent(ctx))
			}
		}
		keys = keys[n:]
	}
	return nil
}
