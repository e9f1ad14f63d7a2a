// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"strconv"
	"strings"
)

// Keys builds the store keys of one job. A replica's state is keyed by the
// numerics plan, the replica and the step, never by attempt or slice, so that
// repeats and backups write the same bytes under the same key.
type Keys struct {
	Job ID
	// Plan is the digest of the job's numerics plan; "" where a job has none.
	Plan string
}

const planDigits = 16 // of the digest: enough within one job, short enough to read

func (k Keys) state() string {
	return fmt.Sprintf("jobs/%s/state/%.*s", k.Job, planDigits, k.Plan)
}

// Log is the job's event log.
func (k Keys) Log() string { return LogPrefix + string(k.Job) }

// Scratch is the prefix of all objects that are only needed while the job runs.
func (k Keys) Scratch() string { return fmt.Sprintf("jobs/%s/", k.Job) }

// Numerics is the object that holds the numerics plan.
func (k Keys) Numerics() string { return k.state() + "/numerics" }

// States is the prefix of all states.
func (k Keys) States() string { return k.state() + "/step/" }

// StatesAt is the prefix of all states after a step.
func (k Keys) StatesAt(step int) string { return fmt.Sprintf("%s%09d/", k.States(), step) }

// Global is the averaged state at a step: weights, moments and the outer
// optimizer's momentum.
func (k Keys) Global(step int) string { return k.StatesAt(step) + globalName }

// Replica is a replica's state after a step.
func (k Keys) Replica(replica, step int) string {
	return fmt.Sprintf("%s%s%04d", k.StatesAt(step), replicaName, replica)
}

const (
	globalName  = "global"
	replicaName = "replica-"
)

// ParseGlobal returns the step of a key that Global made.
func (k Keys) ParseGlobal(key string) (step int, ok bool) {
	rest, ok := strings.CutPrefix(key, k.States())
	if !ok {
		return 0, false
	}
	number, name, _ := strings.Cut(rest, "/")
	step, err := strconv.Atoi(number)
	return step, err == nil && name == globalName
}

// Progress is the status in which a replica says how far it is.
func (k Keys) Progress(replica int) string {
	return fmt.Sprintf("jobs/%s/progress/%04d", k.Job, replica)
}

// Controller is the status in which the job's controller says that it is there.
func (k Keys) Controller() string { return fmt.Sprintf("jobs/%s/controller", k.Job) }

// Final is the trained model, weights only.
func (k Keys) Final() string { return k.state() + "/model" }

// Counts is what inference over one piece of the test part found.
func (k Keys) Counts(part int) string { return fmt.Sprintf("jobs/%s/counts/%06d", k.Job, part) }

// Fence is the status that a controller, counted from 0, sets to end its tasks
// where the platform cannot do that.
func (k Keys) Fence(controller int) string {
	return fmt.Sprintf("jobs/%s/fence/%06d", k.Job, controller)
}

// Predictions is what inference over one piece of the test part predicted, in the
// form of [AppendPrediction].
func (k Keys) Predictions(piece int) string {
	return fmt.Sprintf("jobs/%s/predictions/%06d", k.Job, piece)
}

// LogPrefix starts the names of all job logs.
const LogPrefix = "jobs/"

// ModelsLog is the log that lists all models in the store.
const ModelsLog = "models"

// ModelKey is the object that holds the model with the given digest.
func ModelKey(digest string) string { return "models/" + digest }
