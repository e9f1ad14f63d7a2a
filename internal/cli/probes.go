// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/store"
)

// probeCache keeps probe measurements in the user's cache folder, one file for
// each combination of machine, kernel, processor, platform, enforcement, store, form of
// kernels and worker program: a client of another store takes other memory and time. It only
// saves time: what cannot be read is measured again, and where nothing can be
// kept a note says so.
type probeCache struct {
	path, program string
	notes         io.Writer
	// passing says that the program may take other memory in later jobs than in
	// this one, so that what is measured now is not kept.
	passing bool
}

// openProbes returns nil where there is no place for a cache. where is the address
// of the store; folders are all the same. form is the kernels' that the job asks for.
func (a *app) openProbes(workerPath, platform, enforcement, where, form string) control.Probes {
	if scheme, _, err := store.ParseURL(where); err == nil && scheme == store.SchemeDir {
		where = scheme
	}
	folder, err := a.userFolder(cacheHomeEnv, ".cache")
	if err != nil {
		return nil
	}
	binary, err := fileDigest(workerPath)
	if err != nil {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{host, kernelRelease(), processor(), platform, enforcement, where, binary, form}, "\x00")))
	return &probeCache{path: filepath.Join(folder, "probes", hex.EncodeToString(sum[:])+".json"), program: workerPath, notes: a.stderr}
}

// Load implements control.Probes. Where nothing is kept, a worker is going to be
// measured: as it will be from the next restart of the machine on. A program that was
// written since is made that one.
func (c *probeCache) Load(context.Context) (p job.Probe, ok bool, err error) {
	raw, err := os.ReadFile(c.path)
	ok = err == nil && json.Unmarshal(raw, &p) == nil && plausible(p)
	if !ok || writtenSince(c.program, c.path) {
		lasting, err := reread(c.program)
		c.passing = err != nil || !lasting
		if ok && !c.passing {
			now := time.Now()
			_ = os.Chtimes(c.path, now, now) // else the next job does the same
		}
	}
	if !ok {
		return job.Probe{}, false, nil //nolint:nilerr // It is measured again.
	}
	return p, true, nil
}

// writtenSince says whether a file was written after another one.
func writtenSince(path, other string) bool {
	file, err := os.Stat(path)
	before, errOther := os.Stat(other)
	return err == nil && errOther == nil && file.ModTime().After(before.ModTime())
}

// plausible says whether a worker can have measured that.
func plausible(p job.Probe) bool {
	return p.KernelSet != "" && p.Package > 0 && p.Held >= 0 && p.FLOPS > 0 && p.StoreRate > 0 && p.StoreSeconds >= 0
}

// kernelRelease and processor say on what workers run, "" where the system does
// not tell.
func kernelRelease() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(release))
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Save implements control.Probes.
func (c *probeCache) Save(_ context.Context, p job.Probe) error {
	if c.passing {
		return nil
	}
	if err := c.write(p); err != nil {
		fmt.Fprintf(c.notes, "disdel: the measurement of workers cannot be kept, so the next job measures again: %s\n", printable(err.Error()))
	}
	return nil
}

func (c *probeCache) write(p job.Probe) error {
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
