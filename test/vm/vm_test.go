// SPDX-License-Identifier: Apache-2.0

//go:build linux

// These tests boot a small Debian with systemd and cgroup v2 in a virtual
// machine and run the process driver's tests and real training runs in it: as
// root, as a user with a systemd of his own, in a login session, and as one who
// has nothing. They run only where the variable DISDEL_E2E names "vm", and
// there fail when something that they need is missing:
//
//	DISDEL_E2E=vm go test -v -count=1 -timeout 40m ./test/vm/
//
// The image is made once, and kept in the folder disdel-vm of the user's cache.
// While working on one place, DISDEL_VM_ONLY='user-*' runs what matches, see
// guest; DISDEL_VM_SUITE=trixie takes that Debian instead of this machine's.
package vm_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	// runMax bounds a run of the machine; it takes minutes where the processor
	// is emulated.
	runMax = 45 * time.Minute
	// An accelerated machine may take so long to its first sign of life, and to
	// the first phase: /dev/kvm can exist, and even open, and run nothing.
	aliveMax, bootMax = 10 * time.Second, 3 * time.Minute
	// reserve is what is left of the test's own deadline to clean up.
	reserve = 20 * time.Second
)

func TestMain(m *testing.M) {
	if slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), "vm") {
		os.Exit(m.Run())
	}
}

func TestInVirtualMachine(t *testing.T) {
	// What is started here ends with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	deadline := time.Now().Add(runMax)
	if limit, ok := t.Deadline(); ok && limit.Add(-reserve).Before(deadline) {
		deadline = limit.Add(-reserve)
	}
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	// Who is interrupted cleans up too.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // of mke2fs
	for _, tool := range []string{"qemu-system-x86_64", "mke2fs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%v; install what this test needs: apt-get install --no-install-recommends qemu-system-x86 mmdebstrap genext2fs e2fsprogs", err)
		}
	}
	m := machine{image: image(ctx, t), folder: t.TempDir()}
	m.payload = payload(ctx, t, m.folder)
	report := m.run(ctx, t)
	for _, p := range report.phases {
		t.Run(p.name, func(t *testing.T) {
			if p.status != 0 {
				t.Fatalf("status %d\n%s", p.status, p.output)
			}
			if kind, ok := strings.CutPrefix(p.name, "train/"); ok {
				checkTraining(t, kind, p.output)
			}
		})
	}
	if !report.done {
		t.Errorf("the machine ended early: %v\n%s", cmp.Or(context.Cause(ctx), report.err), report.console)
	}
}

// image returns the folder with the image, which it makes unless it is there.
func image(ctx context.Context, t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.New()
	for _, name := range []string{"image", "disdel-vm.service"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		digest.Write(text)
	}
	key := fmt.Sprintf("%s-%.6x", os.Getenv("DISDEL_VM_SUITE"), digest.Sum(nil))
	cache = filepath.Join(cache, "disdel-vm")
	folder := filepath.Join(cache, key)
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	unfinished, err := os.MkdirTemp(cache, "unfinished-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(unfinished)
	began := time.Now()
	command(ctx, t, "./image", unfinished)
	if err := os.Rename(unfinished, folder); err != nil {
		if _, there := os.Stat(folder); there != nil { // made by another meanwhile
			t.Fatal(err)
		}
	}
	t.Logf("made %s in %v", folder, time.Since(began).Round(time.Second))
	return folder
}

// payload builds the programs, and the disk that has them.
func payload(ctx context.Context, t *testing.T, folder string) string {
	t.Helper()
	files := filepath.Join(folder, "payload")
	for name, arguments := range map[string][]string{
		"process.test":  {"test", "-c", "../../internal/platform/pool/process"},
		"testworker":    {"build", "../../internal/platform/platformtest/testworker"},
		"disdel":        {"build", "../../cmd/disdel"},
		"disdel-worker": {"build", "../../cmd/disdel-worker"},
	} {
		build := slices.Insert(slices.Clone(arguments), len(arguments)-1, "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(files, name))
		command(ctx, t, "env", append([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "go"}, build...)...)
	}
	guest, err := os.ReadFile("guest")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"guest": guest, "only": []byte(cmp.Or(os.Getenv("DISDEL_VM_ONLY"), "*"))} {
		if err := os.WriteFile(filepath.Join(files, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Other users run them too, whatever this one's mask is.
	command(ctx, t, "chmod", "-R", "a+rX,a+x", files)
	disk := filepath.Join(folder, "payload.ext2")
	command(ctx, t, "mke2fs", "-q", "-t", "ext2", "-d", files, disk, "256M")
	return disk
}

// command runs a program to its end, or ends it with all that it started.
func command(ctx context.Context, t *testing.T, name string, arguments ...string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = reserve / 2
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arguments, " "), err, output)
	}
}

type machine struct{ image, payload, folder string }

// report is what came of a run.
type report struct {
	phases  []phase
	done    bool
	err     error  // how the machine ended
	console []byte // the last of it
}

// phase is one command in the machine.
type phase struct {
	name, output string
	status       int
}

// run boots the machine and returns when it has gone: accelerated, or else
// emulated.
func (m machine) run(ctx context.Context, t *testing.T) report {
	t.Helper()
	if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
		_ = kvm.Close()
		r, err := m.boot(ctx, aliveMax, bootMax, "-accel", "kvm", "-cpu", "host")
		if err == nil {
			return r
		}
		t.Logf("KVM does not work here, so the processor is emulated: %v", err)
	}
	// All in one thread: with one for each virtual processor reads of pages that
	// are there fail now and then, and the kernel prints paths as "xxxx".
	r, err := m.boot(ctx, runMax, runMax, "-accel", "tcg,thread=single,tb-size=512", "-cpu", "max,-svm,-vmx,-la57")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// boot runs the machine once. An error means that it never began.
func (m machine) boot(ctx context.Context, alive, booted time.Duration, accelerator ...string) (report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	console := filepath.Join(m.folder, "console")
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", slices.Concat(accelerator, []string{
		"-m", "1536", "-smp", strconv.Itoa(min(runtime.NumCPU(), 4)),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-kernel", filepath.Join(m.image, "vmlinuz"), "-initrd", filepath.Join(m.image, "initrd.img"),
		"-append", "root=/dev/vda rw console=ttyS0 panic=-1 systemd.show_status=false",
		"-drive", "format=raw,if=virtio,snapshot=on,file=" + filepath.Join(m.image, "root.ext2"),
		"-drive", "format=raw,if=virtio,readonly=on,file=" + m.payload,
		"-serial", "file:" + console, "-serial", "stdio",
	})...)
	// The copy of the disk that the machine writes to is a file without a name.
	cmd.Env = append(os.Environ(), "TMPDIR="+m.folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		return report{}, err
	}
	if err := cmd.Start(); err != nil {
		return report{}, err
	}
	var began atomic.Bool
	defer time.AfterFunc(alive, func() {
		if info, err := os.Stat(console); err != nil || info.Size() == 0 {
			cancel(errors.New("no sign of life"))
		}
	}).Stop()
	defer time.AfterFunc(booted, func() {
		if !began.Load() {
			cancel(errors.New("it did not come up"))
		}
	}).Stop()
	r := follow(output, &began)
	r.err = cmd.Wait()
	text, _ := os.ReadFile(console) // a machine that died at once has none
	r.console = append(text[max(0, len(text)-8<<10):], stderr.Bytes()...)
	if !began.Load() {
		return r, fmt.Errorf("%w\n%s", cmp.Or(context.Cause(ctx), r.err, errors.New("it powered off")), r.console)
	}
	return r, nil
}

// follow reads what the program in the machine prints, and prints it.
func follow(output io.Reader, began *atomic.Bool) report {
	var r report
	var current phase
	var text strings.Builder
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if testing.Verbose() {
			fmt.Println(line)
		}
		fields := strings.Fields(line)
		switch {
		case len(fields) > 0 && fields[0] == "@machine":
			began.Store(true)
		case len(fields) == 2 && fields[0] == "@begin":
			current = phase{name: fields[1], status: -1}
			text.Reset()
		case len(fields) == 3 && fields[0] == "@end":
			status, err := strconv.Atoi(fields[2])
			if err != nil || fields[1] != current.name {
				status = -1
			}
			r.phases = append(r.phases, phase{current.name, text.String(), status})
			current = phase{}
		case line == "@done":
			r.done = true
		default:
			text.WriteString(line + "\n")
		}
	}
	if current.name != "" { // it did not end
		r.phases = append(r.phases, phase{current.name, text.String(), -1})
	}
	return r
}

// checkTraining looks at the record of a job whose limits the kernel enforced.
func checkTraining(t *testing.T, kind, output string) {
	t.Helper()
	_, text, _ := strings.Cut(output, "{")
	var record struct {
		Status, Enforcement string
		Actions             []struct {
			Role, Outcome string
			Limit         int64 `json:"memory_limit_bytes"`
			Predicted     int64 `json:"predicted_bytes"`
			Peak          int64 `json:"peak_bytes"`
		}
	}
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&record); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	want := "cgroup v2"
	if strings.HasSuffix(kind, "-scope") {
		want = "systemd scope"
	}
	if record.Status != "succeeded" || record.Enforcement != want || len(record.Actions) == 0 {
		t.Errorf("%s, limits enforced by %s, %d actions; want %s", record.Status, record.Enforcement, len(record.Actions), want)
	}
	least, most := int64(1)<<62, int64(-1)<<62
	for i, a := range record.Actions {
		spare := a.Predicted - a.Peak
		least, most = min(least, spare), max(most, spare)
		if a.Outcome != "success" || a.Peak <= 0 || a.Peak > a.Limit || spare < 0 || spare > max(2<<20, a.Predicted*15/100) {
			t.Errorf("action %d: %+v: predicted - peak is %d", i, a, spare)
		}
	}
	t.Logf("%d actions, predicted - peak is %d to %d bytes", len(record.Actions), least, most)
}
