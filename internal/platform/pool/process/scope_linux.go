// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"disdel/internal/job"
)

// scope has the user's systemd make a scope for each container. That costs tens
// of milliseconds a start, and works where systemd does not let a user make
// groups himself, such as in a login over SSH.
//
// systemd removes a scope as soon as nothing runs in it, and the counters of its
// group with it. So all scopes of a driver are in a slice of its own, which
// stays, and whose group counts for all groups in it that there were.
type scope struct {
	spawner *spawner
	run     string   // systemd-run
	control string   // systemctl
	env     string   // env
	bus     []string // how to find the user's systemd
	root    string   // of cgroup v2
	slice   string   // the unit
	around  string   // the slice's directory, once there is one

	mu      sync.Mutex
	settled events               // of scopes whose verdict has been given
	open    map[*scopeGroup]bool // those whose verdict has not
}

const (
	// scopeTime bounds each command to systemd.
	scopeTime = 30 * time.Second
	// slicePrefix begins the names of slices: then the owner and a number, with
	// underscores, since a dash in the name of a slice means a slice in a slice.
	slicePrefix = "app-disdel_"
)

// unitCount gives all units of this process different names.
var unitCount atomic.Int64

func openScope(ctx context.Context, s *spawner) (limiter, error) {
	h, err := findHierarchy("")
	if err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	l := &scope{
		spawner: s, root: h.mount, bus: userBus(), open: map[*scopeGroup]bool{},
		slice: fmt.Sprintf("%s%s_%d.slice", slicePrefix, strings.ReplaceAll(ownerText(), "-", "_"), unitCount.Add(1)),
	}
	for name, path := range map[string]*string{"systemd-run": &l.run, "systemctl": &l.control, "env": &l.env} {
		if *path, err = exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	if err := l.try(ctx); err != nil {
		_ = l.close() // most often there is nothing
		return nil, err
	}
	l.sweep()
	return l, nil
}

// userBus returns the variables that say where the user's systemd is.
func userBus() []string {
	var bus []string
	for _, name := range busVariables {
		if value, ok := os.LookupEnv(name); ok {
			bus = append(bus, name+"="+value)
		}
	}
	if len(bus) == 0 { // outside a session; where it is by default
		bus = append(bus, fmt.Sprintf("%s=/run/user/%d", busVariables[0], os.Getuid()))
	}
	return bus
}

var busVariables = []string{"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"}

// try has a scope's own group and limit printed from inside.
func (l *scope) try(ctx context.Context) error {
	g := l.makeGroup(probeLimit)
	ctx, cancel := context.WithTimeout(ctx, scopeTime)
	defer cancel()
	script := `group=$(sed -n s/^0:://p /proc/self/cgroup) && echo "$group" && cat "$0/$group/memory.max"`
	command, env := g.wrap([]string{"/bin/sh", "-c", script, l.root}, []string{"PATH=/usr/bin:/bin"})
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = env
	output, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(output))
	if err != nil {
		return fmt.Errorf("systemd-run --user --scope: %w: %s", err, text)
	}
	group, limit, _ := strings.Cut(text, "\n")
	if filepath.Base(filepath.Dir(group)) != l.slice || limit != strconv.FormatInt(int64(probeLimit), 10) {
		return fmt.Errorf("systemd-run --user --scope: the group and its limit inside are %q, want a group in %s and %d", text, l.slice, probeLimit)
	}
	l.around = filepath.Join(l.root, filepath.Dir(group))
	return nil
}

// sweep stops slices whose owner is certainly dead, with what runs in them.
func (l *scope) sweep() {
	directories, err := filepath.Glob(filepath.Join(filepath.Dir(l.around), slicePrefix+"*.slice"))
	if err != nil {
		return
	}
	for _, directory := range directories {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(directory), slicePrefix), ".slice")
		if o, _, ok := parseOwner(strings.ReplaceAll(name, "_", "-")); ok && o.dead() {
			killGroup(directory)                 // systemd would be patient
			_ = l.stop(filepath.Base(directory)) // left for the next time
		}
	}
}

func (l *scope) name() string { return SystemdScope }

func (l *scope) close() error { return l.stop(l.slice) }

// stop has systemd end a unit and all that runs in it.
func (l *scope) stop(unit string) error { return l.systemctl("stop", unit) }

func (l *scope) systemctl(arguments ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), scopeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.control, append([]string{"--user"}, arguments...)...)
	cmd.Env = l.bus
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl --user %s: %w: %s", arguments[0], err, strings.TrimSpace(string(output)))
	}
	return nil
}

func (l *scope) newGroup(limit job.Bytes) (group, error) {
	g := l.makeGroup(limit)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[g] = true
	return g, nil
}

func (l *scope) makeGroup(limit job.Bytes) *scopeGroup {
	unit := fmt.Sprintf("%s%s-%d.scope", groupPrefix, ownerText(), unitCount.Add(1))
	return &scopeGroup{scope: l, unit: unit, limit: limit}
}

type scopeGroup struct {
	*scope
	unit      string
	limit     job.Bytes
	directory atomic.Pointer[string] // known once systemd has moved the process
}

func (g *scopeGroup) spawn(fork func(*syscall.SysProcAttr) error) error {
	return g.spawner.do(func() error { return fork(&syscall.SysProcAttr{}) })
}

// wrap makes systemd-run execute the command in place of itself, so that the
// child is the worker, with the descriptors that it was given. What systemd-run
// needs to find the user's systemd, and what it adds, env takes away again.
func (g *scopeGroup) wrap(command, env []string) ([]string, []string) {
	wrapped := []string{
		g.run, "--user", "--scope", "--quiet", "--collect", "--slice=" + g.slice, "--unit=" + g.unit,
		"--property=MemoryMax=" + strconv.FormatInt(int64(g.limit), 10),
		"--property=MemorySwapMax=0", "--", g.env,
	}
	var own []string
	for _, name := range append([]string{"INVOCATION_ID"}, busVariables...) {
		wrapped = append(wrapped, "--unset="+name)
		for _, variable := range env {
			if strings.HasPrefix(variable, name+"=") {
				own = append(own, variable)
			}
		}
	}
	return append(append(wrapped, own...), command...), append(slices.Clone(env), g.bus...)
}

// adopt waits until systemd has moved the process: before that it must not be
// given work.
func (g *scopeGroup) adopt(pid int) error {
	for deadline := time.Now().Add(scopeTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			return fmt.Errorf("systemd-run has ended: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
			if ok && filepath.Base(path) == g.unit {
				directory := filepath.Join(g.root, path)
				g.directory.Store(&directory)
				// No property says this to every systemd. Without it the kernel kills
				// one process, and the rest ends with the worker.
				_ = writeFile(filepath.Join(directory, "memory.oom.group"), "1")
				return nil
			}
		}
	}
	return fmt.Errorf("systemd made no scope %s within %v", g.unit, scopeTime)
}

// grow returns once the limit is in force: systemd answers before it has set it.
func (g *scopeGroup) grow(limit job.Bytes) (job.Bytes, error) {
	directory := g.directory.Load()
	if directory == nil {
		return 0, fmt.Errorf("scope %s has not begun", g.unit)
	}
	if err := g.systemctl("set-property", "--runtime", g.unit, "MemoryMax="+strconv.FormatInt(int64(limit), 10)); err != nil {
		return 0, err
	}
	path := filepath.Join(*directory, "memory.max")
	for deadline := time.Now().Add(scopeTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		inForce, err := readNumber(path)
		if err != nil {
			return 0, err
		}
		if inForce+job.Bytes(os.Getpagesize()) > limit { // the kernel rounds down
			return limit, nil
		}
	}
	return 0, fmt.Errorf("systemd did not raise the limit of %s within %v", g.unit, scopeTime)
}

func (g *scopeGroup) usage() (kernel, cache job.Bytes) {
	if directory := g.directory.Load(); directory != nil {
		return v2Usage(*directory)
	}
	return 0, 0
}

// verdict asks the group or, where systemd has removed that already, the slice:
// what that counted and no other group did, this one has.
func (g *scopeGroup) verdict() (killed, own bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, g)
	mine, there := g.events()
	if !there {
		all, _ := readEvents(g.around)
		mine = all.less(g.settled)
		for other := range g.open {
			theirs, _ := other.events()
			mine = mine.less(theirs)
		}
	}
	g.settled.killed += mine.killed
	g.settled.own += mine.own
	return mine.killed > 0, mine.killed > 0 && mine.own > 0
}

func (g *scopeGroup) events() (e events, there bool) {
	if directory := g.directory.Load(); directory != nil {
		return readEvents(*directory)
	}
	return events{}, false
}

func (g *scopeGroup) killAll() {
	if directory := g.directory.Load(); directory != nil {
		killGroup(*directory)
	}
}

// remove waits for systemd to remove the group, which it does once nothing runs
// in it, or demands it.
func (g *scopeGroup) remove() error {
	g.mu.Lock()
	delete(g.open, g) // it may never have run
	g.mu.Unlock()
	directory := g.directory.Load()
	if directory == nil {
		return nil
	}
	for deadline := time.Now().Add(removeTime); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(*directory); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return g.stop(g.unit)
}
