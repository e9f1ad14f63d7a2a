// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"
)

func (a *app) trainCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "train DATASET",
		Short: "Train a model on a data set, in containers, and keep it in the store",
		Long: `Train cuts the data set into shards, trains replicas of the model in containers
of the embedded platform, averages them round by round, evaluates the result on
the test part and keeps it in the store.

A data set is a name that "disdel datasets" lists, or the path of your own:
a .npz or .csv file, or a folder with a folder of PNG or JPEG images for each
class. "disdel datasets --help" says how they must look.

The same seed and options give the same model, bit for bit, whatever the number
of containers and whatever fails on the way.

Two strategies are for comparison. "single" takes all steps in one worker process,
one after the other, with the memory that is predicted as its only limit. With
"brute-force" one action decodes the whole training part to float32 in memory, at
the platform's default limits or from --memory and --timeout on; after each failure
it starts again with 256 MB or 10 s more, until the platform's largest. Both take
the sequential batch, so --workers, --local-batch and --rounds do not go with them.`,
		Example: `  disdel train digits
  disdel train digits --model mlp --epochs 10 --json
  disdel train digits --model examples/model.json
  disdel train --job examples/job.json --seed 2
  disdel train mnist --data-dir ~/data
  disdel train ./leaves                     # leaves/oak/1.png, leaves/elm/1.png, ...
  disdel train digits --workers 8 --containers 2
  disdel train digits --rounds 1            # average once, as in the thesis
  disdel train digits --strategy single     # the same on one machine
  disdel train digits --strategy brute-force
  disdel train mnist --minimize memory`,
		Args: o.datasetOrJob, ValidArgsFunction: completeDataset,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.readJob(cmd, args); err != nil {
				return err
			}
			_, _, err := a.runJob(cmd.Context(), o)
			return err
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
