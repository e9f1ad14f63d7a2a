// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"go.uber.org/goleak"

	"disdel/internal/image"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/platformtest"
	"disdel/internal/platform/pool"
)

// reference is the image of the test worker.
const reference = "disdel-test/worker:1"

// ownerRole makes this program start a container and wait to be killed.
const ownerRole = "DISDEL_TEST_OWNER"

// reaperRole, as its argument, makes this program a reaper. An owner with that role
// has one.
const reaperRole = "reap"

func named() bool { return slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), "docker") }

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == reaperRole {
		if err := Reap(context.Background(), os.Args[2], os.Args[3], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(ownerRole) != "" {
		if err := actAsOwner(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if named() {
		if err := load(); err != nil {
			fmt.Fprintln(os.Stderr, "DISDEL_E2E names docker, so there must be an engine:", err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

// load gives the engine an image of the test worker.
func load() (err error) {
	folder, err := os.MkdirTemp("", "docker-test-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	worker, err := platformtest.BuildWorker(folder)
	if err != nil {
		return err
	}
	img, err := image.Build(worker)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := img.WriteDocker(&archive, reference); err != nil {
		return err
	}
	return Load(context.Background(), "", &archive)
}

func actAsOwner() error {
	cfg := Config{Image: reference}
	if os.Getenv(ownerRole) == reaperRole {
		cfg.Reaper = []string{os.Args[0], reaperRole}
	}
	d, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	c, err := d.Start(context.Background(), pool.Spec{ID: "orphan", Memory: 64 * job.MB})
	if err != nil {
		return err
	}
	fmt.Println(c.(*box).id)
	select {}
}

// openDriver opens a driver and has the test check that nothing stays behind.
func openDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	cfg.Image = reference
	d, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *Driver) leftovers(t *testing.T) []string {
	t.Helper()
	api, err := connect(defaultHost)
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	list, err := api.ContainerList(context.Background(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", ownerLabel+"="+d.owner.String()))})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

func openPool(t *testing.T, slots int) *pool.Pool {
	t.Helper()
	const least = 64 * job.MB
	d := openDriver(t, Config{})
	p, err := pool.Open(t.Context(), pool.Config{
		PayloadMax: 2 * job.MB, // not the default, which would pass unheeded
		MemoryMin:  least, MemoryDefault: least, MemoryMax: job.Bytes(slots) * least, PoolMemory: job.Bytes(slots) * least,
	}, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if left := d.leftovers(t); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return p
}

// TestEngine is what only a real engine shows.
func TestEngine(t *testing.T) {
	if !named() {
		return
	}
	t.Run("Suite", func(t *testing.T) {
		platformtest.Run(t, platformtest.Harness{
			Open: func(t *testing.T, slots int) platform.Platform { return openPool(t, slots) },
			// Of a container that is made and removed within the time that is measured.
			Traits: platformtest.Traits{Late: 10 * time.Second},
		})
	})
	t.Run("Describe", testDescribe)
	t.Run("PauseAndKill", testPauseAndKill)
	t.Run("Images", testImages)
	t.Run("Leftovers", testLeftovers)
	t.Run("Reaper", testReaper)
	t.Run("Folder", testFolder)
}

// What the engine was told is what the package promises.
func testDescribe(t *testing.T) {
	d := openDriver(t, Config{})
	defer d.Close()
	started, err := d.Start(t.Context(), pool.Spec{ID: "c1", Memory: 64 * job.MB})
	if err != nil {
		t.Fatal(err)
	}
	c := started.(*box)
	defer c.Kill()
	info, err := d.api.ContainerInspect(t.Context(), c.id)
	if err != nil {
		t.Fatal(err)
	}
	h := info.HostConfig
	if h.Memory != 64<<20 || h.MemorySwap != 64<<20 || h.CPUShares != 64 || !slices.Equal(h.CapDrop, []string{"ALL"}) || !h.ReadonlyRootfs ||
		h.PidsLimit == nil || *h.PidsLimit != 1024 || !slices.Contains(h.SecurityOpt, "no-new-privileges") || h.Privileged || len(h.Binds) > 0 {
		t.Errorf("host configuration: %+v", h)
	}
	if info.Config.User != "65532:65532" || info.Config.Labels[idLabel] != "c1" || info.Config.Labels[ownerLabel] != d.owner.String() {
		t.Errorf("configuration: %+v", info.Config)
	}
}

func testPauseAndKill(t *testing.T) {
	d := openDriver(t, Config{})
	defer d.Close()
	c, err := d.Start(t.Context(), pool.Spec{ID: "c1", Memory: 64 * job.MB})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	if err := c.Init(t.Context(), pool.InitRequest{Action: "a", Deadline: deadline}); err != nil {
		t.Fatal(err)
	}
	run := pool.RunRequest{Action: "a", Deadline: deadline, Params: json.RawMessage("{}")}
	for range 2 {
		if err := c.(pool.Pauser).Pause(); err != nil {
			t.Fatal(err)
		}
		if err := c.(pool.Pauser).Resume(); err != nil {
			t.Fatal(err)
		}
		if answer, err := c.Run(t.Context(), run); err != nil || answer.Kind != platform.Success {
			t.Fatalf("after a pause: %+v, %v", answer, err)
		}
	}
	if err := c.(pool.Pauser).Pause(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if exit := c.Kill(); exit.Status != "" || exit.OutOfMemory {
		t.Errorf("killed while it was paused: %+v", exit)
	}
	if took := time.Since(began); took > requestTimeout/2 {
		t.Errorf("killing a paused container took %v", took)
	}
	c.Kill()
	if left := d.leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func testImages(t *testing.T) {
	d := openDriver(t, Config{})
	defer d.Close()
	for _, name := range []string{"disdel-test/not-here:1", "disdel-test/not-here", "disdel-test/not-here:latest", "127.0.0.1:9/x:1"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err := d.Start(ctx, pool.Spec{ID: "c1", Memory: 64 * job.MB, Image: name})
		cancel()
		if !errors.Is(err, pool.ErrImage) {
			t.Errorf("%s: %v, want ErrImage", name, err)
		}
	}
	if c, err := d.Start(t.Context(), pool.Spec{ID: "c2", Memory: 64 * job.MB, Image: reference}); err != nil {
		t.Error(err)
	} else {
		c.Kill()
	}
	if _, err := Open(t.Context(), Config{Image: "disdel-test/not-here:1"}); err == nil || !strings.Contains(err.Error(), "disdel-test/not-here:1") {
		t.Errorf("a driver without its image: %v", err)
	}
	if left := d.leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A killed owner's container is removed by the next driver, others are not.
func testLeftovers(t *testing.T) {
	first := openDriver(t, Config{})
	defer first.Close()
	mine, err := first.Start(t.Context(), pool.Spec{ID: "mine", Memory: 64 * job.MB})
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Kill()
	id := killOwner(t, "alone")
	if _, err := first.api.ContainerInspect(t.Context(), id); err != nil {
		t.Fatalf("the orphan: %v", err)
	}
	second := openDriver(t, Config{})
	defer second.Close()
	if _, err := first.api.ContainerInspect(t.Context(), id); err == nil {
		t.Error("the orphan is still there")
	}
	if _, err := first.api.ContainerInspect(t.Context(), mine.(*box).id); err != nil {
		t.Errorf("a living owner's container: %v", err)
	}
}

// A worker that is not up yet is connected to once it is; one that has ended, or a
// caller that gives up, ends the trying.
func TestDial_WaitsForTheWorker(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	c := &box{address: address, done: make(chan struct{})}
	dialled := make(chan error, 1)
	go func() {
		conn, err := c.dial(t.Context())
		if err == nil {
			err = conn.Close()
		}
		dialled <- err
	}()
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	if err := <-dialled; err != nil {
		t.Errorf("a worker that came late: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.dial(ctx); err == nil {
		t.Error("a caller that gave up was connected")
	}
	close(c.done)
	if _, err := c.dial(t.Context()); err == nil {
		t.Error("a worker that has ended was connected to")
	}
}

// killOwner kills a process that has started a container, and returns that
// container's id.
func killOwner(t *testing.T, role string) (id string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), ownerRole+"="+role)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscan(pipe, &id); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	return id
}

// The reaper of a killed owner removes its container, and nobody else's; that of
// one that closes its driver ends with it.
func testReaper(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := openDriver(t, Config{Reaper: []string{self, reaperRole}})
	mine, err := d.Start(t.Context(), pool.Spec{ID: "mine", Memory: 64 * job.MB})
	if err != nil {
		t.Fatal(err)
	}
	id := killOwner(t, reaperRole)
	// It ends at once, or the reaper was the quicker.
	ended, errs := d.api.ContainerWait(t.Context(), id, container.WaitConditionRemoved)
	select {
	case <-ended:
	case err := <-errs:
		if !strings.Contains(err.Error(), "No such container") {
			t.Error(err)
		}
	}
	if _, err := d.api.ContainerInspect(t.Context(), id); err == nil {
		t.Error("the orphan is still there")
	}
	if _, err := d.api.ContainerInspect(t.Context(), mine.(*box).id); err != nil {
		t.Errorf("a living owner's container: %v", err)
	}
	mine.Kill()
	process := d.reaper.cmd
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if process.ProcessState == nil || process.ProcessState.ExitCode() != 0 {
		t.Errorf("the reaper ended with %v", process.ProcessState)
	}
}

// A folder that is bound is seen under its own path.
func testFolder(t *testing.T) {
	folder := t.TempDir()
	d := openDriver(t, Config{Binds: []string{folder}})
	defer d.Close()
	if !d.Facts().LocalFiles {
		t.Error("containers with a folder see files")
	}
	fifo := filepath.Join(folder, "told")
	if err := os.WriteFile(fifo, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := d.Start(t.Context(), pool.Spec{ID: "c1", Memory: 64 * job.MB})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	deadline := time.Now().Add(time.Minute)
	if err := c.Init(t.Context(), pool.InitRequest{Action: "a", Deadline: deadline}); err != nil {
		t.Fatal(err)
	}
	params, _ := json.Marshal(map[string]any{"role": "allocate when told", "text": fifo})
	answer, err := c.Run(t.Context(), pool.RunRequest{Action: "a", Deadline: deadline, Params: params})
	if err != nil || answer.Kind != platform.Success {
		t.Errorf("a worker that reads a file of the folder: %+v, %v", answer, err)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Image: "x", Host: "tcp://example:2375"},
		{Image: "x", Binds: []string{"relative"}},
		{Image: "x", Binds: []string{"/a:b"}},
		{Image: "x", LogLines: -1},
	} {
		if _, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := Open(t.Context(), Config{Image: "x", Host: "unix://" + filepath.Join(t.TempDir(), "none.sock")}); !errors.Is(err, ErrEngine) {
		t.Errorf("without an engine: %v", err)
	}
}

// frames are output as the engine sends it.
func TestOutput(t *testing.T) {
	frame := func(stream byte, text string) string {
		return string([]byte{stream, 0, 0, 0, 0, 0, byte(len(text) >> 8), byte(len(text))}) + text
	}
	o := output{tail: pool.NewTail(10), changed: make(chan struct{})}
	o.read(strings.NewReader(frame(1, "one\ntw") + frame(2, "problem\n") + frame(1, "o\n"+pool.Sentinel+"\n") + frame(2, pool.Sentinel+"\n") + "\x01\x00"))
	lines, sentinels := o.take(t.Context(), true)
	if texts := pool.Texts(lines); !slices.Equal(texts, []string{"one", "problem", "two"}) || sentinels != 2 || !lines[1].Stderr || lines[2].Stderr {
		t.Errorf("lines %+v, %d sentinels", lines, sentinels)
	}
	if text := statusText(137) + ", " + statusText(3); text != "signal: killed, exit status 3" {
		t.Error(text)
	}
}
