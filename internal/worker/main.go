// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
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

	"disdel/internal/job"
)

// SocketEnv names the environment variable with the number of the inherited
// descriptor on which a worker serves: a connected stream socket.
const SocketEnv = "DISDEL_WORKER_FD"

// loopEnv is set, with an action's name, in the environment of a program that
// an ActionLoop proxy of OpenWhisk has started.
const loopEnv = "__OW_ACTION_NAME"

// collectorPercent keeps the heap close to what lives on it, which is little:
// a container pays for every megabyte, and a task allocates next to nothing.
const collectorPercent = 40

const (
	headerTimeout = 30 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Wanted reports whether the environment asks this process to be a worker.
func Wanted() bool { return os.Getenv(SocketEnv) != "" }

// Main serves calls and returns the process's exit code: on the inherited socket
// until its other end closes; with the argument --listen ADDRESS on that address,
// as the program of an image; or on standard input, as OpenWhisk's Go runtimes
// want it. Problems go to stderr, which platforms keep as the container's log.
func Main(ctx context.Context, args []string, stderr io.Writer) int {
	if err := serve(ctx, args); err != nil {
		fmt.Fprintln(stderr, "disdel-worker:", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, args []string) error {
	if Wanted() {
		return serveSocket(ctx)
	}
	flags := flag.NewFlagSet("disdel-worker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	address := flags.String("listen", "", "")
	switch err := flags.Parse(args); {
	case err != nil || flags.NArg() > 0 || *address == "" && os.Getenv(loopEnv) == "":
		return errors.New("a worker is started by a platform, see disdel train --help; in an image: disdel-worker --listen :8080")
	case *address != "":
		return serveAddress(ctx, *address)
	default:
		return serveLoop(ctx)
	}
}

// prepare sets up the process and returns its worker.
func prepare(cfg Config) (*Worker, error) {
	runtime.GOMAXPROCS(1)
	longTurns()
	debug.SetGCPercent(collectorPercent)
	name, err := os.Hostname() // of a container: its id or its pod
	if err != nil || !(job.Self{Container: name}).Valid() {
		name = "worker"
	}
	var nonce [4]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, fmt.Errorf("name of the container: %w", err)
	}
	cfg.Container = name + "-" + hex.EncodeToString(nonce[:])
	cfg.Collect, cfg.ResetPeak, cfg.Shed = runtime.GC, resetPeak, shed
	cfg.Processors = func(n int) { runtime.GOMAXPROCS(n) }
	if cfg.Peak == nil {
		cfg.Peak = ownPeak
	}
	return New(cfg), nil
}

// ownPeak is ResidentPeak, 0 where the system does not tell.
func ownPeak() job.Bytes {
	peak, err := ResidentPeak()
	if err != nil {
		return 0
	}
	return peak
}

func serveSocket(ctx context.Context) error {
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
	return serveHTTP(ctx, &oneConn{conn: conn, closed: make(chan struct{})})
}

func serveAddress(ctx context.Context, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return serveHTTP(ctx, listener)
}

// serveHTTP serves the action interface on a listener until it ends or ctx is
// done.
func serveHTTP(ctx context.Context, listener net.Listener) error {
	w, err := prepare(Config{Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           w.Handler(),
		ReadHeaderTimeout: headerTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	if one, ok := listener.(*oneConn); ok {
		server.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				one.end()
			}
		}
	} else {
		server.IdleTimeout = idleTimeout
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
