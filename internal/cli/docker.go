// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/image"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/docker"
	"disdel/internal/store"
)

// dockerHostEnv is Docker's own variable for the engine's address.
const dockerHostEnv = "DOCKER_HOST"

// dockerStartTimeout bounds the start of a container where its image may have to
// be pulled.
const dockerStartTimeout = 10 * time.Minute

// openDocker opens the driver of Docker containers. Without an image from the
// user one is made of the worker and given to the engine, unless that has it.
func (a *app) openDocker(ctx context.Context, o *options) (_ pool.Driver, workerPath string, err error) {
	host := a.getenv(dockerHostEnv)
	if o.image == "" {
		img, path, err := a.buildImage("")
		if err != nil {
			return nil, "", fmt.Errorf("%w; or name an image that the engine has with --image", err)
		}
		workerPath, o.image = path, contentReference(img)
		if err := loadImage(ctx, host, img, o.image); err != nil {
			return nil, "", err
		}
	}
	if o.pool.StartTimeout == 0 {
		o.pool.StartTimeout = dockerStartTimeout
	}
	self, err := a.program()
	if err != nil {
		return nil, "", fmt.Errorf("find own program: %w", err)
	}
	driver, err := docker.Open(ctx, docker.Config{Host: host, Image: o.image, Binds: o.folders, Reaper: []string{self, reapCommand}})
	return driver, workerPath, err
}

// reapCommand is the command of the process that removes the containers of one
// that was killed.
const reapCommand = "reap-containers"

func (*app) reapCommand() *cobra.Command {
	return &cobra.Command{
		Use:    reapCommand + " ENGINE OWNER",
		Short:  "Wait until standard input ends, then remove the owner's containers",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return docker.Reap(cmd.Context(), args[0], args[1], cmd.InOrStdin())
		},
	}
}

// contentReference is the worker image's name with what it contains as its tag.
func contentReference(img *image.Image) string {
	const prefix, digits = len("sha256:"), 16
	return workerImage + ":" + img.ID[prefix:prefix+digits]
}

// loadImage gives the engine the image, unless it has it under this name.
func loadImage(ctx context.Context, host string, img *image.Image, reference string) error {
	has, err := docker.Has(ctx, host, reference, img.ID)
	if err != nil || has {
		return err
	}
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := img.WriteDocker(writer, reference)
		writer.CloseWithError(err)
		written <- err
	}()
	err = docker.Load(ctx, host, reader)
	reader.CloseWithError(errors.New("the engine stopped reading"))
	if werr := <-written; err == nil {
		err = werr
	}
	return err
}

// buildImage makes the image of a worker: the one at path, or that beside this
// program.
func (a *app) buildImage(path string) (_ *image.Image, workerPath string, err error) {
	if path == "" {
		own := false
		if path, own, err = a.workerCommand(); err != nil {
			return nil, "", err
		}
		if own {
			return nil, "", errors.New("there is no disdel-worker beside this program to make an image of; build both with: make, or go build -o FOLDER ./cmd/... with CGO_ENABLED=0")
		}
	}
	img, err := image.Build(path)
	return img, path, err
}

// storeFolders are the folders that containers must see to reach a store.
func storeFolders(url string) []string {
	scheme, location, err := store.ParseURL(url)
	if err != nil || scheme != store.SchemeDir {
		return nil
	}
	return []string{location}
}
