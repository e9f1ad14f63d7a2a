// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Driver makes containers: child processes, Docker containers, pods. The pool
// owns the driver that it was opened with and closes it. Methods may be called
// at once from several goroutines.
type Driver interface {
	// Facts returns what is known about the driver; it does no I/O.
	Facts() Facts

	// Start starts a container with a hard memory limit that holds from its
	// first page on, and returns once it exists; it need not answer yet. A
	// driver that can share started containers between actions is told nothing
	// about the action. Cancelling ctx makes Start end soon, with or without a
	// container; with an error nothing is left behind.
	Start(ctx context.Context, spec Spec) (Container, error)

	// Close releases what the driver holds, after all of its containers have
	// been killed. Nothing that the driver made exists afterwards.
	Close() error
}

// Facts describes a driver.
type Facts struct {
	// Name of the platform: "process", "docker".
	Name string
	// Enforcement of memory limits, see platform.Limits.
	Enforcement string
	// LocalFiles says that containers see this machine's file system.
	LocalFiles bool
	// Processors is the number of cores that the containers share, at least 1.
	Processors int
}

// Spec says what container to start.
type Spec struct {
	// ID is unique within the pool; letters, digits and "-".
	ID string
	// Image is what to run, for drivers that run images; "" is the driver's own.
	Image string
	// Memory is the hard limit.
	Memory job.Bytes
	// PayloadMax bounds an answer of the worker; 0 means 1 MB.
	PayloadMax job.Bytes
}

// Container is one container. Init comes first and once; then calls of Run, one
// after the other. Kill, Grow and Done may be called at any time.
type Container interface {
	// Init initialises the worker. Init-only parameters appear in no error, log
	// or command line. An error wraps [ErrAnswered] when the worker refused,
	// [ErrNotSent] when it cannot have seen the request.
	Init(ctx context.Context, req InitRequest) error

	// Run has the worker serve one call. An error wraps [ErrNotSent] when the
	// worker cannot have seen it; with any other error the container is of no
	// use any more. Cancelling ctx makes Run end soon; the container is then of
	// no use either.
	Run(ctx context.Context, req RunRequest) (Answer, error)

	// Grow raises the memory limit in place and returns the limit in force,
	// which is the old one when that could not be done.
	Grow(ctx context.Context, limit job.Bytes) (job.Bytes, error)

	// Kill ends the container with all that runs in it, without grace, waits
	// until it is gone and removes what it left. Idempotent; every call returns
	// how the container ended.
	Kill() Exit

	// Done is closed when the container has ended, by itself or by Kill.
	Done() <-chan struct{}
}

// Pauser is the ability of a container to stand still while it is idle. A
// container that cannot be paused or resumed returns an error and is killed.
type Pauser interface {
	Pause() error
	Resume() error
}

// Errors of Container.Init and Container.Run.
var (
	// ErrNotSent: the worker cannot have seen the request, another container may
	// serve it.
	ErrNotSent = errors.New("request not sent")
	// ErrAnswered: the worker answered, and the answer is an error.
	ErrAnswered = errors.New("worker answered with an error")
	// ErrImage is wrapped by errors of Driver.Start about an image that could not
	// be had.
	ErrImage = errors.New("image cannot be had")
	// ErrProgram is wrapped by errors of Driver.Start about an image without the
	// program that it names.
	ErrProgram = errors.New("program not found in image")
)

// Reply is what a worker answered, as it was: for front ends that have to say
// so in words of their own.
type Reply struct {
	// Status is the HTTP status.
	Status int
	// Body are the first bytes of the answer, at most the maximum payload.
	Body []byte
	// Size is the length of the whole answer.
	Size int64
}

// ReplyError is the error of Container.Init when the worker refused. It wraps
// ErrAnswered.
type ReplyError struct {
	Reply Reply
	text  string
}

func (e *ReplyError) Error() string { return ErrAnswered.Error() + ": " + e.text }

// Unwrap returns ErrAnswered.
func (e *ReplyError) Unwrap() error { return ErrAnswered }

// InitRequest is what a worker is told once.
type InitRequest struct {
	Package, Action string
	Version         string
	Activation      platform.Activation // "" when no call waits for it
	Deadline        time.Time
	Env             map[string]string // init-only parameters; may hold credentials
	// Path is the action's name in full, "/guest/package/action"; "" makes it of
	// the package and the action in the namespace guest.
	Path string
	// Namespace that calls, "" is guest; Transaction, "" is the activation.
	Namespace, Transaction string
	// Main, Code and Binary are the action's code, if it is not in the image;
	// Main "" is main.
	Main, Code string
	Binary     bool
}

// RunRequest is one call.
type RunRequest struct {
	Package, Action string
	Version         string
	Activation      platform.Activation
	Deadline        time.Time
	Params          json.RawMessage
	// Fresh says that this is the container's first call: what Start and Init
	// used is then counted as this call's.
	Fresh bool
	// Path, Namespace and Transaction as in InitRequest.
	Path, Namespace, Transaction string
	// APIKey goes to the worker when it is not "".
	APIKey string
	// Arrays says that a result may be a JSON array.
	Arrays bool
	// Sentinels says that the worker is known to end its output on both streams.
	Sentinels bool
}

// Answer is what came of a call that the container survived.
type Answer struct {
	// Kind is Success or ApplicationError.
	Kind    platform.Kind
	Result  json.RawMessage
	Message string
	// Broken says that the container must not be used again: it broke the
	// action interface.
	Broken bool
	// Peak and Cache as in platform.Usage; 0 when unknown.
	Peak, Cache job.Bytes
	// Reply is the answer itself.
	Reply Reply
	// Logs are the last lines that the container printed during the call.
	Logs []Line
	// Sentinels is on how many streams, of two, the worker printed the line that
	// ends a call's output.
	Sentinels int
}

// Line is one line that a container printed.
type Line struct {
	Time   time.Time
	Stderr bool
	Text   string
}

// Texts are the lines without the rest.
func Texts(lines []Line) []string {
	texts := make([]string, len(lines))
	for i, line := range lines {
		texts[i] = line.Text
	}
	return texts
}

// Sentinel is the line that ends a call's output on each stream (OpenWhisk's
// action interface). Drivers count it and do not keep it.
const Sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"

// Exit is how a container ended.
type Exit struct {
	// OutOfMemory: killed for exceeding its memory limit, as read from the
	// kernel, the engine or the driver's own watch.
	OutOfMemory bool
	// Status says how it ended when it ended by itself: "exit status 3",
	// "signal: segmentation fault"; "" when the pool killed it.
	Status string
	// Peak and Cache as in platform.Usage, as last read; 0 when unknown.
	Peak, Cache job.Bytes
	// Logs are the last lines that it printed during its last call.
	Logs []Line
}
