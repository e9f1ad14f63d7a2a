// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	miniserver "github.com/alicebob/miniredis/v2/server"
	goredis "github.com/redis/go-redis/v9"

	"disdel/internal/store"
	"disdel/internal/store/storetest"
)

// named are the programs of the real servers that were asked for; then they must
// be there.
func named() (programs []string) {
	for _, part := range strings.Split(os.Getenv("DISDEL_E2E"), ",") {
		if part == "redis" || part == "valkey" {
			programs = append(programs, part+"-server")
		}
	}
	return programs
}

// server is one that a test can open stores on.
type server struct {
	url string
	// later lets time pass, as far as the server's clock is concerned.
	later func(time.Duration)
	names atomic.Int64
}

// onEach runs a test against an imitation of a server within this process and,
// those that were asked for, against real ones. The imitation keeps no time, has no
// limit of memory and no users; tests of those want a real one.
func onEach(t *testing.T, test func(t *testing.T, s *server)) {
	t.Run("imitation", func(t *testing.T) { test(t, startImitation(t)) })
	for _, program := range named() {
		t.Run(program, func(t *testing.T) { test(t, startServer(t, program).server(t)) })
	}
}

const imitationInfo = "# Server\r\nredis_version:7.2.4\r\ncluster_enabled:0\r\n# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n"

func startImitation(t testing.TB) *server {
	t.Helper()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	// It has no INFO about itself.
	m.Server().SetPreHook(func(c *miniserver.Peer, cmd string, _ ...string) bool {
		if strings.EqualFold(cmd, "INFO") {
			c.WriteBulk(imitationInfo)
			return true
		}
		return false
	})
	return &server{url: "redis://" + m.Addr(), later: m.FastForward}
}

// realServer is a redis-server or valkey-server that this test started.
type realServer struct {
	program, port, folder string
	args                  []string
	cmd                   *exec.Cmd
}

// startServer starts a server with an append-only file that is synced at
// every command.
func startServer(t testing.TB, program string, args ...string) *realServer {
	t.Helper()
	r := &realServer{program: program, port: freePort(t), folder: t.TempDir(), args: args}
	t.Cleanup(func() { r.kill() })
	r.start(t)
	return r
}

func (r *realServer) start(t testing.TB) {
	t.Helper()
	args := append([]string{
		"--port", r.port, "--bind", "127.0.0.1", "--dir", r.folder, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes",
		// A rewrite is done by a process of its own, which a killed server leaves behind.
		"--auto-aof-rewrite-percentage", "0",
	}, r.args...)
	r.cmd = exec.Command(r.program, args...)
	stdout, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		r.cmd = nil
		t.Fatalf("start a server (DISDEL_E2E names it, so there must be one): %v", err)
	}
	var output strings.Builder
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		fmt.Fprintln(&output, lines.Text())
		if strings.Contains(lines.Text(), "Ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, stdout) }() // Ends with the server.
			return
		}
	}
	r.kill()
	t.Fatalf("the server did not start:\n%s", &output)
}

// kill ends the server as a crash does.
func (r *realServer) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
}

func (r *realServer) url() string { return "redis://127.0.0.1:" + r.port }

func (r *realServer) server(t testing.TB) *server {
	c := raw(t, r.url())
	return &server{url: r.url(), later: func(d time.Duration) {
		for keys := c.Scan(t.Context(), 0, "*", 100).Iterator(); keys.Next(t.Context()); {
			left, err := c.PTTL(t.Context(), keys.Val()).Result()
			if err == nil && left > 0 {
				err = c.PExpireAt(t.Context(), keys.Val(), time.Now().Add(left-d)).Err()
			}
			if err != nil {
				t.Error(err)
			}
		}
	}}
}

// fresh returns the URL of a store that nobody has used.
func (s *server) fresh() string { return fmt.Sprintf("%s?name=t%d", s.url, s.names.Add(1)) }

func address(t testing.TB, url string) Address {
	t.Helper()
	a, err := ParseAddress(url)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func open(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), address(t, url))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// raw is a client with which a test does what a store would not.
func raw(t testing.TB, url string) *goredis.Client {
	t.Helper()
	options := clientOptions(address(t, url), nil)
	c := goredis.NewClient(&options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func put(t testing.TB, s *Store, key string, data []byte) {
	t.Helper()
	created, err := s.PutIfAbsent(t.Context(), key, writing(data))
	if err != nil || !created {
		t.Fatalf("put %s: created=%v, %v", key, created, err)
	}
}

func writing(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

func get(ctx context.Context, s *Store, key string) ([]byte, error) {
	r, err := s.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

func wantError(t *testing.T, what string, err, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v does not say %q", what, err, text)
		}
	}
}

// wantTidy checks that no upload was left behind and that the index names
// exactly the objects there are.
func wantTidy(t *testing.T, url string) {
	t.Helper()
	c, prefix := raw(t, url), "disdel:{"+address(t, url).name+"}:"
	uploads, err := c.Keys(context.Background(), prefix+"u:*").Result()
	if err != nil || len(uploads) > 0 {
		t.Errorf("uploads left: %q, %v", uploads, err)
	}
	objects, err := c.Keys(context.Background(), prefix+"o:*").Result()
	names, indexErr := c.ZRange(context.Background(), prefix+"io", 0, -1).Result()
	if err = errors.Join(err, indexErr); err != nil {
		t.Error(err)
	}
	for i := range objects {
		objects[i] = strings.TrimPrefix(objects[i], prefix+"o:")
	}
	slices.Sort(objects)
	if !slices.Equal(objects, names) {
		t.Errorf("the index names %q, there are %q", names, objects)
	}
}

func TestContract(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		storetest.Run(t, func(t *testing.T) (a, b store.Store) {
			url := server.fresh()
			t.Cleanup(func() { wantTidy(t, url) })
			return open(t, url), open(t, url)
		})
	})
}
