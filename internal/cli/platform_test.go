// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// TestCheckRow: a worker that took more than its limit and lived is no success.
func TestCheckRow(t *testing.T) {
	for _, c := range []struct {
		want, got platform.Kind
		peak      job.Bytes
		passed    bool
	}{
		{platform.Success, platform.Success, 16 * job.MB, true},
		{platform.Success, platform.Success, 17 * job.MB, true},
		{platform.Success, platform.Success, 17*job.MB + 1, false},
		{platform.OutOfMemory, platform.OutOfMemory, 40 * job.MB, true},
		{platform.OutOfMemory, platform.Success, 12 * job.MB, false},
	} {
		row := checkRow(limitCheck{"w", job.Task{}, 16 * job.MB, time.Minute, c.want}, job.Limits{},
			platform.Outcome{Kind: c.got, Result: []byte("{}"), Usage: platform.Usage{Peak: c.peak, Limit: 16 * job.MB}})
		if row.Passed != c.passed {
			t.Errorf("%+v: %+v", c, row)
		}
	}
}

// TestPlatformCheck_TooSmall: limits that no worker fits into say so, and
// nothing else is tried.
func TestPlatformCheck_TooSmall(t *testing.T) {
	d := newDesk(t)
	got := d.run("platform", "check", "--json", "--min-memory", "8", "--max-memory", "64").want(t, ExitFailed, "does not fit into 8 MB", "--min-memory")
	if checks := field[[]any](t, got.object(t), "checks"); len(checks) != 1 {
		t.Errorf("%d checks; want one", len(checks))
	}
}

// TestPlausible: what no worker can have measured is not taken from the cache.
func TestPlausible(t *testing.T) {
	good := job.Probe{KernelSet: "generic-1", Package: job.MB, FLOPS: 1e9, StoreRate: 1e8}
	if !plausible(good) {
		t.Errorf("%+v was refused", good)
	}
	for i, spoil := range []func(*job.Probe){
		func(p *job.Probe) { p.KernelSet = "" },
		func(p *job.Probe) { p.Package = 0 },
		func(p *job.Probe) { p.Held = -1 },
		func(p *job.Probe) { p.FLOPS = 0 },
		func(p *job.Probe) { p.StoreRate = -1 },
		func(p *job.Probe) { p.StoreSeconds = -1 },
	} {
		p := good
		if spoil(&p); plausible(p) {
			t.Errorf("%d: %+v was taken", i, p)
		}
	}
}
