// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"disdel/internal/job"
	"disdel/internal/report"
)

func (a *app) inferCommand() *cobra.Command {
	o := &options{spec: job.Spec{Kind: job.Infer, Batch: job.DefaultBatch}}
	cmd := &cobra.Command{
		Use:   "infer DATASET",
		Short: "Run a stored model over a data set's test part, in containers",
		Long: `Infer loads a model from the store, runs it over the test part in containers at
once, and merges what they counted into accuracy, loss and a confusion matrix.

With --output every prediction is written to a file too, in the order of the test
part, whatever the number of containers. The file appears whole when the job has
succeeded; one that is there is replaced.`,
		Example: `  disdel infer digits
  disdel infer digits --model 3f2a9c --json
  disdel infer digits --output predictions.csv`,
		Args: o.datasetOrJob, ValidArgsFunction: completeDataset,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.readJob(cmd, args); err != nil {
				return err
			}
			record, d, err := a.runJob(cmd.Context(), o)
			if err != nil || o.json {
				return err
			}
			return report.Confusion(a.page(), record.Confusion, d.ClassNames)
		},
	}
	cmd.Flags().StringVar(&o.spec.Model, "model", "", "which stored model to run: its digest or the start of it, as \"disdel models\" lists them (default: the newest of the data set)")
	complete(cmd, "model", a.completeDigest(o))
	cmd.Flags().StringVar(&o.spec.Output, "output", "", "CSV file for a line of each test record: its index, its class, the predicted class and its probability")
	o.jobFlag(cmd)
	o.dataFlags(cmd)
	o.platformFlags(cmd)
	o.storeFlag(cmd)
	o.outputFlags(cmd)
	o.priceFlag(cmd)
	return cmd
}
