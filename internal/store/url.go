// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// SchemeDir is the URL scheme of a folder store: dir:///absolute/path.
const SchemeDir = "dir"

const supportedURLs = "want dir:///absolute/path"

// ParseURL splits a store's address into its scheme and its cleaned path. The
// path is taken as it stands, without percent escapes, so that any folder name
// can be written. Errors name what is supported and never repeat the address of
// another scheme, which may hold a password.
func ParseURL(raw string) (scheme, location string, err error) {
	scheme, rest, found := strings.Cut(raw, "://")
	switch {
	case raw == "":
		return "", "", errors.New("store URL is empty: " + supportedURLs)
	case !found && strings.HasPrefix(raw, "/"):
		return "", "", fmt.Errorf("store URL %q has no scheme: write dir://%s", shorten(raw), shorten(raw))
	case !found:
		return "", "", errors.New("store URL has no scheme: " + supportedURLs)
	case scheme != SchemeDir:
		return "", "", fmt.Errorf("store URL scheme %q is not supported: %s", shorten(scheme), supportedURLs)
	case !strings.HasPrefix(rest, "/"):
		return "", "", fmt.Errorf("store URL %q: the folder must be an absolute path (three slashes): %s", shorten(raw), supportedURLs)
	case strings.ContainsRune(rest, 0):
		return "", "", errors.New("store URL: the path holds a NUL byte: " + supportedURLs)
	}
	return scheme, path.Clean(rest), nil
}
