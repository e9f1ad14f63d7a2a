// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/platform/pool"
	"disdel/internal/store"
)

func (a *app) resumeCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "resume JOB",
		Short: "Go on with a job whose controller was killed",
		Long: `Resume reads a job's log from the store and goes on where it ends: what is in the
log is done, everything else is done again. The model is the one that the job
would have given anyway.

A job that another disdel still runs is taken over: the other one then stops.

Where infer --output named a file for predictions, resume replaces none that is
there by now: move or remove it first.`,
		Example: `  disdel jobs
  disdel resume 20261123-130259-4f2a91`,
		Args: o.oneJob, ValidArgsFunction: a.completeJob(o),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := job.ID(args[0])
			if err := id.Validate(); err != nil {
				return usagef("%w", err)
			}
			return a.resume(cmd.Context(), o, id)
		},
	}
	o.enforcementFlag(cmd)
	o.workerStoreFlag(cmd)
	o.platformKindFlags(cmd)
	o.storeFlag(cmd)
	o.outputFlags(cmd)
	o.priceFlag(cmd)
	return cmd
}

func (a *app) resume(ctx context.Context, o *options, id job.ID) (err error) {
	if o.pool, err = a.poolOf(ctx, o, id); err != nil {
		return err
	}
	e, err := a.open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	export := e.config.Export
	e.config.Export = func(ctx context.Context, c control.Created, keys []string) error {
		if err := checkResumed(c.Spec.Output); err != nil {
			return err
		}
		return export(ctx, c, keys)
	}
	e.config.Stage = a.restager(o, e.store, id)
	record, err := control.Resume(ctx, e.config, id)
	return a.conclude(ctx, o, record, err)
}

// restager puts the data of a job into the store whose controller was killed
// before it had done so.
func (a *app) restager(o *options, s store.Store, id job.ID) func(context.Context) error {
	return func(ctx context.Context) error {
		state, err := control.Load(ctx, s, id)
		if err != nil {
			return err
		}
		wanted := state.Created.Dataset
		missing, err := missingShards(ctx, s, wanted)
		if err != nil || len(missing) == 0 {
			return err // it had done so, and could not say it
		}
		if !slices.Contains(data.Names(), wanted.Name) {
			return fmt.Errorf("the job's controller was killed before all of its data set %s was in the store, and where that came from is not known any more: start the job anew", wanted.Name)
		}
		sources, end := a.dataOptions(o)
		defer end()
		set, err := data.Open(ctx, wanted.Name, sources)
		if err != nil {
			return err
		}
		if found := datasetOf(set); found.Digest != wanted.Digest {
			return fmt.Errorf("the job's controller was killed before all of its data set %s was in the store, and what is found now is another one (%.16s, not %.16s): start the job anew",
				wanted.Name, found.Digest, wanted.Digest)
		}
		return stage(ctx, s, set, wanted)
	}
}

// poolOf is the pool that the job was planned for. Where nothing else is asked
// for the job's platform is chosen. A job whose predictions would replace a file is
// refused, before anything of it runs.
func (a *app) poolOf(ctx context.Context, o *options, id job.ID) (cfg pool.Config, err error) {
	s, err := a.openToRead(ctx, o.store)
	if err != nil {
		return cfg, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	state, err := control.Load(ctx, s, id)
	if err != nil {
		return cfg, o.hint(err)
	}
	if path := state.Created.Spec.Output; path != "" && !state.Exported && state.Finished == nil {
		if err := checkResumed(path); err != nil {
			return cfg, err
		}
	}
	if known := state.Created.Platform; o.platform == "" && (known == platformOpenWhisk || known == platformDocker) {
		o.platform = known
	}
	l := state.Created.Limits
	return pool.Config{
		MemoryMin: l.MemoryMin, MemoryMax: l.MemoryMax, MemoryDefault: l.MemoryDefault, PoolMemory: l.PoolMemory,
		TimeoutMin: l.TimeoutMin, TimeoutMax: l.TimeoutMax, TimeoutDefault: l.TimeoutDefault,
		Concurrency: l.Concurrency, PayloadMax: l.PayloadMax,
	}, nil
}
