// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// SocketEnv names the environment variable with the number of the inherited
// descriptor on which a worker serves: a connected stream socket.
const SocketEnv = "DISDEL_WORKER_FD"

// collectorPercent keeps the heap close to what lives on it, which is little:
// a container pays for every megabyte, and a task allocates next to nothing.
const collectorPercent = 40

const headerTimeout = 30 * time.Second

// Wanted reports whether the environment asks this process to be a worker.
func Wanted() bool { return os.Getenv(SocketEnv) != "" }

// Main serves calls on the inherited socket until its other end closes, and
// returns the process's exit code. Problems go to stderr, which platforms keep
// as the container's log.
func Main(ctx context.Context, stderr io.Writer) int {
	if err := serve(ctx); err != nil {
		fmt.Fprintln(stderr, "disdel-worker:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context) error {
	number, err := strconv.Atoi(os.Getenv(SocketEnv))
	if err != nil || number < 3 {
		return fmt.Errorf("%s=%q: want the number of an inherited socket; a worker is started by a platform, see disdel train --help",
			SocketEnv, os.Getenv(SocketEnv))
	}
	file := os.NewFile(uintptr(number), "platform")
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("%s=%d: %w", SocketEnv, number, err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("%s=%d: %w", SocketEnv, number, err)
	}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(collectorPercent)
	populate()

	w := New(Config{Stdout: os.Stdout, Stderr: os.Stderr, Collect: runtime.GC, Processors: func(n int) { runtime.GOMAXPROCS(n) }})
	listener := &oneConn{conn: conn, closed: make(chan struct{})}
	server := &http.Server{
		Handler:           w.Handler(),
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				listener.end()
			}
		},
	}
	// A worker that was asked to end must not answer the next call with the
	// failure of a context that is done.
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	switch err = server.Serve(listener); {
	case ctx.Err() != nil:
		err = errors.New("asked to end")
	case errors.Is(err, io.EOF):
		err = nil
	default:
		err = fmt.Errorf("serve: %w", err)
	}
	return errors.Join(err, w.Close())
}

// oneConn is a listener that accepts one connection and ends with it.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}

	mu       sync.Mutex
	accepted bool
	once     sync.Once
}

func (l *oneConn) end() { l.once.Do(func() { close(l.closed) }) }

// Accept returns the connection once, then io.EOF when it has ended.
func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	first := !l.accepted
	l.accepted = true
	l.mu.Unlock()
	if first {
		return l.conn, nil
	}
	<-l.closed
	return nil, io.EOF
}

// Close ends the listener; the server closes the connection itself.
func (l *oneConn) Close() error { l.end(); return nil }

// Addr is the connection's own.
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
