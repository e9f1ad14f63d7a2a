// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/store"
)

// warmCloud is a cloud that starts containers ahead.
type warmCloud struct {
	*cloud
	mu     sync.Mutex
	warmed []string
}

func (c *warmCloud) Prewarm(_ context.Context, pkg, action string, count int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warmed = append(c.warmed, fmt.Sprintf("%s/%s %d", pkg, action, count))
	return errors.New("a job goes on without")
}

// remembered is a probe that an earlier job made.
type remembered struct{ job.Probe }

func (r remembered) Load(context.Context) (job.Probe, bool, error) { return r.Probe, true, nil }
func (remembered) Save(context.Context, job.Probe) error           { return nil }

// stagingLasts is how long the data takes to be put into the store.
const stagingLasts = 10 * time.Second

// stagedWorld is a world whose data is put into the store while the job begins.
func stagedWorld(t *testing.T) (w *world, cfg control.Config, warm *warmCloud, done func() bool) {
	w = newWorld(t, noFaults)
	warm = &warmCloud{cloud: w.cloud}
	cfg = w.config()
	cfg.Platform = warm
	cfg.Probes = remembered{job.Probe{Version: "test", KernelSet: kernelSet, Package: 9 * job.MB, Held: job.MB, FLOPS: 1e9, StoreRate: 1e8}}
	var mu sync.Mutex
	ready := false
	cfg.Stage = func(ctx context.Context) error {
		timer := time.NewTimer(stagingLasts)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		ready = true
		return nil
	}
	return w, cfg, warm, func() bool { mu.Lock(); defer mu.Unlock(); return ready }
}

// TestStaging_ContainersStartMeanwhile: while the data is put into the store the
// job is planned, its action deployed and as many containers as it takes started;
// nothing reads the data before it is there, and the model is the same.
func TestStaging_ContainersStartMeanwhile(t *testing.T) {
	r := recipes[0]
	digest := golden(t, r)
	bubble(t, func(t *testing.T) {
		w, cfg, warm, ready := stagedWorld(t)
		w.cloud.observe = func(op string) {
			if !ready() {
				t.Errorf("a worker does %s while the data is put into the store", op)
			}
		}
		phases := map[string]bool{}
		cfg.Observe = func(s control.State) { phases[s.Progress().Phase] = true }
		record, err := control.Run(t.Context(), cfg, r.created())
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
		if want := []string{"disdel-sim/m128 2"}; fmt.Sprint(warm.warmed) != fmt.Sprint(want) {
			t.Errorf("started ahead: %v, want %v", warm.warmed, want)
		}
		if !phases["data"] {
			t.Errorf("phases %v; want one in which the data is waited for", phases)
		}
	})
}

// TestStaging_Fails: a job whose data cannot be put into the store fails and says
// why; one that is cancelled meanwhile ends at once.
func TestStaging_Fails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, cfg, _, _ := stagedWorld(t)
		cfg.Stage = func(context.Context) error { return errors.New("the disk is full") }
		record, err := control.Run(t.Context(), cfg, recipes[0].created())
		if err != nil || !strings.Contains(record.Error, "the disk is full") {
			t.Errorf("record %+v, %v", record, err)
		}
		w.checkEnded(record, job.Failed, "")
	})
	bubble(t, func(t *testing.T) {
		w, cfg, _, ready := stagedWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), stagingLasts/2)
		defer cancel()
		record, err := control.Run(ctx, cfg, recipes[0].created())
		if err != nil || ready() {
			t.Errorf("record %+v, %v", record, err)
		}
		w.checkEnded(record, job.Cancelled, "")
	})
}

// begun leaves the log of a job whose controller was killed before the data was in
// the store.
func begun(t *testing.T, w *world) {
	t.Helper()
	c := recipes[0].created()
	c.Limits, c.Staging = w.cloud.limits, true
	entry, err := json.Marshal([]control.Event{{At: time.Now().UTC(), Created: &c}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Append(t.Context(), job.Keys{Job: jobID}.Log(), store.Head{}, entry); err != nil {
		t.Fatal(err)
	}
}

// TestStaging_Resumed: the next controller puts the data there, or says that it
// cannot.
func TestStaging_Resumed(t *testing.T) {
	digest := golden(t, recipes[0])
	bubble(t, func(t *testing.T) {
		w, cfg, _, _ := stagedWorld(t)
		begun(t, w)
		record, err := control.Resume(t.Context(), cfg, jobID)
		if err != nil {
			t.Fatal(err)
		}
		w.checkEnded(record, job.Succeeded, digest)
	})
	bubble(t, func(t *testing.T) {
		w, cfg, _, _ := stagedWorld(t)
		begun(t, w)
		cfg.Stage = nil
		record, err := control.Resume(t.Context(), cfg, jobID)
		if err != nil || !strings.Contains(record.Error, "start the job anew") {
			t.Errorf("record %+v, %v", record, err)
		}
		w.checkEnded(record, job.Failed, "")
	})
}

// TestResume_SameInstant: controllers that take a job over in the same instant
// write different entries, so that none takes another's for its own.
func TestResume_SameInstant(t *testing.T) {
	bubble(t, func(t *testing.T) {
		entries := map[string]bool{}
		for range 2 {
			w, cfg, _, _ := stagedWorld(t)
			begun(t, w)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, _ = control.Resume(ctx, cfg, jobID) // it gets no further than its first entry
			cfg.Stage = nil
			if _, err := control.Resume(t.Context(), cfg, jobID); err != nil {
				t.Fatal(err)
			}
			log, err := w.store.Log(t.Context(), job.Keys{Job: jobID}.Log(), store.Head{})
			if err != nil || len(log) < 2 {
				t.Fatalf("%d entries, %v", len(log), err)
			}
			entries[string(log[1].Payload)] = true
		}
		if len(entries) != 2 {
			t.Errorf("both wrote %v", entries)
		}
	})
}
