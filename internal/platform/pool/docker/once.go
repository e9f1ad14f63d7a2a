// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"disdel/internal/owner"
)

// RunOnce runs an image's program in a container with nothing set but its owner,
// and says how long it took from the request to its end. The container is
// removed.
func RunOnce(ctx context.Context, host, reference string) (took time.Duration, err error) {
	if host == "" {
		host = defaultHost
	}
	api, err := connect(host)
	if err != nil {
		return 0, err
	}
	defer api.Close()
	self, err := owner.Self()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	began := time.Now()
	created, err := api.ContainerCreate(ctx, &container.Config{Image: reference, Labels: map[string]string{ownerLabel: self.String()}}, nil, nil, nil, "")
	if err != nil {
		return 0, fmt.Errorf("run %s once: %w", reference, err)
	}
	d := &Driver{api: api}
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
		defer cancel()
		if removed := d.removeContainer(cleanup, created.ID); err == nil && removed != nil {
			err = fmt.Errorf("run %s once: remove: %w", reference, removed)
		}
	}()
	ended, errs := api.ContainerWait(ctx, created.ID, container.WaitConditionNextExit)
	if err := api.ContainerStart(ctx, created.ID, container.StartOptions{}); err != nil {
		return 0, fmt.Errorf("run %s once: %w", reference, err)
	}
	select {
	case <-ended:
		return time.Since(began), nil
	case err := <-errs:
		return 0, fmt.Errorf("run %s once: %w", reference, err)
	}
}

// Forget removes an image from the engine.
func Forget(ctx context.Context, host, reference string) error {
	if host == "" {
		host = defaultHost
	}
	api, err := connect(host)
	if err != nil {
		return err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := api.ImageRemove(ctx, reference, image.RemoveOptions{}); err != nil {
		return fmt.Errorf("remove image %s: %w", reference, err)
	}
	return nil
}
