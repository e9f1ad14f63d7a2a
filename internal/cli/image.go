// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"disdel/internal/image"
	"disdel/internal/job"
	"disdel/internal/report"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Make the container image of the worker",
		Long: `Image makes and hands on the container image of the worker: FROM scratch, with the
worker alone, as a user that is not root. No container engine is needed to make it, and
the same worker always gives the same image.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imageBuildCommand(), a.imagePushCommand(), a.imageLoadCommand(), a.imageManifestCommand())
	return cmd
}

// imageOptions are the flags of the image commands.
type imageOptions struct {
	worker string
	output string
	tag    string
	json   bool
}

func (o *imageOptions) workerFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.worker, "worker", "", "the worker program (default: disdel-worker beside this program)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
}

// printImage tells what was made, and where it went.
func (a *app) printImage(o *imageOptions, img *image.Image, key, place string) error {
	if o.json {
		return report.JSON(a.stdout, map[string]any{
			key: place, "digest": img.Digest, "id": img.ID, "architecture": img.Architecture,
			"packed_bytes": img.Packed, "unpacked_bytes": img.Unpacked,
		})
	}
	_, err := fmt.Fprintf(a.stdout, "%s\n%s  linux/%s, %v packed, %v unpacked\n", place, img.Digest, img.Architecture, img.Packed, img.Unpacked)
	return err
}

func (a *app) imageBuildCommand() *cobra.Command {
	o := &imageOptions{}
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Write the image as an OCI archive",
		Long: `Build writes the image as a tar archive in OCI's layout, which podman, skopeo, crane
and newer Docker engines read.`,
		Example: "  disdel image build --output worker.tar",
		Args:    noArguments,
		RunE: func(*cobra.Command, []string) error {
			img, _, err := a.buildImage(o.worker)
			if err != nil {
				return err
			}
			if err := writeWhole(o.output, func(w io.Writer) error { return img.WriteOCI(w, o.tag) }); err != nil {
				return err
			}
			return a.printImage(o, img, "file", o.output)
		},
	}
	o.workerFlag(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "disdel-worker.tar", "the file to write")
	cmd.Flags().StringVar(&o.tag, "tag", workerImage+":latest", "name of the image in the archive")
	return cmd
}

// writeWhole writes a file whole or not at all.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".disdel-")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(file.Name()) // after the rename there is nothing to remove
	err = write(file)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (a *app) imagePushCommand() *cobra.Command {
	o := &imageOptions{}
	cmd := &cobra.Command{
		Use:   "push REFERENCE",
		Short: "Send the image to a registry",
		Long: `Push makes the image and sends it to a registry, with the credentials that docker
login has kept. It prints the image's reference by digest. OpenWhisk drops digests:
give it a tag that you use once.`,
		Example: "  disdel image push registry.example.com/team/disdel-worker:1",
		Args:    oneReference,
		RunE: func(cmd *cobra.Command, args []string) error {
			img, _, err := a.buildImage(o.worker)
			if err != nil {
				return err
			}
			pushed, err := img.Push(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printImage(o, img, "reference", pushed)
		},
	}
	o.workerFlag(cmd)
	return cmd
}

// oneReference wants exactly one argument, the name of an image.
func oneReference(cmd *cobra.Command, args []string) error {
	if err := one(cmd, args, "the name of one image", "such as registry.example.com/team/disdel-worker:1"); err != nil {
		return err
	}
	if err := image.CheckReference(args[0]); err != nil {
		return fmt.Errorf("%s: %w", commandName(cmd), err)
	}
	return nil
}

func (a *app) imageLoadCommand() *cobra.Command {
	o := &imageOptions{}
	cmd := &cobra.Command{
		Use:   "load",
		Short: "Give the image to the Docker engine of this machine",
		Long: `Load makes the image and gives it to the Docker engine ($DOCKER_HOST, else its usual
socket). For --platform docker this happens by itself. For an OpenWhisk that runs on
this engine, give a tag of its own, not latest: that would be pulled.`,
		Example: "  disdel image load --tag disdel/worker:1",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			img, _, err := a.buildImage(o.worker)
			if err != nil {
				return err
			}
			reference := o.tag
			if reference == "" {
				reference = contentReference(img)
			}
			if err := image.CheckReference(reference); err != nil {
				return usagef("--tag: %w", err)
			}
			if err := loadImage(cmd.Context(), a.getenv(dockerHostEnv), img, reference); err != nil {
				return err
			}
			return a.printImage(o, img, "reference", reference)
		},
	}
	o.workerFlag(cmd)
	cmd.Flags().StringVar(&o.tag, "tag", "", "name of the image (default: "+workerImage+" with its content as the tag)")
	return cmd
}

func (a *app) imageManifestCommand() *cobra.Command {
	cells, memory := 2, 256*job.MB
	cmd := &cobra.Command{
		Use:   "runtime-manifest REFERENCE",
		Short: "Print a runtimes manifest with the worker as a managed kind",
		Long: `Runtime-manifest prints what an operator of OpenWhisk adds to its runtimes manifest, so
that the worker's image is the managed kind ` + workerKind + `: it is not pulled for each cold
start, and containers of it are kept started (stem cells).`,
		Example: "  disdel image runtime-manifest registry.example.com/team/disdel-worker:1 --stem-cells 4 --memory 256",
		Args:    oneReference,
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := image.RuntimeManifest(args[0], []image.StemCells{{Count: cells, Memory: memory}})
			if err != nil {
				return usagef("%w", err)
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
	cmd.Flags().Var(countValue{&cells}, "stem-cells", "how many containers to keep started")
	cmd.Flags().Var(bytesValue{&memory}, "memory", "memory limit of the containers, in MB or with a unit: only actions of exactly this one get them")
	return cmd
}
