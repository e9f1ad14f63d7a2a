// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/points"
	"disdel/internal/store"
)

// lazy is a platform that removes nothing until it was asked often enough, and
// not by somebody whose context is done.
type lazy struct {
	*cloud
	refusals int
}

func (s *lazy) Remove(ctx context.Context, pkg string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.refusals > 0 {
		s.refusals--
		return platform.ErrUnavailable
	}
	return s.cloud.Remove(ctx, pkg)
}

// TestRemoveFailsAtFirst: actions that could not be removed when the job ended
// are removed before the controller ends.
func TestRemoveFailsAtFirst(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		cfg := w.config()
		cfg.Platform = &lazy{cloud: w.cloud, refusals: 7}
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
	})
}

// restarting is a platform that is away for a while, and when it comes back has
// lost its packages and its calls.
type restarting struct {
	*cloud
	after, away time.Duration
	began       time.Time
	lost        bool
}

func (p *restarting) up() error {
	since := time.Since(p.began) - p.after
	p.mu.Lock()
	if since >= 0 && !p.lost {
		p.lost = true
		clear(p.packages)
		for _, a := range p.running {
			a.fence()
		}
	}
	p.mu.Unlock()
	if since >= 0 && since < p.away {
		return fmt.Errorf("connection refused: %w", platform.ErrUnavailable)
	}
	return nil
}

func (p *restarting) Deploy(ctx context.Context, pkg platform.Package) error {
	if err := p.up(); err != nil {
		return err
	}
	return p.cloud.Deploy(ctx, pkg)
}

func (p *restarting) Invoke(ctx context.Context, call platform.Call) (platform.Activation, error) {
	if err := p.up(); err != nil {
		return "", err
	}
	return p.cloud.Invoke(ctx, call)
}

// Await answers once the platform is back.
func (p *restarting) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	back := time.NewTimer(time.Until(p.began.Add(p.after + p.away)))
	defer back.Stop()
	p.mu.Lock()
	a := p.running[id]
	p.mu.Unlock()
	select {
	case <-a.done:
		return a.outcome, nil
	case <-back.C:
	case <-ctx.Done():
		return platform.Outcome{}, ctx.Err()
	}
	if a.ctx.Err() != nil {
		return platform.Outcome{Kind: platform.Lost, Message: "it was lost"}, nil
	}
	return p.cloud.Await(ctx, id)
}

// TestPlatformRestarts: a job rides out that its platform is away, whenever that
// begins and although everything that was deployed and ran is lost; not for ever.
func TestPlatformRestarts(t *testing.T) {
	for _, r := range points.Some([]recipe{recipes[0], oneByOne}) {
		digest := golden(t, r)
		met := 0
		for after := 20 * time.Millisecond; after < 600*time.Millisecond; after += 40 * time.Millisecond {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, noFaults)
				cfg := w.config()
				cfg.Platform = &restarting{cloud: w.cloud, began: time.Now(), after: after, away: 30 * time.Second}
				record, err := control.Run(t.Context(), cfg, r.created())
				if err != nil || record.Status != job.Succeeded {
					t.Fatalf("away after %v: %s %s, %v", after, record.Status, record.Error, err)
				}
				w.checkEnded(record, job.Succeeded, digest)
				if record.Metrics.DurationSeconds > 30 {
					met++
				}
			})
		}
		if met < 5 {
			t.Errorf("%d jobs were under way when the platform went away", met)
		}
	}
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		cfg := w.config()
		cfg.Platform = &restarting{cloud: w.cloud, began: time.Now(), after: 300 * time.Millisecond, away: time.Hour}
		began := time.Now()
		record, err := control.Run(t.Context(), cfg, recipes[0].created())
		if took := time.Since(began); err != nil && !errors.Is(err, platform.ErrUnavailable) || record.Status == job.Succeeded || took > 15*time.Minute {
			t.Errorf("away for ever: %s %s, %v after %v", record.Status, record.Error, err, took)
		}
	})
}

// TestInterruptedRemoves: an interruption does not keep the actions from being
// removed.
func TestInterruptedRemoves(t *testing.T) {
	r := recipes[0]
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cfg := w.config()
		cfg.Platform = &lazy{cloud: w.cloud, refusals: 2}
		cfg.Observe = func(s control.State) {
			if s.Round > 0 {
				cancel()
			}
		}
		record, err := control.Run(ctx, cfg, r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Cancelled, "")
	})
}

// reluctant is a store whose first Appends to the list of models fail, every
// other one after it has had its effect.
type reluctant struct {
	store.Store
	failures int
}

func (s *reluctant) Append(ctx context.Context, log string, head store.Head, payload []byte) (store.Head, error) {
	if log != job.ModelsLog || s.failures == 0 {
		return s.Store.Append(ctx, log, head, payload)
	}
	if s.failures--; s.failures%2 == 0 {
		if _, err := s.Store.Append(ctx, log, head, payload); err != nil {
			return head, err
		}
	}
	return store.Head{}, fmt.Errorf("append: %w", store.ErrUnavailable)
}

// TestListOfModels: an entry that nobody can decode and appends that fail do not
// keep a model from being listed, once.
func TestListOfModels(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		if _, err := w.store.Append(t.Context(), job.ModelsLog, store.Head{}, []byte("no model")); err != nil {
			t.Fatal(err)
		}
		cfg := w.config()
		cfg.Store = &reluctant{w.store, 3}
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil || record.Status != job.Succeeded {
			t.Fatalf("%s %s, %v", record.Status, record.Error, err)
		}
		w.cloud.tasks.Wait()
		var warnings []error
		warn := func(err error) { warnings = append(warnings, err) }
		if m, err := control.FindModel(t.Context(), w.store, "tiny", "", warn); err != nil || m.Digest != digest || len(warnings) != 1 {
			t.Errorf("model %s, %v, warnings %v; want one warning", m.Digest, err, warnings)
		}
		if entries, err := w.store.Log(t.Context(), job.ModelsLog, store.Head{}); err != nil || len(entries) != 2 {
			t.Errorf("%d entries, %v; want the broken one and the model", len(entries), err)
		}
	})
}

// TestModelIsReplaced: what is stored in the place of the model is not taken for
// it.
func TestModelIsReplaced(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w := newWorld(t, noFaults)
		if _, err := w.store.PutIfAbsent(t.Context(), job.ModelKey(digest), func(out io.Writer) error {
			_, err := out.Write([]byte("another model"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		record, err := control.Run(t.Context(), w.config(), r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		object, err := w.store.Get(t.Context(), job.ModelKey(digest))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(object)
		if err = errors.Join(err, object.Close()); err != nil || string(raw) == "another model" {
			t.Errorf("the model is %d bytes, %v", len(raw), err)
		}
	})
}
