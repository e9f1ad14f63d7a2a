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
)

// A state file holds the model's tensors group by group: weights, Adam's first
// moments, Adam's second moments, and in global states the outer optimizer's
// momentum.
const (
	prefixM     = "adam_m."
	prefixV     = "adam_v."
	prefixOuter = "outer."
)

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
	count  int // of parameters
	keys   job.Keys
}

func (w *Worker) training(ctx context.Context, task job.Task) (*training, error) {
	keys := job.Keys{Job: task.Job, Plan: task.Plan}
	if err := task.Job.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errTask, err)
	}
	raw, err := w.readAll(ctx, keys.Numerics(), maxNumericsBytes)
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
	return &training{plan: plan, digest: digest, model: model, params: model.Params(), count: model.ParamCount(), keys: keys}, nil
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
		return nil, fmt.Errorf("get %s: more than %d bytes", key, limit)
	}
	return data, nil
}

// tensors describes one group of a state file over a flat vector.
func tensors(params []nn.Param, prefix string, flat []float32) []safetensors.Tensor {
	out := make([]safetensors.Tensor, len(params))
	for i, p := range params {
		out[i] = safetensors.Tensor{Name: prefix + p.Name, Shape: p.Shape, Data: flat[p.Offset : p.Offset+p.Len]}
	}
	return out
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
	params []nn.Param
}

// openState opens a state and checks that it belongs to the plan and the step
// and has the tensors of the model in their order, for each prefix in turn.
func (w *Worker) openState(ctx context.Context, t *training, key string, step int, prefixes ...string) (_ *state, err error) {
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
		return nil, fmt.Errorf("state %s: belongs to plan %.12s step %s; want plan %.12s step %d",
			key, header.Metadata[metaNumerics], header.Metadata[metaStep], t.digest, step)
	}
	if err := checkTensors(header.Tensors, t.params, prefixes...); err != nil {
		return nil, fmt.Errorf("state %s: %w", key, err)
	}
	return &state{key: key, close: object.Close, reader: reader, params: t.params}, nil
}

func checkTensors(have []safetensors.Info, params []nn.Param, prefixes ...string) error {
	if len(have) != len(params)*len(prefixes) {
		return fmt.Errorf("%d tensors; want %d: %w", len(have), len(params)*len(prefixes), safetensors.ErrFormat)
	}
	for g, prefix := range prefixes {
		for i, p := range params {
			if info := have[g*len(params)+i]; info.Name != prefix+p.Name || info.Len != p.Len {
				return fmt.Errorf("tensor %d is %s with %d values; want %s with %d: %w",
					g*len(params)+i, info.Name, info.Len, prefix+p.Name, p.Len, safetensors.ErrFormat)
			}
		}
	}
	return nil
}

// readGroup reads the next group of tensors into a flat vector.
func (s *state) readGroup(flat []float32) error {
	for _, p := range s.params {
		if err := s.reader.ReadNext(flat[p.Offset : p.Offset+p.Len]); err != nil {
			return fmt.Errorf("%s: %s: %w", s.key, p.Name, err)
		}
	}
	return nil
}

// skipGroup passes over the next group of tensors.
func (s *state) skipGroup() error {
	for _, p := range s.params {
		if err := s.reader.Skip(); err != nil {
			return fmt.Errorf("%s: %s: %w", s.key, p.Name, err)
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
