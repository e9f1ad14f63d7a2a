// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"disdel/internal/job"
)

// elfFile is the head of a program: enough to be told apart.
func elfFile(machine uint16, interpreter bool) []byte {
	const headerSize, programSize = 64, 56
	file := make([]byte, headerSize+programSize+4096)
	copy(file, "\x7fELF\x02\x01\x01")
	put := binary.LittleEndian
	put.PutUint16(file[16:], 2) // executable
	put.PutUint16(file[18:], machine)
	put.PutUint32(file[20:], 1)
	put.PutUint64(file[32:], headerSize)
	put.PutUint16(file[52:], headerSize)
	put.PutUint16(file[54:], programSize)
	put.PutUint16(file[56:], 1)
	kind := uint32(1) // load
	if interpreter {
		kind = 3
	}
	put.PutUint32(file[headerSize:], kind)
	return file
}

const amd64, arm64 = 62, 183

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "worker")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func build1(t *testing.T) *Image {
	t.Helper()
	img, err := Build(write(t, elfFile(amd64, false)))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// entries reads a tar archive.
func entries(t *testing.T, r io.Reader) (headers []*tar.Header, bodies map[string][]byte) {
	t.Helper()
	bodies = map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return headers, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, header)
		bodies[header.Name] = body
	}
}

// The image is one file, run by nobody in particular.
func TestWhatIsInside(t *testing.T) {
	img := build1(t)
	config, err := img.image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if c.User != "65532:65532" || strings.Join(c.Entrypoint, " ") != "/disdel-worker --listen :8080" || len(c.Env) != 0 || len(c.Cmd) != 0 ||
		config.OS != "linux" || config.Architecture != "amd64" || !config.Created.IsZero() && config.Created.Unix() != 0 {
		t.Errorf("configuration: %+v", config)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok || len(c.ExposedPorts) != 1 {
		t.Errorf("ports: %v", c.ExposedPorts)
	}
	layers, err := img.image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	headers, bodies := entries(t, content)
	if len(headers) != 1 || headers[0].Name != "disdel-worker" || headers[0].Mode != 0o555 || headers[0].Uid != 0 || headers[0].ModTime.Unix() != 0 ||
		!bytes.Equal(bodies["disdel-worker"], elfFile(amd64, false)) {
		t.Errorf("files: %+v", headers)
	}
}

// The same worker gives the same bytes, from any path and at any time.
func TestSameBytes(t *testing.T) {
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := build1(t).WriteOCI(out, "disdel/worker:1"); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of one worker differ")
	}
	other, err := Build(write(t, elfFile(arm64, false)))
	if err != nil {
		t.Fatal(err)
	}
	if other.Digest == build1(t).Digest || other.Architecture != "arm64" {
		t.Errorf("another worker: %+v", other)
	}
}

// An OCI layout: each blob has the name of its digest, the index leads to all.
func TestOCILayout(t *testing.T) {
	img := build1(t)
	var out bytes.Buffer
	if err := img.WriteOCI(&out, "disdel/worker:1"); err != nil {
		t.Fatal(err)
	}
	_, files := entries(t, &out)
	for name, body := range files {
		if sum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if got := sha256.Sum256(body); hex.EncodeToString(got[:]) != sum {
				t.Errorf("%s has another digest", name)
			}
		}
	}
	if string(files["oci-layout"]) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout: %s", files["oci-layout"])
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(files["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index: %v %s", err, files["index.json"])
	}
	m := index.Manifests[0]
	if m.Digest.String() != img.Digest || m.Annotations["org.opencontainers.image.ref.name"] != "disdel/worker:1" || m.Platform.Architecture != "amd64" {
		t.Errorf("index: %+v", m)
	}
	raw := files[blob(img.Digest)]
	var manifest v1.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil || int64(len(raw)) != m.Size {
		t.Fatalf("manifest: %v, %d bytes", err, len(raw))
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		if body, ok := files[blob(d.Digest.String())]; !ok || int64(len(body)) != d.Size {
			t.Errorf("%v is not in the archive", d)
		}
	}
}

// What docker load reads.
func TestDockerArchive(t *testing.T) {
	img := build1(t)
	path := filepath.Join(t.TempDir(), "image.tar")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := img.WriteDocker(file, "disdel/worker:1"); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("disdel/worker:1")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := tarball.ImageFromPath(path, &tag)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := loaded.ConfigName(); err != nil || id.String() != img.ID {
		t.Errorf("loaded as %v (%v), want %s", id, err, img.ID)
	}
}

// A registry gets the image, byte for byte.
func TestPush(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	img := build1(t)
	reference := strings.TrimPrefix(server.URL, "http://") + "/team/worker:7"
	for range 2 { // the second time everything is there
		pushed, err := img.Push(t.Context(), reference)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimSuffix(reference, ":7") + "@" + img.Digest; pushed != want {
			t.Errorf("pushed as %s, want %s", pushed, want)
		}
		parsed, err := name.ParseReference(pushed)
		if err != nil {
			t.Fatal(err)
		}
		pulled, err := remote.Image(parsed, remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(pulled); err != nil {
			t.Error(err)
		}
	}
	server.Close()
	if _, err := img.Push(t.Context(), reference); err == nil || !strings.Contains(err.Error(), reference) {
		t.Errorf("a registry that is down: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for name, content := range map[string][]byte{
		"text":    []byte("#!/bin/sh\n"),
		"empty":   nil,
		"dynamic": elfFile(amd64, true),
		"machine": elfFile(3, false),
	} {
		if _, err := Build(write(t, content)); !errors.Is(err, ErrWorker) {
			t.Errorf("%s: %v, want ErrWorker", name, err)
		}
	}
	if _, err := Build(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	img := build1(t)
	for _, reference := range []string{"", "Upper/Case", "a b", "x@sha256:" + strings.Repeat("0", 64)} {
		if _, err := img.Push(t.Context(), reference); !errors.Is(err, ErrReference) {
			t.Errorf("push to %q: %v", reference, err)
		}
		if err := img.WriteDocker(io.Discard, reference); !errors.Is(err, ErrReference) {
			t.Errorf("docker archive as %q: %v", reference, err)
		}
	}
}

func TestRuntimeManifest(t *testing.T) {
	text, err := RuntimeManifest("registry.example:5000/team/worker:7", []StemCells{{2, 256 * job.MB}})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"blackboxes":[],"runtimes":{"disdel":[{"default":true,"deprecated":false,
		"image":{"name":"worker","prefix":"registry.example:5000/team","tag":"7"},"kind":"disdel:1","requireMain":false,
		"stemCells":[{"initialCount":2,"memory":"256 MB"}]}]}}`
	var got, wanted any
	if err := errors.Join(json.Unmarshal(text, &got), json.Unmarshal([]byte(want), &wanted)); err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(wanted)
	if !bytes.Equal(a, b) {
		t.Errorf("manifest %s, want %s", a, b)
	}
	if _, err := RuntimeManifest("x", []StemCells{{0, job.MB}}); err == nil {
		t.Error("no stem cells were accepted")
	}
	if _, err := RuntimeManifest("Bad Name", nil); !errors.Is(err, ErrReference) {
		t.Errorf("a bad name: %v", err)
	}
}
