// SPDX-License-Identifier: Apache-2.0

package control

import (
	"cmp"
	"context"
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
	// Probes may be nil: then every job probes.
	Probes Probes
	// Observe is called with the state after every change, from the goroutine
	// of Run; it must not keep it. May be nil.
	Observe func(State)
	// ControllerPeak measures this process's own peak of resident memory. May be
	// nil.
	ControllerPeak func() job.Bytes
}

// Run carries out a job and returns its record. The job's data must be in the
// store. When ctx is cancelled the job ends as cancelled. An error means that
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
	return r.run(ctx, Event{Resumed: &Resumed{}})
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
		return s, head, fmt.Errorf("job %s: %w in %s; see: disdel jobs", id, ErrNoJob, st.URL())
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
	head     store.Head
	owner    bool // the log has an entry of this controller
	ended    chan Ended

	inFlight  int // goroutines that will send to ended
	settled   bool
	removeErr error
	storePeak job.Bytes
	// Of state.Obsolete: what the log knows to be obsolete, and what is deleted.
	sweepable, swept int
}

func newRunner(cfg Config, id job.ID) *runner {
	return &runner{cfg: cfg, keys: job.Keys{Job: id}, ended: make(chan Ended)}
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
	if err == nil {
		err = r.removePackages(ctx, 0, r.state.Controllers)
	}
	if err == nil {
		err = r.loop(ctx, attempts)
	}
	return r.finish(ctx, err)
}

// loop runs until the job is finished, ctx is done, or the log cannot be kept.
func (r *runner) loop(ctx, attempts context.Context) error {
	if err := r.recallProbe(ctx); err != nil {
		return err
	}
	for r.state.Finished == nil {
		acts := decide(r.state, time.Now())
		again, until, err := r.perform(ctx, attempts, acts)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if r.inFlight == 0 && until.IsZero() && r.state.Finished == nil {
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
	if r.cfg.Observe != nil && r.meeting() {
		if due := time.Now().Add(progressInterval); until.IsZero() || due.Before(until) {
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
		events = append(events, Event{Ended: &e})
	}
	select {
	case e := <-r.ended:
		take(e)
	case <-alarm:
		if r.cfg.Observe != nil && r.meeting() {
			r.look(ctx)
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

// progressInterval is how often workers that go through several rounds are
// looked at.
const progressInterval = 250 * time.Millisecond

// meeting says whether workers go through several rounds an invocation, so that
// the log alone is slow to say how far they are.
func (r *runner) meeting() bool {
	return r.state.Numerics != nil && r.state.Resources.SpanRounds > 1 && !r.state.trained()
}

// look reads how far the replicas are, for people, and samples the store's size.
// What cannot be read now is read later.
func (r *runner) look(ctx context.Context) {
	keys := r.state.keys()
	live := make([]job.ReplicaProgress, r.state.Numerics.Replicas)
	for replica := range live {
		raw, err := r.cfg.Store.Status(ctx, keys.Progress(replica))
		if err != nil || json.Unmarshal(raw, &live[replica]) != nil {
			live[replica] = job.ReplicaProgress{}
		}
	}
	r.peaks(ctx)
	r.state.Live = live
	r.cfg.Observe(r.state)
}

// note folds events that happened together. They reach the log with the next
// flush, which comes before anything that follows from them has an effect: a
// crash in between forgets results, which repeating gives again.
func (r *runner) note(events ...Event) (err error) {
	now := time.Now().UTC()
	for _, e := range events {
		e.At = now
		if r.state, err = fold(r.state, e); err != nil {
			return fmt.Errorf("BUG: job %s: %w", r.keys.Job, err)
		}
		r.unlogged = append(r.unlogged, e)
	}
	if len(events) > 0 && r.cfg.Observe != nil {
		r.cfg.Observe(r.state)
	}
	return nil
}

// append notes events and flushes them.
func (r *runner) append(ctx context.Context, events ...Event) error {
	if err := r.note(events...); err != nil {
		return err
	}
	return r.flush(ctx)
}

// flush logs what has been noted, as one entry.
func (r *runner) flush(ctx context.Context) error {
	for len(r.unlogged) > 0 {
		payload, count, err := encodeSome(r.unlogged)
		if err != nil {
			return err
		}
		if err := r.appendEntry(ctx, payload, count); err != nil {
			return err
		}
	}
	r.flushed = time.Now()
	r.sweepable = len(r.state.Obsolete)
	r.sweep(ctx)
	return nil
}

// appendEntry adds the first count of the unlogged events to the log. An Append
// that failed may have added them all the same: the log is read to learn that,
// now or, when the store does not answer, at the next flush.
func (r *runner) appendEntry(ctx context.Context, payload []byte, count int) error {
	err := patiently(ctx, func() error {
		if r.inDoubt != nil {
			if added, err := r.resolve(ctx); added || err != nil {
				return err
			}
		}
		head, err := r.cfg.Store.Append(ctx, r.keys.Log(), r.head, payload)
		switch {
		case err == nil:
			r.logged(head, count)
		case errors.Is(err, store.ErrConflict):
			return fmt.Errorf("%w: %w", ErrTaken, err)
		case !errors.Is(err, store.ErrLimit):
			r.inDoubt, r.doubted = payload, count
		}
		return err
	}, func(err error) bool { return errors.Is(err, store.ErrUnavailable) })
	if err != nil {
		return fmt.Errorf("job %s: log: %w", r.keys.Job, err)
	}
	return nil
}

// resolve finds out what became of the entry in doubt.
func (r *runner) resolve(ctx context.Context) (added bool, err error) {
	entries, err := r.cfg.Store.Log(ctx, r.keys.Log(), r.head)
	if err != nil {
		return false, err
	}
	next := r.head.Next(r.inDoubt)
	switch {
	case len(entries) == 0:
		r.inDoubt = nil
		return false, nil
	case entries[0].Head == next:
		r.logged(next, r.doubted)
		return true, nil
	default:
		return false, fmt.Errorf("%w: the log is at %d", ErrTaken, entries[len(entries)-1].Head.Sequence)
	}
}

// logged says that the first count of the unlogged events are in the log.
func (r *runner) logged(head store.Head, count int) {
	r.head, r.unlogged, r.inDoubt, r.owner = head, r.unlogged[count:], nil, true
}

// patiently calls do until it succeeds, fails for good, or has failed maxTries
// times.
func patiently(ctx context.Context, do func() error, transient func(error) bool) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || !transient(err) || try == maxTries {
			return err
		}
		timer := time.NewTimer(min(backoffFirst<<(try-1), backoffMost))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

func (r *runner) recallProbe(ctx context.Context) error {
	if r.cfg.Probes == nil || r.state.Probe != nil {
		return nil
	}
	p, ok, err := r.cfg.Probes.Load(ctx)
	if err != nil || !ok {
		return nil //nolint:nilerr // What cannot be recalled is measured.
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

func (r *runner) deploy(ctx context.Context, d deploy) error {
	err := patiently(ctx, func() error {
		return r.cfg.Platform.Deploy(ctx, platform.Package{
			Name:    r.pkg(r.state.Controllers),
			Init:    r.cfg.Init,
			Actions: []platform.Action{{Name: d.name, Memory: d.memory, Timeout: d.timeout}},
		})
	}, passing)
	if errors.Is(err, platform.ErrRefused) || errors.Is(err, platform.ErrUnauthorised) {
		return r.conclude(ctx, Finished{Status: job.Failed, Error: err.Error()})
	}
	if err != nil {
		return fmt.Errorf("job %s: deploy: %w", r.keys.Job, err)
	}
	return r.append(ctx, Event{Deployed: &Deployed{Action: d.name}})
}

// passing says whether an error of the platform may pass.
func passing(err error) bool {
	return errors.Is(err, platform.ErrUnavailable) || errors.Is(err, platform.ErrThrottled)
}

// start invokes an attempt that is in the log already.
func (r *runner) start(ctx context.Context, i Invoked) error {
	params, err := json.Marshal(i.Task)
	if err != nil {
		return fmt.Errorf("job %s: attempt %d: %w", r.keys.Job, i.Attempt, err)
	}
	r.inFlight++
	call := platform.Call{Package: r.pkg(r.state.Controllers), Action: i.Action, Params: params}
	limit := awaitSlack + 2*r.timeout() // to start and to run
	numerics := r.state.Numerics
	go func() {
		e := attempt(ctx, r.cfg.Platform, call, limit)
		e.Attempt = i.Attempt
		if e.Kind == platform.Success {
			if err := checkResult(numerics, i.Task, e.Result); err != nil {
				e.Kind, e.Message = platform.Lost, err.Error()
			}
		}
		r.ended <- e
	}()
	return nil
}

// timeout is the time limit of invocations now.
func (r *runner) timeout() time.Duration {
	if r.state.Resources != nil {
		return r.state.Resources.Timeout
	}
	return cmp.Or(r.state.Created.Spec.Timeout, r.state.Created.Limits.TimeoutDefault)
}

// attempt makes one invocation and waits for its outcome.
func attempt(ctx context.Context, p platform.Platform, call platform.Call, limit time.Duration) Ended {
	id, err := p.Invoke(ctx, call)
	if err != nil {
		return Ended{Kind: platform.KindOf(err), Message: "invoke: " + err.Error()}
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := p.Await(bounded, id)
	if err != nil {
		e := Ended{Kind: platform.KindOf(err), Message: "await: " + err.Error()}
		if errors.Is(err, platform.ErrNotFound) || ctx.Err() == nil && bounded.Err() != nil {
			e.Kind = platform.Lost // its record is gone, or there never will be one
		}
		if !errors.Is(err, platform.ErrNotFound) {
			abandon(ctx, p, id)
		}
		return e
	}
	e := Ended{Kind: out.Kind, Message: out.Message, Usage: out.Usage}
	if out.Kind != platform.Success && out.Kind != platform.ApplicationError {
		return e
	}
	var result job.TaskResult
	if err := json.Unmarshal(out.Result, &result); err != nil {
		e.Kind, e.Message = platform.Lost, "the worker's answer is no task result: "+err.Error()
		return e
	}
	e.Result = &result
	if result.Error != "" {
		e.Kind, e.Message = platform.ApplicationError, result.Error
	}
	if result.Probe != nil && out.Usage.Peak > 0 {
		// The platform also sees what belongs to the container but not to the
		// process.
		result.Probe.Package = max(result.Probe.Package, out.Usage.Peak-result.Probe.Held)
	}
	return e
}

// abandon ends an invocation whose outcome nobody waits for, as far as that is
// possible: what it may still do is harmless.
func abandon(ctx context.Context, p platform.Platform, id platform.Activation) {
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	_ = p.Cancel(cleanup, id)
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

// peaks samples the store's and the controller's memory.
func (r *runner) peaks(ctx context.Context) (inStore, controller job.Bytes) {
	if size, err := r.cfg.Store.Size(ctx, r.keys.Scratch()); err == nil {
		r.storePeak = max(r.storePeak, size)
	}
	if r.cfg.ControllerPeak != nil {
		controller = r.cfg.ControllerPeak()
	}
	return r.storePeak, controller
}

// sweep deletes states that nothing will read again, according to the log: what
// is only known here must stay, for a controller that does not know it. What
// cannot be deleted now is tried again, in the end by clear.
func (r *runner) sweep(ctx context.Context) {
	if r.sweepable == r.swept {
		return
	}
	r.peaks(ctx)
	if err := r.cfg.Store.Delete(ctx, r.state.Obsolete[r.swept:r.sweepable]...); err == nil {
		r.swept = r.sweepable
	}
}

// conclude ends the job.
func (r *runner) conclude(ctx context.Context, f Finished) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	f.StorePeak, f.ControllerPeak = r.peaks(ctx)
	return r.append(ctx, Event{Finished: &f})
}

// settle removes the job's actions, which ends all attempts, and notes how they
// ended. Actions that cannot be removed do not keep a job from ending.
func (r *runner) settle(ctx context.Context) (err error) {
	if r.settled {
		return nil
	}
	r.settled = true
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	if r.removeErr = r.removePackages(ctx, r.state.Controllers, r.state.Controllers+1); r.removeErr != nil {
		r.stop()
	}
	for _, e := range r.drain(ctx) {
		switch e.Kind {
		case platform.Lost, platform.Refused:
			// Not by itself: its action was just removed.
			e.Kind = platform.Cancelled
		}
		err = errors.Join(err, r.note(Event{Ended: &e}))
	}
	for i, a := range r.state.Attempts {
		if a.Ended == nil {
			e := Ended{Attempt: i, Kind: platform.Cancelled, Message: "the job ended before it was started"}
			err = errors.Join(err, r.note(Event{Ended: &e}))
		}
	}
	return err
}

// removePackages removes the packages of the from-th to the to-th controller.
func (r *runner) removePackages(ctx context.Context, from, to int) error {
	for controller := from; controller < to; controller++ {
		name := r.pkg(controller)
		if err := patiently(ctx, func() error { return r.cfg.Platform.Remove(ctx, name) }, passing); err != nil {
			return fmt.Errorf("job %s: remove its actions: %w", r.keys.Job, err)
		}
	}
	return nil
}

// drain waits for all attempts and returns how they ended. Once ctx is done it
// ends the waiting: what an attempt used then stays unknown.
func (r *runner) drain(ctx context.Context) (ended []Ended) {
	for r.inFlight > 0 {
		select {
		case e := <-r.ended:
			r.inFlight--
			ended = append(ended, e)
		case <-ctx.Done():
			r.stop()
			ctx = context.WithoutCancel(ctx)
		}
	}
	return ended
}

// finish frees the platform and the store, and logs how an interrupted job
// ended. It works although ctx may be done.
func (r *runner) finish(ctx context.Context, cause error) (job.Record, error) {
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if !r.owner && r.inDoubt == nil {
		return r.recordOf(cause) // nothing has begun
	}
	err := cause
	if ctx.Err() != nil && !errors.Is(cause, ErrTaken) {
		err = nil // a consequence of the interruption
	}
	err = errors.Join(err, r.settle(cleanup))
	if err == nil && r.state.Finished == nil {
		err = r.conclude(cleanup, Finished{Status: job.Cancelled, Error: "interrupted"})
	}
	if !errors.Is(err, ErrTaken) {
		// Also after another error: what is known now need not be done again.
		if flushErr := r.flush(cleanup); err == nil || errors.Is(flushErr, ErrTaken) {
			err = flushErr
		}
	}
	if err == nil && r.state.Finished != nil {
		err = r.clear(cleanup)
	}
	return r.recordOf(errors.Join(err, r.removeErr))
}

// recordOf is the job's record according to the log.
func (r *runner) recordOf(err error) (job.Record, error) {
	if len(r.unlogged) > 0 {
		r.state.Finished = nil
	}
	return r.state.Record(), err
}

// tidy frees what a job that has ended may still use.
func (r *runner) tidy(ctx context.Context) error {
	return errors.Join(r.removePackages(ctx, 0, r.state.Controllers+1), r.clear(ctx))
}

// clear deletes the job's scratch objects.
func (r *runner) clear(ctx context.Context) error {
	keys, err := r.cfg.Store.List(ctx, r.keys.Scratch())
	if err != nil {
		return fmt.Errorf("job %s: clear: %w", r.keys.Job, err)
	}
	if err := r.cfg.Store.Delete(ctx, keys...); err != nil {
		return fmt.Errorf("job %s: clear: %w", r.keys.Job, err)
	}
	if n := r.state.Numerics; n != nil {
		for replica := range n.Replicas {
			if err := r.cfg.Store.SetStatus(ctx, r.keys.Progress(replica), nil); err != nil {
				return fmt.Errorf("job %s: clear: %w", r.keys.Job, err)
			}
		}
	}
	return nil
}
