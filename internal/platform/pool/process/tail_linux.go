// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"disdel/internal/platform/pool"
)

// tail keeps the last lines that a process printed since the last mark, of both
// of its streams. A goroutine for each reads the pipe as it fills; take and mark
// read what is there at once, so that what a worker printed before it answered
// is never missed.
type tail struct {
	streams [2]stream // standard output, standard error

	mu     sync.Mutex // guards lines and buffer
	lines  *pool.Tail
	buffer []byte
}

type stream struct {
	file *os.File
	raw  syscall.RawConn
}

// newTail makes the pipes and returns the ends to write to: standard output and
// standard error.
func newTail(lines int) (_ *tail, writers [2]*os.File, err error) {
	t := &tail{lines: pool.NewTail(lines), buffer: make([]byte, 4<<10)}
	defer func() {
		if err != nil {
			for i := range writers {
				if writers[i] != nil {
					err = errors.Join(err, writers[i].Close(), t.streams[i].file.Close())
				}
			}
		}
	}()
	for i := range t.streams {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return nil, writers, err
		}
		// Only the end that is read must not block; the worker's is an ordinary pipe.
		_ = unix.SetNonblock(fds[0], true)
		t.streams[i].file = os.NewFile(uintptr(fds[0]), "worker output")
		writers[i] = os.NewFile(uintptr(fds[1]), "worker output")
		if t.streams[i].raw, err = t.streams[i].file.SyscallConn(); err != nil {
			return nil, writers, err
		}
	}
	for i := range t.streams {
		go func() {
			_ = t.streams[i].raw.Read(func(fd uintptr) bool { return t.drain(i, fd) }) // ends with the pipe
		}()
	}
	return t, writers, nil
}

// drain reads what is there and reports whether that was the end.
func (t *tail) drain(i int, fd uintptr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		n, err := unix.Read(int(fd), t.buffer)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false
		case n <= 0 || err != nil:
			return true
		default:
			t.lines.Add(i == 1, t.buffer[:n], time.Now())
		}
	}
}

func (t *tail) drainAll() {
	for i := range t.streams {
		_ = t.streams[i].raw.Control(func(fd uintptr) { t.drain(i, fd) }) // a closed pipe has nothing more
	}
}

// mark forgets what was printed so far.
func (t *tail) mark() {
	t.drainAll()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines.Mark()
}

// take returns what was printed since the mark, unfinished lines included, and
// how many streams have ended with the sentinel.
func (t *tail) take() (lines []pool.Line, sentinels int) {
	t.drainAll()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines.Lines(time.Now()), t.lines.Sentinels()
}

func (t *tail) close() error {
	return errors.Join(t.streams[0].file.Close(), t.streams[1].file.Close())
}
