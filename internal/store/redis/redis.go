// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"disdel/internal/store"
)

const (
	dialTimeout  = 5 * time.Second
	replyTimeout = 15 * time.Second // for one command: a chunk at most, or 1000 names
	// connections bounds how many calls are on their way at once; more wait.
	connections = 8
	// idleLife is how long an unused connection stays open.
	idleLife = time.Minute
	// lineBuffer holds short replies; chunks pass it by.
	lineBuffer = 8 << 10

	// uploadLife is how long an upload lives after its last chunk.
	uploadLife = time.Hour
	// scratchPrefix starts the keys of objects and statuses that expire.
	scratchPrefix = "jobs/"

	markerPrefix = "disdel store\nformat "

	minMajor, minMinor = 6, 2
)

// Store is one client of a store on a Redis server.
type Store struct {
	address Address
	options goredis.Options
	prefix  string // of all keys
	marker  string // value of the marker that was opened

	// Constants of the package that tests shorten.
	chunk                   int
	scratchLife, uploadLife time.Duration

	mu      sync.Mutex
	client  *goredis.Client // nil while idle
	running int             // calls
	closed  bool
}

var (
	_ store.Store   = (*Store)(nil)
	_ store.Idler   = (*Store)(nil)
	_ store.Renewer = (*Store)(nil)
)

// quiet keeps the client library from writing to stderr: every problem is also
// an error of a call.
var quiet = sync.OnceFunc(logging.Disable)

// Open opens the store at the address, and makes one where there is none. A
// server that is too old, that may evict models, or that holds a store of a
// newer format is refused.
func Open(ctx context.Context, address Address) (*Store, error) {
	quiet()
	config, err := address.tlsConfig()
	if err != nil {
		return nil, err
	}
	s := &Store{
		address:     address,
		options:     clientOptions(address, config),
		prefix:      "disdel:{" + address.name + "}:",
		chunk:       chunkBytes,
		scratchLife: store.ScratchLife,
		uploadLife:  uploadLife,
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(s.explain("open store", address.String(), err), s.Close())
	}
	return s, nil
}

func clientOptions(a Address, config *tls.Config) goredis.Options {
	return goredis.Options{
		Addr: a.server(), Username: a.user, Password: a.password, DB: a.db, TLSConfig: config,
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               -1, // store.WithRetry retries, nothing else
		DialerRetries:            1,
		DialTimeout:              dialTimeout, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout,
		PoolSize: connections, PoolTimeout: 2 * replyTimeout, ConnMaxIdleTime: idleLife,
		ReadBufferSize: lineBuffer, WriteBufferSize: lineBuffer,
	}
}

func (s *Store) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	info, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) (string, error) {
		return c.Info(ctx).Result()
	})
	if err != nil {
		return err
	}
	if err := checkServer(info); err != nil {
		return err
	}
	s.marker, err = call(ctx, s, s.claim)
	if err != nil {
		return err
	}
	return checkMarker(s.marker)
}

// checkServer looks at what the server says about itself.
func checkServer(info string) error {
	facts := map[string]string{}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		facts[name] = value
	}
	version := facts["redis_version"]
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	majorNumber, majorErr := strconv.Atoi(major)
	minorNumber, minorErr := strconv.Atoi(minor)
	switch {
	case majorErr != nil || minorErr != nil:
		return refuse("the server does not say which version of Redis it is (%.20q): use Redis %d.%d or newer, or Valkey", version, minMajor, minMinor)
	case majorNumber < minMajor || majorNumber == minMajor && minorNumber < minMinor:
		return refuse("the server is Redis %.20s: use Redis %d.%d or newer, or Valkey", version, minMajor, minMinor)
	case facts["cluster_enabled"] == "1":
		return refuse("the server is a node of a Redis cluster: use a server that is not")
	case facts["maxmemory"] != "0" && strings.HasPrefix(facts["maxmemory_policy"], "allkeys-"):
		return refuse("the server evicts keys when its memory is full (maxmemory-policy %.20s), which would lose models: set maxmemory-policy noeviction",
			facts["maxmemory_policy"])
	}
	return nil
}

// claim returns the marker, and sets one where there is none.
func (s *Store) claim(ctx context.Context, c *goredis.Client) (string, error) {
	marker, err := c.Get(ctx, s.markerKey()).Result()
	if !errors.Is(err, goredis.Nil) {
		return marker, err
	}
	id := newID()
	marker = fmt.Sprintf("%s%d\nid %s\n", markerPrefix, formatVersion, hex.EncodeToString(id[:]))
	err = c.SetArgs(ctx, s.markerKey(), marker, goredis.SetArgs{Mode: "NX"}).Err()
	if !errors.Is(err, goredis.Nil) {
		return marker, err
	}
	return c.Get(ctx, s.markerKey()).Result() // Another client was faster.
}

func checkMarker(marker string) error {
	rest, known := strings.CutPrefix(marker, markerPrefix)
	text, _, ended := strings.Cut(rest, "\n")
	version, err := strconv.ParseUint(text, 10, 32)
	switch {
	case !known || !ended || err != nil || version == 0:
		return fmt.Errorf("what the server holds there is not a store's marker: %w", store.ErrCorrupt)
	case version > formatVersion:
		return refuse("the store has format %d and this program knows formats up to %d: use a newer disdel or another name (?name=)", version, formatVersion)
	}
	return nil
}

func newID() (id uploadID) {
	_, _ = rand.Read(id[:]) // It never fails.
	return id
}

func (s *Store) markerKey() string           { return s.prefix + "store" }
func (s *Store) objectKey(key string) string { return s.prefix + "o:" + key }
func (s *Store) statusKey(key string) string { return s.prefix + "s:" + key }
func (s *Store) logKey(log string) string    { return s.prefix + "l:" + log }
func (s *Store) objectIndex() string         { return s.prefix + "io" }
func (s *Store) logIndex() string            { return s.prefix + "il" }

func (s *Store) uploadKey(id uploadID) string {
	return s.prefix + "u:" + hex.EncodeToString(id[:])
}

// life returns how many milliseconds what is under key lives, 0 for ever.
func (s *Store) life(key string) int64 {
	if strings.HasPrefix(key, scratchPrefix) {
		return s.scratchLife.Milliseconds()
	}
	return 0
}

// begin is the checks before every operation, in the contract's order.
func (s *Store) begin(ctx context.Context, op string, keys ...string) error {
	for _, key := range keys {
		if err := store.ValidateKey(key); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("%s: %w", op, store.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

func (s *Store) acquire() (*goredis.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	if s.client == nil {
		options := s.options // The client changes its own.
		s.client = goredis.NewClient(&options)
	}
	s.running++
	return s.client, nil
}

func (s *Store) release() {
	s.mu.Lock()
	s.running--
	s.mu.Unlock()
}

// call runs do with the client. The client cannot be interrupted while it waits
// for the server, so call waits beside it and returns the context's error once
// ctx is done; do then ends by itself, within its time-out, and its result is
// dropped. Memory that do uses is not to be used again in that case.
func call[T any](ctx context.Context, s *Store, do func(context.Context, *goredis.Client) (T, error)) (T, error) {
	var none T
	c, err := s.acquire()
	if err != nil {
		return none, err
	}
	if ctx.Done() == nil {
		defer s.release()
		value, err := do(ctx, c)
		return value, ownTimeout(err)
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := do(ctx, c)
		s.release() // before the caller goes on, who may want to be idle
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		switch {
		case r.err == nil:
			return r.value, nil
		case ctx.Err() != nil:
			return none, ctx.Err()
		default:
			return r.value, ownTimeout(r.err)
		}
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// ownTimeout takes the look of a context's error from the client's own time-outs.
func ownTimeout(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errTimeout
	}
	return err
}

// run runs a script that answers with a number.
func (s *Store) run(ctx context.Context, script *goredis.Script, keys []string, args ...any) (int64, error) {
	keys = append([]string{s.markerKey()}, keys...)
	args = append([]any{s.marker}, args...)
	answer, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) (int64, error) {
		return script.Run(ctx, c, keys, args...).Int64()
	})
	if err == nil && answer == answerGone {
		err = errGone
	}
	return answer, err
}

// absent is the answer to a key that is not there: ErrNotFound, unless the whole
// store is not there.
func (s *Store) absent(ctx context.Context) error {
	if err := s.present(ctx); err != nil {
		return err
	}
	return store.ErrNotFound
}

// present fails when the server no longer holds the store that was opened.
func (s *Store) present(ctx context.Context) error {
	marker, err := call(ctx, s, func(ctx context.Context, c *goredis.Client) ([]byte, error) {
		return c.Get(ctx, s.markerKey()).Bytes()
	})
	switch {
	case errors.Is(err, goredis.Nil):
		return errGone
	case err != nil:
		return err
	case !bytes.Equal(marker, []byte(s.marker)):
		return errGone
	}
	return nil
}

// URL implements store.Store.
func (s *Store) URL() string { return s.address.String() }

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	client := s.client
	s.client, s.closed = nil, true
	s.mu.Unlock()
	if client == nil {
		return nil
	}
	return client.Close()
}

// Idle implements store.Idler: it closes the connections.
func (s *Store) Idle() {
	s.mu.Lock()
	if s.client == nil || s.running > 0 {
		s.mu.Unlock()
		return
	}
	client := s.client
	s.client = nil
	s.mu.Unlock()
	_ = client.Close()
}
