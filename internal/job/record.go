// SPDX-License-Identifier: Apache-2.0

package job

// Status says how a job stands.
type Status string

// The statuses. Running is never the status of a final record.
const (
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
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

	Epochs     int    `json:"epochs"`
	Batch      int    `json:"batch"`
	LocalBatch int    `json:"local_batch"`
	Replicas   int    `json:"replicas"`
	Rounds     int    `json:"rounds"`
	Seed       uint64 `json:"seed"`
	KernelSet  string `json:"kernel_set,omitempty"`
	Platform   string `json:"platform,omitempty"`
	// Enforcement says who enforced the memory limits.
	Enforcement string `json:"enforcement,omitempty"`

	// Accuracy is the fraction of the test part that the model gets right, Loss
	// its mean cross-entropy there.
	Accuracy float64 `json:"accuracy"`
	Loss     float64 `json:"loss"`
	// Records is the number of test records behind Accuracy and Loss.
	Records int `json:"records"`
	// Confusion counts test records by true class and predicted class.
	Confusion [][]int `json:"confusion,omitempty"`

	Metrics Metrics        `json:"metrics"`
	Actions []RecordAction `json:"actions"`
}

// RecordModel names the model of a record.
type RecordModel struct {
	Name       string `json:"name"`
	Parameters int    `json:"parameters"`
	// Digest is the hexadecimal SHA-256 of the model's safetensors file.
	Digest string `json:"digest"`
}

// Metrics sums up what a job took, over all containers, the failed ones too.
type Metrics struct {
	Containers int `json:"containers"`
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

// RecordAction reports one invocation.
type RecordAction struct {
	Name            string  `json:"name"`
	Role            Role    `json:"role"`
	Replica         int     `json:"replica"`
	Container       string  `json:"container"`
	MemoryLimit     Bytes   `json:"memory_limit_bytes"`
	Predicted       Bytes   `json:"predicted_bytes"`
	Peak            Bytes   `json:"peak_bytes"`
	DurationSeconds float64 `json:"duration_seconds"`
	InitSeconds     float64 `json:"init_seconds"`
	Cold            bool    `json:"cold"`
	Outcome         string  `json:"outcome"`
}
