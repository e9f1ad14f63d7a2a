// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/strslice"
	"github.com/docker/docker/client"
	"github.com/docker/go-units"

	"disdel/internal/job"
	"disdel/internal/owner"
	"disdel/internal/platform/pool"
)

// Driver starts containers with the Docker Engine. All methods may be called
// from any goroutine.
type Driver struct {
	cfg        Config
	api        *client.Client
	owner      owner.Process
	processors int
	reaper     *reaper // nil where there is none

	mu      sync.Mutex
	pulling map[string]*pull
}

var _ pool.Driver = (*Driver)(nil)

// Labels of what the driver makes.
const (
	ownerLabel = "disdel.owner"
	idLabel    = "disdel.container"
)

// ErrEngine is wrapped by errors of Open about an engine that cannot be used.
var ErrEngine = errors.New("the Docker engine cannot be used")

// Open connects to the engine, checks that it can limit memory and has the
// worker's image, and removes leftovers. The caller, or the pool that takes the
// driver over, must Close it.
func Open(ctx context.Context, cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open docker driver: %w", err)
	}
	api, err := connect(cfg.Host)
	if err != nil {
		return nil, fmt.Errorf("open docker driver: %w", err)
	}
	d := &Driver{cfg: cfg, api: api, pulling: map[string]*pull{}}
	if err := d.prepare(ctx); err != nil {
		return nil, fmt.Errorf("open docker driver: %w", errors.Join(err, d.Close()))
	}
	return d, nil
}

func connect(host string) (*client.Client, error) {
	api, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEngine, err)
	}
	return api, nil
}

func (d *Driver) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := d.api.Info(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w; is it running, and may this user speak to %s?", ErrEngine, err, d.cfg.Host)
	case info.OSType != "linux":
		return fmt.Errorf("%w: it runs containers of %s, not of linux", ErrEngine, info.OSType)
	case !info.MemoryLimit:
		return fmt.Errorf("%w: it cannot limit memory here", ErrEngine)
	}
	d.processors = max(1, info.NCPU)
	if d.owner, err = owner.Self(); err != nil {
		return err
	}
	if _, err := d.api.ImageInspect(ctx, d.cfg.Image); err != nil {
		return fmt.Errorf("worker image %s: %w", d.cfg.Image, err)
	}
	if err := d.sweep(ctx); err != nil {
		return err
	}
	if len(d.cfg.Reaper) > 0 {
		d.reaper, err = startReaper(d.cfg.Reaper, d.cfg.Host, d.owner.String())
	}
	return err
}

// sweep removes leftovers.
func (d *Driver) sweep(ctx context.Context) error {
	list, err := d.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", ownerLabel))})
	if err != nil {
		return fmt.Errorf("list leftovers: %w", err)
	}
	for _, c := range list {
		if !owner.Parse(c.Labels[ownerLabel]).Dead() {
			continue
		}
		if err := d.removeContainer(ctx, c.ID); err != nil {
			return fmt.Errorf("remove leftover %.12s: %w", c.ID, err)
		}
	}
	return nil
}

// removeContainer removes a container, and is content when it is gone.
func (d *Driver) removeContainer(ctx context.Context, id string) error {
	err := d.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) { // gone, or being removed
		return nil
	}
	return err
}

// Facts implements pool.Driver.
func (d *Driver) Facts() pool.Facts {
	return pool.Facts{Name: "docker", Enforcement: "docker", LocalFiles: len(d.cfg.Binds) > 0, Processors: d.processors}
}

// Close implements pool.Driver.
func (d *Driver) Close() error {
	if d.reaper != nil {
		d.reaper.end()
		d.reaper = nil
	}
	if err := d.api.Close(); err != nil {
		return fmt.Errorf("close docker driver: %w", err)
	}
	return nil
}

// Start implements pool.Driver.
func (d *Driver) Start(ctx context.Context, spec pool.Spec) (pool.Container, error) {
	c, err := d.start(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", spec.ID, err)
	}
	return c, nil
}

func (d *Driver) start(ctx context.Context, spec pool.Spec) (*box, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	reference := d.cfg.Image
	if spec.Image != "" && spec.Image != reference {
		reference = spec.Image
		if err := d.haveImage(ctx, reference); err != nil {
			return nil, err
		}
	}
	config, host := d.describe(spec, reference)
	// Not cut short by ctx: else it would not be known whether there is one.
	brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	created, err := d.api.ContainerCreate(brief, config, host, nil, nil, "")
	switch {
	case errdefs.IsNotFound(err):
		return nil, fmt.Errorf("%w: %w", pool.ErrImage, err)
	case err != nil:
		if brief.Err() != nil {
			d.sweepOne(spec.ID)
		}
		return nil, classify(err)
	}
	c := newBox(d, created.ID, spec)
	if err := c.run(ctx); err != nil {
		c.Kill()
		return nil, classify(err)
	}
	return c, nil
}

// sweepOne removes the container of an id of this driver, if there is one.
func (d *Driver) sweepOne(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	list, err := d.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", ownerLabel+"="+d.owner.String()), filters.Arg("label", idLabel+"="+id),
	)})
	if err != nil {
		return // it is swept by the next Open
	}
	for _, c := range list {
		_ = d.removeContainer(ctx, c.ID) // as above
	}
}

// classify finds out whether an image lacks its program.
func classify(err error) error {
	text := err.Error()
	if strings.Contains(text, "executable file not found") || strings.Contains(text, "No command specified") ||
		strings.Contains(text, "exec:") && strings.Contains(text, "no such file or directory") {
		return fmt.Errorf("%w: %w", pool.ErrProgram, err)
	}
	return err
}

// describe says what container to create.
func (d *Driver) describe(spec pool.Spec, reference string) (*container.Config, *container.HostConfig) {
	config := &container.Config{
		Image: reference, AttachStdout: true, AttachStderr: true,
		Labels: map[string]string{ownerLabel: d.owner.String(), idLabel: spec.ID},
	}
	processes := int64(countMax)
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode(d.cfg.Network), CapDrop: strslice.StrSlice{"ALL"}, ReadonlyRootfs: true,
		SecurityOpt: []string{"no-new-privileges"}, LogConfig: container.LogConfig{Type: "none"}, OomScoreAdj: 500,
		Tmpfs: map[string]string{"/tmp": fmt.Sprintf("rw,nosuid,nodev,noexec,size=%d,mode=1777", temporaryBytes)},
		Resources: container.Resources{
			Memory: int64(spec.Memory), MemorySwap: int64(spec.Memory), CPUShares: max(2, int64(spec.Memory/job.MB)),
			PidsLimit: &processes, Ulimits: []*units.Ulimit{{Name: "nofile", Soft: countMax, Hard: countMax}},
		},
	}
	for _, path := range d.cfg.Binds {
		host.Binds = append(host.Binds, path+":"+path+":rw")
	}
	if len(d.cfg.Binds) > 0 {
		config.User = fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	}
	return config, host
}

// pull is one under way.
type pull struct {
	done chan struct{}
	err  error
	// abandoned says that it failed because its caller gave up.
	abandoned bool
}

// haveImage makes the engine have an image. One with a tag of its own is pulled
// only when it is missing; "latest" can mean something else every time.
func (d *Driver) haveImage(ctx context.Context, reference string) error {
	name := reference[strings.LastIndexByte(reference, '/')+1:]
	_, tag, tagged := strings.Cut(name, ":")
	if tagged && tag != "latest" {
		_, err := d.api.ImageInspect(ctx, reference)
		if err == nil {
			return nil
		}
		if !errdefs.IsNotFound(err) {
			return fmt.Errorf("%w: %s: %w", pool.ErrImage, reference, err)
		}
	}
	return d.pullOnce(ctx, reference, d.pull)
}

// pullOnce pulls an image, or waits for the pull of another caller. When that one
// gives up, the next takes over.
func (d *Driver) pullOnce(ctx context.Context, reference string, do func(ctx context.Context, reference string) error) error {
	for {
		d.mu.Lock()
		p := d.pulling[reference]
		own := p == nil
		if own {
			p = &pull{done: make(chan struct{})}
			d.pulling[reference] = p
		}
		d.mu.Unlock()
		if own {
			p.err = do(ctx, reference)
			p.abandoned = p.err != nil && ctx.Err() != nil
			d.mu.Lock()
			delete(d.pulling, reference)
			d.mu.Unlock()
			close(p.done)
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case p.err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !p.abandoned || own:
			return fmt.Errorf("%w: pull %s: %w", pool.ErrImage, reference, p.err)
		}
	}
}

func (d *Driver) pull(ctx context.Context, reference string) error {
	stream, err := d.api.ImagePull(ctx, reference, image.PullOptions{})
	if err != nil {
		return err
	}
	defer stream.Close()
	return readProgress(stream)
}

// progressMax bounds what an engine tells about one pull or load.
const progressMax = 64 << 20

// readProgress reads what an engine tells, to the end: that is when it is done.
func readProgress(stream io.Reader) error {
	decoder := json.NewDecoder(io.LimitReader(stream, progressMax))
	for {
		var line struct {
			Error string `json:"error"`
		}
		if err := decoder.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the engine's progress: %w", err)
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
}

// Load gives the engine at host ("" is the default one) an image, in the form of
// docker save.
func Load(ctx context.Context, host string, archive io.Reader) error {
	if host == "" {
		host = defaultHost
	}
	api, err := connect(host)
	if err != nil {
		return err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, 4*requestTimeout)
	defer cancel()
	resp, err := api.ImageLoad(ctx, archive)
	if err != nil {
		return fmt.Errorf("load image: %w: %w", ErrEngine, err)
	}
	defer resp.Body.Close()
	if err := readProgress(resp.Body); err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	return nil
}

// Has reports whether the engine has an image of this name and content id.
func Has(ctx context.Context, host, reference, id string) (bool, error) {
	if host == "" {
		host = defaultHost
	}
	api, err := connect(host)
	if err != nil {
		return false, err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := api.ImageInspect(ctx, reference)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrEngine, err)
	}
	return info.ID == id, nil
}
