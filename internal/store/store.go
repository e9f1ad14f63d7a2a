// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"disdel/internal/job"
)

// Limits that every implementation enforces with [ErrLimit].
const (
	// MaxKeyBytes bounds a key.
	MaxKeyBytes = 512
	// MaxStatusBytes bounds a status value.
	MaxStatusBytes = 64 << 10
	// MaxEntryBytes bounds the payload of one log entry.
	MaxEntryBytes = 1 << 20
	// MaxLogEntries bounds the entries of one log.
	MaxLogEntries = 1 << 20
)

// Errors of the contract. Implementations wrap them; callers use errors.Is.
var (
	// ErrNotFound: Get, Status and Flush of a key that does not exist
	// (Delete of a missing key is no error). A store that cannot be reached is
	// ErrUnavailable, never an empty one.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict: Append, when the log has moved past the given head.
	ErrConflict = errors.New("store: conflict")
	// ErrCorrupt: Get, Flush, Status, Log, Append: what is stored does not match its
	// checksum, is truncated or is not in the store's format. Permanent, until
	// Delete or SetStatus removes it.
	ErrCorrupt = errors.New("store: corrupt")
	// ErrLimit: a key, status, entry or log beyond the limits above, or a
	// malformed key. Permanent.
	ErrLimit = errors.New("store: over limit")
	// ErrClosed: any call after Close. Permanent.
	ErrClosed = errors.New("store: closed")
	// ErrUnavailable: the store could not be reached or refused for a reason
	// that may pass (connection, time-out, disk full). A later try may succeed.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrDenied: any call, when the system that keeps the store refuses and will
	// go on to until the user has changed something there (rights, a read-only
	// or unsuitable file system, a folder that others can write to). Permanent.
	ErrDenied = errors.New("store: denied")
	// ErrUnauthorised: any call, when the credential is missing, wrong or does
	// not suffice. Permanent.
	ErrUnauthorised = errors.New("store: unauthorised")
)

// Store keeps objects, statuses and logs. All methods may be called at once
// from many goroutines, and by many processes that opened the same URL. All
// stop with the context's error once ctx is done. Keys and the sizes of
// arguments are checked with [ValidateKey] and the limits above before anything
// else happens: a call with one malformed key among many does nothing. Prefixes
// are not checked: one that no key can start with matches nothing. The store
// keeps no reference to a slice it was given, and slices it returns belong to
// the caller.
type Store interface {
	// PutIfAbsent stores the bytes that write writes under key, unless the key
	// exists. created says whether this call made the object; false with a nil
	// error means that the key existed, and then write may or may not have been
	// called. write may be called again after a transient failure, so it must
	// write the same bytes each time; the writer is valid only during the call
	// and for one goroutine at a time, and fails afterwards. An error from write
	// is returned as it is and leaves no object; an error of the writer fails
	// the call even when write hides it. Idempotent. A cancelled call leaves
	// either the whole object or nothing. A corrupt object exists: Delete it
	// before putting it again.
	PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (created bool, err error)

	// Get opens the object under key. Reads return only bytes that have been
	// verified; a mismatch or truncation is ErrCorrupt from Get or from Read,
	// and only io.EOF says that the object is complete. The caller closes the
	// reader, may do so before the end, and gets an error from a Read after
	// that. ErrNotFound when absent. Reads stop with the context's error once
	// ctx is done.
	Get(ctx context.Context, key string) (io.ReadCloser, error)

	// List returns the keys of all objects that start with prefix, sorted. The
	// prefix is a plain string prefix ("jobs/7/" or "jobs/7/r"); "" lists all.
	List(ctx context.Context, prefix string) ([]string, error)

	// Delete removes the objects under keys, corrupt ones too. Missing keys are
	// no error. Idempotent; a call that fails may have removed some. Readers that are already open may finish or fail with
	// ErrNotFound, never with wrong bytes.
	Delete(ctx context.Context, keys ...string) error

	// Flush returns once the objects under keys survive a power failure, as far
	// as the product can promise it. PutIfAbsent alone promises survival of the
	// crash of any process. ErrNotFound when one is absent.
	Flush(ctx context.Context, keys ...string) error

	// SetStatus replaces the status under key, whole; the last of several wins.
	// A nil value removes it, and removing a missing one is no error; an empty
	// value that is not nil is a status of no bytes. It promises survival of the
	// crash of any process, not of a power failure.
	SetStatus(ctx context.Context, key string, value []byte) error

	// Status returns the status under key, never nil. ErrNotFound when there is
	// none.
	Status(ctx context.Context, key string) ([]byte, error)

	// Append adds one entry to the log after head; the zero Head is an empty
	// log, which the first Append creates. It returns the new head. ErrConflict
	// when the log's head is another one, which includes a head that no log can
	// have (sequence 0 with a hash); ErrLimit at sequence MaxLogEntries, whatever
	// the hash. Not idempotent: after an error other than ErrConflict and
	// ErrLimit the caller reads the log to learn whether the entry is there.
	// Once returned, the entry and all before it survive a power failure.
	Append(ctx context.Context, log string, head Head, payload []byte) (Head, error)

	// Log returns the entries after head, in order, their chain verified from
	// head on. A log that does not exist has no entries. ErrConflict when head
	// is not part of the log; ErrCorrupt when the chain is broken or an entry in
	// its middle is missing. It cannot notice that entries at the end are gone.
	Log(ctx context.Context, log string, head Head) ([]Entry, error)

	// Logs returns the names of all logs that start with prefix, sorted. A log
	// exists once it has an entry.
	Logs(ctx context.Context, prefix string) ([]string, error)

	// Size returns the bytes that objects under prefix take in the store now,
	// framing included.
	Size(ctx context.Context, prefix string) (job.Bytes, error)

	// URL returns the address that opens this store again, without credentials.
	URL() string

	// Close releases the client and leaves what is stored. Calls in progress and
	// open readers may fail; later calls are ErrClosed. Idempotent.
	Close() error
}

// Bounder is the ability of a client to bound what it has written and what the
// machine still holds in memory, on account of the process that wrote it.
type Bounder interface {
	// Bound says how many bytes that may be from now on, about: small objects need not
	// be counted. 0 is no bound. It is not for use while a write is in progress.
	Bound(n int64)
}

// Idler is the ability of a client to keep nothing while it is not in use.
type Idler interface {
	// Idle releases what the client holds for speed alone (temporary files,
	// connections); the next call takes it again. Calls in progress are not
	// disturbed: then nothing is released. Idempotent.
	Idle()
}

// Renewer is the ability of a store in which scratch objects (those of jobs)
// expire, so that a job whose controller died leaves nothing for ever.
type Renewer interface {
	// Renew starts the time anew after which the objects under prefix expire.
	// Objects that do not expire stay so. Call it several times within
	// [ScratchLife].
	Renew(ctx context.Context, prefix string) error
}

// ScratchLife is how long a store that is a [Renewer] keeps a scratch object at
// least, from its creation or the last Renew.
const ScratchLife = 24 * time.Hour

// Sweeper is the ability of a store in which clients that were killed leave
// something behind.
type Sweeper interface {
	// Sweep removes what dead clients left: objects that they had not finished
	// and places that hold nothing. It disturbs no client that lives, and does
	// what it can before it reports what it could not. Call it when clients have
	// been killed and are known to be gone. Idempotent.
	Sweep(ctx context.Context) error
}

// As finds a client's ability, such as [Idler], under decorators like
// [WithRetry].
func As[T any](s Store) (ability T, ok bool) {
	for {
		if ability, ok = s.(T); ok {
			return ability, true
		}
		decorator, wraps := s.(interface{ Unwrap() Store })
		if !wraps {
			return ability, false
		}
		s = decorator.Unwrap()
	}
}

// Head names a position in a log: the sequence number of the last entry and
// its chained hash. The zero Head stands before the first entry.
type Head struct {
	Sequence uint64
	Hash     [sha256.Size]byte
}

// Entry is one log entry. Its hash covers the hash of the entry before it.
type Entry struct {
	Head    Head
	Payload []byte
}

// Next returns the head after payload is appended at h: the hash is
// SHA-256(h.Hash, big-endian sequence, payload).
func (h Head) Next(payload []byte) Head {
	sum := sha256.New()
	next := Head{Sequence: h.Sequence + 1}
	sum.Write(h.Hash[:])
	_ = binary.Write(sum, binary.BigEndian, next.Sequence)
	sum.Write(payload)
	sum.Sum(next.Hash[:0])
	return next
}

// ValidateKey checks the key of an object, status or log: segments of
// [a-z0-9._-] separated by single slashes, none of them starting with a dot,
// at most [MaxKeyBytes] in all. The error wraps ErrLimit.
func ValidateKey(key string) error {
	if key == "" || len(key) > MaxKeyBytes {
		return fmt.Errorf("key %q: want 1 to %d bytes: %w", shorten(key), MaxKeyBytes, ErrLimit)
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment[0] == '.' || strings.ContainsFunc(segment, notKeyRune) {
			return fmt.Errorf("key %q: segments want characters a-z 0-9 . _ - and no leading dot: %w", key, ErrLimit)
		}
	}
	return nil
}

func notKeyRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

func shorten(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
