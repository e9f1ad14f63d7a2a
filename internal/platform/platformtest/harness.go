// SPDX-License-Identifier: Apache-2.0

package platformtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Harness makes the platform under test.
type Harness struct {
	// Open returns a new platform that runs the test worker, with memory for
	// slots containers, and has the test close it and check that nothing is left.
	Open func(t *testing.T, slots int) platform.Platform
	// Slot is the memory of one of so many containers. Default: Limits.MemoryMin.
	Slot func(slots int) job.Bytes
	// Traits are what the platform cannot do or tell.
	Traits Traits
}

// Traits are what a platform cannot do or tell, so that the suite asks for less.
// That started calls cannot be ended is in Limits.NoCancel.
type Traits struct {
	// Late is how much later than others this platform knows of an end.
	Late time.Duration
	// Milliseconds: times are in whole ones.
	Milliseconds bool
	// VagueDeaths: it is not told how a container ended, nor what it printed.
	VagueDeaths bool
	// VagueMemory: a container that was killed by its limit is Lost, with
	// MaybeMemory. VagueInit: one that dies at /init is Lost or TimedOut.
	VagueMemory, VagueInit bool
	// VagueLogs: only what was printed to stdout is sure to be there, and lines of
	// another call may be.
	VagueLogs bool
	// Arrays: a JSON array is an answer, which costs no container.
	Arrays bool
	// Slow is how long a container may stay busy after its call's outcome is known.
	Slow time.Duration
}

// BuildWorker builds the test worker into dir and returns its path. Where the
// variable DISDEL_TESTWORKER names one that is built already, for users without
// a Go tool chain, it returns that.
func BuildWorker(dir string) (string, error) {
	if path := os.Getenv("DISDEL_TESTWORKER"); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "testworker")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "disdel/internal/platform/platformtest/testworker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build test worker: %w\n%s", err, output)
	}
	return path, nil
}

// bench is one opened platform with its limits.
type bench struct {
	*testing.T
	platform platform.Platform
	limits   platform.Limits
	traits   Traits
	slot     job.Bytes // memory of one container
}

// secret is an init-only parameter of every package here.
const secret = "correct-horse-battery"

func (h Harness) open(t *testing.T, slots int) *bench {
	t.Helper()
	b := &bench{T: t, platform: h.Open(t, slots), traits: h.Traits}
	limits, err := b.platform.Limits(t.Context())
	if err != nil {
		t.Fatalf("limits: %v", err)
	}
	b.limits, b.slot = limits, limits.MemoryMin
	if h.Slot != nil {
		b.slot = h.Slot(slots)
	}
	return b
}

func (b *bench) deploy(pkg string, actions ...platform.Action) {
	b.Helper()
	b.deployInit(pkg, nil, actions...)
}

// deployInit deploys a package; fields of an action that are 0 become the memory
// of one slot and a minute, or, where only that ends a call, some seconds.
func (b *bench) deployInit(pkg string, init map[string]string, actions ...platform.Action) {
	b.Helper()
	all := map[string]string{"SECRET": secret}
	for name, value := range init {
		all[name] = value
	}
	for i := range actions {
		if actions[i].Memory == 0 {
			actions[i].Memory = b.slot
		}
		if actions[i].Timeout == 0 {
			actions[i].Timeout = time.Minute
			if b.limits.NoCancel {
				actions[i].Timeout = 3 * time.Second
			}
		}
	}
	if err := b.platform.Deploy(b.Context(), platform.Package{Name: pkg, Init: all, Actions: actions}); err != nil {
		b.Fatalf("deploy: %v", err)
	}
}

func (b *bench) invoke(pkg, action string, params map[string]any) platform.Activation {
	b.Helper()
	id, err := b.patiently(makeCall(b.T, pkg, action, params))
	if err != nil {
		b.Fatalf("invoke: %v", err)
	}
	return id
}

// patiently invokes, again when a refusal for too many calls has passed.
func (b *bench) patiently(call platform.Call) (platform.Activation, error) {
	for tries := 0; ; tries++ {
		id, err := b.platform.Invoke(b.Context(), call)
		var throttle *platform.Throttle
		if !errors.As(err, &throttle) || tries == throttledMax {
			return id, err
		}
		timer := time.NewTimer(time.Until(throttle.Until))
		select {
		case <-timer.C:
		case <-b.Context().Done():
			timer.Stop()
			return id, err
		}
	}
}

// throttledMax is how often in a row a call may be refused for too many.
const throttledMax = 20

func makeCall(t *testing.T, pkg, action string, params map[string]any) platform.Call {
	t.Helper()
	text, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	if params == nil {
		text = nil
	}
	return platform.Call{Package: pkg, Action: action, Params: text}
}

// awaitMax bounds every wait, far above what any should take.
const awaitMax = 30 * time.Second

func (b *bench) await(id platform.Activation) platform.Outcome {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), awaitMax+2*b.traits.Late)
	defer cancel()
	outcome, err := b.platform.Await(ctx, id)
	if err != nil {
		b.Fatalf("await: %v", err)
	}
	if strings.Contains(outcome.Message, secret) {
		b.Errorf("message shows an init-only parameter: %s", outcome.Message)
	}
	if outcome.Kind != platform.Success && outcome.Message == "" {
		b.Errorf("outcome %s without a message", outcome.Kind)
	}
	return outcome
}

// call invokes and awaits.
func (b *bench) call(pkg, action string, params map[string]any) platform.Outcome {
	b.Helper()
	outcome := b.await(b.invoke(pkg, action, params))
	b.settle()
	return outcome
}

// settle waits until the container of a call whose outcome is known is idle.
func (b *bench) settle() {
	if b.traits.Slow > 0 {
		<-time.After(b.traits.Slow)
	}
}

// wantKilled is want for a container that was killed by its memory limit.
func (b *bench) wantKilled(outcome platform.Outcome) platform.Outcome {
	b.Helper()
	if !b.traits.VagueMemory {
		return b.want(outcome, platform.OutOfMemory)
	}
	if b.want(outcome, platform.Lost); !outcome.MaybeMemory {
		b.Errorf("a container killed by its limit: %+v does not say that it may have been that", outcome)
	}
	return outcome
}

// want fails the test unless the outcome is of the kind.
func (b *bench) want(outcome platform.Outcome, kind platform.Kind) platform.Outcome {
	b.Helper()
	if outcome.Kind != kind {
		b.Fatalf("outcome is %s (%s), want %s", outcome.Kind, outcome.Message, kind)
	}
	return outcome
}

func (b *bench) wantError(err, kind error, texts ...string) {
	b.Helper()
	if !errors.Is(err, kind) {
		b.Fatalf("error is %v, want %v", err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			b.Errorf("error %q does not say %q", err, text)
		}
	}
}

// occupy invokes a call that never ends, and holds a container until it is
// cancelled.
func (b *bench) occupy(pkg, action string) platform.Activation {
	b.Helper()
	return b.invoke(pkg, action, map[string]any{"role": "hang"})
}

func decode[T any](t *testing.T, outcome platform.Outcome) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(outcome.Result, &value); err != nil {
		t.Fatalf("result %s: %v", outcome.Result, err)
	}
	return value
}

// mib formats memory for messages of this package's tests.
func mib(b job.Bytes) string { return fmt.Sprintf("%.1f MiB", float64(b)/float64(job.MB)) }
