// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// The statuses of a record.
const (
	statusSuccess     = "success"
	statusApplication = "application error"
	statusDeveloper   = "action developer error"
)

// Texts of OpenWhisk (common/.../http/ErrorResponse.scala, releases 1.0.0 to
// 2.0.0 and later) and of the proxy of its Go runtimes.
const (
	textMemory      = "The action exhausted its memory and was aborted."
	textNoAnswer    = "The action did not produce a valid response and exited unexpectedly."
	textNoInit      = "The action did not initialize and exited unexpectedly."
	textTime        = "The action exceeded its time limits of "
	textChild       = "command exited" // also "Command exited abruptly during initialization."
	textNoAction    = "no action defined yet"
	textCannotStart = "cannot start action"
	textPull        = "Failed to pull container image"
	textExecutable  = "executable file not found in image"
	textProvision   = "Failed to provision resources to run the action."
	textVersion     = "Execution environment version mismatch"
	textGone        = "Action could not be found or may have been deleted."
	textFetch       = "Action could not be fetched."
	textLogs        = "ata might be missing." // the last line where logs could not be had whole
	textRequests    = "Too many concurrent requests in flight"
)

// started says that a container took the call.
func (r *record) started() bool {
	return r.Response.Success || find(r.Annotations, "waitTime") != nil && r.Duration > 0
}

// outcome reads what became of a call of the action.
func (r *record) outcome(action platform.Action) platform.Outcome {
	out := platform.Outcome{Usage: r.usage(action), Result: r.Response.Result}
	var object map[string]json.RawMessage
	_ = json.Unmarshal(r.Response.Result, &object) // nil for what is no object
	text := errorText(object["error"])
	limit := fmt.Sprintf("memory limit of %v", action.Memory)
	end := func(kind platform.Kind, format string, args ...any) platform.Outcome {
		out.Kind, out.Message = kind, fmt.Sprintf(format, args...)
		switch kind {
		case platform.Success, platform.ApplicationError:
		default:
			out.Result = nil
		}
		return out
	}
	switch r.Response.Status {
	case statusSuccess:
		if object == nil {
			return withError(end(platform.ApplicationError, "worker did not answer with a JSON object: %s", clip(string(r.Response.Result), quoteMax)))
		}
		out.Kind = platform.Success
		return out
	case statusApplication:
		switch {
		case strings.HasPrefix(text, textGone):
			return end(platform.Lost, "%s", text)
		case threshold.MatchString(text):
			return end(platform.Refused, "%s", text)
		}
		return withError(end(platform.ApplicationError, "%s", text))
	case statusDeveloper:
	default: // the platform's own fault
		if strings.HasPrefix(text, textFetch) {
			return end(platform.Lost, "%s", text)
		}
		return end(platform.Lost, "%s%s%s", text, hint(text), r.last())
	}
	lower := strings.ToLower(text)
	switch {
	case r.flag("timeout"), strings.HasPrefix(text, textTime):
		phase := ""
		if strings.Contains(text, "during initialization") {
			phase = " during initialization (a worker that dies there ends like this too)"
		}
		return end(platform.TimedOut, "call exceeded its time limit of %v%s%s", action.Timeout, phase, r.last())
	case strings.HasPrefix(text, textMemory):
		out.Usage.Peak = action.Memory
		return end(platform.OutOfMemory, "container exceeded its %s and was killed", limit)
	case strings.HasPrefix(text, textNoAnswer), strings.HasPrefix(text, textNoInit),
		strings.Contains(lower, textChild), strings.HasPrefix(text, textNoAction):
		out.MaybeMemory = true
		return end(platform.Lost, "container died without an answer, maybe for its %s: %s%s", limit, text, r.last())
	case strings.HasPrefix(text, textPull), strings.HasPrefix(text, textExecutable):
		return end(platform.Refused, "%s%s", strings.TrimSuffix(text, "."), hint(text))
	case strings.HasPrefix(text, textRequests):
		return end(platform.Throttled, "%s", text)
	}
	return withError(end(platform.ApplicationError, "%s%s%s", text, hint(text), r.last()))
}

// withError has the result of an application error be an object with a member
// "error", as the contract wants it.
func withError(out platform.Outcome) platform.Outcome {
	var object map[string]json.RawMessage
	if json.Unmarshal(out.Result, &object) == nil && object["error"] != nil {
		return out
	}
	raw, err := json.Marshal(map[string]string{"error": out.Message})
	if err != nil {
		panic("BUG: a string cannot be encoded: " + err.Error())
	}
	out.Result = raw
	return out
}

// hint says what the user can do about an error of the deployment.
func hint(text string) string {
	switch {
	case strings.Contains(text, textPull):
		return "; check --image, and that the deployment's invokers may pull it"
	case strings.Contains(text, textExecutable):
		return "; the image is no image of a worker, or not for the invokers' processors"
	case strings.Contains(text, textProvision):
		return "; the container could not be started: the image is missing or ends at once, the action has more memory than the invoker has for containers, or the invoker is in trouble"
	case strings.Contains(text, textVersion):
		return "; the runtime wants programs made for another release of it: give its kind with --kind"
	case strings.Contains(strings.ToLower(text), textCannotStart):
		return "; the worker must be for Linux and for the invokers' processors (GOARCH)"
	}
	return ""
}

// usage reads what a call used. The record says nothing of the container; the
// worker's own answer may.
func (r *record) usage(action platform.Action) platform.Usage {
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	u := platform.Usage{
		Cold: find(r.Annotations, "initTime") != nil, Limit: action.Memory,
		Wait: ms(r.number("waitTime")), Init: ms(r.number("initTime")),
	}
	u.Duration = max(0, ms(r.Duration)-u.Init)
	if self, ok := job.SelfOf(r.Response.Result); ok {
		u.Container = self.Container
		u.Peak = min(self.Peak, action.Memory)
	}
	return u
}

// errorText is the value of a result's member "error" as text.
func errorText(raw json.RawMessage) string {
	var text string
	var object struct {
		Text string `json:"text"`
	}
	switch {
	case json.Unmarshal(raw, &text) == nil && text != "":
	case json.Unmarshal(raw, &object) == nil && object.Text != "":
		text = object.Text
	case string(raw) != "null":
		text = string(raw)
	}
	if text = clip(text, quoteMax); text == "" {
		return "no reason is given"
	}
	return text
}

// last is the last line that the container printed, for messages about calls
// without an answer.
func (r *record) last() string {
	for i := len(r.Logs) - 1; i >= 0; i-- {
		line := clip(printed(r.Logs[i]), quoteMax)
		if line != "" && !strings.HasSuffix(line, textLogs) {
			return "; it last printed: " + line
		}
	}
	return ""
}
