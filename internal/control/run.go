// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/store"
)

// Errors of Run and Resume. A job that failed or was cancelled is no error: its
// record says so.
var (
	// ErrTaken: another controller runs this job.
	ErrTaken = errors.New("another controller runs this job")
	// ErrNoJob: the store has no such job.
	ErrNoJob = errors.New("no such job")
	// ErrEnded: the job has ended and cannot be resumed.
	ErrEnded = errors.New("the job has ended")
)

const (
	// cleanupTimeout bounds what is done after a job has ended or was
	// interrupted.
	cleanupTimeout = 15 * time.Second
	// awaitSlack is how much longer than starting and running an invocation
	// may take, in a queue for example, before it counts as lost.
	awaitSlack = 10 * time.Minute
	// maxTries bounds how often the platform and the log are asked before the
	// job is left for later.
	maxTries = 5
)

// maxUnlogged bounds how long a result may be missing from the log while nothing
// follows from it.
const maxUnlogged = 250 * time.Millisecond

// Probes remembers what probes measured, for the platform and the worker that
// it was made for. Both methods may be called from any goroutine. Their errors
// cost a measurement, never a job.
type Probes interface {
	// Load returns a measurement and true, or false when there is none.
	Load(ctx context.Context) (job.Probe, bool, error)
	// Save keeps a measurement.
	Save(ctx context.Context, p job.Probe) error
}

// Config says with what a job is run.
type Config struct {
	Platform platform.Platform
	Store    store.Store
	// Init are the init-only parameters of workers: the store's address among
	// them. Never logged.
	Init map[string]string
	// Stage puts the job's data into the store. It runs while the job is planned
	// and its containers start, and is not called again. Nil where all of it is
	// there already; a job that was resumed before its data was needs one.
	Stage func(ctx context.Context) error
	// Probes may be nil: then every job probes.
	Probes Probes
	// Observe is called with the state after every change, from the goroutine
	// of Run; it must not keep it. May be nil.
	Observe func(State)
	// Process names this process, for [Attended]; "" leaves it unsaid.
	Process string
	// ControllerPeak measures this process's own peak of resident memory. May be
	// nil.
	ControllerPeak func() job.Bytes
	// Export writes the predictions of an inference job that has an output, whole
	// or not at all; keys are those of the objects that hold them, in the order of
	// the records. It may be called again after a crash. Nil where no job has an
	// output.
	Export func(ctx context.Context, c Created, keys []string) error
}

// Run carries out a job and returns its record. The job's data must be in the
// store, or Config.Stage put it there. When ctx is cancelled the job ends as cancelled. An error means that
// the job is left unfinished and can be resumed, or, with a record that says how
// the job ended, that what it used could not be freed: Resume then tries that
// again.
func Run(ctx context.Context, cfg Config, c Created) (job.Record, error) {
	if err := c.check(); err != nil {
		return job.Record{}, err
	}
	limits, err := cfg.Platform.Limits(ctx)
	if err != nil {
		return job.Record{}, fmt.Errorf("limits of %s: %w", cfg.Platform.Name(), err)
	}
	c.Platform, c.Enforcement, c.Limits = cfg.Platform.Name(), limits.Enforcement, limits
	c.Staging = cfg.Stage != nil
	return newRunner(cfg, c.Job).run(ctx, Event{Created: &c})
}

// Resume goes on with a job whose controller has died. For a job that has ended
// it frees what the job may still use and returns its record with ErrEnded.
func Resume(ctx context.Context, cfg Config, id job.ID) (job.Record, error) {
	s, head, err := load(ctx, cfg.Store, id)
	if err != nil {
		return job.Record{}, err
	}
	r := newRunner(cfg, id)
	r.state, r.head = s, head
	if s.Finished != nil {
		err := fmt.Errorf("job %s: %w: %s", id, ErrEnded, s.Finished.Status)
		return s.Record(), errors.Join(err, r.tidy(ctx))
	}
	if s.Created.Limits.MemoryDefault == 0 {
		return job.Record{}, fmt.Errorf("job %s: its log is of an older version, which cannot be resumed", id)
	}
	r.recollect(ctx)
	return r.run(ctx, Event{Resumed: &Resumed{Nonce: rand.Text()}})
}

// Load reads a job from its log.
func Load(ctx context.Context, s store.Store, id job.ID) (State, error) {
	state, _, err := load(ctx, s, id)
	return state, err
}

func load(ctx context.Context, st store.Store, id job.ID) (s State, head store.Head, err error) {
	entries, err := st.Log(ctx, job.Keys{Job: id}.Log(), head)
	if err != nil {
		return s, head, fmt.Errorf("job %s: %w", id, err)
	}
	if len(entries) == 0 {
		return s, head, fmt.Errorf("job %s: %w in %s", id, ErrNoJob, st.URL())
	}
	for _, entry := range entries {
		events, err := decode(entry.Payload)
		if err != nil {
			return s, head, fmt.Errorf("job %s: log entry %d: %w", id, entry.Head.Sequence, err)
		}
		for _, e := range events {
			if s, err = fold(s, e); err != nil {
				return s, head, fmt.Errorf("job %s: log entry %d: %w", id, entry.Head.Sequence, err)
			}
		}
		head = entry.Head
	}
	return s, head, nil
}

// runner does what decide says, for one job. Its methods are called from one
// goroutine; attempts run in their own and report through ended.
type runner struct {
	cfg  Config
	keys job.Keys
	stop context.CancelFunc // ends waiting for attempts

	state    State
	unlogged []Event // folded into state, not in the log yet
	inDoubt  []byte  // the entry that the last Append may have added or not
	doubted  int     // the number of its events
	flushed  time.Time
	renewed  time.Time
	beaten   bool // this controller has said that it is there
	head     store.Head
	owner    bool // the log has an entry of this controller
	ended    chan Ended

	staged    chan error                 // the end of Stage; nil unless it runs
	endStage  context.CancelFunc         // ends it early
	inFlight  int                        // goroutines that will send to ended
	giveUps   map[int]context.CancelFunc // by attempt in flight
	settled   bool
	removeErr error
	storePeak job.Bytes
	// Of state.Obsolete: what the log knows to be obsolete, and what is deleted.
	sweepable, swept int
}

func newRunner(cfg Config, id job.ID) *runner {
	return &runner{cfg: cfg, keys: job.Keys{Job: id}, ended: make(chan Ended), giveUps: map[int]context.CancelFunc{}}
}

// pkg names the package of the job's controller-th controller. Each has its own,
// so that one that has lost the job cannot touch the actions of the other.
func (r *runner) pkg(controller int) string {
	if controller == 0 {
		return "disdel-" + string(r.keys.Job)
	}
	return fmt.Sprintf("disdel-%s-%d", r.keys.Job, controller)
}

func (r *runner) run(ctx context.Context, first Event) (job.Record, error) {
	// Attempts outlive an interruption: they are ended through the platform, so
	// that what they used is still accounted for.
	attempts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	r.stop = stop
	err := r.append(ctx, first)
	end := func() {}
	if err == nil {
		end = r.beats(ctx)
		r.fence(ctx, 0, r.state.Controllers)
		err = r.removePackages(ctx, 0, r.state.Controllers)
	}
	if err == nil {
		err = r.loop(ctx, attempts)
	}
	end()
	r.unstage()
	return r.finish(ctx, err)
}

// loop runs until the job is finished, ctx is done, or the log cannot be kept.
func (r *runner) loop(ctx, attempts context.Context) error {
	if err := r.recallProbe(ctx); err != nil {
		return err
	}
	if err := r.stage(ctx); err != nil {
		return err
	}
	for r.state.Finished == nil {
		r.renew(ctx)
		acts := decide(r.state, time.Now())
		again, until, err := r.perform(ctx, attempts, acts)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if r.inFlight == 0 && r.staged == nil && until.IsZero() && r.state.Finished == nil {
			return fmt.Errorf("BUG: job %s: nothing to do and nothing to wait for", r.keys.Job)
		}
		if err := r.wait(ctx, until); err != nil {
			return err
		}
	}
	return nil
}

// perform does the actions. again says that the state has changed, until when to
// decide again at the latest.
func (r *runner) perform(ctx, attempts context.Context, acts []action) (again bool, until time.Time, err error) {
	var started []Invoked
	for _, a := range acts {
		switch a := a.(type) {
		case note:
			if a.event.Finished != nil {
				err = r.conclude(ctx, *a.event.Finished)
			} else {
				err = r.append(ctx, a.event)
			}
			again = true
		case adopt:
			err = r.adopt(ctx, a.planned)
			again = true
		case deploy:
			err = r.deploy(ctx, a)
			again = true
		case invoke:
			err = r.note(Event{Invoked: &a.invoked})
			started = append(started, a.invoked)
		case publish:
			err = r.publish(ctx)
			again = true
		case export:
			err = r.export(ctx)
			again = true
		case giveUp:
			if end := r.giveUps[a.attempt]; end != nil {
				end()
			}
		case wait:
			until = a.until
		default:
			err = fmt.Errorf("BUG: job %s: unknown action %T", r.keys.Job, a)
		}
		if err != nil {
			return false, until, err
		}
	}
	if len(started) == 0 {
		return again, until, nil
	}
	if err := r.flush(ctx); err != nil {
		return false, until, err
	}
	for _, i := range started {
		if err := r.start(attempts, i); err != nil {
			return false, until, err
		}
	}
	return again, until, nil
}

// wait waits for attempts to end, at most until the given time, and notes all
// that have.
func (r *runner) wait(ctx context.Context, until time.Time) error {
	if len(r.unlogged) > 0 {
		if due := r.flushed.Add(maxUnlogged); until.IsZero() || due.Before(until) {
			until = due
		}
	}
	if r.watching() {
		if due := time.Now().Add(watchInterval); until.IsZero() || due.Before(until) {
			until = due
		}
	}
	var alarm <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		alarm = timer.C
	}
	var events []Event
	take := func(e Ended) {
		r.inFlight--
		delete(r.giveUps, e.Attempt)
		events = append(events, Event{Ended: &e})
	}
	select {
	case e := <-r.ended:
		take(e)
	case err := <-r.staged:
		return r.stagedNow(ctx, err)
	case <-alarm:
		if r.watching() {
			r.watch(ctx)
		}
		return r.flush(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
	for more := true; more; {
		select {
		case e := <-r.ended:
			take(e)
		default:
			more = false
		}
	}
	if err := r.note(events...); err != nil {
		return err
	}
	r.keepProbe(ctx)
	return nil
}

func (r *runner) recallProbe(ctx context.Context) error {
	if r.cfg.Probes == nil || r.state.Probe != nil {
		return nil
	}
	p, ok, err := r.cfg.Probes.Load(ctx)
	if err != nil || !ok || p.Kernel != r.state.Created.Spec.KernelForm() {
		return nil //nolint:nilerr // What cannot be recalled, or is of other kernels, is measured.
	}
	return r.append(ctx, Event{Probed: &Probed{Probe: p, Cached: true}})
}

// keepProbe remembers a probe that has just been measured.
func (r *runner) keepProbe(ctx context.Context) {
	if r.cfg.Probes != nil && r.state.Probe != nil && r.state.Resources == nil {
		_ = r.cfg.Probes.Save(ctx, *r.state.Probe) // the next job measures again
	}
}

// adopt stores the numerics plan where workers read it, then notes the plan.
func (r *runner) adopt(ctx context.Context, p Planned) error {
	if p.Numerics != nil {
		raw, err := json.Marshal(p.Numerics)
		if err != nil {
			return fmt.Errorf("job %s: numerics plan: %w", r.keys.Job, err)
		}
		key := job.Keys{Job: r.keys.Job, Plan: p.Digest}.Numerics()
		if _, err := r.cfg.Store.PutIfAbsent(ctx, key, func(w io.Writer) error {
			_, err := w.Write(raw)
			return err
		}); err != nil {
			return fmt.Errorf("job %s: %w", r.keys.Job, err)
		}
	}
	return r.append(ctx, Event{Planned: &p})
}

// export ends the job as failed where the user's file cannot be written: that is
// nothing which another controller could mend.
func (r *runner) export(ctx context.Context) error {
	err := errors.New("this program writes no predictions")
	if r.cfg.Export != nil {
		keys := make([]string, len(r.state.Pieces))
		for piece := range keys {
			keys[piece] = r.keys.Predictions(piece)
		}
		err = r.cfg.Export(ctx, *r.state.Created, keys)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return r.conclude(ctx, Finished{Status: job.Failed, Error: err.Error()})
	}
	return r.append(ctx, Event{Exported: &Exported{}})
}

func (r *runner) publish(ctx context.Context) error {
	s := r.state
	if err := copyModel(ctx, r.cfg.Store, s.keys().Final(), s.Digest); err != nil {
		return err
	}
	record := s.Record()
	if err := appendModel(ctx, r.cfg.Store, Model{
		Digest: s.Digest, Name: record.Model.Name, Dataset: record.Dataset, Parameters: record.Model.Parameters,
		Spec: s.Numerics.Model, KernelSet: s.Numerics.KernelSet, Job: record.Job, Created: time.Now().UTC(),
		Epochs: record.Epochs, Replicas: record.Replicas, Accuracy: record.Accuracy,
	}); err != nil {
		return err
	}
	return r.append(ctx, Event{Published: &Published{Digest: s.Digest}})
}
