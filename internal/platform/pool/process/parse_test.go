// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process

import (
	"testing"

	"disdel/internal/platform/pool"
)

func TestParseHierarchy(t *testing.T) {
	const mounts = `23 1 8:1 / / rw - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified\040two rw - cgroup2 cgroup2 rw
42 31 0:33 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
`
	const groups = "5:cpu,cpuacct:/docker/abc/x\n4:memory:/user/one\n1:name=systemd:/a:b\n0::/user.slice/session-1.scope\n"
	for _, c := range []struct{ controller, mount, own string }{
		{"memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user/one"},
		{"", "/sys/fs/cgroup/unified two", "/sys/fs/cgroup/unified two/user.slice/session-1.scope"},
		{"cpuacct", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/x"},
	} {
		h, err := parseHierarchy(c.controller, groups, mounts)
		if err != nil || h.mount != c.mount || h.own != c.own {
			t.Errorf("%q: %+v, %v, want %+v", c.controller, h, err, c)
		}
	}
	// A container that sees another part of the hierarchy than it is in.
	h, err := parseHierarchy("cpu", "5:cpu,cpuacct:/docker/abcdef\n", mounts)
	if err != nil || h.own != h.mount {
		t.Errorf("%+v, %v", h, err)
	}
	for _, c := range [][3]string{{"pids", groups, mounts}, {"", "", mounts}, {"", groups, "nonsense\n\n - \n"}} {
		if h, err := parseHierarchy(c[0], c[1], c[2]); err == nil {
			t.Errorf("%q: %+v", c[0], h)
		}
	}
}

func TestOwner(t *testing.T) {
	me := self()
	if me.dead() {
		t.Error("this process takes itself for dead")
	}
	o, rest, ok := parseOwner(me.String() + "-7")
	if !ok || o != me || rest != "7" {
		t.Errorf("%+v, %q, %v", o, rest, ok)
	}
	for _, text := range []string{"", "1", "1-2", "a-1-1-1", "-1-1-1-1", "0-1-1-1"} {
		if o, _, ok := parseOwner(text); ok {
			t.Errorf("%q: %+v", text, o)
		}
	}
	earlier := me
	earlier.start--
	if !earlier.dead() {
		t.Error("an earlier process with this number is not dead")
	}
	elsewhere := earlier
	elsewhere.namespace++
	if elsewhere.dead() {
		t.Error("a process of another namespace is taken for dead")
	}
}

func TestTail(t *testing.T) {
	tail, writers, err := newTail(3)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if _, err := writers[0].WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	want := func(lines ...string) {
		t.Helper()
		lineup, _ := tail.take()
		got := pool.Texts(lineup)
		if len(got) != len(lines) {
			t.Fatalf("lines %q, want %q", got, lines)
		}
		for i := range lines {
			if got[i] != lines[i] {
				t.Errorf("line %d is %.50q, want %.50q", i, got[i], lines[i])
			}
		}
	}
	want()
	write("one\ntwo")
	want("one", "two")
	write(" more\n" + pool.Sentinel + "\nthree\nfour\n")
	want("two more", "three", "four")
	if _, err := writers[1].WriteString("problem\n" + pool.Sentinel + "\n"); err != nil {
		t.Fatal(err)
	}
	if lines, sentinels := tail.take(); sentinels != 2 || !lines[len(lines)-1].Stderr || lines[0].Stderr || lines[0].Time.IsZero() {
		t.Errorf("%d sentinels after %+v, want 2, and the last line from standard error", sentinels, lines)
	}
	tail.mark()
	want()
	const lineMax = 1 << 10
	long := make([]byte, 3*lineMax)
	for i := range long {
		long[i] = 'x'
	}
	write(string(long) + "\nbad \xff\n")
	want(string(long[:lineMax])+"...", "bad ?")
	for _, writer := range writers {
		if err := writer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want(string(long[:lineMax])+"...", "bad ?")
	if err := tail.close(); err != nil {
		t.Fatal(err)
	}
	tail.mark()
	want()
}
