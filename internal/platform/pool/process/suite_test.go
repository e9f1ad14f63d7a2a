// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/platform/platformtest"
	"disdel/internal/platform/pool"
	"disdel/internal/platform/pool/process"
)

var workerPath string

// Two variables say where the tests run, for machines where more can be had
// than here: what must be chosen if no enforcement is asked for, and, separated
// by commas, which ones the tests ask for. Most tests ask for the first.
const (
	wantVariable  = "DISDEL_TEST_WANT"
	kindsVariable = "DISDEL_TEST_KINDS"
)

var kinds = []string{"", process.Watched}

func TestMain(m *testing.M) {
	if os.Getenv(ownerRole) != "" {
		if err := actAsOwner(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if text, ok := os.LookupEnv(kindsVariable); ok {
		kinds = strings.Split(text, ",")
	}
	directory, err := os.MkdirTemp("", "process-test-")
	if err == nil {
		workerPath, err = platformtest.BuildWorker(directory)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	_ = os.RemoveAll(directory) // a leftover in the temporary directory fails nothing
	os.Exit(code)
}

func TestSuite(t *testing.T) {
	for _, enforcement := range kinds {
		t.Run("enforcement="+enforcement, func(t *testing.T) {
			platformtest.Run(t, platformtest.Harness{Open: func(t *testing.T, slots int) platform.Platform {
				return openPool(t, enforcement, slots)
			}})
		})
	}
}

// openPool opens a pool with memory for so many containers of 64 MB.
func openPool(tb testing.TB, enforcement string, slots int) *pool.Pool {
	tb.Helper()
	const least = 64 * job.MB
	driver, err := process.Open(tb.Context(), process.Config{Command: []string{workerPath}, Enforcement: enforcement})
	if err != nil {
		tb.Fatal(err)
	}
	if want, got := os.Getenv(wantVariable), driver.Facts().Enforcement; enforcement == "" && want != "" && got != want {
		tb.Errorf("limits are enforced by %s, want %s", got, want)
	}
	p, err := pool.Open(tb.Context(), pool.Config{
		PayloadMax: 2 * job.MB, // not the default, which would pass unheeded
		MemoryMin:  least, MemoryDefault: least, MemoryMax: job.Bytes(slots) * least, PoolMemory: job.Bytes(slots) * least,
	}, driver)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
		if left := leftovers(os.Getpid()); len(left) > 0 {
			tb.Errorf("left behind: %v", left)
		}
	})
	return p
}

// leftovers lists workers and groups of a process.
func leftovers(owner int) []string {
	var left []string
	names := []string{"disdel-%d-", "disdel-home-%d-", "app-disdel_%d_"}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && slices.ContainsFunc(names, func(name string) bool {
			return strings.HasPrefix(entry.Name(), fmt.Sprintf(name, owner))
		}) {
			left = append(left, path)
		}
		return nil
	})
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		text, err := os.ReadFile(path)
		if err == nil && slices.ContainsFunc(strings.Split(string(text), "\x00"), func(variable string) bool {
			return strings.HasPrefix(variable, fmt.Sprintf("DISDEL_WORKER_OWNER=%d-", owner))
		}) {
			left = append(left, path)
		}
	}
	return left
}
