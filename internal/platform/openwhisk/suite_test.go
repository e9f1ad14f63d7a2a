// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/platformtest"
)

// The suite of all platforms, against a server that is named from outside as wsk
// names it. It runs where the variable DISDEL_E2E names "openwhisk", and then
// needs a server whose actions of the image run package platformtest's worker:
//
//	DISDEL_E2E=openwhisk WSK_CONFIG_FILE=... go test -run TestSuite ./internal/platform/openwhisk
//
// Further variables: imageVariable names the image, poolVariable the memory of the
// server's pool in MB (it must be the largest action as well), traitsVariable
// what the server does not do or tell: "late", "memory", "init".
const (
	imageVariable  = "DISDEL_TEST_IMAGE"
	poolVariable   = "DISDEL_TEST_POOL"
	traitsVariable = "DISDEL_TEST_TRAITS"
)

func named() bool { return slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), "openwhisk") }

func TestSuite(t *testing.T) {
	if !named() {
		return // a server is needed
	}
	cfg, pool := outside(t)
	names := strings.Split(os.Getenv(traitsVariable), ",")
	traits := platformtest.Traits{
		Milliseconds: true, VagueDeaths: true, VagueLogs: true, Arrays: true, Slow: 500 * time.Millisecond,
		VagueMemory: slices.Contains(names, "memory"), VagueInit: slices.Contains(names, "init"),
	}
	if slices.Contains(names, "late") {
		traits.Late = 15 * time.Second
	}
	platformtest.Run(t, platformtest.Harness{
		Open:   func(t *testing.T, _ int) platform.Platform { return openRenamed(t, cfg) },
		Slot:   func(slots int) job.Bytes { return pool / job.Bytes(slots) / job.MB * job.MB },
		Traits: traits,
	})
}

// outside reads the configuration of a real server from the environment.
func outside(t *testing.T) (Config, job.Bytes) {
	t.Helper()
	path, ok := os.LookupEnv("WSK_CONFIG_FILE")
	if !ok {
		path = filepath.Join(os.Getenv("HOME"), ".wskprops")
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatalf("DISDEL_E2E names openwhisk, so there must be a server: %v", err)
	}
	defer file.Close()
	props, err := ParseProperties(file)
	if err != nil {
		t.Fatal(err)
	}
	megabytes, err := strconv.Atoi(cmp.Or(os.Getenv(poolVariable), "1024"))
	if err != nil {
		t.Fatalf("%s: %v", poolVariable, err)
	}
	pool := job.Bytes(megabytes) * job.MB
	return Config{
		Host: cmp.Or(os.Getenv("WHISK_APIHOST"), props.Host), Key: cmp.Or(os.Getenv("WHISK_AUTH"), props.Key),
		Image: cmp.Or(os.Getenv(imageVariable), "disdel/testworker:1"), PoolMemory: pool,
	}, pool
}

// renamed gives every case packages of its own: an action that was deleted and
// made again would find the containers of the one before.
type renamed struct {
	*Client
	prefix string

	mu       sync.Mutex
	packages map[string]bool
	calls    []platform.Activation
}

func openRenamed(t *testing.T, cfg Config) platform.Platform {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &renamed{Client: c, prefix: fmt.Sprintf("disdel-test-%d-", time.Now().UnixNano()), packages: map[string]bool{}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for _, id := range p.calls { // they would hold containers of the next case
			for {
				if _, found, err := c.record(ctx, id); found || ctx.Err() != nil {
					break
				} else if err != nil {
					t.Error(err)
				}
				select {
				case <-time.After(pollFirst):
				case <-ctx.Done():
				}
			}
		}
		for name := range p.packages {
			if err := c.Remove(ctx, name); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *renamed) Deploy(ctx context.Context, pkg platform.Package) error {
	pkg.Name = p.prefix + pkg.Name
	p.mu.Lock()
	p.packages[pkg.Name] = true
	p.mu.Unlock()
	return p.Client.Deploy(ctx, pkg)
}

func (p *renamed) Invoke(ctx context.Context, call platform.Call) (platform.Activation, error) {
	call.Package = p.prefix + call.Package
	id, err := p.Client.Invoke(ctx, call)
	if err == nil {
		p.mu.Lock()
		p.calls = append(p.calls, id)
		p.mu.Unlock()
	}
	return id, err
}

func (p *renamed) Remove(ctx context.Context, pkg string) error {
	return p.Client.Remove(ctx, p.prefix+pkg)
}
