// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/process"
)

// call deploys the action "a", if that has not been done, and calls it.
func call(tb testing.TB, p *pool.Pool, params string) platform.Outcome {
	tb.Helper()
	if err := p.Deploy(tb.Context(), platform.Package{Name: "p", Actions: []platform.Action{{Name: "a"}}}); err != nil {
		tb.Fatal(err)
	}
	return again(tb, p, params)
}

func again(tb testing.TB, p *pool.Pool, params string) platform.Outcome {
	tb.Helper()
	id, err := p.Invoke(tb.Context(), platform.Call{Package: "p", Action: "a", Params: json.RawMessage(params)})
	if err != nil {
		tb.Fatal(err)
	}
	outcome, err := p.Await(tb.Context(), id)
	if err != nil {
		tb.Fatal(err)
	}
	return outcome
}

// TestWorkerInheritsNothing: no descriptor, no environment, no terminal.
func TestWorkerInheritsNothing(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not for workers")
	var leaky [2]int
	if err := unix.Pipe(leaky[:]); err != nil { // without close-on-exec
		t.Fatal(err)
	}
	defer unix.Close(leaky[0])
	defer unix.Close(leaky[1])
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", leaky[0]))
	if err != nil {
		t.Fatal(err)
	}
	outcome := call(t, openPool(t, kinds[0], 1), `{"role":"report"}`)
	var got struct {
		Pid, Session int
		OomScore     string
		Environ      []string
		Fds          map[string]string
	}
	if err := json.Unmarshal(outcome.Result, &got); err != nil {
		t.Fatal(err)
	}
	for fd, to := range got.Fds {
		known := strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "anon_inode:") || to == os.DevNull || strings.HasPrefix(to, "/proc/") ||
			strings.HasPrefix(to, "/sys/fs/cgroup/") || // the Go runtime's own
			strings.HasPrefix(to, "pipe:") && (fd == "1" || fd == "2")
		if to == target || !known {
			t.Errorf("worker has descriptor %s: %s", fd, to)
		}
	}
	if got.Fds["0"] != os.DevNull {
		t.Errorf("worker reads from %s", got.Fds["0"])
	}
	if got.Session != got.Pid {
		t.Errorf("worker %d is in session %d", got.Pid, got.Session)
	}
	if got.OomScore != "500" {
		t.Errorf("worker has the score %s", got.OomScore)
	}
	for _, variable := range got.Environ {
		if !strings.HasPrefix(variable, "DISDEL_WORKER_") {
			t.Errorf("worker has the variable %s", variable)
		}
	}
}

// TestWorkerHasNoHugePages: with them its memory would be a matter of chance.
func TestWorkerHasNoHugePages(t *testing.T) {
	outcome := call(t, openPool(t, kinds[0], 1), `{"role":"report"}`)
	var got struct{ Pid int }
	if err := json.Unmarshal(outcome.Result, &got); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]string{got.Pid: "0", os.Getpid(): "1"} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, known := strings.Cut(string(status), "THP_enabled:")
		enabled, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		if known && enabled != want {
			t.Errorf("process %d may have huge pages: %s, want %s", pid, enabled, want)
		}
	}
}

// TestOrphansAreFound: what a worker starts ends with it, even in a session of
// its own.
func TestOrphansAreFound(t *testing.T) {
	for _, enforcement := range kinds {
		p := openPool(t, enforcement, 1)
		outcome := call(t, p, `{"role":"orphan"}`)
		var orphan struct{ Pid int }
		if err := json.Unmarshal(outcome.Result, &orphan); err != nil || orphan.Pid == 0 {
			t.Fatalf("%+v: %v", outcome, err)
		}
		fd := openPid(t, orphan.Pid)
		if lost := call(t, p, `{"role":"exit","code":5}`); lost.Kind != platform.Lost || !strings.Contains(lost.Message, "exit status 5") {
			t.Errorf("%q: %+v", enforcement, lost)
		}
		if !ended(t, fd, 10*time.Second) {
			t.Errorf("%q: process outlived the worker that had started it", enforcement)
		}
	}
}

// TestWatchedLimitHoldsBetweenSamples: whoever was above the limit is killed,
// also when no sample saw it.
func TestWatchedLimitHoldsBetweenSamples(t *testing.T) {
	driver, err := process.Open(t.Context(), process.Config{Command: []string{workerPath}, Enforcement: process.Watched, WatchInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pool.Open(t.Context(), pool.Config{MemoryMin: 64 * job.MB, MemoryDefault: 64 * job.MB}, driver)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if outcome := call(t, p, `{"role":"allocate","bytes":104857600}`); outcome.Kind != platform.OutOfMemory || outcome.Usage.Peak != 64*job.MB {
		t.Errorf("outcome %+v", outcome)
	}
	if outcome := call(t, p, `{}`); outcome.Kind != platform.Success {
		t.Errorf("outcome %+v", outcome)
	}
}

// TestGrownContainerUsesItsMemory: the kernel lets it, not only the books.
func TestGrownContainerUsesItsMemory(t *testing.T) {
	p := openPool(t, kinds[0], 4)
	// A worker with more memory from the start is the measure.
	if outcome := call(t, p, `{"role":"allocate","bytes":104857600}`); outcome.Kind != platform.OutOfMemory {
		t.Fatalf("outcome %+v", outcome)
	}
	call(t, p, `{}`)
	// The call takes the warm container at once, and waits for the test.
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o666); err != nil {
		t.Fatal(err)
	}
	id, err := p.Invoke(t.Context(), platform.Call{Package: "p", Action: "a", Params: json.RawMessage(
		fmt.Sprintf(`{"role":"allocate when told","bytes":104857600,"text":%q}`, gate))})
	if err != nil {
		t.Fatal(err)
	}
	if limit, err := p.Grow(t.Context(), id, 192*job.MB); err != nil || limit != 192*job.MB {
		t.Fatalf("grow: %v, %v", limit, err)
	}
	if err := os.WriteFile(gate, nil, 0); err != nil {
		t.Fatal(err)
	}
	outcome, err := p.Await(t.Context(), id)
	if err != nil || outcome.Kind != platform.Success || outcome.Usage.Peak < 100*job.MB || outcome.Usage.Limit != 192*job.MB {
		t.Errorf("outcome %+v, %v", outcome, err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  process.Config
		want string
	}{
		"no command":      {process.Config{}, "no command"},
		"missing":         {process.Config{Command: []string{"/nowhere/worker"}}, "/nowhere/worker"},
		"not executable":  {process.Config{Command: []string{plain}}, "executed"},
		"directory":       {process.Config{Command: []string{"/"}}, "directory"},
		"enforcement":     {process.Config{Command: []string{workerPath}, Enforcement: "strict"}, "watched"},
		"variable":        {process.Config{Command: []string{workerPath}, Env: []string{"PATH"}}, "NAME=value"},
		"driver's own":    {process.Config{Command: []string{workerPath}, Env: []string{"DISDEL_WORKER_FD=4"}}, "leave it out"},
		"interval":        {process.Config{Command: []string{workerPath}, WatchInterval: -1}, "interval"},
		"number of lines": {process.Config{Command: []string{workerPath}, LogLines: -1}, "lines"},
	} {
		driver, err := process.Open(t.Context(), c.cfg)
		if err == nil {
			_ = driver.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
	}
}

// TestNamedEnforcementIsHadOrRefused: never something else instead.
func TestNamedEnforcementIsHadOrRefused(t *testing.T) {
	var had []string
	for _, enforcement := range []string{process.CgroupV2, process.CgroupV1, process.SystemdScope, process.Watched} {
		driver, err := process.Open(t.Context(), process.Config{Command: []string{workerPath}, Enforcement: enforcement})
		if err != nil {
			if !strings.Contains(err.Error(), enforcement) {
				t.Errorf("%s: error %v", enforcement, err)
			}
			t.Log(err)
			continue
		}
		had = append(had, driver.Facts().Enforcement)
		if driver.Facts().Enforcement != enforcement {
			t.Errorf("asked for %s, got %+v", enforcement, driver.Facts())
		}
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("here: %v", had)
	if !slices.Contains(had, process.Watched) {
		t.Error("the watch, which needs nothing, cannot be had")
	}
}

func BenchmarkWarmCall(b *testing.B) {
	for _, enforcement := range kinds {
		b.Run("enforcement="+enforcement, func(b *testing.B) {
			p := openPool(b, enforcement, 1)
			call(b, p, `{}`)
			for b.Loop() {
				if outcome := again(b, p, `{}`); outcome.Kind != platform.Success || outcome.Usage.Cold {
					b.Fatalf("%+v", outcome)
				}
			}
		})
	}
}

// BenchmarkColdCall starts, initialises and calls a worker, which is killed for
// the next one.
func BenchmarkColdCall(b *testing.B) {
	for _, enforcement := range kinds {
		b.Run("enforcement="+enforcement, func(b *testing.B) {
			p := openPool(b, enforcement, 1)
			var initTime time.Duration
			for b.Loop() {
				outcome := call(b, p, `{}`)
				if outcome.Kind != platform.Success || !outcome.Usage.Cold {
					b.Fatalf("%+v", outcome)
				}
				initTime += outcome.Usage.Init
				if err := p.Remove(b.Context(), "p"); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(initTime.Microseconds())/float64(b.N), "init-us/op")
		})
	}
}
