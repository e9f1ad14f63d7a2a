// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"disdel/internal/job"
)

const (
	// groupPrefix begins the names of groups: disdel-<owner>-<number>.
	groupPrefix = "disdel-"
	// homePrefix begins the names of groups that owners made for themselves.
	homePrefix = groupPrefix + "home-"
)

// hierarchy is a mounted cgroup file system and where this process is in it.
type hierarchy struct {
	mount string // the directory that is its root, as seen here
	own   string // the directory of this process's group
}

// findHierarchy looks for cgroup v2 (controller "") or a controller of v1.
func findHierarchy(controller string) (hierarchy, error) {
	groups, err := os.ReadFile("/proc/thread-self/cgroup")
	if err != nil {
		return hierarchy{}, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return hierarchy{}, err
	}
	return parseHierarchy(controller, string(groups), string(mounts))
}

// parseHierarchy reads /proc/PID/cgroup and /proc/PID/mountinfo.
func parseHierarchy(controller, groups, mounts string) (hierarchy, error) {
	path := ""
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && (controller == "" && parts[0] == "0" || controller != "" && slices.Contains(strings.Split(parts[1], ","), controller)) {
			path = parts[2]
		}
	}
	if path == "" {
		return hierarchy{}, errors.New("this process is in no such group")
	}
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		root, mount := unescape(left[3]), unescape(left[4])
		if controller == "" && right[0] != "cgroup2" ||
			controller != "" && (right[0] != "cgroup" || !slices.Contains(strings.Split(right[2], ","), controller)) {
			continue
		}
		// A container may see only a part of the hierarchy, as if it were all.
		inside, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
		if !ok || inside != "" && inside[0] != '/' {
			inside = ""
		}
		return hierarchy{mount: mount, own: filepath.Join(mount, inside)}, nil
	}
	return hierarchy{}, errors.New("not mounted")
}

// unescape decodes the octal escapes of mountinfo.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}

// makeGroup creates a group below parent with a name of this process's own.
func makeGroup(parent, prefix string) (string, error) {
	for number := 0; ; number++ {
		directory := filepath.Join(parent, prefix+ownerText()+"-"+strconv.Itoa(number))
		err := os.Mkdir(directory, 0o755)
		if !errors.Is(err, fs.ErrExist) {
			return directory, err
		}
	}
}

// removeGroup removes a group. The kernel lets go of what ran in it a little
// after that has been reaped.
func removeGroup(directory string) error {
	pause := 100 * time.Microsecond
	for deadline := time.Now().Add(removeTime); ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.Rmdir(directory)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY && err != unix.EINTR || time.Now().After(deadline) {
			return fmt.Errorf("remove group %s: %w", directory, err)
		}
		time.Sleep(pause)
	}
}

const removeTime = 2 * time.Second

// sweepGroups removes groups below parent whose owner is certainly dead, and
// what still runs in them. What runs in an owner's own group is not ours to end.
// What cannot be removed now is left for the next time.
func sweepGroups(parent string) {
	directories, err := filepath.Glob(filepath.Join(parent, groupPrefix+"*"))
	if err != nil {
		return
	}
	for _, directory := range directories {
		name, home := strings.CutPrefix(filepath.Base(directory), homePrefix)
		o, _, ok := parseOwner(strings.TrimPrefix(name, groupPrefix))
		switch {
		case !ok || !o.dead():
		case home:
			_ = unix.Rmdir(directory)
		default:
			killGroup(directory)
			_ = removeGroup(directory)
		}
	}
}

// killGroup kills what runs in a group.
func killGroup(directory string) {
	if writeFile(filepath.Join(directory, "cgroup.kill"), "1") == nil {
		return
	}
	// Before Linux 5.14, and in v1, one by one; what is started meanwhile is
	// found by the next round.
	for range 10 {
		pids := groupProcesses(directory)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			killIf(pid, func() bool { return slices.Contains(groupProcesses(directory), pid) })
		}
	}
}

// groupProcesses lists the processes of a group that can be seen from here.
func groupProcesses(directory string) []int {
	text, err := os.ReadFile(filepath.Join(directory, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, field := range bytes.Fields(text) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 0 && !isZombie(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isZombie(pid int) bool {
	state, _, err := processState(pid)
	return err != nil || state == 'Z' || state == 'X'
}

// writeFile writes a control file, which exists.
func writeFile(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// readNumber reads a control file that holds one number.
func readNumber(path string) (job.Bytes, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return job.Bytes(n), nil
}

// readTable reads a control file of lines "name number".
func readTable(path string) map[string]job.Bytes {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	table := map[string]job.Bytes{}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte{' '})
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			table[string(name)] = job.Bytes(n)
		}
	}
	return table
}

// setLimit writes a limit and reads it back.
func setLimit(path string, limit job.Bytes) error {
	if err := writeFile(path, strconv.FormatInt(int64(limit), 10)); err != nil {
		return err
	}
	got, err := readNumber(path)
	if err != nil {
		return err
	}
	if got > limit {
		return fmt.Errorf("%s: wrote %d and read %d", path, limit, got)
	}
	return nil
}
