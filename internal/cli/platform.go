// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/report"
)

func (a *app) platformCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "platform",
		Short: "Look at the platform that runs the containers, or serve it to others",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.platformCheckCommand(), a.platformServeCommand())
	return cmd
}

func (a *app) platformCheckCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "See whether the platform's limits on memory and time really hold",
		Long: `Check starts workers that behave, one that takes more memory than its limit and
one that computes longer than its limit, and shows what became of them.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx := cmd.Context()
			e, err := a.open(ctx, o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.close()) }()
			id, err := job.NewID(time.Now(), rand.Reader)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, clearScratch(ctx, e.store, id)) }()
			rows, err := checkLimits(ctx, e.config.Platform, e.config.Init, id)
			if err != nil {
				return err
			}
			if o.json {
				err = report.JSON(a.stdout, map[string]any{"checks": rows})
			} else {
				err = report.Checks(a.page(), rows)
			}
			for _, row := range rows {
				if !row.Passed {
					err = errors.Join(err, fmt.Errorf("check failed: %s: %s", row.What, row.Detail))
				}
			}
			return err
		},
	}
	o.poolFlags(cmd)
	o.storeFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	return cmd
}

// overrunTimeout is the time limit of the action that a check overruns.
const overrunTimeout = time.Second

// peakSlack is by how much a peak may exceed a limit that holds: what a kernel
// counts in batches.
const peakSlack = job.MB

type limitCheck struct {
	what   string
	task   job.Task
	memory job.Bytes
	time   time.Duration
	want   platform.Kind
}

// checkLimits makes one call after the other of workers that keep or break the
// limits of their actions. The first one measures a worker at rest; if that does
// not fit there are no others.
func checkLimits(ctx context.Context, p platform.Platform, init map[string]string, id job.ID) (rows []report.CheckRow, err error) {
	limits, err := p.Limits(ctx)
	if err != nil {
		return nil, err
	}
	memory := max(limits.MemoryMin, job.MB)
	probe := job.Task{Role: job.RoleProbe, Job: id}
	pkg := "disdel-check-" + string(id)
	defer func() { err = errors.Join(err, p.Remove(context.WithoutCancel(ctx), pkg)) }()
	check := func(c limitCheck) (out platform.Outcome, err error) {
		action := platform.Action{Name: fmt.Sprintf("check%d", len(rows)), Memory: c.memory, Timeout: c.time}
		if err := p.Deploy(ctx, platform.Package{Name: pkg, Init: init, Actions: []platform.Action{action}}); err != nil {
			return out, err
		}
		params, err := json.Marshal(c.task)
		if err != nil {
			return out, fmt.Errorf("check: %w", err)
		}
		activation, err := p.Invoke(ctx, platform.Call{Package: pkg, Action: action.Name, Params: params})
		if err != nil {
			return out, err
		}
		if out, err = p.Await(ctx, activation); err != nil {
			return out, err
		}
		rows = append(rows, checkRow(c, limits, out))
		return out, nil
	}
	rest, err := check(limitCheck{"a worker at rest", probe, memory, limits.TimeoutDefault, platform.Success})
	if err != nil {
		return rows, err
	}
	if rest.Kind == platform.OutOfMemory || rest.Kind == platform.Success && rest.Usage.Peak > memory-job.MB {
		last := &rows[len(rows)-1]
		last.Passed, last.Detail = false, fmt.Sprintf("a worker does not fit into %v; raise --min-memory: %s", memory, last.Detail)
		return rows, nil
	}
	fits, bursts, busy := probe, probe, probe
	// Half of what a worker leaves, and twice the limit.
	fits.Allocate, bursts.Allocate, busy.Busy = max((memory-rest.Usage.Peak)/2, 0), 2*memory, 10*overrunTimeout
	overrun := min(max(overrunTimeout, limits.TimeoutMin), limits.TimeoutDefault)
	for _, c := range []limitCheck{
		{fmt.Sprintf("takes %v more, in all %v of %v", fits.Allocate, rest.Usage.Peak+fits.Allocate, memory), fits, memory, limits.TimeoutDefault, platform.Success},
		{fmt.Sprintf("takes %v of %v", bursts.Allocate, memory), bursts, memory, limits.TimeoutDefault, platform.OutOfMemory},
		{fmt.Sprintf("computes %v in %v", busy.Busy, overrun), busy, memory, overrun, platform.TimedOut},
	} {
		if _, err := check(c); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func checkRow(c limitCheck, limits job.Limits, out platform.Outcome) report.CheckRow {
	row := report.CheckRow{
		What: c.what, Want: string(c.want), Got: string(out.Kind), Passed: out.Kind == c.want, Detail: checkDetail(limits, out),
	}
	if c.want == platform.OutOfMemory && out.MaybeMemory {
		row.Passed = true // the platform can tell no more than that
	}
	if out.Kind == platform.Success && out.Usage.Peak > c.memory+peakSlack {
		row.Passed, row.Detail = false, "took more than its limit and lived: "+row.Detail
	}
	return row
}

func checkDetail(limits job.Limits, out platform.Outcome) string {
	u := out.Usage
	detail := fmt.Sprintf("peak %v of %v (%s), started in %v, ran %v", u.Peak, u.Limit, limits.Enforcement,
		u.Init.Round(100*time.Microsecond), u.Duration.Round(time.Millisecond))
	var result job.TaskResult
	switch {
	case out.Kind != platform.Success:
		detail = out.Message
	case json.Unmarshal(out.Result, &result) == nil && result.Probe != nil:
		detail += fmt.Sprintf("; %.2f GFLOP/s, store %.0f MB/s, kernels %s", result.Probe.FLOPS/1e9, result.Probe.StoreRate/1e6, result.Probe.KernelSet)
	}
	return detail
}
