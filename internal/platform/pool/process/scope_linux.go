// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"disdel/internal/job"
)

// scope has the user's systemd make a scope for each container. That costs tens
// of milliseconds a start, and works where systemd does not let a user make
// groups himself, such as in a login over SSH.
type scope struct {
	spawner *spawner
	run     string // systemd-run
	control string // systemctl
	bus     []string
	root    string // of cgroup v2
	count   atomic.Int64
}

// scopeTime bounds each command to systemd.
const scopeTime = 10 * time.Second

func openScope(ctx context.Context, s *spawner) (limiter, error) {
	run, err := exec.LookPath("systemd-run")
	if err != nil {
		return nil, err
	}
	control, err := exec.LookPath("systemctl")
	if err != nil {
		return nil, err
	}
	h, err := findHierarchy("")
	if err != nil {
		return nil, fmt.Errorf("cgroup2: %w", err)
	}
	l := &scope{spawner: s, run: run, control: control, root: h.mount}
	for _, name := range []string{"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"} {
		if value, ok := os.LookupEnv(name); ok {
			l.bus = append(l.bus, name+"="+value)
		}
	}
	if err := l.try(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// try has a scope's own limit printed from inside.
func (l *scope) try(ctx context.Context) error {
	g := l.makeGroup(probeLimit)
	ctx, cancel := context.WithTimeout(ctx, scopeTime)
	defer cancel()
	script := `cat "$0/$(cut -d: -f3- /proc/self/cgroup)/memory.max"`
	command, env := g.wrap([]string{"/bin/sh", "-c", script, l.root}, []string{"PATH=/usr/bin:/bin"})
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = env
	output, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(output))
	if err != nil {
		return fmt.Errorf("systemd-run --user --scope: %w: %s", err, text)
	}
	if text != strconv.FormatInt(int64(probeLimit), 10) {
		return fmt.Errorf("systemd-run --user --scope: the limit inside is %q, want %d", text, probeLimit)
	}
	return nil
}

func (l *scope) name() string { return SystemdScope }
func (l *scope) close() error { return nil }

func (l *scope) newGroup(limit job.Bytes) (group, error) { return l.makeGroup(limit), nil }

func (l *scope) makeGroup(limit job.Bytes) *scopeGroup {
	unit := fmt.Sprintf("%s%s-%d.scope", groupPrefix, ownerText(), l.count.Add(1))
	return &scopeGroup{scope: l, unit: unit, limit: limit}
}

type scopeGroup struct {
	*scope
	unit      string
	limit     job.Bytes
	directory atomic.Pointer[string] // known once systemd has moved the process
	pid       atomic.Int64
}

func (g *scopeGroup) spawn(fork func(*syscall.SysProcAttr) error) error {
	return g.spawner.do(func() error { return fork(&syscall.SysProcAttr{}) })
}

// wrap makes systemd-run execute the command in place of itself, so that the
// child is the worker, with the descriptors that it was given. To find the
// user's systemd it needs two variables, which the worker then inherits; they
// hold addresses only.
func (g *scopeGroup) wrap(command, env []string) ([]string, []string) {
	return append([]string{
		g.run, "--user", "--scope", "--quiet", "--unit=" + g.unit,
		"--property=MemoryMax=" + strconv.FormatInt(int64(g.limit), 10),
		"--property=MemorySwapMax=0", "--",
	}, command...), append(env, g.bus...)
}

// adopt waits until systemd has moved the process: before that it must not be
// given work.
func (g *scopeGroup) adopt(pid int) error {
	g.pid.Store(int64(pid))
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
				return nil
			}
		}
	}
	return fmt.Errorf("systemd made no scope %s within %v", g.unit, scopeTime)
}

func (g *scopeGroup) grow(limit job.Bytes) (job.Bytes, error) {
	if err := g.systemctl("set-property", "--runtime", g.unit, "MemoryMax="+strconv.FormatInt(int64(limit), 10)); err != nil {
		return 0, err
	}
	return limit, nil
}

func (g *scopeGroup) systemctl(arguments ...string) error {
	_, err := g.query(arguments...)
	return err
}

func (g *scopeGroup) query(arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scopeTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.control, append([]string{"--user"}, arguments...)...)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("systemctl --user %s: %w: %s", arguments[0], err, strings.TrimSpace(string(output)))
	}
	return strings.TrimSpace(string(output)), nil
}

func (g *scopeGroup) usage() (kernel, cache job.Bytes) {
	if directory := g.directory.Load(); directory != nil {
		return v2Usage(*directory)
	}
	return 0, 0
}

// verdict asks the group, or systemd where that has removed it already.
func (g *scopeGroup) verdict() (killed, own bool) {
	if directory := g.directory.Load(); directory != nil {
		if killed, own := v2Verdict(*directory); killed {
			return killed, own
		}
	}
	result, err := g.query("show", "--property=Result", "--value", g.unit)
	killed = err == nil && result == "oom-kill"
	return killed, killed
}

func (g *scopeGroup) killAll() {
	if directory := g.directory.Load(); directory != nil {
		killGroup(*directory)
	}
}

// remove lets systemd forget a scope that it keeps because it failed.
func (g *scopeGroup) remove() error {
	_ = g.systemctl("reset-failed", g.unit) // there is none unless it failed
	if directory := g.directory.Load(); directory != nil {
		if _, err := os.Stat(*directory); err == nil {
			return g.systemctl("stop", g.unit)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
