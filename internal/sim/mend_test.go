// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/platform"
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
