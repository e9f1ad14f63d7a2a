// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/process"
)

// ownerRole makes the test binary a process that has a pool and waits to be
// killed. The value is the worker's path.
const (
	ownerRole        = "DISDEL_TEST_OWNER"
	ownerEnforcement = "DISDEL_TEST_ENFORCEMENT"
)

// actAsOwner starts a busy worker and one that has started a process of its
// own, and prints their numbers.
func actAsOwner() error {
	ctx := context.Background()
	driver, err := process.Open(ctx, process.Config{Command: []string{os.Getenv(ownerRole)}, Enforcement: os.Getenv(ownerEnforcement)})
	if err != nil {
		return err
	}
	p, err := pool.Open(ctx, pool.Config{MemoryMin: 64 * job.MB}, driver)
	if err != nil {
		return err
	}
	if err := p.Deploy(ctx, platform.Package{Name: "p", Actions: []platform.Action{{Name: "a"}}}); err != nil {
		return err
	}
	var pids [2]int
	for i, role := range []string{`{"role":"report"}`, `{"role":"orphan"}`} {
		id, err := p.Invoke(ctx, platform.Call{Package: "p", Action: "a", Params: json.RawMessage(role)})
		if err != nil {
			return err
		}
		outcome, err := p.Await(ctx, id)
		if err != nil || outcome.Kind != platform.Success {
			return fmt.Errorf("%+v, %w", outcome, err)
		}
		var result struct{ Pid int }
		if err := json.Unmarshal(outcome.Result, &result); err != nil {
			return err
		}
		pids[i] = result.Pid
	}
	if _, err := p.Invoke(ctx, platform.Call{Package: "p", Action: "a", Params: json.RawMessage(`{"role":"hang"}`)}); err != nil {
		return err
	}
	fmt.Println(pids[0], pids[1])
	select {}
}

// TestKilledOwnerLeavesNothing: the kernel ends the workers of an owner that is
// killed, and the next Open sweeps groups and what the workers had started.
func TestKilledOwnerLeavesNothing(t *testing.T) {
	for _, enforcement := range kinds {
		owner := exec.Command(os.Args[0])
		owner.Env = append(os.Environ(), ownerRole+"="+workerPath, ownerEnforcement+"="+enforcement)
		owner.Stderr = os.Stderr
		output, err := owner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		var worker, orphan int
		if _, err := fmt.Fscan(bufio.NewReader(output), &worker, &orphan); err != nil {
			t.Fatal(err)
		}
		ends := []int{openPid(t, worker), openPid(t, orphan)}

		// While the owner lives nothing of it is touched.
		open(t, process.Config{Enforcement: enforcement})
		for i, fd := range ends {
			if ended(t, fd, 0) {
				t.Errorf("%q: process %d was swept while its owner lives", enforcement, i)
			}
		}
		if err := owner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = owner.Wait() // killed
		if !ended(t, ends[0], 10*time.Second) {
			t.Errorf("%q: worker outlived its owner", enforcement)
		}
		open(t, process.Config{Enforcement: enforcement})
		if !ended(t, ends[1], 10*time.Second) {
			t.Errorf("%q: what a worker started was not swept", enforcement)
		}
		if left := leftovers(owner.Process.Pid); len(left) > 0 {
			t.Errorf("%q: left behind: %v", enforcement, left)
		}
	}
}

// open opens and closes a driver.
func open(t *testing.T, cfg process.Config) {
	t.Helper()
	cfg.Command = []string{workerPath}
	driver, err := process.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.Close(); err != nil {
		t.Fatal(err)
	}
}

func openPid(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("process %s: %v", strconv.Itoa(pid), err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// ended waits for a process's end.
func ended(t *testing.T, pidfd int, wait time.Duration) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}
