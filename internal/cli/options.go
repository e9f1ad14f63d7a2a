// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"disdel/internal/data/format"
	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

// options are the flags that several commands share.
type options struct {
	spec  job.Spec
	pool  pool.Config
	store string
	// workerStore is the store's address as containers see it; "" is store.
	workerStore string
	// platform is what containers run on, image what they run where they run one;
	// "" is made of the worker beside this program. whisk says which OpenWhisk.
	platform, image string
	whisk           whiskOptions
	// folders are what containers of the docker platform see of this machine.
	folders []string
	// enforcement is one of the process driver's kinds; "" is the first that works.
	enforcement string
	// dataDir, offline and shape say where data comes from and how it looks.
	dataDir     string
	offline     bool
	shape       *format.Shape
	json, quiet bool
}

func (o *options) trainFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.spec.Kind, o.spec.Model = job.Train, job.DefaultModel
	o.spec.Epochs, o.spec.Batch = job.DefaultEpochs, job.DefaultBatch
	f.StringVar(&o.spec.Model, "model", job.DefaultModel, "model: cnn (the thesis's), cnn-deep or mlp")
	f.Var(countValue{&o.spec.Epochs}, "epochs", "passes over the training part")
	f.Var(countValue{&o.spec.Batch}, "batch", "batch size of a sequential run, in records")
	f.StringVar(&o.spec.Optimizer, "optimizer", job.DefaultOptimizer, "what each replica learns with: adam, adamw or sgd")
	f.Var(rateValue{&o.spec.LearningRate}, "lr", "learning rate of the optimizer (default: 0.001, for sgd 0.01)")
	f.Uint64Var(&o.spec.Seed, "seed", job.DefaultSeed, "seed of weights and shuffles")
	f.Var(countValue{&o.spec.Replicas}, "workers", "number of replicas that learn at once (default: planned)")
	f.Var(countValue{&o.spec.LocalBatch}, "local-batch", "batch size of one replica (default: planned)")
	f.Var(countValue{&o.spec.Rounds}, "rounds", "how often weights are averaged; 1 is the thesis (default: planned)")
}

func (o *options) dataFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.dataDirFlag(cmd)
	f.BoolVar(&o.offline, "offline", false, "download nothing")
	f.Var(shapeValue{&o.shape}, "shape", "shape of the images in a CSV file, such as 28x28 or 32x32x3 (default: what the file says, else square)")
}

func (o *options) dataDirFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.dataDir, "data-dir", "", "folder with data sets, or with a folder of each one's name (default: $DISDEL_DATA)")
}

func (o *options) platformFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(bytesValue{&o.spec.Memory}, "memory", "memory limit of each container, in MB or with a unit (default: planned)")
	f.Var(durationValue{&o.spec.Timeout}, "timeout", "time limit of one invocation, in seconds or as 1m30s (default 60)")
	f.Var(countValue{&o.spec.Containers}, "containers", "most containers at once (default: planned)")
	o.poolFlags(cmd)
}

func (o *options) poolFlags(cmd *cobra.Command) {
	o.containerFlags(cmd)
	o.workerStoreFlag(cmd)
	o.platformKindFlags(cmd)
}

// containerFlags say what limits the pool's containers have.
func (o *options) containerFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(bytesValue{&o.pool.PoolMemory}, "pool-memory", "memory of all containers together (default 2048); with OpenWhisk what all invokers have, as far as it is known (default 1024)")
	f.Var(bytesValue{&o.pool.MemoryMin}, "min-memory", "smallest memory limit that the embedded platform offers (default 128)")
	f.Var(bytesValue{&o.pool.MemoryMax}, "max-memory", "largest memory limit that the embedded platform offers (default 512)")
	o.enforcementFlag(cmd)
}

// platformKindFlags choose between all platforms.
func (o *options) platformKindFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(platformValue{&o.platform, []string{platformProcess, platformDocker, platformOpenWhisk}}, "platform",
		"what containers run on: process (child processes), docker or openwhisk")
	f.StringVar(&o.image, "image", "", "image of the worker, for --platform docker (default: made of the worker beside this program) or openwhisk")
	o.whiskFlags(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return checkPlatformFlags(o.platform, cmd) }
}

func (o *options) enforcementFlag(cmd *cobra.Command) {
	cmd.Flags().Var(enforcementValue{&o.enforcement}, "enforcement", "who enforces memory limits: cgroup-v2, cgroup-v1, systemd-scope or watched (default: the first that works)")
}

func (o *options) storeFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.store, "store", "", "where models, data and logs live: dir:///absolute/path or redis[s]://[user:password@]host[:port][/db] (default: $DISDEL_STORE, else the user's data folder)")
}

func (o *options) workerStoreFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.workerStore, "worker-store", "", "address of the store as containers see it, if it differs; without user and password it takes those of --store")
}

func (o *options) outputFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object instead of text")
	cmd.Flags().BoolVar(&o.quiet, "quiet", false, "no progress on stderr")
}
