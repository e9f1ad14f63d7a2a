// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/process"
	"disdel/internal/store"
	"disdel/internal/store/dir"
	"disdel/internal/store/redis"
	"disdel/internal/worker"
)

// Environment variables that the command line reads.
const (
	storeEnv     = "DISDEL_STORE"
	dataEnv      = "DISDEL_DATA"
	kerasEnv     = "KERAS_HOME"
	dataHomeEnv  = "XDG_DATA_HOME"
	cacheHomeEnv = "XDG_CACHE_HOME"
)

// userFolder is a folder of the user's for this program: under the folder that
// the variable names, else under fallback in the home folder.
func (a *app) userFolder(variable, fallback string) (string, error) {
	if base := a.getenv(variable); filepath.IsAbs(base) {
		return filepath.Join(base, "disdel"), nil
	}
	home := a.getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", usagef("HOME is not set, so there is no place for files; set HOME or %s", variable)
	}
	return filepath.Join(home, fallback, "disdel"), nil
}

func (a *app) storeURL(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if url := a.getenv(storeEnv); url != "" {
		return url, nil
	}
	folder, err := a.userFolder(dataHomeEnv, ".local/share")
	if err != nil {
		return "", usagef("no store: %w, or give --store dir:///absolute/path", err)
	}
	return store.SchemeDir + "://" + folder, nil
}

// openStore opens the store of a kind that this program knows.
func (a *app) openStore(ctx context.Context, flag string) (store.Store, error) {
	url, err := a.storeURL(flag)
	if err != nil {
		return nil, err
	}
	scheme, location, err := store.ParseURL(url)
	if err != nil {
		return nil, usagef("%w", err)
	}
	var s store.Store
	switch scheme {
	case store.SchemeDir:
		s, err = dir.Open(ctx, location)
	case store.SchemeRedis, store.SchemeRedisTLS:
		var address redis.Address
		if address, err = redis.ParseAddress(location); err != nil {
			return nil, usagef("%w", err)
		}
		s, err = redis.Open(ctx, address)
	default:
		return nil, usagef("store: no such kind: %s", scheme)
	}
	if err != nil {
		return nil, err
	}
	return store.WithRetry(s, store.RetryPolicy{}), nil
}

// workerInit are the init-only parameters of workers: the store's address as
// containers see it, with its credential. They are for the platform alone.
func (a *app) workerInit(o *options) (map[string]string, error) {
	url, err := a.storeURL(o.store)
	if err != nil {
		return nil, err
	}
	if o.workerStore != "" {
		if url, err = workerStore(url, o.workerStore); err != nil {
			return nil, usagef("--worker-store: %w", err)
		}
	}
	return map[string]string{worker.StoreEnv: url}, nil
}

// workerStore returns the address that workers get: theirs, with the credential
// of own if it has none and both are Redis.
func workerStore(own, theirs string) (string, error) {
	scheme, location, err := store.ParseURL(theirs)
	if err != nil {
		return "", err
	}
	ownScheme, ownLocation, err := store.ParseURL(own)
	if err != nil {
		return "", err
	}
	if (scheme == store.SchemeDir) != (ownScheme == store.SchemeDir) {
		return "", fmt.Errorf("it is another kind of store than --store: %s:// and %s://", scheme, ownScheme)
	}
	if scheme == store.SchemeDir {
		return theirs, nil
	}
	address, err := redis.ParseAddress(location)
	if err != nil {
		return "", err
	}
	lender, err := redis.ParseAddress(ownLocation)
	if err != nil {
		return "", err
	}
	return address.Borrow(lender).WithCredential(), nil
}

// checkReach refuses a store that the platform's containers cannot reach.
func checkReach(platform string, limits job.Limits, init map[string]string) error {
	scheme, location, err := store.ParseURL(init[worker.StoreEnv])
	if err != nil {
		return usagef("%w", err)
	}
	if scheme == store.SchemeDir && !limits.LocalFiles {
		return usagef("containers of platform %s do not see the files of this machine, so the folder %s cannot serve them; "+
			"give a Redis server that they reach: --store redis://user:password@host", platform, location)
	}
	return nil
}

// workerCommand finds the program that runs inside containers: disdel-worker
// beside this one, else this one itself.
func (a *app) workerCommand() (path string, own bool, err error) {
	self, err := a.program()
	if err != nil {
		return "", false, fmt.Errorf("find the worker: own program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", false, fmt.Errorf("find the worker: own program: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "disdel-worker")
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
		return beside, false, nil
	}
	return self, true, nil
}

// openPlatform starts the embedded platform, with the kind of containers that is
// asked for. The worker's path is "" where it is in an image that the user named.
func (a *app) openPlatform(ctx context.Context, o *options) (_ *pool.Pool, workerPath string, err error) {
	var driver pool.Driver
	if o.platform == platformDocker {
		driver, workerPath, err = a.openDocker(ctx, o)
	} else {
		driver, workerPath, err = a.openProcesses(ctx, o)
	}
	if err != nil {
		return nil, "", err
	}
	cfg := o.pool
	if o.spec.Strategy == job.Single {
		total, err := machineMemory()
		if err != nil {
			return nil, "", errors.Join(err, driver.Close())
		}
		cfg = machinePool(cfg, total)
	}
	p, err := pool.Open(ctx, cfg, driver)
	if err != nil {
		return nil, "", usagef("%w; see --pool-memory, --min-memory and --max-memory", err)
	}
	return p, workerPath, nil
}

// openProcesses opens the driver of child processes.
func (a *app) openProcesses(ctx context.Context, o *options) (_ pool.Driver, workerPath string, err error) {
	path, own, err := a.workerCommand()
	if err != nil {
		return nil, "", err
	}
	if own {
		fmt.Fprintln(a.stderr, "disdel: there is no disdel-worker beside this program, so it serves as the worker itself and containers take more memory; build both with: make, or go build -o FOLDER ./cmd/...")
	}
	driver, err := process.Open(ctx, process.Config{Command: []string{path}, Enforcement: o.enforcement})
	if err != nil {
		return nil, "", err
	}
	return driver, path, nil
}

// fileDigest is the hexadecimal SHA-256 of a file.
func fileDigest(path string) (_ string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", fmt.Errorf("digest of %s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
