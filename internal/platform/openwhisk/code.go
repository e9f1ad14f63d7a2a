// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"disdel/internal/job"
	"disdel/internal/platform"
)

const (
	// goFamily is the family of kinds that run a program from a zip, workerFamily
	// that of kinds that have the worker built in, kindImage the kind of actions
	// that are an image.
	goFamily     = "go"
	workerFamily = "disdel"
	kindImage    = "blackbox"
	// codeMax is OpenWhisk's bound of exec.code, as it is sent.
	codeMax = 48 << 20
	// builtIn is the code of actions whose kind has the worker built in: managed
	// kinds want some.
	builtIn = "built in"
)

// makeExec says what actions are made of.
func (c *Client) makeExec(runtimes map[string][]runtime) (exec, error) {
	if c.cfg.Image != "" {
		return exec{Kind: kindImage, Image: c.cfg.Image}, nil
	}
	kind := c.cfg.Kind
	switch {
	case kind != "":
	case len(runtimes[workerFamily]) > 0:
		kind = workerFamily + ":default"
	default:
		kind = goFamily + ":default"
	}
	family, _, _ := strings.Cut(kind, ":")
	r, err := chooseRuntime(kind, runtimes)
	if err != nil {
		return exec{}, err
	}
	if family != goFamily {
		return exec{Kind: kind, Code: builtIn}, nil
	}
	if c.cfg.Worker == nil {
		return exec{}, fmt.Errorf("%w: actions of kind %s need the worker program", platform.ErrRefused, kind)
	}
	program, err := c.cfg.Worker()
	if err != nil {
		return exec{}, fmt.Errorf("%w: worker program: %w", platform.ErrRefused, err)
	}
	if !bytes.HasPrefix(program, []byte("\x7fELF")) {
		return exec{}, fmt.Errorf("%w: the worker program is not one for Linux; build it with GOOS=linux and the GOARCH of the deployment's machines",
			platform.ErrRefused)
	}
	code, err := zipWorker(program, environmentOf(r))
	if err != nil {
		return exec{}, fmt.Errorf("openwhisk: worker program: %w", err)
	}
	text := base64.StdEncoding.EncodeToString(code)
	if len(text) > codeMax {
		return exec{}, fmt.Errorf("%w: the worker program takes %v as OpenWhisk wants it, which takes %v at most",
			platform.ErrRefused, job.Bytes(len(text)), job.Bytes(codeMax))
	}
	return exec{Kind: kind, Code: text}, nil
}

// chooseRuntime finds a kind among those that the deployment tells of. Where it
// tells of none, everything is possible.
func chooseRuntime(kind string, runtimes map[string][]runtime) (runtime, error) {
	family, version, _ := strings.Cut(kind, ":")
	unknown := runtime{Kind: kind}
	if family == goFamily && version != "" && version != "default" {
		unknown.Image = "openwhisk/action-golang-v" + version
	}
	if len(runtimes) == 0 {
		return unknown, nil
	}
	var kinds []string
	for _, name := range slices.Sorted(maps.Keys(runtimes)) {
		for _, r := range runtimes[name] {
			if r.Kind == kind || name == family && r.Default && version == "default" {
				r.Image = cmp.Or(r.Image, unknown.Image)
				return r, nil
			}
			if !r.Deprecated {
				kinds = append(kinds, r.Kind)
			}
		}
	}
	return runtime{}, fmt.Errorf("%w: this OpenWhisk has no runtime of kind %s (it has: %s); give an image of the worker with --image, or another --kind",
		platform.ErrRefused, clip(kind, 60), clip(strings.Join(kinds, ", "), quoteMax))
}

// environmentOf is what a Go runtime calls itself: its image without registry
// and tag. A compiled program must name the one that it is for.
func environmentOf(r runtime) string {
	image, _, _ := strings.Cut(r.Image, "@")
	parts := strings.Split(image, "/")
	last, _, _ := strings.Cut(parts[len(parts)-1], ":")
	if last == "" {
		return ""
	}
	if len(parts) < 2 {
		return last
	}
	return parts[len(parts)-2] + "/" + last
}

// zipWorker makes the zip that a Go runtime takes: the program as "exec", and
// what it is for as "exec.env". The same program gives the same bytes.
func zipWorker(program []byte, environment string) ([]byte, error) {
	var buffer bytes.Buffer
	w := zip.NewWriter(&buffer)
	add := func(name string, content []byte, executable bool) error {
		header := &zip.FileHeader{Name: name, Method: zip.Deflate}
		header.SetMode(0o644)
		if executable {
			header.SetMode(0o755)
		}
		f, err := w.CreateHeader(header)
		if err != nil {
			return fmt.Errorf("zip %s: %w", name, err)
		}
		if _, err := f.Write(content); err != nil {
			return fmt.Errorf("zip %s: %w", name, err)
		}
		return nil
	}
	if err := add("exec", program, true); err != nil {
		return nil, err
	}
	if environment != "" {
		if err := add("exec.env", []byte(environment+"\n"), false); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	return buffer.Bytes(), nil
}
