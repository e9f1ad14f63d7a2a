// SPDX-License-Identifier: Apache-2.0

package job

import "time"

// Role says what one invocation of a worker does.
type Role string

// The roles.
const (
	// RoleProbe measures the worker and its container.
	RoleProbe Role = "probe"
	// RoleNothing does nothing: what it takes is the platform's own.
	RoleNothing Role = "nothing"
	// RoleTrain does local steps of one replica.
	RoleTrain Role = "train"
	// RoleAverage averages all replicas' states at the end of a round.
	RoleAverage Role = "average"
	// RoleInfer runs a model over a range of the test part's shards.
	RoleInfer Role = "infer"
	// RoleEvaluate merges what the infer tasks counted.
	RoleEvaluate Role = "evaluate"
)

// Task is the parameters of one invocation. It is small: data and weights
// travel through the store. Which fields count depends on the role.
type Task struct {
	Role Role `json:"role"`
	Job  ID   `json:"job,omitempty"`
	// Plan is the digest of the numerics plan (train, average).
	Plan string `json:"plan,omitempty"`

	// Replica does the steps From to To (train). With Meet all replicas run at the
	// same time, To may be beyond the end of the round, and replicas meet at the
	// end of each round on the way.
	Replica int `json:"replica,omitempty"`
	// From and To are steps. For average From is the start of the round, To its
	// end.
	From int  `json:"from,omitempty"`
	To   int  `json:"to,omitempty"`
	Meet bool `json:"meet,omitempty"`
	// Budget is how long training may go on before it hands over; 0 is no bound.
	Budget time.Duration `json:"budget_ns,omitempty"`

	// Window is the most records of a shard that are held at a time (train,
	// infer); 0 is all of them.
	Window int `json:"window,omitempty"`
	// Whole has training decode all its records to float32 in memory before the
	// first step, as the thesis's baseline does.
	Whole bool `json:"whole,omitempty"`
	// Threads is how many threads compute, 0 counts as 1; Spin makes them wait for
	// each other in loops (train, infer). MicroBatch is the most records of a step
	// that are computed at once, 0 is all (train).
	Threads    int  `json:"threads,omitempty"`
	Spin       bool `json:"spin,omitempty"`
	MicroBatch int  `json:"micro_batch,omitempty"`
	// Remake has the backward pass make outputs of batch normalisations again, rather
	// than keep them (train).
	Remake bool `json:"remake,omitempty"`

	// Spare is how much memory the container has beyond what the task is predicted to
	// take; 0 is unknown.
	Spare Bytes `json:"spare,omitempty"`

	// Kernel is the form in which kernels compute, "" the worker's own choice. A
	// worker that cannot run it refuses.
	Kernel string `json:"kernel,omitempty"`

	// Model is the store key of a model; Dataset says what it reads (infer,
	// evaluate).
	Model   string   `json:"model,omitempty"`
	Dataset *Dataset `json:"dataset,omitempty"`
	// Piece counts the infer tasks of a job from 0; it reads the test shards
	// ShardFrom to ShardTo. Pieces is their number (evaluate).
	Piece     int `json:"piece,omitempty"`
	ShardFrom int `json:"shard_from,omitempty"`
	ShardTo   int `json:"shard_to,omitempty"`
	Pieces    int `json:"pieces,omitempty"`
	// Batch is the batch size of infer. Predict has it store every prediction.
	Batch   int  `json:"batch,omitempty"`
	Predict bool `json:"predict,omitempty"`

	// Fence is the store key of a status that ends the task as soon as it is there;
	// "" where the platform can end it.
	Fence string `json:"fence,omitempty"`

	// Allocate makes a probe take that much memory, Busy makes it compute that
	// long: to see whether the platform's limits hold.
	Allocate Bytes         `json:"allocate,omitempty"`
	Busy     time.Duration `json:"busy_ns,omitempty"`
}

// TaskResult is a worker's answer. Which fields count depends on the role.
type TaskResult struct {
	// Error is set when the task failed for good; Reason then classifies it.
	Error  string `json:"error,omitempty"`
	Reason Reason `json:"reason,omitempty"`

	// Step is where a train task stopped: To, or earlier with Reason NeedTime or
	// NeedPeer.
	Step int `json:"step,omitempty"`
	// LossSum is the sum over Records records of the training loss (train), or
	// of the test loss (infer, evaluate).
	LossSum float64 `json:"loss_sum,omitempty"`
	Records int     `json:"records,omitempty"`
	// Round is the number of rounds whose average the worker has seen (train).
	Round int `json:"round,omitempty"`
	// Digest is the hexadecimal SHA-256 of the model file, from whoever did the
	// last average.
	Digest string `json:"digest,omitempty"`
	// Confusion counts records by true class and predicted class (evaluate).
	Confusion [][]int `json:"confusion,omitempty"`
	// StepTime is the time of training steps alone, without loading and storing;
	// Steps is their number.
	StepTime time.Duration `json:"step_time_ns,omitempty"`
	Steps    int           `json:"steps,omitempty"`
	// FirstStep is the time from the start of the task to the end of its first step.
	FirstStep time.Duration `json:"first_step_ns,omitempty"`

	Probe *Probe `json:"probe,omitempty"`
}

// Reason says why a worker stopped before the task was done.
type Reason string

// The reasons.
const (
	// NeedTime: the budget ended; the state at Step is in the store.
	NeedTime Reason = "need_time"
	// NeedPeer: the other replicas did not come to the end of the round in time;
	// the state at Step is in the store.
	NeedPeer Reason = "need_peer"
	// NonFinite: the loss became NaN or infinite; repeating cannot help.
	NonFinite Reason = "non_finite"
	// StoreFailed: the store did not answer, or lacked an object that should be
	// there. The only reason to try again.
	StoreFailed Reason = "store"
	// Corrupt: an object is not what was stored, or not in its format.
	Corrupt Reason = "corrupt"
	// BadTask: the task makes no sense to this worker.
	BadTask Reason = "bad_task"
	// Internal: anything else.
	Internal Reason = "internal"
)

// Probe is what a probe task measured.
type Probe struct {
	// Version and Binary identify the worker program: its version and the
	// hexadecimal SHA-256 of its file.
	Version string `json:"version"`
	Binary  string `json:"binary"`
	// KernelSet names the kernels that the worker's processor gets, or those of the
	// form that the task asked for, which Kernel says then.
	KernelSet string `json:"kernel_set"`
	Kernel    string `json:"kernel,omitempty"`
	// Package is the resident memory of a worker at the end of a task, without the
	// memory that the task took for its model and records: what it needs of its
	// program, runtime, connections, buffers.
	Package Bytes `json:"package_bytes"`
	// Floor is the most that was resident before the first call; 0 if unknown.
	Floor Bytes `json:"floor_bytes,omitempty"`
	// Held is what the probe itself took on top of Package.
	Held Bytes `json:"held_bytes"`
	// FLOPS is the rate of a training step in floating point operations a
	// second, one thread.
	FLOPS float64 `json:"flops"`
	// StoreRate is in bytes a second, for one put and get.
	StoreRate float64 `json:"store_rate"`
	// StoreSeconds is the time of one operation on a small object.
	StoreSeconds float64 `json:"store_seconds"`
}

// Seen is the probe of a worker whose peak a platform measured: it also sees what
// belongs to the container but not to the process.
func (p Probe) Seen(peak Bytes) Probe {
	if more := peak - p.Held - p.Package; more > 0 {
		p.Package += more
		p.Floor += more
	}
	return p
}

// ReplicaProgress is what a training worker says of itself now and then, through
// the store: for people, nothing depends on it.
type ReplicaProgress struct {
	Step int     `json:"step"`
	Loss float64 `json:"loss"`
	// StepTime and Steps are those of its invocation so far.
	StepTime time.Duration `json:"step_time_ns"`
	Steps    int           `json:"steps"`
}
