// SPDX-License-Identifier: Apache-2.0

package platform

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"disdel/internal/job"
)

// Errors of the contract. Implementations wrap them; callers use errors.Is.
// [KindOf] maps them to outcome kinds.
var (
	// ErrThrottled: the platform accepts no more calls now; nothing ran.
	ErrThrottled = errors.New("platform: throttled")
	// ErrRefused: what was asked is beyond the platform's limits or malformed;
	// asking again cannot help.
	ErrRefused = errors.New("platform: refused")
	// ErrUnauthorised: the credentials are missing, wrong or too weak.
	ErrUnauthorised = errors.New("platform: unauthorised")
	// ErrNotFound: no such package, action or activation.
	ErrNotFound = errors.New("platform: not found")
	// ErrUnavailable: the platform could not be reached, is closed or failed in
	// a way that may pass. For Invoke it is unknown whether the call runs.
	ErrUnavailable = errors.New("platform: unavailable")
)

// Throttle is an [ErrThrottled] of a platform that says when to ask again.
type Throttle struct {
	// Until is when a try can succeed; before that none can.
	Until time.Time
	// Text says what there was too much of.
	Text string
}

// Error says what there was too much of.
func (t *Throttle) Error() string { return ErrThrottled.Error() + ": " + t.Text }

// Unwrap makes errors.Is(err, ErrThrottled) true.
func (t *Throttle) Unwrap() error { return ErrThrottled }

// Platform runs actions. All methods may be called at once from many
// goroutines and stop with the context's error once ctx is done.
type Platform interface {
	// Name returns the platform's name and isolation for people and for cache
	// keys: "process", "docker", "openwhisk". It does no I/O.
	Name() string

	// Limits returns what the platform allows. Cheap after the first call.
	Limits(ctx context.Context) (Limits, error)

	// Deploy makes the package's actions exist exactly as given, replacing
	// actions of the same name; other actions of the package stay. Idempotent.
	// ErrRefused when an action is outside the limits: then nothing of the
	// package was changed. A cancelled Deploy may have deployed some actions.
	Deploy(ctx context.Context, pkg Package) error

	// Invoke starts one asynchronous call and returns its activation id. Not
	// idempotent. The platform keeps no reference to call.Params after it
	// returns. ErrThrottled and ErrNotFound mean that nothing will run.
	// Cancelling ctx after Invoke returned does not touch the activation.
	Invoke(ctx context.Context, call Call) (Activation, error)

	// Await returns the activation's outcome once it has one. It may be called
	// several times and gives the same answer until Remove, or until newer
	// outcomes have pushed it out: platforms keep thousands. Cancelling ctx
	// leaves the activation running. ErrNotFound for an unknown id.
	Await(ctx context.Context, id Activation) (Outcome, error)

	// Cancel ends the activation as soon as the platform can: it then has the
	// outcome Cancelled unless it ended by itself first. Where Limits.NoCancel is
	// set the call itself goes on, at most until its time limit, and only its
	// outcome is no longer waited for. Idempotent. ErrNotFound for an unknown id.
	Cancel(ctx context.Context, id Activation) error

	// Remove deletes the package, its actions and their containers, cancels its
	// activations, and forgets their outcomes. Idempotent: a package that does
	// not exist is no error. ErrRefused for one that disdel did not make.
	Remove(ctx context.Context, pkg string) error
}

// Limits is what a platform allows, see [job.Limits].
type Limits = job.Limits

// Package is a set of actions with parameters that all of them inherit.
type Package struct {
	// Name is unique on the platform and for the caller.
	Name string
	// Family, where it is not "", says that containers which served a package of
	// this family that is gone may serve this one too, if they are alike in
	// everything else. Platforms without such containers do not look at it.
	Family string
	// Init are the init-only parameters: containers get them once, at /init.
	// They may hold credentials and must not appear in logs, errors or records.
	Init map[string]string
	// Actions have different names.
	Actions []Action
}

// Action is a function with fixed limits.
type Action struct {
	Name    string
	Memory  job.Bytes     // limit of a container; a multiple of Limits.MemoryStep
	Timeout time.Duration // limit of one /init and of one /run
}

// Call is one invocation. Params is a JSON object.
type Call struct {
	Package string
	Action  string
	Params  json.RawMessage
}

// Activation identifies an accepted call.
type Activation string

// Kind classifies how an invocation ended.
type Kind string

// The outcome kinds. Throttled, Refused and Unauthorised are also the classes
// of errors of Deploy and Invoke, see [KindOf].
const (
	// Success: the worker answered with a result.
	Success Kind = "success"
	// ApplicationError: the worker answered, and the answer is an error, or is
	// none that the action interface allows; asking again gives the same. The
	// container lives unless its answer broke the action interface.
	ApplicationError Kind = "application_error"
	// OutOfMemory: the container was killed for exceeding its memory limit.
	OutOfMemory Kind = "out_of_memory"
	// TimedOut: the call overran the action's time limit and was killed.
	TimedOut Kind = "timed_out"
	// Lost: the container or its record is gone for another or unknown reason.
	Lost Kind = "lost"
	// Cancelled: ended by Cancel or Remove.
	Cancelled Kind = "cancelled"
	// Throttled: not started, the platform is full; a later try may succeed.
	Throttled Kind = "throttled"
	// Refused: beyond the platform's limits.
	Refused Kind = "refused"
	// Unauthorised: credentials do not suffice.
	Unauthorised Kind = "unauthorised"
)

// KindOf classifies an error of Deploy, Invoke or Await. Errors that are none
// of the contract's are Lost: whether the call ran is unknown.
func KindOf(err error) Kind {
	switch {
	case err == nil:
		return Success
	case errors.Is(err, ErrThrottled):
		return Throttled
	case errors.Is(err, ErrRefused), errors.Is(err, ErrNotFound):
		return Refused
	case errors.Is(err, ErrUnauthorised):
		return Unauthorised
	case errors.Is(err, context.Canceled):
		return Cancelled
	default:
		return Lost
	}
}

// Outcome is how an activation ended and what it used.
type Outcome struct {
	Kind Kind
	// Result is the worker's answer, a JSON object: for Success and
	// ApplicationError (then with a member "error"). The caller owns it.
	Result json.RawMessage
	// Message says in one line what happened, for every kind but Success.
	Message string
	// MaybeMemory is set with Lost where the platform cannot tell a container
	// that was killed by its memory limit from one that died otherwise.
	MaybeMemory bool
	// TooLarge is set with Refused where the platform took a call that no
	// machine of it has the memory for.
	TooLarge bool
	Usage    Usage
}

// Usage is what an activation took.
type Usage struct {
	// Container that served the call; "" when none did, or it is not known.
	Container string
	// Cold says that the container was started for this call, Warmed that it was
	// started ahead of any and that this is its first.
	Cold, Warmed bool
	// Limit is the container's memory limit.
	Limit job.Bytes
	// Peak is the kernel's high-water mark of resident memory of the
	// container's process during this call, plus its group's kernel memory. For
	// a container killed by its limit it is the limit. 0 when unknown.
	Peak job.Bytes
	// Cache is reclaimable page cache charged to the container, not in Peak.
	Cache job.Bytes
	// Wait is the time from Invoke until a container took the call, without
	// Init; Init the time of starting and initialising a cold container;
	// Duration the time of the call itself.
	Wait, Init, Duration time.Duration
}

// LogReader is the ability to read what a container printed.
type LogReader interface {
	// Logs returns the last lines, oldest first, that the activation's container
	// printed during the call; bounded by the platform. ErrNotFound for an
	// unknown id.
	Logs(ctx context.Context, id Activation) ([]string, error)
}

// Grower is the ability to raise the memory limit of a running container.
type Grower interface {
	// Grow raises the limit of the container that serves id in place, to at
	// most limit, and returns the limit that is now in force: the old one when
	// it was refused. It answers at once and never queues.
	Grow(ctx context.Context, id Activation, limit job.Bytes) (job.Bytes, error)
}

// Prewarmer is the ability to start containers before calls need them.
type Prewarmer interface {
	// Prewarm asks for count idle containers of the action, best effort: fewer
	// are started when the pool has no room. Idempotent.
	Prewarm(ctx context.Context, pkg, action string, count int) error
}
