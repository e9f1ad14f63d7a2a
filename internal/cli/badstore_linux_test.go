// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnreachable: a store that is not there is named, without the password, and
// soon.
func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	d := newDesk(t)
	for _, line := range []string{"models", "jobs", "train digits", "infer digits", "resume no-such", "predict digits a.png"} {
		got := d.run(append(strings.Fields(line), "--store", "redis://ann:sesame@"+address)...).want(t, ExitFailed, address)
		if strings.Contains(got.stderr, "sesame") || got.stdout != "" {
			t.Errorf("%s: stdout %q, stderr %q", line, got.stdout, got.stderr)
		}
	}
}

// redisServer starts a real server with a password and returns its address.
func redisServer(t *testing.T, password string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "redis-server", "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", password,
		"--dir", t.TempDir(), "--maxmemory-policy", "noeviction")
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("start a server (DISDEL_E2E names redis, so there must be one): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		if strings.Contains(scanner.Text(), "Ready to accept connections") {
			go func() {
				for scanner.Scan() { // so that the server is never kept from writing
				}
			}()
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	t.Fatal("the server ended before it was ready")
	return ""
}

// TestWrongPassword: the server's refusal is said, and neither password.
func TestWrongPassword(t *testing.T) {
	if !endToEnd("redis") {
		return
	}
	address := redisServer(t, "tahini")
	d := newDesk(t)
	for _, credential := range []string{"default:sesame@", ""} {
		for _, line := range []string{"models", "train digits --epochs 1"} {
			got := d.run(append(strings.Fields(line), "--store", "redis://"+credential+address)...).want(t, ExitFailed, address)
			if strings.Contains(got.stderr, "sesame") || strings.Contains(got.stderr, "tahini") || got.stdout != "" {
				t.Errorf("%s: stdout %q, stderr %q", line, got.stdout, got.stderr)
			}
		}
	}
	trained := d.run("train", "digits", "--epochs", "1", "--json", "--store", "redis://default:tahini@"+address).want(t, ExitOK)
	if strings.Contains(trained.stdout+trained.stderr, "tahini") {
		t.Error("the password is printed")
	}
}

// TestReadOnly: a folder that cannot be written to is named, and what is in it can
// still be read.
func TestReadOnly(t *testing.T) {
	d := newDesk(t)
	d.run("train", "digits", "--epochs", "1").want(t, ExitOK)
	place := d.mount(syscall.MS_RDONLY, "")
	if place == "" {
		place = filepath.Join(d.folder, "locked")
		if err := os.Mkdir(place, 0o500); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{
		"infer digits --output " + filepath.Join(place, "p.csv"),
		"models export digits " + filepath.Join(place, "m.safetensors"),
		"datasets export digits " + filepath.Join(place, "d.npz"),
	} {
		got := d.run(strings.Fields(line)...).want(t, ExitFailed, place, "name a file in a folder that is there and that you may write to")
		if got.stdout != "" {
			t.Errorf("%s: %q", line, got.stdout)
		}
	}
	d.run("train", "digits", "--epochs", "1", "--store", "dir://"+filepath.Join(place, "store")).want(t, ExitFailed, place)
	jobs := field[[]any](t, d.run("jobs", "--json").want(t, ExitOK).object(t), "jobs")
	if len(jobs) != 1 {
		t.Errorf("%d jobs; want none of those that could not write their output", len(jobs))
	}
}

// mount mounts a small file system in memory, if this process may, and returns its
// folder, else "".
func (d *desk) mount(flags uintptr, options string) string {
	d.t.Helper()
	place := filepath.Join(d.folder, "mounted")
	if err := os.Mkdir(place, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := syscall.Mount("disdel-test", place, "tmpfs", flags, options); err != nil {
		d.t.Logf("no file system of its own: %v", err)
		return ""
	}
	d.t.Cleanup(func() {
		if err := syscall.Unmount(place, syscall.MNT_DETACH); err != nil {
			d.t.Errorf("unmount %s: %v", place, err)
		}
	})
	return place
}

// TestFullDisk: where there is no room a command fails, says so, and leaves nothing
// half-written. Without the right to mount a disk of its own, /dev/full stands for
// one, on which only printing can be tried.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, line := range []string{"datasets", "datasets --json", "version"} {
		got := d.runWith(func(a *app) { a.stdout = full }, strings.Fields(line)...)
		if got.code != ExitFailed || !strings.Contains(got.stderr, "no space left on device") {
			t.Errorf("%s: exit code %d, %s", line, got.code, got.stderr)
		}
	}
	place := d.mount(0, "size=64k")
	if place == "" {
		return
	}
	set := d.write("big.npz", nil)
	d.run("datasets", "export", "digits", set).want(t, ExitOK)
	d.run("train", "digits", "--epochs", "1").want(t, ExitOK)
	small := filepath.Join(place, "rest")
	if err := os.WriteFile(small, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"datasets export digits " + filepath.Join(place, "d.npz"),
		"models export digits " + filepath.Join(place, "m.safetensors"),
		"infer digits --output " + filepath.Join(place, "p.csv"),
	} {
		d.run(strings.Fields(line)...).want(t, ExitFailed, "no space left on device", place)
	}
	store := filepath.Join(place, "store")
	if err := os.Remove(small); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d.run("train", "digits", "--epochs", "1", "--store", "dir://"+store).want(t, ExitFailed, "no space left on device")
	if took := time.Since(began); took > patience {
		t.Errorf("failed after %v", took)
	}
	if left, err := filepath.Glob(filepath.Join(store, "tmp", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("half-written: %v, %v", left, err)
	}
	left, err := os.ReadDir(place)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if entry.Name() != "store" {
			t.Errorf("left %s", entry.Name())
		}
	}
}

// TestDamagedState: a flipped bit in the state of a job that was interrupted is an
// error that names the object, never another model.
func TestDamagedState(t *testing.T) {
	d := newDesk(t)
	train := []string{"train", "digits", "--workers", "2", "--epochs", "40"}
	r := d.start(train...)
	r.until("training, round")
	states := func() (found []string) {
		for _, path := range d.scratch() {
			if strings.Contains(path, "/step/") {
				found = append(found, path)
			}
		}
		return found
	}
	eventually(t, "a state", func() bool { return len(states()) > 0 })
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.end()
	eventually(t, "the death of the workers", func() bool { return len(workers(r.cmd.Process.Pid)) == 0 })
	for _, path := range states() {
		damage(t, path)
	}
	jobs := field[[]any](t, d.run("jobs", "--json").want(t, ExitOK).object(t), "jobs")
	id := field[string](t, jobs[0], "job")
	got := d.run("resume", id).want(t, ExitFailed, "corrupt", "jobs/"+id+"/state/", "start the job anew")
	if strings.Contains(got.stdout, "accuracy") {
		t.Errorf("a result of damaged states:\n%s", got.stdout)
	}
	if got := d.run("models").want(t, ExitOK); got.stdout != "" {
		t.Errorf("a model of damaged states:\n%s", got.stdout)
	}
}
