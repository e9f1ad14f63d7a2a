// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"disdel/internal/points"
)

// deadline is when a test gives a process up that should long have done what it
// waits for.
const deadline = 30 * time.Second

// child is this test program as a worker, on a real unix socket.
type child struct {
	cmd    *exec.Cmd
	conn   net.Conn
	reader *bufio.Reader
	stdout bytes.Buffer
	stderr bytes.Buffer
	ended  chan error
}

func startChild(t *testing.T) *child {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.CommandContext(t.Context(), self), conn: conn, reader: bufio.NewReader(conn), ended: make(chan error, 1)}
	c.cmd.Env = []string{SocketEnv + "=3", points.NoSleep()}
	c.cmd.ExtraFiles = []*os.File{theirs}
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.ended <- c.cmd.Wait() }()
	t.Cleanup(func() {
		_ = conn.Close()
		_ = c.cmd.Process.Kill()
	})
	return c
}

func (c *child) send(t *testing.T, path, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://worker"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := request.Write(c.conn); err != nil {
		t.Fatal(err)
	}
}

func (c *child) call(t *testing.T, path, body string) (status int, answer string) {
	t.Helper()
	c.send(t, path, body)
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		t.Fatalf("%v; stderr: %s", err, &c.stderr)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.ContentLength != int64(len(raw)) || len(response.TransferEncoding) > 0 {
		t.Errorf("POST %s: length %d, encoding %v", path, response.ContentLength, response.TransferEncoding)
	}
	return response.StatusCode, string(raw)
}

func (c *child) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-c.ended:
		return err
	case <-time.After(deadline):
		t.Fatal("the worker does not end")
		return nil
	}
}

// wantLongTurns: all threads of a process that had usual turns take long ones, where
// the kernel lets a thread of this process have them.
func wantLongTurns(t *testing.T, pid int) {
	t.Helper()
	taken := make(chan bool)
	go func() {
		runtime.LockOSThread() // and end with the thread, which nobody else should have
		attr, err := unix.SchedGetAttr(0, 0)
		usual := err == nil && attr.Policy == unix.SCHED_NORMAL
		if usual {
			attr.Policy, attr.Runtime = unix.SCHED_BATCH, uint64(turn)
		}
		taken <- usual && unix.SchedSetAttr(0, attr, 0) == nil
	}()
	if !<-taken {
		t.Log("this kernel, or who started the test, does not let threads have long turns")
		return
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		attr, err := unix.SchedGetAttr(id, 0)
		// A kernel that does not know the length says that it is 0.
		if err != nil || attr.Policy != unix.SCHED_BATCH || attr.Runtime != uint64(turn) && attr.Runtime != 0 {
			t.Errorf("thread %d of %d: %+v, %v", id, len(threads), attr, err)
		}
	}
}

// TestProcess_Life: a worker serves call after call on its socket and ends when
// the platform closes it.
func TestProcess_Life(t *testing.T) {
	t.Parallel()
	c := startChild(t)
	if status, answer := c.call(t, "/init", `{"value":{"env":{"DISDEL_STORE":"dir://`+t.TempDir()+`/store"}}}`); status != http.StatusOK {
		t.Fatalf("init: %d %s", status, answer)
	}
	wantLongTurns(t, c.cmd.Process.Pid)
	for range 2 {
		status, answer := c.call(t, "/run", `{"value":{"role":"probe","job":"p"}}`)
		if status != http.StatusOK || !strings.Contains(answer, `"package_bytes":`) {
			t.Fatalf("probe: %d %s", status, answer)
		}
	}
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.wait(t); err != nil {
		t.Errorf("ended with %v; stderr: %s", err, &c.stderr)
	}
	if want := strings.Repeat(sentinel, 3); c.stdout.String() != want || c.stderr.String() != want {
		t.Errorf("printed %q and %q; want three sentinels on each", &c.stdout, &c.stderr)
	}
}

// TestProcess_PlatformDies: the socket closing in the middle of a call ends the
// call and the worker.
func TestProcess_PlatformDies(t *testing.T) {
	c := startChild(t)
	c.call(t, "/init", `{"value":{"env":{"DISDEL_STORE":"dir://`+t.TempDir()+`/store"}}}`)
	c.send(t, "/run", `{"value":{"role":"probe","job":"p","busy_ns":3600000000000}}`)
	if err := c.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.wait(t); err != nil {
		t.Errorf("ended with %v; stderr: %s", err, &c.stderr)
	}
}

// TestProcess_Terminated: a worker that is asked to end does, rather than fail
// every later call.
func TestProcess_Terminated(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		c := startChild(t)
		c.call(t, "/init", `{"value":{"env":{"DISDEL_STORE":"dir://`+t.TempDir()+`/store"}}}`)
		if err := c.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := c.wait(t); err == nil || !strings.Contains(c.stderr.String(), "asked to end") {
			t.Errorf("%v: ended with %v, stderr %q; want a failure that says why", signal, err, &c.stderr)
		}
	}
}

// TestProcess_NoSocket: started by hand, a worker says that it is not meant for
// that.
func TestProcess_NoSocket(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range []string{"x", "-1", "2", "3", "99999999999999999999"} {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = []string{SocketEnv + "=" + number, points.NoSleep()}
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), SocketEnv+"=") {
			t.Errorf("%s=%s: %v, printed %q; want exit code 1 and a text about the variable", SocketEnv, number, err, out)
		}
	}
}
