// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// ErrReference is wrapped by errors about the name of an image.
var ErrReference = errors.New("not the name of an image")

// pushTimeout bounds a push.
const pushTimeout = 10 * time.Minute

// CheckReference refuses what is no name of an image with a tag.
func CheckReference(reference string) error {
	_, err := parse(reference)
	return err
}

func parse(reference string) (name.Tag, error) {
	tag, err := name.NewTag(reference)
	if err != nil {
		return tag, fmt.Errorf("%w: %q: want [REGISTRY/]NAME[:TAG]: %w", ErrReference, reference, err)
	}
	return tag, nil
}

// Push sends the image to a registry, with the credentials that docker login has
// kept. Registries on this machine are spoken to without TLS. It returns the
// reference by digest.
func (img *Image) Push(ctx context.Context, reference string) (string, error) {
	tag, err := parse(reference)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return "", errors.New("BUG: the default transport is another one")
	}
	transport = transport.Clone()
	defer transport.CloseIdleConnections()
	err = remote.Write(tag, img.image, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(transport))
	if err != nil {
		return "", fmt.Errorf("push image to %s: %w", tag, err)
	}
	return tag.Context().Digest(img.Digest).String(), nil
}

// WriteDocker writes the image as a tar archive that docker load reads.
func (img *Image) WriteDocker(w io.Writer, reference string) error {
	tag, err := parse(reference)
	if err != nil {
		return err
	}
	if err := tarball.Write(tag, img.image, w); err != nil {
		return fmt.Errorf("write image for docker: %w", err)
	}
	return nil
}
