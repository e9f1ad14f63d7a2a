// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// URL schemes of stores.
const (
	// SchemeDir is a folder: dir:///absolute/path.
	SchemeDir = "dir"
	// SchemeRedis is a Redis server: redis://user:password@host:port/db.
	SchemeRedis = "redis"
	// SchemeRedisTLS is a Redis server behind TLS, written as SchemeRedis is.
	SchemeRedisTLS = "rediss"
)

const supportedURLs = "want dir:///absolute/path or redis[s]://[user:password@]host[:port][/db]"

// ParseURL splits a store's address into its scheme and what its driver opens.
// For a folder that is its cleaned path, taken as it stands, without percent
// escapes, so that any folder name can be written. For Redis it is the whole
// address, which may hold a password; the driver checks the rest of it. Errors
// name what is supported and never repeat an address that may hold a password.
func ParseURL(raw string) (scheme, location string, err error) {
	scheme, rest, found := strings.Cut(raw, "://")
	switch {
	case raw == "":
		return "", "", errors.New("store URL is empty: " + supportedURLs)
	case !found && strings.HasPrefix(raw, "/"):
		return "", "", fmt.Errorf("store URL %q has no scheme: write dir://%s", shorten(raw), shorten(raw))
	case !found:
		return "", "", errors.New("store URL has no scheme: " + supportedURLs)
	case scheme == SchemeRedis || scheme == SchemeRedisTLS:
		return scheme, raw, nil
	case scheme != SchemeDir:
		return "", "", fmt.Errorf("store URL scheme %q is not supported: %s", shorten(scheme), supportedURLs)
	case !strings.HasPrefix(rest, "/"):
		return "", "", fmt.Errorf("store URL %q: the folder must be an absolute path (three slashes): %s", shorten(raw), supportedURLs)
	case strings.ContainsRune(rest, 0):
		return "", "", errors.New("store URL: the path holds a NUL byte: " + supportedURLs)
	}
	return scheme, path.Clean(rest), nil
}
