// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
	"disdel/internal/store"
)

// A state file holds tensors group by group. A replica's has the model's, then
// the first and the second moments of the local optimizer as far as it has any; a
// global state also the outer optimizer's momentum. Moments and momentum belong to
// what is learned, so the model's own state has none. Where replicas exchange
// gradients, a replica's has these alone, and a global state the model's and the
// moments.
const (
	prefixM        = "m."
	prefixV        = "v."
	prefixOuter    = "outer."
	prefixGradient = "gradient."
)

// group describes one group of a state file: tensors of a flat vector, their
// names after a prefix.
type group struct {
	prefix string
	params []nn.Param
}

// groups are the model's tensors and the moments.
func (t *training) groups() []group {
	learned := nn.Learned(t.params)
	all := []group{{"", t.params}, {prefixM, learned}, {prefixV, learned}}
	return all[:1+t.optimizer.Moments()]
}

// replicaGroups are those of a replica's state, globalGroups of a global one.
func (t *training) replicaGroups() []group {
	if t.stepwise() {
		return []group{{prefixGradient, nn.Learned(t.params)}}
	}
	return t.groups()
}

func (t *training) globalGroups() []group {
	if t.stepwise() {
		return t.groups()
	}
	return append(t.groups(), group{prefixOuter, nn.Learned(t.params)})
}

// tensors are the group's tensors in a flat vector.
func (g group) tensors(flat []float32) []safetensors.Tensor {
	out := make([]safetensors.Tensor, len(g.params))
	for i, p := range g.params {
		out[i] = safetensors.Tensor{Name: g.prefix + p.Name, Shape: p.Shape, Data: flat[p.Offset : p.Offset+p.Len]}
	}
	return out
}

// Metadata keys of the project's safetensors files.
const (
	metaNumerics = "disdel.numerics" // digest of the numerics plan
	metaStep     = "disdel.step"     // step of a state
	metaModel    = "disdel.model"    // canonical model spec
	metaDataset  = "disdel.dataset"  // job.Dataset as JSON
)

// maxNumericsBytes bounds a stored numerics plan.
const maxNumericsBytes = 1 << 20

// training is a numerics plan made ready to compute with.
type training struct {
	plan   job.Numerics
	digest string
	model  nn.Spec
	params []nn.Param
	// count and learned are values of the flat vector, and those that are
	// learned, the first.
	count, learned int
	optimizer      nn.Optimizer
	keys           job.Keys
}

// stepwise says that replicas exchange the gradients of every step.
func (t *training) stepwise() bool { return t.plan.Sync == job.SyncStep }

// local is the optimizer that a replica's program has: none that keeps anything,
// where whoever adds up the gradients takes the step.
func (t *training) local() nn.Optimizer {
	if t.stepwise() {
		return nn.Optimizer{Kind: nn.KindSGD, LearningRate: t.optimizer.LearningRate}
	}
	return t.optimizer
}

func (w *Worker) training(ctx context.Context, task job.Task) (*training, error) {
	keys := job.Keys{Job: task.Job, Plan: task.Plan}
	if err := task.Job.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errTask, err)
	}
	raw, err := w.readAll(ctx, keys.Numerics(), maxNumericsBytes)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w; unless its job has ended, this is another store than the controller has: --worker-store must name that of --store as workers reach it", err)
	}
	if err != nil {
		return nil, err
	}
	var plan job.Numerics
	if err := json.Unmarshal(raw, &plan); err != nil {
		return nil, fmt.Errorf("%w: numerics plan %s: %w", errTask, keys.Numerics(), err)
	}
	digest, err := plan.Digest()
	if err != nil {
		return nil, err
	}
	switch {
	case digest != task.Plan:
		return nil, fmt.Errorf("%w: numerics plan %s has digest %s; the task wants %s", errTask, keys.Numerics(), digest, task.Plan)
	case plan.Version != job.NumericsVersion:
		return nil, fmt.Errorf("%w: numerics version %d; this worker computes version %d", errTask, plan.Version, job.NumericsVersion)
	case plan.KernelSet != w.cfg.Kernels.Name:
		return nil, fmt.Errorf("%w: the job was planned for the kernel set %s, this worker has %s; a job never mixes kernel sets",
			errTask, plan.KernelSet, w.cfg.Kernels.Name)
	case plan.Replicas < 1 || plan.RoundSteps < 1 || plan.Steps < 1:
		return nil, fmt.Errorf("%w: numerics plan %s has %d replicas, %d steps in rounds of %d",
			errTask, keys.Numerics(), plan.Replicas, plan.Steps, plan.RoundSteps)
	}
	if err := shard.CheckSplit(plan.Dataset.Train, plan.Dataset.ShardRecords, plan.Replicas, 0); err != nil {
		return nil, fmt.Errorf("%w: numerics plan %s: %w", errTask, keys.Numerics(), err)
	}
	model, err := nn.ParseSpec(plan.Model)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTask, err)
	}
	switch divided := plan.Sync == job.SyncStep; {
	case plan.Sync != "" && !divided:
		return nil, fmt.Errorf("%w: numerics plan %s: sync %q", errTask, keys.Numerics(), plan.Sync)
	case divided && (plan.RoundSteps != 1 || plan.Batch < 1 || plan.StepsPerEpoch < 1 || (plan.StepsPerEpoch-1) > (plan.Dataset.Train-1)/plan.Batch):
		return nil, fmt.Errorf("%w: numerics plan %s: gradients of rounds of %d steps, %d steps an epoch of batches of %d for %d records",
			errTask, keys.Numerics(), plan.RoundSteps, plan.StepsPerEpoch, plan.Batch, plan.Dataset.Train)
	case divided && model.ParamCount() != model.LearnedCount():
		return nil, fmt.Errorf("%w: numerics plan %s: gradients of a model with batchnorm", errTask, keys.Numerics())
	}
	optimizer := nn.Optimizer(plan.Local)
	if err := optimizer.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errTask, err)
	}
	return &training{
		plan: plan, digest: digest, model: model, params: model.Params(), count: model.ParamCount(),
		learned: model.LearnedCount(), optimizer: optimizer, keys: keys,
	}, nil
}

func (w *Worker) readAll(ctx context.Context, key string, limit int64) (data []byte, err error) {
	r, err := w.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err = io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: get %s: more than %d bytes", errObject, key, limit)
	}
	return data, nil
}

func (t *training) stateMeta(step int) map[string]string {
	return map[string]string{metaNumerics: t.digest, metaStep: strconv.Itoa(step)}
}

// modelMeta is the metadata of the trained model: all that running it takes,
// and nothing that differs between two runs of one numerics plan.
func (t *training) modelMeta() (map[string]string, error) {
	dataset, err := json.Marshal(t.plan.Dataset)
	if err != nil {
		return nil, fmt.Errorf("metadata of the model: %w", err)
	}
	return map[string]string{metaNumerics: t.digest, metaModel: string(t.model.Canonical()), metaDataset: string(dataset)}, nil
}

// state is an open state file whose header has been checked.
type state struct {
	key    string
	close  func() error
	reader *safetensors.Reader
	groups []group // those that readGroup has not read
}

// openState opens a state and checks that it belongs to the plan and the step
// and has the tensors of the groups in their order.
func (w *Worker) openState(ctx context.Context, t *training, key string, step int, groups []group) (_ *state, err error) {
	object, err := w.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, object.Close())
		}
	}()
	reader, err := safetensors.NewReader(object)
	if err != nil {
		return nil, fmt.Errorf("state %s: %w", key, err)
	}
	header := reader.Header()
	if header.Metadata[metaNumerics] != t.digest || header.Metadata[metaStep] != strconv.Itoa(step) {
		return nil, fmt.Errorf("%w: state %s: belongs to plan %.12s step %s; want plan %.12s step %d",
			errObject, key, header.Metadata[metaNumerics], header.Metadata[metaStep], t.digest, step)
	}
	if err := checkTensors(header.Tensors, groups); err != nil {
		return nil, fmt.Errorf("state %s: %w", key, err)
	}
	return &state{key: key, close: object.Close, reader: reader, groups: groups}, nil
}

func checkTensors(have []safetensors.Info, groups []group) error {
	i := 0
	for _, g := range groups {
		for _, p := range g.params {
			if i == len(have) {
				return fmt.Errorf("only %d tensors; want %s%s next: %w", i, g.prefix, p.Name, safetensors.ErrFormat)
			}
			if info := have[i]; info.Name != g.prefix+p.Name || info.Len != p.Len {
				return fmt.Errorf("tensor %d is %s with %d values; want %s with %d: %w",
					i, info.Name, info.Len, g.prefix+p.Name, p.Len, safetensors.ErrFormat)
			}
			i++
		}
	}
	if i < len(have) {
		return fmt.Errorf("%d tensors; want %d: %w", len(have), i, safetensors.ErrFormat)
	}
	return nil
}

// readGroup reads the next group of tensors into a flat vector.
func (s *state) readGroup(flat []float32) error {
	g := s.groups[0]
	s.groups = s.groups[1:]
	for _, p := range g.params {
		if err := s.reader.ReadNext(flat[p.Offset : p.Offset+p.Len]); err != nil {
			return fmt.Errorf("%s: %s%s: %w", s.key, g.prefix, p.Name, err)
		}
	}
	return nil
}

// skipGroup passes over the next group of tensors.
func (s *state) skipGroup() error {
	g := s.groups[0]
	s.groups = s.groups[1:]
	for _, p := range g.params {
		if err := s.reader.Skip(); err != nil {
			return fmt.Errorf("%s: %s%s: %w", s.key, g.prefix, p.Name, err)
		}
	}
	return nil
}

// finish checks that nothing follows, which also verifies the object's end.
func (s *state) finish() error {
	if err := s.reader.Finish(); err != nil {
		return fmt.Errorf("%s: %w", s.key, err)
	}
	return nil
}

// putTensors stores a safetensors file.
func (w *Worker) putTensors(ctx context.Context, key string, meta map[string]string, all []safetensors.Tensor) error {
	_, err := w.store.PutIfAbsent(ctx, key, func(out io.Writer) error {
		return safetensors.Write(out, meta, all)
	})
	return err
}
