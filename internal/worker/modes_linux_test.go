// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/points"
)

// freeAddress is one that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program starts this test program as a worker with an environment.
func program(t *testing.T, env []string, extra ...*os.File) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd = exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = append(env, points.NoSleep()), extra, stdout, stderr
	return cmd, stdout, stderr
}

// TestImage: as the program of an image a worker serves the action interface on
// its port, one connection for each call, as invokers do, several at once.
func TestImage(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	cmd, stdout, stderr := program(t, []string{listenRole + "=--listen " + address})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(path, body string) (int, string, error) {
		response, err := client.Post("http://"+address+path, "application/json", strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		defer response.Body.Close()
		raw, err := io.ReadAll(response.Body)
		if response.ContentLength != int64(len(raw)) {
			t.Errorf("POST %s: length %d of %d", path, response.ContentLength, len(raw))
		}
		return response.StatusCode, string(raw), err
	}
	// Invokers repeat a connection that is refused.
	status, answer, err := post("/init", `{"value":{"env":{"DISDEL_STORE":"dir://`+t.TempDir()+`/store"}}}`)
	for limit := time.Now().Add(deadline); err != nil && strings.Contains(err.Error(), "refused") && time.Now().Before(limit); {
		status, answer, err = post("/init", `{"value":{"env":{"DISDEL_STORE":"dir://`+t.TempDir()+`/store"}}}`)
	}
	if status != http.StatusOK || err != nil {
		t.Fatalf("init: %d %s, %v", status, answer, err)
	}
	var wait sync.WaitGroup
	containers := make(chan string, 4)
	for range 4 {
		wait.Go(func() {
			status, answer, err := post("/run", `{"value":{"role":"probe","job":"p"}}`)
			self, ok := job.SelfOf([]byte(answer))
			if status != http.StatusOK || err != nil || !ok || self.Peak < job.MB || self.Peak > job.GB {
				t.Errorf("probe: %d %s, %v", status, answer, err)
			}
			containers <- self.Container
		})
	}
	wait.Wait()
	first := <-containers
	for range 3 {
		if other := <-containers; other != first {
			t.Errorf("one container calls itself %s and %s", first, other)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "asked to end") {
		t.Errorf("ended with %v; stderr: %s", err, stderr)
	}
	if got := strings.Count(stdout.String(), sentinel); got != 5 || strings.Count(stderr.String(), sentinel) != 5 {
		t.Errorf("%d and %d sentinels for 5 calls", got, strings.Count(stderr.String(), sentinel))
	}
}

// TestActionLoop: started by a proxy, a worker answers on descriptor 3, and ends
// with its input.
func TestActionLoop(t *testing.T) {
	t.Parallel()
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	env := []string{loopEnv + "=/guest/p/m128", ackEnv + "=1", StoreEnv + "=dir://" + t.TempDir() + "/store"}
	cmd, stdout, stderr := program(t, env, theirs)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(ours)
	if line, err := answers.ReadString('\n'); line != "{\"ok\":true}\n" {
		t.Fatalf("acknowledged with %q, %v; stderr: %s", line, err, stderr)
	}
	for range 2 {
		if _, err := io.WriteString(input, `{"value":{"role":"probe","job":"p"},"deadline":"0"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		line, err := answers.ReadString('\n')
		self, ok := job.SelfOf([]byte(line))
		// This program is the proxy, and larger than the worker.
		if err != nil || !ok || !strings.Contains(line, `"package_bytes":`) || self.Peak < 5*job.MB {
			t.Fatalf("probe: %s, %v, %+v", line, err, self)
		}
	}
	if err := input.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v; stderr: %s", err, stderr)
	}
	if stdout.Len()+stderr.Len() > 0 {
		t.Errorf("printed %q and %q: the proxy ends the logs", stdout, stderr)
	}
}

// TestByHand: without a platform a worker says how it is meant to be started.
func TestByHand(t *testing.T) {
	for _, args := range [][]string{nil, {"--listen"}, {"--port", "8080"}, {"extra"}} {
		var stderr bytes.Buffer
		if code := Main(t.Context(), args, &stderr); code != 1 || !strings.Contains(stderr.String(), "--listen :8080") {
			t.Errorf("%q: code %d, %q", args, code, &stderr)
		}
	}
	var stderr bytes.Buffer
	if code := Main(t.Context(), []string{"--listen", "nowhere.invalid:0"}, &stderr); code != 1 || !strings.Contains(stderr.String(), "listen") {
		t.Errorf("an address that is none: code %d, %q", code, &stderr)
	}
}
