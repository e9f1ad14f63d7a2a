// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"disdel/internal/job"
)

// probeCache keeps probe measurements in the user's cache folder, one file for
// each combination of machine, platform, enforcement and worker program. What
// cannot be read is measured again.
type probeCache struct {
	path string
}

func (a *app) openProbes(workerPath, platform, enforcement string) (*probeCache, error) {
	folder, err := a.userFolder(cacheHomeEnv, ".cache")
	if err != nil {
		return nil, err
	}
	binary, err := fileDigest(workerPath)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("probe cache: %w", err)
	}
	sum := sha256.Sum256([]byte(host + "\x00" + platform + "\x00" + enforcement + "\x00" + binary))
	return &probeCache{path: filepath.Join(folder, "probes", hex.EncodeToString(sum[:])+".json")}, nil
}

// Load implements control.Probes.
func (c *probeCache) Load(context.Context) (p job.Probe, ok bool, err error) {
	raw, err := os.ReadFile(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("probe cache: %w", err)
	}
	if json.Unmarshal(raw, &p) != nil || p.Package <= 0 || p.KernelSet == "" {
		return job.Probe{}, false, nil
	}
	return p, true, nil
}

// Save implements control.Probes.
func (c *probeCache) Save(_ context.Context, p job.Probe) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("probe cache: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(c.path), 0o700); err != nil {
		return fmt.Errorf("probe cache: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(c.path), ".probe-*")
	if err != nil {
		return fmt.Errorf("probe cache: %w", err)
	}
	_, err = temp.Write(raw)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), c.path)
	}
	if err != nil {
		return fmt.Errorf("probe cache: %w", errors.Join(err, os.Remove(temp.Name())))
	}
	return nil
}
