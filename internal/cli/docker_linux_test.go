// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// partNamed says that a part must be there and its tests must run.
func partNamed(part string) bool {
	return slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), part)
}

// bridge is the address at which containers reach this machine.
func bridge(t *testing.T) string {
	t.Helper()
	nic, err := net.InterfaceByName("docker0")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := nic.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Fatal("docker0 has no address")
	return ""
}

// startRedis starts a server that containers reach too, with a password, and
// returns its address as seen from here and from there.
func startRedis(t *testing.T) (here, there string) {
	t.Helper()
	outside := bridge(t)
	probe, err := net.Listen("tcp", outside+":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(probe.Addr().String())
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "redis-server", "--port", port, "--bind", "127.0.0.1 "+outside, "--requirepass", "sesame",
		"--save", "", "--dir", t.TempDir())
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a server (DISDEL_E2E names redis, so there must be one): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	ready := bufio.NewScanner(output)
	for ready.Scan() && !strings.Contains(ready.Text(), "Ready to accept connections") {
	}
	if err := ready.Err(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for ready.Scan() {
		}
	}()
	return "redis://:sesame@127.0.0.1:" + port, "redis://:sesame@" + net.JoinHostPort(outside, port)
}

// The same job gives the same model whether its containers are processes or
// Docker's, called directly or through OpenWhisk's API; a model can be used
// through any, and nothing stays behind.
func TestDocker_SameModel(t *testing.T) {
	if !partNamed("docker") {
		return
	}
	d := newDesk(t)
	job := []string{"--workers", "2", "--epochs", "1", "--json", "--quiet"}
	digest := func(o outcome) string {
		t.Helper()
		record := o.want(t, ExitOK).object(t)
		if failed := field[float64](t, record, "metrics", "failed_containers"); failed != 0 {
			t.Errorf("%v containers failed", failed)
		}
		return field[string](t, record, "model", "digest")
	}
	want := digest(d.run(append([]string{"train", "digits"}, job...)...))
	folder := newDesk(t) // a store of its own, in a folder
	if got := digest(folder.run(append([]string{"train", "digits", "--platform", "docker"}, job...)...)); got != want {
		t.Errorf("model %s in Docker with a folder, want %s", got, want)
	}
	folder.run("platform", "check", "--platform", "docker").want(t, ExitOK)

	if !partNamed("redis") {
		t.Fatal("DISDEL_E2E names docker without redis: containers behind OpenWhisk's API need a store that they reach")
	}
	here, there := startRedis(t)
	served := newDesk(t)
	served.env["DISDEL_STORE"] = here
	keys := filepath.Join(served.folder, "keys")
	_, end := served.serveAt("--platform", "docker", "--key-file", keys)
	served.env["WSK_CONFIG_FILE"] = keys
	whisk := []string{"--platform", "openwhisk", "--worker-store", there, "--memory", "256", "--timeout", "60"}
	if got := digest(served.run(slices.Concat([]string{"train", "digits"}, job, whisk)...)); got != want {
		t.Errorf("model %s through OpenWhisk's API, want %s", got, want)
	}
	served.run(slices.Concat([]string{"infer", "digits", "--quiet"}, whisk)...).want(t, ExitOK)
	said := end().want(t, ExitOK)
	if text := said.stdout + said.stderr; strings.Contains(text, "sesame") {
		t.Errorf("a credential was printed: %s", text)
	}
}
