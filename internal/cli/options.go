// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/data/format"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/platform/pool"
	"disdel/internal/store/redis"
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
	// jobFile names a file with a spec; "" is none.
	jobFile string
	// price is the money for one GB-second; 0 is not known.
	price float64
}

// next is a command that is to be given next, with the store of this one. Who and
// by which password stays with who knows it.
func (o *options) next(command string) string {
	line := "disdel " + command
	if o.store == "" {
		return line
	}
	shown := o.store
	if address, err := redis.ParseAddress(o.store); err == nil {
		shown = address.String()
		if address.WithCredential() != shown {
			shown = strings.Replace(shown, "://", "://USER:PASSWORD@", 1)
		}
	}
	return line + " --store " + shellWord(shown)
}

// hint adds to an error what to do next.
func (o *options) hint(err error) error {
	if errors.Is(err, control.ErrNoJob) {
		return fmt.Errorf("%w; see: %s", err, o.next("jobs"))
	}
	return err
}

// modelHint adds to an error about the model of an inference job what to do next.
func (o *options) modelHint(spec job.Spec, err error) error {
	switch {
	case !errors.Is(err, control.ErrNoModel):
		return err
	case spec.Model == "":
		return fmt.Errorf("%w; run: %s", err, o.next("train "+shellWord(o.spec.Dataset)))
	case strings.Trim(spec.Model, "0123456789abcdef") != "":
		return fmt.Errorf("%w; --model of infer wants the digest of a stored model or the start of it, see: %s", err, o.next("models"))
	}
	return fmt.Errorf("%w; see: %s", err, o.next("models"))
}

// priced is a record with its cost, if the user says what a GB-second costs.
func (o *options) priced(r job.Record) job.Record {
	r.Metrics.Cost = o.cost(r.Metrics.GBSeconds)
	return r
}

// cost is what so many GB-seconds cost, nil if the user does not say what one does.
func (o *options) cost(gbSeconds float64) *float64 {
	if o.price <= 0 {
		return nil
	}
	cost := o.price * gbSeconds
	return &cost
}

func (o *options) priceFlag(cmd *cobra.Command) {
	cmd.Flags().Var(priceValue{&o.price}, "price", "money for one GB-second, GB of 2^30 bytes; the result then has a cost")
}

// shellWord writes text as one word of a shell's command line.
func shellWord(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (o *options) trainFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.spec.Kind, o.spec.Model = job.Train, job.DefaultModel
	o.spec.Epochs, o.spec.Batch, o.spec.Sync = job.DefaultEpochs, job.DefaultBatch, job.SyncRounds
	f.StringVar(&o.spec.Model, "model", job.DefaultModel, "what to train: cnn (the thesis's), cnn-deep, lenet5, mlp, resnet20, or a model file of your own, FILE.json")
	f.Var(countValue{&o.spec.Epochs}, "epochs", "passes over the training part")
	f.Var(countValue{&o.spec.Batch}, "batch", "batch size of a sequential run, in records")
	f.StringVar(&o.spec.Optimizer, "optimizer", job.DefaultOptimizer, "what each replica learns with: adam, adamw or sgd")
	f.Var(rateValue{numberValue{&o.spec.LearningRate}}, "lr", "learning rate of the optimizer (default: 0.001, for sgd 0.01)")
	f.StringVar(&o.spec.Schedule, "schedule", "", "how the learning rate changes: constant (as without), step (a tenth after half of all steps, a hundredth after three quarters) or cosine (down to zero)")
	f.Var(numberValue{&o.spec.Warmup}, "warmup", "epochs in which the learning rate grows from zero, such as 0.5")
	f.Var(numberValue{&o.spec.L2}, "l2", "adds half of this times the sum of the squared weights, without biases, to what is minimised, such as 0.0001")
	f.Var(numberValue{&o.spec.Clip}, "clip", "the most that the length of a step's gradient over all weights may be; a longer one is scaled down")
	f.Var(numberValue{&o.spec.LabelSmoothing}, "label-smoothing", "share of each label that is spread evenly over all classes, such as 0.1")
	f.BoolVar(&o.spec.Flips, "flips", false, "mirror training records left to right by chance")
	f.Var(countValue{&o.spec.Shifts}, "shifts", "move training records by up to so many pixels by chance, zeros come in")
	complete(cmd, "schedule", words(nn.Schedules()...))
	o.spec.Seed = job.DefaultSeed
	f.Var(seedValue{&o.spec.Seed}, "seed", "seed of weights and shuffles")
	f.StringVar((*string)(&o.spec.Strategy), "strategy", string(job.Distributed), "how the work is divided: distributed, single (one worker without the platform's limits) or brute-force (one action that holds all data, more memory or time after each failure)")
	f.StringVar((*string)(&o.spec.Minimize), "minimize", string(job.LeastTime), "what the plan makes small: time, memory (of all containers at once) or cost (memory times time)")
	f.StringVar((*string)(&o.spec.Estimator), "estimator", string(job.Exact), "how the memory of training is estimated: exact, or thesis for the thesis's own formula")
	f.Var(countValue{&o.spec.Replicas}, "workers", "number of replicas that learn at once (default: planned)")
	f.Var(countValue{&o.spec.LocalBatch}, "local-batch", "batch size of one replica (default: planned)")
	f.Var(syncValue{&o.spec.Sync}, "sync", "what workers exchange: weights every round (rounds), or gradients every step, which is sequential training, divided (step)")
	complete(cmd, "model", completeModel)
	complete(cmd, "optimizer", words(nn.Optimizers()...))
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
	f.Var(countValue{&o.spec.Containers}, "containers", "containers at once, as far as there is work and room for them (default: planned)")
	f.Var(countValue{&o.spec.Threads}, "threads", "threads of each container (default: planned)")
	f.StringVar(&o.spec.Kernel, "kernel", "", "what containers compute with: auto (as without, the fastest but avx512), generic (plain Go, any machine), avx2, avx512, or reference (the bits of both on any machine, slowly)")
	complete(cmd, "kernel", words(job.KernelForms()...))
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
	f.Var(bytesValue{&o.pool.PoolMemory}, "pool-memory", "memory of all containers together (default 2048); with OpenWhisk that of all invokers, which it does not tell (default there 1024)")
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
	complete(cmd, "enforcement", words(enforcements()...))
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
