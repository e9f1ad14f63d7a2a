// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/report"
	"disdel/internal/store"
	"disdel/internal/store/mem"
)

type planOutput struct {
	Numerics  *job.Numerics `json:"numerics,omitempty"`
	Digest    string        `json:"digest,omitempty"`
	Resources job.Resources `json:"resources"`
	Limits    job.Limits    `json:"limits"`
}

func (a *app) planCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "plan DATASET",
		Short: "Print how a training job would be divided, and run nothing",
		Long: `Plan prints the numerics plan (what decides the bits of the result) and the
resource plan (what decides memory and time) of the training job with the same
options. It trains nothing; if a worker has never been measured on this platform,
it starts one container to do so.`,
		Example: `  disdel plan digits
  disdel plan digits --workers 8 --pool-memory 512`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			o.spec.Dataset = args[0]
			ctx := cmd.Context()
			e, err := a.open(ctx, o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, e.close()) }()
			created, err := prepare(ctx, e.store, o.spec)
			if err != nil {
				return err
			}
			created.PlanOnly = true
			// A plan is no job: its log is not kept.
			notebook := mem.New()
			defer func() { err = errors.Join(err, notebook.Close()) }()
			e.config.Store = notebook
			if _, err := control.Run(ctx, e.config, created); err != nil {
				return err
			}
			return a.printPlan(cmd, o, notebook, created.Job)
		},
	}
	o.trainFlags(cmd)
	o.platformFlags(cmd)
	o.storeFlag(cmd)
	o.outputFlags(cmd)
	return cmd
}

func (a *app) printPlan(cmd *cobra.Command, o *options, notebook store.Store, id job.ID) error {
	s, err := control.Load(cmd.Context(), notebook, id)
	if err != nil {
		return err
	}
	if s.Finished != nil && s.Finished.Status != job.Succeeded {
		return errors.New(s.Finished.Error)
	}
	if o.json {
		return report.JSON(a.stdout, planOutput{s.Numerics, s.Plan, *s.Resources, s.Created.Limits})
	}
	return report.Plan(a.stdout, s.Numerics, *s.Resources)
}
