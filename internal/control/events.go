// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/store"
)

// Event is one thing that happened to a job. Exactly one of the pointers is set.
type Event struct {
	At time.Time `json:"at"`

	Created   *Created   `json:"created,omitempty"`
	Staged    *Staged    `json:"staged,omitempty"`
	Probed    *Probed    `json:"probed,omitempty"`
	Planned   *Planned   `json:"planned,omitempty"`
	Replanned *Replanned `json:"replanned,omitempty"`
	Deployed  *Deployed  `json:"deployed,omitempty"`
	Invoked   *Invoked   `json:"invoked,omitempty"`
	Ended     *Ended     `json:"ended,omitempty"`
	Published *Published `json:"published,omitempty"`
	Exported  *Exported  `json:"exported,omitempty"`
	Resumed   *Resumed   `json:"resumed,omitempty"`
	Finished  *Finished  `json:"finished,omitempty"`
}

// Created is a job's first event: what was asked for, of whom.
type Created struct {
	Job     job.ID      `json:"job"`
	Spec    job.Spec    `json:"spec"`
	Dataset job.Dataset `json:"dataset"`
	// Model is the stored model that an inference job runs.
	Model *Model `json:"model,omitempty"`
	// Platform and Enforcement say where it runs.
	Platform    string     `json:"platform"`
	Enforcement string     `json:"enforcement,omitempty"`
	Limits      job.Limits `json:"limits"`
	// PlanOnly ends the job once its plan is made.
	PlanOnly bool `json:"plan_only,omitempty"`
	// Staging says that the data was not known to be in the store when the job
	// began: staged says so.
	Staging bool `json:"staging,omitempty"`
}

// Staged says that all of the job's data is in the store.
type Staged struct{}

// Probed says what workers are like on this platform.
type Probed struct {
	Probe job.Probe `json:"probe"`
	// Cached: measured for an earlier job.
	Cached bool `json:"cached,omitempty"`
}

// Planned fixes the bits (training only) and the first resource plan.
type Planned struct {
	Numerics  *job.Numerics `json:"numerics,omitempty"`
	Digest    string        `json:"digest,omitempty"`
	Resources job.Resources `json:"resources"`
}

// Replanned replaces the resource plan.
type Replanned struct {
	Resources job.Resources `json:"resources"`
}

// Deployed says that an action exists, with that time limit.
type Deployed struct {
	Action  string        `json:"action"`
	Timeout time.Duration `json:"timeout_ns,omitempty"`
}

// Invoked says that an attempt is about to be made.
type Invoked struct {
	Attempt  int       `json:"attempt"`
	Action   string    `json:"action"`
	Revision int       `json:"revision"`
	Task     job.Task  `json:"task"`
	Limit    job.Bytes `json:"limit"`
}

// Ended says how an attempt ended.
type Ended struct {
	Attempt int             `json:"attempt"`
	Kind    platform.Kind   `json:"kind"`
	Message string          `json:"message,omitempty"`
	Result  *job.TaskResult `json:"result,omitempty"`
	Usage   platform.Usage  `json:"usage"`
	// NotBefore is when a throttled call can succeed, as the platform says.
	NotBefore time.Time `json:"not_before,omitzero"`
	// MaybeMemory and TooLarge as in platform.Outcome.
	MaybeMemory bool `json:"maybe_memory,omitempty"`
	TooLarge    bool `json:"too_large,omitempty"`
	// Away says that the platform could not be reached, Undeployed that it no
	// longer has the action.
	Away       bool `json:"away,omitempty"`
	Undeployed bool `json:"undeployed,omitempty"`
}

// Published says that the trained model is in the store's list of models.
type Published struct {
	Digest string `json:"digest"`
}

// Exported says that the predictions are in the user's file.
type Exported struct{}

// Resumed says that another controller took over: attempts in flight are lost.
type Resumed struct {
	// Nonce tells controllers apart that take a job over in the same instant: the
	// log takes the entry of one, and the other must not think it its own.
	Nonce string `json:"nonce,omitempty"`
}

// Finished is a job's last event.
type Finished struct {
	Status job.Status `json:"status"`
	Error  string     `json:"error,omitempty"`
	// StorePeak and ControllerPeak as in job.Metrics.
	StorePeak      job.Bytes `json:"store_peak"`
	ControllerPeak job.Bytes `json:"controller_peak"`
}

// entryBytes is how large a log entry may grow before the rest of the events
// goes to the next one.
const entryBytes = store.MaxEntryBytes / 2

// encodeSome makes one log entry of the first events, of all where they fit. It
// returns the number of events in it, at least one.
func encodeSome(events []Event) (entry []byte, count int, err error) {
	entry = []byte{'['}
	for i, e := range events {
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, 0, fmt.Errorf("encode events: %w", err)
		}
		if i > 0 {
			if len(entry)+len(raw) > entryBytes {
				break
			}
			entry = append(entry, ',')
		}
		entry = append(entry, raw...)
		count++
	}
	return append(entry, ']'), count, nil
}

func decode(raw []byte) ([]Event, error) {
	var events []Event
	if err := json.Unmarshal(raw, &events); err != nil {
		return nil, fmt.Errorf("decode events: %w", err)
	}
	return events, nil
}
