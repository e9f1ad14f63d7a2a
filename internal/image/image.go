// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"disdel/internal/job"
)

// ErrWorker is wrapped by errors about a file that is no worker for an image.
var ErrWorker = errors.New("not a program for an image")

const (
	// program is where the worker is in the image.
	program = "disdel-worker"
	// user is who runs it: nobody in particular, and not root.
	user = "65532:65532"
	// port is the one that OpenWhisk's action interface is served on.
	port = "8080/tcp"
	// workerMax bounds the worker.
	workerMax = 64 * job.MB
)

// Image is an image of the worker.
type Image struct {
	image v1.Image
	// Digest identifies the image: "sha256:...".
	Digest string
	// ID identifies its configuration, and so its content, in an engine.
	ID string
	// Architecture as Go names it.
	Architecture string
	// Packed is what a registry stores and sends, Unpacked the size of its files.
	Packed, Unpacked job.Bytes
}

// Build makes the image of a worker, a static program for Linux.
func Build(path string) (*Image, error) {
	img, err := build(path)
	if err != nil {
		return nil, fmt.Errorf("image of %s: %w", path, err)
	}
	return img, nil
}

func build(path string) (*Image, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	worker, err := io.ReadAll(io.LimitReader(file, int64(workerMax)+1))
	if err != nil {
		return nil, err
	}
	if job.Bytes(len(worker)) > workerMax {
		return nil, fmt.Errorf("%w: it is larger than %v", ErrWorker, workerMax)
	}
	architecture, err := checkWorker(worker)
	if err != nil {
		return nil, err
	}
	layer, err := makeLayer(worker)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{
		Layer: layer, History: v1.History{CreatedBy: "disdel image build", Created: v1.Time{Time: time.Unix(0, 0).UTC()}},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config = v1.Config{
		User: user, Entrypoint: []string{"/" + program, "--listen", ":8080"}, WorkingDir: "/", ExposedPorts: map[string]struct{}{port: {}},
		Labels: map[string]string{
			"org.opencontainers.image.title": "disdel-worker", "org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return describe(image, layer, architecture, worker)
}

func describe(image v1.Image, layer v1.Layer, architecture string, worker []byte) (*Image, error) {
	digest, err := image.Digest()
	if err != nil {
		return nil, err
	}
	id, err := image.ConfigName()
	if err != nil {
		return nil, err
	}
	packed, err := layer.Size()
	if err != nil {
		return nil, err
	}
	return &Image{
		image: image, Digest: digest.String(), ID: id.String(), Architecture: architecture,
		Packed: job.Bytes(packed), Unpacked: job.Bytes(len(worker)),
	}, nil
}

// architectures are those that the worker can be built for.
var architectures = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64",
}

// checkWorker finds out what a program is for. One that needs a library would
// not start in an empty image.
func checkWorker(worker []byte) (architecture string, err error) {
	program, err := elf.NewFile(bytes.NewReader(worker))
	if err != nil {
		return "", fmt.Errorf("%w: it is not built for Linux: %w", ErrWorker, err)
	}
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%w: it is linked to libraries; build it with CGO_ENABLED=0 (make)", ErrWorker)
		}
	}
	architecture, ok := architectures[program.Machine]
	if !ok || program.Type != elf.ET_EXEC && program.Type != elf.ET_DYN {
		return "", fmt.Errorf("%w: it is a %v for %v", ErrWorker, program.Type, program.Machine)
	}
	return architecture, nil
}

// makeLayer makes a layer with one file.
func makeLayer(worker []byte) (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: program, Size: int64(len(worker)), Mode: 0o555, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
	}); err != nil {
		return nil, err
	}
	if _, err := w.Write(worker); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil },
		tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
}

// WriteOCI writes the image as a tar archive in OCI's layout; name, which may be
// "", is the tag in it.
func (img *Image) WriteOCI(w io.Writer, name string) error {
	if err := img.writeOCI(w, name); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

func (img *Image) writeOCI(w io.Writer, name string) error {
	manifest, err := img.image.RawManifest()
	if err != nil {
		return err
	}
	config, err := img.image.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.image.Layers()
	if err != nil {
		return err
	}
	reader, err := layers[0].Compressed()
	if err != nil {
		return err
	}
	defer reader.Close()
	layer, err := io.ReadAll(io.LimitReader(reader, int64(workerMax)))
	if err != nil {
		return err
	}
	digest, err := layers[0].Digest()
	if err != nil {
		return err
	}
	entry := map[string]any{
		"mediaType": types.OCIManifestSchema1, "digest": img.Digest, "size": len(manifest),
		"platform": map[string]string{"os": "linux", "architecture": img.Architecture},
	}
	if name != "" {
		entry["annotations"] = map[string]string{"org.opencontainers.image.ref.name": name}
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": []any{entry}})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, file := range []struct {
		name string
		body []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{blob(img.Digest), manifest},
		{blob(img.ID), config},
		{blob(digest.String()), layer},
	} {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: file.name, Size: int64(len(file.body)), Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(file.body); err != nil {
			return err
		}
	}
	return archive.Close()
}

// blob is where a layout has what a digest identifies.
func blob(digest string) string { return "blobs/sha256/" + digest[len("sha256:"):] }
