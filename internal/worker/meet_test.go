// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
	"disdel/internal/store"
)

// together lets all replicas go through the whole plan at once, each in a worker
// of its own that starts some time after the one before.
func (x *world) together(delays func(replica int) time.Duration) []job.TaskResult {
	results := make([]job.TaskResult, x.plan.Replicas)
	var group sync.WaitGroup
	for replica := range results {
		group.Go(func() {
			w := New(Config{})
			w.store = x.st
			if err := sleep(x.ctx, delays(replica)); err != nil {
				x.t.Errorf("replica %d: %v", replica, err)
			}
			var err error
			if results[replica], err = w.Do(x.ctx, job.Task{
				Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, Replica: replica, To: x.plan.Steps, Meet: true, Budget: time.Hour,
			}); err != nil {
				x.t.Errorf("replica %d: %v", replica, err)
			}
		})
	}
	group.Wait()
	return results
}

// TestMeet_SameBytes: replicas that meet leave what is left when every round is
// averaged by a task of its own.
func TestMeet_SameBytes(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := tinyPlan()
		n.Replicas = rapid.IntRange(1, 4).Draw(r, "replicas")
		n.LocalBatch = rapid.IntRange(1, 8).Draw(r, "batch")
		n.StepsPerEpoch = rapid.IntRange(1, 6).Draw(r, "steps an epoch")
		n.Steps = n.StepsPerEpoch * n.Epochs
		n.RoundSteps = rapid.IntRange(1, n.Steps).Draw(r, "steps a round")
		late := rapid.SliceOfN(rapid.IntRange(0, 9000), n.Replicas, n.Replicas).Draw(r, "milliseconds late")
		alone := newWorld(r, t.Context(), n)
		want := alone.job(never)
		synctest.Test(t, func(t *testing.T) {
			x := newWorld(r, t.Context(), n)
			results := x.together(func(replica int) time.Duration { return time.Duration(late[replica]) * ms })
			var digests []string
			records := 0
			for replica, result := range results {
				if result.Step != n.Steps || result.Reason != "" || result.Round < n.Rounds()-1 {
					r.Errorf("replica %d: %+v", replica, result)
				}
				if result.Round == n.Rounds() {
					digests = append(digests, result.Digest)
				}
				records += result.Records
			}
			if len(digests) == 0 || slices.ContainsFunc(digests, func(d string) bool { return d != want }) {
				r.Errorf("models %v, want %s", digests, want)
			}
			if most := n.Dataset.Train * n.Epochs; records > most {
				r.Errorf("trained on %d records of %d", records, most)
			}
			left := x.objects()
			sameObjects(r, left, alone.objects())
			states := 0
			for key := range left {
				if strings.HasPrefix(key, x.keys.States()) {
					states++
				}
			}
			if most := 2 + n.Replicas; states > most {
				r.Errorf("%d states are left, want at most %d", states, most)
			}
		})
	})
}

// TestMeet_NeedsPeers: a replica that waits alone gives up when its time is over,
// with its state in the store; the next invocation waits on from there.
func TestMeet_NeedsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newWorld(t, t.Context(), tinyPlan())
		meeting := func(replica, from int) job.TaskResult {
			return x.do(job.Task{Role: job.RoleTrain, Replica: replica, From: from, To: 8, Meet: true, Budget: time.Minute})
		}
		began := time.Now()
		first := meeting(0, 0)
		if first.Step != 3 || first.Reason != job.NeedPeer || first.Round != 0 || first.Records != 9 {
			t.Errorf("alone: %+v", first)
		}
		if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("waited %v", took)
		}
		if again := meeting(0, 3); again.Step != 3 || again.Reason != job.NeedPeer || again.Round != 0 || again.Records != 0 {
			t.Errorf("alone again: %+v", again)
		}
		// The other one comes last to the first round and first to the second.
		if other := meeting(1, 0); other.Step != 6 || other.Reason != job.NeedPeer || other.Round != 1 {
			t.Errorf("the other: %+v", other)
		}
		if got := meeting(0, 3); got.Step != 8 || got.Reason != "" || got.Round != 2 || got.Digest != "" {
			t.Errorf("with the other's states: %+v", got)
		}
		// Started where the log is, it finds where the others are.
		alone := newWorld(t, t.Context(), tinyPlan())
		if got, want := meeting(1, 0), alone.job(never); got.Step != 8 || got.Round != 3 || got.Digest != want {
			t.Errorf("in the end: %+v, want model %s", got, want)
		}
	})
}

// TestMeet_LostAverage: a replica whose average was lost together with what the
// round was made of is taken for an error that may pass, not for a reason to wait.
func TestMeet_LostAverage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newWorld(t, t.Context(), tinyPlan())
		x.job(never)
		if err := x.st.Delete(t.Context(), x.keys.Global(3)); err != nil {
			t.Fatal(err)
		}
		// The rest of its steps is done: that the average at 6 exists says so.
		got := x.do(job.Task{Role: job.RoleTrain, Replica: 1, From: 3, To: 6, Meet: true, Budget: time.Minute})
		if got.Step != 6 || got.Round != 2 || got.Records != 0 {
			t.Errorf("%+v, want steps that are done", got)
		}
		if err := x.st.Delete(t.Context(), x.keys.Global(6), x.keys.Replica(0, 6)); err != nil {
			t.Fatal(err)
		}
		_, err := x.w.Do(t.Context(), job.Task{Role: job.RoleAverage, Job: worldJob, Plan: x.keys.Plan, From: 3, To: 6})
		if reasonOf(err) != job.StoreFailed {
			t.Errorf("average without states: %v, want %s", err, job.StoreFailed)
		}
	})
}

// slowGets takes a while for every object.
type slowGets struct {
	store.Store

	told  int
	wrong error // of telling
}

func (s *slowGets) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	if err := sleep(ctx, tellInterval); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, key)
}

func (s *slowGets) SetStatus(ctx context.Context, key string, value []byte) error {
	if s.told++; s.wrong != nil {
		return s.wrong
	}
	return s.Store.SetStatus(ctx, key, value)
}

// TestTells: a replica whose round takes long says in its middle how far it is.
func TestTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newWorld(t, t.Context(), tinyPlan())
		slow := &slowGets{Store: x.st}
		x.w.store = slow
		if _, err := x.w.Do(t.Context(), job.Task{Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, To: 3}); err != nil {
			t.Fatal(err)
		}
		raw, err := x.st.Status(t.Context(), x.keys.Progress(0))
		var p job.ReplicaProgress
		if err != nil || json.Unmarshal(raw, &p) != nil || p.Step < 1 || p.Step >= 3 || p.Steps != p.Step || slow.told < 1 || slow.told > 3 {
			t.Errorf("told %d times, last %+v, %v; want a step in the middle", slow.told, p, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		x := newWorld(t, t.Context(), tinyPlan())
		slow := &slowGets{Store: x.st, wrong: store.ErrUnavailable}
		x.w.store = slow
		result, err := x.w.Do(t.Context(), job.Task{Role: job.RoleTrain, Job: worldJob, Plan: x.keys.Plan, To: 3})
		if err != nil || result.Step != 3 || slow.told != 1 {
			t.Errorf("told %d times in vain, then step %d, %v; want once, and all steps", slow.told, result.Step, err)
		}
	})
}
