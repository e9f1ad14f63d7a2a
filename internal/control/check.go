// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"disdel/internal/job"
)

// errResult is wrapped by errors about a worker's answer that its task cannot
// have. Taking one for done would have the same task start again for ever.
var errResult = errors.New("the worker's answer does not fit its task")

// OutputExtension is that of files for predictions, in any case.
const OutputExtension = ".csv"

// check says whether a job can start like this.
func (c *Created) check() error {
	if err := c.Job.Validate(); err != nil {
		return err
	}
	if err := c.Spec.Validate(); err != nil {
		return fmt.Errorf("job %s: %w", c.Job, err)
	}
	// The spec may come from a log that others can write.
	if out := c.Spec.Output; out != "" && (!filepath.IsAbs(out) || !strings.EqualFold(filepath.Ext(out), OutputExtension)) {
		return fmt.Errorf("job %s: output %q: want an absolute path that ends in %s", c.Job, out, OutputExtension)
	}
	if c.Spec.Kind == job.Infer && c.Model == nil {
		return fmt.Errorf("job %s: inference without a model", c.Job)
	}
	if d := c.Dataset; d.ShardRecords < 1 || d.Train < 0 || d.Test < 0 || d.Classes < 1 {
		return fmt.Errorf("job %s: data set %s with %d and %d records in shards of %d, %d classes",
			c.Job, d.Name, d.Train, d.Test, d.ShardRecords, d.Classes)
	}
	return nil
}

// check says whether the plan can follow s.
func (p *Planned) check(s State) error {
	switch n := p.Numerics; {
	case s.Resources != nil:
		return fmt.Errorf("a second plan")
	case p.Resources.Revision != 0 || p.Resources.InferPieces < 1 || p.Resources.InferPieces > job.MaxReplicas || p.Resources.Containers < 1:
		return fmt.Errorf("a first plan of revision %d, %d infer pieces, %d containers",
			p.Resources.Revision, p.Resources.InferPieces, p.Resources.Containers)
	case (n == nil) != (s.Created.Spec.Kind == job.Infer):
		return fmt.Errorf("a numerics plan is for training, and training needs one")
	case n != nil && (n.Replicas < 1 || n.Replicas > job.MaxReplicas || n.Steps < 1 || n.RoundSteps < 1):
		return fmt.Errorf("a numerics plan of %d replicas, %d steps in rounds of %d", n.Replicas, n.Steps, n.RoundSteps)
	}
	return nil
}

// checkTask says whether the job can have such a task.
func (s State) checkTask(t job.Task) error {
	ok := false
	switch t.Role {
	case job.RoleProbe:
		ok = true
	case job.RoleTrain:
		ok = s.Numerics != nil && t.Replica >= 0 && t.Replica < s.Numerics.Replicas
	case job.RoleAverage:
		ok = s.Numerics != nil
	case job.RoleInfer:
		ok = t.Piece >= 0 && t.Piece < len(s.Pieces)
	case job.RoleEvaluate:
		ok = s.Resources != nil && t.Dataset != nil
	case job.RoleNothing:
		// No job has one.
	}
	if !ok {
		return fmt.Errorf("task %s of replica %d, piece %d is none of this job", t.Role, t.Replica, t.Piece)
	}
	return nil
}

// checkResult says whether r can be the answer of a worker that succeeded with
// t. n is nil where nothing is trained.
func checkResult(n *job.Numerics, t job.Task, r *job.TaskResult) error {
	if r == nil {
		return fmt.Errorf("%w: none", errResult)
	}
	switch t.Role {
	case job.RoleProbe:
		if r.Probe == nil || r.Probe.KernelSet == "" || r.Probe.Package <= 0 {
			return fmt.Errorf("%w: nothing was measured", errResult)
		}
	case job.RoleTrain:
		waited := t.Meet && r.Reason == job.NeedPeer
		if r.Step < t.From || r.Step == t.From && !waited || r.Step > t.To {
			return fmt.Errorf("%w: it stopped at step %d, of %d to %d", errResult, r.Step, t.From, t.To)
		}
		fallthrough
	case job.RoleAverage:
		if r.Round < 0 || r.Round > n.Rounds() {
			return fmt.Errorf("%w: it has seen %d averages of %d", errResult, r.Round, n.Rounds())
		}
		if (r.Round == n.Rounds() || t.Role == job.RoleAverage && t.To == n.Steps) && r.Digest == "" {
			return fmt.Errorf("%w: the trained model has no digest", errResult)
		}
	case job.RoleEvaluate:
		classes := t.Dataset.Classes
		if len(r.Confusion) != classes || r.Records != t.Dataset.Test {
			return fmt.Errorf("%w: it counted %d records of %d classes", errResult, r.Records, len(r.Confusion))
		}
		for _, row := range r.Confusion {
			if len(row) != classes {
				return fmt.Errorf("%w: a class has %d columns of %d", errResult, len(row), classes)
			}
		}
	case job.RoleInfer, job.RoleNothing:
		// What inference found is in the store.
	}
	return nil
}
