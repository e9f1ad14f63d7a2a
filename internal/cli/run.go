// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/nn/kernel"
	"disdel/internal/owner"
	"disdel/internal/plan"
	"disdel/internal/report"
	"disdel/internal/store"
	"disdel/internal/worker"
)

// execution is an opened platform and store with which jobs are run.
type execution struct {
	store  store.Store
	config control.Config
	close  func() error
}

// open opens what a job needs. Nothing of it stays after close.
func (a *app) open(ctx context.Context, o *options) (_ *execution, err error) {
	init, err := a.workerInit(o)
	if err != nil {
		return nil, err
	}
	s, err := a.openStore(ctx, o.store)
	if err != nil {
		return nil, err
	}
	p, err := a.choosePlatform(ctx, o, init, s.URL())
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	progress := a.newProgress(o.quiet)
	closeAll := func() error {
		progress.end()
		err := p.close()
		if err == nil {
			a.sweep(ctx, s)
		}
		return errors.Join(err, s.Close())
	}
	limits, err := p.Limits(ctx)
	if err == nil {
		err = checkReach(p.Name(), limits, init)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &execution{
		store: s,
		config: control.Config{
			Platform: p.Platform, Store: s, Init: init, Probes: p.probes,
			Observe: progress.show, ControllerPeak: ownPeak, Process: ownProcess(),
			Export: exporter(s),
		},
		close: closeAll,
	}, nil
}

// question is what a user asks for, found to make sense. In its spec the data
// set has its name, even if the user gave a path.
type question struct {
	spec    job.Spec
	set     *data.Set
	dataset job.Dataset
}

// ask checks a spec and loads its data set. Whatever can be wrong with a command
// line is found here, before anything is opened or started, and before anything
// but a download is written.
func (a *app) ask(ctx context.Context, o *options) (q question, err error) {
	q.spec = o.spec
	if noModelSpec(q.spec.ModelSpec) {
		q.spec.ModelSpec = nil
	}
	if err := q.spec.Validate(); err != nil {
		return q, err
	}
	if err := checkOutput(&q.spec); err != nil {
		return q, err
	}
	own, err := ownModelOf(q.spec)
	if err != nil {
		return q, err
	}
	sources, end := a.dataOptions(o)
	q.set, err = data.Open(ctx, q.spec.Dataset, sources)
	if end(); err != nil {
		return q, err
	}
	q.dataset = datasetOf(q.set)
	q.spec.Dataset = q.dataset.Name
	if own != nil {
		if err := own.fit(&q.spec, q.dataset); err != nil {
			return q, err
		}
	}
	if q.spec.Kind == job.Train {
		// The kernel set does not decide whether there is a plan.
		_, err = plan.Numerics(q.spec, q.dataset, kernel.Generic().Name)
	}
	return q, modelHint(o.spec, err)
}

// prepare chooses the model, which makes a job of a question.
func (a *app) prepare(ctx context.Context, o *options, s store.Store, q question) (control.Created, error) {
	id, err := job.NewID(time.Now(), rand.Reader)
	if err != nil {
		return control.Created{}, err
	}
	created := control.Created{Job: id, Spec: q.spec, Dataset: q.dataset}
	if q.spec.Kind == job.Infer {
		m, err := control.FindModel(ctx, s, q.spec.Dataset, q.spec.Model, a.warn)
		if err != nil {
			return created, o.modelHint(q.spec, err)
		}
		// Better now than by a worker.
		if err := damagedModel(o, m, readThrough(ctx, s, job.ModelKey(m.Digest))); err != nil {
			return created, err
		}
		if err := sameClasses(ctx, s, q.dataset, m); err != nil {
			return created, err
		}
		created.Model = &m
	}
	return created, nil
}

// runJob carries out one job, prints its record and says what it was about.
// With JSON the record is printed whatever happens to the job.
func (a *app) runJob(ctx context.Context, o *options) (record job.Record, d job.Dataset, err error) {
	asked, err := a.ask(ctx, o)
	if err != nil {
		return record, d, a.refused(ctx, o, record, err)
	}
	e, err := a.open(ctx, o)
	if err != nil {
		return record, d, a.refused(ctx, o, record, err)
	}
	defer func() { err = errors.Join(err, e.close()) }()
	// Once it is in the store the set is not looked at again, so its memory is free
	// while the job runs.
	created, err := a.prepare(ctx, o, e.store, asked)
	if err == nil {
		e.config.Stage = stager(e.store, asked.set, asked.dataset)
		record, err = control.Run(ctx, e.config, created)
	}
	return record, created.Dataset, a.conclude(ctx, o, record, err)
}

// conclude prints how a job ended, and returns the error that says it failed.
func (a *app) conclude(ctx context.Context, o *options, record job.Record, err error) error {
	if err != nil {
		if record.Job != "" && record.Status == job.Running && !errors.Is(err, control.ErrTaken) {
			err = fmt.Errorf("%w; the job can be gone on with: %s", err, o.next("resume "+string(record.Job)))
		}
		if !o.json && record.Status == job.Failed && record.Error != "" {
			// The job's own error matters more than what came after it.
			err = errors.Join(errors.New(record.Error), err)
		}
		return a.refused(ctx, o, record, err)
	}
	if err := a.print(o, record); err != nil {
		return err
	}
	switch {
	case record.Status == job.Succeeded:
		return nil
	case o.json:
		fmt.Fprintf(a.stderr, "%s job %s %s: %s\n", a.red("disdel:"), record.Job, record.Status, printable(record.Error))
	default:
		fmt.Fprintf(a.stderr, "%s %s\n", a.red("disdel:"), printable(record.Error))
	}
	return errReported
}

func (a *app) print(o *options, record job.Record) error {
	record = o.priced(record)
	if o.json {
		return report.JSON(a.stdout, record)
	}
	return report.Job(a.page(), record)
}

// refused prints the record of a job that could not be run, for programs, and
// returns the error for people. Wrong usage makes no job and no record.
func (a *app) refused(ctx context.Context, o *options, record job.Record, cause error) error {
	if !o.json || isUsage(cause) {
		return cause
	}
	if record.Job == "" {
		record = job.Record{
			Kind: o.spec.Kind, Dataset: o.spec.Dataset, Model: job.RecordModel{Name: o.spec.Model},
			Strategy: o.spec.Strategy, Epochs: o.spec.Epochs, Batch: o.spec.Batch, Seed: o.spec.Seed, Actions: []job.RecordAction{},
		}
	}
	switch record.Status {
	case job.Succeeded, job.Failed, job.Cancelled:
		// So it ended. The cause is what came after.
		if record.Error == "" {
			record.Error = cause.Error()
		}
	default:
		record.Status, record.Error = job.Failed, cause.Error()
		if ctx.Err() != nil {
			record.Status = job.Cancelled
		}
	}
	return errors.Join(cause, report.JSON(a.stdout, o.priced(record)))
}

// clearScratch deletes what workers left in the store for a job that has no
// controller to do so. It works although ctx may be done.
func clearScratch(ctx context.Context, s store.Store, id job.ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTimeout)
	defer cancel()
	keys, err := s.List(ctx, job.Keys{Job: id}.Scratch())
	if err != nil {
		return err
	}
	return s.Delete(ctx, keys...)
}

// sweep removes what workers that were killed left unfinished in the store, once
// there are no workers any more. It works although ctx may be done.
func (a *app) sweep(ctx context.Context, s store.Store) {
	sweeper, ok := store.As[store.Sweeper](s)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTimeout)
	defer cancel()
	if err := sweeper.Sweep(ctx); err != nil {
		a.warn(fmt.Errorf("left in the store: %w", err))
	}
}

const clearTimeout = 15 * time.Second

// ownProcess names this process, as well as the system allows.
func ownProcess() string {
	if self, err := owner.Self(); err == nil {
		return self.String()
	}
	return unknownProcess
}

// unknownProcess names a process of which nobody can tell whether it lives.
const unknownProcess = "unknown"

// recordOf is a job's record. One that has not ended is interrupted if nobody
// controls it.
func recordOf(ctx context.Context, s store.Store, state control.State) (job.Record, error) {
	record := state.Record()
	if record.Status != job.Running {
		return record, nil
	}
	dead := func(process string) bool { return owner.Parse(process).Dead() }
	attended, err := control.Attended(ctx, s, record.Job, dead, time.Now())
	if err == nil && !attended {
		record.Status = job.Interrupted
	}
	return record, err
}

// ownPeak is this process's peak of resident memory, 0 where the system does not
// tell.
func ownPeak() job.Bytes {
	peak, err := worker.ResidentPeak()
	if err != nil {
		return 0
	}
	return peak
}
