// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"disdel/internal/job"
)

// memory measures a container's first process through this machine's own files:
// the engine tells of the whole group only, with page cache, and cannot forget a
// high-water mark. Where the files cannot be read the figures are 0, unknown.
type memory struct {
	mu     sync.Mutex
	status *os.File
	// refs forgets the high-water mark; nil when that is not allowed.
	refs  *os.File
	group string // folder of the memory group; "" is unknown
	v2    bool
	// stale says that the mark is of more than the current call.
	stale bool
}

// open opens the files of process pid, if that is really in container id.
func (m *memory) open(pid int, id string) {
	if pid <= 0 {
		return
	}
	folder := "/proc/" + strconv.Itoa(pid)
	groups, err := os.ReadFile(folder + "/cgroup")
	if err != nil || !bytes.Contains(groups, []byte(id)) {
		return
	}
	status, err := os.Open(folder + "/status")
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = status
	if refs, err := os.OpenFile(folder+"/clear_refs", os.O_WRONLY, 0); err == nil {
		m.refs = refs
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !strings.Contains(parts[2], id) {
			continue
		}
		if parts[1] == "memory" {
			m.group, m.v2 = filepath.Join("/sys/fs/cgroup/memory", parts[2]), false
		} else if parts[1] == "" && m.group == "" {
			m.group, m.v2 = filepath.Join("/sys/fs/cgroup", parts[2]), true
		}
	}
}

// reset forgets the high-water mark, before a call.
func (m *memory) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale = true
	if m.refs != nil {
		if _, err := m.refs.WriteAt([]byte("5"), 0); err == nil {
			m.stale = false
		}
	}
}

// read returns the process's mark plus the group's kernel memory, and the
// group's page cache.
func (m *memory) read() (peak, cache job.Bytes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status == nil || m.stale {
		return 0, 0
	}
	buffer := make([]byte, 8<<10)
	n, _ := m.status.ReadAt(buffer, 0)
	peak = field(string(buffer[:n]), "VmHWM:") * job.KB
	if peak == 0 {
		return 0, 0 // it has ended
	}
	if m.group == "" {
		return peak, 0
	}
	stat, err := os.ReadFile(filepath.Join(m.group, "memory.stat"))
	if err != nil {
		return peak, 0
	}
	if m.v2 {
		return peak + field(string(stat), "kernel"), field(string(stat), "file")
	}
	kernel, _ := os.ReadFile(filepath.Join(m.group, "memory.kmem.usage_in_bytes")) // not everywhere there
	bytes, _ := strconv.ParseInt(strings.TrimSpace(string(kernel)), 10, 64)
	return peak + job.Bytes(bytes), field(string(stat), "total_cache")
}

// field finds a number behind a name at the start of a line.
func field(text, name string) job.Bytes {
	for line := range strings.Lines(text) {
		parts := strings.Fields(line)
		if len(parts) >= 2 && parts[0] == name {
			n, _ := strconv.ParseInt(parts[1], 10, 64)
			return job.Bytes(max(n, 0))
		}
	}
	return 0
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, file := range []*os.File{m.status, m.refs} {
		if file != nil {
			_ = file.Close() // only read, or nothing to lose
		}
	}
	m.status, m.refs = nil, nil
}
