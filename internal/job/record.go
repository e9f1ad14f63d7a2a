// SPDX-License-Identifier: Apache-2.0

package job

import (
	"bytes"
	"encoding/json"
)

// Status says how a job stands.
type Status string

// The statuses. Running and Interrupted are never the status of a final record.
const (
	Running Status = "running"
	// Interrupted: the job has not ended, and nobody controls it any more.
	Interrupted Status = "interrupted"
	Succeeded   Status = "succeeded"
	Failed      Status = "failed"
	Cancelled   Status = "cancelled"
)

// Record is the result of a job as it is reported; its JSON is what --json
// prints. Field names are fixed.
type Record struct {
	Job    ID     `json:"job"`
	Kind   Kind   `json:"kind"`
	Status Status `json:"status"`
	// Error says why a job did not succeed.
	Error   string      `json:"error,omitempty"`
	Dataset string      `json:"dataset"`
	Model   RecordModel `json:"model"`

	// Strategy is how the work of training was divided.
	Strategy Strategy `json:"strategy,omitempty"`
	// AccuracyCost is what the plan expected the division among replicas to cost
	// of the accuracy, as a fraction; AccuracyNote says why.
	AccuracyCost float64 `json:"expected_accuracy_cost,omitempty"`
	AccuracyNote string  `json:"accuracy_note,omitempty"`

	// What is 0 is not known yet, or no part of such a job, and left out of the JSON.
	Epochs     int `json:"epochs,omitempty"`
	Batch      int `json:"batch"`
	LocalBatch int `json:"local_batch,omitempty"`
	Replicas   int `json:"replicas,omitempty"`
	Rounds     int `json:"rounds,omitempty"`
	// Sync is SyncStep where gradients were averaged at every step, else absent.
	Sync      Sync   `json:"sync,omitempty"`
	Seed      uint64 `json:"seed"`
	KernelSet string `json:"kernel_set,omitempty"`
	Platform  string `json:"platform,omitempty"`
	// Enforcement says who enforced the memory limits.
	Enforcement string `json:"enforcement,omitempty"`

	// Accuracy is the fraction of the test part that the model gets right, Loss
	// its mean cross-entropy there.
	Accuracy float64 `json:"accuracy"`
	Loss     float64 `json:"loss"`
	// Records is the number of test records behind Accuracy and Loss; where it is 0
	// the JSON has none of the three.
	Records int `json:"records"`
	// Confusion counts test records by true class and predicted class.
	Confusion [][]int `json:"confusion,omitempty"`

	Metrics Metrics        `json:"metrics"`
	Actions []RecordAction `json:"actions"`
}

// plainRecord is a Record without its methods.
type plainRecord Record

// MarshalJSON leaves out what was never measured.
func (r Record) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if r.Records > 0 {
		err := encoder.Encode(plainRecord(r))
		return out.Bytes(), err
	}
	// The outer fields hide those of the record.
	err := encoder.Encode(struct {
		plainRecord
		Accuracy *float64 `json:"accuracy,omitempty"`
		Loss     *float64 `json:"loss,omitempty"`
		Records  *int     `json:"records,omitempty"`
	}{plainRecord: plainRecord(r)})
	return out.Bytes(), err
}

// RecordModel names the model of a record.
type RecordModel struct {
	Name       string `json:"name"`
	Parameters int    `json:"parameters,omitempty"`
	// Digest is the hexadecimal SHA-256 of the model's safetensors file.
	Digest string `json:"digest,omitempty"`
}

// Metrics sums up what a job took, over all containers, the failed ones too.
type Metrics struct {
	// Containers counts those that are known to have served. A controller that was
	// killed leaves no word of those that were busy: as many as calls were under
	// way count.
	Containers int `json:"containers"`
	// ColdStarts counts invocations for which a container was started, Warmed those
	// that found one which was started ahead and had served none.
	ColdStarts int `json:"cold_starts"`
	Warmed     int `json:"warmed"`
	// MemoryLimit is the sum of the containers' limits, MemoryPeak of their
	// measured peaks.
	MemoryLimit Bytes `json:"memory_limit_bytes"`
	MemoryPeak  Bytes `json:"memory_peak_bytes"`
	// StorePeak is the most that the job's objects took in the store;
	// ControllerPeak the controller's own peak of resident memory.
	StorePeak      Bytes `json:"store_peak_bytes"`
	ControllerPeak Bytes `json:"controller_peak_bytes"`
	// GBSeconds is the sum over invocations of limit times duration, in GB of
	// 2^30 bytes.
	GBSeconds float64 `json:"gb_seconds"`
	// Cost is GBSeconds times what the user says one costs; nil where he says
	// nothing.
	Cost *float64 `json:"cost,omitempty"`
	// DurationSeconds is the job's wall time; InitSeconds the sum of container
	// start-up times.
	DurationSeconds  float64 `json:"duration_seconds"`
	InitSeconds      float64 `json:"init_seconds"`
	FailedContainers int     `json:"failed_containers"`
	// Handovers counts invocations that stopped early, their state saved.
	Handovers int `json:"handovers"`
	// FailureRate is FailedContainers over Containers.
	FailureRate float64 `json:"failure_rate"`
}

// RecordAction reports one invocation. Sizes are in bytes, times in seconds.
type RecordAction struct {
	// Name is that of the action, which says its memory: m256 for 256 MB of 2^20
	// bytes, b1000000 for a number of bytes that is no whole MB.
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Replica counts from 0. It is 0 for roles that have no replicas.
	Replica int `json:"replica"`
	// Container is the platform's name of the container that served, "" where
	// none did. It is unique within one controller: after a resume the same name
	// may stand for another container.
	Container string `json:"container"`
	// MemoryLimit is the action's memory limit, Predicted what the plan expected
	// the invocation to take of it (0 for a probe), Peak the highest that the
	// platform measured during the invocation; 0 where it is not known.
	MemoryLimit Bytes `json:"memory_limit_bytes"`
	Predicted   Bytes `json:"predicted_bytes"`
	Peak        Bytes `json:"peak_bytes"`
	// DurationSeconds is the time from the call to the answer, InitSeconds that
	// of starting the container before it, 0 in a warm one.
	DurationSeconds float64 `json:"duration_seconds"`
	InitSeconds     float64 `json:"init_seconds"`
	// WaitSeconds is the time from the call until a container took it, StepSeconds
	// the part of DurationSeconds that training steps took, 0 where nothing was
	// trained.
	WaitSeconds float64 `json:"wait_seconds"`
	StepSeconds float64 `json:"step_seconds"`
	// Cold says that the container was started for this invocation, Warmed that it
	// was started ahead, and had served none before.
	Cold   bool `json:"cold"`
	Warmed bool `json:"warmed"`
	// Outcome is "success"; "need_time" for a success that saved its state and
	// handed over when its budget of time ended; "need_peer" for one that did so
	// waiting for other replicas; "running" before it has ended;
	// or how it failed: "application_error" (the worker said why),
	// "out_of_memory" and "timed_out" (the container went over its limit),
	// "refused" (the platform or its container did not take the call),
	// "throttled" (the platform was full), "unauthorised", "lost" (the container
	// died, or nobody knows), and "cancelled" (the job ended first).
	Outcome string `json:"outcome"`
}
