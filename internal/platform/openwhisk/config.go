// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Config says which OpenWhisk, with which key, and what its actions are made of.
type Config struct {
	// Host is the API host as wsk users write it: "host", "host:port", or with
	// http:// or https:// before it. Without a scheme it is https.
	Host string
	// Key is "uuid:secret". It appears in no error and no log.
	Key string
	// Namespace as wsk users write it: "name" or "/name". Default "_", the key's.
	Namespace string
	// APIVersion is part of all paths. Default "v1".
	APIVersion string
	// Insecure accepts any certificate. Never implied by anything else.
	Insecure bool
	// Certificate and CertificateKey are PEM files of a client certificate; both
	// or none.
	Certificate, CertificateKey string

	// Image is the reference of a worker image, for actions of kind blackbox.
	Image string
	// Kind is the runtime of actions without an image: one of the family "go"
	// gets the worker as a zip, any other is one that has the worker built in.
	// Default "disdel:default" where the deployment has that, else "go:default".
	Kind string
	// Worker returns the worker program for Linux, for kinds of the family "go".
	// It is called at most once, by the first Deploy.
	Worker func() ([]byte, error)

	// PoolMemory is what all invokers together have for containers, and no less
	// than the largest container that one of them can hold: the API does not
	// tell. Default 1024 MB, OpenWhisk's own default for one invoker. A larger
	// action would wait for ever, so plans keep below it.
	PoolMemory job.Bytes
	// Processors is how many cores the containers share: the API does not tell.
	// Default one for each 256 MB of PoolMemory.
	Processors int
	// QueueMax is how long a call may wait for a container, on top of its time
	// limits, before it is given up. Default 3 min.
	QueueMax time.Duration
	// RequestTimeout bounds one request and its answer; Deploy adds a minute.
	// Default 30 s.
	RequestTimeout time.Duration

	// Transport carries requests. Default: HTTP with the settings above.
	Transport http.RoundTripper
}

func (c Config) withDefaults() Config {
	setDefault(&c.Namespace, "_")
	setDefault(&c.APIVersion, "v1")
	setDefault(&c.PoolMemory, 1024*job.MB)
	setDefault(&c.Processors, max(1, int(c.PoolMemory/(256*job.MB))))
	setDefault(&c.QueueMax, 3*time.Minute)
	setDefault(&c.RequestTimeout, 30*time.Second)
	return c
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ErrConfig is wrapped by errors about a Config: nothing was asked of anybody.
var ErrConfig = errors.New("openwhisk configuration")

// parseHost returns the base of all URLs of an API host. Its errors never repeat
// what could hold a key.
func parseHost(host string) (*url.URL, error) {
	text := strings.TrimSpace(host)
	if text == "" {
		return nil, fmt.Errorf("%w: no API host; give --apihost, or APIHOST in ~/.wskprops (see: wsk property get --apihost)", ErrConfig)
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		// The parser's own error repeats the text.
		return nil, fmt.Errorf("%w: the API host cannot be read; want host, host:port, http://host:port or https://host", ErrConfig)
	case u.User != nil:
		return nil, fmt.Errorf("%w: the API host holds a user or a password; give the key with --auth or AUTH in ~/.wskprops", ErrConfig)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%w: API host with the scheme %q; want http or https", ErrConfig, u.Scheme)
	case u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return nil, fmt.Errorf("%w: the API host is not one; want host, host:port, http://host:port or https://host", ErrConfig)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	// Users also copy the base of the API.
	for _, suffix := range []string{"/v1", "/api"} {
		u.Path = strings.TrimSuffix(u.Path, suffix)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}, nil
}

// splitKey divides "uuid:secret".
func splitKey(key string) (user, secret string, err error) {
	key = strings.TrimSpace(key)
	if key == "" {
		return "", "", fmt.Errorf("%w: no key; give AUTH in ~/.wskprops, or --auth (see: wsk property get --auth)", ErrConfig)
	}
	user, secret, ok := strings.Cut(key, ":")
	if !ok || user == "" || secret == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", "", fmt.Errorf("%w: the key is not of the form uuid:secret", ErrConfig)
	}
	return user, secret, nil
}

// nameMax is OpenWhisk's bound of a name.
const nameMax = 256

// checkName says whether OpenWhisk accepts name for a package, an action or a
// namespace: letters, digits and "_", after the first also "@", ".", "&", "-"
// and spaces, but no space at the end.
func checkName(what, name string) error {
	ok := name != "" && len(name) <= nameMax && !strings.HasSuffix(name, " ")
	for i, r := range name {
		plain := r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		ok = ok && (plain || i > 0 && strings.ContainsRune("@ .&-", r))
	}
	if !ok {
		return fmt.Errorf("%w: %s name %q: want 1 to %d letters, digits, and after the first one of \"_@.&- \"",
			platform.ErrRefused, what, clip(name, nameMax), nameMax)
	}
	return nil
}

// parseNamespace reads a namespace as wsk users write it.
func parseNamespace(text string) (string, error) {
	name := strings.Trim(text, "/")
	if name == "_" {
		return name, nil
	}
	if err := checkName("namespace", name); err != nil {
		return "", fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return name, nil
}
