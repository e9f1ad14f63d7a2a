// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/report"
	"disdel/internal/store/mem"
)

// planOutput is what plan prints as JSON. Without a plan Error says why.
type planOutput struct {
	Error string `json:"error,omitempty"`
	// Spec is what --job takes: the options of the job, with the data set as it was
	// given.
	Spec      *job.Spec      `json:"spec,omitempty"`
	Numerics  *job.Numerics  `json:"numerics,omitempty"`
	Digest    string         `json:"digest,omitempty"`
	Resources *job.Resources `json:"resources,omitempty"`
	Limits    *job.Limits    `json:"limits,omitempty"`
	// Cost is what the job is expected to cost, if the user says what a GB-second
	// costs.
	Cost *float64 `json:"cost,omitempty"`
}

func (a *app) planCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "plan DATASET",
		Short: "Print how a training job would be divided, and run nothing",
		Long: `Plan prints the numerics plan (what decides the bits of the result) and the
resource plan (what decides memory and time) of the training job with the same
options. It trains nothing; if a worker has never been measured on this platform,
it starts one container to do so. On OpenWhisk it does so each time.`,
		Example: `  disdel plan digits
  disdel plan mnist --data-dir ~/data
  disdel plan digits --workers 8 --pool-memory 512
  disdel plan mnist --minimize cost
  disdel plan mnist --estimator thesis`,
		Args: o.datasetOrJob, ValidArgsFunction: completeDataset,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err := o.readJob(cmd, args); err != nil {
				return err
			}
			state, err := a.makePlan(cmd.Context(), o)
			if err == nil && state.Finished != nil && state.Finished.Status != job.Succeeded {
				err = errors.New(state.Finished.Error)
			}
			var cost *float64
			if state.Resources != nil {
				cost = o.cost(state.Resources.GBSeconds)
			}
			switch {
			case o.json && !isUsage(err):
				out := planOutput{Numerics: state.Numerics, Digest: state.Plan, Resources: state.Resources, Cost: cost}
				if state.Created != nil {
					spec := state.Created.Spec
					spec.Dataset = o.spec.Dataset
					out.Spec, out.Limits = &spec, &state.Created.Limits
				}
				if err != nil {
					out.Error = err.Error()
				}
				return errors.Join(err, report.JSON(a.stdout, out))
			case err != nil:
				return err
			default:
				return report.Plan(a.page(), state.Numerics, *state.Resources, cost)
			}
		},
	}
	o.trainFlags(cmd)
	o.jobFlag(cmd)
	o.dataFlags(cmd)
	o.platformFlags(cmd)
	o.storeFlag(cmd)
	o.outputFlags(cmd)
	o.priceFlag(cmd)
	return cmd
}

// makePlan runs a job that ends once it is planned. A plan is no job: its log is
// kept in memory and gone afterwards, and no data set goes to the store.
func (a *app) makePlan(ctx context.Context, o *options) (state control.State, err error) {
	asked, err := a.ask(ctx, o)
	if err != nil {
		return state, err
	}
	e, err := a.open(ctx, o)
	if err != nil {
		return state, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	id, err := job.NewID(time.Now(), rand.Reader)
	if err != nil {
		return state, err
	}
	// Workers use the real store.
	defer func() { err = errors.Join(err, clearScratch(ctx, e.store, id)) }()
	notebook := mem.New()
	defer func() { err = errors.Join(err, notebook.Close()) }()
	e.config.Store = notebook
	observe := e.config.Observe
	e.config.Observe = func(s control.State) {
		if s.Progress().Phase == "probe" { // nothing else is done
			observe(s)
		}
	}
	if _, err := control.Run(ctx, e.config, control.Created{Job: id, Spec: asked.spec, Dataset: asked.dataset, PlanOnly: true}); err != nil {
		return state, err
	}
	return control.Load(context.WithoutCancel(ctx), notebook, id)
}
