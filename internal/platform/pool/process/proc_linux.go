// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
)

// memoryFiles are a process's folder in /proc and files in it, kept open: they
// name the process and nobody who gets its number later. A file that could not
// be opened, or a process that is gone, gives 0.
type memoryFiles struct{ folder, status, statm, clear *os.File }

func openMemoryFiles(pid int) *memoryFiles {
	open := func(name string, flag int) *os.File {
		file, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, name), flag, 0)
		if err != nil {
			return nil
		}
		return file
	}
	return &memoryFiles{open("", unix.O_PATH), open("status", os.O_RDONLY), open("statm", os.O_RDONLY), open("clear_refs", os.O_WRONLY)}
}

func (m *memoryFiles) close() {
	for _, file := range []*os.File{m.folder, m.status, m.statm, m.clear} {
		_ = file.Close() // closing a nil file is an error without effect
	}
}

// peak returns the high-water mark of resident memory. The kernel keeps it of
// counters to which each thread (since Linux 6.2 each processor) adds now and
// then, up to 256 KB late; summed over a Go program's threads that is more than
// a prediction may be off. What the counters leave out now, the mark does too.
func (m *memoryFiles) peak() job.Bytes {
	var buffer [4096]byte
	n, _ := m.status.ReadAt(buffer[:], 0) // short reads end with an error
	status := buffer[:max(n, 0)]
	mark, counted := kilobytes(status, "\nVmHWM:"), kilobytes(status, "\nVmRSS:")
	if mark == 0 || counted == 0 {
		return mark
	}
	return mark + max(0, m.walked()-counted)
}

// kernel estimates what the kernel holds for the process and cannot take back:
// its page tables, its threads, and itself with its files and connections.
func (m *memoryFiles) kernel() job.Bytes {
	const (
		ofThread  = 24 * job.KB // a stack of 16 KB, and what describes it
		ofProcess = 64 * job.KB
	)
	var buffer [4096]byte
	n, _ := m.status.ReadAt(buffer[:], 0) // short reads end with an error
	status := buffer[:max(n, 0)]
	_, rest, _ := bytes.Cut(status, []byte("\nThreads:"))
	value, _, _ := bytes.Cut(rest, []byte("\n"))
	threads, _ := strconv.Atoi(string(bytes.TrimSpace(value))) // 0 if it has just ended
	return kilobytes(status, "\nVmPTE:") + job.Bytes(threads)*ofThread + ofProcess
}

// walked returns the resident memory now as the page tables have it. For 10 MB
// that takes about 0.2 ms.
func (m *memoryFiles) walked() job.Bytes {
	// Opened anew, since an open one is of the program that ran then.
	fd, err := unix.Openat(int(m.folder.Fd()), "smaps_rollup", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var buffer [2048]byte
	n, err := unix.Read(fd, buffer[:])
	if err != nil {
		return 0
	}
	return kilobytes(buffer[:n], "\nRss:")
}

// kilobytes finds a line "name: number kB".
func kilobytes(text []byte, name string) job.Bytes {
	_, rest, found := bytes.Cut(text, []byte(name))
	value, _, _ := bytes.Cut(rest, []byte(" kB"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
	if !found || err != nil {
		return 0
	}
	return job.Bytes(n) * job.KB
}

// resident returns the resident memory now.
func (m *memoryFiles) resident() job.Bytes {
	var buffer [256]byte
	n, _ := m.statm.ReadAt(buffer[:], 0)
	fields := bytes.Fields(buffer[:max(n, 0)])
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return job.Bytes(pages) * job.Bytes(os.Getpagesize())
}

// resetPeak makes the high-water mark start again from what is resident now.
func (m *memoryFiles) resetPeak() {
	_, _ = m.clear.WriteAt([]byte("5"), 0) // without it the mark is that of all calls, which is no less true
}

// closeOnExec keeps all descriptors but the standard three from children.
func closeOnExec() {
	if unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux before 5.11
	if err != nil {
		return
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}

// owner identifies a process for good: its number, when it started, and where
// the number counts.
type owner struct {
	pid       int
	start     uint64 // in clock ticks since boot
	namespace uint64
}

func (o owner) String() string { return fmt.Sprintf("%d-%d-%d", o.pid, o.start, o.namespace) }

func ownerText() string { return self().String() }

// self returns this process.
func self() owner {
	o := owner{pid: os.Getpid(), namespace: pidNamespace()}
	_, o.start, _ = processState(o.pid) // one's own is always there
	return o
}

func parseOwner(text string) (o owner, rest string, ok bool) {
	parts := strings.SplitN(text, "-", 4)
	if len(parts) < 3 {
		return o, "", false
	}
	pid, err1 := strconv.Atoi(parts[0])
	start, err2 := strconv.ParseUint(parts[1], 10, 64)
	namespace, err3 := strconv.ParseUint(parts[2], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || pid <= 0 {
		return o, "", false
	}
	if len(parts) == 4 {
		rest = parts[3]
	}
	return owner{pid, start, namespace}, rest, true
}

func pidNamespace() uint64 {
	var stat unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &stat) != nil {
		return 0
	}
	return stat.Ino
}

// dead reports whether the owner is certainly dead. Doubt, such as a process of
// another user that cannot be looked at, or numbers that count elsewhere, means
// that it lives.
func (o owner) dead() bool {
	if o.namespace != pidNamespace() || o.namespace == 0 {
		return false
	}
	if syscall.Kill(o.pid, 0) == syscall.ESRCH {
		return true
	}
	state, start, err := processState(o.pid)
	if err != nil {
		return false
	}
	return start != o.start || state == 'Z' && threadCount(o.pid) == 1
}

// processState reads the state and the start time of a process.
func processState(pid int) (state byte, start uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in parentheses, may hold anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return fields[0][0], start, err
}

func threadCount(pid int) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

// sweepProcesses kills the workers, and what they started, whose tag is ours.
// Processes numbered up to after are passed over unless the numbers have begun
// again since: looking at every process takes long.
func sweepProcesses(after int, ours func(tag string) bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	if newestProcess() < after {
		after = 0
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		path := "/proc/" + entry.Name() + "/environ"
		if err != nil || pid <= after || pid == os.Getpid() || !tagged(path, ours) {
			continue
		}
		killIf(pid, func() bool { return tagged(path, ours) })
	}
}

// newestProcess returns the number that was given last; 0 when unknown.
func newestProcess() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text)
	if len(fields) == 0 {
		return 0
	}
	pid, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil {
		return 0
	}
	return pid
}

// tagged reports whether a process, given by its environment, has such a tag.
func tagged(path string, ours func(tag string) bool) bool {
	environment, err := os.ReadFile(path) // most are other users' and cannot be read
	if err != nil {
		return false
	}
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		if tag, ok := strings.CutPrefix(string(variable), ownerVariable+"="); ok {
			return ours(tag)
		}
	}
	return false
}

// ownerDead reports whether a tag's owner is certainly dead. The kernel kills
// workers when their owner dies; this is to find what escaped it.
func ownerDead(tag string) bool {
	o, _, ok := parseOwner(tag)
	return ok && o.dead()
}

// killIf kills the process if it is what it should be. It is held by a
// descriptor meanwhile, so that its number cannot become another's.
func killIf(pid int, ours func() bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if ours() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // it may be gone
	}
}
