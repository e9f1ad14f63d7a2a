// SPDX-License-Identifier: Apache-2.0

package job

import (
	"encoding/json"
	"fmt"
)

// Self is what a worker tells about its container, for platforms that cannot
// look into containers themselves.
type Self struct {
	// Container names the container, differently from all others.
	Container string `json:"container"`
	// Peak is the high-water mark of resident memory during the call; 0 when
	// unknown.
	Peak Bytes `json:"peak_bytes,omitempty"`
}

// Valid says whether a worker can have told that: what a platform passes on may
// be anything.
func (s Self) Valid() bool {
	if s.Container == "" || len(s.Container) > maxSelf || s.Peak < 0 {
		return false
	}
	for _, c := range s.Container {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

const maxSelf = 128

// failure is the value of the member "error" of an answer. OpenWhisk keeps that
// member alone of an answer that has it, so all that matters is inside.
type failure struct {
	Text   string `json:"text"`
	Reason Reason `json:"reason,omitempty"`
	Self   *Self  `json:"self,omitempty"`
}

// EncodeAnswer writes the answer of a worker to /run: the result's members and
// "self", or for a failure {"error": {"text", "reason", "self"}}. A self that is
// not valid is left out.
func EncodeAnswer(r TaskResult, self Self) ([]byte, error) {
	var told *Self
	if self.Valid() {
		told = &self
	}
	var answer any = struct {
		TaskResult
		Self *Self `json:"self,omitempty"`
	}{r, told}
	if r.Error != "" {
		answer = struct {
			Error failure `json:"error"`
		}{failure{r.Error, r.Reason, told}}
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return raw, nil
}

// DecodeAnswer reads what EncodeAnswer wrote. An error that is plain text has no
// reason.
func DecodeAnswer(raw []byte) (TaskResult, error) {
	var answer struct {
		TaskResult
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return TaskResult{}, fmt.Errorf("answer: %w", err)
	}
	if answer.Error == nil || string(answer.Error) == "null" {
		return answer.TaskResult, nil
	}
	var f failure
	if json.Unmarshal(answer.Error, &f.Text) != nil {
		if err := json.Unmarshal(answer.Error, &f); err != nil {
			return TaskResult{}, fmt.Errorf("answer: its error: %w", err)
		}
	}
	result := answer.TaskResult
	result.Error = f.Text
	if f.Reason != "" {
		result.Reason = f.Reason
	}
	if result.Error == "" {
		result.Error = "the worker gives no reason"
	}
	return result, nil
}

// SelfOf finds what an answer tells about its container; false when it tells
// nothing that can be true.
func SelfOf(raw []byte) (Self, bool) {
	var answer struct {
		Self  *Self           `json:"self"`
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(raw, &answer) != nil {
		return Self{}, false
	}
	var f failure
	if answer.Self == nil && len(answer.Error) > 0 && json.Unmarshal(answer.Error, &f) == nil {
		answer.Self = f.Self
	}
	if answer.Self == nil || !answer.Self.Valid() {
		return Self{}, false
	}
	return *answer.Self, true
}
