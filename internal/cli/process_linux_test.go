// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"disdel/internal/points"
)

// running is a command that has been started and not yet ended.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr strings.Builder
	lines  chan string // of stderr, closed at its end
}

func (d *desk) start(args ...string) *running {
	d.t.Helper()
	r := &running{t: d.t, cmd: d.command(args...), lines: make(chan string, 1000)}
	r.cmd.Stdout = &r.stdout
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { // where the test has not come to the end
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	go func() {
		defer close(r.lines)
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			r.lines <- scanner.Text()
		}
	}()
	return r
}

// until waits for a line on stderr.
func (r *running) until(part string) {
	r.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("ended before it said %q: %s", part, &r.stderr)
			}
			fmt.Fprintln(&r.stderr, line)
			if strings.Contains(line, part) {
				return
			}
		case <-timer.C:
			r.t.Fatalf("did not say %q within %v: %s", part, patience, &r.stderr)
		}
	}
}

// end waits for the command's end.
func (r *running) end() outcome {
	r.t.Helper()
	for line := range r.lines {
		fmt.Fprintln(&r.stderr, line)
	}
	_ = r.cmd.Wait() // the exit code says it all
	return outcome{r.cmd.ProcessState.ExitCode(), r.stdout.String(), r.stderr.String()}
}

// workers lists the processes that a disdel started as containers and that have
// not ended, by the mark in their environment.
func workers(owner int) (pids []int) {
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		text, err := os.ReadFile(path)
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if err == nil && pid != owner && slices.ContainsFunc(strings.Split(string(text), "\x00"), func(variable string) bool {
			return strings.HasPrefix(variable, fmt.Sprintf("DISDEL_WORKER_OWNER=%d-", owner))
		}) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// groups lists the memory groups that a disdel made.
func groups(owner int) (paths []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.HasPrefix(entry.Name(), fmt.Sprintf("disdel-%d-", owner)) {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

// promptly is within what time an interrupted command must have ended.
const promptly = 3 * time.Second

// TestInterrupted: Ctrl-C ends a job at once, without a trace, and says so.
func TestInterrupted(t *testing.T) {
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(s) {
			continue // as under nohup, where jobs go on
		}
		d := newDesk(t)
		r := d.start("train", "digits", "--epochs", "2000", "--json")
		r.until("training, round")
		eventually(t, "a worker", func() bool { return len(workers(r.cmd.Process.Pid)) > 0 })
		if err := r.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got := r.end().want(t, ExitInterrupted, "interrupted", "cancelled")
		if took := time.Since(began); took > promptly {
			t.Errorf("%v: ended after %v; want %v at most", s, took, promptly)
		}
		record := got.object(t)
		if status := field[string](t, record, "status"); status != "cancelled" {
			t.Errorf("%v: the record says %s", s, status)
		}
		for _, name := range []string{"accuracy", "loss", "records", "confusion"} {
			if record[name] != nil {
				t.Errorf("%v: the record has %s, which nobody measured: %v", s, name, record[name])
			}
		}
		nothingLeft(t, r.cmd.Process.Pid)
		if left := d.scratch(); len(left) > 0 {
			t.Errorf("%v: left %v in the store", s, left)
		}
		jobs := field[[]any](t, d.run("jobs", "--json").want(t, ExitOK).object(t), "jobs")
		if len(jobs) != 1 || field[string](t, jobs[0], "status") != "cancelled" || field[string](t, jobs[0], "job") != field[string](t, record, "job") {
			t.Errorf("%v: jobs are %v", s, jobs)
		}
	}
}

// TestNobodyReads: a job goes on to its end when nobody reads what it says. A
// result that nobody gets is no success.
func TestNobodyReads(t *testing.T) {
	for _, c := range []struct {
		what   string
		stdout bool
		code   int
	}{{"progress", false, ExitOK}, {"result", true, ExitFailed}} {
		t.Run(c.what, func(t *testing.T) {
			d := newDesk(t)
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := reader.Close(); err != nil {
				t.Fatal(err)
			}
			cmd := d.command("train", "digits", "--epochs", "1")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if cmd.Stderr = writer; c.stdout {
				cmd.Stdout, cmd.Stderr = writer, &stderr
			}
			_ = cmd.Run() // the exit code says it all
			if err := writer.Close(); err != nil {
				t.Fatal(err)
			}
			outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}.want(t, c.code)
			if c.stdout != strings.Contains(stderr.String(), syscall.EPIPE.Error()) {
				t.Errorf("stderr %q", &stderr)
			}
			jobs := field[[]any](t, d.exec("jobs", "--json").want(t, ExitOK).object(t), "jobs")
			if len(jobs) != 1 || field[string](t, jobs[0], "status") != "succeeded" {
				t.Errorf("jobs are %v", jobs)
			}
			if left := d.scratch(); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// nothingLeft looks for processes and groups. What a killed process was writing
// stays in the store until it is old.
func nothingLeft(t *testing.T, owner int) {
	t.Helper()
	if left := workers(owner); len(left) > 0 {
		t.Errorf("left the processes %v", left)
	}
	if left := groups(owner); len(left) > 0 {
		t.Errorf("left the groups %v", left)
	}
}

// age makes everything in a folder look as if it had been written long ago.
func age(t *testing.T, folder string) {
	t.Helper()
	then := time.Now().Add(-48 * time.Hour)
	if err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, then, then)
	}); err != nil {
		t.Fatal(err)
	}
}

// TestKilled: when disdel itself is killed its workers die with it, and the next
// command sweeps what it left.
func TestKilled(t *testing.T) {
	d := newDesk(t)
	d.run("train", "digits", "--epochs", "1").want(t, ExitOK)
	r := d.start("train", "digits", "--epochs", "2000")
	r.until("training, round")
	pid := r.cmd.Process.Pid
	eventually(t, "a worker", func() bool { return len(workers(pid)) > 0 })
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.end()
	eventually(t, "the death of the workers", func() bool { return len(workers(pid)) == 0 })
	age(t, filepath.Join(d.store(), "tmp"))
	got := d.exec("infer", "digits", "--json").want(t, ExitOK).object(t)
	if accuracy := field[float64](t, got, "accuracy"); accuracy <= 0.5 {
		t.Errorf("accuracy %v", accuracy)
	}
	nothingLeft(t, pid)
	if left, err := filepath.Glob(filepath.Join(d.store(), "tmp", "*")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestResumed: the job of a controller that was killed ends as if nothing had
// happened.
func TestResumed(t *testing.T) {
	t.Parallel()
	d := emptyDesk(t) // measuring a worker is a call that has ended, with its container
	train := []string{"train", "digits", "--workers", "4", "--epochs", "12"}
	r := d.start(train...)
	r.until("training, round")
	eventually(t, "a worker", func() bool { return len(workers(r.cmd.Process.Pid)) > 0 })
	if alive := d.run("jobs").want(t, ExitOK); !strings.Contains(alive.stdout, "running") {
		t.Errorf("jobs, while one runs:\n%s", alive.stdout)
	}
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.end()
	jobs := field[[]any](t, d.exec("jobs", "--json").want(t, ExitOK).object(t), "jobs")
	if len(jobs) != 1 || field[string](t, jobs[0], "status") != "interrupted" || field[float64](t, jobs[0], "metrics", "containers") < 1 {
		t.Fatalf("jobs %v; want one that was interrupted, with its containers", jobs)
	}
	id := field[string](t, jobs[0], "job")
	resumed := d.exec("resume", id, "--json").want(t, ExitOK).object(t)
	whole := d.exec(append(train, "--json")...).want(t, ExitOK).object(t)
	if a, b := field[string](t, resumed, "model", "digest"), field[string](t, whole, "model", "digest"); a != b {
		t.Errorf("resumed: model %s; whole: %s", a, b)
	}
	if left := d.scratch(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	d.exec("resume", id).want(t, ExitFailed, "has ended")
	d.exec("resume", "nobody").want(t, ExitUsage, "no such job", "disdel jobs")
	d.exec("resume").want(t, ExitUsage, "want the id of one job")
}

// TestSameModel: the model is the same, bit for bit, on one container and on
// four, on any number of threads, with a limit that is only watched, with disdel as its own worker, and
// when a worker is killed on the way.
func TestSameModel(t *testing.T) {
	t.Parallel()
	// Long enough that a job does not end before one of its workers is ended.
	train := []string{"train", "digits", "--workers", "4", "--epochs", "120", "--json"}
	digest := func(t *testing.T, o outcome) string {
		t.Helper()
		return field[string](t, o.want(t, ExitOK).object(t), "model", "digest")
	}
	first := newDesk(t)
	want := digest(t, first.exec(append(train, "--containers", "1", "--threads", "1")...))
	for _, args := range points.Some([][]string{
		{"--containers", "4", "--enforcement", "watched"},
		{"--threads", "2", "--containers", "1"},
		{"--threads", "3", "--containers", "2"},
	}) {
		d := newDesk(t)
		if got := digest(t, d.exec(append(train, args...)...)); got != want {
			t.Errorf("%v: model %s; want %s", args, got, want)
		}
	}

	d := newDesk(t)
	d.program = filepath.Join(alone, "disdel")
	own := d.exec(train...).want(t, ExitOK, "there is no disdel-worker beside this program", "make, or go build -o FOLDER ./cmd/...")
	if got := digest(t, own); got != want {
		t.Errorf("its own worker: model %s; want %s", got, want)
	}

	plan := first.exec(append([]string{"plan"}, train[1:]...)...).want(t, ExitOK).object(t)
	steps := int(field[float64](t, plan, "numerics", "steps"))
	for _, signal := range points.Some([]syscall.Signal{syscall.SIGKILL, syscall.SIGTERM}) {
		t.Run(signal.String(), func(t *testing.T) {
			var r *running
			for try := 1; ; try++ {
				d := newDesk(t)
				r = d.start(append(train, "--containers", "4")...)
				r.until("training, round")
				if d.endOneWorker(r.cmd.Process.Pid, signal, steps) {
					break
				}
				if r.end(); try == 3 {
					t.Fatal("every job was in its last round before one of its workers could be ended")
				}
			}
			got := r.end().want(t, ExitOK)
			if model := digest(t, got); model != want {
				t.Errorf("model %s; want %s", model, want)
			}
			if failed := field[float64](t, got.object(t), "metrics", "failed_containers"); failed != 1 {
				t.Errorf("%v failed containers; want 1", failed)
			}
			nothingLeft(t, r.cmd.Process.Pid)
		})
	}
}

// TestSameModel_Divided: eight replicas make the same model in one container, which
// averages in calls of their own, in two, in eight, which meet, and on Redis.
func TestSameModel_Divided(t *testing.T) {
	t.Parallel()
	variants := [][]string{{"--containers", "1"}, {"--containers", "2"}, {"--containers", "8"}}
	if endToEnd("redis") {
		variants = append(variants, []string{"--store", "redis://:sesame@" + redisServer(t, "sesame")})
	}
	want := ""
	for _, args := range variants {
		o := newDesk(t).exec(append([]string{"train", "digits", "--workers", "8", "--epochs", "2", "--json"}, args...)...).want(t, ExitOK)
		got := field[string](t, o.object(t), "model", "digest")
		if want == "" {
			want = got
		}
		if got != want || want == "" {
			t.Errorf("%v: model %s; want %s", args, got, want)
		}
	}
}

// endOneWorker ends one of the four workers of a job of four replicas that meet,
// while it certainly has a call: it is stopped first, and once the others have come
// to the end of a round and one state stays away, the job waits for its answer. It
// lets the worker go on and returns false when that is the job's last round: what is
// left of the call may then be over before a worker heeds a signal that it can handle.
func (d *desk) endOneWorker(owner int, signal syscall.Signal, steps int) bool {
	t := d.t
	t.Helper()
	var all []int
	eventually(t, "four workers", func() bool { all = workers(owner); return len(all) >= 4 })
	victim := all[0]
	if err := syscall.Kill(victim, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const enough = 10 // looks in a row: the state may just be on its way
	round, same := "", 0
	eventually(t, "three replicas to wait for the stopped one", func() bool {
		newest, states := d.newestRound()
		if newest != round || states != 3 {
			round, same = newest, 0
		}
		same++
		return states == 3 && same > enough
	})
	ends := filepath.Base(round) != fmt.Sprintf("%09d", steps)
	if ends {
		if err := syscall.Kill(victim, signal); err != nil {
			t.Fatal(err)
		}
	}
	// A worker that is killed ends although it is stopped, and is then gone.
	if err := syscall.Kill(victim, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	return ends
}

// newestRound returns the folder of the last round of which the store has states, and
// how many replicas' there are.
func (d *desk) newestRound() (folder string, replicas int) {
	d.t.Helper()
	rounds, err := filepath.Glob(filepath.Join(d.store(), "objects", "jobs", "*", "state", "*", "step", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	if len(rounds) == 0 {
		return "", 0
	}
	folder = slices.Max(rounds)
	states, err := filepath.Glob(filepath.Join(folder, "replica-*"))
	if err != nil {
		d.t.Fatal(err)
	}
	return folder, len(states)
}

// TestConcurrent: two programs share a store without getting in each other's
// way.
func TestConcurrent(t *testing.T) {
	d := newDesk(t)
	args := []string{"train", "digits", "--epochs", "1", "--json"}
	a, b := d.start(args...), d.start(args...)
	one, two := a.end().want(t, ExitOK).object(t), b.end().want(t, ExitOK).object(t)
	if x, y := field[string](t, one, "model", "digest"), field[string](t, two, "model", "digest"); x != y {
		t.Errorf("models %s and %s", x, y)
	}
	var listed struct{ Jobs []json.RawMessage }
	if err := json.Unmarshal([]byte(d.run("jobs", "--json").want(t, ExitOK).stdout), &listed); err != nil || len(listed.Jobs) != 2 {
		t.Errorf("%d jobs, %v; want 2", len(listed.Jobs), err)
	}
	if left := d.scratch(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
