// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"disdel/internal/data/shard"
	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/nn/safetensors"
	"disdel/internal/store"
	"disdel/internal/store/dir"
	"disdel/internal/store/redis"
)

// StoreEnv names the init-only parameter with the store's URL.
const StoreEnv = "DISDEL_STORE"

// sentinel ends the log of a call (OpenWhisk's action interface).
const sentinel = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX\n"

// maxRequestBytes bounds a request: OpenWhisk's payload limit of 1 MB, with
// room for what surrounds the parameters.
const maxRequestBytes = 2 << 20

// Config says how a worker is wired.
type Config struct {
	// Stdout and Stderr get the end-of-call sentinels. Default: discarded.
	Stdout, Stderr io.Writer
	// Collect frees what lies on the heap unused. It is called after each object
	// of the store that leaves garbage behind: the heap of a worker is so small
	// that a collection takes no time, while the collector by itself would let it
	// grow by more than a plan knows of. Default: that is left to the collector.
	Collect func()
	// Shed takes out of memory what the program does not need for its work. It is
	// called before a task takes memory for its model. Default: nothing happens.
	Shed func()
	// Processors is told how many threads a task computes with, before it starts
	// and with 1 after it has ended. Default: nothing happens.
	Processors func(threads int)
	// Kernels computes. Default: the best set for this processor.
	Kernels kernel.Set
	// Open opens the store. Default: [OpenStore].
	Open func(ctx context.Context, url string) (store.Store, error)
	// Container names the container in answers, see job.Self. Default: answers
	// tell nothing about it.
	Container string
	// Peak is the high-water mark of resident memory since ResetPeak. Defaults:
	// unknown, nothing.
	Peak      func() job.Bytes
	ResetPeak func()
}

// Worker serves calls, one after the other.
type Worker struct {
	cfg Config
	// observe is called while a task still holds the memory for its model, when its
	// work is done; nil outside a probe.
	observe func(held int)
	// started is the most that was resident before the first call, 0 if unknown.
	started job.Bytes

	mu    sync.Mutex // held during a call
	url   string     // of the store, once initialised
	store store.Store
	calls int
}

// New makes a worker. It does no I/O.
func New(cfg Config) *Worker {
	if cfg.Stdout == nil {
		cfg.Stdout = io.Discard
	}
	if cfg.Stderr == nil {
		cfg.Stderr = io.Discard
	}
	if cfg.Collect == nil {
		cfg.Collect = func() {}
	}
	if cfg.Shed == nil {
		cfg.Shed = func() {}
	}
	if cfg.Kernels.Name == "" {
		cfg.Kernels = kernel.Best()
	}
	if cfg.Processors == nil {
		cfg.Processors = func(int) {}
	}
	if cfg.Open == nil {
		cfg.Open = OpenStore
	}
	if cfg.Peak == nil {
		cfg.Peak = func() job.Bytes { return 0 }
	}
	if cfg.ResetPeak == nil {
		cfg.ResetPeak = func() {}
	}
	return &Worker{cfg: cfg}
}

// OpenStore opens a store of a kind that workers can reach.
func OpenStore(ctx context.Context, url string) (store.Store, error) {
	scheme, location, err := store.ParseURL(url)
	if err != nil {
		return nil, err
	}
	switch scheme {
	case store.SchemeDir:
		return dir.Open(ctx, location)
	case store.SchemeRedis, store.SchemeRedisTLS:
		address, err := redis.ParseAddress(location)
		if err != nil {
			return nil, err
		}
		s, err := redis.Open(ctx, address)
		if err != nil {
			return nil, err
		}
		return store.WithRetry(s, store.RetryPolicy{}), nil
	default:
		return nil, fmt.Errorf("store: this worker does not know %s://", scheme)
	}
}

// Close releases the store.
func (w *Worker) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.store == nil {
		return nil
	}
	return w.store.Close()
}

// Handler serves POST /init and POST /run.
func (w *Worker) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /init", w.handleInit)
	mux.HandleFunc("POST /run", w.handleRun)
	return mux
}

type initRequest struct {
	Value struct {
		Env map[string]string `json:"env"`
	} `json:"value"`
}

type runRequest struct {
	Value json.RawMessage `json:"value"`
}

func (w *Worker) handleInit(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var req initRequest
	if err := decode(rw, r, &req); err != nil && w.url == "" {
		w.refuse(rw, http.StatusBadRequest, "init: "+err.Error())
		return
	}
	if status, err := w.initialise(r.Context(), req.Value.Env[StoreEnv]); err != nil {
		w.refuse(rw, status, err.Error())
		return
	}
	w.answer(rw, http.StatusOK, []byte(`{"ok":true}`))
}

// initialise takes the store's URL, once. An error comes with the status that
// says whose fault it is.
func (w *Worker) initialise(ctx context.Context, url string) (status int, err error) {
	if w.url != "" {
		return http.StatusForbidden, errors.New("Cannot initialize the action more than once.") //nolint:staticcheck,revive // OpenWhisk's own text.
	}
	if url == "" {
		return http.StatusBadRequest, errors.New("init: parameter " + StoreEnv + " is missing")
	}
	// Platforms take a failed initialisation for the program's fault and do not
	// repeat it. A store that may answer later is therefore opened again by the
	// first call, whose failure says why.
	if err := w.open(ctx, url); err != nil && reasonOf(err) != job.StoreFailed {
		return http.StatusBadGateway, fmt.Errorf("init: %w", err)
	}
	w.url = url
	return http.StatusOK, nil
}

func (w *Worker) open(ctx context.Context, url string) error {
	opened, err := w.cfg.Open(ctx, url)
	if err != nil {
		return err
	}
	w.store = opened
	return nil
}

func (w *Worker) handleRun(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.url == "" {
		w.refuse(rw, http.StatusForbidden, "The action has not been initialized.")
		return
	}
	var req runRequest
	if err := decode(rw, r, &req); err != nil {
		w.refuse(rw, http.StatusBadRequest, "run: "+err.Error())
		return
	}
	w.answer(rw, http.StatusOK, w.serve(r.Context(), req.Value))
	// While the platform reads the answer: what one call left on the heap must
	// not add to what the next one needs.
	if http.NewResponseController(rw).Flush() == nil {
		w.cfg.Collect()
	}
}

// serve carries out one call of an initialised worker and returns its answer.
func (w *Worker) serve(ctx context.Context, params []byte) []byte {
	if w.calls++; w.calls == 1 {
		w.started = w.cfg.Peak()
	}
	w.cfg.Shed()
	if w.calls > 1 {
		w.cfg.ResetPeak()
	}
	result := w.call(ctx, params)
	if w.store != nil {
		if idler, ok := store.As[store.Idler](w.store); ok {
			idler.Idle()
		}
	}
	self := job.Self{Container: w.cfg.Container}
	if w.cfg.Container != "" {
		self.Peak = w.cfg.Peak()
	}
	raw, err := job.EncodeAnswer(result, self)
	if err != nil {
		return []byte(`{"error":"the result cannot be written as JSON"}`)
	}
	return raw
}

func (w *Worker) call(ctx context.Context, params []byte) job.TaskResult {
	var task job.Task
	if err := json.Unmarshal(params, &task); err != nil {
		return job.TaskResult{Error: "parameters: " + err.Error(), Reason: job.BadTask}
	}
	var result job.TaskResult
	var err error
	if w.store == nil {
		err = w.open(ctx, w.url)
	}
	if err == nil {
		if bound, ok := store.As[store.Bounder](w.store); ok {
			bound.Bound(int64(task.Spare))
		}
		var stop func()
		ctx, stop = w.fenced(ctx, task.Fence)
		result, err = w.Do(ctx, task)
		stop()
	}
	if err != nil {
		// Half a result would only mislead.
		return job.TaskResult{Error: err.Error(), Reason: reasonOf(err)}
	}
	return result
}

// fenceInterval is how often a task looks whether it has been ended.
const fenceInterval = time.Second

// errFenced ends a task whose controller does not want it any more.
var errFenced = errors.New("the job has ended")

// fenced returns a context that ends once there is a status under key; stop must
// be called. With no key it is ctx.
func (w *Worker) fenced(ctx context.Context, key string) (_ context.Context, stop func()) {
	if key == "" {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(fenceInterval)
		defer ticker.Stop()
		for {
			// A store that does not answer is the task's own problem.
			if _, err := w.store.Status(ctx, key); err == nil {
				cancel(errFenced)
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

var (
	// errTask is wrapped by errors about tasks that make no sense to this worker.
	errTask = errors.New("bad task")
	// errObject is wrapped by errors about objects that are whole but not what
	// their keys say.
	errObject = errors.New("bad object")
)

// Do carries out one task on the opened store. An error says which object or
// step it is about.
func (w *Worker) Do(ctx context.Context, task job.Task) (job.TaskResult, error) {
	if w.store == nil {
		return job.TaskResult{}, fmt.Errorf("%w: no store is open", errTask)
	}
	if task.Kernel != "" {
		set, err := kernel.Form(task.Kernel)
		if err != nil {
			return job.TaskResult{}, fmt.Errorf("%w: %w", errTask, err)
		}
		forced := &Worker{cfg: w.cfg, store: w.store, observe: w.observe, started: w.started}
		forced.cfg.Kernels = set
		w = forced
	}
	switch task.Role {
	case job.RoleProbe:
		return w.probe(ctx, task)
	case job.RoleNothing:
		return job.TaskResult{}, nil
	case job.RoleTrain:
		return w.train(ctx, task)
	case job.RoleAverage:
		return w.average(ctx, task)
	case job.RoleInfer:
		return w.infer(ctx, task)
	case job.RoleEvaluate:
		return w.evaluate(ctx, task)
	default:
		return job.TaskResult{}, fmt.Errorf("%w: role %q is unknown to this worker; deploy one of the controller's version", errTask, task.Role)
	}
}

// reasonOf classifies an error. What may pass comes before what is corrupt: an
// object whose reading was interrupted may look cut off.
func reasonOf(err error) job.Reason {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
	switch {
	case is(errTask):
		return job.BadTask
	case is(nn.ErrNonFinite):
		return job.NonFinite
	case is(store.ErrUnavailable, store.ErrNotFound, context.Canceled, context.DeadlineExceeded):
		return job.StoreFailed
	case is(store.ErrCorrupt, shard.ErrFormat, safetensors.ErrFormat, errObject):
		return job.Corrupt
	default:
		return job.Internal
	}
}

func decode(rw http.ResponseWriter, r *http.Request, into any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(rw, r.Body, maxRequestBytes))
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("request body: %w", err)
	}
	return nil
}

func (w *Worker) refuse(rw http.ResponseWriter, status int, text string) {
	raw, err := json.Marshal(map[string]string{"error": text})
	if err != nil {
		panic("BUG: a string cannot be encoded: " + err.Error())
	}
	w.answer(rw, status, raw)
}

// answer writes a whole answer with its length: OpenWhisk takes a chunked one
// for none at all.
func (w *Worker) answer(rw http.ResponseWriter, status int, raw []byte) {
	_, _ = io.WriteString(w.cfg.Stdout, sentinel)
	_, _ = io.WriteString(w.cfg.Stderr, sentinel)
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	rw.WriteHeader(status)
	_, _ = rw.Write(raw)
}
