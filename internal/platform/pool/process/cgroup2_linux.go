// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
)

// v2 is cgroup v2. A group that has processes cannot hand the memory controller
// to groups below it, unless it is the root. So groups are made below the root
// if this process is there, else beside this process's group, which root may and
// a user in his own systemd, else below it after this process has moved into a
// group below, which works if it was alone. What has been delegated is tried
// first, though: beside it the limits of the delegated group would not hold.
type v2 struct {
	spawner *spawner
	parent  string
	leave   func() error // undoes the move
}

func openV2(s *spawner) (limiter, error) {
	h, err := findHierarchy("")
	if err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	controllers, err := os.ReadFile(filepath.Join(h.own, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	if !slices.Contains(strings.Fields(string(controllers)), "memory") {
		return nil, errors.New("no memory controller here")
	}
	// Who was killed may have found another place than this process will.
	for _, parent := range []string{h.own, filepath.Dir(h.own)} {
		if strings.HasPrefix(parent, h.mount) {
			sweepGroups(parent)
		}
	}
	places := []func() (string, func() error, error){h.root, h.beside, h.below}
	if h.delegated() {
		places = []func() (string, func() error, error){h.root, h.below, h.beside}
	}
	var errs []error
	for _, place := range places {
		parent, leave, err := place()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l := &v2{spawner: s, parent: parent, leave: leave}
		if err := l.try(); err != nil {
			errs = append(errs, err, leave())
			continue
		}
		return l, nil
	}
	return nil, errors.Join(errs...)
}

func nothing() error { return nil }

// delegated reports whether systemd says that it leaves this process's group to
// those in it.
func (h hierarchy) delegated() bool {
	var value [1]byte
	n, err := unix.Getxattr(h.own, "user.delegate", value[:])
	return err == nil && n == 1 && value[0] == '1'
}

func (h hierarchy) root() (string, func() error, error) {
	if _, err := os.Stat(filepath.Join(h.own, "cgroup.type")); !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("%s is not the root", h.own)
	}
	return h.own, nothing, handDown(h.own)
}

func (h hierarchy) beside() (string, func() error, error) {
	if h.own == h.mount {
		return "", nil, errors.New("what is around this process's group cannot be seen")
	}
	parent := filepath.Dir(h.own)
	return parent, nothing, handDown(parent)
}

func (h hierarchy) below() (string, func() error, error) {
	leaf, err := makeGroup(h.own, homePrefix)
	if err != nil {
		return "", nil, err
	}
	leave := func() error {
		if h.shared(leaf) {
			return nil
		}
		// Processes can come back only once no controller is handed down.
		return errors.Join(
			writeFile(filepath.Join(h.own, "cgroup.subtree_control"), "-memory"),
			writeFile(filepath.Join(h.own, "cgroup.procs"), "0"),
			removeGroup(leaf),
		)
	}
	if err := writeFile(filepath.Join(leaf, "cgroup.procs"), "0"); err != nil {
		return "", nil, errors.Join(err, removeGroup(leaf))
	}
	if err := handDown(h.own); err != nil {
		return "", nil, errors.Join(err, leave())
	}
	return h.own, leave, nil
}

// shared reports whether others have made groups here too, or come into this
// process's group, where they were started: they need the controller. Then all
// stays, and the leaf is swept once its owner is dead.
func (h hierarchy) shared(leaf string) bool {
	groups, err := filepath.Glob(filepath.Join(h.own, groupPrefix+"*"))
	return err == nil && len(groups) > 1 ||
		slices.ContainsFunc(groupProcesses(leaf), func(pid int) bool { return pid != os.Getpid() })
}

// handDown gives the groups below directory a memory controller.
func handDown(directory string) error {
	path := filepath.Join(directory, "cgroup.subtree_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(control)), "memory") {
		return nil
	}
	return writeFile(path, "+memory")
}

// try makes a group and a child in it. The child fails to execute what is not
// there, which is how one sees that it came that far.
func (l *v2) try() error {
	g, err := l.newGroup(probeLimit)
	if err != nil {
		return err
	}
	err = g.spawn(func(attr *syscall.SysProcAttr) error {
		missing := filepath.Join(g.(*v2Group).directory, "missing")
		_, err := syscall.ForkExec(missing, []string{missing}, &syscall.ProcAttr{Sys: attr})
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("clone into group: %w", err)
	})
	return errors.Join(err, g.remove())
}

func (l *v2) name() string { return CgroupV2 }

func (l *v2) close() error { return l.leave() }

func (l *v2) newGroup(limit job.Bytes) (group, error) {
	directory, err := makeGroup(l.parent, groupPrefix)
	if err != nil {
		return nil, err
	}
	g := &v2Group{spawner: l.spawner, directory: directory}
	if err := g.set(limit); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

type v2Group struct {
	spawner   *spawner
	directory string
}

func (g *v2Group) file(name string) string { return filepath.Join(g.directory, name) }

func (g *v2Group) set(limit job.Bytes) error {
	if err := setLimit(g.file("memory.max"), limit); err != nil {
		return err
	}
	// Without swap accounting there is nothing to switch off; without
	// memory.oom.group (Linux before 4.19) the kernel kills one process.
	for name, value := range map[string]string{"memory.swap.max": "0", "memory.oom.group": "1"} {
		if err := writeFile(g.file(name), value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (g *v2Group) spawn(fork func(*syscall.SysProcAttr) error) error {
	directory, err := os.Open(g.directory)
	if err != nil {
		return err
	}
	defer directory.Close()
	return g.spawner.do(func() error {
		return fork(&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(directory.Fd())})
	})
}

func (g *v2Group) wrap(command, env []string) ([]string, []string) { return command, env }
func (g *v2Group) adopt(int) error                                 { return nil }

func (g *v2Group) grow(limit job.Bytes) (job.Bytes, error) {
	return limit, setLimit(g.file("memory.max"), limit)
}

func (g *v2Group) usage() (kernel, cache job.Bytes) { return v2Usage(g.directory) }

func v2Usage(directory string) (kernel, cache job.Bytes) {
	stat := readTable(filepath.Join(directory, "memory.stat"))
	kernel, ok := stat["kernel"]
	if !ok { // Linux before 5.18
		kernel = stat["kernel_stack"] + stat["pagetables"] + stat["slab"] + stat["percpu"]
	}
	// What the kernel remembers of files it forgets when the group needs memory.
	kernel -= min(kernel, stat["slab_reclaimable"])
	return kernel + stat["sock"], max(0, stat["file"]-stat["file_mapped"]-stat["shmem"])
}

func (g *v2Group) verdict() (killed, own bool) {
	e, _ := readEvents(g.directory)
	return e.killed > 0, e.killed > 0 && e.own > 0
}

// events are what the kernel counted in a group and those below it: processes
// killed for want of memory, and how often that was for the limit of one of
// these groups, not of one around them.
type events struct{ killed, own job.Bytes }

func readEvents(directory string) (e events, there bool) {
	table := readTable(filepath.Join(directory, "memory.events"))
	return events{table["oom_kill"], table["oom"]}, table != nil
}

func (e events) less(other events) events {
	return events{max(0, e.killed-other.killed), max(0, e.own-other.own)}
}

func (g *v2Group) killAll() { killGroup(g.directory) }

func (g *v2Group) remove() error { return removeGroup(g.directory) }
