// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
	"disdel/internal/store"
	"disdel/internal/store/dir"
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
	// Kernels computes. Default: the best set for this processor.
	Kernels kernel.Set
	// Open opens the store. Default: [OpenStore].
	Open func(ctx context.Context, url string) (store.Store, error)
}

// Worker serves calls, one after the other.
type Worker struct {
	cfg Config

	mu    sync.Mutex // held during a call
	store store.Store
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
	if cfg.Kernels.Name == "" {
		cfg.Kernels = kernel.Generic()
	}
	if cfg.Open == nil {
		cfg.Open = OpenStore
	}
	return &Worker{cfg: cfg}
}

// OpenStore opens a store of a kind that workers can reach.
func OpenStore(ctx context.Context, url string) (store.Store, error) {
	scheme, path, err := store.ParseURL(url)
	if err != nil {
		return nil, err
	}
	if scheme != store.SchemeDir {
		return nil, fmt.Errorf("store %s: this worker knows dir:// only", url)
	}
	return dir.Open(ctx, path)
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
	if w.store != nil {
		w.refuse(rw, http.StatusForbidden, "Cannot initialize the action more than once.")
		return
	}
	var req initRequest
	if err := decode(rw, r, &req); err != nil {
		w.refuse(rw, http.StatusBadRequest, "init: "+err.Error())
		return
	}
	url := req.Value.Env[StoreEnv]
	if url == "" {
		w.refuse(rw, http.StatusBadRequest, "init: parameter "+StoreEnv+" is missing")
		return
	}
	opened, err := w.cfg.Open(r.Context(), url)
	if err != nil {
		w.refuse(rw, http.StatusBadGateway, "init: "+err.Error())
		return
	}
	w.store = opened
	w.answer(rw, http.StatusOK, map[string]bool{"ok": true})
}

func (w *Worker) handleRun(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.store == nil {
		w.refuse(rw, http.StatusForbidden, "The action has not been initialized.")
		return
	}
	var req runRequest
	if err := decode(rw, r, &req); err != nil {
		w.refuse(rw, http.StatusBadRequest, "run: "+err.Error())
		return
	}
	var task job.Task
	if err := json.Unmarshal(req.Value, &task); err != nil {
		w.answer(rw, http.StatusOK, job.TaskResult{Error: "parameters: " + err.Error(), Reason: job.BadTask})
		return
	}
	result, err := w.Do(r.Context(), task)
	if err != nil {
		// Half a result would only mislead.
		result = job.TaskResult{Error: err.Error(), Reason: reasonOf(err)}
	}
	if idler, ok := w.store.(store.Idler); ok {
		idler.Idle()
	}
	w.answer(rw, http.StatusOK, result)
	// While the platform reads the answer: what one call left on the heap must
	// not add to what the next one needs.
	if http.NewResponseController(rw).Flush() == nil {
		w.cfg.Collect()
	}
}

// errTask is wrapped by errors about tasks that make no sense to this worker.
var errTask = errors.New("bad task")

// Do carries out one task on the opened store. An error says which object or
// step it is about.
func (w *Worker) Do(ctx context.Context, task job.Task) (job.TaskResult, error) {
	if w.store == nil {
		return job.TaskResult{}, fmt.Errorf("%w: no store is open", errTask)
	}
	switch task.Role {
	case job.RoleProbe:
		return w.probe(ctx, task)
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

func reasonOf(err error) job.Reason {
	switch {
	case errors.Is(err, errTask):
		return job.BadTask
	case errors.Is(err, nn.ErrNonFinite):
		return job.NonFinite
	default:
		return job.StoreFailed
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
	w.answer(rw, status, map[string]string{"error": text})
}

// answer writes a whole answer with its length: OpenWhisk takes a chunked one
// for none at all.
func (w *Worker) answer(rw http.ResponseWriter, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"error":"the result cannot be written as JSON"}`)
	}
	_, _ = io.WriteString(w.cfg.Stdout, sentinel)
	_, _ = io.WriteString(w.cfg.Stderr, sentinel)
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	rw.WriteHeader(status)
	_, _ = rw.Write(raw)
}
