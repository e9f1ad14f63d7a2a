// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// tail keeps the last lines that a process printed since the last mark. A
// goroutine reads the pipe as it fills; lines and mark read what is there at
// once, so that what a worker printed before it answered is never missed.
type tail struct {
	file *os.File
	raw  syscall.RawConn
	max  int

	mu      sync.Mutex
	kept    []string
	partial []byte
	cut     bool // the rest of the partial line is dropped
	buffer  []byte
}

const lineMax = 1 << 10

// sentinel ends an activation's output on OpenWhisk; it is noise here.
const sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

// newTail makes a pipe and returns the end to write to.
func newTail(lines int) (*tail, *os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	// Only the end that is read must not block; the worker's is an ordinary pipe.
	_ = unix.SetNonblock(fds[0], true)
	t := &tail{file: os.NewFile(uintptr(fds[0]), "worker output"), max: lines, buffer: make([]byte, 4<<10)}
	writer := os.NewFile(uintptr(fds[1]), "worker output")
	raw, err := t.file.SyscallConn()
	if err != nil {
		_ = writer.Close()
		_ = t.file.Close()
		return nil, nil, err
	}
	t.raw = raw
	go func() {
		_ = raw.Read(func(fd uintptr) bool { return t.drain(fd) }) // ends with the pipe
	}()
	return t, writer, nil
}

// drain reads what is there and reports whether that was the end.
func (t *tail) drain(fd uintptr) bool {
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
			t.add(t.buffer[:n])
		}
	}
}

func (t *tail) add(text []byte) {
	for len(text) > 0 {
		line, rest, whole := bytes.Cut(text, []byte{'\n'})
		if !t.cut {
			t.partial = append(t.partial, line...)
		}
		if len(t.partial) > lineMax {
			t.partial, t.cut = append(t.partial[:lineMax], "..."...), true
		}
		if whole {
			t.flush()
		}
		text = rest
	}
}

func (t *tail) flush() {
	line := strings.ToValidUTF8(string(t.partial), "?")
	t.partial, t.cut = t.partial[:0], false
	if line == sentinel {
		return
	}
	if len(t.kept) == t.max {
		t.kept = append(t.kept[:0], t.kept[1:]...)
	}
	t.kept = append(t.kept, line)
}

// mark forgets what was printed so far.
func (t *tail) mark() {
	_ = t.raw.Control(func(fd uintptr) { t.drain(fd) }) // a closed pipe has nothing more
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept, t.partial, t.cut = t.kept[:0], t.partial[:0], false
}

// lines returns what was printed since the mark, an unfinished line included.
func (t *tail) lines() []string {
	_ = t.raw.Control(func(fd uintptr) { t.drain(fd) })
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := append([]string(nil), t.kept...)
	if len(t.partial) > 0 {
		lines = append(lines, strings.ToValidUTF8(string(t.partial), "?"))
	}
	return lines
}

func (t *tail) close() error { return t.file.Close() }
