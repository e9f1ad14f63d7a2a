// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"disdel/internal/job"
)

// v1 is the memory controller of cgroup v1. Groups are made below the group of
// this process or, where that cannot be written, below the root.
type v1 struct {
	spawner *spawner
	parent  string
	home    *os.File // the tasks file of the spawner's own group
}

// chargeBatch is how much the kernel charges to a group at once, at most.
const chargeBatch = 256 * job.KB

// probeLimit is the limit of groups that are made to find out whether that
// works.
const probeLimit = 64 * job.MB

func openV1(s *spawner) (limiter, error) {
	h, err := findHierarchy("memory")
	if err != nil {
		return nil, fmt.Errorf("memory controller: %w", err)
	}
	home, err := os.OpenFile(filepath.Join(h.own, "tasks"), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, parent := range []string{h.own, h.mount} {
		l := &v1{spawner: s, parent: parent, home: home}
		if err := l.try(); err != nil {
			errs = append(errs, err)
			continue
		}
		sweepGroups(parent)
		return l, nil
	}
	return nil, errors.Join(append(errs, home.Close())...)
}

// try makes a group and moves the spawner into it and back.
func (l *v1) try() error {
	g, err := l.newGroup(probeLimit)
	if err != nil {
		return err
	}
	err = g.spawn(func(*syscall.SysProcAttr) error { return nil })
	return errors.Join(err, g.remove())
}

func (l *v1) name() string { return CgroupV1 }

func (l *v1) close() error { return l.home.Close() }

func (l *v1) newGroup(limit job.Bytes) (group, error) {
	directory, err := makeGroup(l.parent, groupPrefix)
	if err != nil {
		return nil, err
	}
	g := &v1Group{spawner: l.spawner, home: l.home, directory: directory}
	if err := g.set(limit); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

type v1Group struct {
	spawner   *spawner
	home      *os.File
	directory string
}

func (g *v1Group) file(name string) string { return filepath.Join(g.directory, name) }

// set sets the limits of a new group: memory first, since the limit of memory
// and swap together cannot be below it.
func (g *v1Group) set(limit job.Bytes) error {
	if err := setLimit(g.file("memory.limit_in_bytes"), limit); err != nil {
		return err
	}
	if err := setLimit(g.file("memory.memsw.limit_in_bytes"), limit); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Where the kernel does not account swap this at least keeps it from swapping.
	if err := writeFile(g.file("memory.swappiness"), "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (g *v1Group) spawn(fork func(*syscall.SysProcAttr) error) error {
	tasks, err := os.OpenFile(g.file("tasks"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer tasks.Close()
	return g.spawner.do(func() error {
		// 0 is the calling thread, and far quicker than its number: the kernel need
		// not keep other threads from coming and going.
		if _, err := tasks.WriteString("0"); err != nil {
			return fmt.Errorf("enter group: %w", err)
		}
		err := fork(&syscall.SysProcAttr{})
		if _, back := g.home.WriteString("0"); back != nil {
			g.spawner.stuck = true
			return errors.Join(err, fmt.Errorf("leave group: %w", back))
		}
		return err
	})
}

func (g *v1Group) wrap(command, env []string) ([]string, []string) { return command, env }
func (g *v1Group) adopt(int) error                                 { return nil }

// grow raises memory and swap together first, see set.
func (g *v1Group) grow(limit job.Bytes) (job.Bytes, error) {
	if err := setLimit(g.file("memory.memsw.limit_in_bytes"), limit); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err := setLimit(g.file("memory.limit_in_bytes"), limit); err != nil {
		return 0, err
	}
	return limit, nil
}

func (g *v1Group) usage() (kernel, cache job.Bytes) {
	kernel, err := readNumber(g.file("memory.kmem.usage_in_bytes"))
	if err != nil {
		kernel = 0
	}
	stat := readTable(g.file("memory.stat"))
	return kernel, max(0, stat["cache"]-stat["mapped_file"]-stat["shmem"])
}

func (g *v1Group) verdict() (killed, own bool) {
	if readTable(g.file("memory.oom_control"))["oom_kill"] == 0 {
		return false, false
	}
	// The killed one hit its own group's limit if usage was there; the counters
	// of failures stay 0 in newer kernels. Pages are charged in batches.
	limit, err1 := readNumber(g.file("memory.limit_in_bytes"))
	most, err2 := readNumber(g.file("memory.max_usage_in_bytes"))
	if err1 != nil || err2 != nil || most+chargeBatch >= limit {
		return true, true
	}
	return true, false
}

func (g *v1Group) killAll() { killGroup(g.directory) }

func (g *v1Group) remove() error { return removeGroup(g.directory) }
