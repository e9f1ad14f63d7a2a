// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Config says what a container is.
type Config struct {
	// Host is the engine's address: "unix:///path". Default
	// "unix:///var/run/docker.sock". It must be on this machine: containers are
	// reached at their own addresses.
	Host string
	// Image runs where Spec.Image is "". The engine must have it.
	Image string
	// Binds are absolute paths of this machine that containers see, and may write
	// to, under the same path. With any, they run as this process's user, else as
	// the image's.
	Binds []string
	// Network is the engine's network. Default "bridge".
	Network string
	// Reaper is the command of a process that ends the containers when this one is
	// killed; it gets two more arguments, for [Reap]. Without one they run on until
	// the next driver is opened.
	Reaper []string
	// LogLines is how many lines of output are kept of each container, each cut
	// at 1 KB. Default 100.
	LogLines int
}

const (
	defaultHost = "unix:///var/run/docker.sock"
	// requestTimeout bounds a request to the engine that starts or ends something
	// small; pulls are bounded by the start of a container.
	requestTimeout = 30 * time.Second
	// logTimeout bounds the wait for output that is still on its way, logQuiet is
	// how long nothing comes when it is over.
	logTimeout = 2 * time.Second
	logQuiet   = 50 * time.Millisecond
	// actionPort is the port of the action interface.
	actionPort = "8080"
	// countMax bounds processes, and open files of each.
	countMax = 1024
	// temporaryBytes bounds /tmp, which counts as the container's memory.
	temporaryBytes = 16 << 20
)

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = defaultHost
	}
	if c.Network == "" {
		c.Network = "bridge"
	}
	if c.LogLines == 0 {
		c.LogLines = 100
	}
	return c
}

func (c Config) validate() error {
	if !strings.HasPrefix(c.Host, "unix://") {
		return fmt.Errorf("engine at %q: only an engine on this machine will do, unix:///path: containers are reached at their own addresses", c.Host)
	}
	if c.Image == "" {
		return errors.New("no image for the worker")
	}
	for _, path := range c.Binds {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, ":\x00") {
			return fmt.Errorf("folder %q for containers: want an absolute path without a colon", path)
		}
	}
	if c.LogLines < 0 {
		return fmt.Errorf("log lines %d: want more than 0", c.LogLines)
	}
	return nil
}
